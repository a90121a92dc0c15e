//! What a core counts. Each counter is written by one core with plain loads and stores and read by anyone.

mod pairs;
mod rules;

pub use pairs::{PAIRS, PairCounts, PairId, PairKey, Pairs};
pub use rules::{RuleCore, RuleCounts, RuleSum};

use crate::ending::{Blame, Ending, LABELS};
use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use wire::tls::Failure;

/// Upper bounds of the latency histogram's buckets, seconds; the last bucket has none.
pub const LATENCY_BOUNDS_S: [f64; 16] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];
const LATENCY_BOUNDS_US: [u64; 16] = [
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000,
    10_000_000, 30_000_000, 60_000_000,
];

/// How many reasons there are for a handshake to fail: the labels of `wire::tls::Failure`.
pub const FAILURES: usize = wire::tls::Failure::ALL.len();

/// A counter with one writer.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Adds; only the owner may.
    #[inline]
    pub fn add(&self, more: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(more), Relaxed);
    }

    /// Takes away, for gauges; only the owner may.
    #[inline]
    pub fn sub(&self, less: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_sub(less), Relaxed);
    }

    /// Reads.
    #[inline]
    pub fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// What one core counts over all routes.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Counters {
    /// Connections accepted.
    pub accepted: Count,
    /// Connections from clients open now.
    pub downstream: Count,
    /// Of those, idle ones (no task, no buffer).
    pub downstream_idle: Count,
    /// Accepts that failed for want of descriptors or memory.
    pub accept_failures: Count,
    /// Connections to endpoints opened.
    pub connects: Count,
    /// Connects that failed.
    pub connect_failures: Count,
    /// Requests sent on a connection that was used before.
    pub reused: Count,
    /// Connections to endpoints open now.
    pub upstream: Count,
    /// Of those, idle ones in the pool.
    pub upstream_idle: Count,
    /// Requests that wait for a connection now.
    pub pending: Count,
    /// Requests under way now.
    pub active: Count,
    /// Bytes received from clients.
    pub downstream_received_bytes: Count,
    /// Bytes sent to clients.
    pub downstream_sent_bytes: Count,
    /// Bytes received from endpoints.
    pub upstream_received_bytes: Count,
    /// Bytes sent to endpoints.
    pub upstream_sent_bytes: Count,
    /// Bytes of bodies that were passed on, either way.
    pub body_bytes: Count,
    /// Of those, bytes that were copied in user space.
    pub body_copied_bytes: Count,
    /// Log records that were dropped because the log had fallen behind.
    pub log_dropped: Count,
    /// The generation of the plan that the core works with.
    pub generation: Count,
    /// TLS handshakes with clients that were completed.
    pub handshakes: Count,
    /// Of those, resumed ones.
    pub handshakes_resumed: Count,
    /// TLS handshakes with clients that failed, by `wire::tls::Failure::index`.
    pub handshake_failures: [Count; FAILURES],
    /// TLS handshakes with endpoints that were completed.
    pub upstream_handshakes: Count,
    /// Of those, resumed ones.
    pub upstream_handshakes_resumed: Count,
    /// TLS handshakes with endpoints that failed, by `wire::tls::Failure::index`.
    pub upstream_handshake_failures: [Count; FAILURES],
    /// Connections that came in plain where TLS is offered too (`clients: migrate`).
    pub plaintext: Count,
    /// Requests by the client's identity and the service.
    pub pairs: PairCounts,
    endings: [Count; LABELS.len()],
}

impl Counters {
    /// Counts a handshake with a client that failed.
    pub(crate) fn handshake_failed(&self, failure: Failure) {
        self.handshake_failures[failure.index()].add(1);
    }

    /// Counts a handshake with an endpoint that failed.
    pub(crate) fn upstream_handshake_failed(&self, failure: Failure) {
        self.upstream_handshake_failures[failure.index()].add(1);
    }

    /// Counts an ending.
    #[inline]
    pub fn ended(&self, ending: Ending) {
        self.endings[ending.index()].add(1);
    }

    /// The endings, with their labels.
    pub fn endings(&self) -> impl Iterator<Item = (&'static str, u64)> {
        LABELS.iter().copied().zip(self.endings.iter().map(Count::value))
    }
}

/// What is counted for one listener, route and service; a part a core.
#[derive(Debug)]
pub struct Series {
    cores: Box<[SeriesCore]>,
}

