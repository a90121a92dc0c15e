//! What the proxies of a group are to have, at one moment: made from the document in force and from what comes and goes by
//! itself. A change makes a new snapshot of the groups that it concerns, in which all that stayed is shared with the last
//! one; whoever serves a proxy compares versions and sends what differs.
//!
//! ```text
//!   document (numbered) ─┐
//!   endpoints, secrets,  ├─► Snapshots ─► Arc<Snapshot> of each group ─► its streams
//!   roots (state) ───────┘         (two of them while a document is on trial)
//! ```

mod feed;
mod group;

#[cfg(test)]
mod tests;

pub use feed::{Feed, Trial};

use crate::snapshot::group::Built;
use api::mesh::{KeyPair, Mesh, State};
use api::{Address, Packed, xds};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// The types of resources, in the order in which they are sent: what is named stands before what names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// CDS
    Cluster,
    /// EDS
    Endpoints,
    /// SDS
    Secret,
    /// LDS
    Listener,
    /// RDS
    Routes,
}

/// How many kinds there are.
pub(crate) const KINDS: usize = 5;

impl Kind {
    /// All of them, in their order.
    pub const ALL: [Kind; KINDS] = [Kind::Cluster, Kind::Endpoints, Kind::Secret, Kind::Listener, Kind::Routes];

    /// The kind of a type URL.
    pub fn of(type_url: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.type_url() == type_url)
    }

    /// The type of its resources.
    pub fn type_url(self) -> &'static str {
        match self {
            Kind::Cluster => xds::CLUSTER,
            Kind::Endpoints => xds::CLUSTER_LOAD_ASSIGNMENT,
            Kind::Secret => xds::SECRET,
            Kind::Listener => xds::LISTENER,
            Kind::Routes => xds::ROUTE_CONFIGURATION,
        }
    }

    /// What people call one.
    pub fn word(self) -> &'static str {
        match self {
            Kind::Cluster => "cluster",
            Kind::Endpoints => "endpoints",
            Kind::Secret => "secret",
            Kind::Listener => "listener",
            Kind::Routes => "route",
        }
    }
}

/// Resources of one kind, by name.
pub type Named = BTreeMap<Arc<str>, Arc<Packed>>;

/// What one revision changed.
type Changed = Arc<[(Kind, Arc<str>)]>;

/// So many changes are remembered by name; whoever is further behind compares everything.
const RECENT: usize = 64;
/// A change of more resources than this is not remembered: comparing everything costs as much.
const MOST_REMEMBERED: usize = 1024;

/// Everything that a group's proxies are to have.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The document's number; 0 before the first.
    pub number: u64,
    /// Grows with every snapshot of its line.
    pub revision: u64,
    /// Revisions of one line follow each other: those of documents on trial are lines of their own.
    line: u64,
    resources: [Arc<Named>; KINDS],
    /// What the last revisions changed, this one's last.
    recent: VecDeque<Changed>,
}

impl Snapshot {
    fn empty() -> Snapshot {
        Snapshot { number: 0, revision: 0, line: 0, resources: Default::default(), recent: VecDeque::new() }
    }

    /// The resources of a kind.
    pub fn resources(&self, kind: Kind) -> &Named {
        &self.resources[kind as usize]
    }

    /// Whether both have the same resources of a kind.
    pub(crate) fn shares(&self, other: &Snapshot, kind: Kind) -> bool {
        Arc::ptr_eq(&self.resources[kind as usize], &other.resources[kind as usize])
    }

    /// Has another's resources of a kind from now on.
    pub(crate) fn share(&mut self, other: &Snapshot, kind: Kind) {
        self.resources[kind as usize] = other.resources[kind as usize].clone();
    }

    /// Has these resources of a kind from now on.
    pub(crate) fn put(&mut self, kind: Kind, named: Named) {
        self.resources[kind as usize] = Arc::new(named);
    }

    /// What has changed since an earlier snapshot, by name, several times perhaps; `None`: that is too long ago, or of
    /// another line.
    pub fn changed_after(&self, before: &Snapshot) -> Option<impl Iterator<Item = &(Kind, Arc<str>)>> {
        (self.line == before.line).then(|| self.changed_since(before.revision)).flatten()
    }

    fn changed_since(&self, revision: u64) -> Option<impl Iterator<Item = &(Kind, Arc<str>)>> {
        let behind = usize::try_from(self.revision.checked_sub(revision)?).ok()?;
        let first = self.recent.len().checked_sub(behind)?;
        Some(self.recent.range(first..).flat_map(|changed| changed.iter()))
    }

