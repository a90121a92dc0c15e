//! Listeners: an address and one filter chain that ends in an `HttpConnectionManager` or a `TcpProxy`.

use super::rejection::Place;
use super::{Work, address, cors, passthrough, policy, proxy, quota, route, tls};
use crate::{Destination, FOREVER_NS, Forwarded, ForwardedMode, Http, Kind, Listener, Tcp, Transport};
use api::envoy_types::pb::envoy::config::core::v3::{HttpProtocolOptions, Metadata};
use api::envoy_types::pb::envoy::config::listener::v3::{
    Filter, FilterChain, FilterChainMatch, Listener as Message, ListenerFilter, filter, listener_filter,
};
use api::envoy_types::pb::envoy::config::route::v3::RouteConfiguration;
use api::envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::{
    CodecType, ForwardClientCertDetails, PathWithEscapedSlashesAction, RouteSpecifier,
};
use api::envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpConnectionManager, HttpFilter, http_filter,
};
use api::envoy_types::pb::envoy::extensions::filters::network::tcp_proxy::v3::TcpProxy;
use api::envoy_types::pb::envoy::extensions::filters::network::tcp_proxy::v3::tcp_proxy::ClusterSpecifier;
use api::envoy_types::pb::google::protobuf::{Any, UInt32Value, value};
use api::{Resources, xds};
use std::collections::{HashMap, HashSet};
use std::mem::take;

/// Envoy's, where nothing is said.
const IDLE_TIMEOUT_NS: u64 = 3_600_000_000_000;
/// Envoy's, where nothing is said.
const OPENING_TIMEOUT_NS: u64 = 15_000_000_000;
/// Envoy's, where nothing is said.
const HEAD_KIB: u32 = 60;
/// Envoy's, where nothing is said.
const FIELDS: u32 = 100;
/// A head is held whole, so it cannot be as large as a message says.
const HEAD_KIB_MOST: u32 = 256;

/// Compiles all listeners, and with each http one its routes.
pub(super) fn listeners(work: &mut Work<'_>, resources: &Resources) -> Vec<Listener> {
    let routes: HashMap<&str, &RouteConfiguration> =
        resources.routes.iter().map(|routes| (routes.name.as_str(), routes)).collect();
    if routes.len() < resources.routes.len() {
        work.refuse(&Place::new("route", ""), "a name stands there twice");
    }
    let (mut listeners, mut names, mut addresses) = (Vec::new(), HashSet::new(), HashSet::new());
    for message in &resources.listeners {
        let place = Place::new("listener", &message.name);
        if message.name.is_empty() {
            work.refuse(&place.field("name"), "must be given");
        }
        if !names.insert(&message.name) {
            work.refuse(&place, "stands there twice");
            continue;
        }
        let Some(listener) = listener(work, &place, message, &routes) else {
            continue;
        };
        if !addresses.insert(listener.address.clone()) {
            work.refuse(&place.field("address"), format!("{} belongs to another listener", listener.address));
        }
        listeners.push(listener);
    }
    if listeners.len() > usize::from(u16::MAX) {
        work.refuse(&Place::new("listener", ""), format!("there may be {} listeners", u16::MAX));
    }
    listeners
}

