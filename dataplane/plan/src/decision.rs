//! What the configuration says about one request, as a value: small, copyable, printable.

use crate::cors::CorsId;
use crate::policy::{Permit, RuleId};
use crate::{FOREVER_NS, Kind, ListenerId, Plan, RouteId, SeriesId, ServiceId};
use std::fmt;

/// Everything that the plan says about one request or connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The listener it came through.
    pub listener: ListenerId,
    /// The route that matched; none for TCP and when nothing matched.
    pub route: Option<RouteId>,
    /// What it is counted under.
    pub series: SeriesId,
    /// What is to be done.
    pub action: Action,
    /// The rule that decided: that refused, or the last that let pass. None where no list had to be passed.
    pub rule: Option<RuleId>,
    /// The first rule that would have refused, were it enforced.
    pub dry_run: Option<RuleId>,
    /// What its answer says to browsers: see `Plan::cors_lines`.
    pub cors: Option<CorsId>,
}

/// What is to be done with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send it to a service.
    Forward(Forward),
    /// Answer with a redirect; its `Location` is `Cache::text`.
    Redirect(Redirect),
    /// Answer with the route's `body`.
    Respond(Respond),
    /// No route matches: 404.
    NotFound,
    /// The route names a service that the plan does not have: 503.
    UnknownService(Permit),
    /// Policy refuses it, by `Decision::rule`: 403.
    Denied,
    /// It is a browser's question about another request: 204. Nobody needs a permit for it.
    Preflight,
}

/// How a request is forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forward {
    /// Where to.
    pub service: ServiceId,
    /// From the request complete to the answer complete, retries included, nanoseconds; `FOREVER_NS` for none.
    pub timeout_ns: u64,
    /// One attempt, nanoseconds; `FOREVER_NS` for none.
    pub per_try_timeout_ns: u64,
    /// How many more attempts may follow a failed connect.
    pub retries: u8,
    /// The path to send, without the query, stands in `Cache::text`; otherwise the request's own is sent.
    pub path_rewritten: bool,
    /// `Host` is to be the route's `host`; otherwise the request's own is sent.
    pub host_rewritten: bool,
    /// Policy let it through.
    pub permit: Permit,
}

/// A redirect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
    /// Policy let it through.
    pub permit: Permit,
}

/// A fixed answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Respond {
    /// 200 to 599.
    pub status: u16,
    /// Policy let it through.
    pub permit: Permit,
}

impl Decision {
    /// The decision with the plan's names in place of numbers. `text` is what `decide` left in `Cache::text`.
    pub fn show<'a>(&'a self, plan: &'a Plan, text: &'a [u8]) -> Show<'a> {
        Show { decision: self, plan, text }
    }

    /// The service that it is sent to, if it is.
    #[inline]
    pub fn service(&self) -> Option<ServiceId> {
        match self.action {
            Action::Forward(forward) => Some(forward.service),
            _ => None,
        }
    }
}

/// A decision on its way to a reader.
#[derive(Clone, Copy, Debug)]
pub struct Show<'a> {
    decision: &'a Decision,
    plan: &'a Plan,
    text: &'a [u8],
}

impl fmt::Display for Show<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "listener {}", self.plan.listener(self.decision.listener).name)?;
        let route = self.decision.route.map(|id| self.plan.route(id));
        if let Some(route) = route {
            write!(f, ", route {}", route.name)?;
        }
        self.action(f, route)?;
        let rule = |id: RuleId| self.plan.rules.get(id.0 as usize);
        if let Some(rule) = self.decision.rule.and_then(rule) {
            write!(f, ", by {rule}")?;
        }
        if let Some(rule) = self.decision.dry_run.and_then(rule) {
            write!(f, ", would be refused by {rule}")?;
        }
        Ok(())
    }
}

impl Show<'_> {
    /// How it ends for a request, or for a connection of which none is read.
    fn ends(&self, request: &'static str, connection: &'static str) -> &'static str {
        match self.plan.listener(self.decision.listener).kind {
            Kind::Http(_) => request,
            Kind::Tcp(_) | Kind::Passthrough(_) => connection,
        }
    }

    fn action(&self, f: &mut fmt::Formatter<'_>, route: Option<&crate::Route>) -> fmt::Result {
        match self.decision.action {
            Action::Forward(forward) => {
                write!(f, ": forward to {}", self.plan.service(forward.service).name)?;
                if forward.path_rewritten {
                    write!(f, ", path {}", self.text.escape_ascii())?;
                }
                if let Some(host) = route.and_then(|route| route.host.as_deref()) {
                    write!(f, ", host {host}")?;
                }
                if forward.timeout_ns != FOREVER_NS {
                    write!(f, ", timeout {}", Milliseconds(forward.timeout_ns))?;
                }
                if forward.retries > 0 {
                    write!(f, ", {} retries on connect-failure", forward.retries)?;
                }
                if forward.per_try_timeout_ns != FOREVER_NS {
                    write!(f, ", timeout of a try {}", Milliseconds(forward.per_try_timeout_ns))?;
                }
                Ok(())
            }
            Action::Redirect(redirect) => write!(f, ": redirect {} to {}", redirect.status, self.text.escape_ascii()),
            Action::Respond(respond) => write!(f, ": respond {}", respond.status),
            Action::NotFound => write!(f, ": {}", self.ends("no route, 404", "no host has the name, closed")),
            Action::Denied => write!(f, ": denied, {}", self.ends("403", "closed")),
            Action::Preflight => f.write_str(": preflight, 204"),
            Action::UnknownService(_) => {
                let service = &self.plan.series[self.decision.series.0 as usize].service;
                write!(f, ": unknown service {service}, {}", self.ends("503", "closed"))
            }
        }
    }
}

/// A duration in nanoseconds, printed in milliseconds without losing anything.
struct Milliseconds(u64);

impl fmt::Display for Milliseconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 % 1_000_000 {
            0 => write!(f, "{}ms", self.0 / 1_000_000),
            rest => write!(f, "{}.{rest:06}ms", self.0 / 1_000_000),
        }
    }
}
