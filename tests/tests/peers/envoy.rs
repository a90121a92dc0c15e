//! Envoy as oracle: the same file's resources, the same requests, the same answers.

use api::envoy_types::pb::envoy::config::{
    bootstrap::v3::{Bootstrap, bootstrap::StaticResources},
    cluster::v3::cluster::{ClusterDiscoveryType, DiscoveryType},
    listener::v3::{Listener, filter::ConfigType},
    route::v3::RouteConfiguration,
};
use api::envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpConnectionManager, http_connection_manager::RouteSpecifier,
};
use api::{Resources, load, translate, xds};
use prost::Message;
use ringway_tests::{Answer, Client, Head, Origin, Proxy, free_port, peers, respond};
use std::fs;
use std::net::SocketAddr;
use std::process::Command;

const HOSTS: &str = r#"
      - names: [shop.test, "*.shop.test"]
        routes:
          - { name: exact, match: { path: /exact }, to: app, request-headers: { set: { x-route: exact } } }
          - { name: prefix, match: { path: /cart/* }, to: app, rewrite: { path: /basket/* }, request-headers: { set: { x-route: prefix } } }
          - { name: up, match: { path: /up/* }, to: app, rewrite: { path: /* }, request-headers: { set: { x-route: up } } }
          - { name: regex, match: { path: { regex: '/v[0-9]+/(a|b)+' } }, to: app, request-headers: { set: { x-route: regex } } }
          - { name: one, match: { path: { regex: '/one/.*' } }, rewrite: { path: /1 }, to: app, request-headers: { set: { x-route: one } } }
          - { name: write, match: { path: /m, methods: [POST, PUT] }, to: app, request-headers: { set: { x-route: write } } }
          - { name: read, match: { path: /m, methods: [GET] }, to: app, request-headers: { set: { x-route: read } } }
          - { name: header, match: { path: /h, headers: { x-beta: "1", x-debug: { present: true } } }, to: app, request-headers: { set: { x-route: header } } }
          - { name: version, match: { path: /h, headers: { x-v: { regex: '2\..*' } } }, to: app, request-headers: { set: { x-route: version } } }
          - { name: absent, match: { path: /h, headers: { x-beta: { present: false } } }, to: app, request-headers: { set: { x-route: absent } } }
          - { name: query, match: { path: /q, query: { page: "1" } }, to: app, request-headers: { set: { x-route: query } } }
          - { name: query-any, match: { path: /q, query: { any: { present: true } } }, to: app, request-headers: { set: { x-route: any } } }
          - { name: query-regex, match: { path: /q, query: { n: { regex: '[0-9]+' } } }, to: app, request-headers: { set: { x-route: number } } }
          - { name: old, match: { path: /old/* }, redirect: { path: /new/*, status: 308 } }
          - { name: top, match: { path: /top/* }, redirect: { path: /*, status: 301 } }
          - { name: gone, match: { path: /gone }, redirect: { path: /here, status: 307 } }
          - { name: ping, match: { path: /ping }, respond: { status: 203, body: pong } }
          - { name: host, match: { path: /host }, to: app, rewrite: { host: inner.test } }
          - { name: edits, match: { path: /edits }, to: app, request-headers: { set: { x-set: "50%" }, add: { x-add: more }, remove: [x-remove] }, response-headers: { set: { x-served: us }, add: { x-many: two }, remove: [x-secret] } }
      - names: ["*.long.shop.test"]
        routes: [ { match: { path: /exact }, to: app, request-headers: { set: { x-route: longer } } } ]
      - names: ["*"]
        routes: [ { match: { path: /* }, to: app, request-headers: { set: { x-route: any-host } } } ]
"#;

/// Method, target, host, more field lines.
type Ask = (&'static str, &'static str, &'static str, &'static str);

const ASKS: &[Ask] = &[
    ("GET", "/exact", "shop.test", ""),
    ("GET", "/exact?a=b&c", "shop.test", ""),
    ("GET", "/exact?", "shop.test", ""),
    ("GET", "/exact/", "shop.test", ""),
    ("GET", "/EXACT", "shop.test", ""),
    ("GET", "/%65xact", "shop.test", ""),
    ("GET", "//exact", "shop.test", ""),
    ("GET", "/./exact", "shop.test", ""),
    ("GET", "/a/../exact", "shop.test", ""),
    ("GET", "/a/%2e%2e/exact", "shop.test", ""),
    ("GET", "/cart%2Fx", "shop.test", ""),
    ("GET", "/cart%5Cx", "shop.test", ""),
    ("GET", "/cart", "shop.test", ""),
    ("GET", "/cart/", "shop.test", ""),
    ("GET", "/cart?x", "shop.test", ""),
    ("GET", "/cart/a/b?x=%2F", "shop.test", ""),
    ("GET", "/cart/%41%C3%A4", "shop.test", ""),
    ("GET", "/cartoon", "shop.test", ""),
    ("GET", "/cart/../exact", "shop.test", ""),
    ("GET", "/up", "shop.test", ""),
    ("GET", "/up/", "shop.test", ""),
    ("GET", "/up/a", "shop.test", ""),
    ("GET", "/up/a/b?c", "shop.test", ""),
    ("GET", "/up?c", "shop.test", ""),
    ("GET", "/v1/ab", "shop.test", ""),
    ("GET", "/v1/abc", "shop.test", ""),
    ("GET", "/v/ab", "shop.test", ""),
    ("GET", "/x/v1/ab", "shop.test", ""),
    ("GET", "/v12/a?b=/v1/x", "shop.test", ""),
    ("GET", "/one/two/three?q=1", "shop.test", ""),
    ("GET", "/m", "shop.test", ""),
    ("POST", "/m", "shop.test", ""),
    ("PUT", "/m", "shop.test", ""),
    ("DELETE", "/m", "shop.test", ""),
    ("GET", "/h", "shop.test", ""),
    ("GET", "/h", "shop.test", "X-Beta: 1\r\nX-Debug: x\r\n"),
    ("GET", "/h", "shop.test", "X-Beta: 1\r\n"),
    ("GET", "/h", "shop.test", "X-BETA: 2\r\n"),
    ("GET", "/h", "shop.test", "X-V: 2.1\r\n"),
    ("GET", "/h", "shop.test", "X-V: 12.1\r\n"),
    ("GET", "/h", "shop.test", "X-Beta: 1\r\nX-V: 2.\r\n"),
    ("GET", "/q", "shop.test", ""),
    ("GET", "/q?page=1", "shop.test", ""),
    ("GET", "/q?page=2", "shop.test", ""),
    ("GET", "/q?page=11", "shop.test", ""),
    ("GET", "/q?a=b&page=1&c", "shop.test", ""),
    ("GET", "/q?any", "shop.test", ""),
    ("GET", "/q?any=", "shop.test", ""),
    ("GET", "/q?n=42", "shop.test", ""),
    ("GET", "/q?n=4x2", "shop.test", ""),
    ("GET", "/old", "shop.test", ""),
    ("GET", "/old/", "shop.test", ""),
    ("GET", "/old/a/b?c=d", "shop.test", ""),
    ("GET", "/older", "shop.test", ""),
    ("GET", "/top/a", "shop.test", ""),
    ("GET", "/top", "shop.test", ""),
    ("GET", "/gone?x=y", "shop.test", ""),
    ("GET", "/ping", "shop.test", ""),
    ("POST", "/ping", "shop.test", ""),
    ("GET", "/host", "shop.test", ""),
    ("GET", "/edits", "shop.test", "X-Set: a\r\nX-Set: b\r\nX-Add: one\r\nX-Remove: x\r\n"),
    ("GET", "/exact", "SHOP.TEST", ""),
    ("GET", "/exact", "shop.test:8080", ""),
    ("GET", "/exact", "a.shop.test", ""),
    ("GET", "/exact", "a.b.shop.test", ""),
    ("GET", "/exact", "a.long.shop.test", ""),
    ("GET", "/exact", "long.shop.test", ""),
    ("GET", "/exact", "xshop.test", ""),
    ("GET", "/exact", "test", ""),
    ("GET", "/nothing", "shop.test", ""),
    ("GET", "/nothing", "other.test", ""),
    ("GET", "/exact", "shop.test", "Connection: X-Hop\r\nX-Hop: 1\r\n"),
    ("GET", "/exact", "shop.test", "TE: trailers\r\nConnection: TE\r\n"),
    ("GET", "/exact", "shop.test", "X-Forwarded-For: 203.0.113.9\r\n"),
    ("GET", "/exact", "shop.test", "X-Forwarded-Proto: https\r\n"),
    ("GET", "/exact", "shop.test", "X-Request-Id: given\r\n"),
    ("GET", "/exact", "shop.test", "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n"),
    ("GET", "/exact", "shop.test", "X : y\r\n"),
];

/// Where we differ, and mean to.
const DIFFERENT: &[(Ask, &str)] = &[
    (
        ("GET", "/a//../exact", "shop.test", ""),
        "slashes are merged before `..` is resolved, as in nginx; Envoy resolves first",
    ),
    (("GET", "/cart/%c3%a4", "shop.test", ""), "triplets get upper-case digits (RFC 3986, section 6.2.2.1)"),
    (("GET", "/exact", "shop.test.", ""), "the dot is left out for matching only; Envoy does not send it on either"),
    (
        ("GET", "/exact", "shop.test", "Host: again\r\n"),
        "two Hosts are refused (RFC 9112, section 3.2); Envoy joins them",
    ),
];

/// What is compared: the answer's status, place and fields, and what the origin saw.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    status: u16,
    location: Option<String>,
    body: Option<String>,
    answered: Vec<String>,
    seen: Option<Vec<String>>,
}

fn outcome(to: SocketAddr, origin: &Origin, ask: &Ask) -> Outcome {
    let (method, target, host, fields) = ask;
    let before = origin.count();
    let mut client = Client::to(to);
    let length = if *method == "GET" { "" } else { "Content-Length: 0\r\n" };
    client.send(format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\n{fields}{length}\r\n"));
    let answer: Answer = client.try_answer(method).unwrap_or_else(|e| panic!("{to} {ask:?}: {e}"));
    let seen = origin.seen().get(before).map(|seen| of_interest(&seen.head));
    let location = answer.field("location").map(|to| path_of(to).to_owned());
    // Each proxy has words of its own for its own errors.
    let body = (answer.status < 300).then(|| answer.text().to_owned());
    let answered = ["x-served", "x-many", "x-secret"].iter().map(|name| format!("{name}: {:?}", answer.head.all(name)));
    Outcome { status: answer.status, location, body, answered: answered.collect(), seen }
}

/// Envoy writes absolute places, we may write paths.
fn path_of(location: &str) -> &str {
    let rest = location.strip_prefix("http://").unwrap_or(location);
    rest.find('/').map_or(rest, |at| &rest[at..])
}

/// What an origin is to see alike.
fn of_interest(head: &Head) -> Vec<String> {
    let names = [
        "host",
        "x-route",
        "x-set",
        "x-add",
        "x-remove",
        "x-hop",
        "x-forwarded-proto",
        "upgrade",
        "keep-alive",
        "x-beta",
        "x-v",
        "x-debug",
    ];
    let mut seen = vec![head.word(0).to_owned(), head.word(1).to_owned()];
    seen.extend(names.iter().map(|name| format!("{name}: {}", head.all(name).join(","))));
    // For peers on loopback Envoy writes an address of the host instead.
    let list = head.all("x-forwarded-for").join(",").replace(' ', "");
    let before = list.rsplit_once(',').map_or("", |(before, _peer)| before);
    seen.push(format!("x-forwarded-for: {before},peer"));
    let id = head.all("x-request-id").join(",");
    seen.push(format!("x-request-id: {}", if id == "given" { "given" } else { "made" }));
    assert!(!id.is_empty(), "{head:?}");
    seen
}

#[test]
fn the_same_requests_have_the_same_outcome() {
    let Some(program) = peers::find("envoy", "envoy::the_same_requests_have_the_same_outcome") else { return };
    let origin = Origin::fixed(respond(200, "X-Secret: 1\r\nX-Many: one\r\nX-Served: them\r\n", b"x"));
    let text = format!(
        "listeners:\n  web:\n    address: 127.0.0.1:$web\n    hosts:{HOSTS}services:\n  app: {{ endpoints: [{}] }}\n",
        origin.address()
    );
    let proxy = Proxy::start(&text);
    let port = free_port();
    let ours = fs::read_to_string(proxy.file()).unwrap();
    let theirs = ours
        .replace(&format!(":{}", proxy.port("web")), &format!(":{port}"))
        .replace(&format!(":{}", proxy.port("admin")), &format!(":{}", free_port()))
        .replace("access.log", "envoy.log");
    let document = load(&theirs, "envoy.yaml").expect("a good document");
    let file = proxy.folder().join("envoy.pb");
    fs::write(&file, static_bootstrap(translate(&document)).encode_to_vec()).unwrap();
    let mut command = Command::new(program);
    command.args(["--concurrency", "1", "--log-level", "error", "--use-dynamic-base-id", "-c"]).arg(&file);
    let _envoy = peers::Peer::start(&mut command, port);
    let mut differences = Vec::new();
    for ask in ASKS {
        let ours = outcome(proxy.address("web"), &origin, ask);
        let theirs = outcome(SocketAddr::from(([127, 0, 0, 1], port)), &origin, ask);
        if ours != theirs {
            differences.push(format!("{ask:?}\n  ours:   {ours:?}\n  theirs: {theirs:?}"));
        }
    }
    for (ask, why) in DIFFERENT {
        let ours = outcome(proxy.address("web"), &origin, ask);
        let theirs = outcome(SocketAddr::from(([127, 0, 0, 1], port)), &origin, ask);
        assert_ne!(ours, theirs, "{ask:?} is alike now: {why}");
    }
    assert!(differences.is_empty(), "{} differ:\n{}", differences.len(), differences.join("\n"));
}

/// The resources as a static bootstrap that an Envoy can load without a server.
pub(crate) fn static_bootstrap(mut resources: Resources) -> Bootstrap {
    for listener in &mut resources.listeners {
        inline_routes(listener, &resources.routes);
    }
    for cluster in &mut resources.clusters {
        let Some(at) = resources.endpoints.iter().position(|e| e.cluster_name == cluster.name) else { continue };
        cluster.load_assignment = Some(resources.endpoints.swap_remove(at));
        cluster.eds_cluster_config = None;
        cluster.cluster_discovery_type = Some(ClusterDiscoveryType::Type(DiscoveryType::Static as i32));
    }
    let (listeners, clusters) = (resources.listeners, resources.clusters);
    let fixed = StaticResources { listeners, clusters, ..StaticResources::default() };
    Bootstrap { static_resources: Some(fixed), ..resources.bootstrap }
}

fn inline_routes(listener: &mut Listener, routes: &[RouteConfiguration]) {
    let Some(own) = routes.iter().find(|routes| routes.name == listener.name) else { return };
    let config = &mut listener.filter_chains[0].filters[0].config_type;
    let Some(ConfigType::TypedConfig(any)) = config else { panic!("a typed filter: {config:?}") };
    let mut manager = HttpConnectionManager::decode(&*any.value).expect("our own message");
    manager.route_specifier = Some(RouteSpecifier::RouteConfig(own.clone()));
    *config = Some(ConfigType::TypedConfig(xds::any(xds::HTTP_CONNECTION_MANAGER, &manager)));
}
