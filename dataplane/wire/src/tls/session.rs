//! One connection: the handshake, then records. rustls is fed one record at a time, so that what follows its last one is
//! left to us.

use super::der::Leaf;
use super::record::{ALERT, APPLICATION_DATA, Direction, HANDSHAKE, HEADER, MOST, TAG};
use super::trust::{Trust, trusted_identity};
use super::{Client, Clock, Failure, Server};
use crate::spiffe::SpiffeId;
use crypto::digest::{SHA256, digest};
use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::kernel::KernelConnection;
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, UnbufferedStatus};
use rustls::{CommonState, Error, HandshakeKind, ProtocolVersion};
use std::ops::Range;

/// Records without bytes, and keys that are replaced, in a row: more are a flood.
const IDLE_RECORDS: u8 = 32;
/// A message after the handshake that spans records, bytes.
const MESSAGE_BYTES: usize = 64 * 1024;
/// Messages after the handshake (RFC 8446 section 4).
const NEW_SESSION_TICKET: u8 = 4;
const KEY_UPDATE: u8 = 24;
const CERTIFICATE_EXPIRED: u8 = 45;

/// One TLS connection, either side.
pub struct Session {
    state: State,
    peer: Peer,
}

// A session is boxed by whoever has many; what is rare is boxed here.
#[expect(clippy::large_enum_variant, reason = "the large one is the usual one")]
enum State {
    Shaking(Box<Shaking>),
    Tls13(Tls13),
    Tls12(Box<Engine>),
    /// It failed; the alert, where there is one that was not sent.
    Failed(Vec<u8>),
}

enum Engine {
    Server(UnbufferedServerConnection),
    Client(UnbufferedClientConnection),
}

struct Shaking {
    engine: Engine,
    /// Bytes at the front of the input that rustls has seen and not consumed.
    seen: usize,
    begun: bool,
    trust: Option<Trust>,
    clock: Clock,
    server: Option<Server>,
    sni: Option<Box<str>>,
}

struct Tls13 {
    open: Direction,
    seal: Direction,
    kernel: Box<Kernel>,
    /// An answer to a KeyUpdate is due.
    owed: bool,
    idle_records: u8,
    /// The beginning of a message that spans records.
    partial: Vec<u8>,
}

enum Kernel {
    Server(KernelConnection<ServerConnectionData>),
    Client(KernelConnection<ClientConnectionData>),
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
    /// Which of the server's certificates that name got.
    pub certificate: usize,
    /// The application protocol.
    pub alpn: Option<Box<[u8]>>,
    /// `TLSv1.3` or `TLSv1.2`.
    pub version: &'static str,
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

/// What rustls wants next.
enum Step {
    Again,
    Blocked,
    Ready,
    Unexpected,
    Closed,
    Data(Vec<u8>),
}

impl Engine {
    /// Lets rustls look at `window`; puts what it wants to send behind `out`. How much of the window is done with.
    fn step(&mut self, window: &mut [u8], out: &mut Vec<u8>) -> (usize, Result<Step, Error>) {
        match self {
            Engine::Server(connection) => taken(connection.process_tls_records(window), out),
            Engine::Client(connection) => taken(connection.process_tls_records(window), out),
        }
    }

    fn common(&self) -> &CommonState {
        match self {
            Engine::Server(connection) => connection,
            Engine::Client(connection) => connection,
        }
    }

    /// What is left to send after an error, such as an alert. Nothing beyond: rustls panics when it looks for input
    /// again after an error.
    fn flush(&mut self, out: &mut Vec<u8>) {
        while self.common().wants_write() {
            let (_, Ok(Step::Again)) = self.step(&mut [], out) else { break };
        }
    }
}

fn taken<Data>(status: UnbufferedStatus<'_, '_, Data>, out: &mut Vec<u8>) -> (usize, Result<Step, Error>) {
    let step = status.state.map(|state| match state {
        ConnectionState::EncodeTlsData(mut data) => {
            let length = match data.encode(&mut []) {
                Err(EncodeError::InsufficientSize(needed)) => needed.required_size,
                _ => 0,
            };
            let begin = out.len();
            out.resize(begin + length, 0);
            let written = data.encode(&mut out[begin..]).unwrap_or(0);
            out.truncate(begin + written);
            Step::Again
        }
        ConnectionState::TransmitTlsData(data) => {
            data.done();
            Step::Again
        }
        ConnectionState::BlockedHandshake => Step::Blocked,
        ConnectionState::WriteTraffic(_) => Step::Ready,
        ConnectionState::ReadTraffic(mut data) => {
            let mut bytes = Vec::new();
            while let Some(Ok(record)) = data.next_record() {
                bytes.extend_from_slice(record.payload);
            }
            Step::Data(bytes)
        }
        ConnectionState::PeerClosed | ConnectionState::Closed => Step::Closed,
        _ => Step::Unexpected,
    });
    (status.discard, step)
}

impl Session {
    /// Bytes before what a record carries.
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
        let (trust, clock) = (server.trust().cloned(), server.clock().clone());
        Ok(Session::shaking(Engine::Server(connection), trust, clock, Some(server.clone())))
    }

