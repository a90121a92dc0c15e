//! Both protocols with a client that tonic made, over TCP; and a client that falls silent.

use super::super::delta::Delta;
use super::super::whole::Whole;
use super::super::{Client, Responses, drive, serve};
use super::*;
use crate::collect::{Fleet, Places};
use crate::store::Store;
use api::envoy_types::pb::envoy::config::core::v3::Node;
use api::envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use api::envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_server::{
    AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
};
use api::envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Streaming};

/// Everybody who calls is the proxy `p` of the gateway.
struct Anybody {
    snapshots: Arc<Snapshots>,
    fleet: Arc<Fleet>,
}

fn somebody() -> Client {
    Client { proxy: "p".to_owned(), group: "edge".to_owned(), peer: std::net::Ipv4Addr::LOCALHOST.into() }
}

#[tonic::async_trait]
impl AggregatedDiscoveryService for Anybody {
    type StreamAggregatedResourcesStream = Responses<Whole>;
    type DeltaAggregatedResourcesStream = Responses<Delta>;

    async fn stream_aggregated_resources(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Responses<Whole>>, tonic::Status> {
        let snapshots = self.snapshots.feed("edge", "p");
        Ok(Response::new(serve::<Whole>(somebody(), request.into_inner(), snapshots, self.fleet.clone())))
    }

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Responses<Delta>>, tonic::Status> {
        let snapshots = self.snapshots.feed("edge", "p");
        Ok(Response::new(serve::<Delta>(somebody(), request.into_inner(), snapshots, self.fleet.clone())))
    }
}

struct Daemon {
    snapshots: Arc<Snapshots>,
    fleet: Arc<Fleet>,
    _folder: TempDir,
}

async fn daemon() -> Daemon {
    let folder = tempfile::tempdir().unwrap();
    let snapshots = Arc::new(Snapshots::default());
    let places = Places::start(Store::open(folder.path()).unwrap(), snapshots.clone()).await.unwrap();
    Daemon { snapshots, fleet: Fleet::new(places), _folder: folder }
}

impl Daemon {
    /// A client of a server that answers from now on.
    async fn client(&self) -> AggregatedDiscoveryServiceClient<tonic::transport::Channel> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let anybody = Anybody { snapshots: self.snapshots.clone(), fleet: self.fleet.clone() };
        let server = tonic::transport::Server::builder().add_service(AggregatedDiscoveryServiceServer::new(anybody));
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        AggregatedDiscoveryServiceClient::connect(format!("http://{address}")).await.unwrap()
    }

    /// Waits until something is so of the proxy.
    async fn until(&self, what: &str, is_so: impl Fn(Option<&Progress>) -> bool) {
        let mut changes = self.fleet.changes();
        let wait = async {
            while !is_so(self.fleet.own_member("p").and_then(|member| member.resources).as_ref()) {
                changes.changed().await.unwrap();
            }
        };
        tokio::time::timeout(seconds(10.0), wait).await.unwrap_or_else(|_| panic!("never: {what}"));
    }
}

#[tokio::test]
async fn a_delta_client_is_served_and_followed() {
    let daemon = daemon().await;
    push(&daemon.snapshots, 1, &mesh(&["a"]));
    let mut client = daemon.client().await;
    let (requests, stream) = mpsc::channel(8);
    let node = Node { id: "x".to_owned(), user_agent_name: "envoy".to_owned(), ..Node::default() };
    let of = |kind: Kind| DeltaDiscoveryRequest { type_url: kind.type_url().to_owned(), ..Default::default() };
    requests.send(DeltaDiscoveryRequest { node: Some(node), ..of(Kind::Cluster) }).await.unwrap();
    let mut responses = client.delta_aggregated_resources(ReceiverStream::new(stream)).await.unwrap().into_inner();
    let first = responses.message().await.unwrap().unwrap();
    assert_eq!((first.system_version_info.as_str(), first.resources[0].name.as_str()), ("1", "a"));
    daemon.until("sent", |progress| progress.is_some_and(|progress| progress.sent == 1)).await;
    requests.send(DeltaDiscoveryRequest { response_nonce: first.nonce, ..of(Kind::Cluster) }).await.unwrap();
    daemon.until("settled", |progress| progress.is_some_and(|progress| progress.settled == 1)).await;
    // An Envoy reports nothing: what it has taken it works with.
    assert_eq!(daemon.fleet.own_member("p").unwrap().applied(), 1);

    push(&daemon.snapshots, 2, &mesh(&["a", "b"]));
    let second = responses.message().await.unwrap().unwrap();
    assert_eq!((second.resources.len(), second.resources[0].name.as_str()), (1, "b"));
    let refusal = Some(refusing(Kind::Cluster, &["b"]));
    let answer = DeltaDiscoveryRequest { response_nonce: second.nonce, error_detail: refusal, ..of(Kind::Cluster) };
    requests.send(answer).await.unwrap();
    daemon.until("refused", |progress| progress.is_some_and(|p| told(p) == ["cluster/b: is bad"])).await;
    drop(requests);
    assert!(responses.message().await.unwrap().is_none());
    daemon.until("gone", |progress| progress.is_none()).await;
}

