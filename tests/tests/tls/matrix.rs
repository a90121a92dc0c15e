//! Every kind of exchange over every pair of transports, each byte checked.

use crate::shop::{OWN, pattern, web};
use ringway_tests::certificates::{Authority, Leaf};
use ringway_tests::tls::{Server, TLS_1_2, TLS_1_3, Tls};
use ringway_tests::{Client, Conversation, Origin, Proxy, Run, respond};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Plain,
    Old,
    New,
}

/// A proxy between two sides.
struct Pair {
    authority: Authority,
    origin: Origin,
    proxy: Proxy,
    client: Side,
}

/// Answers as the path says.
fn serve(conversation: &mut Conversation) {
    while let Some(head) = conversation.head() {
        if head.field("expect").is_some() {
            conversation.send("HTTP/1.1 100 Continue\r\n\r\n");
        }
        let Some(seen) = conversation.body(head) else { return };
        let path = seen.head.word(1).to_owned();
        let mut words = path.split('/').skip(1);
        let what = words.next().unwrap_or_default();
        let size = words.next().and_then(|size| size.parse().ok()).unwrap_or(0);
        match what {
            "echo" => conversation.send(respond(200, "", &seen.body)),
            "chunks" => {
                conversation.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").send(chunked(&seen.body))
            }
            "drip" => {
                conversation.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
                // What frames the bytes comes in more pieces than a message has parts.
                let chunk = format!("{size:x};extension=of-a-chunk\r\n").into_bytes();
                let end = b"\r\n0;extension=of-the-end\r\nX-Trailer: so many pieces\r\n\r\n".to_vec();
                for byte in [chunk, pattern(size, 7), end].concat() {
                    conversation.send_after(std::time::Duration::from_micros(200), [byte]);
                }
                continue;
            }
            "bytes" => conversation.send(respond(200, "", &pattern(size, size as u64))),
            "head" => conversation.send("HTTP/1.1 200 OK\r\nContent-Length: 12345\r\n\r\n"),
            "end" => {
                conversation.send("HTTP/1.1 200 OK\r\n\r\n").send(pattern(size, 5)).finish();
                return;
            }
            "close" => {
                conversation.send(respond(200, "Connection: close\r\n", &pattern(size, 6))).finish();
                return;
            }
            "chat" => {
                conversation
                    .send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
                while let Some(bytes) = conversation.some() {
                    conversation.send(bytes.iter().map(|byte| !byte).collect::<Vec<u8>>());
                }
                return;
            }
            other => panic!("{other}"),
        };
    }
}

/// A body in chunks of many sizes.
fn chunked(body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = body;
    for size in [1, 10, 4096, 16_384, 70_000].iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (chunk, behind) = rest.split_at((*size).min(rest.len()));
        out.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        out.extend_from_slice(chunk);
        out.extend_from_slice(b"\r\n");
        rest = behind;
    }
    out.extend_from_slice(b"0\r\n\r\n");
    out
}

impl Pair {
    fn new(client: Side, service: Side) -> Pair {
        let authority = Authority::new("root");
        let own = authority.issue(&Leaf::of(&["a.test"]));
        let origin = match service {
            Side::Plain => Origin::new(serve),
            Side::Old => Origin::secure(&Server::new(&own).versions(TLS_1_2), serve),
            Side::New => Origin::secure(&Server::new(&own).versions(TLS_1_3), serve),
        };
        let listener = if client == Side::Plain { "" } else { OWN };
        let upstream = if service == Side::Plain { "" } else { "tls: { expect: a.test, trust: ca.pem }," };
        let run = Run::new(&web(listener, upstream, &origin)).pair("own", &own);
        let proxy = run.file_of("ca.pem", &authority.pem()).start();
        Pair { authority, origin, proxy, client }
    }

    fn connect(&self) -> Client {
        let tls = Tls::trusting(&[&self.authority]).alpn(&["http/1.1"]);
        match self.client {
            Side::Plain => self.proxy.client(),
            Side::Old => tls.versions(TLS_1_2).connect(self.proxy.address("web"), "a.test"),
            Side::New => tls.versions(TLS_1_3).connect(self.proxy.address("web"), "a.test"),
        }
    }

    /// All of it.
    fn all(&self) {
        self.keep_alive_and_sizes();
        self.close();
        self.uploads();
        self.head_and_continue();
        self.upgrade();
        self.pipelining();
        self.single_bytes();
        assert_eq!(self.origin.faults(), Vec::<String>::new());
    }

    fn keep_alive_and_sizes(&self) {
        let mut client = self.connect();
        let before = self.origin.connections();
        for size in [0, 1, 63, 64, 2047, 2048, 16_383, 16_384, 16_385, 32_768, 65_536, 300_000, 1 << 20] {
            let answer = client.get(&format!("/bytes/{size}"));
            assert!(answer.body == pattern(size, size as u64) && !answer.until_close, "{size} bytes down");
        }
        assert!(self.origin.connections() <= before + 1, "connections are kept");
    }

