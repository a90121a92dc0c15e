//! What a rule asks: of the request, and of who sent it.

use super::ListKind;
use crate::decide::Request;
use crate::matcher::{self, FieldMatch, Methods, Test};
use crate::networks::Networks;
use crate::{Plan, peer};
use std::fmt;
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
    /// Of the host: in lower case, without port and last dot; empty when there is none.
    Host(Test),
    Field(FieldMatch),
    /// Of the peer's SPIFFE ID. Without one it does not hold.
    Identity(Test),
    /// The peer has proved who it is.
    Identified,
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
    host: Host<'a>,
}

enum Host<'a> {
    /// Not asked for yet: memory for its normal form.
    Unknown(&'a mut Vec<u8>),
    Known(&'a [u8]),
}

impl<'a> Asked<'a> {
    pub(crate) fn new(request: &'a Request<'a>, trusted_hops: u32, host: &'a mut Vec<u8>) -> Asked<'a> {
        Asked { request, trusted_hops, source: None, host: Host::Unknown(host) }
    }

    /// The client's address, as far as it can be trusted.
    pub(crate) fn source(&mut self) -> Option<IpAddr> {
        *self.source.get_or_insert_with(|| peer::source(self.request, self.trusted_hops))
    }

    fn host(&mut self) -> &'a [u8] {
        let known = match std::mem::replace(&mut self.host, Host::Known(b"")) {
            Host::Known(known) => known,
            // An authority that cannot be normalised is refused with 400 long before.
            Host::Unknown(out) => wire::host::normalise_host(self.request.authority, out).unwrap_or(b""),
        };
        self.host = Host::Known(known);
        known
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
            Condition::Host(host) => {
                let value = asked.host();
                test(host, value, scratch)
            }
            Condition::Field(field) => field.holds_of_lines(list == ListKind::Allow, request, &plan.regexes, scratch),
            Condition::Identity(identity) => {
                request.peer.identity.is_some_and(|value| test(identity, value.as_bytes(), scratch))
            }
            Condition::Identified => request.peer.identity.is_some(),
            Condition::Source(networks) => asked.source().is_some_and(|address| networks.allows(address)),
            Condition::Peer(networks) => request.peer.direct.is_some_and(|address| networks.allows(address)),
        }
    }

    /// The word of the language that says it.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Condition::Any => "any",
            Condition::All(inner) | Condition::One(inner) => inner.first().map_or("any", Condition::word),
            Condition::Not(inner) => inner.word(),
            Condition::Methods(_) => "methods",
            Condition::Path(_) => "path",
            Condition::Host(_) => "hosts",
            Condition::Field(_) => "headers",
            Condition::Identity(_) | Condition::Identified => "identity",
            Condition::Source(_) => "source",
            Condition::Peer(_) => "peer",
        }
    }

    /// The first part of it that does not hold, when it is known that it does not.
    pub(crate) fn failing(
        &self,
        list: ListKind,
        plan: &Plan,
        asked: &mut Asked<'_>,
        scratch: &mut Scratch,
    ) -> &Condition {
        match self {
            Condition::All(all) => {
                let first = all.iter().find(|one| !one.holds(list, plan, asked, scratch));
                first.map_or(self, |one| one.failing(list, plan, asked, scratch))
            }
            other => other,
        }
    }

    /// What it takes to find out, roughly: the cheap words of a rule are asked first.
    fn cost(&self) -> u32 {
        match self {
            Condition::Any | Condition::Identified => 0,
            Condition::Methods(_) => 1,
            Condition::Peer(_) => 2,
            Condition::Identity(test) | Condition::Path(test) => 3 + test.cost(),
            Condition::Host(test) => 5 + test.cost(),
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

    /// Whether anything but who the peer is, and where, is asked: bytes have no more.
    pub(crate) fn is_about_peer(&self) -> bool {
        match self {
            Condition::Any | Condition::Identity(_) | Condition::Identified => true,
            Condition::Source(_) | Condition::Peer(_) => true,
            Condition::All(inner) | Condition::One(inner) => inner.iter().all(Condition::is_about_peer),
            Condition::Not(inner) => inner.is_about_peer(),
            Condition::Methods(_) | Condition::Path(_) | Condition::Host(_) | Condition::Field(_) => false,
        }
    }

    /// The condition in words; patterns are the plan's.
    pub(crate) fn show<'a>(&'a self, plan: &'a Plan) -> Show<'a> {
        Show { condition: self, plan }
    }
}

/// A condition on its way to a reader.
pub(crate) struct Show<'a> {
    condition: &'a Condition,
    plan: &'a Plan,
}

impl fmt::Display for Show<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let joined = |f: &mut fmt::Formatter<'_>, inner: &[Condition], between: &str| {
            for (number, one) in inner.iter().enumerate() {
                let between = if number > 0 { between } else { "" };
                write!(f, "{between}{}", one.show(self.plan))?;
            }
            Ok(())
        };
        let test = |test| matcher::ShowTest { test, regexes: &self.plan.regexes };
        match self.condition {
            Condition::Any => f.write_str("anybody"),
            Condition::All(inner) => joined(f, inner, ", "),
            Condition::One(inner) if inner.is_empty() => f.write_str("nobody"),
            Condition::One(inner) => {
                f.write_str("(")?;
                joined(f, inner, " or ")?;
                f.write_str(")")
            }
            Condition::Not(inner) => write!(f, "not ({})", inner.show(self.plan)),
            Condition::Methods(methods) => {
                write!(f, "methods {}", methods.names().collect::<Vec<_>>().join(", "))
            }
            Condition::Path(path) => write!(f, "path {}", test(path)),
            Condition::Host(host) => write!(f, "hosts {}", test(host)),
            Condition::Identity(identity) => write!(f, "identity {}", test(identity)),
            Condition::Identified => f.write_str("any identity"),
            Condition::Source(networks) => write!(f, "source {networks}"),
            Condition::Peer(networks) => write!(f, "peer {networks}"),
            Condition::Field(field) => {
                write!(f, "headers {}", matcher::ShowField { field, regexes: &self.plan.regexes })
            }
        }
    }
}
