//! Single values of the language: texts, numbers, durations, sizes, addresses, names, paths, patterns. Each
//! function reads one, or says with its position what is wrong and what would be right.

mod address;
mod http;
mod regex;

use std::time::Duration;

pub(crate) use address::{EndpointAddress, endpoint, file_path, is_dns_name, listen_address};
pub(crate) use http::{header_name, header_value, host_name, is_host, method, path_match, path_target, rewrite_host};
pub(crate) use regex::pattern;

use crate::{
    finding::{Findings, quoted},
    tree::{Node, Value},
};

/// The longest body of a fixed answer, in bytes.
pub(crate) const MAX_BODY: u32 = 64 * 1024;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A text. Numbers and booleans without quotes are the text that was written.
pub(crate) fn text<'t>(node: &'t Node, findings: &mut Findings) -> Option<&'t str> {
    match &node.value {
        Value::Scalar { text, .. } if !node.is_null() => Some(text),
        Value::Scalar { .. } => {
            findings.add(node.at, "nothing is written here; write a text, or \"\" for an empty one");
            None
        }
        _ => {
            findings.add(node.at, format!("a text is wanted, not {}", node.kind()));
            None
        }
    }
}

/// `true` or `false`.
pub(crate) fn boolean(node: &Node, findings: &mut Findings) -> Option<bool> {
    crate::keys::word(node, &[("true", true), ("false", false)], &[], findings)
}

/// A whole number within bounds.
pub(crate) fn number(node: &Node, what: &str, least: u32, most: u32, findings: &mut Findings) -> Option<u32> {
    let wanted = || format!("{what} is a whole number from {least} to {most}");
    let Value::Scalar { text, .. } = &node.value else {
        findings.add(node.at, format!("{}, not {}", wanted(), node.kind()));
        return None;
    };
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    match text.parse::<u32>() {
        Ok(n) if digits && (least..=most).contains(&n) => Some(n),
        _ => {
            findings.add(node.at, format!("{}, not {}", wanted(), quoted(text)));
            None
        }
    }
}

/// A whole number with a unit, more than nothing and at most a day: `250ms`, `2s`, `1m`, `1h`.
pub(crate) fn duration(node: &Node, findings: &mut Findings) -> Option<Duration> {
    const FORM: &str = "a number and a unit, such as `250ms`, `2s`, `1m` or `1h`";
    let Value::Scalar { text, .. } = &node.value else {
        findings.add(node.at, format!("a duration is {FORM}, not {}", node.kind()));
        return None;
    };
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (count, unit) = text.split_at(digits);
    let unit_ms = match unit {
        "ms" => Some(1),
        "s" => Some(1000),
        "m" => Some(60 * 1000),
        "h" => Some(60 * 60 * 1000),
        _ => None,
    };
    if unit.is_empty() && digits > 0 {
        findings.add(node.at, format!("{} has no unit: write `{count}s` or `{count}ms`", quoted(text)));
        return None;
    }
    let (Some(unit_ms), true) = (unit_ms, digits > 0) else {
        findings.add(node.at, format!("a duration is {FORM}, not {}", quoted(text)));
        return None;
    };
    let milliseconds = count.parse::<u64>().ok().and_then(|n| n.checked_mul(unit_ms));
    match milliseconds.map(Duration::from_millis) {
        Some(duration) if !duration.is_zero() && duration <= DAY => Some(duration),
        _ => {
            findings.add(node.at, format!("a duration is from `1ms` to `24h`, not {}", quoted(text)));
            None
        }
    }
}

/// The largest head: whole KiB, as xDS counts, from 1 to 96.
pub(crate) fn head_kib(node: &Node, findings: &mut Findings) -> Option<u32> {
    const FORM: &str = "a size in whole KiB from `1KiB` to `96KiB`";
    let Value::Scalar { text, .. } = &node.value else {
        findings.add(node.at, format!("`head` is {FORM}, not {}", node.kind()));
        return None;
    };
    let count = text.strip_suffix("KiB").map(|count| (count, 1)).or_else(|| {
        // In MiB nothing fits, but the message should be about the size, not the unit.
        text.strip_suffix("MiB").map(|count| (count, 1024))
    });
    let kib = count.filter(|(count, _)| count.bytes().all(|b| b.is_ascii_digit()));
    let kib = kib.and_then(|(count, unit)| count.parse::<u32>().ok()?.checked_mul(unit));
    match kib {
        Some(kib @ 1..=96) => Some(kib),
        _ => {
            findings.add(node.at, format!("`head` is {FORM}, not {}", quoted(text)));
            None
        }
    }
}

/// The largest body: bytes with a unit, from 1 B to 1024 GiB.
pub(crate) fn body_bytes(node: &Node, findings: &mut Findings) -> Option<u64> {
    const FORM: &str = "a size from `1B` to `1024GiB`, such as `512KiB` or `10MiB`";
    const UNITS: [(&str, u64); 4] = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("B", 1)];
    let Value::Scalar { text, .. } = &node.value else {
        findings.add(node.at, format!("`body` is {FORM}, not {}", node.kind()));
        return None;
    };
    let count = UNITS.iter().find_map(|(unit, bytes)| text.strip_suffix(unit).map(|count| (count, *bytes)));
    let digits = count.filter(|(count, _)| count.bytes().all(|b| b.is_ascii_digit()));
    match digits.and_then(|(count, unit)| count.parse::<u64>().ok()?.checked_mul(unit)) {
        Some(bytes) if (1..=1 << 40).contains(&bytes) => Some(bytes),
        _ => {
            findings.add(node.at, format!("`body` is {FORM}, not {}", quoted(text)));
            None
        }
    }
}

/// A name that people choose, for listeners, services, routes: it stands in logs, labels and resource names.
pub(crate) fn name<'t>(text: &'t str, at: crate::finding::At, findings: &mut Findings) -> Option<&'t str> {
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"-_./".contains(&b);
    if !text.is_empty() && text.len() <= 128 && text.bytes().all(fits) {
        return Some(text);
    }
    let message = "a name is 1 to 128 letters, digits, `-`, `_`, `.` or `/`";
    findings.add(at, format!("{message}, not {}", quoted(text)));
    None
}

/// As [`name`], of a value.
pub(crate) fn name_node<'t>(node: &'t Node, findings: &mut Findings) -> Option<&'t str> {
    name(text(node, findings)?, node.at, findings)
}
