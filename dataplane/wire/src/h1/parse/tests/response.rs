//! Answers, by section of RFC 9112 and RFC 9110.

use super::*;
use Reject::*;

/// A 200 with these lines.
fn with(lines: &str) -> String {
    format!("HTTP/1.1 200 OK\r\n{lines}\r\n")
}

#[test]
fn a_typical_answer() {
    let text = "HTTP/1.1 404 Not Found\r\nServer: nginx\r\nContent-Length: 5\r\nDate: now\r\n\r\n";
    let head = response(text, Method::Get);
    assert_eq!((head.status, head.reason.of(text.as_bytes())), (404, &b"Not Found"[..]));
    assert_eq!((head.body, head.keep_alive, head.version), (Body::Length(5), true, Version::Http11));
    assert_eq!(head.fields[0].value.of(text.as_bytes()), b"nginx");
}

#[test]
fn rfc9112_4_status_line() {
    for text in [
        "HTTP/1.1 200 \r\n\r\n",
        "HTTP/1.1 200 \u{e9}\t x\r\n\r\n",
        "HTTP/1.0 200 OK\r\n\r\n",
        "HTTP/1.1 599 x\r\n\r\n",
    ] {
        response(text, Method::Get);
    }
    for text in [
        "HTTP/1.1 200\r\n",
        "HTTP/1.1  200 OK\r\n",
        "HTTP/1.1 20 OK\r\n",
        "HTTP/1.1 2000 OK\r\n",
        "HTTP/1.1 2x0 OK\r\n",
        "HTTP/1.1 +20 OK\r\n",
        "HTTP/1.1\t200 OK\r\n",
        "HTTP/1.1 200\tOK\r\n",
        "\u{e9}",
        "200 OK\r\n",
        "\r\nHTTP/1.1 200 OK\r\n",
        " HTTP/1.1 200 OK\r\n",
        "HTTP/1.1\r\n",
        "GET / HTTP/1.1\r\n",
        "http/1.1 200 OK\r\n",
    ] {
        refuses_response(text, BadStatusLine);
    }
    refuses_response("HTTP/1.1 200 OK\n\n", BareLf);
    refuses_response("HTTP/1.1 200 O\rK\r\n", BareCr);
    refuses_response("HTTP/1.1 200 O\0K\r\n", Nul);
    refuses_response("HTTP/1.1 200 O\x01K\r\n", ControlCharacter);
    refuses_response("HTTP/2.0 200 OK\r\n", VersionUnsupported);
    refuses_response("HTTP/1.x 200 OK\r\n", BadVersion);
    refuses_response("HTTQ/1.1 200 OK\r\n", BadVersion);
}

#[test]
fn rfc9110_15_statuses() {
    for status in ["000", "099", "600", "999"] {
        refuses_response(&format!("HTTP/1.1 {status} x\r\n"), BadStatus);
    }
    assert_eq!(response("HTTP/1.1 100 Continue\r\n\r\n", Method::Post).status, 100);
    refuses_response("HTTP/1.0 100 Continue\r\n\r\n", BadStatus);
    refuses_response("HTTP/1.0 101 Switching Protocols\r\n\r\n", BadStatus);
}

#[test]
fn rfc9112_5_field_lines() {
    for (lines, reject) in [
        ("a : b\r\n", SpaceBeforeColon),
        (" a: b\r\n", ObsFold),
        ("a: b\r\n c\r\n", ObsFold),
        (": b\r\n", EmptyName),
        ("ab\r\n", BadName),
        ("a: b\n", BareLf),
        ("a: \0\r\n", Nul),
        ("a: b\rc\r\n", BareCr),
        ("Connection: Host\r\n", BadConnection),
        ("Connection: Set-Cookie\r\n", BadConnection),
    ] {
        refuses_response(&with(lines), reject);
    }
    // Host and Expect mean nothing in an answer.
    response(&with("Host: ?\r\nHost: ?\r\nExpect: x\r\n"), Method::Get);
    // Seen from servers; we frame anew.
    assert_eq!(
        response(&with("Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked\r\n"), Method::Get).body,
        Body::Chunked
    );
}

