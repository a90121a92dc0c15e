//! A proxy that is killed, with no chance to tidy up, at any moment: while it joins, renews, is told something, writes it down.

use super::authority::key_of;
use super::fake::Fake;
use super::stream::get;
use super::{document, file};
use api::pb::Order;
use ringway_tests::{Client, Origin, eventually, free_port};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};

#[test]
fn a_proxy_may_be_killed_at_any_moment_and_starts_with_one_whole_state() {
    let (one, two, port, secure) = (Origin::text("one"), Origin::text("two"), free_port(), free_port());
    let listeners = format!(
        "secure: {{ address: '127.0.0.1:{secure}', tls: {{ clients: none }}, routes: [ {{ to: app }} ] }}\n      \
         web: {{ address: '127.0.0.1:{port}', routes: [ {{ name: all, to: app }} ] }}"
    );
    let mut fake = Fake::start();
    fake.push(&document(&listeners, &[&one]));
    // Before the moments are counted.
    ringway_tests::build();
    let mut random = SystemTime::UNIX_EPOCH.elapsed().unwrap().subsec_nanos() | 1;
    println!("seed {random}");
    let mut run = file(&fake);
    let mut rounds_that_joined = 0;
    for round in 0..16 {
        let proxy = run.start_unready();
        random ^= random << 13;
        random ^= random >> 17;
        random ^= random << 5;
        // From before its first word to long after it was ready.
        let end = Instant::now() + Duration::from_micros(u64::from(random % 1_200_000));
        let mut turn = 0;
        while Instant::now() < end {
            turn += 1;
            let origin = if turn % 2 == 0 { &one } else { &two };
            fake.push(&document(&listeners, &[origin]));
            fake.order(Order { renew: true, interval_ms: 100, ..Order::default() });
            std::thread::sleep(Duration::from_millis(7));
        }
        let said = proxy.output();
        for wrong in ["has to join again", "damaged", "cannot be read", "; the daemon is waited for"] {
            assert!(!said.contains(wrong), "round {round}: {wrong}: {said}");
        }
        rounds_that_joined += u32::from(said.contains("connected as"));
        run = proxy.kill();
    }
    fake.push(&document(&listeners, &[&two]));
    let proxy = run.start();
    fake.applied();
    eventually("the last push serves", || get(port) == (200, "two".into()));
    // It has been one proxy all the time: who has a certificate never asks for a first one with another key.
    let keys: BTreeSet<_> = fake.shared().joins.iter().map(|join| key_of(&join.csr)).collect();
    assert_eq!(keys.len(), 1);
    assert!(rounds_that_joined > 0, "none came so far that there was something to lose");
    let generation = proxy.folder().join("state/generation");
    eventually("it is kept", || holds_port(&std::fs::read(&generation).unwrap_or_default(), two.address().port()));
    fake.stop();
    let proxy = proxy.kill_and_start();
    assert_eq!(get(port), (200, "two".into()));
    assert!(Client::try_to(SocketAddr::from(([127, 0, 0, 1], secure))).is_ok(), "key and certificate are a pair");
    drop(proxy);
}

/// Whether a generation has this port: a varint of `port_value`, field 3 of a socket address.
fn holds_port(kept: &[u8], port: u16) -> bool {
    let mut value = vec![0x18];
    let mut rest = u32::from(port);
    while rest >= 0x80 {
        value.push((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    value.push(rest as u8);
    kept.windows(value.len()).any(|window| window == value)
}
