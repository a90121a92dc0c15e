//! Every head is parsed whole, with bytes behind it, and as each of its beginnings (so a byte at a time, and split at every place).

mod request;
mod response;

use super::*;
use proptest::prelude::*;

const LIMITS: Limits = Limits { head_bytes: 4096, fields: 40, target_bytes: 1024 };

/// Parses growing bytes into a head that was used before: each part must give `Partial` or the verdict of the whole, and
/// `HeadEnd` must say when parsing is worth it.
fn parse_all_ways(
    bytes: &[u8],
    limits: &Limits,
    parse: impl Fn(&mut Head, &[u8], &Limits) -> Result<Parsed, Reject>,
) -> (Head, Result<Parsed, Reject>) {
    let mut head = Head::default();
    let whole = parse(&mut head, bytes, limits);
    let mut used = used_head();
    let mut head_end = HeadEnd::default();
    let mut found = false;
    for length in 0..=bytes.len() {
        let part = parse(&mut used, &bytes[..length], limits);
        match whole {
            Ok(Parsed::Complete { length: full }) if length >= full => assert_eq!(part, whole),
            Ok(_) => assert_eq!(part, Ok(Parsed::Partial), "{length} bytes"),
            Err(_) => {
                assert!(part == whole || part == Ok(Parsed::Partial), "{length} bytes: {part:?}, whole: {whole:?}")
            }
        }
        let finds = head_end.find(&bytes[..length]);
        assert!(finds || !found, "what was found is forgotten");
        found = finds;
        assert!(!found || part != Ok(Parsed::Partial), "{length} bytes were said to be worth parsing");
        if let Ok(Parsed::Complete { length: full }) = whole {
            assert_eq!(found, length >= full, "{length} bytes");
        }
    }
    if whole.is_ok() {
        assert_eq!(format!("{used:?}"), format!("{head:?}"), "something was left from an earlier head");
    }
    (head, whole)
}

/// A head with everything set, as an earlier message may leave it.
fn used_head() -> Head {
    let text = b"POST http://a/b?c HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: upgrade\r\nUpgrade: x\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\n";
    let mut head = Head::default();
    let parsed = head.parse_request(text, &LIMITS);
    assert_eq!(parsed, Ok(Parsed::Complete { length: text.len() }));
    assert!(head.te_trailers && head.expect_continue && !head.upgrade.is_empty());
    head
}

fn request_with(text: &[u8], limits: &Limits) -> (Head, Result<Parsed, Reject>) {
    parse_all_ways(text, limits, |head, bytes, limits| head.parse_request(bytes, limits))
}

fn response_with(text: &[u8], to: Method) -> (Head, Result<Parsed, Reject>) {
    parse_all_ways(text, &LIMITS, |head, bytes, limits| head.parse_response(bytes, to, limits))
}

fn accepted(text: &str, (head, verdict): (Head, Result<Parsed, Reject>)) -> Head {
    assert_eq!(verdict, Ok(Parsed::Complete { length: text.len() }), "{text:?}");
    head
}

/// Parses a request that must be good.
#[track_caller]
fn request(text: &str) -> Head {
    let behind = format!("{text}GET / HTTP/1.1\r\nbad line\n");
    accepted(text, request_with(behind.as_bytes(), &LIMITS))
}

/// Parses an answer that must be good.
#[track_caller]
fn response(text: &str, to: Method) -> Head {
    let behind = format!("{text}HTTP/1.1 200 OK\r\nbad line\n");
    accepted(text, response_with(behind.as_bytes(), to))
}

/// Whether what follows changes nothing: the reason must be the first thing wrong.
#[track_caller]
fn refuses(text: &str, reject: Reject) {
    refuses_bytes(text.as_bytes(), reject);
}

#[track_caller]
fn refuses_bytes(text: &[u8], reject: Reject) {
    assert_eq!(request_with(text, &LIMITS).1, Err(reject), "{}", text.escape_ascii());
    let behind = [text, b"\r\nx: y\r\n\r\n\0\n"].concat();
    assert_eq!(request_with(&behind, &LIMITS).1, Err(reject), "{}", behind.escape_ascii());
}

#[track_caller]
fn refuses_response(text: &str, reject: Reject) {
    assert_eq!(response_with(text.as_bytes(), Method::Get).1, Err(reject), "{text:?}");
}

/// A good GET with these lines (CRLF each) behind Host.
fn with(lines: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n")
}