    /// The client's side; its first step needs no input.
    ///
    /// # Errors
    /// [`Failure::Other`]: there is no randomness.
    pub fn connect(client: &Client) -> Result<Session, Failure> {
        let connection = UnbufferedClientConnection::new(client.config().clone(), client.name().clone());
        let connection = connection.map_err(|error| Failure::of(&error))?;
        let (trust, clock) = (Some(client.trust().clone()), client.clock().clone());
        Ok(Session::shaking(Engine::Client(connection), trust, clock, None))
    }

    fn shaking(engine: Engine, trust: Option<Trust>, clock: Clock, server: Option<Server>) -> Session {
        let shaking = Shaking { engine, seen: 0, begun: false, trust, clock, server, sni: None };
        Session { state: State::Shaking(Box::new(shaking)), peer: Peer::default() }
    }

    /// Moves the clock that the other end is held against; before each step of the handshake. See [`Clock::tick`].
    pub fn tick(&self, at_ns: u64) {
        if let State::Shaking(shaking) = &self.state {
            shaking.clock.tick(at_ns);
        }
    }

    /// Goes on with the handshake. `input` is all that has arrived and was not consumed; what is to be sent is put behind
    /// `out`, whatever the state.
    pub fn handshake(&mut self, input: &mut [u8], out: &mut Vec<u8>) -> Handshake {
        let State::Shaking(shaking) = &mut self.state else {
            return Handshake { consumed: 0, state: HandshakeState::Failed(Failure::Other) };
        };
        let mut consumed = 0;
        let state = match shaking.run(input, &mut consumed, out) {
            Ok(false) => HandshakeState::More,
            Ok(true) => match self.establish(out) {
                Ok(()) => HandshakeState::Done,
                Err(failure) => HandshakeState::Failed(failure),
            },
            Err(failure) => HandshakeState::Failed(failure),
        };
        if let HandshakeState::Failed(_) = state {
            self.state = State::Failed(Vec::new());
        }
        Handshake { consumed, state }
    }

    /// The handshake is done: from here on records are our own, as far as we can.
    fn establish(&mut self, out: &mut Vec<u8>) -> Result<(), Failure> {
        let State::Shaking(shaking) = std::mem::replace(&mut self.state, State::Failed(Vec::new())) else {
            return Err(Failure::Other);
        };
        let Shaking { engine, trust, clock, server, sni, .. } = *shaking;
        let common = engine.common();
        let leaf = common.peer_certificates().and_then(|chain| chain.first());
        let certificate = sni.as_deref().zip(server).map_or(0, |(sni, server)| server.certificate_for(sni.as_bytes()));
        self.peer = Peer {
            identity: leaf.zip(trust).and_then(|(leaf, trust)| trusted_identity(&trust, leaf).ok()),
            fingerprint: leaf.and_then(|leaf| digest(&SHA256, leaf).as_ref().try_into().ok()),
            sni,
            certificate,
            alpn: common.alpn_protocol().map(Box::from),
            version: if common.protocol_version() == Some(ProtocolVersion::TLSv1_3) { "TLSv1.3" } else { "TLSv1.2" },
            resumed: common.handshake_kind() == Some(HandshakeKind::Resumed),
        };
        // A session that is resumed is not verified again: its settings are the same, but time goes on.
        let expired = self.peer.resumed
            && leaf.and_then(|leaf| Leaf::read(leaf)).is_some_and(|leaf| clock.now_s() > leaf.not_after_s);
        self.state = match common.protocol_version() {
            Some(ProtocolVersion::TLSv1_3) => State::Tls13(Tls13::new(engine)?),
            _ => State::Tls12(Box::new(engine)),
        };
        if expired {
            if let State::Tls13(records) = &mut self.state {
                records.seal.append(ALERT, std::iter::once(&[2, CERTIFICATE_EXPIRED][..]), out)?;
            }
            return Err(Failure::Expired);
        }
        Ok(())
    }

