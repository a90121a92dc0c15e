//! Delta, rule by rule.

use super::super::Protocol;
use super::super::delta::Delta;
use super::*;
use api::envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use api::prost::Message;

/// A client's end of a stream that answers when it is told to.
struct Stream {
    delta: Delta,
    now: Instant,
}

impl Stream {
    fn new(snapshots: &Snapshots) -> Stream {
        Stream { delta: Delta::new(now_of(snapshots)), now: start() }
    }

    /// A client that has asked for everything that the gateway has, and taken all of it.
    fn settled(snapshots: &Snapshots, services: &[&str]) -> Stream {
        let mut stream = Stream::new(snapshots);
        stream.ask(Kind::Cluster, &[]);
        stream.ask(Kind::Endpoints, services);
        stream.ask(Kind::Listener, &[]);
        stream.ask(Kind::Routes, &["web"]);
        stream.take_all();
        stream
    }

    fn say(&mut self, request: DeltaDiscoveryRequest) {
        self.delta.hear(request).unwrap();
    }

    fn ask(&mut self, kind: Kind, names: &[&str]) {
        let resource_names_subscribe = names.iter().map(ToString::to_string).collect();
        self.say(DeltaDiscoveryRequest { resource_names_subscribe, ..blank(kind) });
    }

    fn leave(&mut self, kind: Kind, names: &[&str]) {
        let resource_names_unsubscribe = names.iter().map(ToString::to_string).collect();
        self.say(DeltaDiscoveryRequest { resource_names_unsubscribe, ..blank(kind) });
    }

    fn hear(&mut self) -> Vec<DeltaDiscoveryResponse> {
        std::iter::from_fn(|| self.delta.next(self.now)).collect()
    }

    fn answer(&mut self, response: &DeltaDiscoveryResponse, error_detail: Option<Status>) {
        let (type_url, response_nonce) = (response.type_url.clone(), response.nonce.clone());
        self.say(DeltaDiscoveryRequest { type_url, response_nonce, error_detail, ..DeltaDiscoveryRequest::default() });
    }

    /// What comes, in a few words; everything is taken.
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

    fn take_snapshot(&mut self, snapshots: &Snapshots) {
        self.delta.take(now_of(snapshots));
    }
}

fn blank(kind: Kind) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest { type_url: kind.type_url().to_owned(), ..DeltaDiscoveryRequest::default() }
}

/// `cluster +a +b -c @2`
fn summary(response: &DeltaDiscoveryResponse) -> String {
    let kind = Kind::of(&response.type_url).unwrap().word();
    let new = response.resources.iter().map(|one| format!(" +{}", one.name));
    let gone = response.removed_resources.iter().map(|name| format!(" -{name}"));
    format!("{kind}{} @{}", new.chain(gone).collect::<String>(), response.system_version_info)
}

fn summaries(responses: &[DeltaDiscoveryResponse]) -> Vec<String> {
    responses.iter().map(summary).collect()
}

#[test]
fn what_is_named_comes_before_what_names_it() {
    let snapshots = Snapshots::default();
    push(&snapshots, 1, &mesh(&["a", "b"]));
    let mut stream = Stream::new(&snapshots);
    stream.ask(Kind::Listener, &[]);
    stream.ask(Kind::Cluster, &[]);
    let clusters = stream.hear();
    assert_eq!(summaries(&clusters), ["cluster +a +b @1"]);
    stream.answer(&clusters[0], None);
    assert!(stream.hear().is_empty(), "listeners wait for the endpoints of new clusters");
    stream.ask(Kind::Endpoints, &["a", "b"]);
    let endpoints = stream.hear();
    assert_eq!(summaries(&endpoints), ["endpoints +a +b @1"]);
    stream.answer(&endpoints[0], None);
    let listeners = stream.hear();
    assert_eq!(summaries(&listeners), ["listener +web @1"]);
    stream.ask(Kind::Routes, &["web"]);
    assert_eq!(summaries(&stream.hear()), ["route +web @1"], "routes do not wait for the listener's acknowledgement");
}