#[test]
fn a_typical_request() {
    let text = "GET /shop/cart?item=17 HTTP/1.1\r\nHost: shop.example.com\r\nUser-Agent: curl/8.5.0\r\nAccept: */*\r\nX-Beta:\t1 \r\ncookie: a=b; c=d\r\n\r\n";
    let head = request(text);
    let bytes = text.as_bytes();
    assert_eq!((head.method, head.version), (Method::Get, Version::Http11));
    assert_eq!(head.method_span.of(bytes), b"GET");
    assert_eq!(head.path.of(bytes), b"/shop/cart");
    assert_eq!(head.query.of(bytes), b"?item=17");
    assert_eq!(head.authority.of(bytes), b"shop.example.com");
    assert_eq!((head.body, head.keep_alive), (Body::None, true));
    let fields: Vec<_> =
        head.fields.iter().map(|f| (f.name.of(bytes), f.value.of(bytes), f.id, f.hop_by_hop)).collect();
    let expected: [(&[u8], &[u8], FieldName, bool); 5] = [
        (b"Host", b"shop.example.com", FieldName::Host, false),
        (b"User-Agent", b"curl/8.5.0", FieldName::UserAgent, false),
        (b"Accept", b"*/*", FieldName::Accept, false),
        (b"X-Beta", b"1", FieldName::Other, false),
        (b"cookie", b"a=b; c=d", FieldName::Cookie, false),
    ];
    assert_eq!(fields, expected);
    assert!(head.field(FieldName::Cookie).is_some() && head.field(FieldName::Via).is_none());
}

#[test]
fn all_values_of_a_name_are_seen() {
    let text = with("x-a: 1\r\nb: 2\r\nX-A: 3\r\nx-ab: 4\r\n");
    let head = request(&text);
    let values: Vec<_> = head.values(text.as_bytes(), b"X-a").collect();
    assert_eq!(values, [b"1", b"3"]);
}

#[test]
fn limits_and_one_more() {
    let text = with("a: b\r\nc: d\r\n");
    let target = "GET /234567?90 HTTP/1.1\r\nHost: a\r\n\r\n";
    let tight = Limits { head_bytes: text.len(), fields: 3, target_bytes: 1 };
    assert_eq!(request_with(text.as_bytes(), &tight).1, Ok(Parsed::Complete { length: text.len() }));
    let less = Limits { head_bytes: text.len() - 1, ..tight };
    assert_eq!(request_with(text.as_bytes(), &less).1, Err(Reject::HeadTooLarge));
    let less = Limits { fields: 2, ..tight };
    assert_eq!(request_with(text.as_bytes(), &less).1, Err(Reject::TooManyFields));
    for (target_bytes, verdict) in [
        (10, Ok(Parsed::Complete { length: target.len() })),
        (9, Err(Reject::TargetTooLong)),
        (7, Err(Reject::TargetTooLong)),
    ] {
        let limits = Limits { target_bytes, ..LIMITS };
        assert_eq!(request_with(target.as_bytes(), &limits).1, verdict);
    }
    let absolute = "GET http://a/bc HTTP/1.1\r\nHost: a\r\n\r\n";
    assert!(request_with(absolute.as_bytes(), &Limits { target_bytes: 11, ..LIMITS }).1.is_ok());
    for target_bytes in [0, 7, 10] {
        let limits = Limits { target_bytes, ..LIMITS };
        assert_eq!(request_with(absolute.as_bytes(), &limits).1, Err(Reject::TargetTooLong));
    }
}

#[test]
fn limits_hold_for_heads_without_an_end() {
    let limits = Limits { head_bytes: 100, fields: 10, target_bytes: 50 };
    let endless = |start: &str| format!("{start}{}", "x".repeat(200));
    assert_eq!(request_with(endless("GET / HTTP/1.1\r\na: ").as_bytes(), &limits).1, Err(Reject::HeadTooLarge));
    assert_eq!(request_with(endless("GET / HTTP/1.1\r\n").as_bytes(), &limits).1, Err(Reject::HeadTooLarge));
    assert_eq!(request_with(endless("").as_bytes(), &limits).1, Err(Reject::HeadTooLarge));
    assert_eq!(request_with(endless("GET /").as_bytes(), &limits).1, Err(Reject::TargetTooLong));
    assert_eq!(request_with(endless("GET /?").as_bytes(), &limits).1, Err(Reject::TargetTooLong));
    assert_eq!(request_with(endless("GET http://").as_bytes(), &limits).1, Err(Reject::TargetTooLong));
    let many = format!("GET / HTTP/1.1\r\n{}", "a:\r\n".repeat(11));
    assert_eq!(request_with(many.as_bytes(), &limits).1, Err(Reject::TooManyFields));
}

#[test]
fn limits_of_zero_and_of_everything() {
    let none = Limits { head_bytes: 0, fields: 0, target_bytes: 0 };
    assert_eq!(request_with(b"", &none).1, Err(Reject::HeadTooLarge));
    let all = Limits { head_bytes: usize::MAX, fields: usize::MAX, target_bytes: usize::MAX };
    assert!(request_with(with("").as_bytes(), &all).1.is_ok());
}

#[test]
fn parsing_does_not_allocate_once_grown() {
    let mut head = used_head();
    let room = head.fields.capacity();
    for _ in 0..10 {
        let _ = head.parse_request(with("a: b\r\n").as_bytes(), &LIMITS);
    }
    assert_eq!(head.fields.capacity(), room);
}

#[test]
fn head_end_is_found_in_linear_time() {
    let bytes = vec![b'x'; 100_000];
    let mut head_end = HeadEnd::default();
    for length in (0..bytes.len()).step_by(7) {
        assert!(!head_end.find(&bytes[..length]));
        assert_eq!(head_end.scanned, length);
    }
}

