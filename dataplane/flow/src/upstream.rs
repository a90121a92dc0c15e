//! Connections to endpoints: chosen, taken from the pool or opened, returned, and bounded by the service's limits.
//!
//! Pools are per core and endpoint, limits per service and process. A request that may not open a connection waits in
//! its core's line; the core enters itself as wanting in the service's budget and rings a core that holds idle
//! connections; that core gives one up, and whoever gives one up rings a core that wants (DESIGN section 3).

use crate::client::Client;
use crate::core::{Core, Current, UPSTREAM_TOKEN};
use crate::ending::Ending;
use crate::stream::{self, Broken, Stream};
use balance::{Budget, Endpoint, InFlight, Outcome, Permit};
use plan::{Forward, Plan, ProxyVersion, ServiceId};
use ring::host::Address;
use ring::{Buf, Error, Message, OutBuf, Socket, TaskId};
use std::cell::{Cell, OnceCell, RefCell};
use std::collections::{HashMap, HashSet, VecDeque};
use std::ops::Deref;
use std::rc::Rc;
use std::sync::Arc;

/// How long a connection may rest in the pool.
const POOLED_NS: u64 = 60_000_000_000;
/// Other endpoints that are tried after a failed connect, even without a rule.
const OTHERS: usize = 2;

/// A service on this core.
pub(crate) struct Upstreams {
    pub(crate) service: Arc<balance::Service>,
    /// The service's; held by requests without touching its count, which all cores share.
    #[expect(clippy::redundant_allocation, reason = "the outer count is this core's alone")]
    budget: Rc<Arc<Budget>>,
    connect_timeout_ns: u64,
    tls: Option<wire::tls::Client>,
    proxy_protocol: Option<ProxyVersion>,
    /// By endpoint. Made when the first request is sent to the service: of ten thousand services a core sends to few.
    pools: OnceCell<Vec<Rc<Pool>>>,
    line: Line,
    /// The newest plan does not have it as it is here.
    retired: Cell<bool>,
}

/// The tasks of a core that wait for a connection to a service, first come first served.
pub(crate) type Line = Rc<RefCell<VecDeque<TaskId>>>;

/// The idle connections to one endpoint.
pub(crate) struct Pool {
    endpoint: Arc<Endpoint>,
    address: Option<Address>,
    /// The endpoint's address in words, for the log.
    pub(crate) name: Box<str>,
    idle: RefCell<Vec<u64>>,
    /// The newest plan does not have the endpoint: nothing is kept any more.
    retired: Cell<bool>,
}

/// An idle connection.
pub(crate) struct Pooled {
    link: Link,
    pool: Rc<Pool>,
    until_ns: u64,
}

/// A connection with the right to have it.
struct Link {
    // Dropped in this order: the connection ends before somebody else may open one.
    stream: Stream,
    grant: Grant,
}

impl Link {
    /// Closes a connection on which nothing is under way: with TLS, after its last words. The right to it is given back at
    /// once, as whoever wants it looks at once.
    fn part(self) {
        let Link { stream, grant } = self;
        if stream.has_last_words() {
            ring::spawn(async move { stream.finish().await });
        }
        drop(grant);
    }
}

/// The right to one connection to a service. Whoever waits for one is told when it is given back.
struct Grant {
    core: Rc<Core>,
    permit: Option<Permit<Arc<Budget>>>,
}

/// A connection to an endpoint, with a request on it. Dropped, it is closed, and tells nothing about the endpoint.
pub(crate) struct Upstream {
    link: Link,
    /// Bytes that came and were not taken yet.
    pub(crate) input: Option<Buf>,
    pub(crate) pool: Rc<Pool>,
    /// It has carried a request before.
    pub(crate) reused: bool,
    flight: Option<InFlight<Held>>,
}

/// An endpoint that a request holds, through its pool: no plan is kept for it.
pub(crate) struct Held(Rc<Pool>);

impl Deref for Held {
    type Target = Endpoint;
    fn deref(&self) -> &Endpoint {
        &self.0.endpoint
    }
}

/// A service's budget that a request or a tunnel holds.
#[expect(clippy::redundant_allocation, reason = "the outer count is this core's alone")]
pub(crate) struct HeldBudget(Rc<Arc<Budget>>);

