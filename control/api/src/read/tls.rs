//! `identity`, `trust`, and `tls` of listeners and services. No file is opened here.

use super::Scope;
use crate::{
    finding::Findings,
    keys::{self, Keys, Words},
    model::{Clients, Expect, Identity, KeyPair, ListenerTls, ServiceTls, Trust},
    tree::{Node, Value},
    values,
};
use wire::spiffe::Pattern;

const IDENTITY: Words = Words { what: "`identity`", known: &["certificate", "key", "trust"], later: &[] };
const PAIR: Words = Words { what: "a certificate", known: &["certificate", "key"], later: &[] };
const TRUST: Words = Words { what: "`trust`", known: &["roots", "domains", "crl"], later: &[] };
const LISTENER: Words = Words {
    what: "a listener's `tls`",
    known: &["certificates", "clients", "trust", "expect", "identity", "tickets"],
    later: &["versions", "ciphers"],
};
const SERVICE: Words = Words {
    what: "a service's `tls`",
    known: &["expect", "identity", "trust", "sni", "offer-identity"],
    later: &["versions", "ciphers"],
};

/// Certificates of a listener, roots of a trust, peers that are expected: at most so many.
const MOST: usize = 1000;

/// Top-level `identity`.
pub(super) fn identity(node: &Node, file: &str, findings: &mut Findings) -> Option<Identity> {
    let keys = Keys::open(node, &IDENTITY, findings)?;
    keys.need(&["certificate"], "`identity`", findings);
    keys.need(&["key"], "`identity`", findings);
    keys.need(&["trust"], "`identity`", findings);
    let pair = key_pair(&keys, file, findings);
    let trust = keys.read("trust", findings, |n, f| trust(n, file, f));
    Some(Identity { pair: pair?, trust: trust? })
}

fn key_pair(keys: &Keys<'_>, file: &str, findings: &mut Findings) -> Option<KeyPair> {
    let certificate = keys.read("certificate", findings, |n, f| values::file_path(n, file, f));
    let key = keys.read("key", findings, |n, f| values::file_path(n, file, f));
    Some(KeyPair { certificate: certificate?, key: key? })
}

/// A file of roots, or `{ roots, domains, crl }`.
fn trust(node: &Node, file: &str, findings: &mut Findings) -> Option<Trust> {
    if !matches!(node.value, Value::Map(_)) {
        let roots = vec![values::file_path(node, file, findings)?];
        return Some(Trust { roots, domains: Vec::new(), crl: None });
    }
    let keys = Keys::open(node, &TRUST, findings)?;
    keys.need(&["roots"], "`trust`", findings);
    let roots = keys.node("roots", findings)?;
    let roots = some(roots, "`roots`", findings, |n, f| values::file_path(n, file, f));
    let domains = keys.node("domains", findings);
    let domains = domains.map(|n| some(n, "`domains`", findings, domain)).unwrap_or_default();
    let crl = keys.read("crl", findings, |n, f| values::file_path(n, file, f));
    Some(Trust { roots, domains, crl })
}

fn domain(node: &Node, findings: &mut Findings) -> Option<String> {
    let text = values::text(node, findings)?;
    match wire::spiffe::SpiffeId::parse(&format!("spiffe://{text}")) {
        Ok(id) if id.trust_domain() == text => Some(text.to_owned()),
        _ => {
            findings.add(
                node.at,
                "a trust domain has lower-case letters, digits, `.`, `-` and `_`, such as `shop.example`",
            );
            None
        }
    }
}

/// `tls` of a listener.
pub(super) fn listener(node: &Node, scope: &Scope<'_>, findings: &mut Findings) -> Option<ListenerTls> {
    let keys = Keys::open(node, &LISTENER, findings)?;
    let own = match keys.node("certificates", findings) {
        Some(node) if matches!(&node.value, Value::Scalar { text, .. } if text == "identity") => Some(node.at),
        Some(_) => None,
        None => Some(node.at),
    };
    let certificates = match (own, &scope.identity) {
        (Some(_), Some(identity)) => vec![identity.pair.clone()],
        (Some(at), None) => {
            let wanted =
                "needs `certificates`, or the proxy's own: write top-level `identity: { certificate, key, trust }`";
            findings.add(at, format!("a listener's `tls` {wanted}"));
            return None;
        }
        (None, _) => {
            let pair = |n: &Node, f: &mut Findings| {
                let keys = Keys::open(n, &PAIR, f)?;
                keys.need(&["certificate"], "a certificate", f);
                keys.need(&["key"], "a certificate", f);
                key_pair(&keys, scope.file, f)
            };
            keys::some_items(keys.node("certificates", findings)?, "`certificates`", MOST, findings)
                .iter()
                .filter_map(|item| pair(item, findings))
                .collect()
        }
    };
    const CLIENTS: [(&str, Clients); 4] = [
        ("none", Clients::None),
        ("optional", Clients::Optional),
        ("required", Clients::Required),
        ("migrate", Clients::Migrate),
    ];
    let usual = if own.is_some() { Clients::Required } else { Clients::None };
    let clients = keys.read("clients", findings, |n, f| keys::word(n, &CLIENTS, &[], f)).unwrap_or(usual);
    let given = keys.read("trust", findings, |n, f| trust(n, scope.file, f));
    let expect = expected(&keys, findings, identity_pattern);
    if clients == Clients::None {
        let why = "needs client certificates; write `clients: required` or `optional`";
        keys.refuse(&["trust", "expect", "identity"], why, findings);
    }
    let own_trust = scope.identity.as_ref().filter(|_| own.is_some()).map(|identity| identity.trust.clone());
    let trust = match clients {
        Clients::None => None,
        _ => given.or(own_trust),
    };
    if clients != Clients::None && trust.is_none() && keys.at("trust").is_none() {
        let at = keys.at("clients").unwrap_or(node.at);
        findings.add(at, "client certificates need `trust`: a file of root certificates");
    }
    let tickets = keys.read("tickets", findings, values::boolean).unwrap_or(true);
    Some(ListenerTls { certificates, clients, trust, expect, tickets })
}

