//! What comes to a TLS port and is no handshake that may go on: plaintext, old versions, hellos without end, records that do not
//! open, early data.

use crate::shop::{OWN, failed, failures, web};
use ringway_tests::certificates::{Authority, Leaf};
use ringway_tests::tls::{Server, TLS_1_2, TLS_1_3, Tls};
use ringway_tests::{Client, Origin, Proxy, Run, Stream, answers, eventually, respond};
use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

fn site(more: &str) -> (Authority, Origin, Proxy) {
    let authority = Authority::new("root");
    let origin = Origin::echo();
    let text = web(OWN, "", &origin) + more;
    let proxy = Run::new(&text).pair("own", &authority.issue(&Leaf::of(&["a.test"]))).start();
    (authority, origin, proxy)
}

/// A ClientHello of these versions, suites and extensions, in one record.
fn hello(version: u16, suites: &[u16], extensions: &[u8]) -> Vec<u8> {
    let mut body = version.to_be_bytes().to_vec();
    body.extend_from_slice(&[7; 32]);
    body.push(0);
    body.extend_from_slice(&(suites.len() as u16 * 2).to_be_bytes());
    suites.iter().for_each(|suite| body.extend_from_slice(&suite.to_be_bytes()));
    body.extend_from_slice(&[1, 0]);
    body.extend_from_slice(&(extensions.len() as u16).to_be_bytes());
    body.extend_from_slice(extensions);
    let mut out = vec![22, 3, 1];
    out.extend_from_slice(&(body.len() as u16 + 4).to_be_bytes());
    out.push(1);
    out.extend_from_slice(&(body.len() as u32).to_be_bytes()[1..]);
    out.extend_from_slice(&body);
    out
}

/// secp256r1 and x25519; uncompressed points; ecdsa_secp256r1_sha256, ecdsa_sha1, rsa_pkcs1_sha1.
const OLD_EXTENSIONS: &[u8] = &[
    0, 10, 0, 6, 0, 4, 0, 23, 0, 29, 0, 11, 0, 2, 1, 0, 0, 13, 0, 8, 0, 6, 4, 3, 2, 3, 2, 1, 0, 23, 0, 0, 0xFF, 1, 0,
    1, 0,
];

/// The alert that ends a connection, if one comes: its description (RFC 8446 section 6).
fn alert(client: &mut Client) -> Option<u8> {
    match client.rest() {
        Ok(bytes) if bytes.is_empty() => None,
        Ok(bytes) => {
            assert_eq!((bytes[0], bytes.len(), bytes[5]), (21, 7, 2), "one fatal alert: {bytes:?}");
            Some(bytes[6])
        }
        Err(e) => {
            assert_eq!(e.kind(), std::io::ErrorKind::ConnectionReset, "{e}");
            None
        }
    }
}

#[test]
fn plaintext_on_a_tls_port() {
    let (_authority, origin, proxy) = site("");
    let mut count = 0.0;
    for bytes in [
        "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "SSH-2.0-x\r\n",
        "\0\0\0\0\0\0\0\0\0\0",
    ] {
        let mut client = Client::to(proxy.address("web"));
        client.send(bytes);
        alert(&mut client);
        count += 1.0;
    }
    failed(&proxy, "downstream", &["not_tls"], count);
    assert_eq!(origin.count(), 0);
}

#[test]
fn versions_before_1_2_have_nothing_in_common_with_us() {
    let (_authority, origin, proxy) = site("");
    let suites = [0xC02B, 0xC009, 0xC013, 0x002F, 0x000A];
    // SSL 3.0, TLS 1.0, TLS 1.1; and a modern hello that lists only old ones.
    let listed = [&[0, 43, 0, 5, 4, 3, 2, 3, 1][..], OLD_EXTENSIONS].concat();
    let hellos = [
        hello(0x0300, &suites, OLD_EXTENSIONS),
        hello(0x0301, &suites, OLD_EXTENSIONS),
        hello(0x0302, &suites, OLD_EXTENSIONS),
        hello(0x0303, &suites, &listed),
    ];
    for (count, bytes) in hellos.iter().enumerate() {
        let mut client = Client::to(proxy.address("web"));
        client.send(bytes);
        assert_eq!(alert(&mut client), Some(70), "protocol_version: hello {count}");
        failed(&proxy, "downstream", &["no_common_version"], count as f64 + 1.0);
    }
    assert_eq!(origin.count(), 0);
}

