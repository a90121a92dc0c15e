//! Where proxies listen: the endpoints of services that name a group. A task of its own has them, tells the snapshots, and
//! writes them to the store. Where daemons share the store, each writes those of its own proxies, and takes over those that
//! others wrote; those of a daemon that is gone leave some time after it, unless its proxies come to another.

use crate::snapshot::Snapshots;
use crate::store::{Change, Failure, Store};
use crate::{peers, tell};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// A proxy whose session ended without a word is an endpoint for so long: it may come again, and who sends to it finds out
/// by itself.
pub(crate) const VANISHED: Duration = Duration::from_secs(10);
/// After a start, or after nobody could be heard, or after a daemon was lost: time for all proxies to come again.
pub(crate) const RETURN: Duration = Duration::from_secs(60);
/// Proxies report every two seconds: when nobody says anything for so long, it is this daemon that cannot hear.
const QUIET: Duration = VANISHED;
/// Who says nothing for so long, while others do, is as one who vanished, though the connection stands. A large plan holds up the
/// reports of a proxy on a busy machine for seconds.
pub(crate) const STILL: Duration = Duration::from_secs(20);
/// Who missed two reports may be silent with others: a network breaks for all at once, but not all have reported at once.
const HUSHED: Duration = Duration::from_secs(5);
/// How often it is looked who is silent.
const LOOK: Duration = Duration::from_secs(1);
/// Reports that wait for the task; who reports more waits.
const QUEUE: usize = 1024;

/// The prefix of places in the store.
const PREFIX: &str = "places/";
/// Entries that one change has at most.
const TOGETHER: usize = 100;
/// What comes within so long from others is taken together.
const GATHER: Duration = Duration::from_millis(50);
/// What could not be written is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// The way to the task that has the places.
#[derive(Clone, Debug)]
pub struct Places(mpsc::Sender<Told>);

#[derive(Debug)]
enum Told {
    Listens { proxy: Arc<str>, place: Place, reports: bool },
    Leaves { proxy: Arc<str> },
    Vanished { proxy: Arc<str> },
}

/// One proxy's listeners that are ready.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Place {
    group: String,
    listeners: BTreeMap<String, SocketAddr>,
    /// The daemon that heard it.
    #[serde(default)]
    daemon: String,
}

impl Places {
    /// Reads what the store has, tells the snapshots, and begins.
    ///
    /// # Errors
    /// The store cannot be read.
    pub(crate) async fn start(store: Store, snapshots: Arc<Snapshots>) -> Result<Places, Failure> {
        let (told, hears) = mpsc::channel(QUEUE);
        let (places, heard, known, leaving, unwritten) = Default::default();
        let (heard_last, returning) = (Instant::now(), Instant::now());
        let mut table = Table { store, snapshots, places, heard, heard_last, returning, known, leaving, unwritten };
        table.read().await?;
        tokio::spawn(table.run(hears));
        Ok(Places(told))
    }

    /// A proxy listens there, and nowhere else. `reports`: it says so again every other second.
    pub(crate) async fn listen(&self, proxy: &str, group: &str, listeners: HashMap<String, SocketAddr>, reports: bool) {
        let (group, daemon) = (group.to_owned(), String::new());
        let place = Place { group, listeners: listeners.into_iter().collect(), daemon };
        // The task ends with the process.
        let _ = self.0.send(Told::Listens { proxy: proxy.into(), place, reports }).await;
    }

    /// A proxy is no more.
    pub(crate) async fn leave(&self, proxy: &str) {
        let _ = self.0.send(Told::Leaves { proxy: proxy.into() }).await;
    }

    /// A proxy is not heard any more.
    pub(crate) fn vanished(&self, proxy: &Arc<str>) {
        let told = self.0.try_send(Told::Vanished { proxy: proxy.clone() });
        if let (Err(mpsc::error::TrySendError::Full(told)), Ok(runtime)) = (told, Handle::try_current()) {
            let places = self.0.clone();
            // It stands behind what the proxy said before: the queue is fair.
            runtime.spawn(async move { places.send(told).await });
        }
    }
}

struct Table {
    store: Store,
    snapshots: Arc<Snapshots>,
    places: HashMap<Arc<str>, Place>,
    /// When this daemon heard each of its own last; one that it never heard is absent.
    heard: HashMap<Arc<str>, Heard>,
    /// When it heard anybody.
    heard_last: Instant,
    /// Until then all have time to come again.
    returning: Instant,
    /// The revisions of what the store has.
    known: HashMap<Arc<str>, u64>,
    /// Who is not heard any more.
    leaving: BTreeMap<Arc<str>, Leaving>,
    /// What the store does not have yet.
    unwritten: BTreeSet<Arc<str>>,
}

/// One that was heard.
struct Heard {
    at: Instant,
    /// It is to be heard again soon; otherwise only its connection says whether it is there.
    reports: bool,
}

impl Heard {
    fn is_silent(&self, now: Instant, for_so_long: Duration) -> bool {
        self.reports && now >= self.at + for_so_long
    }
}

