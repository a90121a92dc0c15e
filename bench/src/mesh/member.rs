//! One simulated proxy: it joins with a key of its own, holds one connection with mutual TLS, takes configuration by delta ADS,
//! asks by name for what it is told of, and reports on `Agent/Session`, as a `ringway` does. When the connection breaks it comes
//! again after the pauses that a `ringway` makes. It takes whatever it gets and uses none of it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use api::envoy_types::pb::envoy::config::cluster::v3::Cluster;
use api::envoy_types::pb::envoy::config::core::v3::Node;
use api::envoy_types::pb::envoy::config::listener::v3::{Listener, filter};
use api::envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpConnectionManager, http_connection_manager::RouteSpecifier,
};
use api::envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use api::envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use api::pb::agent_client::AgentClient;
use api::prost::Message;
use api::{Pauses, pb, xds};
use rcgen::{CertificateParams, KeyPair};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{sleep, sleep_until};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Identity};

use super::daemon::endpoint;
use super::{failed, now_ms};

/// A connection that held for so long was a good one, as for a `ringway`.
const HELD: Duration = Duration::from_secs(10);
/// Changes within this time are one report.
const GATHER: Duration = Duration::from_millis(20);
/// The largest message, bytes.
const MOST_BYTES: usize = 256 << 20;
/// Series that each member counts.
const SERIES: usize = 10;

/// What the members of a fleet have in common.
#[derive(Debug)]
pub(super) struct Common {
    /// Where they connect.
    pub(super) daemon: SocketAddr,
    /// The mesh's roots, PEM.
    pub(super) roots: String,
    pub(super) token: String,
    pub(super) events: mpsc::UnboundedSender<Event>,
    /// So many join at a time: signatures of their keys are not what is measured.
    pub(super) joining: Semaphore,
}

/// What a member tells.
#[derive(Clone, Copy, Debug)]
pub(super) enum Event {
    /// It is connected, and its stream is open.
    Connected { at: Instant },
    /// It has answered a message of this push, of so many bytes.
    Acknowledged { member: usize, version: u64, bytes: u64, at: Instant },
    /// Its connection is gone.
    Lost,
    /// It does not come in at all.
    Failed,
}

/// A member.
struct Member {
    number: usize,
    common: Arc<Common>,
    identity: Identity,
    not_after_ms: u64,
    /// By type: what it has, by name and version.
    held: BTreeMap<&'static str, HashMap<String, String>>,
    /// By type: names that it asks for.
    wanted: BTreeMap<&'static str, BTreeSet<String>>,
}

/// The types, in the order in which they are asked for.
const TYPES: [&str; 5] =
    [xds::CLUSTER, xds::CLUSTER_LOAD_ASSIGNMENT, xds::SECRET, xds::LISTENER, xds::ROUTE_CONFIGURATION];

/// Lives until it is aborted.
pub(super) async fn live(number: usize, common: Arc<Common>) {
    let events = common.events.clone();
    match Member::join(number, common).await {
        Ok(member) => member.stay().await,
        Err(error) => {
            eprintln!("member {number}: {error}");
            // Whoever counts may be gone.
            let _ = events.send(Event::Failed);
        }
    }
}

impl Member {
    async fn join(number: usize, common: Arc<Common>) -> io::Result<Member> {
        let key = KeyPair::generate().map_err(failed)?;
        let csr = CertificateParams::default().serialize_request(&key).map_err(failed)?.der().to_vec();
        let issued = {
            let _turn = common.joining.acquire().await.map_err(failed)?;
            let channel = endpoint(common.daemon, &common.roots, None)?.connect().await.map_err(failed)?;
            let name = format!("member-{number}");
            let request = pb::JoinRequest { token: common.token.clone(), csr, name, clock_ms: now_ms() };
            AgentClient::new(channel).join(request).await.map_err(failed)?.into_inner()
        };
        let identity = Identity::from_pem(issued.chain, key.serialize_pem());
        let (held, wanted) = Default::default();
        Ok(Member { number, common, identity, not_after_ms: issued.not_after_ms, held, wanted })
    }

