//! A world with proxy cores, origins and clients; what must hold at its end.

use crate::choice::Choice;
use crate::client::{self, Manner};
use crate::line::{Dial, Flawed, Hall};
use crate::origin;
use crate::script::{End, Entry, Framing, Ledger, Outcome, Script};
use crate::security::{Acceptor, Dialler, Security};
use balance::Kind;
use flow::{Counters, Order, Process, Series, Start};
use plan::{Plan, SeriesKey};
use ring::between::{Reader, Sender, bytes, mailbox};
use ring::host::Address;
use ring::sim::{Faults, NodeId, World};
use ring::{Bound, BufferSizes, Config, Listener, Socket};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, OnceLock};

const SECOND: u64 = 1_000_000_000;

/// Where the proxy listens in most scenarios.
pub(crate) const WEB: &str = "10.9.0.1:80";

/// One proxy core.
struct Core {
    orders: Sender<Order>,
    counters: Arc<Counters>,
    log: Reader,
}

/// A run.
pub(crate) struct Stage {
    pub(crate) world: World,
    pub(crate) choice: Choice,
    pub(crate) ledger: Ledger,
    pub(crate) security: Security,
    /// Of clients that show a certificate, and of those that do not.
    diallers: [Option<Dialler>; 2],
    acceptor: Option<Acceptor>,
    /// What is wrong with TLS of clients and of origins that come from here on.
    pub(crate) clients_flawed: Flawed,
    pub(crate) origins_flawed: Flawed,
    pub(crate) process: Arc<Process>,
    pub(crate) plans: Vec<Arc<Plan>>,
    cores: Vec<Core>,
    wakes: Arc<[OnceLock<ring::Wake>]>,
    series: BTreeMap<SeriesKey, Arc<Series>>,
    /// Peers at work.
    open: Rc<Cell<usize>>,
}

impl Stage {
    /// `count` cores of one process under a configuration.
    pub(crate) fn new(seed: u64, faults: Faults, count: usize, yaml: &str) -> Stage {
        let mut choice = Choice::new(seed);
        let config = config(&mut choice);
        Stage::with(seed, faults, count, yaml, &config)
    }

    /// The same, with these buffers.
    pub(crate) fn with(seed: u64, faults: Faults, count: usize, yaml: &str, config: &Config) -> Stage {
        let mut world = World::new(seed, faults);
        let process = Arc::new(Process::default());
        let wakes: Arc<[OnceLock<ring::Wake>]> = (0..count).map(|_| OnceLock::new()).collect();
        let cores = (0..count).map(|core| Core::start(&mut world, config, core, &process, &wakes)).collect();
        let (security, mut secure) = (Security::of(seed), Choice::new(seed ^ 2));
        let mut stage = Stage {
            world,
            choice: Choice::new(seed ^ 1),
            ledger: Ledger::default(),
            security,
            diallers: [true, false].map(|shows| Dialler::new(security, shows, secure.split())),
            acceptor: Acceptor::new(security, secure.split()),
            clients_flawed: Flawed::None,
            origins_flawed: Flawed::None,
            process,
            plans: Vec::new(),
            cores,
            wakes,
            series: BTreeMap::new(),
            open: Rc::default(),
        };
        stage.ledger.secure.set(security.client_is_secure());
        stage.order(yaml);
        stage
    }

    /// A new plan for all cores.
    pub(crate) fn order(&mut self, yaml: &str) {
        let yaml = self.security.configure(yaml);
        let document = api::load(&yaml, "scenario.yaml").unwrap_or_else(|findings| panic!("{findings:#?}"));
        let generation = self.plans.len() as u64 + 1;
        let resources = api::translate(&document);
        let previous = self.plans.last().map(|plan| &**plan);
        let outside = Security::outside(generation, self.world.now_ns());
        let plan = plan::compile(&resources, previous, generation, &outside);
        self.plans.push(Arc::new(plan.unwrap_or_else(|rejections| panic!("{rejections:#?}"))));
        self.tell(false);
    }

    /// No more is accepted, and connections end.
    pub(crate) fn drain(&mut self) {
        self.tell(true);
    }

    fn tell(&mut self, drain: bool) {
        let Some(plan) = self.plans.last() else { return };
        let count = self.cores.len();
        let series = plan
            .series
            .iter()
            .map(|key| self.series.entry(key.clone()).or_insert_with(|| Arc::new(Series::new(count))).clone());
        let series: Arc<[Arc<Series>]> = series.collect();
        let bound = |listener: &plan::Listener| Arc::new(Bound::Simulated(simulated(&listener.address)));
        let sockets: Arc<[Arc<Bound>]> = plan.listeners.iter().map(bound).collect();
        for core in &mut self.cores {
            let order = Order {
                plan: plan.clone(),
                series: series.clone(),
                rules: [].into(),
                sockets: sockets.clone(),
                drain,
                cut: false,
            };
            drop(core.orders.put(order));
        }
        self.wakes.iter().filter_map(OnceLock::get).for_each(ring::Wake::ring);
    }

