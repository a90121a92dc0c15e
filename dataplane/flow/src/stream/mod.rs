//! A connection as the rest of this room sees it: bytes in, messages out; with TLS below or without.
//!
//! ```text
//!  socket ──► Buf of records ──► opened in place, one Buf a record ──► recv          (`open`)
//!  send ──► Message ──► short: one copied record │ bulk: sealed where it lies ──► socket  (`seal`)
//! ```
//!
//! A record that spans buffers is gathered in pooled memory. What a close_notify did not precede is no end but a cut.

mod handshake;
mod open;
mod seal;

pub(crate) use handshake::{Broken, accept, connect};

use open::Incoming;
use ring::{Buf, Error, Message, OutBuf, Peer as Address, Socket};
use seal::Outgoing;
use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use wire::tls::{Peer, Session};

/// How long the last record of a connection may take.
const LAST_WORDS_NS: u64 = 1_000_000_000;

/// A connection of this core. Dropped, it is closed without a word; see [`Stream::finish`].
pub(crate) struct Stream {
    socket: Socket,
    tls: Option<Box<Tls>>,
}

struct Tls {
    peer: Peer,
    /// The other end's SPIFFE ID.
    identity: Option<Rc<str>>,
    state: RefCell<State>,
}

struct State {
    session: Session,
    incoming: Incoming,
    outgoing: Outgoing,
}

impl Stream {
    /// Without TLS.
    pub(crate) fn plain(socket: Socket) -> Stream {
        Stream { socket, tls: None }
    }

    /// After a handshake; `rest` is what arrived behind it.
    fn secure(socket: Socket, mut session: Session, rest: Option<Buf>) -> Stream {
        let mut peer = session.take_peer();
        // Kept once: as text that the log may hold on to.
        let identity = peer.identity.take().map(|identity| Rc::from(identity.as_str()));
        let state = RefCell::new(State { session, incoming: Incoming::new(rest), outgoing: Outgoing::default() });
        Stream { socket, tls: Some(Box::new(Tls { peer, identity, state })) }
    }

    /// What the handshake said about the other end; `None` without TLS.
    pub(crate) fn peer(&self) -> Option<&Peer> {
        self.tls.as_ref().map(|tls| &tls.peer)
    }

    /// The other end's SPIFFE ID, from its certificate.
    pub(crate) fn identity(&self) -> Option<&Rc<str>> {
        self.tls.as_ref().and_then(|tls| tls.identity.as_ref())
    }