    /// What is known of the other end, once the handshake is done.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// The same, to be kept elsewhere: the session knows it no more.
    pub fn take_peer(&mut self) -> Peer {
        std::mem::take(&mut self.peer)
    }

    /// The cipher suite's name, once the handshake is done.
    pub fn suite(&self) -> &'static str {
        let suite = match &self.state {
            State::Tls13(records) => Some(match &*records.kernel {
                Kernel::Server(kernel) => kernel.negotiated_cipher_suite(),
                Kernel::Client(kernel) => kernel.negotiated_cipher_suite(),
            }),
            State::Tls12(engine) => engine.common().negotiated_cipher_suite(),
            State::Shaking(_) | State::Failed(_) => None,
        };
        suite.and_then(|suite| suite.suite().as_str()).unwrap_or_default()
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
    /// The connection is to be ended, with [`Session::alert`].
    pub fn open(&mut self, record: &mut [u8]) -> Result<Opened, Failure> {
        match &mut self.state {
            State::Tls13(records) => records.open(record).inspect_err(|_| records.open.end()),
            State::Tls12(engine) => {
                let mut unsent = Vec::new();
                let opened = open_12(engine, record, &mut unsent);
                if opened.is_err() {
                    engine.flush(&mut unsent);
                    self.state = State::Failed(unsent);
                }
                opened
            }
            State::Shaking(_) | State::Failed(_) => Err(Failure::Other),
        }
    }

    /// Whether something is to be sent before the next bytes are: see [`Session::take_pending`].
    pub fn wants_send(&self) -> bool {
        matches!(&self.state, State::Tls13(records) if records.wants_send())
    }

