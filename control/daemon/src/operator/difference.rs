//! What a document changes: group by group, in the words of the language, and what of it nobody should do by accident.

use crate::authority::Proxy;
use api::mesh::{Group, Mesh};
use api::pb;
use api::{Action, Address, Endpoints, Listener, Packed, Protocol, Resources, Service};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// A list shorter than this has no half that would be missed.
const FEW: usize = 4;
/// Changes of a group that are listed.
const MOST_LISTED: usize = 1000;

/// What differs.
#[derive(Debug, Default)]
pub(super) struct Difference {
    /// By group, what changes for its proxies.
    pub(super) affected: Vec<pb::Affected>,
    /// What needs a force, in words.
    pub(super) needs_force: Vec<String>,
}

/// What the new document changes; `proxies` are all that have joined.
pub(super) fn between(old: Option<&Mesh>, new: &Mesh, proxies: &[Proxy]) -> Difference {
    let mut difference = Difference::default();
    let count = |group: &str| proxies.iter().filter(|proxy| proxy.group == group).count();
    let nothing = Mesh { trust_domain: new.trust_domain.clone(), groups: Vec::new(), services: Vec::new() };
    let old = old.unwrap_or(&nothing);
    if old.trust_domain != new.trust_domain && !proxies.is_empty() {
        difference.needs_force.push(format!(
            "changes the trust domain from `{}` to `{}`: {} keep identities of the old one until they join again",
            old.trust_domain,
            new.trust_domain,
            people(proxies.len())
        ));
    }
    let names: BTreeSet<&str> = old.groups.iter().chain(&new.groups).map(|group| group.name.as_str()).collect();
    for name in names {
        let (before, after) = (old.group(name), new.group(name));
        let changes = match (before, after) {
            (None, Some(_)) => vec!["group added".to_owned()],
            (Some(_), None) => {
                let proxies = people(count(name));
                difference.needs_force.push(format!("removes group `{name}`: {proxies} would have nothing"));
                vec!["group removed".to_owned()]
            }
            (Some(before), Some(after)) => {
                difference.needs_force.extend(of_group(before, after, proxies));
                changes(&old.translated(before), &new.translated(after), before, after)
            }
            (None, None) => Vec::new(),
        };
        if !changes.is_empty() {
            let proxies = u32::try_from(count(name)).unwrap_or(u32::MAX);
            difference.affected.push(pb::Affected { group: name.to_owned(), changes, proxies });
        }
    }
    difference.needs_force.extend(of_services(old, new));
    let half = |of: &str, before: usize, left: usize| halved("", of, before, left);
    let kept = old.groups.iter().filter(|group| new.group(&group.name).is_some()).count();
    difference.needs_force.extend(half("groups", old.groups.len(), kept));
    difference
}

/// `3 proxies`
fn people(count: usize) -> String {
    if count == 1 { "1 proxy".to_owned() } else { format!("{count} proxies") }
}

/// What changes for a group's proxies.
fn changes(old: &Resources, new: &Resources, before: &Group, after: &Group) -> Vec<String> {
    let mut list = Vec::new();
    if before.identity != after.identity {
        list.push(format!("identity changed to {}", after.identity));
    }
    let listeners = |of: &Resources| versions(of.listeners.iter().map(Packed::listener));
    list.extend(compared("listener", &listeners(old), &listeners(new)));
    list.extend(compared("route", &routes(old), &routes(new)));
    let clusters = |of: &Resources| versions(of.clusters.iter().map(Packed::cluster));
    // What a service's endpoints are belongs to the service.
    let mut services = compared("service", &clusters(old), &clusters(new));
    let endpoints = |of: &Resources| versions(of.endpoints.iter().map(Packed::endpoints));
    let moved = compared("service", &endpoints(old), &endpoints(new));
    services.extend(moved.into_iter().filter(|line| line.ends_with(" changed")));
    services.sort();
    services.dedup();
    list.extend(services);
    if list.len() > MOST_LISTED {
        let more = list.split_off(MOST_LISTED).len();
        list.push(format!("and {more} more"));
    }
    list
}

fn versions(of: impl Iterator<Item = Packed>) -> BTreeMap<String, String> {
    of.map(|one| (one.name.to_string(), one.version.to_string())).collect()
}

/// Each route as `LISTENER/ROUTE`, with what it says and where it stands.
fn routes(of: &Resources) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    for configuration in &of.routes {
        // What stands around a route is copied for each, and there may be ten thousand: without the others.
        let mut around = configuration.clone();
        for host in std::mem::take(&mut around.virtual_hosts) {
            let mut bare = host.clone();
            bare.routes.clear();
            for (at, route) in host.routes.iter().enumerate() {
                let mut alone = around.clone();
                alone.virtual_hosts.push(bare.clone());
                alone.virtual_hosts[0].routes.push(route.clone());
                let version = format!("{at} {}", Packed::routes(&alone).version);
                let name = format!("{}/{}", configuration.name, route.name);
                // Routes of two hosts may have one name.
                let other = format!("{name} of {}", host.name);
                let name = if all.contains_key(&name) { other } else { name };
                all.insert(name, version);
            }
        }
    }
    all
}

