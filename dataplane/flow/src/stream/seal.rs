//! What goes: a message as records. Short ones are copied into one; what is bulk is sealed where it lies, with the records'
//! headers and trailers as slices of their own between.
//!
//! ```text
//!   frames   │hd│                     │tr hd│                     │tr hd│ short parts, tr │
//!   bulk     └──┴─ 16,384 bytes ──────┴─────┴─ 16,384 bytes ──────┘     └─────────────────┘
//! ```
//!
//! A record encrypts one byte behind its bytes (its type, RFC 8446 section 5.2). In the midst of bulk that byte's place
//! belongs to the bytes that follow, so it is put back afterwards.

use super::State;
use ring::{Buf, Error, Message, OutBuf, Part};
use std::cell::RefCell;
use std::ops::Range;
use wire::tls::{Failure, Session};

/// Messages of at most this many bytes are copied.
const COPY_BYTES: usize = 4096;
/// Parts of at most this many bytes are copied in any message.
const COPY_PART_BYTES: usize = 1024;
/// The most that a record carries (RFC 8446 section 5.1).
const RECORD_BYTES: usize = 16_384;
/// Parts of a message, as [`ring::Message`] has room for.
const PARTS: usize = 16;

/// How the sending direction stands.
#[derive(Default)]
pub(super) struct Outgoing {
    /// The message under way is sealed already.
    under_way: bool,
    /// The next message is left as it was, should nothing of it be sent.
    keeps_plain: bool,
    /// It, as it was.
    plain: Option<Message>,
    /// close_notify or an alert was sent, or nothing more is to be said.
    silent: bool,
}

impl Outgoing {
    pub(super) fn keep_plain(&mut self) {
        self.keeps_plain = true;
    }

    pub(super) fn say_nothing_more(&mut self) {
        self.silent = true;
    }

    pub(super) fn may_speak(&self) -> bool {
        !self.silent && !self.under_way
    }

    /// The send of `message` ended.
    pub(super) fn ended(&mut self, message: &mut Message, result: Result<(), Error>) {
        self.under_way = false;
        self.keeps_plain = false;
        let plain = self.plain.take();
        if result.is_err()
            && message.sent() == 0
            && let Some(plain) = plain
        {
            *message = plain;
        }
    }
}

impl State {
    /// Makes records of a message that is to be sent, once.
    pub(super) fn begin(&mut self, message: &mut Message) -> Result<(), Failure> {
        if self.outgoing.under_way || message.length() == 0 {
            return Ok(());
        }
        if self.outgoing.silent {
            return Err(Failure::Limit);
        }
        let last = message.ends_writing();
        if message.length() <= COPY_BYTES || self.outgoing.keeps_plain || !self.session.seals_in_place() {
            self.copy(message, last)?;
        } else {
            self.seal_in_place(message, last)?;
        }
        self.outgoing.under_way = true;
        self.outgoing.silent = last;
        Ok(())
    }

    fn copy(&mut self, message: &mut Message, last: bool) -> Result<(), Failure> {
        let mut out = OutBuf::new();
        out.reserve(self.session.sealed_length(message.length()) + Session::HEADER + Session::TRAILER + 2);
        self.session.take_pending(&mut out)?;
        let session = &mut self.session;
        message.with_parts(|parts| {
            parts.chunks(PARTS).try_for_each(|parts| {
                let mut bytes = [&[][..]; PARTS];
                bytes.iter_mut().zip(parts).for_each(|(bytes, part)| *bytes = part);
                session.seal(&bytes[..parts.len()], &mut out)
            })
        })?;
        if last {
            self.session.close(&mut out);
        }
        if self.outgoing.keeps_plain {
            self.outgoing.plain = Some(std::mem::replace(message, Message::new()));
            if last {
                message.is_last();
            }
        } else {
            message.take_parts(drop);
        }
        message.out(out);
        Ok(())
    }

