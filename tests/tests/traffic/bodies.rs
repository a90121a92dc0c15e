//! RFC 9112 sections 6 and 7, RFC 9110 section 6: bodies in each framing, both ways, byte for byte.

use ringway_tests::{Origin, Proxy, plain, respond};
use std::io::Write;
use std::time::Duration;

/// Bytes that show any loss, doubling or exchange.
fn pattern(length: usize) -> Vec<u8> {
    (0..length as u64).map(|n| (n.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8).collect()
}

/// A body in chunks of these sizes, again and again.
fn chunked(body: &[u8], sizes: &[usize]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = body;
    for size in sizes.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (chunk, behind) = rest.split_at((*size).min(rest.len()));
        out.extend_from_slice(format!("{:X}\r\n", chunk.len()).as_bytes());
        out.extend_from_slice(chunk);
        out.extend_from_slice(b"\r\n");
        rest = behind;
    }
    out.extend_from_slice(b"0\r\n\r\n");
    out
}

const SIZES: [usize; 9] = [0, 1, 2047, 2048, 2049, 16_384, 65_536, 300_000, 3_000_000];

#[test]
fn rfc9112_6_3_request_bodies_by_length_arrive_whole() {
    let origin = Origin::echo();
    let proxy = Proxy::start(&plain(&[&origin]));
    let mut client = proxy.client();
    for size in SIZES {
        let body = pattern(size);
        client.send(format!("POST /{size} HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n\r\n")).send(&body);
        assert_eq!(client.answer().status, 200);
        let seen = origin.seen().pop().unwrap();
        assert!(seen.body == body, "{size} bytes differ");
        assert_eq!(seen.head.field("content-length"), Some(size.to_string().as_str()));
    }
}

#[test]
fn rfc9112_7_1_chunked_request_bodies_arrive_whole() {
    let origin = Origin::echo();
    let proxy = Proxy::start(&plain(&[&origin]));
    let mut client = proxy.client();
    for size in SIZES {
        let body = pattern(size);
        client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
        client.send(chunked(&body, &[1, 10, 4096, 70_000]));
        assert_eq!(client.answer().status, 200);
        assert!(origin.seen().pop().unwrap().body == body, "{size} bytes differ");
    }
    assert_eq!(origin.connections(), 1);
}

#[test]
fn rfc9112_7_1_a_chunked_body_a_byte_at_a_time() {
    let origin = Origin::answering(|seen| respond(200, "", &seen.body));
    let proxy = Proxy::start(&plain(&[&origin]));
    let body = pattern(300);
    let mut request = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    request.extend(chunked(&body, &[7, 1, 20]));
    let mut client = proxy.client();
    client.send_in_pieces(&request, 1, Duration::from_micros(200));
    assert_eq!(client.answer().body, body);
}

#[test]
fn rfc9112_6_3_answers_by_length_arrive_whole() {
    let origin = Origin::answering(|seen| respond(200, "", &pattern(seen.head.word(1)[1..].parse().unwrap())));
    let proxy = Proxy::start(&plain(&[&origin]));
    let mut client = proxy.client();
    for size in SIZES {
        let answer = client.get(&format!("/{size}"));
        assert!(answer.body == pattern(size) && !answer.until_close, "{size} bytes differ");
    }
    assert_eq!(origin.connections(), 1);
}

#[test]
fn rfc9112_7_1_chunked_answers_arrive_whole() {
    let origin = Origin::answering(|seen| {
        let body = pattern(seen.head.word(1)[1..].parse().unwrap());
        let mut answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        answer.extend(chunked(&body, &[3, 5000, 1, 40_000]));
        answer
    });
    let proxy = Proxy::start(&plain(&[&origin]));
    let mut client = proxy.client();
    for size in SIZES {
        let answer = client.get(&format!("/{size}"));
        assert!(answer.body == pattern(size) && answer.head.chunked(), "{size} bytes differ");
    }
    assert_eq!(origin.connections(), 1);
}

