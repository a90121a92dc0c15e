//! RFC 9112 section 9: connections on both sides, their reuse and their end.

use ringway_tests::{Client, Origin, Proxy, eventually, plain, respond};
use std::time::Duration;

#[test]
fn rfc9112_9_3_both_sides_keep_their_connection() {
    let origin = Origin::echo();
    let proxy = Proxy::start(&plain(&[&origin]));
    let mut client = proxy.client();
    for n in 0..20 {
        let answer = client.get(&format!("/{n}"));
        assert_eq!(answer.status, 200);
        assert_eq!(answer.json()["target"], format!("/{n}"));
        assert!(!answer.head.connection("close"));
    }
    assert_eq!((origin.connections(), origin.count()), (1, 20));
}

#[test]
fn the_pool_serves_one_client_after_another() {
    let origin = Origin::echo();
    let proxy = Proxy::start(&plain(&[&origin]));
    for _ in 0..10 {
        assert_eq!(proxy.client().get("/").status, 200);
    }
    assert_eq!((origin.connections(), origin.count()), (1, 10));
}

#[test]
fn rfc9112_9_3_2_pipelined_requests_are_answered_in_order() {
    // The first ones take longest: order is the proxy's work, not luck.
    let origin = Origin::new(|conversation| {
        while let Some(seen) = conversation.request() {
            let n: u64 = seen.head.word(1)[1..].parse().unwrap();
            conversation.send_after(Duration::from_millis(40 - n * 4), respond(200, "", n.to_string().as_bytes()));
        }
    });
    let proxy = Proxy::start(&plain(&[&origin]));
    let mut client = proxy.client();
    let requests: String = (0..10).map(|n| format!("GET /{n} HTTP/1.1\r\nHost: a\r\n\r\n")).collect();
    client.send(&requests);
    for n in 0..10 {
        assert_eq!(client.answer().text(), n.to_string());
    }
}

