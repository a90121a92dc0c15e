//! The results as Markdown.

use std::fmt::Write;

use super::goals;
use super::results::{IdleBytes, Results, Row, Table};
use super::scenario::{Measure, Scenario};
use crate::report::Report;

/// The whole report.
pub(crate) fn markdown(results: &Results) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(out, "Measured {} on {}.", results.date, results.machine);
    let arms: Vec<String> =
        results.arms.iter().map(|(name, version)| format!("{name} {version}").trim().into()).collect();
    let _ = writeln!(out, "{}.", arms.join(", "));
    for (name, why) in &results.missing {
        let _ = writeln!(out, "{name} did not take part: {why}.");
    }
    let _ = writeln!(
        out,
        "Medians of {} rounds of {} s slices, arms taking turns; the proxy alone on one CPU.",
        results.rounds, results.slice_seconds
    );
    for table in &results.scenarios {
        let _ = write!(out, "\n### {}\n\n{}", table.title, rows(table));
        for note in &table.notes {
            let _ = writeln!(out, "\n{note}");
        }
    }
    let goals = goals::all(results);
    if !goals.is_empty() {
        let _ = write!(out, "\n### Goals\n\n{}", goal_rows(&goals));
    }
    out
}

/// One scenario's rows under a heading that fits its measure.
fn rows(table: &Table) -> String {
    let measure = measure(table);
    let mut lines = vec![heading(table, measure)];
    for row in &table.rows {
        let mut cells = vec![row.arm.clone()];
        cells.extend(leading(table, row, measure));
        cells.extend(common(row, measure));
        if let Some(idle) = table.rows.iter().any(|row| row.idle_bytes.is_some()).then_some(row.idle_bytes) {
            cells.extend(idle_cells(idle));
        }
        lines.push(cells);
    }
    align(&lines)
}

fn measure(table: &Table) -> Measure {
    let found = Scenario::ALL.into_iter().find(|scenario| scenario.name() == table.name);
    found.map_or(Measure::Cpu, Scenario::measure)
}

fn heading(table: &Table, measure: Measure) -> Vec<String> {
    let first: &[&str] = match measure {
        Measure::Cpu => &["arm", "CPU us/request", "least", "/ relay", "ringway / it"],
        Measure::Bulk => &["arm", "GB/CPU s", "most", "/ best relay", "ringway / it"],
        Measure::Latency => &["arm", "p99 us", "least", "p50 us", "ringway / it", "CPU us/request"],
        Measure::Memory => &["arm", "RSS MiB", "PSS MiB", "at start MiB", "ringway / it", "CPU us/request"],
    };
    let mut cells: Vec<String> = first.iter().map(ToString::to_string).collect();
    cells.push("requests/s".into());
    if measure != Measure::Latency {
        cells.extend(["p50 us", "p99 us"].map(String::from));
    }
    cells.extend(["busy", "compl./turn", "RSS MiB", "errors"].map(String::from));
    if table.rows.iter().any(|row| row.idle_bytes.is_some()) {
        cells.extend(["RSS KiB/idle", "kernel KiB/idle", "cgroup KiB/idle"].map(String::from));
    }
    cells
}

/// The columns that a scenario is about.
fn leading(table: &Table, row: &Row, measure: Measure) -> Vec<String> {
    let value = goals::value(measure);
    let range = row.range(value);
    let middle = row.middle(value);
    let relay = table.best(|row| row.relay, value, measure == Measure::Bulk);
    let by_relay = number(super::figures::ratio(middle, relay), 2);
    let ours_by = number(table.ours_by(row, value), 2);
    let gb = |bytes: Option<f64>| number(bytes.map(|bytes| bytes / 1e9), 2);
    let mib = |bytes: Option<f64>| number(bytes.map(|bytes| bytes / 1048576.0), 1);
    match measure {
        Measure::Cpu => vec![number(middle, 2), number(range.map(|range| range.0), 2), by_relay, ours_by],
        Measure::Bulk => vec![gb(middle), gb(range.map(|range| range.1)), by_relay, ours_by],
        Measure::Latency => {
            let p50 = number(row.middle(|slice| Some(slice.latency.p50_us)), 0);
            let cpu = number(row.middle(Report::cpu_us), 2);
            vec![number(middle, 0), number(range.map(|range| range.0), 0), p50, ours_by, cpu]
        }
        Measure::Memory => {
            let pss = row.middle(|slice| Some(slice.watched.as_ref()?.after.pss as f64));
            let cpu = number(row.middle(Report::cpu_us), 2);
            vec![mib(middle), mib(pss), mib(Some(row.rss_start as f64)), ours_by, cpu]
        }
    }
}

