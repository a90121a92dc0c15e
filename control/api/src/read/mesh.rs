//! A mesh document: groups of proxies, each with listeners, and the services that they share. The words inside are those
//! of a file; what belongs to a process has no place here.

use std::cell::Cell;
use std::collections::{HashMap, HashSet};

use wire::spiffe::SpiffeId;

use super::{Scope, listeners_of, process, service, tls};
use crate::{
    finding::{At, Findings, nearest, quoted},
    keys::{self, Keys, Words},
    mesh::{Group, Mesh},
    model::{Address, Credential, Endpoints, Identity, Limits, Service, Trust},
    tree::{Entry, Node, Value},
    values,
};

const MESH: Words = Words { what: "a mesh document", known: &["trust-domain", "groups", "services"], later: &[] };
const GROUP: Words = Words { what: "a group", known: &["identity", "listeners", "services", "limits"], later: &[] };
const ENDPOINTS: Words =
    Words { what: "`endpoints` of a group", known: &["group", "listener"], later: &["weight", "zone"] };

const OF_A_PROCESS: &str = "belongs to a process; write it in the proxy's own file, beside `daemon`";
const OF_A_PROXY: &str = "is for a proxy's own file; this document is the daemon's";
const OF_A_GROUP: &str = "belongs to a group; write it under `groups: { NAME: ... }`";
const OF_ALL: &str = "belongs to the whole document; write it at the left margin";

/// More groups than people name.
const MAX_GROUPS: usize = 10_000;

/// Paths of identities that are the daemon's and the operators' own: a proxy with one of them would pass for one of them.
const RESERVED: [&str; 2] = ["/ringwayd", "/ringway-operator"];

/// What must be known of all groups to read one.
pub(super) struct Groups<'t> {
    outlines: HashMap<&'t str, Outline<'t>>,
    /// In the document's order.
    names: Vec<&'t str>,
}

struct Outline<'t> {
    /// A SPIFFE ID.
    identity: String,
    listeners: &'t [Entry],
}

impl Groups<'_> {
    /// The SPIFFE ID of a group.
    pub(super) fn identity(&self, group: &str) -> Option<&str> {
        self.outlines.get(group).map(|outline| outline.identity.as_str())
    }
}

/// Reads a whole mesh document. What could not be read is left out, and has left a finding.
pub(crate) fn mesh(root: &Node, findings: &mut Findings) -> Option<Mesh> {
    let elsewhere = [
        ("listeners", OF_A_GROUP),
        ("limits", OF_A_GROUP),
        ("identity", OF_A_GROUP),
        ("cores", OF_A_PROCESS),
        ("admin", OF_A_PROCESS),
        ("access-log", OF_A_PROCESS),
        ("daemon", OF_A_PROXY),
    ];
    let keys = Keys::open_but(root, &MESH, &elsewhere, findings)?;
    keys.need(&["trust-domain"], "a mesh document", findings);
    keys.need(&["groups"], "a mesh document", findings);
    let trust_domain = keys.read("trust-domain", findings, tls::domain);
    let shared = keys.node("services", findings);
    let shared = shared.map_or(&[][..], |n| keys::entries(n, "`services`", findings));
    let entries = keys.node("groups", findings).map_or(&[][..], |n| groups(n, findings));
    let outlines = outlines(entries, trust_domain.as_deref(), findings);
    let names: HashSet<&str> = names_of(shared);
    let services = services(shared, &scope(shared, &[], &names, &outlines), findings);
    let mut list = Vec::new();
    for entry in entries {
        let own = own_services(entry);
        for service in own.iter().filter(|service| names.contains(service.key.as_str())) {
            let message =
                format!("{} is a service that all groups share already; give it another name", quoted(&service.key));
            findings.add(service.at, message);
        }
        list.extend(group(entry, &scope(own, shared, &names, &outlines), findings));
    }
    Some(Mesh { trust_domain: trust_domain?, groups: list, services })
}

fn groups<'t>(node: &'t Node, findings: &mut Findings) -> &'t [Entry] {
    let entries = keys::entries(node, "`groups`", findings);
    if entries.len() > MAX_GROUPS {
        findings.add(node.at, format!("`groups` has {} entries; at most {MAX_GROUPS} are allowed", entries.len()));
        return &[];
    }
    entries
}

/// Every proxy of the mesh is who it became when it joined, and trusts whom the daemon says.
fn scope<'t>(
    services: &'t [Entry],
    shared: &'t [Entry],
    shared_names: &'t HashSet<&'t str>,
    groups: &'t Groups<'t>,
) -> Scope<'t> {
    let identity = Some(Identity { credential: Credential::Joined, trust: Trust::Mesh });
    let (names, shared_names, mesh) = (names_of(services), Some(shared_names), Some(groups));
    // Paths are read on other machines: nothing is relative to the operator's file.
    Scope {
        file: "",
        services,
        shared,
        names,
        shared_names,
        identity,
        mesh,
        identities: Cell::new(false),
        cors: Cell::new(false),
        clients: Cell::new(0),
    }
}