/// One that is not heard any more.
struct Leaving {
    /// It counts until then.
    until: Instant,
    /// It was given time to come again.
    is_spared: bool,
}

impl Table {
    /// Takes over what the store has. Who is of no daemon that is there gets time to come again.
    async fn read(&mut self) -> Result<(), Failure> {
        let daemons = peers::ids(&self.store).await?;
        let mut found: BTreeSet<Arc<str>> = BTreeSet::new();
        for (key, entry) in self.store.list_bytes(PREFIX).await? {
            let proxy: Arc<str> = key[PREFIX.len()..].into();
            found.insert(proxy.clone());
            if self.known.insert(proxy.clone(), entry.revision) == Some(entry.revision) {
                continue;
            }
            let place = entry.read::<Place>(&key)?.value;
            // Another daemon hears it now.
            self.heard.remove(&proxy);
            self.unwritten.remove(&proxy);
            self.leaving.remove(&proxy);
            self.place(proxy, Some(place));
        }
        let gone: Vec<Arc<str>> = self.known.keys().filter(|proxy| !found.contains(*proxy)).cloned().collect();
        for proxy in gone {
            self.known.remove(&proxy);
            if self.heard.contains_key(&proxy) {
                // Others gave this daemon up; it is here.
                self.unwritten.insert(proxy);
            } else {
                self.leaving.remove(&proxy);
                self.place(proxy, None);
            }
        }
        let until = Instant::now() + RETURN;
        let own: &str = self.store.id();
        for (proxy, place) in self.places.iter().filter(|(proxy, _)| !self.heard.contains_key(*proxy)) {
            match place.daemon != own && daemons.contains(&place.daemon) {
                true => drop(self.leaving.remove(proxy)),
                false => drop(self.leaving.entry(proxy.clone()).or_insert(Leaving { until, is_spared: true })),
            }
        }
        Ok(())
    }

    async fn run(mut self, mut hears: mpsc::Receiver<Told>) {
        let mut changes = self.store.watch();
        let is_shared = self.store.is_shared();
        let (mut look, mut looked) = (tokio::time::interval(LOOK), Instant::now());
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let next = self.leaving.values().map(|leaving| leaving.until).min();
            let again = (!self.unwritten.is_empty()).then(|| Instant::now() + AGAIN);
            let wake = async {
                match next.into_iter().chain(again).min() {
                    Some(next) => tokio::time::sleep_until(next).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                told = hears.recv() => match told {
                    Some(told) => self.hear(told),
                    None => return,
                },
                changed = changes.changed(), if is_shared => {
                    if changed.is_err() {
                        return;
                    }
                    tokio::time::sleep(GATHER).await;
                    changes.mark_unchanged();
                    if let Err(failure) = self.read().await {
                        tell::tell(format_args!("where other daemons' proxies listen was not read: {failure}"));
                    }
                }
                _ = look.tick() => {
                    // It stood still itself, so what it has not heard says nothing.
                    let now = Instant::now();
                    if now > looked + 3 * LOOK {
                        self.returning = self.returning.max(now + VANISHED);
                    }
                    looked = now;
                    self.miss(now);
                    self.expire();
                }
                () = wake => self.expire(),
            }
            // Whatever waits is taken before the disk is.
            while let Ok(told) = hears.try_recv() {
                self.hear(told);
            }
            self.write().await;
        }
    }

    fn hear(&mut self, told: Told) {
        let now = Instant::now();
        match told {
            Told::Listens { proxy, place, reports } => {
                self.heard_by(now);
                self.leaving.remove(&proxy);
                let place = Place { daemon: self.store.id().to_string(), ..place };
                let place = Some(place).filter(|place| !place.listeners.is_empty());
                if place.is_some() {
                    self.heard.insert(proxy.clone(), Heard { at: now, reports });
                }
                self.put(proxy, place);
            }
            Told::Leaves { proxy } => {
                self.leaving.remove(&proxy);
                self.put(proxy, None);
            }
            Told::Vanished { proxy } => {
                // If it is another daemon's by now, it has only gone there.
                let was_heard = self.heard.contains_key(&proxy);
                if was_heard && self.places.contains_key(&proxy) {
                    let until = (now + VANISHED).max(self.returning);
                    self.leaving.insert(proxy, Leaving { until, is_spared: false });
                }
            }
        }
    }

    /// Somebody is heard. If nobody was for a while, it was the daemon that was cut off, or stood still: this one is the
    /// first to come again, and must not be told that the others are gone.
    fn heard_by(&mut self, now: Instant) {
        if now >= self.heard_last + QUIET && !self.places.is_empty() {
            self.returning = now + RETURN;
            for leaving in self.leaving.values_mut() {
                *leaving = Leaving { until: self.returning, is_spared: true };
            }
        }
        self.heard_last = now;
    }

    /// Who has a connection and says nothing is as one who vanished: a machine that stands still, or is gone without a word. While
    /// nobody is heard, it may be this daemon.
    fn miss(&mut self, now: Instant) {
        if now >= self.heard_last + HUSHED {
            return;
        }
        for (proxy, heard) in &self.heard {
            if heard.is_silent(now, STILL) && !self.leaving.contains_key(proxy) {
                let is_spared = self.returning > now;
                self.leaving.insert(proxy.clone(), Leaving { until: now.max(self.returning), is_spared });
            }
        }
    }

