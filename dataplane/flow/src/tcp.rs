//! One TCP connection: to an endpoint, then bytes both ways.

use crate::client::Client;
use crate::core::{Core, Current};
use crate::ending::{Ending, Opening};
use crate::log::Record;
use crate::port::{Port, hang_up};
use crate::tunnel::{self, Account, Carried};
use crate::upstream::{self, Tried, Upstream};
use balance::Outcome;
use plan::{Action, Decision, FOREVER_NS, ListenerId, Plan};
use std::rc::Rc;

/// What the log calls it.
pub(crate) const PROTOCOL: &str = "TCP";

/// Serves a connection to its end.
pub(crate) async fn serve(core: Rc<Core>, port: Rc<Port>, mut client: Client) {
    if let Some((current, listener)) = port.serving(&core) {
        pass(&core, port, current, listener, &mut client, None).await;
    }
    hang_up(&core, client.stream);
}

/// Passes a connection on as bytes, to its end; what has arrived of it goes first. `name` is what the client's TLS, which is
/// not ours, asks for.
pub(crate) async fn pass(
    core: &Rc<Core>,
    port: Rc<Port>,
    current: Rc<Current>,
    listener: ListenerId,
    client: &mut Client,
    name: Option<&str>,
) {
    let begun_ns = ring::now();
    let input = client.input.take();
    let client = &*client;
    let decision = current.plan.decide_tcp(listener, name, &client.peer(), ring::random());
    let idle_ns = current.plan.tcp(listener, name).map_or(FOREVER_NS, |tcp| tcp.idle_timeout_ns);
    let listener = current.plan.listener(listener);
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
                let decided = |listener| plan.decide_tcp(listener, name, &client.peer(), 0).action;
                !listener.is_some_and(|listener| decided(listener) == Action::Denied)
            };
            let from = tunnel::Side { stream: &client.stream, input };
            let sides = [from, tunnel::Side { stream: up.stream(), input: None }];
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
        protocol: PROTOCOL,
        sni: name.unwrap_or_default(),
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
        Action::NotFound => return Err(Ending::PassthroughRefused(Opening::UnknownName)),
        _ => return Err(Ending::UnknownService),
    };
    let mut tried = Tried::default();
    upstream::connection(core, current, &forward, &mut tried, client, until_ns).await
}
