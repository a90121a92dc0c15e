//! Live traffic: rates, and who talks to whom.

use crate::collect::{Counts, Pair, Rate};
use crate::state::{Daemon, now_ms};
use api::pb;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tonic::Status;

/// Between messages: not below, and when nobody says.
const LEAST: Duration = Duration::from_millis(200);
const USUAL: Duration = Duration::from_secs(2);
/// Rates that a message has at most.
const MOST_RATES: usize = 1000;
/// Edges that an answer has at most.
const MOST_EDGES: usize = 20_000;

/// Counters by identity are wanted for so long after somebody asked.
const DETAIL_MS: u64 = 60_000;
/// Proxies have reported within so long.
const ANSWER: Duration = Duration::from_millis(2500);

/// Rates, once or until nobody listens.
pub(super) async fn top(daemon: Arc<Daemon>, request: pb::TopRequest, sender: mpsc::Sender<Result<pb::Rates, Status>>) {
    let pb::TopRequest { interval_ms, once } = request;
    let interval = if interval_ms == 0 { USUAL } else { Duration::from_millis(interval_ms.into()).max(LEAST) };
    loop {
        let rates = daemon.fleet.telemetry().rates(Instant::now());
        let rates = rates.into_iter().take(MOST_RATES).map(shown).collect();
        if sender.send(Ok(pb::Rates { at_ms: now_ms(), rates })).await.is_err() || once {
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(interval) => {}
            () = sender.closed() => return,
        }
    }
}

fn shown(Rate { key, counts, seconds }: Rate) -> pb::Rate {
    let route = if key.route.is_empty() { key.listener } else { format!("{}/{}", key.listener, key.route) };
    pb::Rate {
        group: key.group,
        route,
        service: key.service,
        requests_per_s: counts.requests() as f64 / seconds,
        success: 1.0 - counts.errors(),
        p50_us: counts.quantile_us(0.5),
        p99_us: counts.quantile_us(0.99),
        denied_per_s: counts.denied as f64 / seconds,
        latency_per_s: counts.latency.iter().map(|count| *count as f64 / seconds).collect(),
    }
}

/// Who talks to whom. Proxies are asked to tell it, and waited for where they were not told lately.
pub(super) async fn edges(daemon: &Daemon) -> pb::EdgesAnswer {
    let is_counted = daemon.fleet.want_detail(now_ms(), DETAIL_MS);
    if !is_counted && daemon.fleet.members().values().any(|member| member.report.is_some()) {
        tokio::time::sleep(ANSWER).await;
    }
    let edge = |(pair, counts): (Pair, Counts)| pb::Edge {
        source: pair.source,
        group: pair.group,
        service: pair.service,
        allowed: counts.requests().saturating_sub(counts.denied),
        denied: counts.denied,
    };
    let pairs = daemon.fleet.telemetry().pairs().into_iter();
    pb::EdgesAnswer { edges: pairs.take(MOST_EDGES).map(edge).collect() }
}
