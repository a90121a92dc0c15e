//! The one step from a request's head to what is done with it. No I/O, and no allocation once a core's `Cache` is warm.

use crate::decision::{Action, Decision, Forward, Permit, Redirect, Respond};
use crate::rewrite::PathRewrite;
use crate::{
    Destination, FOREVER_NS, Http, Kind, ListenerId, Plan, Route, RouteAction, RouteForward, RouteId, matcher,
};
use wire::h1::head::{Field, Method};

/// What the plan looks at in a request.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The method.
    pub method: Method,
    /// The method's bytes.
    pub method_bytes: &'a [u8],
    /// The authority as it was sent: host and perhaps port; may be empty (HTTP/1.0).
    pub authority: &'a [u8],
    /// The path, normalised: the bytes that are matched are the bytes that are forwarded.
    pub path: &'a [u8],
    /// The query with its `?`, or empty.
    pub query: &'a [u8],
    /// The field lines.
    pub fields: &'a [Field],
    /// The bytes that `fields` are ranges of.
    pub head: &'a [u8],
}

/// A core's scratch memory for decisions.
#[derive(Debug, Default)]
pub struct Cache {
    /// What the last decision wrote: the path to send, or the `Location` of a redirect. Never holds a control character.
    pub text: Vec<u8>,
    host: Vec<u8>,
    pub(crate) matching: matcher::Scratch,
}

impl Plan {
    /// Works out everything that the plan says about a request that came through `listener`. `random` is any number, it
    /// chooses among weighted services. What the decision says in words is left in `cache.text`.
    ///
    /// A listener that is not an HTTP one has no routes: the answer is then `NotFound`.
    pub fn decide(&self, listener: ListenerId, request: &Request<'_>, random: u64, cache: &mut Cache) -> Decision {
        let through = self.listener(listener);
        let route = match &through.kind {
            Kind::Http(http) => self.find(http, request, cache),
            Kind::Tcp(_) => None,
        };
        let Some(id) = route else {
            return Decision { listener, route: None, series: through.unrouted, action: Action::NotFound };
        };
        let route = self.route(id);
        let permit = Permit::unrestricted();
        let (series, action) = match &route.action {
            RouteAction::Forward(forward) => forwarded(route, forward, request, random, permit, &mut cache.text),
            RouteAction::Redirect { status, to } => {
                to.write(request, self.forwarded(listener).trusted_hops > 0, &mut cache.text);
                (route.series, Action::Redirect(Redirect { status: *status, permit }))
            }
            RouteAction::Respond { status } => (route.series, Action::Respond(Respond { status: *status, permit })),
        };
        Decision { listener, route: Some(id), series, action }
    }

    /// Where a connection goes that came through a TCP listener. The answer is `Forward` or `UnknownService`, or
    /// `NotFound` when the listener is not a TCP one.
    pub fn decide_tcp(&self, listener: ListenerId, random: u64) -> Decision {
        let through = self.listener(listener);
        let Kind::Tcp(tcp) = &through.kind else {
            return Decision { listener, route: None, series: through.unrouted, action: Action::NotFound };
        };
        let permit = Permit::unrestricted();
        let target = tcp.to.choose(random);
        let action = match target.service {
            Some(service) => Action::Forward(Forward {
                service,
                timeout_ns: FOREVER_NS,
                per_try_timeout_ns: FOREVER_NS,
                retries: tcp.retries,
                path_rewritten: false,
                host_rewritten: false,
                permit,
            }),
            None => Action::UnknownService(permit),
        };
        Decision { listener, route: None, series: target.series, action }
    }

    /// The route that a request takes: of the most specific host that fits, the first that matches.
    fn find(&self, http: &Http, request: &Request<'_>, cache: &mut Cache) -> Option<RouteId> {
        let host = http.hosts.find(request.authority, &mut cache.host)?;
        let scratch = &mut cache.matching;
        let found = host.index.lowest(request.path, |route| {
            self.routes.get(route as usize).is_some_and(|route| route.matcher.matches(request, &self.regexes, scratch))
        });
        found.map(RouteId)
    }

    fn forwarded(&self, listener: ListenerId) -> crate::Forwarded {
        match &self.listener(listener).kind {
            Kind::Http(http) => http.forwarded,
            Kind::Tcp(_) => crate::Forwarded::default(),
        }
    }
}

#[inline]
fn forwarded(
    route: &Route,
    forward: &RouteForward,
    request: &Request<'_>,
    random: u64,
    permit: Permit,
    text: &mut Vec<u8>,
) -> (crate::SeriesId, Action) {
    let target = forward.to.choose(random);
    let Some(service) = target.service else {
        return (target.series, Action::UnknownService(permit));
    };
    let path_rewritten = match &forward.path {
        PathRewrite::Keep => false,
        rewrite => rewrite.write(request.path, text),
    };
    let action = Action::Forward(Forward {
        service,
        timeout_ns: forward.timeout_ns,
        per_try_timeout_ns: forward.per_try_timeout_ns,
        retries: forward.retries,
        path_rewritten,
        host_rewritten: route.host.is_some(),
        permit,
    });
    (target.series, action)
}

impl Destination {
    #[inline]
    fn choose(&self, random: u64) -> &crate::Target {
        match self {
            Destination::One(target) => target,
            // As many targets as weights, at least one: the choice is always among them.
            Destination::Weighted { choice, targets, .. } => &targets[choice.pick(random)],
        }
    }

    /// The weight of each target.
    pub(crate) fn weights(&self) -> &[u32] {
        match self {
            Destination::One(_) => &[1],
            Destination::Weighted { weights, .. } => weights,
        }
    }
}
