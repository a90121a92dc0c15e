//! What daemons share: documents, certificates, endpoints, tokens, and what they know of proxies.

use super::*;
use std::time::Instant;

#[test]
fn a_push_at_one_daemon_reaches_the_proxies_of_both_and_they_trust_each_other() {
    let Some((_etcd, a, b)) = two("two daemons") else { return };
    let (ports, origin) = (Ports::new(), Origin::text("cart"));
    a.push(&document(&ports, &origin, 200));
    // A hop from a proxy of one to a proxy of the other: certificates, trust and endpoints of both.
    let (_cart, _edge) = (joins(&a, "cart"), joins(&b, "edge"));
    ports.come("/cart/1", 200);
    for (mesh, status) in [(&b, 201), (&a, 202)] {
        mesh.write(&document(&ports, &origin, status));
        mesh.done(&["apply", "mesh.yaml"]);
        let begun = Instant::now();
        ports.come("/ping", status);
        // A second, but for a machine that runs other tests too.
        assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    }
    // Who waits at one waits for all that it knows of.
    know([&a, &b], 2);
    a.push(&document(&ports, &origin, 203));
    assert_eq!(ports.status("/ping"), 203);
    for mesh in [&a, &b] {
        assert_eq!(mesh.json(&["status"])["version"], 4);
        // What another daemon knows is told within a moment.
        let has = |proxy: &serde_json::Value| proxy["connected"] == true && proxy["applied"]["version"] == "4";
        let both = until(Duration::from_secs(5), || {
            let status = mesh.json(&["status"]);
            let proxies = status["proxies"].as_array()?;
            (proxies.len() == 2 && proxies.iter().all(has)).then_some(())
        });
        assert!(both.is_some(), "{}", mesh.done(&["status"]));
        let text = mesh.done(&["status"]);
        assert!(text.contains(&format!("at {} (this one, 1 proxy)", mesh.address())), "{text}");
    }
    // A proxy that one forgets is cut off by the other, that it is connected to.
    let connected = |mesh: &Mesh| mesh.page("/metrics").1.contains("ringwayd_proxies 1\n");
    assert!(connected(&b));
    let id = b.proxies("edge")[0]["id"].as_str().unwrap().to_owned();
    a.done(&["proxy", "forget", &id]);
    let gone = until(Duration::from_secs(10), || (!connected(&b) && b.proxies("edge").is_empty()).then_some(()));
    assert!(gone.is_some(), "{}", b.done(&["status"]));
    assert!(connected(&a));
}

#[test]
fn endpoints_of_one_daemons_proxies_come_and_go_at_the_others_within_a_second() {
    let Some((_etcd, a, b)) = two("endpoints") else { return };
    let (ports, origin) = (Ports::new(), Origin::text("cart"));
    a.push(&document(&ports, &origin, 200));
    let (cart, _edge) = (joins(&a, "cart"), joins(&b, "edge"));
    ports.come("/cart/1", 200);
    know([&a, &b], 2);
    // It drains: no endpoint any more, told at the daemon that it is not connected to.
    let id = b.proxies("cart")[0]["id"].as_str().unwrap().to_owned();
    b.done(&["drain", &id]);
    let begun = Instant::now();
    ports.come("/cart/1", 503);
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    drop(cart);
}

#[test]
fn of_operators_who_push_at_two_daemons_at_once_none_is_lost() {
    let Some((_etcd, a, b)) = two("two operators") else { return };
    let (ports, origin) = (Ports::new(), Origin::text("cart"));
    a.push(&document(&ports, &origin, 200));
    for base in 1..=4_u16 {
        let push = |mesh: &Mesh, status: u16| {
            mesh.write(&document(&ports, &origin, status));
            mesh.control(&["apply", "mesh.yaml", "--base", &base.to_string()])
        };
        let seen = until(Duration::from_secs(5), || {
            [&a, &b].iter().all(|mesh| mesh.json(&["status"])["version"] == base).then_some(())
        });
        assert!(seen.is_some(), "version {base} is not everywhere");
        let said = std::thread::scope(|scope| {
            let one = scope.spawn(|| push(&a, 210 + base * 2));
            let other = push(&b, 211 + base * 2);
            [one.join().unwrap(), other]
        });
        let done = said.iter().filter(|said| said.code == Some(0)).count();
        assert_eq!(done, 1, "{said:?}");
        let lost = said.iter().find(|said| said.code == Some(1)).expect("the other is told");
        assert!(lost.all().contains("is in force, and you saw version"), "{lost:?}");
    }
    let history = b.json(&["history"]);
    let numbers: Vec<_> = history["versions"].as_array().unwrap().iter().map(|one| one["number"].clone()).collect();
    assert_eq!(numbers, [5, 4, 3, 2, 1]);
}

#[test]
fn the_last_use_of_a_token_is_burnt_once_though_two_daemons_are_asked() {
    let Some((_etcd, a, b)) = two("token race") else { return };
    let (ports, origin) = (Ports::new(), Origin::text("cart"));
    a.push(&document(&ports, &origin, 200));
    for round in 1..=4 {
        let token = a.done(&["token", "create", "--group", "cart"]);
        let (one, other) = (with_token(&a, &token).start_unready(), with_token(&b, &token).start_unready());
        let is_in = |proxy: &Proxy| proxy.output().contains("joined group cart");
        let is_out = |proxy: &Proxy| proxy.output().contains("used up by another key");
        let decided = until(Duration::from_secs(15), || {
            let both = [&one, &other];
            both.iter().all(|proxy| is_in(proxy) || is_out(proxy)).then_some(())
        });
        assert!(decided.is_some(), "{}\n{}", one.output(), other.output());
        assert!(is_in(&one) != is_in(&other), "{}\n{}", one.output(), other.output());
        assert_eq!(b.proxies("cart").len(), round);
    }
}

#[test]
fn rates_and_edges_are_of_the_proxies_of_all_daemons() {
    let Some((_etcd, a, mut b)) = two("rates of all") else { return };
    let (ports, origin) = (Ports::new(), Origin::text("cart"));
    a.push(&document(&ports, &origin, 200));
    let (_cart, _edge) = (joins(&a, "cart"), joins(&b, "edge"));
    ports.come("/cart/1", 200);
    know([&a, &b], 2);
    for mesh in [&a, &b] {
        // Of cart's proxy at the one, of the gateway's at the other.
        let groups = || {
            assert_eq!(ports.status("/cart/1"), 200);
            let top = mesh.json(&["top", "--once"]);
            let rates = top["rates"].as_array().cloned().unwrap_or_default();
            ["cart", "edge"].iter().all(|group| rates.iter().any(|rate| rate["group"] == *group)).then_some(())
        };
        assert!(until(Duration::from_secs(20), groups).is_some(), "{}", mesh.done(&["top", "--once"]));
        let counted = || {
            assert_eq!(ports.status("/cart/1"), 200);
            mesh.done(&["edges"]).contains("spiffe://shop/group/edge").then_some(())
        };
        assert!(until(Duration::from_secs(30), counted).is_some(), "{}", mesh.done(&["edges"]));
    }
    let place = b.address();
    b.kill();
    let said = a.control(&["top", "--once"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(said.err.contains("is missing here") && said.err.contains(&place), "{said:?}");
}