#[test]
fn a_client_that_asks_for_no_endpoints_gets_its_listeners_all_the_same() {
    let snapshots = Snapshots::default();
    push(&snapshots, 1, &mesh(&["a"]));
    let mut stream = Stream::new(&snapshots);
    stream.ask(Kind::Listener, &[]);
    stream.ask(Kind::Cluster, &[]);
    assert_eq!(stream.take_all(), ["cluster +a @1"]);
    let again = stream.delta.look_again(stream.now).unwrap();
    assert_eq!(again - stream.now, seconds(2.0));
    stream.now = again;
    assert_eq!(stream.take_all(), ["listener +web @1"]);
}

#[test]
fn before_the_first_document_nothing_is_said() {
    let snapshots = Snapshots::default();
    let mut stream = Stream::new(&snapshots);
    stream.ask(Kind::Cluster, &[]);
    assert!(stream.hear().is_empty());
    push(&snapshots, 1, &mesh(&[]));
    stream.take_snapshot(&snapshots);
    assert_eq!(summaries(&stream.hear()), ["cluster @1"], "that there are none is an answer");
}

#[test]
fn a_push_sends_what_changed_and_takes_away_last() {
    let snapshots = Snapshots::default();
    push(&snapshots, 1, &mesh(&["a", "b"]));
    let mut stream = Stream::settled(&snapshots, &["a", "b"]);
    assert_eq!(stream.delta.progress().settled, 1);

    push(&snapshots, 2, &mesh(&["b", "c"]));
    stream.take_snapshot(&snapshots);
    assert_eq!(stream.delta.progress().settled, 0);
    assert_eq!(stream.take_all(), ["cluster +c @2"], "nothing goes while a new one is cold");
    stream.ask(Kind::Endpoints, &["c"]);
    let endpoints = stream.hear();
    assert_eq!(summaries(&endpoints), ["endpoints +c @2"]);
    stream.answer(&endpoints[0], None);
    let routes = stream.hear();
    assert_eq!(summaries(&routes), ["route +web @2"], "the removal waits for its acknowledgement");
    stream.answer(&routes[0], None);
    let gone = stream.hear();
    assert_eq!(summaries(&gone), ["cluster -a @2", "endpoints -a @2"]);
    gone.iter().for_each(|response| stream.answer(response, None));
    assert!(stream.hear().is_empty());
    let progress = stream.delta.progress();
    assert_eq!((progress.sent, progress.settled, progress.rejected.len()), (2, 2, 0));

    // A push that changes nothing here says nothing, and is settled at once.
    push(&snapshots, 3, &mesh(&["b", "c"]));
    stream.take_snapshot(&snapshots);
    assert!(stream.hear().is_empty());
    assert_eq!((stream.delta.progress().sent, stream.delta.progress().settled), (2, 3));
}

#[test]
fn a_refusal_holds_what_the_last_good_one_may_name() {
    let snapshots = Snapshots::default();
    push(&snapshots, 1, &mesh(&["a", "b"]));
    let mut stream = Stream::settled(&snapshots, &["a", "b"]);
    push(&snapshots, 2, &mesh(&["b"]));
    stream.take_snapshot(&snapshots);
    let routes = stream.hear();
    stream.answer(&routes[0], Some(refusing(Kind::Routes, &["web"])));
    assert!(stream.hear().is_empty(), "a bad one is not sent again, and its last good one may need `a`");
    let progress = stream.delta.progress();
    assert_eq!((told(&progress), progress.settled), (vec!["route/web: is bad".to_owned()], 2));
    assert_eq!((progress.rejected[0].version.as_str(), progress.rejected[0].field.as_str()), ("2", "field"));

    push(&snapshots, 3, &mesh(&["b"]).replace("path: /b/*", "path: /better/*"));
    stream.take_snapshot(&snapshots);
    assert_eq!(stream.take_all(), ["route +web @3", "cluster -a @3", "endpoints -a @3"]);
    assert!(stream.delta.progress().rejected.is_empty());
}

