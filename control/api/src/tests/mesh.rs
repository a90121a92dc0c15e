//! Mesh documents: what a group's proxies get, what is refused, and that versions are hashes of content alone.

use std::collections::BTreeSet;

use envoy_types::pb::envoy::{
    config::{
        core::v3::{TransportSocket, config_source::ConfigSourceSpecifier, transport_socket::ConfigType},
        endpoint::v3::{ClusterLoadAssignment, lb_endpoint::HostIdentifier},
    },
    extensions::transport_sockets::tls::v3::{
        CommonTlsContext, DownstreamTlsContext, SdsSecretConfig, UpstreamTlsContext,
        common_tls_context::ValidationContextType,
    },
};
use prost::Message;

use crate::{
    Address, Clients, Credential, Endpoints, Expect, Packed, Resources, Trust,
    mesh::{self, KeyPair, Mesh, State},
    xds,
};

pub(super) const MESH: &str = include_str!("mesh.yaml");

fn good() -> Mesh {
    mesh::load(MESH, "mesh.yaml").unwrap_or_else(|findings| panic!("{findings:#?}"))
}

fn state() -> State {
    let mut state = State { trust: b"roots".to_vec(), ..State::default() };
    let at = ("cart".to_owned(), "in".to_owned());
    state.endpoints.insert(at, ["10.0.0.2:8080", "10.0.0.1:8080"].map(|text| text.parse().unwrap()).into());
    state.set.insert("legacy".to_owned(), vec![Address::Socket("10.0.0.7:80".parse().unwrap())]);
    let pair = KeyPair { chain: b"chain".to_vec(), key: b"very secret".to_vec() };
    state.secrets.insert(("edge".to_owned(), "shop.example.com".to_owned()), pair.clone());
    state.secrets.insert(("cart".to_owned(), "shop.example.com".to_owned()), pair.clone());
    state.secrets.insert(("edge".to_owned(), "unused".to_owned()), pair);
    state
}

fn resources(group: &str) -> Resources {
    let mesh = good();
    mesh.resources(mesh.group(group).unwrap(), &state())
}

fn names<T>(list: &[T], name: impl Fn(&T) -> &str) -> Vec<String> {
    list.iter().map(|one| name(one).to_owned()).collect()
}

fn addresses(of: &ClusterLoadAssignment) -> Vec<String> {
    let endpoints = of.endpoints.iter().flat_map(|locality| &locality.lb_endpoints);
    let address = |of: &HostIdentifier| match of {
        HostIdentifier::Endpoint(endpoint) => match crate::read_address(endpoint.address.as_ref().unwrap()).unwrap() {
            Address::Socket(socket) => socket.to_string(),
            Address::Unix(path) => path,
        },
        HostIdentifier::EndpointName(name) => name.clone(),
    };
    endpoints.map(|endpoint| address(endpoint.host_identifier.as_ref().unwrap())).collect()
}

/// A context's secrets, each with where it comes from; what it validates with; and how many SANs are expected.
fn sds(socket: Option<&TransportSocket>) -> (Vec<String>, Option<String>, usize) {
    let Some(ConfigType::TypedConfig(packed)) = socket.and_then(|socket| socket.config_type.as_ref()) else {
        panic!("{socket:?}")
    };
    let common: CommonTlsContext = match xds::is(packed, xds::DOWNSTREAM_TLS) {
        true => DownstreamTlsContext::decode(&packed.value[..]).unwrap().common_tls_context.unwrap(),
        false => UpstreamTlsContext::decode(&packed.value[..]).unwrap().common_tls_context.unwrap(),
    };
    assert!(common.tls_certificates.is_empty());
    let told = |of: &SdsSecretConfig| {
        let source = of.sds_config.as_ref().and_then(|source| source.config_source_specifier.as_ref());
        match source {
            Some(ConfigSourceSpecifier::Ads(_)) => format!("{} by ADS", of.name),
            Some(ConfigSourceSpecifier::PathConfigSource(path)) => format!("{} at {}", of.name, path.path),
            other => panic!("{other:?}"),
        }
    };
    let (trust, expected) = match &common.validation_context_type {
        Some(ValidationContextType::CombinedValidationContext(both)) => {
            let expected = both.default_validation_context.as_ref().unwrap().match_typed_subject_alt_names.len();
            (both.validation_context_sds_secret_config.as_ref().map(told), expected)
        }
        Some(ValidationContextType::ValidationContext(own)) => (None, own.match_typed_subject_alt_names.len()),
        None => (None, 0),
        other => panic!("{other:?}"),
    };
    (common.tls_certificate_sds_secret_configs.iter().map(told).collect(), trust, expected)
}

