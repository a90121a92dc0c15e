//! The documents that scenarios push.

use std::fmt::Write;
use std::net::SocketAddr;

/// The trust domain of all of them.
const HEAD: &str = "trust-domain: bench\ngroups:\n";
/// Services that a proxy of a middling group sends to, and their endpoints.
const SERVICES: usize = 50;
pub(super) const ENDPOINTS: usize = 10;

/// A group `fleet` that sends to 50 services of 10 endpoints by as many routes, and by `more` routes besides.
pub(super) fn fleet(more: usize) -> String {
    let mut text = format!(
        "{HEAD}  fleet:\n    listeners:\n      in:\n        address: 127.0.0.1:15001\n        tls: {{}}\n        routes:\n"
    );
    for n in 0..SERVICES {
        line(&mut text, format_args!("          - {{ name: r{n}, match: {{ path: /s{n}/* }}, to: s{n} }}"));
    }
    for n in 0..more {
        line(&mut text, format_args!("          - {{ name: more{n}, match: {{ path: /more{n}/* }}, to: s0 }}"));
    }
    text.push_str("services:\n");
    (0..SERVICES).for_each(|n| line(&mut text, format_args!("  s{n}: {{ endpoints: [{}] }}", addresses(n).join(", "))));
    text
}

/// A group `edge` that listens at `listen`, sends `/` to the origin, and to `services` others by a route each. Their endpoints
/// stand in the document, or are left to operators.
pub(super) fn services(listen: SocketAddr, origin: SocketAddr, services: usize, set: bool) -> String {
    let mut text = format!("{HEAD}  edge:\n    listeners:\n      in:\n        address: {listen}\n        routes:\n");
    for n in 0..services {
        line(&mut text, format_args!("          - {{ name: r{n}, match: {{ path: /s{n}/* }}, to: s{n} }}"));
    }
    text.push_str("          - { name: rest, to: origin }\nservices:\n");
    line(&mut text, format_args!("  origin: {{ endpoints: [{origin}] }}"));
    for n in 0..services {
        match set {
            true => line(&mut text, format_args!("  s{n}: {{ endpoints: set }}")),
            false => line(&mut text, format_args!("  s{n}: {{ endpoints: [{}] }}", addresses(n).join(", "))),
        }
    }
    text
}

/// Two groups with mutual TLS between them: `front` listens at `listen` and sends to `back`, which sends to the origin.
/// `fleet` is there for simulated proxies.
pub(super) fn chain(listen: SocketAddr, back: SocketAddr, origin: SocketAddr) -> String {
    let simulated = fleet(0);
    let (groups, services) = simulated.split_once("services:\n").unwrap_or((&simulated, ""));
    format!(
        "{groups}  front:\n    listeners:\n      in: {{ address: {listen}, routes: [ {{ name: all, to: back }} ] }}\n\
        \x20 back:\n    listeners:\n      in:\n        address: {back}\n        tls: {{}}\n\
        \x20       allow: [ {{ name: front, identity: \"spiffe://bench/group/front\" }} ]\n\
        \x20       routes: [ {{ name: all, to: app }} ]\n    services: {{ app: {{ endpoints: [{origin}] }} }}\n\
        services:\n  back: {{ endpoints: {{ group: back, listener: in }}, tls: {{ expect: group }} }}\n{services}"
    )
}

/// The endpoints of a service: addresses of the loopback network that nobody answers at.
pub(super) fn addresses(service: usize) -> Vec<String> {
    (0..ENDPOINTS).map(|n| format!("127.{}.{}.{}:8080", 1 + service / 250, 1 + service % 250, 1 + n)).collect()
}

fn line(text: &mut String, line: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_pass_the_check() {
        let at = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
        let edge = |set| services(at(1001), at(1002), 9_999, set);
        for text in [fleet(0), fleet(3), edge(false), edge(true), chain(at(1001), at(1003), at(1002))] {
            let findings = api::mesh::load(&text, "bench").err().unwrap_or_default();
            assert!(findings.is_empty(), "{findings:#?}");
        }
        assert_ne!(fleet(0), fleet(1));
    }
}