    fn close(&self) {
        for size in [0, 5, 100_000] {
            let mut client = self.connect();
            client.send(format!("GET /bytes/{size} HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n"));
            assert!(client.answer().body == pattern(size, size as u64));
            assert_eq!(client.rest().expect("a clean end"), b"");
            // The service closes: that is its affair and the next request's connection.
            let mut client = self.connect();
            assert!(client.get(&format!("/close/{size}")).body == pattern(size, 6));
            assert!(client.get(&format!("/close/{size}")).body == pattern(size, 6));
            let answer = self.connect().get(&format!("/end/{size}"));
            assert!(answer.body == pattern(size, 5) && (answer.until_close || answer.head.chunked()), "{size}");
        }
    }

    fn uploads(&self) {
        let mut client = self.connect();
        for size in [1, 2049, 16_384, 100_000, 1 << 20] {
            for path in ["/echo", "/chunks"] {
                let body = pattern(size, 3);
                client
                    .send(format!("POST {path} HTTP/1.1\r\nHost: a.test\r\nContent-Length: {size}\r\n\r\n"))
                    .send(&body);
                assert!(client.try_answer("POST").unwrap().body == body, "{size} by length, {path}");
                client.send(format!("POST {path} HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n"));
                client.send(chunked(&body));
                assert!(client.try_answer("POST").unwrap().body == body, "{size} in chunks, {path}");
                assert!(self.origin.seen().pop().unwrap().body == body);
            }
        }
    }

    fn head_and_continue(&self) {
        let mut client = self.connect();
        for _ in 0..3 {
            client.send("HEAD /head HTTP/1.1\r\nHost: a.test\r\n\r\n");
            let answer = client.try_answer("HEAD").unwrap();
            assert_eq!((answer.status, answer.field("content-length")), (200, Some("12345")));
            client.send("POST /echo HTTP/1.1\r\nHost: a.test\r\nExpect: 100-continue\r\nContent-Length: 70000\r\n\r\n");
            assert_eq!(client.head().word(1), "100");
            let body = pattern(70_000, 9);
            client.send(&body);
            assert!(client.try_answer("POST").unwrap().body == body);
        }
    }

    fn upgrade(&self) {
        let mut client = self.connect();
        client.send("GET /chat HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
        assert_eq!(client.head().word(1), "101");
        for size in [1, 7, 16_384, 20_000] {
            let bytes = pattern(size, 4);
            client.send(&bytes);
            assert!(client.read(size).iter().zip(&bytes).all(|(got, sent)| *got == !sent), "{size} through a tunnel");
        }
        client.finish();
        assert_eq!(client.rest().expect("a clean end"), b"");
    }

    fn pipelining(&self) {
        let mut client = self.connect();
        let sizes = [0, 1, 500, 20_000, 3, 70_000, 2, 0, 64, 64];
        let mut sent = String::new();
        for size in sizes {
            sent += &format!("GET /bytes/{size} HTTP/1.1\r\nHost: a.test\r\n\r\n");
            sent += &format!("POST /echo HTTP/1.1\r\nHost: a.test\r\nContent-Length: 3\r\n\r\n{:03}", size % 1000);
        }
        client.send(sent);
        for size in sizes {
            assert!(client.answer().body == pattern(size, size as u64), "{size}");
            assert_eq!(client.answer().text(), format!("{:03}", size % 1000));
        }
    }

    fn single_bytes(&self) {
        let mut client = self.connect();
        let body = pattern(100, 8);
        let mut request = b"POST /chunks HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        request.extend(chunked(&body));
        client.send_in_pieces(&request, 1, std::time::Duration::from_micros(100));
        assert!(client.try_answer("POST").unwrap().body == body);
        // The service's answer too, and all of it is there.
        for size in [1, 17, 80] {
            assert!(client.get(&format!("/drip/{size}")).body == pattern(size, 7), "{size} in single bytes");
        }
    }
}

#[test]
fn plain_to_plain() {
    Pair::new(Side::Plain, Side::Plain).all();
}

#[test]
fn plain_to_tls_1_2() {
    Pair::new(Side::Plain, Side::Old).all();
}

#[test]
fn plain_to_tls_1_3() {
    Pair::new(Side::Plain, Side::New).all();
}

#[test]
fn tls_1_2_to_plain() {
    Pair::new(Side::Old, Side::Plain).all();
}

#[test]
fn tls_1_2_to_tls_1_2() {
    Pair::new(Side::Old, Side::Old).all();
}

#[test]
fn tls_1_2_to_tls_1_3() {
    Pair::new(Side::Old, Side::New).all();
}

#[test]
fn tls_1_3_to_plain() {
    Pair::new(Side::New, Side::Plain).all();
}

#[test]
fn tls_1_3_to_tls_1_2() {
    Pair::new(Side::New, Side::Old).all();
}

#[test]
fn tls_1_3_to_tls_1_3() {
    Pair::new(Side::New, Side::New).all();
}

#[test]
fn bodies_pass_in_both_directions_at_once() {
    for (client, service) in
        [(Side::New, Side::New), (Side::Old, Side::Old), (Side::New, Side::Plain), (Side::Plain, Side::New)]
    {
        let pair = Pair::new(client, service);
        // Chunks that are answered one by one, through a tunnel of TLS: neither side waits for the end of the other's.
        let mut client = pair.connect();
        client.send("GET /chat HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
        assert_eq!(client.head().word(1), "101");
        for n in 0..200_u64 {
            let bytes = pattern(1 + (n as usize * 37) % 3000, n);
            client.send(&bytes);
            assert!(client.read(bytes.len()).iter().zip(&bytes).all(|(got, sent)| *got == !sent), "{n}");
        }
    }
}
