//! The configuration, compiled: one immutable snapshot and pure functions over it.
//!
//! `compile` turns xDS resources into a `Plan` or refuses them, each with a reason. `Plan::decide` works out everything
//! that the configuration says about one request, as a small `Decision` that can be printed; acting on it is I/O and
//! stands elsewhere. This room opens nothing, reads no clock and draws no random number: all of them are arguments.
#![forbid(unsafe_code)]

mod ask;
mod compile;
mod cors;
mod decide;
mod decision;
mod edits;
mod explain;
mod hosts;
mod index;
mod json;
mod judge;
mod matcher;
mod networks;
mod peer;
mod policy;
mod quota;
mod regex;
mod rewrite;
mod siphash;
mod table;
#[cfg(test)]
mod tests;
mod world;

pub use api::{Forwarded, ForwardedMode, ProxyVersion};
pub use ask::{Asked, Question, ask};
pub use compile::{Answers, Name, Rejection, compile, with_endpoints};
pub use cors::CorsId;
pub use decide::{Cache, Request};
pub use decision::{Action, Decision, Forward, Redirect, Respond, Show};
pub use edits::Edits;
pub use explain::Explanation;
pub use judge::StandIn;
pub use networks::Networks;
pub use peer::{Peer, source};
pub use policy::{Permit, RuleId, RuleKey};
pub use quota::{Limited, QUOTA};
pub use world::{Files, World};

use policy::ListId;
use quota::QuotaId;
use std::collections::BTreeSet;
use std::sync::Arc;
use wire::tls::{Client, Server};

/// A duration in nanoseconds that stands for "no limit".
pub const FOREVER_NS: u64 = u64::MAX;

/// One configuration as the cores use it. Immutable; a change is a new plan with the next generation. What is shared can be
/// shared with it: where only endpoints change, everything else is (`with_endpoints`).
#[derive(Debug)]
pub struct Plan {
    /// Which plan this is; grows by one with each plan of a process.
    pub generation: u64,
    /// What belongs to the process: cores, limits, admin address, access log.
    pub process: api::Process,
    /// The listeners, by `ListenerId`.
    pub listeners: Arc<[Listener]>,
    /// The services, by `ServiceId`.
    pub services: Vec<Service>,
    /// What requests are counted under, by `SeriesId`.
    pub series: Arc<[SeriesKey]>,
    /// What refusals and dry runs are counted under, by `RuleId`; quotas are among them.
    pub rules: Arc<[RuleKey]>,
    /// Settings that were read but have no effect here, as `kind/name: field`. Nothing that allows or denies is among them.
    pub ignored: Arc<[String]>,
    routes: Arc<[Route]>,
    regexes: Arc<regex::Regexes>,
    lists: Arc<[policy::List]>,
    quotas: Arc<[quota::Quota]>,
    seed: [u64; 2],
    cors: Arc<[cors::Cors]>,
    certificates: Arc<[Certificate]>,
    names: Arc<BTreeSet<Name>>,
}

/// Which listener: an index into `Plan::listeners`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ListenerId(pub u16);

/// Which route, over all listeners and hosts of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouteId(pub u32);

/// Which service: an index into `Plan::services`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceId(pub u32);

/// Which series of counters: an index into `Plan::series`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SeriesId(pub u32);

/// What a request or a tunnel is counted under. Names, so that counters outlive the plan. Unique within a plan.
/// Every listener has a series with an empty route and service, for what ends before or without a route.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SeriesKey {
    /// The listener's name.
    pub listener: Box<str>,
    /// The route's name; empty for TCP and when no route matched.
    pub route: Box<str>,
    /// The service's name; empty when the route answers by itself.
    pub service: Box<str>,
}

