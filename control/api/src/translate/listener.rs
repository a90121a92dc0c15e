//! Listeners: an HttpConnectionManager whose routes come by RDS, or a TcpProxy.

use std::{collections::HashMap, time::Duration};

use envoy_types::pb::{
    envoy::{
        config::{
            accesslog::v3::{AccessLog as LogTo, access_log},
            core::v3::{HttpProtocolOptions, Metadata, SubstitutionFormatString, substitution_format_string::Format},
            listener::v3::{Filter, Listener as Resource, filter},
        },
        extensions::{
            access_loggers::file::v3::{FileAccessLog, file_access_log::AccessLogFormat},
            filters::{
                http::router::v3::Router,
                network::{
                    http_connection_manager::v3::{
                        HttpConnectionManager, HttpFilter, Rds,
                        http_connection_manager::{
                            ForwardClientCertDetails, PathWithEscapedSlashesAction, RouteSpecifier,
                            ServerHeaderTransformation, SetCurrentClientCertDetails, UpgradeConfig,
                        },
                        http_filter,
                    },
                    tcp_proxy::v3::{
                        TcpProxy,
                        tcp_proxy::{self, ClusterSpecifier, WeightedCluster},
                    },
                },
            },
        },
    },
    google::protobuf::{Any, Struct},
};
use prost::Message;

use super::{address, ads, chain, cors, duration, number, policy, quota, yes};
use crate::{
    model::{AccessLog, Document, ForwardedMode, Http, Limits, Listener, LogFormat, Policy, Protocol, Target},
    process::{integer, text},
    xds,
};

/// One listener, with its filters in one chain or several.
pub(super) fn listener(of: &Listener, document: &Document) -> Resource {
    let idle = of.idle_timeout.unwrap_or(document.limits.idle_timeout);
    let log: Vec<LogTo> = document.access_log.as_ref().map(access_log).into_iter().collect();
    let bytes = |to: &[Target]| {
        let proxy = xds::any(xds::TCP_PROXY, &tcp(&of.name, to, idle, log.clone()));
        let mut filters = policy::network_filters(&of.name, &of.policy);
        filters.push(filter("envoy.filters.network.tcp_proxy", proxy));
        filters
    };
    let (chains, metadata) = match &of.protocol {
        Protocol::Http(http) => {
            let manager = manager(&of.name, http, &of.policy, &document.limits, idle, log);
            let manager = xds::any(xds::HTTP_CONNECTION_MANAGER, &manager);
            let filters = vec![filter("envoy.filters.network.http_connection_manager", manager)];
            (chain::by_transport(of, filters), Some(ours(http, &document.limits)))
        }
        Protocol::Tcp(to) => (chain::by_transport(of, bytes(to)), None),
        Protocol::Passthrough(passages) => (chain::by_name(of, passages, |passage| bytes(&passage.to)), None),
    };
    let listener_filters = chain::listener_filters(of);
    let waits = !listener_filters.is_empty();
    Resource {
        name: of.name.clone(),
        address: Some(address::write(&of.address)),
        metadata,
        filter_chains: chains,
        listener_filters,
        listener_filters_timeout: waits.then(|| duration(document.limits.request_timeout)),
        ..Resource::default()
    }
}

fn filter(name: &str, config: Any) -> Filter {
    Filter { name: name.to_owned(), config_type: Some(filter::ConfigType::TypedConfig(config)) }
}

/// `protocol: http`. What is always emitted makes an Envoy as strict about paths as we are.
fn manager(
    name: &str,
    http: &Http,
    policy: &Policy,
    limits: &Limits,
    idle: Duration,
    log: Vec<LogTo>,
) -> HttpConnectionManager {
    let mut filters: Vec<HttpFilter> = cors::http_filter(http).into_iter().collect();
    filters.extend(policy::http_filters(policy, http));
    filters.extend(quota::http_filters(http));
    filters.push(router());
    let client = http.client_certificate;
    HttpConnectionManager {
        stat_prefix: name.to_owned(),
        route_specifier: Some(RouteSpecifier::Rds(Rds {
            config_source: Some(ads()),
            route_config_name: name.to_owned(),
        })),
        http_filters: filters,
        // What comes from outside under that name is never passed on.
        forward_client_cert_details: match client {
            true => ForwardClientCertDetails::SanitizeSet as i32,
            false => ForwardClientCertDetails::Sanitize as i32,
        },
        set_current_client_cert_details: client
            .then(|| SetCurrentClientCertDetails { uri: true, ..SetCurrentClientCertDetails::default() }),
        access_log: log,
        normalize_path: yes(),
        merge_slashes: true,
        path_with_escaped_slashes_action: PathWithEscapedSlashesAction::RejectRequest as i32,
        strip_trailing_host_dot: true,
        use_remote_address: yes(),
        xff_num_trusted_hops: http.forwarded.trusted_hops,
        skip_xff_append: http.forwarded.mode == ForwardedMode::Keep,
        preserve_external_request_id: true,
        server_header_transformation: ServerHeaderTransformation::PassThrough as i32,
        upgrade_configs: vec![UpgradeConfig { upgrade_type: "websocket".to_owned(), ..UpgradeConfig::default() }],
        max_request_headers_kb: number(limits.head_kib),
        common_http_protocol_options: Some(HttpProtocolOptions {
            idle_timeout: Some(duration(idle)),
            max_headers_count: number(limits.headers),
            ..HttpProtocolOptions::default()
        }),
        // `idle-timeout` is about bytes; Envoy's own for a stream under way would be 5 minutes.
        stream_idle_timeout: Some(duration(idle)),
        request_timeout: Some(duration(limits.request_timeout)),
        ..HttpConnectionManager::default()
    }
}

