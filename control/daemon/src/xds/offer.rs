//! What one client has, what it should have, and which message comes next: the same for both protocols. Messages come
//! in, messages go out; nothing here opens a socket or reads a clock.
//!
//! ```text
//!   CDS, EDS, SDS ── clusters are warm ──► LDS, RDS ── all of it was taken ──► removals of what they named
//! ```
//! One message of a kind is under way at a time; whatever changes meanwhile is in the next one, once. A resource that a
//! client refused is not sent again until it is another one; while a listener or a route is refused, nothing that the last
//! good one may name is taken away.

use super::refusal::Refusal;
use crate::snapshot::{KINDS, Kind, Snapshot};
use api::{Packed, pb};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A message has about so many bytes, where the protocol lets us split: gRPC clients take 4 MiB unless told otherwise.
const MOST_BYTES: usize = 2 << 20;
/// How long listeners and routes wait for clients to have the endpoints of new clusters. One that does not ask for them at
/// all shall have its routes all the same.
const WARM: Duration = Duration::from_secs(2);
/// Names that a client may ask for, by kind.
const MOST_NAMES: usize = 100_000;
/// The longest name, bytes.
pub(super) const LONGEST_NAME: usize = 1024;

/// What one client has and wants.
#[derive(Debug)]
pub(super) struct Offer {
    snapshot: Arc<Snapshot>,
    kinds: [Subscription; KINDS],
    /// Clusters that were sent, and whose endpoints were not taken yet.
    cold: BTreeSet<Arc<str>>,
    /// Until then listeners wait for them.
    warm_by: Option<Instant>,
    /// State of the world: what is named stands in each message of listeners and clusters.
    whole: bool,
    nonces: u64,
    /// The number of the last message that said something.
    sent: u64,
}

/// What a client wants of one kind.
#[derive(Debug, Default)]
struct Subscription {
    asked: bool,
    wildcard: bool,
    names: BTreeSet<Arc<str>>,
    has: HashMap<Arc<str>, Has>,
    /// Names that must be looked at.
    dirty: Dirty,
    /// Names that it has and should not have.
    gone: BTreeSet<Arc<str>>,
    under_way: Option<UnderWay>,
    /// By name: what it did not take, until it takes another one. An empty name: it did not say which.
    refused: BTreeMap<Arc<str>, pb::Rejected>,
    /// The first question has an answer, even if there is nothing to say.
    owes: bool,
}

/// What a client has of one name, as far as it was offered.
#[derive(Clone, Debug)]
enum Has {
    This(Arc<Packed>),
    /// It said so when it came; of none: something, but it needs another one.
    Version(String),
    /// It was told that there is no such thing.
    Nothing,
}

#[derive(Debug)]
enum Dirty {
    All,
    Names(BTreeSet<Arc<str>>),
}

impl Default for Dirty {
    fn default() -> Dirty {
        Dirty::Names(BTreeSet::new())
    }
}

/// A message that was not answered yet.
#[derive(Debug)]
struct UnderWay {
    nonce: u64,
    names: Vec<Arc<str>>,
    number: u64,
    since: Instant,
}

/// One message to a client.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) kind: Kind,
    pub(super) nonce: u64,
    /// The document's number.
    pub(super) number: u64,
    pub(super) resources: Vec<Arc<Packed>>,
    pub(super) removed: Vec<Arc<str>>,
}

/// How far a client is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Progress {
    /// The document's number in the last message that said something.
    pub sent: u64,
    /// All that there is to say was said and answered, up to this document; 0: not yet.
    pub settled: u64,
    /// What it refuses.
    pub rejected: Vec<pb::Rejected>,
}

/// A client that asks for more than there can be.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooMuch(pub(super) &'static str);

impl Offer {
    pub(super) fn new(snapshot: Arc<Snapshot>, whole: bool) -> Offer {
        let kinds = Default::default();
        Offer { snapshot, kinds, cold: BTreeSet::new(), warm_by: None, whole, nonces: 0, sent: 0 }
    }

    /// There is a new snapshot.
    pub(super) fn take(&mut self, snapshot: Arc<Snapshot>) {
        let before = std::mem::replace(&mut self.snapshot, snapshot);
        match self.snapshot.changed_after(&before) {
            Some(changed) => {
                for (kind, name) in changed {
                    self.kinds[*kind as usize].look_at(name);
                }
            }
            None => self.kinds.iter_mut().for_each(|kind| kind.dirty = Dirty::All),
        }
        self.cold.retain(|name| self.snapshot.resources(Kind::Endpoints).contains_key(name));
    }

