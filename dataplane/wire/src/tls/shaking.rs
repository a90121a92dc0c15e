//! The handshake, which is rustls'. It is fed one record at a time, so that what follows its last one is left to us.

use super::aside::{self, Aside};
use super::traffic::{Kernel, Traffic};
use super::{Failure, Session};
use rustls::client::UnbufferedClientConnection;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, UnbufferedStatus};
use rustls::{CommonState, Error, ProtocolVersion};

/// One side of a handshake.
pub(super) enum Engine {
    Server(UnbufferedServerConnection),
    Client(UnbufferedClientConnection),
}

/// A handshake under way.
pub(super) struct Shaking {
    engine: Engine,
    aside: Aside,
    /// Bytes at the front of the input that rustls has seen and not consumed.
    seen: usize,
    begun: bool,
}

/// What rustls wants next.
enum Step {
    Again,
    Blocked,
    Ready,
    Unexpected,
    Closed,
}

impl Engine {
    /// Lets rustls look at `window`; puts what it wants to send behind `out`. How much of the window is done with.
    fn step(&mut self, window: &mut [u8], out: &mut Vec<u8>) -> (usize, Result<Step, Error>) {
        match self {
            Engine::Server(connection) => taken(connection.process_tls_records(window), out),
            Engine::Client(connection) => taken(connection.process_tls_records(window), out),
        }
    }

    /// What is left to send after an error, such as an alert. Nothing beyond: rustls panics when it looks for input
    /// again after an error.
    fn flush(&mut self, out: &mut Vec<u8>) {
        while self.common().wants_write() {
            let (_, Ok(Step::Again)) = self.step(&mut [], out) else { break };
        }
    }

    fn common(&self) -> &CommonState {
        match self {
            Engine::Server(connection) => connection,
            Engine::Client(connection) => connection,
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
        ConnectionState::PeerClosed | ConnectionState::Closed => Step::Closed,
        _ => Step::Unexpected,
    });
    (status.discard, step)
}

impl Shaking {
    /// `aside`: what was learnt when the engine was made.
    pub(super) fn new(engine: Engine, aside: Aside) -> Shaking {
        Shaking { engine, aside, seen: 0, begun: false }
    }

    /// Until it is blocked (`false`) or done. `input` is all that has arrived and was not consumed.
    pub(super) fn run(&mut self, input: &mut [u8], consumed: &mut usize, out: &mut Vec<u8>) -> Result<bool, Failure> {
        loop {
            let window = &mut input[*consumed..*consumed + self.seen];
            let (discard, step) = aside::with(&mut self.aside, || self.engine.step(window, out));
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
                Ok(Step::Unexpected) => return Err(Failure::BadRecord),
                Err(error) => {
                    self.engine.flush(out);
                    return Err(Failure::of(&error));
                }
            }
        }
    }

    /// The name that the client asked for, once it is known.
    pub(super) fn take_asked(&mut self) -> Option<Box<str>> {
        self.aside.asked.take()
    }

    /// What rustls knows of the connection.
    pub(super) fn common(&self) -> &CommonState {
        self.engine.common()
    }

    /// It is done: from here on records are our own.
    pub(super) fn into_traffic(self) -> Result<Traffic, Failure> {
        let failed = |error: Error| Failure::of(&error);
        let tls13 = self.common().protocol_version() == Some(ProtocolVersion::TLSv1_3);
        let (secrets, kernel) = match self.engine {
            Engine::Server(connection) => {
                let (secrets, kernel) = connection.dangerous_into_kernel_connection().map_err(failed)?;
                (secrets, Kernel::Server(kernel))
            }
            Engine::Client(connection) => {
                let (secrets, kernel) = connection.dangerous_into_kernel_connection().map_err(failed)?;
                (secrets, Kernel::Client(kernel))
            }
        };
        match tls13 {
            true => Traffic::new(secrets, kernel, self.aside.ends_s),
            false => Traffic::new_12(secrets),
        }
    }
}
