//! What one core counts while the window is open, and the report drawn from all cores' counts.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::report::{Latency, Report, Secured, Watched};
use crate::stream::{Agreed, Kind};

/// Counts of one window.
#[derive(Debug)]
pub(crate) struct Tally {
    /// Nanoseconds, up to a minute, three digits.
    latency: Histogram<u64>,
    pub(crate) requests: u64,
    pub(crate) late: u64,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    pub(crate) status: BTreeMap<u16, u64>,
    pub(crate) errors: BTreeMap<Kind, u64>,
    suites: BTreeMap<&'static str, u64>,
    full: u64,
    resumed: u64,
    pub(crate) window: Duration,
    pub(crate) watched: Option<Watched>,
}

impl Tally {
    pub(crate) fn new() -> Tally {
        let latency = Histogram::new_with_max(60_000_000_000, 3)
            .unwrap_or_else(|_| unreachable!("3 digits up to 2^36 are allowed"));
        Tally {
            latency,
            requests: 0,
            late: 0,
            bytes_in: 0,
            bytes_out: 0,
            status: BTreeMap::new(),
            errors: BTreeMap::new(),
            suites: BTreeMap::new(),
            full: 0,
            resumed: 0,
            window: Duration::ZERO,
            watched: None,
        }
    }

    /// A complete answer.
    pub(crate) fn answered(&mut self, status: u16, latency_ns: u64) {
        self.requests += 1;
        self.latency.saturating_record(latency_ns.max(1));
        *self.status.entry(status).or_default() += 1;
        match status {
            400..500 => self.failed("status 4xx"),
            500.. => self.failed("status 5xx"),
            _ => {}
        }
    }

    /// The answer came over TLS; `first`: a handshake was made for it.
    pub(crate) fn secured(&mut self, agreed: Agreed, first: bool) {
        *self.suites.entry(agreed.suite).or_default() += 1;
        match (first, agreed.resumed) {
            (false, _) => {}
            (true, false) => self.full += 1,
            (true, true) => self.resumed += 1,
        }
    }

    /// Something that went wrong.
    pub(crate) fn failed(&mut self, kind: impl Into<Kind>) {
        *self.errors.entry(kind.into()).or_default() += 1;
    }

    /// Adds another core's counts; the windows are the same but for a millisecond.
    pub(crate) fn add(&mut self, other: &Tally) {
        // Both have the same bounds.
        let _ = self.latency.add(&other.latency);
        self.requests += other.requests;
        self.late += other.late;
        self.bytes_in += other.bytes_in;
        self.bytes_out += other.bytes_out;
        for (status, count) in &other.status {
            *self.status.entry(*status).or_default() += count;
        }
        for (kind, count) in &other.errors {
            *self.errors.entry(kind.clone()).or_default() += count;
        }
        for (suite, count) in &other.suites {
            *self.suites.entry(suite).or_default() += count;
        }
        self.full += other.full;
        self.resumed += other.resumed;
        self.window = self.window.max(other.window);
        self.watched = self.watched.or(other.watched);
    }

    pub(crate) fn report(&self, target: String, connections: usize, idle: usize, rate: Option<f64>) -> Report {
        let at = |quantile: f64| self.latency.value_at_quantile(quantile) as f64 / 1000.0;
        Report {
            target,
            connections,
            idle,
            rate,
            seconds: self.window.as_secs_f64(),
            requests: self.requests,
            late: self.late,
            bytes_in: self.bytes_in,
            bytes_out: self.bytes_out,
            latency: Latency {
                mean_us: self.latency.mean() / 1000.0,
                p50_us: at(0.5),
                p90_us: at(0.9),
                p99_us: at(0.99),
                p999_us: at(0.999),
                max_us: self.latency.max() as f64 / 1000.0,
            },
            status: self.status.clone(),
            errors: self.errors.iter().map(|(kind, count)| (kind.to_string(), *count)).collect(),
            secured: (!self.suites.is_empty()).then(|| Secured {
                suites: self.suites.iter().map(|(suite, count)| (suite.to_string(), *count)).collect(),
                full: self.full,
                resumed: self.resumed,
            }),
            watched: self.watched,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_and_errors_of_two_cores_together() {
        let (mut a, mut b) = (Tally::new(), Tally::new());
        for us in 1..=50 {
            a.answered(200, us * 1000);
            b.answered(503, (us + 50) * 1000);
        }
        b.failed("reset");
        for (tally, resumed) in [(&mut a, false), (&mut b, true)] {
            tally.secured(Agreed { suite: "one", resumed }, true);
            tally.secured(Agreed { suite: "one", resumed }, false);
        }
        a.window = Duration::from_secs(2);
        a.add(&b);
        let report = a.report("x".into(), 1, 0, None);
        assert_eq!(report.requests, 100);
        assert_eq!(report.seconds, 2.0);
        assert!((report.latency.p50_us - 50.0).abs() < 0.2, "{}", report.latency.p50_us);
        assert!((report.latency.p99_us - 99.0).abs() < 0.2);
        assert_eq!(report.status[&503], 50);
        assert_eq!(report.errors["status 5xx"], 50);
        assert_eq!(report.errors["reset"], 1);
        let secured = report.secured.unwrap();
        assert_eq!((secured.suites["one"], secured.full, secured.resumed), (4, 1, 1));
    }
}
