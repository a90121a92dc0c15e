//! What an Envoy is sent, and what is said of it.

use envoy_types::pb::{
    envoy::{
        config::{
            cluster::v3::Cluster,
            core::v3::Node,
            listener::v3::{Listener, filter},
            route::v3::{RouteConfiguration, route::Action},
        },
        extensions::filters::network::{
            http_connection_manager::v3::HttpConnectionManager,
            tcp_proxy::v3::{TcpProxy, UpstreamConnectMode},
        },
    },
    google::protobuf::{Any, Struct, Value, value::Kind},
};

use crate::{
    Packed, Resources,
    envoy::{Envoy, address_of, words},
    mesh::{self, State},
    xds,
};

const DOCUMENT: &str = "
trust-domain: shop
groups:
  edge:
    limits: { body: 1MiB }
    listeners:
      web:
        address: 127.0.0.1:8080
        forwarded: { mode: replace }
        cors: { origins: ['https://a.test'] }
        routes: [ { match: { path: /put, methods: [PUT] }, to: app } ]
      db: { address: 127.0.0.1:5432, protocol: tcp, tls: {}, allow: [ { identity: 'spiffe://shop/a' } ], to: app }
      open: { address: 127.0.0.1:5433, protocol: tcp, to: app }
services:
  app: { endpoints: [10.0.0.1:80], tls: { expect: 'spiffe://shop/app' }, limits: { pending: 0 }, proxy-protocol: v2 }
";

fn resources(text: &str) -> Resources {
    let mesh = mesh::load(text, "f").unwrap_or_else(|findings| panic!("{findings:#?}"));
    mesh.resources(&mesh.groups[0], &State::default())
}

fn text(text: &str) -> Value {
    Value { kind: Some(Kind::StringValue(text.to_owned())) }
}

fn within(name: &str, value: Value) -> Struct {
    Struct { fields: [(name.to_owned(), value)].into() }
}

/// An Envoy that says that its identity is there.
fn node(program: &str, path: Value) -> Node {
    let ours = Value { kind: Some(Kind::StructValue(within("identity", path))) };
    Node { user_agent_name: program.to_owned(), metadata: Some(within("ringway", ours)), ..Node::default() }
}

fn envoy() -> Envoy {
    Envoy::of(&node("envoy", text("/etc/envoy/identity.yaml"))).unwrap()
}

/// Resources as an Envoy gets them.
fn fitted(all: &[Packed]) -> Vec<Packed> {
    all.iter().map(|one| envoy().fit(one).unwrap().unwrap_or_else(|| one.clone())).collect()
}

fn has(of: &Packed, text: &str) -> bool {
    of.body.value.windows(text.len()).any(|some| some == text.as_bytes())
}

fn config<M: prost::Message + Default>(of: &Listener, type_url: &str) -> M {
    let mut configs = of.filter_chains[0].filters.iter().rev().filter_map(|filter| match &filter.config_type {
        Some(filter::ConfigType::TypedConfig(config)) if xds::is(config, type_url) => Some(config),
        _ => None,
    });
    xds::decode(configs.next().unwrap(), type_url).unwrap()
}

#[test]
fn its_identity_is_where_it_says_and_nothing_of_ours_is_left() {
    let resources = resources(DOCUMENT);
    let clusters: Vec<Packed> = resources.clusters.iter().map(Packed::cluster).collect();
    assert!(has(&clusters[0], xds::IDENTITY_PATH) && has(&clusters[0], xds::PEAK_EWMA));
    let cluster = &fitted(&clusters)[0];
    assert!(has(cluster, "/etc/envoy/identity.yaml") && !has(cluster, xds::IDENTITY_PATH));
    assert!(!has(cluster, "ringway.v1") && has(cluster, xds::LEAST_REQUEST));
    assert_ne!(cluster.version, clusters[0].version);
    let plain: Cluster = xds::decode(&cluster.body, xds::CLUSTER).unwrap();
    let pending = plain.circuit_breakers.unwrap().thresholds[0].max_pending_requests;
    assert_eq!(pending.map(|pending| pending.value), Some(1));
    let listeners: Vec<Packed> = resources.listeners.iter().map(Packed::listener).collect();
    let listeners = fitted(&listeners);
    assert!(has(&listeners[1], "/etc/envoy/identity.yaml") && !has(&listeners[1], xds::IDENTITY_PATH));
    assert_eq!(address_of(&listeners[1]), Some("127.0.0.1:5432".parse().unwrap()));
    assert_eq!(fitted(&listeners[1..]), listeners[1..], "what fits is left as it is");
}

#[test]
fn a_client_that_rules_refuse_hears_nothing_of_the_service() {
    let listeners: Vec<Packed> = resources(DOCUMENT).listeners.iter().map(Packed::listener).collect();
    let mode = |of: &Packed| {
        let proxy: TcpProxy = config(&xds::decode(&of.body, xds::LISTENER).unwrap(), xds::TCP_PROXY);
        (proxy.upstream_connect_mode(), proxy.max_early_data_bytes.is_some())
    };
    let fitted = fitted(&listeners);
    let tries = DOCUMENT.replace("'spiffe://shop/a' }", "'spiffe://shop/a', dry-run: true }");
    let tries = envoy().fit(&Packed::listener(&resources(&tries).listeners[1])).unwrap().unwrap();
    assert_eq!(mode(&tries), (UpstreamConnectMode::Immediate, false), "nobody is refused yet");
    assert_eq!(mode(&fitted[1]), (UpstreamConnectMode::OnDownstreamData, true));
    assert_eq!(mode(&fitted[2]), (UpstreamConnectMode::Immediate, false), "nobody is refused there");
}

