//! RFC 9110 section 7.8: upgrades. After 101 the connection is a tunnel; before it, nothing behind the head is passed on.

use ringway_tests::{Conversation, Origin, Proxy, plain, respond};
use std::time::Duration;

const UPGRADE: &str = "GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
const SWITCH: &str =
    "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\n\r\n";

/// Switches, then sends every byte back in capitals until the client ends.
fn loud(conversation: &mut Conversation) {
    if conversation.request().is_some() {
        conversation.send(SWITCH);
        while let Some(bytes) = conversation.some() {
            conversation.send(bytes.to_ascii_uppercase());
        }
    }
}

#[test]
fn rfc6455_bytes_pass_both_ways_after_101() {
    let origin = Origin::new(loud);
    let proxy = Proxy::start(&plain(&[&origin]));
    let mut client = proxy.client();
    client.send(UPGRADE);
    let head = client.head();
    assert_eq!(
        (head.word(1), head.field("upgrade"), head.field("sec-websocket-accept")),
        ("101", Some("websocket"), Some("x"))
    );
    assert!(head.connection("upgrade"));
    for word in ["hello", "tunnel", "\r\n\r\n"] {
        client.send(word);
        assert_eq!(client.read(word.len()), word.to_ascii_uppercase().as_bytes());
    }
    let asked = origin.only().head;
    assert!(asked.connection("upgrade") && asked.field("upgrade") == Some("websocket"), "{asked:?}");
    client.finish();
    assert!(client.is_closed());
    let line = proxy.logged("/chat");
    assert_eq!((line["ending"].as_str(), line["status"].as_u64()), (Some("tunnel_closed"), Some(101)), "{line}");
}

#[test]
fn bytes_right_behind_the_head_reach_the_other_side_after_101() {
    let origin = Origin::new(loud);
    let proxy = Proxy::start(&plain(&[&origin]));
    let mut client = proxy.client();
    client.send(format!("{UPGRADE}early"));
    assert_eq!(client.head().word(1), "101");
    assert_eq!(client.read(5), b"EARLY");
}

#[test]
fn bytes_right_behind_101_reach_the_client() {
    let origin = Origin::new(|conversation| {
        if conversation.request().is_some() {
            conversation.send(format!("{SWITCH}first"));
            conversation.some();
        }
    });
    let proxy = Proxy::start(&plain(&[&origin]));
    let mut client = proxy.client();
    client.send(UPGRADE);
    assert_eq!(client.head().word(1), "101");
    assert_eq!(client.read(5), b"first");
}

#[test]
fn cve_2026_2833_bytes_behind_a_refused_upgrade_are_requests_of_their_own() {
    let origin = Origin::answering(|seen| respond(200, "", seen.head.word(1).as_bytes()));
    let proxy = Proxy::start(&ringway_tests::routes(
        "{ match: { path: /forbidden }, respond: { status: 403 } }, { to: app }",
        &[&origin],
    ));
    let mut client = proxy.client();
    client.send(format!("{UPGRADE}GET /forbidden HTTP/1.1\r\nHost: a\r\n\r\n"));
    assert_eq!(client.answer().text(), "/chat");
    // It must not have gone through unseen by the routes; closing is as good.
    if let Ok(answer) = client.try_answer("GET") {
        assert_eq!(answer.status, 403);
    }
    assert!(origin.seen().iter().all(|seen| seen.head.word(1) == "/chat"), "{:?}", origin.seen());
}

#[test]
fn a_tunnel_is_ended_by_its_service_too() {
    let origin = Origin::new(|conversation| {
        if conversation.request().is_some() {
            conversation.send(format!("{SWITCH}bye"));
        }
    });
    let proxy = Proxy::start(&plain(&[&origin]));
    let mut client = proxy.client();
    client.send(UPGRADE);
    client.head();
    assert_eq!(client.rest().unwrap(), b"bye");
}

#[test]
fn a_tunnel_carries_bulk_both_ways_at_once() {
    let origin = Origin::new(loud);
    let proxy = Proxy::start(&plain(&[&origin]));
    let mut client = proxy.client();
    client.send(UPGRADE);
    assert_eq!(client.head().word(1), "101");
    let mut twin = client.twin();
    let writer = std::thread::spawn(move || std::io::Write::write_all(&mut twin, &b"abcdefgh".repeat(500_000)));
    assert!(client.read(4_000_000) == b"ABCDEFGH".repeat(500_000));
    writer.join().unwrap().unwrap();
}

#[test]
fn an_idle_tunnel_is_ended_and_outlives_the_request_timeout() {
    let origin = Origin::new(loud);
    let text = format!("{}limits: {{ idle-timeout: 1200ms, request-timeout: 300ms }}\n", plain(&[&origin]));
    let proxy = Proxy::start(&text);
    let mut client = proxy.client();
    client.send(UPGRADE);
    assert_eq!(client.head().word(1), "101");
    for _ in 0..3 {
        std::thread::sleep(Duration::from_millis(500));
        client.send("x");
        assert_eq!(client.read(1), b"X");
    }
    assert!(client.is_closed());
    assert_eq!(proxy.logged("/chat")["ending"], "tunnel_idle");
}

#[test]
fn rfc9113_3_1_h2c_is_not_an_upgrade() {
    let origin = Origin::echo();
    let proxy = Proxy::start(&plain(&[&origin]));
    let answer = proxy
        .client()
        .get_with("/", "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n");
    assert_eq!(answer.status, 200);
    let head = origin.only().head;
    assert_eq!((head.field("upgrade"), head.field("http2-settings")), (None, None));
}
