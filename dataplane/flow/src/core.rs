//! A core as its tasks see it: the newest plan with what this core keeps for it, the idle connections, the counters.

use crate::client::{Client, Proxied};
use crate::counters::{Counters, RuleCounts, Series};
use crate::ending::{Blame, Ending};
use crate::order::{Order, Process, Start};
use crate::port::{self, Port};
use crate::stream::Stream;
use crate::table::Table;
use crate::upstream::{self, Line, Pooled, Upstreams};
use plan::{Action, Decision, ListenerId, Plan, RuleId, SeriesId};
use ring::between;
use ring::{TaskId, Wake};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::{Arc, OnceLock};
use wire::h1::Head;

/// Marks the tokens of idle connections to endpoints; those of clients' connections lack it.
pub(crate) const UPSTREAM_TOKEN: u64 = 1 << 63;

pub(crate) struct Core {
    pub(crate) index: usize,
    pub(crate) counters: Arc<Counters>,
    pub(crate) process: Arc<Process>,
    pub(crate) wakes: Arc<[OnceLock<Wake>]>,
    pub(crate) scratch: RefCell<Scratch>,
    pub(crate) log: RefCell<between::Writer>,
    idle: RefCell<Table<Idle>>,
    /// What PROXY headers said of the idle ones: apart, as most have none.
    proxied: RefCell<HashMap<u64, Box<Proxied>>>,
    pub(crate) pooled: RefCell<Table<Pooled>>,
    /// Lines of services that the newest plan does not have, while somebody waits in them.
    pub(crate) old_lines: RefCell<Vec<Line>>,
    pub(crate) draining: Cell<bool>,
    /// Draining is over: what is left was cut off.
    pub(crate) cut: Cell<bool>,
    current: RefCell<Option<Rc<Current>>>,
    /// Tasks that want to know of other plans.
    told: RefCell<Table<TaskId>>,
    ports: RefCell<Vec<Rc<Port>>>,
    id_prefix: u64,
    id_next: Cell<u64>,
}

/// Memory for working out one request; nothing in it outlives the step.
#[derive(Default)]
pub(crate) struct Scratch {
    pub(crate) head: Head,
    pub(crate) cache: plan::Cache,
    pub(crate) path: Vec<u8>,
}

/// A plan, with what this core keeps for it.
pub(crate) struct Current {
    pub(crate) plan: Arc<Plan>,
    pub(crate) series: Arc<[Arc<Series>]>,
    rules: Arc<[Arc<RuleCounts>]>,
    pub(crate) services: Vec<Rc<Upstreams>>,
}

/// A connection from a client on which nothing happens: it holds no task and no buffer.
pub(crate) struct Idle {
    stream: Stream,
    port: Rc<Port>,
}

impl Idle {
    /// What a core's table holds for one, beside the ring's own entry.
    #[cfg(test)]
    pub(crate) const TABLE_BYTES: usize = Table::<Idle>::PLACE_BYTES;
}

/// Starts the tasks of a core; called on the core's thread, as the first thing that it does.
pub fn start(start: Start) {
    let core = Rc::new(Core {
        index: start.core,
        counters: start.counters,
        process: start.process,
        wakes: start.wakes,
        scratch: RefCell::default(),
        log: RefCell::new(start.log),
        idle: RefCell::new(Table::new()),
        proxied: RefCell::default(),
        pooled: RefCell::new(Table::new()),
        old_lines: RefCell::default(),
        draining: Cell::new(false),
        cut: Cell::new(false),
        current: RefCell::new(None),
        told: RefCell::new(Table::new()),
        ports: RefCell::default(),
        id_prefix: start.id_prefix,
        id_next: Cell::new(ring::random()),
    });
    ring::spawn(obey(core.clone(), start.orders));
    ring::spawn(attend_idle(core));
}

/// Takes orders as they come, and does what other cores ask for by ringing.
async fn obey(core: Rc<Core>, mut orders: between::Receiver<Order>) {
    loop {
        if let Some(order) = orders.take() {
            core.apply(order);
        }
        upstream::answer_ring(&core);
        ring::rung().await;
    }
}

/// Gives connections on which something came a task, and closes those whose time is up.
async fn attend_idle(core: Rc<Core>) {
    loop {
        let token = ring::watched().await;
        if token & UPSTREAM_TOKEN != 0 {
            upstream::idle_woke(&core, token & !UPSTREAM_TOKEN);
        } else if let Some((idle, proxied)) = core.wake(token) {
            if idle.stream.heard_nothing() {
                port::hang_up(&core, idle.stream);
            } else {
                let client = Client::new(idle.stream, proxied);
                ring::spawn(crate::http::serve(core.clone(), idle.port, client));
            }
        }
    }
}

impl Core {
    /// The newest plan; `None` before the first order.
    pub(crate) fn current(&self) -> Option<Rc<Current>> {
        self.current.borrow().clone()
    }

    /// Makes a request id: 32 hexadecimal digits, unique to process start, core and request.
    pub(crate) fn request_id(&self) -> [u8; 32] {
        let number = self.id_next.get();
        self.id_next.set(number.wrapping_add(1));
        let value = u128::from(self.id_prefix) << 64 | u128::from(number);
        let mut digits = [0; 32];
        for (at, digit) in digits.iter_mut().enumerate() {
            *digit = b"0123456789abcdef"[(value >> (124 - 4 * at)) as usize & 15];
        }
        digits
    }

