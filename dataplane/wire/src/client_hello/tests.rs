//! Hellos of rustls and as others write them; whole, in pieces, over records split at every place, and each one wrong.

use super::*;
use rustls::pki_types::ServerName;
use std::sync::Arc;

/// A hello that rustls makes for this name and these protocols.
fn rustls_hello(name: &str, alpn: &[&[u8]]) -> Vec<u8> {
    let mut config = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut connection = rustls::client::ClientConnection::new(Arc::new(config), name).unwrap();
    let mut bytes = Vec::new();
    connection.write_tls(&mut bytes).unwrap();
    bytes
}

/// Length of so many bytes, then what it is the length of.
fn sized(length_bytes: usize, bytes: &[u8]) -> Vec<u8> {
    let length = bytes.len().to_be_bytes();
    [&length[length.len() - length_bytes..], bytes].concat()
}

fn extension(kind: u16, data: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &sized(2, data)].concat()
}

fn names(names: &[(u8, &[u8])]) -> Vec<u8> {
    let list: Vec<u8> = names.iter().flat_map(|(kind, name)| [vec![*kind], sized(2, name)].concat()).collect();
    extension(SERVER_NAME, &sized(2, &list))
}

fn body(extensions: &[u8]) -> Vec<u8> {
    let session = sized(1, &[7; 32]);
    let suites = sized(2, &[0x2a, 0x2a, 0x13, 0x01, 0xc0, 0x2b]);
    [&[3, 3][..], &[9; 32], &session, &suites, &sized(1, &[0]), extensions].concat()
}

fn message(body: &[u8]) -> Vec<u8> {
    [&[CLIENT_HELLO][..], &sized(3, body)].concat()
}

fn record(fragment: &[u8]) -> Vec<u8> {
    [&[HANDSHAKE, 3, 1][..], &sized(2, fragment)].concat()
}

/// As OpenSSL's and browsers' are: GREASE (RFC 8701) first and last, several extensions, the name among them.
fn built(name: &[u8]) -> Vec<u8> {
    let extensions = [
        extension(0x1a1a, b""),
        names(&[(HOST_NAME, name)]),
        extension(11, &[3, 0, 1, 2]),
        extension(10, &sized(2, &[0x3a, 0x3a, 0, 29, 0, 23])),
        extension(35, b""),
        extension(ALPN, &sized(2, &[sized(1, &[0x8a, 0x8a]), sized(1, b"h2"), sized(1, b"http/1.1")].concat())),
        extension(43, &sized(1, &[0x4a, 0x4a, 3, 4, 3, 3])),
        extension(0xfafa, &[0]),
    ];
    record(&message(&body(&sized(2, &extensions.concat()))))
}

fn verdict(extensions: &[u8]) -> Result<Option<Hello>, Reject> {
    read(&record(&message(&body(&sized(2, extensions)))), MOST_BYTES)
}

fn sni_of(name: &[u8]) -> Result<Option<String>, Reject> {
    read(&built(name), MOST_BYTES).map(|hello| hello.unwrap().sni.map(String::from))
}

fn alpn_of(hello: &Hello) -> Vec<&[u8]> {
    hello.alpn.names().collect()
}

/// Every part of it needs more, with a reader that goes on and one that begins anew; all of it is this.
fn holds_in_pieces(bytes: &[u8], whole: Result<Option<Hello>, Reject>) {
    let mut reader = Reader::new(MOST_BYTES);
    for end in 0..bytes.len() {
        let part = read(&bytes[..end], MOST_BYTES);
        assert_eq!(reader.read(&bytes[..end]), part, "{end} bytes");
        assert!(part == Ok(None) || part == whole, "{end} bytes: {part:?}, whole: {whole:?}");
    }
    assert_eq!(reader.read(bytes), whole);
    assert_eq!(reader.read(bytes), whole, "asked again");
    assert_eq!(read(bytes, MOST_BYTES), whole);
}