impl Deref for HeldBudget {
    type Target = Budget;
    fn deref(&self) -> &Budget {
        &self.0
    }
}

/// Which endpoints a request has tried in vain.
#[derive(Default)]
pub(crate) struct Tried {
    endpoints: [u16; 8],
    count: u8,
    attempts: u8,
}

/// What the services of a plan are on this core: those that are as they were go on, of others pools and lines where endpoint
/// and service do. A core does nothing else meanwhile, so that what has not changed may cost next to nothing.
pub(crate) fn carry(before: Option<&Current>, plan: &Plan) -> Vec<Rc<Upstreams>> {
    let before = before.map_or(&[][..], |before| &before.services);
    // Most plans have the services of the one before, in its order.
    let by_name: OnceCell<HashMap<&str, &Rc<Upstreams>>> = OnceCell::new();
    let find = |at: usize, name: &str| match before.get(at).filter(|old| old.service.name() == name) {
        Some(old) => Some(old),
        None => by_name.get_or_init(|| before.iter().map(|old| (old.service.name(), old)).collect()).get(name).copied(),
    };
    let carried = |(at, service): (usize, &plan::Service)| match find(at, &service.name) {
        Some(old) if old.is(service) => old.clone(),
        old => Rc::new(Upstreams::new(service, old.map(|old| &**old))),
    };
    plan.services.iter().enumerate().map(carried).collect()
}

/// Lets go of what the new plan does not have: idle connections of endpoints that are gone count no longer against the
/// limits, and lines of services that are gone are remembered until they are empty.
pub(crate) fn retire(core: &Core, before: &Current, current: &Current) {
    let (gone, new) = (differing(&before.services, &current.services), differing(&current.services, &before.services));
    let stay: HashSet<*const Upstreams> = new.iter().map(|service| Rc::as_ptr(service)).collect();
    let pools = new.iter().filter_map(|service| service.pools.get()).flatten();
    let pools: HashSet<*const Pool> = pools.map(Rc::as_ptr).collect();
    let lines: HashSet<_> = new.iter().map(|service| Rc::as_ptr(&service.line)).collect();
    for service in gone.into_iter().filter(|service| !stay.contains(&Rc::as_ptr(service))) {
        service.retired.set(true);
        for pool in service.pools.get().into_iter().flatten().filter(|pool| !pools.contains(&Rc::as_ptr(pool))) {
            pool.retired.set(true);
            let idle = pool.idle.take();
            idle.into_iter().for_each(|key| idle_ended(core, key));
        }
        if !lines.contains(&Rc::as_ptr(&service.line)) && !service.line.borrow().is_empty() {
            core.old_lines.borrow_mut().push(service.line.clone());
        }
    }
}

/// Those of one plan that the other does not have at the same place.
fn differing<'a>(one: &'a [Rc<Upstreams>], other: &[Rc<Upstreams>]) -> Vec<&'a Rc<Upstreams>> {
    let same = |at: usize, service: &Rc<Upstreams>| other.get(at).is_some_and(|other| Rc::ptr_eq(service, other));
    one.iter().enumerate().filter(|(at, service)| !same(*at, service)).map(|(_, service)| service).collect()
}

/// Wakes the first in each line of services that the newest plan does not have.
pub(crate) fn wake_old_lines(core: &Core) {
    core.old_lines.borrow_mut().retain(|line| {
        let line = line.borrow();
        if let Some(first) = line.front() {
            ring::wake_task(*first);
        }
        !line.is_empty()
    });
}

impl Pool {
    fn new(endpoint: &Arc<Endpoint>, retired: bool) -> Pool {
        let (address, name) = match endpoint.address() {
            balance::Address::Ip(ip) => (Some(Address::from(*ip)), ip.to_string()),
            balance::Address::Unix(path) => (Address::unix(path), format!("unix:{}", path.display())),
        };
        Pool {
            endpoint: endpoint.clone(),
            address,
            name: name.into(),
            idle: RefCell::default(),
            retired: Cell::new(retired),
        }
    }
}

/// The right to one request of a service, or why not.
pub(crate) fn request(current: &Current, service: ServiceId) -> Result<Permit<HeldBudget>, Ending> {
    let upstreams = &current.services[service.0 as usize];
    Budget::try_request(HeldBudget(upstreams.budget.clone()), upstreams.service.limits()).ok_or(Ending::Overloaded)
}