    /// A client asks for a kind the first time: for all there are, or for names; and says what it has already.
    pub(super) fn open(
        &mut self,
        kind: Kind,
        wildcard: bool,
        has: impl IntoIterator<Item = (String, String)>,
    ) -> Result<(), TooMuch> {
        let has: BTreeMap<String, String> = has.into_iter().collect();
        bounded(has.keys())?;
        let subscription = &mut self.kinds[kind as usize];
        // Of a cluster that has become another one since, it needs the endpoints once more.
        let is_cold = |name: &str| kind == Kind::Endpoints && self.cold.contains(name);
        let has = has.into_iter().map(|(name, version)| match is_cold(&name) {
            true => (name, String::new()),
            false => (name, version),
        });
        subscription.asked = true;
        // No message of the other protocol can say that there is nothing of a name.
        subscription.owes = wildcard || !self.whole;
        subscription.wildcard = wildcard;
        subscription.has = has.map(|(name, version)| (name.into(), Has::Version(version))).collect();
        subscription.dirty = Dirty::All;
        Ok(())
    }

    /// It has asked for this kind.
    pub(super) fn is_open(&self, kind: Kind) -> bool {
        self.kinds[kind as usize].asked
    }

    /// From now on all there are of this kind are wanted, or only those that are named.
    pub(super) fn set_wildcard(&mut self, kind: Kind, wildcard: bool) {
        let subscription = &mut self.kinds[kind as usize];
        if subscription.wildcard != wildcard {
            subscription.wildcard = wildcard;
            subscription.dirty = Dirty::All;
            if !wildcard {
                let names = &subscription.names;
                subscription.has.retain(|name, _| names.contains(name));
            }
        }
    }

    /// Names that are wanted too. `again`: a client that has one already wants to hear it once more.
    pub(super) fn subscribe(&mut self, kind: Kind, names: &[String], again: bool) -> Result<(), TooMuch> {
        bounded(names.iter())?;
        let subscription = &mut self.kinds[kind as usize];
        for name in names {
            let name: Arc<str> = name.as_str().into();
            let is_new = subscription.names.insert(name.clone());
            if again && (!is_new || subscription.wildcard) {
                subscription.has.remove(&name);
            }
            subscription.look_at(&name);
        }
        if subscription.names.len() > MOST_NAMES { Err(TooMuch("too many names are asked for")) } else { Ok(()) }
    }

    /// Names that are not wanted any more.
    pub(super) fn unsubscribe(&mut self, kind: Kind, names: &[String]) {
        for name in names {
            let subscription = &mut self.kinds[kind as usize];
            let Some(name) = subscription.names.take(name.as_str()) else { continue };
            // Of those that are wanted all the same, the specification wants the content once more.
            subscription.has.remove(&name);
            if subscription.wildcard {
                subscription.look_at(&name);
                continue;
            }
            subscription.gone.remove(&name);
            subscription.refused.remove(&name);
            if kind == Kind::Endpoints {
                self.cold.remove(&name);
            }
        }
    }

    /// The names that are wanted of a kind.
    pub(super) fn names(&self, kind: Kind) -> &BTreeSet<Arc<str>> {
        &self.kinds[kind as usize].names
    }

    /// The client answers a message: it took it, or says what it did not take. An answer to anything but the last message
    /// says nothing: false.
    pub(super) fn answered(&mut self, kind: Kind, nonce: &str, refusal: Option<&Refusal>) -> bool {
        let subscription = &mut self.kinds[kind as usize];
        let is_last = subscription.under_way.as_ref().is_some_and(|under_way| under_way.nonce.to_string() == nonce);
        let Some(answered) = subscription.under_way.take_if(|_| is_last) else { return false };
        let refused = refusal.map(|refusal| refusal.of(kind, &answered.names, answered.number)).unwrap_or_default();
        // A refusal without a name may be of any.
        let anything = refused.iter().any(|one| one.name.is_empty());
        if !anything {
            answered.names.iter().for_each(|name| drop(subscription.refused.remove(name)));
            subscription.refused.remove("");
        }
        for one in refused {
            subscription.refused.insert(one.name.as_str().into(), one);
        }
        if kind == Kind::Endpoints {
            for name in &answered.names {
                self.cold.remove(name);
            }
        } else if kind == Kind::Cluster {
            let refused = &subscription.refused;
            self.cold.retain(|name| !anything && !refused.contains_key(name));
        }
        true
    }