    /// An origin that answers by script.
    pub(crate) fn origin(&mut self, address: &str) {
        let (ledger, hall) = (self.ledger.clone(), self.hall());
        self.listen(address, move |socket, choice| origin::serve(ledger.clone(), hall.clone(), socket, choice));
    }

    /// What origins accept with.
    pub(crate) fn hall(&self) -> Hall {
        Hall { with: self.acceptor.clone(), flawed: self.origins_flawed }
    }

    /// What a client connects with.
    pub(crate) fn dial(&mut self) -> Dial {
        // Without TLS nothing is chosen: seeds that failed once stay what they were.
        let shows = self.security.client_is_secure() && self.choice.percent(50);
        Dial { with: self.diallers[usize::from(!shows)].clone(), flawed: self.clients_flawed }
    }

    /// A node that serves each connection to an address with a task.
    pub(crate) fn listen<F: Future<Output = ()> + 'static>(
        &mut self,
        address: &str,
        serve: impl Fn(Socket, Choice) -> F + 'static,
    ) {
        let address = at(address);
        let config = config(&mut self.choice);
        let mut choice = self.choice.split();
        self.world.node(&config, move |_, _| {
            let listener = Listener::new(Bound::Simulated(address)).expect("a free address");
            ring::spawn(async move {
                loop {
                    match listener.accept().await {
                        Ok(socket) => drop(ring::spawn(serve(socket, choice.split()))),
                        Err(_) => ring::sleep_until(ring::now() + SECOND / 1000).await,
                    }
                }
            });
        });
    }

    /// A client on a node of its own that makes these requests.
    pub(crate) fn client(&mut self, manner: Manner, scripts: Vec<Script>) -> NodeId {
        self.client_of(WEB, manner, scripts)
    }

    /// A client of a listener.
    pub(crate) fn client_of(&mut self, address: &str, manner: Manner, scripts: Vec<Script>) -> NodeId {
        let entries: Vec<Rc<Entry>> = scripts.into_iter().map(|script| self.ledger.add(script)).collect();
        let (ledger, choice) = (self.ledger.clone(), self.choice.split());
        let to = (at(address), self.dial());
        self.peer(async move { client::run(ledger, to, manner, entries, choice).await })
    }

    /// A node with a task that the run lasts for.
    pub(crate) fn peer(&mut self, task: impl Future<Output = ()> + 'static) -> NodeId {
        let open = self.open.clone();
        open.set(open.get() + 1);
        self.world.node(&config(&mut self.choice), move |_, _| {
            ring::spawn(async move {
                task.await;
                open.set(open.get() - 1);
            });
        })
    }

    /// Lets time pass, while peers are at work.
    pub(crate) fn run_for(&mut self, ns: u64) {
        let (limit, open) = (self.world.now_ns() + ns, self.open.clone());
        self.world.run_until(limit, || open.get() == 0);
    }

    /// Runs until all peers have ended, and everything has come to rest; then looks at what is left.
    pub(crate) fn finish(&mut self) {
        let (limit, open) = (self.world.now_ns() + 20_000 * SECOND, self.open.clone());
        let done = self.world.run_until(limit, || open.get() == 0);
        assert!(done, "{} peers are still at work at {} ns: {:#?}", self.open.get(), self.world.now_ns(), self.stuck());
        self.rests();
        // Origins take what is still under way to them.
        let limit = self.world.now_ns() + 60 * SECOND;
        self.world.run(limit);
        self.counters_agree();
        self.world.check_leaks();
    }

    fn stuck(&self) -> Vec<Rc<Entry>> {
        self.ledger.all().into_iter().filter(|entry| entry.outcome.get().is_none()).take(5).collect()
    }

    /// What is counted as open comes to nothing, within the longest timeout.
    fn rests(&mut self) {
        let counters: Vec<Arc<Counters>> = self.cores.iter().map(|core| core.counters.clone()).collect();
        let limit = self.world.now_ns() + 700 * SECOND;
        let open = move || {
            let of = |counters: &Arc<Counters>| {
                [
                    counters.downstream.value(),
                    counters.downstream_idle.value(),
                    counters.active.value(),
                    counters.pending.value(),
                    counters.upstream.value(),
                    counters.upstream_idle.value(),
                ]
            };
            counters.iter().map(of).collect::<Vec<_>>()
        };
        let rests = self.world.run_until(limit, || open().iter().flatten().all(|count| *count == 0));
        assert!(rests, "downstream, idle, active, pending, upstream, idle: {:?}", open());
        assert_eq!(self.process.connections.load(Relaxed), 0);
        for service in self.plans.iter().flat_map(|plan| &plan.services) {
            for (endpoint, _) in service.balance.endpoints() {
                assert_eq!(endpoint.in_flight(), 0, "in flight at {:?}", endpoint.address());
            }
            for kind in [Kind::Connection, Kind::Pending, Kind::Request] {
                assert_eq!(service.balance.budget().used(kind), 0, "{kind:?} of {}", service.name);
            }
        }
    }

    /// Endings, series and log tell of the same number of requests, and of connections that came to none.
    fn counters_agree(&mut self) {
        let ended: u64 = self.cores.iter().flat_map(|core| core.counters.endings()).map(|(_, count)| count).sum();
        let recorded: u64 = self.series.values().flat_map(|series| series.sum().classes).sum();
        let recorded = recorded + self.ended("handshake_failed");
        assert_eq!(ended, recorded, "endings and series");
        let mut record = Vec::new();
        let mut logged = 0;
        for core in &mut self.cores {
            logged += core.counters.log_dropped.value();
            record.clear();
            while core.log.pop(&mut record).is_some() {
                assert!(flow::log::Record::read(&record).is_some(), "a log record that cannot be read");
                record.clear();
                logged += 1;
            }
        }
        assert_eq!(ended, logged, "endings and log records");
        for core in &self.cores {
            let (bodies, copied) = (core.counters.body_bytes.value(), core.counters.body_copied_bytes.value());
            assert!(copied <= bodies, "{copied} bytes copied of {bodies}");
        }
    }

    fn endings(&self) -> Vec<(&'static str, u64)> {
        let all = self.cores.iter().flat_map(|core| core.counters.endings());
        all.filter(|(_, count)| *count > 0).collect()
    }

    /// How many endings of a kind were counted.
    pub(crate) fn ended(&self, label: &str) -> u64 {
        let of = |core: &Core| core.counters.endings().find(|(name, _)| *name == label).map_or(0, |(_, count)| count);
        self.cores.iter().map(of).sum()
    }

    /// The sum of a counter over all cores.
    pub(crate) fn sum(&self, of: impl Fn(&Counters) -> u64) -> u64 {
        self.cores.iter().map(|core| of(&core.counters)).sum()
    }

    /// In a network that breaks nothing, every request comes to exactly what its script says; `also` says what else may
    /// be.
    pub(crate) fn all_as_scripted(&self, also: impl Fn(&Entry, Outcome) -> bool) {
        for entry in self.ledger.all() {
            let outcome = entry.outcome.get().expect("an outcome");
            let fine = scripted(&entry, outcome) || also(&entry, outcome);
            assert!(fine, "{outcome:?} came of {entry:?}; endings: {:?}", self.endings());
        }
        let all = self.ledger.all();
        if all.iter().all(|entry| entry.outcome.get() == Some(Outcome::Right) && entry.script.answer.early.is_none()) {
            self.bytes_agree();
            assert_eq!(self.ended("complete"), all.len() as u64);
        }
    }

    /// Where nothing was lost, what was counted is what peers sent and got.
    fn bytes_agree(&self) {
        let (client, origin) = (&self.ledger.client, &self.ledger.origin);
        assert_eq!(self.sum(|counters| counters.downstream_received_bytes.value()), client.sent.get());
        assert_eq!(self.sum(|counters| counters.downstream_sent_bytes.value()), client.received.get());
        assert_eq!(self.sum(|counters| counters.upstream_received_bytes.value()), origin.sent.get());
        assert_eq!(self.sum(|counters| counters.upstream_sent_bytes.value()), origin.received.get());
    }

    /// In a network that breaks anything, a request may fail, but in one of the ways that are allowed.
    pub(crate) fn all_right_or_broken(&self) {
        for entry in self.ledger.all() {
            let outcome = entry.outcome.get().expect("an outcome");
            assert!(right_or_broken(outcome), "{outcome:?} came of {entry:?}");
        }
    }
}

