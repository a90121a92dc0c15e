//! Proxies: joining, status, draining, forgetting, endpoints, traffic.

use super::{Shop, local};
use ringway_tests::{Client, Mesh, Origin, eventually, free_port};
use std::fs;
use std::time::Duration;

#[test]
fn status_shows_who_has_joined_and_how_far_they_are() {
    let shop = Shop::new();
    let (mesh, cart, _web) = shop.open();
    eventually("both report", || {
        let all = [mesh.proxies("cart"), mesh.proxies("web")].concat();
        all.len() == 2 && all.iter().all(|proxy| proxy["ready"] == true && proxy["applied"]["version"] == "1")
    });
    let one = &mesh.proxies("cart")[0];
    assert_eq!(one["identity"], "spiffe://shop/group/cart");
    assert_eq!(one["listeners"][0]["address"], format!("127.0.0.1:{}", shop.inside));
    let table = mesh.done(&["status"]);
    assert!(table.contains("version 1 is in force; 2 of 2 proxies are connected"), "{table}");
    let row = table.lines().find(|line| line.contains(one["id"].as_str().unwrap())).unwrap();
    assert!(row.contains("ready") && row.contains("in 23 h"), "{row}");
    assert!(mesh.done(&["certs"]).contains("spiffe://shop/group/cart"));
    drop(cart);
    eventually("cart's is absent", || mesh.proxies("cart")[0]["connected"] == false);
    assert!(mesh.done(&["status"]).contains("absent"));
}

#[test]
fn a_token_is_for_its_group_and_is_spent_or_revoked() {
    let shop = Shop::new();
    let mesh = Mesh::start();
    mesh.push(&shop.document("web"));
    let created = mesh.control(&["token", "create", "--group", "web", "--ttl", "10m"]);
    assert_eq!(created.out.lines().count(), 1, "standard output is the token alone: {created:?}");
    assert!(created.out.starts_with("rw1.") && created.err.contains("one proxy join group web"), "{created:?}");
    let id = mesh.json(&["token", "list"])["tokens"][0]["id"].as_str().unwrap().to_owned();
    assert!(!mesh.done(&["token", "list"]).contains("rw1."));
    mesh.done(&["token", "revoke", &id]);
    assert_eq!(mesh.json(&["token", "list"])["tokens"].as_array().unwrap().len(), 0);
    let other = mesh.control(&["token", "create", "--group", "none"]);
    assert!(other.code == Some(1) && other.err.contains("no group"), "{other:?}");
}

#[test]
fn a_drained_proxy_gets_nothing_more_and_a_forgotten_one_is_gone() {
    let shop = Shop::new();
    let (mesh, mut first, _web) = shop.open();
    let id = mesh.proxies("cart")[0]["id"].as_str().unwrap().to_owned();
    let none = mesh.control(&["drain", "nobody"]);
    assert!(none.code == Some(1) && none.err.contains("ringwayctl status"), "{none:?}");
    // A request that is under way holds it for as long as it lasts.
    let mut slow = Client::to(local(shop.out));
    slow.send("POST /slow HTTP/1.1\r\nHost: cart\r\nContent-Length: 2\r\n\r\n1");
    eventually("it has come to cart", || first.metrics().sum("ringway_requests_active", &[]) > 0.0);
    mesh.done(&["drain", &id]);
    eventually("status says that it drains", || mesh.proxies("cart")[0]["draining"] == true);
    eventually("web has nobody to send to", || shop.status() == Some(503));
    assert!(first.runs());
    slow.send("2");
    assert_eq!(slow.try_answer("POST").unwrap().status, 200);
    assert!(first.ended(Duration::from_secs(10)).success());
    // It takes a break: the order was for that process, not for the next one.
    eventually("it is absent", || mesh.proxies("cart")[0]["connected"] == false);
    let absent = mesh.control(&["drain", &id]);
    assert!(absent.code == Some(1) && absent.err.contains("is not connected"), "{absent:?}");
    let mut first = first.kill().start();
    eventually("it serves again", || shop.status() == Some(200));
    assert!(first.runs());
    drop(first);
    mesh.done(&["proxy", "forget", &id]);
    assert_eq!(mesh.proxies("cart").len(), 0);
    eventually("web has nobody to send to", || shop.status() == Some(503));
    let _second = mesh.proxy("cart");
    eventually("another serves", || shop.status() == Some(200));
}