    fn seal_in_place(&mut self, message: &mut Message, last: bool) -> Result<(), Failure> {
        LAYOUT.with_borrow_mut(|layout| {
            let sealed = layout.seal(&mut self.session, message, last);
            if sealed.is_err() {
                layout.clear();
            }
            sealed
        })
    }
}

thread_local! {
    /// Memory for laying one message out; nothing in it outlives the step.
    static LAYOUT: RefCell<Layout> = RefCell::default();
}

#[derive(Default)]
struct Layout {
    /// Headers, trailers, and records of short parts.
    frames: OutBuf,
    bulk: Vec<Buf>,
    /// Short parts that were not sealed yet.
    short: Vec<u8>,
    /// Slices of the parts: 0 is `frames`, the others are bulk.
    slices: Vec<(usize, Range<usize>)>,
}

impl Layout {
    /// Seals a message's parts, and lays it out of what that made.
    fn seal(&mut self, session: &mut Session, message: &mut Message, last: bool) -> Result<(), Failure> {
        session.take_pending(&mut self.frames)?;
        self.frame(0);
        let mut result = Ok(());
        message.take_parts(|part| result = result.and_then(|()| self.add(session, part)));
        result.and_then(|()| self.flush(session))?;
        if last {
            let from = self.frames.len();
            session.close(&mut self.frames);
            self.frame(from);
        }
        let frames = Part::Out(std::mem::take(&mut self.frames));
        message.lay_out(std::iter::once(frames).chain(self.bulk.drain(..).map(Part::Buf)), self.slices.drain(..));
        Ok(())
    }

    /// Forgets what a message that failed has left; the memory stays.
    fn clear(&mut self) {
        self.frames.clear();
        self.bulk.clear();
        self.short.clear();
        self.slices.clear();
    }

    fn add(&mut self, session: &mut Session, part: Part) -> Result<(), Failure> {
        match part {
            Part::Buf(buf) if buf.len() > COPY_PART_BYTES => self.bulk(session, buf),
            part => {
                self.short.extend_from_slice(&part);
                Ok(())
            }
        }
    }

    /// What was put at the end of the frames from `from` on is to be sent next.
    fn frame(&mut self, from: usize) {
        let to = self.frames.len();
        match self.slices.last_mut() {
            Some((0, range)) if range.end == from => range.end = to,
            _ if to > from => self.slices.push((0, from..to)),
            _ => {}
        }
    }

    /// Seals the short parts that have gathered.
    fn flush(&mut self, session: &mut Session) -> Result<(), Failure> {
        if self.short.is_empty() {
            return Ok(());
        }
        let from = self.frames.len();
        session.seal(&[&self.short], &mut self.frames)?;
        self.short.clear();
        self.frame(from);
        Ok(())
    }

    fn bulk(&mut self, session: &mut Session, mut buf: Buf) -> Result<(), Failure> {
        self.flush(session)?;
        let whole = buf.len();
        // Where the byte behind the last record is another's, the last byte goes with what follows.
        let (bytes, length) = match buf.with_room(1).is_some() {
            true => (buf.with_room(1).unwrap_or_default(), whole),
            false => (&mut buf[..], whole - 1),
        };
        let number = self.bulk.len() + 1;
        let mut from = 0;
        while from < length {
            let to = length.min(from + RECORD_BYTES);
            let (mut header, mut trailer) = ([0; Session::HEADER], [0; Session::TRAILER]);
            let behind = bytes[to];
            session.seal_in_place(&mut bytes[from..=to], &mut header, &mut trailer)?;
            bytes[to] = behind;
            let at = self.frames.len();
            self.frames.extend_from_slice(&header);
            self.frame(at);
            self.slices.push((number, from..to));
            let at = self.frames.len();
            self.frames.extend_from_slice(&trailer);
            self.frame(at);
            from = to;
        }
        if length < whole {
            self.short.push(bytes[length]);
        }
        self.bulk.push(buf);
        Ok(())
    }
}
