//! The etcd that one would really have: of several members, over TLS, with a user and a password.

use super::*;

#[test]
fn an_etcd_over_tls_that_wants_a_password_and_forgets_who_was_let_in() {
    let Some(mut etcd) = Etcd::secured("etcd over TLS") else { return };
    let (a, b) = pair(&etcd);
    let (ports, origin) = (Ports::new(), Origin::text("cart"));
    a.push(&document(&ports, &origin, 200));
    let (_cart, _edge) = (joins(&a, "cart"), joins(&b, "edge"));
    ports.come("/cart/1", 200);
    // What etcd gave for the password is in its memory alone.
    etcd.kill();
    let told = until(Duration::from_secs(20), || (a.page("/ready").0 == 503).then_some(()));
    assert!(told.is_some(), "it is ready without etcd");
    etcd.revive();
    for mesh in [&a, &b] {
        let ready = until(Duration::from_secs(30), || (mesh.page("/ready").0 == 200).then_some(()));
        assert!(ready.is_some(), "{:?}", mesh.page("/ready"));
    }
    b.push(&document(&ports, &origin, 201));
    ports.come("/ping", 201);
    ports.come("/cart/1", 200);
    // No password in anything that a daemon prints.
    for mesh in [&a, &b] {
        assert!(!mesh.output().contains("let me in"), "{}", mesh.output());
    }
}

#[test]
fn of_three_members_one_may_be_lost_and_no_push_with_it() {
    let Some(mut etcd) = Etcd::three("three members") else { return };
    let (a, b) = pair(&etcd);
    let (ports, origin) = (Ports::new(), Origin::text("cart"));
    a.push(&document(&ports, &origin, 200));
    let (_cart, _edge) = (joins(&a, "cart"), joins(&b, "edge"));
    ports.come("/cart/1", 200);
    // Each in turn, so that it is the one that they are connected to, and the leader, too.
    for member in 0..3_u16 {
        etcd.kill_member(usize::from(member));
        let status = 210 + member;
        a.write(&document(&ports, &origin, status));
        // While the others elect a leader it may be refused, or not be known: then it is asked again, as one is told to.
        let taken =
            until(Duration::from_secs(30), || (a.control(&["apply", "mesh.yaml"]).code == Some(0)).then_some(()));
        assert!(taken.is_some(), "{:?}", a.control(&["apply", "mesh.yaml"]));
        ports.come("/ping", status);
        ports.come("/cart/1", 200);
        let ready = until(Duration::from_secs(20), || (b.page("/ready").0 == 200).then_some(()));
        assert!(ready.is_some(), "{:?}", b.page("/ready"));
        etcd.revive();
    }
    // Each of the three once, however often it was asked for.
    assert_eq!(b.json(&["history"])["versions"].as_array().map(Vec::len), Some(4));
}
