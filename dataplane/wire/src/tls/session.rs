//! One connection: the handshake, then records.

use super::aside::{self, Aside};
use super::record::{HEADER, MOST, TAG};
use super::shaking::{Engine, Shaking};
use super::traffic::Traffic;
use super::verifier::trusted_identity;
use super::{Client, Clock, Failure, Server, Trust};
use crate::spiffe::SpiffeId;
use crypto::digest::{SHA256, digest};
use rustls::client::UnbufferedClientConnection;
use rustls::server::UnbufferedServerConnection;
use rustls::{HandshakeKind, ProtocolVersion};
use std::ops::Range;

/// One TLS connection, either side.
pub struct Session {
    state: State,
    peer: Peer,
}

// A session is boxed by whoever has many; what is rare is boxed here.
#[expect(clippy::large_enum_variant, reason = "the large one is the usual one")]
enum State {
    Shaking(Box<Begun>),
    Open(Traffic),
    /// The handshake failed.
    Failed,
}

/// A handshake under way, and what it is held against.
struct Begun {
    shaking: Shaking,
    trust: Option<Trust>,
    clock: Clock,
}

/// What the handshake said about the other end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peer {
    /// The SPIFFE ID that its certificate proves.
    pub identity: Option<SpiffeId>,
    /// SHA-256 over its certificate.
    pub fingerprint: Option<[u8; 32]>,
    /// The name that the client asked for.
    pub sni: Option<Box<str>>,
    /// The application protocol.
    pub alpn: Option<Box<[u8]>>,
    /// `TLSv1.3` or `TLSv1.2`.
    pub version: &'static str,
    /// The cipher suite's name.
    pub suite: &'static str,
    /// A former session was resumed.
    pub resumed: bool,
}

/// A step of the handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handshake {
    /// Bytes of the input that are done with.
    pub consumed: usize,
    /// How it stands.
    pub state: HandshakeState,
}

/// How a handshake stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandshakeState {
    /// It waits for bytes.
    More,
    /// Both ends agree; what follows is for [`Session::open`].
    Done,
    /// It came to nothing; the output tells the other end.
    Failed(Failure),
}

/// What a record was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opened {
    /// Bytes, where they lie in it; perhaps none.
    Data(Range<usize>),
    /// Nothing for us.
    Nothing,
    /// The other end says no more.
    Closed,
}

impl Session {
    /// Bytes before what a record of TLS 1.3 carries.
    pub const HEADER: usize = HEADER;
    /// Bytes behind it: its type, and the tag.
    pub const TRAILER: usize = TAG + 1;

    /// The server's side.
    ///
    /// # Errors
    /// [`Failure::Other`]: there is no randomness.
    pub fn accept(server: &Server) -> Result<Session, Failure> {
        let connection =
            UnbufferedServerConnection::new(server.config().clone()).map_err(|error| Failure::of(&error))?;
        Ok(Session::begin(Begun {
            shaking: Shaking::new(Engine::Server(connection), Aside::default()),
            trust: server.trust().cloned(),
            clock: server.clock().clone(),
        }))
    }

    /// The client's side; its first step needs no input.
    ///
    /// # Errors
    /// [`Failure::Other`]: there is no randomness.
    pub fn connect(client: &Client) -> Result<Session, Failure> {
        let mut aside = Aside::default();
        let connection =
            aside::with(&mut aside, || UnbufferedClientConnection::new(client.config().clone(), client.name().clone()));
        let connection = connection.map_err(|error| Failure::of(&error))?;
        Ok(Session::begin(Begun {
            shaking: Shaking::new(Engine::Client(connection), aside),
            trust: Some(client.trust().clone()),
            clock: client.clock().clone(),
        }))
    }

    fn begin(begun: Begun) -> Session {
        Session { state: State::Shaking(Box::new(begun)), peer: Peer::default() }
    }

    /// Moves the clock that the other end is held against; before each step of the handshake. See [`Clock::tick`].
    pub fn tick(&self, at_ns: u64) {
        if let State::Shaking(begun) = &self.state {
            begun.clock.tick(at_ns);
        }
    }

    /// Goes on with the handshake. `input` is all that has arrived and was not consumed; what is to be sent is put behind
    /// `out`, whatever the state.
    pub fn handshake(&mut self, input: &mut [u8], out: &mut Vec<u8>) -> Handshake {
        let State::Shaking(begun) = &mut self.state else {
            return Handshake { consumed: 0, state: HandshakeState::Failed(Failure::Other) };
        };
        let mut consumed = 0;
        let state = match begun.shaking.run(input, &mut consumed, out) {
            Ok(false) => HandshakeState::More,
            Ok(true) => match self.establish() {
                Ok(()) => HandshakeState::Done,
                Err(failure) => HandshakeState::Failed(failure),
            },
            Err(failure) => {
                self.state = State::Failed;
                HandshakeState::Failed(failure)
            }
        };
        Handshake { consumed, state }
    }

