//! Certificates of clients: none, optional, required; who is let in, who is refused before a byte of a request is looked at, and
//! the reason that is told.

use crate::shop::{failures, web};
use ringway_tests::certificates::{Authority, DAY_S, Issued, Key, Leaf, Usage};
use ringway_tests::tls::{TLS_1_2, TLS_1_3, Tls};
use ringway_tests::{Origin, Proxy, Run};

const WEB: &str = "spiffe://shop/ns/web/sa/web";

/// A proxy whose listener has these words about clients; files: `ca.pem`, `ca2.pem`, `revoked.pem`.
struct Gate {
    authority: Authority,
    /// Whose root is `ca2.pem`; it revokes nothing.
    second: Authority,
    origin: Origin,
    proxy: Proxy,
    tls: Tls,
    /// A good certificate that `revoked.pem` revokes.
    revoked: Issued,
}

fn gate(clients: &str) -> Gate {
    let authority = Authority::new("root");
    let second = Authority::new("second");
    let origin = Origin::echo();
    let revoked = authority.issue(&Leaf::of(&["spiffe://shop/ns/web/sa/revoked"]));
    let listener = format!("tls: {{ certificates: [ {{ certificate: own.pem, key: own.key }} ], {clients} }},");
    let run = Run::new(&web(&listener, "", &origin)).pair("own", &authority.issue(&Leaf::of(&["a.test"])));
    let run = run.file_of("ca.pem", &authority.pem()).file_of("ca2.pem", &second.pem());
    let proxy = run.file_of("revoked.pem", &authority.revoke(&[&revoked])).start();
    let tls = Tls::trusting(&[&authority]);
    Gate { authority, second, origin, proxy, tls, revoked }
}

impl Gate {
    /// Must be let in, and the log has this identity.
    fn lets_in(&self, tls: &Tls, identity: Option<&str>) {
        for versions in [TLS_1_2, TLS_1_3] {
            let path = format!("/in/{}", self.origin.count());
            let mut client = tls.clone().versions(versions).connect(self.proxy.address("web"), "a.test");
            assert_eq!(client.get(&path).status, 200, "{tls:?}");
            assert_eq!(self.proxy.logged(&path)["source_identity"].as_str(), identity);
        }
    }

    /// Must be refused for one of these reasons.
    fn refuses(&self, tls: &Tls, reasons: &[&str]) {
        for versions in [TLS_1_2, TLS_1_3] {
            let (requests, metrics) = (self.origin.count(), self.proxy.metrics());
            let before = failures(&metrics, "downstream", reasons);
            let all = metrics.total("ringway_tls_handshake_failures_total", &[("side", "downstream")]);
            let told = tls.clone().versions(versions).refused(self.proxy.address("web"), "a.test");
            let counted = || failures(&self.proxy.metrics(), "downstream", reasons) == before + 1.0;
            let found = ringway_tests::until(std::time::Duration::from_secs(5), || counted().then_some(()));
            let metrics = self.proxy.metrics();
            let reason: Vec<_> =
                metrics.all("ringway_tls_handshake_failures_total", &[]).filter(|s| s.value > 0.0).collect();
            assert!(found.is_some(), "{reasons:?} (the client heard {told:?}): {reason:?}");
            let now = metrics.total("ringway_tls_handshake_failures_total", &[("side", "downstream")]);
            assert_eq!(now, all + 1.0, "one refusal, counted once");
            assert_eq!(self.origin.count(), requests, "a request of a refused client was forwarded");
        }
        // The line says the same.
        let found = ringway_tests::until(std::time::Duration::from_secs(5), || {
            let lines = self.proxy.log();
            let said = lines.iter().any(|line| {
                line["ending"] == "handshake_failed"
                    && line["detail"].as_str().is_some_and(|why| reasons.contains(&why))
            });
            said.then_some(())
        });
        assert!(found.is_some(), "{reasons:?}: {:?}", self.proxy.log());
    }

    fn with(&self, leaf: &Leaf) -> Tls {
        self.tls.clone().with(&self.authority.issue(leaf))
    }
}

#[test]
fn none_asks_for_no_certificate() {
    let gate = gate("clients: none");
    gate.lets_in(&gate.tls, None);
    // It is not asked for, so it is not sent, and is nobody's identity.
    gate.lets_in(&gate.with(&Leaf::of(&[WEB])), None);
    gate.lets_in(&gate.with(&Leaf::of(&[WEB]).expired()), None);
}