#[allow(deprecated, reason = "xDS deprecates fields that proxies must go on to read")]
fn listener(
    work: &mut Work<'_>,
    place: &Place,
    message: &Message,
    routes: &HashMap<&str, &RouteConfiguration>,
) -> Option<Listener> {
    let mut rest = message.clone();
    let address = address::read_known(work, &place.field("address"), rest.address.take().as_ref());
    let mut chains = take(&mut rest.filter_chains);
    let metadata = rest.metadata.take();
    let proxied = listener_filters(work, &place.field("listener_filters"), take(&mut rest.listener_filters));
    let proxy_protocol = proxy::allowed(work, place, proxied, &mut chains);
    let opening = rest.listener_filters_timeout.take();
    let opening_timeout_ns =
        work.timeout_ns(&place.field("listener_filters_timeout"), opening.as_ref(), OPENING_TIMEOUT_NS);
    let logged = work.logs | !take(&mut rest.access_log).is_empty();
    // What says nothing about whom is let in or where it goes.
    (rest.name, rest.stat_prefix, rest.traffic_direction, rest.reuse_port) = Default::default();
    (rest.enable_reuse_port, rest.stats_matcher, rest.drain_type) = Default::default();
    for ignorable in [&mut rest.per_connection_buffer_limit_bytes, &mut rest.tcp_backlog_size] {
        if ignorable.take().is_some() {
            work.ignored.push(format!("{}: buffer and backlog sizes", place.field("")));
        }
    }
    work.refuse_rest(place, &rest);
    let unrouted = work.series(&message.name, "", "");
    work.through.clear();
    let name = message.name.as_str().into();
    if passthrough::is_meant(&chains) {
        let kind = Kind::Passthrough(passthrough::listener(work, place, &message.name, chains, logged)?);
        let transport = Transport::Plain;
        let address = address?;
        return Some(Listener { name, address, kind, unrouted, transport, proxy_protocol, opening_timeout_ns });
    }
    work.limits.clear();
    work.cors_filter = None;
    let (transport, filters, place) = transport(work, place, chains)?;
    let (config, place) = last_filter(work, place, &message.name, filters)?;
    let kind = if xds::is(&config, xds::HTTP_CONNECTION_MANAGER) {
        let manager = unpacked(work, &place, xds::decode(&config, xds::HTTP_CONNECTION_MANAGER))?;
        Kind::Http(http(work, &place, &message.name, manager, metadata.as_ref(), logged, routes)?)
    } else if xds::is(&config, xds::TCP_PROXY) {
        Kind::Tcp(tcp(work, &place, &message.name, &config, logged)?)
    } else {
        work.refuse(&place, format!("{} is not supported", config.type_url));
        return None;
    };
    let address = address?;
    Some(Listener { name, address, kind, unrouted, transport, proxy_protocol, opening_timeout_ns })
}

/// What carries the protocol, and the filters of it: of one chain, or of two that differ in nothing but TLS.
fn transport(
    work: &mut Work<'_>,
    place: &Place,
    mut chains: Vec<FilterChain>,
) -> Option<(Transport, Vec<Filter>, Place)> {
    let mut plain = None;
    if chains.len() == 2 {
        let protocol = |chain: &FilterChain| {
            chain.filter_chain_match.as_ref().map(|matches| matches.transport_protocol.clone()).unwrap_or_default()
        };
        plain = chains.iter().position(|chain| protocol(chain) == "raw_buffer").map(|at| chains.remove(at));
    }
    let migrates = plain.is_some();
    let Ok([mut chain]) = <[FilterChain; 1]>::try_from(chains) else {
        work.refuse(&place.field("filter_chains"), "must be one, or two for TLS and plaintext");
        return None;
    };
    let place = place.element("filter_chains", 0);
    let filters = take(&mut chain.filters);
    if let Some(mut plain) = plain {
        let only = |protocol: &str| {
            Some(FilterChainMatch { transport_protocol: protocol.to_owned(), ..FilterChainMatch::default() })
        };
        let same = take(&mut plain.filters) == filters
            && plain.filter_chain_match.take() == only("raw_buffer")
            && chain.filter_chain_match.take() == only("tls");
        (plain.name, plain.metadata) = Default::default();
        if !same || plain != FilterChain::default() {
            work.refuse(
                &place,
                "two chains must differ in transport_protocol (tls, raw_buffer) and transport_socket alone",
            );
        }
    }
    let socket = chain.transport_socket.take();
    (chain.name, chain.metadata) = Default::default();
    work.refuse_rest(&place, &chain);
    let transport = match socket {
        None if migrates => {
            work.refuse(&place.field("transport_socket"), "must be given");
            return None;
        }
        None => Transport::Plain,
        Some(socket) => {
            let server = tls::server(work, &place.field("transport_socket"), socket)?;
            if migrates { Transport::Migrate(server) } else { Transport::Tls(server) }
        }
    };
    Some((transport, filters, place.field("filters")))
}

/// The configuration of the last filter; those before it are RBAC's.
pub(super) fn last_filter(
    work: &mut Work<'_>,
    place: Place,
    listener: &str,
    mut filters: Vec<Filter>,
) -> Option<(Any, Place)> {
    let Some(Filter { name, config_type }) = filters.pop() else {
        work.refuse(&place, "must end with HttpConnectionManager or TcpProxy");
        return None;
    };
    for filter in filters {
        match filter.config_type {
            Some(filter::ConfigType::TypedConfig(config)) if xds::is(&config, xds::NETWORK_RBAC) => {
                let list = policy::network_filter(work, &place.field(&filter.name), listener, &config);
                work.through.push((filter.name, list));
            }
            _ => work.refuse(&place, format!("{} is not supported", filter.name)),
        }
    }
    match config_type {
        Some(filter::ConfigType::TypedConfig(config)) => Some((config, place)),
        _ => {
            work.refuse(&place, format!("{name} must have a typed_config"));
            None
        }
    }
}

