//! What a rule asks: of the request, and of who sent it.

use super::ListKind;
use crate::decide::Request;
use crate::matcher::{FieldMatch, Methods, Test};
use crate::networks::Networks;
use crate::{Plan, peer};
use std::net::IpAddr;

pub(crate) use crate::matcher::Scratch;

/// A condition, which holds or does not.
#[derive(Debug)]
pub(crate) enum Condition {
    /// Of everybody.
    Any,
    /// All of these.
    All(Box<[Condition]>),
    /// At least one of these.
    One(Box<[Condition]>),
    Not(Box<Condition>),
    Methods(Methods),
    /// Of the path, normalised and without its query.
    Path(Test),
    Field(FieldMatch),
    /// Of the peer's SPIFFE ID. Without one it does not hold.
    Identity(Test),
    /// Of the client's address, as far as it can be trusted.
    Source(Networks),
    /// Of the socket's address.
    Peer(Networks),
}

/// A request while it is asked about. What takes work to find out is found out once, and only when a rule needs it.
pub(crate) struct Asked<'a> {
    pub(crate) request: &'a Request<'a>,
    trusted_hops: u32,
    source: Option<Option<IpAddr>>,
}

impl<'a> Asked<'a> {
    pub(crate) fn new(request: &'a Request<'a>, trusted_hops: u32) -> Asked<'a> {
        Asked { request, trusted_hops, source: None }
    }

    /// The client's address, as far as it can be trusted.
    pub(crate) fn source(&mut self) -> Option<IpAddr> {
        *self.source.get_or_insert_with(|| peer::source(self.request, self.trusted_hops))
    }
}

impl Condition {
    /// Whether it holds of a request.
    ///
    /// A field may stand there several times, and whoever takes the request may read any of the lines, or all as one.
    /// So a rule that lets pass must hold of every reading, and a rule that refuses holds when it does of any.
    pub(crate) fn holds(&self, list: ListKind, plan: &Plan, asked: &mut Asked<'_>, scratch: &mut Scratch) -> bool {
        let test =
            |test: &Test, value: &[u8], scratch: &mut Scratch| test.holds(value, &plan.regexes, &mut scratch.caches);
        let request = asked.request;
        match self {
            Condition::Any => true,
            Condition::All(all) => all.iter().all(|one| one.holds(list, plan, asked, scratch)),
            Condition::One(any) => any.iter().any(|one| one.holds(list, plan, asked, scratch)),
            Condition::Not(inner) => !inner.holds(list.opposite(), plan, asked, scratch),
            Condition::Methods(methods) => methods.matches(request),
            Condition::Path(path) => test(path, request.path, scratch),
            Condition::Field(field) => field.holds_of_lines(list == ListKind::Allow, request, &plan.regexes, scratch),
            Condition::Identity(identity) => {
                request.peer.identity.is_some_and(|value| test(identity, value.as_bytes(), scratch))
            }
            Condition::Source(networks) => asked.source().is_some_and(|address| networks.allows(address)),
            Condition::Peer(networks) => request.peer.direct.is_some_and(|address| networks.allows(address)),
        }
    }

    /// What it takes to find out, roughly: the cheap words of a rule are asked first.
    fn cost(&self) -> u32 {
        match self {
            Condition::Any => 0,
            Condition::Methods(_) => 1,
            Condition::Peer(_) => 2,
            Condition::Identity(test) | Condition::Path(test) => 3 + test.cost(),
            Condition::Source(_) => 6,
            Condition::Field(field) => 10 + field.test.cost(),
            Condition::Not(inner) => inner.cost(),
            Condition::All(inner) | Condition::One(inner) => inner.iter().map(Condition::cost).sum(),
        }
    }

    /// All of these, as plainly as it can be said.
    pub(crate) fn all(conditions: Vec<Condition>) -> Condition {
        let mut flat = Vec::new();
        for condition in conditions {
            match condition {
                Condition::Any => {}
                Condition::All(inner) => flat.extend(inner),
                other => flat.push(other),
            }
        }
        flat.sort_by_key(Condition::cost);
        match flat.len() {
            0 => Condition::Any,
            1 => flat.remove(0),
            _ => Condition::All(flat.into()),
        }
    }

    /// One of these, as plainly as it can be said. Of none: nothing.
    pub(crate) fn one(conditions: Vec<Condition>) -> Condition {
        if conditions.iter().any(|one| matches!(one, Condition::Any)) {
            return Condition::Any;
        }
        let mut flat = Vec::new();
        for condition in conditions {
            match condition {
                Condition::One(inner) => flat.extend(inner),
                other => flat.push(other),
            }
        }
        flat.sort_by_key(Condition::cost);
        match flat.len() {
            1 => flat.remove(0),
            _ => Condition::One(flat.into()),
        }
    }
}
