//! CORS: preflights are answered here, actual requests are passed on and their answers say who may read them.

use crate::gate::{Gate, ask, gate, text};
use ringway_tests::{Answer, Origin, Proxy, respond};

const CORS: &str = "cors: { origins: ['https://app.test', 'https://*.wild.test'], methods: [GET, PUT], headers: [x-key, content-type], \
                    expose: [x-total], credentials: true, max-age: 10m },";

fn preflight(gate: &Gate, path: &str, origin: &str) -> Answer {
    let request = format!(
        "OPTIONS {path} Origin: {origin}|Access-Control-Request-Method: PUT|Access-Control-Request-Headers: x-key"
    );
    ask(&mut gate.proxy.client(), &request)
}

fn allowed(answer: &Answer) -> Option<&str> {
    answer.field("access-control-allow-origin")
}

/// The words of a list field.
fn list(answer: &Answer, name: &str) -> Vec<String> {
    let mut words: Vec<String> = answer
        .head
        .all(name)
        .iter()
        .flat_map(|value| value.split(','))
        .map(|word| word.trim().to_ascii_lowercase())
        .collect();
    words.sort();
    words
}

/// Origins and whether they are among [`CORS`]'s.
const ORIGINS: &[(&str, bool)] = &[
    ("https://app.test", true),
    ("https://x.wild.test", true),
    ("http://app.test", false),
    ("https://app.test:8443", false),
    ("https://app.test.evil", false),
    ("https://evil-app.test", false),
    ("https://wild.test", false),
    ("https://xwild.test", false),
    ("https://x.wild.test.evil", false),
    ("https://evil/.wild.test", false),
    ("https://evil:1@x.wild.test", false),
    ("null", false),
];

#[test]
fn preflights_are_answered_here() {
    let gate = gate(&text(CORS, "{ to: app }"));
    for (origin, known) in ORIGINS {
        let answer = preflight(&gate, "/x", origin);
        if *known {
            assert_eq!(answer.status, 204, "{answer:?}");
            assert_eq!(allowed(&answer), Some(*origin));
            assert_eq!(list(&answer, "access-control-allow-methods"), ["get", "put"]);
            assert_eq!(list(&answer, "access-control-allow-headers"), ["content-type", "x-key"]);
            assert_eq!(answer.field("access-control-allow-credentials"), Some("true"));
            assert_eq!(answer.field("access-control-max-age"), Some("600"));
        } else {
            assert_eq!((answer.status, allowed(&answer)), (204, None), "{origin}");
        }
        assert_eq!(list(&answer, "vary"), ["origin"]);
    }
    assert_eq!(gate.origin.count(), 0, "a preflight is not the service's affair");
    assert_eq!(gate.proxy.logged_ending("preflight")["method"], "OPTIONS");
}

#[test]
fn actual_answers_say_who_may_read_them() {
    let gate = gate(&text(CORS, "{ to: app }"));
    for (origin, known) in ORIGINS {
        for method in ["GET", "PUT", "DELETE"] {
            let answer = ask(&mut gate.proxy.client(), &format!("{method} /x Origin: {origin}"));
            assert_eq!(answer.status, 200, "CORS keeps nobody out");
            assert_eq!(allowed(&answer), known.then_some(*origin));
            if *known {
                assert_eq!(list(&answer, "access-control-expose-headers"), ["x-total"]);
                assert_eq!(answer.field("access-control-allow-credentials"), Some("true"));
            }
            assert!(list(&answer, "vary").contains(&"origin".to_owned()), "caches must tell them apart: {answer:?}");
        }
    }
    let answer = ask(&mut gate.proxy.client(), "GET /x");
    assert_eq!((answer.status, allowed(&answer)), (200, None));
    // OPTIONS without the preflight's fields is a request as any other.
    let before = gate.origin.count();
    assert_eq!(ask(&mut gate.proxy.client(), "OPTIONS /x Origin: https://app.test").status, 200);
    assert_eq!(ask(&mut gate.proxy.client(), "OPTIONS /x Access-Control-Request-Method: PUT").status, 200);
    assert_eq!(gate.origin.count(), before + 2);
}

#[test]
fn any_origin_and_the_routes_own() {
    let routes = "{ name: any, match: { path: /any }, cors: { origins: ['*'] }, to: app }, \
                  { name: own, match: { path: /own, methods: [GET, PUT] }, cors: { origins: ['https://own.test'], methods: [PUT] }, to: app }, { to: app }";
    let gate = gate(&text(CORS, routes));
    let answer = ask(&mut gate.proxy.client(), "GET /any Origin: https://whoever.test");
    assert!(matches!(allowed(&answer), Some("*" | "https://whoever.test")), "{answer:?}");
    assert_eq!(answer.field("access-control-allow-credentials"), None);
    assert_eq!(answer.field("vary"), None, "all get the same");
    // A preflight reaches a route whose methods do not have OPTIONS, if the request that it asks about would.
    let other = "OPTIONS /own Origin: https://app.test|Access-Control-Request-Method: DELETE";
    assert_eq!(allowed(&ask(&mut gate.proxy.client(), other)), Some("https://app.test"));
    let answer = preflight(&gate, "/own", "https://own.test");
    assert_eq!(
        (allowed(&answer), list(&answer, "access-control-allow-methods")),
        (Some("https://own.test"), vec!["put".to_owned()])
    );
    assert_eq!(allowed(&preflight(&gate, "/own", "https://app.test")), None);
    assert_eq!(allowed(&preflight(&gate, "/other", "https://app.test")), Some("https://app.test"));
    assert_eq!(gate.origin.count(), 1);
}

