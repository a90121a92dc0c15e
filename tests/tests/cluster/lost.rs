//! A daemon is lost: its proxies go to the other, and nothing that anybody sent fails.

use super::*;

#[test]
fn the_proxies_of_a_daemon_that_was_killed_move_to_the_other() {
    let Some((_etcd, mut a, b)) = two("a daemon killed") else { return };
    let (ports, origin) = (Ports::new(), Origin::text("cart"));
    a.push(&document(&ports, &origin, 200));
    let (_cart, _edge) = (joins(&a, "cart"), joins(&a, "edge"));
    ports.come("/cart/1", 200);
    under_requests(&ports, || {
        a.kill();
        let here = |mesh: &Mesh| {
            let status = mesh.json(&["status"]);
            let there = |proxy: &serde_json::Value| proxy["connected"] == true && proxy["daemon"] == "";
            status["proxies"].as_array().is_some_and(|all| all.len() == 2 && all.iter().all(there))
        };
        let moved = until(Duration::from_secs(30), || here(&b).then_some(()));
        assert!(moved.is_some(), "{}", b.done(&["status"]));
        // They are served by it.
        b.push(&document(&ports, &origin, 201));
        assert_eq!(ports.status("/ping"), 201);
        // The one that is lost is known to be, and comes back with all that was done meanwhile.
        let alone = until(Duration::from_secs(30), || (daemons(&b) == 1).then_some(()));
        assert!(alone.is_some(), "{}", b.done(&["status"]));
        a.revive();
        assert_eq!(a.json(&["status"])["version"], 2);
        let both = until(Duration::from_secs(10), || (daemons(&b) == 2).then_some(()));
        assert!(both.is_some(), "{}", b.done(&["status"]));
    });
}

#[test]
fn a_proxy_hears_of_a_daemon_that_came_later_and_goes_to_it_when_its_own_is_lost() {
    let Some(etcd) = Etcd::start("a daemon that comes later") else { return };
    let mut a = Mesh::sharing(&etcd);
    let (ports, origin) = (Ports::new(), Origin::text("cart"));
    a.push(&document(&ports, &origin, 200));
    let edge = joins(&a, "edge");
    ports.come("/ping", 200);
    let b = Mesh::sharing(&etcd);
    // It is on its disk too, for when it starts again.
    let known = || std::fs::read_to_string(edge.folder().join("state/daemons")).unwrap_or_default();
    let heard = until(Duration::from_secs(10), || known().lines().any(|line| line == b.address()).then_some(()));
    assert!(heard.is_some(), "{}, not {}", known(), b.address());
    a.kill();
    let here = || b.proxies("edge").iter().any(|proxy| proxy["connected"] == true && proxy["daemon"] == "");
    assert!(until(Duration::from_secs(30), || here().then_some(())).is_some(), "{}", b.done(&["status"]));
    b.push(&document(&ports, &origin, 201));
    ports.come("/ping", 201);
    // The daemon that is lost is one no more; the proxy that starts now looks for the other alone.
    let gone = until(Duration::from_secs(30), || (known() == b.address()).then_some(()));
    assert!(gone.is_some(), "{}", known());
    let _edge = edge.kill_and_start();
    assert!(until(Duration::from_secs(10), || here().then_some(())).is_some(), "{}", b.done(&["status"]));
}
