//! TLS, identities and policy with real processes: two proxies with an mTLS hop between them, and curl before them.

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, SanType,
};
use ringway_tests::{Origin, Proxy, Run, eventually, peers};
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

/// An authority whose certificates lie in a folder: `ca.pem`, and `NAME.pem` with `NAME.key`.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: tempfile::TempDir,
}

impl Authority {
    fn new(names: &[(&str, &str)]) -> Authority {
        let mut params = CertificateParams::new(vec![]).unwrap();
        // A name of its own: a leaf of the same name would look self-signed.
        params.distinguished_name.push(DnType::CommonName, "mesh");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let authority = Authority { issuer, folder: tempfile::tempdir().unwrap() };
        fs::write(authority.path().join("ca.pem"), authority.issuer.pem()).unwrap();
        for (name, uri) in names {
            authority.issue(name, uri);
        }
        authority
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// A certificate for localhost and this identity; both files take their places at once.
    fn issue(&self, name: &str, uri: &str) {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.subject_alt_names.push(SanType::URI(uri.try_into().unwrap()));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        let chain = params.signed_by(&key, &self.issuer).unwrap().pem();
        for (ending, text) in [("key", key.serialize_pem()), ("pem", chain)] {
            let fresh = self.path().join(format!("{name}.{ending}.new"));
            fs::write(&fresh, text).unwrap();
            fs::rename(fresh, self.path().join(format!("{name}.{ending}"))).unwrap();
        }
    }

    fn identity(&self, name: &str) -> String {
        let at = self.path().display();
        format!(
            "identity: {{ certificate: {at}/{name}.pem, key: {at}/{name}.key, trust: {{ roots: [{at}/ca.pem], domains: [shop] }} }}\n"
        )
    }

    /// curl over TLS to a proxy's listener `web`.
    fn curl(&self, proxy: &Proxy, arguments: &[&str], path: &str) -> Output {
        let url = format!("https://localhost:{}{path}", proxy.port("web"));
        let mut curl = Command::new("curl");
        curl.args(["-sS", "--max-time", "10", "--cacert"]).arg(self.path().join("ca.pem"));
        curl.args(arguments).arg(url).current_dir(self.path()).output().unwrap()
    }

    fn status(&self, proxy: &Proxy, arguments: &[&str], path: &str) -> String {
        let arguments = [&["-o", "/dev/null", "-w", "%{http_code}"], arguments].concat();
        String::from_utf8_lossy(&self.curl(proxy, &arguments, path).stdout).into_owned()
    }
}

const CART: &str = "spiffe://shop/ns/cart/sa/cart";
const EDGE: &str = "spiffe://shop/ns/edge/sa/edge";
const WEB: &str = "spiffe://shop/ns/web/sa/web";

/// An origin, its sidecar, and an edge that speaks mTLS with it.
fn mesh(edge_more: &str) -> (Authority, Origin, Proxy, Proxy) {
    let authority =
        Authority::new(&[("cart", CART), ("edge", EDGE), ("web", WEB), ("other", "spiffe://shop/ns/other")]);
    let origin = Origin::echo();
    let cart = Proxy::start(&format!(
        "{}listeners:\n  in:\n    address: 127.0.0.1:$in\n    tls: {{ certificates: identity }}\n    \
         allow: [ {{ name: edge, identity: 'spiffe://shop/ns/edge/**' }} ]\n    forwarded: {{ client-certificate: true }}\n    routes: [ {{ name: all, to: app }} ]\n\
         services:\n  app: {{ endpoints: [{}] }}\n",
        authority.identity("cart"),
        origin.address(),
    ));
    let at = authority.path().display();
    let edge = Proxy::start(&format!(
        "{}listeners:\n  web:\n    address: 127.0.0.1:$web\n    \
         tls: {{ certificates: [ {{ certificate: {at}/edge.pem, key: {at}/edge.key }} ], clients: optional, trust: {at}/ca.pem }}\n    \
         forwarded: {{ client-certificate: true }}\n    routes:\n{edge_more}      - {{ name: all, to: cart }}\n\
         services:\n  cart: {{ endpoints: ['127.0.0.1:{}'], tls: {{ expect: '{CART}' }} }}\n",
        authority.identity("edge"),
        cart.port("in"),
    ));
    (authority, origin, cart, edge)
}

#[test]
fn every_hop_is_tls_and_everybody_knows_who_is_there() {
    let Some(_) = peers::find("curl", "tls::every_hop_is_tls") else { return };
    let (authority, origin, cart, edge) = mesh("");
    for version in [&["--tlsv1.3"][..], &["--tlsv1.2", "--tls-max", "1.2"]] {
        let output = authority.curl(&edge, &[version, &["--cert", "web.pem", "--key", "web.key"]].concat(), "/a");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let told = origin.seen().pop().unwrap();
        let certificate = told.head.field("x-forwarded-client-cert").unwrap_or_default().to_owned();
        assert!(certificate.ends_with(&format!(";URI={EDGE}")) && certificate.starts_with(&format!("By={CART};Hash=")));
    }
    // What comes from outside under that name goes no further.
    authority.curl(&edge, &["-H", "X-Forwarded-Client-Cert: URI=spiffe://shop/ns/root"], "/b");
    let told = origin.seen().pop().unwrap().head.field("x-forwarded-client-cert").unwrap_or_default().to_owned();
    assert!(!told.contains("root"), "{told}");
    let line = edge.logged("/a");
    assert_eq!((&line["source_identity"], &line["destination_identity"]), (&WEB.into(), &CART.into()));
    assert_eq!(cart.logged("/a")["source_identity"], EDGE);
    let metrics = edge.metrics();
    assert!(metrics.sum("ringway_identity_requests_total", &[("source", WEB), ("service", "cart")]) >= 2.0);
    assert!(metrics.sum("ringway_tls_handshakes_total", &[("side", "upstream")]) >= 1.0);
}

#[test]
fn megabytes_pass_both_ways_and_ends_are_clean() {
    let Some(_) = peers::find("curl", "tls::megabytes_pass") else { return };
    let authority = Authority::new(&[("cart", CART), ("edge", EDGE)]);
    let origin = Origin::answering(|seen| ringway_tests::respond(200, "", &seen.body));
    let at = authority.path().display();
    let proxy = Proxy::start(&format!(
        "listeners:\n  web:\n    address: 127.0.0.1:$web\n    \
         tls: {{ certificates: [ {{ certificate: {at}/edge.pem, key: {at}/edge.key }} ] }}\n    \
         routes: [ {{ name: all, to: app }} ]\nservices:\n  app: {{ endpoints: [{}] }}\n",
        origin.address()
    ));
    let body: Vec<u8> = (0..5 << 20).map(|n: u32| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    fs::write(authority.path().join("body"), &body).unwrap();
    for more in [&[][..], &["-H", "Transfer-Encoding: chunked"], &["--tls-max", "1.2"], &["--http1.0"]] {
        let output = authority.curl(&proxy, &[more, &["-H", "Expect:", "--data-binary", "@body"]].concat(), "/up");
        assert!(output.status.success(), "{more:?}: {}", String::from_utf8_lossy(&output.stderr));
        assert!(output.stdout == body, "{more:?}: {} bytes", output.stdout.len());
    }
}

#[test]
fn rules_say_who_may_do_what() {
    let Some(_) = peers::find("curl", "tls::rules_say") else { return };
    let (authority, _origin, _cart, edge) = mesh(
        "      - { name: admin, match: { path: /admin/* }, allow: [ { name: web, identity: 'spiffe://shop/ns/web/**' } ], to: cart }\n\
         \x20     - { name: tried, match: { path: /tried }, deny: [ { name: all, source: [0.0.0.0/0], dry-run: true } ], to: cart }\n\
         \x20     - { name: fixed, match: { path: /fixed }, deny: [ { name: posts, methods: [POST] } ], respond: { status: 200 } }\n",
    );
    let web = ["--cert", "web.pem", "--key", "web.key"];
    let other = ["--cert", "other.pem", "--key", "other.key"];
    assert_eq!(authority.status(&edge, &web, "/admin/x"), "200");
    assert_eq!(authority.status(&edge, &other, "/admin/x"), "403");
    assert_eq!(authority.status(&edge, &[], "/admin/x"), "403");
    for trick in ["//admin/x", "/./admin/x", "/y/../admin/x", "/%61dmin/x", "/admin//x"] {
        assert_eq!(authority.status(&edge, &["--path-as-is"], trick), "403", "{trick}");
    }
    assert_eq!(authority.status(&edge, &[], "/tried"), "200");
    assert_eq!(authority.status(&edge, &[], "/fixed"), "200");
    assert_eq!(authority.status(&edge, &["-d", "x"], "/fixed"), "403", "a fixed answer needs a permit too");
    assert_eq!(edge.logged("/tried")["dry_run"], "all");
    let refused =
        |rule: &str, mode: &str| edge.metrics().sum("ringway_policy_refused_total", &[("rule", rule), ("mode", mode)]);
    assert_eq!((refused("posts", "enforced"), refused("all", "dry-run")), (1.0, 1.0));
}

#[test]
fn handshakes_that_fail_are_counted_by_reason() {
    let Some(_) = peers::find("curl", "tls::handshakes_that_fail") else { return };
    let (authority, _origin, cart, edge) = mesh("");
    let strangers = Authority::new(&[("web", WEB)]);
    let cert = strangers.path().join("web.pem").display().to_string();
    let key = strangers.path().join("web.key").display().to_string();
    assert!(!authority.curl(&edge, &["--cert", &cert, "--key", &key], "/").status.success());
    let mut plain = ringway_tests::Client::to(edge.address("web"));
    plain.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let failures = |proxy: &Proxy, reason| {
        proxy.metrics().sum("ringway_tls_handshake_failures_total", &[("side", "downstream"), ("reason", reason)])
    };
    eventually("both are counted", || failures(&edge, "unknown_issuer") == 1.0 && failures(&edge, "not_tls") == 1.0);
    let mut bare = Command::new("curl");
    let url = format!("https://localhost:{}/", cart.port("in"));
    bare.args(["-sS", "--max-time", "10", "--cacert"]).arg(authority.path().join("ca.pem")).arg(url);
    assert!(!bare.output().unwrap().status.success());
    eventually("it is counted", || failures(&cart, "no_certificate") == 1.0);
}

#[test]
fn another_identity_than_expected_is_no_endpoint() {
    let Some(_) = peers::find("curl", "tls::another_identity") else { return };
    let (authority, origin, cart, _) = mesh("");
    let edge = Proxy::start(&format!(
        "{}listeners:\n  web: {{ address: '127.0.0.1:$web', tls: {{ clients: none }}, routes: [ {{ name: all, to: pay }} ] }}\n\
         services:\n  pay: {{ endpoints: ['127.0.0.1:{}'], tls: {{ expect: 'spiffe://shop/ns/pay/**' }} }}\n",
        authority.identity("edge"),
        cart.port("in"),
    ));
    assert_eq!(authority.status(&edge, &[], "/x"), "503");
    assert_eq!(
        (edge.logged("/x")["ending"].as_str(), edge.logged("/x")["detail"].as_str()),
        (Some("upstream_tls"), Some("wrong_identity"))
    );
    assert_eq!(origin.count(), 0);
}

#[test]
fn certificates_are_replaced_under_load_and_bad_ones_refused() {
    let Some(_) = peers::find("curl", "tls::certificates_are_replaced") else { return };
    let (authority, _origin, cart, edge) = mesh("");
    let applied = |proxy: &Proxy| proxy.metrics().sum("ringway_certificate_reloads_total", &[("result", "applied")]);
    for round in 1..=3 {
        authority.issue("edge", EDGE);
        authority.issue("cart", CART);
        eventually("both take the new certificates", || {
            assert_eq!(authority.status(&edge, &[], "/load"), "200");
            applied(&edge) >= f64::from(round) && applied(&cart) >= f64::from(round)
        });
    }
    fs::write(authority.path().join("edge.pem"), "-----BEGIN CERTIFICATE-----\nAAAA").unwrap();
    edge.printed("certificates refused, those in force stay");
    assert_eq!(authority.status(&edge, &[], "/still"), "200");
    let days = edge.metrics().sum("ringway_certificate_expiry_days", &[("kind", "own")]);
    assert!(days > 1.0, "{days}");
}

#[test]
fn plaintext_is_taken_too_while_a_fleet_migrates() {
    let Some(_) = peers::find("curl", "tls::plaintext_is_taken") else { return };
    let authority = Authority::new(&[("cart", CART), ("web", WEB)]);
    let origin = Origin::text("here");
    let proxy = Proxy::start(&format!(
        "{}listeners:\n  web: {{ address: '127.0.0.1:$web', tls: {{ clients: migrate }}, routes: [ {{ name: all, to: app }} ] }}\n\
         services:\n  app: {{ endpoints: [{}] }}\n",
        authority.identity("cart"),
        origin.address(),
    ));
    assert_eq!(authority.status(&proxy, &["--cert", "web.pem", "--key", "web.key"], "/"), "200");
    assert_eq!(authority.status(&proxy, &[], "/"), "000", "TLS without a certificate");
    let mut plain = ringway_tests::Client::to(proxy.address("web"));
    plain.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(plain.answer().status, 200);
    assert_eq!(proxy.metrics().sum("ringway_plaintext_connections_total", &[]), 1.0);
}

#[test]
fn bytes_pass_over_tls_by_identity() {
    let Some(_) = peers::find("curl", "tls::bytes_pass") else { return };
    let authority = Authority::new(&[("cart", CART), ("web", WEB), ("other", "spiffe://shop/ns/other")]);
    let origin = Origin::text("here");
    let proxy = Proxy::start(&format!(
        "{}listeners:\n  web: {{ address: '127.0.0.1:$web', protocol: tcp, tls: {{}}, allow: [ {{ name: web, identity: '{WEB}' }} ], to: app }}\n\
         services:\n  app: {{ endpoints: [{}] }}\n",
        authority.identity("cart"),
        origin.address(),
    ));
    assert_eq!(authority.status(&proxy, &["--cert", "web.pem", "--key", "web.key"], "/"), "200");
    assert_eq!(authority.status(&proxy, &["--cert", "other.pem", "--key", "other.key"], "/"), "000");
    proxy.logged_ending("denied");
}

#[test]
fn what_cannot_be_used_is_found_by_check() {
    let authority = Authority::new(&[("cart", CART), ("web", WEB)]);
    fs::copy(authority.path().join("web.key"), authority.path().join("cart.key")).unwrap();
    let text = format!(
        "{}listeners:\n  web: {{ address: '127.0.0.1:$web', tls: {{}}, routes: [ {{ name: all, respond: {{ status: 200 }} }} ] }}\n",
        authority.identity("cart"),
    );
    let output = Run::new(&text).fail();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(told.contains("the key does not belong to the certificate"), "{told}");
}
