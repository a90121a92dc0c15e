//! An agent under a daemon: what came is tried, resource by resource; what is good becomes the next plan; what all cores
//! work with is kept on disk.

use super::{Agent, Ends, RESOLVE, Refused, addresses, refused};
use crate::daemon::{
    Folder, Joined, Judged, Kind, Link, News, Shelf, Standing, Start, Update, applied, generation, rejected,
};
use crate::difference;
use crate::files::{Contents, Files, Wanted};
use crate::sockets::Binding;
use crate::tell::tell;
use crate::world::now_s;
use api::mesh::KeyPair;
use api::{Resources, xds};
use plan::{Plan, Rejection};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::sleep;

/// Seconds after which what was refused is tried again although nothing came: an address may be free by now.
const AGAIN_S: u32 = 10;
/// Reasons that are told at once.
const MOST_TOLD: usize = 8;
/// Between two writings of the generation, and how many times as long as one took.
const KEEP: Duration = Duration::from_secs(1);
const KEEP_TIMES: u32 = 20;
/// A proxy that drains goes on accepting for so long after it has told its daemon, while the daemon tells the others: who
/// still sends to it is served.
const LEAVE: Duration = Duration::from_secs(1);

/// What an agent under a daemon has beside the others.
#[derive(Debug)]
pub(super) struct Daemon {
    section: api::Daemon,
    /// What the file says: it belongs to the process.
    file: Resources,
    folder: Arc<Folder>,
    shelf: Shelf,
    standing: Arc<Standing>,
    link: Option<Link>,
    joined: Option<Joined>,
    /// The certificate may be shown.
    valid: bool,
    /// The push that was taken last.
    version: String,
    /// When the certificate ends that the plan has, seconds since 1970; 0: it has none. The newest may be one that no plan
    /// could be made with.
    own_not_after_s: u64,
    /// The plan that not all cores have yet.
    pending: Option<Pending>,
    keeping: Keeping,
    /// Since what is refused was tried.
    seconds: u32,
    /// What was said of refusals, so that it is said once.
    told: Vec<String>,
}

/// A plan on its way to the cores.
#[derive(Debug)]
struct Pending {
    generation: u64,
    /// Its push.
    version: String,
    /// When the certificate ends that it proves itself with, seconds since 1970; 0: there is none.
    not_after_s: u64,
    /// The version of the mesh's roots in it.
    trust_version: String,
}

/// The writing of the generation, on a thread that may wait for a disk.
#[derive(Debug)]
struct Keeping {
    /// There is a newer one than was written.
    due: bool,
    /// Under way; tells how long it took.
    writing: Option<JoinHandle<Duration>>,
    not_before: Instant,
}

/// A plan that could be used, with its sockets.
struct Prepared {
    resources: Resources,
    draft: Plan,
    binding: Binding,
    /// Its files, if they are others than before.
    files: Option<(Files, Contents)>,
}

impl Daemon {
    /// Takes the folder of state, and what is kept there.
    ///
    /// # Errors
    /// The folder cannot be had.
    pub(super) fn open(section: api::Daemon, file: Resources) -> Result<Daemon, Refused> {
        let folder = Folder::open(Path::new(&section.state)).map_err(refused)?;
        let standing = Standing::new().map_err(|error| refused(format!("no random bytes: {error}")))?;
        let joined = Joined::read(&folder).unwrap_or_else(|reason| {
            tell(format_args!("{reason}: this proxy has to join again"));
            None
        });
        let mut daemon = Daemon {
            section,
            file,
            folder: Arc::new(folder),
            shelf: Shelf::default(),
            standing: Arc::new(standing),
            link: None,
            joined,
            valid: false,
            version: String::new(),
            own_not_after_s: 0,
            pending: None,
            keeping: Keeping { due: false, writing: None, not_before: Instant::now() },
            seconds: 0,
            told: Vec::new(),
        };
        daemon.restore();
        Ok(daemon)
    }

    fn restore(&mut self) {
        let Some(joined) = &self.joined else { return };
        let read = self.folder.read(generation::FILE, generation::MOST_BYTES);
        let restored = read.and_then(|bytes| match bytes {
            None => Ok(None),
            Some(bytes) => {
                let named = |reason: String| format!("{}: {reason}", self.folder.name(generation::FILE));
                Shelf::restore(&bytes, &joined.identity).map(Some).map_err(named)
            }
        });
        match restored {
            Ok(None) => {}
            Ok(Some((shelf, version))) => (self.shelf, self.version) = (shelf, version),
            Err(reason) => tell(format_args!("{reason}; the daemon is waited for")),
        }
    }