    /// The handshake is done: from here on records are our own.
    fn establish(&mut self) -> Result<(), Failure> {
        let State::Shaking(begun) = std::mem::replace(&mut self.state, State::Failed) else {
            return Err(Failure::Other);
        };
        let Begun { mut shaking, trust, .. } = *begun;
        let sni = shaking.take_asked();
        let common = shaking.common();
        let leaf = common.peer_certificates().and_then(|chain| chain.first());
        self.peer = Peer {
            identity: leaf.zip(trust).and_then(|(leaf, trust)| trusted_identity(&trust, leaf).ok()),
            fingerprint: leaf.and_then(|leaf| digest(&SHA256, leaf).as_ref().try_into().ok()),
            sni,
            alpn: common.alpn_protocol().map(Box::from),
            version: if common.protocol_version() == Some(ProtocolVersion::TLSv1_3) { "TLSv1.3" } else { "TLSv1.2" },
            suite: common.negotiated_cipher_suite().and_then(|suite| suite.suite().as_str()).unwrap_or_default(),
            resumed: common.handshake_kind() == Some(HandshakeKind::Resumed),
        };
        self.state = State::Open(shaking.into_traffic()?);
        Ok(())
    }

    fn traffic(&mut self) -> Result<&mut Traffic, Failure> {
        match &mut self.state {
            State::Open(traffic) => Ok(traffic),
            State::Shaking(_) | State::Failed => Err(Failure::Other),
        }
    }

    /// What is known of the other end, once the handshake is done.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// The same, to be kept elsewhere: the session knows it no more.
    pub fn take_peer(&mut self) -> Peer {
        std::mem::take(&mut self.peer)
    }

    /// The length of the record at the front of `bytes`, with its header; `None` when that cannot be seen yet.
    ///
    /// # Errors
    /// It is no record, or longer than one may be.
    pub fn record_length(bytes: &[u8]) -> Result<Option<usize>, Failure> {
        let Some(&[kind, major, _, high, low]) = bytes.first_chunk::<HEADER>() else {
            // What begins otherwise will not become one.
            return match bytes {
                [kind, ..] if !(20..=24).contains(kind) => Err(Failure::BadRecord),
                [_, major, ..] if *major != 3 => Err(Failure::BadRecord),
                _ => Ok(None),
            };
        };
        let length = usize::from(high) << 8 | usize::from(low);
        match () {
            () if !(20..=24).contains(&kind) || major != 3 => Err(Failure::BadRecord),
            () if length > MOST + 2048 => Err(Failure::TooLarge),
            () => Ok(Some(HEADER + length)),
        }
    }

    /// Opens one whole record, where it lies.
    ///
    /// # Errors
    /// The connection is to be ended, with [`Session::alert`]; nothing opens any more.
    pub fn open(&mut self, record: &mut [u8]) -> Result<Opened, Failure> {
        self.traffic()?.open(record)
    }

    /// Whether something is to be sent before the next bytes are: see [`Session::take_pending`].
    pub fn wants_send(&self) -> bool {
        matches!(&self.state, State::Open(traffic) if traffic.wants_send())
    }

    /// Puts what must go before the next bytes behind `out`: a KeyUpdate that was asked for, or that our key needs.
    ///
    /// # Errors
    /// The connection is to be ended.
    pub fn take_pending(&mut self, out: &mut Vec<u8>) -> Result<(), Failure> {
        match &mut self.state {
            State::Open(traffic) if traffic.wants_send() => traffic.update_key(out),
            _ => Ok(()),
        }
    }

    /// Bytes that the records take which carry so many.
    pub fn sealed_length(&self, plaintext: usize) -> usize {
        plaintext + plaintext.div_ceil(MOST).max(1) * 64
    }

    /// Puts records behind `out` that carry the bytes of `parts`.
    ///
    /// # Errors
    /// The connection is to be ended.
    pub fn seal(&mut self, parts: &[&[u8]], out: &mut Vec<u8>) -> Result<(), Failure> {
        self.traffic()?.seal(parts, out)
    }

    /// Whether [`Session::seal_in_place`] can be used.
    pub fn seals_in_place(&self) -> bool {
        matches!(&self.state, State::Open(traffic) if traffic.seals_in_place())
    }

    /// Seals bytes where they lie: `chunk` is at most 16,384 of them, and one more of any content. What goes before and
    /// behind them on the wire is put into `header` and `trailer`.
    ///
    /// # Errors
    /// The connection is to be ended; the bytes are lost.
    pub fn seal_in_place(
        &mut self,
        chunk: &mut [u8],
        header: &mut [u8; Session::HEADER],
        trailer: &mut [u8; Session::TRAILER],
    ) -> Result<(), Failure> {
        self.traffic()?.seal_in_place(chunk, header, trailer)
    }

    /// Puts close_notify behind `out`.
    pub fn close(&mut self, out: &mut Vec<u8>) {
        if let State::Open(traffic) = &mut self.state {
            traffic.alert(None, out);
        }
    }

    /// Puts the alert behind `out` that tells of a failure.
    pub fn alert(&mut self, failure: Failure, out: &mut Vec<u8>) {
        if let State::Open(traffic) = &mut self.state {
            traffic.alert(Some(failure), out);
        }
    }
}
