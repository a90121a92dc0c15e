//! What a document changes: group by group, in the words of the language, and what of it nobody should do by accident.

use crate::authority::Proxy;
use api::mesh::{Group, Mesh};
use api::pb;
use api::{Action, Endpoints, Listener, Packed, Protocol, Resources, Service};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// In a list shorter than this, what has something else in its place is not missed: it is an edit.
const FEW: usize = 4;
/// Changes of a group that are listed.
const MOST_LISTED: usize = 1000;

/// What differs.
#[derive(Debug, Default)]
pub(super) struct Difference {
    /// By group, what changes for its proxies.
    pub(super) affected: Vec<pb::Affected>,
    needs: Vec<Need>,
}

/// What needs a force, in words.
#[derive(Debug)]
struct Need {
    line: String,
    /// Half of something goes: which is what going back is for.
    is_half: bool,
}

impl From<String> for Need {
    fn from(line: String) -> Need {
        Need { line, is_half: false }
    }
}

impl Difference {
    /// What needs a force, in words, of a push; or of one that goes back to an earlier version.
    pub(super) fn needs_force(&self, goes_back: bool) -> Vec<String> {
        self.needs.iter().filter(|need| !(goes_back && need.is_half)).map(|need| need.line.clone()).collect()
    }
}

/// What the new document changes; `proxies` are all that have joined.
pub(super) fn between(old: Option<&Mesh>, new: &Mesh, proxies: &[Proxy]) -> Difference {
    let mut difference = Difference::default();
    let count = |group: &str| proxies.iter().filter(|proxy| proxy.group == group).count();
    let nothing = Mesh { trust_domain: new.trust_domain.clone(), groups: Vec::new(), services: Vec::new() };
    let old = old.unwrap_or(&nothing);
    if old.trust_domain != new.trust_domain && !proxies.is_empty() {
        difference.needs.push(Need::from(format!(
            "changes the trust domain from `{}` to `{}`: {} keep identities of the old one until they join again",
            old.trust_domain,
            new.trust_domain,
            people(proxies.len())
        )));
    }
    let names: BTreeSet<&str> = old.groups.iter().chain(&new.groups).map(|group| group.name.as_str()).collect();
    for name in names {
        let (before, after) = (old.group(name), new.group(name));
        let changes = match (before, after) {
            (None, Some(_)) => vec!["group added".to_owned()],
            (Some(_), None) => {
                let proxies = people(count(name));
                difference.needs.push(Need::from(format!("removes group `{name}`: {proxies} would have nothing")));
                vec!["group removed".to_owned()]
            }
            (Some(before), Some(after)) => {
                difference.needs.extend(of_group(before, after, proxies));
                difference.needs.extend(of_own_services((old, before), (new, after)));
                changes(&old.translated(before), &new.translated(after), before, after)
            }
            (None, None) => Vec::new(),
        };
        if !changes.is_empty() {
            let proxies = u32::try_from(count(name)).unwrap_or(u32::MAX);
            difference.affected.push(pb::Affected { group: name.to_owned(), changes, proxies });
        }
    }
    difference.needs.extend(of_services(old, new));
    let groups = |of: &Mesh| of.groups.iter().map(|group| group.name.clone()).collect();
    difference.needs.extend(halved("", "groups", &groups(old), &groups(new)));
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
fn of_group(before: &Group, after: &Group, proxies: &[Proxy]) -> Vec<Need> {
    let name = &before.name;
    let mut list = Vec::new();
    let keep = proxies.iter().filter(|proxy| proxy.group == *name && proxy.identity != after.identity).count();
    if before.identity != after.identity && keep > 0 {
        list.push(Need::from(format!(
            "changes the identity of group `{name}` to {}: {} keep theirs until they join again",
            after.identity,
            people(keep)
        )));
    }
    let listeners = |of: &Group| of.listeners.iter().map(|one| one.name.clone()).collect();
    list.extend(halved(&format!(" of group `{name}`"), "listeners", &listeners(before), &listeners(after)));
    for old in &before.listeners {
        let of = format!(" of listener `{}` of group `{name}`", old.name);
        match after.listeners.iter().find(|other| other.name == old.name) {
            Some(new) => list.extend(of_listener(old, new, &of)),
            None if allows(old) > 0 => {
                let added = |one: &&Listener| before.listeners.iter().all(|other| other.name != one.name);
                let open =
                    after.listeners.iter().filter(added).find(|one| allows(one) == 0 && takes_its_place(old, one));
                let line = |new: &Listener| {
                    format!("puts listener `{}`, without `allow`, in the place{of}: everybody could come", new.name)
                };
                list.extend(open.map(line).map(Need::from));
            }
            None => {}
        }
    }
    list
}

/// The same address, or a way to the same service.
fn takes_its_place(old: &Listener, new: &Listener) -> bool {
    let services = |of: &Listener| -> BTreeSet<String> {
        let targets: Box<dyn Iterator<Item = &api::Target>> = match &of.protocol {
            Protocol::Tcp(to) => Box::new(to.iter()),
            Protocol::Passthrough(passages) => Box::new(passages.iter().flat_map(|passage| &passage.to)),
            Protocol::Http(http) => {
                let routes = http.hosts.iter().flat_map(|host| &host.routes);
                Box::new(routes.flat_map(|route| match &route.action {
                    Action::Forward(forward) => &forward.to[..],
                    Action::Redirect(_) | Action::Respond(_) => &[],
                }))
            }
        };
        targets.map(|target| target.service.clone()).collect()
    };
    old.address == new.address || !services(old).is_disjoint(&services(new))
}

fn of_listener(old: &Listener, new: &Listener, of: &str) -> Vec<Need> {
    let mut list = Vec::new();
    let own = !rules(&old.policy.allow).is_empty() && rules(&new.policy.allow).is_empty();
    if allows(old) > 0 && (own || allows(new) == 0) {
        list.push(Need::from(format!("removes every `allow`{of}: everybody could come")));
    } else {
        list.extend(halved(of, "rules of `allow`", &rules(&old.policy.allow), &rules(&new.policy.allow)));
    }
    list.extend(halved(of, "rules of `deny`", &rules(&old.policy.deny), &rules(&new.policy.deny)));
    list.extend(halved(of, "hosts", &hosts(old), &hosts(new)));
    let (before, after) = (routes_by_name(old), routes_by_name(new));
    list.extend(halved(of, "routes", &before.keys().cloned().collect(), &after.keys().cloned().collect()));
    for (name, old) in &before {
        let Some(new) = after.get(name) else { continue };
        let of = format!(" of route `{}`{of}", old.name);
        list.extend(halved(&of, "rules of `allow`", &rules(&old.policy.allow), &rules(&new.policy.allow)));
        list.extend(halved(&of, "rules of `deny`", &rules(&old.policy.deny), &rules(&new.policy.deny)));
    }
    list
}

/// Those that do more than try.
fn rules(of: &[api::Rule]) -> BTreeSet<String> {
    of.iter().filter(|rule| !rule.dry_run).map(|rule| rule.name.clone()).collect()
}

fn hosts(of: &Listener) -> BTreeSet<String> {
    match &of.protocol {
        Protocol::Http(http) => http.hosts.iter().flat_map(|host| host.names.clone()).collect(),
        Protocol::Passthrough(passages) => passages.iter().flat_map(|passage| passage.names.clone()).collect(),
        Protocol::Tcp(_) => BTreeSet::new(),
    }
}

/// Shared services that are gone, while somebody sends to them now; and lists of endpoints that shrink.
fn of_services(old: &Mesh, new: &Mesh) -> Vec<Need> {
    let used = old.groups.iter().flat_map(|group| old.services_of(group)).map(name).collect();
    shrunk("", &old.services, new.services.iter(), &used)
}

/// The same of those that are a group's own.
fn of_own_services((old, before): (&Mesh, &Group), (new, after): (&Mesh, &Group)) -> Vec<Need> {
    let used = old.services_of(before).map(name).collect();
    // One that became shared is not gone.
    let left = after.services.iter().chain(&new.services);
    shrunk(&format!(" of group `{}`", before.name), &before.services, left, &used)
}

fn shrunk<'m>(
    of: &str,
    before: &[Service],
    after: impl Iterator<Item = &'m Service>,
    used: &BTreeSet<&str>,
) -> Vec<Need> {
    let mut list = Vec::new();
    let after: HashMap<&str, &Service> = after.map(|service| (name(service), service)).collect();
    for gone in before.iter().filter(|one| !after.contains_key(name(one)) && used.contains(name(one))) {
        list.push(Need::from(format!("removes service `{}`{of}, which is in use", gone.name)));
    }
    let left = after.keys().map(|&one| one.to_owned()).collect();
    list.extend(halved(of, "services", &before.iter().map(|one| one.name.clone()).collect(), &left));
    for service in before {
        let Some(after) = after.get(name(service)) else { continue };
        let of = format!(" of service `{}`{of}", service.name);
        if let (Some(before), Some(after)) = (addresses(&service.endpoints), addresses(&after.endpoints)) {
            list.extend(halved(&of, "endpoints", &before, &after));
        }
    }
    list
}

