//! Pushes, answers and refusals by chance, in both protocols, against a model of a client that keeps what it has taken.

use super::super::Protocol;
use super::super::delta::Delta;
use super::super::whole::Whole;
use super::*;
use api::envoy_types::pb::envoy::config::cluster::v3::Cluster;
use api::envoy_types::pb::envoy::config::endpoint::v3::ClusterLoadAssignment;
use api::envoy_types::pb::envoy::config::listener::v3::Listener;
use api::envoy_types::pb::envoy::config::route::v3::{
    RouteConfiguration, route::Action, route_action::ClusterSpecifier,
};
use api::envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use api::envoy_types::pb::google::protobuf::Any;
use api::prost::Message;
use std::collections::{BTreeMap, VecDeque};

/// A generator that gives the same numbers for the same seed.
struct Dice(u64);

impl Dice {
    /// Below `sides`.
    fn roll(&mut self, sides: u64) -> u64 {
        // Sebastiano Vigna's splitmix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }
}

/// What a client was told, the same in both protocols.
struct Told {
    kind: Kind,
    nonce: String,
    resources: Vec<(String, Any)>,
    removed: Vec<String>,
    complete: bool,
}

/// How a client of one protocol says things.
trait Speaks: Protocol {
    fn told(response: Self::Response) -> Told;
    /// All names that are wanted from now on; those before.
    fn wants(kind: Kind, nonce: &str, names: &[String], before: &[String], refusal: Option<Status>) -> Self::Request;
}

impl Speaks for Delta {
    fn told(response: DeltaDiscoveryResponse) -> Told {
        let kind = Kind::of(&response.type_url).unwrap();
        let resources = response.resources.into_iter().map(|one| (one.name, one.resource.unwrap())).collect();
        let (nonce, removed) = (response.nonce, response.removed_resources);
        Told { kind, nonce, resources, removed, complete: false }
    }

    fn wants(
        kind: Kind,
        nonce: &str,
        names: &[String],
        before: &[String],
        refusal: Option<Status>,
    ) -> DeltaDiscoveryRequest {
        let missing = |of: &[String], from: &[String]| from.iter().filter(|name| !of.contains(name)).cloned().collect();
        DeltaDiscoveryRequest {
            type_url: kind.type_url().to_owned(),
            response_nonce: nonce.to_owned(),
            error_detail: refusal,
            resource_names_subscribe: missing(before, names),
            resource_names_unsubscribe: missing(names, before),
            ..DeltaDiscoveryRequest::default()
        }
    }
}

impl Speaks for Whole {
    fn told(response: DiscoveryResponse) -> Told {
        let kind = Kind::of(&response.type_url).unwrap();
        let resources = response.resources.into_iter().map(|one| (name_of(kind, &one), one)).collect();
        let complete = matches!(kind, Kind::Cluster | Kind::Listener);
        Told { kind, nonce: response.nonce, resources, removed: Vec::new(), complete }
    }

    fn wants(kind: Kind, nonce: &str, names: &[String], _: &[String], refusal: Option<Status>) -> DiscoveryRequest {
        DiscoveryRequest {
            type_url: kind.type_url().to_owned(),
            response_nonce: nonce.to_owned(),
            error_detail: refusal,
            resource_names: names.to_vec(),
            ..DiscoveryRequest::default()
        }
    }
}

fn name_of(kind: Kind, one: &Any) -> String {
    let bytes = one.value.as_slice();
    match kind {
        Kind::Cluster => Cluster::decode(bytes).unwrap().name,
        Kind::Endpoints => ClusterLoadAssignment::decode(bytes).unwrap().cluster_name,
        Kind::Listener => Listener::decode(bytes).unwrap().name,
        Kind::Routes => RouteConfiguration::decode(bytes).unwrap().name,
        Kind::Secret => unreachable!("none is asked for"),
    }
}

/// The clusters that a route configuration sends to.
fn targets(routes: &Any) -> Vec<String> {
    let configuration = RouteConfiguration::decode(routes.value.as_slice()).unwrap();
    let routes = configuration.virtual_hosts.into_iter().flat_map(|host| host.routes);
    let cluster = |action| match action {
        Action::Route(action) => match action.cluster_specifier {
            Some(ClusterSpecifier::Cluster(name)) => Some(name),
            _ => None,
        },
        _ => None,
    };
    routes.filter_map(|route| route.action.and_then(cluster)).collect()
}

struct Client<P: Speaks> {
    server: P,
    has: BTreeMap<Kind, BTreeMap<String, Any>>,
    names: BTreeMap<Kind, Vec<String>>,
    /// The nonce of the last message that was heard, by kind.
    nonces: BTreeMap<Kind, String>,
    /// On their way here.
    coming: VecDeque<Told>,
    now: Instant,
    seed: u64,
}

impl<P: Speaks> Client<P> {
    fn new(snapshots: &Snapshots, seed: u64) -> Client<P> {
        let server = P::new(now_of(snapshots));
        let (has, names, nonces, coming) = Default::default();
        let mut client = Client { server, has, names, nonces, coming, now: start(), seed };
        for kind in [Kind::Cluster, Kind::Listener] {
            client.say(kind, "", Vec::new(), None);
        }
        client
    }

    fn say(&mut self, kind: Kind, nonce: &str, names: Vec<String>, refusal: Option<Status>) {
        let before = self.names.insert(kind, names.clone()).unwrap_or_default();
        self.server.hear(P::wants(kind, nonce, &names, &before, refusal)).unwrap();
    }

    fn pull(&mut self) {
        while let Some(response) = self.server.next(self.now) {
            self.coming.push_back(P::told(response));
        }
    }

