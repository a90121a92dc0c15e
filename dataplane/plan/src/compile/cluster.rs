//! Services: a `Cluster`, and the `ClusterLoadAssignment` that names its endpoints.

use super::address::{self, Read};
use super::rejection::Place;
use super::{Name, Work, proxy, tls};
use crate::{Service, ServiceId, World};
use api::envoy_types::pb::envoy::config::cluster::v3::circuit_breakers::Thresholds;
use api::envoy_types::pb::envoy::config::cluster::v3::cluster::{
    ClusterDiscoveryType, DiscoveryType, DnsLookupFamily, LbPolicy,
};
use api::envoy_types::pb::envoy::config::cluster::v3::{CircuitBreakers, Cluster, LoadBalancingPolicy};
use api::envoy_types::pb::envoy::config::core::v3::{HealthStatus, RoutingPriority};
use api::envoy_types::pb::envoy::config::endpoint::v3::lb_endpoint::HostIdentifier;
use api::envoy_types::pb::envoy::config::endpoint::v3::{
    ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints,
};
use api::envoy_types::pb::envoy::extensions::load_balancing_policies::least_request::v3::LeastRequest;
use api::envoy_types::pb::google::protobuf::UInt32Value;
use api::{Resources, xds};
use balance::{Address, Algorithm, Limits};
use std::collections::HashMap;
use std::mem::take;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// Envoy's, where a cluster says nothing.
const CONNECT_TIMEOUT_NS: u64 = 5_000_000_000;
/// Envoy's, where a cluster says nothing.
const LIMIT: u32 = 1024;

/// Compiles all clusters into `work.services`.
pub(super) fn clusters<'a>(work: &mut Work<'a>, resources: &'a Resources) {
    let mut assignments = HashMap::new();
    for assignment in &resources.endpoints {
        if assignments.insert(assignment.cluster_name.as_str(), assignment).is_some() {
            work.refuse(&Place::new("endpoints", &assignment.cluster_name), "stands there twice");
        }
    }
    for message in &resources.clusters {
        let place = Place::new("cluster", &message.name);
        if message.name.is_empty() {
            work.refuse(&place.field("name"), "must be given");
        }
        if work.service_ids.contains_key(message.name.as_str()) {
            work.refuse(&place, "stands there twice");
            continue;
        }
        // The id stands even for a cluster that is refused, so that its routes are not reported too.
        work.service_ids.insert(&message.name, ServiceId(work.services.len() as u32));
        if let Some(service) = cluster(work, &place, message, &assignments) {
            work.services.push(service);
        }
    }
}

#[allow(deprecated, reason = "xDS deprecates fields that proxies must go on to read")]
fn cluster(
    work: &mut Work<'_>,
    place: &Place,
    message: &Cluster,
    assignments: &HashMap<&str, &ClusterLoadAssignment>,
) -> Option<Service> {
    let mut rest = message.clone();
    (rest.name, rest.alt_stat_name, rest.respect_dns_ttl) = Default::default();
    let connect_timeout_ns = connect_timeout_ns(work, place, &mut rest);
    let algorithm = algorithm(work, place, take(&mut rest.lb_policy), rest.load_balancing_policy.take());
    let limits = limits(work, &place.field("circuit_breakers"), rest.circuit_breakers.take());
    let endpoints = endpoints(work, place, &mut rest, assignments);
    let socket = rest.transport_socket.take();
    let (proxy_protocol, socket) = proxy::transport(work, &place.field("transport_socket"), socket);
    let tls = socket.and_then(|socket| tls::client(work, &place.field("transport_socket"), socket, &message.name));
    for (set, field) in [
        (!take(&mut rest.transport_socket_matches).is_empty(), "transport_socket_matches"),
        (rest.transport_socket_matcher.take().is_some(), "transport_socket_matcher"),
        (rest.http2_protocol_options.take().is_some(), "http2_protocol_options"),
        (!take(&mut rest.typed_extension_protocol_options).is_empty(), "typed_extension_protocol_options"),
        (!take(&mut rest.filters).is_empty(), "filters"),
        (rest.lb_subset_config.take().is_some(), "lb_subset_config"),
    ] {
        if set {
            work.refuse(&place.field(field), "is not supported");
        }
    }
    work.ignore_rest(place, &rest);
    let balance = balanced(work, place, &message.name, endpoints?, algorithm?, limits)?;
    Some(Service { name: (&*message.name).into(), balance, connect_timeout_ns, tls, proxy_protocol })
}

/// The previous plan's where nothing about it has changed: cores tell by its being the same that they need not look at it.
fn balanced(
    work: &mut Work<'_>,
    place: &Place,
    name: &str,
    endpoints: Vec<(Address, u32)>,
    algorithm: Algorithm,
    limits: Limits,
) -> Option<Arc<balance::Service>> {
    let previous = work.previous.get(name).map(|service| &service.balance);
    if let Some(same) = previous.filter(|previous| previous.is(&endpoints, algorithm, &limits)) {
        return Some(same.clone());
    }
    match balance::Service::carry(previous.map(|previous| &**previous), name, endpoints, algorithm, limits) {
        Ok(balance) => Some(Arc::new(balance)),
        Err(error) => {
            work.refuse(&place.field("endpoints"), error.to_string());
            None
        }
    }
}

