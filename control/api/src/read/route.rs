//! `routes`: the match, and what becomes of a request.

use std::{collections::HashSet, time::Duration};

use super::{Scope, cors, policy, quota, targets};
use crate::{
    finding::{At, Findings, quoted},
    keys::{self, Keys, Words},
    model::{Action, Forward, HeaderEdits, Match, PathMatch, PathTarget, Redirect, Respond, Retry, Route, ValueMatch},
    tree::{Node, Value},
    values,
};

const ROUTE: Words = Words {
    what: "a route",
    known: &[
        "name",
        "match",
        "to",
        "redirect",
        "respond",
        "timeout",
        "retry",
        "request-headers",
        "response-headers",
        "rewrite",
        "deny",
        "allow",
        "quota",
        "cors",
    ],
    later: &["mirror"],
};
const MATCH: Words =
    Words { what: "a match", known: &["path", "methods", "headers", "query"], later: &["source", "identity"] };
const VALUE: Words = Words { what: "a condition", known: &["present", "regex"], later: &[] };
const REDIRECT: Words = Words { what: "`redirect`", known: &["path", "status"], later: &[] };
const RESPOND: Words = Words { what: "`respond`", known: &["status", "body"], later: &[] };
const REWRITE: Words = Words { what: "`rewrite`", known: &["path", "host"], later: &[] };
const RETRY: Words = Words { what: "`retry`", known: &["retries", "on", "per-try-timeout"], later: &["budget"] };
const EDITS: Words = Words { what: "header edits", known: &["set", "add", "remove"], later: &[] };

/// Framing and hop-by-hop fields (RFC 9110, section 7.6.1; RFC 9112, section 6): the proxy's own to write.
const OWN_FIELDS: [&str; 12] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// One entry of `routes`; `position` stands in for a name.
pub(super) fn route(node: &Node, position: usize, scope: &Scope<'_>, findings: &mut Findings) -> Option<Route> {
    let keys = Keys::open(node, &ROUTE, findings)?;
    let name = keys.read("name", findings, values::name_node).map(str::to_owned);
    let before = findings.len();
    let matches = keys.read("match", findings, matches);
    // What depends on the path is not judged by a match that could not be read.
    let readable = before == findings.len();
    let matches = matches.unwrap_or_default();
    let path = readable.then_some(matches.path.as_ref());
    let action = action(&keys, path, scope, findings);
    let edits = |n: &Node, f: &mut Findings| edits(n, "`response-headers`", f);
    let response_headers = keys.read("response-headers", findings, edits).unwrap_or_default();
    let name = name.unwrap_or_else(|| position.to_string());
    let policy = policy::policy(&keys, policy::Words::Http, findings);
    let quotas = keys.read("quota", findings, |n, f| quota::quotas(n, scope, f)).unwrap_or_default();
    let cors = keys.read("cors", findings, cors::cors);
    if scope.cors.get() || keys.at("cors").is_some() {
        cors::leaves_no_edit(&keys, &response_headers, findings);
    }
    Some(Route { name, matches, action: action?, response_headers, policy, quotas, cors })
}

/// A match in one form: two routes with one canonical match take the same requests.
pub(super) fn canonical(of: &Match) -> Match {
    let mut same = of.clone();
    same.path = Some(same.path.unwrap_or(PathMatch::Prefix(String::new())));
    same.methods.sort();
    same.headers.sort_by(|a, b| a.0.cmp(&b.0));
    same.query.sort_by(|a, b| a.0.cmp(&b.0));
    same
}

/// `match`
fn matches(node: &Node, findings: &mut Findings) -> Option<Match> {
    let keys = Keys::open(node, &MATCH, findings)?;
    Some(Match {
        path: keys.read("path", findings, values::path_match),
        methods: keys.read("methods", findings, methods).unwrap_or_default(),
        headers: keys.read("headers", findings, headers).unwrap_or_default(),
        query: keys.read("query", findings, query).unwrap_or_default(),
    })
}

/// `methods`
pub(super) fn methods(node: &Node, findings: &mut Findings) -> Option<Vec<String>> {
    let mut list: Vec<String> = Vec::new();
    for item in keys::some_items(node, "`methods`", 32, findings) {
        let Some(method) = values::method(item, findings) else {
            continue;
        };
        if list.contains(&method) {
            findings.add(item.at, format!("`{method}` stands twice in `methods`"));
        } else {
            list.push(method);
        }
    }
    Some(list)
}

/// `headers` of a match.
pub(super) fn headers(node: &Node, findings: &mut Findings) -> Option<Vec<(String, ValueMatch)>> {
    let mut seen = HashSet::new();
    let mut list = Vec::new();
    for entry in keys::entries(node, "`headers`", findings) {
        let Some(name) = values::header_name(&entry.key, entry.at, findings) else {
            continue;
        };
        if !seen.insert(name.clone()) {
            findings.add(entry.at, format!("`{name}` stands twice in `headers`; case does not matter"));
        }
        let value = condition(&entry.node, |n, f| values::header_value(n, f), findings);
        list.extend(value.map(|value| (name, value)));
    }
    Some(list)
}

