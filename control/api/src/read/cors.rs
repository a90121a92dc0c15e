//! `cors`: what pages of other origins may do from within a browser (the Fetch standard, section 3.3).

use std::time::Duration;

use crate::{
    finding::{Findings, quoted},
    keys::{self, Keys, Words},
    model::{Cors, HeaderEdits},
    tree::Node,
    values,
};

const CORS: Words =
    Words { what: "`cors`", known: &["origins", "methods", "headers", "expose", "credentials", "max-age"], later: &[] };

const MAX_ORIGINS: usize = 1000;
/// Names in one word: they stand in every answer.
const MAX_NAMES: usize = 100;

/// `cors`
pub(super) fn cors(node: &Node, findings: &mut Findings) -> Option<Cors> {
    let keys = Keys::open(node, &CORS, findings)?;
    keys.need(&["origins"], "`cors`", findings);
    let credentials = keys.read("credentials", findings, values::boolean).unwrap_or(false);
    let mut list = |key: &str, most: usize, read: &dyn Fn(&Node, &mut Findings) -> Option<String>| {
        let Some(node) = keys.node(key, findings) else { return Vec::new() };
        let items = keys::one_or_items(node, &format!("`{key}`"), most, findings);
        let mut list: Vec<String> = Vec::new();
        for item in items {
            let Some(value) = read(item, findings) else { continue };
            if credentials && value == "*" {
                let message = format!("`*` in `{key}` does not go with `credentials: true`; name what is meant");
                findings.add(item.at, message);
            } else if list.contains(&value) {
                findings.add(item.at, format!("{} stands twice in `{key}`", quoted(&value)));
            } else {
                list.push(value);
            }
        }
        list
    };
    let origins = list("origins", MAX_ORIGINS, &origin);
    let methods = list("methods", MAX_NAMES, &|n, f| star(n).or_else(|| values::method(n, f)));
    let headers = list("headers", MAX_NAMES, &|n, f| star(n).or_else(|| name(n, f)));
    let expose = list("expose", MAX_NAMES, &|n, f| star(n).or_else(|| name(n, f)));
    let max_age = keys.read("max-age", findings, whole_seconds);
    (!origins.is_empty()).then_some(Cors { origins, methods, headers, expose, credentials, max_age })
}

/// What `cors` writes cannot be written otherwise too: browsers refuse two.
pub(super) fn leaves_no_edit(keys: &Keys<'_>, edits: &HeaderEdits, findings: &mut Findings) {
    let written = edits.set.iter().chain(&edits.add).map(|(name, _)| name).chain(&edits.remove);
    let at = keys.at("response-headers").unwrap_or(keys.at);
    for name in written.filter(|name| name.starts_with("access-control-")) {
        findings.add(at, format!("`{name}` is what `cors` writes; leave one of the two out"));
    }
}

fn star(node: &Node) -> Option<String> {
    use crate::tree::Value;
    matches!(&node.value, Value::Scalar { text, .. } if text == "*").then(|| "*".to_owned())
}

fn name(node: &Node, findings: &mut Findings) -> Option<String> {
    values::header_name(values::text(node, findings)?, node.at, findings)
}

/// An origin as browsers write it (RFC 6454, section 6.2): no path, no port that the scheme has anyhow, lower case.
fn origin(node: &Node, findings: &mut Findings) -> Option<String> {
    let text = values::text(node, findings)?;
    if text == "*" {
        return Some("*".to_owned());
    }
    match origin_fault(text) {
        None => Some(text.to_owned()),
        Some(wrong) => {
            let form = "an origin is `https://a.example.com`, `https://*.example.com` or `*`";
            findings.add(node.at, format!("{form}, not {}: {wrong}", quoted(text)));
            None
        }
    }
}

fn origin_fault(text: &str) -> Option<&'static str> {
    let Some((scheme, rest)) = text.split_once("://") else {
        return Some("it begins with a scheme");
    };
    let is_scheme = scheme.starts_with(|c: char| c.is_ascii_lowercase())
        && scheme.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"+-.".contains(&b));
    if !is_scheme || text.bytes().any(|b| b.is_ascii_uppercase()) {
        return Some("browsers write it in lower case");
    }
    if rest.contains(['/', '?', '#', '@']) {
        return Some("it ends with the host or port, without a slash");
    }
    let (host, port) = match rest.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (rest, None),
    };
    match (scheme, port) {
        ("https", Some("443")) | ("http", Some("80")) => return Some("browsers leave this port out"),
        (_, Some(port)) if !port.parse::<u16>().is_ok_and(|p| p != 0) || port.starts_with(['0', '+']) => {
            return Some("its port is none");
        }
        _ => {}
    }
    let whole = host.strip_prefix("*.").unwrap_or(host);
    (!values::is_host(whole)).then_some("its host is none")
}

/// `max-age`
fn whole_seconds(node: &Node, findings: &mut Findings) -> Option<Duration> {
    let age = values::duration(node, findings)?;
    if age.subsec_nanos() > 0 {
        findings.add(node.at, "`max-age` is in whole seconds, such as `10m`");
        return None;
    }
    Some(age)
}
