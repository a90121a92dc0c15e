//! Which endpoint gets a request: shares, weights, failures.

use ringway_tests::{Client, Origin, Proxy, free_port, respond, routes};
use std::time::Duration;

/// A service `app` of these endpoints (YAML of the list), balanced so.
fn balanced(endpoints: &str, balance: &str, more: &str) -> Proxy {
    Proxy::start(&format!(
        "listeners:\n  web: {{ address: 127.0.0.1:$web, routes: [ {{ to: app }} ] }}\nservices:\n  app: {{ endpoints: [{endpoints}], balance: {balance} }}\n{more}"
    ))
}

fn ask(proxy: &Proxy, times: usize) {
    let mut client = proxy.client();
    for _ in 0..times {
        assert_eq!(client.get("/").status, 200);
    }
}

#[test]
fn round_robin_takes_turns() {
    let (a, b, c) = (Origin::text("a"), Origin::text("b"), Origin::text("c"));
    let proxy = balanced(&format!("{}, {}, {}", a.address(), b.address(), c.address()), "round-robin", "");
    ask(&proxy, 30);
    assert_eq!((a.count(), b.count(), c.count()), (10, 10, 10));
}

#[test]
fn round_robin_honours_weights() {
    let (a, b) = (Origin::text("a"), Origin::text("b"));
    let endpoints = format!("{{ address: '{}', weight: 3 }}, {{ address: '{}' }}", a.address(), b.address());
    let proxy = balanced(&endpoints, "round-robin", "");
    ask(&proxy, 40);
    assert_eq!((a.count(), b.count()), (30, 10));
}

#[test]
fn random_honours_weights() {
    let (a, b) = (Origin::text("a"), Origin::text("b"));
    let endpoints = format!("{{ address: '{}', weight: 3 }}, {{ address: '{}' }}", a.address(), b.address());
    let proxy = balanced(&endpoints, "random", "");
    ask(&proxy, 400);
    // 300 expected, deviation 8.7.
    assert!((260..=340).contains(&a.count()), "{}", a.count());
    assert_eq!(a.count() + b.count(), 400);
}

#[test]
fn least_request_avoids_the_busy_one() {
    let slow = Origin::new(|conversation| {
        while conversation.request().is_some() {
            conversation.send_after(Duration::from_millis(1500), respond(200, "", b"slow"));
        }
    });
    let fast = Origin::text("fast");
    let proxy = balanced(&format!("{}, {}", slow.address(), fast.address()), "least-request", "");
    // Some land on the slow one and stay there; from then on the other is better.
    let mut waiting: Vec<Client> = (0..4).map(|_| proxy.client()).collect();
    for client in &mut waiting {
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        std::thread::sleep(Duration::from_millis(20));
    }
    while slow.count() == 0 {
        let mut client = proxy.client();
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        std::thread::sleep(Duration::from_millis(20));
        waiting.push(client);
    }
    let before = slow.count();
    ask(&proxy, 50);
    assert_eq!(slow.count(), before, "two choices of two endpoints see the busy one always");
}

#[test]
fn peak_ewma_prefers_the_faster_one() {
    let slow = Origin::new(|conversation| {
        while conversation.request().is_some() {
            conversation.send_after(Duration::from_millis(60), respond(200, "", b"slow"));
        }
    });
    let fast = Origin::text("fast");
    let proxy = balanced(&format!("{}, {}", slow.address(), fast.address()), "peak-ewma", "");
    ask(&proxy, 200);
    assert!(fast.count() > 150, "{} of 200 went to the fast one", fast.count());
}

#[test]
fn weighted_routes_share_requests_out() {
    let (old, new) = (Origin::text("old"), Origin::text("new"));
    let proxy = Proxy::start(&format!(
        "listeners:\n  web: {{ address: 127.0.0.1:$web, routes: [ {{ to: {{ old: 90, new: 10, never: 0 }} }} ] }}\n\
         services:\n  old: {{ endpoints: [{}] }}\n  new: {{ endpoints: [{}] }}\n  never: {{ endpoints: [127.0.0.1:1] }}\n",
        old.address(),
        new.address()
    ));
    ask(&proxy, 1000);
    // 100 expected, deviation 9.5.
    assert!((55..=145).contains(&new.count()), "{}", new.count());
    assert_eq!(old.count() + new.count(), 1000);
}

#[test]
fn a_failed_connect_goes_to_another_endpoint() {
    let origin = Origin::echo();
    for retry in [", retry: { retries: 1, on: [connect-failure] }", ""] {
        let proxy = Proxy::start(&format!(
            "listeners:\n  web: {{ address: 127.0.0.1:$web, routes: [ {{ to: app{retry} }} ] }}\n\
             services:\n  app: {{ endpoints: ['127.0.0.1:{}', '{}'], balance: round-robin }}\n",
            free_port(),
            origin.address()
        ));
        let before = origin.count();
        let mut client = proxy.client();
        for _ in 0..20 {
            assert_eq!(client.get("/").status, 200, "{retry}");
        }
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello");
        assert_eq!(client.answer().json()["body_bytes"], 5);
        assert_eq!(origin.count() - before, 21, "each was sent once");
    }
}

#[test]
fn no_request_is_sent_twice_when_a_service_breaks_after_reading_it() {
    let breaking = Origin::new(|conversation| drop(conversation.request()));
    let other = Origin::new(|conversation| drop(conversation.request()));
    let proxy =
        Proxy::start(&routes("{ to: app, retry: { retries: 3, on: [connect-failure] } }", &[&breaking, &other]));
    for n in 1..=10 {
        assert_eq!(proxy.client().get("/").status, 502);
        assert_eq!(breaking.count() + other.count(), n);
    }
}

#[test]
fn names_are_resolved() {
    let origin = Origin::echo();
    let proxy = balanced(&format!("'localhost:{}'", origin.address().port()), "round-robin", "");
    // It may resolve to ::1 as well, where nobody listens.
    ask(&proxy, 10);
    assert_eq!(origin.count(), 10);
}

#[test]
fn two_cores_share_what_they_know() {
    let (a, b) = (Origin::text("a"), Origin::text("b"));
    let proxy = balanced(&format!("{}, {}", a.address(), b.address()), "round-robin", "cores: all\n");
    for _ in 0..40 {
        ask(&proxy, 1);
    }
    // The turn is one for all cores, or each has its own: then each is off by one at most.
    assert!(a.count().abs_diff(b.count()) <= 2, "{} {}", a.count(), b.count());
}

#[test]
fn an_endpoint_on_a_unix_socket() {
    let folder = tempfile::TempDir::new().unwrap();
    let path = folder.path().join("app.sock");
    let origin = Origin::on_unix(&path, |conversation| {
        while conversation.request().is_some() {
            conversation.send(respond(200, "", b"unix"));
        }
    });
    let proxy = balanced(&format!("'unix:{}'", path.display()), "round-robin", "");
    assert_eq!(proxy.client().get("/").text(), "unix");
    assert_eq!(origin.connections(), 1);
}
