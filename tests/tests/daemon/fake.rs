//! The daemon that a test plays. Left alone it does what a daemon should, with documents that the test sets; a test may also
//! put any message on the wire.

use super::DOMAIN;
use super::authority::{Authority, Pair};
use api::envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_server::{
    AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
};
use api::envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse, Resource,
};
use api::mesh::State;
use api::pb::agent_server::{Agent, AgentServer};
use api::pb::{Issued, JoinRequest, Order, RenewRequest, Report};
use api::token::Token;
use api::{Packed, xds};
use ringway_tests::{free_port, until};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};
use tonic::{Code, Request, Response, Status, Streaming};

/// In the order in which a server sends them.
const KINDS: [&str; 5] =
    [xds::CLUSTER, xds::CLUSTER_LOAD_ASSIGNMENT, xds::LISTENER, xds::ROUTE_CONFIGURATION, xds::SECRET];

type Answers<T> = UnboundedReceiverStream<Result<T, Status>>;
type Outgoing<T> = mpsc::UnboundedSender<Result<T, Status>>;

/// A daemon on a port of its own, which it keeps when it is stopped and started again.
pub(crate) struct Fake {
    pub(crate) authority: Arc<Authority>,
    address: SocketAddr,
    shared: Arc<Mutex<Shared>>,
    stop: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

/// What the test and the services share.
#[derive(Default)]
pub(crate) struct Shared {
    resources: BTreeMap<&'static str, BTreeMap<String, Resource>>,
    push: u64,
    streams: Vec<DeltaStream>,
    whole_streams: Vec<Outgoing<DiscoveryResponse>>,
    sessions: Vec<Outgoing<Order>>,
    /// All that was said.
    pub(crate) requests: Vec<DeltaDiscoveryRequest>,
    pub(crate) whole_requests: Vec<DiscoveryRequest>,
    pub(crate) reports: Vec<Report>,
    pub(crate) joins: Vec<JoinRequest>,
    pub(crate) renewals: u64,
    /// Calls that were left without an answer.
    pub(crate) muted: u64,
    /// How many streams were opened.
    pub(crate) opened: u64,
    pub(crate) behaviour: Behaviour,
    next_nonce: u64,
}

/// How it behaves.
#[derive(Clone)]
pub(crate) struct Behaviour {
    /// Of certificates.
    pub(crate) life: Duration,
    /// Whom they are for.
    pub(crate) identity: String,
    /// Why questions for certificates are refused.
    pub(crate) refuse: Option<Status>,
    /// No delta.
    pub(crate) whole_only: bool,
    /// No sessions.
    pub(crate) no_sessions: bool,
    /// Streams get no answer.
    pub(crate) silent: bool,
    /// Calls that are taken and never answered, not even with headers.
    pub(crate) mute: Option<Mute>,
    /// How far its clock is off, seconds.
    pub(crate) skew_s: i64,
    /// Certificates are cut in half.
    pub(crate) cut: bool,
}

impl Default for Behaviour {
    fn default() -> Behaviour {
        Behaviour {
            life: Duration::from_secs(86_400),
            identity: format!("spiffe://{DOMAIN}/group/edge"),
            refuse: None,
            whole_only: false,
            no_sessions: false,
            silent: false,
            mute: None,
            skew_s: 0,
            cut: false,
        }
    }
}

/// What a daemon may be deaf to.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Mute {
    /// Streams of configuration.
    Stream,
    /// Sessions.
    Session,
}

struct DeltaStream {
    out: Outgoing<DeltaDiscoveryResponse>,
    /// By type: what is subscribed to; of those that are asked for as a whole, nothing.
    wanted: BTreeMap<String, BTreeSet<String>>,
    /// By type and name: the version that the proxy has.
    sent: BTreeMap<(String, String), String>,
    /// Types that were answered.
    answered: BTreeSet<&'static str>,
    /// By type, names of which it was said that there is nothing.
    absent: BTreeSet<(&'static str, String)>,
}

impl Fake {
    /// Starts one that has nothing to say yet.
    pub(crate) fn start() -> Fake {
        let authority = Arc::new(Authority::new());
        Fake::with(authority, &format!("spiffe://{DOMAIN}/ringwayd"))
    }

