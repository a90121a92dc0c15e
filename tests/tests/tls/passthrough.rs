//! `tls-passthrough`: routed by the name in the ClientHello, not decrypted; hellos in every kind of piece, and those that are none.

use crate::shop::pattern;
use ringway_tests::certificates::{Authority, Leaf};
use ringway_tests::tls::{Server, TLS_1_2, TLS_1_3, Tls, in_records};
use ringway_tests::{Client, Origin, Proxy, answers, eventually, respond};
use std::io::Write;
use std::time::{Duration, Instant};

/// Three services, each with a certificate of its own name and a client that trusts them.
struct Town {
    tls: Tls,
    /// exact, wildcard, rest
    origins: [Origin; 3],
    proxy: Proxy,
}

fn origin(authority: &Authority, name: &'static str) -> Origin {
    let own = authority.issue(&Leaf::of(&[name]));
    Origin::secure(
        &Server::new(&own),
        answers(move |seen| respond(200, "X-Who: yes\r\n", format!("{name} {}", seen.body.len()).as_bytes())),
    )
}

fn town(rest: bool, more: &str) -> Town {
    let authority = Authority::new("root");
    let origins = ["a.test", "*.b.test", "*.example.org"].map(|name| origin(&authority, name));
    let last = if rest { ", { names: ['*'], to: rest }" } else { "" };
    let services = ["exact", "wild", "rest"].iter().zip(&origins);
    let services: String =
        services.map(|(name, o)| format!("  {name}: {{ endpoints: [{}] }}\n", o.address())).collect();
    let text = format!(
        "listeners:\n  web: {{ address: '127.0.0.1:$web', protocol: tls-passthrough, {more} \
         hosts: [ {{ names: ['*.b.test'], to: wild }}, {{ names: [a.test], to: exact }}{last} ] }}\n\
         services:\n{services}limits: {{ request-timeout: 1s }}\n"
    );
    Town { tls: Tls::trusting(&[&authority]), origins, proxy: Proxy::start(&text) }
}

impl Town {
    fn counts(&self) -> [usize; 3] {
        [0, 1, 2].map(|n| self.origins[n].count())
    }

    /// How many connections services have seen, and how many were refused.
    fn quiet(&self) {
        assert_eq!([0, 1, 2].map(|n| self.origins[n].connections()), [0; 3], "a service was connected to");
    }
}

/// Whether it ends within the bound of a greeting, with nothing but an alert.
fn ends(client: &mut Client) -> Duration {
    let begun = Instant::now();
    match client.rest() {
        Ok(bytes) => assert!(bytes.is_empty() || bytes[0] == 21, "{bytes:?}"),
        Err(e) => assert_eq!(e.kind(), std::io::ErrorKind::ConnectionReset, "{e}"),
    }
    begun.elapsed()
}

#[test]
fn the_most_specific_name_wins() {
    let town = town(true, "");
    for (name, counts) in
        [("a.test", [1, 0, 0]), ("A.TEST", [2, 0, 0]), ("x.b.test", [2, 1, 0]), ("shop.example.org", [2, 1, 1])]
    {
        let mut client = town.tls.connect(town.proxy.address("web"), name);
        assert_eq!(client.get("/").field("x-who"), Some("yes"), "{name}");
        assert_eq!(town.counts(), counts, "{name}");
    }
    // More than one label under a wildcard is this listener's too, and its service refuses or takes it: here by the certificate.
    assert!(town.tls.try_connect(town.proxy.address("web"), "x.y.b.test").is_err());
    assert_eq!(town.origins[1].connections(), 2);
    let mut client = town.tls.clone().no_name().connect(town.proxy.address("web"), "shop.example.org");
    assert_eq!(client.get("/").status, 200);
    assert_eq!(town.counts(), [2, 1, 2]);
}