/// A service with the endpoints of this message. None: not all of it is understood.
pub(super) fn with_endpoints(
    service: &balance::Service,
    message: &ClusterLoadAssignment,
    world: &World,
) -> Option<Arc<balance::Service>> {
    let mut work = Work::new(None, world);
    let place = Place::new("endpoints", &message.cluster_name);
    let endpoints = assignment(&mut work, &place, message, Source::Addresses)?;
    let carried =
        balance::Service::carry(Some(service), service.name(), endpoints, service.algorithm(), *service.limits());
    carried.ok().filter(|_| work.ignored.is_empty()).map(Arc::new)
}

fn connect_timeout_ns(work: &mut Work<'_>, place: &Place, rest: &mut Cluster) -> u64 {
    let place = place.field("connect_timeout");
    match work.duration_ns(&place, rest.connect_timeout.take().as_ref()) {
        Some(0) => work.refuse(&place, "must be positive"),
        Some(limit) => return limit,
        None => {}
    }
    CONNECT_TIMEOUT_NS
}

/// The first policy that is known, as `LoadBalancingPolicy` says; without any, the older field.
fn algorithm(work: &mut Work<'_>, place: &Place, older: i32, policy: Option<LoadBalancingPolicy>) -> Option<Algorithm> {
    let Some(LoadBalancingPolicy { policies }) = policy else {
        return match LbPolicy::try_from(older) {
            Ok(LbPolicy::RoundRobin) => Some(Algorithm::RoundRobin),
            Ok(LbPolicy::LeastRequest) => Some(Algorithm::LeastRequest),
            Ok(LbPolicy::Random) => Some(Algorithm::Random),
            Ok(other) => {
                work.refuse(&place.field("lb_policy"), format!("{} is not supported", other.as_str_name()));
                None
            }
            Err(_) => {
                work.refuse(&place.field("lb_policy"), format!("{older} is not known"));
                None
            }
        };
    };
    let place = place.field("load_balancing_policy.policies");
    let configs = policies.into_iter().filter_map(|policy| policy.typed_extension_config?.typed_config);
    for config in configs {
        if xds::is(&config, xds::LEAST_REQUEST) {
            let choices = match xds::decode::<LeastRequest>(&config, xds::LEAST_REQUEST) {
                Ok(least) => least.choice_count.map_or(2, |choices| choices.value),
                Err(error) => {
                    work.refuse(&place, error);
                    return None;
                }
            };
            if choices != 2 {
                work.refuse(&place.field("choice_count"), "must be 2");
            }
            return Some(Algorithm::LeastRequest);
        }
        for (url, algorithm) in [
            (xds::PEAK_EWMA, Algorithm::PeakEwma),
            (xds::ROUND_ROBIN, Algorithm::RoundRobin),
            (xds::RANDOM, Algorithm::Random),
        ] {
            if xds::is(&config, url) {
                return Some(algorithm);
            }
        }
    }
    work.refuse(&place, "names no policy that is known");
    None
}

fn limits(work: &mut Work<'_>, place: &Place, message: Option<CircuitBreakers>) -> Limits {
    let mut limits = Limits { connections: LIMIT, pending: LIMIT, requests: LIMIT };
    let CircuitBreakers { thresholds, per_host_thresholds } = message.unwrap_or_default();
    work.ignore_rest(place, &CircuitBreakers { per_host_thresholds, ..CircuitBreakers::default() });
    for (index, mut rest) in thresholds.into_iter().enumerate() {
        let place = place.element("thresholds", index);
        if rest.priority == RoutingPriority::Default as i32 {
            let or_default = |value: Option<UInt32Value>| value.map_or(LIMIT, |value| value.value);
            limits.connections = or_default(rest.max_connections.take());
            limits.pending = or_default(rest.max_pending_requests.take());
            limits.requests = or_default(rest.max_requests.take());
        }
        // Retries are bounded by each route's own rule.
        work.ignore_rest(&place, &Thresholds { max_retries: None, track_remaining: false, ..rest });
    }
    limits
}

