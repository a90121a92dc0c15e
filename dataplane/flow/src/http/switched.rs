//! A connection that left HTTP with a 101: a tunnel, which keeps its endpoint, its timeout and its permit, not the plan.

use super::Client;
use super::request::{Note, Request};
use crate::core::Core;
use crate::log::Record;
use crate::pump::Meter;
use crate::tunnel::{self, Account};
use crate::upstream::{HeldBudget, Upstream};
use balance::Permit;

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
}

impl Switched {
    pub(crate) fn new(request: Request, up: Upstream, permit: Permit<HeldBudget>, upstream_ns: u64) -> Box<Switched> {
        let logged = request.current.http(request.listener).is_some_and(|http| http.access_log);
        let account = Account::of(&request.current, request.series, logged);
        let (begun_ns, idle_ns) = (request.begun_ns, request.idle_ns());
        Box::new(Switched { up, permit, account, note: request.note, begun_ns, upstream_ns, idle_ns })
    }

    /// Passes bytes until the tunnel ends, then counts and logs it.
    pub(crate) async fn run(mut self: Box<Self>, core: &Core, client: &mut Client) {
        let counters = &core.counters;
        counters.active.add(1);
        let input = self.up.input.take();
        let (ending, carried) = tunnel::run(
            tunnel::Side { socket: &client.socket, input: client.input.take() },
            tunnel::Side { socket: self.up.socket(), input },
            self.idle_ns,
            [Meter::up(counters), Meter::down(counters)],
        )
        .await;
        counters.active.sub(1);
        let [request_id, method, authority, path] = self.note.split();
        let record = Record {
            begun_ns: self.begun_ns,
            duration_ns: ring::now().saturating_sub(self.begun_ns),
            upstream_ns: self.upstream_ns,
            received_bytes: carried.up,
            sent_bytes: carried.down,
            status: 101,
            source: client.source.text(),
            destination: &self.up.pool.name,
            protocol: "websocket",
            method,
            authority,
            path,
            request_id,
            ..Record::default()
        };
        self.account.close(core, ending, record);
    }
}
