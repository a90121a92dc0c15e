//! Envoy on the other side of an mTLS hop, in both directions, with its own check of SPIFFE identities.

use crate::envoy::static_bootstrap;
use api::prost::Message;
use ringway_tests::certificates::{Authority, Leaf};
use ringway_tests::tls::Tls;
use ringway_tests::{Client, Origin, Proxy, Run, free_port, peers};
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

const WEB: &str = "spiffe://shop/ns/web/sa/web";
const CART: &str = "spiffe://shop/ns/cart/sa/cart";

/// Envoy's own certificate and whom it trusts, for either side of TLS; `names` are matchers of alternative names.
fn context(folder: &Path, names: &str) -> String {
    let at = folder.display();
    format!(
        "common_tls_context: {{ tls_certificates: [ {{ certificate_chain: {{ filename: {at}/envoy.pem }}, private_key: {{ filename: {at}/envoy.key }} }} ], \
         alpn_protocols: [http/1.1], validation_context: {{ {names} custom_validator_config: {{ name: envoy.tls.cert_validator.spiffe, \
         typed_config: {{ '@type': type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.SPIFFECertValidatorConfig, \
         trust_domains: [ {{ name: shop, trust_bundle: {{ filename: {at}/ca.pem }} }} ] }} }} }} }}"
    )
}

/// An Envoy with one listener: its filter chain's transport socket, its route's action, its clusters.
fn envoy(program: &Path, folder: &Path, socket: &str, route: &str, clusters: &str) -> (peers::Peer, SocketAddr) {
    let port = free_port();
    let text = format!(
        "static_resources:\n  listeners:\n  - name: in\n    address: {{ socket_address: {{ address: 127.0.0.1, port_value: {port} }} }}\n    \
         filter_chains:\n    - {socket}\n      filters:\n      - name: envoy.filters.network.http_connection_manager\n        \
         typed_config:\n          '@type': type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager\n          \
         stat_prefix: in\n          http_filters:\n          - name: envoy.filters.http.router\n            \
         typed_config: {{ '@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router }}\n          \
         route_config:\n            virtual_hosts:\n            - name: all\n              domains: ['*']\n              \
         response_headers_to_add:\n              - header: {{ key: x-peer, value: '%DOWNSTREAM_PEER_URI_SAN%' }}\n              \
         - header: {{ key: x-version, value: '%DOWNSTREAM_TLS_VERSION%' }}\n              \
         routes:\n              - {{ match: {{ prefix: / }}, {route} }}\n  clusters: [ {clusters} ]\n"
    );
    let file = folder.join(format!("envoy-{port}.yaml"));
    fs::write(&file, text).unwrap();
    let mut command = Command::new(program);
    command.args(["--concurrency", "1", "--log-level", "error", "--use-dynamic-base-id", "-c"]).arg(&file);
    (peers::Peer::start(&mut command, port), SocketAddr::from(([127, 0, 0, 1], port)))
}

/// A folder with `ca.pem` and Envoy's pair, for this identity.
fn folder(authority: &Authority, identity: &str) -> tempfile::TempDir {
    let folder = tempfile::TempDir::new().unwrap();
    fs::write(folder.path().join("ca.pem"), authority.pem()).unwrap();
    authority.issue(&Leaf::of(&[identity])).put(folder.path(), "envoy");
    folder
}

fn ours(text: &str, authority: &Authority, identity: &str) -> Proxy {
    let text = format!(
        "identity: {{ certificate: own.pem, key: own.key, trust: {{ roots: [ca.pem], domains: [shop] }} }}\n{text}"
    );
    Run::new(&text).file_of("ca.pem", &authority.pem()).pair("own", &authority.issue(&Leaf::of(&[identity]))).start()
}

#[test]
fn from_us_to_envoy() {
    let Some(program) = peers::find("envoy", "spiffe::from_us_to_envoy") else { return };
    let authority = Authority::new("mesh");
    let folder = folder(&authority, CART);
    let socket = format!(
        "transport_socket: {{ name: tls, typed_config: {{ '@type': type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext, \
         require_client_certificate: true, {} }} }}",
        context(folder.path(), "")
    );
    let (_envoy, at) =
        envoy(&program, folder.path(), &socket, "direct_response: { status: 200, body: { inline_string: here } }", "");
    let text = |expect: &str| {
        format!(
            "listeners:\n  out: {{ address: '127.0.0.1:$web', routes: [ {{ to: cart }} ] }}\nservices:\n  cart: {{ endpoints: ['{at}'], tls: {{ expect: '{expect}' }} }}\n"
        )
    };
    let proxy = ours(&text(CART), &authority, WEB);
    let mut client = proxy.client();
    for n in 0..20 {
        let answer = client.get(&format!("/{n}"));
        assert_eq!((answer.status, answer.text(), answer.field("x-peer")), (200, "here", Some(WEB)));
        assert_eq!(answer.field("x-version"), Some("TLSv1.3"));
    }
    assert_eq!(proxy.logged("/19")["destination_identity"], CART);
    assert_eq!(ours(&text("spiffe://shop/ns/pay/**"), &authority, WEB).client().get("/").status, 503);
    // One of a domain that Envoy does not trust.
    let status = ours(&text(CART), &authority, "spiffe://bank/ns/web/sa/web").client().get("/").status;
    assert!(matches!(status, 502 | 503), "{status}");
}

