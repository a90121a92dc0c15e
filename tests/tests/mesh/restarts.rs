//! The daemon dies and comes back; proxies die and come back. Traffic goes on.

use super::hops::{EDGE, Ports, arrives, document};
use super::running::Daemon;
use ringway_tests::{Origin, eventually, until};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

/// Requests without a break for as long as `work` takes: how many, and those that were not answered with 200.
fn under_traffic<T>(ports: &Ports, work: impl FnOnce() -> T) -> (usize, Vec<u16>, T) {
    let (stop, count) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let traffic = scope.spawn(|| {
            let mut client = ports.edge();
            let mut bad = Vec::new();
            while !stop.load(Relaxed) {
                let status = client.get("/cart/1").status;
                bad.extend((status != 200).then_some(status));
                count.fetch_add(1, Relaxed);
            }
            bad
        });
        // A test that fails ends too.
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        stop.store(true, Relaxed);
        let done = done.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        (count.load(Relaxed), traffic.join().unwrap(), done)
    })
}

#[test]
fn the_daemon_may_die_and_come_back_and_no_request_fails() {
    let (mut daemon, ports) = (Daemon::start(), Ports::new());
    let origin = Origin::text("cart");
    let text = document(&ports, &origin, EDGE);
    daemon.push(&text);
    let (_cart, _edge) = (daemon.join("cart"), daemon.join("edge"));
    arrives(&ports);
    let (count, bad, ()) = under_traffic(&ports, || {
        for _ in 0..3 {
            daemon.kill();
            std::thread::sleep(Duration::from_millis(700));
            daemon.start_again();
            // Attempts grow rare where connections do not last.
            let is_back = || daemon.status().proxies.iter().all(|proxy| proxy.connected).then_some(());
            assert!(until(Duration::from_secs(40), is_back).is_some(), "both are back");
            // A while in which endpoints could get lost.
            std::thread::sleep(Duration::from_millis(500));
        }
        // And it works as before.
        let (cart, rest) = text.split_once("name: cart, match").unwrap();
        daemon.push(&format!("{cart}name: carts, match{rest}"));
    });
    assert!(bad.is_empty() && count > 10, "{count} requests, {bad:?}");
    assert_eq!(daemon.status().version, 2);
}

/// A machine that is paused, a disk that stalls: nobody is heard for a while, and all come again one after the other.
#[test]
fn a_daemon_that_stands_still_takes_no_endpoint_away() {
    let (daemon, ports) = (Daemon::start(), Ports::new());
    let origin = Origin::text("cart");
    daemon.push(&document(&ports, &origin, EDGE));
    let (cart, edge) = (daemon.join("cart"), daemon.join("edge"));
    arrives(&ports);
    let connected = |proxy: &ringway_tests::Proxy| proxy.metrics().sum("ringway_daemon_connected", &[]) == 1.0;
    let (count, bad, ()) = under_traffic(&ports, || {
        daemon.signal("STOP");
        let gone = until(Duration::from_secs(40), || (!connected(&cart) && !connected(&edge)).then_some(()));
        assert!(gone.is_some(), "they notice that nobody answers");
        // Until their attempts have grown rare.
        std::thread::sleep(Duration::from_secs(10));
        daemon.signal("CONT");
        let back = until(Duration::from_secs(60), || (connected(&cart) && connected(&edge)).then_some(()));
        assert!(back.is_some(), "they come again");
        // Longer than who vanished is an endpoint.
        std::thread::sleep(Duration::from_secs(12));
    });
    assert!(bad.is_empty() && count > 10, "{count} requests, {bad:?}");
}

#[test]
fn a_gateway_starts_without_the_daemon_from_what_it_was_told_last() {
    let (mut daemon, ports) = (Daemon::start(), Ports::new());
    let origin = Origin::text("cart");
    daemon.push(&document(&ports, &origin, EDGE));
    let (_cart, edge) = (daemon.join("cart"), daemon.join("edge"));
    arrives(&ports);
    std::thread::sleep(Duration::from_secs(1));
    daemon.kill();
    let edge = edge.kill_and_start();
    assert_eq!(ports.edge().get("/cart/1").status, 200);
    daemon.start_again();
    eventually("it is back", || daemon.status().proxies.iter().all(|proxy| proxy.connected));
    assert_eq!(ports.edge().get("/cart/1").status, 200);
    drop(edge);
}
