//! The one step from a request's head to what is done with it. No I/O, and no allocation once a core's `Cache` is warm.

use crate::decision::{Action, Decision, Forward, Redirect, Respond};
use crate::policy::{self, Asked, Permit};
use crate::rewrite::PathRewrite;
use crate::{
    Destination, FOREVER_NS, Http, Kind, ListenerId, Peer, Plan, Route, RouteAction, RouteForward, RouteId, SeriesId,
    Tcp, matcher,
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
    /// Who sent it.
    pub peer: Peer<'a>,
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
        let mut decision = Decision::new(listener, through.unrouted);
        let Kind::Http(http) = &through.kind else { return decision };
        let found = self.find(http, request, cache);
        let route = found.map(|id| self.route(id));
        decision.route = found;
        if let Some((route, rule)) = route.and_then(|route| Some((route, route.cors?))) {
            let (id, preflight) = self.judge_origin(rule, request, &mut cache.matching);
            decision.cors = Some(id);
            if preflight {
                (decision.series, decision.action) = (route.series, Action::Preflight);
                return decision;
            }
        }
        let policy = route.map_or(&http.policy, |route| &route.policy);
        let mut asked = Asked::new(request, http.forwarded.trusted_hops);
        let verdict = policy::judge(self, policy, &mut asked, &mut cache.matching);
        (decision.rule, decision.dry_run) = (verdict.rule, verdict.dry_run);
        let Some(permit) = verdict.permit else {
            decision.series = route.map_or(through.unrouted, |route| route.series);
            decision.action = Action::Denied;
            return decision;
        };
        let Some(route) = route else { return decision };
        (decision.series, decision.action) = match &route.action {
            RouteAction::Forward(forward) => forwarded(route, forward, request, random, permit, &mut cache.text),
            RouteAction::Redirect { status, to } => {
                to.write(request, http.forwarded.trusted_hops > 0, &mut cache.text);
                (route.series, Action::Redirect(Redirect { status: *status, permit }))
            }
            RouteAction::Respond { status } => (route.series, Action::Respond(Respond { status: *status, permit })),
        };
        decision
    }

    /// The settings of bytes that nobody reads and that came through `listener`; where it passes TLS on, with this name asked
    /// for. `None`: no host has the name, or it is an HTTP listener.
    pub fn tcp(&self, listener: ListenerId, name: Option<&str>) -> Option<&Tcp> {
        match &self.listener(listener).kind {
            Kind::Tcp(tcp) => Some(tcp),
            Kind::Passthrough(passthrough) => {
                let found = passthrough.hosts.find(name.unwrap_or_default().as_bytes(), &mut Vec::new());
                found.map(|passage| &passage.tcp)
            }
            Kind::Http(_) => None,
        }
    }

    /// Where a connection goes that came through a TCP listener, or one that passes TLS on and was asked for this name. The
    /// answer is `Forward`, `UnknownService` or `Denied`, or `NotFound` where [`Plan::tcp`] has nothing.
    pub fn decide_tcp(&self, listener: ListenerId, name: Option<&str>, peer: &Peer<'_>, random: u64) -> Decision {
        match self.tcp(listener, name) {
            Some(tcp) => self.bytes(listener, tcp, peer, random),
            None => Decision::new(listener, self.listener(listener).unrouted),
        }
    }

    /// What is done with bytes that nobody reads.
    fn bytes(&self, listener: ListenerId, tcp: &Tcp, peer: &Peer<'_>, random: u64) -> Decision {
        let mut decision = Decision::new(listener, self.listener(listener).unrouted);
        let request = Request::of_bytes(peer);
        let mut asked = Asked::new(&request, 0);
        let verdict = policy::judge(self, &tcp.policy, &mut asked, &mut policy::Scratch::default());
        (decision.rule, decision.dry_run) = (verdict.rule, verdict.dry_run);
        let Some(permit) = verdict.permit else {
            decision.action = Action::Denied;
            return decision;
        };
        let target = tcp.to.choose(random);
        decision.series = target.series;
        decision.action = match target.service {
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
        decision
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
}

impl Decision {
    /// That nothing is done.
    fn new(listener: ListenerId, series: SeriesId) -> Decision {
        Decision { listener, route: None, series, action: Action::NotFound, rule: None, dry_run: None, cors: None }
    }
}

impl<'a> Request<'a> {
    /// What policy sees of a connection whose bytes are not read: its peer.
    pub(crate) fn of_bytes(peer: &'a Peer<'a>) -> Request<'a> {
        Request {
            method: Method::Other,
            method_bytes: b"",
            authority: b"",
            path: b"",
            query: b"",
            fields: &[],
            head: b"",
            peer: *peer,
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
