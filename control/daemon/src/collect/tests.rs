//! Where proxies listen: who is an endpoint, for how long, and after a restart.

use super::places::{RETURN, VANISHED};
use super::*;
use crate::snapshot::Snapshots;
use crate::store::Store;
use api::pb;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

#[test]
fn where_others_reach_a_listener() {
    let text: String = "x".repeat(300);
    let listener = pb::OwnListener { name: text, address: "1.1.1.1:1".to_owned(), ready: true };
    assert_eq!(fleet::place(&listener, [127, 0, 0, 1].into()), None);
    let of = |address: &str| pb::OwnListener { name: "a".to_owned(), address: address.to_owned(), ready: true };
    let at = |address: &str| fleet::place(&of(address), [10, 0, 0, 1].into()).map(|(_, at)| at.to_string());
    assert_eq!(at("0.0.0.0:80").as_deref(), Some("10.0.0.1:80"));
    assert_eq!(at("[::]:80").as_deref(), Some("10.0.0.1:80"));
    assert_eq!(at("[::ffff:10.0.0.2]:80").as_deref(), Some("10.0.0.2:80"));
    assert_eq!(at("10.0.0.3:80").as_deref(), Some("10.0.0.3:80"));
    for wrong in ["unix:/run/a", "a:80", "10.0.0.1:0", ""] {
        assert_eq!(at(wrong), None, "{wrong}");
    }
}

struct Daemon {
    snapshots: Arc<Snapshots>,
    fleet: Arc<Fleet>,
    store: Store,
}

impl Daemon {
    async fn on(store: Store) -> Daemon {
        let snapshots = Arc::new(Snapshots::default());
        let places = Places::start(store.clone(), snapshots.clone()).await.unwrap();
        Daemon { snapshots, fleet: Fleet::new(places), store }
    }

    /// The endpoints of listener `in` of group `cart`.
    fn endpoints(&self) -> Vec<String> {
        let state = self.snapshots.state();
        let found = state.endpoints.get(&("cart".to_owned(), "in".to_owned()));
        found.into_iter().flatten().map(ToString::to_string).collect()
    }

    /// Waits until the disk has what there is, and the task is idle.
    async fn written(&self) {
        let mut last = 0;
        let mut same = 0;
        while same < 300 {
            let revision = *self.store.watch().borrow();
            same = if revision == last { same + 1 } else { 0 };
            last = revision;
            std::thread::sleep(Duration::from_millis(1));
            tokio::task::yield_now().await;
        }
    }

    /// They are these within a moment.
    async fn come_to(&self, wanted: &[&str]) {
        for _ in 0..2000 {
            if self.endpoints() == wanted {
                return;
            }
            // The store's thread is no task: time must not run away from it.
            std::thread::sleep(Duration::from_millis(1));
            tokio::task::yield_now().await;
        }
        panic!("{:?} are not {wanted:?}", self.endpoints());
    }
}

fn peer() -> SocketAddr {
    "10.0.0.1:5555".parse().unwrap()
}

fn report(address: &str, ready: bool) -> pb::Report {
    let listener = pb::OwnListener { name: "in".to_owned(), address: address.to_owned(), ready };
    pb::Report { listeners: vec![listener], ready: true, ..pb::Report::default() }
}

#[tokio::test(start_paused = true)]
async fn a_proxy_is_an_endpoint_while_it_is_ready_and_some_time_after_it_vanished() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = Daemon::on(Store::open(folder.path()).unwrap()).await;
    let session = daemon.fleet.session("a", "cart", peer());
    session.reported(report("0.0.0.0:80", true)).await;
    daemon.come_to(&["10.0.0.1:80"]).await;
    session.reported(report("0.0.0.0:80", false)).await;
    daemon.come_to(&[]).await;
    session.reported(report("0.0.0.0:81", true)).await;
    daemon.come_to(&["10.0.0.1:81"]).await;
    let other = daemon.fleet.session("b", "cart", "10.0.0.2:1".parse().unwrap());
    other.reported(report("0.0.0.0:81", true)).await;
    daemon.come_to(&["10.0.0.1:81", "10.0.0.2:81"]).await;

    // A drop of the connection alone changes nothing, if it comes again in time.
    drop(session);
    tokio::time::sleep(VANISHED - Duration::from_secs(1)).await;
    daemon.come_to(&["10.0.0.1:81", "10.0.0.2:81"]).await;
    let session = daemon.fleet.session("a", "cart", peer());
    session.reported(report("0.0.0.0:81", true)).await;
    tokio::time::sleep(2 * VANISHED).await;
    daemon.come_to(&["10.0.0.1:81", "10.0.0.2:81"]).await;

    // An older session that ends says nothing about the newer one.
    let newer = daemon.fleet.session("a", "cart", peer());
    newer.reported(report("0.0.0.0:82", true)).await;
    session.reported(report("0.0.0.0:83", true)).await;
    drop(session);
    tokio::time::sleep(2 * VANISHED).await;
    daemon.come_to(&["10.0.0.1:82", "10.0.0.2:81"]).await;

    drop(newer);
    daemon.come_to(&["10.0.0.1:82", "10.0.0.2:81"]).await;
    // It counts from when the task hears of it, which waits for the disk, where time is another.
    daemon.written().await;
    tokio::time::sleep(VANISHED - Duration::from_secs(1)).await;
    daemon.come_to(&["10.0.0.1:82", "10.0.0.2:81"]).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    daemon.come_to(&["10.0.0.2:81"]).await;

    // Who says that it goes is gone at once, and so is who is forgotten.
    other.reported(pb::Report { draining: true, ..report("0.0.0.0:81", true) }).await;
    daemon.come_to(&[]).await;
    other.reported(report("0.0.0.0:81", true)).await;
    daemon.come_to(&["10.0.0.2:81"]).await;
    daemon.fleet.forget("b").await;
    daemon.come_to(&[]).await;
}

#[tokio::test(start_paused = true)]
async fn a_daemon_that_comes_back_knows_the_endpoints_before_they_call() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let before = Daemon::on(store.clone()).await;
    let sessions = ["a", "b"].map(|id| (id, before.fleet.session(id, "cart", peer())));
    for (id, session) in &sessions {
        session.reported(report(if *id == "a" { "10.0.0.1:80" } else { "10.0.0.2:80" }, true)).await;
    }
    before.come_to(&["10.0.0.1:80", "10.0.0.2:80"]).await;
    before.written().await;
    let after = Daemon::on(store).await;
    assert_eq!(after.endpoints(), ["10.0.0.1:80", "10.0.0.2:80"]);
    let session = after.fleet.session("a", "cart", peer());
    session.reported(report("10.0.0.1:80", true)).await;
    tokio::time::sleep(RETURN - Duration::from_secs(1)).await;
    after.come_to(&["10.0.0.1:80", "10.0.0.2:80"]).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    after.come_to(&["10.0.0.1:80"]).await;
}
