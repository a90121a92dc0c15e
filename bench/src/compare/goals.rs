//! The figures that Ringway wants to reach, held against what was measured. They inform; they never fail a run.

use super::figures::ratio;
use super::results::{Results, Row, Table};
use super::scenario::Measure;
use crate::report::Report;

/// One figure.
pub(crate) struct Goal {
    pub(crate) what: String,
    pub(crate) limit: f64,
    /// The limit is a least value, not a greatest.
    pub(crate) least: bool,
    pub(crate) measured: Option<f64>,
}

impl Goal {
    pub(crate) fn met(&self) -> Option<bool> {
        self.measured.map(|value| if self.least { value >= self.limit } else { value <= self.limit })
    }

    pub(crate) fn wanted(&self) -> String {
        format!("{} {}", if self.least { "at least" } else { "at most" }, self.limit)
    }
}

/// The value that a measure compares, from one slice.
pub(crate) fn value(measure: Measure) -> fn(&Report) -> Option<f64> {
    match measure {
        Measure::Cpu => Report::cpu_us,
        Measure::Bulk => Report::bytes_per_cpu_second,
        Measure::Latency => |slice| Some(slice.latency.p99_us),
        Measure::Memory => |slice| Some(slice.watched.as_ref()?.after.rss as f64),
    }
}

/// All goals whose scenarios were run.
pub(crate) fn all(results: &Results) -> Vec<Goal> {
    let mut goals = Vec::new();
    for name in ["small", "rate"] {
        if let Some(table) = results.table(name) {
            for (arm, limit) in [("relay", 1.15), ("nginx", 0.60), ("haproxy", 0.60), ("envoy", 0.20)] {
                let measured = table.row(arm).and_then(|row| table.ours_by(row, Report::cpu_us));
                goals.push(at_most(format!("{name}: ringway / {arm}, CPU"), limit, measured));
            }
        }
    }
    if let Some(table) = results.table("new") {
        let proxies = |row: &Row| matches!(row.arm.as_str(), "nginx" | "haproxy");
        let best = table.best(proxies, Report::cpu_us, false);
        let ours = table.row("ringway").and_then(|row| row.middle(Report::cpu_us));
        let relay = table.row("relay").and_then(|row| table.ours_by(row, Report::cpu_us));
        goals.push(at_most("new: ringway / best of nginx and haproxy, CPU".into(), 0.7, ratio(ours, best)));
        goals.push(at_most("new: ringway / relay that connects, CPU".into(), 1.2, relay));
    }
    for name in ["down", "up"] {
        if let Some(table) = results.table(name) {
            goals.extend(bulk(name, table));
        }
    }
    if let Some(table) = results.table("idle") {
        goals.extend(idle(results, table));
    }
    if let Some(table) = results.table("latency") {
        let p99 = value(Measure::Latency);
        let best = table.best(|row| row.peer, p99, false);
        let ours = table.row("ringway").and_then(|row| row.middle(p99));
        goals.push(at_most("latency: p99, ringway / best peer".into(), 1.0, ratio(ours, best)));
    }
    goals.extend(tls(results));
    if let Some(table) = results.table("long") {
        let rss = table.row("ringway").and_then(Row::rss_end).map(|bytes| bytes / 1e6);
        goals.push(at_most("long: RSS of ringway, MB".into(), 15.0, rss));
    }
    goals
}

fn bulk(name: &str, table: &Table) -> [Goal; 2] {
    let value = value(Measure::Bulk);
    let ours = table.row("ringway").and_then(|row| row.middle(value));
    let against = |which: fn(&Row) -> bool| ratio(ours, table.best(which, value, true));
    let relay = format!("{name}: ringway / best relay, bytes per CPU second");
    let peer = format!("{name}: ringway / best peer, bytes per CPU second");
    [at_least(relay, 0.9, against(|row| row.relay)), at_least(peer, 1.2, against(|row| row.peer))]
}

