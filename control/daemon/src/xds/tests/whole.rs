//! State of the world, rule by rule.

use super::super::Protocol;
use super::super::whole::Whole;
use super::*;
use api::envoy_types::pb::envoy::config::cluster::v3::Cluster;
use api::envoy_types::pb::envoy::config::endpoint::v3::ClusterLoadAssignment;
use api::envoy_types::pb::envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse};
use api::prost::Message;
use std::collections::BTreeMap;

/// A client that remembers what it has to say in every request.
struct Stream {
    whole: Whole,
    names: BTreeMap<Kind, Vec<String>>,
    versions: BTreeMap<Kind, String>,
}

impl Stream {
    fn new(snapshots: &Snapshots) -> Stream {
        Stream { whole: Whole::new(now_of(snapshots)), names: BTreeMap::new(), versions: BTreeMap::new() }
    }

    fn settled(snapshots: &Snapshots, services: &[&str]) -> Stream {
        let mut stream = Stream::new(snapshots);
        stream.ask(Kind::Cluster, &[]);
        stream.take_all();
        stream.ask(Kind::Endpoints, services);
        stream.take_all();
        stream.ask(Kind::Listener, &[]);
        stream.ask(Kind::Routes, &["web"]);
        stream.take_all();
        stream
    }

    /// The first question of a kind, or another one behind the last answer.
    fn ask(&mut self, kind: Kind, names: &[&str]) {
        self.names.insert(kind, names.iter().map(ToString::to_string).collect());
        self.say(kind, "", None);
    }

    fn say(&mut self, kind: Kind, nonce: &str, error_detail: Option<Status>) {
        let request = DiscoveryRequest {
            version_info: self.versions.get(&kind).cloned().unwrap_or_default(),
            resource_names: self.names.get(&kind).cloned().unwrap_or_default(),
            type_url: kind.type_url().to_owned(),
            response_nonce: nonce.to_owned(),
            error_detail,
            ..DiscoveryRequest::default()
        };
        self.whole.hear(request).unwrap();
    }

    fn hear(&mut self) -> Vec<DiscoveryResponse> {
        std::iter::from_fn(|| self.whole.next(start())).collect()
    }

    fn answer(&mut self, response: &DiscoveryResponse, refusal: Option<Status>) {
        let kind = Kind::of(&response.type_url).unwrap();
        if refusal.is_none() {
            self.versions.insert(kind, response.version_info.clone());
        }
        self.say(kind, &response.nonce, refusal);
    }

    fn take_all(&mut self) -> Vec<String> {
        let mut words = Vec::new();
        loop {
            let responses = self.hear();
            if responses.is_empty() {
                return words;
            }
            for response in responses {
                words.push(summary(&response));
                self.answer(&response, None);
            }
        }
    }

    /// The nonce of the last message of a kind.
    fn whole_nonce(&self, kind: Kind) -> String {
        self.whole.last_nonce(kind).to_owned()
    }

    fn take_snapshot(&mut self, snapshots: &Snapshots) {
        self.whole.take(now_of(snapshots));
    }
}

/// `cluster a b`
fn summary(response: &DiscoveryResponse) -> String {
    let kind = Kind::of(&response.type_url).unwrap();
    let name = |bytes: &[u8]| match kind {
        Kind::Cluster => Cluster::decode(bytes).unwrap().name,
        Kind::Endpoints => ClusterLoadAssignment::decode(bytes).unwrap().cluster_name,
        _ => "*".to_owned(),
    };
    let names: String = response.resources.iter().map(|one| format!(" {}", name(&one.value))).collect();
    format!("{}{names}", kind.word())
}

fn summaries(responses: &[DiscoveryResponse]) -> Vec<String> {
    responses.iter().map(summary).collect()
}

