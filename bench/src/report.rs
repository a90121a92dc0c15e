//! What a run of load found out: the figures, and how they are printed.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::{Deserialize, Serialize};

use crate::proc::Memory;

/// The figures of one run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Report {
    /// What was asked.
    pub(crate) target: String,
    /// Connections that send requests.
    pub(crate) connections: usize,
    /// Connections that were opened, used once and left idle.
    pub(crate) idle: usize,
    /// Requests a second that were intended (open loop), or none (closed loop).
    pub(crate) rate: Option<f64>,
    /// Length of the measured window, after the warm-up.
    pub(crate) seconds: f64,
    /// Complete answers inside the window, whatever their status.
    pub(crate) requests: u64,
    /// Requests that had not been answered when the window ended although their intended start was more than a second ago.
    pub(crate) late: u64,
    /// Body bytes received.
    pub(crate) bytes_in: u64,
    /// Body bytes sent.
    pub(crate) bytes_out: u64,
    /// From the (intended) start of a request to the end of its answer.
    pub(crate) latency: Latency,
    /// Answers by status.
    pub(crate) status: BTreeMap<u16, u64>,
    /// Everything that went wrong, by kind; the answers with 4xx and 5xx among them.
    pub(crate) errors: BTreeMap<String, u64>,
    /// What TLS was spoken, where there was any.
    pub(crate) secured: Option<Secured>,
    /// What the watched processes used meanwhile.
    pub(crate) watched: Option<Watched>,
}

/// The answers that came over TLS.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Secured {
    /// How many came under each cipher suite.
    pub(crate) suites: BTreeMap<String, u64>,
    /// Full handshakes that were made for them inside the window.
    pub(crate) full: u64,
    /// Handshakes that resumed a session.
    pub(crate) resumed: u64,
}

/// Percentiles in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub(crate) struct Latency {
    pub(crate) mean_us: f64,
    pub p50_us: f64,
    pub p90_us: f64,
    pub p99_us: f64,
    pub p999_us: f64,
    pub(crate) max_us: f64,
}

/// What the processes named by `--watch` used inside the window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Watched {
    /// CPU time from the scheduler, all threads, in nanoseconds.
    pub(crate) cpu_ns: u64,
    /// The same from `/proc/PID/stat`, whose steps are 10 ms.
    pub(crate) ticks_ns: u64,
    /// Before the first connection.
    pub(crate) before: Memory,
    /// With the idle connections open and quiet, before the busy ones begin.
    pub(crate) idle: Memory,
    /// At the window's end, connections open.
    pub(crate) after: Memory,
}

impl Report {
    /// Answers a second.
    pub(crate) fn per_second(&self) -> f64 {
        self.requests as f64 / self.seconds.max(1e-9)
    }

    /// CPU microseconds of the watched processes for each answer.
    pub(crate) fn cpu_us(&self) -> Option<f64> {
        let watched = self.watched.as_ref()?;
        (self.requests > 0).then(|| watched.cpu_ns as f64 / 1000.0 / self.requests as f64)
    }

    /// Share of one CPU that the watched processes used: 1.0 means that a process of one thread was the limit.
    pub(crate) fn busy(&self) -> Option<f64> {
        Some(self.watched.as_ref()?.cpu_ns as f64 / 1e9 / self.seconds.max(1e-9))
    }

    /// Body bytes, both ways, for each CPU second of the watched processes.
    pub(crate) fn bytes_per_cpu_second(&self) -> Option<f64> {
        let cpu = self.watched.as_ref()?.cpu_ns as f64 / 1e9;
        (cpu > 0.0).then(|| (self.bytes_in + self.bytes_out) as f64 / cpu)
    }

    /// How many things went wrong.
    pub(crate) fn failures(&self) -> u64 {
        self.errors.values().sum()
    }

