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
    #[inline(always)]
    pub(crate) fn holds(&self, list: ListKind, plan: &Plan, asked: &mut Asked<'_>, scratch: &mut Scratch) -> bool {
        // As a rule, a rule is a few plain words: they are looked at here, without a call for each.
        let words = match self {
            Condition::All(words) => words,
            word => std::slice::from_ref(word),
        };
        let request = asked.request;
        for word in words {
            let holds = match word {
                Condition::Any => true,
                Condition::Methods(methods) => methods.matches(request),
                Condition::Path(path) => path.holds(request.path, &plan.regexes, &mut scratch.caches),
                Condition::Identity(identity) => request
                    .peer
                    .identity
                    .is_some_and(|value| identity.holds(value.as_bytes(), &plan.regexes, &mut scratch.caches)),
                Condition::Source(networks) => asked.source().is_some_and(|address| networks.allows(address)),
                Condition::Peer(networks) => request.peer.direct.is_some_and(|address| networks.allows(address)),
                composed => composed.holds_composed(list, plan, asked, scratch),
            };
            if !holds {
                return false;
            }
        }
        true
    }

    #[inline(never)]
    fn holds_composed(&self, list: ListKind, plan: &Plan, asked: &mut Asked<'_>, scratch: &mut Scratch) -> bool {
        match self {
            Condition::One(any) => any.iter().any(|one| one.holds(list, plan, asked, scratch)),
            Condition::Not(inner) => !inner.holds(list.opposite(), plan, asked, scratch),
            Condition::Field(field) => {
                field.holds_of_lines(list == ListKind::Allow, asked.request, &plan.regexes, scratch)
            }
            plain => plain.holds(list, plan, asked, scratch),
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
        let (mut flat, mut methods) = (Vec::new(), None::<Methods>);
        for condition in conditions {
            match condition {
                Condition::One(inner) => flat.extend(inner),
                other => flat.push(other),
            }
        }
        flat.retain(|one| match one {
            Condition::Methods(more) => {
                methods.get_or_insert_default().add(more);
                false
            }
            _ => true,
        });
        flat.extend(methods.map(Condition::Methods));
        flat.sort_by_key(Condition::cost);
        match flat.len() {
            1 => flat.remove(0),
            _ => Condition::One(flat.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::h1::head::Method;

    #[test]
    fn methods_of_which_one_is_wanted_are_looked_at_at_once() {
        let of = |name: &str| Condition::Methods(Methods::of([name].into_iter()));
        let one = Condition::one(vec![of("GET"), Condition::one(vec![of("POST"), of("BREW")])]);
        let Condition::Methods(methods) = one else { panic!("{one:?}") };
        let peer = crate::Peer::default();
        let matches = |method: Method, name: &str| {
            let request = Request { method, method_bytes: name.as_bytes(), ..Request::of_bytes(&peer) };
            methods.matches(&request)
        };
        let known = [(Method::Get, "GET"), (Method::Post, "POST"), (Method::Put, "PUT"), (Method::Other, "BREW")];
        assert_eq!(known.map(|(method, name)| matches(method, name)), [true, true, false, true]);
        assert!(!matches(Method::Other, "STEEP"));
        let mixed = Condition::one(vec![of("GET"), Condition::Peer(Networks::default()), of("PUT")]);
        assert!(matches!(&mixed, Condition::One(two) if two.len() == 2), "{mixed:?}");
    }
}
