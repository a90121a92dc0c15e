//! TLS towards a service: who must answer, what we show, how connections are kept and resumed, and that a service that is not the
//! expected one gets nothing.

use crate::shop::{failed, failures, made, pattern, tcp, web};
use ringway_tests::certificates::{Authority, Key, Leaf, Usage};
use ringway_tests::tls::{Server, TLS_1_2, TLS_1_3, first_of};
use ringway_tests::{Client, Origin, Proxy, Run, answers, describe, eventually, respond};

const CART: &str = "spiffe://shop/ns/cart/sa/cart";
const EDGE: &str = "spiffe://shop/ns/edge/sa/edge";
/// An identity of the proxy, in files.
const IDENTITY: &str = "identity: { certificate: edge.pem, key: edge.key, trust: ca.pem }\n";

fn echo(server: &Server) -> Origin {
    Origin::secure(
        server,
        answers(|seen| respond(200, "Content-Type: application/json\r\n", describe(seen).as_bytes())),
    )
}

/// A proxy with an identity in front of one origin, for whose service these words stand.
fn proxy(authority: &Authority, service: &str, origin: &Origin) -> Proxy {
    let text = format!("{IDENTITY}{}", web("", service, origin));
    let run = Run::new(&text).file_of("ca.pem", &authority.pem());
    run.pair("edge", &authority.issue(&Leaf::of(&[EDGE]))).start()
}

/// The service's answer is not its own: 503, and nothing of the request was sent.
fn refuses(proxy: &Proxy, origin: &Origin, reasons: &[&str]) {
    let requests = origin.count();
    let before = failures(&proxy.metrics(), "upstream", reasons);
    let path = format!("/refused/{requests}/{before}");
    let answer = proxy.client().get(&path);
    assert_eq!(answer.status, 503, "{answer:?}");
    let line = proxy.logged(&path);
    assert_eq!(line["ending"], "upstream_tls", "{line}");
    assert!(line["detail"].as_str().is_some_and(|why| reasons.contains(&why)), "{reasons:?}: {line}");
    assert!(failures(&proxy.metrics(), "upstream", reasons) > before, "{reasons:?}");
    assert_eq!(origin.count(), requests, "a request went to one who is not who was expected");
}

#[test]
fn a_name_is_expected_of_given_roots() {
    let authority = Authority::new("root");
    for versions in [TLS_1_2, TLS_1_3] {
        let own = authority.issue(&Leaf::of(&["origin.test", "*.wild.test"]));
        let origin = echo(&Server::new(&own).versions(versions).alpn(&["http/1.1"]));
        for (expect, sni, asked) in [
            ("origin.test", "", "origin.test"),
            ("origin.test", "sni: other.test,", "other.test"),
            ("a.wild.test", "", "a.wild.test"),
            ("[wrong.test, origin.test]", "sni: origin.test,", "origin.test"),
        ] {
            let proxy = Run::new(&web("", &format!("tls: {{ {sni} expect: {expect}, trust: ca.pem }},"), &origin));
            let proxy = proxy.file_of("ca.pem", &authority.pem()).start();
            assert_eq!(proxy.client().get("/").status, 200, "{expect}");
            let met = origin.met().pop().unwrap();
            assert_eq!((met.name.as_deref(), met.alpn.as_deref()), (Some(asked), Some("http/1.1")));
            assert_eq!((met.certificate, made(&proxy, "upstream", false)), (None, 1.0));
        }
        for expect in ["other.test", "wild.test", "a.b.wild.test", "xorigin.test"] {
            let proxy = Run::new(&web("", &format!("tls: {{ expect: {expect}, trust: ca.pem }},"), &origin));
            let proxy = proxy.file_of("ca.pem", &authority.pem()).start();
            refuses(&proxy, &origin, &["wrong_name"]);
        }
    }
}

#[test]
fn system_roots_do_not_know_our_authority() {
    let authority = Authority::new("root");
    let origin = echo(&Server::new(&authority.issue(&Leaf::of(&["origin.test"]))));
    let proxy = Proxy::start(&web("", "tls: { expect: origin.test },", &origin));
    refuses(&proxy, &origin, &["unknown_issuer"]);
}