    /// With this authority, as somebody.
    pub(crate) fn with(authority: Arc<Authority>, identity: &str) -> Fake {
        Fake::at(authority, identity, SocketAddr::from(([127, 0, 0, 1], free_port())))
    }

    /// And there.
    pub(crate) fn at(authority: Arc<Authority>, identity: &str, address: SocketAddr) -> Fake {
        let mut fake = Fake { authority, address, shared: Arc::default(), stop: None };
        fake.start_again_as(identity);
        fake
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// A token that carries its address and its root.
    pub(crate) fn token(&self) -> String {
        let daemons = vec![self.address.to_string()];
        Token { id: "t1".into(), secret: [7; 32], daemons, roots: vec![self.authority.pin()] }.encode()
    }

    /// Ends all connections at once, as a kill would.
    pub(crate) fn stop(&mut self) {
        if let Some((stop, thread)) = self.stop.take() {
            let _ = stop.send(());
            thread.join().unwrap();
        }
        let mut shared = self.shared();
        (shared.streams, shared.whole_streams, shared.sessions) = Default::default();
    }

    /// Ends the streams of configuration, and nothing else.
    pub(crate) fn stop_streams(&self) {
        self.shared().streams.iter().for_each(|stream| drop(stream.out.send(Err(Status::unavailable("again")))));
    }

    pub(crate) fn start_again(&mut self) {
        self.start_again_as(&format!("spiffe://{DOMAIN}/ringwayd"));
    }

    fn start_again_as(&mut self, identity: &str) {
        let Pair { chain, key } = self.authority.pair(identity);
        // With the root, for those who know nothing of it but a hash.
        let own = Identity::from_pem(format!("{chain}{}", self.authority.root), key);
        let tls = ServerTlsConfig::new().identity(own).client_auth_optional(true);
        let tls = tls.client_ca_root(Certificate::from_pem(&self.authority.root));
        let service = Service { shared: self.shared.clone(), authority: self.authority.clone() };
        let (address, (stop, stopped)) = (self.address, oneshot::channel());
        let (ready, is_ready) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::bind(address).await.unwrap();
                ready.send(()).unwrap();
                let mut server = Server::builder().tls_config(tls).unwrap();
                let server = server
                    .add_service(AggregatedDiscoveryServiceServer::new(service.clone()))
                    .add_service(AgentServer::new(service))
                    .serve_with_incoming(tokio_stream::wrappers::TcpListenerStream::new(listener));
                tokio::select! {
                    ended = server => ended.unwrap(),
                    _ = stopped => {}
                }
            });
            // Connections are tasks: they end with their runtime.
            runtime.shutdown_timeout(Duration::ZERO);
        });
        is_ready.recv().unwrap();
        self.stop = Some((stop, thread));
    }

    pub(crate) fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap()
    }

    pub(crate) fn behave(&self, change: impl FnOnce(&mut Behaviour)) {
        change(&mut self.shared().behaviour);
    }

    /// Another document, for the group `edge`.
    pub(crate) fn push(&self, document: &str) {
        self.push_with(document, |_| ());
    }

    /// Another document, in a state.
    pub(crate) fn push_with(&self, document: &str, change: impl FnOnce(&mut State)) {
        let mesh = api::mesh::load(document, "mesh.yaml").unwrap_or_else(|findings| panic!("{findings:?}"));
        let mut state = State { trust: self.authority.root.clone().into_bytes(), ..State::default() };
        change(&mut state);
        let from = mesh.resources(mesh.group("edge").unwrap(), &state);
        let mut shared = self.shared();
        shared.push += 1;
        fn all<'a, M>(list: &'a [M], pack: impl Fn(&M) -> Packed + 'a) -> impl Iterator<Item = Packed> + 'a {
            list.iter().map(pack)
        }
        let packed = all(&from.clusters, Packed::cluster)
            .chain(all(&from.endpoints, Packed::endpoints))
            .chain(all(&from.listeners, Packed::listener))
            .chain(all(&from.routes, Packed::routes))
            .chain(all(&from.secrets, Packed::secret));
        shared.resources = KINDS.into_iter().map(|kind| (kind, BTreeMap::new())).collect();
        for Packed { name, version, body } in packed {
            let kind = KINDS.into_iter().find(|kind| **kind == body.type_url).unwrap();
            let resource = Resource {
                name: name.to_string(),
                version: version.to_string(),
                resource: Some(body),
                ..Resource::default()
            };
            shared.resources.entry(kind).or_default().insert(name.to_string(), resource);
        }
        shared.flush();
    }

    /// Changes one resource as it is sent from now on.
    pub(crate) fn change(&self, kind: &'static str, name: &str, change: impl FnOnce(&mut Resource)) {
        let mut shared = self.shared();
        shared.push += 1;
        let resource = shared.resources.entry(kind).or_default().entry(name.to_owned()).or_default();
        change(resource);
        resource.version.push('+');
        shared.flush();
    }

    /// A resource as it is sent.
    pub(crate) fn resource(&self, kind: &'static str, name: &str) -> Resource {
        self.shared().resources[kind][name].clone()
    }

    /// Does not have a resource any more, and says nothing of it.
    pub(crate) fn forget(&self, kind: &'static str, name: &str) {
        self.shared().resources.get_mut(kind).unwrap().remove(name);
    }

    /// Says something to every proxy, whatever it is.
    pub(crate) fn say(&self, response: DeltaDiscoveryResponse) {
        self.shared().streams.iter().for_each(|stream| drop(stream.out.send(Ok(response.clone()))));
    }

    pub(crate) fn order(&self, order: Order) {
        self.shared().sessions.iter().for_each(|session| drop(session.send(Ok(order.clone()))));
    }

    /// Waits until something holds of what is shared.
    pub(crate) fn until<T>(&self, what: &str, mut holds: impl FnMut(&Shared) -> Option<T>) -> T {
        let found = until(Duration::from_secs(20), || holds(&self.shared()));
        found.unwrap_or_else(|| panic!("did not come: {what}: {:#?}", self.shared().requests))
    }

    /// Waits for the answer to the response with this nonce. Its error, if it has one.
    pub(crate) fn answer(&self, nonce: &str) -> Option<String> {
        self.until(&format!("the answer to {nonce}"), |shared| {
            let answer = shared.requests.iter().find(|request| request.response_nonce == nonce)?;
            Some(answer.error_detail.as_ref().map(|detail| detail.message.clone()))
        })
    }

    /// Waits until all cores work with the last push.
    pub(crate) fn applied(&self) {
        self.until("the last push applied", |shared| {
            let push = shared.push.to_string();
            let last = shared.reports.iter().rev().find_map(|report| report.applied.clone())?;
            (last.version == push).then_some(())
        });
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        if let Some((stop, _)) = self.stop.take() {
            let _ = stop.send(());
        }
    }
}

