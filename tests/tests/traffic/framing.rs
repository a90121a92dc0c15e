//! Requests that are made to be read differently by two programs in a row. Each is tried whole, a byte at a time and
//! split at every place; each time the same answer comes, and nothing that was hidden in it reaches the origin.

use ringway_tests::{Client, Origin, Proxy, plain};
use std::time::Duration;

/// What must be refused: the status, and the request. `|` is CRLF, so that the lines can be read.
const REFUSED: &[(u16, &str)] = &[
    // RFC 9112 section 6.3: two lengths.
    (400, "POST / HTTP/1.1|Host: a|Content-Length: 5|Transfer-Encoding: chunked||0||GET /smuggled HTTP/1.1|Host: a||"),
    (400, "POST / HTTP/1.1|Host: a|Transfer-Encoding: chunked|Content-Length: 5||0||GET /smuggled HTTP/1.1|Host: a||"),
    (400, "POST / HTTP/1.1|Host: a|Content-Length: 3|Content-Length: 3||abc"),
    (400, "POST / HTTP/1.1|Host: a|Content-Length: 0|Content-Length: 38||GET /smuggled HTTP/1.1|Host: a||"),
    (400, "POST / HTTP/1.1|Host: a|Content-Length: 3, 3||abc"),
    (400, "POST / HTTP/1.1|Host: a|Content-Length: +3||abc"),
    (400, "POST / HTTP/1.1|Host: a|Content-Length: -3||abc"),
    (400, "POST / HTTP/1.1|Host: a|Content-Length: 0x3||abc"),
    (400, "POST / HTTP/1.1|Host: a|Content-Length: 3 3||abc"),
    (400, "POST / HTTP/1.1|Host: a|Content-Length:||"),
    (400, "POST / HTTP/1.1|Host: a|Content-Length: 18446744073709551616||"),
    (400, "POST / HTTP/1.1|Host: a|Content-Length: 99999999999999999999999||"),
    (400, "POST / HTTP/1.1|Host: a|Content-Length: 3.0||abc"),
    // RFC 9112 section 6.1: Transfer-Encoding is one `chunked`.
    (400, "POST / HTTP/1.1|Host: a|Transfer-Encoding: xchunked||0||"),
    (400, "POST / HTTP/1.1|Host: a|Transfer-Encoding: chunked, gzip||0||"),
    (501, "POST / HTTP/1.1|Host: a|Transfer-Encoding: gzip, chunked||0||"),
    (400, "POST / HTTP/1.1|Host: a|Transfer-Encoding: chunked|Transfer-Encoding: chunked||0||"),
    (400, "POST / HTTP/1.1|Host: a|Transfer-Encoding: chunked|Transfer-Encoding: identity||0||"),
    (400, "POST / HTTP/1.1|Host: a|Transfer-Encoding: chunked;q=1||0||"),
    (400, "POST / HTTP/1.1|Host: a|Transfer-Encoding:||0||"),
    (400, "POST / HTTP/1.1|Host: a|Transfer-Encoding: \x0bchunked||0||"),
    (400, "POST / HTTP/1.1|Host: a|Transfer-Encoding: chunked\x0b||0||"),
    (400, "POST / HTTP/1.1|Host: a|Transfer-Encoding:| chunked||0||"),
    (400, "POST / HTTP/1.1|Host: a|Transfer-Encoding : chunked||0||"),
    (400, "POST / HTTP/1.1|Host: a|Transfer_Encoding: chunked|Transfer-Encoding: x\u{80}||0||"),
    (400, "POST / HTTP/1.0|Host: a|Transfer-Encoding: chunked||0||"),
    (400, "POST / HTTP/1.1|Host: a|Transfer-Encoding: chunked|Connection: Transfer-Encoding||0||"),
    (400, "POST / HTTP/1.1|Host: a|Content-Length: 3|Connection: Content-Length||abc"),
    // RFC 9112 section 7.1: chunks.
    (400, "POST / HTTP/1.1|Host: a|Transfer-Encoding: chunked||+3|abc|0||"),
    (400, "POST / HTTP/1.1|Host: a|Transfer-Encoding: chunked||-1|abc|0||"),
    (400, "POST / HTTP/1.1|Host: a|Transfer-Encoding: chunked||0x3|abc|0||"),
    (400, "POST / HTTP/1.1|Host: a|Transfer-Encoding: chunked||3_0|abc|0||"),
    (400, "POST / HTTP/1.1|Host: a|Transfer-Encoding: chunked|| 3|abc|0||"),
    (400, "POST / HTTP/1.1|Host: a|Transfer-Encoding: chunked||3 |abc|0||"),
    (400, "POST / HTTP/1.1|Host: a|Transfer-Encoding: chunked|||abc|0||"),
    (400, "POST / HTTP/1.1|Host: a|Transfer-Encoding: chunked||g|abc|0||"),
    (400, "POST / HTTP/1.1|Host: a|Transfer-Encoding: chunked||10000000000000003|abc|0||"),
    (400, "POST / HTTP/1.1|Host: a|Transfer-Encoding: chunked||3|abcd|0||"),
    (400, "POST / HTTP/1.1|Host: a|Transfer-Encoding: chunked||3|abc0||"),
    (400, "POST / HTTP/1.1|Host: a|Transfer-Encoding: chunked||3\nabc|0||"),
    (400, "POST / HTTP/1.1|Host: a|Transfer-Encoding: chunked||3|abc\n0||"),
    (400, "POST / HTTP/1.1|Host: a|Transfer-Encoding: chunked||3;a\nb|abc|0||"),
    (400, "POST / HTTP/1.1|Host: a|Transfer-Encoding: chunked||0|X : y||"),
    // RFC 9112 section 2.2: lines end in CRLF, and in nothing else.
    (400, "GET / HTTP/1.1\nHost: a\n\n"),
    (400, "GET / HTTP/1.1|Host: a\n|"),
    (400, "GET / HTTP/1.1|Host: a|X: y\nTransfer-Encoding: chunked||"),
    (400, "GET / HTTP/1.1|Host: a|X: y\rTransfer-Encoding: chunked||"),
    (400, "GET / HTTP/1.1|Host: a|X: \0||"),
    (400, "GET / HTTP/1.1|Host: a|X: \x01||"),
    (400, "GET /\r HTTP/1.1|Host: a||"),
    // RFC 9112 section 5: field lines.
    (400, "GET / HTTP/1.1|Host: a|X : y||"),
    (400, "GET / HTTP/1.1|Host: a|X\t: y||"),
    (400, "GET / HTTP/1.1|Host: a|: y||"),
    (400, "GET / HTTP/1.1|Host: a|no colon||"),
    (400, "GET / HTTP/1.1|Host: a|X: y| folded||"),
    (400, "GET / HTTP/1.1| Host: a||"),
    (400, "GET / HTTP/1.1|Host: a|X[]: y||"),
    // RFC 9112 section 3: the request line.
    (400, "GET  / HTTP/1.1|Host: a||"),
    (400, "GET / HTTP/1.1 |Host: a||"),
    (400, "GET /a b HTTP/1.1|Host: a||"),
    (400, "GET\t/ HTTP/1.1|Host: a||"),
    (400, "GET / http/1.1|Host: a||"),
    (400, "GET / HTTP/1.10|Host: a||"),
    (505, "GET / HTTP/2.0|Host: a||"),
    (400, "GET /|Host: a||"),
    (400, "G@T / HTTP/1.1|Host: a||"),
    (400, "GET a HTTP/1.1|Host: a||"),
    (400, "GET /#x HTTP/1.1|Host: a||"),
    (400, "GET /%2F HTTP/1.1|Host: a||"),
    (400, "GET /a%5cb HTTP/1.1|Host: a||"),
    (400, "GET /%00 HTTP/1.1|Host: a||"),
    (400, "GET /%zz HTTP/1.1|Host: a||"),
    (400, "GET /% HTTP/1.1|Host: a||"),
    (400, "GET /../a HTTP/1.1|Host: a||"),
    (400, "GET /a/../../b HTTP/1.1|Host: a||"),
    (400, "GET /%2e%2e/b HTTP/1.1|Host: a||"),
    (400, "GET \\a HTTP/1.1|Host: a||"),
    // RFC 9112 section 3.2: exactly one valid Host.
    (400, "GET / HTTP/1.1||"),
    (400, "GET / HTTP/1.1|Host: a|Host: a||"),
    (400, "GET / HTTP/1.1|Host: a|Host: b||"),
    (400, "GET / HTTP/1.1|Host:||"),
    (400, "GET / HTTP/1.1|Host: a b||"),
    (400, "GET / HTTP/1.1|Host: a,b||"),
    (400, "GET / HTTP/1.1|Host: a@b||"),
    (400, "GET / HTTP/1.1|Host: a/b||"),
    (400, "GET / HTTP/1.1|Host: a:99999||"),
    (400, "GET / HTTP/1.1|Host: [::1||"),
    (400, "GET http://b/ HTTP/1.1|Host: a||"),
    // RFC 9110 section 9.3.6: no tunnels.
    (501, "CONNECT a:443 HTTP/1.1|Host: a:443||"),
];