    /// The report as lines for a person.
    pub(crate) fn text(&self) -> String {
        let mut out = String::new();
        let l = &self.latency;
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{} requests in {:.2} s: {:.0} a second", self.requests, self.seconds, self.per_second());
        if let Some(rate) = self.rate {
            let _ = writeln!(out, "intended  {rate:.0} a second; {} late by more than a second at the end", self.late);
        }
        let _ = writeln!(
            out,
            "latency   mean {}  p50 {}  p90 {}  p99 {}  p99.9 {}  max {}",
            span(l.mean_us),
            span(l.p50_us),
            span(l.p90_us),
            span(l.p99_us),
            span(l.p999_us),
            span(l.max_us)
        );
        let _ = writeln!(out, "bodies    {} in, {} out", bytes(self.bytes_in), bytes(self.bytes_out));
        for (status, count) in &self.status {
            let _ = writeln!(out, "status    {status}: {count}");
        }
        if let Some(secured) = &self.secured {
            let Secured { suites, full, resumed } = secured;
            for (suite, count) in suites {
                let _ = writeln!(out, "suite     {suite}: {count}");
            }
            let _ = writeln!(out, "handshakes {full} full, {resumed} resumed");
        }
        for (kind, count) in &self.errors {
            let _ = writeln!(out, "error     {kind}: {count}");
        }
        if let (Some(watched), Some(cpu), Some(busy)) = (&self.watched, self.cpu_us(), self.busy()) {
            let _ = writeln!(
                out,
                "watched   {cpu:.2} us of CPU a request, {:.0} % of one CPU, RSS {}",
                busy * 100.0,
                bytes(watched.after.rss)
            );
        }
        out
    }
}

/// Microseconds with a unit that fits.
pub(crate) fn span(us: f64) -> String {
    match us {
        us if us < 1000.0 => format!("{us:.0} us"),
        us if us < 1e6 => format!("{:.2} ms", us / 1e3),
        us => format!("{:.2} s", us / 1e6),
    }
}

/// Bytes with a binary unit that fits.
pub(crate) fn bytes(count: u64) -> String {
    let count = count as f64;
    match count {
        count if count < 1024.0 => format!("{count:.0} B"),
        count if count < 1024.0 * 1024.0 => format!("{:.1} KiB", count / 1024.0),
        count if count < 1024.0 * 1024.0 * 1024.0 => format!("{:.1} MiB", count / 1024.0 / 1024.0),
        count => format!("{:.2} GiB", count / 1024.0 / 1024.0 / 1024.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        Report {
            requests: 1000,
            seconds: 0.5,
            bytes_in: 3_000_000,
            watched: Some(Watched { cpu_ns: 20_000_000, ..Watched::default() }),
            errors: [("reset".to_string(), 2), ("status 5xx".to_string(), 3)].into(),
            ..Report::default()
        }
    }

    #[test]
    fn figures_for_each_request_and_second() {
        let report = report();
        assert_eq!(report.per_second(), 2000.0);
        assert_eq!(report.cpu_us(), Some(20.0));
        assert_eq!(report.busy(), Some(0.04));
        assert_eq!(report.bytes_per_cpu_second(), Some(150e6));
        assert_eq!(report.failures(), 5);
    }

    #[test]
    fn nothing_answered_has_no_cost() {
        let report = Report { requests: 0, ..report() };
        assert_eq!(report.cpu_us(), None);
        assert_eq!(Report::default().busy(), None);
    }

    #[test]
    fn a_report_survives_json() {
        let report = report();
        let text = serde_json::to_string(&report).unwrap();
        assert_eq!(serde_json::from_str::<Report>(&text).unwrap(), report);
    }

    #[test]
    fn units_fit() {
        assert_eq!([span(12.3), span(1500.0), span(2e6)], ["12 us", "1.50 ms", "2.00 s"]);
        assert_eq!([bytes(5), bytes(2048), bytes(3 << 20), bytes(5 << 30)], ["5 B", "2.0 KiB", "3.0 MiB", "5.00 GiB"]);
    }
}
