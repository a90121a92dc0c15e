//! Another root, for a mesh of several daemons: proxies of all follow, and none is left behind by a daemon that is cut off.

use super::*;

/// How many roots there are, and which one each certificate of a proxy chains to.
fn roots(mesh: &Mesh) -> (usize, Vec<String>) {
    let certs = mesh.json(&["certs"]);
    let lines = certs["lines"].as_array().cloned().unwrap_or_default();
    let of = |kind: &str| lines.iter().filter(|line| line["kind"] == kind).cloned().collect::<Vec<_>>();
    (of("root").len(), of("proxy").iter().map(|line| line["chains_to"].to_string()).collect())
}

#[test]
fn another_root_is_taken_by_the_proxies_of_all_daemons_while_requests_flow() {
    let Some((_etcd, a, b)) = two("another root") else { return };
    let (ports, origin) = (Ports::new(), Origin::text("cart"));
    a.push(&document(&ports, &origin, 200));
    let (_cart, _edge) = (joins(&b, "cart"), joins(&b, "edge"));
    ports.come("/cart/1", 200);
    know([&a, &b], 2);
    let (_, old) = roots(&a);
    under_requests(&ports, || {
        let said = a.control(&["certs", "rotate", "--root"]);
        assert_eq!(said.code, Some(0), "{said:?}");
        assert!(said.out.contains("the new root alone is trusted"), "{said:?}");
    });
    let (count, new) = roots(&b);
    assert_eq!((count, new.len()), (1, 2));
    assert!(new.iter().all(|one| !old.contains(one)), "{old:?} {new:?}");
    // The other daemon issues from it too; there is no place for another listener.
    let late = joining(&b, "cart").start_unready();
    late.printed("joined group cart");
    ports.come("/cart/1", 200);
}

#[test]
fn a_change_of_roots_waits_for_the_proxies_of_a_daemon_that_is_cut_off() {
    let Some(mut etcd) = Etcd::three("a root while one is cut off") else { return };
    // One of them knows of one member alone.
    let (a, b) = (Mesh::with_etcd(&etcd.settings_of(0..2)), Mesh::with_etcd(&etcd.settings_of(2..3)));
    know_each_other(&a, &b);
    let (ports, origin) = (Ports::new(), Origin::text("cart"));
    a.push(&document(&ports, &origin, 200));
    let (_cart, _edge) = (joins(&a, "cart"), joins(&b, "edge"));
    ports.come("/cart/1", 200);
    know([&a, &b], 2);
    etcd.kill_member(2);
    let cut = until(Duration::from_secs(30), || (b.page("/ready").0 == 503).then_some(()));
    assert!(cut.is_some(), "it is ready without etcd");
    under_requests(&ports, || {
        // The old root stays, whatever is asked for: who is at the other daemon has not heard of the new one.
        let asked = || {
            let said = a.control(&["certs", "rotate", "--root"]);
            // While the others elect a leader it is not known whether it was done: then it is asked again, as one is told to.
            (said.code != Some(3)).then_some(said)
        };
        let said = until(Duration::from_secs(60), asked).expect("an answer");
        assert_eq!(said.code, Some(4), "{said:?}");
        let edge = &a.proxies("edge")[0]["id"];
        assert!(said.all().contains(edge.as_str().unwrap()), "{said:?}");
        assert_eq!(roots(&a).0, 2);
        etcd.revive();
        let back = until(Duration::from_secs(30), || (b.page("/ready").0 == 200).then_some(()));
        assert!(back.is_some(), "{:?}", b.page("/ready"));
        know([&a, &b], 2);
        let said = a.control(&["certs", "rotate", "--root"]);
        assert_eq!(said.code, Some(0), "{said:?}");
    });
    assert_eq!(roots(&b).0, 1);
    ports.come("/cart/1", 200);
}
