//! A connection as load and origin see it: bytes out, bytes in, with TLS below or without.
//!
//! ```text
//!  socket ──► Buf of records ──► one Buf a record, opened where it lies; gathered when it spans buffers ──► recv
//!  send ──► Message ──► records in output memory ──► socket
//! ```

use std::borrow::Cow;

use ring::{Buf, Error, Message, OutBuf, Socket};
use wire::tls::{Client, Failure, HandshakeState, Opened, Server, Session};

/// Why something could not be done, as it stands in reports.
pub(crate) type Kind = Cow<'static, str>;

/// An open connection.
pub(crate) struct Stream {
    socket: Socket,
    tls: Option<Box<Tls>>,
}

/// What both ends of a connection agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Agreed {
    /// The cipher suite's name.
    pub(crate) suite: &'static str,
    /// A former session was resumed.
    pub(crate) resumed: bool,
}

/// Why a connection cannot be used further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    /// It broke, or time ran out.
    Socket(Error),
    /// The ends did not agree, or one of them broke the rules.
    Tls(Failure),
    /// It ended without close_notify, so that what came may not be all.
    Cut,
}

struct Tls {
    session: Session,
    agreed: Agreed,
    /// Records as they came.
    arrived: Option<Buf>,
    /// A record that spans buffers, as far as it has come.
    gathered: OutBuf,
}

/// What came next.
enum Next {
    Data(Buf),
    End,
    /// More has to arrive.
    More,
}

impl From<Error> for Broken {
    fn from(error: Error) -> Broken {
        Broken::Socket(error)
    }
}

impl From<Failure> for Broken {
    fn from(failure: Failure) -> Broken {
        Broken::Tls(failure)
    }
}

impl Broken {
    /// In a report's words.
    pub(crate) fn kind(self) -> Kind {
        match self {
            Broken::Socket(Error::TimedOut) => "timeout".into(),
            Broken::Socket(_) => "reset".into(),
            Broken::Tls(failure) => format!("tls {}", failure.label()).into(),
            Broken::Cut => "closed without close_notify".into(),
        }
    }
}

impl Stream {
    pub(crate) fn plain(socket: Socket) -> Stream {
        Stream { socket, tls: None }
    }

    /// The client's side of a handshake.
    pub(crate) async fn connect(socket: Socket, client: &Client, until_ns: u64) -> Result<Stream, Broken> {
        let session = Session::connect(client)?;
        Stream::shake(socket, session, until_ns).await
    }

    /// The server's side.
    pub(crate) async fn accept(socket: Socket, server: &Server, until_ns: u64) -> Result<Stream, Broken> {
        let session = Session::accept(server)?;
        Stream::shake(socket, session, until_ns).await
    }

    async fn shake(socket: Socket, mut session: Session, until_ns: u64) -> Result<Stream, Broken> {
        let mut arrived = OutBuf::new();
        loop {
            let mut out = OutBuf::new();
            session.tick(ring::now());
            let step = session.handshake(&mut arrived, &mut out);
            arrived.drain(..step.consumed);
            let mut message = Message::new();
            message.out(out);
            // Also what tells of a failure.
            let sent = socket.send(&mut message, until_ns).await;
            match step.state {
                HandshakeState::Failed(failure) => {
                    linger(&socket).await;
                    return Err(Broken::Tls(failure));
                }
                HandshakeState::Done => {
                    sent?;
                    let peer = session.take_peer();
                    let agreed = Agreed { suite: peer.suite, resumed: peer.resumed };
                    let tls = Tls { session, agreed, arrived: None, gathered: OutBuf::new() };
                    let mut tls = Box::new(tls);
                    if !arrived.is_empty() {
                        tls.arrived = Some(Buf::gathered(arrived).map_err(|_| Failure::Limit)?);
                    }
                    return Ok(Stream { socket, tls: Some(tls) });
                }
                HandshakeState::More => sent?,
            }
            match socket.recv(until_ns).await? {
                Some(buf) => arrived.extend_from_slice(&buf),
                None => return Err(Broken::Tls(Failure::PeerGone)),
            }
        }
    }

    /// What the ends agreed on; `None` without TLS.
    pub(crate) fn agreed(&self) -> Option<Agreed> {
        self.tls.as_ref().map(|tls| tls.agreed)
    }