/// Whether something that breaks may lead to this.
pub(crate) fn right_or_broken(outcome: Outcome) -> bool {
    match outcome {
        Outcome::Status(status) => matches!(status, 408 | 502 | 503 | 504),
        _ => true,
    }
}

/// Whether an outcome is what the script says, when the network breaks nothing.
fn scripted(entry: &Entry, outcome: Outcome) -> bool {
    let script = &entry.script;
    if outcome == Outcome::Unanswered && entry.after_the_end.get() {
        // The connection ended with an answer before: what was sent behind it is not touched.
        assert_eq!(entry.seen.get(), 0, "forwarded behind the last answer: {entry:?}");
        return true;
    }
    match (script.answer.end, outcome) {
        // What the client still sends after an early answer may destroy it.
        (End::Whole, Outcome::Cut | Outcome::Unanswered) => script.answer.early.is_some(),
        (End::Whole, outcome) => outcome == Outcome::Right,
        (End::Before(_) | End::InHead(_) | End::Garbage(_), outcome) => outcome == Outcome::Status(502),
        (End::InBody(..), outcome) if !script.answer_has_body() => outcome == Outcome::Right,
        // A reset may overtake all that went before.
        (End::InBody(_, true), outcome) => matches!(outcome, Outcome::Cut | Outcome::Unanswered | Outcome::Status(502)),
        // What cannot be a chunk may be seen before anything was passed on.
        (End::InBody(_, false), Outcome::Status(502)) => script.answer.framing == Framing::Chunked,
        (End::InBody(_, false), outcome) => matches!(outcome, Outcome::Cut | Outcome::Unanswered),
        (End::Unsaid, outcome) => matches!(outcome, Outcome::Cut | Outcome::Unanswered | Outcome::Status(502)),
        (End::Never, outcome) => outcome == Outcome::Status(504),
    }
}