#[test]
fn a_hello_of_rustls() {
    let bytes = rustls_hello("Shop.Example.com", &[b"h2", b"http/1.1"]);
    let hello = read(&bytes, MOST_BYTES).unwrap().unwrap();
    assert_eq!(hello.sni.as_deref(), Some("shop.example.com"));
    assert_eq!(alpn_of(&hello), [&b"h2"[..], b"http/1.1"]);
    assert_eq!(hello.length, bytes.len());
    holds_in_pieces(&bytes, Ok(Some(hello)));
}

#[test]
fn a_hello_of_rustls_to_an_address_has_no_name() {
    let hello = read(&rustls_hello("10.0.0.1", &[]), MOST_BYTES).unwrap().unwrap();
    assert_eq!((hello.sni.as_deref(), alpn_of(&hello).len()), (None, 0));
}

#[test]
fn rfc8701_grease_among_everything() {
    let bytes = built(b"WWW.example.ORG");
    let hello = read(&bytes, MOST_BYTES).unwrap().unwrap();
    assert_eq!(hello.sni.as_deref(), Some("www.example.org"));
    assert_eq!(alpn_of(&hello), [&[0x8a, 0x8a][..], b"h2", b"http/1.1"]);
    holds_in_pieces(&bytes, Ok(Some(hello)));
}

#[test]
fn what_follows_is_not_looked_at() {
    let bytes = built(b"a.example");
    let expected = read(&bytes, MOST_BYTES);
    for behind in [&b"\0"[..], &record(b"more"), b"GET / HTTP/1.1\r\n"] {
        assert_eq!(read(&[&bytes, behind].concat(), MOST_BYTES), expected);
        assert_eq!(read(&[&bytes, behind].concat(), bytes.len()), expected, "nor counted");
    }
}

#[test]
fn rfc5246_7_4_1_2_no_extensions() {
    let bytes = record(&message(&body(b"")));
    assert_eq!(read(&bytes, MOST_BYTES).unwrap().unwrap().sni, None);
    assert_eq!(verdict(b"").unwrap().unwrap().sni, None, "an empty list of them");
}

#[test]
fn rfc8446_5_1_two_records_split_at_every_place() {
    let whole = rustls_hello("split.example", &[b"h2"]);
    let message = &whole[RECORD_HEAD..];
    for place in 1..message.len() {
        let bytes = [record(&message[..place]), record(&message[place..])].concat();
        let hello = read(&bytes, MOST_BYTES).unwrap().unwrap();
        assert_eq!((hello.sni.as_deref(), hello.length), (Some("split.example"), bytes.len()), "split at {place}");
        assert_eq!(read(&bytes[..RECORD_HEAD + place], MOST_BYTES), Ok(None));
        assert_eq!(read(&bytes[..bytes.len() - 1], MOST_BYTES), Ok(None));
    }
}

#[test]
fn rfc8446_5_1_records_of_one_byte() {
    let whole = built(b"bytes.example");
    let bytes: Vec<u8> = whole[RECORD_HEAD..].iter().flat_map(|byte| record(&[*byte])).collect();
    let hello = read(&bytes, MOST_BYTES).unwrap().unwrap();
    assert_eq!((hello.sni.as_deref(), hello.length), (Some("bytes.example"), bytes.len()));
    holds_in_pieces(&bytes, Ok(Some(hello)));
}

#[test]
fn larger_than_one_record() {
    let padding = extension(21, &vec![0; 20_000]);
    let message = message(&body(&sized(2, &[padding, names(&[(HOST_NAME, b"large.example")])].concat())));
    let bytes: Vec<u8> = message.chunks(MOST_FRAGMENT).flat_map(record).collect();
    let hello = read(&bytes, MOST_BYTES).unwrap().unwrap();
    assert_eq!((hello.sni.as_deref(), hello.length), (Some("large.example"), bytes.len()));
    assert!(bytes.len() > RECORD_HEAD + MOST_FRAGMENT);
}

