//! Listener deny, listener allow, route deny, route allow; what a route overrides; what `dry-run` does and does not.

use crate::gate::{ask, gate, text};

/// A rule that holds where the request has a field of this name.
fn rule(name: &str) -> String {
    format!("{{ name: {name}, headers: {{ x-{name}: {{ present: true }} }} }}")
}

#[test]
fn each_of_the_four_lists_is_asked() {
    // Every subset of rules that hold: let in if nothing denies and both allows hold.
    let listener = format!("deny: [ {} ], allow: [ {} ],", rule("ld"), rule("la"));
    let route = format!("{{ name: all, deny: [ {} ], allow: [ {} ], to: app }}", rule("rd"), rule("ra"));
    let gate = gate(&text(&listener, &route));
    for set in 0..16_u32 {
        let names = ["ld", "la", "rd", "ra"];
        let held: Vec<&str> =
            names.iter().enumerate().filter(|(n, _)| set >> n & 1 == 1).map(|(_, name)| *name).collect();
        let fields: Vec<String> = held.iter().map(|name| format!("X-{name}: 1")).collect();
        let path = format!("/{set}");
        let status = gate.status(&format!("GET {path} {}", fields.join("|")));
        let has = |name: &str| held.contains(&name);
        let expected = if !has("ld") && has("la") && !has("rd") && has("ra") { 200 } else { 403 };
        assert_eq!(status, expected, "{held:?}");
        // And the first that decides is told.
        let decided = match () {
            () if has("ld") => Some("ld"),
            () if !has("la") => None,
            () if has("rd") => Some("rd"),
            () if !has("ra") => None,
            () => Some("ra"),
        };
        let line = gate.proxy.logged(&path);
        assert_eq!(line["rule"].as_str().filter(|rule| !rule.is_empty()), decided, "{held:?}: {line}");
        assert_eq!(line["ending"], if expected == 200 { "complete" } else { "denied" }, "{line}");
    }
    assert_eq!((gate.refused("ld", "deny", "enforced"), gate.refused("rd", "deny", "enforced")), (8.0, 2.0));
    // Nobody held: the list's own.
    let nobody = |route: &str| {
        let labels = [("rule", ""), ("list", "allow"), ("mode", "enforced"), ("route", route)];
        gate.proxy.metrics().total("ringway_policy_refused_total", &labels)
    };
    assert_eq!((nobody(""), nobody("all")), (4.0, 1.0));
    assert_eq!(gate.origin.count(), 1);
}

#[test]
fn a_route_overrides_only_its_own_two_lists() {
    // Another route's lists mean nothing here, and the listener's hold everywhere.
    let routes = format!(
        "{{ name: closed, match: {{ path: /closed }}, deny: [ {{ name: all, source: ['0.0.0.0/0', '::/0'] }} ], to: app }}, \
         {{ name: keyed, match: {{ path: /keyed }}, allow: [ {} ], to: app }}, {{ name: open, to: app }}",
        rule("key")
    );
    let gate = gate(&text(&format!("deny: [ {} ],", rule("bad")), &routes));
    for (request, status) in [
        ("GET /open", 200),
        ("GET /open X-Bad: 1", 403),
        ("GET /closed", 403),
        ("GET /closed X-Key: 1", 403),
        ("GET /keyed", 403),
        ("GET /keyed X-Key: 1", 200),
        ("GET /keyed X-Key: 1|X-Bad: 1", 403),
    ] {
        assert_eq!(gate.status(request), status, "{request}");
    }
    // A route's allow does not let in whom the listener's does not.
    let gate = crate::gate::gate(&text(&format!("allow: [ {} ],", rule("in")), &routes));
    for (request, status) in [
        ("GET /open", 403),
        ("GET /open X-In: 1", 200),
        ("GET /keyed X-Key: 1", 403),
        ("GET /keyed X-Key: 1|X-In: 1", 200),
        ("GET /keyed X-In: 1", 403),
    ] {
        assert_eq!(gate.status(request), status, "{request}");
    }
}

#[test]
fn without_rules_everybody_is_let_in_and_an_allow_keeps_the_rest_out() {
    let open = gate(&text("", "{ to: app }"));
    assert_eq!(open.status("GET /"), 200);
    let closed = gate(&text("allow: [ { name: nobody, source: [192.0.2.0/24] } ],", "{ to: app }"));
    assert_eq!(closed.status("GET /"), 403);
    let answer = ask(&mut closed.proxy.client(), "GET /");
    // Nothing is said about which rule it was.
    assert!(!answer.text().contains("nobody"), "{}", answer.text());
    // The connection is kept: a refusal is an answer as any other.
    let mut client = closed.proxy.client();
    for _ in 0..3 {
        assert_eq!(ask(&mut client, "GET /").status, 403);
    }
    // With a body under way too.
    client.send("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\n\r\nhello");
    assert_eq!(client.answer().status, 403);
    assert_eq!(closed.origin.count(), 0);
}

#[test]
fn dry_runs_only_count_and_log() {
    let listener = "deny: [ { name: tried, headers: { x-bad: { present: true } }, dry-run: true } ], \
                    allow: [ { name: planned, headers: { x-good: { present: true } }, dry-run: true } ],";
    let gate = gate(&text(listener, "{ name: all, deny: [ { name: firm, path: /firm } ], to: app }"));
    for (request, path, status, would) in [
        ("GET /1 X-Good: 1", "/1", 200, None),
        ("GET /2 X-Good: 1|X-Bad: 1", "/2", 200, Some("tried")),
        ("GET /3", "/3", 200, Some("")),
        ("GET /firm X-Good: 1|X-Bad: 1", "/firm", 403, Some("tried")),
    ] {
        assert_eq!(gate.status(request), status, "{request}");
        let line = gate.proxy.logged(path);
        match would {
            Some("") => {}
            would => assert_eq!(line["dry_run"].as_str(), would, "{request}: {line}"),
        }
        assert_eq!(line["rule"].as_str() == Some("firm"), status == 403, "{line}");
    }
    assert_eq!(gate.refused("tried", "deny", "dry-run"), 2.0);
    assert_eq!(gate.refused("tried", "deny", "enforced"), 0.0);
    // Whom no entry of the list names would have been refused: counted for the list, and told.
    assert_eq!(gate.refused("", "allow", "dry-run"), 1.0);
    assert!(gate.proxy.logged("/3")["dry_run"].is_string(), "{}", gate.proxy.logged("/3"));
    assert_eq!(gate.refused("firm", "deny", "enforced"), 1.0);
}

#[test]
fn a_dry_run_beside_enforced_rules_changes_nothing() {
    let listener = "allow: [ { name: in, headers: { x-in: { present: true } } }, { name: tried, headers: { x-tried: { present: true } }, dry-run: true } ],";
    let gate = gate(&text(listener, "{ to: app }"));
    for (request, status) in
        [("GET / X-In: 1", 200), ("GET / X-Tried: 1", 403), ("GET /", 403), ("GET / X-In: 1|X-Tried: 1", 200)]
    {
        assert_eq!(gate.status(request), status, "{request}");
    }
    let gate = crate::gate::gate(&text(
        "deny: [ { name: out, headers: { x-out: { present: true } } }, { name: tried, headers: { x-tried: { present: true } }, dry-run: true } ],",
        "{ to: app }",
    ));
    for (request, status) in [("GET / X-Out: 1", 403), ("GET / X-Tried: 1", 200), ("GET / X-Out: 1|X-Tried: 1", 403)] {
        assert_eq!(gate.status(request), status, "{request}");
    }
}
