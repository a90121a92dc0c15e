//! A proxy without its daemon: it goes on, it starts from what was kept, and it does not storm the daemon that comes back.

use super::fake::Fake;
use super::stream::get;
use super::{joined, plain};
use api::xds;
use ringway_tests::{Client, Origin, eventually, free_port};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

fn kept(proxy: &ringway_tests::Proxy) -> std::path::PathBuf {
    let file = proxy.folder().join("state/generation");
    eventually("the generation is kept", || file.exists());
    file
}

#[test]
fn a_daemon_that_dies_fails_no_request_and_is_found_again() {
    let (one, two, port) = (Origin::text("one"), Origin::text("two"), free_port());
    let mut fake = Fake::start();
    fake.push(&plain(port, &[&one]));
    let proxy = joined(&fake);
    let mut client = Client::to(SocketAddr::from(([127, 0, 0, 1], port)));
    fake.stop();
    eventually("it is noticed", || proxy.metrics().sum("ringway_daemon_connected", &[]) == 0.0);
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(3) {
        assert_eq!(client.get("/").text(), "one");
        assert_eq!(get(port).0, 200);
    }
    assert!(proxy.is_ready());
    fake.push(&plain(port, &[&two]));
    fake.start_again();
    eventually("what has changed is in force", || get(port).1 == "two");
    assert_eq!(client.get("/").text(), "two");
    let shared = fake.shared();
    let again = shared.requests.iter().rfind(|request| request.node.is_some()).unwrap();
    assert_eq!(again.initial_resource_versions.len(), 1, "what is held is not sent again: {again:#?}");
    drop(shared);
    let absence = fake.until("the absence", |shared| {
        shared
            .reports
            .iter()
            .find(|report| report.hello.is_some() && !report.absences.is_empty())
            .map(|r| r.absences[0])
    });
    assert!(absence.to_ms - absence.from_ms >= 2_000, "{absence:?}");
}

#[test]
fn it_starts_from_disk_when_the_daemon_is_away_and_tells_what_it_has_later() {
    let (origin, port) = (Origin::text("one"), free_port());
    let mut fake = Fake::start();
    fake.push(&plain(port, &[&origin]));
    let proxy = joined(&fake);
    kept(&proxy);
    fake.stop();
    let proxy = proxy.kill_and_start();
    assert_eq!(get(port), (200, "one".into()));
    assert_eq!(proxy.metrics().sum("ringway_daemon_connected", &[]), 0.0);
    fake.shared().requests.clear();
    fake.shared().reports.clear();
    fake.start_again();
    fake.until("the stream", |shared| (shared.opened == 2).then_some(()));
    fake.applied();
    let kinds = [xds::LISTENER, xds::CLUSTER, xds::ROUTE_CONFIGURATION, xds::CLUSTER_LOAD_ASSIGNMENT];
    fake.until("all kinds", |shared| {
        let asked = |kind: &&str| shared.requests.iter().any(|request| request.type_url == **kind);
        kinds.iter().all(asked).then_some(())
    });
    let shared = fake.shared();
    assert_eq!(shared.joins.len(), 1, "it joins once");
    for kind in kinds {
        let request = shared.requests.iter().find(|request| request.type_url == kind).unwrap();
        assert_eq!(request.initial_resource_versions.len(), 1, "{request:#?}");
    }
}

#[test]
fn a_file_that_is_torn_or_changed_is_refused_and_the_daemon_waited_for() {
    let (origin, port) = (Origin::text("one"), free_port());
    let mut fake = Fake::start();
    fake.push(&plain(port, &[&origin]));
    let mut proxy = joined(&fake);
    let file = kept(&proxy);
    let whole = std::fs::read(&file).unwrap();
    let mut changed = whole.clone();
    let last = changed.len() - 1;
    changed[last] ^= 1;
    for (bytes, reason) in [
        (&whole[..whole.len() / 2], "its checksum does not fit"),
        (&whole[..40], "it ends within its checksum"),
        (&changed[..], "its checksum does not fit"),
        (&whole[..10], "does not begin as a generation does"),
        (b"".as_slice(), "does not begin as a generation does"),
    ] {
        fake.stop();
        let run = proxy.kill();
        std::fs::write(&file, bytes).unwrap();
        proxy = run.start_unready();
        proxy.printed(reason);
        proxy.printed("the daemon is waited for");
        assert!(!proxy.is_ready());
        // The kernel takes a moment to take down what a killed process listened with.
        eventually("nobody listens", || Client::try_to(SocketAddr::from(([127, 0, 0, 1], port))).is_err());
        fake.start_again();
        eventually("it serves when the daemon is there", || proxy.is_ready());
        assert_eq!(get(port), (200, "one".into()));
        kept(&proxy);
    }
}

#[test]
fn what_was_refused_is_not_kept() {
    let (origin, port) = (Origin::text("one"), free_port());
    let mut fake = Fake::start();
    fake.push(&plain(port, &[&origin]));
    let proxy = joined(&fake);
    fake.change(xds::LISTENER, "web", |resource| resource.resource.as_mut().unwrap().value = b"\xff\xff".to_vec());
    proxy.printed("refused, the last good one stays: listener/web: cannot be decoded");
    kept(&proxy);
    std::thread::sleep(Duration::from_millis(1500));
    fake.stop();
    let _proxy = proxy.kill_and_start();
    assert_eq!(get(port), (200, "one".into()));
}

#[test]
fn attempts_to_find_a_daemon_grow_rare() {
    let mut fake = Fake::start();
    fake.push(&plain(free_port(), &[]));
    let proxy = joined(&fake);
    let address = fake.address();
    fake.stop();
    // Somebody who hangs up at once.
    let listener = std::net::TcpListener::bind(address).unwrap();
    listener.set_nonblocking(true).unwrap();
    let (begun, mut attempts) = (Instant::now(), 0);
    while begun.elapsed() < Duration::from_secs(10) {
        attempts += u32::from(listener.accept().is_ok());
        std::thread::sleep(Duration::from_millis(2));
    }
    assert!((2..=14).contains(&attempts), "{attempts} attempts in 10 s: {}", proxy.output());
    assert!(proxy.is_ready());
}
