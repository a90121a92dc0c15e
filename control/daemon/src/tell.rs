//! What the daemon tells a person: plain lines on standard error, here and nowhere else. No key, token or secret is
//! ever among them.

use std::fmt::Display;
use std::io::Write;

/// Tells something, as one line.
pub(crate) fn tell(what: impl Display) {
    line(&format!("ringwayd: {what}"));
}

/// Tells that the start is done.
pub(crate) fn tell_ready(what: impl Display) {
    line(&format!("ringwayd {} ready: {what}", env!("CARGO_PKG_VERSION")));
}

/// Tells what is wrong with a file, in the form that editors and scripts know: `FILE:LINE:COLUMN: what`.
pub(crate) fn tell_findings(findings: &[api::Finding]) {
    findings.iter().for_each(|finding| line(&finding.to_string()));
}

/// Names come from files and peers: what they hold cannot begin a line of its own. That nobody reads does not matter.
fn line(text: &str) {
    let mut text = text.replace(char::is_control, "?");
    text.push('\n');
    let _ = std::io::stderr().write_all(text.as_bytes());
}
