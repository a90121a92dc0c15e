//! Accepting: one port for each address that a listener has, one task a port.
//!
//! A port outlives the plans that name its address. One whose listener is gone, or that drains, is accepted empty, then
//! closed; its connections end with the request under way.

use crate::client::Client;
use crate::core::{Core, Current};
use crate::stream::Stream;
use plan::{Kind, ListenerId, Transport};
use ring::{Bound, Listener, Socket, TaskId};
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

const MS: u64 = 1_000_000;
/// How long a full process waits before it looks again whether a connection has ended.
const FULL_PAUSE_NS: u64 = 5 * MS;
/// How long accepting rests when there are no descriptors.
const EXHAUSTED_PAUSE_NS: u64 = 50 * MS;
/// How long a port that closes still takes what the kernel had queued.
const LAST_ACCEPTS_NS: u64 = 20 * MS;

pub(crate) struct Port {
    address: balance::Address,
    /// The listener under the newest plan; `None`: closed.
    pub(crate) listener: Cell<Option<ListenerId>>,
    /// The plan by which a port that closed serves what it had accepted.
    pub(crate) last: RefCell<Option<(Rc<Current>, ListenerId)>>,
    acceptor: Cell<TaskId>,
    speaks: Speaks,
}

/// What is spoken on a port, below TLS.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Speaks {
    Http,
    Tcp,
    Passthrough,
}

impl Port {
    /// Whether it can go on for this listener, under another plan.
    pub(crate) fn is_for(&self, listener: &plan::Listener) -> bool {
        self.address == listener.address && self.speaks == speaks(listener) && !self.is_closed()
    }

    /// The plan and the listener by which a connection is served now.
    pub(crate) fn serving(&self, core: &Core) -> Option<(Rc<Current>, ListenerId)> {
        match self.listener.get() {
            Some(listener) => core.current().map(|current| (current, listener)),
            None => self.last.borrow().clone(),
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.listener.get().is_none()
    }

    /// Ends accepting; what was accepted is served by `last`, the plan that knew the listener.
    pub(crate) fn close(&self, last: Option<Rc<Current>>) {
        *self.last.borrow_mut() = last.zip(self.listener.take());
        ring::wake_task(self.acceptor.get());
    }
}

/// Begins to accept on a socket of an address.
pub(crate) fn open(core: &Rc<Core>, listener: &plan::Listener, id: ListenerId, bound: &Arc<Bound>) -> Option<Rc<Port>> {
    let speaks = speaks(listener);
    let address = listener.address.clone();
    let client_first = speaks != Speaks::Tcp || is_greeted(listener);
    let Ok(listener) = ring::host::share(bound).and_then(Listener::new) else {
        core.counters.accept_failures.add(1);
        return None;
    };
    listener.client_speaks_first(client_first);
    let port = Rc::new(Port {
        address,
        speaks,
        listener: Cell::new(Some(id)),
        last: RefCell::default(),
        acceptor: Cell::new(ring::current_task()),
    });
    ring::spawn(accept(core.clone(), port.clone(), listener));
    Some(port)
}

fn speaks(listener: &plan::Listener) -> Speaks {
    match listener.kind {
        Kind::Http(_) => Speaks::Http,
        Kind::Tcp(_) => Speaks::Tcp,
        Kind::Passthrough(_) => Speaks::Passthrough,
    }
}

/// A PROXY header or a TLS handshake stands before what is spoken.
fn is_greeted(listener: &plan::Listener) -> bool {
    listener.proxy_protocol.is_some() || !matches!(listener.transport, Transport::Plain)
}

async fn accept(core: Rc<Core>, port: Rc<Port>, listener: Listener) {
    port.acceptor.set(ring::current_task());
    while let Some(accepted) = next(&port, &listener).await {
        match accepted {
            Ok(socket) => admit(&core, &port, &listener, socket).await,
            Err(_) => {
                core.counters.accept_failures.add(1);
                ring::sleep_until(ring::now() + EXHAUSTED_PAUSE_NS).await;
            }
        }
    }
    // What the kernel had accepted for us is served; each gets one answer that says `Connection: close`.
    let until = ring::now() + LAST_ACCEPTS_NS;
    while let ring::Either::First(Ok(socket)) =
        ring::select(pin!(listener.accept()), pin!(ring::sleep_until(until))).await
    {
        admit(&core, &port, &listener, socket).await;
    }
}

/// The next connection; `None` when the port closes.
async fn next(port: &Port, listener: &Listener) -> Option<Result<Socket, ring::Error>> {
    let mut accept = pin!(listener.accept());
    std::future::poll_fn(|context| {
        if port.is_closed() {
            return Poll::Ready(None);
        }
        accept.as_mut().poll(context).map(Some)
    })
    .await
}

/// Gives a connection its task, once the process may have one more.
async fn admit(core: &Rc<Core>, port: &Rc<Port>, listener: &Listener, socket: Socket) {
    while !core.current().is_some_and(|current| core.process.open(current.plan.process.connections)) {
        if port.is_closed() {
            return;
        }
        listener.pause();
        ring::sleep_until(ring::now() + FULL_PAUSE_NS).await;
    }
    core.counters.accepted.add(1);
    core.counters.downstream.add(1);
    let greeted = |(current, id): (Rc<Current>, ListenerId)| is_greeted(current.plan.listener(id));
    if port.serving(core).is_some_and(greeted) {
        ring::spawn(crate::greet::greet(core.clone(), port.clone(), socket));
    } else {
        serve(core, port, Client::plain(socket));
    }
}

/// Gives a connection that was greeted its task.
pub(crate) fn serve(core: &Rc<Core>, port: &Rc<Port>, client: Client) {
    let (core, port_of_it) = (core.clone(), port.clone());
    match port.speaks {
        Speaks::Http => ring::spawn(crate::http::serve(core, port_of_it, client)),
        Speaks::Tcp => ring::spawn(crate::tcp::serve(core, port_of_it, client)),
        Speaks::Passthrough => ring::spawn(crate::passthrough::serve(core, port_of_it, client)),
    };
}

/// Closes a client's connection and counts it out; with TLS, after its last words.
pub(crate) fn hang_up(core: &Rc<Core>, stream: Stream) {
    if stream.has_last_words() {
        let core = core.clone();
        ring::spawn(async move {
            stream.finish().await;
            gone(&core, stream);
        });
    } else {
        gone(core, stream);
    }
}

fn gone(core: &Core, stream: Stream) {
    drop(stream);
    core.counters.downstream.sub(1);
    core.process.close();
}