#[test]
fn endpoints_that_operators_set_reach_proxies_without_a_version() {
    let (one, two, port) = (Origin::text("one"), Origin::text("two"), free_port());
    let mesh = Mesh::start();
    mesh.push(&format!(
        "trust-domain: shop
groups:
  web: {{ listeners: {{ out: {{ address: 127.0.0.1:{port}, routes: [ {{ to: db }} ] }} }} }}
services: {{ db: {{ endpoints: set }} }}
"
    ));
    let _proxy = mesh.proxy("web");
    let get = || {
        let mut client = Client::try_to(local(port)).ok()?;
        client.try_send("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").ok()?;
        client.try_answer("GET").ok().map(|answer| (answer.status, answer.text().to_owned()))
    };
    for origin in [&one, &two] {
        mesh.done(&["endpoints", "set", "db", &origin.address().to_string()]);
        let text = if std::ptr::eq(origin, &one) { "one" } else { "two" };
        eventually("it is followed", || get() == Some((200, text.to_owned())));
    }
    mesh.done(&["endpoints", "set", "db", "--none"]);
    eventually("there is none", || get().is_some_and(|(status, _)| status == 503));
    assert_eq!(mesh.json(&["status"])["version"], 1);
    let wrong = mesh.control(&["endpoints", "set", "db", "nonsense"]);
    assert!(wrong.code == Some(1) && wrong.err.contains("nonsense"), "{wrong:?}");
    // Many at once, from a file.
    fs::write(mesh.folder().join("list"), format!("# of today\n\ndb {}\n", one.address())).unwrap();
    mesh.done(&["endpoints", "set", "--file", "list"]);
    eventually("it is followed", || get() == Some((200, "one".to_owned())));
    fs::write(mesh.folder().join("list"), "\nother 10.0.0.1:1\n").unwrap();
    let wrong = mesh.control(&["endpoints", "set", "--file", "list"]);
    assert!(wrong.code == Some(1) && wrong.err.contains("list:2:1: no group shares a service `other`"), "{wrong:?}");
}

#[test]
fn traffic_is_seen_by_route_and_by_who_talks_to_whom() {
    let shop = Shop::new();
    let (mesh, _cart, _web) = shop.open();
    eventually("rates of both proxies", || {
        for _ in 0..20 {
            shop.ask();
        }
        let rates = mesh.json(&["top", "--once"]);
        let rates = rates["rates"].as_array().cloned().unwrap_or_default();
        let has = |group: &str, route: &str| {
            let of = |rate: &&serde_json::Value| rate["group"] == group && rate["route"] == route;
            rates
                .iter()
                .find(of)
                .is_some_and(|rate| rate["requests_per_s"].as_f64() > Some(0.0) && rate["success"] == 1.0)
        };
        has("web", "out/cart") && has("cart", "in/app")
    });
    assert!(mesh.done(&["top", "--once"]).contains("in/app"));
    eventually("the edge from web to cart", || {
        for _ in 0..20 {
            shop.ask();
        }
        let edges = mesh.json(&["edges"]);
        let edges = edges["edges"].as_array().cloned().unwrap_or_default();
        edges.iter().any(|edge| {
            edge["source"] == "spiffe://shop/group/web" && edge["group"] == "cart" && edge["allowed"].as_u64() > Some(0)
        })
    });
}

#[test]
fn what_a_proxy_refuses_is_listed_until_it_can_be_taken() {
    let shop = Shop::new();
    let (mesh, _cart, _web) = shop.open();
    // Something else has the address that cart's shall take.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let more = format!(
        "        routes: [ {{ name: app, to: app }} ]\n      more: {{ address: 127.0.0.1:{port}, routes: [ {{ name: app, to: app }} ] }}\n"
    );
    let document = shop.document("web").replacen("        routes: [ { name: app, to: app } ]\n", &more, 1);
    mesh.write(&document);
    let said = mesh.control(&["apply", "mesh.yaml", "--wait"]);
    assert_eq!(said.code, Some(4), "{said:?}");
    assert!(said.out.contains("listener/more"), "{said:?}");
    let rejects = mesh.json(&["rejects"]);
    let one = &rejects[0];
    assert_eq!((&one["group"], &one["name"], &one["version"]), (&"cart".into(), &"more".into(), &"2".into()), "{one}");
    let reason = one["reason"].as_str().unwrap().to_owned();
    assert!(reason.contains(&port.to_string()) && mesh.done(&["rejects"]).contains(&reason), "{reason}");
    assert_eq!(shop.status(), Some(200), "the rest is as it was");
    // It is free now, and tried again.
    drop(taken);
    eventually("nothing is refused", || mesh.json(&["rejects"]).as_array().is_some_and(Vec::is_empty));
    eventually("it is served there", || {
        Client::try_to(super::local(port)).is_ok_and(|mut client| client.get("/x").text() == "from cart")
    });
}