fn compared(what: &str, old: &BTreeMap<String, String>, new: &BTreeMap<String, String>) -> Vec<String> {
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let line = |name: &String| match (old.get(name), new.get(name)) {
        (None, _) => Some(format!("{what} {name} added")),
        (_, None) => Some(format!("{what} {name} removed")),
        (before, after) if before != after => Some(format!("{what} {name} changed")),
        _ => None,
    };
    names.into_iter().filter_map(line).collect()
}

/// What nobody should do to a group by accident.
fn of_group(before: &Group, after: &Group, proxies: &[Proxy]) -> Vec<String> {
    let name = &before.name;
    let mut list = Vec::new();
    let keep = proxies.iter().filter(|proxy| proxy.group == *name && proxy.identity != after.identity).count();
    if before.identity != after.identity && keep > 0 {
        list.push(format!(
            "changes the identity of group `{name}` to {}: {} keep theirs until they join again",
            after.identity,
            people(keep)
        ));
    }
    let kept = |one: &&Listener| after.listeners.iter().any(|other| other.name == one.name);
    let left = before.listeners.iter().filter(kept).count();
    list.extend(halved(&format!(" of group `{name}`"), "listeners", before.listeners.len(), left));
    for old in &before.listeners {
        let Some(new) = after.listeners.iter().find(|other| other.name == old.name) else { continue };
        let of = format!(" of listener `{}` of group `{name}`", old.name);
        if allows(old) > 0 && allows(new) == 0 {
            list.push(format!("removes every `allow`{of}: everybody could come"));
        }
        let (old, new) = (route_names(old), route_names(new));
        list.extend(halved(&of, "routes", old.len(), old.intersection(&new).count()));
    }
    list
}

/// Services that are gone, while somebody sends to them now; and lists of endpoints that shrink.
fn of_services(old: &Mesh, new: &Mesh) -> Vec<String> {
    let mut list = Vec::new();
    let used: BTreeSet<&str> = old.groups.iter().flat_map(|group| old.services_of(group)).map(name).collect();
    let after: HashMap<&str, &Service> = new.services.iter().map(|service| (name(service), service)).collect();
    let kept = |one: &&Service| after.contains_key(name(one));
    for gone in old.services.iter().filter(|one| !kept(one) && used.contains(one.name.as_str())) {
        list.push(format!("removes service `{}`, which is in use", gone.name));
    }
    list.extend(halved("", "services", old.services.len(), old.services.iter().filter(kept).count()));
    for service in &old.services {
        let after = after.get(name(service)).map(|after| &after.endpoints);
        if let (Endpoints::Addresses(before), Some(Endpoints::Addresses(after))) = (&service.endpoints, after) {
            let after: HashSet<&Address> = after.iter().map(|one| &one.address).collect();
            let left = before.iter().filter(|one| after.contains(&one.address)).count();
            list.extend(halved(&format!(" of service `{}`", service.name), "endpoints", before.len(), left));
        }
    }
    list
}

fn name(of: &Service) -> &str {
    &of.name
}

/// Half of a list, or more, is gone.
fn halved(of: &str, what: &str, before: usize, left: usize) -> Option<String> {
    let gone = before - left;
    (before >= FEW && gone * 2 >= before).then(|| format!("removes {gone} of {before} {what}{of}"))
}

fn allows(listener: &Listener) -> usize {
    let routes = match &listener.protocol {
        Protocol::Http(http) => http.hosts.iter().flat_map(|host| &host.routes).map(|r| r.policy.allow.len()).sum(),
        Protocol::Tcp(_) | Protocol::Passthrough(_) => 0,
    };
    listener.policy.allow.len() + routes
}

/// Routes by host and name; unnamed ones by what they do, as their numbers move.
fn route_names(listener: &Listener) -> BTreeSet<String> {
    let Protocol::Http(http) = &listener.protocol else { return BTreeSet::new() };
    let named = |host: &api::Host, route: &api::Route| match route.name.bytes().all(|b| b.is_ascii_digit()) {
        false => format!("{} {}", host.names.join(","), route.name),
        true => format!("{} {:?} {}", host.names.join(","), route.matches, leads(&route.action)),
    };
    http.hosts.iter().flat_map(|host| host.routes.iter().map(move |route| named(host, route))).collect()
}

fn leads(action: &Action) -> String {
    match action {
        Action::Forward(forward) => format!("{:?}", forward.to),
        Action::Redirect(_) => "redirect".to_owned(),
        Action::Respond(_) => "respond".to_owned(),
    }
}
