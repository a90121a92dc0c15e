//! What the compiler takes, refuses, ignores and carries over.

use super::*;
use crate::tests::plan_of;
use crate::{Kind, ListenerId};
use api::envoy_types::pb::envoy::config::core::v3::{HeaderValue, HeaderValueOption, TransportSocket};
use api::envoy_types::pb::envoy::config::route::v3::{RouteMatch, route, route_match::PathSpecifier};
use api::envoy_types::pb::google::protobuf::{BoolValue, value};
use api::{Resources, xds};
use std::sync::Arc;

const TEXT: &str = "
listeners:
  web:
    address: 127.0.0.1:80
    protocol: http
    routes:
      - { name: cart, match: { path: /cart/* }, request-headers: { set: { x-a: '1%' }, remove: [x-b] }, to: cart }
      - { name: rest, to: { cart: 1, other: 3 } }
  db: { address: 'unix:/run/db.sock', protocol: tcp, to: pg }
services:
  cart: { endpoints: [10.0.0.1:80, { address: 10.0.0.2:80, weight: 2 }], connect-timeout: 250ms }
  other: { endpoints: [other.internal:8080], balance: round-robin, limits: { connections: 7 } }
  pg: { endpoints: [10.0.0.9:5432] }
limits: { head: 16KiB, headers: 50, body: 10MiB, request-timeout: 5s, idle-timeout: 30s }
";

fn resources() -> Resources {
    let document = api::load(TEXT, "test.yaml").unwrap_or_else(|findings| panic!("{findings:#?}"));
    api::translate(&document)
}

/// What is said about resources that were changed.
fn refused(change: impl FnOnce(&mut Resources)) -> Vec<String> {
    let mut resources = resources();
    change(&mut resources);
    let rejections = compile(&resources, None, 1, &World::default()).map(|plan| plan.to_json()).unwrap_err();
    rejections.iter().map(ToString::to_string).collect()
}

fn first_route(resources: &mut Resources) -> &mut api::envoy_types::pb::envoy::config::route::v3::Route {
    &mut resources.routes[0].virtual_hosts[0].routes[0]
}

#[test]
fn a_whole_configuration_compiles_without_remarks() {
    let plan = plan_of(TEXT);
    assert_eq!(*plan.ignored, [""; 0]);
    let Kind::Http(http) = &plan.listener(ListenerId(0)).kind else { panic!("{:?}", plan.listeners) };
    assert_eq!((http.head.head_bytes, http.head.fields), (16 * 1024, 50));
    assert_eq!((http.request_timeout_ns, http.idle_timeout_ns), (5_000_000_000, 30_000_000_000));
    assert_eq!(http.body_bytes, 10 << 20);
    assert_eq!(plan.listener(ListenerId(1)).address.to_string(), "unix:/run/db.sock");
    let cart = &plan.services[0];
    assert_eq!((&*cart.name, cart.connect_timeout_ns), ("cart", 250_000_000));
    let endpoints: Vec<_> = cart.balance.endpoints().map(|(one, weight)| (one.address().to_string(), weight)).collect();
    assert_eq!(endpoints, [("10.0.0.1:80".into(), 1), ("10.0.0.2:80".into(), 2)]);
    assert_eq!(cart.balance.algorithm(), balance::Algorithm::PeakEwma);
    assert_eq!(plan.services[1].balance.algorithm(), balance::Algorithm::RoundRobin);
    assert_eq!(plan.services[1].balance.limits().connections, 7);
    let edits = &plan.routes[0].request_edits;
    assert_eq!(edits.writes().collect::<Vec<_>>(), [("x-a", &b"1%"[..])]);
    assert!(edits.removes(b"X-B"));
}

#[test]
fn every_listener_route_and_service_has_one_series() {
    let plan = plan_of(TEXT);
    let keys: Vec<String> =
        plan.series.iter().map(|key| format!("{}/{}/{}", key.listener, key.route, key.service)).collect();
    let unique: BTreeSet<&String> = keys.iter().collect();
    assert_eq!(unique.len(), keys.len());
    for key in ["web//", "web/cart/cart", "web/rest/cart", "web/rest/other", "db//pg", "db//"] {
        assert!(keys.iter().any(|one| one == key), "{key} in {keys:?}");
    }
}

#[test]
fn endpoints_and_budgets_live_on_in_the_next_plan() {
    let one = plan_of(TEXT);
    let mut resources = resources();
    // 10.0.0.1 goes, another comes, 10.0.0.2 stays; the limits change.
    let endpoints = &mut resources.endpoints[0].endpoints[0].lb_endpoints;
    let mut new = endpoints.remove(0);
    let Some(api::envoy_types::pb::envoy::config::endpoint::v3::lb_endpoint::HostIdentifier::Endpoint(endpoint)) =
        &mut new.host_identifier
    else {
        panic!("{new:?}")
    };
    let address = endpoint.address.as_mut().and_then(|address| address.address.as_mut());
    let Some(api::envoy_types::pb::envoy::config::core::v3::address::Address::SocketAddress(socket)) = address else {
        panic!("{address:?}")
    };
    socket.address = "10.0.0.3".into();
    endpoints.push(new);
    let two = compile(&resources, Some(&one), 2, &World::default()).unwrap_or_else(|found| panic!("{found:#?}"));
    let find = |plan: &Plan, address: &str| {
        let endpoints = plan.services[0].balance.endpoints();
        let mut found = endpoints.filter(|(one, _)| one.address().to_string() == address);
        found.next().map(|(one, _)| one.clone())
    };
    let kept = (find(&one, "10.0.0.2:80").unwrap(), find(&two, "10.0.0.2:80").unwrap());
    assert!(std::sync::Arc::ptr_eq(&kept.0, &kept.1));
    assert!(find(&two, "10.0.0.1:80").is_none() && find(&two, "10.0.0.3:80").is_some());
    assert!(std::sync::Arc::ptr_eq(one.services[0].balance.budget(), two.services[0].balance.budget()));
    assert!(!std::sync::Arc::ptr_eq(one.services[0].balance.budget(), two.services[1].balance.budget()));
    assert_eq!(two.generation, 2);
}

#[test]
fn names_become_endpoints_once_they_are_resolved() {
    let plan = plan_of(TEXT);
    let name = Name { host: "other.internal".into(), port: 8080 };
    assert_eq!(plan.names().iter().collect::<Vec<_>>(), [&name]);
    assert!(plan.services[1].balance.is_empty());
    let addresses =
        ["10.1.0.2", "10.1.0.1", "::1", "10.1.0.2"].map(|text| text.parse().unwrap_or_else(|_| panic!("{text}")));
    let answers = Answers { addresses: BTreeMap::from([(name, addresses.to_vec())]) };
    let world = World { answers, ..World::default() };
    let plan = compile(&resources(), Some(&plan), 2, &world).unwrap_or_else(|found| panic!("{found:#?}"));
    let found: Vec<String> = plan.services[1].balance.endpoints().map(|(one, _)| one.address().to_string()).collect();
    assert_eq!(found, ["10.1.0.1:8080", "10.1.0.2:8080", "[::1]:8080"]);
}

#[test]
fn an_unknown_service_answers_503() {
    let mut resources = resources();
    resources.clusters.remove(0);
    let plan = compile(&resources, None, 1, &World::default()).unwrap_or_else(|found| panic!("{found:#?}"));
    let request = crate::Request {
        method: Default::default(),
        method_bytes: b"GET",
        authority: b"a",
        path: b"/cart",
        query: b"",
        fields: &[],
        head: b"",
        peer: Default::default(),
    };
    let decision = plan.decide(ListenerId(0), &request, 0, &mut crate::Cache::default());
    assert_eq!(decision.show(&plan, b"").to_string(), "listener web, route cart: unknown service cart, 503");
}

#[test]
fn clusters_are_refused_by_name_and_field() {
    let duration = |seconds, nanos| Some(Duration { seconds, nanos });
    assert_eq!(
        refused(|all| all.clusters[0].connect_timeout = duration(0, 0)),
        ["cluster/cart: connect_timeout: must be positive"]
    );
    assert_eq!(
        refused(|all| all.clusters[0].connect_timeout = duration(1, -1)),
        ["cluster/cart: connect_timeout: must not be negative, with less than 1,000,000,000 nanos"]
    );
    assert_eq!(
        refused(|all| all.clusters[0].transport_socket = Some(TransportSocket::default())),
        ["cluster/cart: transport_socket: must have a typed_config"]
    );
    let logical_dns = api::envoy_types::pb::envoy::config::cluster::v3::cluster::ClusterDiscoveryType::Type(2);
    assert_eq!(
        refused(|all| all.clusters[0].cluster_discovery_type = Some(logical_dns)),
        ["cluster/cart: type: LOGICAL_DNS is not supported"]
    );
    assert_eq!(refused(|all| all.clusters.push(all.clusters[0].clone())), ["cluster/cart: stands there twice"]);
    assert_eq!(
        refused(|all| all.endpoints[0].endpoints[0].priority = 1),
        ["endpoints/cart: endpoints[0].priority: must be 0"]
    );
    let unknown = |all: &mut Resources| all.endpoints[0].endpoints[0].lb_endpoints[1].health_status = 77;
    assert_eq!(refused(unknown), ["endpoints/cart: endpoints[0].lb_endpoints[1].health_status: is not known"]);
}

#[test]
fn routes_are_refused_by_name_and_field() {
    let at = "route/web: virtual_hosts[0].routes[0]";
    let matched = |change: fn(&mut RouteMatch)| refused(|all| change(first_route(all).r#match.get_or_insert_default()));
    assert_eq!(
        matched(|matches| matches.case_sensitive = Some(BoolValue { value: false })),
        [format!("{at}.match.case_sensitive: must be true")]
    );
    assert_eq!(
        matched(|matches| matches.grpc = Some(Default::default())),
        [format!("{at}.match.grpc: is not supported")]
    );
    assert_eq!(
        matched(|matches| matches.path_specifier = Some(PathSpecifier::PathSeparatedPrefix("/a/".into()))),
        [format!("{at}.match.path_separated_prefix: \"/a/\" must not end with /")]
    );
    assert_eq!(refused(|all| first_route(all).action = None), [format!("{at}.action: must be given")]);
    let twice = |all: &mut Resources| all.routes[0].virtual_hosts[0].domains.push("*".into());
    assert_eq!(refused(twice), ["route/web: virtual_hosts[0].domains[1]: * stands there twice"]);
    let mirrored = |all: &mut Resources| {
        let Some(route::Action::Route(action)) = &mut first_route(all).action else { panic!() };
        action.request_mirror_policies.push(Default::default());
        action.prefix_rewrite = "/a b".into();
    };
    assert_eq!(
        refused(mirrored),
        [
            format!(
                "{at}.route.prefix_rewrite: \"/a b\" must begin with / and have no ?, #, space or control character"
            ),
            format!("{at}.route.request_mirror_policies: is not supported"),
        ]
    );
}

#[test]
fn edits_that_would_break_messages_are_refused() {
    let edited = |name: &str, value: &str| {
        let header = Some(HeaderValue { key: name.into(), value: value.into(), ..HeaderValue::default() });
        let option = HeaderValueOption { header, ..HeaderValueOption::default() };
        refused(|all| first_route(all).response_headers_to_add.push(option)).len()
    };
    for (name, value) in [
        ("Transfer-Encoding", "chunked"),
        ("content-length", "1"),
        ("HOST", "a"),
        (":path", "/"),
        ("x y", "1"),
        ("", "1"),
        ("x-a", "1\r\nx-b: 2"),
        ("x-a", "a\0"),
        ("x-a", " a"),
        ("x-a", "%DOWNSTREAM_REMOTE_ADDRESS%"),
        ("x-a", "100%"),
    ] {
        assert_eq!(edited(name, value), 1, "{name}: {value}");
    }
}

#[test]
fn listeners_are_refused_by_name_and_field() {
    assert_eq!(
        refused(|all| all.listeners[0].filter_chains[0].transport_socket = Some(TransportSocket::default())),
        ["listener/web: filter_chains[0].transport_socket: must have a typed_config"]
    );
    assert_eq!(
        refused(|all| all.listeners[0].listener_filters.push(Default::default())),
        ["listener/web: listener_filters: is not supported"]
    );
    assert_eq!(refused(|all| all.listeners[0].address = None), ["listener/web: address: must be given"]);
    assert_eq!(
        refused(|all| all.listeners[1].address = all.listeners[0].address.clone()),
        ["listener/db: address: 127.0.0.1:80 belongs to another listener"]
    );
    assert_eq!(
        refused(|all| all.routes.clear()),
        ["listener/web: filter_chains[0].filters.rds.route_config_name: \"web\" is not there"]
    );
}

#[test]
fn the_largest_body_is_a_whole_number_of_our_metadata() {
    let with = |number: f64| {
        move |resources: &mut Resources| {
            let metadata = resources.listeners[0].metadata.as_mut().expect("ours");
            let ours = metadata.filter_metadata.get_mut(xds::METADATA).expect("ours");
            let value = ours.fields.get_mut(xds::METADATA_BODY_BYTES).expect("the limit");
            value.kind = Some(value::Kind::NumberValue(number));
        }
    };
    for wrong in [0.5, -1.0, 1e16, f64::NAN, f64::INFINITY] {
        let found = refused(with(wrong));
        assert_eq!(found.len(), 1, "{wrong}: {found:?}");
        assert!(found[0].contains("metadata.ringway.body_bytes: must be a whole number of bytes"), "{found:?}");
    }
    let mut zero = resources();
    with(0.0)(&mut zero);
    let plan = compile(&zero, None, 1, &World::default()).unwrap_or_else(|found| panic!("{found:#?}"));
    let Kind::Http(http) = &plan.listener(ListenerId(0)).kind else { panic!("{:?}", plan.listeners) };
    assert_eq!(http.body_bytes, 0);
}

#[test]
fn all_that_is_wrong_is_said_at_once() {
    let said = refused(|all| {
        all.clusters[0].connect_timeout = Some(Duration::default());
        all.listeners[1].address = None;
        first_route(all).r#match = None;
    });
    assert_eq!(said.len(), 3, "{said:?}");
}

#[test]
fn under_a_daemon_the_proxys_own_file_says_whether_it_logs() {
    let text = "trust-domain: shop\ngroups: { a: { listeners: { web: { address: 127.0.0.1:1, routes: [ { respond: {} } ] } } } }\n";
    let mesh = api::mesh::load(text, "mesh.yaml").unwrap();
    let logs = |own: &str| {
        let mut resources = mesh.translated(&mesh.groups[0]);
        resources.bootstrap = api::translate(&api::load(own, "own.yaml").unwrap()).bootstrap;
        compile(&resources, None, 1, &World::default()).unwrap().listeners[0].logs()
    };
    assert!(logs("daemon: { state: s }\naccess-log: { path: a }\n"));
    assert!(!logs("daemon: { state: s }\n"));
}

#[test]
fn what_has_not_changed_is_the_same_in_the_next_plan() {
    let first = plan_of(TEXT);
    let mut next = resources();
    next.endpoints.iter_mut().find(|one| one.cluster_name == "cart").unwrap().endpoints[0].lb_endpoints.truncate(1);
    let second = compile(&next, Some(&first), 2, &World::default()).unwrap();
    let same: Vec<bool> =
        first.services.iter().zip(&second.services).map(|(a, b)| Arc::ptr_eq(&a.balance, &b.balance)).collect();
    assert_eq!(same, [false, true, true]);
}

#[test]
fn other_endpoints_alone_make_a_plan_that_shares_the_rest() {
    let (first, mut resources) = (plan_of(TEXT), resources());
    let message = resources.endpoints.iter_mut().find(|one| one.cluster_name == "cart").unwrap();
    message.endpoints[0].lb_endpoints.truncate(1);
    let second = with_endpoints(&first, &[("cart", message)], 2, &World::default()).unwrap();
    assert_eq!((second.generation, second.services[0].balance.len()), (2, 1));
    let endpoint = |plan: &Plan| plan.services[0].balance.endpoint(0).unwrap().clone();
    assert!(Arc::ptr_eq(&endpoint(&first), &endpoint(&second)), "its state goes on");
    assert!(Arc::ptr_eq(&first.services[2].balance, &second.services[2].balance));
    assert!(Arc::ptr_eq(&first.listeners, &second.listeners) && Arc::ptr_eq(&first.series, &second.series));
    // The compiler says the same of it.
    message.endpoints[0].priority = 1;
    assert!(with_endpoints(&first, &[("cart", message)], 3, &World::default()).is_none());
    message.endpoints[0].priority = 0;
    assert!(with_endpoints(&first, &[("none", message)], 3, &World::default()).is_none());
    let whole = compile(&resources, Some(&first), 2, &World::default()).unwrap();
    assert_eq!(whole.to_json(), second.to_json());
}
