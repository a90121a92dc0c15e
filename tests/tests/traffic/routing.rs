//! Routes: which one takes a request, and what the service then sees of it.

use ringway_tests::{Origin, Proxy, routes};

const ROUTES: &str = r#"
{ name: exact, match: { path: /exact }, to: app, request-headers: { set: { x-route: exact } } },
{ name: prefix, match: { path: /cart/* }, to: app, rewrite: { path: /basket/* }, request-headers: { set: { x-route: prefix } } },
{ name: up, match: { path: /up/* }, to: app, rewrite: { path: /* }, request-headers: { set: { x-route: up } } },
{ name: regex, match: { path: { regex: '/v[0-9]+/.*' } }, to: app, request-headers: { set: { x-route: regex } } },
{ name: post, match: { path: /m, methods: [POST, PUT] }, to: app, request-headers: { set: { x-route: post } } },
{ name: header, match: { path: /h, headers: { x-beta: "1", x-debug: { present: true }, x-v: { regex: '2\..*' } } }, to: app, request-headers: { set: { x-route: header } } },
{ name: absent, match: { path: /h, headers: { x-beta: { present: false } } }, to: app, request-headers: { set: { x-route: absent } } },
{ name: query, match: { path: /q, query: { page: "1", all: { present: false } } }, to: app, request-headers: { set: { x-route: query } } },
{ name: old, match: { path: /old/* }, redirect: { path: /new/*, status: 308 } },
{ name: gone, match: { path: /gone }, redirect: { path: /here } },
{ name: ping, match: { path: /ping }, respond: { status: 200, body: pong }, response-headers: { set: { x-from: us } } },
{ name: host, match: { path: /host }, to: app, rewrite: { host: internal.example } },
{ name: edits, match: { path: /edits }, to: app, request-headers: { set: { x-set: "50%" }, add: { x-add: more }, remove: [x-remove] }, response-headers: { set: { x-served: by-us }, add: { x-many: two }, remove: [x-secret] } },
{ name: fixed, match: { path: /fixed/* }, to: app, rewrite: { path: /one }, request-headers: { set: { x-route: fixed } } }
"#;

fn started(origin: &Origin) -> Proxy {
    Proxy::start(&routes(ROUTES, &[origin]))
}

/// The route that took a request, by the field that it sets, and the target that the service saw.
fn taken(proxy: &Proxy, method: &str, target: &str, fields: &str) -> (String, String) {
    let mut client = proxy.client();
    client.send(format!("{method} {target} HTTP/1.1\r\nHost: a\r\n{fields}\r\n"));
    let answer = client.try_answer(method).unwrap();
    if answer.status != 200 {
        return (answer.status.to_string(), String::new());
    }
    let json = answer.json();
    let fields = json["fields"].as_array().unwrap();
    let route = fields.iter().find(|field| field[0] == "x-route").map_or("", |field| field[1].as_str().unwrap());
    (route.to_owned(), json["target"].as_str().unwrap().to_owned())
}

#[test]
fn each_kind_of_match() {
    let origin = Origin::echo();
    let proxy = started(&origin);
    let beta = "X-Beta: 1\r\nX-Debug:\r\nX-V: 2.5\r\n";
    for (method, target, fields, route, seen) in [
        ("GET", "/exact", "", "exact", "/exact"),
        ("GET", "/exact?a=b", "", "exact", "/exact?a=b"),
        ("GET", "/exact/", "", "404", ""),
        ("GET", "/Exact", "", "404", ""),
        ("GET", "/%65xact", "", "exact", "/exact"),
        ("GET", "/x/../exact", "", "exact", "/exact"),
        ("GET", "//exact", "", "exact", "/exact"),
        ("GET", "/cart", "", "prefix", "/basket"),
        ("GET", "/cart/", "", "prefix", "/basket/"),
        ("GET", "/cart/1/2?x=y", "", "prefix", "/basket/1/2?x=y"),
        ("GET", "/cartoon", "", "404", ""),
        ("GET", "/up", "", "up", "/"),
        ("GET", "/up/", "", "up", "/"),
        ("GET", "/up/a/b", "", "up", "/a/b"),
        ("GET", "/v12/x", "", "regex", "/v12/x"),
        ("GET", "/v12", "", "404", ""),
        ("GET", "/a/v12/x", "", "404", ""),
        ("POST", "/m", "Content-Length: 0\r\n", "post", "/m"),
        ("PUT", "/m", "Content-Length: 0\r\n", "post", "/m"),
        ("GET", "/m", "", "404", ""),
        ("GET", "/h", beta, "header", "/h"),
        ("GET", "/h", "X-Beta: 1\r\nX-V: 2.5\r\n", "404", ""),
        ("GET", "/h", "X-Beta: 1\r\nX-Debug: \r\nX-V: 12.5\r\n", "404", ""),
        ("GET", "/h", "", "absent", "/h"),
        ("GET", "/q?page=1", "", "query", "/q?page=1"),
        ("GET", "/q?x=y&page=1", "", "query", "/q?x=y&page=1"),
        ("GET", "/q?page=12", "", "404", ""),
        ("GET", "/q?page=1&all", "", "404", ""),
        ("GET", "/q", "", "404", ""),
        ("GET", "/fixed/a/b?c", "", "fixed", "/one?c"),
    ] {
        let got = taken(&proxy, method, target, fields);
        assert_eq!(got, (route.to_owned(), seen.to_owned()), "{method} {target} {fields:?}");
    }
}

#[test]
fn redirects_keep_rest_and_query() {
    let origin = Origin::echo();
    let proxy = started(&origin);
    let mut client = proxy.client();
    for (target, status, location) in
        [("/old/a/b?c=d", 308, "/new/a/b?c=d"), ("/old", 308, "/new"), ("/gone?x", 302, "/here?x")]
    {
        let answer = client.get(target);
        assert_eq!(answer.status, status, "{target}");
        let to = answer.field("location").unwrap();
        assert!(to == location || to == format!("http://test.example{location}"), "{target}: {to}");
    }
    assert_eq!(origin.count(), 0);
}

#[test]
fn fixed_answers() {
    let origin = Origin::echo();
    let proxy = started(&origin);
    let answer = proxy.client().get("/ping");
    assert_eq!((answer.status, answer.text(), answer.field("x-from")), (200, "pong", Some("us")));
    assert_eq!(origin.count(), 0);
}

#[test]
fn edits_of_heads() {
    let origin = Origin::fixed(ringway_tests::respond(200, "X-Secret: 1\r\nX-Many: one\r\nX-Served: them\r\n", b"x"));
    let proxy = started(&origin);
    let answer = proxy.client().get_with("/edits", "X-Set: theirs\r\nX-Set: again\r\nX-Add: one\r\nX-Remove: 1\r\n");
    assert_eq!(answer.head.all("x-served"), ["by-us"]);
    assert_eq!(answer.head.all("x-many"), ["one", "two"]);
    assert_eq!(answer.head.all("x-secret"), Vec::<&str>::new());
    let head = origin.only().head;
    assert_eq!(head.all("x-set"), ["50%"]);
    assert_eq!(head.all("x-add"), ["one", "more"]);
    assert_eq!(head.all("x-remove"), Vec::<&str>::new());
}

#[test]
fn a_rewritten_host_is_what_the_service_sees() {
    let origin = Origin::echo();
    let proxy = started(&origin);
    proxy.client().get("/host");
    assert_eq!(origin.only().head.all("host"), ["internal.example"]);
}

#[test]
fn the_most_specific_host_answers_and_nothing_falls_through() {
    let origin = Origin::echo();
    let host = |names: &str, route: &str| {
        format!(
            "      - {{ names: [{names}], routes: [ {{ match: {{ path: /p }}, to: app, request-headers: {{ set: {{ x-route: {route} }} }} }} ] }}\n"
        )
    };
    let proxy = Proxy::start(&format!(
        "listeners:\n  web:\n    address: 127.0.0.1:$web\n    hosts:\n{}{}{}{}services:\n  app: {{ endpoints: [{}] }}\n",
        host("'*.example.com'", "suffix"),
        host("'*.shop.example.com'", "longer"),
        host("shop.example.com, other.test", "exact"),
        host("'*'", "any"),
        origin.address()
    ));
    for (host, path, route) in [
        ("shop.example.com", "/p", "exact"),
        ("SHOP.Example.COM:8080", "/p", "exact"),
        ("shop.example.com.", "/p", "exact"),
        ("other.test", "/p", "exact"),
        ("a.shop.example.com", "/p", "longer"),
        ("a.b.shop.example.com", "/p", "longer"),
        ("a.example.com", "/p", "suffix"),
        ("example.com", "/p", "any"),
        ("xshop.example.com", "/p", "suffix"),
        ("unknown.test", "/p", "any"),
        ("shop.example.com", "/q", "404"),
    ] {
        let mut client = proxy.client();
        client.send(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        let answer = client.answer();
        let got = match answer.status {
            200 => origin.seen().pop().unwrap().head.field("x-route").unwrap().to_owned(),
            status => status.to_string(),
        };
        assert_eq!(got, route, "{host}");
    }
}

#[test]
fn a_thousand_routes_answer_as_one() {
    let origin = Origin::echo();
    let many: Vec<_> =
        (0..1000).map(|n| format!("{{ match: {{ path: /r{n}/* }}, to: app, rewrite: {{ path: /n{n}/* }} }}")).collect();
    let proxy = Proxy::start(&routes(&many.join(", "), &[&origin]));
    let mut client = proxy.client();
    for n in (0..1000).step_by(37) {
        assert_eq!(client.get(&format!("/r{n}/x")).json()["target"], format!("/n{n}/x"));
    }
    assert_eq!(client.get("/r1000/x").status, 404);
}
