//! Regular expressions of the configuration: RE2's syntax, because that is what xDS carries (`safe_regex`), matched by
//! `regex-automata` in linear time. The two syntaxes differ in places; patterns that would mean one thing there and
//! another here are refused. Classes (`\d`, `\w`, `\s`, `\b`) are ASCII in both. Matching is by byte: a `.` is one byte.

use regex_automata::meta;
use regex_automata::util::syntax;
use regex_automata::{Anchored, Input, MatchKind};
use std::sync::atomic::{AtomicU64, Ordering};

/// The longest pattern that is taken.
const PATTERN_BYTES: usize = 4096;
/// What one compiled pattern may take.
const NFA_BYTES: usize = 2 * 1024 * 1024;
/// What all patterns of a plan may take, beside the cores' caches.
const ALL_BYTES: usize = 128 * 1024 * 1024;
/// What one pattern's lazily built automaton may take on each core.
const CACHE_BYTES: usize = 64 * 1024;
/// How deep groups may nest.
const NESTING: u32 = 64;

/// All patterns of a plan.
#[derive(Debug)]
pub(crate) struct Regexes {
    /// Unique in the process: tells which plan a core's caches belong to.
    stamp: u64,
    /// What they take.
    bytes: usize,
    regexes: Vec<(Box<str>, meta::Regex)>,
}

/// Which pattern: an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RegexId(u32);

/// One core's caches for the patterns of one plan; each is made when its pattern is first tried.
#[derive(Debug, Default)]
pub(crate) struct Caches {
    stamp: u64,
    caches: Vec<Option<Box<meta::Cache>>>,
}

impl Regexes {
    pub(crate) fn new() -> Regexes {
        static STAMP: AtomicU64 = AtomicU64::new(1);
        Regexes { stamp: STAMP.fetch_add(1, Ordering::Relaxed), bytes: 0, regexes: Vec::new() }
    }

    /// Takes a pattern, which must match a whole text; the same pattern is kept once. The error says what is wrong.
    pub(crate) fn add(&mut self, pattern: &str) -> Result<RegexId, String> {
        if let Some(known) = self.regexes.iter().position(|(text, _)| **text == *pattern) {
            return Ok(RegexId(known as u32));
        }
        let regex = compile(pattern)?;
        self.bytes += regex.memory_usage();
        if self.bytes > ALL_BYTES {
            return Err("all patterns together take too much memory".to_owned());
        }
        self.regexes.push((pattern.into(), regex));
        Ok(RegexId(self.regexes.len() as u32 - 1))
    }

    /// The pattern as it was written.
    pub(crate) fn pattern(&self, id: RegexId) -> &str {
        self.regexes.get(id.0 as usize).map_or("", |(pattern, _)| pattern)
    }

    /// Whether the pattern matches the whole text.
    pub(crate) fn matches(&self, id: RegexId, text: &[u8], caches: &mut Caches) -> bool {
        if caches.stamp != self.stamp {
            caches.stamp = self.stamp;
            caches.caches.clear();
            caches.caches.resize_with(self.regexes.len(), || None);
        }
        let number = id.0 as usize;
        let (Some((_, regex)), Some(cache)) = (self.regexes.get(number), caches.caches.get_mut(number)) else {
            return false;
        };
        let cache = cache.get_or_insert_with(|| Box::new(regex.create_cache()));
        let input = Input::new(text).anchored(Anchored::Yes).earliest(true);
        regex.search_half_with(cache, &input).is_some()
    }
}

fn compile(pattern: &str) -> Result<meta::Regex, String> {
    if pattern.len() > PATTERN_BYTES {
        return Err(format!("a pattern may have {PATTERN_BYTES} bytes"));
    }
    dialect(pattern)?;
    let syntax = syntax::Config::new().unicode(false).utf8(false).nest_limit(NESTING);
    let config = meta::Config::new()
        .match_kind(MatchKind::LeftmostFirst)
        .utf8_empty(false)
        .nfa_size_limit(Some(NFA_BYTES))
        .onepass_size_limit(Some(CACHE_BYTES))
        .hybrid_cache_capacity(CACHE_BYTES);
    let mut builder = meta::Builder::new();
    builder.syntax(syntax).configure(config);
    let explain = |error: meta::BuildError| match error.syntax_error() {
        Some(syntax) => format!("{syntax}").lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned(),
        None => "takes too much memory".to_owned(),
    };
    // Alone first: `a)|(b` would be well-formed only inside the parentheses that follow.
    builder.build(pattern).map_err(explain)?;
    builder.build(&format!(r"\A(?:{pattern})\z")).map_err(explain)
}

/// Refuses what RE2 and this engine read differently.
fn dialect(pattern: &str) -> Result<(), String> {
    let mut rest = pattern;
    while let Some(first) = rest.chars().next() {
        rest = match first {
            '\\' => escape(rest)?,
            '[' => class(rest)?,
            '(' => group(rest)?,
            other => &rest[other.len_utf8()..],
        };
    }
    Ok(())
}

