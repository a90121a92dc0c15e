//! Two documents side by side: what left and what came, with the lines around it.

use super::{Colour, clean, coloured};
use similar::{ChangeTag, TextDiff};

/// Lines shown around a change.
const AROUND: usize = 3;

/// From one document to another, as `diff -u` writes it; nothing when they are the same.
pub(crate) fn difference(old: (&str, &str), new: (&str, &str)) -> String {
    let ((old_name, old), (new_name, new)) = (old, new);
    let lines = TextDiff::from_lines(old, new);
    let mut text = String::new();
    for group in lines.grouped_ops(AROUND) {
        if text.is_empty() {
            text += &format!("{}\n", coloured(Colour::Bold, &format!("--- {}", clean(old_name))));
            text += &format!("{}\n", coloured(Colour::Bold, &format!("+++ {}", clean(new_name))));
        }
        let (Some(first), Some(last)) = (group.first(), group.last()) else { continue };
        let (old, new) = (first.old_range().start..last.old_range().end, first.new_range().start..last.new_range().end);
        let head = format!("@@ -{} +{} @@", place(&old), place(&new));
        text += &format!("{}\n", coloured(Colour::Cyan, &head));
        for change in group.iter().flat_map(|op| lines.iter_changes(op)) {
            let line = change.value().trim_end_matches(['\n', '\r']).replace('\t', "    ");
            let (sign, colour) = match change.tag() {
                ChangeTag::Equal => (' ', None),
                ChangeTag::Delete => ('-', Some(Colour::Red)),
                ChangeTag::Insert => ('+', Some(Colour::Green)),
            };
            let line = format!("{sign}{}", clean(&line));
            text += &colour.map_or_else(|| line.clone(), |colour| coloured(colour, &line));
            text.push('\n');
        }
    }
    text
}

/// `LINE,COUNT`, from 1; before an empty range stands the line in front of it.
fn place(range: &std::ops::Range<usize>) -> String {
    match range.len() {
        0 => format!("{},0", range.start),
        1 => format!("{}", range.start + 1),
        count => format!("{},{count}", range.start + 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(text: &str) -> String {
        anstream::adapter::strip_str(text).to_string()
    }

    #[test]
    fn only_what_changed_is_shown_with_a_little_around_it() {
        let old: String = (1..=20).map(|n| format!("line {n}\n")).collect();
        let new = old.replace("line 10\n", "line ten\nline \x1b[2J\n");
        let shown = difference(("version 1", &old), ("shop.yaml", &new));
        assert!(shown.contains("\x1b[31m-line 10\x1b[0m\n\x1b[32m+line ten"), "{shown:?}");
        let wanted = "--- version 1\n+++ shop.yaml\n@@ -7,7 +7,8 @@\n line 7\n line 8\n line 9\n-line 10\n+line ten\n\
                      +line \\u{1b}[2J\n line 11\n line 12\n line 13\n";
        assert_eq!(plain(&shown), wanted);
    }

    #[test]
    fn nothing_is_said_of_what_is_the_same_and_all_of_what_is_new() {
        assert_eq!(difference(("a", "x\n"), ("b", "x\n")), "");
        let shown = difference(("nothing", ""), ("b", "x\ny\n"));
        assert_eq!(plain(&shown), "--- nothing\n+++ b\n@@ -0,0 +1,2 @@\n+x\n+y\n");
    }
}
