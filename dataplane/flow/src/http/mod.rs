//! One client's HTTP/1.1 connection, request after request.
//!
//! ```text
//! serve ─► arrive (head) ─► prepare (decide, write the upstream's head) ─► exchange ─► finish (count, log) ─► next, or close
//!                             └─► answer (ours: redirect, fixed, error)       ├─► connection (pool, connect)
//!                                                                             ├─► body up   ┐ at the same time
//!                                                                             ├─► answer    ┘
//!                                                                             └─► switched (101: a tunnel)
//! ```

mod answer;
mod arrive;
mod exchange;
mod prepare;
mod reply;
mod request;
mod switched;

use crate::client::Client;
use crate::core::Core;
use crate::port::{Port, hang_up};
use crate::pump;
use prepare::Prepared;
use ring::{Message, OutBuf};
use std::rc::Rc;
use switched::Switched;

const MS: u64 = 1_000_000;
/// How long a connection keeps its task after an answer, waiting for the next request, before it rests without one.
const LINGER_NS: u64 = 20 * MS;
/// After an answer that came before the request's end, input is discarded for at most so long and so much.
const DISCARD_NS: u64 = 1_000 * MS;
const DISCARD_BYTES: u64 = 256 * 1024;
/// A body of at most this many bytes is read to its end after an answer of our own, to keep the connection.
const SKIP_BYTES: u64 = 64 * 1024;

/// What becomes of a client's connection after a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum After {
    /// The next request may come.
    Keep,
    /// All was said: close.
    Close,
    /// Close, but the request was not read to its end: take input for a moment, so that the answer is not destroyed.
    Discard,
    /// The answer was cut short: close so that it shows.
    Reset,
}

/// What follows a request on a client's connection.
pub(crate) enum Next {
    After(After),
    /// No other request: the connection is a tunnel from here on.
    Switched(Box<Switched>),
}

impl From<After> for Next {
    fn from(after: After) -> Next {
        Next::After(after)
    }
}

/// Serves a connection until it rests or ends.
pub(crate) async fn serve(core: Rc<Core>, port: Rc<Port>, mut client: Client) {
    loop {
        // A part of a record is the beginning of a request: it has the request's time, not the moment given here.
        if client.input.is_none() && !wait_for_bytes(&core, &mut client).await && !client.stream.holds_part() {
            if !port.is_closed() && client.stream.is_quiet() {
                let idle_ns = core.current().map_or(0, |current| arrive::idle_ns(&current, &port));
                return core.rest(port, client, ring::now().saturating_add(idle_ns));
            }
            break;
        }
        let after = match one_request(&core, &port, &mut client).await {
            Next::After(after) => after,
            Next::Switched(tunnel) => {
                // A closed port holds the last plan that knew it.
                let weak = Rc::downgrade(&port);
                drop(port);
                tunnel.run(&core, &weak, &mut client).await;
                break;
            }
        };
        match after {
            After::Keep => {}
            After::Close if client.input.is_none() => break,
            After::Close | After::Discard => {
                client.input = None;
                client.stream.finish_and_discard(DISCARD_NS, DISCARD_BYTES).await;
                break;
            }
            After::Reset => {
                client.stream.reset_on_close();
                break;
            }
        }
    }
    hang_up(&core, client.stream);
}

/// Waits a moment for the next request. `false`: nothing came, or the connection is over.
async fn wait_for_bytes(core: &Core, client: &mut Client) -> bool {
    match client.stream.recv(ring::now() + LINGER_NS).await {
        Ok(Some(buf)) => {
            core.counters.downstream_received_bytes.add(buf.len() as u64);
            client.input = Some(buf);
            true
        }
        Ok(None) | Err(_) => false,
    }
}

async fn one_request(core: &Rc<Core>, port: &Port, client: &mut Client) -> Next {
    let prepared = {
        let Some((current, listener)) = port.serving(core) else { return After::Close.into() };
        arrive::head(core, &current, listener, client, port.is_closed()).await
    };
    match prepared {
        Some(Prepared::Forward(request, head, forward)) => {
            core.counters.active.add(1);
            let next = exchange::forward(core, client, request, head, forward).await;
            core.counters.active.sub(1);
            next
        }
        Some(Prepared::Answer(request, head, ending)) => answer::give(core, client, request, head, ending).await.into(),
        Some(Prepared::Refuse(request, ending)) => answer::refuse(core, client, request, ending).await.into(),
        None => After::Close.into(),
    }
}

/// Sends an answer of our own; `last`: the connection ends behind it. `false`: the client is gone.
async fn send(core: &Core, client: &Client, out: OutBuf, until_ns: u64, last: bool) -> bool {
    let length = out.len() as u64;
    let mut message = Message::new();
    message.out(out);
    if last {
        message.is_last();
    }
    let sent = client.stream.send(&mut message, until_ns).await.is_ok();
    if sent {
        core.counters.downstream_sent_bytes.add(length);
    }
    sent
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes_of<F: Future>(_: impl Fn(Rc<Core>, Rc<Port>, Client) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn a_task_and_an_idle_connection_stay_small() {
        let http = bytes_of(serve);
        assert!(http <= 3072, "an HTTP connection's task takes {http} bytes");
        let tcp = bytes_of(crate::tcp::serve);
        assert!(tcp <= 1792, "a TCP connection's task takes {tcp} bytes");
        let passthrough = bytes_of(crate::passthrough::serve);
        assert!(passthrough <= 1920, "the task of a connection whose TLS is passed on takes {passthrough} bytes");
        let idle = crate::core::Idle::TABLE_BYTES + ring::Socket::TABLE_BYTES;
        assert!(idle <= 128, "an idle connection takes {idle} bytes of tables");
    }
}
