//! Answers to browsers that ask whether a page of another origin may make a request (Fetch standard, section 3.2:
//! the CORS protocol, <https://fetch.spec.whatwg.org/#http-cors-protocol>).

use crate::decide::Request;
use crate::matcher::{Scratch, Test};
use crate::{Decision, Plan, regex};
use wire::h1::head::{Field, Method};

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
    /// It is allowed, and named.
    Allowed,
}

/// Whose pages may make requests, and which.
#[derive(Debug, Default)]
pub(crate) struct Cors {
    pub(crate) origins: Box<[Test]>,
    /// Every origin is allowed.
    pub(crate) any: bool,
    /// Lines of the answer to a preflight.
    pub(crate) preflight: Box<[(&'static str, Box<str>)]>,
    /// `Access-Control-Expose-Headers`
    pub(crate) expose: Box<str>,
    /// Requests may carry cookies and the like.
    pub(crate) credentials: bool,
    /// Preflights of origins that are not allowed are requests as any other.
    pub(crate) forwards: bool,
}

impl CorsId {
    /// The page may make the request.
    pub(crate) fn allows(self) -> bool {
        matches!(self.origin, Origin::Any | Origin::Allowed)
    }
}

impl Plan {
    /// The lines that an answer to the request has for browsers, name and value; of a preflight's answer too. Those that a
    /// service sent under names that begin with `Access-Control-` are to be left out for them.
    pub fn cors_lines<'a>(
        &'a self,
        decision: &Decision,
        request: &Request<'a>,
    ) -> impl Iterator<Item = (&'static str, &'a [u8])> + use<'a> {
        let preflight = decision.action == crate::Action::Preflight;
        let rule = decision.cors.map(|id| (id, &self.cors[id.index as usize]));
        let allowed = rule.filter(|(id, _)| id.allows());
        let origin = allowed.map(|(id, _)| match id.origin {
            Origin::Any => &b"*"[..],
            _ => origins(request).next().unwrap_or_default(),
        });
        let credentials = allowed.filter(|(_, cors)| cors.credentials).map(|_| &b"true"[..]);
        let expose = allowed.filter(|(_, cors)| !preflight && !cors.expose.is_empty());
        let answers = allowed.filter(|_| preflight).into_iter().flat_map(|(_, cors)| &cors.preflight);
        // A cache must not give one origin's answer to another (Fetch standard, "CORS protocol and HTTP caches").
        let vary = rule.filter(|(_, cors)| !cors.any || cors.credentials);
        origin
            .map(|value| ("access-control-allow-origin", value))
            .into_iter()
            .chain(credentials.map(|value| ("access-control-allow-credentials", value)))
            .chain(expose.map(|(_, cors)| ("access-control-expose-headers", cors.expose.as_bytes())))
            .chain(answers.map(|(name, value)| (*name, value.as_bytes())))
            .chain(vary.map(|_| ("vary", &b"origin"[..])))
    }

    /// What CORS rule `index` says about a request, and whether it is a preflight, which is answered at once.
    pub(crate) fn judge_origin(&self, index: u32, request: &Request<'_>, scratch: &mut Scratch) -> (CorsId, bool) {
        let cors = &self.cors[index as usize];
        let mut lines = origins(request);
        let origin = match (lines.next(), lines.next()) {
            (None, _) => Origin::Absent,
            // A browser sends one.
            (Some(_), Some(_)) => Origin::Refused,
            (Some(origin), None) => cors.judge(origin, &self.regexes, scratch),
        };
        let id = CorsId { index, origin };
        let answered = id.allows() || (origin == Origin::Refused && !cors.forwards);
        let preflight = request.method == Method::Options
            && answered
            && request.fields.iter().any(|field| is(request, field, b"access-control-request-method"));
        (id, preflight)
    }
}

impl Cors {
    fn judge(&self, origin: &[u8], regexes: &regex::Regexes, scratch: &mut Scratch) -> Origin {
        // `*` does not go with credentials: the origin is named then.
        match self.any {
            true if self.credentials => Origin::Allowed,
            true => Origin::Any,
            false if self.origins.iter().any(|test| test.holds(origin, regexes, &mut scratch.caches)) => {
                Origin::Allowed
            }
            false => Origin::Refused,
        }
    }
}

/// The values of the request's `Origin` lines.
pub(crate) fn origins<'a>(request: &Request<'a>) -> impl Iterator<Item = &'a [u8]> + use<'a> {
    let request = *request;
    let named = move |field: &&Field| is(&request, field, b"origin");
    request.fields.iter().filter(named).map(move |field| field.value.of(request.head))
}

fn is(request: &Request<'_>, field: &Field, name: &[u8]) -> bool {
    field.name.of(request.head).eq_ignore_ascii_case(name)
}