/// One listener.
#[derive(Debug)]
pub struct Listener {
    /// Its name.
    pub name: Box<str>,
    /// Where it listens.
    pub address: balance::Address,
    /// What it speaks, and what it does with it.
    pub kind: Kind,
    /// The series of what ends before a route is known (no match, refused heads, timeouts).
    pub unrouted: SeriesId,
    /// Whether connections begin with TLS.
    pub transport: Transport,
    /// Connections begin with a PROXY header, and come from these addresses: others are refused. `None`: there is no header.
    pub proxy_protocol: Option<Networks>,
    /// For what must be there before a connection's own bytes are looked at: a PROXY header, and a ClientHello that is passed
    /// on, each; nanoseconds, `FOREVER_NS` for none.
    pub opening_timeout_ns: u64,
}

/// What carries a listener's protocol.
#[derive(Clone, Debug)]
pub enum Transport {
    /// TCP alone.
    Plain,
    /// TLS.
    Tls(Server),
    /// TLS, or TCP alone while clients migrate: the first byte tells (0x16 begins a handshake record).
    Migrate(Server),
}

/// What a listener speaks.
#[derive(Debug)]
pub enum Kind {
    /// HTTP
    Http(Http),
    /// Bytes.
    Tcp(Tcp),
    /// TLS that ends elsewhere: bytes, by the name that it asks for.
    Passthrough(Passthrough),
}

/// An HTTP listener's settings.
#[derive(Debug)]
pub struct Http {
    /// Bounds on request heads.
    pub head: wire::h1::Limits,
    /// From the beginning of a head to the end of its body, nanoseconds; `FOREVER_NS` for none.
    pub request_timeout_ns: u64,
    /// Without a byte either way, nanoseconds; `FOREVER_NS` for none.
    pub idle_timeout_ns: u64,
    /// The longest request body, bytes; `u64::MAX` for none.
    pub body_bytes: u64,
    /// What is done with `X-Forwarded-For` and `X-Forwarded-Proto`.
    pub forwarded: Forwarded,
    /// `X-Forwarded-Client-Cert` tells services whom the handshake proved. What comes from outside under this name is
    /// never forwarded.
    pub forward_client_certificate: bool,
    /// Requests are logged.
    pub access_log: bool,
    pub(crate) hosts: hosts::Hosts,
    /// The lists that requests without a route are held against.
    pub(crate) policy: Box<[ListId]>,
    /// The quotas of requests without a route.
    pub(crate) quotas: Box<[QuotaId]>,
}

/// A TCP listener's settings.
#[derive(Debug)]
pub struct Tcp {
    /// Where connections go.
    pub(crate) to: Destination,
    /// Without a byte either way, nanoseconds; `FOREVER_NS` for none.
    pub idle_timeout_ns: u64,
    /// Connections are logged.
    pub access_log: bool,
    /// How many more attempts may follow a failed connect.
    pub retries: u8,
    pub(crate) policy: Box<[ListId]>,
}

/// The settings of a listener that passes TLS on as it comes.
#[derive(Debug)]
pub struct Passthrough {
    /// Connections are logged.
    pub access_log: bool,
    pub(crate) hosts: hosts::Names<Passage>,
}

/// What is done with the connections that ask for one of several names.
#[derive(Debug)]
pub(crate) struct Passage {
    pub(crate) names: Vec<Box<str>>,
    pub(crate) tcp: Tcp,
}

/// One route of one host of one listener: what is done with the requests that it matches.
#[derive(Debug)]
pub struct Route {
    /// Its name; its position when the configuration gives none.
    pub name: Box<str>,
    /// Changes to the fields of requests that are forwarded.
    pub request_edits: Edits,
    /// Changes to the fields of answers, forwarded or our own.
    pub response_edits: Edits,
    /// The body of a fixed answer.
    pub body: Box<[u8]>,
    /// What takes the place of `Host` when the request is forwarded.
    pub host: Option<Box<str>>,
    pub(crate) matcher: matcher::Match,
    pub(crate) action: RouteAction,
    /// The series of answers that the route gives by itself.
    pub(crate) series: SeriesId,
    pub(crate) policy: Box<[ListId]>,
    /// The listener's, and its own.
    pub(crate) quotas: Box<[QuotaId]>,
    /// What pages of other origins may do.
    pub(crate) cors: Option<u32>,
}

