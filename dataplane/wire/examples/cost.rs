//! Does one thing many times, to have its instructions counted:
//!
//! ```sh
//! cargo build --release -p ringway-wire --example cost
//! for n in 1000 2000; do valgrind --tool=callgrind --callgrind-out-file=/dev/null target/release/examples/cost request $n; done
//! ```
//!
//! The difference of both counts, over 1000, is the cost of one. What it does: `request`, `response`, `path`, `host`, `write`, `chunked`.

use std::hint::black_box;

use ringway_wire::h1::{Chunked, Field, FieldName, Head, Limits, Method, Piece, write};
use ringway_wire::path;

const REQUEST: &[u8] = b"GET /shop/cart/items HTTP/1.1\r\nHost: shop.example.com\r\nUser-Agent: ringway/1.0.0\r\nAccept: */*\r\nAccept-Encoding: gzip, br\r\nX-Trace: 0123456789abcdef\r\n\r\n";
const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nServer: origin\r\nDate: Tue, 15 Nov 1994 08:12:31 GMT\r\nContent-Type: text/plain\r\nContent-Length: 64\r\n\r\n";
const CHUNKS: &[u8] = b"40\r\n0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\r\n0\r\n\r\n";
const LIMITS: Limits = Limits { head_bytes: 32768, fields: 100, target_bytes: 8192 };

fn main() {
    let mut arguments = std::env::args().skip(1);
    let what = arguments.next().unwrap_or_default();
    let count: usize = arguments.next().and_then(|count| count.parse().ok()).unwrap_or(1);
    let mut head = Head::default();
    let mut out = Vec::with_capacity(4096);
    let parsed = head.parse_request(REQUEST, &LIMITS);
    assert!(parsed.is_ok());
    for _ in 0..count {
        match what.as_str() {
            "request" => drop(black_box(head.parse_request(black_box(REQUEST), &LIMITS))),
            "response" => drop(black_box(head.parse_response(black_box(RESPONSE), Method::Get, &LIMITS))),
            "path" => drop(black_box(path::normalise(black_box(head.path.of(REQUEST)), &mut out))),
            "host" => drop(black_box(path::normalise_host(black_box(b"shop.example.com"), &mut out))),
            "write" => write_request(&mut out, black_box(&head)),
            "chunked" => assert_eq!(decode(black_box(CHUNKS)), 64),
            _ => panic!("request, response, path, host, write or chunked?"),
        }
    }
}

/// What a proxy writes for a plain request.
fn write_request(out: &mut Vec<u8>, head: &Head) {
    out.clear();
    write::write_request_line(out, b"GET", head.path.of(REQUEST), head.query.of(REQUEST));
    let keep = |field: &Field| field.id != FieldName::XForwardedFor;
    write::write_fields(out, REQUEST, &head.fields, keep);
    write::write_field(out, b"x-forwarded-for", b"192.0.2.1");
    write::write_field(out, b"x-request-id", b"0123456789abcdef0123456789abcdef");
    out.extend_from_slice(b"\r\n");
}

fn decode(mut rest: &[u8]) -> usize {
    let mut chunked = Chunked::new(1024);
    let mut total = 0;
    while let Ok(Piece::Data { skip, length }) = chunked.next(rest) {
        total += length;
        rest = &rest[skip + length..];
    }
    total
}
