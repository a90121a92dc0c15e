//! Patterns: the part of RE2's syntax that this proxy and an Envoy read alike. Checked here, so that a pattern
//! which one of them would refuse, or read otherwise, never leaves the file.

use regex_syntax::{
    ParserBuilder,
    ast::{self, AssertionKind, Ast, ClassSet, ClassSetItem, Flag, FlagsItemKind, HexLiteralKind, LiteralKind},
    hir::{Hir, HirKind},
};

use super::text;
use crate::{
    finding::{Findings, quoted},
    tree::Node,
};

/// The longest pattern, in bytes.
const MAX_PATTERN: usize = 1024;
/// RE2 refuses larger counts.
const MAX_REPEAT: u32 = 1000;
/// States of the automaton, roughly.
const MAX_SIZE: usize = 20_000;

/// Reads a pattern and checks it.
pub(crate) fn pattern(node: &Node, findings: &mut Findings) -> Option<String> {
    let text = text(node, findings)?;
    match fault(text) {
        None => Some(text.to_owned()),
        Some(wrong) => {
            findings.add(node.at, format!("{} is no pattern of RE2's syntax: {wrong}", quoted(text)));
            None
        }
    }
}

fn fault(pattern: &str) -> Option<String> {
    if pattern.is_empty() || pattern.len() > MAX_PATTERN {
        return Some(format!("it has 1 to {MAX_PATTERN} bytes"));
    }
    if !pattern.is_ascii() || pattern.bytes().any(|b| b.is_ascii_control()) {
        return Some("it is printable ASCII only; write other characters as \\xNN".to_owned());
    }
    let tree = match ast::parse::ParserBuilder::new().nest_limit(50).build().parse(pattern) {
        Ok(tree) => tree,
        Err(error) => return Some(error.kind().to_string()),
    };
    if let Err(wrong) = ast::visit(&tree, Re2 { wrong: None }) {
        return Some(wrong.to_owned());
    }
    let mut parser = ParserBuilder::new().nest_limit(50).unicode(false).utf8(false).build();
    match parser.parse(pattern) {
        Err(error) => Some(reason(&error)),
        Ok(hir) if size(&hir) > MAX_SIZE => Some("it is too large when its repetitions are written out".to_owned()),
        Ok(_) => None,
    }
}

/// The parser's own message is several lines with a picture; its kind alone is one.
fn reason(error: &regex_syntax::Error) -> String {
    match error {
        regex_syntax::Error::Parse(e) => e.kind().to_string(),
        regex_syntax::Error::Translate(e) => e.kind().to_string(),
        _ => "it cannot be read".to_owned(),
    }
}

/// Finds what Rust's syntax has and RE2's has not, or means otherwise.
struct Re2 {
    wrong: Option<&'static str>,
}

impl ast::Visitor for Re2 {
    type Output = ();
    type Err = &'static str;

    fn finish(self) -> Result<(), &'static str> {
        self.wrong.map_or(Ok(()), Err)
    }

    fn visit_pre(&mut self, node: &Ast) -> Result<(), &'static str> {
        match node {
            Ast::Flags(set) => flags(&set.flags),
            Ast::Group(group) => match &group.kind {
                ast::GroupKind::NonCapturing(set) => flags(set),
                ast::GroupKind::CaptureName { starts_with_p: false, .. } => Err("write (?P<name>...) for a name"),
                _ => Ok(()),
            },
            Ast::Literal(literal) => literal_is_common(literal),
            Ast::ClassUnicode(_) => Err("Unicode classes are not supported; classes are ASCII"),
            Ast::Assertion(at) => match at.kind {
                AssertionKind::StartLine
                | AssertionKind::EndLine
                | AssertionKind::StartText
                | AssertionKind::EndText
                | AssertionKind::WordBoundary
                | AssertionKind::NotWordBoundary => Ok(()),
                _ => Err("only ^, $, \\A, \\z, \\b and \\B are assertions"),
            },
            Ast::Repetition(of) => repetition(&of.op.kind),
            Ast::ClassBracketed(class) => match class.kind {
                ClassSet::BinaryOp(_) => Err("classes have no &&, -- or ~~"),
                ClassSet::Item(_) => Ok(()),
            },
            _ => Ok(()),
        }
    }

    fn visit_class_set_item_pre(&mut self, item: &ClassSetItem) -> Result<(), &'static str> {
        match item {
            ClassSetItem::Bracketed(_) => Err("classes do not nest; write \\[ for a bracket"),
            ClassSetItem::Unicode(_) => Err("Unicode classes are not supported; classes are ASCII"),
            ClassSetItem::Literal(literal) => literal_is_common(literal),
            ClassSetItem::Range(range) => literal_is_common(&range.start).and_then(|()| literal_is_common(&range.end)),
            _ => Ok(()),
        }
    }

    fn visit_class_set_binary_op_pre(&mut self, _: &ast::ClassSetBinaryOp) -> Result<(), &'static str> {
        Err("classes have no &&, -- or ~~")
    }
}

