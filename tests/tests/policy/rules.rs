//! The words of a rule, each in `allow` and in `deny`, of a listener and of a route: what one lets in, the other keeps out.

use crate::gate::{Gate, TLS, ask, gate, text};

const WEB: &str = "spiffe://shop/ns/web/sa/web";

/// Four listeners with the same rules in four places.
fn four(rules: &str) -> Gate {
    let all = "{ name: all, to: app }";
    let place = |name: &str, of_listener: &str, routes: &str| {
        format!("  {name}: {{ address: '127.0.0.1:${name}', {TLS}, {of_listener} routes: [ {routes} ] }}\n")
    };
    let text = [
        "listeners:\n".to_owned(),
        place("la", &format!("allow: [ {rules} ],"), all),
        place("ld", &format!("deny: [ {rules} ],"), all),
        place("ra", "", &format!("{{ name: all, allow: [ {rules} ], to: app }}")),
        place("rd", "", &format!("{{ name: all, deny: [ {rules} ], to: app }}")),
        "services:\n  app: { endpoints: [$origin] }\n".to_owned(),
    ];
    gate(&text.concat())
}

/// Each request, whether the rules hold of it; of this identity.
fn holds(rules: &str, cases: &[(&str, Option<&str>, bool)]) {
    let gate = four(rules);
    for (request, identity, holds) in cases {
        for (listener, allows) in [("la", true), ("ld", false), ("ra", true), ("rd", false)] {
            let before = gate.origin.count();
            let answer = ask(&mut gate.tls(listener, *identity), request);
            let expected = if *holds == allows { 200 } else { 403 };
            assert_eq!(answer.status, expected, "{rules}, in {listener}: {request} of {identity:?}: {}", answer.text());
            assert_eq!(gate.origin.count() - before, usize::from(expected == 200), "{rules}, in {listener}: {request}");
        }
    }
}

/// The same, where identities do not matter.
fn anybody(rules: &str, cases: &[(&str, bool)]) {
    let cases: Vec<_> = cases.iter().map(|(request, holds)| (*request, None, *holds)).collect();
    holds(rules, &cases);
}

#[test]
fn methods() {
    anybody(
        "{ name: r, methods: [GET, DELETE] }",
        &[("GET /", true), ("DELETE /x", true), ("POST /", false), ("HEAD /", false)],
    );
    anybody(
        "{ name: r, methods: POST }",
        &[("POST /", true), ("GET /", false), ("post /", false), ("POSTER /", false)],
    );
    anybody("{ name: r, methods: [BREW] }", &[("BREW /", true), ("GET /", false)]);
}

#[test]
fn paths() {
    anybody(
        "{ name: r, path: /admin/* }",
        &[
            ("GET /admin", true),
            ("GET /admin/", true),
            ("GET /admin/x/y?q=/z", true),
            ("GET /admin?x", true),
            ("GET /administrator", false),
            ("GET /Admin", false),
            ("GET /x/admin", false),
            ("GET /?/admin/x", false),
        ],
    );
    anybody(
        "{ name: r, path: /one }",
        &[("GET /one", true), ("GET /one?x", true), ("GET /one/", false), ("GET /one/x", false)],
    );
    anybody(
        "{ name: r, path: { regex: '/v[0-9]+/.*' } }",
        &[("GET /v1/x", true), ("GET /v12/", true), ("GET /x/v1/x", false), ("GET /v/x", false), ("GET /v1", false)],
    );
    anybody(
        "{ name: r, path: [/a, /b/*, { regex: '/c+' }] }",
        &[("GET /a", true), ("GET /b/x", true), ("GET /ccc", true), ("GET /d", false)],
    );
    anybody("{ name: r, path: /* }", &[("GET /", true), ("GET /x", true)]);
}

#[test]
fn hosts() {
    anybody(
        "{ name: r, hosts: [a.test, '*.b.test'] }",
        &[
            ("GET / Host: a.test", true),
            ("GET / Host: A.TEST", true),
            ("GET / Host: a.test:8443", true),
            ("GET / Host: a.test.", true),
            ("GET http://a.test/ Host: a.test", true),
            ("GET / Host: x.b.test", true),
            ("GET / Host: x.y.B.test:1", true),
            ("GET / Host: b.test", false),
            ("GET / Host: xa.test", false),
            ("GET / Host: a.test.evil", false),
            ("GET / Host: xb.test", false),
            ("GET / Host: c.test", false),
        ],
    );
    anybody("{ name: r, hosts: '*' }", &[("GET / Host: any.test", true)]);
}

#[test]
fn headers() {
    anybody(
        "{ name: r, headers: { x-key: secret } }",
        &[
            ("GET / X-Key: secret", true),
            ("GET / x-KEY:secret", true),
            ("GET / X-Key:   secret  ", true),
            ("GET / X-Key: Secret", false),
            ("GET / X-Key: secret2", false),
            ("GET / X-Key:", false),
            ("GET / X-Keys: secret", false),
            ("GET /", false),
        ],
    );
    anybody(
        "{ name: r, headers: { x-key: { present: true } } }",
        &[("GET / X-Key: any", true), ("GET / X-Key:", true), ("GET /", false)],
    );
    anybody(
        "{ name: r, headers: { x-key: { present: false } } }",
        &[("GET / X-Key: any", false), ("GET / X-Key:", false), ("GET /", true)],
    );
    anybody(
        "{ name: r, headers: { x-key: { regex: '[a-c]+' }, x-more: '1' } }",
        &[
            ("GET / X-Key: abc|X-More: 1", true),
            ("GET / X-More: 1|X-Key: a", true),
            ("GET / X-Key: abcd|X-More: 1", false),
            ("GET / X-Key: abc", false),
            ("GET / X-More: 1", false),
        ],
    );
}

