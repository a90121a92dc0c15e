//! `quota`: how many requests, and whose.

use std::{collections::HashMap, time::Duration};

use super::Scope;
use crate::{
    finding::{At, Findings, quoted},
    keys::{self, Keys, Words},
    model::{PerClient, Quota},
    tree::{Node, Value},
    values,
};

const QUOTA: Words =
    Words { what: "a quota", known: &["name", "requests", "burst", "per", "clients"], later: &["dry-run"] };
const PER: Words = Words { what: "`per`", known: &["header"], later: &[] };

/// How many a listener may have, and a route beside them.
const MAX_QUOTAS: usize = 2;
const MAX_REQUESTS: u32 = 10_000_000;
/// A bucket that takes longer to fill is meant otherwise.
const MAX_FILLING: Duration = Duration::from_secs(30 * 24 * 60 * 60);
const MAX_CLIENTS: u32 = 1_000_000;
const DEFAULT_CLIENTS: u32 = 65_536;
/// Clients of all quotas of a document; each one costs some bytes.
const MAX_ALL_CLIENTS: u64 = 16 * 1024 * 1024;

/// `quota`, one or several.
pub(super) fn quotas(node: &Node, scope: &Scope<'_>, findings: &mut Findings) -> Option<Vec<Quota>> {
    let mut names: HashMap<String, At> = HashMap::new();
    let mut quotas = Vec::new();
    for (position, item) in keys::one_or_items(node, "`quota`", MAX_QUOTAS, findings).iter().enumerate() {
        let Some(quota) = quota(item, position + 1, scope, findings) else { continue };
        if let Some(first) = names.insert(quota.name.clone(), item.at) {
            let message = format!("{} is the name of the quota in line {} already", quoted(&quota.name), first.line);
            findings.add(item.at, message);
        }
        quotas.push(quota);
    }
    Some(quotas)
}

fn quota(node: &Node, position: usize, scope: &Scope<'_>, findings: &mut Findings) -> Option<Quota> {
    let keys = Keys::open(node, &QUOTA, findings)?;
    keys.need(&["requests"], "a quota", findings);
    let name = keys.read("name", findings, values::name_node).map(str::to_owned);
    let rate = keys.read("requests", findings, rate);
    let burst = |n: &Node, f: &mut Findings| values::number(n, "`burst`", 1, MAX_REQUESTS, f);
    let burst = keys.read("burst", findings, burst).or(rate.map(|(requests, _)| requests));
    let per = keys.read("per", findings, |n, f| per(n, scope, f));
    let clients = |n: &Node, f: &mut Findings| values::number(n, "`clients`", 1, MAX_CLIENTS, f);
    let clients = keys.read("clients", findings, clients).unwrap_or(DEFAULT_CLIENTS);
    if keys.at("per").is_none() {
        keys.refuse(&["clients"], "has no effect without `per`: all clients share one count", findings);
    } else {
        let all = scope.clients.get().saturating_add(u64::from(clients));
        scope.clients.set(all);
        if all > MAX_ALL_CLIENTS {
            let at = keys.at("clients").unwrap_or(node.at);
            findings.add(
                at,
                format!(
                    "the quotas up to here remember {all} clients; {MAX_ALL_CLIENTS} are allowed, so lower `clients`"
                ),
            );
        }
    }
    let (requests, period) = rate?;
    let burst = burst?;
    if period.saturating_mul(burst) > MAX_FILLING.saturating_mul(requests) {
        let at = keys.at("burst").unwrap_or(node.at);
        findings.add(at, "at this rate a `burst` of so many is back after more than 30 days; write a smaller one");
    }
    Some(Quota {
        name: name.unwrap_or_else(|| position.to_string()),
        requests,
        period,
        burst,
        clients: if per.is_some() { clients } else { 1 },
        per,
    })
}

/// `requests`: a number and a time.
fn rate(node: &Node, findings: &mut Findings) -> Option<(u32, Duration)> {
    const FORM: &str = "`requests` is a number and a time, such as `100/s`, `60/m` or `1000/h`";
    let Value::Scalar { text, .. } = &node.value else {
        findings.add(node.at, format!("{FORM}, not {}", node.kind()));
        return None;
    };
    let (count, unit) = text.split_once('/').unwrap_or((text, ""));
    let seconds = match unit {
        "s" => Some(1),
        "m" => Some(60),
        "h" => Some(60 * 60),
        _ => None,
    };
    let digits = !count.is_empty() && count.bytes().all(|b| b.is_ascii_digit());
    let (Some(seconds), true) = (seconds, digits) else {
        findings.add(node.at, format!("{FORM}, not {}", quoted(text)));
        return None;
    };
    match count.parse::<u32>() {
        Ok(requests @ 1..=MAX_REQUESTS) => Some((requests, Duration::from_secs(seconds))),
        _ => {
            findings.add(node.at, format!("`requests` is from 1 to {MAX_REQUESTS}, not {}", quoted(text)));
            None
        }
    }
}

/// `per`
fn per(node: &Node, scope: &Scope<'_>, findings: &mut Findings) -> Option<PerClient> {
    if matches!(node.value, Value::Map(_)) {
        let keys = Keys::open(node, &PER, findings)?;
        keys.need(&["header"], "`per`", findings);
        let name = |n: &Node, f: &mut Findings| values::header_name(values::text(n, f)?, n.at, f);
        return keys.read("header", findings, name).map(PerClient::Header);
    }
    let is_header = matches!(&node.value, Value::Scalar { text, .. } if text == "header");
    if is_header {
        findings.add(node.at, "`header` has a name: write `per: { header: x-key }`");
        return None;
    }
    let is_identity = keys::word(node, &[("identity", true), ("source", false)], &[], findings)?;
    let per = if is_identity { PerClient::Identity } else { PerClient::Source };
    if per == PerClient::Identity && !scope.identities.get() {
        let message = "`per: identity` counts nobody: without `tls` and `clients` no client shows a certificate";
        findings.add(node.at, message);
    }
    Some(per)
}