#[test]
fn rfc9112_9_3_2_pipelined_requests_with_bodies_keep_apart() {
    let origin = Origin::answering(|seen| respond(200, "", &seen.body));
    let proxy = Proxy::start(&plain(&[&origin]));
    let mut client = proxy.client();
    let mut requests = String::new();
    for n in 0..8 {
        let body = format!("GET /smuggled{n} HTTP/1.1\r\nHost: a\r\n\r\n");
        requests += &format!("POST /l{n} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        requests +=
            &format!("POST /c{n} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n0\r\n\r\n");
    }
    client.send_in_pieces(requests.as_bytes(), 37, Duration::ZERO);
    for n in 0..8 {
        assert!(client.answer().text().starts_with(&format!("GET /smuggled{n} ")));
        assert_eq!(client.answer().text(), "hello");
    }
    assert!(origin.seen().iter().all(|seen| seen.head.word(0) == "POST"), "{:?}", origin.seen());
}

#[test]
fn rfc9112_9_6_close_from_the_client_is_honoured() {
    let origin = Origin::echo();
    let proxy = Proxy::start(&plain(&[&origin]));
    let mut client = proxy.client();
    let answer = client.get_with("/", "Connection: close\r\n");
    assert_eq!(answer.status, 200);
    assert!(answer.head.connection("close"));
    assert!(client.is_closed());
    // It is the client's word about its own connection: the origin's is kept.
    assert!(!origin.only().head.connection("close"));
    proxy.client().get("/");
    assert_eq!(origin.connections(), 1);
}

#[test]
fn rfc9112_9_6_close_from_the_origin_ends_its_connection_only() {
    let origin = Origin::answering(|_| respond(200, "Connection: close\r\n", b"x"));
    let proxy = Proxy::start(&plain(&[&origin]));
    let mut client = proxy.client();
    for _ in 0..3 {
        let answer = client.get("/");
        assert_eq!(answer.status, 200);
        assert!(!answer.head.connection("close"));
    }
    assert_eq!(origin.connections(), 3);
}

#[test]
fn a_pooled_connection_that_the_origin_closed_is_not_used() {
    let origin = Origin::fixed_then_close(respond(200, "", b"x"));
    let proxy = Proxy::start(&plain(&[&origin]));
    let mut client = proxy.client();
    for _ in 0..10 {
        assert_eq!(client.get("/").status, 200);
        eventually("the origin has closed", || origin.open() == 0);
        // The proxy's end of the connection is told through loopback at once; a moment for its turn.
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!((origin.count(), origin.connections()), (10, 10));
}

#[test]
fn a_client_that_ends_its_sending_side_still_gets_its_answer() {
    let origin = Origin::new(|conversation| {
        while conversation.request().is_some() {
            conversation.send_after(Duration::from_millis(100), respond(200, "", b"late"));
        }
    });
    let proxy = Proxy::start(&plain(&[&origin]));
    let mut client = proxy.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").finish();
    assert_eq!(client.answer().text(), "late");
    assert!(client.is_closed());
}

#[test]
fn http_1_0_clients_get_an_answer_and_the_end() {
    let origin = Origin::echo();
    let proxy = Proxy::start(&plain(&[&origin]));
    let mut client = proxy.client();
    client.send("GET /old HTTP/1.0\r\n\r\n");
    let answer = client.answer();
    assert_eq!((answer.status, answer.json()["target"].as_str()), (200, Some("/old")));
    assert!(!answer.head.connection("keep-alive"));
    assert!(client.is_closed());
    // RFC 9112 section 3.2: a Host is sent on, whatever the client said.
    assert_eq!(origin.only().head.all("host").len(), 1);
}

#[test]
fn http_1_0_clients_may_ask_to_keep_the_connection() {
    let origin = Origin::echo();
    let proxy = Proxy::start(&plain(&[&origin]));
    let mut client = proxy.client();
    for _ in 0..2 {
        client.send("GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n");
        let answer = client.answer();
        assert_eq!(answer.status, 200);
        if !answer.head.connection("keep-alive") {
            // Not to keep it is as good.
            assert!(client.is_closed());
            return;
        }
    }
}

#[test]
fn http_1_0_clients_get_chunked_answers_unchunked() {
    let origin =
        Origin::fixed("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n");
    let proxy = Proxy::start(&plain(&[&origin]));
    let mut client = proxy.client();
    client.send("GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n");
    let answer = client.answer();
    assert!(answer.until_close && !answer.head.chunked(), "{answer:?}");
    assert_eq!(answer.text(), "hello world");
}

#[test]
fn an_idle_client_connection_is_closed_after_the_idle_timeout() {
    let origin = Origin::echo();
    let proxy = Proxy::start(&format!("{}limits: {{ idle-timeout: 300ms }}\n", plain(&[&origin])));
    let mut client = proxy.client();
    assert_eq!(client.get("/").status, 200);
    let begun = std::time::Instant::now();
    assert!(client.is_closed());
    let idle = begun.elapsed();
    assert!(idle > Duration::from_millis(250) && idle < Duration::from_secs(3), "{idle:?}");
    // One that never said anything, too, and without an answer.
    assert!(proxy.client().is_closed());
}

#[test]
fn many_connections_at_once_on_two_cores() {
    let origin = Origin::echo();
    // All of them connect at once: the origin's backlog may overflow, and a lost SYN is sent again after a second.
    let proxy = Proxy::start(&format!(
        "listeners:\n  web: {{ address: 127.0.0.1:$web, routes: [ {{ to: app }} ] }}\n\
         services:\n  app: {{ endpoints: [{}], connect-timeout: 10s }}\ncores: all\n",
        origin.address()
    ));
    let mut clients: Vec<Client> = (0..200).map(|_| proxy.client()).collect();
    for round in 0..5 {
        for (n, client) in clients.iter_mut().enumerate() {
            client.send(format!("GET /{round}/{n} HTTP/1.1\r\nHost: a\r\n\r\n"));
        }
        for (n, client) in clients.iter_mut().enumerate() {
            assert_eq!(client.answer().json()["target"], format!("/{round}/{n}"));
        }
    }
    assert_eq!(origin.count(), 1000);
    assert_eq!(origin.faults(), Vec::<String>::new());
}
