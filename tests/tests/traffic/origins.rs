//! Services that answer wrongly: the client gets 502 or sees that the answer was cut, and the connection is not used again.

use ringway_tests::{Origin, Proxy, plain, respond};
use std::time::Duration;

/// What no service may answer, and what it is refused for. `|` is CRLF.
const INVALID: &[&str] = &[
    "HTTP/1.1 200 OK|Content-Length: 3|Transfer-Encoding: chunked||0||",
    "HTTP/1.1 200 OK|Transfer-Encoding: chunked|Content-Length: 3||0||",
    "HTTP/1.1 200 OK|Content-Length: 3|Content-Length: 4||abcd",
    "HTTP/1.1 200 OK|Content-Length: 3, 3||abc",
    "HTTP/1.1 200 OK|Content-Length: x||abc",
    "HTTP/1.1 200 OK|Content-Length: -1||abc",
    "HTTP/1.1 200 OK|Transfer-Encoding: gzip||abc",
    "HTTP/1.1 200 OK|Transfer-Encoding: chunked, chunked||0||",
    "HTTP/1.0 200 OK|Transfer-Encoding: chunked||0||",
    "HTTP/1.1 200 OK|X : y|Content-Length: 0||",
    "HTTP/1.1 200 OK|X: y| folded|Content-Length: 0||",
    "HTTP/1.1 200 OK|X: a\0b|Content-Length: 0||",
    "HTTP/1.1 200 OK\nContent-Length: 0\n\n",
    "HTTP/1.1 200 OK|no colon||",
    "HTTP/1.1 20 OK|Content-Length: 0||",
    "HTTP/1.1 2000 OK|Content-Length: 0||",
    "HTTP/1.1 099 OK|Content-Length: 0||",
    "HTTP/1.1 999 OK|Content-Length: 0||",
    "HTTP/2 200 OK|Content-Length: 0||",
    "HTTP/1.1200 OK|Content-Length: 0||",
    "|HTTP/1.1 200 OK|Content-Length: 0||",
    "SSH-2.0-OpenSSH_9.2|",
    "HTTP/1.1 204 No Content|Content-Length: 3||abc",
    "HTTP/1.1 204 No Content|Transfer-Encoding: chunked||0||",
];

#[test]
fn invalid_answers_become_502_and_their_connections_are_not_used_again() {
    let origin = Origin::answering(|seen| {
        let n: usize = seen.head.word(1)[1..].parse().unwrap();
        INVALID[n].replace('|', "\r\n").into_bytes()
    });
    let proxy = Proxy::start(&plain(&[&origin]));
    let mut client = proxy.client();
    for (n, answer) in INVALID.iter().enumerate() {
        let got = client.get(&format!("/{n}"));
        assert_eq!(got.status, 502, "{answer:?}: {got:?}");
        assert_eq!(origin.connections(), n + 1, "the connection of {answer:?} was used again");
        assert_eq!(proxy.logged(&format!("/{n}"))["ending"], "upstream_invalid", "{answer:?}");
        if got.head.connection("close") {
            client = proxy.client();
        }
    }
}

