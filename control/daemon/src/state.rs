//! What all of the daemon's modules share: the store, the authority, and the version in force.

use crate::authority::{Authority, Caller, Peer, Refusal, Source, VARIABLE};
use crate::collect::{Fleet, Places};
use crate::metrics::Metrics;
use crate::operator::trial::{self, Slot};
use crate::peers::{self, Sharer};
use crate::server::connected::Connected;
use crate::settings::Settings;
use crate::snapshot::Snapshots;
use crate::store::documents::Version;
use crate::store::{Failure, Store};
use crate::{files, operator, tell};
use api::Address;
use api::mesh::Mesh;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::{Mutex, watch};
use zeroize::Zeroizing;

/// The daemon, as its modules and the services of its clients see it.
#[derive(Debug)]
pub struct Daemon {
    /// What must not be lost.
    pub store: Store,
    /// Who may be whom.
    pub authority: Authority,
    /// What proxies are to have.
    pub snapshots: Arc<Snapshots>,
    /// Who is connected, and how far.
    pub fleet: Arc<Fleet>,
    pub(crate) metrics: Metrics,
    /// Lines about those who may not join.
    pub(crate) refused_joins: tell::Rated,
    /// The push that is on trial.
    pub(crate) trial: Slot,
    /// Documents are taken one after the other.
    reading: Mutex<()>,
    /// And so are endpoints that operators set: which are known.
    endpoints: Mutex<operator::Seen>,
    /// Who has a connection with a certificate.
    pub(crate) connected: Connected,
    settings: Settings,
    /// Where proxies find this daemon.
    daemons: Vec<String>,
    /// The other daemons that share the store.
    others: std::sync::Mutex<Vec<Sharer>>,
    in_force: watch::Sender<Option<Arc<InForce>>>,
}

/// The version in force.
#[derive(Clone, Debug)]
pub struct InForce {
    /// Its number, author and the like.
    pub version: Version,
    /// Its text was there.
    pub(crate) is_whole: bool,
    /// The trust domain of its document.
    pub trust_domain: Option<String>,
    /// Its document; None: another version of this program put it in force, and this one cannot read it. Then proxies keep
    /// what they have until somebody puts another in force.
    pub mesh: Option<Arc<Mesh>>,
}

impl InForce {
    /// Its document.
    ///
    /// # Errors
    /// It cannot be read here.
    pub(crate) fn mesh(&self) -> Result<&Arc<Mesh>, Refusal> {
        let number = self.version.number;
        let why =
            || format!("version {number} is in force, and this ringwayd cannot read it; `ringwayctl apply` another");
        self.mesh.as_ref().ok_or_else(|| Refusal::NotYet(why()))
    }
}