fn body(lines: &str) -> (Body, bool) {
    let head = response(&with(lines), Method::Get);
    (head.body, head.keep_alive)
}

#[test]
fn rfc9112_6_3_response_bodies() {
    assert_eq!(body("Content-Length: 0\r\n"), (Body::Length(0), true));
    assert_eq!(body("Content-Length: 7\r\nConnection: close\r\n"), (Body::Length(7), false));
    assert_eq!(body("Transfer-Encoding: Chunked\r\n"), (Body::Chunked, true));
    assert_eq!(body(""), (Body::UntilClose, false));
    assert_eq!(body("Connection: keep-alive\r\n"), (Body::UntilClose, false));
    let http10 = |lines: &str| response(&format!("HTTP/1.0 200 OK\r\n{lines}\r\n"), Method::Get).keep_alive;
    assert!(!http10("Content-Length: 1\r\n"));
    assert!(http10("Content-Length: 1\r\nConnection: keep-alive\r\n"));
    assert!(!http10("Connection: keep-alive\r\n"));
}

#[test]
fn rfc9112_6_3_bad_response_lengths() {
    for (lines, reject) in [
        ("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", BothLengths),
        ("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", BothLengths),
        ("Content-Length: 5\r\nContent-Length: 5\r\n", TwoLengths),
        ("Content-Length: 5, 5\r\n", BadLength),
        ("Content-Length: +5\r\n", BadLength),
        ("Content-Length: 18446744073709551616\r\n", BadLength),
        ("Transfer-Encoding: gzip\r\n", BadTransferEncoding),
        ("Transfer-Encoding: identity\r\n", BadTransferEncoding),
        ("Transfer-Encoding: gzip, chunked\r\n", UnsupportedTransferCoding),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", BadTransferEncoding),
    ] {
        refuses_response(&with(lines), reject);
        let text = with(lines);
        assert_eq!(response_with(text.as_bytes(), Method::Head).1, Err(reject), "to HEAD: {lines:?}");
    }
    refuses_response("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", TransferEncodingInHttp10);
}

#[test]
fn rfc9112_6_3_answers_without_a_body() {
    let head = response(&with("Content-Length: 5\r\n"), Method::Head);
    assert_eq!((head.body, head.keep_alive), (Body::None, true));
    assert!(!head.fields[0].hop_by_hop);
    assert_eq!(response(&with("Transfer-Encoding: chunked\r\n"), Method::Head).body, Body::None);
    assert_eq!(response(&with(""), Method::Head).body, Body::None);
    for lines in ["", "Content-Length: 5\r\n", "Transfer-Encoding: chunked\r\n"] {
        let head = response(&format!("HTTP/1.1 304 Not Modified\r\n{lines}\r\n"), Method::Get);
        assert_eq!((head.body, head.keep_alive), (Body::None, true));
    }
}

#[test]
fn rfc9110_8_6_lengths_where_none_may_be() {
    let head = response("HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", Method::Get);
    assert_eq!((head.body, head.fields[0].hop_by_hop), (Body::None, true));
    assert_eq!(response("HTTP/1.1 204 No Content\r\n\r\n", Method::Get).body, Body::None);
    for status in ["100", "101", "103", "199", "204"] {
        assert_eq!(response(&format!("HTTP/1.1 {status} x\r\n\r\n"), Method::Get).body, Body::None);
        for line in ["Content-Length: 1", "Transfer-Encoding: chunked"] {
            refuses_response(&format!("HTTP/1.1 {status} x\r\n{line}\r\n\r\n"), BodyForbidden);
        }
    }
    refuses_response("HTTP/1.1 100 x\r\nContent-Length: 0\r\n\r\n", BodyForbidden);
    refuses_response("HTTP/1.1 101 x\r\nUpgrade: a\r\nContent-Length: 0\r\n\r\n", BodyForbidden);
}

#[test]
fn rfc9110_7_8_switching_protocols() {
    let text = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    let head = response(text, Method::Get);
    assert_eq!(head.upgrade.of(text.as_bytes()), b"websocket");
    assert_eq!(head.body, Body::None);
    assert!(response(&with("Connection: Upgrade\r\nUpgrade: h2,h2c\r\n"), Method::Get).upgrade.is_empty());
}