impl Shared {
    fn nonce(&mut self) -> String {
        self.next_nonce += 1;
        format!("n{}", self.next_nonce)
    }

    /// Sends to every stream what it wants and does not have.
    fn flush(&mut self) {
        for at in 0..self.streams.len() {
            for kind in KINDS {
                self.flush_kind(at, kind);
            }
        }
        for at in 0..self.whole_streams.len() {
            for kind in KINDS {
                let response = self.whole(kind);
                let _ = self.whole_streams[at].send(Ok(response));
            }
        }
    }

    fn flush_kind(&mut self, at: usize, kind: &'static str) {
        let stream = &self.streams[at];
        let Some(wanted) = stream.wanted.get(kind) else { return };
        if self.behaviour.silent {
            return;
        }
        let wildcard = kind == xds::CLUSTER || kind == xds::LISTENER;
        let there = self.resources.get(kind).cloned().unwrap_or_default();
        let has = |name: &str| stream.sent.get(&(kind.to_owned(), name.to_owned()));
        let fresh = |one: &&Resource| (wildcard || wanted.contains(&one.name)) && has(&one.name) != Some(&one.version);
        let resources: Vec<Resource> = there.values().filter(fresh).cloned().collect();
        let sent = stream.sent.keys().filter(|(of, name)| of == kind && !there.contains_key(name));
        let mut removed: Vec<String> = sent.map(|(_, name)| name.clone()).collect();
        // What there is none of is said once.
        let is_told = |name: &String| stream.absent.contains(&(kind, name.clone()));
        let none = |name: &&String| !there.contains_key(*name) && has(name).is_none() && !is_told(name);
        removed.extend(wanted.iter().filter(none).cloned());
        let first = wildcard && !stream.answered.contains(kind);
        if resources.is_empty() && removed.is_empty() && !first {
            return;
        }
        let nonce = self.nonce();
        let (push, stream) = (self.push, &mut self.streams[at]);
        stream.answered.insert(kind);
        for one in &resources {
            stream.sent.insert((kind.to_owned(), one.name.clone()), one.version.clone());
        }
        stream.absent.retain(|(of, name)| *of != kind || !there.contains_key(name));
        for name in &removed {
            stream.sent.remove(&(kind.to_owned(), name.clone()));
            stream.absent.insert((kind, name.clone()));
        }
        let response = DeltaDiscoveryResponse {
            system_version_info: push.to_string(),
            resources,
            removed_resources: removed,
            type_url: kind.to_owned(),
            nonce,
            ..DeltaDiscoveryResponse::default()
        };
        let _ = stream.out.send(Ok(response));
    }