    /// The next bytes; `None` at the end of the stream.
    pub(crate) async fn recv(&mut self, until_ns: u64) -> Result<Option<Buf>, Broken> {
        let Some(tls) = &mut self.tls else { return Ok(self.socket.recv(until_ns).await?) };
        loop {
            match tls.next() {
                Ok(Next::Data(buf)) => return Ok(Some(buf)),
                Ok(Next::End) => return Ok(None),
                Ok(Next::More) => {}
                Err(failure) => {
                    let mut out = OutBuf::new();
                    tls.session.alert(failure, &mut out);
                    let mut message = Message::new();
                    message.out(out);
                    // Whoever broke the rules need not hear of it.
                    let _ = self.socket.send(&mut message, until_ns).await;
                    return Err(Broken::Tls(failure));
                }
            }
            tls.arrived = Some(self.socket.recv(until_ns).await?.ok_or(Broken::Cut)?);
        }
    }

    /// Sends all of `message` and empties it. One send at a time.
    pub(crate) async fn send(&mut self, message: &mut Message, until_ns: u64) -> Result<(), Broken> {
        if let Some(tls) = &mut self.tls {
            let mut out = OutBuf::new();
            tls.session.take_pending(&mut out)?;
            message.with_parts(|parts| {
                let parts: Vec<&[u8]> = parts.iter().map(|part| &**part).collect();
                tls.session.seal(&parts, &mut out)
            })?;
            message.take_parts(drop);
            message.out(out);
        }
        Ok(self.socket.send(message, until_ns).await?)
    }

    /// Says that nothing more will be sent: close_notify where there is TLS, then FIN.
    pub(crate) async fn finish(&mut self, until_ns: u64) {
        if let Some(tls) = &mut self.tls {
            let mut out = OutBuf::new();
            tls.session.close(&mut out);
            let mut message = Message::new();
            message.out(out);
            message.is_last();
            // The FIN says the same to whoever can still hear it.
            let _ = self.socket.send(&mut message, until_ns).await;
        }
        self.socket.shutdown_write();
    }

    /// Waits until the other end has closed the connection, after its last bytes.
    pub(crate) async fn wait_closed(&self, until_ns: u64) -> Result<(), Broken> {
        while self.socket.recv(until_ns).await?.is_some() {}
        Ok(())
    }

    /// Makes the coming close a reset.
    pub(crate) fn reset_on_close(&self) {
        self.socket.reset_on_close();
    }
}

/// Closing over unread input would reset the connection and destroy the alert.
async fn linger(socket: &Socket) {
    socket.shutdown_write();
    let until_ns = ring::now() + 1_000_000_000;
    while let Ok(Some(_)) = socket.recv(until_ns).await {}
}

impl Tls {
    fn next(&mut self) -> Result<Next, Failure> {
        while let Some(mut record) = self.record()? {
            match self.session.open(&mut record)? {
                Opened::Data(range) if !range.is_empty() => {
                    record.truncate(range.end);
                    record.advance(range.start);
                    return Ok(Next::Data(record));
                }
                Opened::Data(_) | Opened::Nothing => {}
                Opened::Closed => return Ok(Next::End),
            }
        }
        Ok(Next::More)
    }

    /// The next whole record.
    fn record(&mut self) -> Result<Option<Buf>, Failure> {
        while let Some(mut arrived) = self.arrived.take() {
            if self.gathered.is_empty()
                && let Some(length) = Session::record_length(&arrived)?.filter(|length| *length <= arrived.len())
            {
                self.arrived = (arrived.len() > length).then(|| arrived.split_off(length));
                return Ok(Some(arrived));
            }
            let wanted = Session::record_length(&self.gathered)?.unwrap_or(Session::HEADER);
            let taken = arrived.len().min(wanted - self.gathered.len());
            self.gathered.extend_from_slice(&arrived[..taken]);
            arrived.advance(taken);
            self.arrived = Some(arrived).filter(|rest| !rest.is_empty());
            if Session::record_length(&self.gathered)? == Some(self.gathered.len()) {
                return Buf::gathered(std::mem::take(&mut self.gathered)).map(Some).map_err(|_| Failure::Limit);
            }
        }
        Ok(None)
    }
}
