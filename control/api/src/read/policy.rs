//! `deny` and `allow`.

use std::collections::HashMap;

use super::{route, tls};
use crate::{
    finding::{At, Findings, quoted},
    keys::{self, Keys},
    model::{Network, Policy, Rule},
    tree::Node,
    values,
};

/// Rules of one list.
const MOST: usize = 1000;

/// Which words a rule may have.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Words {
    Http,
    /// Nothing is known of what the bytes say.
    Tcp,
    /// Nor is who sends them.
    Passthrough,
}

impl Words {
    /// The words that cannot be known, and why.
    fn refused(self) -> &'static [(&'static [&'static str], &'static str)] {
        const REQUESTS: &[&str] = &["methods", "path", "hosts", "headers"];
        match self {
            Words::Http => &[],
            Words::Tcp => &[(
                REQUESTS,
                "is about requests, of which a tcp listener sees none; identity, source and peer can be named here",
            )],
            Words::Passthrough => &[
                (
                    REQUESTS,
                    "is about requests, of which a tls-passthrough listener sees none; source and peer can be named here",
                ),
                (&["identity"], "never holds here: TLS ends at the service, which alone sees who the client is"),
            ],
        }
    }
}

const RULE: keys::Words = keys::Words {
    what: "a rule",
    known: &["name", "identity", "source", "peer", "methods", "path", "hosts", "headers", "dry-run"],
    later: &[],
};

/// The lists of a listener or a route.
pub(super) fn policy(keys: &Keys<'_>, words: Words, findings: &mut Findings) -> Policy {
    let mut list = |key: &'static str| match keys.node(key, findings) {
        Some(node) => rules(node, key, words, findings),
        None => Vec::new(),
    };
    Policy { deny: list("deny"), allow: list("allow") }
}

/// A rule that names identities holds for nobody where nobody shows a certificate.
pub(super) fn needs_identity(keys: &Keys<'_>, policy: &Policy, findings: &mut Findings) {
    let identities = |rules: &[Rule]| rules.iter().any(|rule| !rule.identities.is_empty());
    for (key, rules) in [("deny", &policy.deny), ("allow", &policy.allow)] {
        if let Some(at) = keys.at(key).filter(|_| identities(rules)) {
            findings.add(at, format!("`{key}` names identities, but without `tls` nobody shows one"));
        }
    }
}

fn rules(node: &Node, key: &str, words: Words, findings: &mut Findings) -> Vec<Rule> {
    let mut names: HashMap<String, At> = HashMap::new();
    let mut list = Vec::new();
    for (number, item) in keys::some_items(node, &format!("`{key}`"), MOST, findings).iter().enumerate() {
        let Some(rule) = rule(item, number + 1, words, findings) else { continue };
        if let Some(first) = names.insert(rule.name.clone(), item.at) {
            findings.add(item.at, format!("`{}` is the name of the rule in line {} already", rule.name, first.line));
        }
        list.push(rule);
    }
    list
}

fn rule(node: &Node, number: usize, words: Words, findings: &mut Findings) -> Option<Rule> {
    let keys = Keys::open(node, &RULE, findings)?;
    for (refused, why) in words.refused() {
        keys.refuse(refused, why, findings);
    }
    let conditions = ["identity", "source", "peer", "methods", "path", "hosts", "headers"];
    if conditions.iter().all(|key| keys.at(key).is_none()) {
        findings.add(
            node.at,
            "a rule without a condition holds for everybody; write `source: 0.0.0.0/0` and `::/0` if that is meant",
        );
    }
    let name = keys.read("name", findings, values::name_node).map_or_else(|| number.to_string(), str::to_owned);
    let mut networks = |key: &'static str| {
        let node = keys.node(key, findings);
        node.map(|n| tls::some(n, &format!("`{key}`"), findings, network)).unwrap_or_default()
    };
    let (sources, peers) = (networks("source"), networks("peer"));
    let identities = keys.node("identity", findings);
    let identities = identities.map(|n| tls::some(n, "`identity`", findings, tls::identity_pattern));
    let paths = keys.node("path", findings).map(|n| match n.value {
        crate::tree::Value::Map(_) => values::path_match(n, findings).into_iter().collect(),
        _ => tls::some(n, "`path`", findings, values::path_match),
    });
    let methods = keys.node("methods", findings).and_then(|n| match n.value {
        crate::tree::Value::Scalar { .. } => values::method(n, findings).map(|method| vec![method]),
        _ => route::methods(n, findings),
    });
    let hosts = keys.node("hosts", findings).map(|n| tls::some(n, "`hosts`", findings, values::host_name));
    Some(Rule {
        name,
        identities: identities.unwrap_or_default(),
        sources,
        peers,
        methods: methods.unwrap_or_default(),
        paths: paths.unwrap_or_default(),
        hosts: hosts.unwrap_or_default(),
        headers: keys.read("headers", findings, route::headers).unwrap_or_default(),
        dry_run: keys.read("dry-run", findings, values::boolean).unwrap_or_default(),
    })
}

/// `10.0.0.0/8`, or one address.
pub(super) fn network(node: &Node, findings: &mut Findings) -> Option<Network> {
    let text = values::text(node, findings)?;
    let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
    let parsed = address.parse::<std::net::IpAddr>().ok();
    let most = if parsed.is_some_and(|address| address.is_ipv6()) { 128 } else { 32 };
    let bits = bits.map_or(Some(most), |bits| bits.parse::<u8>().ok().filter(|bits| *bits <= most));
    let (Some(address), Some(bits)) = (parsed, bits) else {
        findings.add(
            node.at,
            format!("{} is no network; write `10.0.0.0/8`, `2001:db8::/32` or one address", quoted(text)),
        );
        return None;
    };
    let masked = masked(address, bits);
    if masked != address {
        findings.add(node.at, format!("{} has bits beyond its prefix; write `{masked}/{bits}`", quoted(text)));
    }
    Some(Network { address, bits })
}

fn masked(address: std::net::IpAddr, bits: u8) -> std::net::IpAddr {
    match address {
        std::net::IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
            std::net::Ipv4Addr::from_bits(v4.to_bits() & mask).into()
        }
        std::net::IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
            std::net::Ipv6Addr::from_bits(v6.to_bits() & mask).into()
        }
    }
}
