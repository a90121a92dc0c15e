//! What a comparison found: rows of slices, and the figures drawn from them. This is also the shape of `--json`.

use serde::{Deserialize, Serialize};

use super::figures::{extremes, median, ratio};
use crate::report::Report;

/// Everything that one comparison found.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Results {
    pub(crate) date: String,
    pub(crate) machine: String,
    /// (name, version) of the arms that ran.
    pub(crate) arms: Vec<(String, String)>,
    /// (name, why) of those that did not.
    pub(crate) missing: Vec<(String, String)>,
    pub(crate) rounds: usize,
    pub(crate) slice_seconds: f64,
    pub(crate) scenarios: Vec<Table>,
}

/// One scenario's rows.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Table {
    pub(crate) name: String,
    pub(crate) title: String,
    pub(crate) rows: Vec<Row>,
    /// What a reader must know: arms left out and why.
    pub(crate) notes: Vec<String>,
}

/// One arm's slices in one scenario.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) arm: String,
    pub(crate) peer: bool,
    pub(crate) relay: bool,
    pub(crate) slices: Vec<Report>,
    /// Completions a turn of the ring, one value a slice, where the arm tells.
    pub(crate) per_turn: Vec<f64>,
    /// Before any load.
    pub(crate) rss_start: u64,
    /// Memory that each idle connection added, in bytes, from the first slice after the warm-up.
    pub(crate) idle_bytes: Option<IdleBytes>,
}

/// What an idle connection holds, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct IdleBytes {
    /// Resident memory of the proxy.
    pub(crate) rss: f64,
    /// The machine's slab and page tables: the proxy's socket and the client's; the same client for every arm.
    pub(crate) kernel: f64,
    /// The proxy's control group, where it has one.
    pub(crate) cgroup: Option<f64>,
}

impl Row {
    /// The values of every slice for which `value` has one.
    pub(crate) fn each(&self, value: impl Fn(&Report) -> Option<f64>) -> Vec<f64> {
        self.slices.iter().filter_map(value).collect()
    }

    pub(crate) fn middle(&self, value: impl Fn(&Report) -> Option<f64>) -> Option<f64> {
        median(&self.each(value))
    }

    pub(crate) fn range(&self, value: impl Fn(&Report) -> Option<f64>) -> Option<(f64, f64)> {
        extremes(&self.each(value))
    }

    pub(crate) fn completions_per_turn(&self) -> Option<f64> {
        median(&self.per_turn)
    }

    /// Resident bytes at the end of the last slice.
    pub(crate) fn rss_end(&self) -> Option<f64> {
        Some(self.slices.last()?.watched.as_ref()?.after.rss as f64)
    }

    /// Everything that went wrong in all slices.
    pub(crate) fn failures(&self) -> u64 {
        self.slices.iter().map(Report::failures).sum()
    }
}

impl Table {
    pub(crate) fn row(&self, arm: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.arm == arm)
    }

    /// The best of the rows that `which` admits, by the median of `value`.
    pub(crate) fn best(
        &self,
        which: impl Fn(&Row) -> bool,
        value: impl Fn(&Report) -> Option<f64> + Copy,
        higher: bool,
    ) -> Option<f64> {
        let values = self.rows.iter().filter(|row| which(row)).filter_map(|row| row.middle(value));
        values.reduce(|a, b| if higher { a.max(b) } else { a.min(b) })
    }

    /// Ours divided by the arm's, medians.
    pub(crate) fn ours_by(&self, row: &Row, value: impl Fn(&Report) -> Option<f64> + Copy) -> Option<f64> {
        ratio(self.row("ringway")?.middle(value), row.middle(value))
    }
}

impl Results {
    pub(crate) fn table(&self, name: &str) -> Option<&Table> {
        self.scenarios.iter().find(|table| table.name == name)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::report::Watched;

    /// A row whose slices cost these CPU microseconds a request.
    pub(crate) fn row(arm: &str, cpu_us: &[f64]) -> Row {
        let slice = |us: &f64| Report {
            requests: 1000,
            seconds: 1.0,
            bytes_in: 64_000,
            latency: crate::report::Latency { p50_us: us * 2.0, p99_us: us * 9.0, ..Default::default() },
            watched: Some(Watched { cpu_ns: (us * 1e6) as u64, ..Watched::default() }),
            ..Report::default()
        };
        let peer = matches!(arm, "nginx" | "haproxy" | "envoy");
        let slices = cpu_us.iter().map(slice).collect();
        Row {
            arm: arm.into(),
            peer,
            relay: arm.starts_with("relay"),
            slices,
            per_turn: vec![3.0, 5.0, 4.0],
            ..Row::default()
        }
    }

    pub(crate) fn table() -> Table {
        let rows = vec![
            row("ringway", &[14.0, 16.0, 15.0]),
            row("relay", &[12.0, 12.5, 13.0]),
            row("nginx", &[30.0, 29.0, 31.0]),
            row("envoy", &[90.0, 80.0, 85.0]),
        ];
        Table { name: "small".into(), title: "Small <keep-alive>".into(), rows, notes: vec!["a note".into()] }
    }

    #[test]
    fn medians_ranges_and_ratios() {
        let table = table();
        let ours = table.row("ringway").unwrap();
        assert_eq!(ours.middle(Report::cpu_us), Some(15.0));
        assert_eq!(ours.range(Report::cpu_us), Some((14.0, 16.0)));
        assert_eq!(table.ours_by(table.row("nginx").unwrap(), Report::cpu_us), Some(0.5));
        assert_eq!(ours.completions_per_turn(), Some(4.0));
    }

    #[test]
    fn the_best_peer_is_the_cheapest_one() {
        let table = table();
        assert_eq!(table.best(|row| row.peer, Report::cpu_us, false), Some(30.0));
        assert_eq!(table.best(|row| row.peer, |slice| Some(slice.per_second()), true), Some(1000.0));
        assert_eq!(table.best(|row| row.arm == "none", Report::cpu_us, false), None);
    }
}
