//! SPIFFE IDs and patterns: an ID, a line end, a pattern. What is an ID is a pattern that matches nothing else, and a pattern
//! matches as one reads it, segment by segment.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wire::spiffe::{Pattern, SpiffeId};

fuzz_target!(|text: &str| {
    let (id, pattern) = text.split_once('\n').unwrap_or((text, text));
    if let Ok(id) = SpiffeId::parse(id) {
        let domain = id.trust_domain();
        let path = id.as_str().strip_prefix("spiffe://").and_then(|rest| rest.strip_prefix(domain));
        assert!(path.is_some_and(|path| path.is_empty() || path.starts_with('/') && path.len() > 1));
        assert!(!domain.is_empty() && !domain.contains(['/', '*', '%', ':', '@']));
        assert!(id.as_str().bytes().all(|byte| byte.is_ascii_graphic()));
        let own = Pattern::parse(id.as_str()).expect("an ID is a pattern");
        assert!(own.is_exact() && own.matches(id.as_str()) && own.prefix().is_none());
        if let Ok(pattern) = Pattern::parse(pattern) {
            assert_eq!(pattern.matches(id.as_str()), fits(pattern.as_str(), id.as_str()), "{pattern:?} {id:?}");
            assert!(!pattern.is_exact() || pattern.matches(id.as_str()) == (pattern.as_str() == id.as_str()));
        }
    } else if let Ok(pattern) = Pattern::parse(id) {
        assert!(!pattern.is_exact(), "a pattern without stars is an ID: {pattern:?}");
    }
});

/// Segment by segment.
fn fits(pattern: &str, id: &str) -> bool {
    let (pattern, id): (Vec<&str>, Vec<&str>) = (pattern.split('/').collect(), id.split('/').collect());
    let (pattern, long) = match pattern.split_last() {
        Some((&"**", before)) => (before, true),
        _ => (&pattern[..], false),
    };
    let enough = if long { id.len() > pattern.len() } else { id.len() == pattern.len() };
    enough && pattern.iter().zip(&id).all(|(wanted, got)| *wanted == "*" || wanted == got)
}
