//! A listener with TLS: which certificate a name gets, what is agreed on, and that bytes pass.

use crate::shop::{OWN, failed, made, pattern, tcp, web};
use ringway_tests::certificates::{Authority, Issued, Key, Leaf};
use ringway_tests::tls::{TLS_1_2, TLS_1_3, Tls};
use ringway_tests::{Answer, Client, Origin, Proxy, Run};
use std::time::Duration;

fn get(client: &mut Client, host: &str) -> Answer {
    client.send(format!("GET /as/{host} HTTP/1.1\r\nHost: {host}\r\n\r\n")).answer()
}

/// A proxy with four certificates: the default, an exact name, a wildcard, and an exact name under it.
fn four(origin: &Origin) -> (Proxy, Tls, [Issued; 4]) {
    let authority = Authority::new("root");
    let issue = |name: &str| authority.issue(&Leaf::of(&[name]));
    let issued = ["default.test", "shop.test", "*.shop.test", "a.shop.test"].map(issue);
    let names = ["one", "two", "three", "four"];
    let listed = names.map(|name| format!("{{ certificate: {name}.pem, key: {name}.key }}")).join(", ");
    let mut run = Run::new(&web(&format!("tls: {{ certificates: [ {listed} ] }},"), "", origin));
    for (name, issued) in names.iter().zip(&issued) {
        run = run.pair(name, issued);
    }
    (run.start(), Tls::trusting(&[&authority]).any_name(), issued)
}

#[test]
fn the_most_specific_name_gets_its_certificate_and_any_other_the_first() {
    let origin = Origin::echo();
    let (proxy, tls, issued) = four(&origin);
    for (name, which) in [
        ("shop.test", 1),
        ("SHOP.Test", 1),
        ("b.shop.test", 2),
        ("a.shop.test", 3),
        // A wildcard stands for one label (RFC 6125 section 6.4.3).
        ("x.y.shop.test", 0),
        ("notshop.test", 0),
        ("other.example", 0),
        ("default.test", 0),
    ] {
        for versions in [TLS_1_2, TLS_1_3] {
            let mut client = tls.clone().versions(versions).connect(proxy.address("web"), name);
            assert!(client.met().certificate.as_deref() == Some(&issued[which].der), "{name}");
            assert_eq!(get(&mut client, name).status, 200, "{name}");
        }
    }
    let mut client = tls.clone().no_name().connect(proxy.address("web"), "shop.test");
    assert!(client.met().certificate.as_deref() == Some(&issued[0].der));
    assert_eq!(get(&mut client, "default.test").status, 200);
}

#[test]
fn a_host_of_another_certificate_is_misdirected() {
    let origin = Origin::echo();
    let (proxy, tls, _) = four(&origin);
    let mut count = 0;
    for (name, host, right) in [
        ("shop.test", "shop.test", true),
        ("shop.test", "shop.test:8443", true),
        ("shop.test", "SHOP.TEST", true),
        ("b.shop.test", "c.shop.test", true),
        ("x.example", "y.example", true),
        ("shop.test", "a.shop.test", false),
        ("shop.test", "b.shop.test", false),
        ("a.shop.test", "shop.test", false),
        ("b.shop.test", "a.shop.test", false),
        ("b.shop.test", "x.example", false),
        ("x.example", "shop.test", false),
        ("x.example", "shop.test.", false),
        ("x.example", "SHOP.test:443", false),
    ] {
        let mut client = tls.connect(proxy.address("web"), name);
        let answer = get(&mut client, host);
        assert_eq!(answer.status, if right { 200 } else { 421 }, "{name}, then {host}");
        count += usize::from(right);
        assert_eq!(origin.count(), count, "{name}, then {host}");
    }
    assert_eq!(proxy.logged_ending("misdirected")["status"], 421);
    // A connection that was right once is looked at anew with each request.
    let mut client = tls.connect(proxy.address("web"), "shop.test");
    assert_eq!(get(&mut client, "shop.test").status, 200);
    assert_eq!(get(&mut client, "a.shop.test").status, 421);
}

#[test]
fn http_1_1_is_agreed_on_where_the_client_offers_protocols() {
    let authority = Authority::new("root");
    let origin = Origin::echo();
    let proxy = Run::new(&web(OWN, "", &origin)).pair("own", &authority.issue(&Leaf::of(&["a.test"]))).start();
    let tls = Tls::trusting(&[&authority]);
    for versions in [TLS_1_2, TLS_1_3] {
        for (offered, agreed) in [
            (&["http/1.1"][..], Some("http/1.1")),
            (&["h2", "http/1.1"], Some("http/1.1")),
            (&["http/1.1", "h2"], Some("http/1.1")),
            (&[], None),
        ] {
            let mut client = tls.clone().versions(versions).alpn(offered).connect(proxy.address("web"), "a.test");
            assert_eq!(client.met().alpn.as_deref(), agreed, "{offered:?}");
            assert_eq!(client.get("/").status, 200);
        }
        let refused = tls.clone().versions(versions).alpn(&["h2"]).try_connect(proxy.address("web"), "a.test");
        assert!(refused.is_err(), "h2 alone is not spoken here");
    }
    failed(&proxy, "downstream", &["no_common_alpn"], 2.0);
}