    /// How things stand.
    pub(super) fn standing(&self) -> Arc<Standing> {
        self.standing.clone()
    }

    /// How long before its end a certificate is worth a warning, seconds, if it is the one that renews itself.
    pub(super) fn warn_s(&self, certificate: &plan::Certificate) -> Option<u64> {
        let joined = self.joined.as_ref().filter(|_| *certificate.name == *xds::IDENTITY_SECRET);
        joined.map(Joined::overdue_s)
    }

    /// A plan of what is held now, which the cores are to have.
    fn on_its_way(&self, generation: u64) -> Pending {
        let trust_version = self.shelf.version_in_force(Kind::Secret, xds::TRUST_SECRET);
        Pending {
            generation,
            version: self.version.clone(),
            not_after_s: self.own_not_after_s,
            trust_version: trust_version.unwrap_or_default().to_owned(),
        }
    }

    /// What belongs to the process, and what it proves itself with.
    fn base(&self) -> Resources {
        let mut base = self.file.clone();
        if let Some(joined) = self.joined.as_ref().filter(|_| self.valid) {
            let pair = KeyPair { chain: joined.chain.clone(), key: joined.key.0.clone() };
            base.secrets.push(api::mesh::identity(&pair));
        }
        base
    }

    /// Looks whether the certificate may be shown. True: that has changed.
    fn look_at_certificate(&mut self) -> bool {
        let valid = self.joined.as_ref().is_some_and(|joined| joined.is_valid(now_s()));
        std::mem::replace(&mut self.valid, valid) != valid
    }

    /// Tells what is refused, that was not told yet; `more` is about no resource that there is.
    fn tell_refused(&mut self, more: &[Rejection]) {
        let all = self.shelf.refused().map(|(one, _)| one).chain(more);
        let texts: Vec<String> = all.map(ToString::to_string).collect();
        let fresh: BTreeSet<&String> = texts.iter().filter(|text| !self.told.contains(text)).collect();
        for text in fresh.iter().take(MOST_TOLD) {
            tell(format_args!("refused, the last good one stays: {text}"));
        }
        if fresh.len() > MOST_TOLD {
            tell(format_args!("and {} more are refused: see `ringwayctl rejects`", fresh.len() - MOST_TOLD));
        }
        self.told = texts;
    }
}

/// Waits for news of the daemon; without one, for ever.
pub(super) async fn news(daemon: &mut Option<Daemon>) -> News {
    match daemon.as_mut().and_then(|daemon| daemon.link.as_mut()) {
        Some(link) => link.next().await,
        None => std::future::pending().await,
    }
}

impl Agent {
    /// Tries what was kept. True: there is something to serve.
    pub(super) async fn start_daemon(&mut self) -> bool {
        let Some(daemon) = &mut self.daemon else { return true };
        daemon.look_at_certificate();
        let version = daemon.version.clone();
        self.try_again().await;
        let Some(daemon) = &mut self.daemon else { return true };
        let serves = !self.plan.listeners.is_empty();
        match serves {
            true => tell(format_args!("started from {} (push {version})", daemon.folder.name(generation::FILE))),
            false => tell("nothing to start from: the daemon is waited for"),
        }
        serves
    }

    /// Begins to look for the daemon: what the first report tells is so by now.
    pub(super) fn look_for_daemon(&mut self) {
        let Some(daemon) = &mut self.daemon else { return };
        daemon.link = Some(Link::start(Start {
            addresses: daemon.section.addresses.clone(),
            token: daemon.section.token.as_ref().map(Into::into),
            folder: daemon.folder.clone(),
            standing: daemon.standing.clone(),
            state: self.state.clone(),
            joined: daemon.joined.clone().into(),
        }));
    }

    /// What the daemon, or the connection to it, has to say.
    pub(super) async fn hear(&mut self, news: News) {
        let Some(daemon) = &mut self.daemon else { return };
        match news {
            News::Opened(reply) => drop(reply.send((daemon.shelf.wanted(), daemon.shelf.versions()))),
            News::Update(update, reply) => self.take_update(&update, reply).await,
            News::Joined(joined) => {
                daemon.joined = Some(*joined);
                daemon.look_at_certificate();
                self.try_again().await;
            }
            News::Drain => {
                tell("the daemon wants this proxy to drain");
                self.state.draining.store(true, Relaxed);
                self.state.drain.notify_one();
            }
        }
    }