    fn whole(&mut self, kind: &'static str) -> DiscoveryResponse {
        let there = self.resources.get(kind).into_iter().flat_map(BTreeMap::values);
        DiscoveryResponse {
            version_info: self.push.to_string(),
            resources: there.filter_map(|one| one.resource.clone()).collect(),
            type_url: kind.to_owned(),
            nonce: self.nonce(),
            ..DiscoveryResponse::default()
        }
    }
}

/// The time by a clock that is off.
fn by_clock(skew_s: i64) -> SystemTime {
    let (now, skew) = (SystemTime::now(), Duration::from_secs(skew_s.unsigned_abs()));
    if skew_s < 0 { now - skew } else { now + skew }
}

#[derive(Clone)]
struct Service {
    shared: Arc<Mutex<Shared>>,
    authority: Arc<Authority>,
}

impl Service {
    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap()
    }

    /// Stays without an answer for ever, if it is to.
    async fn may_answer(&self, call: Mute) {
        let is_mute = self.shared().behaviour.mute == Some(call);
        if is_mute {
            self.shared().muted += 1;
            std::future::pending::<()>().await;
        }
    }

    fn needs_certificate<T>(request: &Request<T>) -> Result<(), Status> {
        match request.peer_certs() {
            Some(chain) if !chain.is_empty() => Ok(()),
            _ => Err(Status::unauthenticated("a client certificate is wanted")),
        }
    }
}

#[tonic::async_trait]
impl AggregatedDiscoveryService for Service {
    type StreamAggregatedResourcesStream = Answers<DiscoveryResponse>;
    type DeltaAggregatedResourcesStream = Answers<DeltaDiscoveryResponse>;

