//! `clients: migrate`: mutual TLS and plaintext on one port, and who still comes in plain is counted.

use crate::gate::{ask, gate, text};
use ringway_tests::certificates::{Authority, Leaf};
use ringway_tests::tls::{TLS_1_2, Tls};
use ringway_tests::{Client, Origin, Run, eventually};
use std::time::{Duration, Instant};

const MIGRATE: &str =
    "tls: { certificates: [ { certificate: own.pem, key: own.key } ], clients: migrate, trust: ca.pem },";
const WEB: &str = "spiffe://shop/ns/web/sa/web";

#[test]
fn both_are_taken_and_the_plain_ones_counted() {
    let gate = gate(&text(MIGRATE, "{ to: app }"));
    let plain = || gate.proxy.metrics().total("ringway_plaintext_connections_total", &[]);
    assert_eq!(ask(&mut gate.tls("web", Some(WEB)), "GET /tls").status, 200);
    assert_eq!(plain(), 0.0);
    assert_eq!(gate.proxy.logged("/tls")["source_identity"], WEB);
    let mut client = gate.proxy.client();
    for n in 0..3 {
        assert_eq!(ask(&mut client, &format!("GET /plain/{n}")).status, 200);
    }
    let line = gate.proxy.logged("/plain/0");
    assert!(line["source_identity"].is_null() && line["tls"].as_str().unwrap_or_default().is_empty(), "{line}");
    assert_eq!(plain(), 1.0, "connections are counted, not requests");
    assert_eq!(ask(&mut gate.proxy.client(), "GET /plain").status, 200);
    assert_eq!(plain(), 2.0);
    // In TLS a certificate is required.
    Tls::trusting(&[&gate.authority]).refused(gate.proxy.address("web"), "a.test");
    let other = Authority::new("other").issue(&Leaf::of(&[WEB]));
    Tls::trusting(&[&gate.authority]).with(&other).refused(gate.proxy.address("web"), "a.test");
    assert_eq!(plain(), 2.0);
    let failures = |reason: &str| {
        gate.proxy
            .metrics()
            .total("ringway_tls_handshake_failures_total", &[("side", "downstream"), ("reason", reason)])
    };
    eventually("both are counted", || (failures("no_certificate"), failures("unknown_issuer")) == (1.0, 1.0));
}

#[test]
fn a_tcp_service_gets_the_bytes_by_which_it_was_told() {
    let authority = Authority::new("root");
    let origin = Origin::new(|conversation| {
        let sent = conversation.rest().unwrap_or_default();
        conversation.send(sent);
    });
    let text = format!(
        "listeners:\n  web: {{ address: '127.0.0.1:$web', protocol: tcp, {MIGRATE} to: app }}\n\
         services:\n  app: {{ endpoints: [{}] }}\n",
        origin.address()
    );
    let run = Run::new(&text).file_of("ca.pem", &authority.pem());
    let proxy = run.pair("own", &authority.issue(&Leaf::of(&["a.test"]))).start();
    let mut client = proxy.client();
    client.send("hello").finish();
    assert_eq!(client.rest().unwrap(), b"hello");
}

#[test]
fn it_is_told_by_the_first_byte_however_it_comes() {
    let gate = gate(&text(MIGRATE, "{ to: app }"));
    let mut client = gate.proxy.client();
    client.send_in_pieces(b"GET /slow HTTP/1.1\r\nHost: a.test\r\n\r\n", 1, Duration::from_micros(300));
    assert_eq!(client.answer().status, 200);
    let own = gate.authority.issue(&Leaf::of(&[WEB]));
    for tls in [
        Tls::trusting(&[&gate.authority]).in_pieces(1),
        Tls::trusting(&[&gate.authority]).versions(TLS_1_2).hello_in_records(1),
    ] {
        let mut client = tls.with(&own).connect(gate.proxy.address("web"), "a.test");
        assert_eq!(ask(&mut client, "GET /").status, 200);
    }
    // Pipelined right behind each other.
    let mut client = gate.proxy.client();
    client.send("GET /n HTTP/1.1\r\nHost: a.test\r\n\r\n".repeat(20));
    (0..20).for_each(|_| assert_eq!(client.answer().status, 200));
}

#[test]
fn one_who_says_nothing_is_bounded_and_one_who_says_nonsense_is_refused() {
    let gate = gate(&(text(MIGRATE, "{ to: app }") + "limits: { request-timeout: 1s, idle-timeout: 3s }\n"));
    let mut silent = Client::to(gate.proxy.address("web"));
    let begun = Instant::now();
    let _end = silent.rest();
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    for bytes in [&b"\x15\x03\x01\x00\x02\x01\x00"[..], b"\x80\x2e\x01\x00\x02", b"\0\0\0\0\r\n\r\n"] {
        let mut client = Client::to(gate.proxy.address("web"));
        client.send(bytes).finish();
        if let Ok(answer) = client.try_answer("GET") {
            assert_eq!(answer.status, 400);
        }
    }
    assert_eq!(gate.origin.count(), 0);
}

#[test]
fn rules_tell_them_apart() {
    let routes = format!(
        "{{ name: pay, match: {{ path: /pay }}, allow: [ {{ name: web, identity: '{WEB}' }} ], to: app }}, {{ name: rest, to: app }}"
    );
    let gate = gate(&text(MIGRATE, &routes));
    for (path, plain, tls) in [("/pay", 403, 200), ("/other", 200, 200)] {
        assert_eq!(gate.status(&format!("GET {path}")), plain, "{path}");
        assert_eq!(ask(&mut gate.tls("web", Some(WEB)), &format!("GET {path}")).status, tls, "{path}");
    }
    // A plain client is nobody, whatever it says.
    assert_eq!(gate.status(&format!("GET /pay X-Forwarded-Client-Cert: URI={WEB}")), 403);
}
