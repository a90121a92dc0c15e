//! The TLS handshake that stands before a connection's own protocol, within a bounded time.

use crate::client::Client;
use crate::core::Core;
use crate::ending::Ending;
use crate::log::Record;
use crate::port::{self, Port, hang_up};
use crate::stream::{self, Broken, Stream};
use plan::{Listener, Transport};
use ring::{Error, Socket};
use std::rc::Rc;

/// How long a greeting may take.
const GREETING_NS: u64 = 10_000_000_000;
/// A refused connection's input is taken for so long and so much, so that the alert is not destroyed.
const DISCARD_NS: u64 = 500_000_000;
const DISCARD_BYTES: u64 = 64 * 1024;
/// The content type of a handshake record (RFC 8446 section 5.1); no method of HTTP begins so.
const HANDSHAKE: u8 = 22;

/// Greets a client, then serves it.
pub(crate) async fn greet(core: Rc<Core>, port: Rc<Port>, socket: Socket) {
    let Some((current, id)) = port.serving(&core) else { return hang_up(&core, Stream::plain(socket)) };
    let listener = current.plan.listener(id);
    let until_ns = ring::now().saturating_add(GREETING_NS);
    let mut input = None;
    let stream = match &listener.transport {
        Transport::Plain => Ok(Stream::plain(socket)),
        Transport::Tls(server) => stream::accept(socket, None, server, until_ns).await,
        Transport::Migrate(server) => match socket.recv(until_ns).await {
            Ok(Some(bytes)) if bytes.first() == Some(&HANDSHAKE) => {
                stream::accept(socket, Some(bytes), server, until_ns).await
            }
            Ok(Some(bytes)) => {
                core.counters.plaintext.add(1);
                input = Some(bytes);
                Ok(Stream::plain(socket))
            }
            Ok(None) => Err((socket, Broken::Lost(Error::Reset))),
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
            let client = Client { input, ..Client::new(stream) };
            port::serve(&core, &port, client);
        }
        Err((socket, broken)) => {
            let failure = broken.failure();
            core.counters.handshake_failed(failure);
            refuse(&core, listener, &socket, Ending::HandshakeFailed(failure));
            let stream = Stream::plain(socket);
            if let Broken::Failed(_) = broken {
                stream.finish_and_discard(DISCARD_NS, DISCARD_BYTES).await;
            }
            hang_up(&core, stream);
        }
    }
}

/// Counts and logs a connection that came to nothing.
fn refuse(core: &Core, listener: &Listener, socket: &Socket, ending: Ending) {
    let ending = core.ended(ending);
    if listener.logs() {
        let source = crate::client::Source::of(socket.peer());
        let record = Record {
            begun_ns: ring::now(),
            listener: &listener.name,
            source: source.text(),
            protocol: "TLS",
            ..Record::default()
        };
        core.log(&record.ended(ending));
    }
}