#[test]
fn what_rides_in_our_metadata_becomes_filters_of_its_own() {
    let resources = resources(DOCUMENT);
    let listener = fitted(&[Packed::listener(&resources.listeners[0])]).pop().unwrap();
    let manager: HttpConnectionManager =
        config(&xds::decode(&listener.body, xds::LISTENER).unwrap(), xds::HTTP_CONNECTION_MANAGER);
    let names = |filters: &[_]| {
        let name =
            |filter: &envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::HttpFilter| {
                filter.name.clone()
            };
        filters.iter().map(name).collect::<Vec<_>>()
    };
    let (cors, router) = ("envoy.filters.http.cors", "envoy.filters.http.router");
    assert_eq!(names(&manager.http_filters), [cors, "envoy.filters.http.buffer", router]);
    assert_eq!(names(&manager.upgrade_configs[0].filters), [cors, router], "an upgrade has no end to wait for");
    assert_eq!(manager.early_header_mutation_extensions.len(), 1);

    let routes = fitted(&[Packed::routes(&resources.routes[0])]).pop().unwrap();
    let routes: RouteConfiguration = xds::decode(&routes.body, xds::ROUTE_CONFIGURATION).unwrap();
    let preflight = &routes.virtual_hosts[0].routes[1];
    assert!(
        preflight.name.ends_with(":preflight") && matches!(preflight.action, Some(Action::Route(_))),
        "{preflight:?}"
    );
}

#[test]
fn what_it_has_no_words_for_is_not_sent() {
    for (ours, other) in [("body: 1MiB", "body: 4GiB"), ("mode: replace", "mode: replace, trusted-hops: 1")] {
        let resources = resources(&DOCUMENT.replace(ours, other));
        let refused = envoy().fit(&Packed::listener(&resources.listeners[0])).expect_err(other);
        assert!(refused.contains("no word"), "{refused}");
        assert!(envoy().fit(&Packed::listener(&resources.listeners[1])).is_ok(), "tcp knows nothing of it");
    }
    let mut listener = resources(DOCUMENT).listeners.remove(2);
    let ours = Any { type_url: "type.googleapis.com/ringway.v1.Anything".to_owned(), value: Vec::new() };
    listener.filter_chains[0].filters[0].config_type = Some(filter::ConfigType::TypedConfig(ours));
    assert!(envoy().fit(&Packed::listener(&listener)).is_err());
}

#[test]
fn who_is_none_is_told_as_before_and_a_path_is_a_path() {
    assert_eq!(Envoy::of(&node("ringway", text("/x"))), None);
    let usual = Envoy::of(&Node { user_agent_name: "envoy".to_owned(), ..Node::default() });
    assert!(usual.is_some());
    let odd = [text("x/y"), text(""), text("/a\nb"), text(&format!("/{}", "x".repeat(1024))), Value { kind: None }];
    for path in odd {
        assert_eq!(Envoy::of(&node("envoy", path)), usual);
    }
    assert_ne!(Envoy::of(&node("envoy", text("/x"))), usual);
}

#[test]
fn words_that_it_honours_otherwise_are_listed_where_they_stand() {
    let document = "
trust-domain: shop
groups:
  edge:
    limits: { body: 1MiB }
    listeners:
      web:
        address: 127.0.0.1:8080
        tls: { clients: optional }
        forwarded: { mode: keep }
        cors: { origins: ['https://a.test'] }
        quota: [ { requests: 1/s }, { name: each, requests: 9/h, per: source, clients: 10 } ]
        deny: [ { path: /a }, { name: tried, path: /b, dry-run: true } ]
        hosts:
          - names: [a.test]
            routes:
              - { match: { path: /x }, redirect: { path: /y } }
              - { match: { path: /z }, quota: { requests: 2/s, per: identity }, respond: {} }
          - names: ['*']
            routes: [ { allow: [ { path: /b, dry-run: true } ], cors: { origins: ['*'] }, to: app } ]
      hops: { address: 127.0.0.1:8081, forwarded: { mode: replace, trusted-hops: 2 }, routes: [ { to: own } ] }
      db: { address: 127.0.0.1:5432, protocol: tcp, deny: [ { source: 10.0.0.0/8 } ], to: app }
    services:
      own: { endpoints: [ { address: 10.0.0.1:1, weight: 2 }, 10.0.0.2:1 ], balance: random }
  large:
    limits: { body: 5GiB }
    listeners:
      in: { address: 127.0.0.1:8082, routes: [ { to: even } ] }
services:
  app: { endpoints: [10.0.0.1:80], limits: { pending: 0 } }
  named: { endpoints: [10.0.0.1:80], balance: peak-ewma }
  even: { endpoints: [10.0.0.1:80, 10.0.0.2:80], balance: random }
";
    let lines = |document: &str| {
        let words = words(document, "f").unwrap_or_else(|findings| panic!("{findings:#?}"));
        words.iter().map(|word| format!("{} {}\n", if word.sent { "-" } else { "!" }, word.finding)).collect::<String>()
    };
    insta::assert_snapshot!(lines(document));
    let all = "trust-domain: shop
groups:
  edge:
    listeners:
      web: { address: 127.0.0.1:1, tls: {}, deny: [ { path: /a } ], forwarded: { mode: replace }, routes: [ { to: app } ] }
      db: { address: 127.0.0.1:2, protocol: tcp, to: app }
services:
  app: { endpoints: set, balance: least-request }
";
    assert_eq!(lines(all), "");
    assert!(words("trust-domain: shop", "f").is_err(), "what is wrong comes first");
}
