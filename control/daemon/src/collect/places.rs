//! Where proxies listen: the endpoints of services that name a group. A task of its own has them, tells the snapshots, and
//! writes them to the store.

use crate::snapshot::Snapshots;
use crate::store::{Change, Failure, Store};
use crate::tell;
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
/// After a start, or after nobody could be heard: time for all proxies to come again.
pub(crate) const RETURN: Duration = Duration::from_secs(60);
/// Proxies report every two seconds: who says nothing for so long cannot be heard.
const QUIET: Duration = VANISHED;
/// Reports that wait for the task; who reports more waits.
const QUEUE: usize = 1024;

/// The prefix of places in the store.
const PREFIX: &str = "places/";

/// The way to the task that has the places.
#[derive(Clone, Debug)]
pub struct Places(mpsc::Sender<Told>);

#[derive(Debug)]
enum Told {
    Listens { proxy: Arc<str>, place: Place },
    Leaves { proxy: Arc<str> },
    Vanished { proxy: Arc<str> },
}

/// One proxy's listeners that are ready.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Place {
    group: String,
    listeners: BTreeMap<String, SocketAddr>,
}

impl Places {
    /// Reads what the store has, tells the snapshots, and begins.
    ///
    /// # Errors
    /// The store cannot be read.
    pub(crate) async fn start(store: Store, snapshots: Arc<Snapshots>) -> Result<Places, Failure> {
        let (told, hears) = mpsc::channel(QUEUE);
        let (places, heard, leaving, unwritten) = Default::default();
        let now = Instant::now();
        let mut table = Table { store, snapshots, places, heard, heard_last: now, returning: now, leaving, unwritten };
        table.read().await?;
        tokio::spawn(table.run(hears));
        Ok(Places(told))
    }

    /// A proxy listens there, and nowhere else.
    pub(crate) async fn listen(&self, proxy: &str, group: &str, listeners: HashMap<String, SocketAddr>) {
        let place = Place { group: group.to_owned(), listeners: listeners.into_iter().collect() };
        // The task ends with the process.
        let _ = self.0.send(Told::Listens { proxy: proxy.into(), place }).await;
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
    /// When each of them was heard last; one that this daemon never heard is absent.
    heard: HashMap<Arc<str>, Instant>,
    /// When anybody was.
    heard_last: Instant,
    /// Until then all have time to come again.
    returning: Instant,
    /// Who is not heard any more.
    leaving: BTreeMap<Arc<str>, Leaving>,
    /// What the store does not have yet.
    unwritten: BTreeSet<Arc<str>>,
}

/// One that is not heard any more.
struct Leaving {
    /// It counts until then.
    until: Instant,
    /// It was given time to come again.
    is_spared: bool,
}

impl Table {
    async fn read(&mut self) -> Result<(), Failure> {
        let until = Instant::now() + RETURN;
        for (key, entry) in self.store.list::<Place>(PREFIX).await? {
            let proxy: Arc<str> = key[PREFIX.len()..].into();
            self.leaving.insert(proxy.clone(), Leaving { until, is_spared: true });
            self.places.insert(proxy, entry.value);
        }
        let all: BTreeSet<(String, String)> = self.places.values().flat_map(names).collect();
        all.iter().for_each(|at| self.tell(at));
        Ok(())
    }

    async fn run(mut self, mut hears: mpsc::Receiver<Told>) {
        loop {
            let next = self.leaving.values().map(|leaving| leaving.until).min();
            let wake = async {
                match next {
                    Some(next) => tokio::time::sleep_until(next).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                told = hears.recv() => match told {
                    Some(told) => self.hear(told),
                    None => return,
                },
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
            Told::Listens { proxy, place } => {
                self.heard_by(now);
                self.leaving.remove(&proxy);
                let place = Some(place).filter(|place| !place.listeners.is_empty());
                if place.is_some() {
                    self.heard.insert(proxy.clone(), now);
                }
                self.put(proxy, place);
            }
            Told::Leaves { proxy } => {
                self.leaving.remove(&proxy);
                self.put(proxy, None);
            }
            Told::Vanished { proxy } => {
                if self.places.contains_key(&proxy) {
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

    /// More than half of a group, or of all, are not heard.
    fn most_are_silent(&self, group: Option<&str>, now: Instant) -> bool {
        let those = self.places.iter().filter(|(_, place)| group.is_none_or(|group| place.group == group));
        let (mut all, mut silent) = (0, 0);
        for (proxy, _) in those {
            all += 1;
            let is_heard = self.heard.get(proxy).is_some_and(|heard| now < *heard + QUIET);
            silent += usize::from(!is_heard || self.leaving.contains_key(proxy));
        }
        silent * 2 > all
    }

    /// A proxy's place is this one now.
    fn put(&mut self, proxy: Arc<str>, place: Option<Place>) {
        let before = self.places.get(&proxy);
        if before == place.as_ref() {
            return;
        }
        let mut concerned: BTreeSet<_> = before.into_iter().chain(&place).flat_map(names).collect();
        if let (Some(before), Some(place)) = (before, &place)
            && before.group == place.group
        {
            concerned.retain(|(_, listener)| before.listeners.get(listener) != place.listeners.get(listener));
        }
        match place {
            Some(place) => self.places.insert(proxy.clone(), place),
            None => {
                self.heard.remove(&proxy);
                self.places.remove(&proxy)
            }
        };
        self.unwritten.insert(proxy);
        concerned.iter().for_each(|at| self.tell(at));
    }

    /// Tells the snapshots who listens there.
    fn tell(&self, (group, listener): &(String, String)) {
        let of_group = self.places.values().filter(|place| place.group == *group);
        let endpoints = of_group.filter_map(|place| place.listeners.get(listener)).copied().collect();
        self.snapshots.report(group, listener, endpoints);
    }

    /// The store is a memory for the next start: when it fails, it is tried again with the next change.
    async fn write(&mut self) {
        if self.unwritten.is_empty() {
            return;
        }
        let mut change = Change::new();
        for proxy in &self.unwritten {
            let key = format!("{PREFIX}{proxy}");
            change = match self.places.get(proxy) {
                Some(place) => change.put(key, place),
                None => change.delete(key),
            };
        }
        match self.store.commit(change).await {
            Ok(_) => self.unwritten.clear(),
            Err(failure) => tell::tell(format_args!("where proxies listen was not written: {failure}")),
        }
    }
}

fn names(place: &Place) -> Vec<(String, String)> {
    place.listeners.keys().map(|listener| (place.group.clone(), listener.clone())).collect()
}
