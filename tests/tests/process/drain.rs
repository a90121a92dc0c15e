//! Draining: requests under way end, nothing new begins, the process ends.

use ringway_tests::{Client, Origin, Proxy, eventually, plain, respond};
use std::time::{Duration, Instant};

fn slow(time_ms: u64) -> Origin {
    Origin::new(move |conversation| {
        while conversation.request().is_some() {
            conversation.send_after(Duration::from_millis(time_ms), respond(200, "", b"in time"));
        }
    })
}

fn refuses(proxy: &Proxy) -> bool {
    // The backlog may still take one that is then closed; an answer it never gets.
    match Client::try_to(proxy.address("web")) {
        Err(_) => true,
        Ok(mut client) => {
            client.try_send("GET /late HTTP/1.1\r\nHost: a\r\n\r\n").is_err() || client.try_answer("GET").is_err()
        }
    }
}

#[test]
fn sigterm_lets_requests_under_way_end_and_exits_with_0() {
    let origin = slow(700);
    let mut proxy = Proxy::start(&plain(&[&origin]));
    let mut client = proxy.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually("it is under way", || origin.count() == 1);
    proxy.signal("TERM");
    eventually("new connections are refused", || refuses(&proxy));
    let answer = client.answer();
    assert_eq!(answer.text(), "in time");
    assert!(answer.head.connection("close"), "{answer:?}");
    assert!(client.is_closed());
    assert_eq!(proxy.ended(Duration::from_secs(5)).code(), Some(0));
}

#[test]
fn sigterm_without_traffic_ends_at_once_and_closes_idle_connections() {
    let origin = Origin::echo();
    let mut proxy = Proxy::start(&plain(&[&origin]));
    let mut idle = proxy.client();
    assert_eq!(idle.get("/").status, 200);
    let begun = Instant::now();
    proxy.signal("TERM");
    assert!(idle.is_closed());
    assert_eq!(proxy.ended(Duration::from_secs(5)).code(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
}

#[test]
fn draining_has_an_end() {
    let origin = slow(60_000);
    let mut proxy = Proxy::start(&format!("{}limits: {{ drain-timeout: 500ms }}\n", plain(&[&origin])));
    let mut client = proxy.client();
    client.send("GET /cut HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually("it is under way", || origin.count() == 1);
    let begun = Instant::now();
    proxy.signal("TERM");
    let status = proxy.ended(Duration::from_secs(5));
    assert_eq!(status.code(), Some(0));
    assert!(begun.elapsed() >= Duration::from_millis(450), "{:?}", begun.elapsed());
    assert!(client.try_answer("GET").map_or(true, |answer| answer.status == 503));
}

#[test]
fn what_draining_cuts_off_is_logged_as_such() {
    let origin = slow(60_000);
    let mut proxy = Proxy::start(&format!("{}limits: {{ drain-timeout: 300ms }}\n", plain(&[&origin])));
    let mut client = proxy.client();
    client.send("GET /cut HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually("it is under way", || origin.count() == 1);
    proxy.signal("TERM");
    proxy.ended(Duration::from_secs(5));
    assert_eq!(proxy.logged("/cut")["ending"], "drained");
}

#[test]
fn a_second_sigterm_ends_at_once() {
    let origin = slow(60_000);
    let mut proxy = Proxy::start(&plain(&[&origin]));
    let mut client = proxy.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually("it is under way", || origin.count() == 1);
    proxy.signal("TERM");
    std::thread::sleep(Duration::from_millis(300));
    assert!(proxy.runs());
    proxy.signal("TERM");
    proxy.ended(Duration::from_secs(3));
}

#[test]
fn ready_is_503_while_draining() {
    let origin = slow(1500);
    let mut proxy = Proxy::start(&plain(&[&origin]));
    let mut client = proxy.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually("it is under way", || origin.count() == 1);
    assert_eq!(proxy.admin("GET", "/ready").status, 200);
    let answer = proxy.admin("POST", "/drain");
    assert!((200..300).contains(&answer.status), "{answer:?}");
    eventually("it is not ready", || proxy.admin("GET", "/ready").status == 503);
    assert_eq!(client.answer().text(), "in time");
    assert_eq!(proxy.ended(Duration::from_secs(5)).code(), Some(0));
}

#[test]
fn drain_is_no_get() {
    let origin = Origin::echo();
    let proxy = Proxy::start(&plain(&[&origin]));
    assert_eq!(proxy.admin("GET", "/drain").status, 405);
    assert!(proxy.is_ready());
    assert_eq!(proxy.client().get("/").status, 200);
}

#[test]
fn a_pipelined_request_behind_the_last_answer_is_not_begun() {
    let origin = slow(500);
    let mut proxy = Proxy::start(&plain(&[&origin]));
    let mut client = proxy.client();
    client.send("GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually("it is under way", || origin.count() == 1);
    proxy.signal("TERM");
    let answer = client.answer();
    assert!(answer.head.connection("close"), "{answer:?}");
    assert!(client.is_closed());
    proxy.ended(Duration::from_secs(5));
    assert_eq!(origin.count(), 1);
}

#[test]
fn tunnels_end_with_the_drain_timeout() {
    let origin = Origin::new(|conversation| {
        while let Some(bytes) = conversation.some() {
            conversation.send(bytes);
        }
    });
    let mut proxy = Proxy::start(&format!(
        "listeners:\n  web: {{ address: 127.0.0.1:$web, protocol: tcp, to: app }}\nservices:\n  app: {{ endpoints: [{}] }}\nlimits: {{ drain-timeout: 800ms }}\n",
        origin.address()
    ));
    let mut client = proxy.client();
    client.send("x");
    assert_eq!(client.read(1), b"x");
    proxy.signal("TERM");
    std::thread::sleep(Duration::from_millis(200));
    client.send("y");
    assert_eq!(client.read(1), b"y");
    assert!(client.is_closed());
    assert_eq!(proxy.ended(Duration::from_secs(5)).code(), Some(0));
}