#[test]
fn a_reader_that_goes_on_looks_at_no_record_twice() {
    let whole = built(b"linear.example");
    let bytes: Vec<u8> = whole[RECORD_HEAD..].iter().flat_map(|byte| record(&[*byte])).collect();
    let mut reader = Reader::new(MOST_BYTES);
    let half = bytes.len() / 2;
    assert_eq!(reader.read(&bytes[..half]), Ok(None));
    assert!(reader.at + RECORD_HEAD >= half, "stands at {} of {half}", reader.at);
    // Heads seen before would be refused now.
    let spoilt = [vec![0; reader.at], bytes[reader.at..bytes.len() - 1].to_vec()].concat();
    assert_eq!(reader.read(&spoilt), Ok(None));
    assert_eq!(reader.at, bytes.len() - RECORD_HEAD - 1);
}

#[test]
fn the_limit_is_exact_and_told_early() {
    let whole = built(b"limit.example");
    let split: Vec<u8> = whole[RECORD_HEAD..].chunks(50).flat_map(record).collect();
    for bytes in [whole, split] {
        assert!(read(&bytes, bytes.len()).unwrap().is_some());
        assert_eq!(read(&bytes, bytes.len() - 1), Err(Reject::TooLarge));
    }
    // As soon as the message says how long it is, be its records as short as may be.
    let claims = [record(&[CLIENT_HELLO, 0]), record(&[0xff, 0xff])].concat();
    assert_eq!(read(&claims, MOST_BYTES), Err(Reject::TooLarge));
    assert_eq!(read(&claims[..claims.len() - 1], MOST_BYTES), Ok(None));
    // As soon as the next record cannot fit, and the record's length says so.
    assert_eq!(read(&record(&[CLIENT_HELLO, 0, 0]), 12), Err(Reject::TooLarge));
    assert_eq!(read(&[HANDSHAKE, 3, 1, 0x40, 0], 100), Err(Reject::TooLarge));
    assert_eq!(read(b"", 4), Err(Reject::TooLarge), "nothing fits");
}

#[test]
fn not_tls() {
    for bytes in [
        &b"GET / HTTP/1.1\r\n"[..],
        b"PRI",
        b"\0",
        b"\x80\x2e\x01\x03\x01",
        b"\xff",
        b"SSH-2.0",
        b"\x16\x04",
        b"\x15\x02",
    ] {
        assert_eq!(read(bytes, MOST_BYTES), Err(Reject::NotTls), "{bytes:?}");
    }
    assert_eq!(read(b"", MOST_BYTES), Ok(None));
    assert_eq!(read(&[HANDSHAKE], MOST_BYTES), Ok(None));
}

#[test]
fn records_that_no_hello_has() {
    for bytes in [
        // An alert, data, change_cipher_spec; none, too much (RFC 8446 section 5.1).
        vec![21, 3, 3, 0, 2, 2, 40],
        vec![23, 3, 3],
        vec![20, 3],
        vec![HANDSHAKE, 3, 1, 0, 0],
        vec![HANDSHAKE, 3, 1, 0x40, 1],
        // Between fragments, and what is no TLS there.
        [record(&[CLIENT_HELLO, 0]), vec![21]].concat().into_iter().chain([3]).collect(),
        [record(&[CLIENT_HELLO, 0]), vec![b'G']].concat(),
        [record(&[CLIENT_HELLO, 0]), vec![HANDSHAKE, 2]].concat(),
        // A message behind the hello in its record.
        record(&[message(&body(b"")), vec![0]].concat()),
        record(&[message(&body(b"")), message(&body(b""))].concat()),
    ] {
        assert_eq!(read(&bytes, MOST_BYTES), Err(Reject::BadRecord), "{bytes:?}");
    }
    let mut any_minor = built(b"a.example");
    any_minor[2] = 0xff;
    assert!(read(&any_minor, MOST_BYTES).is_ok(), "legacy_record_version must be ignored");
}