    /// The next snapshot: names that stand in `next` with another version than here, or not there any more, have changed.
    /// What is the same is shared. `None`: nothing has changed.
    fn next(&self, number: u64, next: [Option<Named>; KINDS]) -> Option<Snapshot> {
        let mut snapshot = Snapshot { number, revision: self.revision + 1, ..self.clone() };
        let mut changed = Vec::new();
        for (kind, next) in Kind::ALL.into_iter().zip(next) {
            let Some(mut next) = next else { continue };
            let before = self.resources(kind);
            let at = changed.len();
            for (name, one) in &mut next {
                match before.get(name) {
                    Some(old) if old.version == one.version => *one = old.clone(),
                    _ => changed.push((kind, name.clone())),
                }
            }
            changed.extend(before.keys().filter(|name| !next.contains_key(*name)).map(|name| (kind, name.clone())));
            if changed.len() > at {
                snapshot.resources[kind as usize] = Arc::new(next);
            }
        }
        if changed.is_empty() && number == self.number {
            return None;
        }
        snapshot.remember(changed);
        Some(snapshot)
    }

    /// As [`Snapshot::next`], with these resources of one kind in the place of those of their names.
    fn with(&self, kind: Kind, some: Vec<Packed>) -> Option<Snapshot> {
        let before = self.resources(kind);
        let differs = |one: &Packed| before.get(&one.name).is_none_or(|old| old.version != one.version);
        let some: Vec<_> = some.into_iter().filter(differs).collect();
        if some.is_empty() {
            return None;
        }
        let mut snapshot = Snapshot { revision: self.revision + 1, ..self.clone() };
        let changed = some.iter().map(|one| (kind, one.name.clone())).collect();
        let named = Arc::make_mut(&mut snapshot.resources[kind as usize]);
        named.extend(some.into_iter().map(|one| (one.name.clone(), Arc::new(one))));
        snapshot.remember(changed);
        Some(snapshot)
    }

    fn remember(&mut self, changed: Vec<(Kind, Arc<str>)>) {
        if changed.len() > MOST_REMEMBERED {
            self.recent.clear();
            return;
        }
        self.recent.push_back(changed.into());
        if self.recent.len() > RECENT {
            self.recent.pop_front();
        }
    }
}

/// The snapshots of all groups that somebody has asked for.
#[derive(Debug, Default)]
pub struct Snapshots {
    inner: Mutex<Inner>,
    /// The document on trial.
    trials: watch::Sender<Option<Arc<Trial>>>,
}

#[derive(Debug, Default)]
struct Inner {
    document: Option<(u64, Arc<Mesh>)>,
    state: State,
    groups: HashMap<Arc<str>, Group>,
    /// The document on trial, and its groups that some proxies are of.
    trial: Option<OnTrial>,
    /// How many lines there were.
    lines: u64,
}

#[derive(Debug)]
struct OnTrial {
    document: (u64, Arc<Mesh>),
    groups: HashMap<Arc<str>, Group>,
}

#[derive(Debug)]
struct Group {
    built: Built,
    /// The last snapshot, and who waits for the next.
    sender: watch::Sender<Arc<Snapshot>>,
}

impl Snapshots {
    /// Puts a document in force. Groups that it does not have any more have nothing from now on.
    pub fn put_in_force(&self, number: u64, mesh: Arc<Mesh>) {
        let mut inner = self.lock();
        inner.document = Some((number, mesh));
        inner.rebuild_all();
        let was_tried = inner.trial.as_ref().is_some_and(|trial| trial.document.0 == number);
        drop(inner);
        if was_tried {
            self.end_trial();
        }
    }

    /// Some proxies, by group, have this document from now on; all others, and whoever joins, that in force.
    pub fn try_out(&self, number: u64, mesh: Arc<Mesh>, members: &BTreeMap<String, BTreeSet<String>>) {
        let mut inner = self.lock();
        let document = (number, mesh);
        let mut groups = HashMap::new();
        for name in members.keys() {
            inner.lines += 1;
            let base = inner.groups.get(name.as_str()).map(|group| Snapshot::clone(&group.sender.borrow()));
            let base = Snapshot { line: inner.lines, ..base.unwrap_or_else(Snapshot::empty) };
            let mut group = Group { built: Built::default(), sender: watch::channel(Arc::new(base)).0 };
            group.rebuild(name, Some(&document), &inner.state);
            groups.insert(Arc::<str>::from(name.as_str()), group);
        }
        let members = members.values().flatten().map(|proxy| proxy.as_str().into()).collect();
        let receivers = groups.iter().map(|(name, group)| (name.clone(), group.sender.subscribe())).collect();
        inner.trial = Some(OnTrial { document, groups });
        drop(inner);
        self.trials.send_replace(Some(Arc::new(Trial { number, members, groups: receivers })));
    }

    /// Nobody has a document on trial any more: what is in force is everybody's.
    pub fn end_trial(&self) {
        // First they go back, then what they had goes.
        self.trials.send_replace(None);
        self.lock().trial = None;
    }