    /// Who has not come again in time is no endpoint any more: unless there are so many of them that it may be this daemon
    /// that cannot hear them.
    fn expire(&mut self) {
        let now = Instant::now();
        let nobody = now >= self.heard_last + QUIET;
        let over: Vec<Arc<str>> =
            self.leaving.iter().filter(|(_, leaving)| leaving.until <= now).map(|(proxy, _)| proxy.clone()).collect();
        for proxy in over {
            let is_spared = self.leaving.get(&proxy).is_some_and(|leaving| leaving.is_spared);
            let group = self.places.get(&proxy).map(|place| place.group.as_str());
            if nobody || (!is_spared && (self.most_are_silent(group, now) || self.most_are_silent(None, now))) {
                self.leaving.insert(proxy, Leaving { until: now + RETURN, is_spared: true });
            } else {
                self.leaving.remove(&proxy);
                self.put(proxy, None);
            }
        }
    }

    /// More than half of a group, or of all, are not heard. Another daemon hears its own.
    fn most_are_silent(&self, group: Option<&str>, now: Instant) -> bool {
        let those = self.places.iter().filter(|(_, place)| group.is_none_or(|group| place.group == group));
        let (mut all, mut silent) = (0, 0);
        for (proxy, place) in those {
            let is_heard = match place.daemon == **self.store.id() {
                true => self.heard.get(proxy).is_some_and(|heard| !heard.is_silent(now, HUSHED)),
                false => true,
            };
            all += 1;
            silent += usize::from(!is_heard || self.leaving.contains_key(proxy));
        }
        silent * 2 > all
    }

    /// A proxy's place is this one now; the store shall have it.
    fn put(&mut self, proxy: Arc<str>, place: Option<Place>) {
        if self.places.get(&proxy) != place.as_ref() {
            self.unwritten.insert(proxy.clone());
            self.place(proxy, place);
        }
    }

    fn place(&mut self, proxy: Arc<str>, place: Option<Place>) {
        let before = self.places.get(&proxy);
        let mut concerned: BTreeSet<_> = before.into_iter().chain(&place).flat_map(names).collect();
        if let (Some(before), Some(place)) = (before, &place)
            && before.group == place.group
        {
            concerned.retain(|(_, listener)| before.listeners.get(listener) != place.listeners.get(listener));
        }
        match place {
            Some(place) => self.places.insert(proxy, place),
            None => {
                self.heard.remove(&proxy);
                self.places.remove(&proxy)
            }
        };
        concerned.iter().for_each(|at| self.tell(at));
    }

    /// Tells the snapshots who listens there.
    fn tell(&self, (group, listener): &(String, String)) {
        let of_group = self.places.values().filter(|place| place.group == *group);
        let endpoints = of_group.filter_map(|place| place.listeners.get(listener)).copied().collect();
        self.snapshots.report(group, listener, endpoints);
    }

    /// When the store fails, it is tried again.
    async fn write(&mut self) {
        let unwritten: Vec<Arc<str>> = self.unwritten.iter().cloned().collect();
        let (stay, go): (Vec<_>, Vec<_>) = unwritten.into_iter().partition(|proxy| self.places.contains_key(proxy));
        for some in stay.chunks(TOGETHER) {
            let put = |change: Change, proxy: &Arc<str>| match self.places.get(proxy) {
                Some(place) => change.put(format!("{PREFIX}{proxy}"), place),
                None => change,
            };
            let change = some.iter().fold(Change::new(), put);
            match self.store.commit(change).await {
                Ok(revision) => {
                    for proxy in some {
                        self.known.insert(proxy.clone(), revision);
                        self.unwritten.remove(proxy);
                    }
                }
                Err(failure) => return not_written(&failure),
            }
        }
        let go = if self.store.is_shared() { go.chunks(1) } else { go.chunks(TOGETHER) };
        for some in go {
            let delete = |change: Change, proxy: &Arc<str>| {
                let key = format!("{PREFIX}{proxy}");
                match self.known.get(proxy).filter(|_| self.store.is_shared()) {
                    // Another daemon may hear it by now.
                    Some(revision) => change.expect(&key, Some(*revision)).delete(&key),
                    None => change.delete(&key),
                }
            };
            let change = some.iter().fold(Change::new(), delete);
            match self.store.commit(change).await {
                Ok(_) | Err(Failure::Conflict { .. }) => {
                    for proxy in some {
                        self.known.remove(proxy);
                        self.unwritten.remove(proxy);
                    }
                }
                Err(failure) => return not_written(&failure),
            }
        }
    }
}

fn not_written(failure: &Failure) {
    // That etcd is away was told.
    if !matches!(failure, Failure::Away(_)) {
        tell::tell(format_args!("where proxies listen was not written: {failure}"));
    }
}

fn names(place: &Place) -> Vec<(String, String)> {
    place.listeners.keys().map(|listener| (place.group.clone(), listener.clone())).collect()
}