    /// Lets a client's connection rest without a task until bytes come or `until_ns`.
    pub(crate) fn rest(&self, port: Rc<Port>, client: Client, until_ns: u64) {
        self.counters.downstream_idle.add(1);
        let mut idle = self.idle.borrow_mut();
        let token = idle.insert(Idle { stream: client.stream, port });
        if let Some(proxied) = client.proxied {
            self.proxied.borrow_mut().insert(token, proxied);
        }
        if let Some(entry) = idle.get(token) {
            entry.stream.watch(token, until_ns);
        }
    }

    /// Takes a connection that rests out, with what a PROXY header said of it.
    fn wake(&self, token: u64) -> Option<(Idle, Option<Box<Proxied>>)> {
        let idle = self.idle.borrow_mut().remove(token)?;
        self.counters.downstream_idle.sub(1);
        let proxied = &mut *self.proxied.borrow_mut();
        let proxied = if proxied.is_empty() { None } else { proxied.remove(&token) };
        Some((idle, proxied))
    }

    /// Counts a request or a tunnel under who sent it and what served it; `identity` is a client's with a certificate.
    pub(crate) fn count_pair(&self, identity: Option<&str>, service: &str, status: u16, ending: Ending) {
        if let Some(identity) = identity {
            let pairs = &self.process.pairs;
            self.counters.pairs.record(pairs.intern(identity, service), status, ending == Ending::Denied);
        }
    }

    /// Counts how a request or a tunnel ended; what ended because it was cut off at the end of draining ended by that.
    pub(crate) fn ended(&self, ending: Ending) -> Ending {
        let ending = if self.cut.get() && ending.blame() != Blame::Nobody { Ending::Drained } else { ending };
        self.counters.ended(ending);
        ending
    }

    /// The number of the newest plan.
    pub(crate) fn generation(&self) -> u64 {
        self.current.borrow().as_ref().map_or(0, |current| current.plan.generation)
    }

    /// Wakes a task whenever there is another plan, until the result is dropped.
    pub(crate) fn tell_of_plans(&self, task: TaskId) -> Told<'_> {
        Told { core: self, key: self.told.borrow_mut().insert(task) }
    }

    fn apply(self: &Rc<Self>, order: Order) {
        let before = self.current.borrow_mut().take();
        let current = Rc::new(Current {
            services: upstream::carry(before.as_deref(), &order.plan),
            plan: order.plan,
            series: order.series,
            rules: order.rules,
        });
        *self.current.borrow_mut() = Some(current.clone());
        let told = self.told.borrow();
        told.keys().into_iter().filter_map(|key| told.get(key)).for_each(|task| ring::wake_task(*task));
        drop(told);
        if let Some(before) = &before {
            upstream::retire(self, before, &current);
        }
        let mut ports = self.ports.borrow_mut();
        let old = std::mem::take(&mut *ports);
        if order.drain {
            self.draining.set(true);
            upstream::part_idle(self);
        } else {
            for (index, listener) in current.plan.listeners.iter().enumerate() {
                let kept = old.iter().find(|port| port.is_for(listener));
                let id = ListenerId(index as u16);
                match (kept, order.sockets.get(index)) {
                    (Some(port), _) => {
                        port.listener.set(Some(id));
                        ports.push(port.clone());
                    }
                    (None, Some(bound)) => ports.extend(port::open(self, listener, id, bound)),
                    (None, None) => {}
                }
            }
        }
        for port in old.iter().filter(|port| !ports.iter().any(|kept| Rc::ptr_eq(kept, port))) {
            port.close(before.clone());
        }
        drop(ports);
        self.close_idle_of_closed_ports();
        if order.cut {
            self.cut.set(true);
            ring::break_all();
            current.services.iter().for_each(|service| service.wake_first());
            upstream::wake_old_lines(self);
        }
        self.counters.generation.sub(self.counters.generation.value());
        self.counters.generation.add(current.plan.generation);
    }

    fn close_idle_of_closed_ports(self: &Rc<Self>) {
        let keys = self.idle.borrow().keys();
        for key in keys {
            let closed = self.idle.borrow().get(key).is_some_and(|idle| idle.port.is_closed());
            if closed && let Some((idle, _)) = self.wake(key) {
                port::hang_up(self, idle.stream);
            }
        }
    }
}

/// A task that is told of other plans.
pub(crate) struct Told<'a> {
    core: &'a Core,
    key: u64,
}

impl Drop for Told<'_> {
    fn drop(&mut self) {
        self.core.told.borrow_mut().remove(self.key);
    }
}

impl Current {
    /// The listener that `port` is, under this plan.
    pub(crate) fn http(&self, id: ListenerId) -> Option<&plan::Http> {
        match &self.plan.listener(id).kind {
            plan::Kind::Http(http) => Some(http),
            plan::Kind::Tcp(_) | plan::Kind::Passthrough(_) => None,
        }
    }

    /// Counts what the rules of policy did.
    pub(crate) fn count_rules(&self, core: &Core, decision: &Decision) {
        if decision.action == Action::Denied
            && let Some(rule) = decision.rule
        {
            self.count_refusal(core, rule);
        }
        if let Some(counts) = decision.dry_run.and_then(|rule| self.rules.get(rule.0 as usize)) {
            counts.core(core.index).would_refuse.add(1);
        }
    }

    /// Counts a request that a rule or a quota refuses.
    pub(crate) fn count_refusal(&self, core: &Core, rule: RuleId) {
        if let Some(counts) = self.rules.get(rule.0 as usize) {
            counts.core(core.index).refused.add(1);
        }
    }

    /// Counts a request under its series.
    pub(crate) fn record(&self, core: &Core, series: SeriesId, ending: Ending, status: u16, latency_ns: u64) {
        if let Some(series) = self.series.get(series.0 as usize) {
            series.core(core.index).record(ending, status, latency_ns);
        }
    }
}
