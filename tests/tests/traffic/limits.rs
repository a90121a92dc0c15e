//! Limits of a service and of the process: a bounded queue, then 503; accepting pauses.

use ringway_tests::{Client, Origin, Proxy, eventually, respond};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Takes this long for each request and knows how many it had at once, at most.
fn slow(most: Arc<AtomicUsize>, time_ms: u64) -> Origin {
    let now = Arc::new(AtomicUsize::new(0));
    Origin::new(move |conversation| {
        while conversation.request().is_some() {
            let count = now.fetch_add(1, Ordering::SeqCst) + 1;
            most.fetch_max(count, Ordering::SeqCst);
            std::thread::sleep(Duration::from_millis(time_ms));
            now.fetch_sub(1, Ordering::SeqCst);
            conversation.send(respond(200, "", b"x"));
        }
    })
}

fn limited(origin: &Origin, limits: &str, cores: &str) -> Proxy {
    Proxy::start(&format!(
        "listeners:\n  web: {{ address: 127.0.0.1:$web, routes: [ {{ to: app }} ] }}\nservices:\n  app: {{ endpoints: [{}], limits: {limits} }}\ncores: {cores}\n",
        origin.address()
    ))
}

/// The statuses of so many requests at once.
fn at_once(proxy: &Proxy, count: usize) -> (usize, usize) {
    let mut clients: Vec<Client> = (0..count).map(|_| proxy.client()).collect();
    for client in &mut clients {
        client.send("GET /limited HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    let statuses: Vec<u16> = clients.iter_mut().map(|client| client.answer().status).collect();
    let of = |status| statuses.iter().filter(|s| **s == status).count();
    assert_eq!(of(200) + of(503), count, "{statuses:?}");
    (of(200), of(503))
}

#[test]
fn connections_are_bounded_and_the_others_wait() {
    let most = Arc::new(AtomicUsize::new(0));
    let origin = slow(most.clone(), 50);
    let proxy = limited(&origin, "{ connections: 2, pending: 100 }", "1");
    assert_eq!(at_once(&proxy, 12), (12, 0));
    assert_eq!(most.load(Ordering::SeqCst), 2);
    assert_eq!(origin.connections(), 2);
}

#[test]
fn connections_are_bounded_over_all_cores() {
    let most = Arc::new(AtomicUsize::new(0));
    let origin = slow(most.clone(), 50);
    let proxy = limited(&origin, "{ connections: 2, pending: 100 }", "all");
    assert_eq!(at_once(&proxy, 12), (12, 0));
    assert!(most.load(Ordering::SeqCst) <= 2, "{most:?}");
}

#[test]
fn a_full_queue_answers_503_at_once() {
    let most = Arc::new(AtomicUsize::new(0));
    let origin = slow(most.clone(), 400);
    let proxy = limited(&origin, "{ connections: 1, pending: 2 }", "1");
    assert_eq!(at_once(&proxy, 8), (3, 5));
    assert_eq!(proxy.logged_ending("overloaded")["status"], 503);
    // And when it is over, it is over.
    assert_eq!(proxy.client().get("/").status, 200);
}

#[test]
fn pending_zero_means_no_queue() {
    let most = Arc::new(AtomicUsize::new(0));
    let origin = slow(most.clone(), 300);
    let proxy = limited(&origin, "{ connections: 1, pending: 0 }", "1");
    assert_eq!(at_once(&proxy, 5), (1, 4));
}

#[test]
fn requests_are_bounded() {
    let most = Arc::new(AtomicUsize::new(0));
    let origin = slow(most.clone(), 300);
    let proxy = limited(&origin, "{ requests: 3, pending: 0 }", "1");
    let (good, refused) = at_once(&proxy, 10);
    assert!(most.load(Ordering::SeqCst) <= 3, "{most:?}");
    assert_eq!((good, refused), (3, 7));
}

#[test]
fn a_core_does_not_starve_on_the_other_cores_idle_connections() {
    let origin = Origin::text("x");
    let proxy = limited(&origin, "{ connections: 1, pending: 10 }", "all");
    // Whichever core accepts each of these: the one connection stays idle in some core's pool, and must be given up.
    for _ in 0..40 {
        assert_eq!(proxy.client().get("/").status, 200);
    }
}

#[test]
fn waiting_clients_that_leave_block_nobody_for_good() {
    let most = Arc::new(AtomicUsize::new(0));
    let origin = slow(most, 300);
    let proxy = Proxy::start(&format!(
        "listeners:\n  web: {{ address: 127.0.0.1:$web, routes: [ {{ match: {{ path: /ping }}, respond: {{ status: 200 }} }}, {{ to: app }} ] }}\n\
         services:\n  app: {{ endpoints: [{}], limits: {{ connections: 1, pending: 3 }} }}\n",
        origin.address()
    ));
    let mut first = proxy.client();
    first.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually("it has arrived", || origin.count() == 1);
    for _ in 0..3 {
        let mut leaving = proxy.client();
        // An end of its sending side would not mean that it is gone. The first answer stays unread: closing then resets.
        leaving.send("GET /ping HTTP/1.1\r\nHost: a\r\n\r\nGET /left HTTP/1.1\r\nHost: a\r\n\r\n");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(first.answer().status, 200);
    eventually("the line is free", || proxy.client().get("/next").status == 200);
    for left in ["ringway_service_pending", "ringway_service_requests"] {
        eventually(left, || proxy.metrics().sum(left, &[]) == 0.0);
    }
}

#[test]
fn accepting_pauses_at_the_processs_limit() {
    let origin = Origin::text("x");
    let proxy = Proxy::start(&format!("{}limits: {{ connections: 3 }}\n", ringway_tests::plain(&[&origin])));
    let mut held: Vec<Client> = (0..3).map(|_| proxy.client()).collect();
    for client in &mut held {
        assert_eq!(client.get("/").status, 200);
    }
    // The kernel takes it into its queue, we do not.
    let mut waiting = proxy.client();
    waiting.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(waiting.is_silent(Duration::from_millis(300)));
    held.pop();
    assert_eq!(waiting.answer().status, 200);
    // The admin page does not count.
    assert!(proxy.is_ready());
}
