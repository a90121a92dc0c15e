//! The daemon's document: groups of proxies, and the services that they share. What a group's proxies need of it becomes
//! the same model as a file's, and is translated by the same code; what comes and goes by itself is a `State`.

mod places;
mod state;

pub use places::Places;
pub use state::{KeyPair, State, certificate, identity, read_addresses, trust};

use std::collections::BTreeSet;

use envoy_types::pb::envoy::{
    config::endpoint::v3::ClusterLoadAssignment, extensions::transport_sockets::tls::v3::Secret,
};

use crate::{
    Resources,
    finding::{Finding, Findings},
    model::{Action, Credential, Document, Endpoints, Limits, Listener, Protocol, Service},
    read, translate, tree,
};

/// A mesh document, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Mesh {
    /// The trust domain of all identities in it.
    pub trust_domain: String,
    /// In the document's order.
    pub groups: Vec<Group>,
    /// What all groups may send to, in the document's order.
    pub services: Vec<Service>,
}

/// Proxies that do the same.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// Unique in the document.
    pub name: String,
    /// The SPIFFE ID of its proxies; `spiffe://TRUST-DOMAIN/group/NAME` where the document has none.
    pub identity: String,
    /// In the document's order.
    pub listeners: Vec<Listener>,
    /// This group's only; no name is a shared service's.
    pub services: Vec<Service>,
    /// Limits of requests; those of processes are their own.
    pub limits: Limits,
}

/// Reads and checks a mesh document. `file` is only the name that findings carry.
///
/// # Errors
/// Everything that is wrong, sorted by position. A syntax error may stand alone.
pub fn load(text: &str, file: &str) -> Result<Mesh, Vec<Finding>> {
    let mut findings = Findings::default();
    let root = tree::parse(text, &mut findings);
    let mesh = root.and_then(|root| read::mesh(&root, &mut findings));
    match mesh {
        Some(mesh) if findings.is_empty() => Ok(mesh),
        _ => Err(findings.finish(file)),
    }
}

impl Mesh {
    /// A group by its name.
    pub fn group(&self, name: &str) -> Option<&Group> {
        self.groups.iter().find(|group| group.name == name)
    }

    /// The services that a group's listeners send to: the shared ones, then its own.
    pub fn services_of<'m>(&'m self, group: &'m Group) -> impl Iterator<Item = &'m Service> {
        let wanted = targets(&group.listeners);
        self.services.iter().chain(&group.services).filter(move |service| wanted.contains(service.name.as_str()))
    }

    /// Everything that a proxy of this group needs, and nothing else. The bootstrap is the proxy's own.
    pub fn resources(&self, group: &Group, state: &State) -> Resources {
        let mut resources = self.translated(group);
        let services = self.services_of(group);
        resources.endpoints = services.filter_map(|service| load_assignment(service, state)).collect();
        resources.secrets = self.secrets(group, state);
        resources
    }

    /// The roots, and those of the group's own secrets that are there.
    pub fn secrets(&self, group: &Group, state: &State) -> Vec<Secret> {
        state.secrets_of(self, group)
    }

    /// Listeners, routes and clusters of a group: what depends on the document alone.
    pub fn translated(&self, group: &Group) -> Resources {
        translate(&Document {
            listeners: group.listeners.clone(),
            services: self.services_of(group).cloned().collect(),
            limits: group.limits,
            ..Document::default()
        })
    }
}

impl Group {
    /// The secrets that its listeners name, as operators put them.
    pub fn secret_names(&self) -> BTreeSet<&str> {
        let certificates = self.listeners.iter().filter_map(|listener| listener.tls.as_ref());
        let certificates = certificates.flat_map(|tls| &tls.certificates);
        let names = certificates.filter_map(|certificate| match certificate {
            Credential::Secret(name) => Some(name.as_str()),
            Credential::Joined | Credential::Files { .. } => None,
        });
        names.collect()
    }
}

/// The endpoints of a service as they are now; none for a service that DNS knows.
pub fn load_assignment(service: &Service, state: &State) -> Option<ClusterLoadAssignment> {
    let list = match &service.endpoints {
        Endpoints::Names(_) => return None,
        Endpoints::Addresses(list) => return Some(crate::translate::load_assignment(&service.name, list)),
        Endpoints::Group { group, listener } => state.reported(group, listener),
        Endpoints::Set => state.set(&service.name),
    };
    Some(crate::translate::load_assignment(&service.name, &list))
}

/// The names of services that listeners send to.
fn targets(listeners: &[Listener]) -> BTreeSet<&str> {
    let mut names = BTreeSet::new();
    for listener in listeners {
        match &listener.protocol {
            Protocol::Tcp(to) => names.extend(to.iter().map(|target| target.service.as_str())),
            Protocol::Passthrough(passages) => {
                names.extend(passages.iter().flat_map(|passage| &passage.to).map(|target| target.service.as_str()));
            }
            Protocol::Http(http) => {
                for route in http.hosts.iter().flat_map(|host| &host.routes) {
                    if let Action::Forward(forward) = &route.action {
                        names.extend(forward.to.iter().map(|target| target.service.as_str()));
                    }
                }
            }
        }
    }
    names
}
