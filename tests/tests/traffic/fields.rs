//! RFC 9110 section 7.6: what a proxy takes away from messages and what it adds; and `forwarded`.

use ringway_tests::{Origin, Proxy, plain, respond};

/// A listener with this `forwarded`.
fn forwarded(origin: &Origin, mode: &str) -> Proxy {
    Proxy::start(&format!(
        "listeners:\n  web: {{ address: 127.0.0.1:$web, forwarded: {mode}, routes: [ {{ to: app }} ] }}\nservices:\n  app: {{ endpoints: [{}] }}\n",
        origin.address()
    ))
}

#[test]
fn rfc9110_7_6_1_hop_by_hop_fields_end_here_in_requests() {
    let origin = Origin::echo();
    let proxy = Proxy::start(&plain(&[&origin]));
    let answer = proxy.client().get_with(
        "/",
        "Connection: keep-alive, X-Hop, close-not\r\nX-Hop: 1\r\nClose-Not: 2\r\nKeep-Alive: timeout=5\r\n\
         Proxy-Connection: keep-alive\r\nProxy-Authorization: Basic x\r\nTE: trailers\r\nUpgrade: h2c\r\n\
         HTTP2-Settings: AAAA\r\nX-End: kept\r\n",
    );
    assert_eq!(answer.status, 200);
    let head = origin.only().head;
    for name in ["x-hop", "close-not", "keep-alive", "proxy-connection", "upgrade", "http2-settings"] {
        assert_eq!(head.all(name), Vec::<&str>::new(), "{name}");
    }
    assert!(!head.connection("x-hop") && !head.connection("upgrade"));
    assert_eq!(head.field("x-end"), Some("kept"));
}

#[test]
fn rfc9110_7_6_1_hop_by_hop_fields_end_here_in_answers() {
    let origin = Origin::fixed(respond(
        200,
        "Connection: X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nProxy-Connection: x\r\nUpgrade: foo\r\nServer: origin\r\nX-End: kept\r\n",
        b"x",
    ));
    let proxy = Proxy::start(&plain(&[&origin]));
    let answer = proxy.client().get("/");
    for name in ["x-hop", "keep-alive", "proxy-connection", "upgrade"] {
        assert_eq!(answer.head.all(name), Vec::<&str>::new(), "{name}");
    }
    assert_eq!((answer.field("server"), answer.field("x-end")), (Some("origin"), Some("kept")));
}

#[test]
fn rfc9110_5_3_repeated_fields_keep_their_number_and_order() {
    let origin = Origin::fixed(respond(200, "Set-Cookie: a=1\r\nX: 1\r\nSet-Cookie: b=2\r\n", b"x"));
    let proxy = Proxy::start(&plain(&[&origin]));
    let answer = proxy.client().get_with("/", "A: 1\r\nB: x\r\nA: 2\r\nA:\r\n");
    assert_eq!(answer.head.all("set-cookie"), ["a=1", "b=2"]);
    let head = origin.only().head;
    assert_eq!(head.all("a"), ["1", "2", ""]);
    let order: Vec<_> = head.fields.iter().map(|(name, _)| name.as_str()).filter(|n| ["A", "B"].contains(n)).collect();
    assert_eq!(order, ["A", "B", "A", "A"]);
}

#[test]
fn rfc9110_7_6_3_via_is_added_both_ways() {
    let origin = Origin::fixed(respond(200, "Via: 1.1 inner\r\n", b"x"));
    let proxy = Proxy::start(&plain(&[&origin]));
    let answer = proxy.client().get_with("/", "Via: 1.0 outer\r\n");
    let request = origin.only().head.all("via").join(", ");
    let (before, ours) = request.split_once(", ").expect("ours behind the other");
    assert_eq!(before, "1.0 outer");
    assert!(ours.starts_with("1.1 "), "{request}");
    let answered = answer.head.all("via").join(", ");
    assert!(answered.is_empty() || answered.starts_with("1.1 inner"), "{answered}");
}

#[test]
fn rfc9110_7_2_host_is_passed_on() {
    let origin = Origin::echo();
    let proxy = Proxy::start(&plain(&[&origin]));
    let mut client = proxy.client();
    client.send("GET / HTTP/1.1\r\nHost: Shop.Example.com:8080\r\n\r\n");
    assert_eq!(client.answer().status, 200);
    assert_eq!(origin.only().head.field("host").map(str::to_ascii_lowercase).as_deref(), Some("shop.example.com:8080"));
}