#[test]
fn a_preflight_needs_no_permit_and_a_request_does() {
    let listener = format!(
        "{CORS} allow: [ {{ name: keyed, headers: {{ x-key: {{ present: true }} }} }} ], quota: {{ requests: 2/h }},"
    );
    let gate = gate(&text(&listener, "{ to: app }"));
    for _ in 0..5 {
        assert_eq!(allowed(&preflight(&gate, "/x", "https://app.test")), Some("https://app.test"));
    }
    assert_eq!(gate.status("PUT /x Origin: https://app.test"), 403);
    assert_eq!(gate.status("PUT /x Origin: https://app.test|X-Key: 1"), 200);
}

#[test]
fn what_the_service_says_about_it_stands_once() {
    let said = "Access-Control-Allow-Origin: *\r\nAccess-Control-Allow-Credentials: true\r\nVary: Accept\r\n";
    let origin = Origin::fixed(respond(200, said, b"x"));
    let proxy = Proxy::start(&text(CORS, "{ to: app }").replace("$origin", &origin.address().to_string()));
    let answer = ask(&mut proxy.client(), "GET / Origin: https://app.test");
    assert_eq!(
        (allowed(&answer), answer.field("access-control-allow-credentials")),
        (Some("https://app.test"), Some("true"))
    );
    assert!(
        list(&answer, "vary").contains(&"accept".to_owned()) && list(&answer, "vary").contains(&"origin".to_owned())
    );
    // For one whom we do not know, the service's own word is not to widen ours.
    let answer = ask(&mut proxy.client(), "GET / Origin: https://evil.test");
    assert_eq!(allowed(&answer), None, "{answer:?}");
}

/// A page must be able to read why it was refused, too.
#[test]
fn answers_of_our_own_say_it_as_well() {
    let routes = "{ name: denied, match: { path: /denied }, deny: [ { peer: 127.0.0.0/8 } ], to: app }, \
                  { name: few, match: { path: /few }, quota: { requests: 1/h }, to: app }, \
                  { name: fixed, match: { path: /fixed }, respond: { body: x } }, \
                  { name: moved, match: { path: /moved }, redirect: { path: /x } }, \
                  { name: nobody, match: { path: /nobody }, to: nobody }, { name: slow, match: { path: /slow }, timeout: 1ms, to: hole }, { to: app }";
    let text = text(CORS, routes)
        + "  nobody: { endpoints: [127.0.0.1:1] }\n  hole: { endpoints: [$hole] }\nlimits: { body: 1KiB }\n";
    // It takes connections, and says nothing.
    let hole = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let gate = gate(&text.replace("$hole", &hole.local_addr().unwrap().to_string()));
    let get = |path: &str| ask(&mut gate.proxy.client(), &format!("GET {path} Origin: https://app.test"));
    assert_eq!(get("/few").status, 200);
    let mut answers: Vec<Answer> = ["/denied", "/few", "/fixed", "/moved", "/nobody", "/slow"].map(get).into();
    let large = "POST /x HTTP/1.1\r\nHost: a.test\r\nOrigin: https://app.test\r\nContent-Length: 5000\r\n\r\n";
    answers.push(gate.proxy.client().send(large).answer());
    let statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
    assert_eq!(statuses, [403, 429, 200, 302, 503, 504, 413]);
    for answer in &answers {
        assert_eq!(allowed(answer), Some("https://app.test"), "{answer:?}");
        assert_eq!(answer.head.all("access-control-allow-origin").len(), 1, "{answer:?}");
        assert!(list(answer, "vary").contains(&"origin".to_owned()), "{answer:?}");
    }
}

#[test]
fn explain_tells_of_it() {
    let gate = gate(&text(CORS, "{ name: r, allow: [ { source: 192.0.2.0/24 } ], to: app }"));
    let explain = |words: &[&str]| crate::explain::told(&gate.proxy.file(), words);
    let url = "http://a.test/x";
    let asked = explain(&[
        "OPTIONS",
        url,
        "--header",
        "Origin: https://app.test",
        "--header",
        "Access-Control-Request-Method: PUT",
    ]);
    assert!(asked.contains(": preflight, 204") && asked.contains("cors: https://app.test is allowed"), "{asked}");
    let other = explain(&["PUT", url, "--header", "Origin: https://other.test"]);
    assert!(other.contains("denied, 403") && other.contains("cors: https://other.test is not allowed"), "{other}");
    assert!(explain(&["GET", url]).contains("cors: no origin is sent"));
}
