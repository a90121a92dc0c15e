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

/// Reads `Error adding/updating listener(s) NAME: REASON`, as an Envoy writes it of listeners, each further one on a line of
/// its own, and of clusters, with commas between; it has taken the others. What begins with no such name goes on with the
/// last reason.
fn named(text: &str, was_sent: impl Fn(&str) -> bool) -> Vec<(&str, &str)> {
    const HEADS: [&str; 2] = ["Error adding/updating listener(s) ", "Error adding/updating cluster(s) "];
    let Some(list) = HEADS.iter().find_map(|head| text.strip_prefix(head)) else { return Vec::new() };
    let behind = |mark: &'static str| list.match_indices(mark).map(move |(at, _)| at + mark.len());
    let mut starts: Vec<usize> = std::iter::once(0).chain(behind("\n")).chain(behind(", ")).collect();
    starts.sort_unstable();
    let name = |at: usize| list[at..].split_once(": ").map(|(name, _)| name).filter(|name| was_sent(name));
    let starts: Vec<(usize, &str)> = starts.into_iter().filter_map(|at| Some((at, name(at)?))).collect();
    let ends = starts.iter().skip(1).map(|(at, _)| *at).chain([list.len()]);
    let one = |((at, name), end): (&(usize, &'_ str), usize)| {
        let reason = list[at + name.len() + 2..end].trim_end_matches(['\n', ',', ' ']);
        (&list[*at..at + name.len()], reason)
    };
    match starts.first() {
        Some((0, _)) => starts.iter().zip(ends).map(one).collect(),
        _ => Vec::new(),
    }
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
        let text = "Error adding/updating listener(s) web: no such filter: x\nin: bad address, and more\n";
        let wanted = pairs(&[("web", "no such filter: x"), ("in", "bad address, and more")]);
        assert_eq!(names(text, &["in", "out", "web"]), wanted);
        let text = "Error adding/updating cluster(s) a: no roots, none at all, b: x: y";
        assert_eq!(names(text, &["a", "b", "c"]), pairs(&[("a", "no roots, none at all"), ("b", "x: y")]));
    }

    #[test]
    fn a_text_that_names_nothing_that_was_sent_is_of_all() {
        for text in ["Error adding/updating listener(s) other: x", "web: x", ""] {
            assert_eq!(names(text, &["in", "web"]), pairs(&[("", text)]), "{text}");
            assert_eq!(names(text, &["web"]), pairs(&[("web", text)]), "{text}");
        }
    }
}
