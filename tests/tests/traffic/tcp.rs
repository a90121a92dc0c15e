//! `protocol: tcp`: bytes as they come, each direction for itself.

use ringway_tests::{Client, Conversation, Origin, Proxy, black_hole, eventually, free_port};
use std::time::{Duration, Instant};

fn tcp(to: &str, more: &str) -> String {
    format!(
        "listeners:\n  db: {{ address: 127.0.0.1:$db, protocol: tcp, to: pg{more} }}\nservices:\n  pg: {{ endpoints: [{to}], connect-timeout: 300ms }}\n"
    )
}

fn shout(conversation: &mut Conversation) {
    while let Some(bytes) = conversation.some() {
        conversation.send(bytes.to_ascii_uppercase());
    }
}

#[test]
fn bytes_pass_both_ways() {
    let origin = Origin::new(shout);
    let proxy = Proxy::start(&tcp(&origin.address().to_string(), ""));
    let mut client = Client::to(proxy.address("db"));
    for word in ["a", "\0\r\n\x16\x03\x01", "hello"] {
        client.send(word);
        assert_eq!(client.read(word.len()), word.to_ascii_uppercase().as_bytes());
    }
}

#[test]
fn a_server_that_speaks_first_is_heard() {
    let origin = Origin::new(|conversation| {
        conversation.send("220 mail\r\n");
        conversation.rest();
    });
    let proxy = Proxy::start(&tcp(&origin.address().to_string(), ""));
    assert_eq!(Client::to(proxy.address("db")).read(10), b"220 mail\r\n");
}

#[test]
fn the_client_may_end_its_direction_first() {
    // The answer is made only once the client's end has arrived.
    let origin = Origin::new(|conversation| {
        let all = conversation.rest().unwrap();
        conversation.send_after(Duration::from_millis(50), format!("{} bytes", all.len()));
    });
    let proxy = Proxy::start(&tcp(&origin.address().to_string(), ""));
    let mut client = Client::to(proxy.address("db"));
    client.send(vec![b'x'; 300_000]).finish();
    assert_eq!(client.rest().unwrap(), b"300000 bytes");
    let line = proxy.logged_ending("tunnel_closed");
    assert_eq!(line["protocol"].as_str().map(str::to_ascii_lowercase).as_deref(), Some("tcp"), "{line}");
    assert_eq!(line["service"], "pg");
}

#[test]
fn the_server_may_end_its_direction_first() {
    let (sender, receiver) = std::sync::mpsc::channel();
    let sender = std::sync::Mutex::new(sender);
    let origin = Origin::new(move |conversation| {
        conversation.send("done");
        conversation.finish();
        let _ = sender.lock().unwrap().send(conversation.rest().unwrap());
    });
    let proxy = Proxy::start(&tcp(&origin.address().to_string(), ""));
    let mut client = Client::to(proxy.address("db"));
    assert_eq!(client.rest().unwrap(), b"done");
    // Ours stands still.
    client.send("still talking");
    std::thread::sleep(Duration::from_millis(50));
    client.send(", to the end").finish();
    assert_eq!(receiver.recv_timeout(Duration::from_secs(10)).unwrap(), b"still talking, to the end");
}

#[test]
fn bulk_both_ways_at_once_is_whole() {
    let origin = Origin::new(shout);
    let proxy = Proxy::start(&tcp(&origin.address().to_string(), ""));
    let mut client = Client::to(proxy.address("db"));
    let mut twin = client.twin();
    let writer = std::thread::spawn(move || {
        std::io::Write::write_all(&mut twin, &b"0123456789abcdef".repeat(1_000_000)).unwrap();
        twin.finish();
    });
    assert!(client.rest().unwrap() == b"0123456789ABCDEF".repeat(1_000_000));
    writer.join().unwrap();
}

#[test]
fn an_idle_connection_is_ended() {
    let origin = Origin::new(shout);
    let proxy = Proxy::start(&tcp(&origin.address().to_string(), ", idle-timeout: 400ms"));
    let mut client = Client::to(proxy.address("db"));
    for _ in 0..4 {
        std::thread::sleep(Duration::from_millis(200));
        client.send("x");
        assert_eq!(client.read(1), b"X");
    }
    let begun = Instant::now();
    assert!(client.is_closed());
    assert!(begun.elapsed() > Duration::from_millis(300), "{:?}", begun.elapsed());
    proxy.logged_ending("tunnel_idle");
}

#[test]
fn bytes_one_way_keep_both_directions_alive() {
    let origin = Origin::new(|conversation| {
        for _ in 0..8 {
            conversation.send_after(Duration::from_millis(150), "tick");
        }
        let number = conversation.number().to_string();
        conversation.send(number);
    });
    let proxy = Proxy::start(&tcp(&origin.address().to_string(), ", idle-timeout: 400ms"));
    let mut client = Client::to(proxy.address("db"));
    assert_eq!(client.rest().unwrap().len(), 8 * 4 + 1);
}

#[test]
fn a_service_that_refuses_ends_the_connection() {
    let proxy = Proxy::start(&tcp(&format!("127.0.0.1:{}", free_port()), ""));
    // The reset may come before our own connect has returned.
    assert!(Client::try_to(proxy.address("db")).map_or(true, |mut client| client.is_closed()));
    proxy.logged_ending("connect_failed");
}

#[test]
fn a_service_that_does_not_answer_ends_the_connection_in_time() {
    let (_hole, address) = black_hole();
    let proxy = Proxy::start(&tcp(&address.to_string(), ""));
    let mut client = Client::to(proxy.address("db"));
    let begun = Instant::now();
    assert!(client.is_closed());
    let waited = begun.elapsed();
    assert!(waited > Duration::from_millis(250) && waited < Duration::from_secs(3), "{waited:?}");
    proxy.logged_ending("connect_timeout");
}

#[test]
fn a_reset_on_one_side_ends_the_other() {
    let origin = Origin::new(|conversation| {
        conversation.read(1);
        conversation.reset_unread();
    });
    let proxy = Proxy::start(&tcp(&origin.address().to_string(), ""));
    let mut client = Client::to(proxy.address("db"));
    client.send("x");
    std::thread::sleep(Duration::from_millis(50));
    let _gone = client.try_send("yyyy");
    assert!(client.rest().is_ok_and(|rest| rest.is_empty()) || client.is_closed());
    eventually("both sides are gone", || origin.open() == 0);
}

#[test]
fn weights_share_connections_out() {
    let (a, b) = (Origin::new(shout), Origin::new(shout));
    let proxy = Proxy::start(&format!(
        "listeners:\n  db: {{ address: 127.0.0.1:$db, protocol: tcp, to: {{ pg: 3, old: 1 }} }}\nservices:\n  pg: {{ endpoints: [{}] }}\n  old: {{ endpoints: [{}] }}\n",
        a.address(),
        b.address()
    ));
    for _ in 0..200 {
        let mut client = Client::to(proxy.address("db"));
        client.send("x");
        assert_eq!(client.read(1), b"X");
    }
    let (a, b) = (a.connections(), b.connections());
    assert_eq!(a + b, 200);
    // Four deviations of a fair draw around 150.
    assert!((125..=175).contains(&a), "{a} of 200");
}

#[test]
fn a_dead_endpoint_does_not_cost_a_connection() {
    let origin = Origin::new(shout);
    let proxy = Proxy::start(&tcp(&format!("127.0.0.1:{}, {}", free_port(), origin.address()), ""));
    for _ in 0..20 {
        let mut client = Client::to(proxy.address("db"));
        client.send("x");
        assert_eq!(client.read(1), b"X");
    }
}
