//! Edge certificates for one group alone, and another root under traffic.

use super::{Shop, local};
use ringway_tests::certificates::{Authority, Leaf};
use ringway_tests::tls::Tls;
use ringway_tests::{Mesh, eventually, free_port};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

#[test]
fn an_edge_certificate_reaches_its_group_and_another_takes_its_place() {
    let port = free_port();
    let authority = Authority::new("edge");
    let mesh = Mesh::start();
    for name in ["one", "two"] {
        authority.issue(&Leaf::of(&["shop.example.com"])).put(mesh.folder(), name);
    }
    mesh.push(&format!(
        "trust-domain: shop
groups:
  edge:
    listeners:
      web:
        address: 127.0.0.1:{port}
        tls: {{ certificates: [ {{ secret: shop }} ] }}
        routes: [ {{ respond: {{ status: 200, body: hello }} }} ]
"
    ));
    let put = |name: &str| {
        let (certificate, key) = (format!("{name}.pem"), format!("{name}.key"));
        mesh.control(&["secret", "put", "shop", "--group", "edge", "--certificate", &certificate, "--key", &key])
    };
    assert_eq!(put("one").code, Some(0));
    let _proxy = mesh.proxy("edge");
    let tls = Tls::trusting(&[&authority]);
    let shown = || {
        let mut client = tls.try_connect(local(port), "shop.example.com").ok()?;
        client.get("/");
        client.met().certificate
    };
    eventually("it is shown", || shown().is_some());
    let first = shown();
    let list = mesh.done(&["secret", "list"]);
    assert!(list.contains("shop.example.com") && !list.contains("PRIVATE"), "{list}");
    assert_eq!(put("two").code, Some(0));
    eventually("another is shown", || shown().is_some() && shown() != first);
    // A key that is not the certificate's changes nothing.
    std::fs::copy(mesh.folder().join("one.key"), mesh.folder().join("two.key")).unwrap();
    let wrong = put("two");
    assert_eq!(wrong.code, Some(1), "{wrong:?}");
    mesh.done(&["secret", "remove", "shop", "--group", "edge"]);
    assert!(mesh.done(&["secret", "list"]).contains("no secret"));
}

#[test]
fn another_root_takes_the_place_of_the_old_one_while_requests_flow() {
    let shop = Shop::new();
    let (mesh, _cart, _web) = shop.open();
    let root = |mesh: &Mesh| {
        let certs = mesh.json(&["certs"]);
        let lines = certs["lines"].as_array().cloned().unwrap_or_default();
        let roots: Vec<_> =
            lines.iter().filter(|line| line["kind"] == "root").map(|line| line["holder"].clone()).collect();
        // Of the proxies, of what issues, and of the daemon itself.
        let kinds = ["proxy", "issuer", "daemon"];
        let below = lines.iter().filter(|line| kinds.iter().any(|kind| line["kind"] == *kind));
        (roots.len(), below.map(|line| line["chains_to"].clone()).collect::<Vec<_>>())
    };
    let (_, old) = root(&mesh);
    let (stop, failed, sent) = (AtomicBool::new(false), AtomicU32::new(0), AtomicU32::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                sent.fetch_add(1, Ordering::Relaxed);
                failed.fetch_add(u32::from(shop.status() != Some(200)), Ordering::Relaxed);
            }
        });
        let said = mesh.control(&["certs", "rotate", "--root"]);
        stop.store(true, Ordering::Relaxed);
        assert_eq!(said.code, Some(0), "{said:?}");
        assert!(said.out.contains("the new root alone is trusted"), "{said:?}");
    });
    assert!(sent.into_inner() > 10);
    assert_eq!(failed.into_inner(), 0);
    let (roots, new) = root(&mesh);
    assert_eq!((roots, new.len()), (1, 4));
    assert!(new.iter().all(|one| !old.contains(one)), "{old:?} {new:?}");
    assert_eq!(shop.status(), Some(200));
}

#[test]
fn a_root_waits_for_who_is_absent_until_that_one_is_forgotten() {
    let shop = Shop::new();
    let (mesh, cart, web) = shop.open();
    let id = mesh.proxies("cart")[0]["id"].as_str().unwrap().to_owned();
    drop(cart);
    eventually("cart's is absent", || mesh.proxies("cart")[0]["connected"] == false);
    let waits = mesh.control(&["certs", "rotate", "--root"]);
    assert_eq!(waits.code, Some(4), "{waits:?}");
    assert!(waits.all().contains(&format!("ringwayctl proxy forget {id}")), "{waits:?}");
    mesh.done(&["proxy", "forget", &id]);
    mesh.done(&["certs", "rotate", "--root"]);
    assert!(mesh.done(&["certs", "rotate", "--root", "--status"]).contains("one root is trusted"));
    drop(web);
}