    /// The next message, if there is one to be sent now. Before the first document nothing is said: a proxy that has a
    /// configuration keeps it.
    pub(super) fn next(&mut self, now: Instant) -> Option<Message> {
        if self.snapshot.number == 0 {
            return None;
        }
        for kind in Kind::ALL {
            if matches!(kind, Kind::Listener | Kind::Routes) && self.is_cold(now) {
                break;
            }
            if let Some(message) = self.news(kind, now) {
                return Some(message);
            }
        }
        self.is_settled().then(|| self.removals(now)).flatten()
    }

    /// When to look again, though nothing happens.
    pub(super) fn look_again(&self, now: Instant) -> Option<Instant> {
        self.warm_by.filter(|by| *by > now && !self.cold.is_empty())
    }

    /// Since when the client owes an answer.
    pub(super) fn waits_since(&self) -> Option<Instant> {
        self.kinds.iter().filter_map(|kind| kind.under_way.as_ref()).map(|under_way| under_way.since).min()
    }

    /// How far the client is.
    pub(super) fn progress(&self) -> Progress {
        let quiet = |kind: &Subscription| {
            kind.under_way.is_none() && kind.dirty.is_empty() && kind.gone.is_empty() && !kind.owes
        };
        // What is refused holds removals back: that is as far as it gets.
        let held = self.kinds.iter().any(|kind| !kind.refused.is_empty());
        let rest = |kind: &Subscription| held && kind.under_way.is_none() && kind.dirty.is_empty() && !kind.owes;
        let asked = self.kinds.iter().any(|kind| kind.asked);
        let is_settled = asked && self.kinds.iter().filter(|kind| kind.asked).all(|kind| quiet(kind) || rest(kind));
        let rejected = self.kinds.iter().flat_map(|kind| kind.refused.values()).cloned().collect();
        Progress { sent: self.sent, settled: if is_settled { self.snapshot.number } else { 0 }, rejected }
    }

    /// What is new or changed of a kind; of listeners also what is gone: nothing names them.
    fn news(&mut self, kind: Kind, now: Instant) -> Option<Message> {
        let subscription = &mut self.kinds[kind as usize];
        if !subscription.asked || subscription.under_way.is_some() {
            return None;
        }
        let most_bytes = if self.whole { usize::MAX } else { MOST_BYTES };
        let (resources, mut removed) = subscription.changes(self.snapshot.resources(kind), most_bytes);
        if kind == Kind::Listener {
            removed.extend(std::mem::take(&mut subscription.gone));
        }
        if resources.is_empty() && removed.is_empty() && !subscription.owes {
            return None;
        }
        subscription.owes = false;
        if kind == Kind::Cluster {
            self.warm(&resources, now);
        }
        Some(self.send(kind, resources, removed, now))
    }

    /// What is gone, when nothing names it any more.
    fn removals(&mut self, now: Instant) -> Option<Message> {
        for kind in [Kind::Routes, Kind::Cluster, Kind::Endpoints, Kind::Secret] {
            let subscription = &mut self.kinds[kind as usize];
            if subscription.gone.is_empty() || subscription.under_way.is_some() {
                continue;
            }
            let removed: Vec<_> = std::mem::take(&mut subscription.gone).into_iter().collect();
            if self.whole && kind != Kind::Cluster {
                // No message of that protocol takes single names away.
                removed.iter().for_each(|name| drop(subscription.has.remove(name)));
                continue;
            }
            return Some(self.send(kind, Vec::new(), removed, now));
        }
        None
    }

    fn send(&mut self, kind: Kind, news: Vec<Arc<Packed>>, removed: Vec<Arc<str>>, now: Instant) -> Message {
        self.nonces += 1;
        let (nonce, number) = (self.nonces, self.snapshot.number);
        let subscription = &mut self.kinds[kind as usize];
        for one in &news {
            subscription.has.insert(one.name.clone(), Has::This(one.clone()));
        }
        for name in &removed {
            match subscription.names.contains(name) {
                true => subscription.has.insert(name.clone(), Has::Nothing),
                false => subscription.has.remove(name),
            };
            subscription.refused.remove(name);
        }
        if !news.is_empty() || !removed.is_empty() {
            self.sent = number;
        }
        let resources = match self.whole && matches!(kind, Kind::Cluster | Kind::Listener) {
            true => subscription.everything(),
            false => news,
        };
        let names = resources.iter().map(|one| one.name.clone()).collect();
        subscription.under_way = Some(UnderWay { nonce, names, number, since: now });
        Message { kind, nonce, number, resources, removed }
    }

