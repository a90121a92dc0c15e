//! `listeners` and `hosts`.

use std::collections::HashMap;

use super::{Scope, cors, passthrough, policy, quota, route, targets, tls};
use crate::{
    finding::{At, Findings},
    keys::{self, Keys, Words},
    model::{Address, Clients, Forwarded, ForwardedMode, Host, Http, Listener, Network, Protocol},
    tree::{Entry, Node},
    values,
};

const LISTENER: Words = Words {
    what: "a listener",
    known: &[
        "address",
        "protocol",
        "tls",
        "proxy-protocol",
        "deny",
        "allow",
        "quota",
        "cors",
        "hosts",
        "routes",
        "to",
        "forwarded",
        "idle-timeout",
    ],
    later: &[],
};
const PROXY_PROTOCOL: Words = Words { what: "`proxy-protocol`", known: &["from"], later: &[] };
const FORWARDED: Words =
    Words { what: "`forwarded`", known: &["trusted-hops", "mode", "client-certificate"], later: &[] };
const HOST: Words =
    Words { what: "a host", known: &["names", "routes"], later: &["tls", "deny", "allow", "quota", "cors"] };

/// How many hosts a listener may have, names a host, and routes a host.
pub(super) const MAX_HOSTS: usize = 10_000;
const MAX_ROUTES: usize = 10_000;

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Http,
    Tcp,
    Passthrough,
}

/// One entry of `listeners`.
pub(super) fn listener(entry: &Entry, scope: &Scope<'_>, findings: &mut Findings) -> Option<Listener> {
    let name = values::name(&entry.key, entry.at, findings);
    let keys = Keys::open(&entry.node, &LISTENER, findings)?;
    keys.need(&["address"], "a listener", findings);
    let address = keys.read("address", findings, |n, f| values::listen_address(n, scope.file, f));
    let idle_timeout = keys.read("idle-timeout", findings, values::duration);
    let protocol = match keys.at("protocol") {
        Some(_) => keys.read("protocol", findings, kind)?,
        None => Kind::Http,
    };
    let passes = matches!(protocol, Kind::Passthrough);
    let tls = if passes { None } else { keys.read("tls", findings, |n, f| tls::listener(n, scope, f)) };
    // What could not be read has a finding already.
    let shown = tls.as_ref().map_or(keys.at("tls").is_some(), |tls| tls.clients != Clients::None);
    scope.identities.set(shown);
    let protocol = match protocol {
        Kind::Http => Protocol::Http(http(&keys, scope, findings)),
        Kind::Tcp => Protocol::Tcp(tcp(&keys, scope, findings)?),
        Kind::Passthrough => Protocol::Passthrough(passthrough::passages(&keys, scope, findings)?),
    };
    let words = match protocol {
        Protocol::Http(_) => policy::Words::Http,
        Protocol::Tcp(_) => policy::Words::Tcp,
        Protocol::Passthrough(_) => policy::Words::Passthrough,
    };
    let policy = policy::policy(&keys, words, findings);
    if tls.is_none() && keys.at("tls").is_none() && !passes {
        policy::needs_identity(&keys, &policy, findings);
    }
    let unix = matches!(address, Some(Address::Unix(_)));
    let proxy_protocol = keys.read("proxy-protocol", findings, |n, f| proxy_protocol(n, unix, f));
    Some(Listener { name: name?.to_owned(), address: address?, idle_timeout, protocol, tls, policy, proxy_protocol })
}

/// `proxy-protocol`
fn proxy_protocol(node: &Node, unix: bool, findings: &mut Findings) -> Option<Vec<Network>> {
    let keys = Keys::open(node, &PROXY_PROTOCOL, findings)?;
    keys.need(&["from"], "`proxy-protocol`", findings);
    if unix {
        keys.refuse(&["from"], "holds for nobody: whoever connects to a unix socket has no address", findings);
    }
    let from = keys.node("from", findings)?;
    Some(tls::some(from, "`from`", findings, policy::network)).filter(|list| !list.is_empty())
}

/// `protocol`
fn kind(node: &Node, findings: &mut Findings) -> Option<Kind> {
    let kinds = [("http", Kind::Http), ("tcp", Kind::Tcp), ("tls-passthrough", Kind::Passthrough)];
    keys::word(node, &kinds, &[], findings)
}

