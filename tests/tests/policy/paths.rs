//! No trick of spelling gets around a rule: the policy section of the notes on attacks, rule by rule, over encodings, whole, one byte
//! at a time, and split at every place. Either nothing reaches the service, or exactly what the rules were asked about.

use crate::gate::{Gate, gate, text};
use ringway_tests::Client;
use std::time::Duration;

/// A path with a forbidden and a public part.
fn site() -> Gate {
    let routes = "{ name: admin, match: { path: /admin/* }, to: app, request-headers: { set: { x-route: admin } } }, { name: rest, to: app, request-headers: { set: { x-route: rest } } }";
    gate(&text(
        "deny: [ { name: admin, path: /admin/* }, { name: host, hosts: [admin.test, '*.admin.test'] } ],",
        routes,
    ))
}

/// How a request's bytes are to be sent.
#[derive(Clone, Copy, Debug)]
enum Manner {
    Whole,
    Bytes,
    SplitAt(usize),
}

fn send(gate: &Gate, request: &[u8], manner: Manner) -> u16 {
    let mut client = Client::to(gate.proxy.address("web"));
    match manner {
        Manner::Whole => drop(client.try_send(request)),
        Manner::Bytes => drop(client.send_in_pieces(request, 1, Duration::from_micros(30))),
        Manner::SplitAt(at) => {
            let _taken = client.try_send(&request[..at]);
            std::thread::sleep(Duration::from_micros(150));
            let _taken = client.try_send(&request[at..]);
        }
    }
    let answer = client.try_answer("GET").unwrap_or_else(|e| panic!("{}: {e}", String::from_utf8_lossy(request)));
    if answer.status == 400 {
        assert!(client.is_closed(), "after 400 the connection ends");
    }
    answer.status
}

/// A path as the strictest of services would read it: decoded until nothing changes, backslashes as slashes, dots resolved.
fn read_by_anybody(target: &str) -> String {
    let mut path = target.split(['?', '#']).next().unwrap_or_default().to_owned();
    for _ in 0..1 {
        path = decoded(&path);
    }
    let mut segments: Vec<&str> = Vec::new();
    for segment in path.split('/').filter(|segment| !segment.is_empty() && *segment != ".") {
        if segment == ".." {
            segments.pop();
        } else {
            segments.push(segment);
        }
    }
    format!("/{}", segments.join("/"))
}

fn decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let hex = |n: usize| bytes.get(n).and_then(|byte| char::from(*byte).to_digit(16));
        match (bytes[at], hex(at + 1), hex(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                at += 3;
            }
            (byte, ..) => {
                out.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).replace('\\', "/")
}

/// No request that the service has seen is one to the forbidden part.
fn nothing_came_through(gate: &Gate) {
    for seen in gate.origin.seen() {
        let target = seen.head.word(1).to_owned();
        let read = read_by_anybody(&target);
        assert!(read != "/admin" && !read.starts_with("/admin/"), "{target} came through");
        assert_eq!(seen.head.field("x-route"), Some("rest"), "{target}");
        let host = seen.head.field("host").unwrap_or_default().to_ascii_lowercase();
        assert!(!host.contains("admin.test"), "{host} came through");
    }
    assert_eq!(gate.origin.faults(), Vec::<String>::new());
}