/// How an answered connection must be left: with an answer of this status, and closed.
fn assert_refused(mut client: Client, status: u16, request: &str, how: &str) {
    let answer = client.try_answer("GET").unwrap_or_else(|e| panic!("{how}: {e}\n{request:?}"));
    assert_eq!(answer.status, status, "{how}: {request:?}\n{answer:?}");
    assert!(answer.head.connection("close"), "{how}: {request:?}\n{answer:?}");
    assert!(client.is_closed(), "{how}: {request:?} left the connection open");
}

#[test]
fn refused_requests_are_refused_however_they_arrive() {
    let origin = Origin::echo();
    let proxy = Proxy::start(&plain(&[&origin]));
    for (status, lines) in REFUSED {
        let request = lines.replace('|', "\r\n");
        let mut client = proxy.client();
        client.send(&request);
        assert_refused(client, *status, &request, "whole");

        let mut client = proxy.client();
        client.send_in_pieces(request.as_bytes(), 1, Duration::from_micros(50));
        assert_refused(client, *status, &request, "byte by byte");
    }
    // A request whose body turns out wrong may have begun upstream; but none of them was whole there.
    let paths: Vec<_> = origin.seen().iter().map(|seen| seen.head.line.clone()).collect();
    assert!(paths.is_empty(), "{paths:?}");
}

