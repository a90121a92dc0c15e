//! A connection of a peer: a simulated socket, and TLS over it where a scenario has it. The session is rustls' with its
//! ordinary buffers, none of the proxy's code. Keys sign with Ed25519, whose signatures are all of one length: so lengths,
//! and with them faults, follow from the seed although keys and randoms do not.

use crate::choice::Choice;
use crate::security::{Acceptor, Dialler};
use ring::{Error, Message, OutBuf, Socket};
use rustls::Connection;
use std::cell::{Cell, RefCell};
use std::io::{Read, Write};

/// Nobody waits longer for anything: what takes longer hangs.
pub(crate) const PATIENCE_NS: u64 = 3_000_000_000_000;

/// Longer than any segment is under way.
const REST_NS: u64 = 50_000_000;

/// So much is sent in single bytes, when it is: the handshake and some records.
const SLOW_BYTES: usize = 1000;

/// What goes wrong with what a peer says in TLS: at which byte of all that it sends, and how.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flaw {
    pub(crate) at: usize,
    pub(crate) kind: Wrong,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wrong {
    /// It says nothing more, and does not go.
    Silence,
    /// The FIN comes, and close_notify did not.
    End,
    /// A bit is another.
    Bit(u8),
    /// Nothing, but for a rest there.
    Rest,
}

/// Which of a peer's connections have a flaw.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) enum Flawed {
    #[default]
    None,
    /// So many of a hundred have any.
    Some(u64),
    /// Each has this one.
    All(Flaw),
}

/// How a peer cuts what it says into records, and those into pieces; how often it changes its key.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Habit {
    /// Bytes that a record carries, at most.
    record: usize,
    /// Pieces that are sent by themselves, at most; later fewer.
    pieces: usize,
    rekey_percent: u64,
}

impl Flawed {
    fn choose(self, choice: &mut Choice) -> Option<Flaw> {
        match self {
            Flawed::None => None,
            Flawed::Some(percent) => choice.percent(percent).then(|| Flaw::any(choice)),
            Flawed::All(flaw) => Some(flaw),
        }
    }
}

impl Flaw {
    /// Somewhere: in the handshake, or behind it.
    fn any(choice: &mut Choice) -> Flaw {
        let within = choice.one_of(&[10, 300, 1500, 1500, 4000, 30_000]);
        let bit = choice.below(8) as u8;
        Flaw { at: choice.up_to(within), kind: choice.one_of(&[Wrong::Silence, Wrong::End, Wrong::Bit(bit)]) }
    }
}

impl Habit {
    fn any(choice: &mut Choice) -> Habit {
        Habit {
            record: choice.one_of(&[16_384, 16_384, 16_384, 3000, 100, 1]),
            pieces: choice.one_of(&[1, 1, 1, 3, usize::MAX]),
            rekey_percent: choice.one_of(&[0, 0, 3, 30]),
        }
    }
}

/// What a client connects with.
#[derive(Clone, Default)]
pub(crate) struct Dial {
    pub(crate) with: Option<Dialler>,
    pub(crate) flawed: Flawed,
}

/// What an origin accepts with.
#[derive(Clone, Default)]
pub(crate) struct Hall {
    pub(crate) with: Option<Acceptor>,
    pub(crate) flawed: Flawed,
}

impl Dial {
    /// Begins over a connected socket. `None`: the handshake came to nothing, as networks have it.
    pub(crate) async fn line(&self, socket: Socket) -> Option<Line> {
        let Some(dialler) = &self.with else { return Some(Line::plain(socket)) };
        let (connection, choice) = dialler.begin();
        Line::over(socket, connection.into(), choice, self.flawed).await
    }
}

impl Hall {
    /// As [`Dial::line`].
    pub(crate) async fn line(&self, socket: Socket) -> Option<Line> {
        let Some(acceptor) = &self.with else { return Some(Line::plain(socket)) };
        let (connection, choice) = acceptor.begin();
        Line::over(socket, connection.into(), choice, self.flawed).await
    }
}

/// A connection, which one reader and one writer share.
pub(crate) struct Line {
    socket: Socket,
    session: Option<RefCell<Session>>,
    /// Bytes on the wire, in TLS.
    sent: Cell<usize>,
    flaw: Option<Flaw>,
}