#[test]
fn another_message() {
    for kind in [0, 2, 11, 24, 255] {
        assert_eq!(read(&record(&[kind]), MOST_BYTES), Err(Reject::NotClientHello));
    }
}

/// Every length in a hello, one less and one more: never another name, never more than is there.
#[test]
fn rfc8446_3_4_lengths_that_lie() {
    let good = built(b"length.example");
    let name = names(&[(HOST_NAME, b"length.example")]);
    let at = good.windows(name.len()).position(|window| window == name).unwrap();
    let alpn = good.windows(4).position(|window| window == [0, 16, 0, 17]).unwrap();
    let session = RECORD_HEAD + MESSAGE_HEAD + 34;
    // Low bytes of: session, suites, compression, extensions, extension, list, name, ALPN: extension, list, name.
    let places =
        [session, session + 34, session + 41, session + 44, at + 3, at + 5, at + 8, alpn + 3, alpn + 5, alpn + 6];
    for place in places {
        for change in [1, 0xff] {
            let mut bytes = good.clone();
            bytes[place] = bytes[place].wrapping_add(change);
            let verdict = read(&bytes, MOST_BYTES);
            assert!(verdict.is_err(), "{place}: {:?}", verdict);
            holds_in_pieces(&bytes, verdict);
        }
    }
}

#[test]
fn lengths_of_the_message() {
    let body = body(b"");
    for (length, verdict) in
        [(body.len() - 1, Err(Reject::BadRecord)), (body.len() + 1, Ok(None)), (0, Err(Reject::BadRecord))]
    {
        let head = [&[CLIENT_HELLO][..], &(length as u32).to_be_bytes()[1..]].concat();
        assert_eq!(read(&record(&[head, body.clone()].concat()), MOST_BYTES), verdict, "{length}");
    }
    assert_eq!(read(&record(&message(b"")), MOST_BYTES), Err(Reject::Malformed));
}

/// A body cut anywhere, its message and record as short: without extensions it may end before them, and nowhere else.
#[test]
fn a_body_cut_at_every_place() {
    let whole = body(&sized(2, &names(&[(HOST_NAME, b"cut.example")])));
    let without = body(b"").len();
    for end in 0..whole.len() {
        let verdict = read(&record(&message(&whole[..end])), MOST_BYTES);
        let expected = if end == without { None } else { Some(Reject::Malformed) };
        assert_eq!(verdict.err(), expected, "{end} of {}", whole.len());
    }
}

#[test]
fn rfc8446_4_1_2_parts_that_none_has() {
    let spoilt = |change: fn(&mut Vec<u8>)| {
        let mut body = body(b"");
        change(&mut body);
        read(&record(&message(&body)), MOST_BYTES)
    };
    let malformed = Err(Reject::Malformed);
    assert_eq!(spoilt(|body| body[0] = 2), malformed, "version");
    assert_eq!(
        spoilt(|body| {
            body[34] = 33;
            body.insert(40, 0);
        }),
        malformed,
        "a session of 33 bytes"
    );
    assert_eq!(
        spoilt(|body| {
            body.splice(67..75, [0, 0]);
        }),
        malformed,
        "no suites"
    );
    assert_eq!(
        spoilt(|body| {
            body.splice(67..75, [0, 3, 1, 2, 3]);
        }),
        malformed,
        "one and a half suites"
    );
    assert_eq!(
        spoilt(|body| {
            body.splice(75..77, [0]);
        }),
        malformed,
        "no compression, not even none"
    );
    assert_eq!(spoilt(|body| body.push(0)), malformed, "half a length of extensions");
    assert_eq!(spoilt(|body| body.extend([0, 0, 0])), malformed, "bytes behind the extensions");
    assert!(spoilt(|_| {}).is_ok());
}

