//! Services: a Cluster, and the ClusterLoadAssignment that names its endpoints.

use std::collections::HashMap;

use envoy_types::pb::{
    envoy::{
        config::{
            cluster::v3::{
                CircuitBreakers, Cluster, LoadBalancingPolicy,
                circuit_breakers::Thresholds,
                cluster::{ClusterDiscoveryType, DiscoveryType, DnsLookupFamily, EdsClusterConfig},
                load_balancing_policy::Policy,
            },
            core::v3::{
                self as core, Locality, ProxyProtocolConfig, RoutingPriority, TransportSocket, TypedExtensionConfig,
                proxy_protocol_config, transport_socket,
            },
            endpoint::v3::{
                ClusterLoadAssignment, Endpoint as ResourceEndpoint, LbEndpoint, LocalityLbEndpoints,
                lb_endpoint::HostIdentifier,
            },
        },
        extensions::{
            load_balancing_policies::{
                least_request::v3::LeastRequest, random::v3::Random, round_robin::v3::RoundRobin,
            },
            transport_sockets::proxy_protocol::v3::ProxyProtocolUpstreamTransport,
        },
    },
    google::protobuf::Any,
};

use super::{address, ads, duration, number, tls};
use crate::{
    model::{Balance, Endpoint, Endpoints, ProxyVersion, Service, ServiceLimits},
    xds,
};

/// One service. `http`: no tcp listener sends to it.
pub(super) fn cluster(of: &Service, http: bool) -> Cluster {
    let base = Cluster {
        name: of.name.clone(),
        connect_timeout: Some(duration(of.connect_timeout)),
        circuit_breakers: Some(limits(&of.limits)),
        load_balancing_policy: Some(balance(of.balance)),
        transport_socket: transport(of, http),
        ..Cluster::default()
    };
    match &of.endpoints {
        Endpoints::Addresses(_) | Endpoints::Group { .. } | Endpoints::Set => by_address(base),
        Endpoints::Names(names) => by_name(base, &of.name, names),
    }
}

/// `tls` and `proxy-protocol`: the header goes before TLS.
fn transport(of: &Service, http: bool) -> Option<TransportSocket> {
    let socket = |name: &str, config: Any| TransportSocket {
        name: format!("envoy.transport_sockets.{name}"),
        config_type: Some(transport_socket::ConfigType::TypedConfig(config)),
    };
    let inner = of.tls.as_ref().map(|tls| tls::upstream(tls, http));
    let version = match of.proxy_protocol {
        None => return inner,
        Some(ProxyVersion::V1) => proxy_protocol_config::Version::V1,
        Some(ProxyVersion::V2) => proxy_protocol_config::Version::V2,
    };
    let plain = || socket("raw_buffer", Any { type_url: xds::RAW_BUFFER.to_owned(), value: Vec::new() });
    let around = ProxyProtocolUpstreamTransport {
        config: Some(ProxyProtocolConfig { version: version as i32, ..ProxyProtocolConfig::default() }),
        transport_socket: Some(inner.unwrap_or_else(plain)),
        ..ProxyProtocolUpstreamTransport::default()
    };
    Some(socket("upstream_proxy_protocol", xds::any(xds::UPSTREAM_PROXY_PROTOCOL, &around)))
}

/// Addresses come by EDS, one name per cluster.
fn by_address(base: Cluster) -> Cluster {
    Cluster {
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Eds as i32)),
        eds_cluster_config: Some(EdsClusterConfig { eds_config: Some(ads()), ..EdsClusterConfig::default() }),
        ..base
    }
}

/// Names stand inside the cluster, as EDS cannot carry them. Every address of both families is an endpoint.
#[allow(deprecated, reason = "Envoy's newer carrier is an extension that older proxies do not know")]
fn by_name(base: Cluster, service: &str, names: &[Endpoint<crate::model::DnsName>]) -> Cluster {
    Cluster {
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::StrictDns as i32)),
        load_assignment: Some(load_assignment(service, names, address::write_name)),
        respect_dns_ttl: true,
        dns_lookup_family: DnsLookupFamily::All as i32,
        ..base
    }
}

/// `endpoints`: one locality per zone, in the order in which zones first appear.
pub(super) fn load_assignment<A>(
    service: &str,
    endpoints: &[Endpoint<A>],
    write: impl Fn(&A) -> core::Address,
) -> ClusterLoadAssignment {
    let mut zones: Vec<LocalityLbEndpoints> = Vec::new();
    let mut places: HashMap<&str, usize> = HashMap::new();
    for endpoint in endpoints {
        let place = *places.entry(&endpoint.zone).or_insert_with(|| {
            zones.push(locality(&endpoint.zone));
            zones.len() - 1
        });
        zones[place].lb_endpoints.push(lb_endpoint(write(&endpoint.address), endpoint.weight));
    }
    ClusterLoadAssignment { cluster_name: service.to_owned(), endpoints: zones, ..ClusterLoadAssignment::default() }
}

/// `zone`
fn locality(zone: &str) -> LocalityLbEndpoints {
    let named = Locality { zone: zone.to_owned(), ..Locality::default() };
    LocalityLbEndpoints { locality: (!zone.is_empty()).then_some(named), ..LocalityLbEndpoints::default() }
}

/// An address and its `weight`.
fn lb_endpoint(address: core::Address, weight: u32) -> LbEndpoint {
    let endpoint = ResourceEndpoint { address: Some(address), ..ResourceEndpoint::default() };
    LbEndpoint {
        host_identifier: Some(HostIdentifier::Endpoint(endpoint)),
        load_balancing_weight: number(weight),
        ..LbEndpoint::default()
    }
}

/// `balance`. A proxy takes the first policy that it knows, so ours stands before the nearest of Envoy's.
fn balance(of: Balance) -> LoadBalancingPolicy {
    let round_robin = || policy("round_robin", xds::any(xds::ROUND_ROBIN, &RoundRobin::default()));
    let random = || policy("random", xds::any(xds::RANDOM, &Random::default()));
    let least = LeastRequest { choice_count: number(2), ..LeastRequest::default() };
    let least_request = || policy("least_request", xds::any(xds::LEAST_REQUEST, &least));
    let peak_ewma = || policy("peak_ewma", Any { type_url: xds::PEAK_EWMA.to_owned(), value: Vec::new() });
    LoadBalancingPolicy {
        policies: match of {
            Balance::RoundRobin => vec![round_robin()],
            Balance::Random => vec![random()],
            Balance::LeastRequest => vec![least_request()],
            Balance::PeakEwma => vec![peak_ewma(), least_request()],
        },
    }
}

fn policy(name: &str, config: Any) -> Policy {
    let owner = if config.type_url == xds::PEAK_EWMA { "ringway" } else { "envoy.load_balancing_policies" };
    Policy {
        typed_extension_config: Some(TypedExtensionConfig {
            name: format!("{owner}.{name}"),
            typed_config: Some(config),
        }),
    }
}

/// `limits`. Retries are bounded by the rule of each route; Envoy's own limit of 3 at once would cut them off.
fn limits(of: &ServiceLimits) -> CircuitBreakers {
    CircuitBreakers {
        thresholds: vec![Thresholds {
            priority: RoutingPriority::Default as i32,
            max_connections: number(of.connections),
            max_pending_requests: number(of.pending),
            max_requests: number(of.requests),
            max_retries: number(of.requests),
            ..Thresholds::default()
        }],
        ..CircuitBreakers::default()
    }
}