#[test]
fn a_refusal_without_our_words_may_be_of_anything_in_the_message() {
    let snapshots = Snapshots::default();
    push(&snapshots, 1, &mesh(&["a", "b"]));
    let mut stream = Stream::new(&snapshots);
    stream.ask(Kind::Cluster, &[]);
    let clusters = stream.hear();
    stream.answer(&clusters[0], Some(refusing(Kind::Cluster, &["not sent"])));
    assert_eq!(told(&stream.delta.progress()), ["cluster/: all of it is bad"]);
    // Nobody waits for endpoints of clusters that were not taken.
    stream.ask(Kind::Listener, &[]);
    assert_eq!(stream.take_all(), ["listener +web @1"]);
    push(&snapshots, 2, &mesh(&["a"]));
    stream.take_snapshot(&snapshots);
    stream.ask(Kind::Routes, &["web"]);
    assert_eq!(stream.take_all(), ["route +web @2", "cluster -b @2"]);
    assert!(stream.delta.progress().rejected.is_empty(), "an acknowledgement of that kind came");
}

#[test]
fn the_version_that_came_back_is_sent_to_who_refused_the_other() {
    let snapshots = Snapshots::default();
    push(&snapshots, 1, &mesh(&["a"]));
    let mut stream = Stream::settled(&snapshots, &["a"]);
    push(&snapshots, 2, &mesh(&["a"]).replace("path: /a/*", "path: /bad/*"));
    stream.take_snapshot(&snapshots);
    let bad = stream.hear();
    stream.answer(&bad[0], Some(refusing(Kind::Routes, &["web"])));
    push(&snapshots, 3, &mesh(&["a"]));
    stream.take_snapshot(&snapshots);
    assert_eq!(stream.take_all(), ["route +web @3"]);
}

#[test]
fn a_changed_cluster_gets_its_endpoints_once_more() {
    let snapshots = Snapshots::default();
    push(&snapshots, 1, &mesh(&["a", "b"]));
    let mut stream = Stream::settled(&snapshots, &["a", "b"]);
    push(&snapshots, 2, &mesh(&["a", "b"]).replace("a: { endpoints", "a: { balance: random, endpoints"));
    stream.take_snapshot(&snapshots);
    assert_eq!(stream.take_all(), ["cluster +a @2", "endpoints +a @2"]);
}