/// A connection for a request: to an endpoint that is chosen by the service's algorithm, from the pool or new. After a
/// failed connect another endpoint is tried, `retries` times (twice without a rule, while there are others).
pub(crate) async fn connection(
    core: &Rc<Core>,
    current: &Current,
    forward: &Forward,
    tried: &mut Tried,
    client: &Client,
    until_ns: u64,
) -> Result<Upstream, Ending> {
    let upstreams = &current.services[forward.service.0 as usize];
    let connect_ns = upstreams.connect_timeout_ns.min(forward.per_try_timeout_ns);
    let retries = forward.retries;
    loop {
        if core.cut.get() {
            return Err(Ending::Drained);
        }
        let endpoint = tried.choose(upstreams, retries)?;
        let pool = &upstreams.pools()[usize::from(endpoint)];
        let flight = Endpoint::begin(Held(pool.clone()));
        let grant = match upstreams.at_once(core, pool) {
            Some(granted) => granted,
            None => upstreams.wait(core, pool, &client.stream, until_ns).await?,
        };
        let begun = ring::now();
        let (link, reused) = match grant {
            Granted::Idle(link) => {
                link.stream.used_again();
                (Ok(link), true)
            }
            Granted::New(grant) => {
                let until_ns = until_ns.min(begun.saturating_add(connect_ns));
                (open(grant, upstreams, pool, client, until_ns).await, false)
            }
        };
        match link {
            Ok(link) => {
                core.counters.reused.add(reused.into());
                return Ok(Upstream { link, input: None, pool: pool.clone(), reused, flight: Some(flight) });
            }
            Err(error) => {
                flight.finish(ring::now(), ring::now() - begun, Outcome::Failure);
                tried.failed(endpoint);
                if !tried.may_go_on(upstreams, retries) || ring::now() >= until_ns {
                    return Err(match error {
                        Broken::Failed(failure) => Ending::UpstreamTls(failure),
                        Broken::Lost(Error::TimedOut) => Ending::ConnectTimeout,
                        Broken::Lost(_) => Ending::ConnectFailed,
                    });
                }
            }
        }
    }
}

/// What a request that needs a connection got.
enum Granted {
    Idle(Link),
    New(Grant),
}

impl Tried {
    fn choose(&mut self, upstreams: &Upstreams, retries: u8) -> Result<u16, Ending> {
        let service = &upstreams.service;
        let tried = &self.endpoints[..usize::from(self.count)];
        let choice = service.pick(ring::now(), ring::random(), tried);
        // With a rule, an endpoint may be tried again once all were.
        let choice = choice.or_else(|| if retries > 0 { service.pick(ring::now(), ring::random(), &[]) } else { None });
        choice.map(|endpoint| endpoint as u16).ok_or(Ending::NoEndpoint)
    }

    fn failed(&mut self, endpoint: u16) {
        self.attempts = self.attempts.saturating_add(1);
        if let Some(place) = self.endpoints.get_mut(usize::from(self.count)) {
            *place = endpoint;
            self.count += 1;
        }
    }

    fn may_go_on(&self, upstreams: &Upstreams, retries: u8) -> bool {
        let others = upstreams.service.len().saturating_sub(1).min(OTHERS);
        usize::from(self.attempts) <= others.max(usize::from(retries))
    }
}

/// Opens a connection for a client: TCP, and the PROXY header and TLS where the service has them.
async fn open(grant: Grant, upstreams: &Upstreams, pool: &Pool, of: &Client, until_ns: u64) -> Result<Link, Broken> {
    let counters = &grant.core.counters;
    let result = match &pool.address {
        Some(address) => ring::connect(address, until_ns).await,
        None => Err(Error::Unreachable),
    };
    match result {
        Ok(_) => counters.connects.add(1),
        Err(_) => counters.connect_failures.add(1),
    }
    let socket = result.map_err(Broken::Lost)?;
    if let Some(version) = upstreams.proxy_protocol {
        // Boxed, as what follows: few services are told.
        Box::pin(announce(&socket, version, of, until_ns)).await.map_err(Broken::Lost)?;
    }
    let Some(client) = &upstreams.tls else { return Ok(Link { stream: Stream::plain(socket), grant }) };
    // Boxed: a handshake's states are large, and seldom.
    match Box::pin(stream::connect(socket, client, until_ns)).await {
        Ok(stream) => {
            counters.upstream_handshakes.add(1);
            counters.upstream_handshakes_resumed.add(stream.peer().is_some_and(|peer| peer.resumed).into());
            Ok(Link { stream, grant })
        }
        Err((_, broken)) => {
            counters.connect_failures.add(1);
            counters.upstream_handshake_failed(broken.failure());
            Err(broken)
        }
    }
}