#[test]
fn the_words_of_a_mesh_are_read() {
    let mesh = good();
    assert_eq!(mesh.trust_domain, "shop");
    let identities: Vec<_> = mesh.groups.iter().map(|group| group.identity.as_str()).collect();
    assert_eq!(identities, ["spiffe://shop/group/edge", "spiffe://shop/ns/cart/sa/cart", "spiffe://shop/group/web"]);
    let edge = mesh.group("edge").unwrap();
    assert_eq!(edge.limits.request_timeout.as_secs(), 30);
    assert_eq!(edge.secret_names(), BTreeSet::from(["clients", "shop.example.com"]));
    let tls = edge.listeners[1].tls.as_ref().unwrap();
    assert_eq!((tls.clients, &tls.trust), (Clients::Optional, &Some(Trust::Mesh)));
    let tls = mesh.group("cart").unwrap().listeners[0].tls.as_ref().unwrap();
    assert_eq!((&tls.certificates[..], tls.clients), (&[Credential::Joined][..], Clients::Required));
    let cart = &mesh.services[0];
    assert_eq!(cart.endpoints, Endpoints::Group { group: "cart".to_owned(), listener: "in".to_owned() });
    let tls = cart.tls.as_ref().unwrap();
    assert_eq!(tls.expect, [Expect::Identity("spiffe://shop/ns/cart/sa/cart".to_owned())]);
    assert_eq!((&tls.shown, &tls.trust), (&Some(Credential::Joined), &Some(Trust::Mesh)));
    let partner = mesh.services[3].tls.as_ref().unwrap();
    assert_eq!(partner.trust, None, "names are vouched for by the roots that the system trusts");
}

#[test]
fn a_group_gets_what_its_listeners_reach_and_nothing_else() {
    let edge = resources("edge");
    assert_eq!(names(&edge.listeners, |l| &l.name), ["web", "clients"]);
    assert_eq!(names(&edge.routes, |r| &r.name), ["web", "clients"]);
    assert_eq!(names(&edge.clusters, |c| &c.name), ["cart", "web", "legacy", "partner"]);
    assert_eq!(names(&edge.endpoints, |e| &e.cluster_name), ["cart", "web", "legacy"]);
    assert_eq!(addresses(&edge.endpoints[0]), ["10.0.0.1:8080", "10.0.0.2:8080"]);
    assert!(addresses(&edge.endpoints[1]).is_empty(), "nobody of that group is ready");
    assert_eq!(addresses(&edge.endpoints[2]), ["10.0.0.7:80"]);
    assert_eq!(names(&edge.secrets, |s| &s.name), ["mesh-trust", "secret/shop.example.com"]);

    let cart = resources("cart");
    assert_eq!(names(&cart.clusters, |c| &c.name), ["db", "app"]);
    assert_eq!(addresses(&cart.endpoints[1]), ["/run/app.sock", "127.0.0.1:8081"]);
    assert_eq!(names(&cart.secrets, |s| &s.name), ["mesh-trust"], "it names no secret");
    assert_eq!(addresses(&resources("web").endpoints[0]), ["127.0.0.1:8082"], "each group has its own `app`");
}

#[test]
fn certificates_and_roots_come_by_name() {
    let identity = format!("identity at {}", xds::IDENTITY_PATH);
    let trust = Some("mesh-trust by ADS".to_owned());
    let cart = resources("cart");
    let inside = sds(cart.listeners[0].filter_chains[0].transport_socket.as_ref());
    assert_eq!(inside, (vec![identity.clone()], trust.clone(), 0));
    let edge = resources("edge");
    let web = sds(edge.listeners[0].filter_chains[0].transport_socket.as_ref());
    assert_eq!(web, (vec!["secret/shop.example.com by ADS".to_owned()], None, 0));
    let clients = sds(edge.listeners[1].filter_chains[0].transport_socket.as_ref());
    assert_eq!(clients, (vec!["secret/clients by ADS".to_owned()], trust.clone(), 1));
    assert_eq!(sds(edge.clusters[0].transport_socket.as_ref()), (vec![identity.clone()], trust.clone(), 1));
    assert_eq!(sds(edge.clusters[2].transport_socket.as_ref()), (vec![], trust, 1), "`offer-identity: false`");
    assert_eq!(sds(edge.clusters[3].transport_socket.as_ref()), (vec![identity], None, 1));
    assert_eq!(edge.files, BTreeSet::from([xds::SYSTEM_ROOTS.to_owned()]));
}

