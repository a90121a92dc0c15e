//! What proxies ask for: joining, renewing, and a stream on which they are told to renew.

use crate::authority::{Issued, Peer, Proxy, Refusal};
use crate::collect::Session;
use crate::state::{Daemon, now_ms};
use crate::tell;
use api::pb;
use api::pb::agent_server::Agent;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

/// Orders that a slow proxy has not taken; then there are none until it has.
const ORDERS: usize = 4;
/// Between reports of a proxy that has nothing new to say; what is new is told at once.
const INTERVAL: Duration = Duration::from_secs(2);
/// A certificate that was told to be renewed may take so long; then it is told again.
const RENEWING: Duration = Duration::from_secs(10);

/// A difference of clocks that people should know of.
const MUCH_SKEW_MS: u64 = 60_000;

/// `ringway.v1.Agent`.
pub(super) struct Service(Arc<Daemon>);

impl Service {
    pub(super) fn new(daemon: Arc<Daemon>) -> Service {
        Service(daemon)
    }
}

#[tonic::async_trait]
impl Agent for Service {
    type SessionStream = ReceiverStream<Result<pb::Order, Status>>;

    async fn join(&self, request: Request<pb::JoinRequest>) -> Result<Response<pb::Issued>, Status> {
        join(&self.0, request).await
    }

    async fn renew(&self, request: Request<pb::RenewRequest>) -> Result<Response<pb::Issued>, Status> {
        renew(&self.0, request).await
    }