fn http(keys: &Keys<'_>, scope: &Scope<'_>, findings: &mut Findings) -> Http {
    keys.refuse(&["to"], "is for tcp listeners; an http listener has `routes` or `hosts`", findings);
    keys.need(&["hosts", "routes"], "an http listener", findings);
    if keys.at("hosts").is_some() {
        keys.refuse(&["routes"], "stands beside `hosts`; move the routes into a host named `*`", findings);
    }
    let cors = keys.read("cors", findings, cors::cors);
    scope.cors.set(keys.at("cors").is_some());
    let mut position = 0;
    let any = |node: &Node, position: &mut usize, f: &mut Findings| Host {
        names: vec!["*".to_owned()],
        routes: routes(node, position, scope, f),
    };
    let hosts = match keys.node("hosts", findings) {
        Some(node) => hosts(node, &mut position, scope, findings),
        None => keys.node("routes", findings).map(|n| any(n, &mut position, findings)).into_iter().collect(),
    };
    let (forwarded, client_certificate) = keys.read("forwarded", findings, forwarded).unwrap_or_default();
    let quotas = keys.read("quota", findings, |n, f| quota::quotas(n, scope, f)).unwrap_or_default();
    Http { forwarded, client_certificate, cors, quotas, hosts }
}

fn tcp(keys: &Keys<'_>, scope: &Scope<'_>, findings: &mut Findings) -> Option<Vec<crate::model::Target>> {
    let why = "is for http listeners; a tcp listener has `to`";
    keys.refuse(&["hosts", "routes", "forwarded"], why, findings);
    keys.refuse(&["quota", "cors"], "is about HTTP requests; a tcp listener sees none", findings);
    keys.need(&["to"], "a tcp listener", findings);
    keys.read("to", findings, |n, f| targets(n, scope, f))
}

/// `forwarded`
fn forwarded(node: &Node, findings: &mut Findings) -> Option<(Forwarded, bool)> {
    let modes = [ForwardedMode::Append, ForwardedMode::Replace, ForwardedMode::Keep];
    let modes = modes.map(|mode| (mode.word(), mode));
    let keys = Keys::open(node, &FORWARDED, findings)?;
    let hops = |n: &Node, f: &mut Findings| values::number(n, "`trusted-hops`", 0, 100, f);
    let forwarded = Forwarded {
        trusted_hops: keys.read("trusted-hops", findings, hops).unwrap_or_default(),
        mode: keys.read("mode", findings, |n, f| keys::word(n, &modes, &[], f)).unwrap_or_default(),
    };
    Some((forwarded, keys.read("client-certificate", findings, values::boolean).unwrap_or_default()))
}

/// `hosts`: a name stands once in a listener.
fn hosts(node: &Node, position: &mut usize, scope: &Scope<'_>, findings: &mut Findings) -> Vec<Host> {
    let mut taken = HashMap::new();
    let items = keys::some_items(node, "`hosts`", MAX_HOSTS, findings);
    items.iter().filter_map(|item| host(item, &mut taken, position, scope, findings)).collect()
}

fn host(
    node: &Node,
    taken: &mut HashMap<String, At>,
    position: &mut usize,
    scope: &Scope<'_>,
    findings: &mut Findings,
) -> Option<Host> {
    let keys = Keys::open(node, &HOST, findings)?;
    keys.need(&["routes"], "a host", findings);
    let names = names(&keys, taken, findings);
    let routes = keys.node("routes", findings).map(|n| routes(n, position, scope, findings));
    Some(Host { names, routes: routes? })
}

/// `names` of a host, none of which another has.
pub(super) fn names(keys: &Keys<'_>, taken: &mut HashMap<String, At>, findings: &mut Findings) -> Vec<String> {
    keys.need(&["names"], "a host", findings);
    let names = keys.node("names", findings);
    let mut list = Vec::new();
    for item in names.map_or(&[][..], |n| keys::some_items(n, "`names`", MAX_HOSTS, findings)) {
        let Some(name) = values::host_name(item, findings) else {
            continue;
        };
        match taken.get(&name) {
            Some(first) => findings.add(
                item.at,
                format!(
                    "`{name}` is a name of the host in line {} already; names are unique in a listener",
                    first.line
                ),
            ),
            None => {
                taken.insert(name.clone(), item.at);
                list.push(name);
            }
        }
    }
    list
}

/// `routes` of one host: names are unique, and no route has the conditions of an earlier one.
fn routes(node: &Node, position: &mut usize, scope: &Scope<'_>, findings: &mut Findings) -> Vec<crate::model::Route> {
    let mut names: HashMap<String, At> = HashMap::new();
    let mut conditions: HashMap<String, (At, String)> = HashMap::new();
    let mut list = Vec::new();
    for item in keys::some_items(node, "`routes`", MAX_ROUTES, findings) {
        *position += 1;
        let Some(route) = route::route(item, *position, scope, findings) else {
            continue;
        };
        if let Some(first) = names.insert(route.name.clone(), item.at) {
            let message = format!("`{}` is the name of the route in line {} already", route.name, first.line);
            findings.add(item.at, message);
        }
        let key = format!("{:?}", route::canonical(&route.matches));
        if let Some((first, name)) = conditions.insert(key, (item.at, route.name.clone())) {
            let message =
                format!("no request reaches this route: route `{name}` in line {} has the same `match`", first.line);
            findings.add(item.at, message);
        }
        list.push(route);
    }
    list
}