#[test]
fn rfc8446_4_2_an_extension_twice() {
    let one = names(&[(HOST_NAME, b"a.example")]);
    let other = names(&[(HOST_NAME, b"b.example")]);
    let empty = extension(35, b"");
    assert_eq!(verdict(&[one.clone(), other].concat()), Err(Reject::Malformed));
    assert_eq!(verdict(&[one.clone(), empty.clone(), one.clone()].concat()), Err(Reject::Malformed));
    assert_eq!(verdict(&[empty.clone(), one.clone(), empty.clone()].concat()), Err(Reject::Malformed));
    assert!(verdict(&[empty, one].concat()).is_ok());
}

#[test]
fn rfc6066_3_exactly_one_name() {
    let a: (u8, &[u8]) = (HOST_NAME, b"a.example");
    for list in
        [&[][..], &[a, (HOST_NAME, b"b.example")], &[a, a], &[(1, b"a.example")], &[(1, b"x"), a], &[a, (1, b"x")]]
    {
        assert_eq!(verdict(&names(list)), Err(Reject::NotOneName), "{list:?}");
    }
    assert_eq!(verdict(&extension(SERVER_NAME, b"")), Err(Reject::Malformed));
    assert_eq!(verdict(&extension(SERVER_NAME, &[0, 2, 0, 0])), Err(Reject::Malformed));
    let behind = [sized(2, &[vec![HOST_NAME], sized(2, b"a.b")].concat()), vec![0]].concat();
    assert_eq!(verdict(&extension(SERVER_NAME, &behind)), Err(Reject::Malformed));
}

#[test]
fn host_names() {
    let longest = [&"a.".repeat(95)[..], &"b".repeat(63)].concat();
    assert_eq!(longest.len(), MOST_NAME);
    for (given, name) in [
        ("a", "a"),
        ("EXAMPLE.com", "example.com"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("_sip._tcp.example", "_sip._tcp.example"),
        ("a--b.c-d", "a--b.c-d"),
        ("1.2.3.4.example", "1.2.3.4.example"),
        ("4u.4u", "4u.4u"),
        (&longest, &longest),
    ] {
        assert_eq!(sni_of(given.as_bytes()), Ok(Some(name.to_owned())), "{given}");
    }
}

#[test]
fn what_is_no_host_name() {
    let label = "a".repeat(MOST_LABEL + 1);
    let long = format!("c.{}{}", "a.".repeat(95), "b".repeat(62));
    assert_eq!(long.len(), MOST_NAME + 1);
    for given in [
        "",
        ".",
        "a.",
        "example.com.",
        ".a",
        "a..b",
        "-a.b",
        "a-.b",
        "a.-b",
        "a.b-",
        "a b",
        "a\0b",
        "a\0",
        "\0",
        "a/b",
        "a:443",
        "a,b",
        "*.a",
        "a%41",
        "ä.example",
        "a\r\n",
        "a\n",
        "1.2.3.4",
        "127.1",
        "2130706433",
        "a.1",
        "::1",
        "[::1]",
        "fe80::1",
        &label,
        &long,
    ] {
        assert_eq!(sni_of(given.as_bytes()), Err(Reject::BadName), "{given:?}");
    }
    assert_eq!(sni_of(b"a\xff.b"), Err(Reject::BadName));
}

#[test]
fn rfc7301_3_1_protocols() {
    let list = |bytes: &[u8]| verdict(&extension(ALPN, &sized(2, bytes)));
    assert!(list(&sized(1, b"h2")).is_ok());
    assert_eq!(list(b""), Err(Reject::Malformed));
    assert_eq!(list(&[0]), Err(Reject::Malformed), "an empty name");
    assert_eq!(list(&[2, b'h', b'2', 0]), Err(Reject::Malformed), "an empty name behind one");
    assert_eq!(list(&[3, b'h', b'2']), Err(Reject::Malformed));
    assert_eq!(verdict(&extension(ALPN, &[0, 3, 2, b'h', b'2', 0])), Err(Reject::Malformed), "bytes behind the list");
    assert_eq!(verdict(&extension(ALPN, b"")), Err(Reject::Malformed));
}
