//! Deadlines: of a route, of a connect, of a request, of silence.

use ringway_tests::{Origin, Proxy, black_hole, plain, respond, routes};
use std::time::{Duration, Instant};

fn took(begun: Instant, least_ms: u64, most_ms: u64) {
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(least_ms) && took < Duration::from_millis(most_ms), "{took:?}");
}

#[test]
fn a_routes_timeout_counts_from_the_request_complete() {
    let origin = Origin::new(|conversation| {
        while let Some(seen) = conversation.request() {
            conversation.send_after(Duration::from_millis(seen.body.len() as u64), respond(200, "", b"x"));
        }
    });
    let proxy = Proxy::start(&routes("{ to: app, timeout: 400ms }", &[&origin]));
    // The upload alone takes longer than the timeout, the answer does not.
    let mut client = proxy.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 50\r\n\r\n");
    client.send_in_pieces(&[b'x'; 50], 10, Duration::from_millis(150));
    assert_eq!(client.answer().status, 200);

    let begun = Instant::now();
    let mut client = proxy.client();
    client.send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2000\r\n\r\n{}", "x".repeat(2000)));
    assert_eq!(client.answer().status, 504);
    took(begun, 350, 1800);
}

#[test]
fn a_routes_timeout_cuts_an_answer_that_has_begun() {
    let origin = Origin::new(|conversation| {
        if conversation.request().is_some() {
            conversation.send("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n");
            for _ in 0..100 {
                conversation.send_after(Duration::from_millis(50), "0123456789");
            }
        }
    });
    let proxy = Proxy::start(&routes("{ to: app, timeout: 400ms }", &[&origin]));
    let mut client = proxy.client();
    let begun = Instant::now();
    client.send("GET /cut HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(client.try_answer("GET").is_err(), "shown as complete");
    took(begun, 350, 2000);
    assert_eq!(proxy.logged("/cut")["ending"], "upstream_timeout");
}

#[test]
fn without_a_timeout_a_service_may_take_its_time() {
    let origin = Origin::new(|conversation| {
        while conversation.request().is_some() {
            conversation.send_after(Duration::from_millis(900), respond(200, "", b"slow"));
        }
    });
    let text = format!("{}limits: {{ request-timeout: 300ms }}\n", plain(&[&origin]));
    assert_eq!(Proxy::start(&text).client().get("/").text(), "slow");
}

#[test]
fn a_service_that_goes_silent_is_given_up_after_the_idle_timeout() {
    let origin = Origin::new(|conversation| {
        if conversation.request().is_some() {
            conversation.send("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nsome");
            conversation.rest();
        }
    });
    let proxy = Proxy::start(&format!("{}limits: {{ idle-timeout: 400ms }}\n", plain(&[&origin])));
    let mut client = proxy.client();
    let begun = Instant::now();
    client.send("GET /silent HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(client.try_answer("GET").is_err(), "shown as complete");
    took(begun, 350, 3000);
}

#[test]
fn a_client_that_takes_nothing_is_given_up_after_the_idle_timeout() {
    let origin = Origin::new(|conversation| {
        if conversation.request().is_some() {
            conversation.send("HTTP/1.1 200 OK\r\nContent-Length: 131072000\r\n\r\n");
            // More than all sockets on the way hold; what is broken off by the proxy fails at once.
            for _ in 0..2000 {
                conversation.send([b'x'; 65_536]);
            }
        }
    });
    let proxy = Proxy::start(&format!("{}limits: {{ idle-timeout: 800ms }}\n", plain(&[&origin])));
    let mut client = proxy.client();
    client.send("GET /stalled HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(proxy.logged("/stalled")["ending"], "client_stalled");
    assert!(client.try_answer("GET").is_err(), "shown as complete");
}

#[test]
fn a_connect_that_does_not_stand_in_time_is_503() {
    let (_hole, address) = black_hole();
    let proxy = Proxy::start(&format!(
        "listeners:\n  web: {{ address: 127.0.0.1:$web, routes: [ {{ to: app }} ] }}\nservices:\n  app: {{ endpoints: ['{address}'], connect-timeout: 300ms }}\n"
    ));
    let begun = Instant::now();
    assert_eq!(proxy.client().get("/hole").status, 503);
    took(begun, 250, 2500);
    assert_eq!(proxy.logged("/hole")["ending"], "connect_timeout");
}

#[test]
fn a_connect_timeout_goes_to_another_endpoint() {
    let (_hole, address) = black_hole();
    let origin = Origin::echo();
    let proxy = Proxy::start(&format!(
        "listeners:\n  web: {{ address: 127.0.0.1:$web, routes: [ {{ to: app, retry: {{ retries: 2, on: [connect-failure] }} }} ] }}\n\
         services:\n  app: {{ endpoints: ['{address}', '{}'], connect-timeout: 200ms, balance: round-robin }}\n",
        origin.address()
    ));
    for _ in 0..4 {
        assert_eq!(proxy.client().get("/").status, 200);
    }
}

#[test]
fn the_request_timeout_is_absolute_however_busy_the_sender_is() {
    let origin = Origin::echo();
    let proxy = Proxy::start(&format!("{}limits: {{ request-timeout: 500ms }}\n", plain(&[&origin])));
    let mut client = proxy.client();
    let begun = Instant::now();
    client.send("GET /drip HTTP/1.1\r\n");
    for n in 0..100 {
        if client.try_send(format!("X{n}: y\r\n")).is_err() || begun.elapsed() > Duration::from_millis(900) {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(client.answer().status, 408);
    took(begun, 450, 3000);
}

#[test]
fn a_listeners_own_idle_timeout_wins() {
    let origin = Origin::echo();
    let proxy = Proxy::start(&format!(
        "listeners:\n  web: {{ address: 127.0.0.1:$web, idle-timeout: 300ms, routes: [ {{ to: app }} ] }}\n  slow: {{ address: 127.0.0.1:$slow, routes: [ {{ to: app }} ] }}\nservices:\n  app: {{ endpoints: [{}] }}\n",
        origin.address()
    ));
    let mut slow = ringway_tests::Client::to(proxy.address("slow"));
    assert_eq!(slow.get("/").status, 200);
    let mut client = proxy.client();
    assert_eq!(client.get("/").status, 200);
    let begun = Instant::now();
    assert!(client.is_closed());
    took(begun, 250, 2500);
    assert_eq!(slow.get("/").status, 200);
}