#[test]
fn listeners_and_clusters_come_whole_and_go_by_absence_in_two_steps() {
    let snapshots = Snapshots::default();
    push(&snapshots, 1, &mesh(&["a", "b"]));
    let mut stream = Stream::settled(&snapshots, &["a", "b"]);
    push(&snapshots, 2, &mesh(&["b", "c"]));
    stream.take_snapshot(&snapshots);
    assert_eq!(stream.take_all(), ["cluster a b c"], "`a` stays while routes may name it");
    let nonce = stream.whole_nonce(Kind::Endpoints);
    stream.names.insert(Kind::Endpoints, ["a", "b", "c"].map(str::to_owned).to_vec());
    stream.say(Kind::Endpoints, &nonce, None);
    assert_eq!(stream.take_all(), ["endpoints c", "route *", "cluster b c"]);
    assert_eq!(stream.whole.progress().settled, 2);
}

#[test]
fn of_other_kinds_only_what_changed_comes() {
    let snapshots = Snapshots::default();
    push(&snapshots, 1, &mesh(&["a", "b"]));
    let mut stream = Stream::settled(&snapshots, &["a", "b"]);
    snapshots.report("a", "in", at("10.0.0.1:1"));
    stream.take_snapshot(&snapshots);
    assert_eq!(stream.take_all(), ["endpoints a"]);
    // A name that is not asked for any more is not sent, and comes anew when it is again.
    let nonce = stream.whole_nonce(Kind::Endpoints);
    stream.names.insert(Kind::Endpoints, vec!["b".to_owned()]);
    stream.say(Kind::Endpoints, &nonce, None);
    snapshots.report("a", "in", at("10.0.0.1:2"));
    stream.take_snapshot(&snapshots);
    assert!(stream.take_all().is_empty());
    stream.names.insert(Kind::Endpoints, vec!["a".to_owned(), "b".to_owned()]);
    stream.say(Kind::Endpoints, &nonce, None);
    assert_eq!(stream.take_all(), ["endpoints a"]);
}

#[test]
fn an_answer_to_an_older_message_says_nothing() {
    let snapshots = Snapshots::default();
    push(&snapshots, 1, &mesh(&["a"]));
    let mut stream = Stream::new(&snapshots);
    stream.ask(Kind::Cluster, &[]);
    let first = stream.hear();
    stream.answer(&first[0], None);
    push(&snapshots, 2, &mesh(&["a", "b"]));
    stream.take_snapshot(&snapshots);
    let second = stream.hear();
    stream.answer(&first[0], Some(refusing(Kind::Cluster, &[])));
    assert!(stream.whole.waits_since().is_some() && stream.whole.progress().rejected.is_empty());
    stream.answer(&second[0], Some(refusing(Kind::Cluster, &[])));
    assert_eq!(told(&stream.whole.progress()), ["cluster/: all of it is bad"]);
    assert!(stream.hear().is_empty(), "it is not sent again");
}

#[test]
fn no_name_is_everything_only_until_there_was_one() {
    let snapshots = Snapshots::default();
    push(&snapshots, 1, &mesh(&["a", "b"]));
    let mut stream = Stream::new(&snapshots);
    stream.ask(Kind::Cluster, &["a"]);
    assert_eq!(stream.take_all(), ["cluster a"]);
    let nonce = stream.whole_nonce(Kind::Cluster);
    stream.names.insert(Kind::Cluster, vec![]);
    stream.say(Kind::Cluster, &nonce, None);
    push(&snapshots, 2, &mesh(&["a", "b", "c"]).replace("endpoints:", "balance: random, endpoints:"));
    stream.take_snapshot(&snapshots);
    assert!(stream.take_all().is_empty());
    stream.names.insert(Kind::Cluster, vec!["*".to_owned()]);
    stream.say(Kind::Cluster, &nonce, None);
    assert_eq!(stream.take_all(), ["cluster a b c"]);
    // Of endpoints there is no "all".
    stream.ask(Kind::Endpoints, &[]);
    assert!(stream.take_all().is_empty());
}

#[test]
fn versions_are_those_of_the_content_on_every_daemon() {
    let version = |order: &[&str]| {
        let snapshots = Snapshots::default();
        push(&snapshots, 7, &mesh(order));
        let mut stream = Stream::new(&snapshots);
        stream.ask(Kind::Cluster, &[]);
        let responses = stream.hear();
        (summaries(&responses), responses[0].version_info.clone())
    };
    assert_eq!(version(&["a", "b"]), version(&["b", "a"]));
    assert_ne!(version(&["a", "b"]).1, version(&["a"]).1);
}
