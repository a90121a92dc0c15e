//! Where proxies listen: who is an endpoint, for how long, and after a restart.

use super::places::{RETURN, STILL, VANISHED};
use super::*;
use crate::snapshot::Snapshots;
use crate::store::{Change, Store};
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

    /// Waits until the disk has what there is, and the task is idle; time stands still meanwhile.
    async fn written(&self) {
        // The task's own writing stands before this one.
        for _ in 0..2 {
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
            let store = self.store.clone();
            let probe = tokio::spawn(async move { store.commit(Change::new().put("probe", &1)).await.map(drop) });
            while !probe.is_finished() {
                std::thread::sleep(Duration::from_millis(1));
                tokio::task::yield_now().await;
            }
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

/// Time passes, in which these report that they listen there, as they do every other second.
async fn pass(daemon: &Daemon, time: Duration, heard: &[(&Session, &str)]) {
    // The task waits for the disk, where time is another.
    daemon.written().await;
    let end = tokio::time::Instant::now() + time;
    while tokio::time::Instant::now() < end {
        tokio::time::sleep(Duration::from_secs(1)).await;
        for (session, address) in heard {
            session.reported(report(address, true)).await;
        }
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
    let second = Duration::from_secs(1);
    drop(session);
    pass(&daemon, VANISHED - second, &[(&other, "0.0.0.0:81")]).await;
    daemon.come_to(&["10.0.0.1:81", "10.0.0.2:81"]).await;
    let session = daemon.fleet.session("a", "cart", peer());
    session.reported(report("0.0.0.0:81", true)).await;
    pass(&daemon, 2 * VANISHED, &[(&session, "0.0.0.0:81"), (&other, "0.0.0.0:81")]).await;
    daemon.come_to(&["10.0.0.1:81", "10.0.0.2:81"]).await;

    // An older session that ends says nothing about the newer one.
    let newer = daemon.fleet.session("a", "cart", peer());
    newer.reported(report("0.0.0.0:82", true)).await;
    session.reported(report("0.0.0.0:83", true)).await;
    drop(session);
    pass(&daemon, 2 * VANISHED, &[(&newer, "0.0.0.0:82"), (&other, "0.0.0.0:81")]).await;
    daemon.come_to(&["10.0.0.1:82", "10.0.0.2:81"]).await;

    drop(newer);
    daemon.come_to(&["10.0.0.1:82", "10.0.0.2:81"]).await;
    pass(&daemon, VANISHED - second, &[(&other, "0.0.0.0:81")]).await;
    daemon.come_to(&["10.0.0.1:82", "10.0.0.2:81"]).await;
    pass(&daemon, 2 * second, &[(&other, "0.0.0.0:81")]).await;
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
    let heard = [(&session, "10.0.0.1:80")];
    pass(&after, RETURN - Duration::from_secs(1), &heard).await;
    after.come_to(&["10.0.0.1:80", "10.0.0.2:80"]).await;
    pass(&after, Duration::from_secs(2), &heard).await;
    after.come_to(&["10.0.0.1:80"]).await;
}

/// The order to drain is for a process.
#[tokio::test(start_paused = true)]
async fn who_was_drained_begins_anew_with_its_next_process() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = Daemon::on(Store::open(folder.path()).unwrap()).await;
    let begin = async |epoch: u64| {
        let session = daemon.fleet.session("a", "cart", peer());
        let hello = pb::Hello { epoch, ..pb::Hello::default() };
        session.reported(pb::Report { hello: Some(hello), ..report("0.0.0.0:80", true) }).await;
        session
    };
    assert!(!daemon.fleet.drain("a"), "nobody knows it");
    let first = begin(1).await;
    assert!(daemon.fleet.drain("a") && first.wanted.borrow().drain);
    let again = begin(1).await;
    assert!(again.wanted.borrow().drain, "it came again before it had heard of it");
    drop((first, again));
    assert!(!daemon.fleet.drain("a"), "it is not there");
    let next = begin(2).await;
    assert!(!next.wanted.borrow().drain);
    daemon.come_to(&["10.0.0.1:80"]).await;
    // One that has not said yet who it is.
    let early = daemon.fleet.session("a", "cart", peer());
    assert!(daemon.fleet.drain("a") && early.wanted.borrow().drain);
    let hello = pb::Hello { epoch: 3, ..pb::Hello::default() };
    early.reported(pb::Report { hello: Some(hello), ..pb::Report::default() }).await;
    assert!(
        early.wanted.borrow().drain && begin(3).await.wanted.borrow().drain && !begin(4).await.wanted.borrow().drain
    );
}

/// Five proxies of a group, and where they listen.
async fn five(daemon: &Daemon) -> (Vec<Session>, [&'static str; 5]) {
    let at = ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80", "10.0.0.4:80", "10.0.0.5:80"];
    let sessions: Vec<Session> = (0..5).map(|n| daemon.fleet.session(&format!("p{n}"), "cart", peer())).collect();
    for (session, at) in sessions.iter().zip(at) {
        session.reported(report(at, true)).await;
    }
    daemon.come_to(&at).await;
    daemon.written().await;
    (sessions, at)
}

/// It is the daemon that is cut off, not they.
#[tokio::test(start_paused = true)]
async fn when_all_vanish_at_once_the_first_who_come_again_are_not_told_that_the_others_are_gone() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = Daemon::on(Store::open(folder.path()).unwrap()).await;
    let (sessions, at) = five(&daemon).await;
    drop(sessions);
    // However long it is.
    tokio::time::sleep(20 * RETURN).await;
    daemon.come_to(&at).await;
    let again = daemon.fleet.session("p3", "cart", peer());
    pass(&daemon, RETURN - Duration::from_secs(1), &[(&again, at[3])]).await;
    daemon.come_to(&at).await;
    pass(&daemon, Duration::from_secs(2), &[(&again, at[3])]).await;
    daemon.come_to(&at[3..4]).await;
}

/// A network that breaks is noticed connection by connection, over half a minute.
#[tokio::test(start_paused = true)]
async fn who_vanishes_after_the_first_came_again_has_as_long_to_come_again() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = Daemon::on(Store::open(folder.path()).unwrap()).await;
    let (mut sessions, at) = five(&daemon).await;
    tokio::time::sleep(3 * VANISHED).await;
    let again = daemon.fleet.session("p0", "cart", peer());
    again.reported(report(at[0], true)).await;
    sessions.truncate(2);
    drop(sessions);
    pass(&daemon, RETURN - Duration::from_secs(1), &[(&again, at[0])]).await;
    daemon.come_to(&at).await;
}

#[tokio::test(start_paused = true)]
async fn when_most_of_a_group_vanish_they_have_a_minute_and_few_have_ten_seconds() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = Daemon::on(Store::open(folder.path()).unwrap()).await;
    let (mut sessions, at) = five(&daemon).await;
    let second = Duration::from_secs(1);
    drop(sessions.drain(..3));
    let heard = [(&sessions[0], at[3]), (&sessions[1], at[4])];
    pass(&daemon, VANISHED + RETURN - 2 * second, &heard).await;
    daemon.come_to(&at).await;
    pass(&daemon, 4 * second, &heard).await;
    daemon.come_to(&at[3..]).await;
    let third = daemon.fleet.session("p0", "cart", peer());
    third.reported(report(at[0], true)).await;
    let last = sessions.pop().unwrap();
    drop(sessions);
    pass(&daemon, VANISHED + 2 * second, &[(&last, at[4]), (&third, at[0])]).await;
    daemon.come_to(&[at[0], at[4]]).await;
}