    /// The document in force and its number.
    pub fn document(&self) -> Option<(u64, Arc<Mesh>)> {
        self.lock().document.clone()
    }

    /// The endpoints that a group's proxies report of one of its listeners: all of them, those before are forgotten.
    pub fn report(&self, group: &str, listener: &str, endpoints: BTreeSet<SocketAddr>) {
        let mut inner = self.lock();
        let at = (group.to_owned(), listener.to_owned());
        let same = match endpoints.is_empty() {
            true => inner.state.endpoints.remove(&at).is_none(),
            false => inner.state.endpoints.insert(at.clone(), endpoints.clone()) == Some(endpoints),
        };
        if !same {
            inner.endpoints_changed(|service| service.is_of(&at.0, &at.1));
        }
    }

    /// What operators set for some services; empty: nothing any more.
    pub fn set(&self, set: BTreeMap<String, Vec<Address>>) {
        let mut inner = self.lock();
        let mut changed = BTreeSet::new();
        for (service, list) in set {
            let known = &mut inner.state.set;
            let same = match list.is_empty() {
                true => known.remove(&service).is_none(),
                false => known.insert(service.clone(), list.clone()) == Some(list),
            };
            changed.extend((!same).then_some(service));
        }
        if !changed.is_empty() {
            inner.endpoints_changed(|service| service.is_set() && changed.contains(service.name()));
        }
    }

    /// The secrets of all groups, and the roots, PEM.
    pub fn trust(&self, roots: Vec<u8>, secrets: BTreeMap<(String, String), KeyPair>) {
        let mut inner = self.lock();
        if inner.state.trust == roots && inner.state.secrets == secrets {
            return;
        }
        (inner.state.trust, inner.state.secrets) = (roots, secrets);
        inner.secrets_changed();
    }

    /// What beside the document all this is made from.
    pub fn state(&self) -> State {
        self.lock().state.clone()
    }

    /// What a proxy of this group is to have, from now on.
    pub fn feed(&self, group: &str, proxy: &str) -> Feed {
        Feed::new(proxy, group, self.subscribe(group), self.trials.subscribe())
    }

    /// The snapshots of a group, from the one of now on. A group that no document has has an empty one.
    pub fn subscribe(&self, group: &str) -> watch::Receiver<Arc<Snapshot>> {
        let mut inner = self.lock();
        if !inner.groups.contains_key(group) {
            inner.build(group);
        }
        // It is there now.
        inner.groups.get(group).map_or_else(|| watch::channel(Arc::new(Snapshot::empty())).1, |g| g.sender.subscribe())
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// The first snapshot of a group.
    fn build(&mut self, group: &str) {
        let (sender, _) = watch::channel(Arc::new(Snapshot::empty()));
        let name: Arc<str> = group.into();
        let mut made = Group { built: Built::default(), sender };
        made.rebuild(&name, self.document.as_ref(), &self.state);
        self.groups.insert(name, made);
    }

    fn rebuild_all(&mut self) {
        let Inner { document, state, groups, .. } = self;
        // Nobody needs what nobody asks for and no document has.
        groups.retain(|name, group| {
            let is_there = document.as_ref().is_some_and(|(_, mesh)| mesh.group(name).is_some());
            is_there || group.sender.receiver_count() > 0
        });
        for (name, group) in groups {
            group.rebuild(name, document.as_ref(), state);
        }
    }

    /// Endpoints of these services are others now.
    fn endpoints_changed(&mut self, of: impl Fn(&group::Source) -> bool) {
        let trial = self.trial.iter().flat_map(|trial| trial.groups.values());
        for group in self.groups.values().chain(trial) {
            let some = group.built.assignments(&of, &self.state);
            let next = group.sender.borrow().with(Kind::Endpoints, some);
            group.publish(next);
        }
    }

    fn secrets_changed(&mut self) {
        let stable = self.document.iter().map(|document| (document, &self.groups));
        let trial = self.trial.iter().map(|trial| (&trial.document, &trial.groups));
        for ((number, mesh), groups) in stable.chain(trial) {
            for (name, group) in groups {
                let secrets = group::secrets(mesh, name, &self.state);
                let next = [None, None, Some(secrets), None, None];
                let next = group.sender.borrow().next(*number, next);
                group.publish(next);
            }
        }
    }
}

impl Group {
    fn rebuild(&mut self, name: &str, document: Option<&(u64, Arc<Mesh>)>, state: &State) {
        let Some((number, mesh)) = document else { return };
        let (built, resources) = Built::new(mesh, name, state);
        self.built = built;
        let next = self.sender.borrow().next(*number, resources.map(Some));
        self.publish(next);
    }

    fn publish(&self, next: Option<Snapshot>) {
        if let Some(next) = next {
            self.sender.send_replace(Arc::new(next));
        }
    }
}
