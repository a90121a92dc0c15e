//! One TCP connection: to an endpoint, then bytes both ways.

use crate::core::{Core, Current};
use crate::ending::Ending;
use crate::http::Source;
use crate::log::Record;
use crate::port::{Port, hang_up};
use crate::pump::Meter;
use crate::tunnel::{self, Account, Carried};
use crate::upstream::{self, Tried, Upstream};
use balance::Outcome;
use plan::{Action, Decision, FOREVER_NS, Kind};
use ring::Socket;
use std::rc::Rc;

/// Serves a connection to its end.
pub(crate) async fn serve(core: Rc<Core>, port: Rc<Port>, socket: Socket) {
    let begun_ns = ring::now();
    let source = Source::of(&socket);
    if let Some((current, listener)) = port.serving(&core) {
        let decision = current.plan.decide_tcp(listener, &source.peer(), ring::random());
        let (idle_ns, logged) = match &current.plan.listener(decision.listener).kind {
            Kind::Tcp(tcp) => (tcp.idle_timeout_ns, tcp.access_log),
            Kind::Http(_) | Kind::Passthrough(_) => (FOREVER_NS, false),
        };
        let account = Account::of(&current, decision.series, logged);
        let until_ns = begun_ns.saturating_add(idle_ns);
        let connected = connect(&core, &current, &decision, &socket, until_ns).await;
        drop((current, port));
        let (ending, carried, destination) = match connected {
            Ok(up) => {
                let pool = up.pool.clone();
                core.counters.active.add(1);
                let (ending, carried) = through(&core, &socket, up, idle_ns).await;
                core.counters.active.sub(1);
                (ending, carried, Some(pool))
            }
            Err(ending) => {
                // The client must not take silence for an end of what it asked.
                socket.reset_on_close();
                (ending, Carried::default(), None)
            }
        };
        let record = Record {
            begun_ns,
            duration_ns: ring::now().saturating_sub(begun_ns),
            received_bytes: carried.up,
            sent_bytes: carried.down,
            source: source.text(),
            destination: destination.as_ref().map_or("", |pool| &pool.name),
            protocol: "TCP",
            ..Record::default()
        };
        account.close(&core, ending, record);
    }
    hang_up(&core, socket);
}

async fn connect(
    core: &Rc<Core>,
    current: &Current,
    decision: &Decision,
    client: &Socket,
    until_ns: u64,
) -> Result<Upstream, Ending> {
    let Action::Forward(forward) = decision.action else { return Err(Ending::UnknownService) };
    let mut tried = Tried::default();
    upstream::connection(core, current, &forward, &mut tried, client, until_ns).await
}

async fn through(core: &Core, client: &Socket, mut up: Upstream, idle_ns: u64) -> (Ending, Carried) {
    let meters = [Meter::up(&core.counters), Meter::down(&core.counters)];
    let client = tunnel::Side { socket: client, input: None };
    let upstream = tunnel::Side { socket: up.socket(), input: None };
    let (ending, carried) = tunnel::run(client, upstream, idle_ns, meters).await;
    let outcome = if ending == Ending::TunnelUpstreamReset { Outcome::Failure } else { Outcome::Success };
    up.finish(0, outcome);
    (ending, carried)
}