#[test]
fn of_a_repeated_header_every_value_is_seen() {
    // Who stands behind may read any of the lines: a rule that lets in must hold of all, one that keeps out of one.
    let gate = four("{ name: r, headers: { x-role: admin } }");
    for request in [
        "GET / X-Role: admin|X-Role: guest",
        "GET / X-Role: guest|X-Role: admin",
        "GET / X-Role: guest|x-role: x|X-ROLE: admin",
    ] {
        for listener in ["la", "ld", "ra", "rd"] {
            let answer = ask(&mut gate.tls(listener, None), request);
            assert_eq!(answer.status, 403, "in {listener}: {request}");
        }
    }
    assert_eq!(gate.origin.count(), 0);
}

#[test]
fn addresses() {
    for word in ["source", "peer"] {
        for (networks, holds) in [
            ("[127.0.0.0/8]", true),
            ("127.0.0.1/32", true),
            ("127.0.0.1", true),
            ("[10.0.0.0/8, 127.0.0.1/32]", true),
            ("[0.0.0.0/0]", true),
            ("[10.0.0.0/8]", false),
            ("[127.0.0.2/32]", false),
            ("['::/0']", false),
            ("['::1/128', 192.0.2.0/24]", false),
        ] {
            anybody(&format!("{{ name: r, {word}: {networks} }}"), &[("GET /", holds)]);
        }
    }
}

#[test]
fn identities() {
    holds(
        &format!("{{ name: r, identity: '{WEB}' }}"),
        &[
            ("GET /", Some(WEB), true),
            ("GET /", Some("spiffe://shop/ns/web/sa/web2"), false),
            ("GET /", Some("spiffe://shop/ns/web/sa"), false),
            ("GET /", Some("spiffe://bank/ns/web/sa/web"), false),
            ("GET /", None, false),
        ],
    );
    holds(
        "{ name: r, identity: ['spiffe://shop/ns/*/sa/probe', 'spiffe://shop/ns/web/**'] }",
        &[
            ("GET /", Some("spiffe://shop/ns/any/sa/probe"), true),
            ("GET /", Some("spiffe://shop/ns/web/x/y"), true),
            ("GET /", Some("spiffe://shop/ns/a/b/sa/probe"), false),
            ("GET /", Some("spiffe://shop/ns/web"), false),
            ("GET /", Some("spiffe://shop/ns/any/sa/probe/x"), false),
            ("GET /", None, false),
        ],
    );
    // A header that says so is nobody's identity.
    holds(
        &format!("{{ name: r, identity: '{WEB}' }}"),
        &[(&format!("GET / X-Forwarded-Client-Cert: URI={WEB}"), None, false)],
    );
}

#[test]
fn within_an_entry_all_must_hold_and_of_several_any() {
    holds(
        &format!(
            "{{ name: r, identity: '{WEB}', methods: [GET, POST], path: /cart/*, headers: {{ x-key: a }}, source: [127.0.0.0/8] }}"
        ),
        &[
            ("GET /cart/1 X-Key: a", Some(WEB), true),
            ("POST /cart X-Key: a", Some(WEB), true),
            ("GET /cart/1 X-Key: b", Some(WEB), false),
            ("PUT /cart/1 X-Key: a", Some(WEB), false),
            ("GET /card/1 X-Key: a", Some(WEB), false),
            ("GET /cart/1 X-Key: a", Some("spiffe://shop/ns/web/sa/other"), false),
            ("GET /cart/1 X-Key: a", None, false),
        ],
    );
    holds(
        &format!(
            "{{ name: first, methods: GET, path: /public/* }}, {{ name: second, identity: '{WEB}' }}, {{ methods: PUT, path: /put }}"
        ),
        &[
            ("GET /public/x", None, true),
            ("POST /public/x", Some(WEB), true),
            ("GET /private", Some(WEB), true),
            ("PUT /put", None, true),
            ("GET /put", None, false),
            ("PUT /public/x", None, false),
            ("GET /private", Some("spiffe://shop/ns/x"), false),
        ],
    );
}

#[test]
fn redirects_and_fixed_answers_need_a_permit_too() {
    let routes = "{ name: fixed, match: { path: /fixed }, respond: { status: 200, body: secret } }, \
                  { name: moved, match: { path: /moved/* }, redirect: { path: /secret/* }, allow: [ { name: r, headers: { x-key: a } } ] }, \
                  { name: rest, to: app }";
    let gate = gate(&text("deny: [ { name: posts, methods: POST } ],", routes));
    assert_eq!(gate.status("GET /fixed"), 200);
    let answer = ask(&mut gate.proxy.client(), "POST /fixed");
    assert_eq!((answer.status, answer.text().contains("secret")), (403, false));
    assert_eq!(gate.status("GET /moved/x X-Key: a"), 302);
    let answer = ask(&mut gate.proxy.client(), "GET /moved/x");
    assert_eq!((answer.status, answer.field("location")), (403, None));
    assert_eq!(gate.status("POST /moved/x X-Key: a"), 403);
}