/// No connection breaks when a machine loses its power.
#[tokio::test(start_paused = true)]
async fn who_says_nothing_any_more_leaves_though_its_connection_stands() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = Daemon::on(Store::open(folder.path()).unwrap()).await;
    let (sessions, at) = five(&daemon).await;
    let second = Duration::from_secs(1);
    let heard: Vec<_> = sessions.iter().zip(at).skip(1).collect();
    pass(&daemon, STILL - 2 * second, &heard).await;
    daemon.come_to(&at).await;
    pass(&daemon, 4 * second, &heard).await;
    daemon.come_to(&at[1..]).await;
    // It comes again without another connection.
    sessions[0].reported(report(at[0], true)).await;
    daemon.come_to(&at).await;
}

/// A network that breaks, or a daemon that stands still: nobody leaves, however it began.
#[tokio::test(start_paused = true)]
async fn when_all_fall_silent_nobody_leaves() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = Daemon::on(Store::open(folder.path()).unwrap()).await;
    let (sessions, at) = five(&daemon).await;
    // They report one after the other.
    for _ in 0..4 {
        for (session, at) in sessions.iter().zip(at) {
            tokio::time::sleep(Duration::from_millis(400)).await;
            session.reported(report(at, true)).await;
        }
    }
    tokio::time::sleep(20 * RETURN).await;
    daemon.come_to(&at).await;
    // The first who are heard are not told that the others are gone.
    pass(&daemon, RETURN - Duration::from_secs(1), &[(&sessions[4], at[4])]).await;
    daemon.come_to(&at).await;
}

/// Most of a group at once: they have a minute.
#[tokio::test(start_paused = true)]
async fn when_most_fall_silent_one_after_the_other_they_have_a_minute() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = Daemon::on(Store::open(folder.path()).unwrap()).await;
    let (sessions, at) = five(&daemon).await;
    for (session, at) in sessions.iter().zip(at) {
        tokio::time::sleep(Duration::from_millis(400)).await;
        session.reported(report(at, true)).await;
    }
    let heard = [(&sessions[4], at[4])];
    pass(&daemon, RETURN, &heard).await;
    daemon.come_to(&at).await;
    pass(&daemon, STILL + Duration::from_secs(3), &heard).await;
    daemon.come_to(&at[4..]).await;
}

/// An Envoy has no reports: its stream says that it is there.
#[tokio::test(start_paused = true)]
async fn who_does_not_report_is_there_as_long_as_its_stream() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = Daemon::on(Store::open(folder.path()).unwrap()).await;
    let session = daemon.fleet.session("a", "cart", peer());
    session.reported(report("10.0.0.1:80", true)).await;
    let mut stream = daemon.fleet.streams("e", "cart");
    let client = crate::xds::Client { proxy: "e".to_owned(), group: "cart".to_owned(), peer: peer().ip() };
    stream.listens(&client, &[("in".into(), "10.0.0.2:80".parse().unwrap())].into()).await;
    pass(&daemon, 2 * RETURN, &[(&session, "10.0.0.1:80")]).await;
    daemon.come_to(&["10.0.0.1:80", "10.0.0.2:80"]).await;
}
