//! Session tickets: resumption on every core, with the identity that was proved first, and never past a change of what the
//! verifier wants.

use crate::shop::{OWN, made, web};
use ringway_tests::certificates::{Authority, Leaf};
use ringway_tests::tls::{TLS_1_2, TLS_1_3, Tls};
use ringway_tests::{Client, Origin, Proxy, Run, eventually};

/// Tickets come behind the handshake: an answer is read first.
fn ask(client: &mut Client, path: &str) -> u16 {
    client.send(format!("GET {path} HTTP/1.1\r\nHost: a.test\r\n\r\n"));
    client.try_answer("GET").map_or(0, |answer| answer.status)
}

#[test]
fn sessions_resume_on_every_core() {
    let authority = Authority::new("root");
    let origin = Origin::echo();
    let text = web(OWN, "", &origin) + "cores: 2\n";
    let proxy = Run::new(&text).pair("own", &authority.issue(&Leaf::of(&["a.test"]))).start();
    for versions in [TLS_1_2, TLS_1_3] {
        let tls = Tls::trusting(&[&authority]).versions(versions).resuming();
        let mut resumed = 0;
        // The kernel chooses the core by the port: some of these meet the other one.
        for n in 0..16 {
            let mut client = tls.connect(proxy.address("web"), "a.test");
            assert_eq!(ask(&mut client, "/"), 200);
            assert_eq!(client.met().resumed, n > 0, "connection {n}");
            resumed += u32::from(client.met().resumed);
        }
        assert_eq!(resumed, 15);
    }
    assert_eq!((made(&proxy, "downstream", false), made(&proxy, "downstream", true)), (2.0, 30.0));
}

#[test]
fn without_tickets_every_handshake_is_a_full_one() {
    let authority = Authority::new("root");
    let origin = Origin::echo();
    let listener = "tls: { certificates: [ { certificate: own.pem, key: own.key } ], tickets: false },";
    let proxy = Run::new(&web(listener, "", &origin)).pair("own", &authority.issue(&Leaf::of(&["a.test"]))).start();
    for versions in [TLS_1_2, TLS_1_3] {
        let tls = Tls::trusting(&[&authority]).versions(versions).resuming();
        for _ in 0..3 {
            let mut client = tls.connect(proxy.address("web"), "a.test");
            assert_eq!(ask(&mut client, "/"), 200);
            assert!(!client.met().resumed);
        }
    }
    assert_eq!((made(&proxy, "downstream", false), made(&proxy, "downstream", true)), (6.0, 0.0));
}

#[test]
fn a_resumed_session_has_the_identity_that_was_proved() {
    let authority = Authority::new("root");
    let origin = Origin::echo();
    let listener = "tls: { certificates: [ { certificate: own.pem, key: own.key } ], clients: required, trust: ca.pem }, \
                    allow: [ { name: web, identity: 'spiffe://shop/ns/web/sa/web' } ],";
    let run = Run::new(&web(listener, "", &origin)).file_of("ca.pem", &authority.pem());
    let proxy = run.pair("own", &authority.issue(&Leaf::of(&["a.test"]))).start();
    for versions in [TLS_1_2, TLS_1_3] {
        for (uri, status) in [("spiffe://shop/ns/web/sa/web", 200), ("spiffe://shop/ns/web/sa/other", 403)] {
            let own = authority.issue(&Leaf::of(&[uri]));
            let tls = Tls::trusting(&[&authority]).with(&own).versions(versions).resuming();
            for n in 0..3 {
                let mut client = tls.connect(proxy.address("web"), "a.test");
                let path = format!("/{}/{status}/{n}", client.met().version);
                assert_eq!(ask(&mut client, &path), status, "{path}");
                assert_eq!(client.met().resumed, n > 0, "{path}");
                assert_eq!(proxy.logged(&path)["source_identity"], uri);
            }
        }
    }
}

/// Two listeners with one certificate that want different clients.
fn two(one: &str, two: &str, origin: &Origin) -> String {
    let listener = |name: &str, tls: &str| {
        format!(
            "  {name}: {{ address: '127.0.0.1:${name}', tls: {{ certificates: [ {{ certificate: own.pem, key: own.key }} ], {tls} }}, \
             routes: [ {{ to: app }} ] }}\n"
        )
    };
    let listeners = listener("web", one) + &listener("strict", two);
    format!("listeners:\n{listeners}services:\n  app: {{ endpoints: [{}] }}\n", origin.address())
}