/// All resources, by type and name, with their versions.
fn versions(of: &Resources) -> BTreeSet<String> {
    let listeners = of.listeners.iter().map(Packed::listener);
    let all = listeners.chain(of.routes.iter().map(Packed::routes)).chain(of.clusters.iter().map(Packed::cluster));
    let all = all.chain(of.endpoints.iter().map(Packed::endpoints)).chain(of.secrets.iter().map(Packed::secret));
    all.map(|packed| format!("{packed:?}")).collect()
}

#[test]
fn versions_depend_on_content_alone() {
    // Maps iterate differently every time: one of these would differ if any were encoded as it iterates.
    let full = || crate::translate(&super::good(super::FULL));
    let first = (versions(&resources("edge")), versions(&full()));
    for _ in 0..50 {
        assert_eq!((versions(&resources("edge")), versions(&full())), first);
    }
    let mesh = mesh::load(&MESH.replace("/cart/*", "/carts/*"), "f").unwrap();
    let changed = versions(&mesh.resources(mesh.group("edge").unwrap(), &state()));
    let differing: Vec<_> = changed.difference(&first.0).collect();
    assert_eq!(differing.len(), 1, "{differing:?}");
    assert!(differing[0].contains("RouteConfiguration/web "), "{differing:?}");
}

#[test]
fn keys_are_not_printed() {
    let state = state();
    assert!(!format!("{state:?}").contains("very secret"));
    let packed = Packed::secret(&mesh::certificate("a", &state.secrets[&("edge".to_owned(), "unused".to_owned())]));
    let bytes = format!("{:?}", b"very secret").replace(['[', ']'], "");
    assert!(!format!("{packed:?}").contains(&bytes));
}

#[test]
fn addresses_that_operators_set_are_checked() {
    let read = |texts: &[&str]| mesh::read_addresses(&texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>());
    assert_eq!(read(&[]), Ok(vec![]));
    assert_eq!(read(&["10.0.0.2:1", "10.0.0.1:1"]).map(|list| list.len()), Ok(2));
    assert_eq!(read(&["10.0.0.2:1", "10.0.0.1:1"]), read(&["10.0.0.1:1", "10.0.0.2:1"]));
    assert_eq!(read(&["a:1"]), Err("an address is `ip:port`, `[ipv6]:port` or `unix:path`, not `a:1`".to_owned()));
    assert_eq!(read(&["unix:a"]), Err("unix:a: a unix socket's path begins with `/`".to_owned()));
    assert_eq!(read(&["10.0.0.1:1", "10.0.0.1:1"]), Err("10.0.0.1:1 stands twice".to_owned()));
    assert!(read(&vec!["10.0.0.1:1"; 4001]).unwrap_err().contains("at most 4000"));
}

/// The findings of a mesh document that must be bad.
fn bad(text: &str) -> Vec<String> {
    let findings = mesh::load(text, "f").expect_err(text);
    findings.iter().map(|f| format!("{}:{}: {}", f.line, f.column, f.message)).collect()
}

fn page(cases: &[&str], frame: impl Fn(&str) -> String) -> String {
    let mut page = String::new();
    for case in cases {
        page.push_str(case);
        page.push('\n');
        bad(&frame(case)).iter().for_each(|line| page.push_str(&format!("    {line}\n")));
    }
    page
}

#[test]
fn findings_of_documents() {
    let group = "groups:\n  a: { listeners: { in: { address: 127.0.0.1:1, routes: [ { respond: {} } ] } } }";
    let cases = [
        "",
        "[]",
        "trust-domain: shop",
        "trust-domain: Shop\ngroups: {}",
        "trust-domain: spiffe://shop\ngroups: []",
        "trust-domain: shop\ngruops: {}",
        "listeners: {}\nlimits: {}\nidentity: {}\ncores: 1\nadmin: {}\naccess-log: {}\ndaemon: {}",
    ];
    insta::assert_snapshot!(page(&cases, str::to_owned));
    assert!(mesh::load(&format!("trust-domain: shop\n{group}\n"), "f").is_ok());
}