#[test]
fn optional_takes_none_or_a_good_one() {
    let gate = gate("clients: optional, trust: ca.pem");
    gate.lets_in(&gate.tls, None);
    gate.lets_in(&gate.with(&Leaf::of(&[WEB])), Some(WEB));
    gate.refuses(&gate.with(&Leaf::of(&[WEB]).expired()), &["expired"]);
    let other = Authority::new("other").issue(&Leaf::of(&[WEB]));
    gate.refuses(&gate.tls.clone().with(&other), &["unknown_issuer"]);
}

#[test]
fn required_takes_a_good_one_only() {
    let gate = gate("clients: required, trust: { roots: [ca.pem, ca2.pem], domains: [shop], crl: revoked.pem }");
    gate.lets_in(&gate.with(&Leaf::of(&[WEB])), Some(WEB));
    gate.lets_in(&gate.with(&Leaf::of(&[WEB]).usage(Usage::Client)), Some(WEB));
    // Names beside the identity do not matter.
    gate.lets_in(&gate.with(&Leaf::of(&["web.test", WEB, "10.0.0.1"])), Some(WEB));
    let issuer = gate.authority.under("between");
    let below = gate.tls.clone().with(&issuer.issue(&Leaf::of(&[WEB])));
    // The list is the root's: of what the one between revoked, and the other root, nothing is known, and nothing held against them.
    gate.lets_in(&below, Some(WEB));
    gate.lets_in(&gate.tls.clone().with(&gate.second.issue(&Leaf::of(&[WEB]))), Some(WEB));
    gate.refuses(&gate.tls, &["no_certificate"]);
}

#[test]
fn keys_of_every_kind_prove_an_identity() {
    let gate = gate("clients: required, trust: ca.pem");
    for key in Key::ALL {
        gate.lets_in(&gate.with(&Leaf::of(&[WEB]).key(key)), Some(WEB));
        let other = Authority::of("other", key).issue(&Leaf::of(&[WEB]).key(key));
        gate.refuses(&gate.tls.clone().with(&other), &["unknown_issuer"]);
    }
}

#[test]
fn each_bad_certificate_has_its_reason() {
    let gate = gate("clients: required, trust: { roots: [ca.pem, ca2.pem], domains: [shop, store], crl: revoked.pem }");
    gate.lets_in(&gate.with(&Leaf::of(&[WEB])), Some(WEB));
    gate.lets_in(&gate.with(&Leaf::of(&["spiffe://store/x"])), Some("spiffe://store/x"));
    let identity = &["wrong_identity", "bad_certificate"];
    for (leaf, reasons) in [
        (Leaf::of(&[WEB]).expired(), &["expired"][..]),
        (Leaf::of(&[WEB]).valid(-DAY_S, -1), &["expired"]),
        (Leaf::of(&[WEB]).not_yet(), &["not_yet_valid"]),
        (Leaf::of(&[WEB]).usage(Usage::Server), &["wrong_usage"]),
        (Leaf::of(&[WEB]).usage(Usage::Other), &["wrong_usage"]),
        // Not one identity of a trusted domain.
        (Leaf::of(&["spiffe://bank/ns/web/sa/web"]), &["wrong_identity"]),
        (Leaf::of(&["spiffe://shop.evil/ns/web/sa/web"]), &["wrong_identity"]),
        (Leaf::of(&["spiffe://evil/shop/ns/web"]), &["wrong_identity"]),
        (Leaf::of(&[WEB, "spiffe://shop/ns/web/sa/admin"]), identity),
        (Leaf::of(&[WEB, "spiffe://bank/ns/web"]), identity),
        (Leaf::of(&[WEB, WEB]), identity),
        (Leaf::of(&[WEB, "https://shop.test/"]), identity),
        (Leaf::of(&["https://shop/ns/web/sa/web"]), identity),
        (Leaf::of(&["web.test"]), identity),
        (Leaf::of(&[]), identity),
        // NUL and what else is no SPIFFE ID.
        (Leaf::of(&[]).raw_uri(b"spiffe://shop/ns/web/sa/web\0"), identity),
        (Leaf::of(&[]).raw_uri(b"spiffe://shop/ns/web\0/sa/web"), identity),
        (Leaf::of(&[]).raw_uri(b"spiffe://shop\0.bank/ns/web"), identity),
        (Leaf::of(&[WEB]).raw_uri(b"\0"), identity),
        (Leaf::of(&["spiffe://shop/ns/../web"]), identity),
        (Leaf::of(&["spiffe://shop/ns//web"]), identity),
        (Leaf::of(&["spiffe://shop/ns/web/"]), identity),
        (Leaf::of(&["spiffe://shop/ns/%77eb"]), identity),
        (Leaf::of(&["spiffe://shop:443/ns/web"]), identity),
        (Leaf::of(&["spiffe://user@shop/ns/web"]), identity),
        (Leaf::of(&["spiffe://shop/ns/web?x=y"]), identity),
        (Leaf::of(&["spiffe://shop/ns/web#x"]), identity),
        (Leaf::of(&["SPIFFE://shop/ns/web"]), identity),
        (Leaf::of(&["spiffe://SHOP/ns/web"]), identity),
        (Leaf::of(&[&format!("spiffe://shop/{}", "x".repeat(2049))]), identity),
        (Leaf::of(&[]).raw_uri("spiffe://shop/ns/wéb".as_bytes()), identity),
    ] {
        gate.refuses(&gate.with(&leaf), reasons);
    }
    gate.refuses(&gate.tls.clone().with(&gate.revoked), &["revoked"]);
    let other = Authority::new("other").issue(&Leaf::of(&[WEB]));
    gate.refuses(&gate.tls.clone().with(&other), &["unknown_issuer"]);
    // One who calls itself as the trusted one does.
    let namesake = Authority::new("root").issue(&Leaf::of(&[WEB]));
    gate.refuses(&gate.tls.clone().with(&namesake), &["unknown_issuer", "bad_certificate"]);
    gate.refuses(&gate.tls, &["no_certificate"]);
    gate.lets_in(&gate.with(&Leaf::of(&[WEB])), Some(WEB));
}

