//! The proxies that are or were connected since the daemon began, and how far each is.

use crate::collect::places::Places;
use crate::collect::telemetry::Telemetry;
use crate::state::now_ms;
use crate::xds::{Client, Progress};
use api::pb;
use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// The longest list of a report that is kept: a proxy cannot fill the daemon's memory.
const MOST_LISTED: usize = 1000;

/// A lease of detail is made longer by this much at least, milliseconds.
const DETAIL_STEP_MS: u64 = 10_000;

/// The proxies.
#[derive(Debug)]
pub struct Fleet {
    inner: Mutex<Inner>,
    places: Places,
    telemetry: Arc<Telemetry>,
    /// Those that are connected to other daemons, or were.
    elsewhere: Mutex<HashMap<Arc<str>, Member>>,
    changes: watch::Sender<u64>,
    /// Counters by the clients' identities are wanted until then, milliseconds since 1970.
    detail: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Inner {
    members: HashMap<Arc<str>, Member>,
    /// Numbers of streams and sessions: of two of one proxy the newer counts.
    serial: u64,
}

/// What is known of one proxy.
#[derive(Clone, Debug, Default)]
pub struct Member {
    /// Its group.
    pub group: String,
    /// Where it connects from.
    pub address: Option<IpAddr>,
    /// When it was heard last, milliseconds since 1970.
    pub last_contact_ms: u64,
    /// What its xDS client calls itself: `ringway`, `envoy`.
    pub program: String,
    /// How far its xDS stream is; none is open if absent.
    pub resources: Option<Progress>,
    /// What it reported last; no session is open if absent.
    pub report: Option<Arc<pb::Report>>,
    /// Who it said that it is when its last session began.
    pub hello: Option<pb::Hello>,
    /// Its clock less ours, when it last told, milliseconds.
    pub clock_skew_ms: i64,
    /// The other daemon that knows it; empty: this one does.
    pub daemon: String,
    /// The process that reports; none has said who it is, in this session.
    epoch: Option<u64>,
    /// The process that shall drain; None in it: the one that has not said who it is yet.
    drains: Option<Option<u64>>,
    stream: u64,
    /// Held for the newest stream: an older one hears that it is dropped.
    stream_holds: Option<watch::Sender<()>>,
    session: u64,
    wants: Option<watch::Sender<Wants>>,
}

/// What the daemon wants of a proxy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wants {
    /// It shall take no more traffic, and end what it has.
    pub(crate) drain: bool,
}

impl Member {
    /// What another daemon told of it. One that is gone says nothing about today.
    pub(crate) fn elsewhere(proxy: pb::Proxy, is_there: bool) -> Member {
        let connected = proxy.connected && is_there;
        let (ready, draining) = (proxy.ready, proxy.draining);
        let pb::Proxy { applied, rejected, ignored, listeners, roots_version: version, .. } = proxy;
        let name = api::xds::TRUST_SECRET.to_owned();
        let roots = (!version.is_empty()).then(|| pb::HeldCertificate { name, version, ..Default::default() });
        let certificates = roots.into_iter().collect();
        let report = pb::Report {
            applied,
            certificates,
            rejected,
            ignored,
            listeners,
            ready,
            draining,
            ..pb::Report::default()
        };
        Member {
            group: proxy.group,
            address: proxy.address.parse().ok(),
            last_contact_ms: proxy.last_contact_ms,
            program: proxy.program_version,
            report: connected.then(|| Arc::new(report)),
            hello: (!proxy.name.is_empty()).then(|| pb::Hello {
                host: proxy.name,
                epoch: proxy.epoch,
                ..pb::Hello::default()
            }),
            daemon: if connected { proxy.daemon } else { String::new() },
            ..Member::default()
        }
    }

    /// Nothing has changed of what another daemon told.
    fn tells_same(&self, other: &Member) -> bool {
        self.report == other.report && self.daemon == other.daemon && self.last_contact_ms == other.last_contact_ms
    }

    /// It has a stream or a session.
    pub fn is_connected(&self) -> bool {
        self.resources.is_some() || self.report.is_some()
    }

