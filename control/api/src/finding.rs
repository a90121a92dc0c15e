//! What is wrong with a document: where, and what would be right.

use std::fmt;

/// One thing that is wrong, on one line: `FILE:LINE:COLUMN: what is wrong, and what would be right`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The file, as the caller named it.
    pub file: String,
    /// From 1.
    pub line: u32,
    /// From 1, in characters.
    pub column: u32,
    /// What is wrong, and what would be right; never has a line break.
    pub message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: {}", self.file, self.line, self.column, self.message)
    }
}

impl std::error::Error for Finding {}

/// A position in a document, both from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct At {
    pub(crate) line: u32,
    pub(crate) column: u32,
}

impl At {
    pub(crate) const START: At = At { line: 1, column: 1 };
}

/// Findings under collection. A hostile document could make one per byte, so only the first ones are kept.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    list: Vec<(At, String)>,
    dropped: usize,
}

/// More than a person reads.
const KEPT: usize = 1000;

impl Findings {
    pub(crate) fn add(&mut self, at: At, message: impl Into<String>) {
        if self.list.len() < KEPT {
            self.list.push((at, one_line(&message.into())));
        } else {
            self.dropped += 1;
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Further findings are counted only.
    pub(crate) fn is_full(&self) -> bool {
        self.list.len() == KEPT
    }

    /// How many there are so far, kept or not.
    pub(crate) fn len(&self) -> usize {
        self.list.len() + self.dropped
    }

    /// Sorted by position; what was found more than once (through an alias) stands once.
    pub(crate) fn finish(mut self, file: &str) -> Vec<Finding> {
        self.list.sort();
        self.list.dedup();
        if let Some((at, _)) = self.list.last().filter(|_| self.dropped > 0) {
            let more = format!("and {} findings more, not shown", self.dropped);
            self.list.push((*at, more));
        }
        let finding =
            |(at, message): (At, String)| Finding { file: file.to_owned(), line: at.line, column: at.column, message };
        self.list.into_iter().map(finding).collect()
    }
}

/// Control characters that a document quoted would break the rule of one line a finding.
fn one_line(message: &str) -> String {
    if !message.chars().any(char::is_control) {
        return message.to_owned();
    }
    let escape = |c: char| {
        if c.is_control() { c.escape_default().to_string() } else { c.to_string() }
    };
    message.chars().map(escape).collect()
}

/// Document text in a message: quoted, and cut when it is long.
pub(crate) fn quoted(text: &str) -> String {
    const SHOWN: usize = 60;
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("`{}...`", &text[..end]),
        None => format!("`{text}`"),
    }
}

/// The word of `known` that was probably meant; none if no one is near.
pub(crate) fn nearest<'k>(word: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    if word.len() > 64 {
        return None;
    }
    let most = word.chars().count().max(3) / 3;
    let distances = known.into_iter().map(|k| (distance(word, k), k));
    distances.filter(|(d, _)| *d <= most).min().map(|(_, k)| k)
}

/// Edits (insert, delete, replace, swap of neighbours) from one word to the other: optimal string alignment.
fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.to_lowercase().chars().collect();
    let b: Vec<char> = b.to_lowercase().chars().collect();
    let mut before: Vec<usize> = vec![0; b.len() + 1];
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let replaced = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = replaced.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_word_forgives_one_slip_but_not_another_word() {
        let known = ["address", "protocol", "hosts", "routes"];
        assert_eq!(nearest("adress", known), Some("address"));
        assert_eq!(nearest("rotues", known), Some("routes"));
        assert_eq!(nearest("Hosts", known), Some("hosts"));
        assert_eq!(nearest("xyzzy", known), None);
        assert_eq!(distance("ab", "ba"), 1);
        assert_eq!(distance("", "abc"), 3);
    }

    #[test]
    fn a_finding_is_one_line_sorted_and_bounded() {
        let mut findings = Findings::default();
        findings.add(At { line: 2, column: 1 }, "b\nc");
        findings.add(At { line: 1, column: 9 }, "a");
        findings.add(At { line: 1, column: 9 }, "a");
        let lines: Vec<String> = findings.finish("f").iter().map(Finding::to_string).collect();
        assert_eq!(lines, ["f:1:9: a", "f:2:1: b\\nc"]);

        let mut findings = Findings::default();
        for line in 1..=KEPT as u32 + 5 {
            findings.add(At { line, column: 1 }, "a");
        }
        let all = findings.finish("f");
        assert_eq!(all.len(), KEPT + 1);
        assert_eq!(all[KEPT].message, "and 5 findings more, not shown");
    }
}
