//! What people see: a title, and below it what was done and what was seen, a line each.

use std::fmt::Display;
use std::io::{IsTerminal, Write};
use std::time::Duration;

/// What was done takes so many columns.
const WIDTH: usize = 38;

/// Counts what was not as it should be.
pub(crate) struct Show {
    coloured: bool,
    pub(crate) right: usize,
    pub(crate) wrong: usize,
}

impl Show {
    pub(crate) fn new() -> Show {
        let coloured = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Show { coloured, right: 0, wrong: 0 }
    }

    pub(crate) fn title(&self, title: &str) {
        say(&format!("\n{}", self.paint("1", title)));
    }

    /// One check: what was done, what was seen, whether it was to be so.
    pub(crate) fn saw(&mut self, done: &str, seen: impl Display, good: bool) {
        let mark = if good { self.paint("32", "✓") } else { self.paint("31", "✗") };
        *if good { &mut self.right } else { &mut self.wrong } += 1;
        say(&format!("  {mark} {done:<WIDTH$} {seen}"));
    }

    fn paint(&self, colour: &str, text: &str) -> String {
        if self.coloured { format!("\x1b[{colour}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// A line that the next one overwrites; on a terminal alone.
    pub(crate) fn now(&self, line: &str) {
        if self.coloured {
            let mut out = std::io::stdout();
            let _gone = write!(out, "\r{line}\x1b[K").and_then(|()| out.flush());
        }
    }
}

/// A line. Nobody there to read it is no error: the demo goes on.
pub(crate) fn say(line: &str) {
    let _gone = writeln!(std::io::stdout(), "{line}");
}

/// 1,234,567
pub(crate) fn number(number: u64) -> String {
    let digits = number.to_string();
    let groups: Vec<_> = digits.as_bytes().rchunks(3).rev().map(|group| String::from_utf8_lossy(group)).collect();
    groups.join(",")
}

/// As a part of all, in per cent.
pub(crate) fn share(part: u64, all: u64) -> String {
    format!("{:.1} %", part as f64 * 100.0 / all.max(1) as f64)
}

/// 1.2 s
pub(crate) fn seconds(time: Duration) -> String {
    match time.as_secs_f64() {
        short if short < 1.0 => format!("{short:.2} s"),
        long => format!("{long:.1} s"),
    }
}

/// What fits into the rest of a line.
pub(crate) fn short(text: &str) -> String {
    const ROOM: usize = 78;
    if text.chars().count() <= ROOM {
        text.to_owned()
    } else {
        text.chars().take(ROOM - 2).collect::<String>() + " …"
    }
}
