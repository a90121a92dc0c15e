//! What a proxy reports, and what it does when it is told to.

use super::authority::Pair;
use super::fake::Fake;
use super::stream::get;
use super::{document, joined, plain};
use api::pb::{Order, Series};
use ringway_tests::certificates::Issued;
use ringway_tests::tls::{Tls, first_of};
use ringway_tests::{Origin, eventually, free_port};
use std::time::Duration;

#[test]
fn a_session_begins_with_who_it_is_and_counts_go_on_over_reconnects() {
    let (origin, port) = (Origin::text("one"), free_port());
    let mut fake = Fake::start();
    fake.push(&plain(port, &[&origin]));
    let proxy = joined(&fake);
    (0..5).for_each(|_| assert_eq!(get(port).0, 200));
    let hello = fake.until("hello", |shared| shared.reports.first()?.hello.clone());
    assert!(hello.epoch != 0 && hello.started_ms > 0 && !hello.host.is_empty() && !hello.features.is_empty());
    fake.stop();
    (0..3).for_each(|_| assert_eq!(get(port).0, 200));
    fake.shared().reports.clear();
    fake.start_again();
    let again = fake.until("hello again", |shared| shared.reports.first().cloned());
    assert_eq!(again.hello.unwrap().epoch, hello.epoch, "the same process");
    let counters = again.counters.unwrap();
    let of_route = counters.series.iter().find(|series| series.route == "all").unwrap();
    assert_eq!((&*of_route.listener, &*of_route.service, &*of_route.source), ("web", "app", ""));
    assert_eq!(of_route.classes, [0, 0, 8, 0, 0, 0]);
    assert_eq!(of_route.latency.iter().sum::<u64>(), 8);
    assert_eq!(counters.endings.get("complete"), Some(&8));
    drop(proxy);
}

/// What serves is ready, whether the daemon has said anything yet or not: others would lose their endpoint for a moment.
#[test]
fn who_starts_from_the_disk_is_ready_in_the_first_report() {
    let (origin, port) = (Origin::text("one"), free_port());
    let mut fake = Fake::start();
    fake.push(&plain(port, &[&origin]));
    let proxy = joined(&fake);
    fake.applied();
    let generation = proxy.folder().join("state/generation");
    eventually("the generation is kept", || generation.exists());
    fake.stop();
    let _proxy = proxy.kill_and_start();
    fake.shared().reports.clear();
    fake.behave(|behaviour| behaviour.silent = true);
    fake.start_again();
    let first = fake.until("the first report", |shared| shared.reports.first().cloned());
    assert!(first.hello.is_some() && first.ready, "{first:?}");
    let listeners: Vec<_> = first.listeners.iter().map(|one| (&*one.name, one.ready)).collect();
    assert_eq!(listeners, [("web", true)]);
    assert_eq!(first.applied.unwrap().version, "1");
}

#[test]
fn listeners_certificates_and_what_is_applied_are_told() {
    let (origin, port) = (Origin::text("one"), free_port());
    let fake = Fake::start();
    let listener = format!("web: {{ address: '127.0.0.1:{port}', tls: {{}}, routes: [ {{ to: app }} ] }}");
    fake.push(&document(&listener, &[&origin]));
    let proxy = joined(&fake);
    fake.applied();
    let report = fake.until("a whole report", |shared| {
        shared.reports.iter().rev().find(|report| report.ready && !report.certificates.is_empty()).cloned()
    });
    let listeners: Vec<_> = report.listeners.iter().map(|one| (&*one.name, &*one.address, one.ready)).collect();
    assert_eq!(listeners, [("web", &*format!("127.0.0.1:{port}"), true)]);
    let held: Vec<_> = report.certificates.iter().map(|one| (&*one.name, &*one.kind, &*one.subject)).collect();
    assert_eq!(held, [("identity", "own", "spiffe://shop/group/edge"), ("mesh-trust", "trust", "")]);
    let applied = report.applied.unwrap();
    let generation = proxy.metrics().sum("ringway_plan_generation", &[]) as u64;
    assert_eq!((&*applied.version, applied.generation), ("1", generation));
}

#[test]
fn who_asks_whom_is_told_while_it_is_wanted() {
    let (origin, port) = (Origin::text("one"), free_port());
    let fake = Fake::start();
    let rule = "allow: [ { name: web, identity: 'spiffe://shop/web' } ]";
    let listener =
        format!("web: {{ address: '127.0.0.1:{port}', tls: {{}}, {rule}, routes: [ {{ name: all, to: app }} ] }}");
    fake.push(&document(&listener, &[&origin]));
    let _proxy = joined(&fake);
    let ask = |identity: &str| {
        let Pair { chain, key } = fake.authority.pair(identity);
        let own = Issued { der: first_of(&chain), chain, key, serial: 0 };
        let tls = Tls::rooted(&fake.authority.root).any_name().with(&own);
        tls.connect(([127, 0, 0, 1], port).into(), "any.example").get("/").status
    };
    assert_eq!((ask("spiffe://shop/web"), ask("spiffe://shop/other")), (200, 403));
    let with_source = |shared: &super::fake::Shared| -> Vec<Series> {
        let last = shared.reports.iter().rev().find_map(|report| report.counters.clone()).unwrap_or_default();
        last.series.into_iter().filter(|series| !series.source.is_empty()).collect()
    };
    fake.order(Order { interval_ms: 100, ..Order::default() });
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(with_source(&fake.shared()), [], "nobody wants it");
    // The daemon's clock is its own.
    fake.order(Order { detail_until_ms: 60_000, clock_ms: 1_000, ..Order::default() });
    let told = fake.until("sources", |shared| Some(with_source(shared)).filter(|list| !list.is_empty()));
    let told: Vec<_> = told.iter().map(|one| (&*one.source, one.classes[2], one.denied)).collect();
    assert_eq!(told, [("spiffe://shop/other", 0, 1), ("spiffe://shop/web", 1, 0)]);
}

#[test]
fn who_drains_says_so_while_it_still_serves() {
    for name in ["order", "signal", "page"] {
        let (origin, port) = (Origin::text("one"), free_port());
        let fake = Fake::start();
        fake.push(&plain(port, &[&origin]));
        let mut proxy = joined(&fake);
        fake.applied();
        match name {
            "order" => fake.order(Order { drain: true, ..Order::default() }),
            "signal" => proxy.signal("TERM"),
            _ => drop(proxy.admin("POST", "/drain")),
        }
        let report = fake.until(&format!("a report that it drains, by {name}"), |shared| {
            shared.reports.iter().find(|report| report.draining).cloned()
        });
        assert!(!report.ready && report.listeners.iter().all(|listener| !listener.ready), "{report:?}");
        assert!(!proxy.is_ready());
        assert_eq!(get(port), (200, "one".into()), "others have to hear of it first");
        assert!(proxy.ended(Duration::from_secs(10)).success());
        assert_eq!(proxy.output().contains("the daemon wants this proxy to drain"), name == "order");
    }
}

#[test]
fn a_daemon_without_sessions_still_configures() {
    let (origin, port) = (Origin::text("one"), free_port());
    let fake = Fake::start();
    fake.behave(|behaviour| behaviour.no_sessions = true);
    fake.push(&plain(port, &[&origin]));
    let proxy = joined(&fake);
    assert_eq!(get(port), (200, "one".into()));
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(proxy.metrics().sum("ringway_daemon_connected", &[]), 1.0);
    assert!(fake.shared().reports.is_empty());
}
