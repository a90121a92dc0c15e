//! What an answer refuses, by name: as our own proxies say it, or out of the text of an Envoy.

use super::offer::LONGEST_NAME;
use crate::snapshot::Kind;
use api::envoy_types::pb::google::rpc::Status;
use api::{pb, xds};
use std::sync::Arc;

/// Refusals that are remembered of one answer.
const MOST_REFUSALS: usize = 64;

/// Why a client did not take a message.
#[derive(Clone, Debug, Default)]
pub(super) struct Refusal {
    message: String,
    details: Vec<pb::Rejected>,
}

impl Refusal {
    /// The `error_detail` of an answer.
    pub(super) fn read(status: Status) -> Refusal {
        let details = status.details.iter().filter_map(|detail| xds::decode(detail, xds::REJECTED).ok()).collect();
        Refusal { message: status.message, details }
    }

    /// What it refuses of the names that were sent: what it says in words of ours, or names in its text; else all that was
    /// in the message, under no name.
    pub(super) fn of(&self, kind: Kind, sent: &[Arc<str>], number: u64) -> Vec<pb::Rejected> {
        let rejected = |name: &str, field: &str, reason: &str| pb::Rejected {
            type_url: kind.type_url().to_owned(),
            name: cut(name),
            field: cut(field),
            reason: cut(reason),
            version: number.to_string(),
        };
        let was_sent = |name: &str| sent.iter().any(|sent| **sent == *name);
        let said = self.details.iter().filter(|one| one.type_url == kind.type_url() && was_sent(&one.name));
        let said = said.take(MOST_REFUSALS).map(|one| rejected(&one.name, &one.field, &one.reason));
        let said: Vec<pb::Rejected> = said.collect();
        if !said.is_empty() {
            return said;
        }
        let named = named(&self.message, was_sent);
        if !named.is_empty() {
            return named.into_iter().take(MOST_REFUSALS).map(|(name, reason)| rejected(name, "", reason)).collect();
        }
        let name = match sent {
            [one] => one,
            _ => "",
        };
        vec![rejected(name, "", &self.message)]
    }
}

fn cut(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(LONGEST_NAME).collect()
}

/// Reads `Error adding/updating listener(s) NAME: REASON`, each further one on a line of its own, as an Envoy writes it of
/// listeners and clusters; it has taken the others. A line that begins with no such name goes on with the last reason.
fn named<'t>(text: &'t str, was_sent: impl Fn(&str) -> bool) -> Vec<(&'t str, &'t str)> {
    const HEADS: [&str; 2] = ["Error adding/updating listener(s) ", "Error adding/updating cluster(s) "];
    let Some(list) = HEADS.iter().find_map(|head| text.strip_prefix(head)) else { return Vec::new() };
    let mut named: Vec<(&str, &str)> = Vec::new();
    for line in list.lines() {
        match line.split_once(": ").filter(|(name, _)| was_sent(name)) {
            Some(one) => named.push(one),
            // A reason of several lines: the first says what it is.
            None if !named.is_empty() => {}
            None => return Vec::new(),
        }
    }
    named
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(message: &str, sent: &[&str]) -> Vec<(String, String)> {
        let sent: Vec<Arc<str>> = sent.iter().map(|name| (*name).into()).collect();
        let refusal = Refusal { message: message.to_owned(), details: Vec::new() };
        refusal.of(Kind::Listener, &sent, 7).into_iter().map(|one| (one.name, one.reason)).collect()
    }

    fn pairs(of: &[(&str, &str)]) -> Vec<(String, String)> {
        of.iter().map(|(name, reason)| ((*name).to_owned(), (*reason).to_owned())).collect()
    }

    #[test]
    fn an_envoys_text_names_what_it_refuses() {
        let text = "Error adding/updating listener(s) web: no such filter: x\nin: bad address\n and more\n";
        assert_eq!(names(text, &["in", "out", "web"]), pairs(&[("web", "no such filter: x"), ("in", "bad address")]));
    }

    #[test]
    fn a_text_that_names_nothing_that_was_sent_is_of_all() {
        for text in ["Error adding/updating listener(s) other: x", "web: x", ""] {
            assert_eq!(names(text, &["in", "web"]), pairs(&[("", text)]), "{text}");
            assert_eq!(names(text, &["web"]), pairs(&[("web", text)]), "{text}");
        }
    }
}