/// TLS over it.
struct Session {
    connection: Connection,
    habit: Habit,
    choice: Choice,
    /// Records to be sent.
    out: Vec<u8>,
    /// What was opened and not taken.
    opened: Vec<u8>,
    /// close_notify came.
    ended: bool,
    /// What came was no TLS, or the other side gave up.
    failed: bool,
}

impl Line {
    pub(crate) fn plain(socket: Socket) -> Line {
        Line { socket, session: None, sent: Cell::new(0), flaw: None }
    }

    async fn over(socket: Socket, connection: Connection, mut choice: Choice, flawed: Flawed) -> Option<Line> {
        let flaw = flawed.choose(&mut choice);
        let habit = Habit::any(&mut choice);
        let session =
            Session { connection, habit, choice, out: Vec::new(), opened: Vec::new(), ended: false, failed: false };
        let line = Line { socket, session: Some(RefCell::new(session)), sent: Cell::new(0), flaw };
        let session = line.session.as_ref()?;
        loop {
            session.borrow_mut().make();
            line.send_records().await.ok()?;
            if !session.borrow().connection.is_handshaking() {
                return Some(line);
            }
            let records = match line.socket.recv(ring::now() + PATIENCE_NS).await {
                Ok(records) => records?,
                Err(Error::TimedOut) => panic!("half a handshake is waited for without end"),
                Err(_) => return None,
            };
            line.feed(&records);
            if session.borrow().failed {
                return None;
            }
        }
    }

    /// Waits for bytes; none at an end that was said. In TLS an end that was not said is a reset.
    pub(crate) async fn recv(&self, until_ns: u64) -> Result<Option<Vec<u8>>, Error> {
        let Some(session) = &self.session else {
            return Ok(self.socket.recv(until_ns).await?.map(|buf| buf.to_vec()));
        };
        loop {
            if let Some(bytes) = session.borrow_mut().take() {
                return Ok(Some(bytes));
            }
            let (ended, failed) = (session.borrow().ended, session.borrow().failed);
            match (ended, failed) {
                (true, _) => return Ok(None),
                (_, true) => return Err(Error::Reset),
                _ => {}
            }
            match self.socket.recv(until_ns).await? {
                Some(records) => self.feed(&records),
                None => return Err(Error::Reset),
            }
        }
    }

    /// Nothing has come that was not taken.
    pub(crate) fn is_drained(&self) -> bool {
        let arrived = self.socket.try_recv();
        match &self.session {
            None => arrived.is_none(),
            Some(session) => {
                arrived.iter().for_each(|records| self.feed(records));
                session.borrow().opened.is_empty()
            }
        }
    }

    /// What comes from the proxy is never wrong, unless something was wrong with what it got.
    fn feed(&self, records: &[u8]) {
        let Some(session) = &self.session else { return };
        let mut session = session.borrow_mut();
        if let Err(error) = session.feed(records) {
            assert!(self.is_broken(), "the proxy's TLS: {error}");
            session.failed = true;
        }
    }

    pub(crate) fn is_secure(&self) -> bool {
        self.session.is_some()
    }

    /// Sends bytes; in TLS as records of their own.
    pub(crate) async fn send(&self, bytes: &[u8]) -> Result<(), Error> {
        let Some(session) = &self.session else { return self.send_piece(bytes).await };
        if session.borrow().failed {
            return Err(Error::Reset);
        }
        session.borrow_mut().seal(bytes);
        self.send_records().await
    }

    /// Says that nothing more is sent, where there is TLS: when that is sent, so is all. Says whether it will be.
    pub(crate) fn say_end(&self) -> bool {
        let Some(session) = &self.session else { return true };
        let mut session = session.borrow_mut();
        if session.failed {
            return false;
        }
        session.connection.send_close_notify();
        session.make();
        let (begin, end) = (self.sent.get(), self.sent.get() + session.out.len());
        self.flaw.is_none_or(|flaw| match flaw.kind {
            Wrong::Rest => true,
            Wrong::Silence | Wrong::End => flaw.at >= end,
            // What does not open ends a connection; but who looks at a version in a record's header?
            Wrong::Bit(_) => !(begin + 5..end).contains(&flaw.at),
        })
    }

    /// Ends our direction, and says so.
    pub(crate) async fn finish(&self) {
        self.say_end();
        let _gone = self.send_records().await;
        // Silence is no end.
        if !self.is_silent() {
            self.socket.shutdown_write();
        }
    }

