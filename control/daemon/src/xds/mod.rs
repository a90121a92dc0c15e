//! xDS as the daemon speaks it: ADS, delta and state of the world. A stream is a task that hears requests and snapshots, and
//! sends what is next; everything that there is to know about a client stands in its `Offer`. Whose stream it is says its
//! certificate; what it says about itself is not asked.

mod delta;
mod offer;
mod refusal;
mod view;
mod whole;

#[cfg(test)]
mod tests;

pub(crate) use offer::Progress;

use crate::authority::Peer;
use crate::collect::Fleet;
use crate::snapshot::{Feed, Snapshot};
use crate::state::Daemon;
use crate::tell;
use api::envoy_types::pb::envoy::config::core::v3::Node;
use api::envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_server::AggregatedDiscoveryService;
use api::envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use delta::Delta;
use offer::TooMuch;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use view::{Reader, View};
use whole::Whole;

/// A client that leaves a message unanswered for so long is no client.
const ANSWER: Duration = Duration::from_secs(60);
/// Messages on their way to the connection: one of each kind is under way at most.
const QUEUE: usize = 8;

/// One protocol, without a stream: what was heard goes in, what is to be said comes out.
trait Protocol: Send {
    /// What a client says.
    type Request: Send;
    /// What it is told.
    type Response: Send;

    fn new(snapshot: Arc<Snapshot>) -> Self;
    /// Who says that it calls.
    fn node(request: &Self::Request) -> Option<&Node>;
    fn hear(&mut self, request: Self::Request) -> Result<(), TooMuch>;
    fn take(&mut self, snapshot: Arc<Snapshot>);
    fn next(&mut self, now: Instant) -> Option<Self::Response>;
    fn look_again(&self, now: Instant) -> Option<Instant>;
    fn waits_since(&self) -> Option<Instant>;
    fn progress(&self) -> Progress;
}

/// `envoy.service.discovery.v3.AggregatedDiscoveryService`.
#[derive(Debug)]
pub(crate) struct Service(Arc<Daemon>);

impl Service {
    pub(crate) fn new(daemon: Arc<Daemon>) -> Service {
        Service(daemon)
    }

    async fn start<P: Protocol + 'static>(
        &self,
        request: Request<Streaming<P::Request>>,
    ) -> Result<Response<Responses<P>>, Status> {
        let proxy = self.0.caller(&request).await?.proxy()?;
        let peer = request.extensions().get::<Peer>().map(|peer| peer.address.ip());
        let peer = peer.ok_or_else(|| Status::internal("a request without a connection"))?;
        let client = Client { proxy: proxy.id, group: proxy.group, peer };
        let snapshots = self.0.snapshots.feed(&client.group, &client.proxy);
        Ok(Response::new(serve::<P>(client, request.into_inner(), snapshots, self.0.fleet.clone())))
    }
}

type Responses<P> = ReceiverStream<Result<<P as Protocol>::Response, Status>>;

#[tonic::async_trait]
impl AggregatedDiscoveryService for Service {
    type StreamAggregatedResourcesStream = ReceiverStream<Result<DiscoveryResponse, Status>>;
    type DeltaAggregatedResourcesStream = ReceiverStream<Result<DeltaDiscoveryResponse, Status>>;

    async fn stream_aggregated_resources(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        self.start::<Whole>(request).await
    }

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        self.start::<Delta>(request).await
    }
}

/// Whose stream it is, by its certificate.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    pub(crate) proxy: String,
    pub(crate) group: String,
    /// Where it connects from.
    pub(crate) peer: IpAddr,
}

/// Serves one stream in a task of its own, until one side ends it.
fn serve<P: Protocol + 'static>(
    client: Client,
    requests: impl Stream<Item = Result<P::Request, Status>> + Send + Unpin + 'static,
    snapshots: Feed,
    fleet: Arc<Fleet>,
) -> Responses<P> {
    let (sender, receiver) = mpsc::channel(QUEUE);
    tokio::spawn(async move {
        if let Err(status) = drive::<P>(&client, requests, snapshots, &fleet, &sender).await {
            tell::tell(format_args!("xDS with `{}` ended: {}", client.proxy, status.message()));
            // It may be gone already.
            let _ = sender.send(Err(status)).await;
        }
    });
    ReceiverStream::new(receiver)
}

async fn drive<P: Protocol>(
    client: &Client,
    mut requests: impl Stream<Item = Result<P::Request, Status>> + Send + Unpin,
    mut snapshots: Feed,
    fleet: &Arc<Fleet>,
    sender: &mpsc::Sender<Result<P::Response, Status>>,
) -> Result<(), Status> {
    let mut protocol = P::new(snapshots.now());
    let mut stream = fleet.streams(&client.proxy, &client.group);
    let mut is_introduced = false;
    let mut view: Option<View> = None;
    loop {
        let now = tokio::time::Instant::now().into_std();
        while let Some(response) = protocol.next(now) {
            if sender.send(Ok(response)).await.is_err() {
                return Ok(());
            }
        }
        let progress = protocol.progress();
        if let Some(places) = view.as_mut().and_then(|view| view.listens(&progress)) {
            stream.listens(client, places).await;
        }
        stream.told(match &view {
            Some(view) => view.progress(progress),
            None => progress,
        });
        let late = protocol.waits_since().map(|since| since + ANSWER);
        if late.is_some_and(|late| late <= now) {
            return Err(Status::deadline_exceeded(format!("a message had no answer for {} s", ANSWER.as_secs())));
        }
        let wake = [protocol.look_again(now), late].into_iter().flatten().min();
        let wake = async move {
            match wake {
                Some(wake) => tokio::time::sleep_until(wake.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            request = requests.next() => match request {
                // The other end is gone, in whatever way.
                None | Some(Err(_)) => return Ok(()),
                Some(Ok(request)) => {
                    if let Some(node) = P::node(&request).filter(|_| !is_introduced) {
                        is_introduced = true;
                        stream.introduced(&node.user_agent_name);
                        if let Some(reader) = Reader::of(node) {
                            // It has not asked for anything yet.
                            protocol.take(view.insert(View::new(reader)).of(snapshots.now()));
                        }
                    }
                    protocol.hear(request).map_err(|TooMuch(why)| Status::invalid_argument(why))?;
                }
            },
            changed = snapshots.changed() => match changed {
                true => protocol.take(match &mut view {
                    Some(view) => view.of(snapshots.now()),
                    None => snapshots.now(),
                }),
                // Its group is dropped only when nobody listens.
                false => return Ok(()),
            },
            () = stream.replaced() => return Err(Status::aborted("a newer stream of this proxy took its place")),
            () = sender.closed() => return Ok(()),
            () = wake => {}
        }
    }
}

/// The node, where a request has one: the first must, others may.
fn node_of(node: Option<&Node>) -> Option<&Node> {
    node.filter(|node| !node.id.is_empty() || !node.user_agent_name.is_empty())
}