    async fn take_update(&mut self, update: &Update, reply: oneshot::Sender<Judged>) {
        let Some(daemon) = &mut self.daemon else { return };
        let mut rejections = daemon.shelf.take(update);
        if !update.version.is_empty() {
            daemon.version.clone_from(&update.version);
        }
        if rejections.is_empty()
            && let Some(plan) = self.with_endpoints(update)
        {
            let _ = reply.send(Judged { rejections, wanted: None });
            return self.use_endpoints(update, plan);
        }
        let only_endpoints = update.kind == Kind::Endpoints;
        let prepared = self.prepare(!only_endpoints).await;
        let Some(daemon) = &mut self.daemon else { return };
        rejections.extend(daemon.shelf.refused_of(update).cloned());
        if let Err(reasons) = &prepared {
            rejections.extend(reasons.iter().cloned());
        }
        let once = |mut list: Vec<Rejection>, one: Rejection| {
            if !list.contains(&one) {
                list.push(one);
            }
            list
        };
        let rejections = rejections.into_iter().fold(Vec::new(), once);
        daemon.tell_refused(&rejections);
        let wanted = (!only_endpoints).then(|| daemon.shelf.wanted());
        // The answer waits for nothing else: neither for names nor for cores.
        let _ = reply.send(Judged { rejections, wanted });
        match prepared {
            Ok(prepared) => self.adopt(prepared, only_endpoints).await,
            Err(_) => self.tell_standing(),
        }
    }

    /// The plan with the endpoints that an update brought, where nothing else is new: services come to ten thousands, and
    /// endpoints come and go all day.
    fn with_endpoints(&self, update: &Update) -> Option<Plan> {
        let changed = self.daemon.as_ref()?.shelf.endpoints_alone(update)?;
        plan::with_endpoints(&self.plan, &changed, self.plan.generation + 1, &self.world())
    }

    /// Uses it.
    fn use_endpoints(&mut self, update: &Update, plan: Plan) {
        let Some(daemon) = &mut self.daemon else { return };
        let list = &mut self.resources.endpoints;
        for content in daemon.shelf.commit_endpoints(update) {
            match list.iter_mut().find(|one| one.cluster_name == content.cluster_name) {
                Some(one) => one.clone_from(content),
                None => {
                    // By name, as a trial has them.
                    let at = list.partition_point(|one| one.cluster_name < content.cluster_name);
                    list.insert(at, content.clone());
                }
            }
        }
        daemon.seconds = 0;
        daemon.pending = Some(daemon.on_its_way(plan.generation));
        self.use_plan(Arc::new(plan));
        self.tell_standing();
    }

    /// Tries everything once more: something beside the resources has changed.
    async fn try_again(&mut self) {
        let prepared = self.prepare(true).await;
        if let Some(daemon) = &mut self.daemon {
            daemon.tell_refused(prepared.as_ref().err().map_or(&[], Vec::as_slice));
        }
        if let Ok(prepared) = prepared {
            self.adopt(prepared, false).await;
        }
    }

    /// Compiles and binds what the shelf has, as much of it as is good.
    async fn prepare(&mut self, again: bool) -> Result<Prepared, Vec<Rejection>> {
        let Agent { daemon: Some(daemon), plan, around, dns, sockets, .. } = self else { return Err(Vec::new()) };
        let base = daemon.base();
        let generation = plan.generation + 1;
        let compile = |resources: &Resources, files: &Contents| {
            let world = around.with(dns.answers(plan.names()), files.clone());
            plan::compile(resources, Some(plan), generation, &world)
        };
        let read = |resources: &Resources| {
            let wanted = Wanted::of(resources);
            let other = !around.files.has(&wanted);
            other.then(|| Files::read(wanted)).map(|files| (files.seen(), files)).map(|(seen, files)| (files, seen))
        };
        daemon.shelf.begin(daemon.valid, again);
        if let Some(rehearsal) = daemon.shelf.rehearsal(&base) {
            let files = read(&rehearsal);
            let contents = files.as_ref().map_or(around.files.in_force(), |(_, seen)| seen);
            if let Err(reasons) = compile(&rehearsal, contents) {
                daemon.shelf.refuse_waiting(&reasons);
            }
        }
        loop {
            let resources = daemon.shelf.trial(&base);
            let files = read(&resources);
            let contents = files.as_ref().map_or(around.files.in_force(), |(_, seen)| seen);
            let reasons = match compile(&resources, contents) {
                Ok(draft) => match sockets.bind_again(addresses(&draft)).await {
                    Ok(binding) => return Ok(Prepared { resources, draft, binding, files }),
                    Err(unbound) => unbound.into_iter().map(unbound_listener).collect(),
                },
                Err(reasons) => reasons,
            };
            if !daemon.shelf.lower(&reasons) {
                return Err(reasons);
            }
        }
    }

