//! A request's head: what is accepted, written and parsed again is the same request, and a part of a head gets the verdict of the
//! whole. The first byte says how long the part is.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wire::h1::write::{write_fields, write_request_line};
use wire::h1::{Field, Head, HeadEnd, Limits, Parsed};

const LIMITS: Limits = Limits { head_bytes: 2048, fields: 30, target_bytes: 500 };

fuzz_target!(|input: &[u8]| {
    let Some((&cut, bytes)) = input.split_first() else { return };
    let mut head = Head::default();
    let whole = head.parse_request(bytes, &LIMITS);
    let part = &bytes[..bytes.len() * usize::from(cut) / 255];
    let verdict = Head::default().parse_request(part, &LIMITS);
    assert!(verdict == whole || verdict == Ok(Parsed::Partial), "{verdict:?}, whole: {whole:?}");
    if HeadEnd::default().find(bytes) {
        assert_ne!(whole, Ok(Parsed::Partial));
    }
    if let Ok(Parsed::Complete { length }) = whole {
        assert!(HeadEnd::default().find(&bytes[..length]) && !HeadEnd::default().find(&bytes[..length - 1]));
        parse_again(&head, bytes);
    }
});

fn parse_again(head: &Head, bytes: &[u8]) {
    let mut out = Vec::new();
    write_request_line(&mut out, head.method_span.of(bytes), head.path.of(bytes), head.query.of(bytes));
    write_fields(&mut out, bytes, &head.fields, |_| true);
    if head.field(wire::h1::FieldName::Host).is_none() {
        out.extend_from_slice(b"Host: a\r\n");
    }
    out.extend_from_slice(b"\r\n");
    let mut again = Head::default();
    let limits = Limits { head_bytes: 1 << 20, fields: 100, target_bytes: 1 << 20 };
    assert_eq!(again.parse_request(&out, &limits), Ok(Parsed::Complete { length: out.len() }));
    assert_eq!(again.path.of(&out), head.path.of(bytes));
    assert_eq!(again.query.of(&out), head.query.of(bytes));
    let ends_to_end = |head: &Head| head.fields.iter().filter(|f: &&Field| !f.hop_by_hop).count();
    let added = usize::from(head.field(wire::h1::FieldName::Host).is_none());
    assert_eq!(ends_to_end(&again), ends_to_end(head) + added);
}
