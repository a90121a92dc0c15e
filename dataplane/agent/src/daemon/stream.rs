//! The stream of configuration (ADS): delta, or state of the world where the daemon does not speak delta.

use super::connect::{MOST_BYTES, status_text};
use super::joined::Joined;
use super::link::{Judged, News, Start, answered};
use super::xds::{Delta, Heard, Kind, Names, Speak, Versions, Whole, node};
use api::envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use api::features::FEATURES;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::atomic::Ordering::Relaxed;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

/// Requests that wait to be sent; a response has at most an answer and other names of three kinds.
const REQUESTS: usize = 16;

type Client = AggregatedDiscoveryServiceClient<Channel>;

/// Listens until the stream breaks.
///
/// # Errors
/// Why it did.
pub(super) async fn listen(
    start: &Start,
    news: &mpsc::Sender<News>,
    versions: &mut BTreeMap<Kind, String>,
    joined: &Joined,
    channel: Channel,
    mut connected: impl FnMut(),
) -> Result<Infallible, String> {
    let node = node(&joined.proxy, &joined.group, &FEATURES);
    let (wanted, held) = opened(news).await?;
    let mut client = Client::new(channel).max_decoding_message_size(MOST_BYTES);
    let (delta, first) = Delta::open(node.clone(), &wanted, &held);
    let (requests, waiting) = queue(first);
    let ended = match answered(client.delta_aggregated_resources(waiting)).await {
        Ok(answer) => converse(start, news, delta, requests, answer, &mut connected).await,
        Err(status) => Err(status),
    };
    match ended {
        Err(status) if status.code() == Code::Unimplemented => {}
        Err(status) => return Err(status_text(&status)),
    }
    let (whole, first) = Whole::open(node, &wanted, versions);
    let (requests, waiting) = queue(first);
    let answer = answered(client.stream_aggregated_resources(waiting)).await.map_err(|status| status_text(&status))?;
    let ended = converse(start, news, whole, requests, answer, &mut connected).await;
    ended.map_err(|status| status_text(&status))
}

/// What shall be asked for, and what is here already.
async fn opened(news: &mpsc::Sender<News>) -> Result<(Names, Versions), String> {
    let (reply, answer) = oneshot::channel();
    let _ = news.send(News::Opened(reply)).await;
    answer.await.map_err(|_| "the process ends".to_owned())
}

/// A queue of requests that has the first ones.
fn queue<R>(first: Vec<R>) -> (mpsc::Sender<R>, ReceiverStream<R>) {
    let (requests, queue) = mpsc::channel(first.len() + REQUESTS);
    first.into_iter().for_each(|request| drop(requests.try_send(request)));
    (requests, ReceiverStream::new(queue))
}

/// Answers each response as the agent judges it.
async fn converse<S: Speak>(
    start: &Start,
    news: &mpsc::Sender<News>,
    mut speaker: S,
    requests: mpsc::Sender<S::Request>,
    mut responses: Streaming<S::Response>,
    connected: &mut impl FnMut(),
) -> Result<Infallible, Status> {
    let gone = || Status::cancelled("the stream was closed");
    connected();
    loop {
        let response = responses.message().await?.ok_or_else(gone)?;
        start.standing.heard();
        let update = match speaker.hear(response) {
            Heard::Update(update) => update,
            Heard::Refuse(request) => {
                requests.send(request).await.map_err(|_| gone())?;
                continue;
            }
            Heard::Fault(reason) => return Err(Status::cancelled(reason)),
        };
        start.standing.responses.fetch_add(1, Relaxed);
        let (reply, answer) = oneshot::channel();
        let _ = news.send(News::Update(update.clone(), reply)).await;
        let Judged { rejections, wanted } = answer.await.map_err(|_| gone())?;
        start.standing.refused.fetch_add(rejections.len() as u64, Relaxed);
        requests.send(speaker.answer(&update, &rejections)).await.map_err(|_| gone())?;
        for (kind, names) in wanted.into_iter().flatten() {
            if let Some(request) = speaker.want(kind, &names) {
                requests.send(request).await.map_err(|_| gone())?;
            }
        }
    }
}