    /// The document that all its cores work with, as far as is known: what it reports; where the last pushes had nothing for
    /// it, the last of those. 0: nothing is known.
    pub fn applied(&self) -> u64 {
        let reported = self.report.as_ref().and_then(|report| report.applied.as_ref());
        let reported = reported.and_then(|applied| applied.version.parse::<u64>().ok());
        match (&self.resources, reported) {
            // Everything was sent and answered, and what was sent last it works with.
            (Some(progress), Some(applied)) if applied >= progress.sent => progress.settled.max(applied),
            (_, Some(applied)) => applied,
            // An Envoy reports nothing: what it has taken it works with.
            (Some(progress), None) if self.report.is_none() && self.program != "ringway" => progress.settled,
            _ => 0,
        }
    }

    /// A process says who it is; whether it shall drain is known by that.
    fn introduced(&mut self, hello: pb::Hello) {
        let epoch = Some(hello.epoch);
        self.drains = self.drains.filter(|drains| drains.is_none() || *drains == epoch).map(|_| epoch);
        if let (Some(_), Some(wants)) = (self.drains, &self.wants) {
            wants.send_replace(Wants { drain: true });
        }
        (self.hello, self.epoch) = (Some(hello), epoch);
    }

    /// What it refuses, by its stream and by its reports, each once.
    pub fn rejected(&self) -> Vec<pb::Rejected> {
        let mut list = self.resources.as_ref().map(|progress| progress.rejected.clone()).unwrap_or_default();
        for one in self.report.iter().flat_map(|report| &report.rejected) {
            let is_same = |other: &pb::Rejected| other.type_url == one.type_url && other.name == one.name;
            if !list.iter().any(is_same) {
                list.push(one.clone());
            }
        }
        list
    }
}

impl Fleet {
    /// Nobody, yet.
    pub fn new(places: Places) -> Arc<Fleet> {
        let (changes, detail) = (watch::channel(0).0, watch::channel(0).0);
        let (inner, elsewhere) = (Mutex::default(), Mutex::default());
        Arc::new(Fleet { inner, places, telemetry: Arc::default(), elsewhere, changes, detail })
    }

    /// What proxies counted.
    pub fn telemetry(&self) -> &Arc<Telemetry> {
        &self.telemetry
    }

    /// Counters by the clients' identities are wanted for so long from now; they cost, and are not always. True: they were
    /// wanted already.
    pub fn want_detail(&self, now_ms: u64, length_ms: u64) -> bool {
        let until_ms = now_ms + length_ms;
        let mut is_wanted = false;
        self.detail.send_if_modified(|before| {
            is_wanted = *before > now_ms;
            // Not each question is an order.
            let later = until_ms > *before + DETAIL_STEP_MS;
            if later {
                *before = until_ms;
            }
            later
        });
        is_wanted
    }

    /// Counts what is told: look again when it has changed.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// All that were seen, by id, by this daemon or another.
    pub fn members(&self) -> HashMap<Arc<str>, Member> {
        let mut members = self.own_members();
        let elsewhere = self.elsewhere.lock().unwrap_or_else(PoisonError::into_inner);
        for (id, other) in &*elsewhere {
            let own = members.get(id);
            if own.is_none_or(|own| {
                !own.is_connected() && (other.is_connected() || other.last_contact_ms > own.last_contact_ms)
            }) {
                members.insert(id.clone(), other.clone());
            }
        }
        members
    }

    /// All that this daemon has seen.
    pub fn own_members(&self) -> HashMap<Arc<str>, Member> {
        self.lock().members.clone()
    }

    /// One that this daemon has seen.
    pub fn own_member(&self, proxy: &str) -> Option<Member> {
        self.lock().members.get(proxy).cloned()
    }

    /// What other daemons know: all of it.
    pub(crate) fn hear(&self, elsewhere: HashMap<Arc<str>, Member>) {
        let mut held = self.elsewhere.lock().unwrap_or_else(PoisonError::into_inner);
        let is_same = held.len() == elsewhere.len()
            && elsewhere.iter().all(|(id, one)| held.get(id).is_some_and(|before| before.tells_same(one)));
        if !is_same {
            *held = elsewhere;
            drop(held);
            self.changed();
        }
    }

    /// The process of a proxy that is connected shall drain, over reconnects too; the next process of that proxy shall not.
    /// False: it is not connected.
    pub fn drain(&self, proxy: &str) -> bool {
        let mut inner = self.lock();
        let Some(member) = inner.members.get_mut(proxy) else { return false };
        let Some(wants) = &member.wants else { return false };
        member.drains = Some(member.epoch);
        wants.send(Wants { drain: true }).is_ok()
    }

    /// A proxy is no more: what was known of it is forgotten, its endpoints leave.
    pub async fn forget(&self, proxy: &str) {
        self.lock().members.remove(proxy);
        self.telemetry.forget(proxy);
        self.places.leave(proxy).await;
        self.changed();
    }

