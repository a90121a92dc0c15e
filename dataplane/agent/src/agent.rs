//! The agent's life.
//!
//! ```text
//! probe the kernel → read the file → compile → resolve names → bind → start cores → order → ready
//!     SIGHUP ──────► read → compile → resolve what is new → bind ─► order (or refuse, and stay)
//!     DNS answer ─► compile ─────────────────────────────────────► order
//!     a certificate ─► compile ──────────────────────────────────► order (or refuse, and try again)
//!     the daemon ─► take or refuse, one by one → bind ───────────► order (`agent/daemon.rs`)
//!     SIGTERM, SIGINT, POST /drain ─► tell the daemon → order to drain → wait → exit; a second signal: exit
//! ```
//!
//! Once it is ready no disk is waited for: files are read on threads of their own ([`Errand`]).

mod daemon;
mod rotate;

use crate::admin::{self, Admin};
use crate::cores::{self, Cores};
use crate::difference;
use crate::dns::Dns;
use crate::errand::Errand;
use crate::file;
use crate::files::{Files, Glance, Wanted};
use crate::host;
use crate::log::Log;
use crate::sockets::{Binding, Sockets};
use crate::state::State;
use crate::tell::{tell, tell_ready};
use crate::world::Around;
use api::Resources;
use daemon::Daemon;
use flow::{Order, RuleCounts, Series};
use plan::{Answers, Plan, World};
use ring::Features;
use rotate::Warnings;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

/// How long names that were never resolved hold a plan back.
const RESOLVE: Duration = Duration::from_secs(2);
/// How long addresses that are taken are tried again at the start.
const FIRST_BIND: Duration = Duration::from_secs(1);
/// How long the first plan may take to reach all cores.
const FIRST_ORDER: Duration = Duration::from_secs(5);
/// How long a draining core still takes connections that the kernel had accepted, with room to spare.
const LAST_ACCEPTS: Duration = Duration::from_millis(100);
/// How long connections that are cut off may take to end.
const LAST_ENDINGS: Duration = Duration::from_millis(500);
/// How long the last log records may take.
const LAST_RECORDS: Duration = Duration::from_secs(1);
/// How much nicer the agent's thread is than a core's once there is traffic: a tenth of a CPU where a core wants all of it
/// (`dataplane/decisions/0014-giving-way.md`).
const NICER: u8 = 10;
/// Descriptors beside connections: rings, logs, admin pages, resolver.
const SPARE_DESCRIPTORS: u64 = 64;

/// Why the process did not start.
#[derive(Debug)]
pub(crate) enum Refused {
    /// The file is wrong.
    Findings(Vec<String>),
    /// The machine is.
    Start(Vec<String>),
}

/// Runs the process. Returns after draining.
///
/// # Errors
/// It could not start.
pub(crate) fn run(path: &Path, cores: Option<u32>) -> Result<(), Refused> {
    let features = ring::host::probe().map_err(|error| refused(error.to_string()))?;
    let descriptor_limit = ring::host::descriptor_limit();
    let resources = file::read(path).map_err(Refused::Findings)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| refused(format!("the agent's runtime cannot be made: {error}")))?;
    runtime.block_on(async {
        let signals = Signals::new().map_err(|error| refused(format!("signals cannot be caught: {error}")))?;
        let agent = Agent::start(path, cores, resources, features, descriptor_limit).await?;
        agent.serve(signals).await;
        Ok(())
    })?;
    // A disk that hangs does not keep the process.
    runtime.shutdown_background();
    Ok(())
}

fn refused(reason: String) -> Refused {
    Refused::Start(vec![reason])
}

struct Signals {
    ends: Ends,
    hang_up: Signal,
    user1: Signal,
}

/// The signals that end the process.
struct Ends {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Signals> {
        let ends = Ends { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? };
        Ok(Signals { ends, hang_up: signal(SignalKind::hangup())?, user1: signal(SignalKind::user_defined1())? })
    }
}