#[test]
fn rfc9112_2_2_broken_line_ends_are_worth_parsing() {
    for text in ["GET / HTTP/1.1\n", "GET / HTTP/1.1\r\nHost: a\n", "\n", "\r\n\n", "\r\n\r\n"] {
        let bytes = text.as_bytes();
        let mut head_end = HeadEnd::default();
        assert!(!head_end.find(&bytes[..bytes.len() - 1]), "{text:?}");
        assert!(head_end.find(bytes), "{text:?}");
    }
    for text in ["\r\nGET / HTTP/1.1\r\n", "a\r\nb\r\n\r", "\r\r\n"] {
        assert!(!HeadEnd::default().find(text.as_bytes()), "{text:?}");
    }
}

#[test]
fn reasons_have_a_status_and_a_label_of_their_own() {
    let statuses = [
        (Reject::BareCr, 400),
        (Reject::TargetTooLong, 414),
        (Reject::ExpectationUnknown, 417),
        (Reject::HeadTooLarge, 431),
        (Reject::TooManyFields, 431),
        (Reject::TrailersTooLarge, 431),
        (Reject::UnsupportedTransferCoding, 501),
        (Reject::ConnectRefused, 501),
        (Reject::VersionUnsupported, 505),
    ];
    for (reject, status) in statuses {
        assert_eq!(reject.status(), status);
        assert!(!crate::h1::write::reason(status).is_empty());
        let label = reject.label();
        assert!(label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'));
        let words: String = format!("{reject:?}")
            .chars()
            .flat_map(|c| match c.is_uppercase() {
                true => vec!['_', c.to_ascii_lowercase()],
                false => vec![c],
            })
            .collect();
        assert_eq!(words.trim_start_matches('_'), label);
        assert_eq!(reject.to_string(), reject.text());
    }
}

proptest! {
    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = request_with(&bytes, &LIMITS);
        let _ = response_with(&bytes, Method::Get);
    }

    /// Nearly good heads, with tight limits.
    #[test]
    fn any_pieces(
        pieces in prop::collection::vec(prop::sample::select(PIECES), 0..14),
        head_bytes in 0..200usize,
        fields in 0..5usize,
        target_bytes in 0..20usize,
    ) {
        let limits = Limits { head_bytes, fields, target_bytes };
        let text = pieces.concat();
        for start in ["", "GET / HTTP/1.1\r\nHost: a\r\n", "HTTP/1.1 200 OK\r\n"] {
            let text = [start, &text, "\r\n\r\n"].concat();
            for limits in [&limits, &LIMITS] {
                let _ = request_with(text.as_bytes(), limits);
                let _ = parse_all_ways(text.as_bytes(), limits, |head, bytes, limits| {
                    head.parse_response(bytes, Method::Head, limits)
                });
            }
        }
    }

    /// What is accepted, written and parsed again is the same request.
    #[test]
    fn what_is_written_parses_alike(pieces in prop::collection::vec(prop::sample::select(LINES), 0..8)) {
        let text = with(&pieces.concat());
        let mut head = Head::default();
        if let Ok(Parsed::Complete { .. }) = head.parse_request(text.as_bytes(), &LIMITS) {
            let mut out = b"GET / HTTP/1.1\r\n".to_vec();
            crate::h1::write::write_fields(&mut out, text.as_bytes(), &head.fields, |_| true);
            out.extend_from_slice(b"\r\n");
            let mut again = Head::default();
            let parsed = again.parse_request(&out, &LIMITS);
            prop_assert_eq!(parsed, Ok(Parsed::Complete { length: out.len() }));
            let kept = |head: &Head, bytes: &[u8]| -> Vec<(Vec<u8>, Vec<u8>)> {
                let fields = head.fields.iter().filter(|field| !field.hop_by_hop);
                fields.map(|f| (f.name.of(bytes).to_vec(), f.value.of(bytes).to_vec())).collect()
            };
            prop_assert_eq!(kept(&again, &out), kept(&head, text.as_bytes()));
        }
    }
}

const PIECES: &[&str] = &[
    "GET ",
    "OPTIONS ",
    "/",
    "*",
    "?a=b",
    "http://a",
    "https://B:80",
    " HTTP/1.1",
    " HTTP/1.0",
    "HTTP/",
    "1.1",
    " 200 ",
    "204",
    "OK",
    "\r\n",
    "\r",
    "\n",
    "\0",
    " ",
    "\t",
    ":",
    "Host: a",
    "Content-Length: 5",
    "Transfer-Encoding: chunked",
    "Connection: ",
    "close",
    "x",
    "X-Y:z",
    "é",
    "#",
    ",",
    "Upgrade: h2c",
    "Expect: 100-continue",
];

const LINES: &[&str] = &[
    "a: b\r\n",
    "a:b\r\n",
    "a:\t b \r\n",
    "a:\r\n",
    "a: \r\n",
    "b: \u{e9}\r\n",
    "connection: a\r\n",
    "connection: close\r\n",
    "te: trailers\r\n",
    "content-length: 3\r\n",
    "upgrade: x\r\n",
    "keep-alive: 3\r\n",
];
