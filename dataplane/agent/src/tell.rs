//! What the agent tells a person: plain lines on standard error, and answers on standard output; here and nowhere else.

use std::fmt::Display;
use std::io::Write;

/// Tells something, as one line.
pub(crate) fn tell(what: impl Display) {
    line(&format!("ringway: {what}"));
}

/// Tells that the start is done.
pub(crate) fn tell_ready(what: impl Display) {
    line(&format!("ringway {} ready: {what}", crate::VERSION));
}

/// Tells what is wrong with a file, in the form that editors and scripts know: `FILE:LINE:COLUMN: what`.
pub(crate) fn tell_findings(findings: &[String]) {
    findings.iter().for_each(|finding| line(finding));
}

/// Prints what was asked for on standard output: lines, each with its end.
pub(crate) fn print(text: &str) {
    let text = text.replace(|c: char| c.is_control() && c != '\n', "?");
    let _ = std::io::stdout().write_all(text.as_bytes());
}

/// Names come from files and peers: what they hold cannot begin a line of its own. That nobody reads does not matter.
fn line(text: &str) {
    let mut text = text.replace(char::is_control, "?");
    text.push('\n');
    let _ = std::io::stderr().write_all(text.as_bytes());
}