/// `query`
fn query(node: &Node, findings: &mut Findings) -> Option<Vec<(String, ValueMatch)>> {
    let mut list = Vec::new();
    for entry in keys::entries(node, "`query`", findings) {
        if entry.key.is_empty() || entry.key.len() > 256 || entry.key.chars().any(char::is_control) {
            findings.add(entry.at, "a query parameter's name has 1 to 256 bytes and no control characters");
            continue;
        }
        let value = condition(&entry.node, |n, f| values::text(n, f), findings);
        list.extend(value.map(|value| (entry.key.clone(), value)));
    }
    Some(list)
}

/// A text, `{ present: true }` or `{ regex: ... }`.
fn condition<'t>(
    node: &'t Node,
    text: impl FnOnce(&'t Node, &mut Findings) -> Option<&'t str>,
    findings: &mut Findings,
) -> Option<ValueMatch> {
    if !matches!(node.value, Value::Map(_)) {
        return text(node, findings).map(|text| ValueMatch::Exact(text.to_owned()));
    }
    let keys = Keys::open(node, &VALUE, findings)?;
    keys.need(VALUE.known, "a condition", findings);
    if keys.at("present").is_some() {
        keys.refuse(&["regex"], "stands beside `present`; a pattern needs the value to be present", findings);
    }
    let present = keys.read("present", findings, values::boolean).map(ValueMatch::Present);
    present.or_else(|| keys.read("regex", findings, values::pattern).map(ValueMatch::Regex))
}

/// Exactly one of `to`, `redirect` and `respond`. `path` is the match's, unless that could not be read.
fn action(
    keys: &Keys<'_>,
    path: Option<Option<&PathMatch>>,
    scope: &Scope<'_>,
    findings: &mut Findings,
) -> Option<Action> {
    const ACTIONS: [&str; 3] = ["to", "redirect", "respond"];
    const FORWARDING: [&str; 4] = ["request-headers", "rewrite", "timeout", "retry"];
    keys.need(&ACTIONS, "a route", findings);
    let mut present = ACTIONS.iter().filter_map(|key| keys.at(key).map(|at| (at, *key))).collect::<Vec<_>>();
    present.sort_unstable();
    let (_, first) = *present.first()?;
    for (at, key) in &present[1..] {
        findings
            .add(*at, format!("`{key}` stands beside `{first}`; a route has one of `to`, `redirect` and `respond`"));
    }
    if first != "to" {
        keys.refuse(&FORWARDING, &format!("has no effect beside `{first}`, as nothing is forwarded"), findings);
    }
    match first {
        "redirect" => keys.read("redirect", findings, |n, f| redirect(n, path, f)).map(Action::Redirect),
        "respond" => keys.read("respond", findings, respond).map(Action::Respond),
        _ => forward(keys, path, scope, findings).map(|f| Action::Forward(Box::new(f))),
    }
}

/// `redirect`
fn redirect(node: &Node, path: Option<Option<&PathMatch>>, findings: &mut Findings) -> Option<Redirect> {
    const STATUSES: [(&str, u16); 5] = [("301", 301), ("302", 302), ("303", 303), ("307", 307), ("308", 308)];
    let keys = Keys::open(node, &REDIRECT, findings)?;
    keys.need(&["path"], "a redirect", findings);
    let target = keys.read("path", findings, |n, f| target(n, path, f));
    let status = keys.read("status", findings, |n, f| keys::word(n, &STATUSES, &[], f));
    let loops = match (path.flatten(), &target) {
        (Some(PathMatch::Exact(from)), Some(PathTarget::Exact(to))) => from == to,
        (Some(PathMatch::Prefix(from)), Some(PathTarget::Prefix(to))) => from == to,
        _ => false,
    };
    if loops {
        findings.add(node.at, "this redirect leads back to its own route; `path` must be another");
    }
    Some(Redirect { path: target?, status: status.unwrap_or(302) })
}

/// The `path` of a redirect or rewrite: `/*` keeps what the `/*` of the match took.
fn target(node: &Node, path: Option<Option<&PathMatch>>, findings: &mut Findings) -> Option<PathTarget> {
    let target = values::path_target(node, findings)?;
    let rest = !matches!(path, Some(Some(PathMatch::Exact(_) | PathMatch::Regex(_))));
    if matches!(target, PathTarget::Prefix(_)) && !rest {
        let message = "`/*` here keeps what `/*` in `match` took, but that `path` does not end in `/*`";
        findings.add(node.at, message);
        return None;
    }
    Some(target)
}

/// `respond`
fn respond(node: &Node, findings: &mut Findings) -> Option<Respond> {
    let keys = Keys::open(node, &RESPOND, findings)?;
    let status = |n: &Node, f: &mut Findings| values::number(n, "`status`", 200, 599, f);
    let status = keys.read("status", findings, status).unwrap_or(200);
    let body = keys.read("body", findings, values::text).unwrap_or_default();
    let at = keys.at("body").unwrap_or(node.at);
    if body.len() > values::MAX_BODY as usize {
        findings.add(at, "`body` has at most 64 KiB");
    }
    let section = if status == 205 { "section 15.3.6" } else { "section 6.4.1" };
    if matches!(status, 204 | 205 | 304) && !body.is_empty() {
        findings.add(at, format!("an answer of status {status} has no body (RFC 9110, {section})"));
    }
    Some(Respond { status: u16::try_from(status).ok()?, body: body.to_owned() })
}