/// The endpoints with their weights, from wherever the cluster has them.
fn endpoints(
    work: &mut Work<'_>,
    place: &Place,
    rest: &mut Cluster,
    assignments: &HashMap<&str, &ClusterLoadAssignment>,
) -> Option<Vec<(Address, u32)>> {
    let inline = rest.load_assignment.take();
    let eds = rest.eds_cluster_config.take();
    let family = take(&mut rest.dns_lookup_family);
    let kind = match rest.cluster_discovery_type.take() {
        Some(ClusterDiscoveryType::Type(kind)) => DiscoveryType::try_from(kind).ok(),
        Some(ClusterDiscoveryType::ClusterType(custom)) => {
            work.refuse(&place.field("cluster_type"), format!("{} is not supported", custom.name));
            return None;
        }
        None => Some(DiscoveryType::Static),
    };
    match kind {
        Some(kind @ (DiscoveryType::Static | DiscoveryType::StrictDns)) => {
            let place = place.field("load_assignment");
            let Some(inline) = inline else {
                work.refuse(&place, "must be given");
                return None;
            };
            let source = match kind {
                DiscoveryType::StrictDns => {
                    Source::Names(DnsLookupFamily::try_from(family).unwrap_or(DnsLookupFamily::All))
                }
                _ => Source::Addresses,
            };
            assignment(work, &place, &inline, source)
        }
        Some(DiscoveryType::Eds) => {
            let other_name = eds.map(|eds| eds.service_name).filter(|name| !name.is_empty());
            let name = other_name.as_deref().unwrap_or(&place.name);
            match assignments.get(name) {
                Some(found) => assignment(work, &Place::new("endpoints", name), found, Source::Addresses),
                // Not there yet: the service has nobody to send to.
                None => Some(Vec::new()),
            }
        }
        Some(other) => {
            work.refuse(&place.field("type"), format!("{} is not supported", other.as_str_name()));
            None
        }
        None => {
            work.refuse(&place.field("type"), "is not known");
            None
        }
    }
}

/// What may stand in a load assignment.
#[derive(Clone, Copy)]
enum Source {
    Addresses,
    Names(DnsLookupFamily),
}

fn assignment(
    work: &mut Work<'_>,
    place: &Place,
    message: &ClusterLoadAssignment,
    source: Source,
) -> Option<Vec<(Address, u32)>> {
    let before = work.rejections.len();
    let rest = ClusterLoadAssignment { cluster_name: String::new(), endpoints: Vec::new(), ..message.clone() };
    work.ignore_rest(place, &rest);
    let mut endpoints = Vec::new();
    for (index, zone) in message.endpoints.iter().enumerate() {
        let place = place.element("endpoints", index);
        if zone.priority != 0 {
            work.refuse(&place.field("priority"), "must be 0");
        }
        let rest = LocalityLbEndpoints {
            locality: None,
            metadata: None,
            lb_endpoints: Vec::new(),
            priority: 0,
            ..zone.clone()
        };
        work.ignore_rest(&place, &rest);
        for (index, one) in zone.lb_endpoints.iter().enumerate() {
            endpoint(work, &place.element("lb_endpoints", index), one, source, &mut endpoints);
        }
    }
    (work.rejections.len() == before).then_some(endpoints)
}

/// One endpoint, or one for each address of its name. One that is known to be unhealthy is left out.
fn endpoint(work: &mut Work<'_>, place: &Place, message: &LbEndpoint, source: Source, into: &mut Vec<(Address, u32)>) {
    let Some(HostIdentifier::Endpoint(endpoint)) = &message.host_identifier else {
        return work.refuse(&place.field("endpoint"), "must be given");
    };
    work.ignore_rest(
        &place.field("endpoint"),
        &Endpoint { address: None, hostname: String::new(), ..endpoint.clone() },
    );
    let weight = match message.load_balancing_weight {
        Some(UInt32Value { value: 0 }) => {
            return work.refuse(&place.field("load_balancing_weight"), "must be positive");
        }
        Some(UInt32Value { value }) => value,
        None => 1,
    };
    match HealthStatus::try_from(message.health_status) {
        Ok(HealthStatus::Unknown | HealthStatus::Healthy | HealthStatus::Degraded) => {}
        Ok(_) => return,
        Err(_) => return work.refuse(&place.field("health_status"), "is not known"),
    }
    let at = place.field("endpoint.address");
    match (address::read(work, &at, endpoint.address.as_ref()), source) {
        (None, _) => {}
        (Some(Read::Known(address)), _) => into.push((address, weight)),
        (Some(Read::Name(name)), Source::Addresses) => {
            work.refuse(&at, format!("{} is not an IP address", name.host));
        }
        (Some(Read::Name(name)), Source::Names(family)) => {
            resolved(work, &name, family, |address| into.push((address, weight)));
            work.names.insert(name);
        }
    }
}

/// The addresses that a name has, always in the same order so that the same answer gives the same plan.
fn resolved(work: &Work<'_>, name: &Name, family: DnsLookupFamily, mut found: impl FnMut(Address)) {
    let mut addresses: Vec<IpAddr> = work.world.answers.addresses.get(name).cloned().unwrap_or_default();
    addresses.sort_unstable();
    addresses.dedup();
    let wanted = |ip: &IpAddr| match family {
        DnsLookupFamily::V4Only => ip.is_ipv4(),
        DnsLookupFamily::V6Only => ip.is_ipv6(),
        _ => true,
    };
    addresses.into_iter().filter(wanted).for_each(|ip| found(Address::Ip(SocketAddr::new(ip, name.port))));
}