impl Core {
    fn start(
        world: &mut World,
        config: &Config,
        number: usize,
        process: &Arc<Process>,
        wakes: &Arc<[OnceLock<ring::Wake>]>,
    ) -> Core {
        let (orders, inbox) = mailbox();
        let (log_in, log) = bytes(1 << 16);
        let counters = Arc::new(Counters::default());
        let start = Start {
            core: number,
            wakes: wakes.clone(),
            orders: inbox,
            counters: counters.clone(),
            log: log_in,
            process: process.clone(),
            id_prefix: 7,
        };
        let config = Config { seed: number as u64, ..config.clone() };
        world.node(&config, move |_, wake| {
            let _ = start.wakes[start.core].set(wake);
            flow::start(start);
        });
        Core { orders, counters, log }
    }
}

/// Clients of any manner with any requests, after a change.
pub(crate) fn crowd(stage: &mut Stage, most: usize, change: impl Fn(&mut Choice, &mut Manner, &mut Script)) {
    for _ in 0..1 + stage.choice.below(4) {
        let mut choice = stage.choice.split();
        let mut manner = Manner::any(&mut choice);
        let mut scripts = Vec::new();
        for _ in 0..1 + choice.below(6) {
            let mut script = Script::any(&mut choice, most);
            change(&mut choice, &mut manner, &mut script);
            scripts.push(script);
        }
        stage.client(manner, scripts);
    }
}

/// Buffers of any size, mostly few.
pub(crate) fn config(choice: &mut Choice) -> Config {
    let small = BufferSizes {
        bytes: choice.one_of(&[128, 512, 4096, 4096]),
        count: choice.one_of(&[2, 4, 16, 64]),
        most: choice.one_of(&[4, 16, 64, 256]),
    };
    let large =
        BufferSizes { bytes: choice.one_of(&[2048, 16_384, 65_536]), count: 2, most: choice.one_of(&[2, 4, 8]) };
    Config { small, large, seed: choice.below(1000), ..Config::default() }
}

/// An address in the network.
pub(crate) fn at(text: &str) -> Address {
    match text.strip_prefix("unix:") {
        Some(path) => Address::unix(path.as_ref()).expect("a short path"),
        None => Address::from(text.parse::<std::net::SocketAddr>().expect("an address")),
    }
}

fn simulated(address: &balance::Address) -> Address {
    match address {
        balance::Address::Ip(ip) => Address::from(*ip),
        balance::Address::Unix(path) => Address::unix(path).expect("a short path"),
    }
}

/// A web listener in front of one service, with what a route or a service may say besides.
pub(crate) fn web(endpoints: &str, route: &str, service: &str, limits: &str) -> String {
    format!(
        "listeners:
  web:
    address: {WEB}
    routes:
      - {{ name: all, to: a{route} }}
services:
  a: {{ endpoints: [{endpoints}], connect-timeout: 20s{service} }}
limits: {{ request-timeout: 600s, idle-timeout: 600s{limits} }}
access-log: {{ path: /dev/null, format: json }}
"
    )
}
