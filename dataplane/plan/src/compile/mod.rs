//! From xDS resources to a plan: one file a kind of message. All that is wrong is found, each with resource, field and
//! reason. A field that is not understood is refused where it could let in or send astray (matches, filter chains, TLS,
//! policy), and listed as ignored elsewhere; a value that is not understood is refused everywhere.

mod address;
mod cluster;
mod cors;
mod fields;
mod listener;
mod matching;
mod passthrough;
mod policy;
mod proxy;
mod quota;
mod rejection;
mod rewrite;
mod route;
#[cfg(test)]
mod tests;
mod tls;

pub use rejection::Rejection;

use crate::cors::Cors;
use crate::policy::List;
use crate::quota::Quota;
use crate::regex::Regexes;
use crate::{Certificate, FOREVER_NS, Plan, Route, RuleKey, SeriesId, SeriesKey, Service, ServiceId, Target, World};
use api::Resources;
use api::envoy_types::pb::envoy::config::endpoint::v3::ClusterLoadAssignment;
use api::envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::Secret;
use api::envoy_types::pb::google::protobuf::Duration;
use rejection::{Place, leftover};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Debug;
use std::net::IpAddr;

/// A DNS name that a service's endpoints are behind.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name {
    /// The host name, in lower case, without a trailing dot.
    pub host: Box<str>,
    /// The port of the endpoints.
    pub port: u16,
}

/// What DNS said so far. A name without an answer has no endpoints, so that its service answers 503 until it has.
#[derive(Clone, Debug, Default)]
pub struct Answers {
    /// The addresses of each name.
    pub addresses: BTreeMap<Name, Vec<IpAddr>>,
}

/// Compiles resources into a plan of this generation. Endpoints and budgets of `previous` live on in it, by name and address.
///
/// # Errors
/// Everything that is wrong, in the order of the resources; never empty.
pub fn compile(
    resources: &Resources,
    previous: Option<&Plan>,
    generation: u64,
    world: &World,
) -> Result<Plan, Vec<Rejection>> {
    let mut work = Work::new(previous, world);
    let process = match api::process(&resources.bootstrap) {
        Ok(process) => Some(process),
        Err(reason) => {
            work.refuse(&Place::new("bootstrap", ""), reason);
            None
        }
    };
    // A mesh's document names no file to log to: the proxy's own says that it logs, and where.
    work.logs = process.as_ref().is_some_and(|process| process.daemon.is_some() && process.access_log.is_some());
    tls::secrets(&mut work, resources);
    cluster::clusters(&mut work, resources);
    let listeners = listener::listeners(&mut work, resources);
    match process {
        Some(process) if work.rejections.is_empty() => Ok(Plan {
            generation,
            process,
            listeners: listeners.into(),
            services: work.services,
            series: work.series.into(),
            ignored: work.ignored.into(),
            routes: work.routes.into(),
            rules: work.rules.into(),
            regexes: work.regexes.into(),
            lists: work.lists.into(),
            quotas: work.quotas.into(),
            seed: world.seed,
            cors: work.cors.into(),
            certificates: distinct(work.certificates).into(),
            names: work.names.into(),
        }),
        _ => Err(work.rejections),
    }
}

/// The plan with other endpoints for some services, by the services' names, as this generation; everything else is shared with
/// it. None: that is not all there is to it, and a compilation has to say what (something is refused or not understood).
pub fn with_endpoints(
    plan: &Plan,
    changed: &[(&str, &ClusterLoadAssignment)],
    generation: u64,
    world: &World,
) -> Option<Plan> {
    let mut services = plan.services.clone();
    for (name, message) in changed {
        let service = services.iter_mut().find(|service| *service.name == **name)?;
        service.balance = cluster::with_endpoints(&service.balance, message, world)?;
    }
    Some(Plan {
        generation,
        process: plan.process.clone(),
        listeners: plan.listeners.clone(),
        services,
        series: plan.series.clone(),
        ignored: plan.ignored.clone(),
        routes: plan.routes.clone(),
        rules: plan.rules.clone(),
        regexes: plan.regexes.clone(),
        lists: plan.lists.clone(),
        quotas: plan.quotas.clone(),
        seed: plan.seed,
        cors: plan.cors.clone(),
        certificates: plan.certificates.clone(),
        names: plan.names.clone(),
    })
}

/// Each certificate once, though several contexts name it.
fn distinct(mut certificates: Vec<Certificate>) -> Vec<Certificate> {
    certificates.sort_by(|a, b| (a.kind, &a.name).cmp(&(b.kind, &b.name)));
    certificates.dedup();
    certificates
}