    /// Ends our direction and says nothing, as nobody does who means it: in TLS what was sent may not be all.
    pub(crate) fn cut_off(&self) {
        self.socket.shutdown_write();
    }

    pub(crate) fn reset_on_close(&self) {
        self.socket.reset_on_close();
    }

    /// Its flaw has come to pass.
    fn has_struck(&self) -> bool {
        self.flaw.is_some_and(|flaw| flaw.at < self.sent.get())
    }

    /// The proxy may complain.
    fn is_broken(&self) -> bool {
        self.has_struck() && self.flaw.is_some_and(|flaw| flaw.kind != Wrong::Rest)
    }

    fn is_silent(&self) -> bool {
        self.has_struck() && self.flaw.is_some_and(|flaw| flaw.kind == Wrong::Silence)
    }

    /// Sends what the session has for the other side: records are cut anywhere.
    async fn send_records(&self) -> Result<(), Error> {
        let Some(session) = &self.session else { return Ok(()) };
        let (records, pieces) = {
            let session = &mut *session.borrow_mut();
            let few = if self.sent.get() < SLOW_BYTES { usize::MAX } else { 3 };
            (std::mem::take(&mut session.out), session.habit.pieces.min(few))
        };
        for piece in records.chunks(records.len().div_ceil(pieces).max(1)) {
            self.send_flawed(piece).await?;
        }
        Ok(())
    }

    /// Sends bytes as they are, but for the flaw.
    async fn send_flawed(&self, piece: &[u8]) -> Result<(), Error> {
        let begin = self.sent.get();
        self.sent.set(begin + piece.len());
        let Some(flaw) = self.flaw.filter(|_| self.has_struck()) else { return self.send_piece(piece).await };
        let good = &piece[..flaw.at.saturating_sub(begin)];
        match flaw.kind {
            Wrong::Bit(bit) => {
                let mut bytes = piece.to_vec();
                if flaw.at >= begin {
                    bytes[good.len()] ^= 1 << bit;
                }
                self.send_piece(&bytes).await
            }
            Wrong::Rest if flaw.at >= begin => {
                self.send_piece(good).await?;
                ring::sleep_until(ring::now() + REST_NS).await;
                self.send_piece(&piece[good.len()..]).await
            }
            Wrong::Rest => self.send_piece(piece).await,
            Wrong::Silence => self.send_piece(good).await,
            Wrong::End => {
                self.send_piece(good).await?;
                self.socket.shutdown_write();
                Err(Error::Reset)
            }
        }
    }

    async fn send_piece(&self, piece: &[u8]) -> Result<(), Error> {
        if piece.is_empty() {
            return Ok(());
        }
        let mut out = OutBuf::new();
        out.extend_from_slice(piece);
        let mut message = Message::new();
        message.out(out);
        self.socket.send(&mut message, ring::now() + PATIENCE_NS).await
    }
}

impl Session {
    /// Makes records of what there is to say.
    fn make(&mut self) {
        while self.connection.wants_write() {
            self.connection.write_tls(&mut self.out).expect("memory");
        }
    }

    fn seal(&mut self, bytes: &[u8]) {
        for part in bytes.chunks(self.habit.record.max(bytes.len() / 30).clamp(1, 16_384)) {
            let old = self.connection.protocol_version() == Some(rustls::ProtocolVersion::TLSv1_2);
            if !old && self.choice.percent(self.habit.rekey_percent) {
                self.connection.refresh_traffic_keys().expect("keys");
            }
            self.connection.writer().write_all(part).expect("room");
            self.make();
        }
    }

    fn feed(&mut self, mut records: &[u8]) -> Result<(), rustls::Error> {
        while !records.is_empty() {
            self.connection.read_tls(&mut records).expect("memory");
            let state = self.connection.process_new_packets()?;
            self.ended |= state.peer_has_closed();
            let before = self.opened.len();
            self.opened.resize(before + state.plaintext_bytes_to_read(), 0);
            if self.opened.len() > before {
                self.connection.reader().read_exact(&mut self.opened[before..]).expect("what was opened");
            }
        }
        Ok(())
    }

    fn take(&mut self) -> Option<Vec<u8>> {
        (!self.opened.is_empty()).then(|| std::mem::take(&mut self.opened))
    }
}
