//! ADS as a client hears it that shares no code with ours, in both protocols (Python, grpcio, xds-protos).

use super::hops::{Ports, document_with_secret};
use super::running::Daemon;
use api::pb;
use ringway_tests::peers::find;
use ringway_tests::{Origin, until, workspace};
use serde_json::Value;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// The client, and what it has printed.
struct Client {
    child: Child,
    input: ChildStdin,
    lines: Arc<Mutex<Vec<Value>>>,
    /// Lines that were looked at.
    seen: usize,
}

impl Client {
    fn start(daemon: &Daemon, python: &std::path::Path, group: &str, protocol: &str) -> Client {
        let mut command = Command::new(python);
        command.arg(workspace().join("tests/tests/mesh/ads.py")).args(daemon.credential(group));
        command.arg(protocol).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("python starts");
        let lines: Arc<Mutex<Vec<Value>>> = Arc::default();
        let (out, to) = (child.stdout.take().unwrap(), lines.clone());
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                to.lock().unwrap().push(serde_json::from_str(&line).expect("a line of JSON"));
            }
        });
        let input = child.stdin.take().unwrap();
        Client { child, input, lines, seen: 0 }
    }

    /// The next message that fits.
    fn until(&mut self, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        let found = until(Duration::from_secs(15), || {
            let lines = self.lines.lock().unwrap();
            let at = lines[self.seen..].iter().position(&fits)?;
            Some((self.seen + at, lines[self.seen + at].clone()))
        });
        let Some((at, line)) = found else { panic!("never {what}: {:#?}", self.lines.lock().unwrap()) };
        self.seen = at + 1;
        line
    }

    /// Messages of this kind that came since it was looked last.
    fn count(&self, kind: &str) -> usize {
        self.lines.lock().unwrap()[self.seen..].iter().filter(|line| line["kind"] == kind).count()
    }

    fn refuse(&mut self, name: &str) {
        writeln!(self.input, "{name}").unwrap();
        std::thread::sleep(Duration::from_millis(300));
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn held(line: &Value, kind: &str) -> Vec<String> {
    line["held"][kind].as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned()).collect()
}

fn both_protocols(test: &str, check: impl Fn(&mut Daemon, &Ports, &mut Client, &Origin)) {
    let Some(python) = find("xds", test) else { return };
    for protocol in ["delta", "whole"] {
        let (mut daemon, ports) = (Daemon::start(), Ports::new());
        let origin = Origin::text("cart");
        daemon.push(&document_with_secret(&ports, &origin));
        let mut client = Client::start(&daemon, &python, "edge", protocol);
        check(&mut daemon, &ports, &mut client, &origin);
    }
}

#[test]
fn an_independent_client_has_what_its_group_needs_and_nothing_else() {
    both_protocols("an independent client", |daemon, ports, client, origin| {
        let all = client.until("everything", |line| line["held"]["RouteConfiguration"].as_array().unwrap().len() == 2);
        assert_eq!(held(&all, "Listener"), ["secure", "web"]);
        assert_eq!(held(&all, "Cluster"), ["cart"], "`app` is the other group's");
        let secret = client.until("a secret", |line| line["kind"] == "Secret");
        assert_eq!(held(&secret, "Secret"), ["mesh-trust"]);
        // An endpoint comes, and nothing but it.
        let cart = daemon.join("cart");
        client.until("endpoints", |line| line["kind"] == "ClusterLoadAssignment");
        assert_eq!(client.count("Cluster") + client.count("Listener") + client.count("RouteConfiguration"), 0);
        // A push sends what it changed.
        let text = document_with_secret(ports, origin);
        daemon.push(&text.replace("path: /cart/*", "path: /carts/*"));
        let routes = client.until("routes", |line| line["kind"] == "RouteConfiguration");
        assert_eq!(routes["names"], serde_json::json!(["web"]));
        // What is gone goes after what named it.
        let without = text.replace("{ name: cart, match: { path: /cart/* }, to: cart }, ", "");
        let without = without.replace("{ name: cart, to: cart }", "{ name: cart, respond: {} }");
        let forced = daemon.force(&without);
        assert_eq!(forced.outcome(), pb::Outcome::Applied, "{forced:?}");
        let gone = client
            .until("a removal", |line| line["kind"] == "Cluster" && line["removed"] == serde_json::json!(["cart"]));
        assert_eq!((held(&gone, "Cluster"), held(&gone, "RouteConfiguration").len()), (vec![], 2));
        drop(cart);
    });
}

#[test]
fn a_refusal_of_an_independent_client_is_told_and_healed() {
    both_protocols("an independent client that refuses", |daemon, ports, client, origin| {
        client.until("everything", |line| line["held"]["RouteConfiguration"].as_array().unwrap().len() == 2);
        client.refuse("web");
        let text = document_with_secret(ports, origin);
        let last = daemon.apply(&text.replace("path: /cart/*", "path: /bad/*"), true);
        assert_eq!(last.outcome(), pb::Outcome::Rejected, "{last:?}");
        assert!(last.findings[0].ends_with(": route/web: web is refused"), "{last:?}");
        client.until("the refusal", |line| line["refused"] == "web");
        daemon.push(&text.replace("path: /cart/*", "path: /good/*"));
        client.until("the other one", |line| line["kind"] == "RouteConfiguration" && line["refused"].is_null());
        assert!(daemon.status().proxies.iter().all(|proxy| proxy.rejected.is_empty()));
    });
}
