//! What was measured against what is wanted, as Markdown.

use std::fmt::Write;

/// One figure.
#[derive(Debug)]
pub(super) struct Goal {
    scenario: &'static str,
    what: String,
    /// Not above this; infinite: it is told, and nothing is wanted of it.
    limit: f64,
    measured: f64,
    unit: &'static str,
    note: String,
}

impl Goal {
    pub(super) fn at_most(
        scenario: &'static str,
        what: impl Into<String>,
        limit: f64,
        measured: f64,
        unit: &'static str,
        note: String,
    ) -> Goal {
        Goal { scenario, what: what.into(), limit, measured, unit, note }
    }

    /// Reached or not.
    pub(super) fn is_met(&self) -> bool {
        self.measured <= self.limit
    }
}

/// The middle one.
pub(super) fn middle(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The table.
pub(super) fn markdown(goals: &[Goal], about: &str) -> String {
    let mut out = format!("{about}\n\n| scenario | figure | wanted | measured | | |\n|---|---|---:|---:|---|---|\n");
    for goal in goals {
        let wanted =
            if goal.limit.is_finite() { format!("at most {}", number(goal.limit, goal.unit)) } else { "-".into() };
        let met = match goal.limit.is_finite() {
            false => "",
            true if goal.is_met() => "reached",
            true => "not reached",
        };
        let measured = number(goal.measured, goal.unit);
        // Writing to a String cannot fail.
        let _ = writeln!(out, "| {} | {} | {wanted} | {measured} | {met} | {} |", goal.scenario, goal.what, goal.note);
    }
    out
}

fn number(value: f64, unit: &str) -> String {
    let digits = if value.abs() >= 100.0 || value.fract() == 0.0 { 0 } else { 2 };
    format!("{value:.digits$} {unit}").trim_end().to_string()
}

/// The text with the section under this heading (to the next one of its level, or the end) replaced by another; it is put
/// behind everything where there is none.
pub(super) fn with_section(text: &str, heading: &str, body: &str) -> String {
    let begin = text.find(&format!("{heading}\n")).filter(|at| *at == 0 || text[..*at].ends_with('\n'));
    let (before, after) = match begin {
        Some(at) => {
            let rest = &text[at + heading.len()..];
            let end = rest.find("\n# ").map_or("", |end| &rest[end + 1..]);
            (&text[..at], end)
        }
        None => (text, ""),
    };
    let before = before.trim_end();
    let gap = if before.is_empty() { "" } else { "\n\n" };
    let after = if after.is_empty() { String::new() } else { format!("\n{after}") };
    format!("{before}{gap}{heading}\n\n{}\n{after}", body.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goals_are_reached_or_not() {
        let goal = |measured| Goal::at_most("push", "all", 2000.0, measured, "ms", String::new());
        let table = markdown(&[goal(1999.4), goal(2001.0), goal(f64::NAN)], "About.");
        assert!(table.contains("| push | all | at most 2000 ms | 1999 ms | reached |"), "{table}");
        assert!(table.contains("| 2001 ms | not reached |") && table.contains("NaN ms | not reached"), "{table}");
    }

    #[test]
    fn the_middle_is_of_sorted_values() {
        assert_eq!(middle(&mut [3.0, 1.0, 2.0]), 2.0);
        assert!(middle(&mut []).is_nan());
    }

    #[test]
    fn a_section_is_replaced_and_the_others_stay() {
        let text = "# One\n\na\n\n# The mesh\n\nold\n\n## part\n\n# Three\n\nc\n";
        let new = with_section(text, "# The mesh", "new\n");
        assert_eq!(new, "# One\n\na\n\n# The mesh\n\nnew\n\n# Three\n\nc\n");
        assert_eq!(with_section(&new, "# The mesh", "new\n"), new);
        assert_eq!(with_section("# One\n\na\n", "# The mesh", "new"), "# One\n\na\n\n# The mesh\n\nnew\n");
    }
}