impl Daemon {
    /// Opens everything that stands in the data directory; the first time it is made.
    ///
    /// # Errors
    /// In words: the store is another process's, the key is not the one that sealed it, the disk is full.
    pub(crate) async fn open(settings: Settings, bound: SocketAddr) -> Result<Arc<Daemon>, String> {
        files::make_folder(&settings.data_dir)?;
        let store = match settings.etcd.clone() {
            Some(etcd) => Store::share(etcd).await,
            None => Store::open(&settings.data_dir),
        };
        let store = store.map_err(|failure| failure.to_string())?;
        trial::forget(&store).await.map_err(|failure| failure.to_string())?;
        let source = Source {
            file: settings.store_key.clone(),
            variable: std::env::var(VARIABLE).ok().map(Zeroizing::new),
            default: settings.data_dir.join("store.key"),
        };
        let opened = Authority::open(store.clone(), &source, settings.root.clone(), now_ms()).await;
        let authority = opened.map_err(|refusal| refusal.to_string())?;
        if let Some(notice) = authority.notice(now_ms()) {
            tell::tell(notice);
        }
        let daemons = settings.daemons(bound);
        let connected = Connected::default();
        let (in_force, _) = watch::channel(None);
        let snapshots = Arc::new(Snapshots::default());
        // Nobody is told anything before all of it is there.
        let places = Places::start(store.clone(), snapshots.clone()).await.map_err(|failure| failure.to_string())?;
        let (fleet, reading) = (Fleet::new(places), Mutex::default());
        let metrics = Metrics::new(fleet.clone());
        let daemon = Daemon {
            store,
            authority,
            snapshots,
            fleet,
            metrics,
            refused_joins: tell::Rated::default(),
            trial: Slot::default(),
            connected,
            reading,
            endpoints: Mutex::default(),
            settings,
            daemons,
            others: std::sync::Mutex::default(),
            in_force,
        };
        let daemon = Arc::new(daemon);
        tokio::spawn(daemon.fleet.telemetry().clone().sample());
        tokio::spawn(trial::attend(daemon.clone()));
        if daemon.store.is_shared() {
            tokio::spawn(peers::keep(daemon.clone()));
            tokio::spawn(peers::hear_of_the_gone(daemon.clone()));
        }
        daemon.read_trust().await.map_err(|refusal| refusal.to_string())?.iter().for_each(tell::tell);
        daemon.read_endpoints().await.map_err(|failure| failure.to_string())?;
        match daemon.read_document().await {
            Err(failure @ Failure::Away(_)) => return Err(failure.to_string()),
            // A damaged one is told, and the next push takes its place.
            read => read.err().iter().for_each(tell::tell),
        }
        daemon.keep_local_operator().await.map_err(|refusal| refusal.to_string())?;
        Ok(daemon)
    }

    /// Has the version in force; none before the first push.
    pub fn in_force(&self) -> watch::Receiver<Option<Arc<InForce>>> {
        self.in_force.subscribe()
    }

    /// `host:port` where proxies find daemons, this one's first.
    pub fn daemons(&self) -> Vec<String> {
        /// As many as `advertise` may have.
        const MOST: usize = 16;
        let mut list = self.daemons.clone();
        for address in self.others().into_iter().flat_map(|peer| peer.addresses) {
            if list.len() < MOST && !list.contains(&address) {
                list.push(address);
            }
        }
        list
    }

