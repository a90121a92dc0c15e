//! `protocol: tls-passthrough`: TLS goes, as it comes, where the name that it asks for says.

use std::collections::{HashMap, HashSet};

use super::{
    Scope,
    listener::{MAX_HOSTS, names},
    targets,
};
use crate::{
    finding::{At, Findings},
    keys::{self, Keys, Words},
    model::{Passage, Target},
    tree::{Node, Value},
};

const PASSAGE: Words = Words { what: "a host of a tls-passthrough listener", known: &["names", "to"], later: &[] };

/// `hosts`, or `to` alone.
pub(super) fn passages(keys: &Keys<'_>, scope: &Scope<'_>, findings: &mut Findings) -> Option<Vec<Passage>> {
    let why = "is for http listeners; a tls-passthrough listener has `to`, or `hosts` with `names` and `to`";
    keys.refuse(&["routes", "forwarded"], why, findings);
    keys.refuse(&["quota", "cors"], "is about HTTP requests; a tls-passthrough listener sees none", findings);
    keys.refuse(
        &["tls"],
        "has no place here: TLS ends at the service; to end it here, write `protocol: tcp` or `http`",
        findings,
    );
    keys.refuse(&["quota", "cors"], "is about HTTP requests; a tls-passthrough listener sees none", findings);
    keys.need(&["hosts", "to"], "a tls-passthrough listener", findings);
    let secure = secure(scope);
    let Some(node) = keys.node("hosts", findings) else {
        let to = keys.read("to", findings, |n, f| encrypted(n, scope, &secure, f))?;
        return Some(vec![Passage { names: vec!["*".to_owned()], to }]);
    };
    keys.refuse(&["to"], "stands beside `hosts`; move it into a host named `*`", findings);
    let mut taken = HashMap::new();
    let items = keys::some_items(node, "`hosts`", MAX_HOSTS, findings);
    Some(items.iter().filter_map(|item| passage(item, &mut taken, scope, &secure, findings)).collect())
}

fn passage(
    node: &Node,
    taken: &mut HashMap<String, At>,
    scope: &Scope<'_>,
    secure: &HashSet<&str>,
    findings: &mut Findings,
) -> Option<Passage> {
    let keys = Keys::open(node, &PASSAGE, findings)?;
    keys.need(&["to"], "a host", findings);
    let names = names(&keys, taken, findings);
    // Whoever connects to an address names nobody (RFC 6066 section 3).
    let is_address = |name: &String| name.starts_with('[') || name.parse::<std::net::Ipv4Addr>().is_ok();
    if names.iter().any(is_address) {
        let at = keys.at("names").unwrap_or(node.at);
        findings.add(at, "no client asks for an address by name; `*` takes those that ask for no name");
    }
    let to = keys.read("to", findings, |n, f| encrypted(n, scope, secure, f));
    Some(Passage { names, to: to? })
}

/// `to` of what is encrypted as it comes.
fn encrypted(node: &Node, scope: &Scope<'_>, secure: &HashSet<&str>, findings: &mut Findings) -> Option<Vec<Target>> {
    let to = targets(node, scope, findings)?;
    for Target { service, .. } in to.iter().filter(|target| secure.contains(target.service.as_str())) {
        let message = "has `tls`, but what goes there is TLS already; make a service without it";
        findings.add(node.at, format!("service `{service}` {message}"));
    }
    Some(to)
}

/// The services with TLS.
fn secure<'t>(scope: &Scope<'t>) -> HashSet<&'t str> {
    let has_tls = |node: &Node| match &node.value {
        Value::Map(entries) => entries.iter().any(|entry| entry.key == "tls"),
        _ => false,
    };
    scope.services.iter().filter(|service| has_tls(&service.node)).map(|service| service.key.as_str()).collect()
}
