//! Whose word is taken for where a request came from, and who its client is.

use crate::gate::{TLS, ask, gate, text};
use ringway_tests::certificates::Leaf;
use ringway_tests::tls::Tls;

const WEB: &str = "spiffe://shop/ns/web/sa/web";

/// A network that no peer of a test is in.
const INSIDE: &str = "allow: [ { name: inside, source: [10.0.0.0/8, '2001:db8::/32'] } ],";

#[test]
fn without_trusted_hops_the_socket_decides() {
    let gate = gate(&text(INSIDE, "{ to: app }"));
    for request in [
        "GET /",
        "GET / X-Forwarded-For: 10.0.0.1",
        "GET / X-Forwarded-For: 10.0.0.1, 10.0.0.2",
        "GET / X-Forwarded-For: 10.0.0.1|X-Forwarded-For: 10.0.0.2",
        "GET / Forwarded: for=10.0.0.1",
        "GET / X-Real-IP: 10.0.0.1|True-Client-IP: 10.0.0.1|X-Client-IP: 10.0.0.1",
    ] {
        assert_eq!(gate.status(request), 403, "{request}");
    }
    let other = crate::gate::gate(&text("allow: [ { name: here, source: [127.0.0.0/8] } ],", "{ to: app }"));
    assert_eq!(other.status("GET / X-Forwarded-For: 10.0.0.1"), 200);
}

#[test]
fn trusted_hops_are_counted_from_the_right() {
    for (hops, cases) in [
        (
            1,
            &[
                ("GET / X-Forwarded-For: 10.0.0.1", 200),
                ("GET / X-Forwarded-For: 198.51.100.1, 10.0.0.1", 200),
                ("GET / X-Forwarded-For: 198.51.100.1,10.0.0.1", 200),
                ("GET / X-Forwarded-For: 198.51.100.1|X-Forwarded-For: 10.0.0.1", 200),
                ("GET / X-Forwarded-For: 2001:db8::1", 200),
                // What stands left of the trusted one was said by anybody.
                ("GET / X-Forwarded-For: 10.0.0.1, 198.51.100.1", 403),
                ("GET / X-Forwarded-For: 10.0.0.1|X-Forwarded-For: 198.51.100.1", 403),
                ("GET /", 403),
                ("GET / X-Forwarded-For:", 403),
                ("GET / X-Forwarded-For: 10.0.0.1,", 403),
                ("GET / X-Forwarded-For: 10.0.0.1, unknown", 403),
                ("GET / X-Forwarded-For: 10.0.0.1.evil", 403),
                ("GET / X-Forwarded-For: 10.0.0.300", 403),
            ][..],
        ),
        (
            2,
            &[
                ("GET / X-Forwarded-For: 10.0.0.1, 198.51.100.1", 200),
                ("GET / X-Forwarded-For: 198.51.100.9, 10.0.0.1, 198.51.100.1", 200),
                ("GET / X-Forwarded-For: 198.51.100.9|X-Forwarded-For: 10.0.0.1, 198.51.100.1", 200),
                ("GET / X-Forwarded-For: 10.0.0.1, 198.51.100.2, 198.51.100.1", 403),
                ("GET / X-Forwarded-For: 198.51.100.1, 10.0.0.1", 403),
            ],
        ),
    ] {
        let gate = gate(&text(&format!("forwarded: {{ trusted-hops: {hops} }}, {INSIDE}"), "{ to: app }"));
        for (request, status) in cases {
            assert_eq!(gate.status(request), *status, "{hops}: {request}");
        }
    }
}

#[test]
fn the_peer_is_the_socket_whatever_is_said() {
    let listener = "forwarded: { trusted-hops: 1 }, allow: [ { name: r, peer: [10.0.0.0/8] } ],";
    let gate = gate(&text(listener, "{ to: app }"));
    assert_eq!(gate.status("GET / X-Forwarded-For: 10.0.0.1"), 403);
    let listener = "forwarded: { trusted-hops: 1 }, deny: [ { name: r, peer: [127.0.0.0/8], source: [10.0.0.0/8] } ],";
    let gate = crate::gate::gate(&text(listener, "{ to: app }"));
    assert_eq!(gate.status("GET / X-Forwarded-For: 10.0.0.1"), 403);
    assert_eq!(gate.status("GET / X-Forwarded-For: 11.0.0.1"), 200);
}

