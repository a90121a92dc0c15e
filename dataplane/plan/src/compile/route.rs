//! Routes: a `RouteConfiguration` with a `VirtualHost` for each group of host names. What is not understood here would
//! send requests astray, so nearly all of it is refused.

use super::fields::{self, EditSteps};
use super::rejection::Place;
use super::rewrite::{location, path_rewrite};
use super::{Work, cors, matching, policy, quota};
use crate::hosts::{Host, HostName, Hosts};
use crate::index::Index;
use crate::{Destination, Edits, FOREVER_NS, Route, RouteAction, RouteForward};
use api::envoy_types::pb::envoy::config::core::v3::data_source;
use api::envoy_types::pb::envoy::config::route::v3::route::Action;
use api::envoy_types::pb::envoy::config::route::v3::route_action::{ClusterSpecifier, HostRewriteSpecifier};
use api::envoy_types::pb::envoy::config::route::v3::weighted_cluster::ClusterWeight;
use api::envoy_types::pb::envoy::config::route::v3::{
    DirectResponseAction, RedirectAction, RetryPolicy, Route as Message, RouteAction as Forward, RouteConfiguration,
    VirtualHost, WeightedCluster,
};
use api::envoy_types::pb::google::protobuf::Any;
use std::collections::{BTreeMap, HashSet};
use std::mem::take;

/// Envoy's, where a route says nothing.
const TIMEOUT_NS: u64 = 15_000_000_000;
/// The longest body of a fixed answer: it is part of the plan.
const BODY_BYTES: usize = 64 * 1024;
/// The most attempts beyond the first.
const RETRIES: u32 = 16;

/// Compiles a listener's routes.
pub(super) fn hosts(work: &mut Work<'_>, place: &Place, listener: &str, message: &RouteConfiguration) -> Hosts {
    let mut rest = message.clone();
    let hosts = take(&mut rest.virtual_hosts);
    let outer = EditSteps {
        request_add: take(&mut rest.request_headers_to_add),
        request_remove: take(&mut rest.request_headers_to_remove),
        response_add: take(&mut rest.response_headers_to_add),
        response_remove: take(&mut rest.response_headers_to_remove),
    };
    let mut own_filters = take(&mut rest.typed_per_filter_config).into_iter().collect();
    let filters_place = place.field("typed_per_filter_config");
    cors::of_all(work, &filters_place, &mut own_filters);
    refuse_left(work, &filters_place, &own_filters);
    let outer_first = take(&mut rest.most_specific_header_mutations_wins);
    // Ports are always ignored; unknown clusters always answer 503; bodies have a limit of our own.
    (rest.name, rest.metadata, rest.ignore_port_in_host_matching, rest.validate_clusters) = Default::default();
    rest.max_direct_response_body_size_bytes = None;
    work.refuse_rest(place, &rest);
    let (mut taken, mut compiled) = (HashSet::new(), Vec::new());
    for (index, host) in hosts.iter().enumerate() {
        let place = place.element("virtual_hosts", index);
        let names = names(work, &place, host, &mut taken);
        let inherited = Inherited { outer: &outer, host: &EditSteps::of_host(host), outer_first };
        let first = work.routes.len();
        routes(work, &place, listener, host, &inherited);
        let numbers = first as u32..work.routes.len() as u32;
        let index = Index::new(numbers.clone().zip(work.routes[first..].iter().map(|route| &route.matcher.path)));
        let domains = host.domains.iter().map(|name| name.as_str().into()).collect();
        compiled.push((Host { name: host.name.as_str().into(), names: domains, routes: numbers, index }, names));
    }
    Hosts::new(compiled)
}

/// What routes take from what surrounds them.
struct Inherited<'a> {
    outer: &'a EditSteps,
    host: &'a EditSteps,
    /// The outer edits are made first, so that the inner ones win.
    outer_first: bool,
}

fn names(work: &mut Work<'_>, place: &Place, host: &VirtualHost, taken: &mut HashSet<HostName>) -> Vec<HostName> {
    let mut names = Vec::new();
    if host.domains.is_empty() {
        work.refuse(&place.field("domains"), "must not be empty");
    }
    for (index, domain) in host.domains.iter().enumerate() {
        let place = place.element("domains", index);
        match HostName::read(domain) {
            Err(reason) => work.refuse(&place, format!("{domain:?}: {reason}")),
            Ok(name) if !taken.insert(name.clone()) => work.refuse(&place, format!("{domain} stands there twice")),
            Ok(name) => names.push(name),
        }
    }
    names
}