/// Sends the PROXY header, which says whose connection it is.
async fn announce(socket: &Socket, version: ProxyVersion, of: &Client, until_ns: u64) -> Result<(), Error> {
    let (source, destination) = (of.source.address, of.destination());
    let mut out = OutBuf::new();
    match version {
        ProxyVersion::V1 => wire::proxy::write_v1(&mut out, source, destination),
        ProxyVersion::V2 => wire::proxy::write_v2(&mut out, source, destination),
    }
    let mut message = Message::new();
    message.out(out);
    socket.send(&mut message, until_ns).await
}

/// The youngest idle connection that is still good.
fn take_idle(core: &Core, pool: &Pool) -> Option<Link> {
    loop {
        let key = pool.idle.borrow_mut().pop()?;
        let Some(Pooled { link, .. }) = core.pooled.borrow_mut().remove(key) else { continue };
        core.counters.upstream_idle.sub(1);
        link.stream.unwatch();
        if link.stream.is_quiet() {
            return Some(link);
        }
    }
}

impl Upstreams {
    /// As a plan says it is; with the pools and the line that it had, as far as they are its own still.
    fn new(service: &plan::Service, old: Option<&Upstreams>) -> Upstreams {
        // What was connected to when other ends were trusted is not gone on with.
        let old = old.filter(|old| {
            let who = |tls: &Option<wire::tls::Client>| tls.as_ref().map(wire::tls::Client::peer_digest);
            who(&old.tls) == who(&service.tls) && old.proxy_protocol == service.proxy_protocol
        });
        let pools: Option<Vec<_>> = old.and_then(|old| old.pools.get()).map(|old| {
            let is = |pool: &Rc<Pool>, endpoint: &Arc<Endpoint>| Arc::ptr_eq(&pool.endpoint, endpoint);
            let pool = |(at, (endpoint, _)): (usize, (&Arc<Endpoint>, u32))| {
                let there = old.get(at).filter(|pool| is(pool, endpoint));
                let kept = there.or_else(|| old.iter().find(|pool| is(pool, endpoint)));
                kept.cloned().unwrap_or_else(|| Rc::new(Pool::new(endpoint, false)))
            };
            service.balance.endpoints().enumerate().map(pool).collect()
        });
        Upstreams {
            pools: pools.map_or_else(OnceCell::new, OnceCell::from),
            line: old.map(|old| old.line.clone()).unwrap_or_default(),
            budget: Rc::new(service.balance.budget().clone()),
            connect_timeout_ns: service.connect_timeout_ns,
            tls: service.tls.clone(),
            proxy_protocol: service.proxy_protocol,
            service: service.balance.clone(),
            retired: Cell::new(false),
        }
    }

    /// Whether a plan wants it as it is.
    fn is(&self, service: &plan::Service) -> bool {
        let digest = |tls: &Option<wire::tls::Client>| tls.as_ref().map(wire::tls::Client::digest);
        Arc::ptr_eq(&self.service, &service.balance)
            && self.connect_timeout_ns == service.connect_timeout_ns
            && self.proxy_protocol == service.proxy_protocol
            && digest(&self.tls) == digest(&service.tls)
    }

    /// The pools, by the endpoints' indices.
    fn pools(&self) -> &[Rc<Pool>] {
        // Who began under an older plan keeps nothing behind.
        let pool = |(endpoint, _): (&Arc<Endpoint>, u32)| Rc::new(Pool::new(endpoint, self.retired.get()));
        self.pools.get_or_init(|| self.service.endpoints().map(pool).collect())
    }