#[test]
fn an_identity_is_expected_and_ours_is_shown() {
    let authority = Authority::new("root");
    for versions in [TLS_1_2, TLS_1_3] {
        let own = authority.issue(&Leaf::of(&[CART]));
        let origin = echo(&Server::new(&own).versions(versions).clients(&[&authority], true));
        for expect in [
            CART,
            "spiffe://shop/ns/cart/**",
            "spiffe://shop/ns/*/sa/cart",
            "[spiffe://shop/x, spiffe://shop/ns/cart/**]",
        ] {
            let expect = if expect.starts_with('[') { expect.to_owned() } else { format!("'{expect}'") };
            let proxy = proxy(&authority, &format!("tls: {{ expect: {expect} }},"), &origin);
            let path = format!("/{}", origin.count());
            assert_eq!(proxy.client().get(&path).status, 200, "{expect}");
            let line = proxy.logged(&path);
            assert_eq!(line["destination_identity"].as_str(), Some(CART), "{line}");
            let shown = origin.met().pop().unwrap().certificate.expect("ours is shown");
            let pem = std::fs::read_to_string(proxy.folder().join("edge.pem")).unwrap();
            assert!(first_of(&pem) == shown);
        }
        for expect in ["spiffe://shop/ns/cart/sa/other", "spiffe://shop/ns/web/**", "spiffe://bank/ns/cart/sa/cart"] {
            let proxy = proxy(&authority, &format!("tls: {{ expect: '{expect}' }},"), &origin);
            refuses(&proxy, &origin, &["wrong_identity"]);
        }
    }
}

#[test]
fn our_certificate_is_not_shown_where_that_is_said() {
    let authority = Authority::new("root");
    let origin = echo(&Server::new(&authority.issue(&Leaf::of(&[CART]))).clients(&[&authority], false));
    for (more, shown) in [("", true), ("offer-identity: false,", false), ("offer-identity: true,", true)] {
        let proxy = proxy(&authority, &format!("tls: {{ {more} expect: '{CART}' }},"), &origin);
        assert_eq!(proxy.client().get("/").status, 200);
        assert_eq!(origin.met().pop().unwrap().certificate.is_some(), shown, "{more}");
    }
}

#[test]
fn each_bad_service_has_its_reason() {
    let authority = Authority::new("root");
    let identity = &["wrong_identity", "bad_certificate"];
    for (leaf, reasons) in [
        (Leaf::of(&[CART]).expired(), &["expired"][..]),
        (Leaf::of(&[CART]).not_yet(), &["not_yet_valid"]),
        (Leaf::of(&[CART]).usage(Usage::Client), &["wrong_usage"]),
        (Leaf::of(&[CART]).usage(Usage::Other), &["wrong_usage"]),
        (Leaf::of(&[CART, "spiffe://shop/ns/web/sa/web"]), identity),
        (Leaf::of(&["origin.test"]), identity),
        (Leaf::of(&[]).raw_uri(b"spiffe://shop/ns/cart/sa/cart\0"), identity),
        (Leaf::of(&["spiffe://bank/ns/cart/sa/cart"]), &["wrong_identity"]),
    ] {
        let origin = echo(&Server::new(&authority.issue(&leaf)));
        let proxy = proxy(&authority, &format!("tls: {{ expect: '{CART}' }},"), &origin);
        refuses(&proxy, &origin, reasons);
        eventually("the service hears of it", || !origin.refused().is_empty() || !origin.met().is_empty());
    }
    let other = Authority::new("other");
    let origin = echo(&Server::new(&other.issue(&Leaf::of(&[CART]))));
    refuses(&proxy(&authority, &format!("tls: {{ expect: '{CART}' }},"), &origin), &origin, &["unknown_issuer"]);
    // Plaintext where TLS is expected.
    let origin = Origin::new(|conversation| {
        conversation.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfake");
        conversation.some();
    });
    refuses(&proxy(&authority, &format!("tls: {{ expect: '{CART}' }},"), &origin), &origin, &["not_tls", "bad_record"]);
}

#[test]
fn a_revoked_service_gets_nothing() {
    let authority = Authority::new("root");
    let (good, revoked) = (authority.issue(&Leaf::of(&["a.test"])), authority.issue(&Leaf::of(&["a.test"])));
    for (own, status) in [(&good, 200), (&revoked, 503)] {
        let origin = echo(&Server::new(own));
        let service = "tls: { expect: a.test, trust: { roots: [ca.pem], crl: revoked.pem } },";
        let run = Run::new(&web("", service, &origin)).file_of("ca.pem", &authority.pem());
        let proxy = run.file_of("revoked.pem", &authority.revoke(&[&revoked])).start();
        if status == 503 {
            refuses(&proxy, &origin, &["revoked"]);
        }
        assert_eq!(proxy.client().get("/").status, status);
    }
}

