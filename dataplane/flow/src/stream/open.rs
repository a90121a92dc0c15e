//! What comes: records taken out of received buffers, opened in place.

use super::State;
use ring::{Buf, Error, OutBuf};
use wire::tls::{Failure, Opened, Session};

/// What has arrived of a session and was not taken.
pub(super) struct Incoming {
    /// Records as they came.
    arrived: Option<Buf>,
    /// The beginning of a record whose rest is to come.
    partial: Option<OutBuf>,
    /// Opened, but not taken.
    opened: Option<Buf>,
    end: End,
}

enum End {
    Open,
    /// close_notify
    Closed,
    Failed(Failure),
}

impl Incoming {
    pub(super) fn new(arrived: Option<Buf>) -> Incoming {
        Incoming { arrived, partial: None, opened: None, end: End::Open }
    }

    /// More records; those before have been taken.
    pub(super) fn arrived(&mut self, buf: Buf) {
        debug_assert!(self.arrived.is_none());
        self.arrived = Some(buf);
    }

    pub(super) fn put_back(&mut self, buf: Buf) {
        self.opened = Some(buf);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.arrived.is_none() && self.partial.is_none() && self.opened.is_none()
    }

    pub(super) fn holds_part(&self) -> bool {
        self.partial.is_some() && matches!(self.end, End::Open)
    }

    pub(super) fn failure(&self) -> Option<Failure> {
        match self.end {
            End::Failed(failure) => Some(failure),
            End::Open | End::Closed => None,
        }
    }

    /// The next record, whole: as it lies where it arrived in one piece, else gathered.
    fn record(&mut self) -> Option<Result<Buf, Failure>> {
        if self.partial.is_none() {
            let arrived = self.arrived.as_ref()?;
            match Session::record_length(arrived) {
                Ok(Some(length)) if length <= arrived.len() => {
                    let mut record = self.arrived.take()?;
                    self.arrived = (record.len() > length).then(|| record.split_off(length));
                    return Some(Ok(record));
                }
                Ok(_) => self.partial = Some(OutBuf::new()),
                Err(failure) => return Some(Err(failure)),
            }
        }
        self.gather().transpose()
    }

    /// Moves what belongs to the record from what arrived to what was gathered.
    fn gather(&mut self) -> Result<Option<Buf>, Failure> {
        let Some(mut partial) = self.partial.take() else { return Ok(None) };
        loop {
            let length = Session::record_length(&partial)?;
            let missing = length.unwrap_or(Session::HEADER) - partial.len();
            if missing == 0 && length.is_some() {
                return Buf::gathered(partial).map(Some).map_err(|_| Failure::Limit);
            }
            let Some(mut arrived) = self.arrived.take() else {
                self.partial = Some(partial);
                return Ok(None);
            };
            let taken = missing.min(arrived.len());
            if taken > missing / 4 {
                partial.reserve_exact(missing);
            }
            partial.extend_from_slice(&arrived[..taken]);
            arrived.advance(taken);
            self.arrived = Some(arrived).filter(|rest| !rest.is_empty());
        }
    }
}

impl State {
    /// What came next, as far as it has arrived: bytes, the end (`None` inside), or a failure.
    pub(super) fn next(&mut self) -> Option<Result<Option<Buf>, Error>> {
        if let Some(opened) = self.incoming.opened.take() {
            return Some(Ok(Some(opened)));
        }
        loop {
            match self.incoming.end {
                End::Open => {}
                End::Closed => return Some(Ok(None)),
                End::Failed(_) => return Some(Err(Error::Reset)),
            }
            let opened = self.incoming.record()?.and_then(|mut record| {
                let opened = self.session.open(&mut record)?;
                Ok((record, opened))
            });
            match opened {
                Ok((mut record, Opened::Data(range))) if !range.is_empty() => {
                    record.truncate(range.end);
                    record.advance(range.start);
                    return Some(Ok(Some(record)));
                }
                Ok((_, Opened::Data(_) | Opened::Nothing)) => {}
                Ok((_, Opened::Closed)) => self.incoming.end = End::Closed,
                Err(failure) => self.incoming.end = End::Failed(failure),
            }
        }
    }
}
