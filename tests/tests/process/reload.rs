//! SIGHUP: a good file replaces the plan without one failed request, a bad one is refused and changes nothing.

use ringway_tests::{Client, Origin, Proxy, Run, eventually, plain, respond, routes};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

#[test]
fn fifty_reloads_under_load_fail_no_request() {
    let origin = Origin::echo();
    let other = Origin::echo();
    let text = |n: usize| {
        let origins: &[&Origin] = if n.is_multiple_of(2) { &[&origin] } else { &[&origin, &other] };
        routes(&format!("{{ name: r{n}, to: app, request-headers: {{ set: {{ x-plan: '{n}' }} }} }}"), origins)
    };
    let mut proxy = Run::new(&format!("{}cores: all\n", text(0))).start();
    let stop = Arc::new(AtomicBool::new(false));
    let done = Arc::new(AtomicUsize::new(0));
    let address = proxy.address("web");
    let workers: Vec<_> = (0..4)
        .map(|worker| {
            let (stop, done) = (stop.clone(), done.clone());
            std::thread::spawn(move || {
                let mut client = Client::to(address);
                while !stop.load(Ordering::SeqCst) {
                    // Some keep their connection for good, some open a new one each time.
                    if worker % 2 == 0 {
                        client = Client::to(address);
                    }
                    client.send("POST /load HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello");
                    let answer = client.try_answer("POST").expect("an answer through every reload");
                    assert_eq!((answer.status, answer.json()["body_bytes"].as_u64()), (200, Some(5)));
                    assert!(!answer.head.connection("close"), "a reload ends no connection");
                    done.fetch_add(1, Ordering::SeqCst);
                }
            })
        })
        .collect();
    for n in 1..=50 {
        proxy.rewrite(&text(n));
        proxy.signal("HUP");
        let before = done.load(Ordering::SeqCst);
        eventually("requests go on", || done.load(Ordering::SeqCst) >= before + 40);
    }
    eventually("the last plan is in force", || {
        let fields = proxy.client().get("/which").json()["fields"].to_string();
        fields.contains(r#"["x-plan","50"]"#)
    });
    stop.store(true, Ordering::SeqCst);
    for worker in workers {
        worker.join().expect("no failed request");
    }
    assert!(done.load(Ordering::SeqCst) >= 2000, "{done:?}");
    assert_eq!(origin.faults(), Vec::<String>::new());
}

#[test]
fn a_bad_file_is_refused_with_its_reasons_and_the_old_plan_stays() {
    let origin = Origin::text("old plan");
    let mut proxy = Proxy::start(&plain(&[&origin]));
    let generation = proxy.admin("GET", "/plan").json();
    proxy.rewrite("listeners:\n  web: { adress: 127.0.0.1:$web, routes: [ { to: nobody } ] }\n");
    proxy.signal("HUP");
    proxy.printed("2:10: unknown key `adress`");
    proxy.printed("unknown service `nobody`");
    assert_eq!(proxy.client().get("/").text(), "old plan");
    assert!(proxy.is_ready());
    assert_eq!(proxy.admin("GET", "/plan").json(), generation);
    // And a good one is taken after it.
    let next = Origin::text("new plan");
    proxy.rewrite(&plain(&[&next]));
    proxy.signal("HUP");
    eventually("the new plan is in force", || proxy.client().get("/").text() == "new plan");
}

#[test]
fn a_port_that_is_taken_refuses_the_whole_file() {
    let origin = Origin::text("old plan");
    let mut proxy = Proxy::start(&plain(&[&origin]));
    let taken = std::net::TcpListener::bind(("127.0.0.1", ringway_tests::free_port())).unwrap();
    let port = taken.local_addr().unwrap().port();
    let more =
        format!("  more: {{ address: 127.0.0.1:{port}, routes: [ {{ respond: {{ status: 200 }} }} ] }}\nservices:");
    proxy.rewrite(&plain(&[&Origin::text("new plan")]).replace("services:", &more));
    proxy.signal("HUP");
    proxy.printed(&port.to_string());
    assert_eq!(proxy.client().get("/").text(), "old plan");
}

#[test]
fn listeners_come_and_go_and_the_others_stay() {
    let origin = Origin::text("x");
    let mut proxy = Proxy::start(&plain(&[&origin]));
    let mut held = proxy.client();
    assert_eq!(held.get("/").status, 200);
    let more = "  more: { address: 127.0.0.1:$more, routes: [ { respond: { status: 200, body: more } } ] }\nservices:";
    proxy.rewrite(&plain(&[&origin]).replace("services:", more));
    proxy.signal("HUP");
    eventually("the new listener answers", || {
        Client::try_to(proxy.address("more")).is_ok_and(|mut client| client.get("/").text() == "more")
    });
    proxy.rewrite(&plain(&[&origin]));
    proxy.signal("HUP");
    eventually("the removed listener is gone", || Client::try_to(proxy.address("more")).is_err());
    assert_eq!(held.get("/").status, 200);
    assert_eq!(proxy.client().get("/").status, 200);
}

#[test]
fn a_request_under_way_keeps_the_plan_it_began_with() {
    let origin = Origin::new(|conversation| {
        while conversation.request().is_some() {
            conversation.send_after(Duration::from_millis(600), respond(200, "", b"slow"));
        }
    });
    let mut proxy = Proxy::start(&routes("{ to: app, response-headers: { set: { x-plan: old } } }", &[&origin]));
    let mut client = proxy.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually("it is under way", || origin.count() == 1);
    proxy.rewrite(&routes("{ respond: { status: 200, body: new } }", &[&origin]));
    proxy.signal("HUP");
    eventually("the new plan is in force", || proxy.client().get("/").text() == "new");
    let answer = client.answer();
    assert_eq!((answer.text(), answer.field("x-plan")), ("slow", Some("old")));
    assert_eq!(client.get("/").text(), "new");
}

#[test]
fn a_tunnel_lives_through_reloads() {
    let origin = Origin::new(|conversation| {
        while let Some(bytes) = conversation.some() {
            conversation.send(bytes);
        }
    });
    let text = |name: &str| {
        format!(
            "listeners:\n  db: {{ address: 127.0.0.1:$db, protocol: tcp, to: {name} }}\nservices:\n  {name}: {{ endpoints: [{}] }}\n",
            origin.address()
        )
    };
    let mut proxy = Proxy::start(&text("a"));
    let mut client = Client::to(proxy.address("db"));
    client.send("x");
    assert_eq!(client.read(1), b"x");
    proxy.rewrite(&text("b"));
    proxy.signal("HUP");
    eventually("the new plan is in force", || proxy.admin("GET", "/plan").text().contains("\"b\""));
    client.send("y");
    assert_eq!(client.read(1), b"y");
}

#[test]
fn endpoints_that_stay_keep_their_connections() {
    let origin = Origin::echo();
    let mut proxy = Proxy::start(&plain(&[&origin]));
    let mut client = proxy.client();
    assert_eq!(client.get("/").status, 200);
    proxy.rewrite(&routes("{ to: app, request-headers: { set: { x-new: 'yes' } } }", &[&origin]));
    proxy.signal("HUP");
    eventually("the new plan is in force", || client.get("/").text().contains("x-new"));
    assert_eq!(origin.connections(), 1);
}
