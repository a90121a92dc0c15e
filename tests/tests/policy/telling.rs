//! What is told of identities and rules: the access log in both formats, and metrics by pair of client and service.

use crate::gate::{TLS, ask, gate, text};
use ringway_tests::eventually;
use std::fs;

const WEB: &str = "spiffe://shop/ns/web/sa/web";

#[test]
fn a_line_says_who_it_was_and_which_rule_decided() {
    let listener = format!("{TLS}, allow: [ {{ name: web, identity: '{WEB}' }}, {{ name: probes, path: /health }} ],");
    let gate = gate(&text(&listener, "{ name: all, deny: [ { name: drop, methods: DELETE } ], to: app }"));
    for (identity, request, path, rule, status) in [
        (Some(WEB), "GET /a", "/a", Some("web"), 200),
        (None, "GET /health", "/health", Some("probes"), 200),
        (Some(WEB), "DELETE /b", "/b", Some("drop"), 403),
        (Some("spiffe://shop/x"), "GET /c", "/c", None, 403),
    ] {
        assert_eq!(ask(&mut gate.tls("web", identity), request).status, status, "{request}");
        let line = gate.proxy.logged(path);
        assert_eq!(line["source_identity"].as_str(), identity, "{line}");
        assert_eq!(line["rule"].as_str().filter(|rule| !rule.is_empty()), rule, "{line}");
        assert_eq!((line["tls"].as_str(), line["sni"].as_str()), (Some("TLSv1.3"), Some("a.test")), "{line}");
        assert_eq!(line["listener"], "web", "{line}");
        if status == 403 {
            assert_eq!((line["ending"].as_str(), line["destination"].as_str()), (Some("denied"), None), "{line}");
        }
    }
}

#[test]
fn text_lines_have_the_same_words() {
    let gate = gate(
        &(text(&format!("{TLS}, allow: [ {{ name: only-web, identity: '{WEB}' }} ],"), "{ to: app }")
            + "access-log: { path: $dir/access.log, format: text }\n"),
    );
    ask(&mut gate.tls("web", Some(WEB)), "GET /in-text");
    let path = gate.proxy.folder().join("access.log");
    eventually("a line", || fs::read_to_string(&path).is_ok_and(|text| text.ends_with('\n')));
    let line = fs::read_to_string(&path).unwrap();
    for word in [WEB, "only-web", "TLSv1.3", "a.test"] {
        assert!(line.contains(word), "{word}: {line}");
    }
}

#[test]
fn requests_are_counted_by_pair() {
    let routes = "{ name: a, match: { path: /a }, to: app }, { name: b, match: { path: /b }, to: other }, { name: none, match: { path: /503 }, to: gone }";
    let text =
        text(&format!("{TLS},"), routes) + "  other: { endpoints: [$origin] }\n  gone: { endpoints: [127.0.0.1:1] }\n";
    let gate = gate(&text);
    for (identity, path, count) in
        [(Some(WEB), "/a", 3), (Some(WEB), "/b", 2), (Some("spiffe://shop/x"), "/a", 1), (Some(WEB), "/503", 1)]
    {
        let mut client = gate.tls("web", identity);
        for _ in 0..count {
            ask(&mut client, &format!("GET {path}"));
        }
    }
    let count = |source: &str, service: &str, class: &str| {
        let labels = [("source", source), ("service", service), ("class", class)];
        gate.proxy.metrics().total("ringway_identity_requests_total", &labels)
    };
    eventually("all are counted", || count(WEB, "gone", "5xx") == 1.0);
    assert_eq!(
        (count(WEB, "app", "2xx"), count(WEB, "other", "2xx"), count("spiffe://shop/x", "app", "2xx")),
        (3.0, 2.0, 1.0)
    );
}

#[test]
fn pairs_are_bounded() {
    let gate =
        gate(&text(&format!("{TLS},"), "{ name: a, match: { path: /a }, respond: { status: 200 } }, { to: app }"));
    for n in 0..1100 {
        let mut client = gate.tls("web", Some(&format!("spiffe://shop/n/{n}")));
        assert_eq!(ask(&mut client, "GET /").status, 200);
    }
    let metrics = gate.proxy.metrics();
    let pairs: std::collections::BTreeSet<_> = metrics
        .all("ringway_identity_requests_total", &[])
        .map(|sample| (sample.labels["source"].clone(), sample.labels["service"].clone()))
        .collect();
    assert!((1000..=1040).contains(&pairs.len()), "{}", pairs.len());
    assert_eq!(metrics.total("ringway_identity_requests_total", &[]), 1100.0);
    assert!(metrics.total("ringway_identity_requests_total", &[("source", "other")]) >= 60.0);
}