/// Of what looks at a connection before its chain is chosen, only the PROXY header and what tells TLS from other bytes are
/// known. Whether there is a PROXY header.
fn listener_filters(work: &mut Work<'_>, place: &Place, filters: Vec<ListenerFilter>) -> bool {
    let mut proxied = false;
    for (index, filter) in filters.into_iter().enumerate() {
        match &filter.config_type {
            Some(listener_filter::ConfigType::TypedConfig(config)) if xds::is(config, xds::TLS_INSPECTOR) => {}
            Some(listener_filter::ConfigType::TypedConfig(config)) if xds::is(config, xds::PROXY_PROTOCOL) => {
                proxy::filter(work, &place.field(&filter.name), index, config);
                proxied = true;
            }
            _ => work.refuse(place, format!("{} is not supported", filter.name).trim_start()),
        }
    }
    proxied
}

/// Whether services are told of the client's certificate. What comes from outside under that name is never passed on.
fn forward_client_certificate(work: &mut Work<'_>, place: &Place, rest: &mut HttpConnectionManager) -> bool {
    let details = ForwardClientCertDetails::try_from(take(&mut rest.forward_client_cert_details));
    let uri = rest.set_current_client_cert_details.take();
    match details {
        Ok(ForwardClientCertDetails::Sanitize) => false,
        Ok(ForwardClientCertDetails::SanitizeSet) => uri.is_some_and(|set| set.uri),
        _ => {
            work.refuse(&place.field("forward_client_cert_details"), "must be SANITIZE or SANITIZE_SET");
            false
        }
    }
}

/// A message that was packed, or why it could not be unpacked.
fn unpacked<M>(work: &mut Work<'_>, place: &Place, message: Result<M, String>) -> Option<M> {
    message.map_err(|error| work.refuse(place, error)).ok()
}

fn http(
    work: &mut Work<'_>,
    place: &Place,
    listener: &str,
    mut rest: HttpConnectionManager,
    metadata: Option<&Metadata>,
    logged: bool,
    routes: &HashMap<&str, &RouteConfiguration>,
) -> Option<Http> {
    let common = rest.common_http_protocol_options.take().unwrap_or_default();
    let idle_place = place.field("common_http_protocol_options.idle_timeout");
    let idle_timeout_ns = work.timeout_ns(&idle_place, common.idle_timeout.as_ref(), IDLE_TIMEOUT_NS);
    let request_timeout_ns =
        work.timeout_ns(&place.field("request_timeout"), rest.request_timeout.take().as_ref(), FOREVER_NS);
    let head = head(work, place, rest.max_request_headers_kb.take(), common.max_headers_count);
    work.ignore_rest(
        &place.field("common_http_protocol_options"),
        &HttpProtocolOptions { idle_timeout: None, max_headers_count: None, ..common },
    );
    let forwarded = Forwarded {
        trusted_hops: take(&mut rest.xff_num_trusted_hops),
        mode: forwarded_mode(work, place, metadata, take(&mut rest.skip_xff_append)),
    };
    let body_bytes = body_bytes(work, place, metadata);
    let access_log = logged | !take(&mut rest.access_log).is_empty();
    filters(work, &place.field("http_filters"), listener, take(&mut rest.http_filters));
    let forward_client_certificate = forward_client_certificate(work, place, &mut rest);
    let specifier = rest.route_specifier.take();
    unsupported(work, place, rest);
    let hosts = match specifier {
        Some(RouteSpecifier::Rds(rds)) => match routes.get(rds.route_config_name.as_str()) {
            Some(found) => route::hosts(work, &Place::new("route", &found.name), listener, found),
            None => {
                let reason = format!("{:?} is not there", rds.route_config_name);
                work.refuse(&place.field("rds.route_config_name"), reason);
                return None;
            }
        },
        Some(RouteSpecifier::RouteConfig(inline)) => {
            route::hosts(work, &place.field("route_config"), listener, &inline)
        }
        _ => {
            work.refuse(place, "must have rds or route_config");
            return None;
        }
    };
    Some(Http {
        head,
        request_timeout_ns,
        idle_timeout_ns,
        body_bytes,
        forwarded,
        forward_client_certificate,
        access_log,
        hosts,
        policy: work.through.iter().filter_map(|(_, list)| *list).collect(),
        quotas: work.limits.iter().filter_map(|(_, quota)| *quota).collect(),
    })
}

