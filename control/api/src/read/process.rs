//! What belongs to the process: `limits`, `admin`, `access-log`, `cores`.

use std::{collections::HashSet, time::Duration};

use crate::{
    finding::{Findings, quoted},
    keys::{self, Keys, Words},
    model::{AccessLog, Address, Cores, Limits, LogFormat},
    tree::{Node, Value},
    values,
};

const LIMITS: Words = Words {
    what: "`limits`",
    known: &["connections", "head", "headers", "body", "request-timeout", "idle-timeout", "drain-timeout"],
    later: &[],
};
const ADMIN: Words = Words { what: "`admin`", known: &["address"], later: &["tls", "allow"] };
const ACCESS_LOG: Words = Words { what: "`access-log`", known: &["path", "format"], later: &[] };

/// Cores that a process can have (a service counts who waits for it in that many bits).
const MAX_CORES: u32 = 256;
/// CPUs that Linux can have in a mask of `sched_setaffinity` with its usual size (CPU_SETSIZE).
const MAX_CPUS: u32 = 1024;

/// Top-level `limits`.
pub(super) fn limits(node: &Node, findings: &mut Findings) -> Option<Limits> {
    let keys = Keys::open(node, &LIMITS, findings)?;
    let defaults = Limits::default();
    let mut count = |key: &str, most: u32, default: u32| {
        let read = |n: &Node, f: &mut Findings| values::number(n, &format!("`{key}`"), 1, most, f);
        keys.read(key, findings, read).unwrap_or(default)
    };
    let connections = count("connections", 10_000_000, defaults.connections);
    let headers = count("headers", 1000, defaults.headers);
    let mut timeout = |key: &str, default: Duration| keys.read(key, findings, values::duration).unwrap_or(default);
    Some(Limits {
        connections,
        headers,
        request_timeout: timeout("request-timeout", defaults.request_timeout),
        idle_timeout: timeout("idle-timeout", defaults.idle_timeout),
        drain_timeout: timeout("drain-timeout", defaults.drain_timeout),
        body_bytes: keys.read("body", findings, values::body_bytes),
        head_kib: keys.read("head", findings, values::head_kib).unwrap_or(defaults.head_kib),
    })
}

/// `admin`
pub(super) fn admin(node: &Node, file: &str, findings: &mut Findings) -> Option<Address> {
    let keys = Keys::open(node, &ADMIN, findings)?;
    keys.need(&["address"], "`admin`", findings);
    keys.read("address", findings, |n, f| values::listen_address(n, file, f))
}

/// `access-log`
pub(super) fn access_log(node: &Node, file: &str, findings: &mut Findings) -> Option<AccessLog> {
    let formats = [LogFormat::Json, LogFormat::Text].map(|format| (format.word(), format));
    let keys = Keys::open(node, &ACCESS_LOG, findings)?;
    keys.need(&["path"], "`access-log`", findings);
    let path = keys.read("path", findings, |n, f| values::file_path(n, file, f));
    let format = keys.read("format", findings, |n, f| keys::word(n, &formats, &[], f));
    Some(AccessLog { path: path?, format: format.unwrap_or_default() })
}

/// `cores`: `all`, a number, or a list of CPUs.
pub(super) fn cores(node: &Node, findings: &mut Findings) -> Option<Cores> {
    const FORM: &str = "`cores` is `all`, a number from 1 to 256, or a list of CPUs";
    match &node.value {
        Value::List(_) => cpus(node, findings).map(Cores::List),
        Value::Scalar { text, .. } if text == "all" => Some(Cores::All),
        Value::Scalar { text, .. } if text.bytes().all(|b| b.is_ascii_digit()) => {
            values::number(node, "`cores`", 1, MAX_CORES, findings).map(Cores::Count)
        }
        Value::Scalar { text, .. } => {
            findings.add(node.at, format!("{FORM}, not {}", quoted(text)));
            None
        }
        Value::Map(_) => {
            findings.add(node.at, format!("{FORM}, not a map"));
            None
        }
    }
}

fn cpus(node: &Node, findings: &mut Findings) -> Option<Vec<u32>> {
    let mut seen = HashSet::new();
    let mut list = Vec::new();
    for item in keys::some_items(node, "`cores`", MAX_CORES as usize, findings) {
        let Some(cpu) = values::number(item, "a CPU", 0, MAX_CPUS - 1, findings) else {
            continue;
        };
        if !seen.insert(cpu) {
            findings.add(item.at, format!("CPU {cpu} stands twice in `cores`"));
        }
        list.push(cpu);
    }
    Some(list)
}