#[test]
fn a_service_that_refuses_us_is_a_503_and_not_a_hang() {
    let authority = Authority::new("root");
    for versions in [TLS_1_2, TLS_1_3] {
        let own = authority.issue(&Leaf::of(&["a.test"]));
        let origin = echo(&Server::new(&own).versions(versions).clients(&[&authority], true));
        let proxy = Run::new(&web("", "tls: { expect: a.test, trust: ca.pem },", &origin));
        let proxy = proxy.file_of("ca.pem", &authority.pem()).start();
        let answer = proxy.client().get("/none-to-show");
        // In TLS 1.3 the refusal comes behind our request: an answer that never came is 502.
        let expected = if versions == TLS_1_2 { &[503][..] } else { &[502, 503] };
        assert!(expected.contains(&answer.status), "{answer:?}");
        assert_eq!(origin.count(), 0);
    }
}

#[test]
fn a_service_that_only_listens_is_bounded() {
    let authority = Authority::new("root");
    let origin = Origin::new(|conversation| {
        conversation.rest();
    });
    let proxy = proxy(&authority, &format!("connect-timeout: 500ms, tls: {{ expect: '{CART}' }},"), &origin);
    let begun = std::time::Instant::now();
    let status = proxy.client().get("/").status;
    assert!(matches!(status, 503 | 504), "{status}");
    assert!(begun.elapsed().as_secs() < 15, "{:?}", begun.elapsed());
    assert!(failures(&proxy.metrics(), "upstream", &["timeout"]) > 0.0, "counted by its reason");
}

#[test]
fn a_service_that_was_made_to_speak_an_old_version_is_refused() {
    // A ServerHello of a version, with such an end of its random (RFC 8446 section 4.1.3), by whoever stands between.
    let hello = |version: u8, end: &[u8; 8]| {
        let mut hello = vec![22, 3, 3, 0, 49, 2, 0, 0, 45, 3, version];
        hello.extend_from_slice(&[7; 24]);
        hello.extend_from_slice(end);
        // No session, TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, no compression; renegotiation_info.
        hello.extend_from_slice(&[0, 0xC0, 0x2B, 0, 0, 5, 0xFF, 1, 0, 1, 0]);
        hello
    };
    let authority = Authority::new("root");
    for (bytes, reasons) in [
        (hello(3, b"DOWNGRD\x01"), &["bad_record"][..]),
        (hello(2, &[7; 8]), &["no_common_version"]),
        (hello(1, &[7; 8]), &["no_common_version"]),
        (hello(0, &[7; 8]), &["no_common_version"]),
        // The same in order: it is the certificate that is waited for.
        (hello(3, &[7; 8]), &["timeout"]),
    ] {
        let sent = bytes.clone();
        let origin = Origin::new(move |conversation| {
            conversation.some();
            conversation.send(&sent).rest();
        });
        let service = "connect-timeout: 2s, tls: { expect: a.test, trust: ca.pem },";
        let proxy = Run::new(&web("", service, &origin)).file_of("ca.pem", &authority.pem()).start();
        let status = proxy.client().get("/").status;
        assert!(matches!(status, 503 | 504), "{status}");
        let count = failures(&proxy.metrics(), "upstream", reasons);
        let metrics = proxy.metrics();
        let told: Vec<_> = metrics.all("ringway_tls_handshake_failures_total", &[]).filter(|s| s.value > 0.0).collect();
        assert!(count > 0.0, "{reasons:?}: {told:?}");
    }
}

#[test]
fn connections_are_kept_and_sessions_resumed() {
    let authority = Authority::new("root");
    for versions in [TLS_1_2, TLS_1_3] {
        let server = Server::new(&authority.issue(&Leaf::of(&[CART]))).versions(versions).clients(&[&authority], true);
        let origin = echo(&server);
        let proxy_of = |origin: &Origin| proxy(&authority, &format!("tls: {{ expect: '{CART}' }},"), origin);
        let proxy = proxy_of(&origin);
        for n in 0..30 {
            assert_eq!(proxy.client().get(&format!("/{n}")).status, 200);
        }
        assert_eq!((origin.connections(), made(&proxy, "upstream", false)), (1, 1.0));
        // One that closes each time, and is met again.
        let origin = Origin::secure(&server, |conversation| {
            if conversation.request().is_some() {
                conversation.send(respond(200, "Connection: close\r\n", b"x"));
            }
        });
        let proxy = proxy_of(&origin);
        for n in 0..5 {
            assert_eq!(proxy.client().get(&format!("/{n}")).status, 200);
        }
        let resumed: Vec<bool> = origin.met().iter().map(|met| met.resumed).collect();
        assert_eq!(resumed, [false, true, true, true, true], "{versions:?}");
        assert_eq!((made(&proxy, "upstream", false), made(&proxy, "upstream", true)), (1.0, 4.0));
    }
}