#[test]
fn refused_requests_are_refused_split_at_every_place() {
    let origin = Origin::echo();
    let proxy = Proxy::start(&plain(&[&origin]));
    // One of each kind: every place of every case would take minutes and show the same states.
    for (status, lines) in REFUSED.iter().step_by(7) {
        let request = lines.replace('|', "\r\n");
        for at in 1..request.len() {
            let mut client = proxy.client();
            let (head, tail) = request.as_bytes().split_at(at);
            let _answered_already = client.try_send(head);
            std::thread::sleep(Duration::from_micros(300));
            let _answered_already = client.try_send(tail);
            assert_refused(client, *status, &request, &format!("split at {at}"));
        }
    }
    assert_eq!(origin.count(), 0);
}

/// What looks odd and is allowed, and what the origin sees of it: path and body.
const ACCEPTED: &[(&str, &str, &str)] = &[
    ("GET / HTTP/1.1|Host: a||", "/", ""),
    ("|GET / HTTP/1.1|Host: a||", "/", ""),
    ("GET /a%41%7e HTTP/1.1|hOsT: a||", "/aA~", ""),
    ("GET //a///b HTTP/1.1|Host: a||", "/a/b", ""),
    ("GET /a/./b/../c HTTP/1.1|Host: a||", "/a/c", ""),
    ("GET /a/%2e%2E/c HTTP/1.1|Host: a||", "/c", ""),
    ("GET /%252e HTTP/1.1|Host: a||", "/%252e", ""),
    ("GET /a?x=%2F/../y HTTP/1.1|Host: a||", "/a?x=%2F/../y", ""),
    ("GET / HTTP/1.1|Host: a|X:y|Y:\t z \t||", "/", ""),
    ("POST / HTTP/1.1|Host: a|Content-Length: 003||abc", "/", "abc"),
    ("POST / HTTP/1.1|Host: a|Transfer-Encoding: Chunked||3;x=\"y\"|abc|00||", "/", "abc"),
    ("POST / HTTP/1.1|Host: a|TRANSFER-ENCODING:chunked||A|0123456789|0|T: u||", "/", "0123456789"),
    ("GET / HTTP/1.1|Host: [::1]:80||", "/", ""),
    ("GET / HTTP/1.1|Host: a.||", "/", ""),
    ("PROPFIND / HTTP/1.1|Host: a||", "/", ""),
    ("GET / HTTP/1.1|Host: a|X: \u{e4}||", "/", ""),
];

#[test]
fn odd_but_allowed_requests_mean_the_same_however_they_arrive() {
    let origin = Origin::echo();
    let proxy = Proxy::start(&plain(&[&origin]));
    for (lines, target, body) in ACCEPTED {
        let request = lines.replace('|', "\r\n");
        for at in 0..=request.len() {
            let mut client = proxy.client();
            match at {
                0 => client.send_in_pieces(request.as_bytes(), 1, Duration::from_micros(50)),
                at => {
                    client.send(&request.as_bytes()[..at]);
                    std::thread::sleep(Duration::from_micros(200));
                    client.send(&request.as_bytes()[at..])
                }
            };
            let answer = client.answer();
            assert_eq!((answer.status, answer.json()["target"].as_str()), (200, Some(*target)), "{at}: {request:?}");
            let seen = origin.seen().pop().unwrap();
            assert_eq!(seen.body, body.as_bytes(), "{at}: {request:?}");
        }
    }
    assert_eq!(origin.faults(), Vec::<String>::new());
}

#[test]
fn bytes_behind_a_refused_request_are_never_answered() {
    let origin = Origin::echo();
    let proxy = Proxy::start(&plain(&[&origin]));
    let mut client = proxy.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\nX : y\r\n\r\nGET /second HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.answer().status, 400);
    assert!(client.is_closed());
    assert_eq!(origin.count(), 0);
}

#[test]
fn requests_before_a_refused_one_are_answered_first() {
    let origin = Origin::echo();
    let proxy = Proxy::start(&plain(&[&origin]));
    let mut client = proxy.client();
    client.send("GET /first HTTP/1.1\r\nHost: a\r\n\r\nGET /second HTTP/1.1\r\nHost: a\r\nbad\r\n\r\n");
    assert_eq!(client.answer().json()["target"], "/first");
    assert_eq!(client.answer().status, 400);
    assert!(client.is_closed());
}
