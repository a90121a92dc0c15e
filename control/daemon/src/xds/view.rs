//! A client's own view of its group's snapshots: each resource as it takes it (`api::envoy`, `api::features`), without those that
//! it has no words for, which count as refused. An Envoy reports nothing, so what it has taken stands for where it listens.

use super::offer::Progress;
use crate::snapshot::{Kind, Named, Snapshot};
use api::envoy::{Envoy, address_of};
use api::envoy_types::pb::envoy::config::core::v3::Node;
use api::features::Lacking;
use api::{Packed, pb};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

/// Who is not sent everything as it is.
#[derive(Debug)]
pub(super) enum Reader {
    Envoy(Envoy),
    /// A proxy of ours, of an older release.
    Older(Lacking),
}

impl Reader {
    /// By what a client says of itself; None: it is sent everything as it is.
    pub(super) fn of(node: &Node) -> Option<Reader> {
        Envoy::of(node).map(Reader::Envoy).or_else(|| Lacking::of(node).map(Reader::Older))
    }

    fn fit(&self, one: &Packed) -> Result<Option<Packed>, String> {
        match self {
            Reader::Envoy(envoy) => envoy.fit(one).map_err(|reason| format!("not sent to an Envoy: {reason}")),
            Reader::Older(lacking) => lacking.fit(one).map_err(|reason| format!("not sent: {reason}")),
        }
    }
}

/// One client's view.
#[derive(Debug)]
pub(super) struct View {
    reader: Reader,
    /// What the last view was made from, and the view.
    last: Option<(Arc<Snapshot>, Arc<Snapshot>)>,
    /// What is not sent, and why.
    left: BTreeMap<(Kind, Arc<str>), String>,
    /// Where it listens, as far as it has taken it.
    places: BTreeMap<Arc<str>, SocketAddr>,
    /// The revision and the progress of which `places` are.
    looked: (u64, Progress),
}

impl View {
    pub(super) fn new(reader: Reader) -> View {
        View { reader, last: None, left: BTreeMap::new(), places: BTreeMap::new(), looked: (0, Progress::default()) }
    }

    /// This snapshot as the client is to have it; what is the same as in the last one is not made again.
    pub(super) fn of(&mut self, snapshot: Arc<Snapshot>) -> Arc<Snapshot> {
        let last = self.last.take();
        let mut view = Snapshot::clone(&snapshot);
        for kind in [Kind::Cluster, Kind::Listener, Kind::Routes] {
            let same = last.as_ref().filter(|(source, _)| source.shares(&snapshot, kind));
            match same {
                Some((_, made)) => view.share(made, kind),
                None => view.put(kind, self.fitted(kind, &snapshot, last.as_ref())),
            }
        }
        let view = Arc::new(view);
        self.last = Some((snapshot, view.clone()));
        view
    }

    fn fitted(&mut self, kind: Kind, snapshot: &Snapshot, last: Option<&(Arc<Snapshot>, Arc<Snapshot>)>) -> Named {
        let mut named = Named::new();
        let mut left = std::mem::take(&mut self.left);
        left.retain(|(of, _), _| *of != kind);
        for (name, one) in snapshot.resources(kind) {
            match self.one(kind, one, last) {
                Ok(one) => drop(named.insert(name.clone(), one)),
                Err(reason) => drop(left.insert((kind, name.clone()), reason)),
            }
        }
        self.left = left;
        named
    }

    fn one(
        &self,
        kind: Kind,
        one: &Arc<Packed>,
        last: Option<&(Arc<Snapshot>, Arc<Snapshot>)>,
    ) -> Result<Arc<Packed>, String> {
        let before = last.and_then(|(source, made)| {
            let same = source.resources(kind).get(&one.name).is_some_and(|before| Arc::ptr_eq(before, one));
            same.then(|| made.resources(kind).get(&one.name)).flatten()
        });
        match before {
            Some(made) => Ok(made.clone()),
            None => Ok(self.reader.fit(one)?.map_or_else(|| one.clone(), Arc::new)),
        }
    }

    /// How far it is, with what it was not sent.
    pub(super) fn progress(&self, mut progress: Progress) -> Progress {
        let number = self.last.as_ref().map_or(0, |(source, _)| source.number);
        progress.rejected.extend(self.left.iter().map(|((kind, name), reason)| pb::Rejected {
            type_url: kind.type_url().to_owned(),
            name: name.to_string(),
            reason: reason.clone(),
            version: number.to_string(),
            ..pb::Rejected::default()
        }));
        progress
    }

    /// Where it listens now, if that is known and has changed. What it refuses stays where it was. Proxies of ours report it.
    pub(super) fn listens(&mut self, progress: &Progress) -> Option<&BTreeMap<Arc<str>, SocketAddr>> {
        if !matches!(self.reader, Reader::Envoy(_)) {
            return None;
        }
        let (_, view) = self.last.as_ref()?;
        if progress.settled != view.number || view.number == 0 {
            return None;
        }
        if self.looked.0 == view.revision && self.looked.1 == *progress {
            return None;
        }
        self.looked = (view.revision, progress.clone());
        let refuses = |name: &str| {
            let of_listeners = |one: &&pb::Rejected| one.type_url == Kind::Listener.type_url();
            progress.rejected.iter().filter(of_listeners).any(|one| one.name.is_empty() || one.name == name)
        };
        let mut places = BTreeMap::new();
        for (name, one) in view.resources(Kind::Listener) {
            let address = if refuses(name) { self.places.get(name).copied() } else { address_of(one) };
            places.extend(address.map(|address| (name.clone(), address)));
        }
        (places != self.places).then(|| {
            self.places = places;
            &self.places
        })
    }
}