    /// Uses a plan that was prepared. From here on nothing is refused.
    async fn adopt(&mut self, prepared: Prepared, only_endpoints: bool) {
        let Prepared { resources, draft, binding, files } = prepared;
        let changed = resources != self.resources || files.is_some();
        if changed {
            let contents = files.as_ref().map_or(self.around.files.in_force(), |(_, seen)| seen).clone();
            let in_force = self.around.files.in_force();
            let changes = difference::between(&self.resources, &resources, (in_force, &contents));
            let plan = self.resolved(&resources, draft, &contents).await;
            self.sockets.replace(binding);
            self.resources = resources;
            if let Some((mut files, contents)) = files {
                files.apply(contents);
                self.around.files = files;
            }
            let more = plan.process.connections > self.plan.process.connections;
            self.use_plan(Arc::new(plan));
            if more {
                self.warn_of_limits();
            }
            self.warn_of_certificates();
            let is_news = !only_endpoints && changes != difference::NOTHING;
            if is_news && let Some(daemon) = &self.daemon {
                let push = if daemon.version.is_empty() { "" } else { &format!("push {}: ", daemon.version) };
                tell(format_args!("{push}generation {}: {changes}", self.plan.generation));
            }
        }
        if let Some(daemon) = &mut self.daemon {
            daemon.shelf.commit();
            daemon.seconds = 0;
            let own = daemon.joined.as_ref().filter(|_| daemon.valid);
            daemon.own_not_after_s = own.map_or(0, |joined| joined.credential.not_after_s());
            daemon.pending = Some(daemon.on_its_way(self.plan.generation));
        }
        self.tell_standing();
    }

    /// The plan with the names that it wants resolved, as far as they are in time.
    async fn resolved(&mut self, resources: &Resources, draft: Plan, files: &Contents) -> Plan {
        self.dns.want(draft.names());
        if draft.names().is_empty() {
            return draft;
        }
        self.dns.settle(RESOLVE).await;
        let world = self.around.with(self.dns.answers(draft.names()), files.clone());
        plan::compile(resources, Some(&self.plan), draft.generation, &world).unwrap_or(draft)
    }

    /// Tells reports what is refused and what was not understood.
    fn tell_standing(&self) {
        let Some(daemon) = &self.daemon else { return };
        let refused = daemon.shelf.refused().map(|(one, version)| rejected(one, version.to_owned()));
        let waiting = daemon.shelf.waiting().map(|(one, version)| rejected(&one, version.to_owned()));
        let rejected: Vec<_> = refused.chain(waiting).collect();
        let ignored = daemon.shelf.ignored().map(str::to_owned).chain(self.plan.ignored.iter().cloned()).collect();
        daemon.standing.tell(|told| (told.rejected, told.ignored) = (rejected, ignored));
    }

    /// The generation that not all cores have yet.
    pub(super) fn pending(&self) -> Option<u64> {
        self.daemon.as_ref()?.pending.as_ref().map(|pending| pending.generation)
    }

    /// All cores work with the generation that was pending: it is told, kept, and the process is ready if nothing is missing.
    pub(super) fn all_cores_have_it(&mut self) {
        let Some(daemon) = &mut self.daemon else { return };
        let Some(Pending { generation, version, not_after_s, trust_version }) = daemon.pending.take() else { return };
        daemon.standing.tell(|told| {
            told.applied = Some(applied(version, generation));
            (told.not_after_s, told.trust_version) = (not_after_s, trust_version);
        });
        self.settle();
        self.keep();
    }

    /// Where nothing is on its way any more, the process is ready, and what it has is kept: what is half there is not worth
    /// starting from.
    fn settle(&mut self) {
        let Some(daemon) = self.daemon.as_mut().filter(|daemon| daemon.pending.is_none() && daemon.shelf.is_settled())
        else {
            return;
        };
        daemon.keeping.due = true;
        self.is_ready();
    }

    /// Writes what all cores work with, when it is time.
    fn keep(&mut self) {
        let Some(daemon) = &mut self.daemon else { return };
        let keeping = &mut daemon.keeping;
        let is_busy = keeping.writing.as_ref().is_some_and(|writing| !writing.is_finished());
        if !keeping.due || is_busy || Instant::now() < keeping.not_before || daemon.pending.is_some() {
            return;
        }
        let Some(bytes) = daemon.generation() else { return };
        let folder = daemon.folder.clone();
        daemon.keeping.due = false;
        daemon.keeping.not_before = Instant::now() + KEEP;
        daemon.keeping.writing = Some(tokio::task::spawn_blocking(move || {
            let began = Instant::now();
            if let Err(reason) = folder.write(generation::FILE, &bytes) {
                tell(reason);
            }
            began.elapsed()
        }));
    }

