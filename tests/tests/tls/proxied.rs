//! The PROXY protocol, versions 1 and 2: mandatory where it is set, from allowed peers only, in every kind of piece; and written
//! towards services.

use crate::shop::{OWN, tcp, web};
use ringway_tests::certificates::{Authority, Leaf};
use ringway_tests::tls::{Server, Tls};
use ringway_tests::{Client, Conversation, Origin, Proxy, Run, eventually, respond};
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const FROM: &str = "proxy-protocol: { from: [127.0.0.0/8] },";

/// A header of version 2 with these TLVs behind its addresses.
fn v2(command: u8, family: u8, addresses: &[u8], more: &[u8]) -> Vec<u8> {
    let mut out = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    out.extend_from_slice(&[0x20 | command, family]);
    out.extend_from_slice(&((addresses.len() + more.len()) as u16).to_be_bytes());
    out.extend_from_slice(addresses);
    out.extend_from_slice(more);
    out
}

fn v2_of(source: &str) -> Vec<u8> {
    let source: SocketAddr = source.parse().unwrap();
    let mut bytes = Vec::new();
    let family = match source.ip() {
        IpAddr::V4(ip) => {
            bytes.extend_from_slice(&ip.octets());
            bytes.extend_from_slice(&[127, 0, 0, 1]);
            0x11
        }
        IpAddr::V6(ip) => {
            bytes.extend_from_slice(&ip.octets());
            bytes.extend_from_slice(&[0; 15]);
            bytes.push(1);
            0x21
        }
    };
    bytes.extend_from_slice(&source.port().to_be_bytes());
    bytes.extend_from_slice(&443_u16.to_be_bytes());
    v2(1, family, &bytes, &[])
}