#[test]
fn a_ticket_of_one_listener_opens_no_stricter_one() {
    let (authority, other) = (Authority::new("root"), Authority::new("other"));
    let origin = Origin::echo();
    let own = authority.issue(&Leaf::of(&["a.test"]));
    let web = authority.issue(&Leaf::of(&["spiffe://shop/web"]));
    for strict in [
        "clients: required, trust: other.pem",
        "clients: required, trust: { roots: [ca.pem], domains: [bank] }",
        "clients: required, trust: ca.pem, expect: 'spiffe://shop/cart'",
        "clients: required, trust: { roots: [ca.pem], crl: revoked.pem }",
    ] {
        let text = two("clients: required, trust: ca.pem", strict, &origin);
        let run = Run::new(&text).pair("own", &own).file_of("ca.pem", &authority.pem());
        let run = run.file_of("other.pem", &other.pem()).file_of("revoked.pem", &authority.revoke(&[&web]));
        let proxy = run.start();
        for versions in [TLS_1_2, TLS_1_3] {
            let tls = Tls::trusting(&[&authority]).with(&web).versions(versions).resuming();
            for resumed in [false, true] {
                let mut client = tls.connect(proxy.address("web"), "a.test");
                assert_eq!(ask(&mut client, "/"), 200);
                assert_eq!(client.met().resumed, resumed);
            }
            tls.refused(proxy.address("strict"), "a.test");
            // And it is still good where it came from.
            let mut client = tls.connect(proxy.address("web"), "a.test");
            assert_eq!(ask(&mut client, "/"), 200, "{strict}");
        }
    }
}

#[test]
fn a_ticket_without_a_certificate_opens_nothing_that_wants_one() {
    let authority = Authority::new("root");
    let origin = Origin::echo();
    let own = authority.issue(&Leaf::of(&["a.test"]));
    for loose in ["clients: none", "clients: optional, trust: ca.pem"] {
        let text = two(loose, "clients: required, trust: ca.pem", &origin);
        let proxy = Run::new(&text).pair("own", &own).file_of("ca.pem", &authority.pem()).start();
        for versions in [TLS_1_2, TLS_1_3] {
            let tls = Tls::trusting(&[&authority]).versions(versions).resuming();
            let mut client = tls.connect(proxy.address("web"), "a.test");
            assert_eq!(ask(&mut client, "/"), 200);
            tls.refused(proxy.address("strict"), "a.test");
        }
    }
}

/// One that keeps tickets of TLS 1.2, and one of TLS 1.3.
fn each_version(tls: &Tls) -> [Tls; 2] {
    [TLS_1_2, TLS_1_3].map(|versions| tls.clone().versions(versions).resuming())
}

/// Comes twice, the second time with a ticket.
fn resumes(proxy: &Proxy, tls: &Tls) {
    for resumed in [false, true] {
        let mut client = tls.connect(proxy.address("web"), "a.test");
        assert_eq!((ask(&mut client, "/"), client.met().resumed), (200, resumed));
    }
}

/// Reloads the same configuration with other files, and waits until it is in force.
fn reloaded(proxy: &Proxy) {
    let before = proxy.metrics().sum("ringway_plan_generation", &[]);
    proxy.signal("HUP");
    eventually("another plan", || proxy.metrics().sum("ringway_plan_generation", &[]) > before);
}

#[test]
fn a_ticket_does_not_outlive_the_trust_it_was_given_under() {
    let (authority, other) = (Authority::new("root"), Authority::new("other"));
    let origin = Origin::echo();
    let web_own = authority.issue(&Leaf::of(&["spiffe://shop/web"]));
    let listener =
        "tls: { certificates: [ { certificate: own.pem, key: own.key } ], clients: required, trust: trust.pem },";
    let run = Run::new(&web(listener, "", &origin)).pair("own", &authority.issue(&Leaf::of(&["a.test"])));
    let proxy = run.file_of("trust.pem", &authority.pem()).start();
    let both = each_version(&Tls::trusting(&[&authority]).with(&web_own));
    both.iter().for_each(|tls| resumes(&proxy, tls));
    std::fs::write(proxy.folder().join("trust.pem"), other.pem()).unwrap();
    reloaded(&proxy);
    for tls in both {
        tls.refused(proxy.address("web"), "a.test");
    }
    assert_eq!(origin.count(), 4);
}

#[test]
fn a_ticket_does_not_outlive_the_certificate_it_was_given_for() {
    let authority = Authority::new("root");
    let origin = Origin::echo();
    let listener =
        "tls: { certificates: [ { certificate: own.pem, key: own.key } ], clients: required, trust: ca.pem },";
    let run = Run::new(&web(listener, "", &origin)).pair("own", &authority.issue(&Leaf::of(&["a.test"])));
    let proxy = run.file_of("ca.pem", &authority.pem()).start();
    let short = authority.issue(&Leaf::of(&["spiffe://shop/web"]).valid(-60, 10));
    let both = each_version(&Tls::trusting(&[&authority]).with(&short));
    both.iter().for_each(|tls| resumes(&proxy, tls));
    std::thread::sleep(std::time::Duration::from_secs(12));
    for tls in both {
        tls.refused(proxy.address("web"), "a.test");
    }
    assert_eq!(origin.count(), 4);
}