    async fn stream_aggregated_resources(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        Service::needs_certificate(&request)?;
        let (out, answers) = mpsc::unbounded_channel();
        self.shared().whole_streams.push(out.clone());
        let (service, mut requests) = (self.clone(), request.into_inner());
        tokio::spawn(async move {
            while let Some(Ok(request)) = requests.next().await {
                let mut shared = service.shared();
                let last = shared.whole_requests.iter().rev().find(|other| other.type_url == request.type_url);
                let more = last.is_none_or(|last| last.resource_names != request.resource_names);
                shared.whole_requests.push(request.clone());
                let kind = KINDS.into_iter().find(|kind| **kind == request.type_url);
                if let Some(kind) = kind.filter(|_| request.response_nonce.is_empty() || more) {
                    let response = shared.whole(kind);
                    let _ = out.send(Ok(response));
                }
            }
        });
        Ok(Response::new(UnboundedReceiverStream::new(answers)))
    }

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        Service::needs_certificate(&request)?;
        self.may_answer(Mute::Stream).await;
        if self.shared().behaviour.whole_only {
            return Err(Status::unimplemented("no delta"));
        }
        let (out, answers) = mpsc::unbounded_channel();
        let (service, mut requests) = (self.clone(), request.into_inner());
        self.shared().opened += 1;
        let (wanted, sent, answered, absent) = Default::default();
        let stream = DeltaStream { out: out.clone(), wanted, sent, answered, absent };
        self.shared().streams.push(stream);
        tokio::spawn(async move {
            while let Some(Ok(request)) = requests.next().await {
                service.take(&out, request);
            }
            service.shared().streams.retain(|stream| !stream.out.same_channel(&out));
        });
        Ok(Response::new(UnboundedReceiverStream::new(answers)))
    }
}

impl Service {
    fn take(&self, out: &Outgoing<DeltaDiscoveryResponse>, request: DeltaDiscoveryRequest) {
        let mut shared = self.shared();
        shared.requests.push(request.clone());
        let Some(at) = shared.streams.iter().position(|stream| stream.out.same_channel(out)) else { return };
        let Some(kind) = KINDS.into_iter().find(|kind| **kind == request.type_url) else { return };
        let stream = &mut shared.streams[at];
        let wanted = stream.wanted.entry(kind.to_owned()).or_default();
        wanted.extend(request.resource_names_subscribe);
        wanted.retain(|name| !request.resource_names_unsubscribe.contains(name));
        for (name, version) in request.initial_resource_versions {
            stream.sent.insert((kind.to_owned(), name), version);
        }
        shared.flush_kind(at, kind);
    }
}

#[tonic::async_trait]
impl Agent for Service {
    type SessionStream = Answers<Order>;

    async fn join(&self, request: Request<JoinRequest>) -> Result<Response<Issued>, Status> {
        let request = request.into_inner();
        let Behaviour { life, identity, refuse, skew_s, .. } = self.shared().behaviour.clone();
        self.shared().joins.push(request.clone());
        if let Some(refuse) = refuse {
            return Err(refuse);
        }
        let token = Token::decode(&request.token).map_err(Status::unauthenticated)?;
        if token.secret != [7; 32] {
            return Err(Status::unauthenticated("the token is not known"));
        }
        Ok(Response::new(self.authority.sign(&request.csr, &identity, life, by_clock(skew_s))))
    }

    async fn renew(&self, request: Request<RenewRequest>) -> Result<Response<Issued>, Status> {
        Service::needs_certificate(&request)?;
        let Behaviour { life, identity, refuse, cut, skew_s, .. } = self.shared().behaviour.clone();
        self.shared().renewals += 1;
        if let Some(refuse) = refuse {
            return Err(refuse);
        }
        let mut issued = self.authority.sign(&request.into_inner().csr, &identity, life, by_clock(skew_s));
        if cut {
            issued.chain.truncate(issued.chain.len() / 3);
        }
        Ok(Response::new(issued))
    }

    async fn session(&self, request: Request<Streaming<Report>>) -> Result<Response<Self::SessionStream>, Status> {
        Service::needs_certificate(&request)?;
        self.may_answer(Mute::Session).await;
        if self.shared().behaviour.no_sessions {
            return Err(Status::new(Code::Unimplemented, "no sessions"));
        }
        let (out, orders) = mpsc::unbounded_channel();
        self.shared().sessions.push(out);
        let (service, mut reports) = (self.clone(), request.into_inner());
        tokio::spawn(async move {
            while let Some(Ok(report)) = reports.next().await {
                service.shared().reports.push(report);
            }
        });
        Ok(Response::new(UnboundedReceiverStream::new(orders)))
    }
}
