//! `identity`, `trust`, and `tls` of listeners and services. No file is opened here.

use super::Scope;
use crate::{
    finding::Findings,
    keys::{self, Keys, Words},
    model::{Clients, Credential, Expect, Identity, ListenerTls, Roots, ServiceTls, Trust},
    tree::{Node, Value},
    values,
};
use wire::spiffe::Pattern;

const IDENTITY: Words = Words { what: "`identity`", known: &["certificate", "key", "trust"], later: &[] };
const FILES: Words = Words { what: "a certificate", known: &["certificate", "key"], later: &[] };
const SECRET: Words = Words { what: "a certificate of a mesh", known: &["secret"], later: &[] };
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
    let credential = files(&keys, file, findings);
    let trust = keys.read("trust", findings, |n, f| trust(n, file, f));
    Some(Identity { credential: credential?, trust: trust? })
}

fn files(keys: &Keys<'_>, file: &str, findings: &mut Findings) -> Option<Credential> {
    let certificate = keys.read("certificate", findings, |n, f| values::file_path(n, file, f));
    let key = keys.read("key", findings, |n, f| values::file_path(n, file, f));
    Some(Credential::Files { certificate: certificate?, key: key? })
}

/// One of a listener's `certificates`: files, or in a mesh what the daemon keeps.
fn certificate(node: &Node, scope: &Scope<'_>, findings: &mut Findings) -> Option<Credential> {
    if scope.mesh.is_none() {
        let keys = Keys::open(node, &FILES, findings)?;
        keys.need(&["certificate"], "a certificate", findings);
        keys.need(&["key"], "a certificate", findings);
        return files(&keys, scope.file, findings);
    }
    if let Value::Map(entries) = &node.value
        && let Some(entry) = entries.iter().find(|entry| FILES.known.contains(&entry.key.as_str()))
    {
        let wanted = "write `{ secret: NAME }`, and `ringwayctl secret put NAME` with the files";
        findings.add(entry.at, format!("a mesh document names no files; {wanted}"));
        return None;
    }
    let keys = Keys::open(node, &SECRET, findings)?;
    keys.need(&["secret"], "a certificate of a mesh", findings);
    keys.read("secret", findings, values::name_node).map(|name| Credential::Secret(name.to_owned()))
}

/// A file of roots, or `{ roots, domains, crl }`.
fn trust(node: &Node, file: &str, findings: &mut Findings) -> Option<Trust> {
    if !matches!(node.value, Value::Map(_)) {
        let files = vec![values::file_path(node, file, findings)?];
        return Some(Trust::Files(Roots { files, domains: Vec::new(), crl: None }));
    }
    let keys = Keys::open(node, &TRUST, findings)?;
    keys.need(&["roots"], "`trust`", findings);
    let roots = keys.node("roots", findings)?;
    let files = some(roots, "`roots`", findings, |n, f| values::file_path(n, file, f));
    let domains = keys.node("domains", findings);
    let domains = domains.map(|n| some(n, "`domains`", findings, domain)).unwrap_or_default();
    let crl = keys.read("crl", findings, |n, f| values::file_path(n, file, f));
    Some(Trust::Files(Roots { files, domains, crl }))
}

/// A trust domain.
pub(super) fn domain(node: &Node, findings: &mut Findings) -> Option<String> {
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
        (Some(_), Some(identity)) => vec![identity.credential.clone()],
        (Some(at), None) => {
            let wanted =
                "needs `certificates`, or the proxy's own: write top-level `identity: { certificate, key, trust }`";
            findings.add(at, format!("a listener's `tls` {wanted}"));
            return None;
        }
        (None, _) => keys::some_items(keys.node("certificates", findings)?, "`certificates`", MOST, findings)
            .iter()
            .filter_map(|item| certificate(item, scope, findings))
            .collect(),
    };
    const CLIENTS: [(&str, Clients); 4] = [
        ("none", Clients::None),
        ("optional", Clients::Optional),
        ("required", Clients::Required),
        ("migrate", Clients::Migrate),
    ];
    let usual = if own.is_some() { Clients::Required } else { Clients::None };
    let clients = keys.read("clients", findings, |n, f| keys::word(n, &CLIENTS, &[], f)).unwrap_or(usual);
    no_trust_in_a_mesh(&keys, scope, findings);
    let given = keys.read("trust", findings, |n, f| trust(n, scope.file, f));
    let expect = expected(&keys, findings, identity_pattern);
    if clients == Clients::None {
        let why = "needs client certificates; write `clients: required` or `optional`";
        keys.refuse(&["trust", "expect", "identity"], why, findings);
    }
    let holds = own.is_some() || scope.mesh.is_some();
    let own_trust = scope.identity.as_ref().filter(|_| holds).map(|identity| identity.trust.clone());
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

/// In a mesh, identities are the mesh's, and names are vouched for by the roots that the system trusts.
fn no_trust_in_a_mesh(keys: &Keys<'_>, scope: &Scope<'_>, findings: &mut Findings) {
    if scope.mesh.is_some() {
        keys.refuse(&["trust"], "is the mesh's own in a mesh document; leave it out", findings);
    }
}

/// `tls` of a service. `group`: the identity of the group that its endpoints name.
pub(super) fn service(
    node: &Node,
    group: Option<&str>,
    scope: &Scope<'_>,
    findings: &mut Findings,
) -> Option<ServiceTls> {
    let keys = Keys::open(node, &SERVICE, findings)?;
    keys.need(&["expect", "identity"], "a service's `tls`", findings);
    no_trust_in_a_mesh(&keys, scope, findings);
    let expect = expected(&keys, findings, |node, findings| {
        let text = values::text(node, findings)?;
        if let (true, Some(identity)) = (text == "group" && scope.mesh.is_some(), group) {
            return Some(Expect::Identity(identity.to_owned()));
        } else if text == "group" && scope.mesh.is_some() {
            let wanted = "`endpoints: { group: NAME, listener: NAME }`";
            findings.add(node.at, format!("`expect: group` needs endpoints of a group; write {wanted}"));
            return None;
        }
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
    let shown = own.filter(|_| offers).map(|identity| identity.credential.clone());
    Some(ServiceTls { expect, trust, sni, shown })
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
