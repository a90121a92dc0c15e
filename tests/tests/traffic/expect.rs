//! RFC 9110 section 10.1.1 (`Expect`) and section 15.2 (interim answers).

use ringway_tests::{Origin, Proxy, plain, respond};
use std::time::Duration;

#[test]
fn rfc9110_10_1_1_a_client_that_waits_for_100_is_told_to_go_on() {
    let origin = Origin::new(|conversation| {
        while let Some(head) = conversation.head() {
            if head.field("expect").is_some() {
                conversation.send("HTTP/1.1 100 Continue\r\n\r\n");
            }
            if let Some(seen) = conversation.body(head) {
                conversation.send(respond(200, "", &seen.body));
            }
        }
    });
    let proxy = Proxy::start(&plain(&[&origin]));
    let mut client = proxy.client();
    for _ in 0..2 {
        client.send("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n");
        assert_eq!(client.head().word(1), "100");
        client.send("hello");
        let answer = client.answer();
        assert_eq!((answer.status, answer.text()), (200, "hello"));
        assert!(client.interim.is_empty(), "100 is said once");
    }
}

#[test]
fn rfc9110_10_1_1_a_client_that_does_not_wait_is_served_too() {
    let origin = Origin::answering(|seen| respond(200, "", &seen.body));
    let proxy = Proxy::start(&plain(&[&origin]));
    let mut client = proxy.client();
    for _ in 0..2 {
        client.send("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello");
        let answer = client.answer();
        assert_eq!((answer.status, answer.text()), (200, "hello"));
        assert!(client.interim.len() <= 1);
    }
}

#[test]
fn rfc9110_10_1_1_a_refusal_instead_of_100_reaches_the_client_before_its_body() {
    let origin = Origin::new(|conversation| {
        if conversation.head().is_some() {
            conversation.send(respond(413, "Connection: close\r\n", b"too big"));
        }
    });
    let proxy = Proxy::start(&plain(&[&origin]));
    let mut client = proxy.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5000000\r\n\r\n");
    let answer = client.answer();
    assert_eq!((answer.status, answer.text()), (413, "too big"));
    assert!(client.interim.is_empty(), "the client was told to send: {:?}", client.interim);
    assert!(answer.head.connection("close"));
    assert!(client.is_closed());
}

#[test]
fn rfc9110_10_1_1_other_expectations_are_refused_with_417() {
    let origin = Origin::echo();
    let proxy = Proxy::start(&plain(&[&origin]));
    for expectation in ["200-ok", "100-continue, x", "", "100-continue\r\nExpect: 100-continue"] {
        let mut client = proxy.client();
        client.send(format!("POST / HTTP/1.1\r\nHost: a\r\nExpect: {expectation}\r\nContent-Length: 1\r\n\r\nx"));
        let answer = client.answer();
        assert_eq!(answer.status, 417, "{expectation:?}");
        assert!(client.is_closed());
    }
    assert_eq!(origin.count(), 0);
}

#[test]
fn rfc9110_15_2_interim_answers_are_passed_on() {
    let origin = Origin::new(|conversation| {
        while conversation.request().is_some() {
            conversation.send("HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n");
            conversation.send("HTTP/1.1 103 Early Hints\r\nLink: </more.css>\r\n\r\n");
            conversation.send_after(Duration::from_millis(20), respond(200, "", b"page"));
        }
    });
    let proxy = Proxy::start(&plain(&[&origin]));
    let mut client = proxy.client();
    for _ in 0..2 {
        assert_eq!(client.get("/").text(), "page");
        let links: Vec<_> = client.interim.iter().map(|head| (head.word(1), head.field("link"))).collect();
        assert_eq!(links, [("103", Some("</style.css>; rel=preload")), ("103", Some("</more.css>"))]);
    }
    assert_eq!(origin.connections(), 1);
}

#[test]
fn rfc9110_15_2_http_1_0_clients_get_no_interim_answers() {
    let origin = Origin::new(|conversation| {
        if conversation.request().is_some() {
            conversation.send("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n").send(respond(200, "", b"page"));
        }
    });
    let proxy = Proxy::start(&plain(&[&origin]));
    let mut client = proxy.client();
    client.send("GET / HTTP/1.0\r\nHost: a\r\n\r\n");
    assert_eq!(client.answer().text(), "page");
    assert!(client.interim.is_empty());
}

#[test]
fn rfc9110_15_2_too_many_interim_answers_are_an_error_of_the_service() {
    let origin = Origin::new(|conversation| {
        if conversation.request().is_some() {
            for _ in 0..1000 {
                conversation.send("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n");
            }
            conversation.send(respond(200, "", b"page"));
        }
    });
    let proxy = Proxy::start(&plain(&[&origin]));
    let answer = proxy.client().get("/flood");
    assert_eq!(answer.status, 502);
    assert_eq!(proxy.logged("/flood")["ending"], "upstream_unasked");
}