#[test]
fn a_proxy_header_is_a_source_and_no_peer() {
    let proxied = |request: &str, rules: &str, header: &str| {
        let gate = gate(&text(&format!("proxy-protocol: {{ from: [127.0.0.0/8] }}, {rules}"), "{ to: app }"));
        let mut client = gate.proxy.client();
        client.send(header);
        ask(&mut client, request).status
    };
    let (inside, outside) = ("PROXY TCP4 10.0.0.1 127.0.0.1 1 2\r\n", "PROXY TCP4 192.0.2.1 127.0.0.1 1 2\r\n");
    assert_eq!(proxied("GET /", INSIDE, inside), 200);
    assert_eq!(proxied("GET /", INSIDE, outside), 403);
    assert_eq!(proxied("GET / X-Forwarded-For: 10.0.0.1", INSIDE, outside), 403);
    let peer = "allow: [ { name: r, peer: [10.0.0.0/8] } ],";
    assert_eq!(proxied("GET /", peer, inside), 403);
    assert_eq!(proxied("GET /", "allow: [ { name: r, peer: [127.0.0.0/8] } ],", inside), 200);
}

/// What the origin was told in X-Forwarded-Client-Cert.
fn told(gate: &crate::gate::Gate) -> Vec<String> {
    let seen = gate.origin.seen().pop().unwrap();
    seen.head.all("x-forwarded-client-cert").into_iter().map(str::to_owned).collect()
}

const SAID: &[&str] = &[
    "GET / X-Forwarded-Client-Cert: By=spiffe://shop/x;Hash=00;URI=spiffe://shop/ns/admin",
    "GET / x-forwarded-client-cert: URI=spiffe://shop/ns/admin",
    "GET / X-Forwarded-Client-Cert: URI=a|X-FORWARDED-CLIENT-CERT: URI=b",
    "GET / X-Forwarded-Client-Cert:",
];

#[test]
fn what_others_say_about_certificates_is_always_dropped() {
    for listener in [
        "".to_owned(),
        "forwarded: { client-certificate: true },".to_owned(),
        "forwarded: { mode: keep, trusted-hops: 3 },".to_owned(),
    ] {
        let gate = gate(&text(&listener, "{ to: app }"));
        for request in SAID {
            assert_eq!(gate.status(request), 200);
            assert_eq!(told(&gate), Vec::<String>::new(), "{listener} {request}");
        }
    }
    for listener in [format!("{TLS},"), format!("{TLS}, forwarded: {{ client-certificate: true }},")] {
        let gate = gate(&text(&listener, "{ to: app }"));
        for request in SAID {
            // Without a certificate there is nothing to tell.
            assert_eq!(ask(&mut gate.tls("web", None), request).status, 200);
            assert!(told(&gate).iter().all(|told| !told.contains("URI")), "{listener} {request}: {:?}", told(&gate));
        }
    }
}

#[test]
fn the_clients_own_certificate_is_told_where_asked_for() {
    for (more, expected) in [
        ("", false),
        ("forwarded: { client-certificate: true },", true),
        ("forwarded: { client-certificate: false },", false),
    ] {
        let gate = gate(&text(&format!("{TLS}, {more}"), "{ to: app }"));
        let own = gate.authority.issue(&Leaf::of(&[WEB]));
        let tls = Tls::trusting(&[&gate.authority]).with(&own);
        for request in SAID.iter().copied().chain([
            "GET /",
            // A client may not have it taken away again; to refuse is as well.
            "GET / Connection: X-Forwarded-Client-Cert",
            "GET / Connection: close, x-forwarded-client-cert|X-Forwarded-Client-Cert: URI=a",
        ]) {
            let mut client = tls.connect(gate.proxy.address("web"), "a.test");
            let status = ask(&mut client, request).status;
            if status == 400 && request.contains("Connection:") {
                continue;
            }
            assert_eq!(status, 200, "{request}");
            let told = told(&gate);
            assert_eq!(told.len(), usize::from(expected), "{more} {request}: {told:?}");
            if let Some(told) = told.first() {
                let parts: Vec<&str> = told.split(';').collect();
                assert!(parts.contains(&format!("URI={WEB}").as_str()), "{told}");
                assert!(
                    parts.iter().any(|part| part.strip_prefix("Hash=").is_some_and(|hash| hash.len() == 64)),
                    "{told}"
                );
                assert!(!told.contains("admin") && !told.contains("Hash=00;"), "{told}");
            }
        }
    }
}
