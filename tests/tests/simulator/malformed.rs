//! Requests that nobody must forward: refused, and the connection closed.

use crate::choice::{Choice, each_seed};
use crate::line::Dial;
use crate::script::{Framing, Pace};
use crate::stage::{Stage, WEB, at, web};
use crate::stream::{Body, Reader, Writer};
use ring::sim::Faults;

/// What is sent, and the status that answers it.
const TABLE: &[(&str, u16)] = &[
    ("GET / HTTP/1.1\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400),
    ("GET /\r\n\r\n", 400),
    ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
    ("GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400),
    ("GET / HTTP/1.1\nHost: a\n\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\nx: 1\r\n 2\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\nx: 1\r2\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\nx: \0\r\n\r\n", 400),
    ("GET /%00 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("GET /a/../../b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc", 400),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +3\r\n\r\nabc", 400),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\nabc", 400),
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 400),
    ("POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    ("CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", 501),
    ("GET / HTTP/1.1\r\nHost: a\r\nExpect: a miracle\r\nContent-Length: 1\r\n\r\na", 417),
    // Never whole, and nothing more comes.
    ("GET / HTTP/1.1\r\nHo", 408),
];

#[test]
fn malformed_requests_are_refused_and_never_forwarded() {
    each_seed("malformed_requests_are_refused_and_never_forwarded", 30, |seed| {
        let yaml = web("10.1.0.1:80", "", "", "").replace("600s", "20s");
        let mut stage = Stage::new(seed, Faults::seeded(seed).unbroken(), 1, &yaml);
        stage.listen("10.1.0.1:80", |_, _| async { panic!("something was forwarded") });
        for (request, status) in TABLE {
            let (ledger, choice) = (stage.ledger.clone(), stage.choice.split());
            let dial = stage.dial();
            stage.peer(async move { refused(&ledger, dial, request, *status, choice).await });
        }
        stage.finish();
        assert_eq!(stage.ended("request_timeout"), 1);
        assert_eq!(stage.ended("refused"), TABLE.len() as u64 - 1);
    });
}

async fn refused(ledger: &crate::script::Ledger, dial: Dial, request: &str, status: u16, mut choice: Choice) {
    ring::sleep_until(1_000_000_000).await;
    let socket = ring::connect(&at(WEB), u64::MAX).await.expect("a connection");
    let line = dial.line(socket).await.expect("a handshake");
    let pace = Pace { most: choice.one_of(&[1, 3, 1000]), ..Pace::WHOLE };
    let mut reader = Reader::new(&line, ledger.client.clone(), Pace::WHOLE, choice.split());
    let mut writer = Writer::new(&line, ledger.client.clone(), pace, choice.split());
    writer.put(request.as_bytes());
    writer.flush().await.expect("all is taken");
    let head = reader.head().await.unwrap_or_else(|cut| panic!("{cut:?} answers {request:?}"));
    assert!(head.first.starts_with(&format!("HTTP/1.1 {status} ")), "{head:?} answers {request:?}");
    assert_eq!(head.one("connection"), Some("close"), "{request:?}");
    let (framing, length) = head.framing();
    assert_eq!(framing, Framing::Length);
    let mut body = Body::new(framing, length);
    while body.next(&mut reader).await.expect("the whole reason").is_some() {}
    assert_eq!(reader.rest().await.0, 0, "bytes behind the refusal of {request:?}");
}
