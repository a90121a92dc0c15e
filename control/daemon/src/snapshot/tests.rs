//! Only what changed is new, only who is concerned is told, and a group gets nothing of another.

use super::*;

pub(crate) const MESH: &str = "
trust-domain: shop
groups:
  edge:
    listeners:
      web:
        address: 127.0.0.1:8443
        tls: { certificates: [ { secret: shop } ] }
        routes: [ { name: cart, match: { path: /cart/* }, to: cart }, { name: rest, to: legacy } ]
  cart:
    listeners:
      in: { address: 127.0.0.1:8080, tls: {}, routes: [ { to: app } ] }
    services:
      app: { endpoints: [127.0.0.1:8081] }
services:
  cart: { endpoints: { group: cart, listener: in }, tls: { expect: group } }
  legacy: { endpoints: set }
";

pub(crate) fn mesh(text: &str) -> Arc<Mesh> {
    Arc::new(api::mesh::load(text, "mesh.yaml").unwrap_or_else(|findings| panic!("{findings:#?}")))
}

fn at(texts: &[&str]) -> BTreeSet<SocketAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn pair(text: &str) -> KeyPair {
    KeyPair { chain: text.into(), key: text.into() }
}

fn names(snapshot: &Snapshot, kind: Kind) -> Vec<String> {
    snapshot.resources(kind).keys().map(|name| name.to_string()).collect()
}

/// What has changed since the snapshot that was seen last.
fn news(receiver: &mut watch::Receiver<Arc<Snapshot>>, seen: &mut u64) -> Vec<String> {
    let snapshot = receiver.borrow_and_update().clone();
    let changed = snapshot.changed_since(*seen).expect("not long ago");
    let changed = changed.map(|(kind, name)| format!("{} {name}", kind.word())).collect();
    *seen = snapshot.revision;
    changed
}

#[test]
fn a_group_has_what_it_needs_and_is_told_what_concerns_it() {
    let snapshots = Snapshots::default();
    let (mut edge, mut cart) = (snapshots.subscribe("edge"), snapshots.subscribe("cart"));
    assert_eq!((edge.borrow().revision, names(&edge.borrow(), Kind::Listener).len()), (0, 0));
    snapshots.put_in_force(1, mesh(MESH));
    let (mut edge_seen, mut cart_seen) = (0, 0);
    let first = news(&mut edge, &mut edge_seen);
    assert_eq!(
        first,
        [
            "cluster cart",
            "cluster legacy",
            "endpoints cart",
            "endpoints legacy",
            "secret mesh-trust",
            "listener web",
            "route web"
        ]
    );
    let first = news(&mut cart, &mut cart_seen);
    assert_eq!(first, ["cluster app", "endpoints app", "secret mesh-trust", "listener in", "route in"]);

    snapshots.report("cart", "in", at(&["10.0.0.1:8080"]));
    assert_eq!(news(&mut edge, &mut edge_seen), ["endpoints cart"]);
    snapshots.report("cart", "in", at(&["10.0.0.1:8080"]));
    snapshots.report("cart", "other", at(&["10.0.0.1:8080"]));
    assert!(!edge.has_changed().unwrap(), "nothing is new");
    snapshots.report("cart", "in", at(&[]));
    assert_eq!(news(&mut edge, &mut edge_seen), ["endpoints cart"]);

    snapshots.set(BTreeMap::from([("legacy".to_owned(), vec![Address::Socket("10.0.0.7:1".parse().unwrap())])]));
    assert_eq!(news(&mut edge, &mut edge_seen), ["endpoints legacy"]);
    snapshots.set(BTreeMap::from([("cart".to_owned(), vec![Address::Socket("10.0.0.7:1".parse().unwrap())])]));
    assert!(!edge.has_changed().unwrap(), "`cart` is not for operators to set");
    snapshots.set(BTreeMap::from([("legacy".to_owned(), vec![])]));
    assert_eq!(news(&mut edge, &mut edge_seen), ["endpoints legacy"]);

    let secrets = [("edge", "shop"), ("cart", "shop"), ("edge", "other")];
    let secrets = secrets.map(|(group, name)| ((group.to_owned(), name.to_owned()), pair("a")));
    assert!(!cart.has_changed().unwrap(), "none of all that is `cart`'s");
    snapshots.trust(b"roots".to_vec(), secrets.into());
    assert_eq!(news(&mut edge, &mut edge_seen), ["secret mesh-trust", "secret secret/shop"]);
    assert_eq!(news(&mut cart, &mut cart_seen), ["secret mesh-trust"], "it names no secret, and gets none");
}

#[test]
fn a_push_changes_what_it_says_and_shares_the_rest() {
    let snapshots = Snapshots::default();
    snapshots.put_in_force(1, mesh(MESH));
    let (mut edge, cart) = (snapshots.subscribe("edge"), snapshots.subscribe("cart"));
    let before = edge.borrow().clone();
    let mut seen = before.revision;
    snapshots.put_in_force(2, mesh(&MESH.replace("/cart/*", "/carts/*")));
    assert_eq!(news(&mut edge, &mut seen), ["route web"]);
    let after = edge.borrow().clone();
    assert_eq!((before.number, after.number), (1, 2));
    let shared = |kind: Kind, name: &str| Arc::ptr_eq(&before.resources(kind)[name], &after.resources(kind)[name]);
    assert!(shared(Kind::Listener, "web") && shared(Kind::Cluster, "cart") && !shared(Kind::Routes, "web"));
    // The other group learns the number: all it has is of this push.
    assert_eq!((cart.borrow().number, cart.borrow().changed_since(1).unwrap().count()), (2, 0));

    let mut gone = seen;
    snapshots.put_in_force(3, mesh("trust-domain: shop\ngroups: {}"));
    let removed = news(&mut edge, &mut gone);
    assert_eq!(removed.len(), 7, "{removed:?}");
    assert!(
        Kind::ALL.iter().all(|kind| edge.borrow().resources(*kind).is_empty()),
        "a group that is no more has nothing"
    );
}

#[test]
fn who_is_too_far_behind_compares_everything() {
    let snapshots = Snapshots::default();
    snapshots.put_in_force(1, mesh(MESH));
    let edge = snapshots.subscribe("edge");
    let first = edge.borrow().revision;
    for port in 1..=100 {
        snapshots.report("cart", "in", at(&[&format!("10.0.0.1:{port}")]));
    }
    let snapshot = edge.borrow().clone();
    assert!(snapshot.changed_since(first).is_none());
    assert_eq!(snapshot.changed_since(snapshot.revision - 64).map(Iterator::count), Some(64));
    assert!(snapshot.changed_since(snapshot.revision - 65).is_none());
    assert!(snapshot.changed_since(snapshot.revision + 1).is_none(), "of another life");
}

#[test]
fn groups_that_nobody_has_and_nobody_asks_for_are_dropped() {
    let snapshots = Snapshots::default();
    snapshots.put_in_force(1, mesh(MESH));
    drop(snapshots.subscribe("never"));
    let kept = snapshots.subscribe("once");
    snapshots.put_in_force(2, mesh(MESH));
    let groups: BTreeSet<String> = snapshots.lock().groups.keys().map(|name| name.to_string()).collect();
    assert_eq!(groups, BTreeSet::from(["once".to_owned()]));
    drop(kept);
}