/// Bounds on heads. A target may take half of a head: beyond, 414 says more than 431 would.
fn head(work: &mut Work<'_>, place: &Place, kib: Option<UInt32Value>, fields: Option<UInt32Value>) -> wire::h1::Limits {
    let kib = kib.map_or(HEAD_KIB, |kib| kib.value);
    if kib == 0 || kib > HEAD_KIB_MOST {
        work.refuse(&place.field("max_request_headers_kb"), format!("must be 1 to {HEAD_KIB_MOST}"));
    }
    let fields = fields.map_or(FIELDS, |fields| fields.value);
    if fields == 0 || fields > 10_000 {
        work.refuse(&place.field("common_http_protocol_options.max_headers_count"), "must be 1 to 10000");
    }
    let head_bytes = kib.min(HEAD_KIB_MOST) as usize * 1024;
    wire::h1::Limits { head_bytes, fields: fields as usize, target_bytes: head_bytes / 2 }
}

/// The mode rides in our own metadata, because Envoy has no word for `replace`; without it Envoy's own field says it.
fn forwarded_mode(work: &mut Work<'_>, place: &Place, metadata: Option<&Metadata>, keep: bool) -> ForwardedMode {
    match ours(metadata, xds::METADATA_FORWARDED) {
        None if keep => ForwardedMode::Keep,
        None => ForwardedMode::Append,
        Some(Some(value::Kind::StringValue(mode))) if mode == "append" => ForwardedMode::Append,
        Some(Some(value::Kind::StringValue(mode))) if mode == "replace" => ForwardedMode::Replace,
        Some(Some(value::Kind::StringValue(mode))) if mode == "keep" => ForwardedMode::Keep,
        Some(_) => {
            work.refuse(&place.field("metadata.ringway.forwarded"), "must be append, replace or keep");
            ForwardedMode::default()
        }
    }
}

/// The longest request body. It rides in our own metadata too: Envoy's word is a filter that holds whole bodies back.
fn body_bytes(work: &mut Work<'_>, place: &Place, metadata: Option<&Metadata>) -> u64 {
    match ours(metadata, xds::METADATA_BODY_BYTES) {
        None => u64::MAX,
        // 2^53: above, numbers of a `Struct` are not exact.
        Some(Some(value::Kind::NumberValue(bytes)))
            if bytes.fract() == 0.0 && (0.0..=9_007_199_254_740_992.0).contains(bytes) =>
        {
            *bytes as u64
        }
        Some(_) => {
            work.refuse(&place.field("metadata.ringway.body_bytes"), "must be a whole number of bytes");
            0
        }
    }
}

/// A value of our own metadata: `None` when it is not there.
fn ours<'a>(metadata: Option<&'a Metadata>, key: &str) -> Option<Option<&'a value::Kind>> {
    let ours = metadata?.filter_metadata.get(xds::METADATA)?;
    ours.fields.get(key).map(|value| value.kind.as_ref())
}

/// Only the router may stand; others are refused unless they say that they are optional.
fn filters(work: &mut Work<'_>, place: &Place, listener: &str, filters: Vec<HttpFilter>) {
    let is_router = |filter: &HttpFilter| match &filter.config_type {
        Some(http_filter::ConfigType::TypedConfig(config)) => xds::is(config, xds::ROUTER),
        _ => false,
    };
    match filters.last() {
        Some(last) if is_router(last) && !last.disabled => {}
        _ => work.refuse(place, "must end with the router"),
    }
    let before_last = filters.len().saturating_sub(1);
    for filter in &filters[..before_last] {
        let own = place.field(&filter.name);
        match &filter.config_type {
            _ if filter.disabled => {}
            Some(http_filter::ConfigType::TypedConfig(config)) if xds::is(config, xds::CORS) => {
                cors::http_filter(work, &own, &filter.name);
                continue;
            }
            Some(http_filter::ConfigType::TypedConfig(config)) if xds::is(config, xds::RBAC) => {
                let list = policy::http_filter(work, &own, listener, config);
                work.through.push((filter.name.clone(), list));
                continue;
            }
            Some(http_filter::ConfigType::TypedConfig(config)) if xds::is(config, xds::LOCAL_RATE_LIMIT) => {
                let quota = quota::http_filter(work, &own, listener, config);
                work.limits.push((filter.name.clone(), quota));
                continue;
            }
            _ => {}
        }
        match filter.is_optional || filter.disabled {
            true => work.ignored.push(format!("{place}: {}", filter.name)),
            false => work.refuse(place, format!("{} is not supported", filter.name)),
        }
    }
}