#[test]
fn every_suite_and_kind_of_key() {
    let authority = Authority::new("root");
    let origin = Origin::echo();
    for key in Key::ALL {
        let own = authority.issue(&Leaf::of(&["a.test"]).key(key));
        let proxy = Run::new(&web(OWN, "", &origin)).pair("own", &own).start();
        let mut count = 0.0;
        for (suite, version) in [
            ("TLS13_AES_128_GCM_SHA256", "TLSv1.3"),
            ("TLS13_AES_256_GCM_SHA384", "TLSv1.3"),
            ("TLS13_CHACHA20_POLY1305_SHA256", "TLSv1.3"),
            ("TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", "TLSv1.2"),
            ("TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", "TLSv1.2"),
            ("TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256", "TLSv1.2"),
        ] {
            let (versions, suite) = (if version == "TLSv1.3" { TLS_1_3 } else { TLS_1_2 }, key.suite(suite));
            let tls = Tls::trusting(&[&authority]).versions(versions).suite(suite);
            let mut client = tls.connect(proxy.address("web"), "a.test");
            assert_eq!((client.met().suite.as_str(), client.met().version.as_str()), (suite, version), "{key:?}");
            assert_eq!(client.get(&format!("/{suite}")).status, 200);
            let line = proxy.logged(suite);
            assert_eq!((line["tls"].as_str(), line["sni"].as_str()), (Some(version), Some("a.test")), "{line}");
            count += 1.0;
        }
        assert_eq!((made(&proxy, "downstream", false), made(&proxy, "downstream", true)), (count, 0.0));
    }
}

#[test]
fn keys_in_every_form_and_authorities_of_every_kind() {
    let origin = Origin::echo();
    for (root, key) in [
        (Key::Rsa, Key::P256),
        (Key::P256, Key::Rsa),
        (Key::Rsa, Key::Rsa),
        (Key::P384, Key::P384),
        (Key::Ed25519, Key::P256),
    ] {
        let authority = Authority::of("root", root);
        let own = authority.issue(&Leaf::of(&["a.test"]).key(key));
        for own in [own.with_bare_key(), own] {
            let proxy = Run::new(&web(OWN, "", &origin)).pair("own", &own).start();
            for versions in [TLS_1_2, TLS_1_3] {
                let tls = Tls::trusting(&[&authority]).versions(versions).resuming();
                for resumed in [false, true] {
                    let mut client = tls.connect(proxy.address("web"), "a.test");
                    assert_eq!(client.get("/").status, 200, "{root:?}, {key:?}");
                    assert_eq!(client.met().resumed, resumed, "{root:?}, {key:?}");
                }
            }
        }
    }
}

#[test]
fn what_stands_between_leaf_and_root_is_sent() {
    let root = Authority::new("root");
    let authority = root.under("between").under("below");
    let origin = Origin::echo();
    let proxy = Run::new(&web(OWN, "", &origin)).pair("own", &authority.issue(&Leaf::of(&["a.test"]))).start();
    assert_eq!(Tls::trusting(&[&root]).connect(proxy.address("web"), "a.test").get("/").status, 200);
}

#[test]
fn a_hello_in_pieces_in_several_records_and_a_large_one() {
    let authority = Authority::new("root");
    let origin = Origin::echo();
    let proxy = Run::new(&web(OWN, "", &origin)).pair("own", &authority.issue(&Leaf::of(&["a.test"]))).start();
    let tls = Tls::trusting(&[&authority]).alpn(&["http/1.1"]);
    for tls in [
        tls.clone().in_pieces(1),
        tls.clone().in_pieces(7),
        tls.clone().hello_in_records(1),
        tls.clone().hello_in_records(100),
        tls.clone().hello_in_records(33).in_pieces(50),
        tls.clone().versions(TLS_1_2).in_pieces(1),
    ] {
        let mut client = tls.connect(proxy.address("web"), "a.test");
        assert_eq!(client.get("/").status, 200, "{tls:?}");
        assert_eq!(client.get("/").status, 200, "{tls:?}");
    }
    // Ten kilobytes of application protocols.
    let offered: Vec<String> = (0..200).map(|n| format!("{n}-{}", "x".repeat(50))).collect();
    let mut offered: Vec<&str> = offered.iter().map(String::as_str).collect();
    offered.push("http/1.1");
    let mut client = tls.alpn(&offered).connect(proxy.address("web"), "a.test");
    assert_eq!(client.get("/").status, 200);
}