    /// An xDS stream of a proxy begins.
    pub(crate) fn streams(self: &Arc<Fleet>, proxy: &str, group: &str) -> Streams {
        let mut inner = self.lock();
        let number = inner.number();
        let member = inner.member(proxy, group);
        let (holds, held) = watch::channel(());
        member.stream = number;
        member.stream_holds = Some(holds);
        member.resources = Some(Progress::default());
        drop(inner);
        self.changed();
        let told = Progress::default();
        Streams { fleet: self.clone(), proxy: proxy.into(), number, told, listens: false, held }
    }

    /// A session of a proxy begins.
    pub(crate) fn session(self: &Arc<Fleet>, proxy: &str, group: &str, peer: SocketAddr) -> Session {
        let mut inner = self.lock();
        let number = inner.number();
        let member = inner.member(proxy, group);
        let (wants, wanted) = watch::channel(Wants::default());
        member.session = number;
        member.epoch = None;
        member.address = Some(peer.ip().to_canonical());
        member.wants = Some(wants);
        member.report = Some(Arc::default());
        drop(inner);
        self.changed();
        let (proxy, group, detail) = (proxy.into(), group.to_owned(), self.detail.subscribe());
        Session { fleet: self.clone(), proxy, group, peer, number, epoch: AtomicU64::new(0), wanted, detail }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }
}

impl Inner {
    fn number(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }

    fn member(&mut self, proxy: &str, group: &str) -> &mut Member {
        let member = self.members.entry(proxy.into()).or_default();
        group.clone_into(&mut member.group);
        member.last_contact_ms = now_ms();
        member
    }
}

/// An open xDS stream of a proxy.
#[derive(Debug)]
pub struct Streams {
    fleet: Arc<Fleet>,
    proxy: Arc<str>,
    number: u64,
    told: Progress,
    /// What it has taken stood for where it listens.
    listens: bool,
    held: watch::Receiver<()>,
}

impl Streams {
    /// Waits until a newer stream of the proxy takes this one's place, or the proxy is forgotten: of one holder there is one,
    /// however many it opens.
    pub(crate) async fn replaced(&mut self) {
        while self.held.changed().await.is_ok() {}
    }

    /// How far it is.
    pub(crate) fn told(&mut self, progress: Progress) {
        if progress == self.told {
            return;
        }
        self.told = progress.clone();
        if let Some(member) = self.fleet.lock().members.get_mut(&self.proxy).filter(|m| m.stream == self.number) {
            member.resources = Some(progress);
            member.last_contact_ms = now_ms();
        }
        self.fleet.changed();
    }

    /// Where a client listens that has no session to report it.
    pub(crate) async fn listens(&mut self, client: &Client, listeners: &BTreeMap<Arc<str>, SocketAddr>) {
        let speaks = |member: &Member| member.stream == self.number && member.report.is_none();
        if !self.fleet.lock().members.get(&self.proxy).is_some_and(speaks) {
            return;
        }
        let own = listeners.iter().map(|(name, address)| pb::OwnListener {
            name: name.to_string(),
            address: address.to_string(),
            ready: true,
        });
        let places = own.filter_map(|one| place(&one, client.peer)).collect();
        self.listens = true;
        self.fleet.places.listen(&client.proxy, &client.group, places, false).await;
        self.fleet.changed();
    }

    /// What the client calls itself.
    pub(crate) fn introduced(&self, program: &str) {
        let program = program.chars().filter(|c| !c.is_control()).take(64).collect();
        if let Some(member) = self.fleet.lock().members.get_mut(&self.proxy) {
            member.program = program;
        }
    }
}

impl Drop for Streams {
    fn drop(&mut self) {
        if let Some(member) = self.fleet.lock().members.get_mut(&self.proxy).filter(|m| m.stream == self.number) {
            member.resources = None;
            member.last_contact_ms = now_ms();
            if self.listens && member.report.is_none() {
                self.fleet.places.vanished(&self.proxy);
            }
        }
        self.fleet.changed();
    }
}

/// An open session of a proxy. When it ends without a word, its endpoints leave some time later.
#[derive(Debug)]
pub(crate) struct Session {
    fleet: Arc<Fleet>,
    proxy: Arc<str>,
    group: String,
    peer: SocketAddr,
    number: u64,
    /// Names the process that reports.
    epoch: AtomicU64,
    /// What is wanted of the proxy.
    pub(crate) wanted: watch::Receiver<Wants>,
    /// Until when counters by identity are, milliseconds since 1970.
    pub(crate) detail: watch::Receiver<u64>,
}

