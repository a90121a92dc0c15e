//! HTTP's own values: host names, methods, field names and values, paths.

use super::{pattern, text};
use crate::{
    finding::{Findings, nearest, quoted},
    keys::{Keys, Words},
    model::{PathMatch, PathTarget},
    tree::{Node, Value},
};

/// The longest path in a document, in bytes.
const MAX_PATH: usize = 4096;
/// The longest value of a field that is set, matched or added, in bytes.
const MAX_VALUE: usize = 8192;

/// `tchar` of RFC 9110, section 5.6.2.
fn is_token(text: &str) -> bool {
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    !text.is_empty() && text.len() <= 256 && text.bytes().all(fits)
}

/// A host of `hosts`: exact, `*.suffix` or `*`, in lower case.
pub(crate) fn host_name(node: &Node, findings: &mut Findings) -> Option<String> {
    let text = text(node, findings)?;
    let name = text.to_ascii_lowercase();
    if name == "*" || is_host(name.strip_prefix("*.").unwrap_or(&name)) && name != "*.*" {
        return Some(name);
    }
    let hint = match name.rsplit_once(':') {
        Some((host, port)) if is_host(host) && port.parse::<u16>().is_ok() => {
            format!("; ports are ignored: write `{host}`")
        }
        _ if name.ends_with('.') => "; leave out the last dot".to_owned(),
        _ if name.contains('*') => "; `*` stands alone or first, before a dot".to_owned(),
        _ => String::new(),
    };
    findings.add(node.at, format!("a host name is a name, `*.suffix` or `*`, not {}{hint}", quoted(text)));
    None
}

/// A DNS name, an IPv4 address or an IPv6 address in brackets.
pub(crate) fn is_host(name: &str) -> bool {
    let v6 = name.strip_prefix('[').and_then(|n| n.strip_suffix(']'));
    match v6 {
        Some(v6) => v6.parse::<std::net::Ipv6Addr>().is_ok(),
        None => super::address::is_dns_name(name),
    }
}

/// The host that a service is to see; it may have a port.
pub(crate) fn rewrite_host(node: &Node, findings: &mut Findings) -> Option<String> {
    let text = text(node, findings)?;
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    };
    if is_host(host) && port.is_none_or(|p| p.parse::<u16>().is_ok_and(|p| p != 0)) {
        return Some(text.to_owned());
    }
    findings.add(node.at, format!("a host is `name` or `name:port`, not {}", quoted(text)));
    None
}

/// A method: capital letters, as all registered ones are (RFC 9110, section 16.1.1).
pub(crate) fn method(node: &Node, findings: &mut Findings) -> Option<String> {
    const USUAL: [&str; 8] = ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"];
    let text = text(node, findings)?;
    if text == "CONNECT" {
        findings.add(node.at, "`CONNECT` is refused by every listener and cannot be matched");
        return None;
    }
    let fits = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'-' || b == b'_';
    if (1..=32).contains(&text.len()) && text.bytes().all(fits) {
        return Some(text.to_owned());
    }
    let hint = nearest(text, USUAL).map(|m| format!("; did you mean `{m}`?")).unwrap_or_default();
    findings.add(node.at, format!("a method is a word in capitals, not {}{hint}", quoted(text)));
    None
}

/// A field name as a key, in lower case.
pub(crate) fn header_name(key: &str, at: crate::finding::At, findings: &mut Findings) -> Option<String> {
    if is_token(key) {
        return Some(key.to_ascii_lowercase());
    }
    findings.add(at, format!("{} is no header name (RFC 9110, section 5.1)", quoted(key)));
    None
}

/// A field value: no control characters, no space at either end (RFC 9110, section 5.5).
pub(crate) fn header_value<'t>(node: &'t Node, findings: &mut Findings) -> Option<&'t str> {
    let text = text(node, findings)?;
    let wrong = if text.chars().any(|c| c.is_control() && c != '\t') {
        "a header value has no line breaks and no control characters"
    } else if text.trim_matches([' ', '\t']) != text {
        "a header value has no space at its ends"
    } else if text.len() > MAX_VALUE {
        "a header value has at most 8192 bytes"
    } else {
        return Some(text);
    };
    findings.add(node.at, wrong);
    None
}

/// `path` of a match: exact, `/x/*`, or `{ regex: ... }`.
pub(crate) fn path_match(node: &Node, findings: &mut Findings) -> Option<PathMatch> {
    const WORDS: Words = Words { what: "a path", known: &["regex"], later: &[] };
    if matches!(node.value, Value::Map(_)) {
        let keys = Keys::open(node, &WORDS, findings)?;
        keys.need(&["regex"], "a path", findings);
        return keys.read("regex", findings, pattern).map(PathMatch::Regex);
    }
    Some(match path_target(node, findings)? {
        PathTarget::Exact(path) => PathMatch::Exact(path),
        PathTarget::Prefix(path) => PathMatch::Prefix(path),
    })
}

/// A path, exact or with `/*` at its end.
pub(crate) fn path_target(node: &Node, findings: &mut Findings) -> Option<PathTarget> {
    let text = text(node, findings)?;
    let (path, wild) = match text.strip_suffix("/*") {
        Some(path) => (path, true),
        None => (text, false),
    };
    if let Some(wrong) = path_fault(path, wild) {
        findings.add(node.at, format!("{wrong}, unlike {}", quoted(text)));
        return None;
    }
    Some(if wild { PathTarget::Prefix(path.to_owned()) } else { PathTarget::Exact(path.to_owned()) })
}

/// Paths are normalised before they are matched, so one that is not in normal form could never match.
fn path_fault(path: &str, wild: bool) -> Option<&'static str> {
    let rooted = path.starts_with('/') || (wild && path.is_empty());
    let segments = || path.split('/').skip(1);
    // RFC 3986, section 3.3: pchar, without `*`, which has a meaning of its own here.
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"/-._~!$&'()+,;=:@%".contains(&b);
    Some(match () {
        () if !rooted => "a path begins with `/`",
        () if path.contains('*') => "`*` stands only at the end of a path, after a slash (or write `{ regex: ... }`)",
        () if path.contains(['?', '#']) => "a path has no `?` and no `#`; `query` matches the query",
        () if !path.bytes().all(fits) => "a path has the characters of RFC 3986 only, others as %XX",
        () if path.contains("//") || (wild && path.ends_with('/')) => {
            "a path has no `//`: slashes are merged before matching"
        }
        () if segments().any(|s| s == "." || s == "..") => {
            "a path has no `.` or `..` segment: they are resolved before matching"
        }
        () if path.len() > MAX_PATH => "a path has at most 4096 bytes",
        () => return escape_fault(path),
    })
}

/// `%XX` must be an escape that normalisation leaves: neither needless nor refused.
fn escape_fault(path: &str) -> Option<&'static str> {
    for part in path.split('%').skip(1) {
        let byte = part.get(..2).and_then(|hex| {
            let digits = hex.bytes().all(|b| b.is_ascii_hexdigit());
            digits.then(|| u8::from_str_radix(hex, 16).ok()).flatten()
        });
        match byte {
            None => return Some("`%` in a path is followed by two hex digits"),
            Some(b'/' | b'\\' | 0) => {
                return Some("requests with %2F, %5C or %00 are refused, so no path has them");
            }
            Some(b) if b.is_ascii_alphanumeric() || b"-._~".contains(&b) => {
                return Some("a path has letters, digits, `-`, `.`, `_` and `~` as they are, not as %XX");
            }
            Some(_) => {}
        }
    }
    None
}