fn names_of(services: &[Entry]) -> HashSet<&str> {
    services.iter().map(|service| service.key.as_str()).collect()
}

/// Names, identities and listeners of all groups. What is wrong with one leaves a finding, and something to go on with.
fn outlines<'t>(entries: &'t [Entry], trust_domain: Option<&str>, findings: &mut Findings) -> Groups<'t> {
    let mut outlines = HashMap::new();
    for entry in entries {
        let usual = usual_identity(entry, trust_domain, findings);
        let given = entry_of(&entry.node, "identity").filter(|identity| !identity.node.is_null());
        let given = given.and_then(|identity| own_identity(&identity.node, trust_domain, findings));
        let listeners = entry_of(&entry.node, "listeners").map_or(&[][..], |listeners| entries_of(&listeners.node));
        outlines.insert(entry.key.as_str(), Outline { identity: given.unwrap_or(usual), listeners });
    }
    Groups { outlines, names: entries.iter().map(|entry| entry.key.as_str()).collect() }
}

/// `spiffe://TRUST-DOMAIN/group/NAME`
fn usual_identity(entry: &Entry, trust_domain: Option<&str>, findings: &mut Findings) -> String {
    let identity = format!("spiffe://{}/group/{}", trust_domain.unwrap_or("mesh"), entry.key);
    let fits = !entry.key.contains('/') && entry.key.len() <= 64 && SpiffeId::parse(&identity).is_ok();
    if !fits {
        let message = "a group's name is 1 to 64 letters, digits, `-`, `_` or `.`, as it stands in identities";
        findings.add(entry.at, format!("{message}, not {}", quoted(&entry.key)));
    }
    identity
}

/// `identity` of a group.
fn own_identity(node: &Node, trust_domain: Option<&str>, findings: &mut Findings) -> Option<String> {
    if let Value::Map(_) = node.value {
        let message = "a group's `identity` is a SPIFFE ID; certificates and keys are made when proxies join";
        findings.add(node.at, message);
        return None;
    }
    let text = values::text(node, findings)?;
    let id = match SpiffeId::parse(text) {
        Ok(id) => id,
        Err(reason) => {
            findings.add(node.at, format!("{} is no identity: it {reason}", quoted(text)));
            return None;
        }
    };
    let path = &text["spiffe://".len() + id.trust_domain().len()..];
    let is_under =
        |reserved: &&&str| path.strip_prefix(**reserved).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    if let Some(wanted) = trust_domain.filter(|domain| *domain != id.trust_domain()) {
        findings.add(node.at, format!("{} is not in the trust domain `{wanted}`", quoted(text)));
    } else if path.is_empty() {
        findings.add(node.at, format!("{} has no path; write `{text}/NAME`", quoted(text)));
    } else if let Some(reserved) = RESERVED.iter().find(is_under) {
        findings.add(
            node.at,
            format!("identities under `{reserved}` are the daemon's and its operators'; take another path"),
        );
    } else {
        return Some(text.to_owned());
    }
    None
}

fn services(entries: &[Entry], scope: &Scope<'_>, findings: &mut Findings) -> Vec<Service> {
    let mut list = Vec::new();
    for entry in entries {
        let Some(service) = service::service(entry, scope, findings) else { continue };
        let local = |address: &Address| matches!(address, Address::Unix(path) if !path.starts_with('/'));
        match &service.endpoints {
            Endpoints::Addresses(list) if list.iter().any(|endpoint| local(&endpoint.address)) => {
                not_relative(entry.at, findings);
            }
            Endpoints::Group { group, listener } => {
                if let Some(groups) = scope.mesh {
                    same_tls(entry, &service, listener_of(groups, group, listener), findings);
                }
            }
            _ => {}
        }
        list.push(service);
    }
    list
}

/// Relative to the operator's file, or to wherever a proxy runs? Neither is meant.
fn not_relative(at: At, findings: &mut Findings) {
    findings.add(at, "a unix socket's path in a mesh document begins with `/`, as it is on the proxies' machines");
}

/// One entry of `groups`.
fn group(entry: &Entry, scope: &Scope<'_>, findings: &mut Findings) -> Option<Group> {
    let elsewhere = [
        ("cores", OF_A_PROCESS),
        ("admin", OF_A_PROCESS),
        ("access-log", OF_A_PROCESS),
        ("daemon", OF_A_PROXY),
        ("trust-domain", OF_ALL),
        ("groups", OF_ALL),
    ];
    let keys = Keys::open_but(&entry.node, &GROUP, &elsewhere, findings)?;
    keys.need(&["listeners"], "a group", findings);
    let listeners = keys.node("listeners", findings);
    let listeners = listeners.map_or_else(Vec::new, |n| listeners_of(n, scope, findings));
    for (at, listener) in &listeners {
        if matches!(&listener.address, Address::Unix(path) if !path.starts_with('/')) {
            not_relative(*at, findings);
        }
    }
    // A finding where they are no map; what they are is in the scope.
    let own = keys.node("services", findings).map_or(&[][..], |n| keys::entries(n, "`services`", findings));
    let services = services(own, scope, findings);
    let set = |name: &str| services.iter().any(|s| s.name == name && s.endpoints == Endpoints::Set);
    for entry in own.iter().filter(|entry| set(&entry.key)) {
        let message =
            "`endpoints: set` is for services that all groups share; write the service under top-level `services`";
        findings.add(entry.at, message);
    }
    let identity = scope.mesh.and_then(|groups| groups.identity(&entry.key));
    Some(Group {
        name: entry.key.clone(),
        identity: identity?.to_owned(),
        listeners: listeners.into_iter().map(|(_, listener)| listener).collect(),
        services,
        limits: keys.read("limits", findings, limits).unwrap_or_default(),
    })
}

