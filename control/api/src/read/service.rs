//! `services` and their endpoints.

use std::collections::HashSet;

use super::{Scope, mesh, tls};
use crate::{
    finding::{At, Findings},
    keys::{self, Keys, Words},
    model::{Address, Balance, DnsName, Endpoint, Endpoints, ProxyVersion, Service, ServiceLimits},
    tree::{Entry, Node, Value},
    values::{self, EndpointAddress},
};

const SERVICE: Words = Words {
    what: "a service",
    known: &["endpoints", "protocol", "balance", "tls", "proxy-protocol", "limits", "connect-timeout"],
    later: &["retry-budget", "health", "outlier"],
};
const ENDPOINT: Words = Words { what: "an endpoint", known: &["address", "weight", "zone"], later: &[] };
const LIMITS: Words =
    Words { what: "a service's `limits`", known: &["connections", "pending", "requests"], later: &["retries"] };

const MAX_ENDPOINTS: usize = 4000;
/// Weights are added up in 32 bits: the largest, so many times, still fits.
const MAX_WEIGHT: u32 = 1_000_000;
const MAX_LIMIT: u32 = 10_000_000;

/// One entry of `services`.
pub(super) fn service(entry: &Entry, scope: &Scope<'_>, findings: &mut Findings) -> Option<Service> {
    let name = values::name(&entry.key, entry.at, findings);
    let keys = Keys::open(&entry.node, &SERVICE, findings)?;
    keys.need(&["endpoints"], "a service", findings);
    let endpoints = keys.read("endpoints", findings, |n, f| endpoints(n, scope, f));
    let group = match &endpoints {
        Some(Endpoints::Group { group, .. }) => scope.mesh.and_then(|mesh| mesh.identity(group)),
        _ => None,
    };
    keys.read("protocol", findings, |n, f| keys::word(n, &[("http1", ())], &["http2"], f));
    let balance = keys.read("balance", findings, balance).unwrap_or_default();
    let limits = keys.read("limits", findings, limits).unwrap_or_default();
    let connect_timeout = keys.read("connect-timeout", findings, values::duration);
    let versions = [ProxyVersion::V1, ProxyVersion::V2].map(|version| (version.word(), version));
    Some(Service {
        name: name?.to_owned(),
        endpoints: endpoints?,
        balance,
        limits,
        connect_timeout: connect_timeout.unwrap_or(std::time::Duration::from_secs(1)),
        tls: keys.read("tls", findings, |n, f| tls::service(n, group, scope, f)),
        proxy_protocol: keys.read("proxy-protocol", findings, |n, f| keys::word(n, &versions, &[], f)),
    })
}

/// `endpoints`: addresses or DNS names, not both, none twice; in a mesh also a group's proxies, or what operators set.
fn endpoints(node: &Node, scope: &Scope<'_>, findings: &mut Findings) -> Option<Endpoints> {
    match (&node.value, scope.mesh) {
        (Value::Map(_), None) => {
            findings.add(node.at, "`endpoints` is a list; endpoints of a group belong in a mesh document");
            return None;
        }
        (Value::Map(_), Some(mesh)) => return mesh::endpoints(node, mesh, findings),
        (Value::Scalar { text, .. }, Some(_)) if text == "set" => return Some(Endpoints::Set),
        _ => {}
    }
    let mut addresses: Vec<Endpoint<Address>> = Vec::new();
    let mut names: Vec<Endpoint<DnsName>> = Vec::new();
    let mut seen = HashSet::new();
    for item in keys::some_items(node, "`endpoints`", MAX_ENDPOINTS, findings) {
        let Some((at, one)) = endpoint(item, scope, findings) else {
            continue;
        };
        let (new, mixed) = match one.address {
            EndpointAddress::Address(address) => {
                let new = seen.insert(format!("{address:?}"));
                addresses.push(Endpoint { address, weight: one.weight, zone: one.zone });
                (new, !names.is_empty())
            }
            EndpointAddress::Name(address) => {
                let new = seen.insert(format!("{address:?}"));
                names.push(Endpoint { address, weight: one.weight, zone: one.zone });
                (new, !addresses.is_empty())
            }
        };
        if mixed {
            findings.add(at, "a service has addresses or DNS names, not both; make two services of them");
        }
        if !new {
            findings.add(at, "this endpoint stands twice; give one a `weight` instead");
        }
    }
    match (addresses.is_empty(), names.is_empty()) {
        (false, _) => Some(Endpoints::Addresses(addresses)),
        (true, false) => Some(Endpoints::Names(names)),
        (true, true) => None,
    }
}

/// One endpoint: an address alone, or with its weight and zone.
fn endpoint(node: &Node, scope: &Scope<'_>, findings: &mut Findings) -> Option<(At, Endpoint<EndpointAddress>)> {
    if !matches!(node.value, Value::Map(_)) {
        let address = values::endpoint(node, scope.file, findings)?;
        return Some((node.at, Endpoint { address, weight: 1, zone: String::new() }));
    }
    let keys = Keys::open(node, &ENDPOINT, findings)?;
    keys.need(&["address"], "an endpoint", findings);
    let address = keys.read("address", findings, |n, f| values::endpoint(n, scope.file, f));
    let weight = |n: &Node, f: &mut Findings| values::number(n, "`weight`", 1, MAX_WEIGHT, f);
    let weight = keys.read("weight", findings, weight).unwrap_or(1);
    let zone = keys.read("zone", findings, values::name_node).unwrap_or_default();
    let at = keys.node("address", findings).map_or(node.at, |n| n.at);
    Some((at, Endpoint { address: address?, weight, zone: zone.to_owned() }))
}

/// `balance`
fn balance(node: &Node, findings: &mut Findings) -> Option<Balance> {
    const WORDS: [(&str, Balance); 4] = [
        ("round-robin", Balance::RoundRobin),
        ("random", Balance::Random),
        ("least-request", Balance::LeastRequest),
        ("peak-ewma", Balance::PeakEwma),
    ];
    const LATER: [&str; 2] = ["ring-hash", "maglev"];
    const MAP: Words = Words { what: "`balance`", known: &[], later: &LATER };
    match &node.value {
        // The balancers of later versions are maps with one key.
        Value::Map(entries) if entries.iter().all(|e| LATER.contains(&e.key.as_str())) => {
            Keys::open(node, &MAP, findings);
            None
        }
        _ => keys::word(node, &WORDS, &LATER, findings),
    }
}

/// `limits` of a service.
fn limits(node: &Node, findings: &mut Findings) -> Option<ServiceLimits> {
    let keys = Keys::open(node, &LIMITS, findings)?;
    let defaults = ServiceLimits::default();
    let mut limit = |key: &str, least: u32, default: u32| {
        let read = |n: &Node, f: &mut Findings| values::number(n, &format!("`{key}`"), least, MAX_LIMIT, f);
        keys.read(key, findings, read).unwrap_or(default)
    };
    Some(ServiceLimits {
        connections: limit("connections", 1, defaults.connections),
        // None may wait: then a request without a free connection is refused at once.
        pending: limit("pending", 0, defaults.pending),
        requests: limit("requests", 1, defaults.requests),
    })
}
