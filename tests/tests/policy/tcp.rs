//! Rules on TCP: identity and addresses, once a connection; under a new plan they are asked again.

use crate::gate::{TLS, gate};
use ringway_tests::{Client, Origin, Proxy, check, eventually};

const WEB: &str = "spiffe://shop/ns/web/sa/web";

fn text(listener: &str) -> String {
    format!(
        "listeners:\n  web: {{ address: '127.0.0.1:$web', protocol: tcp, {listener} to: app }}\nservices:\n  app: {{ endpoints: [$origin] }}\n"
    )
}

fn bytes(rules: &str, origin: &Origin) -> Proxy {
    Proxy::start(&text(rules).replace("$origin", &origin.address().to_string()))
}

fn echo() -> Origin {
    Origin::new(|conversation| {
        while let Some(bytes) = conversation.some() {
            conversation.send(bytes);
        }
    })
}

/// Whether bytes come back. One who is refused may see a reset at any step.
fn passes(proxy: &Proxy) -> bool {
    let Ok(mut client) = Client::try_to(proxy.address("web")) else { return false };
    client.try_send("x").is_ok() && client.try_read(1).is_ok_and(|byte| byte == b"x")
}

#[test]
fn addresses_decide() {
    let origin = echo();
    for (rules, passed) in [
        ("", true),
        ("deny: [ { name: all, source: ['0.0.0.0/0', '::/0'] } ],", false),
        ("deny: [ { name: r, source: [127.0.0.0/8] } ],", false),
        ("deny: [ { name: r, peer: [127.0.0.1/32] } ],", false),
        ("deny: [ { name: r, source: [10.0.0.0/8] } ],", true),
        ("allow: [ { name: r, source: [127.0.0.0/8] } ],", true),
        ("allow: [ { name: r, peer: [127.0.0.0/8] } ],", true),
        ("allow: [ { name: r, source: [10.0.0.0/8] } ],", false),
        ("allow: [ { name: r, source: [127.0.0.0/8] } ], deny: [ { name: d, peer: [127.0.0.1/32] } ],", false),
        ("deny: [ { name: r, source: [127.0.0.0/8], dry-run: true } ],", true),
        ("allow: [ { name: r, source: [10.0.0.0/8], dry-run: true } ],", true),
    ] {
        let proxy = bytes(rules, &origin);
        let before = origin.connections();
        assert_eq!(passes(&proxy), passed, "{rules}");
        assert_eq!(origin.connections() > before, passed, "{rules}");
        if !passed {
            let line = proxy.logged_ending("denied");
            assert_eq!(line["service"].as_str().unwrap_or_default(), "", "{line}");
        }
    }
}

#[test]
fn identities_decide() {
    let gate = gate(&text(&format!("{TLS}, allow: [ {{ name: web, identity: '{WEB}' }} ],")));
    // Its origin speaks HTTP; that is nothing to a tcp listener.
    for (identity, passed) in [(Some(WEB), true), (Some("spiffe://shop/ns/other"), false), (None, false)] {
        let mut client = gate.tls("web", identity);
        let _taken = client.try_send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(client.try_answer("GET").is_ok_and(|answer| answer.status == 200), passed, "{identity:?}");
    }
    assert_eq!(gate.origin.count(), 1);
    eventually("both are counted", || gate.refused("", "allow", "enforced") == 2.0);
    let line = gate.proxy.logged_ending("denied");
    assert_eq!(line["source_identity"], "spiffe://shop/ns/other", "{line}");
}

#[test]
fn words_of_requests_are_errors_there() {
    for word in ["methods: [GET]", "path: /x", "hosts: [a.test]", "headers: { x: y }"] {
        for list in ["allow", "deny"] {
            let text = text(&format!("{list}: [ {{ name: r, {word} }} ],"))
                .replace("$origin", "127.0.0.1:9")
                .replace("$web", "9");
            let output = check(&text);
            let told = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(1), "{word}: {told}");
            assert!(told.contains(word.split(':').next().unwrap()) && told.contains(":2:"), "{word}: {told}");
        }
    }
}

#[test]
fn an_open_tunnel_is_asked_again_under_a_new_plan() {
    let origin = echo();
    let at = origin.address().to_string();
    let mut proxy = bytes("", &origin);
    let mut client = Client::to(proxy.address("web"));
    client.send("a");
    assert_eq!(client.read(1), b"a");
    proxy.rewrite(&text("deny: [ { name: other, source: [10.0.0.0/8] } ],").replace("$origin", &at));
    proxy.signal("HUP");
    eventually("the plan is in force", || proxy.metrics().sum("ringway_plan_generation", &[]) == 2.0);
    client.send("b");
    assert_eq!(client.read(1), b"b");
    proxy.rewrite(&text("deny: [ { name: here, source: [127.0.0.0/8] } ],").replace("$origin", &at));
    proxy.signal("HUP");
    assert!(client.is_closed(), "a tunnel whose permit is withdrawn ends");
}
