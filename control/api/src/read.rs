//! The tree as the model: one function a word of the language. Every value is checked where it is read, and what
//! must agree with something else is checked as soon as both are known, so that each finding has its position.

mod cors;
mod daemon;
mod listener;
mod mesh;
mod passthrough;
mod policy;
mod process;
mod quota;
mod route;
mod service;
mod tls;

use std::cell::Cell;
use std::collections::{HashMap, HashSet};

use crate::{
    finding::{At, Findings, nearest, quoted},
    keys::{self, Keys, Words},
    model::{Address, Document, Identity, Listener, Target},
    tree::{Entry, Node, Value},
    values,
};

const DOCUMENT: Words = Words {
    what: "the document",
    known: &["identity", "listeners", "services", "limits", "admin", "access-log", "cores", "daemon"],
    later: &["tls", "deny", "allow", "quota", "cors"],
};

pub(crate) use mesh::mesh;

/// What is known everywhere in a document.
struct Scope<'t> {
    /// The file's name: relative paths start at its directory.
    file: &'t str,
    /// The services, readable or not; of a group, its own.
    services: &'t [Entry],
    /// The services that all groups of a mesh share.
    shared: &'t [Entry],
    /// The names of `services`.
    names: HashSet<&'t str>,
    /// The names of `shared`.
    shared_names: Option<&'t HashSet<&'t str>>,
    /// Who this proxy is.
    identity: Option<Identity>,
    /// The groups, where the document is a mesh's.
    mesh: Option<&'t mesh::Groups<'t>>,
    /// Clients of the listener that is being read may show certificates.
    identities: Cell<bool>,
    /// It has `cors`.
    cors: Cell<bool>,
    /// How many clients the quotas so far tell apart.
    clients: Cell<u64>,
}

/// Reads a whole document. What could not be read is left out, and has left a finding.
pub(crate) fn document(root: &Node, file: &str, findings: &mut Findings) -> Option<Document> {
    let of_a_mesh = "belongs in the daemon's document, which `ringwayctl apply` takes";
    let elsewhere = [("trust-domain", of_a_mesh), ("groups", of_a_mesh)];
    let keys = Keys::open_but(root, &DOCUMENT, &elsewhere, findings)?;
    let daemon = daemon::daemon(&keys, file, findings);
    if keys.at("daemon").is_none() {
        keys.need(&["listeners"], "a document", findings);
    }
    let services = keys.node("services", findings);
    let services = services.map_or(&[][..], |n| keys::entries(n, "`services`", findings));
    let names = services.iter().map(|s| s.key.as_str()).collect();
    let identity = keys.read("identity", findings, |n, f| tls::identity(n, file, f));
    let scope = Scope {
        file,
        services,
        shared: &[],
        names,
        shared_names: None,
        identity,
        mesh: None,
        identities: Cell::new(false),
        cors: Cell::new(false),
        clients: Cell::new(0),
    };
    let limits = keys.read("limits", findings, process::limits).unwrap_or_default();
    let admin = keys.read("admin", findings, |n, f| process::admin(n, file, f));
    let listeners = keys.node("listeners", findings);
    let listeners = listeners.map_or_else(Vec::new, |n| listeners_of(n, &scope, findings));
    if let (Some(admin), Some(at)) = (&admin, keys.at("admin")) {
        not_taken(admin, at, &listeners, findings);
    }
    Some(Document {
        listeners: listeners.into_iter().map(|(_, listener)| listener).collect(),
        services: services.iter().filter_map(|s| service::service(s, &scope, findings)).collect(),
        limits,
        admin,
        access_log: keys.read("access-log", findings, |n, f| process::access_log(n, file, f)),
        cores: keys.read("cores", findings, process::cores).unwrap_or_default(),
        identity: scope.identity,
        daemon,
    })
}

/// `listeners`, each with its position. No two have one address.
fn listeners_of(node: &Node, scope: &Scope<'_>, findings: &mut Findings) -> Vec<(At, Listener)> {
    let entries = keys::entries(node, "`listeners`", findings);
    if entries.is_empty() && matches!(node.value, Value::Map(_)) {
        findings.add(node.at, "`listeners` is empty; at least one listener is wanted");
    }
    let mut taken: HashMap<Address, &Entry> = HashMap::new();
    let mut list = Vec::new();
    for entry in entries {
        let Some(listener) = listener::listener(entry, scope, findings) else {
            continue;
        };
        match taken.get(&listener.address) {
            Some(first) => findings.add(
                entry.at,
                format!(
                    "listener `{}` has the address of listener `{}` in line {}; each needs its own",
                    entry.key, first.key, first.at.line
                ),
            ),
            None => {
                taken.insert(listener.address.clone(), entry);
            }
        }
        list.push((entry.at, listener));
    }
    list
}

fn not_taken(admin: &Address, at: At, listeners: &[(At, Listener)], findings: &mut Findings) {
    if let Some((first, listener)) = listeners.iter().find(|(_, l)| l.address == *admin) {
        let name = &listener.name;
        findings
            .add(at, format!("`admin` has the address of listener `{name}` in line {}; it needs its own", first.line));
    }
}

/// `to`: one name, or a map of names and weights.
fn targets(node: &Node, scope: &Scope<'_>, findings: &mut Findings) -> Option<Vec<Target>> {
    const MOST: u32 = 1_000_000;
    let Value::Map(entries) = &node.value else {
        if matches!(node.value, Value::List(_)) {
            findings.add(node.at, "`to` is a service, or a map of services and weights, not a list");
            return None;
        }
        let service = known_service(values::text(node, findings)?, node.at, scope, findings)?;
        return Some(vec![Target { service, weight: 1 }]);
    };
    let mut list = Vec::new();
    for entry in entries {
        let service = known_service(&entry.key, entry.at, scope, findings);
        let weight = values::number(&entry.node, "a weight", 0, MOST, findings);
        if let (Some(service), Some(weight)) = (service, weight) {
            list.push(Target { service, weight });
        }
    }
    let most = u32::MAX / MOST;
    if entries.len() > most as usize {
        findings.add(node.at, format!("`to` has more than {most} services"));
    } else if list.len() < entries.len() {
        return None;
    } else if list.iter().all(|t| t.weight == 0) {
        findings.add(node.at, "`to` needs a service with a weight above 0");
    }
    Some(list)
}

fn known_service(name: &str, at: At, scope: &Scope<'_>, findings: &mut Findings) -> Option<String> {
    if scope.names.contains(name) || scope.shared_names.is_some_and(|names| names.contains(name)) {
        return Some(name.to_owned());
    }
    // Names are compared with a bounded number of others, and only for findings that are shown.
    let some = if findings.is_full() { 0 } else { 1000 };
    let some = scope.services.iter().chain(scope.shared).take(some);
    let hint = match nearest(name, some.map(|s| s.key.as_str())) {
        Some(near) => format!("did you mean `{near}`?"),
        None => "add it under `services`".to_owned(),
    };
    findings.add(at, format!("unknown service {}; {hint}", quoted(name)));
    None
}