/// Each is refused: 403 by the rule, or 400 as no request at all.
const PATHS: &[(&str, u16)] = &[
    ("/admin", 403),
    ("/admin/", 403),
    ("/admin/secret", 403),
    ("/admin?x=y", 403),
    ("/admin/../admin", 403),
    // Slashes and dots.
    ("//admin/secret", 403),
    ("///admin//secret", 403),
    ("/./admin/secret", 403),
    ("/admin/./secret", 403),
    ("/admin/.", 403),
    ("/x/../admin/secret", 403),
    ("/x/y/../../admin", 403),
    ("/../admin/secret", 400),
    ("/../../../admin", 400),
    ("/public/..//admin/secret", 403),
    ("/x//../admin", 403),
    ("/admin/x/..", 403),
    // Encoded letters and dots, in either case.
    ("/%61dmin/secret", 403),
    ("/%61%64%6d%69%6e/secret", 403),
    ("/%61%64%6D%69%6E/secret", 403),
    ("/admi%6e", 403),
    ("/%2e/admin/secret", 403),
    ("/x/%2e%2e/admin/secret", 403),
    ("/x/%2E%2e/admin/secret", 403),
    ("/x/.%2e/admin/secret", 403),
    ("/x/%2e./admin/secret", 403),
    ("/%2e%2e/admin", 400),
    ("/x/%2e%2e/%61dmin", 403),
    ("//%2e//%61dmin//", 403),
    // An encoded slash, backslash, NUL: in whichever place.
    ("/admin%2Fsecret", 400),
    ("/admin%2fsecret", 400),
    ("/x%2Fadmin", 400),
    ("/x/..%2fadmin/secret", 400),
    ("/%2fadmin", 400),
    ("/admin%5Csecret", 400),
    ("/x/..%5cadmin", 400),
    ("/%5cadmin", 400),
    ("/admin%00", 400),
    ("/admin%00/secret", 400),
    ("/%00/admin", 400),
    // Bytes that stand in no path, and broken triplets.
    ("/admin\\secret", 400),
    ("\\admin", 400),
    ("/x/..\\admin", 400),
    ("/admin\x01", 400),
    ("/admin\x7f", 400),
    ("/admin%", 400),
    ("/admin/%zz", 400),
    ("/%6/admin", 400),
    ("/admin/%2", 400),
    ("/admin#x", 400),
    ("/#/admin", 400),
    // Other forms of a target.
    ("http://a.test/admin/secret", 403),
    ("http://a.test//admin", 403),
    ("http://a.test/x/../admin", 403),
    ("HTTP://A.test/%61dmin", 403),
    ("http://a.test/admin%2fx", 400),
    ("admin/secret", 400),
    ("?/admin", 400),
];

#[test]
fn paths_whole_and_byte_by_byte() {
    let gate = site();
    for (path, status) in PATHS {
        let request = format!("GET {path} HTTP/1.1\r\nHost: a.test\r\n\r\n");
        for manner in [Manner::Whole, Manner::Bytes] {
            assert_eq!(send(&gate, request.as_bytes(), manner), *status, "{path}, {manner:?}");
        }
    }
    assert_eq!(gate.origin.count(), 0);
}

#[test]
fn paths_split_at_every_place() {
    let gate = site();
    for (path, status) in PATHS {
        let request = format!("GET {path} HTTP/1.1\r\nHost: a.test\r\n\r\n");
        // Once the head is known to be wrong the answer may come before its end: from there on it makes no difference.
        for at in 1..request.len() {
            assert_eq!(send(&gate, request.as_bytes(), Manner::SplitAt(at)), *status, "{path}, split at {at}");
        }
    }
    assert_eq!(gate.origin.count(), 0);
}

#[test]
fn letters_of_a_rule_in_every_encoding() {
    // Each letter of `admin` as itself or as a triplet, in both cases of hex digits: all 3^5 spellings of them.
    let gate = site();
    let mut client = Client::to(gate.proxy.address("web"));
    for spelling in 0..3_usize.pow(5) {
        let mut path = String::from("/");
        for (n, letter) in "admin".bytes().enumerate() {
            match spelling / 3_usize.pow(n as u32) % 3 {
                0 => path.push(letter.into()),
                1 => path.push_str(&format!("%{letter:02x}")),
                _ => path.push_str(&format!("%{letter:02X}")),
            }
        }
        client.send(format!("GET {path}/x HTTP/1.1\r\nHost: a.test\r\n\r\n"));
        assert_eq!(client.answer().status, 403, "{path}");
    }
    assert_eq!(gate.origin.count(), 0);
}

