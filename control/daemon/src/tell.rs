//! What the daemon tells a person: plain lines on standard error, here and nowhere else. No key, token or secret is
//! ever among them.

use std::fmt::Display;
use std::io::Write;
use std::sync::{Mutex, PoisonError};

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

/// Lines that strangers can cause: at most so many a minute, and how many were left out.
#[derive(Debug, Default)]
pub(crate) struct Rated(Mutex<Minute>);

/// Lines of one kind in a minute.
const MOST_A_MINUTE: u64 = 20;

#[derive(Debug, Default)]
struct Minute {
    number: u64,
    lines: u64,
}

impl Rated {
    /// Tells something, unless too much was told in this minute.
    pub(crate) fn tell(&self, what: impl Display, now_ms: u64) {
        let (is_told, left_out) = self.count(now_ms / 60_000);
        if left_out > 0 {
            tell(format_args!("{left_out} more lines like the next one were left out"));
        }
        if is_told {
            tell(what);
        }
    }

    /// Whether the next line may be told, and how many before it were not.
    fn count(&self, minute: u64) -> (bool, u64) {
        let mut now = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut left_out = 0;
        if now.number != minute {
            left_out = now.lines.saturating_sub(MOST_A_MINUTE);
            *now = Minute { number: minute, lines: 0 };
        }
        now.lines += 1;
        (now.lines <= MOST_A_MINUTE, left_out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_strangers_are_rated() {
        let rated = Rated::default();
        let told = (0..MOST_A_MINUTE + 5).filter(|_| rated.count(7).0).count() as u64;
        assert_eq!(told, MOST_A_MINUTE);
        assert_eq!(rated.count(8), (true, 5));
        assert_eq!(rated.count(8), (true, 0));
    }
}
