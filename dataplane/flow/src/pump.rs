//! Passing a body on: received, unframed, framed anew, sent; in the buffers it arrived in.
//!
//! ```text
//! Content-Length ─┐                                 ┌─ Content-Length, or until close: the bytes
//! chunked ────────┼─► pieces of received buffers ───┤
//! until close ────┘        (at most 12, 256 KiB)    └─ chunked: size CRLF pieces CRLF … 0 CRLF trailers CRLF
//! ```
//!
//! While one send is under way the next receive is armed; nothing else is read ahead, so a slow reader slows the sender.

use crate::counters::{Count, Counters};
use crate::stream::Stream;
use ring::{Buf, Error, Message, OutBuf};
use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use wire::h1::{Body, Chunked, LAST_CHUNK, Piece, Reject, write_chunk_head};

/// A body of at most this many bytes that is there at once is copied behind its head, rather than sent as a slice.
const COPY_BYTES: usize = 2048;
/// Pieces of a chunked body up to this size are copied, even when more is to come.
const COPY_PIECE_BYTES: usize = 256;
/// One send carries at most this much, so that its progress can be judged.
pub(crate) const SEND_BYTES: usize = 256 * 1024;
const PIECES: usize = 12;
/// Bytes of trailers that a body may have.
const TRAILER_BYTES: usize = 8 * 1024;

/// Why a body could not be passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Broke {
    /// Receiving failed.
    From(Error),
    /// The sender ended the connection within the body.
    Ended,
    /// The body is malformed.
    Malformed(Reject),
    /// It is longer than allowed.
    TooLarge,
    /// Sending failed.
    To(Error),
}

/// How a body is framed where it comes from.
#[derive(Debug)]
pub(crate) enum Incoming {
    Length(u64),
    Chunked(Chunked),
    UntilClose,
}

/// How a body is framed where it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outgoing {
    /// As it is.
    Plain,
    Chunked,
}

/// Where the bytes of a direction are counted.
#[derive(Clone, Copy)]
pub(crate) struct Meter<'a> {
    pub(crate) counters: &'a Counters,
    pub(crate) received: &'a Count,
    pub(crate) sent: &'a Count,
}

impl<'a> Meter<'a> {
    /// From the client to the endpoint.
    pub(crate) fn up(counters: &'a Counters) -> Meter<'a> {
        Meter { counters, received: &counters.downstream_received_bytes, sent: &counters.upstream_sent_bytes }
    }

    /// From the endpoint to the client.
    pub(crate) fn down(counters: &'a Counters) -> Meter<'a> {
        Meter { counters, received: &counters.upstream_received_bytes, sent: &counters.downstream_sent_bytes }
    }
}

/// One body on its way.
pub(crate) struct Pump<'a> {
    pub(crate) from: &'a Stream,
    pub(crate) to: &'a Stream,
    pub(crate) incoming: &'a mut Incoming,
    pub(crate) outgoing: Outgoing,
    /// What has arrived and not been taken; afterwards: what follows the body.
    pub(crate) input: &'a mut Option<Buf>,
    /// When all must be over, core time; may change while the body is under way.
    pub(crate) deadline_ns: &'a Cell<u64>,
    pub(crate) idle_ns: u64,
    /// The most bytes of body.
    pub(crate) limit: u64,
    /// The connection that it goes to is closed behind it.
    pub(crate) last: bool,
    /// Bytes of body passed on.
    pub(crate) passed: &'a Cell<u64>,
    /// A send has begun.
    pub(crate) started: &'a Cell<bool>,
    /// Something was handed to the kernel, in this attempt or one before.
    pub(crate) sent: &'a Cell<bool>,
    /// All of the body stands in a message, or was sent.
    pub(crate) filled: &'a Cell<bool>,
    pub(crate) meter: Meter<'a>,
}

impl Incoming {
    pub(crate) fn of(body: Body) -> Incoming {
        match body {
            Body::None => Incoming::Length(0),
            Body::Length(length) => Incoming::Length(length),
            Body::Chunked => Incoming::Chunked(Chunked::new(TRAILER_BYTES)),
            Body::UntilClose => Incoming::UntilClose,
        }
    }
}

/// What one round found.
struct Round {
    pieces: [Option<Buf>; PIECES],
    total: usize,
    done: bool,
}

impl Pump<'_> {
    /// Sends what `message` holds (from an attempt that failed at once) and `head`, then all of the body. What a send that
    /// failed leaves stays in `message`.
    pub(crate) async fn run(&mut self, mut head: Option<OutBuf>, message: &mut Message) -> Result<(), Broke> {
        if message.length() > 0 {
            self.send(message).await?;
        }
        if self.filled.get() {
            return Ok(());
        }
        if let Some(whole) = self.whole(&mut head) {
            message.out(whole);
            if self.last {
                message.is_last();
            }
            return self.send(message).await;
        }
        if let Incoming::Length(left) = self.incoming {
            self.from.expect(*left);
        }
        let mut ended = false;
        loop {
            let done = self.fill(&mut head, message, ended)?;
            if done && self.last {
                message.is_last();
            }
            if message.length() > 0 {
                self.send(message).await?;
            }
            if done {
                return Ok(());
            }
            if self.input.is_none() {
                match self.receive().await? {
                    Some(buf) => *self.input = Some(buf),
                    None if matches!(self.incoming, Incoming::UntilClose) => ended = true,
                    None => return Err(Broke::Ended),
                }
            }
        }
    }