fn name(of: &Service) -> &str {
    &of.name
}

/// Those that the document has.
fn addresses(of: &Endpoints) -> Option<BTreeSet<String>> {
    match of {
        Endpoints::Addresses(list) => Some(list.iter().map(|one| format!("{:?}", one.address)).collect()),
        Endpoints::Names(list) => Some(list.iter().map(|one| format!("{:?}", one.address)).collect()),
        Endpoints::Group { .. } | Endpoints::Set => None,
    }
}

/// Half of a list, or more, is gone.
fn halved(of: &str, what: &str, before: &BTreeSet<String>, after: &BTreeSet<String>) -> Option<Need> {
    let gone = before.difference(after).count();
    let fewer = before.len().saturating_sub(after.len());
    let missed = if before.len() < FEW { gone.min(fewer) } else { gone };
    let all = before.len();
    let line = || format!("removes {gone} of {all} {what}{of}");
    (missed > 0 && missed * 2 >= all).then(|| Need { line: line(), is_half: true })
}

fn allows(listener: &Listener) -> usize {
    let routes = match &listener.protocol {
        Protocol::Http(http) => {
            http.hosts.iter().flat_map(|host| &host.routes).map(|r| rules(&r.policy.allow).len()).sum()
        }
        Protocol::Tcp(_) | Protocol::Passthrough(_) => 0,
    };
    rules(&listener.policy.allow).len() + routes
}

/// Routes by host and name; unnamed ones by what they do, as their numbers move.
fn routes_by_name(listener: &Listener) -> BTreeMap<String, &api::Route> {
    let Protocol::Http(http) = &listener.protocol else { return BTreeMap::new() };
    let named = |host: &api::Host, route: &api::Route| match route.name.bytes().all(|b| b.is_ascii_digit()) {
        false => format!("{} {}", host.names.join(","), route.name),
        true => format!("{} {:?} {}", host.names.join(","), route.matches, leads(&route.action)),
    };
    let routes = http.hosts.iter().flat_map(|host| host.routes.iter().map(move |route| (named(host, route), route)));
    routes.collect()
}

fn leads(action: &Action) -> String {
    match action {
        Action::Forward(forward) => format!("{:?}", forward.to),
        Action::Redirect(_) => "redirect".to_owned(),
        Action::Respond(_) => "respond".to_owned(),
    }
}