fn flags(set: &ast::Flags) -> Result<(), &'static str> {
    let common = |flag: &Flag| {
        matches!(flag, Flag::CaseInsensitive | Flag::MultiLine | Flag::DotMatchesNewLine | Flag::SwapGreed)
    };
    let fits = set.items.iter().all(|item| match &item.kind {
        FlagsItemKind::Negation => true,
        FlagsItemKind::Flag(flag) => common(flag),
    });
    fits.then_some(()).ok_or("only the flags i, m, s and U are known")
}

fn literal_is_common(literal: &ast::Literal) -> Result<(), &'static str> {
    match literal.kind {
        LiteralKind::HexFixed(HexLiteralKind::UnicodeShort | HexLiteralKind::UnicodeLong)
        | LiteralKind::HexBrace(HexLiteralKind::UnicodeShort | HexLiteralKind::UnicodeLong) => {
            Err("write \\xNN, not \\u or \\U")
        }
        LiteralKind::Superfluous if literal.c.is_ascii_alphanumeric() => Err("an escape that has no meaning"),
        // RE2 reads bytes above 0x7F as characters of UTF-8, we as bytes.
        _ if !literal.c.is_ascii() => Err("only ASCII characters can be matched one by one"),
        _ => Ok(()),
    }
}

fn repetition(of: &ast::RepetitionKind) -> Result<(), &'static str> {
    let most = match of {
        ast::RepetitionKind::Range(ast::RepetitionRange::Exactly(n) | ast::RepetitionRange::AtLeast(n)) => *n,
        ast::RepetitionKind::Range(ast::RepetitionRange::Bounded(_, most)) => *most,
        _ => 0,
    };
    (most <= MAX_REPEAT).then_some(()).ok_or("a count is at most 1000")
}

/// About how many states the automaton has.
fn size(of: &Hir) -> usize {
    match of.kind() {
        HirKind::Empty | HirKind::Look(_) => 1,
        HirKind::Literal(literal) => literal.0.len(),
        HirKind::Class(_) => 1,
        HirKind::Capture(group) => size(&group.sub).saturating_add(2),
        HirKind::Concat(parts) | HirKind::Alternation(parts) => {
            parts.iter().map(size).fold(parts.len(), usize::saturating_add)
        }
        HirKind::Repetition(repeat) => {
            let count = repeat.max.unwrap_or(repeat.min.saturating_add(1)).max(1) as usize;
            size(&repeat.sub).saturating_add(1).saturating_mul(count)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_that_re2_and_ours_read_alike_pass() {
        for good in [
            "/v[0-9]+/.*",
            r"2\..*",
            "a|b",
            "(?i)abc",
            "(?:x{2,5})?",
            "(?P<n>a)",
            r"\d\w\s\bx\x41",
            "[[:alpha:]_-]",
            "^a$",
            "[^/]+",
            "a*?",
        ] {
            assert_eq!(fault(good), None, "{good}");
        }
    }

    #[test]
    fn patterns_that_differ_or_cost_too_much_are_refused() {
        for (bad, why) in [
            ("(?=a)", "look-around"),
            ("(?<!a)b", "look-around"),
            (r"(a)\1", "backreferences"),
            ("[a&&b]", "&&"),
            ("[a--b]", "&&, --"),
            ("[[a]b]", "nest"),
            (r"\p{L}", "Unicode"),
            (r"[\p{L}]", "Unicode"),
            ("(?x)a", "flags"),
            ("(?u)a", "flags"),
            (r"\b{start}a", "assertions"),
            (r"\u0041", "\\xNN"),
            ("\u{e9}", "ASCII"),
            ("(?<n>a)", "(?P<name>"),
            ("a{1001}", "at most 1000"),
            ("((a{100}){100}){100}", "too large"),
            ("(", "unclosed group"),
            ("*", "repetition operator"),
            ("", "1 to 1024 bytes"),
        ] {
            let told = fault(bad).unwrap_or_else(|| panic!("{bad} passed"));
            assert!(told.contains(why), "{bad}: {told}");
        }
        let nested = format!("{}a{}", "(".repeat(60), ")".repeat(60));
        assert!(fault(&nested).is_some());
    }
}
