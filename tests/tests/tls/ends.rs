//! How sessions end: close_notify from our side, and a service's end without one is never shown as a whole answer.

use crate::shop::{OWN, tcp, web};
use ringway_tests::certificates::{Authority, Leaf};
use ringway_tests::tls::{Server, TLS_1_2, TLS_1_3, Tls};
use ringway_tests::{Client, Origin, Proxy, Run, eventually, respond};
use std::time::Duration;

const SERVICE: &str = "tls: { expect: a.test, trust: ca.pem },";

/// A proxy, with TLS towards its clients too if `secure`.
fn proxy(authority: &Authority, origin: &Origin, secure: bool) -> Proxy {
    let text = web(if secure { OWN } else { "" }, SERVICE, origin);
    let run = Run::new(&text).file_of("ca.pem", &authority.pem());
    run.pair("own", &authority.issue(&Leaf::of(&["a.test"]))).start()
}

fn client(authority: &Authority, proxy: &Proxy, secure: bool) -> Client {
    if secure { Tls::trusting(&[authority]).connect(proxy.address("web"), "a.test") } else { proxy.client() }
}

/// An origin whose answer begins so and ends with close_notify or without, after 100,000 bytes.
fn ending(authority: &Authority, head: &'static str, clean: bool) -> Origin {
    let own = authority.issue(&Leaf::of(&["a.test"]));
    Origin::secure(&Server::new(&own), move |conversation| {
        if conversation.request().is_some() {
            conversation.send(head).send(vec![b'x'; 100_000]);
            if clean {
                conversation.finish();
            } else {
                conversation.cut();
            }
            conversation.rest();
        }
    })
}

#[test]
fn a_body_to_the_end_is_whole_only_with_close_notify() {
    let authority = Authority::new("root");
    for secure in [false, true] {
        for version in ["HTTP/1.1", "HTTP/1.0"] {
            for clean in [true, false] {
                let origin = ending(&authority, "HTTP/1.1 200 OK\r\nX: y\r\n\r\n", clean);
                let proxy = proxy(&authority, &origin, secure);
                let mut client = client(&authority, &proxy, secure);
                client.send(format!("GET /cut {version}\r\nHost: a.test\r\n\r\n"));
                let answer = client.try_answer("GET");
                assert_eq!(answer.is_ok(), clean, "{version}, towards TLS: {secure}, clean: {clean}");
                if let Ok(answer) = answer {
                    assert_eq!(answer.body.len(), 100_000);
                }
                let expected = if clean { "complete" } else { "upstream_truncated" };
                assert_eq!(proxy.logged("/cut")["ending"], expected, "{version}, {secure}");
            }
        }
    }
}

#[test]
fn a_body_with_a_length_or_chunks_is_not_whole_before_its_end() {
    let authority = Authority::new("root");
    for head in [
        "HTTP/1.1 200 OK\r\nContent-Length: 100001\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n186A0\r\n",
    ] {
        for clean in [true, false] {
            for secure in [false, true] {
                let origin = ending(&authority, head, clean);
                let proxy = proxy(&authority, &origin, secure);
                let answer = {
                    let mut client = client(&authority, &proxy, secure);
                    client.send("GET /cut HTTP/1.1\r\nHost: a.test\r\n\r\n").try_answer("GET")
                };
                assert!(answer.is_err(), "{head:?}: {clean}");
                assert_eq!(proxy.logged("/cut")["ending"], "upstream_truncated");
            }
        }
    }
}

