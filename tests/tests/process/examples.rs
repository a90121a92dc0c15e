//! The example configurations of `deploy/`, run.

use super::tour;
use ringway_tests::peers::{find, talk};
use ringway_tests::{Client, Origin, Proxy, Run, check, eventually, free_port, respond, workspace};
use std::collections::BTreeMap;
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

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
    let stops = tour::take(local(web), local(raw));
    let wrong: Vec<_> = stops.iter().filter(|stop| stop.wrong.is_some()).map(ToString::to_string).collect();
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

/// The certificates that the example's script makes in a folder.
fn certificates(folder: &Path) -> BTreeMap<String, String> {
    let script = workspace().join("deploy/examples/tls/certificates.sh");
    fs::copy(script, folder.join("certificates.sh")).unwrap();
    let (made, told) = talk(&mut Command::new(folder.join("certificates.sh")), b"", Duration::ZERO);
    assert!(made, "{told}");
    let made = fs::read_dir(folder.join("certs")).unwrap().flatten();
    let text = |path: &Path| fs::read_to_string(path).unwrap();
    made.map(|entry| (format!("certs/{}", entry.file_name().display()), text(&entry.path()))).collect()
}

fn with_certificates(text: &str, certificates: &BTreeMap<String, String>) -> Run {
    let run = Run::new(&text.replace("/dev/stdout", "$dir/access.log"));
    fs::create_dir_all(run.folder().join("certs")).unwrap();
    certificates.iter().fold(run, |run, (name, text)| run.file_of(name, text))
}

#[test]
fn tls_two_proxies_prove_themselves_to_each_other() {
    if find("openssl", "tls_two_proxies_prove_themselves_to_each_other").is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let first = certificates(folder.path());
    let [out, inner, app] = [(); 3].map(|()| free_port());
    let cart = example("tls/cart.yaml", &[(8443, inner), (9001, app)]).replace("127.0.0.1:9911", "127.0.0.1:$admin");
    let web = example("tls/web.yaml", &[(8080, out), (8443, inner)]).replace("127.0.0.1:9910", "127.0.0.1:$admin");
    let (cart, web) = (with_certificates(&cart, &first).start(), with_certificates(&web, &first).start());
    let mut client = Client::to(local(out));
    assert_eq!(client.get("/orders/1").text(), "hello from cart\n");
    eventually("the line of cart's proxy says who came", || {
        let lines = cart.log();
        lines.iter().any(|line| line["listener"] == "in" && line["source_identity"] == "spiffe://shop/ns/web/sa/web")
    });
    assert_eq!(web.logged("/orders/1")["destination_identity"], "spiffe://shop/ns/cart/sa/cart");
    assert_eq!(client.get("/admin/1").status, 403);
    // As its page says: nobody comes without a certificate, nor with cart's own.
    let refused = |shown: &[&str]| {
        let mut command = Command::new("openssl");
        command.current_dir(folder.path()).args(["s_client", "-tls1_2", "-connect", &local(inner).to_string()]);
        !talk(command.args(shown), b"", Duration::from_millis(200)).0
    };
    assert!(!refused(&["-cert", "certs/web.pem", "-key", "certs/web.key"]));
    assert!(refused(&[]) && refused(&["-cert", "certs/cart.pem", "-key", "certs/cart.key"]));
    // Made again: others, of the same authority; they are taken, and the open connection goes on.
    let second = certificates(folder.path());
    assert_eq!(first["certs/ca.pem"], second["certs/ca.pem"]);
    for proxy in [&cart, &web] {
        for name in ["web", "cart"] {
            let pair = [format!("certs/{name}.key"), format!("certs/{name}.pem")];
            assert_ne!(first[&pair[1]], second[&pair[1]]);
            pair.iter().for_each(|name| fs::write(proxy.folder().join(name), &second[name]).unwrap());
        }
    }
    let taken =
        |proxy: &Proxy| proxy.metrics().sum("ringway_certificate_reloads_total", &[("result", "applied")]) >= 1.0;
    eventually("both have taken them", || taken(&cart) && taken(&web));
    assert_eq!(client.get("/orders/2").status, 200);
    assert_eq!(Client::to(local(out)).get("/orders/3").status, 200);
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
    // A mesh's document is the daemon's; `house` has it checked.
    for block in blocks.into_iter().filter(|block| !block.starts_with("trust-domain:")) {
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
