//! An Envoy's view of snapshots: what it cannot take is not in it, and where it listens is known when it has taken it.

use super::super::view::{Reader, View};
use super::*;
use api::envoy_types::pb::envoy::config::core::v3::Node;

fn view() -> View {
    let node = Node { user_agent_name: "envoy".to_owned(), ..Node::default() };
    View::new(Reader::of(&node).unwrap())
}

/// Two listeners, one of which it cannot have while there are trusted hops.
fn two(port: u16, hops: u32) -> String {
    format!(
        "trust-domain: shop
groups:
  edge:
    listeners:
      web: {{ address: 127.0.0.1:{port}, routes: [ {{ to: app }} ] }}
      odd: {{ address: 127.0.0.1:81, forwarded: {{ mode: replace, trusted-hops: {hops} }}, routes: [ {{ to: app }} ] }}
services:
  app: {{ endpoints: {{ group: edge, listener: web }} }}
"
    )
}

fn names(of: &Snapshot, kind: Kind) -> Vec<String> {
    of.resources(kind).keys().map(|name| name.to_string()).collect()
}

/// It has taken everything but these.
fn taken(number: u64, refused: &[&str]) -> Progress {
    let rejected = refused.iter().map(|name| pb::Rejected {
        type_url: Kind::Listener.type_url().to_owned(),
        name: (*name).to_owned(),
        ..pb::Rejected::default()
    });
    Progress { sent: number, settled: number, rejected: rejected.collect() }
}

#[test]
fn what_it_cannot_take_is_not_there_and_counts_as_refused() {
    let (snapshots, mut view) = (Snapshots::default(), view());
    push(&snapshots, 1, &two(80, 1));
    let source = now_of(&snapshots);
    let first = view.of(source.clone());
    assert_eq!(
        (names(&first, Kind::Listener), names(&first, Kind::Routes)),
        (vec!["web".to_owned()], names(&source, Kind::Routes))
    );
    let told = view.progress(taken(1, &[]));
    assert_eq!(
        (told.rejected.len(), told.rejected[0].name.as_str(), told.rejected[0].version.as_str()),
        (1, "odd", "1")
    );
    assert!(told.rejected[0].reason.contains("trusted-hops"), "{told:?}");

    // Endpoints alone: nothing is made again.
    snapshots.report("edge", "web", at("10.0.0.1:80"));
    let second = view.of(now_of(&snapshots));
    assert!(second.shares(&first, Kind::Listener) && second.shares(&first, Kind::Cluster));
    assert_eq!(second.changed_after(&first).unwrap().count(), 1);
    assert_eq!(view.progress(taken(1, &[])).rejected.len(), 1, "it is still not there");

    push(&snapshots, 2, &two(80, 0));
    let third = view.of(now_of(&snapshots));
    assert_eq!(names(&third, Kind::Listener), ["odd", "web"]);
    assert!(Arc::ptr_eq(&third.resources(Kind::Listener)["web"], &first.resources(Kind::Listener)["web"]));
    assert!(view.progress(taken(2, &[])).rejected.is_empty());
}

#[test]
fn it_listens_where_it_has_taken_it_and_goes_on_where_it_refuses() {
    let (snapshots, mut view) = (Snapshots::default(), view());
    let listens = |view: &mut View, progress: &Progress| {
        let places = view.listens(progress)?;
        Some(places.iter().map(|(name, address)| format!("{name} {address}")).collect::<Vec<_>>().join(", "))
    };
    push(&snapshots, 1, &two(80, 0));
    view.of(now_of(&snapshots));
    assert_eq!(listens(&mut view, &Progress::default()), None, "it has taken nothing yet");
    assert_eq!(listens(&mut view, &taken(1, &["odd"])), Some("web 127.0.0.1:80".to_owned()));
    assert_eq!(listens(&mut view, &taken(1, &["odd"])), None, "nothing is new");
    assert_eq!(listens(&mut view, &taken(1, &[])), Some("odd 127.0.0.1:81, web 127.0.0.1:80".to_owned()));
    push(&snapshots, 2, &two(82, 0));
    view.of(now_of(&snapshots));
    assert_eq!(listens(&mut view, &taken(1, &[])), None, "it is not that far");
    assert_eq!(listens(&mut view, &taken(2, &["web"])), None, "it goes on where it was");
    assert_eq!(listens(&mut view, &taken(2, &[""])), None, "it may be any");
    assert_eq!(listens(&mut view, &taken(2, &[])), Some("odd 127.0.0.1:81, web 127.0.0.1:82".to_owned()));
}
