//! The results as one SVG picture: a panel a scenario, a bar an arm, a fine line from the least to the greatest slice.

use std::fmt::Write;

use super::goals;
use super::results::{Results, Row, Table};
use super::scenario::{Measure, Scenario};

const WIDTH: f64 = 760.0;
const LEFT: f64 = 108.0;
const RIGHT: f64 = 96.0;
const BAR: f64 = 16.0;
const STEP: f64 = 23.0;
const HEAD: f64 = 46.0;

/// The picture.
pub(crate) fn svg(results: &Results) -> String {
    let mut body = String::new();
    let mut y = 16.0;
    for table in results.scenarios.iter().filter(|table| !table.rows.is_empty()) {
        y = panel(&mut body, table, y) + 18.0;
    }
    // Writing to a String cannot fail.
    for line in footer(results) {
        let _ = writeln!(body, r##"<text x="24" y="{:.0}" class="unit">{}</text>"##, y + 6.0, escape(&line));
        y += 15.0;
    }
    let height = y + 9.0;
    format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0}" width="{WIDTH}" height="{height:.0}" role="img">
<style>
text {{ font: 12px system-ui, "Segoe UI", Helvetica, Arial, sans-serif; fill: #343a40 }}
.title {{ font-size: 14px; font-weight: 600; fill: #212529 }}
.unit {{ font-size: 11px; fill: #868e96 }}
.ours {{ font-weight: 600; fill: #0b7285 }}
</style>
<rect width="100%" height="100%" fill="#ffffff"/>
{body}</svg>
"##
    )
}

fn footer(results: &Results) -> [String; 2] {
    let what = format!("Medians of {} slices each; fine lines from the least to the greatest slice.", results.rounds);
    [what, format!("{}, {}", results.date, results.machine)]
}

/// Draws one scenario from `top` and returns where it ends.
fn panel(out: &mut String, table: &Table, top: f64) -> f64 {
    let scenario = Scenario::ALL.into_iter().find(|scenario| scenario.name() == table.name);
    let measure = scenario.map_or(Measure::Cpu, Scenario::measure);
    let (unit, scale) = match measure {
        Measure::Cpu => ("CPU microseconds a request, shorter is better", 1.0),
        Measure::Bulk => ("GB of bodies a CPU second, longer is better", 1e-9),
        Measure::Latency => ("p99 in microseconds, shorter is better", 1.0),
        Measure::Memory => ("resident MiB, shorter is better", 1.0 / 1048576.0),
    };
    let value = |row: &Row| row.middle(goals::value(measure)).map(|value| value * scale);
    let range = |row: &Row| row.range(goals::value(measure)).map(|(low, high)| (low * scale, high * scale));
    let greatest = table.rows.iter().filter_map(range).map(|(_, high)| high);
    let most = greatest.fold(1e-12_f64, f64::max);
    let _ = writeln!(out, r##"<text x="24" y="{:.0}" class="title">{}</text>"##, top + 14.0, escape(&table.title));
    let _ = writeln!(out, r##"<text x="24" y="{:.0}" class="unit">{unit}</text>"##, top + 31.0);
    let mut y = top + HEAD;
    for row in &table.rows {
        bar(out, row, y, value(row).unwrap_or(0.0), range(row), most);
        y += STEP;
    }
    y
}

fn bar(out: &mut String, row: &Row, y: f64, value: f64, range: Option<(f64, f64)>, most: f64) {
    let room = WIDTH - LEFT - RIGHT;
    let x = |value: f64| LEFT + room * (value / most).clamp(0.0, 1.0);
    let (middle, text) = (y + BAR / 2.0, y + BAR / 2.0 + 4.0);
    let ours = row.arm == "ringway";
    let class = if ours { r#" class="ours""# } else { "" };
    let colour = match row {
        _ if ours => "#1098ad",
        row if row.relay => "#adb5bd",
        row if row.peer => "#91a7ff",
        _ => "#ffd8a8",
    };
    let name = escape(&row.arm);
    let _ = writeln!(out, r##"<text x="{:.0}" y="{text:.1}" text-anchor="end"{class}>{name}</text>"##, LEFT - 8.0);
    let width = (x(value) - LEFT).max(0.5);
    let _ =
        writeln!(out, r##"<rect x="{LEFT}" y="{y:.1}" width="{width:.1}" height="{BAR}" rx="2" fill="{colour}"/>"##);
    let mut end = x(value);
    if let Some((low, high)) = range {
        end = end.max(x(high));
        let (low, high) = (x(low), x(high));
        let _ = writeln!(out, r##"<path d="M{low:.1} {middle:.1}H{high:.1}" stroke="#495057" stroke-width="1"/>"##);
    }
    let _ = writeln!(out, r##"<text x="{:.1}" y="{text:.1}"{class}>{}</text>"##, end + 7.0, figure(value));
}

/// A value with about three digits.
fn figure(value: f64) -> String {
    match value {
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value => format!("{value:.2}"),
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::results::tests::table;

    fn widths(svg: &str) -> Vec<f64> {
        let bars = svg.lines().filter(|line| line.contains("rx=\"2\""));
        bars.map(|line| line.split("width=\"").nth(1).unwrap().split('"').next().unwrap().parse().unwrap()).collect()
    }

    #[test]
    fn bars_are_as_long_as_their_medians_beside_the_greatest_slice() {
        let svg = svg(&Results { scenarios: vec![table()], ..Results::default() });
        let widths = widths(&svg);
        assert_eq!(widths.len(), 4);
        let room = WIDTH - LEFT - RIGHT;
        for (width, value) in widths.iter().zip([15.0, 12.5, 30.0, 85.0]) {
            assert!((width - room * value / 90.0).abs() < 0.1, "{width} for {value}");
        }
    }

    #[test]
    fn titles_are_escaped_and_tags_are_closed() {
        let svg = svg(&Results { scenarios: vec![table(), table()], ..Results::default() });
        assert!(svg.contains("Small &lt;keep-alive&gt;"));
        assert_eq!(svg.matches("<text").count(), svg.matches("</text>").count());
        assert!(svg.ends_with("</svg>\n"));
    }

    #[test]
    fn a_scenario_without_rows_has_no_panel() {
        let empty = Table { title: "Nothing".into(), ..Table::default() };
        assert!(!svg(&Results { scenarios: vec![empty], ..Results::default() }).contains("Nothing"));
    }
}