    /// What can be had without waiting. Who waits already comes first.
    fn at_once(&self, core: &Rc<Core>, pool: &Pool) -> Option<Granted> {
        if !self.line.borrow().is_empty() {
            return None;
        }
        self.idle_or_new(core, pool).or_else(|| {
            self.give_up_idle(core);
            self.grant(core).map(Granted::New)
        })
    }

    fn idle_or_new(&self, core: &Rc<Core>, pool: &Pool) -> Option<Granted> {
        let idle = take_idle(core, pool).map(Granted::Idle);
        idle.or_else(|| self.grant(core).map(Granted::New))
    }

    fn grant(&self, core: &Rc<Core>) -> Option<Grant> {
        let permit = Budget::try_connection(self.service.budget().clone(), self.service.limits())?;
        core.counters.upstream.add(1);
        Some(Grant { core: core.clone(), permit: Some(permit) })
    }

    /// Closes one idle connection of this core, if there is one.
    fn give_up_idle(&self, core: &Core) -> bool {
        let oldest = self.pools.get().into_iter().flatten().find_map(|pool| pool.idle.borrow().first().copied());
        oldest.is_some_and(|key| {
            idle_ended(core, key);
            true
        })
    }

    /// Waits in line for a connection of the pool, or for the right to open one; with an eye on the client.
    async fn wait(&self, core: &Rc<Core>, pool: &Pool, client: &Stream, until_ns: u64) -> Result<Granted, Ending> {
        let budget = self.service.budget();
        let place = Budget::try_pending(budget.clone(), self.service.limits()).ok_or(Ending::Overloaded)?;
        let me = InLine::new(core, &self.line);
        let look = || match () {
            () if core.cut.get() || client.is_failed() || ring::now() >= until_ns => Some(None),
            () if me.is_first() => self.as_first(core, pool).map(Some),
            () => None,
        };
        let granted = ring::wait_until(until_ns, look).await.flatten();
        drop(me);
        drop(place);
        if let Some(next) = budget.settle(core.index) {
            core.ring(next);
        }
        granted.ok_or(if client.is_failed() { Ending::ClientGone } else { Ending::Overloaded })
    }

    /// What the first in line does when it is told to look.
    fn as_first(&self, core: &Rc<Core>, pool: &Pool) -> Option<Granted> {
        let budget = self.service.budget();
        self.idle_or_new(core, pool).or_else(|| {
            self.give_up_idle(core);
            // Entered as wanting, then tried once more: whoever gives one up in between sees us.
            budget.want(core.index);
            let granted = self.grant(core).map(Granted::New);
            while granted.is_none()
                && let Some(holder) = budget.take_holder(core.index)
            {
                core.ring(holder);
            }
            granted
        })
    }

    pub(crate) fn wake_first(&self) {
        if let Some(task) = self.line.borrow().front() {
            ring::wake_task(*task);
        }
    }
}

/// A place in a core's line; the next is told when it is left.
struct InLine {
    core: Rc<Core>,
    line: Line,
    task: TaskId,
}

impl InLine {
    fn new(core: &Rc<Core>, line: &Line) -> InLine {
        core.counters.pending.add(1);
        let task = ring::current_task();
        line.borrow_mut().push_back(task);
        InLine { core: core.clone(), line: line.clone(), task }
    }

    fn is_first(&self) -> bool {
        self.line.borrow().front() == Some(&self.task)
    }
}

impl Drop for InLine {
    fn drop(&mut self) {
        self.core.counters.pending.sub(1);
        let mut line = self.line.borrow_mut();
        line.retain(|task| *task != self.task);
        if let Some(next) = line.front() {
            ring::wake_task(*next);
        }
    }
}

/// The other end of a connection, for the log.
#[derive(Default)]
pub(crate) struct Destination {
    pool: Option<Rc<Pool>>,
    identity: Option<Rc<str>>,
}

impl Destination {
    /// Its address; empty for none.
    pub(crate) fn name(&self) -> &str {
        self.pool.as_ref().map_or("", |pool| &pool.name)
    }

    /// Its SPIFFE ID; empty for none.
    pub(crate) fn identity(&self) -> &str {
        self.identity.as_deref().unwrap_or_default()
    }
}

impl Upstream {
    pub(crate) fn destination(&self) -> Destination {
        Destination { pool: Some(self.pool.clone()), identity: self.link.stream.identity().cloned() }
    }