fn forward(
    keys: &Keys<'_>,
    path: Option<Option<&PathMatch>>,
    scope: &Scope<'_>,
    findings: &mut Findings,
) -> Option<Forward> {
    let to = keys.read("to", findings, |n, f| targets(n, scope, f));
    let timeout = keys.read("timeout", findings, values::duration);
    let edits = |n: &Node, f: &mut Findings| edits(n, "`request-headers`", f);
    let request_headers = keys.read("request-headers", findings, edits).unwrap_or_default();
    let rewrite = keys.read("rewrite", findings, |n, f| rewrite(n, path, f));
    let (rewrite_path, rewrite_host) = rewrite.unwrap_or_default();
    let retry = keys.read("retry", findings, |n, f| retry(n, timeout, f));
    Some(Forward { to: to?, request_headers, rewrite_path, rewrite_host, timeout, retry })
}

/// `rewrite`
fn rewrite(
    node: &Node,
    path: Option<Option<&PathMatch>>,
    findings: &mut Findings,
) -> Option<(Option<PathTarget>, Option<String>)> {
    let keys = Keys::open(node, &REWRITE, findings)?;
    keys.need(REWRITE.known, "`rewrite`", findings);
    let path = keys.read("path", findings, |n, f| target(n, path, f));
    Some((path, keys.read("host", findings, values::rewrite_host)))
}

/// `retry`
fn retry(node: &Node, timeout: Option<Duration>, findings: &mut Findings) -> Option<Retry> {
    let keys = Keys::open(node, &RETRY, findings)?;
    let retries = |n: &Node, f: &mut Findings| values::number(n, "`retries`", 1, 10, f);
    let retries = keys.read("retries", findings, retries).unwrap_or(1);
    keys.read("on", findings, causes);
    let per_try_timeout = keys.read("per-try-timeout", findings, values::duration);
    if let (Some(each), Some(all), Some(at)) = (per_try_timeout, timeout, keys.at("per-try-timeout"))
        && each > all
    {
        findings.add(at, "`per-try-timeout` is longer than the route's `timeout`, which bounds all tries together");
    }
    Some(Retry { retries, per_try_timeout })
}

/// `on` of a retry; there is one cause so far, which stands for an absent `on` too.
fn causes(node: &Node, findings: &mut Findings) -> Option<()> {
    const LATER: [&str; 2] = ["reset", "timeout"];
    for item in keys::some_items(node, "`on`", 16, findings) {
        match &item.value {
            // Statuses are the language's too.
            Value::Scalar { text, .. } if text.len() == 3 && text.bytes().all(|b| b.is_ascii_digit()) => {
                let message = format!("{} is not supported yet; write `connect-failure`", quoted(text));
                findings.add(item.at, message);
            }
            _ => {
                keys::word(item, &[("connect-failure", ())], &LATER, findings);
            }
        }
    }
    Some(())
}

/// `request-headers` and `response-headers`: each name stands in one place.
fn edits(node: &Node, what: &'static str, findings: &mut Findings) -> Option<HeaderEdits> {
    let keys = Keys::open(node, &EDITS, findings)?;
    let mut seen = HashSet::new();
    let mut edits = HeaderEdits::default();
    for key in ["set", "add"] {
        let Some(node) = keys.node(key, findings) else {
            continue;
        };
        for entry in keys::entries(node, &format!("`{key}`"), findings) {
            let name = editable(&entry.key, entry.at, what, &mut seen, findings);
            let value = values::header_value(&entry.node, findings);
            if let (Some(name), Some(value)) = (name, value) {
                let list = if key == "set" { &mut edits.set } else { &mut edits.add };
                list.push((name, value.to_owned()));
            }
        }
    }
    let remove = keys.node("remove", findings);
    for item in remove.map_or(&[][..], |n| keys::items(n, "`remove`", 1000, findings)) {
        let Some(text) = values::text(item, findings) else {
            continue;
        };
        edits.remove.extend(editable(text, item.at, what, &mut seen, findings));
    }
    Some(edits)
}

fn editable(key: &str, at: At, what: &str, seen: &mut HashSet<String>, findings: &mut Findings) -> Option<String> {
    let name = values::header_name(key, at, findings)?;
    if OWN_FIELDS.contains(&name.as_str()) {
        let hint = if name == "host" { "; write `rewrite: { host: ... }`" } else { "" };
        findings.add(at, format!("`{name}` belongs to the proxy and cannot be edited{hint}"));
        return None;
    }
    if !seen.insert(name.clone()) {
        findings.add(at, format!("`{name}` stands twice in {what}; one edit a header"));
        return None;
    }
    Some(name)
}
