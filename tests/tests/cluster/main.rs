//! Several `ringwayd` that share an etcd, as processes, with proxies of each. Skipped where etcd is not installed.

mod cut;
mod guarded;
mod lost;
mod root;
mod shared;
mod trial;

use ringway_tests::{Client, Etcd, Mesh, Origin, Proxy, Run, free_port, until};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

/// Where the listeners of the mesh are.
struct Ports {
    edge: u16,
    cart: u16,
}

impl Ports {
    fn new() -> Ports {
        Ports { edge: free_port(), cart: free_port() }
    }

    /// The status that the gateway answers.
    fn status(&self, path: &str) -> u16 {
        let client = Client::try_to(([127, 0, 0, 1], self.edge).into());
        client.map_or(0, |mut client| client.get(path).status)
    }

    fn come(&self, path: &str, status: u16) {
        let come = until(Duration::from_secs(15), || (self.status(path) == status).then_some(()));
        assert!(come.is_some(), "{path} answers {}, not {status}", self.status(path));
    }
}

/// A gateway `edge`, whose fixed answer is `ping`, and `cart` behind mTLS, whose proxy has this origin behind it.
fn document(ports: &Ports, origin: &Origin, ping: u16) -> String {
    let Ports { edge, cart } = ports;
    format!(
        "trust-domain: shop
groups:
  edge:
    listeners:
      web:
        address: '127.0.0.1:{edge}'
        routes:
          - {{ name: cart, match: {{ path: /cart/* }}, to: cart }}
          - {{ name: ping, match: {{ path: /ping }}, respond: {{ status: {ping} }} }}
  cart:
    listeners:
      in:
        address: '127.0.0.1:{cart}'
        tls: {{}}
        allow: [ {{ name: gateway, identity: 'spiffe://shop/group/edge' }} ]
        routes: [ {{ name: app, to: app }} ]
    services:
      app: {{ endpoints: ['{}'] }}
services:
  cart: {{ endpoints: {{ group: cart, listener: in }}, tls: {{ expect: group }} }}
",
        origin.address()
    )
}

/// Two daemons on one etcd.
fn two(test: &str) -> Option<(Etcd, Mesh, Mesh)> {
    let etcd = Etcd::start(test)?;
    let (a, b) = pair(&etcd);
    Some((etcd, a, b))
}

fn pair(etcd: &Etcd) -> (Mesh, Mesh) {
    let (a, b) = (Mesh::sharing(etcd), Mesh::sharing(etcd));
    know_each_other(&a, &b);
    (a, b)
}

fn know_each_other(a: &Mesh, b: &Mesh) {
    for one in [a, b] {
        let knows = until(Duration::from_secs(10), || (daemons(one) == 2).then_some(()));
        assert!(knows.is_some(), "it does not know the other: {}", one.done(&["status"]));
    }
}

/// How many daemons this one says there are.
fn daemons(mesh: &Mesh) -> usize {
    mesh.json(&["status"])["daemons"].as_array().map_or(0, Vec::len)
}

/// Waits until each daemon knows that so many proxies are connected: what one knows the others have a moment later.
fn know(daemons: [&Mesh; 2], count: usize) {
    for one in daemons {
        let connected = || {
            let status = one.json(&["status"]);
            status["proxies"].as_array().map_or(0, |all| all.iter().filter(|one| one["connected"] == true).count())
        };
        let knows = until(Duration::from_secs(10), || (connected() == count).then_some(()));
        assert!(knows.is_some(), "{}", one.done(&["status"]));
    }
}

/// A proxy that joins at this daemon, and knows no other but by what it is told.
fn joins(mesh: &Mesh, group: &str) -> Proxy {
    joining(mesh, group).start()
}

fn joining(mesh: &Mesh, group: &str) -> Run {
    let token = mesh.done(&["token", "create", "--group", group]);
    with_token(mesh, &token)
}

fn with_token(mesh: &Mesh, token: &str) -> Run {
    let text = format!("daemon: {{ addresses: ['{}'], token: $dir/token, state: $dir/state }}\n", mesh.address());
    Run::new(&text).file_of("token", token)
}

/// Requests through both proxies, one after the other, none of which fails, while something is done.
fn under_requests(ports: &Ports, done: impl FnOnce()) {
    let ends = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let traffic = scope.spawn(|| {
            let mut count = 0;
            while !ends.load(Relaxed) {
                assert_eq!(ports.status("/cart/1"), 200, "after {count} requests");
                count += 1;
                std::thread::sleep(Duration::from_millis(5));
            }
            count
        });
        let done = catch_unwind(AssertUnwindSafe(done));
        ends.store(true, Relaxed);
        assert!(traffic.join().expect("no request fails") > 10);
        done.unwrap_or_else(|why| resume_unwind(why));
    });
}
