//! What stands before a connection's own protocol: the PROXY header, then the TLS handshake. Both within a bounded time.

use crate::client::Client;
use crate::core::Core;
use crate::ending::Ending;
use crate::log::Record;
use crate::port::{self, Port, hang_up};
use crate::stream::{self, Broken, Stream};
use plan::{Allowed, Listener, Transport};
use ring::{Buf, Error, OutBuf, Socket};
use std::net::SocketAddr;
use std::rc::Rc;
use wire::tls::Failure;

/// How long a greeting may take.
const GREETING_NS: u64 = 10_000_000_000;
/// A refused connection's input is taken for so long and so much, so that the alert is not destroyed.
const DISCARD_NS: u64 = 500_000_000;
const DISCARD_BYTES: usize = 64 * 1024;
/// The longest PROXY header.
const HEADER_BYTES: usize = 5 * 1024;
/// The content type of a handshake record (RFC 8446 section 5.1); no method of HTTP begins so.
const HANDSHAKE: u8 = 22;

/// Greets a client, then serves it.
pub(crate) async fn greet(core: Rc<Core>, port: Rc<Port>, socket: Socket) {
    let Some((current, id)) = port.serving(&core) else { return hang_up(&core, Stream::plain(socket)) };
    let listener = current.plan.listener(id);
    let until_ns = ring::now().saturating_add(GREETING_NS);
    let mut input = None;
    let mut proxied = None;
    if let Some(allowed) = &listener.proxy_protocol {
        match header(&socket, allowed, &mut input, until_ns).await {
            Ok(source) => proxied = source.map(Box::new),
            Err(()) => {
                refuse(&core, listener, &socket, Ending::ProxyHeader);
                socket.reset_on_close();
                return hang_up(&core, Stream::plain(socket));
            }
        }
    }
    let stream = match &listener.transport {
        Transport::Plain => Ok(Stream::plain(socket)),
        Transport::Tls(server) => stream::accept(socket, input.take(), server, until_ns).await,
        Transport::Migrate(server) => match first_bytes(&socket, input.take(), until_ns).await {
            Ok(bytes) if bytes.first() == Some(&HANDSHAKE) => {
                stream::accept(socket, Some(bytes), server, until_ns).await
            }
            Ok(bytes) => {
                core.counters.plaintext.add(1);
                input = Some(bytes);
                Ok(Stream::plain(socket))
            }
            Err(error) => Err((socket, Broken::Lost(error))),
        },
    };
    match stream {
        Ok(stream) => {
            if let Some(peer) = stream.peer() {
                core.counters.handshakes.add(1);
                core.counters.handshakes_resumed.add(peer.resumed.into());
            }
            drop(current);
            let client = Client { input, ..Client::new(stream, proxied) };
            port::serve(&core, &port, client);
        }
        Err((socket, broken)) => {
            let failure = match broken {
                Broken::Failed(failure) => failure,
                Broken::Lost(Error::TimedOut) => Failure::Timeout,
                Broken::Lost(_) => Failure::PeerGone,
            };
            core.counters.handshake_failed(failure);
            refuse(&core, listener, &socket, Ending::HandshakeFailed(failure));
            if let Broken::Failed(_) = broken {
                discard(&socket).await;
            }
            hang_up(&core, Stream::plain(socket));
        }
    }
}

/// Counts and logs a connection that came to nothing.
fn refuse(core: &Core, listener: &Listener, socket: &Socket, ending: Ending) {
    let ending = core.ended(ending);
    if listener.logs() {
        let source = crate::client::Source::of(socket.peer(), None);
        let record = Record { begun_ns: ring::now(), listener: &listener.name, source: source.text(), protocol: "TLS", ..Record::default() };
        core.log(&record.ended(ending));
    }
}

/// Reads the PROXY header, which is mandatory; the address that it names.
async fn header(
    socket: &Socket,
    allowed: &Allowed,
    input: &mut Option<Buf>,
    until_ns: u64,
) -> Result<Option<SocketAddr>, ()> {
    if !socket.peer().is_some_and(|peer| allowed.allows(peer.ip())) {
        return Err(());
    }
    let mut arrived = OutBuf::new();
    while arrived.len() < HEADER_BYTES {
        let buf = socket.recv(until_ns).await.ok().flatten().ok_or(())?;
        arrived.extend_from_slice(&buf);
        if let Some(header) = wire::proxy::read(&arrived).map_err(drop)? {
            arrived.drain(..header.consumed);
            if !arrived.is_empty() {
                *input = Some(Buf::gathered(arrived).map_err(drop)?);
            }
            return Ok(header.source);
        }
    }
    Err(())
}

async fn first_bytes(socket: &Socket, input: Option<Buf>, until_ns: u64) -> Result<Buf, Error> {
    match input {
        Some(bytes) => Ok(bytes),
        None => socket.recv(until_ns).await?.ok_or(Error::Reset),
    }
}

async fn discard(socket: &Socket) {
    socket.shutdown_write();
    let until_ns = ring::now() + DISCARD_NS;
    let mut bytes = 0;
    while bytes < DISCARD_BYTES
        && let Ok(Some(buf)) = socket.recv(until_ns).await
    {
        bytes += buf.len();
    }
}