    /// What is done once a second.
    pub(super) async fn look_after_daemon(&mut self) {
        let Some(daemon) = &mut self.daemon else { return };
        if let Some(writing) = daemon.keeping.writing.take_if(|writing| writing.is_finished()) {
            let took = writing.await.unwrap_or_default();
            daemon.keeping.not_before = Instant::now() + (took * KEEP_TIMES).min(Duration::from_secs(60));
        }
        let turned = daemon.look_at_certificate();
        daemon.seconds += 1;
        if turned && !daemon.valid {
            tell("the certificate has expired: what needs it refuses from now on");
        }
        let waits = daemon.shelf.second();
        if waits {
            let waiting: Vec<Rejection> = daemon.shelf.waiting().map(|(one, _)| one).collect();
            waiting.iter().take(MOST_TOLD).for_each(tell);
        }
        if turned || (daemon.seconds >= AGAIN_S && daemon.shelf.may_improve()) {
            daemon.seconds = 0;
            self.try_again().await;
        } else if waits {
            self.tell_standing();
            self.settle();
        }
        self.keep();
    }

    /// Tells the daemon that this proxy is about to drain, and goes on as it was until others know. True: somebody is
    /// impatient.
    pub(super) async fn take_leave(&mut self, ends: &mut Ends) -> bool {
        self.state.draining.store(true, Relaxed);
        let Some(daemon) = &self.daemon else { return false };
        daemon.standing.tell(|told| told.draining = true);
        if !daemon.standing.is_connected() {
            return false;
        }
        tokio::select! {
            () = ends.come() => true,
            () = sleep(LEAVE.min(self.plan.process.drain_timeout)) => false,
        }
    }

    /// The last generation is kept when the process ends. The daemon is reported to until the end.
    pub(super) async fn finish_daemon(&mut self) {
        let Some(daemon) = &mut self.daemon else { return };
        if let Some(writing) = daemon.keeping.writing.take() {
            let _ = writing.await;
        }
        if daemon.keeping.due
            && daemon.pending.is_none()
            && let Some(bytes) = daemon.generation()
        {
            let _ = daemon.folder.write(generation::FILE, &bytes);
        }
    }

    /// The file has changed: what belongs to the process may, the daemon may not.
    ///
    /// # Errors
    /// Why it is refused.
    pub(super) async fn reload_under_daemon(&mut self, resources: Resources) -> Result<String, Vec<String>> {
        let process = api::process(&resources.bootstrap).map_err(|reason| vec![reason])?;
        let before = self.daemon.as_ref().map(|daemon| &daemon.section);
        if process.daemon.as_ref() != before {
            return Err(vec!["`daemon` has changed, which takes a restart".to_owned()]);
        }
        let Some(daemon) = &mut self.daemon else { return Err(Vec::new()) };
        let old = std::mem::replace(&mut daemon.file, resources);
        let texts = |reasons: Vec<Rejection>| reasons.iter().map(ToString::to_string).collect::<Vec<_>>();
        let prepared = self.prepare(true).await.map_err(texts);
        let moved = match &prepared {
            Ok(prepared) => self.move_admin(&prepared.draft).await.map_err(|reason| vec![reason]),
            Err(reasons) => Err(reasons.clone()),
        };
        match (prepared, moved) {
            (Ok(prepared), Ok(admin)) => {
                if let Some(admin) = admin {
                    self.admin = admin;
                }
                if prepared.draft.process.cores != self.plan.process.cores {
                    tell("`cores` has changed, which takes a restart");
                }
                self.log.set(prepared.draft.process.access_log.clone());
                self.dns.reread();
                self.adopt(prepared, true).await;
                Ok("process settings".to_owned())
            }
            (_, Err(reasons)) | (Err(reasons), _) => {
                if let Some(daemon) = &mut self.daemon {
                    daemon.file = old;
                }
                Err(reasons)
            }
        }
    }
}

impl Daemon {
    fn generation(&self) -> Option<Vec<u8>> {
        let joined = self.joined.as_ref()?;
        Some(self.shelf.generation(&self.version, &joined.identity))
    }
}

fn unbound_listener(unbound: crate::sockets::Unbound) -> Rejection {
    let (name, reason) = (unbound.listener, unbound.reason.into());
    Rejection { kind: "listener", name, field: "address".into(), reason }
}