#[test]
fn two_services_at_one_address_share_no_connection_and_no_session() {
    // What was checked for one expectation must not serve another.
    let authority = Authority::new("root");
    for close in ["", "Connection: close\r\n"] {
        let server = Server::new(&authority.issue(&Leaf::of(&[CART]))).clients(&[&authority], false);
        let origin = Origin::secure(&server, answers(move |_| respond(200, close, b"x")));
        let at = origin.address();
        let text = format!(
            "{IDENTITY}listeners:\n  web: {{ address: '127.0.0.1:$web', routes: [ {{ match: {{ path: /cart }}, to: cart }}, {{ match: {{ path: /web }}, to: web }}, {{ match: {{ path: /bare }}, to: bare }} ] }}\n\
             services:\n  cart: {{ endpoints: [{at}], tls: {{ expect: '{CART}' }} }}\n  \
             web: {{ endpoints: [{at}], tls: {{ expect: 'spiffe://shop/ns/web/**' }} }}\n  \
             bare: {{ endpoints: [{at}], tls: {{ expect: '{CART}', offer-identity: false }} }}\n"
        );
        let run = Run::new(&text).file_of("ca.pem", &authority.pem());
        let proxy = run.pair("edge", &authority.issue(&Leaf::of(&[EDGE]))).start();
        for _ in 0..3 {
            assert_eq!(proxy.client().get("/cart").status, 200);
            assert_eq!(proxy.client().get("/web").status, 503);
            let before = origin.met().len();
            assert_eq!(proxy.client().get("/bare").status, 200);
            let met = origin.met();
            assert!(met[before..].iter().all(|met| met.certificate.is_none()), "an identity that was not to be shown");
        }
    }
}

#[test]
fn every_suite_and_kind_of_key() {
    let authority = Authority::new("root");
    for key in Key::ALL {
        for (suite, versions) in [
            ("TLS13_AES_128_GCM_SHA256", TLS_1_3),
            ("TLS13_AES_256_GCM_SHA384", TLS_1_3),
            ("TLS13_CHACHA20_POLY1305_SHA256", TLS_1_3),
            ("TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", TLS_1_2),
            ("TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", TLS_1_2),
            ("TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256", TLS_1_2),
        ] {
            let suite = key.suite(suite);
            let server = Server::new(&authority.issue(&Leaf::of(&["a.test"]).key(key))).versions(versions).suite(suite);
            let body = pattern(40_000, 7);
            let sent = body.clone();
            let origin = Origin::secure(&server, answers(move |_| respond(200, "", &sent)));
            let proxy = Run::new(&web("", "tls: { expect: a.test, trust: ca.pem },", &origin));
            let proxy = proxy.file_of("ca.pem", &authority.pem()).start();
            assert!(proxy.client().get("/").body == body, "{suite}, {key:?}");
            assert_eq!(origin.met().pop().unwrap().suite, suite);
        }
    }
}

#[test]
fn tcp_to_a_service_with_tls() {
    let authority = Authority::new("root");
    let origin = Origin::secure(&Server::new(&authority.issue(&Leaf::of(&["a.test"]))), |conversation| {
        while let Some(bytes) = conversation.some() {
            conversation.send(bytes);
        }
        conversation.send("bye");
    });
    let proxy = Run::new(&tcp("", "tls: { expect: a.test, trust: ca.pem },", &origin));
    let proxy = proxy.file_of("ca.pem", &authority.pem()).start();
    let mut client = Client::to(proxy.address("web"));
    for size in [1, 16_384, 100_000] {
        let bytes = pattern(size, 3);
        client.send(&bytes);
        assert!(client.read(size) == bytes);
    }
    client.finish();
    assert_eq!(client.rest().unwrap(), b"bye");
    // Of another name: the connection comes to nothing.
    let proxy = Run::new(&tcp("", "tls: { expect: b.test, trust: ca.pem },", &origin));
    let proxy = proxy.file_of("ca.pem", &authority.pem()).start();
    let mut client = Client::to(proxy.address("web"));
    let _taken = client.try_send("x");
    assert!(client.is_closed());
    failed(&proxy, "upstream", &["wrong_name"], 1.0);
}