/// What rides in our own metadata: `forwarded`'s mode always, because Envoy has no word for `replace`, and the largest
/// body, for which Envoy has no word but a filter that holds whole bodies back.
fn ours(http: &Http, limits: &Limits) -> Metadata {
    let mut fields = HashMap::from([(xds::METADATA_FORWARDED.to_owned(), text(http.forwarded.mode.word()))]);
    if let Some(bytes) = limits.body_bytes {
        fields.insert(xds::METADATA_BODY_BYTES.to_owned(), integer(bytes));
    }
    Metadata { filter_metadata: HashMap::from([(xds::METADATA.to_owned(), Struct { fields })]), ..Metadata::default() }
}

/// The filter that forwards; it adds no `x-envoy-*` fields.
fn router() -> HttpFilter {
    let router = Router { suppress_envoy_headers: true, ..Router::default() };
    HttpFilter {
        name: "envoy.filters.http.router".to_owned(),
        config_type: Some(http_filter::ConfigType::TypedConfig(xds::any(xds::ROUTER, &router))),
        ..HttpFilter::default()
    }
}

/// `protocol: tcp`
fn tcp(name: &str, to: &[Target], idle: Duration, log: Vec<LogTo>) -> TcpProxy {
    let weighted = |t: &Target| tcp_proxy::weighted_cluster::ClusterWeight {
        name: t.service.clone(),
        weight: t.weight,
        ..Default::default()
    };
    let cluster = match to {
        [one] => ClusterSpecifier::Cluster(one.service.clone()),
        // Envoy refuses a weight of 0 here, unlike in routes; a share of nothing is no share.
        several => ClusterSpecifier::WeightedClusters(WeightedCluster {
            clusters: several.iter().filter(|t| t.weight > 0).map(weighted).collect(),
        }),
    };
    TcpProxy {
        stat_prefix: name.to_owned(),
        cluster_specifier: Some(cluster),
        idle_timeout: Some(duration(idle)),
        access_log: log,
        ..TcpProxy::default()
    }
}

/// `access-log`. The ending has no word in Envoy; RESPONSE_CODE_DETAILS is the nearest.
fn access_log(of: &AccessLog) -> LogTo {
    const FIELDS: [(&str, &str); 12] = [
        ("time", "%START_TIME%"),
        ("source", "%DOWNSTREAM_REMOTE_ADDRESS%"),
        ("destination", "%UPSTREAM_HOST%"),
        ("service", "%UPSTREAM_CLUSTER%"),
        ("protocol", "%PROTOCOL%"),
        ("method", "%REQ(:METHOD)%"),
        ("url", "%REQ(:PATH)%"),
        ("status", "%RESPONSE_CODE%"),
        ("bytes", "%BYTES_SENT%"),
        ("duration_ms", "%DURATION%"),
        ("request_id", "%REQ(X-REQUEST-ID)%"),
        ("ending", "%RESPONSE_CODE_DETAILS%"),
    ];
    let with = |format: Option<Format>| FileAccessLog {
        path: of.path.clone(),
        access_log_format: Some(AccessLogFormat::LogFormat(SubstitutionFormatString {
            format,
            ..SubstitutionFormatString::default()
        })),
    };
    let value = match of.format {
        LogFormat::Json => FIELDS.iter().flat_map(|f| with(Some(json_field(f))).encode_to_vec()).collect(),
        LogFormat::Text => {
            let words: Vec<&str> = FIELDS.iter().map(|(_, format)| *format).collect();
            let line = super::inline(&format!("{}\n", words.join(" ")));
            with(Some(Format::TextFormatSource(line))).encode_to_vec()
        }
    };
    let file = Any { type_url: xds::FILE_ACCESS_LOG.to_owned(), value };
    LogTo {
        name: "envoy.access_loggers.file".to_owned(),
        config_type: Some(access_log::ConfigType::TypedConfig(file)),
        ..LogTo::default()
    }
}

/// One field of the JSON line. Maps are encoded in any order, but equal documents must give equal bytes: so each field
/// is a message of its own, and all of them, one after the other, are one message (protobuf's encoding, "merge").
fn json_field((name, format): &(&str, &str)) -> Format {
    Format::JsonFormat(Struct { fields: HashMap::from([((*name).to_owned(), text(format))]) })
}
