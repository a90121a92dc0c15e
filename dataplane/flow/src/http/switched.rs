//! A connection that left HTTP with a 101: a tunnel, which keeps its endpoint, its timeout and its permit, not the plan.

use super::prepare;
use super::request::{Note, Request};
use crate::client::Client;
use crate::core::{Core, Scratch};
use crate::log::Record;
use crate::port::Port;
use crate::tunnel::{self, Account};
use crate::upstream::{HeldBudget, Upstream};
use balance::Permit;
use plan::{Action, Kind, Plan};
use ring::OutBuf;
use std::rc::Weak;

/// What is left of a request after its answer's 101.
pub(crate) struct Switched {
    up: Upstream,
    #[expect(dead_code, reason = "held for what its drop gives back")]
    permit: Permit<HeldBudget>,
    account: Account,
    note: Note,
    begun_ns: u64,
    upstream_ns: u64,
    idle_ns: u64,
    /// The request's head.
    head: Option<OutBuf>,
}

impl Switched {
    pub(crate) fn new(request: Request, up: Upstream, permit: Permit<HeldBudget>, upstream_ns: u64) -> Box<Switched> {
        let logged = request.current.http(request.listener).is_some_and(|http| http.access_log);
        let rules = request.decision.map_or([None; 2], |decision| [decision.rule, decision.dry_run]);
        let account = Account::of(&request.current, request.series, rules, logged);
        let (begun_ns, idle_ns) = (request.begun_ns, request.idle_ns());
        Box::new(Switched {
            up,
            permit,
            account,
            note: request.note,
            begun_ns,
            upstream_ns,
            idle_ns,
            head: request.head,
        })
    }

    /// Passes bytes until the tunnel ends, then counts and logs it.
    pub(crate) async fn run(mut self: Box<Self>, core: &Core, port: &Weak<Port>, client: &mut Client) {
        core.counters.active.add(1);
        let (input, arrived) = (client.input.take(), self.up.input.take());
        let sides =
            [tunnel::Side { stream: &client.stream, input }, tunnel::Side { stream: self.up.stream(), input: arrived }];
        let permitted = |plan: &Plan| self.is_permitted(core, port, plan, client);
        let (ending, carried) = tunnel::run(core, sides, self.idle_ns, permitted).await;
        core.counters.active.sub(1);
        let [request_id, method, authority, path] = self.note.split();
        let destination = self.up.destination();
        let record = Record {
            begun_ns: self.begun_ns,
            duration_ns: ring::now().saturating_sub(self.begun_ns),
            upstream_ns: self.upstream_ns,
            received_bytes: carried.up,
            sent_bytes: carried.down,
            status: 101,
            destination: destination.name(),
            destination_identity: destination.identity(),
            protocol: "websocket",
            method,
            authority,
            path,
            request_id,
            ..Record::default()
        };
        self.account.close(core, client, ending, record);
    }

    /// Whether a newer plan would let the request in that the tunnel began with. A listener that is gone drains.
    fn is_permitted(&self, core: &Core, port: &Weak<Port>, plan: &Plan, client: &Client) -> bool {
        let listener = port.upgrade().and_then(|port| port.listener.get());
        let (Some(listener), Some(bytes)) = (listener, &self.head) else { return true };
        let Kind::Http(http) = &plan.listener(listener).kind else { return true };
        let scratch = &mut *core.scratch.borrow_mut();
        if scratch.head.parse_request(bytes, &http.head).is_err() {
            return false;
        }
        let Scratch { head, path, cache } = scratch;
        let Ok(path) = prepare::path(head, bytes, path) else { return false };
        !matches!(plan.decide(listener, &prepare::seen(head, bytes, path, client), 0, cache).action, Action::Denied)
    }
}