#[test]
fn hellos_in_every_kind_of_piece() {
    let town = town(false, "");
    let offered: Vec<String> = (0..250).map(|n| format!("{n}-{}", "x".repeat(60))).collect();
    let large: Vec<&str> = offered.iter().map(String::as_str).collect();
    for versions in [TLS_1_2, TLS_1_3] {
        let tls = town.tls.clone().versions(versions);
        for tls in [
            tls.clone(),
            tls.clone().in_pieces(1),
            tls.clone().in_pieces(5),
            tls.clone().hello_in_records(1),
            tls.clone().hello_in_records(60),
            tls.clone().hello_in_records(99).in_pieces(3),
            // More than one record has room for.
            tls.clone().alpn(&large),
        ] {
            let mut client = tls.connect(town.proxy.address("web"), "a.test");
            assert_eq!(client.get("/").status, 200, "{versions:?}");
        }
    }
    assert_eq!(town.counts(), [14, 0, 0]);
}

#[test]
fn every_place_a_hello_can_be_split_at() {
    let town = town(false, "");
    let hello = town.tls.hello("a.test");
    for at in 1..hello.len() {
        let mut client = Client::to(town.proxy.address("web"));
        client.send(&hello[..at]);
        std::thread::sleep(Duration::from_micros(300));
        client.send(&hello[at..]);
        // The service's ServerHello.
        assert_eq!(client.read(3)[..2], [22, 3], "split at {at} of {}", hello.len());
    }
    for at in [1, 3, 4, 5, 10, 40, 100] {
        let mut client = Client::to(town.proxy.address("web"));
        client.send(in_records(&hello, at));
        assert_eq!(client.read(3)[..2], [22, 3], "records of {at}");
    }
}

#[test]
fn megabytes_pass_and_ends_too() {
    let authority = Authority::new("root");
    const SIZE: usize = 4_000_000;
    let own = authority.issue(&Leaf::of(&["a.test"]));
    let origin = Origin::secure(&Server::new(&own), |conversation| {
        let same = conversation.read(SIZE).is_some_and(|bytes| bytes == pattern(SIZE, 1));
        conversation.rest();
        conversation.send(if same { pattern(SIZE, 2) } else { vec![0] });
    });
    let text = format!(
        "listeners:\n  web: {{ address: '127.0.0.1:$web', protocol: tls-passthrough, to: app }}\nservices:\n  app: {{ endpoints: [{}] }}\n",
        origin.address()
    );
    let proxy = Proxy::start(&text);
    for tls in [Tls::trusting(&[&authority]), Tls::trusting(&[&authority]).versions(TLS_1_2)] {
        let mut client = tls.connect(proxy.address("web"), "a.test");
        client.send(pattern(SIZE, 1)).finish();
        assert!(client.rest().expect("the service's own close_notify") == pattern(SIZE, 2));
    }
    // `to` alone takes every name, and none.
    let mut client = Tls::trusting(&[&authority]).no_name().connect(proxy.address("web"), "a.test");
    client.send(pattern(SIZE, 1)).finish();
    assert!(client.rest().is_ok());
    let line = proxy.logged_ending("tunnel_closed");
    assert_eq!(line["sni"], "a.test", "{line}");
}

#[test]
fn an_unknown_name_and_none_are_closed() {
    let town = town(false, "");
    for tls in [town.tls.hello("c.test"), town.tls.hello("b.test"), town.tls.clone().no_name().hello("a.test")] {
        let mut client = Client::to(town.proxy.address("web"));
        client.send(tls);
        assert!(ends(&mut client) < Duration::from_secs(3));
    }
    town.quiet();
    let line = town.proxy.logged_ending("passthrough_refused");
    assert!(line["sni"].as_str().is_some(), "{line}");
    let endings = || town.proxy.metrics().total("ringway_endings_total", &[("ending", "passthrough_refused")]);
    eventually("three are counted", || endings() == 3.0);
}