/// Sends header and request, whole or in pieces; the source that the log and the service are told.
fn told(proxy: &Proxy, origin: &Origin, header: &[u8], piece: usize) -> (String, String) {
    let path = format!("/{}", origin.count());
    let mut bytes = header.to_vec();
    bytes.extend_from_slice(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
    let mut client = proxy.client();
    client.send_in_pieces(&bytes, piece, Duration::from_micros(100));
    assert_eq!(client.answer().status, 200, "{}", String::from_utf8_lossy(header));
    let seen = origin.seen().pop().unwrap();
    let source = proxy.logged(&path)["source"].as_str().unwrap().to_owned();
    // The header stands before the connection, not before each request.
    client.send("GET /second HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.answer().status, 200);
    (source, seen.head.all("x-forwarded-for").join(", "))
}

#[test]
fn the_source_is_what_the_header_says() {
    let origin = Origin::echo();
    let proxy = Proxy::start(&web(FROM, "", &origin));
    let long = [1_u8, 0x0F, 0x00].iter().copied().chain(vec![0; 3840]).collect::<Vec<u8>>();
    let mut with_tlvs = v2_of("192.0.2.7:5000");
    with_tlvs.extend_from_slice(&long);
    let length = (12 + long.len()) as u16;
    with_tlvs[14..16].copy_from_slice(&length.to_be_bytes());
    for (header, source) in [
        (b"PROXY TCP4 192.0.2.7 127.0.0.1 5000 443\r\n".to_vec(), "192.0.2.7:5000"),
        (b"PROXY TCP6 2001:db8::7 ::1 5000 443\r\n".to_vec(), "[2001:db8::7]:5000"),
        (v2_of("192.0.2.7:5000"), "192.0.2.7:5000"),
        (v2_of("[2001:db8::7]:5000"), "[2001:db8::7]:5000"),
        (with_tlvs, "192.0.2.7:5000"),
    ] {
        for piece in [1, 5, header.len(), usize::MAX] {
            if piece == 1 && header.len() > 1000 {
                continue;
            }
            let (logged, forwarded) = told(&proxy, &origin, &header, piece);
            let ip = source.rsplit_once(':').unwrap().0.trim_matches(['[', ']']);
            assert_eq!((logged.as_str(), forwarded.as_str()), (source, ip), "{piece}");
        }
    }
    // Without an address: the socket's.
    for header in [
        b"PROXY UNKNOWN\r\n".to_vec(),
        b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n".to_vec(),
        v2(0, 0, &[], &[]),
        v2(0, 0x11, &[9; 12], &[]),
    ] {
        let (logged, forwarded) = told(&proxy, &origin, &header, usize::MAX);
        assert!(logged.starts_with("127.0.0.1:"), "{logged}");
        assert_eq!(forwarded, "127.0.0.1");
    }
}

#[test]
fn every_place_a_header_can_be_split_at() {
    let origin = Origin::echo();
    let proxy = Proxy::start(&web(FROM, "", &origin));
    for header in [b"PROXY TCP4 192.0.2.7 127.0.0.1 5000 443\r\n".to_vec(), v2_of("192.0.2.7:5000")] {
        for at in 1..=header.len() {
            let mut client = proxy.client();
            client.send(&header[..at]);
            std::thread::sleep(Duration::from_micros(300));
            client.send(&header[at..]).send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
            assert_eq!(client.answer().status, 200, "split at {at}");
            assert_eq!(origin.seen().pop().unwrap().head.field("x-forwarded-for"), Some("192.0.2.7"));
        }
    }
}

#[test]
fn a_connection_that_rested_is_still_the_clients() {
    let origin = Origin::echo();
    let proxy =
        Proxy::start(&web(&format!("{FROM} allow: [ {{ name: them, source: [192.0.2.0/24] }} ],"), "", &origin));
    let mut clients: Vec<(usize, Client)> = (1..=20)
        .map(|number| {
            let mut client = proxy.client();
            client.send(format!("PROXY TCP4 192.0.2.{number} 127.0.0.1 5000 443\r\n"));
            (number, client)
        })
        .collect();
    // And one that said nothing of itself, between them.
    let mut itself = proxy.client();
    itself.send("PROXY UNKNOWN\r\n");
    for round in 0..3 {
        for (number, client) in &mut clients {
            assert_eq!(client.get(&format!("/{round}/{number}")).status, 200);
            let told = origin.seen().pop().unwrap();
            assert_eq!(told.head.field("x-forwarded-for"), Some(format!("192.0.2.{number}").as_str()));
        }
        assert_eq!(itself.get("/itself").status, 403);
        let idle = || proxy.metrics().total("ringway_connections_idle", &[]);
        eventually("all rest", || idle() == 21.0);
        // Places in the tables are taken again, by others.
        let (number, _gone) = clients.remove(0);
        let mut client = proxy.client();
        client.send(format!("PROXY TCP4 192.0.2.{} 127.0.0.1 5000 443\r\n", number + 100));
        clients.push((number + 100, client));
    }
}

#[test]
fn a_reload_asks_for_headers_and_no_longer() {
    let origin = Origin::new(|conversation| {
        while let Some(bytes) = conversation.some() {
            conversation.send(bytes);
        }
    });
    let mut proxy = Proxy::start(&tcp("", "", &origin));
    let header = "PROXY TCP4 192.0.2.7 127.0.0.1 5000 443\r\n";
    let mut before = Client::to(proxy.address("web"));
    assert_eq!(before.send("before").read(6), b"before");
    let reload = |proxy: &mut Proxy, text: &str, count: f64| {
        proxy.rewrite(text);
        proxy.signal("HUP");
        eventually("it is reloaded", || proxy.metrics().total("ringway_reloads_applied_total", &[]) == count);
    };
    reload(&mut proxy, &tcp(FROM, "", &origin), 1.0);
    assert_eq!(before.send("still").read(5), b"still", "a tunnel goes on");
    let mut client = Client::to(proxy.address("web"));
    assert_eq!(client.send(header).send("hello").read(5), b"hello");
    is_refused(&proxy, b"hello, hello, hello");
    reload(&mut proxy, &tcp("", "", &origin), 2.0);
    let mut client = Client::to(proxy.address("web"));
    assert_eq!(client.send(header).read(header.len()), header.as_bytes(), "bytes as any");
}

#[test]
fn a_service_with_room_for_one_connection_is_told_of_each_client() {
    let headers = Headers::default();
    let kept = headers.clone();
    let origin = Origin::new(move |conversation| {
        let Some(header) = header(conversation) else { return };
        kept.lock().unwrap().push((0, header));
        while conversation.request().is_some() {
            conversation.send(respond(200, "", b"x"));
        }
    });
    let proxy = Proxy::start(&web("", "proxy-protocol: v2, limits: { connections: 1 },", &origin));
    let mut clients = [proxy.client(), proxy.client()];
    for _ in 0..5 {
        for client in &mut clients {
            assert_eq!(client.get("/").status, 200);
        }
    }
    let headers = headers.lock().unwrap();
    assert_eq!(headers.len(), 10);
    let sources: std::collections::BTreeSet<SocketAddr> = headers.iter().map(|(_, header)| source_of(header)).collect();
    assert_eq!(sources.len(), 2);
}

/// Must be closed without an answer.
fn is_refused(proxy: &Proxy, bytes: &[u8]) {
    let mut client = proxy.client();
    let _taken = client.try_send(bytes);
    let begun = Instant::now();
    assert!(client.is_closed(), "{}", String::from_utf8_lossy(bytes));
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
}

#[test]
fn a_missing_or_malformed_header_ends_the_connection() {
    let origin = Origin::echo();
    let proxy = Proxy::start(&web(FROM, "", &origin));
    let get = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let long = [b"PROXY TCP4 192.0.2.7 127.0.0.1 5000 443".to_vec(), vec![b' '; 200]].concat();
    let mut version_3 = v2_of("192.0.2.7:1");
    version_3[12] = 0x31;
    let mut command_2 = v2_of("192.0.2.7:1");
    command_2[12] = 0x22;
    let mut short = v2_of("192.0.2.7:1");
    short[15] = 4;
    let mut signature = v2_of("192.0.2.7:1");
    signature[11] = b'x';
    let cases: Vec<Vec<u8>> = vec![
        Vec::new(),
        b"PROXY TCP4 192.0.2.7 127.0.0.1 5000 443\n".to_vec(),
        b"PROXY TCP4 192.0.2.7 127.0.0.1 5000\r\n".to_vec(),
        b"PROXY TCP4 192.0.2.7 127.0.0.1 5000 443 9\r\n".to_vec(),
        b"PROXY TCP4 192.0.2.7  127.0.0.1 5000 443\r\n".to_vec(),
        b"PROXY TCP4 192.0.2.300 127.0.0.1 5000 443\r\n".to_vec(),
        b"PROXY TCP4 2001:db8::7 ::1 5000 443\r\n".to_vec(),
        b"PROXY TCP6 192.0.2.7 127.0.0.1 5000 443\r\n".to_vec(),
        b"PROXY TCP4 192.0.2.7 127.0.0.1 70000 443\r\n".to_vec(),
        b"PROXY TCP4 192.0.2.7 127.0.0.1 +1 443\r\n".to_vec(),
        b"PROXY UDP4 192.0.2.7 127.0.0.1 1 443\r\n".to_vec(),
        b"proxy TCP4 192.0.2.7 127.0.0.1 1 443\r\n".to_vec(),
        b"PROXY\r\n".to_vec(),
        long,
        version_3,
        command_2,
        short,
        signature,
        v2(1, 0x11, &[1; 11], &[]),
    ];
    let count = cases.len();
    for mut bytes in cases {
        bytes.extend_from_slice(get);
        is_refused(&proxy, &bytes);
    }
    // A second header is no request.
    let mut client = proxy.client();
    let header = b"PROXY TCP4 192.0.2.7 127.0.0.1 5000 443\r\n";
    client.send(header).send(header).send(get);
    assert_eq!(client.answer().status, 400);
    assert_eq!(origin.count(), 0);
    let refused = || proxy.metrics().total("ringway_endings_total", &[("ending", "proxy_header")]);
    eventually("each is counted", || refused() == count as f64);
}

#[test]
fn a_header_that_never_ends_is_bounded() {
    let origin = Origin::echo();
    let proxy = Proxy::start(&(web(FROM, "", &origin) + "limits: { request-timeout: 1s }\n"));
    for start in [&b"PROXY TCP4 192."[..], b"\r\n\r\n\0\r\nQUIT\n", b""] {
        is_refused(&proxy, start);
    }
    assert_eq!(origin.count(), 0);
}

/// As a balancer's checks do.
#[test]
fn who_is_gone_at_once_is_not_refused() {
    let origin = Origin::echo();
    let proxy = Proxy::start(&web(FROM, "", &origin));
    let count = |name: &str, labels: &[(&str, &str)]| proxy.metrics().total(name, labels);
    for what in ["PROXY UNKNOWN\r\n", ""].repeat(20) {
        proxy.client().send(what).cut();
    }
    eventually("all were seen", || {
        count("ringway_connections_accepted_total", &[]) >= 40.0 && count("ringway_connections_open", &[]) == 0.0
    });
    assert_eq!(count("ringway_endings_total", &[("ending", "proxy_header")]), 0.0, "{:?}", proxy.log());
    // One who begins and goes is.
    proxy.client().send("PROXY TCP4 192.").finish();
    eventually("it is counted", || count("ringway_endings_total", &[("ending", "proxy_header")]) == 1.0);
}

#[test]
fn only_allowed_peers_may_say_it() {
    let origin = Origin::echo();
    for from in ["[10.0.0.0/8]", "[127.0.0.2/32, '::1/128']"] {
        let proxy = Proxy::start(&web(&format!("proxy-protocol: {{ from: {from} }},"), "", &origin));
        is_refused(&proxy, b"PROXY TCP4 127.0.0.1 127.0.0.1 5000 443\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n");
        is_refused(&proxy, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        eventually("both are counted", || {
            proxy.metrics().total("ringway_endings_total", &[("ending", "proxy_header")]) == 2.0
        });
    }
    // Where it is not set, it is no request.
    let proxy = Proxy::start(&web("", "", &origin));
    let mut client = proxy.client();
    client.send("PROXY TCP4 1.2.3.4 127.0.0.1 5000 443\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.answer().status, 400);
    assert_eq!(origin.count(), 0);
}

#[test]
fn it_stands_before_tls() {
    let authority = Authority::new("root");
    let origin = Origin::echo();
    let run = Run::new(&web(&format!("{FROM} {OWN}"), "", &origin));
    let proxy = run.pair("own", &authority.issue(&Leaf::of(&["a.test"]))).start();
    let header = v2_of("192.0.2.7:5000");
    for together in [false, true] {
        let mut socket = TcpStream::connect(proxy.address("web")).unwrap();
        socket.write_all(&header).unwrap();
        if !together {
            std::thread::sleep(Duration::from_millis(20));
        }
        let mut client = Tls::trusting(&[&authority]).over(socket, "a.test").unwrap();
        assert_eq!(client.get("/tls").status, 200);
        assert_eq!(origin.seen().pop().unwrap().head.field("x-forwarded-for"), Some("192.0.2.7"));
        assert_eq!(proxy.logged("/tls")["source"], "192.0.2.7:5000");
    }
    // And not behind it.
    let socket = TcpStream::connect(proxy.address("web")).unwrap();
    assert!(Tls::trusting(&[&authority]).over(socket, "a.test").is_err());
}

/// What an origin was told before anything else on each connection.
type Headers = Arc<Mutex<Vec<(usize, Vec<u8>)>>>;

/// Reads the header of version 1 or 2.
fn header(conversation: &mut Conversation) -> Option<Vec<u8>> {
    let mut bytes = conversation.read(16)?;
    if bytes.starts_with(b"PROXY ") {
        while !bytes.ends_with(b"\r\n") {
            bytes.extend(conversation.read(1)?);
        }
    } else {
        let length = usize::from(u16::from_be_bytes([bytes[14], bytes[15]]));
        bytes.extend(conversation.read(length)?);
    }
    Some(bytes)
}

/// The source that a header names.
fn source_of(header: &[u8]) -> SocketAddr {
    if let Some(text) = header.strip_prefix(b"PROXY TCP4 ") {
        let words: Vec<&str> = std::str::from_utf8(text).unwrap().trim_end().split(' ').collect();
        let [source, destination, from, to] = words[..] else { panic!("{words:?}") };
        assert!(destination.parse::<IpAddr>().is_ok() && to.parse::<u16>().is_ok_and(|port| port > 0), "{words:?}");
        return SocketAddr::new(source.parse().unwrap(), from.parse().unwrap());
    }
    assert!(header.starts_with(b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c") && header.len() == 28, "{header:?}");
    let ip: [u8; 4] = header[16..20].try_into().unwrap();
    SocketAddr::new(IpAddr::from(ip), u16::from_be_bytes([header[24], header[25]]))
}

#[test]
fn services_are_told_the_source_once_a_connection() {
    for version in ["v1", "v2"] {
        let headers = Headers::default();
        let kept = headers.clone();
        let origin = Origin::new(move |conversation| {
            let Some(header) = header(conversation) else { return };
            kept.lock().unwrap().push((conversation.number(), header));
            while let Some(seen) = conversation.request() {
                conversation.send(respond(200, "", seen.head.word(1).as_bytes()));
            }
        });
        let proxy = Proxy::start(&web("", &format!("proxy-protocol: {version},"), &origin));
        let mut sockets: Vec<(SocketAddr, Client)> = (0..3)
            .map(|_| {
                let socket = TcpStream::connect(proxy.address("web")).unwrap();
                (socket.local_addr().unwrap(), Client::over(ringway_tests::Stream::Tcp(socket)))
            })
            .collect();
        for round in 0..4 {
            for (local, client) in &mut sockets {
                let path = format!("/{round}/{local}");
                assert_eq!(client.get(&path).text(), path);
                // Each request came over a connection that was announced as this client's.
                let seen = origin.seen().pop().unwrap();
                let headers = headers.lock().unwrap();
                let (_, header) = headers.iter().find(|(number, _)| *number == seen.connection).unwrap();
                assert_eq!((version == "v1", source_of(header)), (header.starts_with(b"PROXY"), *local), "{version}");
            }
        }
        assert_eq!(origin.faults(), Vec::<String>::new());
    }
}

#[test]
fn a_source_from_a_header_is_passed_on_in_one() {
    let headers = Headers::default();
    let kept = headers.clone();
    let origin = Origin::new(move |conversation| {
        let Some(header) = header(conversation) else { return };
        kept.lock().unwrap().push((0, header));
        while let Some(bytes) = conversation.some() {
            conversation.send(bytes);
        }
    });
    for version in ["v1", "v2"] {
        let proxy = Proxy::start(&tcp(FROM, &format!("proxy-protocol: {version},"), &origin));
        let mut client = Client::to(proxy.address("web"));
        client.send("PROXY TCP4 192.0.2.7 127.0.0.1 5000 443\r\n").send("hello");
        assert_eq!(client.read(5), b"hello");
        let header = headers.lock().unwrap().pop().unwrap().1;
        assert_eq!(source_of(&header), "192.0.2.7:5000".parse().unwrap(), "{version}");
    }
}

#[test]
fn towards_a_service_with_tls_the_header_comes_first() {
    let authority = Authority::new("root");
    // A small server that reads the header itself, then speaks TLS.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let session = Server::new(&authority.issue(&Leaf::of(&["a.test"]))).sessions(Arc::new(|_| ()));
    let serve = std::thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        let mut header = [0; 28];
        socket.read_exact(&mut header).unwrap();
        let mut stream = session(socket);
        let mut request = [0; 4];
        stream.read_exact(&mut request).unwrap();
        stream.write_all(&respond(200, "", b"secure")).unwrap();
        (header, request)
    });
    let text = format!(
        "listeners:\n  web: {{ address: '127.0.0.1:$web', routes: [ {{ to: app }} ] }}\n\
         services:\n  app: {{ endpoints: [{address}], proxy-protocol: v2, tls: {{ expect: a.test, trust: ca.pem }} }}\n"
    );
    let proxy = Run::new(&text).file_of("ca.pem", &authority.pem()).start();
    assert_eq!(proxy.client().get("/").text(), "secure");
    let (header, request) = serve.join().unwrap();
    assert_eq!((source_of(&header).ip(), &request), (IpAddr::from([127, 0, 0, 1]), b"GET "));
}