    async fn session(&self, request: Request<Streaming<pb::Report>>) -> Result<Response<Self::SessionStream>, Status> {
        let proxy = self.0.caller(&request).await?.proxy()?;
        let peer = request.extensions().get::<Peer>().map(|peer| peer.address);
        let peer = peer.ok_or_else(|| Status::internal("a request without a connection"))?;
        let (orders, stream) = mpsc::channel(ORDERS);
        let session = self.0.fleet.session(&proxy.id, &proxy.group, peer);
        tokio::spawn(attend(self.0.clone(), proxy, session, request.into_inner(), orders));
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

/// Listens to a proxy as long as it talks, and tells it what is wanted of it.
async fn attend(
    daemon: Arc<Daemon>,
    proxy: Proxy,
    mut session: Session,
    mut reports: Streaming<pb::Report>,
    orders: mpsc::Sender<Result<pb::Order, Status>>,
) {
    let mut roots = daemon.authority.changes();
    let mut told = Told::default();
    loop {
        let report = tokio::select! {
            report = reports.message() => match report {
                Ok(Some(report)) => Some(report),
                Ok(None) | Err(_) => return,
            },
            changed = roots.changed() => match changed {
                Ok(()) => None,
                Err(_) => return,
            },
            changed = session.wanted.changed() => match changed {
                Ok(()) => None,
                // It was forgotten, or a newer session speaks for it.
                Err(_) => return,
            },
            changed = session.detail.changed() => match changed {
                Ok(()) => None,
                Err(_) => return,
            },
        };
        let now_ms = now_ms();
        let wants = wants_renewal(&daemon, &proxy.id, report.as_ref()).await;
        if let Some(report) = report {
            session.reported(report).await;
        }
        let old = match wants {
            Ok(old) => old,
            Err(refusal) => {
                let _ = orders.try_send(Err(refusal.into()));
                return;
            }
        };
        let drain = session.wanted.borrow_and_update().drain;
        let detail_until_ms = *session.detail.borrow_and_update();
        // Looked at with each report: that is soon enough.
        let wanted = Wanted { renew: old, drain, detail_until_ms, daemons: daemon.daemons() };
        told.tell(wanted, now_ms, &orders);
    }
}

/// What a proxy shall know or do.
struct Wanted {
    /// The certificate that it shall have another for.
    renew: Option<String>,
    drain: bool,
    /// Milliseconds since 1970.
    detail_until_ms: u64,
    daemons: Vec<String>,
}

/// What a proxy was told: by orders that its queue took.
#[derive(Default)]
struct Told {
    is_begun: bool,
    drain: bool,
    detail_until_ms: u64,
    daemons: Vec<String>,
    /// The certificate that was told to be renewed last, and when.
    renew: Option<(String, u64)>,
}

impl Told {
    /// Tells what is new. A proxy that is too slow to take it is told with its next report.
    fn tell(&mut self, wanted: Wanted, now_ms: u64, orders: &mpsc::Sender<Result<pb::Order, Status>>) {
        let Wanted { renew, drain, detail_until_ms, daemons } = wanted;
        // One that it got since then may be old already: a change of roots has two renewals.
        let waits = |old: &String| {
            let told = self.renew.as_ref();
            told.is_some_and(|(one, at_ms)| one == old && now_ms < at_ms + RENEWING.as_millis() as u64)
        };
        let renew = renew.filter(|old| !waits(old));
        let order = pb::Order {
            interval_ms: INTERVAL.as_millis() as u32,
            renew: renew.is_some(),
            drain: drain && !self.drain,
            detail_until_ms,
            clock_ms: now_ms,
            daemons,
        };
        let detail = detail_until_ms > now_ms && detail_until_ms != self.detail_until_ms;
        let moved = order.daemons != self.daemons;
        let is_news = !self.is_begun || moved || detail || order.renew || order.drain;
        if is_news && orders.try_send(Ok(order.clone())).is_ok() {
            let renew = renew.map(|old| (old, now_ms)).or(self.renew.take());
            *self = Told { is_begun: true, drain, detail_until_ms, daemons: order.daemons, renew };
        }
    }
}

/// Notes which certificate the proxy says that it works with; what tells it from others, where it should be another.
async fn wants_renewal(daemon: &Daemon, id: &str, report: Option<&pb::Report>) -> Result<Option<String>, Refusal> {
    let gone = || Refusal::Unknown(format!("the proxy `{id}` was forgotten"));
    let mut proxy = daemon.authority.proxy(id).await?.ok_or_else(gone)?;
    if let Some(own) = report.and_then(|report| report.certificates.iter().find(|one| one.kind == "own")) {
        if !daemon.authority.saw_ending(&proxy, own.not_after_ms).await? && daemon.store.is_shared() {
            // It was renewed without its record; the next one is in it.
            return Ok(daemon.store.cut_off().is_none().then(|| own.not_after_ms.to_string()));
        }
        proxy = daemon.authority.proxy(id).await?.ok_or_else(gone)?;
    }
    let wants = daemon.authority.wants_renewal(&proxy);
    Ok(proxy.in_use().filter(|_| wants).map(|certificate| certificate.fingerprint.clone()))
}

/// The first certificate of a proxy, for a token.
async fn join(daemon: &Daemon, request: Request<pb::JoinRequest>) -> Result<Response<pb::Issued>, Status> {
    let pb::JoinRequest { token, csr, name, clock_ms } = request.into_inner();
    let now_ms = now_ms();
    match daemon.authority.join(&token, &csr, &name, now_ms).await {
        Ok(issued) => {
            daemon.metrics.joins.inc();
            skew(&issued, clock_ms, now_ms);
            let Issued { proxy, .. } = &issued;
            tell::tell(format_args!("`{}` joined group `{}`", proxy.id, proxy.group));
            Ok(Response::new(answer(daemon, &issued, now_ms)))
        }
        Err(refusal) => {
            daemon.metrics.refused_joins.inc();
            let line = format_args!("a proxy that calls itself `{}` did not join: {refusal}", shortened(&name));
            daemon.refused_joins.tell(line, now_ms);
            Err(refusal.into())
        }
    }
}

/// Another certificate for the proxy that calls.
async fn renew(daemon: &Daemon, request: Request<pb::RenewRequest>) -> Result<Response<pb::Issued>, Status> {
    let proxy = daemon.caller(&request).await?.renewing()?;
    let shown = request.extensions().get::<Peer>().and_then(|peer| peer.certificate.clone());
    let over = shown.as_ref().map(|shown| shown.fingerprint.as_str());
    let pb::RenewRequest { csr, clock_ms } = request.into_inner();
    let now_ms = now_ms();
    let issued = daemon.authority.renew(&proxy.id, &csr, over, now_ms).await.inspect_err(|refusal: &Refusal| {
        tell::tell(format_args!("the certificate of `{}` was not renewed: {refusal}", proxy.id));
    })?;
    daemon.metrics.renewals.inc();
    skew(&issued, clock_ms, now_ms);
    Ok(Response::new(answer(daemon, &issued, now_ms)))
}

fn answer(daemon: &Daemon, issued: &Issued, now_ms: u64) -> pb::Issued {
    let Issued { chain, bundle, proxy, not_before_ms, not_after_ms } = issued.clone();
    pb::Issued {
        chain: chain.into_bytes(),
        bundle: bundle.into_bytes(),
        proxy: proxy.id,
        group: proxy.group,
        identity: proxy.identity,
        not_before_ms,
        not_after_ms,
        daemons: daemon.daemons(),
        clock_ms: now_ms,
    }
}

/// Tells of a clock that differs by more than a minute; 0: the proxy did not say.
fn skew(issued: &Issued, clock_ms: u64, now_ms: u64) {
    let difference_ms = clock_ms.abs_diff(now_ms);
    if clock_ms != 0 && difference_ms > MUCH_SKEW_MS {
        let (id, seconds) = (&issued.proxy.id, difference_ms / 1000);
        let direction = if clock_ms > now_ms { "ahead of" } else { "behind" };
        tell::tell(format_args!(
            "the clock of `{id}` is {seconds} s {direction} this machine's; set one of them right"
        ));
    }
}

/// What a stranger sends is not repeated at length.
fn shortened(name: &str) -> String {
    name.chars().take(60).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_did_not_fit_is_told_with_the_next_report() {
        let (orders, mut heard) = mpsc::channel(1);
        let mut told = Told::default();
        let mut tell = |detail_until_ms, drain, renew: Option<&str>, now_ms| {
            let daemons = vec!["a:1".to_owned()];
            let wanted = Wanted { renew: renew.map(str::to_owned), drain, detail_until_ms, daemons };
            told.tell(wanted, now_ms, &orders);
        };
        tell(0, false, None, 1000);
        // The queue is full.
        tell(60_000, true, Some("old"), 2000);
        let first = heard.try_recv().unwrap().unwrap();
        assert_eq!((first.detail_until_ms, first.drain, first.renew), (0, false, false));
        tell(60_000, true, Some("old"), 3000);
        let second = heard.try_recv().unwrap().unwrap();
        assert_eq!((second.detail_until_ms, second.drain, second.renew), (60_000, true, true));
        tell(60_000, true, Some("old"), 4000);
        assert!(heard.try_recv().is_err(), "once");
        tell(60_000, true, Some("old"), 14_000);
        assert!(heard.try_recv().unwrap().unwrap().renew, "it was told long ago");
    }
}
