//! A proxy of ours of an older release: what it does not understand it is sent in other words, or not at all.

use super::super::view::{Reader, View};
use super::*;
use api::envoy_types::pb::envoy::config::cluster::v3::Cluster;
use api::envoy_types::pb::envoy::config::core::v3::Node;
use api::features::{FEATURES, PROGRAM};

/// A proxy that knows all words but these.
fn without(words: &[&str]) -> Option<Reader> {
    let client_features = FEATURES.iter().filter(|word| !words.contains(word)).map(ToString::to_string).collect();
    Reader::of(&Node { user_agent_name: PROGRAM.to_owned(), client_features, ..Node::default() })
}

/// A gateway that proves itself by a secret, a plain listener, a service of the mesh and a plain one.
const MESH: &str = "trust-domain: shop
groups:
  edge:
    listeners:
      web: { address: 127.0.0.1:80, routes: [ { match: { path: /cart/* }, to: cart }, { to: plain } ] }
      secure: { address: 127.0.0.1:81, tls: { certificates: [ { secret: shop } ] }, routes: [ { to: plain } ] }
  cart:
    listeners:
      in: { address: 127.0.0.1:82, tls: {}, routes: [ { respond: {} } ] }
services:
  cart: { endpoints: { group: cart, listener: in }, tls: { expect: group } }
  plain: { endpoints: [10.0.0.1:80] }
";

fn names(of: &Snapshot, kind: Kind) -> Vec<String> {
    of.resources(kind).keys().map(|name| name.to_string()).collect()
}

fn policies(of: &Snapshot) -> Vec<String> {
    let cluster: Cluster = xds::decode(&of.resources(Kind::Cluster)["plain"].body, xds::CLUSTER).unwrap();
    let policies = cluster.load_balancing_policy.unwrap().policies.into_iter();
    policies.map(|one| one.typed_extension_config.unwrap().typed_config.unwrap().type_url).collect()
}

#[test]
fn who_knows_all_words_or_is_not_ours_has_everything_as_it_is() {
    assert!(without(&[]).is_none());
    assert!(without(&["ringway.rejected", "ringway.session"]).is_none(), "these change nothing that is sent");
    assert!(Reader::of(&Node { user_agent_name: "grpc".to_owned(), ..Node::default() }).is_none());
}

#[test]
fn a_balance_that_it_does_not_know_is_the_one_behind_it() {
    let (snapshots, mut view) = (Snapshots::default(), View::new(without(&["ringway.peak-ewma"]).unwrap()));
    push(&snapshots, 1, MESH);
    let source = now_of(&snapshots);
    let seen = view.of(source.clone());
    assert_eq!(
        (policies(&source), policies(&seen)),
        (vec![xds::PEAK_EWMA.to_owned(), xds::LEAST_REQUEST.to_owned()], vec![xds::LEAST_REQUEST.to_owned()])
    );
    assert_eq!(names(&seen, Kind::Cluster), names(&source, Kind::Cluster));
    assert!(seen.shares(&source, Kind::Listener) || names(&seen, Kind::Listener) == names(&source, Kind::Listener));
    assert_ne!(
        seen.resources(Kind::Cluster)["plain"].version,
        source.resources(Kind::Cluster)["plain"].version,
        "it is another resource, and sent again when the proxy is newer"
    );
    assert!(view.progress(Progress::default()).rejected.is_empty());
}

#[test]
fn tls_whose_secrets_it_cannot_have_is_not_sent_and_never_without_tls() {
    let (snapshots, mut view) = (Snapshots::default(), View::new(without(&["ringway.sds"]).unwrap()));
    push(&snapshots, 1, MESH);
    let seen = view.of(now_of(&snapshots));
    assert_eq!(
        (names(&seen, Kind::Listener), names(&seen, Kind::Cluster)),
        (vec!["web".to_owned()], vec!["plain".to_owned()])
    );
    let progress = view.progress(Progress { sent: 1, settled: 1, rejected: Vec::new() });
    let why = "not sent: it needs `ringway.sds`, which this release of the proxy does not know: update the proxy";
    assert_eq!(told(&progress), [format!("cluster/cart: {why}"), format!("listener/secure: {why}")]);
    assert!(progress.rejected.iter().all(|one| one.version == "1"), "`apply --wait` is told");
    assert!(view.listens(&progress).is_none(), "that it reports itself");
}