/// The columns that every table has.
fn common(row: &Row, measure: Measure) -> Vec<String> {
    let mut cells = vec![number(row.middle(|slice| Some(slice.per_second())), 0)];
    if measure != Measure::Latency {
        cells.push(number(row.middle(|slice| Some(slice.latency.p50_us)), 0));
        cells.push(number(row.middle(|slice| Some(slice.latency.p99_us)), 0));
    }
    cells.extend([
        row.middle(Report::busy).map_or("-".into(), |busy| format!("{:.0} %", busy * 100.0)),
        number(row.completions_per_turn(), 1),
        number(row.rss_end().map(|bytes| bytes / 1048576.0), 1),
        row.failures().to_string(),
    ]);
    cells
}

fn idle_cells(idle: Option<IdleBytes>) -> [String; 3] {
    let kib = |bytes: Option<f64>| number(bytes.map(|bytes| bytes / 1024.0), 2);
    let group = idle.and_then(|idle| idle.cgroup);
    let group = group.map_or("not measured".to_string(), |bytes| kib(Some(bytes)));
    [kib(idle.map(|idle| idle.rss)), kib(idle.map(|idle| idle.kernel)), group]
}

fn goal_rows(goals: &[goals::Goal]) -> String {
    let mut lines = vec![["goal", "wanted", "measured", ""].map(String::from).to_vec()];
    for goal in goals {
        let measured = goal.measured.map_or("not measured".into(), |value| format!("{value:.2}"));
        let met = match goal.met() {
            Some(true) => "reached",
            Some(false) => "not reached",
            None => "",
        };
        lines.push(vec![goal.what.clone(), goal.wanted(), measured, met.into()]);
    }
    align(&lines)
}

fn number(value: Option<f64>, digits: usize) -> String {
    value.map_or("-".into(), |value| format!("{value:.digits$}"))
}

/// Lines of cells as a Markdown table, padded so that it reads well as plain text; the first column is text, others are numbers.
fn align(lines: &[Vec<String>]) -> String {
    let columns = lines.first().map_or(0, Vec::len);
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0).max(3);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut out = String::new();
    for (row, line) in lines.iter().enumerate() {
        for (column, cell) in line.iter().enumerate() {
            let width = widths[column];
            let _ = if column == 0 { write!(out, "| {cell:<width$} ") } else { write!(out, "| {cell:>width$} ") };
        }
        out.push_str("|\n");
        if row == 0 {
            for (column, width) in widths.iter().enumerate() {
                let dashes = "-".repeat(width + if column == 0 { 2 } else { 1 });
                let _ = write!(out, "|{dashes}{}", if column == 0 { "" } else { ":" });
            }
            out.push_str("|\n");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::results::tests::table;

    #[test]
    fn a_table_has_medians_and_ratios() {
        let text = rows(&table());
        let line = |name: &str| text.lines().find(|line| line.starts_with(&format!("| {name} "))).unwrap().to_string();
        let cells = |name: &str| line(name).split('|').map(|cell| cell.trim().to_string()).collect::<Vec<_>>();
        assert_eq!(cells("ringway")[1..6], ["ringway", "15.00", "14.00", "1.20", "1.00"]);
        assert_eq!(cells("nginx")[1..6], ["nginx", "30.00", "29.00", "2.40", "0.50"]);
    }

    #[test]
    fn every_line_has_as_many_cells_as_the_heading() {
        for name in ["small", "down", "latency", "long"] {
            let mut table = table();
            table.name = name.into();
            table.rows[0].idle_bytes = Some(IdleBytes { rss: 300.0, kernel: 4096.0, cgroup: None });
            let text = rows(&table);
            let counts: Vec<usize> = text.lines().map(|line| line.matches('|').count()).collect();
            assert!(counts.iter().all(|count| *count == counts[0]), "{text}");
            let lengths: Vec<usize> = text.lines().map(|line| line.chars().count()).collect();
            assert!(lengths.iter().all(|length| *length == lengths[0]), "{text}");
        }
    }

    #[test]
    fn what_did_not_take_part_is_said() {
        let missing = vec![("envoy".to_string(), "not installed".to_string())];
        let text = markdown(&Results { missing, scenarios: vec![table()], ..Results::default() });
        assert!(text.contains("envoy did not take part: not installed."));
        assert!(text.contains("a note"));
        assert!(text.contains("| small: ringway / nginx"));
    }
}
