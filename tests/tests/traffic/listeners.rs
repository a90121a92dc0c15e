//! Where clients come in: several listeners, IPv6, unix sockets.

use ringway_tests::{Client, Origin, Proxy, Run, plain};
use std::net::SocketAddr;

#[test]
fn several_listeners_have_routes_of_their_own() {
    let (a, b) = (Origin::text("a"), Origin::text("b"));
    let proxy = Proxy::start(&format!(
        "listeners:\n  one: {{ address: 127.0.0.1:$one, routes: [ {{ to: a }} ] }}\n  two: {{ address: 127.0.0.1:$two, routes: [ {{ to: b }} ] }}\n\
         \x20 raw: {{ address: 127.0.0.1:$raw, protocol: tcp, to: b }}\nservices:\n  a: {{ endpoints: [{}] }}\n  b: {{ endpoints: [{}] }}\n",
        a.address(),
        b.address()
    ));
    for (name, text) in [("one", "a"), ("two", "b"), ("raw", "b")] {
        assert_eq!(Client::to(proxy.address(name)).get("/").text(), text);
    }
    // Through `raw` the bytes are as the client sent them.
    assert_eq!(b.seen().iter().filter(|seen| seen.head.all("via").is_empty()).count(), 1);
}

#[test]
fn ipv6_on_both_sides() {
    let origin = Origin::on("[::1]:0", |conversation| {
        while let Some(seen) = conversation.request() {
            conversation.send(ringway_tests::respond(200, "", seen.head.all("x-forwarded-for").join(",").as_bytes()));
        }
    });
    let proxy = Proxy::start(&format!(
        "listeners:\n  web: {{ address: '[::1]:$web', routes: [ {{ to: app }} ] }}\nservices:\n  app: {{ endpoints: ['{}'] }}\n",
        origin.address()
    ));
    let address = SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, proxy.port("web")));
    assert_eq!(Client::to(address).get("/").text(), "::1");
}

#[test]
fn all_addresses() {
    let origin = Origin::text("x");
    let text = plain(&[&origin]).replace("'127.0.0.1:$web'", "0.0.0.0:$web");
    assert_eq!(Proxy::start(&text).client().get("/").text(), "x");
}

#[test]
fn a_unix_socket() {
    let origin = Origin::echo();
    let text = plain(&[&origin]).replace("127.0.0.1:$web", "unix:$dir/web.sock");
    let proxy = Proxy::start(&format!("{text}cores: all\n"));
    let path = proxy.folder().join("web.sock");
    for _ in 0..10 {
        let mut client = Client::to_unix(&path);
        assert_eq!(client.get("/a").status, 200);
        assert_eq!(client.get("/b").status, 200);
    }
    assert_eq!(origin.count(), 20);
}

#[test]
fn a_unix_socket_left_behind_by_a_killed_process_is_taken_over() {
    let origin = Origin::echo();
    let run = Run::new(&plain(&[&origin]).replace("127.0.0.1:$web", "unix:$dir/web.sock"));
    let path = run.folder().join("web.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let _proxy = run.start();
    assert_eq!(Client::to_unix(&path).get("/").status, 200);
}

#[test]
fn a_taken_port_is_told_and_refused() {
    let origin = Origin::echo();
    let taken = std::net::TcpListener::bind(("127.0.0.1", ringway_tests::free_port())).unwrap();
    let port = taken.local_addr().unwrap().port();
    let output = Run::new(&plain(&[&origin]).replace("$web", &port.to_string())).fail();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success());
    assert!(told.contains(&port.to_string()), "{told}");
}

#[test]
fn a_port_of_another_ringway_is_refused_too() {
    // SO_REUSEPORT alone would let two processes of one user share a port, and split the clients among them.
    let origin = Origin::echo();
    let proxy = Proxy::start(&plain(&[&origin]));
    let output = Run::new(&plain(&[&origin]).replace("$web", &proxy.port("web").to_string())).fail();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains(&proxy.port("web").to_string()));
    assert_eq!(proxy.client().get("/").status, 200);
}