    async fn stay(mut self) {
        let mut pauses = Pauses::default();
        loop {
            let begun = Instant::now();
            match self.attempt().await {
                Ok(()) => {}
                Err((was_connected, _)) if was_connected => {
                    let _ = self.common.events.send(Event::Lost);
                    if begun.elapsed() >= HELD {
                        pauses.reset();
                    }
                }
                Err(_) => {}
            }
            sleep(pauses.next(RandomState::new().hash_one(self.number))).await;
        }
    }

    /// One connection, until it breaks.
    async fn attempt(&mut self) -> Result<(), (bool, io::Error)> {
        let not_yet = |error| (false, error);
        let endpoint =
            endpoint(self.common.daemon, &self.common.roots, Some(self.identity.clone())).map_err(not_yet)?;
        let channel = endpoint.connect().await.map_err(|error| (false, failed(error)))?;
        let (applied, news) = tokio::sync::watch::channel(0);
        let reports = report(self.number, self.not_after_ms, news, channel.clone());
        let stream = self.listen(channel, applied);
        tokio::select! {
            ended = stream => ended,
            ended = reports => ended.map_err(|error| (true, error)),
        }
    }

    async fn listen(
        &mut self,
        channel: Channel,
        applied: tokio::sync::watch::Sender<u64>,
    ) -> Result<(), (bool, io::Error)> {
        let (requests, queue) = mpsc::channel(64);
        for (n, kind) in TYPES.into_iter().enumerate() {
            let names = self.wanted.get(kind).cloned().unwrap_or_default();
            if !is_wildcard(kind) && names.is_empty() {
                continue;
            }
            let node = (n == 0).then(|| Node {
                user_agent_name: api::features::PROGRAM.into(),
                client_features: api::features::FEATURES.map(String::from).to_vec(),
                ..Node::default()
            });
            let request = DeltaDiscoveryRequest {
                node,
                type_url: kind.into(),
                resource_names_subscribe: names.into_iter().collect(),
                initial_resource_versions: self.held.get(kind).cloned().unwrap_or_default().into_iter().collect(),
                ..DeltaDiscoveryRequest::default()
            };
            requests.try_send(request).map_err(|error| (false, failed(error)))?;
        }
        let mut client = AggregatedDiscoveryServiceClient::new(channel).max_decoding_message_size(MOST_BYTES);
        let opened = client.delta_aggregated_resources(ReceiverStream::new(queue)).await;
        let mut responses = opened.map_err(|status| (false, failed(status)))?.into_inner();
        let broken = |error: tonic::Status| (true, failed(error));
        let _ = self.common.events.send(Event::Connected { at: Instant::now() });
        while let Some(response) = responses.message().await.map_err(broken)? {
            let version = response.system_version_info.parse().unwrap_or(0);
            let bytes = response.encoded_len() as u64;
            for request in self.take(response) {
                requests.send(request).await.map_err(|error| (true, failed(error)))?;
            }
            let at = Instant::now();
            let _ = self.common.events.send(Event::Acknowledged { member: self.number, version, bytes, at });
            applied.send_replace(version);
        }
        Err((true, failed("the stream was closed")))
    }