/// Reads over an escape outside a class.
fn escape(text: &str) -> Result<&str, String> {
    let mut chars = text.char_indices().skip(1);
    let escaped = chars.next().map(|(_, escaped)| escaped);
    let rest = chars.next().map_or("", |(at, _)| &text[at..]);
    match escaped {
        Some('<' | '>' | 'u' | 'U') => Err(format!("`\\{}` is not in RE2's syntax", escaped.unwrap_or_default())),
        Some('b' | 'B') if rest.starts_with('{') => Err("`\\b{` is not in RE2's syntax".to_owned()),
        _ => Ok(rest),
    }
}

/// Reads over a group's opening: flags other than RE2's own are refused.
fn group(text: &str) -> Result<&str, String> {
    let Some(flags) = text.strip_prefix("(?") else {
        return Ok(&text[1..]);
    };
    if flags.starts_with("P<") || flags.starts_with('<') {
        return Ok(flags);
    }
    let end = flags.find([':', ')']).unwrap_or(flags.len());
    match flags[..end].chars().find(|flag| !"imsU-".contains(*flag)) {
        Some(flag) => Err(format!("`(?{flag}` is not in RE2's syntax")),
        None => Ok(&flags[end..]),
    }
}

/// Reads over a class: sets in sets and operations on sets are not in RE2, where the same characters stand for themselves.
fn class(text: &str) -> Result<&str, String> {
    let mut at = 1;
    at += usize::from(text[at..].starts_with('^'));
    at += usize::from(text[at..].starts_with(']'));
    while let Some(first) = text[at..].chars().next() {
        let rest = &text[at..];
        if first == ']' {
            return Ok(&rest[1..]);
        }
        if ["&&", "--", "~~"].iter().any(|operation| rest.starts_with(operation)) {
            return Err(format!("`{}` inside [] is not in RE2's syntax", &rest[..2]));
        }
        at += match first {
            '[' => match rest.strip_prefix("[:").and_then(|named| named.find(":]")) {
                Some(end) => end + 4,
                None => return Err("`[` inside [] must be written `\\[`".to_owned()),
            },
            '\\' => 1 + rest[1..].chars().next().map_or(0, char::len_utf8),
            other => other.len_utf8(),
        };
    }
    Err("`[` has no `]`".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, text: &str) -> bool {
        let mut regexes = Regexes::new();
        let id = regexes.add(pattern).unwrap();
        regexes.matches(id, text.as_bytes(), &mut Caches::default())
    }

    #[test]
    fn a_pattern_matches_the_whole_text_or_not_at_all() {
        assert!(matches("/v[0-9]+/.*", "/v12/x"));
        assert!(!matches("/v[0-9]+", "/v12/x"));
        assert!(!matches("v[0-9]+", "/v12"));
        assert!(matches("a|ab", "ab"), "alternatives are tried until the end is reached");
        assert!(!matches("a$", "a\n"));
        assert!(matches("(?i)abc", "aBC"));
        assert!(matches(r"\d+", "12") && !matches(r"\d", "\u{663}"), "classes are ASCII");
        assert!(matches("", "") && !matches("", "x"));
    }

    #[test]
    fn what_re2_reads_differently_is_refused() {
        for pattern in [
            "[a&&b]",
            "[a--b]",
            "[a~~b]",
            "[[a]b]",
            r"\<a",
            r"a\>",
            r"\b{start}",
            "(?x)a",
            "(?u:a)",
            r"\u0041",
            "a)|(b",
        ] {
            assert!(Regexes::new().add(pattern).is_err(), "{pattern}");
        }
        for pattern in ["[[:alpha:]_]", r"[\[a]", "[]a]", "[^]a]", "(?P<n>a)", "(?s-i:.)", r"\bx\b", "[a-]", r"[\]-]"] {
            assert!(Regexes::new().add(pattern).is_ok(), "{pattern}: {:?}", Regexes::new().add(pattern).err());
        }
    }

    #[test]
    fn size_and_depth_are_bounded() {
        for pattern in ["a{1000}{1000}".to_owned(), "(".repeat(100) + &")".repeat(100), "x".repeat(5000)] {
            assert!(Regexes::new().add(&pattern).is_err(), "{}", &pattern[..12]);
        }
    }

    #[test]
    fn caches_of_another_plan_are_not_used() {
        let (mut one, mut two) = (Regexes::new(), Regexes::new());
        let (first, second) = (one.add("a+").unwrap(), two.add("(b|c)*d[^x]{3}").unwrap());
        let mut caches = Caches::default();
        assert!(one.matches(first, b"aaa", &mut caches));
        assert!(two.matches(second, b"bcbd___", &mut caches));
        assert!(!one.matches(first, b"b", &mut caches));
    }
}