#[tokio::test]
async fn a_client_of_the_whole_state_is_served_and_followed() {
    let daemon = daemon().await;
    push(&daemon.snapshots, 1, &mesh(&["a"]));
    let mut client = daemon.client().await;
    let (requests, stream) = mpsc::channel(8);
    let of = |kind: Kind| DiscoveryRequest { type_url: kind.type_url().to_owned(), ..Default::default() };
    requests.send(of(Kind::Cluster)).await.unwrap();
    let mut responses = client.stream_aggregated_resources(ReceiverStream::new(stream)).await.unwrap().into_inner();
    let first = responses.message().await.unwrap().unwrap();
    assert_eq!(first.resources.len(), 1);
    let (version_info, response_nonce) = (first.version_info, first.nonce);
    requests.send(DiscoveryRequest { version_info, response_nonce, ..of(Kind::Cluster) }).await.unwrap();
    daemon.until("settled", |progress| progress.is_some_and(|progress| progress.settled == 1)).await;
    push(&daemon.snapshots, 2, &mesh(&["a", "b"]));
    assert_eq!(responses.message().await.unwrap().unwrap().resources.len(), 2);
}

#[tokio::test]
async fn who_asks_for_too_much_is_told_and_cut_off() {
    let daemon = daemon().await;
    push(&daemon.snapshots, 1, &mesh(&["a"]));
    let mut client = daemon.client().await;
    let names = vec!["x".repeat(2000)];
    let request = DiscoveryRequest { type_url: xds::SECRET.to_owned(), resource_names: names, ..Default::default() };
    let request = tokio_stream::iter([request]);
    let mut responses = client.stream_aggregated_resources(request).await.unwrap().into_inner();
    let status = responses.message().await.unwrap_err();
    assert_eq!((status.code(), status.message()), (tonic::Code::InvalidArgument, "a name is longer than 1024 bytes"));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_falls_silent_is_cut_off() {
    let daemon = daemon().await;
    push(&daemon.snapshots, 1, &mesh(&["a"]));
    let (requests, stream) = mpsc::channel(8);
    let request = DeltaDiscoveryRequest { type_url: xds::CLUSTER.to_owned(), ..Default::default() };
    requests.send(Ok(request.clone())).await.unwrap();
    let (sender, mut responses) = mpsc::channel(8);
    let begun = tokio::time::Instant::now();
    let snapshots = daemon.snapshots.feed("edge", "p");
    let driven = drive::<Delta>(&somebody(), ReceiverStream::new(stream), snapshots, &daemon.fleet, &sender).await;
    let status = driven.unwrap_err();
    assert_eq!(status.code(), tonic::Code::DeadlineExceeded, "{status}");
    assert_eq!(begun.elapsed().as_secs(), 60);
    assert!(responses.recv().await.unwrap().is_ok());
}

/// A proxy that opens one after the other has one in the end, and the memory of one.
#[tokio::test]
async fn a_newer_stream_of_a_proxy_ends_the_older() {
    let daemon = daemon().await;
    push(&daemon.snapshots, 1, &mesh(&["a"]));
    let mut client = daemon.client().await;
    let request = DeltaDiscoveryRequest { type_url: xds::CLUSTER.to_owned(), ..Default::default() };
    let mut open = async || {
        let (requests, stream) = mpsc::channel(8);
        requests.send(request.clone()).await.unwrap();
        let mut responses = client.delta_aggregated_resources(ReceiverStream::new(stream)).await.unwrap().into_inner();
        assert!(responses.message().await.unwrap().is_some());
        (requests, responses)
    };
    let (mut first, mut second) = (open().await, open().await);
    let status = tokio::time::timeout(seconds(10.0), first.1.message()).await.expect("it ends").unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (tonic::Code::Aborted, "a newer stream of this proxy took its place")
    );
    let stays = tokio::time::timeout(seconds(0.2), second.1.message()).await;
    assert!(stays.is_err(), "the newer goes on");
    daemon.until("followed", |progress| progress.is_some_and(|progress| progress.sent == 1)).await;
}

/// Over the wire, in both protocols: who says nothing of what it knows is of before there were words.
#[tokio::test]
async fn an_older_proxy_is_sent_what_it_understands() {
    let daemon = daemon().await;
    push(&daemon.snapshots, 1, &mesh(&["a"]));
    let node = || Some(Node { user_agent_name: "ringway".to_owned(), ..Node::default() });
    let url = || Kind::Cluster.type_url().to_owned();
    let is_new = |value: &[u8]| value.windows(8).any(|some| some == b"PeakEwma");
    assert!(is_new(&now_of(&daemon.snapshots).resources(Kind::Cluster)["a"].body.value), "what others are sent");
    let mut client = daemon.client().await;
    let delta = DeltaDiscoveryRequest { node: node(), type_url: url(), ..Default::default() };
    let (requests, stream) = mpsc::channel(8);
    requests.send(delta).await.unwrap();
    let mut responses = client.delta_aggregated_resources(ReceiverStream::new(stream)).await.unwrap().into_inner();
    let response = responses.message().await.unwrap().unwrap();
    assert!(!is_new(&response.resources[0].resource.as_ref().unwrap().value));
    let whole = DiscoveryRequest { node: node(), type_url: url(), ..Default::default() };
    let (requests, stream) = mpsc::channel(8);
    requests.send(whole).await.unwrap();
    let mut responses = client.stream_aggregated_resources(ReceiverStream::new(stream)).await.unwrap().into_inner();
    let response = responses.message().await.unwrap().unwrap();
    assert!(!is_new(&response.resources[0].value));
}