fn routes(work: &mut Work<'_>, place: &Place, listener: &str, host: &VirtualHost, inherited: &Inherited<'_>) {
    let rest = VirtualHost {
        name: String::new(),
        domains: Vec::new(),
        routes: Vec::new(),
        request_headers_to_add: Vec::new(),
        request_headers_to_remove: Vec::new(),
        response_headers_to_add: Vec::new(),
        response_headers_to_remove: Vec::new(),
        metadata: None,
        virtual_clusters: Vec::new(),
        include_request_attempt_count: false,
        include_attempt_count_in_response: false,
        ..host.clone()
    };
    work.refuse_rest(place, &rest);
    for (index, message) in host.routes.iter().enumerate() {
        let place = place.element("routes", index);
        let name = match message.name.is_empty() {
            true => format!("{}/{}", host.name, index + 1),
            false => message.name.clone(),
        };
        if let Some(route) = route(work, &place, listener, name, message, inherited) {
            work.routes.push(route);
        }
    }
}

fn route(
    work: &mut Work<'_>,
    place: &Place,
    listener: &str,
    name: String,
    message: &Message,
    inherited: &Inherited<'_>,
) -> Option<Route> {
    let mut rest = message.clone();
    let (matches, action) = (rest.r#match.take(), rest.action.take());
    let own = EditSteps {
        request_add: take(&mut rest.request_headers_to_add),
        request_remove: take(&mut rest.request_headers_to_remove),
        response_add: take(&mut rest.response_headers_to_add),
        response_remove: take(&mut rest.response_headers_to_remove),
    };
    let mut own_filters = take(&mut rest.typed_per_filter_config).into_iter().collect();
    (rest.name, rest.metadata, rest.decorator, rest.tracing, rest.stat_prefix) = Default::default();
    work.refuse_rest(place, &rest);
    let (mut request_edits, mut response_edits) = (Edits::default(), Edits::default());
    let mut steps = [&own, inherited.host, inherited.outer];
    if inherited.outer_first {
        steps.reverse();
    }
    for step in steps {
        fields::edit(
            work,
            &place.field("request_headers"),
            &step.request_add,
            &step.request_remove,
            &mut request_edits,
        );
        fields::edit(
            work,
            &place.field("response_headers"),
            &step.response_add,
            &step.response_remove,
            &mut response_edits,
        );
    }
    let Some(matches) = matches else {
        work.refuse(&place.field("match"), "must be given");
        return None;
    };
    let matcher = matching::matches(work, &place.field("match"), matches)?;
    let series = work.series(listener, &name, "");
    let filters_place = place.field("typed_per_filter_config");
    let policy = policy::of_route(work, &filters_place, (listener, &name), &mut own_filters);
    let quotas = quota::of_route(work, &filters_place, (listener, &name), &mut own_filters);
    let cors = cors::of_route(work, &filters_place, &mut own_filters);
    refuse_left(work, &filters_place, &own_filters);
    let (mut body, mut host) = (Box::default(), None);
    let action = match action {
        Some(Action::Route(forward)) => {
            let place = place.field("route");
            host = host_rewrite(work, &place, forward.host_rewrite_specifier.as_ref());
            RouteAction::Forward(self::forward(work, &place, (listener, &name), forward, &matcher.path)?)
        }
        Some(Action::Redirect(redirect)) => {
            let place = place.field("redirect");
            let status = redirect_status(work, &place, &redirect)?;
            RouteAction::Redirect { status, to: location(work, &place, redirect, &matcher.path)? }
        }
        Some(Action::DirectResponse(response)) => {
            let (status, text) = respond(work, &place.field("direct_response"), response)?;
            body = text;
            RouteAction::Respond { status }
        }
        Some(_) => {
            work.refuse(&place.field("action"), "must be route, redirect or direct_response");
            return None;
        }
        None => {
            work.refuse(&place.field("action"), "must be given");
            return None;
        }
    };
    Some(Route {
        name: name.into(),
        request_edits,
        response_edits,
        body,
        host,
        matcher,
        action,
        series,
        policy,
        quotas,
        cors,
    })
}

fn refuse_left(work: &mut Work<'_>, place: &Place, own: &BTreeMap<String, Any>) {
    for name in own.keys() {
        work.refuse(&place.field(name), "belongs to no filter of the listener");
    }
}

/// `route`: where to, how long, how often.
fn forward(
    work: &mut Work<'_>,
    place: &Place,
    (listener, name): (&str, &str),
    mut rest: Forward,
    path: &crate::matcher::Path,
) -> Option<RouteForward> {
    let timeout_ns = work.timeout_ns(&place.field("timeout"), rest.timeout.take().as_ref(), TIMEOUT_NS);
    let (retries, per_try_timeout_ns) = retry(work, &place.field("retry_policy"), rest.retry_policy.take());
    let to = destination(work, place, (listener, name), rest.cluster_specifier.take());
    let rewrite = path_rewrite(work, place, take(&mut rest.prefix_rewrite), rest.regex_rewrite.take(), path);
    rest.host_rewrite_specifier = None;
    work.refuse_rest(place, &rest);
    Some(RouteForward { to: to?, timeout_ns, per_try_timeout_ns, retries, path: rewrite? })
}

fn destination(
    work: &mut Work<'_>,
    place: &Place,
    (listener, name): (&str, &str),
    specifier: Option<ClusterSpecifier>,
) -> Option<Destination> {
    match specifier {
        Some(ClusterSpecifier::Cluster(cluster)) => Some(Destination::One(work.target(listener, name, &cluster))),
        Some(ClusterSpecifier::WeightedClusters(mut rest)) => {
            let place = place.field("weighted_clusters");
            let clusters = take(&mut rest.clusters);
            work.refuse_rest(&place, &WeightedCluster { runtime_key_prefix: String::new(), ..rest });
            let mut shares = Vec::new();
            for (index, cluster) in clusters.iter().enumerate() {
                let place = place.element("clusters", index);
                let rest = ClusterWeight { name: String::new(), weight: None, ..cluster.clone() };
                work.refuse_rest(&place, &rest);
                match &cluster.weight {
                    Some(weight) => shares.push((cluster.name.as_str(), weight.value)),
                    None => work.refuse(&place.field("weight"), "must be given"),
                }
            }
            weighted(work, &place, listener, name, shares)
        }
        _ => {
            work.refuse(place, "must have cluster or weighted_clusters");
            None
        }
    }
}

/// Several services by weight.
pub(super) fn weighted(
    work: &mut Work<'_>,
    place: &Place,
    listener: &str,
    route: &str,
    shares: Vec<(&str, u32)>,
) -> Option<Destination> {
    let weights: Vec<u32> = shares.iter().map(|(_, weight)| *weight).collect();
    let Some(choice) = balance::Weighted::new(&weights) else {
        work.refuse(place, "must have a weight above 0");
        return None;
    };
    let targets = shares.iter().map(|(name, _)| work.target(listener, route, name)).collect();
    Some(Destination::Weighted { choice, targets, weights: weights.into() })
}

/// How many more attempts, and how long each may take. Only failed connects are tried again.
fn retry(work: &mut Work<'_>, place: &Place, policy: Option<RetryPolicy>) -> (u8, u64) {
    let Some(mut rest) = policy else {
        return (0, FOREVER_NS);
    };
    let causes = take(&mut rest.retry_on);
    for cause in causes.split(',').map(str::trim).filter(|cause| !cause.is_empty()) {
        if cause != "connect-failure" {
            work.refuse(&place.field("retry_on"), format!("{cause} is not supported"));
        }
    }
    let retries = rest.num_retries.take().map_or(1, |retries| retries.value);
    if retries > RETRIES {
        work.refuse(&place.field("num_retries"), format!("must be at most {RETRIES}"));
    }
    let per_try = rest.per_try_timeout.take();
    let per_try_timeout_ns = work.timeout_ns(&place.field("per_try_timeout"), per_try.as_ref(), FOREVER_NS);
    // Endpoints that were tried are always avoided, and there is no waiting in between.
    (rest.retry_host_predicate, rest.host_selection_retry_max_attempts, rest.retry_back_off) = Default::default();
    work.refuse_rest(place, &rest);
    match causes.is_empty() {
        true => (0, per_try_timeout_ns),
        false => (retries.min(RETRIES) as u8, per_try_timeout_ns),
    }
}

fn host_rewrite(work: &mut Work<'_>, place: &Place, specifier: Option<&HostRewriteSpecifier>) -> Option<Box<str>> {
    let place = place.field("host_rewrite_literal");
    match specifier? {
        HostRewriteSpecifier::HostRewriteLiteral(host) => fields::host(work, &place, host),
        _ => {
            work.refuse(&place, "is the only rewrite of hosts that is supported");
            None
        }
    }
}

fn redirect_status(work: &mut Work<'_>, place: &Place, redirect: &RedirectAction) -> Option<u16> {
    match redirect.response_code {
        0 => Some(301),
        1 => Some(302),
        2 => Some(303),
        3 => Some(307),
        4 => Some(308),
        _ => {
            work.refuse(&place.field("response_code"), "is not known");
            None
        }
    }
}

fn respond(work: &mut Work<'_>, place: &Place, mut rest: DirectResponseAction) -> Option<(u16, Box<[u8]>)> {
    // An informational answer would leave the client waiting for another.
    let status = u16::try_from(take(&mut rest.status)).ok().filter(|status| (200..600).contains(status));
    if status.is_none() {
        work.refuse(&place.field("status"), "must be 200 to 599");
    }
    let source = rest.body.take();
    work.refuse_rest(place, &rest);
    let place = place.field("body");
    let body: Box<[u8]> = match source.map(|source| source.specifier) {
        None => Box::default(),
        Some(Some(data_source::Specifier::InlineString(text))) => text.into_bytes().into(),
        Some(Some(data_source::Specifier::InlineBytes(bytes))) => bytes.into(),
        Some(_) => {
            work.refuse(&place, "must be inline");
            return None;
        }
    };
    if body.len() > BODY_BYTES {
        work.refuse(&place, format!("may have {BODY_BYTES} bytes"));
        return None;
    }
    // RFC 9110 sections 15.3.5, 15.3.6 and 15.4.5: these have no content.
    if matches!(status, Some(204 | 205 | 304)) && !body.is_empty() {
        work.refuse(&place, "must be empty with this status");
    }
    Some((status?, body))
}