impl Session {
    /// The proxy reports.
    pub(crate) async fn reported(&self, mut report: pb::Report) {
        report.rejected.truncate(MOST_LISTED);
        report.ignored.truncate(MOST_LISTED);
        report.listeners.truncate(MOST_LISTED);
        report.certificates.truncate(MOST_LISTED);
        if let Some(hello) = &report.hello {
            self.epoch.store(hello.epoch, Relaxed);
        }
        // Counters have a place of their own.
        let counters = report.counters.take();
        let places = match report.ready && !report.draining {
            true => report.listeners.iter().filter_map(|one| place(one, self.peer.ip())).collect(),
            false => HashMap::new(),
        };
        let now = now_ms();
        if let Some(member) = self.fleet.lock().members.get_mut(&self.proxy).filter(|m| m.session == self.number) {
            member.last_contact_ms = now;
            if report.clock_ms > 0 {
                member.clock_skew_ms = report.clock_ms.wrapping_sub(now).cast_signed();
            }
            if let Some(hello) = report.hello.take() {
                member.introduced(hello);
            }
            member.report = Some(Arc::new(report));
        } else {
            // A newer session speaks for the proxy.
            return;
        }
        if let Some(counters) = &counters {
            // A newer process may have reported since: then this is dropped there.
            self.fleet.telemetry.take(&self.proxy, &self.group, self.epoch.load(Relaxed), counters);
        }
        self.fleet.places.listen(&self.proxy, &self.group, places, true).await;
        self.fleet.changed();
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let mut inner = self.fleet.lock();
        let Some(member) = inner.members.get_mut(&self.proxy).filter(|m| m.session == self.number) else { return };
        member.report = None;
        member.wants = None;
        member.last_contact_ms = now_ms();
        drop(inner);
        self.fleet.places.vanished(&self.proxy);
        self.fleet.changed();
    }
}

/// Where others reach a listener: as it was bound, or where the proxy calls from if that is every address.
pub(super) fn place(listener: &pb::OwnListener, peer: IpAddr) -> Option<(String, SocketAddr)> {
    let address: SocketAddr = listener.address.parse().ok()?;
    let ip = if address.ip().is_unspecified() { peer } else { address.ip() }.to_canonical();
    let is_one = listener.ready && address.port() != 0 && !listener.name.is_empty() && listener.name.len() <= 128;
    is_one.then(|| (listener.name.clone(), SocketAddr::new(ip, address.port())))
}

/// What is known of a proxy, beside its record.
pub(crate) fn shown(member: &Member) -> pb::Proxy {
    let report: Arc<pb::Report> = member.report.clone().unwrap_or_default();
    let progress = member.resources.clone().unwrap_or_default();
    // What a proxy works with, in the numbers of documents: pushes that had nothing for it are behind it too.
    let applied = match (member.applied(), report.applied.clone()) {
        (0, reported) => reported,
        (number, reported) => Some(pb::Applied { version: number.to_string(), ..reported.unwrap_or_default() }),
    };
    let hello = member.hello.clone().unwrap_or_default();
    let program_version = match (hello.version.as_str(), member.program.as_str()) {
        ("", program) => program.to_owned(),
        (version, "") => version.to_owned(),
        (version, program) => format!("{program} {version}"),
    };
    let roots = report.certificates.iter().find(|held| held.name == api::xds::TRUST_SECRET);
    pb::Proxy {
        name: hello.host,
        group: member.group.clone(),
        connected: member.is_connected(),
        last_contact_ms: member.last_contact_ms,
        sent_version: if progress.sent == 0 { String::new() } else { progress.sent.to_string() },
        applied,
        clock_skew_ms: member.clock_skew_ms,
        address: member.address.map(|address| address.to_string()).unwrap_or_default(),
        // An Envoy reports nothing: one that has taken a document is taken for ready.
        ready: report.ready || (member.report.is_none() && member.is_connected() && member.applied() > 0),
        draining: report.draining,
        rejected: member.rejected(),
        ignored: report.ignored.clone(),
        listeners: report.listeners.clone(),
        program_version,
        daemon: member.daemon.clone(),
        epoch: hello.epoch,
        roots_version: roots.map(|held| held.version.clone()).unwrap_or_default(),
        ..pb::Proxy::default()
    }
}