#[test]
fn a_1_2_handshake_carries_the_sign_against_downgrades() {
    // RFC 8446 section 4.1.3: a server that has TLS 1.3 marks the random of a TLS 1.2 ServerHello.
    let (_authority, _origin, proxy) = site("");
    let mut client = Client::to(proxy.address("web"));
    client.send(hello(0x0303, &[0xC02B, 0xC02C, 0xCCA9], OLD_EXTENSIONS));
    let start = client.read(5 + 4 + 2 + 32);
    assert_eq!((start[0], start[5], &start[9..11]), (22, 2, &[3, 3][..]), "a ServerHello of TLS 1.2");
    assert_eq!(&start[35..43], b"DOWNGRD\x01");
}

#[test]
fn only_suites_with_forward_secrecy_and_aead() {
    let (_authority, origin, proxy) = site("");
    // RSA key exchange, CBC, RC4, 3DES, NULL, anonymous, export.
    let weak = [0x009C, 0x009D, 0x002F, 0xC009, 0xC00A, 0xC007, 0xC008, 0x000A, 0x0005, 0x0000, 0xC018, 0x0034, 0x0003];
    let mut client = Client::to(proxy.address("web"));
    client.send(hello(0x0303, &weak, OLD_EXTENSIONS));
    assert_eq!(alert(&mut client), Some(40), "handshake_failure");
    failed(&proxy, "downstream", &["no_common_cipher"], 1.0);
    assert_eq!(origin.count(), 0);
}

#[test]
fn a_hello_that_never_ends_is_closed_within_the_bound() {
    let (authority, origin, proxy) = site("limits: { request-timeout: 1s }\n");
    let bytes = Tls::trusting(&[&authority]).hello("a.test");
    let begun = Instant::now();
    let mut silent = Client::to(proxy.address("web"));
    let mut half = Client::to(proxy.address("web"));
    half.send(&bytes[..bytes.len() - 1]);
    let mut slow = Client::to(proxy.address("web"));
    let mut twin = slow.twin();
    let trickle = std::thread::spawn(move || {
        for byte in bytes {
            if twin.write_all(&[byte]).is_err() {
                return;
            }
            std::thread::sleep(Duration::from_millis(300));
        }
    });
    for client in [&mut silent, &mut half, &mut slow] {
        alert(client);
        assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    }
    trickle.join().unwrap();
    failed(&proxy, "downstream", &["timeout"], 3.0);
    // One that stops behind its hello is bounded too.
    let mut client = Client::to(proxy.address("web"));
    client.send(Tls::trusting(&[&authority]).hello("a.test"));
    let begun = Instant::now();
    let _server_hello_and_end = client.rest();
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    failed(&proxy, "downstream", &["timeout"], 4.0);
    assert_eq!(origin.count(), 0);
}

#[test]
fn a_hello_without_end_in_size_is_refused() {
    let (_authority, origin, proxy) = site("");
    let mut client = Client::to(proxy.address("web"));
    client.send([22, 3, 1, 0, 5, 1, 0xFF, 0xFF, 0xFF, 3]);
    let mut record = vec![22, 3, 1, 0x40, 0];
    record.extend_from_slice(&[3; 0x4000]);
    let mut taken = 0;
    while taken < 64 && client.try_send(&record).is_ok() {
        taken += 1;
        std::thread::sleep(Duration::from_millis(2));
    }
    assert!(taken < 64, "a mebibyte of hello was taken");
    failed(&proxy, "downstream", &["too_large", "bad_record", "limit"], 1.0);
    // A record that is larger than any may be.
    let mut client = Client::to(proxy.address("web"));
    client.send([22, 3, 1, 0xFF, 0xFF, 1, 0, 1, 0]);
    alert(&mut client);
    failed(&proxy, "downstream", &["too_large", "bad_record", "limit", "not_tls"], 2.0);
    assert_eq!(origin.count(), 0);
}

#[test]
fn those_who_leave_are_counted_too() {
    let (authority, _origin, proxy) = site("");
    let mut client = Client::to(proxy.address("web"));
    client.send(&Tls::trusting(&[&authority]).hello("a.test")[..50]).finish();
    alert(&mut client);
    failed(&proxy, "downstream", &["peer_gone"], 1.0);
    // One that does not trust us says so.
    let other = Authority::new("other");
    assert!(Tls::trusting(&[&other]).try_connect(proxy.address("web"), "a.test").is_err());
    eventually("its alert is counted", || {
        failures(&proxy.metrics(), "downstream", &["peer_alert", "peer_gone"]) >= 2.0
    });
}