    /// The next bytes; `None` at the end of the stream. Cancel-safe, as [`Socket::recv`].
    #[inline]
    pub(crate) fn recv(&self, until_ns: u64) -> Recv<'_> {
        Recv { stream: self, until_ns }
    }

    /// Bytes that have already arrived.
    #[inline]
    pub(crate) fn try_recv(&self) -> Option<Buf> {
        let Some(tls) = &self.tls else { return self.socket.try_recv() };
        let state = &mut *tls.state.borrow_mut();
        loop {
            match state.next() {
                Some(Ok(buf)) => return buf,
                Some(Err(_)) => return None,
                None => state.incoming.arrived(self.socket.try_recv()?),
            }
        }
    }

    /// Sends all of `message` and empties it. One send at a time; see [`Socket::send`].
    #[inline]
    pub(crate) fn send<'a>(&'a self, message: &'a mut Message, until_ns: u64) -> Send<'a> {
        Send { stream: self, message, until_ns }
    }

    /// No bytes have arrived, no end and no failure. Records that carry no bytes (tickets, keys) are taken meanwhile.
    pub(crate) fn is_quiet(&self) -> bool {
        let Some(tls) = &self.tls else { return self.socket.is_quiet() };
        let state = &mut *tls.state.borrow_mut();
        loop {
            match state.next() {
                Some(Ok(Some(buf))) => {
                    state.incoming.put_back(buf);
                    return false;
                }
                Some(_) => return false,
                None => match self.socket.try_recv() {
                    Some(buf) => state.incoming.arrived(buf),
                    None => return state.incoming.is_empty() && self.socket.is_quiet(),
                },
            }
        }
    }

    /// A record has begun to come, whose rest has not: the other end is about to say something.
    pub(crate) fn holds_part(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.state.borrow().incoming.holds_part())
    }

    /// Nothing has come since the connection began to rest.
    pub(crate) fn heard_nothing(&self) -> bool {
        self.socket.is_quiet()
    }

    /// As [`Socket::is_failed`].
    pub(crate) fn is_failed(&self) -> bool {
        self.socket.is_failed()
    }

    /// As [`Socket::watch`].
    pub(crate) fn watch(&self, token: u64, until_ns: u64) {
        self.socket.watch(token, until_ns);
    }

    /// As [`Socket::unwatch`].
    pub(crate) fn unwatch(&self) {
        self.socket.unwatch();
    }

    /// As [`Socket::expect`].
    pub(crate) fn expect(&self, bytes: u64) {
        self.socket.expect(bytes);
    }

    /// The connection was used before: the next message must be left as it was when nothing of it can be sent, for another
    /// connection.
    pub(crate) fn used_again(&self) {
        if let Some(tls) = &self.tls {
            tls.state.borrow_mut().outgoing.keep_plain();
        }
    }

    /// Makes the coming close a reset: the peer must not take what it got for complete.
    pub(crate) fn reset_on_close(&self) {
        if let Some(tls) = &self.tls {
            tls.state.borrow_mut().outgoing.say_nothing_more();
        }
        self.socket.reset_on_close();
    }

    /// Says that nothing more will be sent: close_notify where there is TLS (an alert, where the other end broke its rules),
    /// then FIN.
    pub(crate) async fn finish(&self) {
        let last = self.tls.as_ref().and_then(|tls| tls.state.borrow_mut().last_words());
        if let Some(last) = last {
            let mut message = Message::new();
            message.out(last);
            message.is_last();
            let _ = self.socket.send(&mut message, ring::now().saturating_add(LAST_WORDS_NS)).await;
        }
        self.socket.shutdown_write();
    }

    /// Says that nothing more will be sent, then takes and forgets what still comes, for at most so long and so much: closing
    /// over unread input would destroy what was said.
    pub(crate) async fn finish_and_discard(&self, most_ns: u64, most_bytes: u64) {
        self.finish().await;
        let until_ns = ring::now() + most_ns;
        let mut bytes = 0;
        while bytes < most_bytes
            && let Ok(Some(buf)) = self.recv(until_ns).await
        {
            bytes += buf.len() as u64;
        }
    }

    /// Whether something is to be said before the connection closes.
    pub(crate) fn has_last_words(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.state.borrow().outgoing.may_speak())
    }

    /// The address at the other end; `None` on unix sockets.
    pub(crate) fn address(&self) -> Address {
        self.socket.peer()
    }

    /// The address at this end; `None` on unix sockets.
    pub(crate) fn local(&self) -> Address {
        self.socket.local()
    }
}

impl State {
    fn last_words(&mut self) -> Option<OutBuf> {
        if !self.outgoing.may_speak() {
            return None;
        }
        self.outgoing.say_nothing_more();
        let mut out = OutBuf::new();
        match self.incoming.failure() {
            Some(failure) => self.session.alert(failure, &mut out),
            None => self.session.close(&mut out),
        }
        Some(out)
    }
}

/// Receives. Made by [`Stream::recv`].
pub(crate) struct Recv<'a> {
    stream: &'a Stream,
    until_ns: u64,
}

impl Future for Recv<'_> {
    type Output = Result<Option<Buf>, Error>;

    #[inline]
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(tls) = &self.stream.tls else {
            return Pin::new(&mut self.stream.socket.recv(self.until_ns)).poll(context);
        };
        let state = &mut *tls.state.borrow_mut();
        loop {
            if let Some(result) = state.next() {
                return Poll::Ready(result);
            }
            match Pin::new(&mut self.stream.socket.recv(self.until_ns)).poll(context) {
                Poll::Ready(Ok(Some(buf))) => state.incoming.arrived(buf),
                // Cut off: what came is perhaps not all.
                Poll::Ready(Ok(None)) => return Poll::Ready(Err(Error::Reset)),
                other => return other,
            }
        }
    }
}

/// Sends all of a message. Made by [`Stream::send`].
pub(crate) struct Send<'a> {
    stream: &'a Stream,
    message: &'a mut Message,
    until_ns: u64,
}

impl Future for Send<'_> {
    type Output = Result<(), Error>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let Send { stream, message, until_ns } = &mut *self;
        let Some(tls) = &stream.tls else {
            return Pin::new(&mut stream.socket.send(message, *until_ns)).poll(context);
        };
        if tls.state.borrow_mut().begin(message).is_err() {
            return Poll::Ready(Err(Error::Reset));
        }
        let polled = Pin::new(&mut stream.socket.send(message, *until_ns)).poll(context);
        match polled {
            // It goes on, though nobody may wait for it.
            Poll::Pending | Poll::Ready(Err(Error::TimedOut)) => {}
            Poll::Ready(result) => tls.state.borrow_mut().outgoing.ended(message, result),
        }
        polled
    }
}