    /// Puts what must go before the next bytes behind `out`: a KeyUpdate that was asked for, or that our key needs.
    ///
    /// # Errors
    /// The connection is to be ended.
    pub fn take_pending(&mut self, out: &mut Vec<u8>) -> Result<(), Failure> {
        match &mut self.state {
            State::Tls13(records) if records.wants_send() => records.update_key(out),
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
        let length: usize = parts.iter().map(|part| part.len()).sum();
        match &mut self.state {
            State::Tls13(records) if length <= MOST => {
                records.seal.append(APPLICATION_DATA, parts.iter().copied(), out)
            }
            State::Tls13(records) => parts
                .concat()
                .chunks(MOST)
                .try_for_each(|chunk| records.seal.append(APPLICATION_DATA, std::iter::once(chunk), out)),
            State::Tls12(engine) => {
                let bytes = parts.concat();
                bytes.chunks(MOST).try_for_each(|chunk| seal_12(engine, chunk, out))
            }
            State::Shaking(_) | State::Failed(_) => Err(Failure::Other),
        }
    }

    /// Whether [`Session::seal_in_place`] can be used.
    pub fn seals_in_place(&self) -> bool {
        matches!(self.state, State::Tls13(_))
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
        match &mut self.state {
            State::Tls13(records) => records.seal.seal(APPLICATION_DATA, chunk, header, trailer),
            _ => Err(Failure::Other),
        }
    }

    /// Puts close_notify behind `out`.
    pub fn close(&mut self, out: &mut Vec<u8>) {
        match &mut self.state {
            State::Tls13(records) => {
                let _ = records.seal.append(ALERT, std::iter::once(&[1, 0][..]), out);
            }
            State::Tls12(engine) => close_12(engine, out),
            State::Shaking(_) | State::Failed(_) => {}
        }
    }

    /// Puts the alert behind `out` that tells of a failure.
    pub fn alert(&mut self, failure: Failure, out: &mut Vec<u8>) {
        match &mut self.state {
            State::Tls13(_) if failure == Failure::PeerAlert => {}
            State::Tls13(records) => {
                let _ = records.seal.append(ALERT, std::iter::once(&[2, failure.alert()][..]), out);
            }
            State::Failed(unsent) => out.append(unsent),
            State::Tls12(_) | State::Shaking(_) => {}
        }
    }
}

impl Shaking {
    /// Until it is blocked (`false`) or done.
    fn run(&mut self, input: &mut [u8], consumed: &mut usize, out: &mut Vec<u8>) -> Result<bool, Failure> {
        loop {
            let window = &mut input[*consumed..*consumed + self.seen];
            let (discard, step) = self.engine.step(window, out);
            self.sni = super::server::asked().or(self.sni.take());
            *consumed += discard;
            self.seen -= discard.min(self.seen);
            match step {
                Ok(Step::Again) => {}
                Ok(Step::Blocked) => match Session::record_length(&input[*consumed + self.seen..]) {
                    Ok(Some(length)) if length <= input.len() - *consumed - self.seen => {
                        self.seen += length;
                        self.begun = true;
                    }
                    Ok(_) => return Ok(false),
                    Err(_) if !self.begun => return Err(Failure::NotTls),
                    Err(failure) => return Err(failure),
                },
                // Part of a message behind the last one: rustls would look for it later, where it is not.
                Ok(Step::Ready) if self.seen > 0 => return Err(Failure::BadRecord),
                Ok(Step::Ready) => return Ok(true),
                Ok(Step::Closed) => return Err(Failure::PeerAlert),
                Ok(Step::Unexpected | Step::Data(_)) => return Err(Failure::BadRecord),
                Err(error) => {
                    self.engine.flush(out);
                    return Err(Failure::of(&error));
                }
            }
        }
    }
}

impl Tls13 {
    fn new(engine: Engine) -> Result<Tls13, Failure> {
        let failed = |error: Error| Failure::of(&error);
        let (secrets, kernel) = match engine {
            Engine::Server(connection) => {
                let (secrets, kernel) = connection.dangerous_into_kernel_connection().map_err(failed)?;
                (secrets, Kernel::Server(kernel))
            }
            Engine::Client(connection) => {
                let (secrets, kernel) = connection.dangerous_into_kernel_connection().map_err(failed)?;
                (secrets, Kernel::Client(kernel))
            }
        };
        Ok(Tls13 {
            open: Direction::new(secrets.rx)?,
            seal: Direction::new(secrets.tx)?,
            kernel: Box::new(kernel),
            owed: false,
            idle_records: 0,
            partial: Vec::new(),
        })
    }

    fn wants_send(&self) -> bool {
        self.owed || self.seal.is_worn()
    }

    fn open(&mut self, record: &mut [u8]) -> Result<Opened, Failure> {
        let (kind, range) = self.open.open(record)?;
        if kind == APPLICATION_DATA && !range.is_empty() && self.partial.is_empty() {
            self.idle_records = 0;
            return Ok(Opened::Data(range));
        }
        self.idle_records += 1;
        if self.idle_records > IDLE_RECORDS {
            return Err(Failure::Limit);
        }
        match kind {
            APPLICATION_DATA if self.partial.is_empty() => Ok(Opened::Nothing),
            HANDSHAKE if !range.is_empty() => self.messages(&record[range]).map(|()| Opened::Nothing),
            ALERT if self.partial.is_empty() => match record[range] {
                [_, 0] => Ok(Opened::Closed),
                // user_canceled: a close_notify follows (RFC 8446 section 6.1).
                [_, 90] => Ok(Opened::Nothing),
                [_, _] => Err(Failure::PeerAlert),
                _ => Err(Failure::BadRecord),
            },
            _ => Err(Failure::BadRecord),
        }
    }