    /// The head with all of a short body that is there already: the usual case of a small message.
    fn whole(&mut self, head: &mut Option<OutBuf>) -> Option<OutBuf> {
        let Incoming::Length(left) = self.incoming else { return None };
        let length = *left as usize;
        let arrived = self.input.as_deref().unwrap_or_default();
        if *left > COPY_BYTES as u64 || arrived.len() < length || self.outgoing != Outgoing::Plain || *left > self.limit
        {
            return None;
        }
        let mut whole = head.take()?;
        if length > 0 {
            whole.extend_from_slice(&arrived[..length]);
            *left = 0;
            let rest = self.input.take().map(|mut buf| {
                buf.advance(length);
                buf
            });
            *self.input = rest.filter(|rest| !rest.is_empty());
            self.passed.set(self.passed.get() + length as u64);
            self.meter.counters.body_bytes.add(length as u64);
            self.meter.counters.body_copied_bytes.add(length as u64);
        }
        Some(whole)
    }

    async fn send(&self, message: &mut Message) -> Result<(), Broke> {
        self.started.set(true);
        let length = message.length() as u64;
        let stalled = ring::now().saturating_add(self.idle_ns);
        let result = std::future::poll_fn(|context| {
            Pin::new(&mut self.to.send(message, stalled.min(self.deadline_ns.get()))).poll(context)
        })
        .await;
        if result.is_ok() || message.sent() > 0 {
            self.sent.set(true);
        }
        result.map_err(Broke::To)?;
        self.meter.sent.add(length);
        Ok(())
    }

    async fn receive(&self) -> Result<Option<Buf>, Broke> {
        let stalled = ring::now().saturating_add(self.idle_ns);
        let received = receive(self.from, || stalled.min(self.deadline_ns.get())).await.map_err(Broke::From)?;
        if let Some(buf) = &received {
            self.meter.received.add(buf.len() as u64);
        }
        Ok(received)
    }

    /// Puts what is there into `message`. Says whether the body is at its end.
    fn fill(&mut self, head: &mut Option<OutBuf>, message: &mut Message, ended: bool) -> Result<bool, Broke> {
        let mut round = self.gather()?;
        round.done |= ended;
        self.filled.set(round.done);
        self.passed.set(self.passed.get() + round.total as u64);
        if self.passed.get() > self.limit {
            return Err(Broke::TooLarge);
        }
        self.meter.counters.body_bytes.add(round.total as u64);
        match self.outgoing {
            Outgoing::Plain => self.put_plain(head.take(), message, &mut round),
            Outgoing::Chunked => self.put_chunk(head.take(), message, &mut round),
        }
        Ok(round.done)
    }