/// `limits` of a group: those of requests.
fn limits(node: &Node, findings: &mut Findings) -> Option<Limits> {
    for entry in entries_of(node).iter().filter(|entry| ["connections", "drain-timeout"].contains(&entry.key.as_str()))
    {
        findings.add(entry.at, format!("`{}` {OF_A_PROCESS}", entry.key));
    }
    process::limits(node, findings)
}

/// `endpoints: { group, listener }`
pub(super) fn endpoints(node: &Node, groups: &Groups<'_>, findings: &mut Findings) -> Option<Endpoints> {
    let keys = Keys::open(node, &ENDPOINTS, findings)?;
    keys.need(&["group"], "`endpoints` of a group", findings);
    keys.need(&["listener"], "`endpoints` of a group", findings);
    let group = keys.node("group", findings)?;
    let group_name = values::text(group, findings)?;
    let Some(outline) = groups.outlines.get(group_name) else {
        let some = if findings.is_full() { 0 } else { 1000 };
        let hint = match nearest(group_name, groups.names.iter().take(some).copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "add it under `groups`".to_owned(),
        };
        findings.add(group.at, format!("unknown group {}; {hint}", quoted(group_name)));
        return None;
    };
    let listener = keys.node("listener", findings)?;
    let listener_name = values::text(listener, findings)?;
    let Some(entry) = outline.listeners.iter().find(|entry| entry.key == listener_name) else {
        let names: Vec<&str> = outline.listeners.iter().map(|entry| entry.key.as_str()).take(100).collect();
        let hint = match nearest(listener_name, names.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("it has {}", keys::list_of(&names)),
        };
        findings.add(listener.at, format!("group `{group_name}` has no listener {}; {hint}", quoted(listener_name)));
        return None;
    };
    let address = entry_of(&entry.node, "address").map(|address| &address.node.value);
    if matches!(address, Some(Value::Scalar { text, .. }) if text.starts_with("unix:")) {
        let message = format!(
            "listener `{listener_name}` of group `{group_name}` is a unix socket, which no other machine reaches"
        );
        findings.add(listener.at, message);
        return None;
    }
    Some(Endpoints::Group { group: group_name.to_owned(), listener: listener_name.to_owned() })
}

/// A service that speaks TLS where nobody expects it, or the other way round, would never answer.
fn same_tls(entry: &Entry, service: &Service, listener: Option<&Entry>, findings: &mut Findings) {
    let (Endpoints::Group { group, listener: name }, Some(listener)) = (&service.endpoints, listener) else { return };
    let tls = entry_of(&listener.node, "tls").map(|tls| &tls.node);
    let clients = tls.and_then(|tls| entry_of(tls, "clients")).map(|clients| &clients.node.value);
    let migrates = matches!(clients, Some(Value::Scalar { text, .. }) if text == "migrate");
    let protocol = entry_of(&listener.node, "protocol").map(|protocol| &protocol.node.value);
    if matches!(protocol, Some(Value::Scalar { text, .. }) if text == "tls-passthrough") {
        // Whoever stands behind it ends the TLS.
        return;
    }
    // One whose `tls` could not be read has its finding already.
    let speaks = entry_of(&entry.node, "tls").is_some();
    if tls.is_some() && !speaks && !migrates {
        let message = format!("listener `{name}` of group `{group}` wants TLS; write `tls: {{ expect: group }}`");
        findings.add(entry.at, message);
    } else if tls.is_none() && speaks {
        let message = format!("listener `{name}` of group `{group}` has no `tls`; write `tls: {{}}` there");
        findings.add(entry.at, message);
    }
}

fn listener_of<'t>(groups: &Groups<'t>, group: &str, listener: &str) -> Option<&'t Entry> {
    groups.outlines.get(group)?.listeners.iter().find(|entry| entry.key == listener)
}

fn own_services(group: &Entry) -> &[Entry] {
    entry_of(&group.node, "services").map_or(&[], |services| entries_of(&services.node))
}

fn entry_of<'t>(node: &'t Node, key: &str) -> Option<&'t Entry> {
    entries_of(node).iter().find(|entry| entry.key == key)
}

fn entries_of(node: &Node) -> &[Entry] {
    match &node.value {
        Value::Map(entries) => entries,
        _ => &[],
    }
}