#[test]
fn findings_of_groups() {
    let frame = |group: &str| {
        let good = "b: { listeners: { in: { address: 127.0.0.1:1, tls: {}, routes: [ { to: shared } ] } } }";
        format!(
            "trust-domain: shop\ngroups:\n  {group}\n  {good}\nservices:\n  shared: {{ endpoints: [10.0.0.1:1] }}\n"
        )
    };
    let listener = "listeners: { in: { address: 127.0.0.1:1, routes: [ { respond: {} } ] } }";
    let cases = [
        "a: {}".to_owned(),
        "a: { listeners: {} }".to_owned(),
        format!("a/b: {{ {listener} }}"),
        format!("{}: {{ {listener} }}", "x".repeat(65)),
        format!("a: {{ identity: 'spiffe://other/a', {listener} }}"),
        format!("a: {{ identity: 'spiffe://shop/*', {listener} }}"),
        format!("a: {{ identity: 'spiffe://shop', {listener} }}"),
        format!("a: {{ identity: 'spiffe://shop/ringwayd', {listener} }}"),
        format!("a: {{ identity: 'spiffe://shop/ringway-operator/root', {listener} }}"),
        format!("a: {{ identity: {{ certificate: a.pem }}, {listener} }}"),
        format!("a: {{ {listener}, cores: 1, admin: {{}}, access-log: {{}}, daemon: {{}}, groups: {{}} }}"),
        format!("a: {{ {listener}, limits: {{ connections: 1, drain-timeout: 1s, head: 64KiB }} }}"),
        format!("a: {{ {listener}, services: {{ shared: {{ endpoints: [10.0.0.1:1] }} }} }}"),
        format!("a: {{ {listener}, services: {{ own: {{ endpoints: set }} }} }}"),
        format!("a: {{ {listener}, listner: {{}} }}"),
        "a: { listeners: { in: { address: 'unix:run/in.sock', protocol: tcp, to: shared } } }".to_owned(),
        "a: { listeners: { in: { address: 127.0.0.1:1, protocol: tcp, to: sharde } } }".to_owned(),
        "a: { listeners: { in: { address: 127.0.0.1:1, protocol: tcp, to: shared, tls: { certificates: [ { certificate: a.pem, key: a.key } ] } } } }".to_owned(),
        "a: { listeners: { in: { address: 127.0.0.1:1, protocol: tcp, to: shared, tls: { certificates: [ { sekret: a } ], clients: required, trust: ca.pem } } } }".to_owned(),
    ];
    let cases: Vec<&str> = cases.iter().map(String::as_str).collect();
    insta::assert_snapshot!(page(&cases, frame));
}

#[test]
fn findings_of_services() {
    let frame = |service: &str| {
        format!(
            "trust-domain: shop\ngroups:\n  cart:\n    listeners:\n      in: {{ address: 127.0.0.1:1, tls: {{}}, routes: [ {{ respond: {{}} }} ] }}\n      plain: {{ address: 127.0.0.1:2, routes: [ {{ respond: {{}} }} ] }}\n      local: {{ address: 'unix:/run/a', routes: [ {{ respond: {{}} }} ] }}\nservices:\n  s: {service}\n"
        )
    };
    let cases = [
        "{ endpoints: {} }",
        "{ endpoints: { group: crat, listener: in } }",
        "{ endpoints: { group: zebra, listener: in } }",
        "{ endpoints: { group: cart, listener: inn } }",
        "{ endpoints: { group: cart, listener: zebra } }",
        "{ endpoints: { group: cart, listener: local } }",
        "{ endpoints: { group: cart, listener: in } }",
        "{ endpoints: { group: cart, listener: plain }, tls: { expect: group } }",
        "{ endpoints: [10.0.0.1:1], tls: { expect: group } }",
        "{ endpoints: ['unix:run/app.sock'] }",
        "{ endpoints: sett }",
        "{ endpoints: set, tls: { expect: 'spiffe://shop/a', trust: ca.pem } }",
    ];
    insta::assert_snapshot!(page(&cases, frame));
}