    /// The other daemons that share the store.
    pub(crate) fn others(&self) -> Vec<Sharer> {
        self.others.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set_others(&self, others: Vec<Sharer>) {
        *self.others.lock().unwrap_or_else(PoisonError::into_inner) = others;
    }

    /// What this daemon says to those that share its store.
    pub(crate) fn as_sharer(&self) -> Sharer {
        let connected = self.fleet.own_members().values().filter(|member| member.is_connected()).count();
        Sharer {
            name: crate::settings::host_name(),
            addresses: self.daemons.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            proxies: u32::try_from(connected).unwrap_or(u32::MAX),
        }
    }

    /// The trust domain of identities: the document's, or the settings', or `mesh`.
    pub fn trust_domain(&self) -> String {
        let document = self.in_force.borrow().as_ref().and_then(|now| now.trust_domain.clone());
        document.or_else(|| self.settings.trust_domain.clone()).unwrap_or_else(|| "mesh".to_owned())
    }

    /// Who sent a request.
    ///
    /// # Errors
    /// The certificate that came with the connection counts no more, or the store cannot be read.
    pub async fn caller<T>(&self, request: &tonic::Request<T>) -> Result<Caller, Refusal> {
        let no_peer = || Refusal::Broken("a request without a connection".to_owned());
        let peer = request.extensions().get::<Peer>().ok_or_else(no_peer)?;
        self.authority.caller(peer, now_ms()).await
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    pub(crate) async fn keep_local_operator(&self) -> Result<(), Refusal> {
        let folder = self.settings.data_dir.join("operator");
        let daemon = self.daemons.first().cloned().unwrap_or_default();
        let trust_domain = self.trust_domain();
        self.authority.keep_local_operator(&folder, &daemon, &trust_domain, now_ms()).await
    }

    /// Forgets proxies that cannot come back, and what they counted: proxies that come and go must not pile up.
    pub(crate) async fn sweep_proxies(&self, now_ms: u64) -> Result<(), Refusal> {
        for proxy in self.authority.sweep_proxies(now_ms).await? {
            self.fleet.forget(&proxy).await;
            self.metrics.swept.inc();
        }
        Ok(())
    }

    /// Takes over roots and edge certificates. Those that are damaged are left out: proxies keep what they have of them.
    pub(crate) async fn read_trust(&self) -> Result<Vec<Refusal>, Refusal> {
        let (secrets, damaged) = self.authority.secrets().await?;
        self.snapshots.trust(self.authority.bundle().into_bytes(), secrets);
        Ok(damaged)
    }

    /// Takes over the endpoints that operators set.
    pub(crate) async fn read_endpoints(&self) -> Result<(), Failure> {
        let mut seen = self.endpoints.lock().await;
        self.snapshots.set(operator::read_set(&self.store, &mut seen).await?);
        Ok(())
    }

    /// An operator has set a service's endpoints, by this revision of the store: all others need not be read for it.
    pub(crate) async fn endpoints_set(&self, service: &str, revision: u64, list: Vec<Address>) {
        let mut seen = self.endpoints.lock().await;
        if seen.get(service).is_none_or(|known| *known < revision) {
            seen.insert(service.to_owned(), revision);
            self.snapshots.set(BTreeMap::from([(service.to_owned(), list)]));
        }
    }

    /// Reads the document in force, if it is another than the one that is held.
    pub(crate) async fn read_document(&self) -> Result<(), Failure> {
        let _alone = self.reading.lock().await;
        let Some(head) = self.store.head().await? else { return Ok(()) };
        let held = self.in_force.borrow().clone();
        let is_known = held.as_ref().is_some_and(|now| now.version.number == head.number);
        if is_known && held.as_ref().is_some_and(|now| now.is_whole) {
            return Ok(());
        }
        // What cannot be read does not change who the daemon is.
        let trust_domain_held = || held.as_ref().and_then(|now| now.trust_domain.clone());
        let gone = || Failure::Broken(format!("version {} is in force and not in the store", head.number));
        let version = self.store.version(head.number).await?.ok_or_else(gone)?;
        let text = match self.store.document(&version).await {
            Ok(text) => text,
            Err(failure) => {
                // It is read again at the next look; until then another one may take its place.
                if !is_known && !matches!(failure, Failure::Away(_)) {
                    let unread = InForce { version, is_whole: false, trust_domain: trust_domain_held(), mesh: None };
                    self.in_force.send_replace(Some(Arc::new(unread)));
                }
                return Err(failure);
            }
        };
        let (trust_domain, mesh) = match api::mesh::load(&text, &format!("version {}", version.number)) {
            Ok(mesh) => {
                let mesh = Arc::new(mesh);
                self.snapshots.put_in_force(version.number, mesh.clone());
                (Some(mesh.trust_domain.clone()), Some(mesh))
            }
            // It was checked before it was pushed: another version of this program was less strict.
            Err(findings) => {
                tell::tell(format_args!(
                    "version {} cannot be read; proxies keep what they have until `ringwayctl apply` brings another",
                    version.number
                ));
                tell::tell_findings(&findings);
                (trust_domain_in(&text).or_else(trust_domain_held), None)
            }
        };
        self.in_force.send_replace(Some(Arc::new(InForce { version, is_whole: true, trust_domain, mesh })));
        Ok(())
    }
}

/// The trust domain of a document that cannot be read as a whole: without it the daemon would show its proxies somebody
/// else's identity.
fn trust_domain_in(text: &str) -> Option<String> {
    let value = text.lines().find_map(|line| line.strip_prefix("trust-domain:"))?;
    let value = value.split(" #").next()?.trim().trim_matches(['"', '\'']);
    let is_one = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '-' | '_');
    (!value.is_empty() && value.len() <= 255 && value.chars().all(is_one)).then(|| value.to_owned())
}

/// Milliseconds since 1970, by this machine's clock.
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