#[test]
fn what_passes_is_what_was_matched() {
    let gate = site();
    for (path, forwarded) in [
        ("/public", Some("/public")),
        ("/administrator", Some("/administrator")),
        ("/x/admin", Some("/x/admin")),
        ("/admin/../public", Some("/public")),
        ("/admin/%2e%2e/public", Some("/public")),
        ("//public", Some("/public")),
        ("/p%75blic/./x", Some("/public/x")),
        // Decoded once only: what was encoded twice stays what it is.
        ("/%2561dmin/secret", Some("/%2561dmin/secret")),
        ("/%252e%252e/admin", Some("/%252e%252e/admin")),
        ("/x/%252e%252e/admin", Some("/x/%252e%252e/admin")),
        ("/admin%252fsecret", Some("/admin%252fsecret")),
        // Triplets that are no letters stay, in capitals or as they came.
        ("/%c3%a4", None),
        ("/%20admin", None),
        ("/x/..%c0%af../admin", None),
        ("/x?y=/admin/../%2fadmin", Some("/x?y=/admin/../%2fadmin")),
    ] {
        let before = gate.origin.count();
        let status = send(&gate, format!("GET {path} HTTP/1.1\r\nHost: a.test\r\n\r\n").as_bytes(), Manner::Whole);
        match (status, forwarded) {
            (200, Some(forwarded)) => {
                let seen = gate.origin.seen().pop().unwrap();
                assert!(seen.head.word(1).eq_ignore_ascii_case(forwarded), "{path}: {:?}", seen.head);
            }
            (200, None) => assert!(gate.origin.seen().pop().unwrap().head.word(1).eq_ignore_ascii_case(path), "{path}"),
            (400, None) => assert_eq!(gate.origin.count(), before),
            other => panic!("{path}: {other:?}"),
        }
    }
    nothing_came_through(&gate);
}

#[test]
fn an_allow_opens_no_more_than_it_says() {
    let gate = gate(&text(
        "allow: [ { name: public, path: /public/* } ],",
        "{ name: rest, to: app, request-headers: { set: { x-route: rest } } }",
    ));
    for (path, statuses) in [
        ("/public/x", &[200_u16][..]),
        ("/public/../admin", &[403]),
        ("/public/%2e%2e/admin", &[403]),
        ("/public/..%2fadmin", &[400]),
        ("/public%2f..%2fadmin", &[400]),
        ("/public/..\\admin", &[400]),
        ("/public/..;/admin", &[200, 400]),
        ("/publicx", &[403]),
        ("/PUBLIC/x", &[403]),
        ("/public%00/x", &[400]),
        ("/x/public/", &[403]),
        ("/public/./../admin", &[403]),
        ("/public//..//admin", &[403]),
        ("/%70ublic/x", &[200]),
        ("/%2570ublic/x", &[403]),
        ("/?/public/x", &[403]),
        ("/admin?/../public/", &[403]),
        ("/admin#/../public/", &[400]),
    ] {
        for manner in [Manner::Whole, Manner::Bytes] {
            let status = send(&gate, format!("GET {path} HTTP/1.1\r\nHost: a.test\r\n\r\n").as_bytes(), manner);
            assert!(statuses.contains(&status), "{path}: {status}");
        }
    }
    for seen in gate.origin.seen() {
        assert!(read_by_anybody(seen.head.word(1)).starts_with("/public/"), "{:?}", seen.head);
    }
}

/// What stands for the host, and its status.
const HOSTS: &[(&str, u16)] = &[
    ("Host: admin.test", 403),
    ("Host: ADMIN.Test", 403),
    ("Host: admin.test.", 403),
    ("Host: Admin.TEST.:8080", 403),
    ("Host: admin.test:80", 403),
    ("Host: admin.test:65535", 403),
    ("Host: x.admin.test", 403),
    ("Host: x.y.ADMIN.test.", 403),
    ("Host:admin.test", 403),
    ("Host:   admin.test   ", 403),
    ("HOST: admin.test", 403),
    // Not one valid Host.
    ("Host: a.test\r\nHost: admin.test", 400),
    ("Host: admin.test\r\nHost: a.test", 400),
    ("Host: admin.test, a.test", 400),
    ("Host: a.test admin.test", 400),
    ("Host: x@admin.test", 400),
    ("Host: admin.test/x", 400),
    ("Host: admin.test#x", 400),
    ("Host: admin.test?x", 400),
    ("Host: admin.test\\x", 400),
    ("Host: admin.test:x", 400),
    ("Host: admin.test:99999", 400),
    ("Host: admin.test\0", 400),
    ("Host : admin.test", 400),
    (" Host: admin.test", 400),
    ("Host: a.test\r\n Host: admin.test", 400),
    ("X: y", 400),
];

