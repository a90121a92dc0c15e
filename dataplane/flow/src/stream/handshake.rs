//! The beginning of a connection with TLS, on either side.

use super::Stream;
use ring::{Buf, Error, Message, OutBuf, Socket};
use wire::tls::{Client, Failure, HandshakeState, Server, Session};

/// A handshake may hold at most so many bytes that wait for more: chains of certificates are long, but not longer.
const HANDSHAKE_BYTES: usize = 96 * 1024;
/// The same of a hello, which anybody may send.
const HELLO_BYTES: usize = wire::client_hello::MOST_BYTES;

/// Why a handshake came to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    /// The ends did not agree; the other one was told.
    Failed(Failure),
    /// The connection did not hold, or time ran out.
    Lost(Error),
}

impl Broken {
    /// What it is counted under.
    pub(crate) fn failure(self) -> Failure {
        match self {
            Broken::Failed(failure) => failure,
            Broken::Lost(Error::TimedOut) => Failure::Timeout,
            Broken::Lost(_) => Failure::PeerGone,
        }
    }
}

/// The server's side; `input` is what has arrived already. A connection that came to nothing is given back.
///
/// # Errors
/// Why it came to nothing.
pub(crate) async fn accept(
    socket: Socket,
    input: Option<Buf>,
    server: &Server,
    until_ns: u64,
) -> Result<Stream, (Socket, Broken)> {
    let session = Session::accept(server);
    begin(socket, session, input, until_ns).await
}

/// The client's side.
///
/// # Errors
/// As [`accept`].
pub(crate) async fn connect(socket: Socket, client: &Client, until_ns: u64) -> Result<Stream, (Socket, Broken)> {
    let session = Session::connect(client);
    begin(socket, session, None, until_ns).await
}

async fn begin(
    socket: Socket,
    session: Result<Session, Failure>,
    input: Option<Buf>,
    until_ns: u64,
) -> Result<Stream, (Socket, Broken)> {
    let shaken = match session {
        Ok(mut session) => shake(&socket, &mut session, input, until_ns).await.map(|rest| (session, rest)),
        Err(failure) => Err(Broken::Failed(failure)),
    };
    match shaken {
        Ok((session, rest)) => Ok(Stream::secure(socket, session, rest)),
        Err(broken) => Err((socket, broken)),
    }
}

/// Speaks until both ends agree; what followed on their last words.
async fn shake(
    socket: &Socket,
    session: &mut Session,
    input: Option<Buf>,
    until_ns: u64,
) -> Result<Option<Buf>, Broken> {
    let mut arrived = OutBuf::new();
    arrived.extend_from_slice(input.as_deref().unwrap_or_default());
    drop(input);
    let mut most = HELLO_BYTES;
    loop {
        let mut out = OutBuf::new();
        session.tick(ring::now());
        let step = session.handshake(&mut arrived, &mut out);
        arrived.drain(..step.consumed);
        if !out.is_empty() {
            most = HANDSHAKE_BYTES;
            let mut message = Message::new();
            message.out(out);
            let sent = socket.send(&mut message, until_ns).await;
            // Whoever ends the handshake with an alert need not take our answer.
            if !matches!(step.state, HandshakeState::Failed(_)) {
                sent.map_err(Broken::Lost)?;
            }
        }
        match step.state {
            HandshakeState::Done if arrived.is_empty() => return Ok(None),
            HandshakeState::Done => {
                return Buf::gathered(arrived).map(Some).map_err(|_| Broken::Failed(Failure::Limit));
            }
            HandshakeState::Failed(failure) => return Err(Broken::Failed(failure)),
            HandshakeState::More if arrived.len() > most => return Err(Broken::Failed(Failure::TooLarge)),
            HandshakeState::More => {}
        }
        let buf = socket.recv(until_ns).await.map_err(Broken::Lost)?.ok_or(Broken::Lost(Error::Reset))?;
        arrived.extend_from_slice(&buf);
    }
}