    /// New clusters wait for their endpoints, and changed ones for the same endpoints once more: an Envoy makes a changed
    /// cluster anew.
    fn warm(&mut self, clusters: &[Arc<Packed>], now: Instant) {
        let endpoints = &mut self.kinds[Kind::Endpoints as usize];
        for cluster in clusters {
            let Some((name, _)) = self.snapshot.resources(Kind::Endpoints).get_key_value(&cluster.name) else {
                continue;
            };
            if let Some(has @ (Has::This(_) | Has::Version(_))) = endpoints.has.get_mut(name) {
                *has = Has::Version(String::new());
            }
            endpoints.look_at(name);
            self.cold.insert(name.clone());
            self.warm_by = Some(now + WARM);
        }
    }

    /// Clusters come before what names them.
    fn is_cold(&self, now: Instant) -> bool {
        let clusters = &self.kinds[Kind::Cluster as usize];
        let unsent = clusters.asked && (clusters.under_way.is_some() || !clusters.dirty.is_empty());
        unsent || (!self.cold.is_empty() && self.warm_by.is_some_and(|by| now < by))
    }

    /// The client has taken all that is new, and refuses nothing that may still name what is gone.
    fn is_settled(&self) -> bool {
        let names = |kind: Kind| &self.kinds[kind as usize];
        let taken = |of: &Subscription| of.under_way.is_none() && of.refused.is_empty();
        self.kinds.iter().all(|kind| !kind.asked || kind.dirty.is_empty())
            && taken(names(Kind::Listener))
            && taken(names(Kind::Routes))
    }
}

impl Subscription {
    fn wants(&self, name: &str) -> bool {
        self.asked && (self.wildcard || self.names.contains(name))
    }

    fn look_at(&mut self, name: &Arc<str>) {
        if self.wants(name)
            && let Dirty::Names(names) = &mut self.dirty
        {
            names.insert(name.clone());
        }
    }

    /// Looks at the names that must be looked at: what is new or another one, and names that are asked for and not there.
    /// What is had and should not be is noted.
    fn changes(&mut self, there: &BTreeMap<Arc<str>, Arc<Packed>>, most: usize) -> (Vec<Arc<Packed>>, Vec<Arc<str>>) {
        let mut names = match std::mem::take(&mut self.dirty) {
            Dirty::Names(names) => names,
            Dirty::All => {
                let all = there.keys().chain(self.names.iter()).chain(self.has.keys());
                all.filter(|name| self.wants(name)).cloned().collect()
            }
        };
        let (mut resources, mut missing, mut bytes) = (Vec::new(), Vec::new(), 0);
        while let Some(name) = names.pop_first() {
            let has = self.has.get(&name);
            match there.get(&name) {
                Some(one) => {
                    self.gone.remove(&name);
                    let same = match has {
                        Some(Has::This(had)) => had.version == one.version,
                        Some(Has::Version(version)) => **version == *one.version,
                        Some(Has::Nothing) | None => false,
                    };
                    if same {
                        continue;
                    }
                    let size = one.body.value.len() + 2 * name.len() + 128;
                    if bytes + size > most && !resources.is_empty() {
                        names.insert(name);
                        break;
                    }
                    bytes += size;
                    resources.push(one.clone());
                }
                None if matches!(has, Some(Has::This(_) | Has::Version(_))) => {
                    self.gone.insert(name);
                }
                None if has.is_none() && self.names.contains(&name) => missing.push(name),
                None => {}
            }
        }
        self.dirty = Dirty::Names(names);
        (resources, missing)
    }

    /// All that the client has when it took the last message.
    fn everything(&self) -> Vec<Arc<Packed>> {
        let this = |has: &Has| match has {
            Has::This(one) => Some(one.clone()),
            Has::Version(_) | Has::Nothing => None,
        };
        let mut all: Vec<_> = self.has.values().filter_map(this).collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }
}

impl Dirty {
    fn is_empty(&self) -> bool {
        matches!(self, Dirty::Names(names) if names.is_empty())
    }
}

fn bounded<'n>(names: impl Iterator<Item = &'n String>) -> Result<(), TooMuch> {
    let mut count = 0;
    for name in names {
        count += 1;
        if name.len() > LONGEST_NAME {
            return Err(TooMuch("a name is longer than 1024 bytes"));
        }
    }
    if count > MOST_NAMES { Err(TooMuch("too many names are asked for")) } else { Ok(()) }
}