#[test]
fn hosts_whole_and_split_at_every_place() {
    let gate = site();
    for (host, status) in HOSTS {
        let request = format!("GET /x HTTP/1.1\r\n{host}\r\n\r\n");
        assert_eq!(send(&gate, request.as_bytes(), Manner::Whole), *status, "{host:?}");
        assert_eq!(send(&gate, request.as_bytes(), Manner::Bytes), *status, "{host:?}");
        for at in (1..request.len()).step_by(2) {
            assert_eq!(send(&gate, request.as_bytes(), Manner::SplitAt(at)), *status, "{host:?}, split at {at}");
        }
    }
    // The target's authority is the host, and another Host beside it is none (RFC 9112 section 3.2.2: to refuse is allowed).
    for (target, host, statuses) in [
        ("http://admin.test/", "admin.test", &[403_u16][..]),
        ("http://ADMIN.test:80/", "ADMIN.test:80", &[403]),
        ("http://admin.test/", "a.test", &[400]),
        ("http://a.test/", "admin.test", &[400]),
        ("http://x@admin.test/", "a.test", &[400]),
        ("http://admin.test", "admin.test", &[403, 400]),
    ] {
        let status = send(&gate, format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes(), Manner::Whole);
        assert!(statuses.contains(&status), "{target}, {host}: {status}");
    }
    assert_eq!(gate.origin.count(), 0);
}

#[test]
fn odd_hosts_that_pass_are_passed_as_they_are() {
    let gate = site();
    for host in ["admin%2etest", "%61dmin.test", "admin-test", "admin.test.evil", "notadmin.test"] {
        let before = gate.origin.count();
        match send(&gate, format!("GET /x HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes(), Manner::Whole) {
            200 => assert_eq!(gate.origin.seen().pop().unwrap().head.field("host"), Some(host)),
            status => {
                assert_eq!((status, gate.origin.count()), (400, before), "{host}");
            }
        }
    }
}

#[test]
fn pipelined_behind_an_innocent_one() {
    let gate = site();
    for second in ["/admin/x", "//admin/x", "/%61dmin/x"] {
        let mut client = Client::to(gate.proxy.address("web"));
        client.send(format!(
            "POST /ok HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\n\r\nhelloGET {second} HTTP/1.1\r\nHost: a.test\r\n\r\n"
        ));
        assert_eq!(client.answer().status, 200);
        assert_eq!(client.answer().status, 403, "{second}");
    }
    // What looks like a request within a body is none.
    let mut client = Client::to(gate.proxy.address("web"));
    let inside = "GET /admin/x HTTP/1.1\r\nHost: a.test\r\n\r\n";
    client.send(format!("POST /ok HTTP/1.1\r\nHost: a.test\r\nContent-Length: {}\r\n\r\n{inside}", inside.len()));
    assert_eq!(client.answer().status, 200);
    assert!(client.is_silent(Duration::from_millis(50)));
    nothing_came_through(&gate);
}

#[test]
fn fields_under_other_spellings() {
    let gate = gate(&text(
        "deny: [ { name: debug, headers: { x-debug: { present: true } } } ],",
        "{ name: rest, to: app, request-headers: { set: { x-route: rest } } }",
    ));
    for (fields, status) in [
        ("X-Debug: 1", 403),
        ("x-dEBUG:1", 403),
        ("X-Debug:", 403),
        ("A: b\r\nX-Debug: 1\r\nC: d", 403),
        ("X-Debug : 1", 400),
        (" X-Debug: 1", 400),
        ("A: b\r\n X-Debug: 1", 400),
        ("A: b\rX-Debug: 1", 400),
        ("A: b\nX-Debug: 1", 400),
        ("A: b\0\r\nX-Debug: 1", 400),
        ("X-Debug", 400),
        // Named as one of this hop only: it is not passed on, whether it is refused or not.
        ("Connection: X-Debug\r\nX-Debug: 1", 0),
    ] {
        let request = format!("GET /x HTTP/1.1\r\nHost: a.test\r\n{fields}\r\n\r\n");
        for manner in [Manner::Whole, Manner::Bytes, Manner::SplitAt(request.len() / 2)] {
            let got = send(&gate, request.as_bytes(), manner);
            assert!(got == status || (status == 0 && matches!(got, 200 | 403)), "{fields:?}: {got}");
        }
    }
    // In a trailer it is none of the head's fields, here and behind us.
    let mut client = Client::to(gate.proxy.address("web"));
    client.send(
        "POST /t HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nX-Debug: 1\r\n\r\n",
    );
    assert_eq!(client.answer().status, 200);
    assert!(gate.origin.seen().iter().all(|seen| seen.head.field("x-debug").is_none()));
}