#[test]
fn an_unasked_101_becomes_502() {
    let origin = Origin::fixed("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
    let proxy = Proxy::start(&plain(&[&origin]));
    assert_eq!(proxy.client().get("/").status, 502);
    assert_eq!(proxy.logged("/")["ending"], "upstream_unasked");
    proxy.client().get("/");
    assert_eq!(origin.connections(), 2);
}

#[test]
fn bytes_behind_an_answer_are_never_taken_for_the_next_one() {
    let poison = [respond(200, "", b"good"), respond(200, "", b"poison")].concat();
    let origin = Origin::answering(move |seen| match seen.connection {
        0 => poison.clone(),
        _ => respond(200, "", b"good"),
    });
    let proxy = Proxy::start(&plain(&[&origin]));
    let mut client = proxy.client();
    for _ in 0..5 {
        assert_eq!(client.get("/").text(), "good");
    }
    assert_eq!(origin.connections(), 2);
}

#[test]
fn bytes_that_arrive_on_an_idle_connection_end_it() {
    let origin = Origin::new(|conversation| {
        while conversation.request().is_some() {
            conversation.send(respond(200, "", b"good"));
            if conversation.number() == 0 {
                conversation.send_after(Duration::from_millis(50), respond(200, "", b"poison"));
            }
        }
    });
    let proxy = Proxy::start(&plain(&[&origin]));
    let mut client = proxy.client();
    assert_eq!(client.get("/").text(), "good");
    std::thread::sleep(Duration::from_millis(200));
    for _ in 0..5 {
        assert_eq!(client.get("/").text(), "good");
    }
    assert_eq!(origin.connections(), 2);
}

#[test]
fn a_body_with_an_answer_to_head_ends_the_connection() {
    let origin = Origin::fixed(respond(200, "", b"body that must not be there"));
    let proxy = Proxy::start(&plain(&[&origin]));
    let mut client = proxy.client();
    for n in 0..3 {
        client.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(client.try_answer("HEAD").unwrap().status, 200, "{n}");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(origin.connections(), 3);
}

#[test]
fn rfc9112_8_a_truncated_answer_by_length_is_seen_to_be_truncated() {
    let origin = Origin::fixed_then_close("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this");
    let proxy = Proxy::start(&plain(&[&origin]));
    let mut client = proxy.client();
    client.send("GET /cut HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(client.try_answer("GET").is_err(), "shown as complete");
    assert_eq!(proxy.logged("/cut")["ending"], "upstream_truncated");
}

#[test]
fn rfc9112_8_a_truncated_chunked_answer_is_seen_to_be_truncated() {
    for end in ["", "5\r\nhel", "5\r\nhello", "5\r\nhello\r\n", "5\r\nhello\r\n0\r\n", "5\r\nhello\r\n0\r\nX: y\r\n"] {
        let origin = Origin::fixed_then_close(format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{end}"));
        let proxy = Proxy::start(&plain(&[&origin]));
        let mut client = proxy.client();
        client.send("GET /cut HTTP/1.1\r\nHost: a\r\n\r\n");
        let answer = client.try_answer("GET");
        assert!(answer.as_ref().map_or(true, |a| a.status == 502), "{end:?} shown as complete: {answer:?}");
    }
}

#[test]
fn a_bad_chunk_within_an_answer_cuts_it_visibly() {
    for bad in ["x\r\nabc\r\n0\r\n\r\n", "3\r\nabcd\r\n0\r\n\r\n", "3\nabc\r\n0\r\n\r\n", "+3\r\nabc\r\n0\r\n\r\n"] {
        let origin = Origin::fixed(format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n{bad}"));
        let proxy = Proxy::start(&plain(&[&origin]));
        let mut client = proxy.client();
        client.send("GET /cut HTTP/1.1\r\nHost: a\r\n\r\n");
        let answer = client.try_answer("GET");
        assert!(answer.as_ref().map_or(true, |a| a.status == 502), "{bad:?} shown as complete: {answer:?}");
    }
}

#[test]
fn rfc9112_8_an_answer_until_close_that_is_reset_is_not_shown_as_complete() {
    let origin = Origin::new(|conversation| {
        if conversation.head().is_some() {
            conversation.send("HTTP/1.1 200 OK\r\n\r\nsome");
            std::thread::sleep(Duration::from_millis(300));
            // The rest of the request has come and lies unread: closing now resets.
        }
    });
    let proxy = Proxy::start(&plain(&[&origin]));
    let mut client = proxy.client();
    client.send("POST /cut HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n");
    std::thread::sleep(Duration::from_millis(100));
    client.send("hello");
    let answer = client.try_answer("POST");
    assert!(answer.is_err(), "shown as complete: {answer:?}");
}

#[test]
fn a_service_that_closes_without_an_answer_is_502() {
    let origin = Origin::new(|conversation| drop(conversation.request()));
    let proxy = Proxy::start(&plain(&[&origin]));
    let answer = proxy.client().get("/gone");
    assert_eq!(answer.status, 502);
    assert_eq!(proxy.logged("/gone")["ending"], "upstream_reset");
    assert_eq!(origin.count(), 1, "sent once only");
}

#[test]
fn a_service_that_closes_within_its_head_is_502() {
    let origin = Origin::fixed_then_close("HTTP/1.1 200 OK\r\nContent-Le");
    let proxy = Proxy::start(&plain(&[&origin]));
    assert_eq!(proxy.client().get("/half").status, 502);
    assert_eq!(proxy.logged("/half")["ending"], "upstream_reset");
}

#[test]
fn a_service_that_resets_is_502_and_a_post_is_sent_once() {
    let origin = Origin::new(|conversation| conversation.reset_unread());
    let proxy = Proxy::start(&plain(&[&origin]));
    let mut client = proxy.client();
    client.send("POST /reset HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi");
    assert_eq!(client.answer().status, 502);
    assert_eq!(proxy.logged("/reset")["ending"], "upstream_reset");
    assert_eq!(origin.connections(), 1);
}

#[test]
fn answers_a_byte_at_a_time_are_read_as_whole_ones() {
    let origin = Origin::new(|conversation| {
        while conversation.request().is_some() {
            let answer = b"HTTP/1.1 200 Fine Indeed\r\nTransfer-Encoding: chunked\r\nX: y\r\n\r\n5\r\nhello\r\n0\r\nT: u\r\n\r\n";
            for byte in answer {
                conversation.send_after(Duration::from_micros(200), [*byte]);
            }
        }
    });
    let proxy = Proxy::start(&plain(&[&origin]));
    let mut client = proxy.client();
    for _ in 0..2 {
        let answer = client.get("/");
        assert_eq!((answer.text(), answer.field("x")), ("hello", Some("y")));
        assert!(answer.head.line.ends_with("200 Fine Indeed"), "{answer:?}");
    }
    assert_eq!(origin.connections(), 1);
}

#[test]
fn an_answer_head_over_the_limit_is_502() {
    let origin = Origin::fixed(respond(200, &format!("X: {}\r\n", "y".repeat(200_000)), b"x"));
    let proxy = Proxy::start(&plain(&[&origin]));
    assert_eq!(proxy.client().get("/long").status, 502);
    assert_eq!(proxy.logged("/long")["ending"], "upstream_invalid");
}
