//! Every answer that the proxy gives itself: its status, its short body with the request's id, and the line in the
//! access log that names the ending.

use ringway_tests::{Answer, Client, Origin, Proxy, free_port, plain, routes};
use std::time::Duration;

/// The answer is ours: short text, with the id that the log has too.
fn assert_ours(proxy: &Proxy, answer: &Answer, status: u16, ending: &str, path: &str) {
    assert_eq!(answer.status, status, "{answer:?}");
    assert!(answer.text().len() < 300 && answer.text().contains(&status.to_string()), "{answer:?}");
    let line = proxy.logged(path);
    assert_eq!((line["ending"].as_str(), line["status"].as_u64()), (Some(ending), Some(status.into())), "{line}");
    let id = answer.field("x-request-id").expect("an id");
    assert!(!id.is_empty() && answer.text().contains(id), "{answer:?}");
    assert_eq!(line["request_id"], id, "{line}");
}

#[test]
fn ending_400_malformed() {
    let origin = Origin::echo();
    let proxy = Proxy::start(&plain(&[&origin]));
    let mut client = proxy.client();
    client.send("GET /bad HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n");
    let answer = client.answer();
    assert_eq!(answer.status, 400);
    assert!(answer.text().starts_with("400") && answer.text().len() < 300);
    let line = proxy.logged_ending("refused");
    assert_eq!(line["status"], 400);
}

#[test]
fn ending_404_no_route() {
    let origin = Origin::echo();
    let proxy = Proxy::start(&routes("{ match: { path: /a }, to: app }", &[&origin]));
    let mut client = proxy.client();
    let answer = client.get("/nowhere");
    assert_ours(&proxy, &answer, 404, "no_route", "/nowhere");
    // Nothing is wrong with the connection.
    assert_eq!(client.get("/a").status, 200);
}

#[test]
fn ending_408_a_head_that_does_not_end() {
    let origin = Origin::echo();
    let proxy = Proxy::start(&format!("{}limits: {{ request-timeout: 300ms }}\n", plain(&[&origin])));
    let mut client = proxy.client();
    client.send("GET /slow HTTP/1.1\r\nHost: a\r\n");
    let answer = client.answer();
    assert_eq!(answer.status, 408);
    assert!(client.is_closed());
    assert_eq!(proxy.logged_ending("request_timeout")["status"], 408);
}

#[test]
fn ending_408_a_body_that_does_not_end() {
    let origin = Origin::echo();
    let proxy = Proxy::start(&format!("{}limits: {{ request-timeout: 300ms }}\n", plain(&[&origin])));
    let mut client = proxy.client();
    client.send("POST /slow HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n12345");
    let answer = client.answer();
    assert_ours(&proxy, &answer, 408, "request_timeout", "/slow");
    assert!(client.is_closed());
    assert_eq!(origin.count(), 0);
}

#[test]
fn ending_413_a_body_that_is_too_long() {
    let origin = Origin::echo();
    let proxy = Proxy::start(&format!("{}limits: {{ body: 64KiB }}\n", plain(&[&origin])));
    let mut client = proxy.client();
    client.send("POST /just HTTP/1.1\r\nHost: a\r\nContent-Length: 65536\r\n\r\n").send([b'x'; 65_536]);
    assert_eq!(client.answer().json()["body_bytes"], 65_536);
    // Said before it comes: nothing goes upstream, and a client that waits for 100 is not told to send.
    for (path, expect) in [("/said", ""), ("/expected", "Expect: 100-continue\r\n")] {
        let mut client = proxy.client();
        client.send(format!("POST {path} HTTP/1.1\r\nHost: a\r\n{expect}Content-Length: 65537\r\n\r\n"));
        let answer = client.answer();
        assert_ours(&proxy, &answer, 413, "body_too_large", path);
        assert!(client.interim.is_empty() && client.is_closed());
    }
    // Chunked, it shows only on the way.
    let mut client = proxy.client();
    client.send("POST /chunked HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    for _ in 0..10 {
        let _answered_already = client.try_send([b"2000\r\n".as_slice(), &[b'x'; 8192], b"\r\n"].concat());
        std::thread::sleep(Duration::from_millis(5));
    }
    let answer = client.answer();
    assert_ours(&proxy, &answer, 413, "body_too_large", "/chunked");
    assert!(client.is_closed());
    assert_eq!(origin.count(), 1, "what was too long never looked whole upstream");
}

#[test]
fn ending_413_is_the_services_word_and_passes() {
    let origin = Origin::fixed("HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nbig");
    let proxy = Proxy::start(&plain(&[&origin]));
    let answer = proxy.client().get("/big");
    assert_eq!((answer.status, answer.text()), (413, "big"));
    assert_eq!(proxy.logged("/big")["ending"], "complete");
}

#[test]
fn ending_414_a_target_that_is_too_long() {
    let origin = Origin::echo();
    let proxy = Proxy::start(&plain(&[&origin]));
    let mut client = proxy.client();
    client.send(format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(100_000)));
    assert_eq!(client.answer().status, 414);
    assert!(client.is_closed());
    assert_eq!(proxy.logged_ending("refused")["status"], 414);
}