/// What is left of a connection manager: some of it is how this proxy always behaves, some would change who is let in.
fn unsupported(work: &mut Work<'_>, place: &Place, mut rest: HttpConnectionManager) {
    if !matches!(CodecType::try_from(rest.codec_type), Ok(CodecType::Auto | CodecType::Http1)) {
        work.refuse(&place.field("codec_type"), "must be AUTO or HTTP1");
    }
    for upgrade in take(&mut rest.upgrade_configs) {
        if !upgrade.upgrade_type.eq_ignore_ascii_case("websocket") || !upgrade.filters.is_empty() {
            work.refuse(&place.field("upgrade_configs"), format!("{:?} is not supported", upgrade.upgrade_type));
        }
    }
    // Escaped slashes are refused whatever the message says: nobody is let in by that who would not be otherwise.
    let escaped_slashes = PathWithEscapedSlashesAction::try_from(rest.path_with_escaped_slashes_action);
    if escaped_slashes.is_err() {
        work.refuse(&place.field("path_with_escaped_slashes_action"), "is not known");
    }
    for (set, field) in [
        (rest.forward_client_cert_matcher.is_some(), "forward_client_cert_matcher"),
        (!rest.original_ip_detection_extensions.is_empty(), "original_ip_detection_extensions"),
        (!rest.early_header_mutation_extensions.is_empty(), "early_header_mutation_extensions"),
        (rest.local_reply_config.is_some(), "local_reply_config"),
        (rest.typed_header_validation_config.is_some(), "typed_header_validation_config"),
    ] {
        if set {
            work.refuse(&place.field(field), "is not supported");
        }
    }
    (rest.codec_type, rest.stat_prefix, rest.path_with_escaped_slashes_action) = Default::default();
    (rest.normalize_path, rest.merge_slashes, rest.strip_trailing_host_dot) = Default::default();
    (rest.strip_matching_host_port, rest.strip_port_mode, rest.use_remote_address) = Default::default();
    (rest.preserve_external_request_id, rest.server_header_transformation) = Default::default();
    (rest.generate_request_id, rest.stream_idle_timeout) = Default::default();
    work.ignore_rest(place, &rest);
}

/// A `TcpProxy`, and the lists of the filters before it.
pub(super) fn tcp(work: &mut Work<'_>, place: &Place, listener: &str, config: &Any, logged: bool) -> Option<Tcp> {
    let mut rest: TcpProxy = unpacked(work, place, xds::decode(config, xds::TCP_PROXY))?;
    let idle_timeout_ns =
        work.timeout_ns(&place.field("idle_timeout"), rest.idle_timeout.take().as_ref(), IDLE_TIMEOUT_NS);
    let access_log = logged | !take(&mut rest.access_log).is_empty();
    let attempts = rest.max_connect_attempts.take().map_or(1, |attempts| attempts.value).max(1);
    let specifier = rest.cluster_specifier.take();
    for (set, field) in [
        (rest.tunneling_config.take().is_some(), "tunneling_config"),
        (rest.metadata_match.take().is_some(), "metadata_match"),
        (!take(&mut rest.proxy_protocol_tlvs).is_empty(), "proxy_protocol_tlvs"),
        (rest.on_demand.take().is_some(), "on_demand"),
    ] {
        if set {
            work.refuse(&place.field(field), "is not supported");
        }
    }
    rest.stat_prefix.clear();
    work.ignore_rest(place, &rest);
    let to = match specifier {
        Some(ClusterSpecifier::Cluster(name)) => Destination::One(work.target(listener, "", &name)),
        Some(ClusterSpecifier::WeightedClusters(weighted)) => {
            let place = place.field("weighted_clusters");
            for one in &weighted.clusters {
                if one.metadata_match.is_some() {
                    work.refuse(&place.field("metadata_match"), "is not supported");
                }
            }
            let shares = weighted.clusters.iter().map(|one| (one.name.as_str(), one.weight)).collect();
            route::weighted(work, &place, listener, "", shares)?
        }
        None => {
            work.refuse(place, "must have cluster or weighted_clusters");
            return None;
        }
    };
    let retries = u8::try_from(attempts - 1).unwrap_or(u8::MAX);
    let policy = work.through.iter().filter_map(|(_, list)| *list).collect();
    Some(Tcp { to, idle_timeout_ns, access_log, retries, policy })
}