fn idle(results: &Results, table: &Table) -> [Goal; 2] {
    let ours = table.row("ringway");
    let cpu = ours.and_then(|row| row.middle(Report::cpu_us));
    let alone = results.table("small").and_then(|table| table.row("ringway")?.middle(Report::cpu_us));
    let kib = ours.and_then(|row| row.idle_bytes).map(|idle| idle.rss / 1024.0);
    [
        at_most("idle: ringway with idle connections / without, CPU".into(), 1.2, ratio(cpu, alone)),
        at_most("idle: RSS of ringway for each idle connection, KiB".into(), 0.5, kib),
    ]
}

fn tls(results: &Results) -> Vec<Goal> {
    let mut goals = Vec::new();
    for (name, limit) in [("tls-small", 0.65), ("tls-new", 0.55), ("mtls", 0.65)] {
        if let Some(table) = results.table(name) {
            let ours = table.row("ringway").and_then(|row| row.middle(Report::cpu_us));
            let best = table.best(|row| row.peer, Report::cpu_us, false);
            goals.push(at_most(format!("{name}: ringway / best peer, CPU"), limit, ratio(ours, best)));
        }
    }
    if let Some(table) = results.table("tls-down") {
        let [_, against_peers] = bulk("tls-down", table);
        goals.push(against_peers);
    }
    if let Some(table) = results.table("tls-idle") {
        let kib = table.row("ringway").and_then(|row| row.idle_bytes).map(|idle| idle.rss / 1024.0);
        goals.push(at_most("tls-idle: RSS of ringway for each idle connection, KiB".into(), 4.0, kib));
    }
    goals
}

fn at_most(what: String, limit: f64, measured: Option<f64>) -> Goal {
    Goal { what, limit, least: false, measured }
}

fn at_least(what: String, limit: f64, measured: Option<f64>) -> Goal {
    Goal { what, limit, least: true, measured }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::results::IdleBytes;
    use crate::compare::results::tests::table;

    fn find(goals: &[Goal], what: &str) -> (Option<f64>, Option<bool>) {
        let goal = goals.iter().find(|goal| goal.what.starts_with(what)).unwrap();
        (goal.measured, goal.met())
    }

    #[test]
    fn limits_from_above_and_below() {
        let small = Results { scenarios: vec![table()], ..Results::default() };
        let goals = all(&small);
        assert_eq!(find(&goals, "small: ringway / nginx"), (Some(0.5), Some(true)));
        assert_eq!(find(&goals, "small: ringway / relay"), (Some(1.2), Some(false)));
        assert_eq!(find(&goals, "small: ringway / haproxy"), (None, None));
    }

    #[test]
    fn tls_is_held_against_the_best_peer() {
        let named = |name: &str| Table { name: name.into(), ..table() };
        let mut idle = named("tls-idle");
        idle.rows[0].idle_bytes = Some(IdleBytes { rss: 3072.0, ..IdleBytes::default() });
        let names = ["tls-small", "tls-new", "mtls", "tls-down"];
        let scenarios = names.into_iter().map(named).chain([idle]).collect();
        let goals = all(&Results { scenarios, ..Results::default() });
        for name in ["tls-small", "tls-new", "mtls"] {
            assert_eq!(find(&goals, &format!("{name}: ringway / best peer")), (Some(0.5), Some(true)));
        }
        let (measured, met) = find(&goals, "tls-down: ringway / best peer");
        assert!((measured.unwrap() - 2.0).abs() < 1e-9 && met == Some(true));
        assert_eq!(find(&goals, "tls-idle: RSS"), (Some(3.0), Some(true)));
        assert_eq!(goals.len(), 5);
    }

    #[test]
    fn bulk_wants_more_not_less() {
        let mut down = table();
        down.name = "down".into();
        let goals = all(&Results { scenarios: vec![down], ..Results::default() });
        let (measured, met) = find(&goals, "down: ringway / best peer");
        assert!((measured.unwrap() - 2.0).abs() < 1e-9);
        assert_eq!(met, Some(true));
        assert_eq!(find(&goals, "down: ringway / best relay").1, Some(false));
    }
}
