//! One group's resources, made from the document and the state.

use super::{KINDS, Named};
use api::mesh::{Mesh, State, load_assignment};
use api::{Endpoints, Packed, Service};
use std::sync::Arc;

/// What must be known of a group to follow its state without reading the document again.
#[derive(Debug, Default)]
pub(super) struct Built {
    /// The services whose endpoints come and go.
    sources: Vec<Source>,
}

/// A service whose endpoints come and go.
#[derive(Debug)]
pub(super) struct Source(Service);

impl Source {
    pub(super) fn name(&self) -> &str {
        &self.0.name
    }

    /// Its endpoints are those of this group and listener.
    pub(super) fn is_of(&self, wanted_group: &str, wanted_listener: &str) -> bool {
        matches!(&self.0.endpoints, Endpoints::Group { group, listener } if group == wanted_group && listener == wanted_listener)
    }

    /// Its endpoints are what operators set.
    pub(super) fn is_set(&self) -> bool {
        self.0.endpoints == Endpoints::Set
    }
}

impl Built {
    /// All resources of a group, by kind; nothing of a group that the document does not have.
    pub(super) fn new(mesh: &Mesh, name: &str, state: &State) -> (Built, [Named; KINDS]) {
        let Some(group) = mesh.group(name) else { return Default::default() };
        let resources = mesh.resources(group, state);
        let comes = |service: &&Service| matches!(service.endpoints, Endpoints::Group { .. } | Endpoints::Set);
        let sources = mesh.services_of(group).filter(comes).cloned().map(Source).collect();
        let all = [
            named(resources.clusters.iter().map(Packed::cluster)),
            named(resources.endpoints.iter().map(Packed::endpoints)),
            named(resources.secrets.iter().map(Packed::secret)),
            named(resources.listeners.iter().map(Packed::listener)),
            named(resources.routes.iter().map(Packed::routes)),
        ];
        (Built { sources }, all)
    }

    /// The endpoints of some services, as they are now.
    pub(super) fn assignments(&self, of: impl Fn(&Source) -> bool, state: &State) -> Vec<Packed> {
        let some = self.sources.iter().filter(|source| of(source));
        some.filter_map(|source| load_assignment(&source.0, state)).map(|one| Packed::endpoints(&one)).collect()
    }
}

/// A group's secrets, as they are now.
pub(super) fn secrets(mesh: &Mesh, name: &str, state: &State) -> Named {
    let secrets = mesh.group(name).map(|group| mesh.secrets(group, state));
    named(secrets.iter().flatten().map(Packed::secret))
}

fn named(all: impl Iterator<Item = Packed>) -> Named {
    all.map(|one| (one.name.clone(), Arc::new(one))).collect()
}