#[test]
fn a_whole_answer_needs_no_close_notify() {
    // With a length it is whole by itself; the connection is not used again.
    let authority = Authority::new("root");
    let own = authority.issue(&Leaf::of(&["a.test"]));
    let origin = Origin::secure(&Server::new(&own), |conversation| {
        if conversation.request().is_some() {
            conversation.send(respond(200, "", b"whole")).cut();
            conversation.rest();
        }
    });
    let proxy = proxy(&authority, &origin, false);
    for _ in 0..5 {
        assert_eq!(proxy.client().get("/").text(), "whole");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(origin.connections(), 5);
}

#[test]
fn a_tcp_service_that_is_cut_off_does_not_look_as_if_it_had_ended() {
    let authority = Authority::new("root");
    let own = authority.issue(&Leaf::of(&["a.test"]));
    for clean in [true, false] {
        let origin = Origin::secure(&Server::new(&own), move |conversation| {
            conversation.read(1);
            conversation.send("some");
            if clean {
                conversation.finish();
            } else {
                conversation.cut();
            }
            conversation.rest();
        });
        let run = Run::new(&tcp(OWN, SERVICE, &origin)).file_of("ca.pem", &authority.pem());
        let proxy = run.pair("own", &own).start();
        let mut client = Tls::trusting(&[&authority]).connect(proxy.address("web"), "a.test");
        client.send("x");
        assert_eq!(client.read(4), b"some");
        assert_eq!(client.rest().is_ok(), clean, "clean: {clean}");
    }
}

#[test]
fn every_end_of_ours_is_said() {
    let authority = Authority::new("root");
    let origin = Origin::echo();
    let run = Run::new(&web(OWN, "", &origin)).pair("own", &authority.issue(&Leaf::of(&["a.test"])));
    let proxy = run.start();
    for versions in [TLS_1_2, TLS_1_3] {
        let connect = || Tls::trusting(&[&authority]).versions(versions).connect(proxy.address("web"), "a.test");
        for request in [
            "GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n",
            "GET / HTTP/1.0\r\nHost: a.test\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a.test\r\nBad Name: x\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a.test\r\nHost: b\r\n\r\n",
        ] {
            let mut client = connect();
            client.send(request);
            client.answer();
            assert_eq!(client.rest().unwrap_or_else(|e| panic!("{request:?}: {e}")), b"");
        }
        // Ours after theirs.
        let mut client = connect();
        client.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").finish();
        assert_eq!(client.answer().status, 200);
        assert_eq!(client.rest().expect("an end with close_notify"), b"");
        let mut client = connect();
        assert_eq!(client.finish().rest().expect("an end with close_notify"), b"");
    }
    // A proxy that is told to end: idle connections hear of it.
    let mut idle = Tls::trusting(&[&authority]).connect(proxy.address("web"), "a.test");
    assert_eq!(idle.get("/").status, 200);
    proxy.signal("TERM");
    assert_eq!(idle.rest().expect("an end with close_notify"), b"");
}

#[test]
fn a_service_hears_our_close_notify() {
    let authority = Authority::new("root");
    let own = authority.issue(&Leaf::of(&["a.test"]));
    let heard = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let told = heard.clone();
    let origin = Origin::secure(&Server::new(&own), move |conversation| {
        while conversation.request().is_some() {
            conversation.send(respond(200, "", b"x"));
        }
        // Nothing more, said or not.
        told.lock().unwrap().push(conversation.rest().is_some());
    });
    let proxy = proxy(&authority, &origin, false);
    assert_eq!(proxy.client().get("/").status, 200);
    proxy.signal("TERM");
    eventually("the service heard the end", || !heard.lock().unwrap().is_empty());
    assert_eq!(*heard.lock().unwrap(), [true], "the end of a kept connection is said");
}

#[test]
fn a_tunnel_ends_in_each_direction_by_itself() {
    let authority = Authority::new("root");
    let own = authority.issue(&Leaf::of(&["a.test"]));
    let origin = Origin::secure(&Server::new(&own), |conversation| {
        let sent = conversation.rest();
        conversation.send(format!("{:?}", sent.map(|bytes| bytes.len())));
    });
    for versions in [TLS_1_2, TLS_1_3] {
        let run = Run::new(&tcp(OWN, SERVICE, &origin)).file_of("ca.pem", &authority.pem());
        let proxy = run.pair("own", &own).start();
        let mut client = Tls::trusting(&[&authority]).versions(versions).connect(proxy.address("web"), "a.test");
        client.send(vec![1; 50_000]).finish();
        assert_eq!(client.rest().expect("an end with close_notify"), b"Some(50000)");
        // Without it, the service does not see an end that was said.
        let mut client = Tls::trusting(&[&authority]).versions(versions).connect(proxy.address("web"), "a.test");
        client.send(vec![1; 50_000]).cut();
        if let Ok(rest) = client.rest() {
            assert_ne!(rest, b"Some(50000)", "{versions:?}");
        }
    }
}
