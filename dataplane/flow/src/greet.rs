//! What stands before a connection's own protocol: the PROXY header, then the TLS handshake; each within a bounded time.

use crate::client::{Client, Proxied, Source};
use crate::core::Core;
use crate::ending::{Ending, Opening};
use crate::log::Record;
use crate::port::{self, Port, hang_up};
use crate::stream::{self, Broken, Stream};
use plan::{Listener, Networks, Transport};
use ring::{Buf, Error, OutBuf, Socket};
use std::net::SocketAddr;
use std::rc::Rc;
use wire::proxy;

/// How long a handshake may take.
const HANDSHAKE_NS: u64 = 10_000_000_000;
/// A refused connection's input is taken for so long and so much, so that the alert is not destroyed.
const DISCARD_NS: u64 = 500_000_000;
const DISCARD_BYTES: u64 = 64 * 1024;
/// The content type of a handshake record (RFC 8446 section 5.1); no method of HTTP begins so.
const HANDSHAKE: u8 = 22;

/// Greets a client, then serves it.
pub(crate) async fn greet(core: Rc<Core>, port: Rc<Port>, socket: Socket) {
    let Some((current, id)) = port.serving(&core) else { return hang_up(&core, Stream::plain(socket)) };
    let listener = current.plan.listener(id);
    let mut input = None;
    let mut proxied = None;
    if let Some(allowed) = &listener.proxy_protocol {
        let until_ns = ring::now().saturating_add(listener.opening_timeout_ns);
        match header(&socket, allowed, &mut input, until_ns).await {
            Ok(found) => proxied = found.map(Box::new),
            Err(opening) => {
                if let Some(opening) = opening {
                    refuse(&core, listener, socket.peer(), "PROXY", Ending::ProxyHeader(opening));
                }
                socket.reset_on_close();
                return hang_up(&core, Stream::plain(socket));
            }
        }
    }
    let until_ns = ring::now().saturating_add(HANDSHAKE_NS);
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
            let arrived = input.as_ref().map_or(0, |buf| buf.len() as u64);
            core.counters.downstream_received_bytes.add(arrived);
            let client = Client { input, ..Client::new(stream, proxied) };
            port::serve(&core, &port, client);
        }
        Err((socket, broken)) => {
            let failure = broken.failure();
            core.counters.handshake_failed(failure);
            let client = proxied.map_or(socket.peer(), |proxied| Some(proxied.source));
            refuse(&core, listener, client, "TLS", Ending::HandshakeFailed(failure));
            let stream = Stream::plain(socket);
            if let Broken::Failed(_) = broken {
                stream.finish_and_discard(DISCARD_NS, DISCARD_BYTES).await;
            }
            hang_up(&core, stream);
        }
    }
}

/// Counts and logs a connection that came to nothing.
fn refuse(core: &Core, listener: &Listener, client: Option<SocketAddr>, protocol: &str, ending: Ending) {
    let ending = core.ended(ending);
    if listener.logs() {
        let source = Source::of(client);
        let record = Record {
            begun_ns: ring::now(),
            listener: &listener.name,
            source: source.text(),
            protocol,
            ..Record::default()
        };
        core.log(&record.ended(ending));
    }
}

/// Reads the PROXY header, which must be there, and leaves what came behind it in `input`. What it says of the connection, if
/// it says anything.
///
/// # Errors
/// What is wrong; nothing is, where the peer was gone before a byte could be read: a balancer's check resets its connections.
async fn header(
    socket: &Socket,
    allowed: &Networks,
    input: &mut Option<Buf>,
    until_ns: u64,
) -> Result<Option<Proxied>, Option<Opening>> {
    let peer = socket.peer().ok_or(None)?;
    if !allowed.allows(peer.ip()) {
        return Err(Some(Opening::ForeignPeer));
    }
    let first = receive(socket, until_ns).await;
    let mut buf = first.map_err(|opening| Some(opening).filter(|opening| *opening != Opening::ClientGone))?;
    if let Some(header) = proxy::read(&buf).map_err(Opening::Header)? {
        buf.advance(header.consumed);
        *input = Some(buf).filter(|rest| !rest.is_empty());
        return Ok(proxied(header));
    }
    let mut pieces = OutBuf::new();
    loop {
        pieces.extend_from_slice(&buf);
        if let Some(header) = proxy::read(&pieces).map_err(Opening::Header)? {
            pieces.drain(..header.consumed);
            if !pieces.is_empty() {
                *input = Some(Buf::gathered(pieces).map_err(|_| Opening::Limit)?);
            }
            return Ok(proxied(header));
        }
        drop(buf);
        buf = receive(socket, until_ns).await?;
    }
}

fn proxied(header: proxy::Header) -> Option<Proxied> {
    header.source.zip(header.destination).map(|(source, destination)| Proxied { source, destination })
}

async fn receive(socket: &Socket, until_ns: u64) -> Result<Buf, Opening> {
    match socket.recv(until_ns).await {
        Ok(Some(buf)) => Ok(buf),
        Err(Error::TimedOut) => Err(Opening::Timeout),
        Ok(None) | Err(_) => Err(Opening::ClientGone),
    }
}

async fn first_bytes(socket: &Socket, input: Option<Buf>, until_ns: u64) -> Result<Buf, Error> {
    match input {
        Some(bytes) => Ok(bytes),
        None => socket.recv(until_ns).await?.ok_or(Error::Reset),
    }
}