#[test]
fn rfc9112_3_2_2_absolute_form_becomes_origin_form() {
    let origin = Origin::echo();
    let proxy = Proxy::start(&plain(&[&origin]));
    let mut client = proxy.client();
    client.send("GET http://shop.example.com/a?b=c HTTP/1.1\r\nHost: shop.example.com\r\n\r\n");
    assert_eq!(client.answer().json()["target"], "/a?b=c");
    assert_eq!(origin.only().head.field("host"), Some("shop.example.com"));
}

#[test]
fn rfc9112_3_2_4_options_asterisk_is_passed_on_or_refused() {
    let origin = Origin::echo();
    let proxy = Proxy::start(&plain(&[&origin]));
    let mut client = proxy.client();
    client.send("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n");
    let answer = client.answer();
    if answer.status == 200 {
        assert_eq!(origin.only().head.word(1), "*");
    } else {
        assert!([400, 404].contains(&answer.status), "{answer:?}");
    }
}

#[test]
fn forwarded_append_adds_the_peer() {
    let origin = Origin::echo();
    let proxy = forwarded(&origin, "{ mode: append }");
    proxy.client().get_with("/", "X-Forwarded-For: 203.0.113.7\r\nX-Forwarded-Proto: https\r\n");
    let head = origin.only().head;
    let list = head.all("x-forwarded-for").join(", ").replace(", ", ",");
    assert_eq!(list, "203.0.113.7,127.0.0.1");
    // Nobody whom we trust said `https`.
    assert_eq!(head.all("x-forwarded-proto"), ["http"]);
}

#[test]
fn forwarded_append_makes_the_field_where_there_is_none() {
    let origin = Origin::echo();
    let proxy = Proxy::start(&plain(&[&origin]));
    proxy.client().get("/");
    let head = origin.only().head;
    assert_eq!(head.all("x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(head.all("x-forwarded-proto"), ["http"]);
}

#[test]
fn forwarded_replace_believes_nobody() {
    let origin = Origin::echo();
    let proxy = forwarded(&origin, "{ mode: replace }");
    proxy
        .client()
        .get_with("/", "X-Forwarded-For: 203.0.113.7\r\nX-Forwarded-For: 1.2.3.4\r\nX-Forwarded-Proto: https\r\n");
    let head = origin.only().head;
    assert_eq!(head.all("x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(head.all("x-forwarded-proto"), ["http"]);
}

#[test]
fn forwarded_keep_leaves_the_field_as_it_came() {
    let origin = Origin::echo();
    let proxy = forwarded(&origin, "{ mode: keep }");
    let mut client = proxy.client();
    client.get_with("/", "X-Forwarded-For: 203.0.113.7\r\n");
    client.get("/");
    let seen = origin.seen();
    assert_eq!(seen[0].head.all("x-forwarded-for"), ["203.0.113.7"]);
    assert_eq!(seen[1].head.all("x-forwarded-for"), Vec::<&str>::new());
}

#[test]
fn trusted_hops_let_the_scheme_through() {
    let origin = Origin::echo();
    let proxy = forwarded(&origin, "{ trusted-hops: 1, mode: append }");
    proxy.client().get_with("/", "X-Forwarded-For: 203.0.113.7\r\nX-Forwarded-Proto: https\r\n");
    let head = origin.only().head;
    assert_eq!(head.all("x-forwarded-for").join(",").replace(' ', ""), "203.0.113.7,127.0.0.1");
    assert_eq!(head.all("x-forwarded-proto"), ["https"]);
}

#[test]
fn request_ids_are_kept_or_made_and_differ() {
    let origin = Origin::echo();
    let proxy = Proxy::start(&plain(&[&origin]));
    let mut client = proxy.client();
    client.get_with("/given", "X-Request-Id: my-id-1\r\n");
    client.get("/a");
    client.get("/b");
    let ids: Vec<_> = origin.seen().iter().map(|seen| seen.head.field("x-request-id").unwrap().to_owned()).collect();
    assert_eq!(ids[0], "my-id-1");
    assert!(!ids[1].is_empty() && ids[1] != ids[2], "{ids:?}");
    assert_eq!(proxy.logged("/a")["request_id"], ids[1]);
    assert_eq!(proxy.logged("/given")["request_id"], "my-id-1");
}

#[test]
fn request_ids_that_are_no_words_are_not_believed_twice() {
    let origin = Origin::echo();
    let proxy = Proxy::start(&plain(&[&origin]));
    proxy.client().get_with("/", "X-Request-Id: one\r\nX-Request-Id: two\r\n");
    assert!(origin.only().head.all("x-request-id").len() == 1, "{:?}", origin.only().head);
}
