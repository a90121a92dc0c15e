//! `daemon`: a proxy whose configuration comes from a control daemon. Its file has what belongs to the process alone.

use std::collections::HashSet;

use crate::{
    finding::Findings,
    keys::{self, Keys, Words},
    model::{Address, Daemon},
    tree::Node,
    values::{self, EndpointAddress},
};

const DAEMON: Words = Words { what: "`daemon`", known: &["addresses", "token", "state"], later: &[] };
/// Limits of the process; those of requests are the group's.
const LIMITS: [&str; 2] = ["connections", "drain-timeout"];

/// As many as a token can carry.
const MOST_ADDRESSES: usize = 16;

/// Top-level `daemon`, and that nothing stands beside it that the daemon says.
pub(super) fn daemon(document: &Keys<'_>, file: &str, findings: &mut Findings) -> Option<Daemon> {
    let node = document.node("daemon", findings)?;
    let beside = |what: &str| format!("stands beside `daemon`, {what}");
    let why =
        beside("which sends the proxy its configuration; write it in the daemon's document, in the proxy's group");
    document.refuse(&["listeners", "services"], &why, findings);
    let why = beside("which gives the proxy its certificate when it joins; leave it out");
    document.refuse(&["identity"], &why, findings);
    let limits = document.node("limits", findings).map(|node| &node.value);
    if let Some(crate::tree::Value::Map(entries)) = limits {
        let why = beside("and is a limit of requests; write it in the `limits` of the proxy's group");
        for entry in entries.iter().filter(|entry| !LIMITS.contains(&entry.key.as_str())) {
            findings.add(entry.at, format!("{} {why}", crate::finding::quoted(&entry.key)));
        }
    }
    let keys = Keys::open(node, &DAEMON, findings)?;
    keys.need(&["state"], "`daemon`", findings);
    let addresses = keys.read("addresses", findings, |n, f| addresses(n, file, f)).unwrap_or_default();
    let token = keys.read("token", findings, |n, f| values::file_path(n, file, f));
    let state = keys.read("state", findings, |n, f| values::file_path(n, file, f));
    Some(Daemon { addresses, token, state: state? })
}

fn addresses(node: &Node, file: &str, findings: &mut Findings) -> Option<Vec<String>> {
    let mut seen = HashSet::new();
    let mut list = Vec::new();
    for item in keys::some_items(node, "`addresses`", MOST_ADDRESSES, findings) {
        let address = match values::endpoint(item, file, findings) {
            Some(EndpointAddress::Address(Address::Socket(socket))) => socket.to_string(),
            Some(EndpointAddress::Name(name)) => format!("{}:{}", name.name, name.port),
            Some(EndpointAddress::Address(Address::Unix(_))) => {
                findings.add(item.at, "a daemon is at `host:port`, not at a unix socket");
                continue;
            }
            None => continue,
        };
        if !seen.insert(address.clone()) {
            findings.add(item.at, format!("`{address}` stands twice in `addresses`"));
        }
        list.push(address);
    }
    Some(list)
}
