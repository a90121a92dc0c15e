//! Requests from a gateway through mTLS to a service's own proxy, and what operators do to them.

use super::running::Daemon;
use api::pb;
use ringway_tests::certificates::{Authority, Issued, Leaf};
use ringway_tests::tls::Tls;
use ringway_tests::{Client, Origin, eventually, free_port, until};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Where the listeners of a mesh are.
pub(crate) struct Ports {
    pub(crate) edge: u16,
    pub(crate) secure: u16,
    pub(crate) cart: u16,
}

impl Ports {
    pub(crate) fn new() -> Ports {
        Ports { edge: free_port(), secure: free_port(), cart: free_port() }
    }

    pub(crate) fn edge(&self) -> Client {
        Client::to(local(self.edge))
    }
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// A gateway `edge`, and `cart`, whose proxy has this origin behind it and lets this group in.
pub(crate) fn document(ports: &Ports, origin: &Origin, allowed: &str) -> String {
    let Ports { edge, cart, .. } = ports;
    format!(
        "trust-domain: shop
groups:
  edge:
    listeners:
      web: {{ address: '127.0.0.1:{edge}', routes: [ {{ name: cart, match: {{ path: /cart/* }}, to: cart }}, {{ name: ping, match: {{ path: /ping }}, respond: {{ body: pong }} }} ] }}
  cart:
    identity: 'spiffe://shop/ns/cart/sa/cart'
    listeners:
      in:
        address: '127.0.0.1:{cart}'
        tls: {{}}
        allow: [ {{ name: gateway, identity: '{allowed}' }} ]
        routes: [ {{ name: app, to: app }} ]
    services:
      app: {{ endpoints: ['{}'] }}
services:
  cart: {{ endpoints: {{ group: cart, listener: in }}, tls: {{ expect: group }} }}
",
        origin.address()
    )
}

/// The same with a listener that shows a certificate of the operators' to the world.
pub(crate) fn document_with_secret(ports: &Ports, origin: &Origin) -> String {
    let listener = format!(
        "      secure: {{ address: '127.0.0.1:{}', tls: {{ certificates: [ {{ secret: shop }} ] }}, routes: [ {{ name: cart, to: cart }} ] }}\n",
        ports.secure
    );
    document(ports, origin, EDGE).replace("  cart:\n    identity", &format!("{listener}  cart:\n    identity"))
}

pub(crate) const EDGE: &str = "spiffe://shop/group/edge";

/// The service's endpoints have come to the gateway.
pub(crate) fn arrives(ports: &Ports) {
    let come = until(Duration::from_secs(10), || (ports.edge().get("/cart/1").status == 200).then_some(()));
    assert!(come.is_some(), "the service never answers: {}", ports.edge().get("/cart/1").status);
}

#[test]
fn a_mesh_runs_from_a_document_and_tokens_alone() {
    let (daemon, ports) = (Daemon::start(), Ports::new());
    let origin = Origin::text("cart");
    assert_eq!(daemon.push(&document(&ports, &origin, EDGE)), 1);
    let cart = daemon.join("cart");
    let edge = daemon.join("edge");
    arrives(&ports);
    let mut client = ports.edge();
    let answer = client.get("/cart/1");
    assert_eq!((answer.status, answer.text()), (200, "cart"));

    // Both hops know each other, by the certificates that joining gave.
    let log = cart.logged("/cart/1");
    assert_eq!(log["source_identity"], EDGE, "{log}");
    let log = edge.logged("/cart/1");
    assert_eq!(log["destination_identity"], "spiffe://shop/ns/cart/sa/cart", "{log}");

    // Nobody without a certificate of the mesh comes in by the side.
    let (strange, roots) = (Authority::new("strange"), std::fs::read_to_string(edge.folder().join("state/bundle.pem")));
    let roots = roots.unwrap();
    Tls::rooted(&roots).any_name().refused(local(ports.cart), "cart");
    Tls::rooted(&roots).any_name().with(&strange.issue(&Leaf::of(&[EDGE]))).refused(local(ports.cart), "cart");

    // A rule takes effect in all proxies within a second of its push.
    let denying = document(&ports, &origin, "spiffe://shop/group/other");
    let begun = Instant::now();
    assert_eq!(daemon.push(&denying), 2);
    assert_eq!(client.get("/cart/1").status, 403);
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}");

    // A bad one changes nothing.
    let refused = daemon.apply(&denying.replace("to: cart }", "to: crat }"), true);
    assert_eq!(refused.outcome(), pb::Outcome::Refused, "{refused:?}");
    assert!(refused.findings[0].contains("did you mean `cart`?"), "{refused:?}");
    assert_eq!(client.get("/cart/1").status, 403);

    let back = pb::RollbackRequest { version: 1, wait: true, force: false };
    let last = daemon.operator(async |mut client| {
        let mut stream = client.rollback(back).await.unwrap().into_inner();
        let mut last = pb::Progress::default();
        while let Some(progress) = stream.message().await.unwrap() {
            last = progress;
        }
        last
    });
    assert_eq!((last.outcome(), last.version), (pb::Outcome::Applied, 3), "{last:?}");
    assert_eq!(client.get("/cart/1").status, 200);

    let status = daemon.status();
    let told: Vec<_> = status
        .proxies
        .iter()
        .map(|proxy| {
            let applied = proxy.applied.as_ref().map(|applied| applied.version.as_str());
            (proxy.group.as_str(), proxy.connected, proxy.ready, applied)
        })
        .collect();
    assert_eq!(told, [("cart", true, true, Some("3")), ("edge", true, true, Some("3"))]);
}

#[test]
fn a_secret_brings_its_listener_to_life_and_a_new_one_takes_its_place() {
    let (daemon, ports) = (Daemon::start(), Ports::new());
    let origin = Origin::text("cart");
    daemon.push(&document_with_secret(&ports, &origin));
    let (_cart, _edge) = (daemon.join("cart"), daemon.join("edge"));
    arrives(&ports);
    // People are told what it waits for.
    eventually("the listener is known to wait", || {
        let rejected = daemon.status().proxies.into_iter().flat_map(|proxy| proxy.rejected);
        rejected.into_iter().any(|one| one.name == "secure" && one.reason.contains("secret/shop"))
    });
    assert!(std::net::TcpStream::connect(local(ports.secure)).is_err(), "without its certificate it does not listen");
    let authority = Authority::new("public");
    let put = |issued: &Issued| {
        let (chain, key) = (issued.chain.clone().into_bytes(), issued.key.clone().into_bytes());
        let request = pb::PutSecretRequest { name: "shop".to_owned(), group: "edge".to_owned(), chain, key };
        daemon.operator(async |mut client| client.put_secret(request).await.unwrap());
    };
    let tls = Tls::trusting(&[&authority]);
    // The certificate that it shows, if it serves.
    let shown = || {
        let mut client = tls.try_connect(local(ports.secure), "shop.example.com").ok()?;
        assert_eq!(client.get("/cart/1").status, 200);
        client.met().certificate
    };
    for _ in 0..2 {
        let issued = authority.issue(&Leaf::of(&["shop.example.com"]));
        put(&issued);
        eventually("the listener shows the secret", || shown().as_ref() == Some(&issued.der));
    }
    assert_eq!(ports.edge().get("/cart/1").status, 200);
}

#[test]
fn a_service_that_has_no_proxy_yet_answers_as_soon_as_one_has_joined() {
    let (daemon, ports) = (Daemon::start(), Ports::new());
    let origin = Origin::text("cart");
    daemon.push(&document(&ports, &origin, EDGE));
    let _edge = daemon.join("edge");
    let mut client = ports.edge();
    assert_eq!((client.get("/ping").status, client.get("/cart/1").status), (200, 503));
    let run = daemon.proxy_of("cart");
    let cart = run.start();
    let begun = Instant::now();
    arrives(&ports);
    assert!(begun.elapsed() < Duration::from_secs(1), "endpoints reach others within a second: {:?}", begun.elapsed());
    // One that drains says so, and others know within a second, while it still serves them.
    cart.signal("TERM");
    let begun = Instant::now();
    eventually("the endpoint is gone", || ports.edge().get("/cart/1").status == 503);
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    assert!(std::net::TcpStream::connect(local(ports.cart)).is_ok(), "it is gone because the daemon said so");
}
