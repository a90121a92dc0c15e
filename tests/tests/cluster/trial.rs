//! A push on trial belongs to all daemons: each gives it to its own proxies, and when the one that leads it is lost, another
//! goes on.

use super::*;

/// A trial of `ping` 201 at `a`, whose proxy is the gateway's; `b` has cart's.
fn tried<T>(a: &Mesh, b: &Mesh, watch: &str, then: impl FnOnce(&Ports) -> T) -> (T, ringway_tests::Said) {
    let (ports, origin) = (Ports::new(), Origin::text("cart"));
    a.push(&document(&ports, &origin, 200));
    let (_edge, _cart) = (joins(a, "edge"), joins(b, "cart"));
    ports.come("/cart/1", 200);
    know([a, b], 2);
    // Both groups change: one of each tries.
    let next = document(&ports, &origin, 201).replace("name: app, to", "name: other, to");
    a.write(&next);
    let result = std::thread::scope(|scope| {
        let apply = scope.spawn(|| a.control(&["apply", "mesh.yaml", "--canary", "50%", "--watch", watch]));
        ports.come("/ping", 201);
        for mesh in [a, b] {
            let told = until(Duration::from_secs(10), || {
                mesh.done(&["status"]).contains("on trial: version 2 by").then_some(())
            });
            assert!(told.is_some(), "{}", mesh.done(&["status"]));
        }
        let then = then(&ports);
        (then, apply.join().expect("no panic"))
    });
    ports.come("/cart/1", 200);
    result
}

#[test]
fn a_trial_takes_in_the_proxies_of_all_daemons_and_is_ended_at_any() {
    let Some((_etcd, a, b)) = two("a trial at two daemons") else { return };
    let ((), said) = tried(&a, &b, "10m", |ports| {
        b.write("trust-domain: shop\ngroups: {}\n");
        let busy = b.control(&["apply", "mesh.yaml", "--force"]);
        assert!(busy.code == Some(1) && busy.all().contains("or end it with `ringwayctl rollback 1`"), "{busy:?}");
        // It goes on: cart's proxy has it too, at the other daemon.
        let counted = until(Duration::from_secs(20), || {
            b.done(&["status"]).contains("on trial: version 2 by").then_some(())?;
            let all = b.json(&["status"])["proxies"].as_array().cloned()?;
            all.iter().all(|proxy| proxy["applied"]["version"] == "2").then_some(())
        });
        assert!(counted.is_some(), "{}", b.done(&["status"]));
        b.done(&["rollback", "1"]);
        ports.come("/ping", 200);
    });
    assert!(said.code == Some(1) && said.all().contains("an operator ended it"), "{said:?}");
    assert_eq!(b.json(&["status"])["version"], 1);
    assert_eq!(b.json(&["history"])["versions"][0]["state"], "rolled back");
}

#[test]
fn when_the_daemon_that_leads_a_trial_is_killed_another_goes_on() {
    let Some((_etcd, mut a, b)) = two("a leader killed") else { return };
    let killed = a.process();
    let ((), _said) = tried(&a, &b, "5s", |ports| {
        kill(killed);
        let taken = until(Duration::from_secs(40), || b.output().contains("this one goes on").then_some(()));
        assert!(taken.is_some(), "{}", b.output());
        let in_force = until(Duration::from_secs(60), || (b.json(&["status"])["version"] == 2).then_some(()));
        assert!(in_force.is_some(), "{}\n{}", b.done(&["status"]), b.output());
        assert_eq!(ports.status("/ping"), 201);
    });
    let history = b.json(&["history"]);
    assert_eq!(history["versions"][0]["state"], "in force", "{history}");
    assert!(!b.done(&["status"]).contains("on trial"));
    a.kill();
    a.revive();
    assert_eq!(a.json(&["status"])["version"], 2);
}

fn kill(process: u32) {
    let status = std::process::Command::new("kill").args(["-9", &process.to_string()]).status();
    assert!(status.expect("kill").success());
}
