//! The example configurations of `deploy/`, run.

use ringway_tests::{Client, Origin, Run, check, free_port, respond, tour, workspace};
use std::fs;
use std::net::{SocketAddr, TcpListener};

/// An example with other ports: `(its port, the one to use)`.
fn example(name: &str, ports: &[(u16, u16)]) -> String {
    let text = fs::read_to_string(workspace().join("deploy/examples").join(name)).unwrap();
    ports.iter().fold(text, |text, (port, other)| {
        assert!(text.contains(&format!(":{port}")), "{name} has no port {port}");
        text.replace(&format!(":{port}"), &format!(":{other}"))
    })
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

#[test]
fn gateway_every_kind_of_route() {
    let [web, raw, shop, beta, dead] = [(); 5].map(|()| free_port());
    let ports = [(8080, web), (8081, raw), (9001, shop), (9002, beta), (9009, dead)];
    let text = example("gateway.yaml", &ports).replace("127.0.0.1:9901", "127.0.0.1:$admin");
    let _shop = tour::origin("shop", &local(shop).to_string());
    let _beta = tour::origin("beta", &local(beta).to_string());
    let _proxy = Run::new(&text).start();
    let stops = tour::take(local(web), local(raw), |_| {});
    let wrong: Vec<_> = stops.iter().filter(|stop| stop.wrong.is_some()).collect();
    assert!(stops.len() >= 15 && wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn tcp_weights_and_unix_socket() {
    let [db, primary, candidate] = [(); 3].map(|()| free_port());
    let ports = [(5432, db), (9432, primary), (9433, candidate)];
    let text = example("tcp.yaml", &ports).replace("127.0.0.1:9902", "127.0.0.1:$admin");
    let serve = |name: &'static str| {
        move |conversation: &mut ringway_tests::Conversation| {
            conversation.send(name);
            conversation.rest();
        }
    };
    let _primary = Origin::on(&local(primary).to_string(), serve("p"));
    let _candidate = Origin::on(&local(candidate).to_string(), serve("c"));
    let proxy = Run::new(&text).start();
    let first = (0..100).filter(|_| Client::to(local(db)).read(1) == b"p").count();
    // 95 expected, deviation 2.2.
    assert!(first >= 84, "{first}");
    assert_eq!(Client::to_unix(&proxy.folder().join("db.sock")).read(1), b"p");
}

/// A file of many hosts and routes, as a generator writes it.
fn many_routes(hosts: usize, routes: usize) -> String {
    let mut text = String::from(
        "# Many hosts with many routes each, as a generator would write them: a decision costs hardly more than with one.\n\
         # Made by tests/tests/process/examples.rs, which also holds it to that form.\n\n\
         listeners:\n  web:\n    address: 0.0.0.0:8088\n    hosts:\n",
    );
    for host in 0..hosts {
        text += &format!("      - names: [team{host}.example.com]\n        routes:\n");
        for route in 0..routes {
            text += &format!(
                "          - {{ name: t{host}-{route}, match: {{ path: /service{route}/* }}, rewrite: {{ path: /team{host}/service{route}/* }}, to: service{route} }}\n"
            );
        }
    }
    text += "\nservices:\n";
    for route in 0..routes {
        text += &format!("  service{route}: {{ endpoints: [127.0.0.1:{}] }}\n", 9100 + route);
    }
    text + "\nadmin: { address: 127.0.0.1:9903 }\n"
}

#[test]
fn many_routes_is_as_its_generator_writes_it() {
    let file = workspace().join("deploy/examples/many-routes.yaml");
    let text = many_routes(10, 10);
    if std::env::var_os("RINGWAY_WRITE").is_some() {
        fs::write(&file, &text).unwrap();
    }
    assert!(fs::read_to_string(&file).unwrap() == text, "RINGWAY_WRITE=1 writes it anew");
}

#[test]
fn many_routes_answers_on_each() {
    let origin = Origin::answering(|seen| respond(200, "", seen.head.word(1).as_bytes()));
    let web = free_port();
    // A thousand routes to ten services.
    let text = many_routes(100, 10).replace("0.0.0.0:8088", &format!("127.0.0.1:{web}"));
    let text = (0..10).fold(text, |text, n| {
        text.replace(
            &format!("127.0.0.1:{}]", 9100 + n),
            &format!("{}]", if n == 9 { local(closed()) } else { origin.address() }),
        )
    });
    let _proxy = Run::new(&text.replace("127.0.0.1:9903", "127.0.0.1:$admin")).start();
    let mut client = Client::to(local(web));
    for n in (0..1000).step_by(7) {
        let (host, route) = (n / 10, n % 10);
        client.send(format!("GET /service{route}/x HTTP/1.1\r\nHost: team{host}.example.com\r\n\r\n"));
        let answer = client.answer();
        match route {
            9 => assert_eq!(answer.status, 503),
            _ => assert_eq!(answer.text(), format!("/team{host}/service{route}/x")),
        }
    }
    client.send("GET /service10/x HTTP/1.1\r\nHost: team1.example.com\r\n\r\n");
    assert_eq!(client.answer().status, 404);
}

/// What `check` says about this file stands on the page of the language, as the example of errors.
const SHOP: &str = "listeners:\n  web:\n    address: 0.0.0.0:8080\n    routes:\n      - { match: { path: /cart/* }, to: crat, timeout: 5 }\n\
                    services:\n  cart: { endpoints: [10.0.0.1:8080] }\n";

#[test]
fn the_page_of_the_language_is_right_about_files_errors_and_metrics() {
    let page = fs::read_to_string(workspace().join("deploy/CONFIGURATION.md")).unwrap();
    let blocks: Vec<&str> = page.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert!(blocks.len() >= 2);
    for block in blocks {
        let output = check(block);
        assert!(output.status.success(), "{}\n{block}", String::from_utf8_lossy(&output.stderr));
    }
    let told = String::from_utf8(check(SHOP).stderr).unwrap();
    assert_eq!(told.lines().count(), 2, "{told}");
    for line in told.lines() {
        let (_, finding) = line.split_once("ringway.yaml:").unwrap();
        assert!(page.contains(&format!("shop.yaml:{finding}\n")), "{finding} is not on the page");
    }
    let names = fs::read_to_string(workspace().join("dataplane/agent/src/metrics/names.txt")).unwrap();
    for (name, kind) in names.lines().filter_map(|line| line.split_once(' ')) {
        let end = match kind {
            "counter" => "_total",
            "info" => "_info",
            "histogram" => "_bucket",
            _ => "",
        };
        assert!(page.contains(&format!("`{name}{end}`")), "{name}{end} is not on the page");
    }
}

/// A port at which nobody listens.
fn closed() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).unwrap().port()
}