/// One core's part of a series.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct SeriesCore {
    /// Requests by status class: 1xx to 5xx; the first counts those that ended without a status.
    classes: [Count; 6],
    latency: [Count; LATENCY_BOUNDS_S.len() + 1],
    latency_sum_ns: Count,
    failed: Count,
    /// By ending, those that are somebody's doing; there is none before the first.
    endings: OnceLock<Box<[Count; LABELS.len()]>>,
}

/// All cores' parts of a series, added up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SeriesSum {
    /// Requests that failed at the service or the proxy: answered with 5xx, or cut short by one of them.
    pub failed: u64,
    /// By ending's label, those that are somebody's doing and that there were any of.
    pub endings: BTreeMap<&'static str, u64>,
    /// By status class: `none`, 1xx, 2xx, 3xx, 4xx, 5xx.
    pub classes: [u64; 6],
    /// Requests by latency, each bucket for itself (not cumulative).
    pub latency: [u64; LATENCY_BOUNDS_S.len() + 1],
    /// Sum of latencies, nanoseconds.
    pub latency_sum_ns: u64,
}

impl Series {
    /// A series for this many cores.
    pub fn new(cores: usize) -> Series {
        Series { cores: (0..cores).map(|_| SeriesCore::default()).collect() }
    }

    /// The part of one core.
    #[inline]
    pub fn core(&self, core: usize) -> &SeriesCore {
        &self.cores[core]
    }

    /// Adds all cores up.
    pub fn sum(&self) -> SeriesSum {
        let mut sum = SeriesSum::default();
        for core in &self.cores {
            for (to, from) in sum.classes.iter_mut().zip(&core.classes) {
                *to += from.value();
            }
            for (to, from) in sum.latency.iter_mut().zip(&core.latency) {
                *to += from.value();
            }
            sum.latency_sum_ns += core.latency_sum_ns.value();
            sum.failed += core.failed.value();
            let endings = LABELS.iter().zip(core.endings.get().into_iter().flat_map(|endings| endings.iter()));
            for (label, count) in endings.map(|(label, count)| (*label, count.value())).filter(|(_, count)| *count > 0)
            {
                *sum.endings.entry(label).or_default() += count;
            }
        }
        sum
    }
}

impl SeriesCore {
    /// Counts one request: how it ended, its status (0 for none) and how long it took, from the head's first byte to the
    /// answer's last. Of a tunnel that began as one (101) the time is not counted: how long it lives says nothing of its service.
    #[inline]
    pub fn record(&self, ending: Ending, status: u16, latency_ns: u64) {
        let class = usize::from(status / 100).min(5);
        self.classes[class].add(1);
        let blame = ending.blame();
        if class == 5 || matches!(blame, Blame::Upstream | Blame::Proxy) {
            self.failed.add(1);
        }
        if blame != Blame::Nobody {
            self.endings.get_or_init(Box::default)[ending.index()].add(1);
        }
        if status == 101 {
            return;
        }
        let us = latency_ns / 1_000;
        let bucket = LATENCY_BOUNDS_US.iter().position(|bound| us <= *bound).unwrap_or(LATENCY_BOUNDS_US.len());
        self.latency[bucket].add(1);
        self.latency_sum_ns.add(latency_ns);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_adds_its_cores_up() {
        let series = Series::new(2);
        series.core(0).record(Ending::Complete, 200, 400_000);
        series.core(1).record(Ending::Overloaded, 503, 700_000_000_000);
        series.core(1).record(Ending::ClientGone, 0, 1_000_000);
        series.core(0).record(Ending::Complete, 500, 1_000_000);
        series.core(0).record(Ending::UpstreamTruncated, 200, 1_000_000);
        series.core(0).record(Ending::Overloaded, 503, 1_000_000);
        // A tunnel of an hour.
        series.core(0).record(Ending::Complete, 101, 3_600_000_000_000);
        let sum = series.sum();
        assert_eq!(sum.classes, [1, 1, 2, 0, 0, 3]);
        assert_eq!((sum.latency[0], sum.latency[1], sum.latency[16]), (1, 4, 1));
        assert_eq!(sum.latency_sum_ns, 700_004_400_000);
        assert_eq!(sum.failed, 4, "what the service says of itself, too; not a client that goes away");
        let endings = [("client_gone", 1), ("overloaded", 2), ("upstream_truncated", 1)];
        assert_eq!(sum.endings, BTreeMap::from(endings));
    }

    #[test]
    fn bounds_say_the_same_in_both_units() {
        for (s, us) in LATENCY_BOUNDS_S.iter().zip(LATENCY_BOUNDS_US) {
            assert_eq!((s * 1e6).round() as u64, us);
        }
    }
}