    /// Takes one message, or refuses one resource of it.
    fn take(&mut self, refuse: bool) {
        let Some(Told { kind, nonce, resources, removed, complete }) = self.coming.pop_front() else { return };
        self.nonces.insert(kind, nonce.clone());
        let bad = resources.first().map(|(name, _)| name.clone()).filter(|_| refuse);
        let has = self.has.entry(kind).or_default();
        if complete {
            has.retain(|name, _| resources.iter().any(|(other, _)| other == name));
        }
        removed.iter().for_each(|name| drop(has.remove(name)));
        has.extend(resources.into_iter().filter(|(name, _)| Some(name) != bad.as_ref()));
        let names = self.names.get(&kind).cloned().unwrap_or_default();
        let refusal = bad.map(|name| refusing(kind, &[&name]));
        self.say(kind, &nonce, names, refusal);
        // What it needs now.
        for (by, kind) in [(Kind::Cluster, Kind::Endpoints), (Kind::Listener, Kind::Routes)] {
            let needed: Vec<String> = self.has.get(&by).into_iter().flatten().map(|(name, _)| name.clone()).collect();
            if self.names.get(&kind).unwrap_or(&Vec::new()) != &needed {
                if let Some(has) = self.has.get_mut(&kind) {
                    has.retain(|name, _| needed.contains(name));
                }
                let nonce = self.nonces.get(&kind).cloned().unwrap_or_default();
                self.say(kind, &nonce, needed, None);
            }
        }
    }

    /// No route leads to a cluster that is not there; one that was refused when it was new may be missing.
    fn is_whole(&self, ever_refused: &BTreeSet<String>) {
        let none = BTreeMap::new();
        let clusters = self.has.get(&Kind::Cluster).unwrap_or(&none);
        let endpoints = self.has.get(&Kind::Endpoints).unwrap_or(&none);
        for target in self.has.get(&Kind::Routes).into_iter().flat_map(|routes| routes.values()).flat_map(targets) {
            let excused = ever_refused.contains(&target);
            assert!(
                clusters.contains_key(&target) || excused,
                "seed {}: a route to `{target}`, which is gone",
                self.seed
            );
            assert!(
                endpoints.contains_key(&target) || excused,
                "seed {}: a route to `{target}`, whose endpoints never came",
                self.seed
            );
        }
    }
}

fn run<P: Speaks>(seed: u64) {
    let mut dice = Dice(seed);
    let all = ["a", "b", "c", "d", "e", "f"];
    let snapshots = Snapshots::default();
    let mut number = 0;
    let mut document = |dice: &mut Dice, snapshots: &Snapshots| {
        number += 1;
        let some: Vec<&str> = all.into_iter().filter(|_| dice.roll(2) == 0).collect();
        let mut text = mesh(&some);
        if dice.roll(3) == 0 {
            text = text.replacen("endpoints: {", "balance: random, endpoints: {", 1);
        }
        push(snapshots, number, &text);
    };
    document(&mut dice, &snapshots);
    let mut client = Client::<P>::new(&snapshots, seed);
    let mut refused = BTreeSet::new();
    for _ in 0..200 {
        match dice.roll(10) {
            0 => document(&mut dice, &snapshots),
            1 => {
                let service = all[dice.roll(6) as usize];
                snapshots.report(service, "in", at(&format!("10.0.0.1:{}", 1 + dice.roll(3))));
            }
            2 => client.server.take(now_of(&snapshots)),
            3 => {
                // Routes, more often than anything else: it is they who name clusters.
                let next = client.coming.front().map(|told| told.kind);
                let of = client.coming.front().and_then(|told| told.resources.first()).map(|(name, _)| name.clone());
                if dice.roll(2) == 0 || next == Some(Kind::Routes) {
                    refused.extend(of.filter(|_| matches!(next, Some(Kind::Cluster | Kind::Endpoints))));
                    client.take(true);
                }
            }
            _ => client.take(false),
        }
        client.pull();
        client.is_whole(&refused);
    }
    // From now on everything is taken: a last push, and the client has what there is.
    document(&mut dice, &snapshots);
    client.server.take(now_of(&snapshots));
    client.pull();
    for round in 0.. {
        assert!(round < 1000, "it never ends");
        client.take(false);
        client.pull();
        client.is_whole(&refused);
        if client.coming.is_empty() && client.server.look_again(client.now).is_none() {
            break;
        }
        client.now += seconds(0.1);
    }
    let snapshot = now_of(&snapshots);
    // What was refused last and did not change since is still not there: everything else is.
    let rejected = client.server.progress().rejected;
    for kind in [Kind::Cluster, Kind::Endpoints, Kind::Listener, Kind::Routes] {
        // Nobody asks for endpoints of a cluster, or for routes of a listener, that was not taken.
        let by = match kind {
            Kind::Endpoints => Kind::Cluster,
            Kind::Routes => Kind::Listener,
            kind => kind,
        };
        let is_of = |one: &pb::Rejected| one.type_url == kind.type_url() || one.type_url == by.type_url();
        let held = |name: &str| rejected.iter().any(|one| is_of(one) && one.name == name);
        let has = client.has.get(&kind).cloned().unwrap_or_default();
        for (name, one) in snapshot.resources(kind) {
            assert!(has.get(&**name) == Some(&one.body) || held(name), "seed {seed}: {} {name}", kind.word());
        }
        let extra: Vec<_> = has.keys().filter(|name| !snapshot.resources(kind).contains_key(name.as_str())).collect();
        assert!(extra.is_empty() || !rejected.is_empty(), "seed {seed}: {} {extra:?} stayed", kind.word());
    }
    assert_eq!(client.server.progress().settled, snapshot.number, "seed {seed}");
}

#[test]
fn no_order_of_things_takes_a_cluster_from_under_a_route() {
    for seed in 0..40 {
        run::<Delta>(seed);
        run::<Whole>(seed);
    }
}