/// A plan in the making.
struct Work<'a> {
    /// The previous plan's services by name.
    previous: HashMap<&'a str, &'a Service>,
    /// The previous plan's certificates: the file, and when it ends.
    held: BTreeSet<(&'a str, u64)>,
    world: &'a World,
    rules: Vec<RuleKey>,
    lists: Vec<List>,
    /// The RBAC filters of the listener that is being compiled.
    through: Vec<policy::Filter>,
    /// Its rate limit filters.
    limits: Vec<quota::Filter>,
    /// What is left of the previous plan's quotas.
    kept: quota::Kept<'a>,
    quotas: Vec<Quota>,
    /// Its CORS filter.
    cors_filter: Option<cors::Filter>,
    cors: Vec<Cors>,
    /// How many clients they tell apart.
    clients: u64,
    certificates: Vec<Certificate>,
    /// What TLS contexts may name.
    secrets: HashMap<&'a str, &'a Secret>,
    services: Vec<Service>,
    service_ids: HashMap<&'a str, ServiceId>,
    series: Vec<SeriesKey>,
    series_ids: HashMap<SeriesKey, SeriesId>,
    routes: Vec<Route>,
    regexes: Regexes,
    names: BTreeSet<Name>,
    rejections: Vec<Rejection>,
    ignored: Vec<String>,
    /// Every listener logs.
    logs: bool,
}

impl<'a> Work<'a> {
    fn new(previous: Option<&'a Plan>, world: &'a World) -> Work<'a> {
        let services = previous.map_or(&[][..], |plan| &plan.services);
        let certificates = previous.map_or(&[][..], |plan| &plan.certificates);
        Work {
            previous: services.iter().map(|service| (&*service.name, service)).collect(),
            held: certificates.iter().map(|held| (&*held.name, held.not_after_s)).collect(),
            world,
            rules: Vec::new(),
            lists: Vec::new(),
            through: Vec::new(),
            limits: Vec::new(),
            kept: quota::Kept::of(previous),
            quotas: Vec::new(),
            cors_filter: None,
            cors: Vec::new(),
            clients: 0,
            certificates: Vec::new(),
            secrets: HashMap::new(),
            services: Vec::new(),
            service_ids: HashMap::new(),
            series: Vec::new(),
            series_ids: HashMap::new(),
            routes: Vec::new(),
            regexes: Regexes::new(),
            names: BTreeSet::new(),
            rejections: Vec::new(),
            ignored: Vec::new(),
            logs: false,
        }
    }

    /// Notes that something is wrong.
    fn refuse(&mut self, place: &Place, reason: impl Into<String>) {
        self.rejections.push(place.rejection(reason.into()));
    }

    /// Refuses every field that is still set in a message whose understood fields were taken out.
    fn refuse_rest<T: Debug + Default + PartialEq>(&mut self, place: &Place, rest: &T) {
        for field in leftover(rest) {
            self.refuse(&place.field(&field), "is not supported");
        }
    }

    /// Lists every field that is still set in a message whose understood fields were taken out.
    fn ignore_rest<T: Debug + Default + PartialEq>(&mut self, place: &Place, rest: &T) {
        let fields = leftover(rest).into_iter().map(|field| place.field(&field).to_string());
        self.ignored.extend(fields);
    }

    /// A duration in nanoseconds; `None` when it is absent or refused.
    fn duration_ns(&mut self, place: &Place, duration: Option<&Duration>) -> Option<u64> {
        let duration = duration?;
        let parts = (u64::try_from(duration.seconds), u64::try_from(duration.nanos));
        let (Ok(seconds), Ok(nanos @ 0..1_000_000_000)) = parts else {
            self.refuse(place, "must not be negative, with less than 1,000,000,000 nanos");
            return None;
        };
        let total = seconds.checked_mul(1_000_000_000).and_then(|total| total.checked_add(nanos));
        // A century and more is no limit.
        Some(total.filter(|total| *total < FOREVER_NS / 4).unwrap_or(FOREVER_NS))
    }

    /// A timeout in nanoseconds: `default_ns` when absent, no limit when zero.
    fn timeout_ns(&mut self, place: &Place, duration: Option<&Duration>, default_ns: u64) -> u64 {
        match self.duration_ns(place, duration) {
            None => default_ns,
            Some(0) => FOREVER_NS,
            Some(limit) => limit,
        }
    }

    /// The series of a listener, a route and a service.
    fn series(&mut self, listener: &str, route: &str, service: &str) -> SeriesId {
        let key = SeriesKey { listener: listener.into(), route: route.into(), service: service.into() };
        if let Some(known) = self.series_ids.get(&key) {
            return *known;
        }
        let id = SeriesId(self.series.len() as u32);
        self.series.push(key.clone());
        self.series_ids.insert(key, id);
        id
    }

    /// What a route or a listener sends to when it names `service`, which may be unknown.
    fn target(&mut self, listener: &str, route: &str, service: &str) -> Target {
        Target { service: self.service_ids.get(service).copied(), series: self.series(listener, route, service) }
    }
}