    /// Takes what came; the answer, and questions for names that are new.
    fn take(&mut self, response: DeltaDiscoveryResponse) -> Vec<DeltaDiscoveryRequest> {
        let answer = |kind: &str, nonce: String| DeltaDiscoveryRequest {
            type_url: kind.into(),
            response_nonce: nonce,
            ..DeltaDiscoveryRequest::default()
        };
        let Some(kind) = TYPES.into_iter().find(|kind| *kind == response.type_url) else { return Vec::new() };
        let held = self.held.entry(kind).or_default();
        let mut named: Vec<(&'static str, String)> = Vec::new();
        for resource in response.resources {
            if let Some(body) = &resource.resource {
                named.extend(needs(kind, &body.value));
            }
            held.insert(resource.name, resource.version);
        }
        response.removed_resources.iter().for_each(|name| drop(held.remove(name)));
        let mut requests = vec![answer(kind, response.nonce)];
        let mut fresh: BTreeMap<&'static str, Vec<String>> = BTreeMap::new();
        for (kind, name) in named {
            if self.wanted.entry(kind).or_default().insert(name.clone()) {
                fresh.entry(kind).or_default().push(name);
            }
        }
        requests.extend(fresh.into_iter().map(|(kind, names)| DeltaDiscoveryRequest {
            type_url: kind.into(),
            resource_names_subscribe: names,
            ..DeltaDiscoveryRequest::default()
        }));
        requests
    }
}

fn is_wildcard(kind: &str) -> bool {
    kind == xds::CLUSTER || kind == xds::LISTENER
}

/// What a resource names: types and names.
fn needs(kind: &str, bytes: &[u8]) -> Vec<(&'static str, String)> {
    match kind {
        xds::CLUSTER => {
            Cluster::decode(bytes).map(|one| (xds::CLUSTER_LOAD_ASSIGNMENT, one.name)).into_iter().collect()
        }
        xds::LISTENER => {
            let chains = Listener::decode(bytes).map(|one| one.filter_chains).unwrap_or_default();
            let filters = chains.into_iter().flat_map(|chain| chain.filters);
            let routes = filters.filter_map(|filter| {
                let Some(filter::ConfigType::TypedConfig(config)) = filter.config_type else { return None };
                let manager = xds::decode::<HttpConnectionManager>(&config, xds::HTTP_CONNECTION_MANAGER).ok()?;
                let Some(RouteSpecifier::Rds(rds)) = manager.route_specifier else { return None };
                Some((xds::ROUTE_CONFIGURATION, rds.route_config_name))
            });
            routes.chain([(xds::SECRET, xds::TRUST_SECRET.to_owned())]).collect()
        }
        _ => Vec::new(),
    }
}

/// Reports what is applied at once, and everything again and again.
async fn report(
    number: usize,
    not_after_ms: u64,
    mut applied: tokio::sync::watch::Receiver<u64>,
    channel: Channel,
) -> io::Result<()> {
    let started_ms = now_ms();
    let (reports, queue) = mpsc::channel(4);
    let mut rounds = 0;
    let mut report = |version: u64, full: bool| {
        rounds += 1;
        let applied = pb::Applied { version: version.to_string(), generation: version, at_ms: now_ms() };
        pb::Report {
            hello: (rounds == 1).then(|| pb::Hello {
                epoch: number as u64 + 1,
                version: env!("CARGO_PKG_VERSION").into(),
                host: format!("member-{number}"),
                started_ms,
                features: vec!["ringway.session".into()],
            }),
            applied: (version > 0).then_some(applied),
            counters: full.then(|| counters(rounds)),
            certificates: vec![pb::HeldCertificate {
                kind: "own".into(),
                not_after_ms,
                ..pb::HeldCertificate::default()
            }],
            listeners: vec![pb::OwnListener {
                name: "in".into(),
                address: format!("10.{}.{}.1:8443", number / 256, number % 256),
                ready: version > 0,
            }],
            ready: version > 0,
            clock_ms: now_ms(),
            ..pb::Report::default()
        }
    };
    reports.try_send(report(*applied.borrow_and_update(), true)).map_err(failed)?;
    let mut orders = AgentClient::new(channel).session(ReceiverStream::new(queue)).await.map_err(failed)?.into_inner();
    let mut interval = Duration::from_secs(5);
    let mut next = tokio::time::Instant::now() + interval;
    loop {
        tokio::select! {
            order = orders.message() => {
                let order = order.map_err(failed)?.ok_or_else(|| failed("the session was closed"))?;
                if order.interval_ms > 0 {
                    interval = Duration::from_millis(order.interval_ms.into());
                }
            }
            () = sleep_until(next) => {
                next = tokio::time::Instant::now() + interval;
                // Who does not take reports gets the next one.
                let _ = reports.try_send(report(*applied.borrow_and_update(), true));
            }
            changed = applied.changed() => {
                changed.map_err(failed)?;
                sleep(GATHER).await;
                let report = report(*applied.borrow_and_update(), false);
                reports.send(report).await.map_err(failed)?;
            }
        }
    }
}

/// Some traffic.
fn counters(rounds: u64) -> pb::Counters {
    let series = (0..SERIES).map(|n| pb::Series {
        listener: "in".into(),
        route: format!("r{n}"),
        service: format!("s{n}"),
        classes: vec![0, 0, 200 * rounds, 0, rounds, 0],
        latency: vec![100 * rounds; api::LATENCY_BOUNDS_US.len()],
        latency_sum_us: 1_000_000 * rounds,
        ..pb::Series::default()
    });
    pb::Counters { series: series.collect(), handshakes: rounds, ..pb::Counters::default() }
}