/// `tls` of a service.
pub(super) fn service(node: &Node, scope: &Scope<'_>, findings: &mut Findings) -> Option<ServiceTls> {
    let keys = Keys::open(node, &SERVICE, findings)?;
    keys.need(&["expect", "identity"], "a service's `tls`", findings);
    let expect = expected(&keys, findings, |node, findings| {
        let text = values::text(node, findings)?;
        if text.starts_with("spiffe:") {
            return identity_pattern(node, findings).map(Expect::Identity);
        }
        if !values::is_dns_name(text) {
            findings.add(
                node.at,
                "a SPIFFE ID (`spiffe://shop/ns/cart/sa/cart`, with `*` and a final `**`) or a DNS name is wanted",
            );
            return None;
        }
        Some(Expect::Name(text.to_ascii_lowercase()))
    });
    let given = keys.read("trust", findings, |n, f| trust(n, scope.file, f));
    let own = scope.identity.as_ref();
    let identities = expect.iter().any(|expect| matches!(expect, Expect::Identity(_)));
    let trust = given.or_else(|| own.filter(|_| identities).map(|identity| identity.trust.clone()));
    if identities && trust.is_none() && keys.at("trust").is_none() {
        findings
            .add(node.at, "a SPIFFE ID needs `trust`: a file of root certificates here, or in top-level `identity`");
    }
    let sni = |n: &Node, f: &mut Findings| {
        let text = values::text(n, f)?;
        if !values::is_dns_name(text) {
            f.add(n.at, "`sni` is a DNS name");
            return None;
        }
        Some(text.to_ascii_lowercase())
    };
    let sni = keys.read("sni", findings, sni).or_else(|| match &expect[..] {
        [Expect::Name(name)] => Some(name.clone()),
        _ => None,
    });
    let offers = keys.read("offer-identity", findings, values::boolean).unwrap_or(true);
    if own.is_none() {
        let why = "needs the proxy's own; write top-level `identity: { certificate, key, trust }`";
        keys.refuse(&["offer-identity"], why, findings);
    }
    let pair = own.filter(|_| offers).map(|identity| identity.pair.clone());
    Some(ServiceTls { expect, trust, sni, pair })
}

/// `expect`, or `identity`, which says the same of identities: one value or a list.
fn expected<T>(
    keys: &Keys<'_>,
    findings: &mut Findings,
    read: impl FnMut(&Node, &mut Findings) -> Option<T>,
) -> Vec<T> {
    if keys.at("expect").is_some() {
        keys.refuse(&["identity"], "stands beside `expect`, which says the same", findings);
    }
    match keys.node("expect", findings).or_else(|| keys.node("identity", findings)) {
        Some(node) => some(node, "`expect`", findings, read),
        None => Vec::new(),
    }
}

/// A pattern of SPIFFE IDs.
pub(super) fn identity_pattern(node: &Node, findings: &mut Findings) -> Option<String> {
    let text = values::text(node, findings)?;
    match Pattern::parse(text) {
        Ok(_) => Some(text.to_owned()),
        Err(reason) => {
            findings.add(node.at, format!("{} is no identity: it {reason}", crate::finding::quoted(text)));
            None
        }
    }
}

/// One value, or a list of them.
pub(super) fn some<T>(
    node: &Node,
    what: &str,
    findings: &mut Findings,
    mut read: impl FnMut(&Node, &mut Findings) -> Option<T>,
) -> Vec<T> {
    match node.value {
        Value::List(_) => {
            keys::some_items(node, what, MOST, findings).iter().filter_map(|item| read(item, findings)).collect()
        }
        _ => read(node, findings).into_iter().collect(),
    }
}