#[test]
fn a_record_may_take_its_time() {
    // Longer between its parts than a connection lingers for its next request.
    let authority = Authority::new("root");
    let origin = Origin::echo();
    let proxy = Run::new(&web(OWN, "", &origin)).pair("own", &authority.issue(&Leaf::of(&["a.test"]))).start();
    for versions in [TLS_1_2, TLS_1_3] {
        let tls = Tls::trusting(&[&authority]).versions(versions).in_slow_pieces(50, Duration::from_millis(60));
        let mut client = tls.connect(proxy.address("web"), "a.test");
        for _ in 0..3 {
            assert_eq!(client.get("/a/path/that/makes/the/record/longer/than/one/piece/of/it").status, 200);
        }
    }
}

#[test]
fn a_request_right_behind_the_handshake_waits_its_turn() {
    // The Finished and the request in one segment, and many requests in one record.
    let authority = Authority::new("root");
    let origin = Origin::echo();
    let proxy = Run::new(&web(OWN, "", &origin)).pair("own", &authority.issue(&Leaf::of(&["a.test"]))).start();
    for versions in [TLS_1_2, TLS_1_3] {
        let mut client = Tls::trusting(&[&authority]).versions(versions).connect(proxy.address("web"), "a.test");
        client.send("GET /n HTTP/1.1\r\nHost: a.test\r\n\r\n".repeat(100));
        for _ in 0..100 {
            assert_eq!(client.answer().status, 200);
        }
    }
}

#[test]
fn tcp_over_tls_passes_bytes_and_ends_both_ways() {
    let authority = Authority::new("root");
    let origin = Origin::new(|conversation| {
        while let Some(bytes) = conversation.some() {
            conversation.send(bytes);
        }
        conversation.send("bye");
        conversation.finish();
    });
    let proxy = Run::new(&tcp(OWN, "", &origin)).pair("own", &authority.issue(&Leaf::of(&["a.test"]))).start();
    for versions in [TLS_1_2, TLS_1_3] {
        let mut client = Tls::trusting(&[&authority]).versions(versions).connect(proxy.address("web"), "a.test");
        for size in [1, 100, 16_384, 16_385, 50_000] {
            let bytes = pattern(size, size as u64);
            client.send(&bytes);
            assert!(client.read(size) == bytes, "{size} bytes differ");
        }
        client.finish();
        assert_eq!(client.rest().expect("an end with close_notify"), b"bye");
    }
    // Nothing about protocols is agreed on: the bytes are the service's affair.
    let mut client = Tls::trusting(&[&authority]).alpn(&["postgresql"]).connect(proxy.address("web"), "a.test");
    assert_eq!(client.met().alpn, None);
    client.send("x");
    assert_eq!(client.read(1), b"x");
}

#[test]
fn tcp_over_tls_carries_megabytes_both_ways_at_once() {
    let authority = Authority::new("root");
    const SIZE: usize = 3_000_000;
    let origin = Origin::new(|conversation| {
        // The first byte is answered with all of it, while the rest comes.
        conversation.read(1);
        conversation.send(pattern(SIZE, 1));
        let same = conversation.read(SIZE).is_some_and(|bytes| bytes == pattern(SIZE, 2));
        conversation.send(if same { "same" } else { "other" });
    });
    let proxy = Run::new(&tcp(OWN, "", &origin)).pair("own", &authority.issue(&Leaf::of(&["a.test"]))).start();
    let mut client = Tls::trusting(&[&authority]).connect(proxy.address("web"), "a.test");
    client.send("!");
    assert!(client.read(SIZE) == pattern(SIZE, 1));
    client.send(pattern(SIZE, 2));
    assert_eq!(client.read(4), b"same");
}

#[test]
fn an_idle_connection_stays_and_its_timeout_ends_it() {
    let authority = Authority::new("root");
    let origin = Origin::echo();
    let text = web(OWN, "", &origin) + "limits: { idle-timeout: 500ms }\n";
    let proxy = Run::new(&text).pair("own", &authority.issue(&Leaf::of(&["a.test"]))).start();
    let mut client = Tls::trusting(&[&authority]).connect(proxy.address("web"), "a.test");
    for _ in 0..3 {
        std::thread::sleep(Duration::from_millis(250));
        assert_eq!(client.get("/").status, 200);
    }
    assert_eq!(client.rest().expect("an end with close_notify"), b"");
}
