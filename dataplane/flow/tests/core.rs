//! One core from listener to endpoint, on the simulated driver, with peers that follow a script.

mod stage;

use stage::{SECOND, Stage, Step};

const ORIGIN: &str = "10.0.0.1:80";

fn web(more: &str) -> String {
    format!(
        "listeners:\n  web:\n    address: 10.9.0.1:80\n    routes:\n      \
         - {{ name: ping, match: {{ path: /ping }}, respond: {{ body: pong }} }}\n      - {{ name: all, to: app }}\n\
         services:\n  app: {{ endpoints: ['{ORIGIN}'] }}\naccess-log: {{ path: /dev/null }}\n{more}\n"
    )
}

fn tcp() -> String {
    format!(
        "listeners: {{ db: {{ address: 10.9.0.1:80, protocol: tcp, to: pg }} }}\n\
         services: {{ pg: {{ endpoints: ['{ORIGIN}'] }} }}\naccess-log: {{ path: /dev/null }}\n"
    )
}

fn answers() -> Vec<Step> {
    vec![Step::Await("\r\n\r\n"), Step::Send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok".into())]
}

fn send(text: &str) -> Step {
    Step::Send(text.into())
}

#[test]
fn a_body_that_says_it_is_too_long_is_answered_413_and_nothing_is_forwarded() {
    let mut stage = Stage::new(&web("limits: { body: 10B }"));
    let origin = stage.origin(ORIGIN, answers());
    let heard = stage.client(vec![send("POST /a HTTP/1.1\r\nhost: a\r\ncontent-length: 11\r\n\r\n01234567890")]);
    stage.run(5 * SECOND);
    assert!(heard.text().starts_with("HTTP/1.1 413 "), "{}", heard.text());
    assert_eq!(origin.text(), "");
    let record = stage.records().remove(0);
    assert_eq!((record.ending.as_str(), record.status, record.received_bytes), ("body_too_large", 413, 11));
    // What was read to its end leaves a good connection; a body of just the limit passes.
    let at_limit = "POST /a HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\n0123456789";
    let heard = stage.client(vec![send(at_limit)]);
    stage.run(5 * SECOND);
    assert!(heard.text().starts_with("HTTP/1.1 200 "), "{}", heard.text());
}

#[test]
fn a_chunked_body_that_grows_too_long_is_answered_413_and_cut_towards_the_service() {
    let mut stage = Stage::new(&web("limits: { body: 10B }"));
    let origin = stage.origin(ORIGIN, vec![]);
    let head = "POST /a HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n6\r\n012345\r\n";
    let heard = stage.client(vec![send(head), Step::Sleep(SECOND), send("5\r\n01234\r\n0\r\n\r\n")]);
    stage.run(10 * SECOND);
    assert!(heard.text().starts_with("HTTP/1.1 413 "), "{}", heard.text());
    assert!(origin.text().ends_with("\r\n\r\n6\r\n012345\r\n"), "{}", origin.text());
    assert_eq!(origin.end(), Some(Err(ring::Error::Reset)));
    assert_eq!(stage.records()[0].ending, "body_too_large");
}

#[test]
fn a_body_that_grows_too_long_cuts_an_answer_that_has_begun() {
    let mut stage = Stage::new(&web("limits: { body: 10B }"));
    let early = "HTTP/1.1 200 OK\r\n\r\nuntil I close";
    stage.origin(ORIGIN, vec![Step::Await("012345"), send(early)]);
    // An HTTP/1.0 client takes the end of the connection for the end of the answer.
    let head = "POST /a HTTP/1.0\r\nhost: a\r\ncontent-length: 8\r\n\r\n012345";
    let whole = stage.client(vec![send(head), Step::Sleep(SECOND), send("67")]);
    let head = "POST /a HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n6\r\n012345\r\n";
    let cut = stage.client(vec![send(head), Step::Sleep(SECOND), send("5\r\n01234\r\n0\r\n\r\n")]);
    stage.run(10 * SECOND);
    assert!(whole.text().ends_with("until I close"), "{}", whole.text());
    assert!(cut.text().starts_with("HTTP/1.1 200 ") && !cut.text().ends_with("0\r\n\r\n"), "{}", cut.text());
    assert!(cut.end().is_some());
    assert_eq!(stage.records()[0].ending, "body_too_large");
}

#[test]
fn answers_of_our_own_are_logged_with_their_bytes() {
    let mut stage = Stage::new(&web(""));
    let heard = stage.client(vec![
        send("POST /ping HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc"),
        send("POST /ping HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\n\r\n"),
        send("HEAD /ping HTTP/1.1\r\nhost: a\r\n\r\n"),
        send("GET /none HTTP/1.1\r\nhost: a\r\n\r\n"),
    ]);
    stage.run(5 * SECOND);
    let text = heard.text();
    assert_eq!(text.matches("pong").count(), 2, "{text}");
    let records = stage.records();
    let bytes: Vec<(u64, u64)> = records.iter().map(|record| (record.received_bytes, record.sent_bytes)).collect();
    let error = text.rsplit("\r\n\r\n").next().unwrap_or_default().len() as u64;
    assert!(error > 0, "{text}");
    // Nothing listens at the service's address: 503.
    assert_eq!(bytes, [(3, 4), (5, 4), (0, 0), (0, error)]);
    assert_eq!(records[3].status, 503);
}

#[test]
fn a_client_that_resets_while_the_service_works_ends_the_request() {
    let mut stage = Stage::new(&web(""));
    let origin = stage.origin(ORIGIN, vec![]);
    let get = || send("GET /slow HTTP/1.1\r\nhost: a\r\n\r\n");
    stage.client(vec![get(), Step::Sleep(SECOND), Step::Reset]);
    stage.run(3 * SECOND / 2);
    assert_eq!(origin.end(), Some(Err(ring::Error::Reset)));
    assert_eq!(stage.records().remove(0).ending, "client_gone");
}

#[test]
fn a_client_that_only_ends_its_sending_gets_its_answer() {
    let mut stage = Stage::new(&web(""));
    let answer = send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
    stage.origin(ORIGIN, vec![Step::Await("\r\n\r\n"), Step::Sleep(5 * SECOND), answer]);
    let heard = stage.client(vec![send("GET /slow HTTP/1.1\r\nhost: a\r\n\r\n"), Step::Fin]);
    stage.run(10 * SECOND);
    assert!(heard.text().starts_with("HTTP/1.1 200 ") && heard.text().ends_with("ok"), "{}", heard.text());
}

#[test]
fn what_is_left_at_the_end_of_draining_is_cut_and_counted_so() {
    let waits = "limits: { connections: 100 }";
    let mut stage = Stage::new(&web(waits).replace("80'] }", "80'], limits: { connections: 2 } }"));
    let switch = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nhi";
    let origin = stage.origin(ORIGIN, vec![Step::Await("up\r\n"), send(switch)]);
    let ask = "GET /a HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\nx-up: up\r\n\r\n";
    let tunnel = stage.client(vec![send(ask)]);
    stage.run(SECOND / 2);
    assert!(tunnel.text().ends_with("hi"), "{}", tunnel.text());
    // One that waits for its answer, one that waits for a connection, one that goes on sending.
    let slow = stage.client(vec![send("POST /slow HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\nabc")]);
    stage.run(SECOND / 2);
    let pending = stage.client(vec![send("GET /pending HTTP/1.1\r\nhost: a\r\n\r\n")]);
    stage.run(SECOND / 2);
    assert_eq!((stage.counters.downstream.value(), stage.counters.pending.value()), (3, 1));
    stage.order(true, false);
    stage.run(SECOND);
    assert_eq!((stage.counters.downstream.value(), stage.records().len()), (3, 0));
    stage.order(true, true);
    stage.run(SECOND / 10);
    assert_eq!((stage.counters.downstream.value(), stage.counters.upstream.value()), (0, 0));
    for heard in [tunnel, slow, pending, origin] {
        assert!(heard.end().is_some(), "{}", heard.text());
    }
    let endings: Vec<String> = stage.records().into_iter().map(|record| record.ending).collect();
    assert_eq!(endings, ["drained"; 3]);
    assert_eq!(stage.ended("drained"), 3);
}

#[test]
fn a_tcp_tunnel_is_cut_at_the_end_of_draining() {
    let mut stage = Stage::new(&tcp());
    let origin = stage.origin(ORIGIN, vec![Step::Await("hello"), send("world")]);
    let heard = stage.client(vec![send("hello")]);
    stage.run(SECOND);
    assert_eq!(heard.text(), "world");
    stage.order(true, false);
    stage.run(SECOND);
    assert_eq!(heard.end(), None);
    stage.order(true, true);
    stage.run(SECOND / 10);
    let reset = Some(Err(ring::Error::Reset));
    assert_eq!((heard.end(), origin.end()), (reset, reset));
    let record = stage.records().remove(0);
    assert_eq!((record.ending.as_str(), record.received_bytes, record.sent_bytes), ("drained", 5, 5));
    let names = [record.listener, record.route, record.service, record.destination, record.protocol];
    assert_eq!(names, ["db", "", "pg", ORIGIN, "TCP"]);
}

#[test]
fn a_tunnel_keeps_no_plan() {
    let switch = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nyo";
    let ask = "GET /a HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
    // The next plan has the same listener, or another.
    for elsewhere in [false, true] {
        for (first, asked, answered) in [(web(""), ask, switch), (tcp(), "hello", "yo")] {
            let mut stage = Stage::new(&first);
            stage.origin(ORIGIN, vec![Step::Await(if asked == ask { "\r\n\r\n" } else { asked }), send(answered)]);
            let heard =
                stage.client(vec![send(asked), Step::Await("yo"), Step::Sleep(5 * SECOND), send("bye"), Step::Fin]);
            stage.run(SECOND);
            assert!(heard.text().ends_with("yo"), "{}", heard.text());
            let next = if elsewhere { first.replace("10.9.0.1", "10.9.0.2") } else { first };
            let before = stage.apply(&next).expect("the first");
            stage.run(SECOND);
            assert_eq!((std::sync::Arc::strong_count(&before), heard.end()), (1, None), "{next}");
            stage.run(200 * SECOND);
            let record = stage.records().remove(0);
            let names = [record.listener, record.route, record.service, record.destination, record.protocol];
            let expected = match asked == ask {
                true => ["web", "all", "app", ORIGIN, "websocket"],
                false => ["db", "", "pg", ORIGIN, "TCP"],
            };
            assert_eq!(names, expected);
            assert_eq!((record.ending.as_str(), record.status), ("tunnel_closed", if asked == ask { 101 } else { 0 }));
        }
    }
}

#[test]
fn what_a_route_sets_or_removes_is_not_written_by_the_proxy_beside_it() {
    let config = format!(
        "listeners:\n  web:\n    address: 10.9.0.1:80\n    routes:\n      \
         - {{ name: ping, match: {{ path: /ping }}, respond: {{ body: '{{}}' }}, \
         response-headers: {{ set: {{ content-type: application/json }} }} }}\n      \
         - {{ name: old, match: {{ path: /old }}, redirect: {{ path: /new }}, \
         response-headers: {{ set: {{ location: /other }} }} }}\n      \
         - {{ name: all, to: app, request-headers: {{ set: {{ x-request-id: mine, x-forwarded-for: me }}, \
         remove: [via, x-forwarded-proto] }} }}\n\
         services:\n  app: {{ endpoints: ['{ORIGIN}'] }}\n"
    );
    let mut stage = Stage::new(&config);
    let origin = stage.origin(ORIGIN, answers());
    let heard = stage.client(vec![
        send("GET /ping HTTP/1.1\r\nhost: a\r\n\r\n"),
        send("GET /old HTTP/1.1\r\nhost: a\r\n\r\n"),
        send("GET /x HTTP/1.1\r\nhost: a\r\nx-request-id: yours\r\n\r\n"),
    ]);
    stage.run(5 * SECOND);
    let (ours, seen) = (heard.text(), origin.text());
    assert_eq!(ours.matches("content-type").count(), 1, "{ours}");
    assert!(ours.contains("content-type: application/json\r\n"), "{ours}");
    assert_eq!(ours.matches("location").count(), 1, "{ours}");
    assert!(ours.contains("location: /other\r\n"), "{ours}");
    let line = |text: &str| seen.matches(text).count();
    assert_eq!((line("x-request-id: mine\r\n"), line("x-request-id")), (1, 1), "{seen}");
    assert_eq!((line("x-forwarded-for: me\r\n"), line("x-forwarded-for")), (1, 1), "{seen}");
    assert_eq!((line("via"), line("x-forwarded-proto")), (0, 0), "{seen}");
}

#[test]
fn the_time_of_a_route_holds_for_connecting_and_the_answer_together() {
    let config = format!(
        "listeners: {{ web: {{ address: 10.9.0.1:80, routes: [ {{ name: all, to: app, timeout: 1s }} ] }} }}\n\
         services: {{ app: {{ endpoints: ['{ORIGIN}'] }} }}\naccess-log: {{ path: /dev/null }}\n"
    );
    let mut stage = Stage::new(&config);
    stage.origin(ORIGIN, vec![]);
    let heard = stage.client(vec![send("GET /x HTTP/1.1\r\nhost: a\r\n\r\n")]);
    stage.run(SECOND / 10 * 9);
    assert_eq!(heard.text(), "");
    stage.run(SECOND / 5);
    assert!(heard.text().starts_with("HTTP/1.1 504 "), "{}", heard.text());
}

#[test]
fn idle_connections_to_endpoints_that_are_gone_do_not_count_against_the_limit() {
    let config = |endpoint: &str| {
        format!(
            "listeners: {{ web: {{ address: 10.9.0.1:80, routes: [ {{ name: all, to: app }} ] }} }}\n\
             services: {{ app: {{ endpoints: ['{endpoint}'], limits: {{ connections: 1 }} }} }}\n"
        )
    };
    let mut stage = Stage::new(&config(ORIGIN));
    stage.origin(ORIGIN, answers());
    stage.origin("10.0.0.2:80", answers());
    let get = || vec![send("GET /x HTTP/1.1\r\nhost: a\r\n\r\n")];
    let first = stage.client(get());
    stage.run(SECOND);
    stage.apply(&config("10.0.0.2:80"));
    stage.order(false, false);
    stage.run(SECOND);
    let second = stage.client(get());
    stage.run(SECOND);
    assert!(first.text().starts_with("HTTP/1.1 200 "), "{}", first.text());
    assert!(second.text().starts_with("HTTP/1.1 200 "), "{}", second.text());
}

#[test]
fn an_upload_may_take_longer_than_the_idle_timeout_while_bytes_come() {
    let mut stage = Stage::new(&web("limits: { idle-timeout: 2s }"));
    stage.origin(ORIGIN, vec![Step::Await("the end"), send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")]);
    let mut steps = vec![send("POST /a HTTP/1.1\r\nhost: a\r\ncontent-length: 57\r\n\r\n")];
    for _ in 0..10 {
        steps.extend([Step::Sleep(SECOND), send("01234")]);
    }
    steps.push(send("the end"));
    let heard = stage.client(steps);
    stage.run(20 * SECOND);
    assert!(heard.text().starts_with("HTTP/1.1 200 "), "{}", heard.text());
}

#[test]
fn who_waits_for_a_service_that_a_plan_drops_is_still_served() {
    let config = |service: &str| {
        format!(
            "listeners: {{ web: {{ address: 10.9.0.1:80, routes: [ {{ name: all, to: {service} }} ] }} }}\n\
             services: {{ {service}: {{ endpoints: ['{ORIGIN}'], limits: {{ connections: 1 }} }} }}\n"
        )
    };
    let mut stage = Stage::new(&config("s"));
    let answer = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok";
    stage.origin(ORIGIN, vec![Step::Await("\r\n\r\n"), Step::Sleep(2 * SECOND), send(answer)]);
    let get = || vec![send("GET /x HTTP/1.1\r\nhost: a\r\n\r\n")];
    let (first, second) = (stage.client(get()), stage.client(get()));
    stage.run(SECOND);
    stage.apply(&config("z"));
    stage.order(false, false);
    stage.run(5 * SECOND);
    assert!(first.text().starts_with("HTTP/1.1 200 "), "{}", first.text());
    assert!(second.text().starts_with("HTTP/1.1 200 "), "{}", second.text());
}