#[test]
fn what_is_no_hello_is_closed() {
    let town = town(true, "");
    let hello = town.tls.hello("a.test");
    let mut alert = vec![21, 3, 1, 0, 2, 2, 40];
    alert.extend_from_slice(&hello);
    let mut of_handshake_type_2 = hello.clone();
    of_handshake_type_2[5] = 2;
    let mut too_long = hello.clone();
    too_long[6..9].copy_from_slice(&[0xFF, 0xFF, 0xFF]);
    let mut short = hello.clone();
    short[8] -= 1;
    let mut empty = hello.clone();
    empty.splice(0..0, [22, 3, 1, 0, 0]);
    for bytes in [
        b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n".to_vec(),
        b"PROXY TCP4 1.1.1.1 1.1.1.1 1 1\r\n".to_vec(),
        vec![0; 300],
        vec![0xFF; 300],
        vec![22, 3, 1, 0xFF, 0xFF, 1, 0, 0, 0],
        alert,
        of_handshake_type_2,
        too_long,
        short,
    ] {
        let mut client = Client::to(town.proxy.address("web"));
        client.send(&bytes);
        assert!(ends(&mut client) < Duration::from_secs(12), "{bytes:?}");
        assert_eq!(town.origins[0].connections(), 0, "{bytes:?}");
    }
    // An empty record before it: refused or taken, but not astray.
    let mut client = Client::to(town.proxy.address("web"));
    client.send(&empty);
    let _either = client.finish().rest();
    assert_eq!(town.origins[1].connections() + town.origins[2].connections(), 0);
    // It serves on.
    assert_eq!(town.tls.connect(town.proxy.address("web"), "a.test").get("/").status, 200);
}

#[test]
fn a_hello_that_never_ends_is_closed_within_the_bound() {
    let town = town(true, "");
    let hello = town.tls.hello("a.test");
    let begun = Instant::now();
    // In time: one that says no more, one that says nothing, one that says a little again and again.
    let mut silent = Client::to(town.proxy.address("web"));
    let mut half = Client::to(town.proxy.address("web"));
    half.send(&hello[..hello.len() - 1]);
    let mut slow = Client::to(town.proxy.address("web"));
    let mut twin = slow.twin();
    let trickle = std::thread::spawn(move || {
        let mut sent = 0;
        while begun.elapsed() < Duration::from_secs(30) && twin.write_all(&[[22, 3, 1, 0, 200][sent % 5]]).is_ok() {
            sent += 1;
            std::thread::sleep(Duration::from_millis(200));
            if sent == 5 {
                while begun.elapsed() < Duration::from_secs(30) && twin.write_all(&[1]).is_ok() {
                    std::thread::sleep(Duration::from_millis(200));
                }
            }
        }
    });
    for client in [&mut silent, &mut half, &mut slow] {
        ends(client);
        assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    }
    trickle.join().unwrap();
    // In size: whole records, and the message has no end.
    let mut long = Client::to(town.proxy.address("web"));
    long.send([22, 3, 1, 0, 5, 1, 0xFF, 0xFF, 0xFF, 3]);
    let mut record = vec![22, 3, 1, 0x40, 0];
    record.extend_from_slice(&[3; 0x4000]);
    let mut taken = 0;
    while taken < 64 && long.try_send(&record).is_ok() {
        taken += 1;
        std::thread::sleep(Duration::from_millis(2));
    }
    assert!(taken < 64, "a mebibyte of hello was taken");
    town.quiet();
}

#[test]
fn addresses_may_be_denied() {
    let denied = town(true, "deny: [ { name: here, source: [127.0.0.0/8] } ],");
    let mut client = Client::to(denied.proxy.address("web"));
    client.send(denied.tls.hello("a.test"));
    ends(&mut client);
    denied.quiet();
    assert_eq!(denied.proxy.logged_ending("denied")["rule"], "here");
    let allowed = town(true, "allow: [ { name: here, peer: [127.0.0.1/32] } ],");
    assert_eq!(allowed.tls.connect(allowed.proxy.address("web"), "a.test").get("/").status, 200);
}