impl Ends {
    /// Waits for one of them.
    async fn come(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// The counters of a plan's `series` and `rules`, in their order.
#[derive(Clone)]
struct Counts {
    series: Arc<[Arc<Series>]>,
    rules: Arc<[Arc<RuleCounts>]>,
}

struct Agent {
    path: PathBuf,
    /// What the current plan was compiled from.
    resources: Resources,
    plan: Arc<Plan>,
    counts: Counts,
    /// Plans that some core may still use. They are freed here, not by a core that would have to wait for it.
    old: Vec<(Arc<Plan>, Counts)>,
    around: Around,
    warnings: Warnings,
    cores: Cores,
    /// Of the cores.
    cpus: Vec<usize>,
    sockets: Sockets,
    dns: Dns,
    admin: Option<Admin>,
    log: Log,
    state: Arc<State>,
    /// Where the configuration comes from when it is not in the file.
    daemon: Option<Daemon>,
    /// A look at the files of the configuration.
    looking: Errand<Glance>,
    /// The configuration, read again, and the files that it names.
    reading: Errand<Result<(Resources, Files), Vec<String>>>,
    /// It is to be read once more: it may have changed since that began.
    read_again: bool,
}

impl Agent {
    async fn start(
        path: &Path,
        cores: Option<u32>,
        resources: Resources,
        features: Features,
        descriptor_limit: u64,
    ) -> Result<Agent, Refused> {
        let mut around = Around::new(&resources).map_err(|error| refused(format!("no random bytes: {error}")))?;
        let files = around.files.seen();
        let compile = |answers: Answers| {
            let world = around.with(answers, files.clone());
            file::compile(path, &resources, None, 1, &world).map_err(Refused::Findings)
        };
        let draft = compile(Answers::default())?;
        let daemon = match &draft.process.daemon {
            Some(section) => Some(Daemon::open(section.clone(), resources.clone())?),
            None => None,
        };
        let wanted = cores.map_or_else(|| draft.process.cores.clone(), api::Cores::Count);
        let cpus = cores::choose(&wanted, &ring::host::cpu::allowed()).map_err(refused)?;
        let sockets = Sockets::new(cpus.len());
        let binding = bind_at_start(&sockets, &draft).await.map_err(Refused::Start)?;
        let process = Arc::new(flow::Process::default());
        let mut cores = Cores::start(&cpus, &features, &process).map_err(|error| refused(error.to_string()))?;
        let standing = daemon.as_ref().map(Daemon::standing);
        let state = Arc::new(State::new(&cores, process, features, descriptor_limit, standing));
        let admin = match &draft.process.admin {
            Some(address) => Some(Admin::start(address, state.clone()).await.map_err(refused)?),
            None => None,
        };
        let log = Log::start(cores.take_logs(), draft.process.access_log.clone(), state.log.clone())
            .map_err(|error| refused(format!("the access log's thread cannot be started: {error}")))?;
        let mut dns = Dns::new(state.dns_failures.clone());
        dns.want(draft.names());
        dns.settle(RESOLVE).await;
        let plan = if draft.names().is_empty() { draft } else { compile(dns.answers(draft.names()))? };
        around.files.apply(files);
        let plan = Arc::new(plan);
        let mut agent = Agent {
            path: path.to_owned(),
            resources,
            plan: plan.clone(),
            counts: Counts { series: [].into(), rules: [].into() },
            old: Vec::new(),
            around,
            warnings: Warnings::default(),
            cores,
            cpus,
            sockets,
            dns,
            admin,
            log,
            state,
            daemon,
            looking: Errand::default(),
            reading: Errand::default(),
            read_again: false,
        };
        agent.sockets.replace(binding);
        agent.use_plan(plan);
        let serves = agent.start_daemon().await;
        agent.await_cores().await?;
        if serves {
            agent.is_ready();
        }
        agent.all_cores_have_it();
        agent.look_for_daemon();
        agent.warn_of_certificates();
        Ok(agent)
    }

    /// Waits until every core works with the plan.
    async fn await_cores(&self) -> Result<(), Refused> {
        let all = async {
            while !self.cores.acknowledged(self.plan.generation) {
                sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(FIRST_ORDER, all).await.map_err(|_| refused("a core did not take its first plan".to_owned()))
    }

    /// The process is ready, which is said once.
    fn is_ready(&self) {
        if let Some(daemon) = &self.daemon {
            daemon.standing().tell(|told| told.ready = true);
        }
        if !self.state.ready.swap(true, Relaxed) {
            self.say_ready();
        }
    }

    fn say_ready(&self) {
        let listeners = self.plan.listeners.iter().map(|listener| format!(" {}={}", listener.name, listener.address));
        let admin =
            self.admin.as_ref().map_or(String::new(), |admin| format!("; admin={}", admin::text(admin.address())));
        tell_ready(format_args!(
            "{}; cores {}; listeners{}{admin}; limits connections={} descriptors={} memlock={}",
            self.state.features,
            cores::numbers(&self.cpus),
            listeners.collect::<String>(),
            self.plan.process.connections,
            self.state.descriptor_limit,
            host::locked_memory_limit(),
        ));
        self.warn_of_limits();
    }

    fn warn_of_limits(&self) {
        let (limit, needed) = (self.state.descriptor_limit, descriptors_needed(&self.plan, self.cores.len()));
        if limit < needed {
            tell(format_args!(
                "the limit of {limit} descriptors is too low for {} connections, which may take {needed}: raise it \
                 (`ulimit -n`, LimitNOFILE= in systemd) or lower `limits: connections`",
                self.plan.process.connections,
            ));
        }
    }

    async fn serve(mut self, mut signals: Signals) {
        if let Err(error) = ring::host::cpu::give_way(NICER) {
            tell(format_args!("the agent's thread competes with the cores for CPUs: it cannot be made nicer: {error}"));
        }
        self.around.set_clock(self.cores.now_ns());
        let mut second = interval(Duration::from_secs(1));
        // After a pause of the whole process a core gets its five looks anew.
        second.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let state = self.state.clone();
        loop {
            let pending = self.pending();
            tokio::select! {
                () = signals.ends.come() => break,
                () = state.drain.notified() => break,
                _ = signals.hang_up.recv() => self.read(),
                read = self.reading.done() => self.reload(read).await,
                glance = self.looking.done() => self.files_seen(glance),
                _ = signals.user1.recv() => self.log.reopen(),
                () = self.dns.changed() => self.answers_changed(),
                news = daemon::news(&mut self.daemon) => self.hear(news).await,
                () = acknowledged(&self.cores, pending) => self.all_cores_have_it(),
                _ = second.tick() => {
                    self.look_after();
                    self.look_after_daemon().await;
                }
            }
        }
        let impatient = self.take_leave(&mut signals.ends).await;
        self.finish_daemon().await;
        self.drain(signals.ends, impatient).await;
    }

    /// What is done once a second.
    fn look_after(&mut self) {
        self.cores.check();
        self.old.retain(|(plan, _)| Arc::strong_count(plan) > 1);
        self.around.set_clock(self.cores.now_ns());
        self.look_at_files();
        self.rotate_tickets();
        self.warn_of_certificates();
    }

    /// Sends somebody to read the file again.
    fn read(&mut self) {
        self.read_again = self.reading.is_under_way();
        let path = self.path.clone();
        self.reading.begin(move || {
            let resources = file::read(&path)?;
            let files = Files::read(Wanted::of(&resources));
            Ok((resources, files))
        });
    }

    /// A good file replaces the plan, a bad one is refused with its reasons.
    async fn reload(&mut self, read: Result<(Resources, Files), Vec<String>>) {
        let reloaded = match read {
            Ok((resources, files)) => self.try_reload(resources, files).await,
            Err(findings) => Err(findings),
        };
        match reloaded {
            Ok(changes) => {
                self.state.reloads.fetch_add(1, Relaxed);
                tell(format_args!("reloaded: generation {} applied: {changes}", self.plan.generation));
            }
            Err(findings) => {
                self.state.refused.fetch_add(1, Relaxed);
                crate::tell::tell_findings(&findings);
                tell(format_args!("reload refused: generation {} stays", self.plan.generation));
            }
        }
        if self.read_again {
            self.read();
        }
    }

    async fn try_reload(&mut self, resources: Resources, mut files: Files) -> Result<String, Vec<String>> {
        if self.daemon.is_some() {
            return self.reload_under_daemon(resources).await.map_err(|reasons| self.about_file(reasons));
        }
        let generation = self.plan.generation + 1;
        let contents = files.seen();
        let compile = |agent: &Agent, answers: Answers| {
            let world = agent.around.with(answers, contents.clone());
            file::compile(&agent.path, &resources, Some(&agent.plan), generation, &world)
        };
        let draft = compile(self, self.dns.answers(self.plan.names()))?;
        let binding = self.sockets.bind_again(addresses(&draft)).await;
        let binding = binding.map_err(|unbound| self.about_file(texts(&unbound)))?;
        let admin = self.move_admin(&draft).await.map_err(|reason| self.about_file(vec![reason]))?;
        let changes = difference::between(&self.resources, &resources, (self.around.files.in_force(), &contents));
        // From here on nothing is refused: names whose answers do not come have no endpoints until they do.
        self.dns.reread();
        self.dns.want(draft.names());
        self.dns.settle(RESOLVE).await;
        let plan = match draft.names().is_empty() {
            true => draft,
            false => compile(self, self.dns.answers(draft.names()))?,
        };
        if let Some(admin) = admin {
            self.admin = admin;
        }
        if plan.process.cores != self.plan.process.cores {
            tell("`cores` has changed, which takes a restart");
        }
        self.log.set(plan.process.access_log.clone());
        self.sockets.replace(binding);
        self.resources = resources;
        files.apply(contents);
        self.around.files = files;
        // It looks at files that are not wanted any more, or as they were.
        self.looking.forget();
        let more = plan.process.connections > self.plan.process.connections;
        self.use_plan(Arc::new(plan));
        if more {
            self.warn_of_limits();
        }
        Ok(changes)
    }

    fn about_file(&self, reasons: Vec<String>) -> Vec<String> {
        reasons.iter().map(|reason| file::at_start(&self.path, reason)).collect()
    }

    /// The admin pages at another address, or gone, when the plan says so.
    async fn move_admin(&self, plan: &Plan) -> Result<Option<Option<Admin>>, String> {
        let wanted = plan.process.admin.as_ref();
        if self.admin.as_ref().map(Admin::address) == wanted {
            return Ok(None);
        }
        match wanted {
            Some(address) => Ok(Some(Some(Admin::start(address, self.state.clone()).await?))),
            None => Ok(Some(None)),
        }
    }

    /// DNS answers have changed: the same configuration makes another plan.
    fn answers_changed(&mut self) {
        match self.compile(self.world()) {
            Ok(plan) => self.use_plan(Arc::new(plan)),
            Err(reasons) => tell(format_args!("a DNS answer is refused: {}", reasons.join("; "))),
        }
    }

    /// The world as far as it is in force.
    fn world(&self) -> World {
        self.around.with(self.dns.answers(self.plan.names()), self.around.files.in_force().clone())
    }

    /// The same configuration in another world: the plan to come.
    fn compile(&self, world: World) -> Result<Plan, Vec<String>> {
        let plan = plan::compile(&self.resources, Some(&self.plan), self.plan.generation + 1, &world);
        plan.map_err(|rejections| texts(&rejections))
    }

    /// Hands a plan, whose sockets are bound, to all cores.
    fn use_plan(&mut self, plan: Arc<Plan>) {
        let is_of =
            |counts: &Counts| counts.series.len() == plan.series.len() && counts.rules.len() == plan.rules.len();
        let same = Arc::ptr_eq(&plan.series, &self.plan.series) && Arc::ptr_eq(&plan.rules, &self.plan.rules);
        let counts = match same && is_of(&self.counts) {
            true => self.counts.clone(),
            false => Counts {
                series: self.state.series().of(&plan.series, plan.generation),
                rules: self.state.rules().of(&plan.rules, plan.generation),
            },
        };
        let counts = std::mem::replace(&mut self.counts, counts);
        let before = (std::mem::replace(&mut self.plan, plan.clone()), counts);
        self.old.push(before);
        drop(self.state.show(plan));
        self.order(false, false);
    }

    fn order(&mut self, drain: bool, cut: bool) {
        let Agent { cores, plan, counts, sockets, .. } = self;
        cores.order(|core| Order {
            plan: plan.clone(),
            series: counts.series.clone(),
            rules: counts.rules.clone(),
            sockets: sockets.of_core(core, plan.listeners.iter().map(|listener| &listener.address)),
            drain,
            cut,
        });
    }

    /// Stops accepting, and waits for requests under way: until they have ended, for `drain-timeout` at most, or until
    /// somebody is impatient.
    async fn drain(mut self, mut ends: Ends, impatient: bool) {
        self.state.draining.store(true, Relaxed);
        let longest = self.plan.process.drain_timeout;
        tell(format_args!("draining {} connections, at most {} s", self.cores.connections(), longest.as_secs_f32()));
        // Our own handles must not keep the kernel queueing connections that nobody will accept.
        self.sockets.clear();
        self.order(true, false);
        let why = tokio::select! {
            () = std::future::ready(()), if impatient => Some("ended at once"),
            () = all_closed(&self.cores) => None,
            () = sleep(longest) => Some("drain-timeout"),
            () = ends.come() => Some("ended at once"),
        };
        match why {
            None => tell("drained"),
            Some(why) => {
                tell(format_args!("{why}: {} connections are cut off", self.cores.connections()));
                self.order(true, true);
                // So that they are counted and logged; what does not end by this ends with the process.
                let _ = timeout(LAST_ENDINGS, all_closed(&self.cores)).await;
            }
        }
        self.log.finish(LAST_RECORDS).await;
    }
}

/// Waits until every core has heard of the draining and no connection is left.
async fn all_closed(cores: &Cores) {
    let (began, before) = (Instant::now(), cores.turns());
    // The turn that is under way, the one that hears the bell, and the one whose tasks obey.
    let obeyed = |now: Vec<u64>| now.iter().zip(&before).all(|(now, before)| *now >= before + 3);
    loop {
        cores.ring();
        sleep(Duration::from_millis(10)).await;
        if began.elapsed() >= LAST_ACCEPTS && obeyed(cores.turns()) && cores.connections() == 0 {
            return;
        }
    }
}

fn bind(sockets: &Sockets, plan: &Plan) -> Result<Binding, Vec<String>> {
    sockets.bind(addresses(plan)).map_err(|unbound| texts(&unbound))
}

fn texts(list: &[impl ToString]) -> Vec<String> {
    list.iter().map(ToString::to_string).collect()
}

/// Waits until all cores work with a plan; without one, for ever.
async fn acknowledged(cores: &Cores, generation: Option<u64>) {
    let Some(generation) = generation else { return std::future::pending().await };
    while !cores.acknowledged(generation) {
        sleep(Duration::from_millis(1)).await;
    }
}

/// Where a plan listens, with the listeners' names.
fn addresses(plan: &Plan) -> impl Iterator<Item = (&str, &balance::Address)> + Clone {
    plan.listeners.iter().map(|listener| (&*listener.name, &listener.address))
}

/// Binds, and tries again for a moment: a process that was killed lets go of its listeners only when the kernel has taken
/// its rings down, a few milliseconds after its end.
async fn bind_at_start(sockets: &Sockets, plan: &Plan) -> Result<Binding, Vec<String>> {
    let began = Instant::now();
    loop {
        match bind(sockets, plan) {
            Err(_) if began.elapsed() < FIRST_BIND => sleep(Duration::from_millis(20)).await,
            done => return done,
        }
    }
}

/// Descriptors when every connection from clients is open and has one to an endpoint, as far as services allow.
fn descriptors_needed(plan: &Plan, cores: usize) -> u64 {
    let connections = u64::from(plan.process.connections);
    let upstream: u64 = plan.services.iter().map(|service| u64::from(service.balance.limits().connections)).sum();
    // Ours and the core's own handle.
    let listening = (2 * plan.listeners.len() * cores) as u64;
    connections + connections.min(upstream) + listening + SPARE_DESCRIPTORS
}
