//! What people and programs see: tables, times, colours, JSON. Names and reasons come from other machines, so no control
//! character of theirs reaches a terminal.

mod difference;

pub(crate) use difference::difference;

use crate::exit::Failure;
use clap::ValueEnum;
use comfy_table::{ContentArrangement, presets};
use serde::Serialize;
use std::borrow::Cow;
use std::io::{ErrorKind, Write};
use std::time::{SystemTime, UNIX_EPOCH};

/// For whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Table,
    /// For programs.
    Json,
}

/// Prints; colours only where they are seen.
///
/// # Errors
/// Standard output does not take it. Who stops reading (`| head`) has what it wanted.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    print_to_reader(text).map(drop)
}

/// Prints; whether anybody still reads.
///
/// # Errors
/// As [`print`].
pub(crate) fn print_to_reader(text: &str) -> Result<bool, Failure> {
    let mut out = anstream::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Failure::refused(format!("cannot write to standard output: {error}"))),
    }
}

/// Says something to people beside the answer, on standard error.
pub(crate) fn tell(text: &str) {
    let _ = writeln!(anstream::stderr(), "ringwayctl: {}", clean(text));
}

/// Prints as people or as programs read it.
///
/// # Errors
/// As [`print`].
pub(crate) fn answer<T: Serialize>(
    format: Format,
    message: &T,
    people: impl FnOnce(&T) -> String,
) -> Result<(), Failure> {
    print(&text(format, message, people))
}

/// As people or as programs read it.
pub(crate) fn text<T: Serialize>(format: Format, message: &T, people: impl FnOnce(&T) -> String) -> String {
    match format {
        Format::Table => people(message),
        Format::Json => json(message),
    }
}

/// One line of JSON.
fn json<T: Serialize>(message: &T) -> String {
    // Names and numbers: nothing in it can fail.
    serde_json::to_string(message).map(|text| text + "\n").unwrap_or_default()
}

/// Rows under a head, as wide as they are; `none` where there is no row.
pub(crate) fn table(head: &[&str], rows: Vec<Vec<String>>, none: &str) -> String {
    if rows.is_empty() {
        return format!("{none}\n");
    }
    let mut table = comfy_table::Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(head.iter().map(|name| name.to_uppercase()));
    for row in rows {
        table.add_row(row.iter().map(|cell| if cell.is_empty() { Cow::Borrowed("-") } else { clean(cell) }));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

/// Without what could write to a terminal more than text.
pub(crate) fn clean(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_unfit) {
        return Cow::Borrowed(text);
    }
    let escaped = |c: char| if is_unfit(c) { c.escape_default().to_string() } else { c.to_string() };
    Cow::Owned(text.chars().map(escaped).collect())
}

/// Several lines, each [`clean`].
pub(crate) fn lines(text: &str) -> String {
    text.lines().map(|line| format!("{}\n", clean(line))).collect()
}

/// Controls, and marks that turn the direction of what follows.
fn is_unfit(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Milliseconds since 1970.
pub(crate) fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

/// `3 min ago`, `in 12 h`; nothing for 0.
pub(crate) fn relative(at_ms: u64, now_ms: u64) -> String {
    match at_ms {
        0 => String::new(),
        at_ms if at_ms <= now_ms => format!("{} ago", span(now_ms - at_ms)),
        at_ms => format!("in {}", span(at_ms - now_ms)),
    }
}

/// When a certificate ends: `in 12 h`, or that it has.
pub(crate) fn ends(at_ms: u64, now_ms: u64) -> String {
    match at_ms {
        0 => String::new(),
        at_ms if at_ms <= now_ms => format!("EXPIRED {} ago", span(now_ms - at_ms)),
        at_ms => relative(at_ms, now_ms),
    }
}

fn span(ms: u64) -> String {
    let s = ms / 1000;
    match s {
        0..=119 => format!("{s} s"),
        120..=7199 => format!("{} min", s / 60),
        7200..=172_799 => format!("{} h", s / 3600),
        _ => format!("{} d", s / 86_400),
    }
}

/// `2026-11-25 10:03:40Z`
pub(crate) fn moment(at_ms: u64) -> String {
    let at = i64::try_from(at_ms / 1000).ok().and_then(|s| time::OffsetDateTime::from_unix_timestamp(s).ok());
    at.map_or_else(String::new, |at| {
        let (h, m, s) = at.to_hms();
        format!("{:04}-{:02}-{:02} {h:02}:{m:02}:{s:02}Z", at.year(), u8::from(at.month()), at.day())
    })
}

/// A word in colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Colour {
    Red,
    Green,
    Yellow,
    Cyan,
    Bold,
}

/// The text in colour; where it is not seen, [`print`] leaves the text alone.
pub(crate) fn coloured(colour: Colour, text: &str) -> String {
    let code = match colour {
        Colour::Red => 31,
        Colour::Green => 32,
        Colour::Yellow => 33,
        Colour::Cyan => 36,
        Colour::Bold => 1,
    };
    format!("\x1b[{code}m{text}\x1b[0m")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_as_wide_as_its_cells_and_says_what_is_not_there() {
        let rows = vec![vec!["a".to_owned(), String::new()], vec!["longer".to_owned(), "b".to_owned()]];
        assert_eq!(table(&["one", "two"], rows, "none"), "ONE     TWO\na       -\nlonger  b\n");
        assert_eq!(table(&["one"], Vec::new(), "no proxy has joined"), "no proxy has joined\n");
    }

    #[test]
    fn nothing_but_text_reaches_a_terminal() {
        let rows = vec![vec!["\x1b[31mred\u{202e}\r\n\u{9b}".to_owned()]];
        let shown = table(&["host"], rows, "");
        assert_eq!(shown, "HOST\n\\u{1b}[31mred\\u{202e}\\r\\n\\u{9b}\n");
        assert_eq!(clean("Grüße"), "Grüße");
    }

    #[test]
    fn times_are_said_as_people_do() {
        let now = 1_000_000_000_000;
        assert_eq!(relative(now - 5_000, now), "5 s ago");
        assert_eq!(relative(now + 3 * 3_600_000, now), "in 3 h");
        assert_eq!(relative(now + 10 * 60_000, now), "in 10 min");
        assert_eq!(relative(now - 20 * 86_400_000, now), "20 d ago");
        assert_eq!(relative(0, now), "");
        assert_eq!(ends(now - 60_000, now), "EXPIRED 60 s ago");
        assert_eq!(moment(1_000_000_000_123), "2001-09-09 01:46:40Z");
    }
}