#[test]
fn from_envoy_to_us() {
    let Some(program) = peers::find("envoy", "spiffe::from_envoy_to_us") else { return };
    let authority = Authority::new("mesh");
    let origin = Origin::echo();
    let text = format!(
        "listeners:\n  in: {{ address: '127.0.0.1:$web', tls: {{ expect: 'spiffe://shop/ns/web/**' }}, forwarded: {{ client-certificate: true }}, routes: [ {{ to: app }} ] }}\n\
         services:\n  app: {{ endpoints: [{}] }}\n",
        origin.address()
    );
    let proxy = ours(&text, &authority, CART);
    for (identity, expected, statuses) in [
        (WEB, CART, &[200_u16][..]),
        // Not whom we expect; not whom Envoy expects.
        ("spiffe://shop/ns/batch/sa/batch", CART, &[502, 503]),
        (WEB, "spiffe://shop/ns/pay/sa/pay", &[502, 503]),
    ] {
        let folder = folder(&authority, identity);
        let names =
            format!("match_typed_subject_alt_names: [ {{ san_type: URI, matcher: {{ exact: '{expected}' }} }} ],");
        let cluster = format!(
            "{{ name: cart, connect_timeout: 5s, type: STATIC, load_assignment: {{ cluster_name: cart, endpoints: [ {{ lb_endpoints: [ {{ endpoint: {{ address: \
             {{ socket_address: {{ address: 127.0.0.1, port_value: {} }} }} }} }} ] }} ] }}, \
             transport_socket: {{ name: tls, typed_config: {{ '@type': type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext, {} }} }} }}",
            proxy.port("web"),
            context(folder.path(), &names)
        );
        let (_envoy, at) = envoy(&program, folder.path(), "name: plain", "route: { cluster: cart }", &cluster);
        let before = origin.count();
        for n in 0..10 {
            let mut client = Client::to(at);
            let answer = client.get(&format!("/{identity}/{n}").replace("spiffe://", ""));
            assert!(statuses.contains(&answer.status), "{identity}, {expected}: {answer:?}");
        }
        if statuses == [200] {
            assert_eq!(origin.count() - before, 10);
            let seen = origin.seen().pop().unwrap();
            let told = seen.head.field("x-forwarded-client-cert").unwrap_or_default().to_owned();
            assert!(told.contains(&format!("URI={WEB}")) && told.contains(&format!("By={CART}")), "{told}");
            let line = proxy.logged("/9");
            assert_eq!(line["source_identity"], WEB, "{line}");
        } else {
            assert_eq!(origin.count(), before, "{identity}, {expected}");
        }
    }
}

#[test]
fn what_we_write_of_trust_an_envoy_enforces() {
    let Some(program) = peers::find("envoy", "spiffe::what_we_write_of_trust_an_envoy_enforces") else { return };
    let authority = Authority::new("mesh");
    let folder = folder(&authority, CART);
    let port = free_port();
    let text = format!(
        "listeners:\n  in:\n    address: 127.0.0.1:{port}\n    tls: {{ certificates: [ {{ certificate: envoy.pem, key: envoy.key }} ], \
         clients: required, trust: {{ roots: [ca.pem], domains: [bank, shop] }} }}\n    \
         routes: [ {{ respond: {{ status: 200, body: let in }} }} ]\nadmin: {{ address: 127.0.0.1:{} }}\n",
        free_port()
    );
    let document =
        api::load(&text, &folder.path().join("ringway.yaml").display().to_string()).expect("a good document");
    let file = folder.path().join("envoy.pb");
    fs::write(&file, static_bootstrap(api::translate(&document)).encode_to_vec()).unwrap();
    let mut command = Command::new(program);
    command.args(["--concurrency", "1", "--log-level", "error", "--use-dynamic-base-id", "-c"]).arg(&file);
    let _envoy = peers::Peer::start(&mut command, port);
    let at = SocketAddr::from(([127, 0, 0, 1], port));
    let asked = |identity: &str| {
        let tls = Tls::trusting(&[&authority]).with(&authority.issue(&Leaf::of(&[identity]))).any_name();
        let mut client = tls.connect(at, "a.test");
        client.try_send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").and_then(|()| client.try_answer("GET")).ok()
    };
    for identity in [WEB, "spiffe://bank/x"] {
        assert_eq!(asked(identity).expect("an answer").text(), "let in", "{identity}");
    }
    assert!(asked("spiffe://other/ns/web").is_none(), "another domain is let in");
}
