//! Answers to browsers that ask whether a page of another origin may make a request (Fetch standard, section 3.2:
//! the CORS protocol, <https://fetch.spec.whatwg.org/#http-cors-protocol>).

use crate::decide::Request;
use crate::matcher::{Scratch, Test};
use crate::{Plan, regex};
use wire::h1::head::Method;

/// Which CORS rule, and what it says about one request's origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CorsId {
    pub(crate) index: u32,
    pub(crate) origin: Origin,
}

/// What a rule says about the origin of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The request has none: it is no cross-origin request that a browser makes.
    Absent,
    /// It is not allowed.
    Refused,
    /// Every origin is allowed, and `*` says so.
    Any,
    /// It is allowed: this one of the rule's.
    Listed(u16),
    /// It is allowed, and named as the request names it.
    Own,
}

/// Whose pages may make requests, and which.
#[derive(Debug, Default)]
pub struct Cors {
    pub(crate) origins: Box<[Test]>,
    /// Every origin is allowed.
    pub(crate) any: bool,
    /// Lines of the answer to a preflight.
    pub(crate) preflight: Box<[(&'static str, Box<str>)]>,
    /// `Access-Control-Expose-Headers`
    pub(crate) expose: Box<str>,
    /// Requests may carry cookies and the like.
    pub(crate) credentials: bool,
}

const ALLOW_ORIGIN: &str = "access-control-allow-origin";
const ALLOW_CREDENTIALS: &str = "access-control-allow-credentials";
const EXPOSE: &str = "access-control-expose-headers";

impl CorsId {
    /// The request's `Origin` must be kept until its answer is written.
    #[inline]
    pub fn needs_origin(self) -> bool {
        self.origin == Origin::Own
    }

    /// The page may make the request.
    pub(crate) fn allows(self) -> bool {
        matches!(self.origin, Origin::Any | Origin::Listed(_) | Origin::Own)
    }
}

impl Plan {
    /// The lines to write into the answer to a request, name and value; `origin` is the request's `Origin` where
    /// `needs_origin` says so. Of an answer that was forwarded, the lines that `is_ours` names are left out.
    pub fn cors_lines<'a>(
        &'a self,
        id: CorsId,
        origin: &'a [u8],
    ) -> impl Iterator<Item = (&'static str, &'a [u8])> + use<'a> {
        let cors = &self.cors[id.index as usize];
        let named = self.allow_origin(id, origin).map(|value| (ALLOW_ORIGIN, value));
        let allowed = id.allows();
        let credentials = (allowed && cors.credentials).then_some((ALLOW_CREDENTIALS, &b"true"[..]));
        let expose = (allowed && !cors.expose.is_empty()).then_some((EXPOSE, cors.expose.as_bytes()));
        named.into_iter().chain(credentials).chain(expose).chain(self.vary(id))
    }

    /// The lines of the answer to a preflight, name and value; `origin` as in `cors_lines`. The answer is 200, without a body.
    pub fn preflight_lines<'a>(
        &'a self,
        id: CorsId,
        origin: &'a [u8],
    ) -> impl Iterator<Item = (&'static str, &'a [u8])> + use<'a> {
        let cors = &self.cors[id.index as usize];
        let allowed = id.allows();
        let named = self.allow_origin(id, origin).map(|value| (ALLOW_ORIGIN, value));
        let credentials = (allowed && cors.credentials).then_some((ALLOW_CREDENTIALS, &b"true"[..]));
        let rules = cors.preflight.iter().filter(move |_| allowed).map(|(name, value)| (*name, value.as_bytes()));
        named.into_iter().chain(credentials).chain(rules).chain(self.vary(id))
    }

    fn allow_origin<'a>(&'a self, id: CorsId, origin: &'a [u8]) -> Option<&'a [u8]> {
        match id.origin {
            Origin::Absent | Origin::Refused => None,
            Origin::Any => Some(b"*"),
            Origin::Own => Some(origin),
            Origin::Listed(number) => match self.cors[id.index as usize].origins.get(usize::from(number)) {
                Some(Test::Exact(text)) => Some(text),
                _ => None,
            },
        }
    }

    /// A cache must not give one origin's answer to another (Fetch standard, "CORS protocol and HTTP caches").
    fn vary(&self, id: CorsId) -> Option<(&'static str, &'static [u8])> {
        let cors = &self.cors[id.index as usize];
        let same_for_all = cors.any && !cors.credentials;
        (!same_for_all).then_some(("vary", b"origin"))
    }

    /// What CORS rule `index` says about a request, and whether it is a preflight, which is answered at once.
    pub(crate) fn judge_origin(&self, index: u32, request: &Request<'_>, scratch: &mut Scratch) -> (CorsId, bool) {
        let cors = &self.cors[index as usize];
        let mut lines = request.fields.iter().filter(|field| is(field.name.of(request.head), b"origin"));
        let (first, second) = (lines.next(), lines.next());
        let origin = match (first.map(|field| field.value.of(request.head)), second) {
            (None, _) => Origin::Absent,
            // A browser sends one.
            (Some(_), Some(_)) => Origin::Refused,
            (Some(origin), None) => cors.judge(origin, &self.regexes, scratch),
        };
        let asks = |field: &wire::h1::head::Field| is(field.name.of(request.head), b"access-control-request-method");
        let preflight =
            request.method == Method::Options && origin != Origin::Absent && request.fields.iter().any(asks);
        (CorsId { index, origin }, preflight)
    }
}

fn is(name: &[u8], other: &[u8]) -> bool {
    name.eq_ignore_ascii_case(other)
}

impl Cors {
    /// Whether a line of a forwarded answer is for the rule to write, and not for the service.
    #[inline]
    pub fn is_ours(name: &[u8]) -> bool {
        name.len() > 20
            && [ALLOW_ORIGIN, ALLOW_CREDENTIALS, EXPOSE].iter().any(|ours| name.eq_ignore_ascii_case(ours.as_bytes()))
    }

    fn judge(&self, origin: &[u8], regexes: &regex::Regexes, scratch: &mut Scratch) -> Origin {
        if self.any {
            // `*` does not go with credentials: the origin is named then.
            return if self.credentials { Origin::Own } else { Origin::Any };
        }
        match self.origins.iter().position(|test| test.holds(origin, regexes, &mut scratch.caches)) {
            None => Origin::Refused,
            Some(number) => match self.origins[number] {
                Test::Exact(_) => u16::try_from(number).map_or(Origin::Own, Origin::Listed),
                _ => Origin::Own,
            },
        }
    }
}