    pub(crate) fn stream(&self) -> &Stream {
        &self.link.stream
    }

    /// The connection, and what has arrived on it.
    pub(crate) fn split(&mut self) -> (&Stream, &mut Option<Buf>) {
        (&self.link.stream, &mut self.input)
    }

    /// Tells how the endpoint did; once a request.
    pub(crate) fn finish(&mut self, latency_ns: u64, outcome: Outcome) {
        if let Some(flight) = self.flight.take() {
            flight.finish(ring::now(), latency_ns, outcome);
        }
    }

    /// Puts the connection into the pool, unless something came on it that was not asked for.
    pub(crate) fn keep(self, core: &Core, current: &Current, service: ServiceId) {
        let Upstream { link, input, pool, .. } = self;
        let upstreams = &current.services[service.0 as usize];
        // One that was announced as a client's is no other's.
        let reusable = input.is_none() && link.stream.is_quiet() && upstreams.proxy_protocol.is_none();
        if !reusable || core.draining.get() || pool.retired.get() {
            return link.part();
        }
        let until_ns = ring::now() + POOLED_NS;
        let key = core.pooled.borrow_mut().insert(Pooled { link, pool: pool.clone(), until_ns });
        if let Some(pooled) = core.pooled.borrow().get(key) {
            pooled.link.stream.watch(UPSTREAM_TOKEN | key, until_ns);
        }
        pool.idle.borrow_mut().push(key);
        core.counters.upstream_idle.add(1);
        upstreams.wake_first();
        if upstreams.service.budget().keep_idle(core.index) && upstreams.line.borrow().is_empty() {
            idle_ended(core, key);
        }
    }
}

impl Drop for Grant {
    fn drop(&mut self) {
        self.core.counters.upstream.sub(1);
        let Some(permit) = self.permit.take() else { return };
        let budget = permit.budget().clone();
        match permit.release(self.core.index) {
            Some(other) => self.core.ring(other),
            // A release names other cores only; those who wait on this one look for themselves.
            None if budget.wanted() => self.core.ring(self.core.index),
            None => {}
        }
    }
}

/// Something came on an idle connection, or its time is up. Records that carry nothing for us (tickets) do not end it.
pub(crate) fn idle_woke(core: &Core, key: u64) {
    let goes_on = core.pooled.borrow().get(key).is_some_and(|pooled| {
        let stream = &pooled.link.stream;
        let goes_on = !stream.heard_nothing() && stream.is_quiet() && ring::now() < pooled.until_ns;
        if goes_on {
            stream.watch(UPSTREAM_TOKEN | key, pooled.until_ns);
        }
        goes_on
    });
    if !goes_on {
        idle_ended(core, key);
    }
}

/// An idle connection ended, or is given up.
pub(crate) fn idle_ended(core: &Core, key: u64) {
    let Some(pooled) = core.pooled.borrow_mut().remove(key) else { return };
    pooled.pool.idle.borrow_mut().retain(|idle| *idle != key);
    core.counters.upstream_idle.sub(1);
    pooled.link.part();
}

/// Draining has begun: services are told of the ends of connections that the process's end would cut off without a word.
pub(crate) fn part_idle(core: &Core) {
    let keys = core.pooled.borrow().keys();
    for key in keys {
        let speaks = core.pooled.borrow().get(key).is_some_and(|pooled| pooled.link.stream.has_last_words());
        if speaks {
            idle_ended(core, key);
        }
    }
}

/// Another core rang (or this one rang itself): those who wait look again, and an idle connection that is wanted
/// elsewhere is given up.
pub(crate) fn answer_ring(core: &Core) {
    let Some(current) = core.current() else { return };
    wake_old_lines(core);
    for upstreams in &current.services {
        if !upstreams.line.borrow().is_empty() {
            upstreams.wake_first();
        } else {
            while upstreams.service.budget().wanted() && upstreams.give_up_idle(core) {}
        }
    }
}

impl Core {
    /// Wakes a core, perhaps this one.
    fn ring(&self, core: usize) {
        if let Some(wake) = self.wakes.get(core).and_then(|wake| wake.get()) {
            wake.ring();
        }
    }
}
