//! `ringway explain` says what the proxy does: for the same file and the same requests, the same verdicts.

use crate::gate::{ask, gate, text, written};
use ringway_tests::certificates::Leaf;
use ringway_tests::tls::Tls;
use ringway_tests::{build, check};
use std::path::Path;
use std::process::{Command, Output};

const WEB: &str = "spiffe://shop/ns/web/sa/web";

fn explain(file: &Path, arguments: &[&str]) -> Output {
    Command::new(build()).args(["explain", "-c"]).arg(file).args(arguments).output().expect("ringway runs")
}

/// Its words, which must be there.
pub(crate) fn told(file: &Path, arguments: &[&str]) -> String {
    let output = explain(file, arguments);
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {told}{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    told
}

const ROUTES: &str = "\
    { name: cart, match: { path: /cart/* }, allow: [ { name: of-web, identity: 'spiffe://shop/ns/web/**' }, { name: readers, methods: [GET], headers: { x-reader: { present: true } } } ], \
      rewrite: { path: /basket/* }, to: { app: 90, beta: 10 } }, \
    { name: moved, match: { path: /old/* }, redirect: { path: /cart/*, status: 308 } }, \
    { name: tried, match: { path: /tried }, deny: [ { name: soon, source: [127.0.0.0/8], dry-run: true } ], to: app }, \
    { name: ping, match: { path: /ping }, quota: { name: pings, requests: 100/s, per: source }, respond: { status: 200, body: pong } }";

fn site() -> String {
    let listener = format!(
        "{}, forwarded: {{ trusted-hops: 1 }}, deny: [ {{ name: old-net, source: [192.0.2.0/24] }}, {{ name: deletes, methods: DELETE }} ],",
        crate::gate::TLS
    );
    text(&listener, ROUTES) + "  beta: { endpoints: [$origin] }\n"
}

/// Method, path, identity, source, field.
type Ask = (&'static str, &'static str, Option<&'static str>, Option<&'static str>, Option<&'static str>);

const ASKS: &[Ask] = &[
    ("GET", "/cart/1", Some(WEB), None, None),
    ("GET", "/cart/1", None, None, None),
    ("GET", "/cart", None, None, Some("X-Reader: 1")),
    ("POST", "/cart/1", None, None, Some("X-Reader: 1")),
    ("GET", "/cart/1", Some("spiffe://shop/ns/other"), None, None),
    ("GET", "/cart/1", Some(WEB), Some("192.0.2.7"), None),
    ("GET", "/cart/1", Some(WEB), Some("198.51.100.7"), None),
    ("DELETE", "/cart/1", Some(WEB), None, None),
    ("GET", "//x/../%63art/1", Some(WEB), None, None),
    ("GET", "/cart%2f1", Some(WEB), None, None),
    ("GET", "/old/x", None, None, None),
    ("GET", "/old/x", None, Some("192.0.2.7"), None),
    ("GET", "/tried", None, None, None),
    ("GET", "/ping", None, None, None),
    ("GET", "/nowhere", None, None, None),
];

/// What the first lines say will come of it.
fn verdict(told: &str) -> u16 {
    let head: String = told.lines().take(2).collect::<Vec<_>>().join("\n");
    let statuses =
        [("denied, 403", 403), ("refused, 400", 400), ("404", 404), ("308", 308), ("forward to", 200), ("200", 200)];
    statuses.iter().find(|(words, _)| head.contains(words)).unwrap_or_else(|| panic!("no verdict: {told}")).1
}

#[test]
fn it_says_what_the_proxy_does() {
    let gate = gate(&site());
    for (method, path, identity, source, field) in ASKS {
        let url = format!("https://a.test:{}{path}", gate.proxy.port("web"));
        let mut arguments = vec![*method, url.as_str()];
        identity.iter().for_each(|identity| arguments.extend(["--identity", identity]));
        arguments.extend(["--source", source.unwrap_or("127.0.0.1")]);
        field.iter().for_each(|field| arguments.extend(["--header", field]));
        let told = told(&gate.proxy.file(), &arguments);
        let mut request = format!("{method} {path} ");
        request += &field.map(|field| format!("{field}|")).unwrap_or_default();
        request += &format!("X-Forwarded-For: {}", source.unwrap_or("127.0.0.1"));
        let status = ask(&mut gate.tls("web", *identity), &request).status;
        assert_eq!(verdict(&told), status, "{}\n{told}", written(&request));
    }
}

#[test]
fn every_rule_and_whether_it_holds_is_printed() {
    let gate = gate(&site());
    let url = format!("https://a.test:{}/cart/1", gate.proxy.port("web"));
    let told = told(&gate.proxy.file(), &["GET", &url, "--identity", WEB, "--source", "10.0.0.1"]);
    for word in [
        "web",
        "cart",
        "old-net",
        "deletes",
        "of-web",
        "readers",
        "app",
        "beta",
        "/basket/1",
        &gate.origin.address().to_string(),
    ] {
        assert!(told.contains(word), "{word} is not in\n{told}");
    }
    let line = |rule: &str| told.lines().find(|line| line.contains(rule)).unwrap_or_else(|| panic!("{rule}: {told}"));
    // One that holds does not look like one that does not, and the word that fails is named.
    assert!(line("old-net").contains("source"), "{told}");
    assert!(line("deletes").contains("method"), "{told}");
    assert!(line("readers").contains("headers"), "{told}");
    assert_ne!(line("of-web").replace("of-web", ""), line("readers").replace("readers", ""));
    // Nothing was sent.
    assert_eq!(gate.origin.connections(), 0);
}

#[test]
fn dry_runs_quotas_and_redirects_are_printed_too() {
    let gate = gate(&site());
    let url = |path: &str| format!("https://a.test:{}{path}", gate.proxy.port("web"));
    let tried = told(&gate.proxy.file(), &["GET", &url("/tried"), "--source", "127.0.0.1"]);
    assert!(tried.contains("soon") && tried.to_lowercase().contains("dry"), "{tried}");
    let ping = told(&gate.proxy.file(), &["GET", &url("/ping")]);
    assert!(ping.contains("quota pings of route ping: 100/s, burst 100, per source"), "{ping}");
    let moved = told(&gate.proxy.file(), &["GET", &url("/old/x?y=z")]);
    assert!(moved.contains("308"), "{moved}");
}

#[test]
fn it_says_what_a_handshake_makes_of_an_identity() {
    let listener =
        |clients: &str| format!("tls: {{ certificates: [ {{ certificate: own.pem, key: own.key }} ], {clients} }},");
    let routes = "{ match: { path: /a }, to: app }";
    for (clients, identity, taken) in [
        ("clients: none", Some(WEB), true),
        ("clients: optional, trust: { roots: [ca.pem], domains: [shop] }", None, true),
        ("clients: optional, trust: { roots: [ca.pem], domains: [bank, store] }", Some(WEB), false),
        ("clients: required, trust: ca.pem", None, false),
        ("clients: required, trust: ca.pem", Some(WEB), true),
        ("clients: required, trust: ca.pem, expect: 'spiffe://shop/ns/web/**'", Some(WEB), true),
        ("clients: required, trust: ca.pem, expect: 'spiffe://shop/ns/cart/**'", Some(WEB), false),
        ("clients: migrate, trust: { roots: [ca.pem], domains: [bank] }", Some(WEB), false),
    ] {
        let gate = gate(&text(&listener(clients), routes));
        let url = format!("https://a.test:{}/a", gate.proxy.port("web"));
        let mut arguments = vec!["GET", url.as_str()];
        identity.iter().for_each(|identity| arguments.extend(["--identity", identity]));
        let told = told(&gate.proxy.file(), &arguments);
        let tls = Tls::trusting(&[&gate.authority]);
        let tls = identity.iter().fold(tls, |tls, uri| tls.with(&gate.authority.issue(&Leaf::of(&[uri]))));
        if taken {
            let mut client = tls.connect(gate.proxy.address("web"), "a.test");
            assert_eq!(ask(&mut client, "GET /a").status, 200, "{clients}");
            assert!(told.starts_with("listener web, route "), "{clients}: {told}");
        } else {
            tls.refused(gate.proxy.address("web"), "a.test");
            let detail = gate.proxy.logged_ending("handshake_failed")["detail"].as_str().unwrap_or_default().to_owned();
            let first = told.lines().next().unwrap_or_default();
            assert!(first.starts_with("listener web: TLS handshake refused: "), "{clients}: {told}");
            assert!(first.ends_with(&format!("({detail})")), "{clients}: {detail}, {told}");
        }
    }
}

#[test]
fn it_says_what_becomes_of_a_tcp_connection() {
    let rules = "deny: [ { name: old-net, source: [192.0.2.0/24] } ], allow: [ { name: of-web, identity: 'spiffe://shop/ns/web/**', peer: [127.0.0.0/8] } ],";
    let gate = gate(&format!(
        "listeners:\n  web: {{ address: '127.0.0.1:$web', protocol: tcp, {}, {rules} to: app }}\n\
         services:\n  app: {{ endpoints: [$origin] }}\n",
        crate::gate::TLS
    ));
    let url = format!("https://127.0.0.1:{}", gate.proxy.port("web"));
    for (identity, passes) in [(Some(WEB), true), (Some("spiffe://shop/ns/cart/sa/cart"), false), (None, false)] {
        let mut arguments = vec!["GET", url.as_str(), "--source", "127.0.0.1"];
        identity.iter().for_each(|identity| arguments.extend(["--identity", identity]));
        let told = told(&gate.proxy.file(), &arguments);
        let mut client = gate.tls("web", identity);
        let asked = client.try_send("GET /a HTTP/1.1\r\nHost: a.test\r\n\r\n").and_then(|()| client.try_answer("GET"));
        assert_eq!(asked.is_ok_and(|answer| answer.status == 200), passes, "{identity:?}");
        let verdict = if passes { "listener web: forward to app" } else { "listener web: denied, closed" };
        assert!(told.starts_with(verdict), "{identity:?}: {told}");
        assert!(told.contains("  old-net: does not hold: source"), "{told}");
    }
    let told = told(&gate.proxy.file(), &["GET", &url, "--identity", WEB, "--source", "192.0.2.1"]);
    assert!(told.contains("  old-net: holds") && told.contains("  of-web: does not hold: peer"), "{told}");
}

#[test]
fn it_needs_no_proxy_and_takes_no_port() {
    let folder = tempfile::TempDir::new().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let file = folder.path().join("ringway.yaml");
    let text = format!(
        "listeners:\n  web: {{ address: '{}', deny: [ {{ name: all, source: ['0.0.0.0/0', '::/0'] }} ], routes: [ {{ to: app }} ] }}\nservices:\n  app: {{ endpoints: [no-such-name.invalid:80] }}\n",
        taken.local_addr().unwrap()
    );
    assert!(check(&text).status.success());
    std::fs::write(&file, text).unwrap();
    let told = told(&file, &["GET", "http://any.test/", "--source", "198.51.100.1"]);
    assert!(told.contains("denied, 403") && told.contains("all"), "{told}");
}
