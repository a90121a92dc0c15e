//! Walking a tree: maps with known keys, and lists. What is unknown, or not supported yet, is told with its
//! position; what has another shape than wanted too.

use crate::{
    finding::{At, Findings, nearest, quoted},
    tree::{Entry, Node, Value},
};

/// A map whose keys have been checked.
pub(crate) struct Keys<'t> {
    /// Where the map begins.
    pub(crate) at: At,
    entries: &'t [Entry],
}

/// The keys of one kind of map.
pub(crate) struct Words {
    /// What the map is, for messages: `a listener`.
    pub(crate) what: &'static str,
    /// The keys that may stand in it.
    pub(crate) known: &'static [&'static str],
    /// Keys that the language has and this version does not.
    pub(crate) later: &'static [&'static str],
}

impl<'t> Keys<'t> {
    /// Opens a map and checks its keys. A finding if it is no map.
    pub(crate) fn open(node: &'t Node, words: &Words, findings: &mut Findings) -> Option<Keys<'t>> {
        let Value::Map(entries) = &node.value else {
            let known = list_of(words.known);
            findings.add(node.at, format!("{} is a map with the keys {known}, not {}", words.what, node.kind()));
            return None;
        };
        for entry in entries {
            check_key(entry, words, findings);
        }
        Some(Keys { at: node.at, entries })
    }

    /// As [`Keys::open`]; keys that stand elsewhere in the language have their own message, which says where.
    pub(crate) fn open_but(
        node: &'t Node,
        words: &Words,
        elsewhere: &[(&str, &str)],
        findings: &mut Findings,
    ) -> Option<Keys<'t>> {
        let Value::Map(entries) = &node.value else {
            return Keys::open(node, words, findings);
        };
        for entry in entries {
            match elsewhere.iter().find(|(key, _)| *key == entry.key) {
                Some((key, why)) => findings.add(entry.at, format!("`{key}` {why}")),
                None => check_key(entry, words, findings),
            }
        }
        Some(Keys { at: node.at, entries })
    }

    /// The value of a key; `None` if it is absent. A key without a value is a finding.
    pub(crate) fn node(&self, key: &str, findings: &mut Findings) -> Option<&'t Node> {
        let entry = self.entries.iter().find(|e| e.key == key)?;
        if entry.node.is_null() {
            findings.add(entry.at, format!("`{key}` has no value; write one, or leave the key out"));
            return None;
        }
        Some(&entry.node)
    }

    /// Reads the value of a key; `None` if it is absent or wrong.
    pub(crate) fn read<T>(
        &self,
        key: &str,
        findings: &mut Findings,
        read: impl FnOnce(&'t Node, &mut Findings) -> Option<T>,
    ) -> Option<T> {
        let node = self.node(key, findings)?;
        read(node, findings)
    }

    /// Where a key stands, if it stands.
    pub(crate) fn at(&self, key: &str) -> Option<At> {
        self.entries.iter().find(|e| e.key == key).map(|e| e.at)
    }

    /// A finding for each of `keys` that stands here.
    pub(crate) fn refuse(&self, keys: &[&str], why: &str, findings: &mut Findings) {
        for key in keys {
            if let Some(at) = self.at(key) {
                findings.add(at, format!("`{key}` {why}"));
            }
        }
    }

    /// A finding if none of `keys` stands here.
    pub(crate) fn need(&self, keys: &[&str], what: &str, findings: &mut Findings) {
        if keys.iter().all(|key| self.at(key).is_none()) {
            findings.add(self.at, format!("{what} needs {}", list_or(keys)));
        }
    }
}

fn check_key(entry: &Entry, words: &Words, findings: &mut Findings) {
    let key = entry.key.as_str();
    if words.known.contains(&key) {
        return;
    }
    if words.later.contains(&key) {
        findings.add(entry.at, format!("`{key}` is not supported yet"));
        return;
    }
    if findings.is_full() {
        return findings.add(entry.at, "unknown key");
    }
    let all = words.known.iter().chain(words.later).copied();
    let hint = match nearest(key, all) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("it has {}", list_of(words.known)),
    };
    findings.add(entry.at, format!("unknown key {} in {}; {hint}", quoted(key), words.what));
}

/// The entries of a map with free keys, such as names. A finding if it is no map.
pub(crate) fn entries<'t>(node: &'t Node, what: &str, findings: &mut Findings) -> &'t [Entry] {
    match &node.value {
        Value::Map(entries) => entries,
        _ => {
            findings.add(node.at, format!("{what} is a map, not {}", node.kind()));
            &[]
        }
    }
}

/// The items of a list. A finding if it is none, or longer than `most`.
pub(crate) fn items<'t>(node: &'t Node, what: &str, most: usize, findings: &mut Findings) -> &'t [Node] {
    match &node.value {
        Value::List(items) if items.len() <= most => items,
        Value::List(items) => {
            findings.add(node.at, format!("{what} has {} entries; at most {most} are allowed", items.len()));
            &[]
        }
        _ => {
            findings.add(node.at, format!("{what} is a list, not {}", node.kind()));
            &[]
        }
    }
}

/// As [`items`], and empty is a finding too.
pub(crate) fn some_items<'t>(node: &'t Node, what: &str, most: usize, findings: &mut Findings) -> &'t [Node] {
    if matches!(&node.value, Value::List(items) if items.is_empty()) {
        findings.add(node.at, format!("{what} is empty; at least one entry is wanted"));
    }
    items(node, what, most, findings)
}

/// As [`some_items`]; what is no list is the only item.
pub(crate) fn one_or_items<'t>(node: &'t Node, what: &str, most: usize, findings: &mut Findings) -> &'t [Node] {
    match &node.value {
        Value::List(_) => some_items(node, what, most, findings),
        _ => std::slice::from_ref(node),
    }
}

/// One of a few words.
pub(crate) fn word<T: Copy>(node: &Node, words: &[(&str, T)], later: &[&str], findings: &mut Findings) -> Option<T> {
    let text = match &node.value {
        Value::Scalar { text, .. } => text.as_str(),
        _ => "",
    };
    if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
        return Some(*value);
    }
    let names: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
    let message = if later.contains(&text) {
        format!("`{text}` is not supported yet; write {}", list_or(&names))
    } else if text.is_empty() {
        format!("{} is wanted, not {}", list_or(&names), node.kind())
    } else {
        match nearest(text, names.iter().copied()) {
            Some(near) => format!("{} is not known here; did you mean `{near}`?", quoted(text)),
            None => format!("{} is not known here; write {}", quoted(text), list_or(&names)),
        }
    };
    findings.add(node.at, message);
    None
}

/// `a`, `b` and `c`
pub(crate) fn list_of(words: &[&str]) -> String {
    joined(words, "and")
}

/// `a`, `b` or `c`
pub(crate) fn list_or(words: &[&str]) -> String {
    joined(words, "or")
}

fn joined(words: &[&str], last: &str) -> String {
    match words {
        [] => String::new(),
        [one] => format!("`{one}`"),
        [most @ .., end] => format!("`{}` {last} `{end}`", most.join("`, `")),
    }
}