#[test]
fn rfc9112_6_3_answers_until_close_arrive_whole_and_end_as_such() {
    let origin = Origin::new(|conversation| {
        if let Some(seen) = conversation.request() {
            let size = seen.head.word(1)[1..].parse().unwrap();
            conversation.send("HTTP/1.1 200 OK\r\nX: y\r\n\r\n").send(pattern(size));
        }
    });
    let proxy = Proxy::start(&plain(&[&origin]));
    for size in SIZES {
        let answer = proxy.client().get(&format!("/{size}"));
        assert!(answer.body == pattern(size), "{size} bytes differ: {}", answer.body.len());
        // Framed anew in chunks, or ended with the connection: both are right.
        assert!(answer.until_close || answer.head.chunked());
    }
    assert_eq!(origin.connections(), SIZES.len());
}

#[test]
fn rfc9112_7_1_2_trailers_pass_both_ways_when_wanted() {
    let origin = Origin::fixed(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n2\r\nab\r\n0\r\nX-Sum: 7\r\nContent-Length: 9\r\n\r\n",
    );
    let proxy = Proxy::start(&plain(&[&origin]));
    let mut client = proxy.client();
    client.send(
        "POST / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: TE\r\nTransfer-Encoding: chunked\r\n\r\n\
         1\r\nx\r\n0\r\nX-Check: 5\r\nHost: evil\r\nTransfer-Encoding: chunked\r\n\r\n",
    );
    let answer = client.answer();
    assert_eq!(answer.text(), "ab");
    // Trailers stay trailers; those that would change framing or routing are dropped (notes on attacks).
    assert_eq!(answer.trailers, [("X-Sum".to_owned(), "7".to_owned())]);
    assert_eq!(answer.field("x-sum"), None);
    let seen = origin.only();
    assert_eq!(seen.trailers, [("X-Check".to_owned(), "5".to_owned())]);
    assert_eq!((seen.head.field("x-check"), seen.head.all("host")), (None, vec!["a"]));
}

#[test]
fn rfc9110_9_3_2_head_has_a_length_and_no_body() {
    let origin = Origin::fixed("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n");
    let proxy = Proxy::start(&plain(&[&origin]));
    let mut client = proxy.client();
    for _ in 0..3 {
        client.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
        let answer = client.try_answer("HEAD").unwrap();
        assert_eq!((answer.status, answer.field("content-length")), (200, Some("1000")));
    }
    // No body was waited for and none made up: the connections are in order.
    assert_eq!((origin.connections(), origin.count()), (1, 3));
    assert!(client.is_silent(Duration::from_millis(50)));
}

#[test]
fn rfc9110_9_3_2_head_of_our_own_answers_has_no_body() {
    let origin = Origin::echo();
    let proxy = Proxy::start(&ringway_tests::routes("{ match: { path: /a }, to: app }", &[&origin]));
    let mut client = proxy.client();
    for _ in 0..2 {
        client.send("HEAD /nowhere HTTP/1.1\r\nHost: a\r\n\r\n");
        let answer = client.try_answer("HEAD").unwrap();
        assert_eq!(answer.status, 404);
    }
}

#[test]
fn rfc9110_15_3_5_no_content_and_not_modified_have_no_body() {
    let origin = Origin::answering(|seen| match seen.head.word(1) {
        "/204" => b"HTTP/1.1 204 No Content\r\nX: y\r\n\r\n".to_vec(),
        _ => b"HTTP/1.1 304 Not Modified\r\nContent-Length: 500\r\nETag: \"e\"\r\n\r\n".to_vec(),
    });
    let proxy = Proxy::start(&plain(&[&origin]));
    let mut client = proxy.client();
    for _ in 0..2 {
        let answer = client.get("/204");
        assert_eq!((answer.status, answer.field("content-length"), answer.head.chunked()), (204, None, false));
        let answer = client.get("/304");
        assert_eq!((answer.status, answer.field("etag")), (304, Some("\"e\"")));
    }
    assert_eq!(origin.connections(), 1);
}