#[test]
fn ending_431_a_head_that_is_too_large() {
    let origin = Origin::echo();
    let proxy = Proxy::start(&format!("{}limits: {{ head: 4KiB, headers: 20 }}\n", plain(&[&origin])));
    // Just below both limits is fine.
    let answer = proxy.client().get_with("/", &format!("X: {}\r\n", "y".repeat(3000)));
    assert_eq!(answer.status, 200);
    let answer = proxy.client().get_with("/", &"X: y\r\n".repeat(19));
    assert_eq!(answer.status, 200);
    let mut client = proxy.client();
    assert_eq!(client.get_with("/", &format!("X: {}\r\n", "y".repeat(4096))).status, 431);
    assert!(client.is_closed());
    let mut client = proxy.client();
    assert_eq!(client.get_with("/", &"X: y\r\n".repeat(20)).status, 431);
    assert!(client.is_closed());
    assert_eq!(proxy.logged_ending("refused")["status"], 431);
    assert_eq!(origin.count(), 2);
}

#[test]
fn ending_431_comes_before_the_head_ends() {
    let origin = Origin::echo();
    let proxy = Proxy::start(&format!("{}limits: {{ head: 4KiB }}\n", plain(&[&origin])));
    let mut client = proxy.client();
    client.send(format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}", "y".repeat(8000)));
    assert_eq!(client.answer().status, 431);
}

#[test]
fn ending_502_no_answer() {
    let origin = Origin::new(|conversation| drop(conversation.request()));
    let proxy = Proxy::start(&plain(&[&origin]));
    let answer = proxy.client().get("/x502");
    assert_ours(&proxy, &answer, 502, "upstream_reset", "/x502");
    assert_eq!(proxy.logged("/x502")["service"], "app");
}

#[test]
fn ending_503_no_connection() {
    let text = format!(
        "listeners:\n  web: {{ address: 127.0.0.1:$web, routes: [ {{ to: app }} ] }}\nservices:\n  app: {{ endpoints: [127.0.0.1:{}] }}\n",
        free_port()
    );
    let proxy = Proxy::start(&text);
    let mut client = proxy.client();
    let answer = client.get("/x503");
    assert_ours(&proxy, &answer, 503, "connect_failed", "/x503");
    // The client's connection is as good as before.
    assert_eq!(client.get("/x503").status, 503);
}

#[test]
fn ending_503_a_name_that_does_not_resolve() {
    let text = "listeners:\n  web: { address: 127.0.0.1:$web, routes: [ { to: app } ] }\nservices:\n  app: { endpoints: ['no-such-name.invalid:80'] }\n";
    let proxy = Proxy::start(text);
    let answer = proxy.client().get("/none");
    assert_ours(&proxy, &answer, 503, "no_endpoint", "/none");
}

#[test]
fn ending_504_no_answer_in_time() {
    let origin = Origin::new(|conversation| {
        conversation.request();
        conversation.some();
    });
    let proxy = Proxy::start(&routes("{ to: app, timeout: 300ms }", &[&origin]));
    let mut client = proxy.client();
    let answer = client.get("/x504");
    assert_ours(&proxy, &answer, 504, "upstream_timeout", "/x504");
    assert_eq!(client.get("/x504").status, 504);
    // What may still be answered is not read as the next answer.
    assert_eq!(origin.connections(), 2);
}

#[test]
fn a_client_that_goes_away_is_named() {
    let origin = Origin::new(|conversation| {
        while conversation.request().is_some() {
            conversation.send_after(Duration::from_millis(400), ringway_tests::respond(200, "", &[b'x'; 10_000_000]));
        }
    });
    let proxy = Proxy::start(&plain(&[&origin]));
    let mut client = proxy.client();
    client.send("GET /gone HTTP/1.1\r\nHost: a\r\n\r\n");
    while origin.count() == 0 {
        std::thread::sleep(Duration::from_millis(5));
    }
    drop(client);
    assert_eq!(proxy.logged("/gone")["ending"], "client_gone");
}

#[test]
fn answers_of_routes_are_named() {
    let origin = Origin::echo();
    let proxy = Proxy::start(&routes(
        "{ match: { path: /ping }, respond: { status: 200, body: pong } }, { match: { path: /old/* }, redirect: { path: /new/*, status: 308 } }, { to: app }",
        &[&origin],
    ));
    let mut client = proxy.client();
    for (path, ending) in [("/ping", "responded"), ("/old/x", "redirected"), ("/z", "complete")] {
        client.get(path);
        assert_eq!(proxy.logged(path)["ending"], ending);
    }
}

#[test]
fn nothing_that_is_not_http_makes_it_fall() {
    let origin = Origin::echo();
    let proxy = Proxy::start(&plain(&[&origin]));
    let mut state = 0x0123_4567_89AB_CDEF_u64;
    for length in (0..2000).step_by(13) {
        let mut client = Client::to(proxy.address("web"));
        let noise: Vec<u8> = (0..length)
            .map(|_| {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                (state >> 56) as u8
            })
            .collect();
        let _refused_already = client.try_send(&noise);
        client.finish();
        let _anything = client.rest();
    }
    for opening in
        ["PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "\x16\x03\x01\x02\x00\x01\x00\x01\x7c\x03\x03", "\r\n\r\n\r\n", "\0"]
    {
        let mut client = proxy.client();
        let _refused_already = client.try_send(opening);
        client.finish();
        let _anything = client.rest();
    }
    assert_eq!(proxy.client().get("/").status, 200);
}
