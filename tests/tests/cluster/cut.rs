//! etcd is away: daemons serve, take no change, say so, and come back by themselves.

use super::*;

#[test]
fn without_etcd_nothing_changes_and_nobody_joins_and_all_of_it_heals() {
    let Some((mut etcd, a, b)) = two("etcd stopped") else { return };
    let (ports, origin) = (Ports::new(), Origin::text("cart"));
    a.push(&document(&ports, &origin, 200));
    let (_cart, edge) = (joins(&a, "cart"), joins(&b, "edge"));
    ports.come("/cart/1", 200);
    let late = joining(&a, "cart");
    assert!(a.page("/metrics").1.contains("ringwayd_store_reachable 1\n"));
    assert!(a.page("/metrics").1.contains("ringwayd_daemons 2\n"));
    etcd.kill();
    for mesh in [&a, &b] {
        let told = until(Duration::from_secs(20), || (mesh.page("/ready").0 == 503).then_some(()));
        assert!(told.is_some(), "it is ready without etcd");
        assert!(mesh.page("/ready").1.contains("cut off from etcd"), "{:?}", mesh.page("/ready"));
        assert!(mesh.page("/metrics").1.contains("ringwayd_store_reachable 0\n"));
        mesh.write(&document(&ports, &origin, 201));
        let refused = mesh.control(&["apply", "mesh.yaml"]);
        assert_ne!(refused.code, Some(0));
        assert!(refused.err.contains("cut off from etcd") && refused.err.contains("ask another daemon"), "{refused:?}");
        let refused = mesh.control(&["token", "create", "--group", "cart"]);
        assert!(refused.code != Some(0) && refused.err.contains("cut off from etcd"), "{refused:?}");
        // What is known is told.
        let status = mesh.json(&["status"]);
        assert!(status["cut_off"].as_str().is_some_and(|why| why.contains("cut off from etcd")), "{status}");
        assert!(status["proxies"].as_array().is_some_and(|all| all.len() == 2), "{status}");
    }
    let late = late.start_unready();
    late.printed("joining is refused: this daemon is cut off from etcd");
    // A proxy that comes back is served from memory.
    assert_eq!((ports.status("/cart/1"), ports.status("/ping")), (200, 200));
    let _edge = edge.kill_and_start();
    ports.come("/cart/1", 200);
    let back = until(Duration::from_secs(20), || {
        // At the one or the other, as chance has it; now they cannot tell each other.
        let is_here =
            |mesh: &Mesh| mesh.proxies("edge").iter().any(|proxy| proxy["connected"] == true && proxy["daemon"] == "");
        (is_here(&a) || is_here(&b)).then_some(())
    });
    assert!(back.is_some(), "{}\n{}", a.output(), b.output());

    etcd.revive();
    for mesh in [&a, &b] {
        let ready = until(Duration::from_secs(20), || (mesh.page("/ready").0 == 200).then_some(()));
        assert!(ready.is_some(), "{:?}", mesh.page("/ready"));
    }
    // It was not done, and is now; who wanted to join has.
    assert_eq!(a.json(&["status"])["version"], 1);
    b.done(&["apply", "mesh.yaml"]);
    ports.come("/ping", 201);
    ports.come("/cart/1", 200);
    late.printed("joined group cart");
    assert!(a.output().contains("etcd is back after"), "{}", a.output());
}
