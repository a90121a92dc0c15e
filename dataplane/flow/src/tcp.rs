//! One TCP connection: to an endpoint, then bytes both ways.

use crate::client::Client;
use crate::core::{Core, Current};
use crate::ending::Ending;
use crate::log::Record;
use crate::port::{Port, hang_up};
use crate::tunnel::{self, Account, Carried};
use crate::upstream::{self, Tried, Upstream};
use balance::Outcome;
use plan::{Action, Decision, FOREVER_NS, Kind, ListenerId, Plan};
use std::rc::Rc;

/// Serves a connection to its end.
pub(crate) async fn serve(core: Rc<Core>, port: Rc<Port>, client: Client) {
    if let Some((current, listener)) = port.serving(&core) {
        pass(&core, port, current, listener, &client).await;
    }
    hang_up(&core, client.stream);
}

async fn pass(core: &Rc<Core>, port: Rc<Port>, current: Rc<Current>, listener: ListenerId, client: &Client) {
    let begun_ns = ring::now();
    let decision = current.plan.decide_tcp(listener, &client.peer(), ring::random());
    let listener = current.plan.listener(decision.listener);
    let idle_ns = match &listener.kind {
        Kind::Tcp(tcp) => tcp.idle_timeout_ns,
        Kind::Http(_) => FOREVER_NS,
    };
    current.count_rules(core, &decision);
    let account = Account::of(&current, decision.series, [decision.rule, decision.dry_run], listener.logs());
    let until_ns = begun_ns.saturating_add(idle_ns);
    let connected = connect(core, &current, &decision, client, until_ns).await;
    // A closed port holds the last plan that knew it.
    let weak = Rc::downgrade(&port);
    drop((current, port));
    let (ending, carried, up) = match connected {
        Ok(mut up) => {
            core.counters.active.add(1);
            let permitted = |plan: &Plan| {
                let listener = weak.upgrade().and_then(|port| port.listener.get());
                let denied = |listener| matches!(plan.decide_tcp(listener, &client.peer(), 0).action, Action::Denied);
                !listener.is_some_and(denied)
            };
            let sides = [&client.stream, up.stream()].map(|stream| tunnel::Side { stream, input: None });
            let (ending, carried) = tunnel::run(core, sides, idle_ns, permitted).await;
            let outcome = if ending == Ending::TunnelUpstreamReset { Outcome::Failure } else { Outcome::Success };
            up.finish(0, outcome);
            core.counters.active.sub(1);
            (ending, carried, Some(up))
        }
        Err(ending) => {
            // The client must not take silence for an end of what it asked.
            client.stream.reset_on_close();
            (ending, Carried::default(), None)
        }
    };
    let destination = up.as_ref().map(Upstream::destination).unwrap_or_default();
    let record = Record {
        begun_ns,
        duration_ns: ring::now().saturating_sub(begun_ns),
        received_bytes: carried.up,
        sent_bytes: carried.down,
        destination: destination.name(),
        destination_identity: destination.identity(),
        protocol: "TCP",
        ..Record::default()
    };
    account.close(core, client, ending, record);
}

async fn connect(
    core: &Rc<Core>,
    current: &Current,
    decision: &Decision,
    client: &Client,
    until_ns: u64,
) -> Result<Upstream, Ending> {
    let forward = match decision.action {
        Action::Forward(forward) => forward,
        Action::Denied => return Err(Ending::Denied),
        _ => return Err(Ending::UnknownService),
    };
    let mut tried = Tried::default();
    upstream::connection(core, current, &forward, &mut tried, client, until_ns).await
}