    fn put_plain(&self, head: Option<OutBuf>, message: &mut Message, round: &mut Round) {
        if let Some(mut head) = head {
            if round.done && round.total <= COPY_BYTES {
                self.copy(&mut head, round);
            }
            message.out(head);
        }
        round.pieces.iter_mut().filter_map(Option::take).for_each(|piece| message.buf(piece));
    }

    fn put_chunk(&self, head: Option<OutBuf>, message: &mut Message, round: &mut Round) {
        let mut out = head.unwrap_or_default();
        if round.total > 0 {
            write_chunk_head(&mut out, round.total);
            if round.total <= COPY_PIECE_BYTES || (round.done && round.total <= COPY_BYTES) {
                self.copy(&mut out, round);
            } else {
                message.out(std::mem::take(&mut out));
                round.pieces.iter_mut().filter_map(Option::take).for_each(|piece| message.buf(piece));
            }
            out.extend_from_slice(b"\r\n");
        }
        if round.done {
            out.extend_from_slice(LAST_CHUNK);
            if let Incoming::Chunked(body) = &*self.incoming {
                out.extend_from_slice(body.trailers());
            }
            out.extend_from_slice(b"\r\n");
        }
        message.out(out);
    }

    fn copy(&self, out: &mut OutBuf, round: &mut Round) {
        self.meter.counters.body_copied_bytes.add(round.total as u64);
        for piece in round.pieces.iter_mut().filter_map(Option::take) {
            out.extend_from_slice(&piece);
        }
    }

    /// Takes pieces of the body out of what has arrived, as many as one send carries.
    fn gather(&mut self) -> Result<Round, Broke> {
        let mut round = Round { pieces: [const { None }; PIECES], total: 0, done: false };
        let mut count = 0;
        while count < PIECES && round.total < SEND_BYTES && !round.done {
            if let Incoming::Length(0) = self.incoming {
                round.done = true;
                break;
            }
            let Some(buf) = self.input.take().or_else(|| self.take_arrived()) else { break };
            let (piece, rest, done) = cut(self.incoming, buf).map_err(Broke::Malformed)?;
            *self.input = rest.filter(|rest| !rest.is_empty());
            round.done = done;
            if let Some(piece) = piece {
                round.total += piece.len();
                round.pieces[count] = Some(piece);
                count += 1;
            }
        }
        Ok(round)
    }

    fn take_arrived(&self) -> Option<Buf> {
        let buf = self.from.try_recv()?;
        self.meter.received.add(buf.len() as u64);
        Some(buf)
    }
}

/// Cuts the next piece of the body out of a buffer: the piece, what is behind it, and whether the body has ended.
fn cut(incoming: &mut Incoming, mut buf: Buf) -> Result<(Option<Buf>, Option<Buf>, bool), Reject> {
    match incoming {
        Incoming::UntilClose => Ok((Some(buf), None, false)),
        Incoming::Length(left) => {
            if (buf.len() as u64) < *left {
                *left -= buf.len() as u64;
                return Ok((Some(buf), None, false));
            }
            let length = *left as usize;
            *left = 0;
            let rest = if buf.len() > length { Some(buf.split_off(length)) } else { None };
            Ok((Some(buf), rest, true))
        }
        Incoming::Chunked(body) => match body.next(&buf)? {
            Piece::Data { skip, length } => {
                buf.advance(skip);
                let rest = if buf.len() > length { Some(buf.split_off(length)) } else { None };
                Ok((Some(buf), rest, false))
            }
            Piece::More => Ok((None, None, false)),
            Piece::End { consumed } => {
                buf.advance(consumed);
                Ok((None, Some(buf), true))
            }
        },
    }
}

/// Receives with a deadline that is looked at anew whenever the task is polled.
pub(crate) async fn receive(stream: &Stream, until_ns: impl Fn() -> u64) -> Result<Option<Buf>, Error> {
    std::future::poll_fn(|context| Pin::new(&mut stream.recv(until_ns())).poll(context)).await
}