/// What a route does.
#[derive(Debug)]
pub(crate) enum RouteAction {
    Forward(RouteForward),
    Redirect { status: u16, to: rewrite::Location },
    Respond { status: u16 },
}

/// How a route forwards.
#[derive(Debug)]
pub(crate) struct RouteForward {
    pub(crate) to: Destination,
    pub(crate) timeout_ns: u64,
    pub(crate) per_try_timeout_ns: u64,
    pub(crate) retries: u8,
    pub(crate) path: rewrite::PathRewrite,
}

/// Where a route or a TCP listener sends: one service, or several by weight.
#[derive(Debug)]
pub(crate) enum Destination {
    One(Target),
    Weighted { choice: balance::Weighted, targets: Box<[Target]>, weights: Box<[u32]> },
}

/// A service to send to, and the series that counts it. No service: the configuration does not have the one it names.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target {
    pub(crate) service: Option<ServiceId>,
    pub(crate) series: SeriesId,
}

/// One service.
#[derive(Clone, Debug)]
pub struct Service {
    /// Its name.
    pub name: Box<str>,
    /// Endpoints with their state, algorithm and limits; shared with earlier and later plans where it is the same service.
    pub balance: Arc<balance::Service>,
    /// Until a connection is established, nanoseconds.
    pub connect_timeout_ns: u64,
    /// TLS towards it; the same value as in the previous plan while its settings are the same.
    pub tls: Option<Client>,
    /// Connections to it begin with a PROXY header, and carry nothing but one client's.
    pub proxy_protocol: Option<ProxyVersion>,
}

/// A certificate, or a bundle of them, that the plan holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// What the configuration calls it: a file, or the secret that brought it.
    pub name: Box<str>,
    /// What it is for.
    pub kind: CertificateKind,
    /// Whom it names: a SPIFFE ID, or DNS names with commas between them. Empty for a bundle.
    pub subject: Box<str>,
    /// When it ends, or the first of a bundle does: seconds since 1970.
    pub not_after_s: u64,
}

/// What a certificate is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CertificateKind {
    /// To show who we are.
    Own,
    /// To judge others by.
    Trust,
    /// No certificate but a list of revoked ones, which is good until another is due.
    Revocations,
}

impl Transport {
    /// The TLS server, where there is TLS.
    pub fn server(&self) -> Option<&Server> {
        match self {
            Transport::Plain => None,
            Transport::Tls(server) | Transport::Migrate(server) => Some(server),
        }
    }
}

impl Listener {
    /// What comes through it is logged.
    pub fn logs(&self) -> bool {
        match &self.kind {
            Kind::Http(http) => http.access_log,
            Kind::Tcp(tcp) => tcp.access_log,
            Kind::Passthrough(passthrough) => passthrough.access_log,
        }
    }
}

impl Plan {
    /// The route of an id that this plan gave.
    ///
    /// # Panics
    /// With an id of another plan, possibly.
    #[inline]
    pub fn route(&self, id: RouteId) -> &Route {
        &self.routes[id.0 as usize]
    }

    /// The listener of an id that this plan gave.
    ///
    /// # Panics
    /// With an id of another plan, possibly.
    #[inline]
    pub fn listener(&self, id: ListenerId) -> &Listener {
        &self.listeners[id.0 as usize]
    }

    /// The service of an id that this plan gave.
    ///
    /// # Panics
    /// With an id of another plan, possibly.
    #[inline]
    pub fn service(&self, id: ServiceId) -> &Service {
        &self.services[id.0 as usize]
    }

    /// The certificates and bundles that the plan holds, each once.
    pub fn certificates(&self) -> impl Iterator<Item = &Certificate> {
        self.certificates.iter()
    }

    /// The names that the plan wants resolved: what `Answers` should hold the next time.
    pub fn names(&self) -> &BTreeSet<Name> {
        &self.names
    }

    /// The whole plan as readable JSON, for the admin page `/plan`.
    pub fn to_json(&self) -> String {
        json::plan(self)
    }
}