    /// Messages after the handshake; one may span records, but for a KeyUpdate, which ends its record.
    fn messages(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        if self.partial.len() + bytes.len() > MESSAGE_BYTES {
            return Err(Failure::TooLarge);
        }
        let mut gathered = std::mem::take(&mut self.partial);
        gathered.extend_from_slice(bytes);
        let mut rest = &gathered[..];
        while let Some((&[kind, a, b, c], body)) = rest.split_first_chunk::<4>() {
            let length = u32::from_be_bytes([0, a, b, c]) as usize;
            if length > MESSAGE_BYTES {
                return Err(Failure::TooLarge);
            }
            let Some((body, behind)) = body.split_at_checked(length) else { break };
            rest = behind;
            match (kind, body, &mut *self.kernel) {
                (NEW_SESSION_TICKET, ticket, Kernel::Client(kernel)) => {
                    kernel.handle_new_session_ticket(ticket).map_err(|_| Failure::BadRecord)?;
                }
                (KEY_UPDATE, [asks @ (0 | 1)], kernel) if rest.is_empty() => {
                    let secrets = match kernel {
                        Kernel::Server(kernel) => kernel.update_rx_secret(),
                        Kernel::Client(kernel) => kernel.update_rx_secret(),
                    };
                    self.open = Direction::new(secrets.map_err(|_| Failure::Other)?)?;
                    self.owed |= *asks == 1;
                }
                _ => return Err(Failure::BadRecord),
            }
        }
        self.partial = rest.to_vec();
        Ok(())
    }

    /// Says that the next key follows, and takes it.
    fn update_key(&mut self, out: &mut Vec<u8>) -> Result<(), Failure> {
        self.owed = false;
        self.seal.append(HANDSHAKE, std::iter::once(&[KEY_UPDATE, 0, 0, 1, 0][..]), out)?;
        let secrets = match &mut *self.kernel {
            Kernel::Server(kernel) => kernel.update_tx_secret(),
            Kernel::Client(kernel) => kernel.update_tx_secret(),
        };
        self.seal = Direction::new(secrets.map_err(|_| Failure::Other)?)?;
        Ok(())
    }
}

/// TLS 1.2: rustls decrypts into memory of its own; the bytes are put back where the record lay.
fn open_12(engine: &mut Engine, record: &mut [u8], unsent: &mut Vec<u8>) -> Result<Opened, Failure> {
    // After the handshake such a record can only ask for another one. Part of a message would also be looked for by
    // rustls in memory that is gone: it panics.
    if record.first() == Some(&HANDSHAKE) {
        return Err(Failure::BadRecord);
    }
    let mut opened = Opened::Nothing;
    let (discard, mut step) = engine.step(record, unsent);
    // A message that goes on in another record (nothing but a renegotiation would) holds places in this one.
    if step.is_ok() && discard != record.len() {
        return Err(Failure::BadRecord);
    }
    loop {
        match step {
            Ok(Step::Data(bytes)) => {
                let range = HEADER..HEADER + bytes.len();
                record.get_mut(range.clone()).ok_or(Failure::BadRecord)?.copy_from_slice(&bytes);
                opened = Opened::Data(range);
            }
            Ok(Step::Again) => {}
            // Whatever rustls would say by itself here has taken its place in the sequence of records: it ends with that.
            Ok(Step::Ready | Step::Closed) if !unsent.is_empty() => return Err(Failure::BadRecord),
            Ok(Step::Ready) => return Ok(opened),
            Ok(Step::Closed) => return Ok(Opened::Closed),
            Ok(Step::Blocked | Step::Unexpected) => return Err(Failure::BadRecord),
            Err(error) => return Err(Failure::of(&error)),
        }
        step = engine.step(&mut [], unsent).1;
    }
}

macro_rules! writing {
    ($engine:expr, $traffic:ident => $act:expr) => {{
        macro_rules! of {
            ($connection:expr) => {
                match $connection.process_tls_records(&mut []).state {
                    Ok(ConnectionState::WriteTraffic(mut $traffic)) => Some($act),
                    _ => None,
                }
            };
        }
        match $engine {
            Engine::Server(connection) => of!(connection),
            Engine::Client(connection) => of!(connection),
        }
    }};
}

fn seal_12(engine: &mut Engine, chunk: &[u8], out: &mut Vec<u8>) -> Result<(), Failure> {
    let begin = out.len();
    out.resize(begin + chunk.len() + 64, 0);
    let written = writing!(engine, traffic => traffic.encrypt(chunk, &mut out[begin..]));
    let written = written.and_then(Result::ok).ok_or(Failure::Other)?;
    out.truncate(begin + written);
    Ok(())
}

fn close_12(engine: &mut Engine, out: &mut Vec<u8>) {
    let begin = out.len();
    out.resize(begin + 64, 0);
    let written = writing!(engine, traffic => traffic.queue_close_notify(&mut out[begin..]));
    out.truncate(begin + written.and_then(Result::ok).unwrap_or(0));
}