#[test]
fn an_endpoint_that_comes_is_one_small_message() {
    let snapshots = Snapshots::default();
    let names: Vec<String> = (0..500).map(|n| format!("s{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    push(&snapshots, 1, &mesh(&names));
    let ten: BTreeSet<SocketAddr> = (1..=10).map(|n| SocketAddr::from(([10, 0, 0, n], 8080))).collect();
    names.iter().for_each(|name| snapshots.report(name, "in", ten.clone()));
    let mut stream = Stream::settled(&snapshots, &names);
    let eleven = ten.into_iter().chain(at("10.0.0.11:8080")).collect();
    snapshots.report("s7", "in", eleven);
    stream.take_snapshot(&snapshots);
    let responses = stream.hear();
    assert_eq!(summaries(&responses), ["endpoints +s7 @1"]);
    assert!(responses[0].encoded_len() <= 1024, "{} bytes", responses[0].encoded_len());
}

#[test]
fn a_slow_client_gets_what_changed_meanwhile_once() {
    let snapshots = Snapshots::default();
    push(&snapshots, 1, &mesh(&["a"]));
    let mut stream = Stream::settled(&snapshots, &["a"]);
    snapshots.report("a", "in", at("10.0.0.1:1"));
    stream.take_snapshot(&snapshots);
    let first = stream.hear();
    assert_eq!(first.len(), 1);
    assert_eq!(stream.delta.waits_since(), Some(stream.now));
    for port in 2..=200 {
        snapshots.report("a", "in", at(&format!("10.0.0.1:{port}")));
        stream.take_snapshot(&snapshots);
        assert!(stream.hear().is_empty(), "one message of a kind is under way");
    }
    stream.answer(&first[0], None);
    let second = stream.hear();
    assert_eq!(summaries(&second), ["endpoints +a @1"]);
    assert_eq!(*second[0].resources[0].version, *now_of(&snapshots).resources(Kind::Endpoints)["a"].version);
    stream.answer(&second[0], None);
    assert_eq!((stream.hear().len(), stream.delta.waits_since()), (0, None));

    // There and back again is nothing.
    snapshots.report("a", "in", at("10.0.0.1:1"));
    stream.take_snapshot(&snapshots);
    let third = stream.hear();
    snapshots.report("a", "in", at("10.0.0.1:2"));
    snapshots.report("a", "in", at("10.0.0.1:1"));
    stream.take_snapshot(&snapshots);
    stream.answer(&third[0], None);
    assert!(stream.hear().is_empty());
}

#[test]
fn who_comes_again_says_what_it_has_and_gets_the_rest() {
    let snapshots = Snapshots::default();
    push(&snapshots, 1, &mesh(&["a", "b", "old"]));
    let before = now_of(&snapshots);
    push(&snapshots, 2, &mesh(&["a", "b", "new"]).replace("b: { endpoints", "b: { balance: random, endpoints"));
    let mut stream = Stream::new(&snapshots);
    let held = |kind: Kind| -> std::collections::HashMap<String, String> {
        before.resources(kind).iter().map(|(name, one)| (name.to_string(), one.version.to_string())).collect()
    };
    for (kind, names) in [(Kind::Cluster, vec![]), (Kind::Listener, vec![]), (Kind::Routes, vec!["web".to_owned()])] {
        let initial_resource_versions = held(kind);
        stream.say(DeltaDiscoveryRequest { initial_resource_versions, resource_names_subscribe: names, ..blank(kind) });
    }
    let clusters = stream.hear();
    assert_eq!(summaries(&clusters), ["cluster +b +new @2"]);
    stream.answer(&clusters[0], None);
    stream.say(DeltaDiscoveryRequest {
        initial_resource_versions: held(Kind::Endpoints),
        resource_names_subscribe: ["a", "b", "new", "old"].map(str::to_owned).to_vec(),
        ..blank(Kind::Endpoints)
    });
    // `b` is another cluster now, so its endpoints come again; `a` stays as it is.
    let rest = stream.take_all();
    assert_eq!(rest, ["endpoints +b +new @2", "listener @2", "route +web @2", "cluster -old @2", "endpoints -old @2"]);
}

#[test]
fn a_name_that_is_not_there_is_told_so_and_comes_when_it_is() {
    let snapshots = Snapshots::default();
    push(&snapshots, 1, &mesh(&["a"]));
    let mut stream = Stream::new(&snapshots);
    stream.ask(Kind::Endpoints, &["later", "a"]);
    assert_eq!(stream.take_all(), ["endpoints +a -later @1"]);
    stream.ask(Kind::Endpoints, &["a"]);
    assert_eq!(stream.take_all(), ["endpoints +a @1"], "who asks again has lost it");
    push(&snapshots, 2, &mesh(&["a", "later"]));
    stream.take_snapshot(&snapshots);
    assert_eq!(stream.take_all(), ["endpoints +later @2"]);
    stream.leave(Kind::Endpoints, &["a"]);
    snapshots.report("a", "in", at("10.0.0.1:1"));
    stream.take_snapshot(&snapshots);
    assert!(stream.take_all().is_empty());
}

#[test]
fn all_and_some_are_told_apart() {
    let snapshots = Snapshots::default();
    push(&snapshots, 1, &mesh(&["a", "b"]));
    let mut some = Stream::new(&snapshots);
    some.ask(Kind::Cluster, &["a"]);
    assert_eq!(some.take_all(), ["cluster +a @1"]);
    some.ask(Kind::Cluster, &["*"]);
    assert_eq!(some.take_all(), ["cluster +b @1"]);
    some.leave(Kind::Cluster, &["*"]);
    push(&snapshots, 2, &mesh(&["a", "b"]).replace("endpoints:", "balance: random, endpoints:"));
    some.take_snapshot(&snapshots);
    assert_eq!(some.take_all(), ["cluster +a @2"]);

    let mut all = Stream::new(&snapshots);
    all.ask(Kind::Cluster, &[]);
    assert_eq!(all.take_all(), ["cluster +a +b @2"]);
    // A name beside everything: everything stays wanted.
    all.ask(Kind::Cluster, &["a"]);
    assert_eq!(all.take_all(), ["cluster +a @2"]);
    all.leave(Kind::Cluster, &["a"]);
    assert_eq!(all.take_all(), ["cluster +a @2"]);
}

#[test]
fn answers_to_other_messages_and_other_types_say_nothing() {
    let snapshots = Snapshots::default();
    push(&snapshots, 1, &mesh(&["a"]));
    let mut stream = Stream::new(&snapshots);
    stream.ask(Kind::Cluster, &[]);
    let clusters = stream.hear();
    for nonce in ["", "0", "2", "-1", "one"] {
        stream.say(DeltaDiscoveryRequest { response_nonce: nonce.to_owned(), ..blank(Kind::Cluster) });
        stream.say(DeltaDiscoveryRequest { response_nonce: clusters[0].nonce.clone(), ..blank(Kind::Routes) });
        stream.say(DeltaDiscoveryRequest { type_url: "type.googleapis.com/x".to_owned(), ..blank(Kind::Cluster) });
    }
    assert!(stream.delta.waits_since().is_some());
    stream.answer(&clusters[0], None);
    stream.answer(&clusters[0], Some(refusing(Kind::Cluster, &["a"])));
    assert!(stream.delta.progress().rejected.is_empty(), "it was answered already");
}

#[test]
fn what_is_large_comes_in_pieces() {
    let snapshots = Snapshots::default();
    let names: Vec<String> = (0..9000).map(|n| format!("a-service-with-quite-a-long-name-{n}")).collect();
    push(&snapshots, 1, &mesh(&names.iter().map(String::as_str).collect::<Vec<_>>()));
    let mut stream = Stream::new(&snapshots);
    stream.ask(Kind::Cluster, &[]);
    let (mut pieces, mut count) = (0, 0);
    loop {
        let responses = stream.hear();
        let [response] = &responses[..] else { break };
        assert!(response.encoded_len() < 4 << 20, "{} bytes", response.encoded_len());
        pieces += 1;
        count += response.resources.len();
        stream.answer(response, None);
    }
    assert_eq!(count, 9000);
    assert!((2..=4).contains(&pieces), "{pieces}");
}

#[test]
fn nobody_asks_for_more_than_there_can_be() {
    let snapshots = Snapshots::default();
    push(&snapshots, 1, &mesh(&["a"]));
    let many = |count: usize| (0..count).map(|n| n.to_string()).collect::<Vec<_>>();
    let refused = |request: DeltaDiscoveryRequest| Delta::new(now_of(&snapshots)).hear(request).is_err();
    let names = |resource_names_subscribe| DeltaDiscoveryRequest { resource_names_subscribe, ..blank(Kind::Endpoints) };
    assert!(refused(names(many(100_001))) && !refused(names(many(1000))));
    assert!(refused(names(vec!["x".repeat(1025)])));
    let has = many(100_001).into_iter().map(|name| (name, String::new())).collect();
    assert!(refused(DeltaDiscoveryRequest { initial_resource_versions: has, ..blank(Kind::Cluster) }));
    let mut stream = Stream::new(&snapshots);
    let bits = |n: usize| (0..60_000).map(|m| format!("{n}-{m}")).collect::<Vec<_>>();
    stream.say(names(bits(0)));
    assert!(stream.delta.hear(names(bits(1))).is_err(), "in pieces neither");
}