#[test]
fn an_expectation_is_kept() {
    let gate =
        gate("clients: required, trust: ca.pem, expect: ['spiffe://shop/ns/web/**', 'spiffe://shop/ns/*/sa/probe']");
    for (uri, taken) in [
        ("spiffe://shop/ns/web/sa/web", true),
        ("spiffe://shop/ns/web/x", true),
        ("spiffe://shop/ns/cart/sa/probe", true),
        ("spiffe://shop/ns/web", false),
        ("spiffe://shop/ns/webx/sa/web", false),
        ("spiffe://shop/ns/cart/sa/cart", false),
        ("spiffe://shop/ns/a/b/sa/probe", false),
        ("spiffe://shop/ns/cart/sa/probe/x", false),
        ("spiffe://shop2/ns/web/sa/web", false),
    ] {
        let tls = gate.with(&Leaf::of(&[uri]));
        if taken { gate.lets_in(&tls, Some(uri)) } else { gate.refuses(&tls, &["wrong_identity"]) }
    }
}

#[test]
fn a_stolen_certificate_is_of_no_use() {
    let gate = gate("clients: required, trust: ca.pem");
    let (own, other) = (gate.authority.issue(&Leaf::of(&[WEB])), gate.authority.issue(&Leaf::of(&[WEB])));
    // The certificate of one with the key of another: what it signs fits nothing.
    let stolen = Issued { key: other.key, ..own };
    gate.refuses(&gate.tls.clone().with(&stolen), &["bad_certificate"]);
}

#[test]
fn a_certificate_without_identity_is_enough_where_only_issuers_are_asked_for() {
    let gate = gate("clients: required, trust: ca.pem");
    gate.lets_in(&gate.with(&Leaf::of(&["web.test"])), None);
    gate.lets_in(&gate.with(&Leaf::of(&[WEB])), Some(WEB));
    // Two are never an identity.
    let two = gate.with(&Leaf::of(&[WEB, "spiffe://shop/ns/admin"]));
    let mut client = two.connect(gate.proxy.address("web"), "a.test");
    let asked = client.try_send("GET /two HTTP/1.1\r\nHost: a.test\r\n\r\n").and_then(|()| client.try_answer("GET"));
    if asked.is_ok() {
        assert_eq!(gate.proxy.logged("/two")["source_identity"].as_str(), None);
    }
}