#[test]
fn full_duplex_the_answer_flows_before_the_request_body_ends() {
    let origin = Origin::new(|conversation| {
        let Some(_head) = conversation.head() else { return };
        conversation.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        // Each byte of the body is answered when it comes: neither direction waits for the other.
        loop {
            let Some(line) = conversation.read(3) else { return };
            if line == b"0\r\n" {
                conversation.read(2);
                break;
            }
            let Some(data) = conversation.read(3) else { return };
            conversation.send(format!("1\r\n{}\r\n", data[0] as char));
        }
        conversation.send("0\r\n\r\n");
    });
    let proxy = Proxy::start(&plain(&[&origin]));
    let mut client = proxy.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    assert_eq!(client.head().word(1), "200");
    for letter in ["a", "b", "c", "d"] {
        client.send(format!("1\r\n{letter}\r\n"));
        assert_eq!(client.read(6), format!("1\r\n{letter}\r\n").as_bytes());
    }
    client.send("0\r\n\r\n");
    assert_eq!(client.read(5), b"0\r\n\r\n");
}

#[test]
fn an_early_answer_to_an_unread_body_arrives_and_ends_the_upstream_connection() {
    // CVE-2025-4366: what is left of the body must never be read as a request.
    let origin = Origin::new(|conversation| {
        while let Some(head) = conversation.head() {
            if head.word(0) == "GET" {
                conversation.body(head);
                conversation.send(respond(200, "", b"fine"));
                continue;
            }
            conversation.send(respond(403, "", b"no uploads"));
            std::thread::sleep(Duration::from_millis(500));
            return;
        }
    });
    let proxy = Proxy::start(&plain(&[&origin]));
    let mut client = proxy.client();
    let mut twin = client.twin();
    // More than all buffers on the way hold, so that the writer is still writing when the answer comes.
    let writer = std::thread::spawn(move || {
        let body = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n".repeat(500_000);
        let _ =
            twin.write_all(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes());
        let _ = twin.write_all(&body);
    });
    let answer = client.answer();
    assert_eq!((answer.status, answer.text()), (403, "no uploads"));
    assert!(answer.head.connection("close"), "{answer:?}");
    writer.join().unwrap();
    assert_eq!(proxy.client().get("/next").status, 200);
    assert_eq!(origin.only().head.word(1), "/next");
    assert_eq!(origin.connections(), 2);
}

#[test]
fn our_own_early_answer_survives_an_unread_body() {
    let origin = Origin::echo();
    let proxy = Proxy::start(&ringway_tests::routes("{ match: { path: /a }, to: app }", &[&origin]));
    let mut client = proxy.client();
    let mut twin = client.twin();
    let writer = std::thread::spawn(move || {
        let _ = twin.write_all(b"POST /nowhere HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n");
        let piece = [b'x'; 65536];
        while twin.write_all(&piece).is_ok() {}
    });
    // Closing at once would have reset the connection and destroyed the answer.
    assert_eq!(client.answer().status, 404);
    writer.join().unwrap();
}

#[test]
fn an_early_answer_to_a_short_body_may_keep_the_connection_but_never_misreads() {
    let origin = Origin::echo();
    let proxy = Proxy::start(&ringway_tests::routes("{ match: { path: /a }, to: app }", &[&origin]));
    let mut client = proxy.client();
    client.send(
        "POST /nowhere HTTP/1.1\r\nHost: a\r\nContent-Length: 35\r\n\r\nGET /a/smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
    );
    let answer = client.answer();
    assert_eq!(answer.status, 404);
    if answer.head.connection("close") {
        assert!(client.is_closed());
    } else {
        assert_eq!(client.get("/a").json()["target"], "/a");
    }
    assert!(origin.seen().iter().all(|seen| seen.head.word(1) == "/a"));
}

#[test]
fn a_slow_reader_gets_every_byte() {
    let size = 8_000_000;
    let origin = Origin::answering(move |_| respond(200, "", &pattern(size)));
    let proxy = Proxy::start(&plain(&[&origin]));
    let mut client = proxy.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    std::thread::sleep(Duration::from_millis(300));
    let length: usize = client.head().field("content-length").unwrap().parse().unwrap();
    let mut body = Vec::new();
    while body.len() < length {
        body.extend(client.read((length - body.len()).min(500_000)));
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(body == pattern(size));
}