#[test]
fn a_record_that_does_not_open_ends_the_connection() {
    let (authority, origin, proxy) = site("");
    for versions in [TLS_1_2, TLS_1_3] {
        for bytes in [
            // Of an application, forged; plaintext; an alert in plain; a handshake message in plain; one that is too large; none at all.
            [&[23, 3, 3, 0, 60][..], &[9; 60]].concat(),
            b"GET /forged HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(),
            [&[23, 3, 3, 0, 27][..], b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"].concat(),
            vec![21, 3, 3, 0, 2, 1, 0],
            [&[22, 3, 3, 0, 4][..], &[0, 0, 0, 0]].concat(),
            [&[23, 3, 3, 0x50, 0][..], &[9; 0x5000]].concat(),
            vec![23, 3, 3, 0, 0],
        ] {
            let before = origin.count();
            let socket = TcpStream::connect(proxy.address("web")).unwrap();
            let mut twin = Client::over(Stream::Tcp(socket.try_clone().unwrap()));
            let mut client = Tls::trusting(&[&authority]).versions(versions).over(socket, "a.test").unwrap();
            assert_eq!(client.get("/good").status, 200);
            twin.send(&bytes);
            // Nothing but an alert may come, and the end.
            let begun = Instant::now();
            assert!(client.rest().is_err() || client.rest().is_ok_and(|rest| rest.is_empty()), "{bytes:?}");
            assert!(begun.elapsed() < Duration::from_secs(10), "{bytes:?}");
            assert_eq!(origin.count(), before + 1, "{bytes:?}");
        }
    }
    // It serves on.
    assert_eq!(Tls::trusting(&[&authority]).connect(proxy.address("web"), "a.test").get("/").status, 200);
}

#[test]
fn a_request_that_is_cut_off_within_a_record_is_not_forwarded() {
    let (authority, origin, proxy) = site("");
    let mut client = Tls::trusting(&[&authority]).connect(proxy.address("web"), "a.test");
    client.send("POST /cut HTTP/1.1\r\nHost: a.test\r\nContent-Length: 10\r\n\r\n12345").cut();
    eventually("the origin sees it broken off", || origin.connections() == 1 && origin.open() == 0);
    assert_eq!(origin.count(), 0);
    assert_eq!(proxy.logged("/cut")["ending"], "client_gone");
}

#[test]
fn early_data_is_never_taken() {
    let (authority, origin, proxy) = site("");
    // Our own tickets do not allow it.
    let tls = Tls::trusting(&[&authority]).resuming();
    assert_eq!(tls.connect(proxy.address("web"), "a.test").get("/").status, 200);
    let early = b"GET /early HTTP/1.1\r\nHost: a.test\r\n\r\n";
    let mut client = tls.clone().early(early).connect(proxy.address("web"), "a.test");
    assert_ne!(client.met().early, Some(true));
    assert_eq!(client.get("/late").status, 200);
    // With a ticket of another server of that name the client sends it unasked.
    let other = Server::new(&authority.issue(&Leaf::of(&["a.test"]))).early(10_000);
    let other = Origin::secure(&other, answers(|_| respond(200, "", b"other")));
    for bytes in [early.to_vec(), early.repeat(50)] {
        let tls = Tls::trusting(&[&authority]).resuming();
        assert_eq!(tls.connect(other.address(), "a.test").get("/").text(), "other");
        let sent = tls.clone().early(&bytes).try_connect(proxy.address("web"), "a.test");
        // To go on without it, or to refuse: both are right.
        if let Ok(mut client) = sent {
            assert_eq!(client.met().early, Some(false));
            client.send("GET /late HTTP/1.1\r\nHost: a.test\r\n\r\n");
            if let Ok(answer) = client.try_answer("GET") {
                assert_eq!(answer.json()["target"], "/late");
            }
        }
    }
    assert!(origin.seen().iter().all(|seen| seen.head.word(1) != "/early"), "early data came through");
}

#[test]
fn renegotiation_is_refused() {
    // TLS 1.2: a new ClientHello within the session. rustls has none to send; so it is sent as a record that does not open, above;
    // what openssl does stands among the peers.
    let (authority, origin, proxy) = site("");
    let socket = TcpStream::connect(proxy.address("web")).unwrap();
    let mut twin = Client::over(Stream::Tcp(socket.try_clone().unwrap()));
    let tls = Tls::trusting(&[&authority]).versions(TLS_1_2);
    let mut client = tls.over(socket, "a.test").unwrap();
    twin.send(tls.hello("a.test"));
    assert!(client.rest().is_err() || client.is_closed());
    assert_eq!(origin.count(), 0);
}
