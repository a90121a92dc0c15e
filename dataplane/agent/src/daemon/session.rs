//! What the proxy reports to its daemon, and what the daemon wants of it (`Agent/Session`).

use super::connect::status_text;
use super::joined;
use super::link::{News, Start, answered};
use super::report::{self, Reported};
use super::standing::{Told, now_ms};
use crate::errand::Errand;
use crate::host;
use crate::tell::tell;
use api::features::FEATURES;
use api::pb;
use api::pb::agent_client::AgentClient;
use std::convert::Infallible;
use std::time::{Duration, UNIX_EPOCH};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;
use tonic::transport::Channel;

/// Between reports, until the daemon says otherwise.
const INTERVAL: Duration = Duration::from_secs(5);
/// What the daemon may say, milliseconds.
const INTERVALS_MS: std::ops::RangeInclusive<u32> = 100..=600_000;
/// For how long detail may be asked for at once.
const LONGEST_LEASE: Duration = Duration::from_secs(3600);
/// Changes within this time are one report.
const GATHER: Duration = Duration::from_millis(20);

/// Reports until the stream breaks; without one, where the daemon knows of no reports.
///
/// # Errors
/// Why it broke.
pub(super) async fn talk(
    start: &Start,
    news: &mpsc::Sender<News>,
    reported: &mut Reported,
    channel: Channel,
) -> Result<Infallible, String> {
    let (reports, queue) = mpsc::channel(4);
    let mut told = start.standing.told();
    let mut first = full(start, &told.borrow_and_update().clone(), reported, false);
    first.hello = Some(hello(start));
    let mut untold = start.standing.take_absences();
    first.absences = untold.list().to_vec();
    let _ = reports.try_send(first);
    let mut orders = match answered(AgentClient::new(channel).session(ReceiverStream::new(queue))).await {
        Ok(orders) => orders,
        Err(status) if status.code() == Code::Unimplemented => return std::future::pending().await,
        Err(status) => return Err(status_text(&status)),
    };
    let mut interval = INTERVAL;
    let (mut next, mut detail_until) = (Instant::now() + interval, Instant::now());
    let (mut keeping, mut to_keep) = (Errand::default(), None::<Vec<String>>);
    loop {
        if let Some(daemons) = to_keep.take_if(|_| !keeping.is_under_way()) {
            let folder = start.folder.clone();
            keeping.begin(move || joined::keep_daemons(&folder, &daemons));
        }
        tokio::select! {
            order = orders.message() => {
                let mut order = order.map_err(|status| status_text(&status))?.ok_or("the session was closed")?;
                start.standing.heard();
                // The first one answers the first report.
                untold.are_told();
                if INTERVALS_MS.contains(&order.interval_ms) {
                    interval = Duration::from_millis(order.interval_ms.into());
                    next = next.min(Instant::now() + interval);
                }
                // By the daemon's own clock, which may be another.
                let lease = Duration::from_millis(order.detail_until_ms.saturating_sub(order.clock_ms));
                detail_until = detail_until.max(Instant::now() + lease.min(LONGEST_LEASE));
                let daemons = joined::places(std::mem::take(&mut order.daemons));
                if start.use_daemons(&daemons) {
                    to_keep = Some(daemons);
                }
                obey(start, news, &order).await;
            }
            kept = keeping.done() => {
                if let Err(reason) = kept {
                    tell(reason);
                }
            }
            () = sleep_until(next) => {
                let detail = Instant::now() < detail_until;
                let report = full(start, &told.borrow_and_update().clone(), reported, detail);
                next = Instant::now() + interval;
                // Who does not take reports gets the next one: they are cumulative.
                let _ = reports.try_send(report);
            }
            changed = told.changed() => {
                changed.map_err(|_| "the process ends")?;
                tokio::time::sleep(GATHER).await;
                let report = news_of(start, &told.borrow_and_update().clone());
                reports.send(report).await.map_err(|_| "the session was closed")?;
            }
        }
    }
}

async fn obey(start: &Start, news: &mpsc::Sender<News>, order: &pb::Order) {
    if order.renew {
        start.standing.renew.notify_one();
    }
    if order.drain {
        let _ = news.send(News::Drain).await;
    }
}

fn hello(start: &Start) -> pb::Hello {
    let started = start.state.started.0.duration_since(UNIX_EPOCH).unwrap_or_default();
    pb::Hello {
        epoch: start.standing.epoch,
        version: crate::VERSION.to_owned(),
        host: host::name(),
        started_ms: started.as_millis() as u64,
        features: FEATURES.iter().map(ToString::to_string).collect(),
    }
}

/// All there is to report.
fn full(start: &Start, told: &Told, reported: &mut Reported, detail: bool) -> pb::Report {
    let mut report = news_of(start, told);
    report.counters = Some(reported.counters(&start.state, detail));
    report
}

/// What has changed: all but what is counted.
fn news_of(start: &Start, told: &Told) -> pb::Report {
    let draining = told.draining;
    pb::Report {
        applied: told.applied.clone(),
        certificates: report::certificates(&start.state, start.joined().as_ref(), told),
        listeners: report::listeners(&start.state, told.ready && !draining),
        rejected: told.rejected.clone(),
        ignored: told.ignored.clone(),
        ready: told.ready && !draining,
        draining,
        clock_ms: now_ms(),
        ..pb::Report::default()
    }
}
