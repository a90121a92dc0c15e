//! A real Envoy as a proxy of the mesh: it joins, is told the same as a proxy of ours, and answers the same.

mod differences;

use ringway_tests::certificates::{Authority, Leaf};
use ringway_tests::tls::Tls;
use ringway_tests::{Client, Head, Mesh, Origin, Proxy, eventually, free_port, peers, respond, until};
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// An Envoy that has joined; killed when dropped.
struct Envoy {
    child: Child,
    folder: PathBuf,
}

impl Envoy {
    /// Joins a group, and starts.
    fn join(mesh: &Mesh, program: &Path, group: &str, xds: &str) -> Envoy {
        let name = format!("{group}-{}", free_port());
        let said = mesh.done(&["envoy", "join", "--group", group, "--into", &name, "--xds", xds]);
        assert!(said.contains(&format!("joined group {group}")) && said.contains("envoy.yaml"), "{said}");
        let folder = mesh.folder().join(name);
        Envoy { child: start(program, &folder), folder }
    }

    fn said(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }
}

impl Drop for Envoy {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _status = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- envoy said:\n{}", self.said());
        }
    }
}

fn start(program: &Path, folder: &Path) -> Child {
    let log = fs::OpenOptions::new().create(true).append(true).open(folder.join("log")).unwrap();
    let mut command = Command::new(program);
    command.arg("-c").arg(folder.join("envoy.yaml")).arg("--reject-unknown-dynamic-fields");
    command.args(["--concurrency", "1", "--use-dynamic-base-id", "--log-level", "warning"]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().expect("envoy starts")
}

/// Where everything is.
struct Ports {
    web: u16,
    secure: u16,
    bytes: u16,
    back: u16,
    guarded: u16,
}

/// What both can honour. `cart` is where `/cart/*` goes.
fn document(ports: &Ports, origin: &Origin, greeter: &Origin, cart: &str) -> String {
    let Ports { web, secure, bytes, back, guarded } = ports;
    let (app, greeter) = (origin.address(), greeter.address());
    format!(
        r#"trust-domain: shop
groups:
  front:
    limits: {{ body: 1KiB, head: 16KiB }}
    listeners:
      web:
        address: '127.0.0.1:{web}'
        deny: [ {{ name: secret, path: /denied/* }}, {{ name: old, headers: {{ x-old: {{ present: true }} }} }} ]
        hosts:
          - names: [shop.test, "*.shop.test"]
            routes:
              - {{ name: exact, match: {{ path: /exact }}, to: app, request-headers: {{ set: {{ x-route: exact }} }} }}
              - {{ name: prefix, match: {{ path: /cart/* }}, to: {cart}, rewrite: {{ path: /basket/* }}, request-headers: {{ set: {{ x-route: prefix }} }} }}
              - {{ name: regex, match: {{ path: {{ regex: '/v[0-9]+/(a|b)+' }} }}, to: app, request-headers: {{ set: {{ x-route: regex }} }} }}
              - {{ name: write, match: {{ path: /m, methods: [POST, PUT] }}, to: app, request-headers: {{ set: {{ x-route: write }} }} }}
              - {{ name: header, match: {{ path: /h, headers: {{ x-beta: "1" }} }}, to: app, request-headers: {{ set: {{ x-route: header }} }} }}
              - {{ name: query, match: {{ path: /q, query: {{ page: "1" }} }}, to: app, request-headers: {{ set: {{ x-route: query }} }} }}
              - {{ name: old, match: {{ path: /old/* }}, redirect: {{ path: /new/*, status: 308 }} }}
              - {{ name: ping, match: {{ path: /ping }}, respond: {{ status: 203, body: pong }} }}
              - {{ name: edits, match: {{ path: /edits }}, to: app, request-headers: {{ set: {{ x-set: "50%" }}, add: {{ x-add: more }}, remove: [x-remove] }}, response-headers: {{ set: {{ x-served: us }}, remove: [x-secret] }} }}
              - {{ name: weights, match: {{ path: /weights }}, to: {{ app: 1, nobody: 0 }} }}
              - {{ name: nobody, match: {{ path: /nobody }}, to: nobody }}
              - {{ name: own, match: {{ path: /own }}, allow: [ {{ name: staff, headers: {{ x-staff: "1" }} }} ], to: app }}
              - {{ name: back, match: {{ path: /back/* }}, to: back }}
              - {{ name: closed, match: {{ path: /closed/* }}, to: closed }}
              - {{ name: strange, match: {{ path: /strange/* }}, to: strange }}
          - names: ["*"]
            routes: [ {{ name: rest, match: {{ path: /* }}, to: app, request-headers: {{ set: {{ x-route: rest }} }} }} ]
      secure:
        address: '127.0.0.1:{secure}'
        tls: {{ certificates: [ {{ secret: shop }} ] }}
        forwarded: {{ mode: replace }}
        routes: [ {{ name: all, to: app }} ]
      bytes: {{ address: '127.0.0.1:{bytes}', protocol: tcp, to: greeter }}
  back:
    listeners:
      in:
        address: '127.0.0.1:{back}'
        tls: {{}}
        allow: [ {{ name: front, identity: "spiffe://shop/group/front" }} ]
        routes: [ {{ name: app, to: app }} ]
      guarded:
        address: '127.0.0.1:{guarded}'
        tls: {{}}
        allow: [ {{ name: nobody, identity: "spiffe://shop/group/nobody" }} ]
        routes: [ {{ name: app, to: app }} ]
services:
  app: {{ endpoints: ['{app}'], balance: least-request }}
  nobody: {{ endpoints: set, balance: least-request }}
  greeter: {{ endpoints: ['{greeter}'], balance: least-request }}
  back: {{ endpoints: {{ group: back, listener: in }}, tls: {{ expect: group }}, balance: least-request }}
  closed: {{ endpoints: {{ group: back, listener: guarded }}, tls: {{ expect: group }}, balance: least-request }}
  strange: {{ endpoints: ['127.0.0.1:{back}'], tls: {{ expect: "spiffe://shop/group/other" }}, balance: least-request }}
"#
    )
}

/// Method, target, host, more field lines.
const ASKS: &[(&str, &str, &str, &str)] = &[
    ("GET", "/exact", "shop.test", ""),
    ("GET", "/exact?a=b", "a.shop.test:8080", ""),
    ("GET", "/exact/", "shop.test", ""),
    ("GET", "/a/../exact", "shop.test", ""),
    ("GET", "/exact", "other.test", ""),
    ("GET", "/cart/a%20b?x=y", "shop.test", ""),
    ("GET", "/cartoon", "shop.test", ""),
    ("GET", "/v1/ab", "shop.test", ""),
    ("GET", "/v1/abc", "shop.test", ""),
    ("POST", "/m", "shop.test", ""),
    ("GET", "/m", "shop.test", ""),
    ("GET", "/h", "shop.test", "X-Beta: 1\r\n"),
    ("GET", "/h", "shop.test", "X-Beta: 2\r\n"),
    ("GET", "/q?page=1", "shop.test", ""),
    ("GET", "/q?page=2", "shop.test", ""),
    ("GET", "/old/a/b?c=d", "shop.test", ""),
    ("GET", "/ping", "shop.test", ""),
    ("GET", "/edits", "shop.test", "X-Set: a\r\nX-Add: one\r\nX-Remove: x\r\n"),
    ("GET", "/weights", "shop.test", ""),
    ("GET", "/nobody", "shop.test", ""),
    ("GET", "/own", "shop.test", ""),
    ("GET", "/own", "shop.test", "X-Staff: 1\r\n"),
    ("GET", "/denied/x", "shop.test", ""),
    ("GET", "/exact", "shop.test", "X-Old: 1\r\n"),
    ("GET", "/back/x", "shop.test", ""),
    ("GET", "/closed/x", "shop.test", ""),
    ("GET", "/strange/x", "shop.test", ""),
    ("GET", "/exact", "shop.test", "Connection: X-Hop\r\nX-Hop: 1\r\n"),
];

/// What is compared.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    asked: String,
    status: u16,
    location: Option<String>,
    body: Option<String>,
    answered: Vec<String>,
    seen: Option<Vec<String>>,
}

fn outcomes(ports: &Ports, origin: &Origin) -> Vec<Outcome> {
    ASKS.iter().map(|ask| outcome(local(ports.web), origin, ask)).collect()
}

fn outcome(to: SocketAddr, origin: &Origin, ask: &(&str, &str, &str, &str)) -> Outcome {
    let (method, target, host, fields) = ask;
    let before = origin.count();
    let length = if *method == "GET" { "" } else { "Content-Length: 0\r\n" };
    let mut client = Client::to(to);
    client.send(format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\n{fields}{length}\r\n"));
    let answer = client.try_answer(method).unwrap_or_else(|error| panic!("{to} {ask:?}: {error}"));
    let path = |to: &str| to.strip_prefix("http://").map_or(to, |rest| &rest[rest.find('/').unwrap()..]).to_owned();
    let seen = origin.seen().get(before).map(|seen| of_interest(&seen.head));
    Outcome {
        asked: format!("{ask:?}"),
        status: answer.status,
        location: answer.field("location").map(path),
        // Each has words of its own for its own errors.
        body: (answer.status < 300).then(|| answer.text().to_owned()),
        answered: ["x-served", "x-secret"].iter().map(|name| format!("{name}: {:?}", answer.head.all(name))).collect(),
        seen,
    }
}

fn of_interest(head: &Head) -> Vec<String> {
    let names = ["host", "x-route", "x-set", "x-add", "x-remove", "x-hop", "x-forwarded-proto", "x-beta"];
    let mut seen = vec![head.word(0).to_owned(), head.word(1).to_owned()];
    seen.extend(names.iter().map(|name| format!("{name}: {}", head.all(name).join(","))));
    seen.push(format!("id: {}", head.all("x-request-id").len()));
    seen
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// Who takes a group's place.
enum Place {
    Ours { _runs: Proxy },
    Theirs(Envoy),
}

/// A mesh, what it is about, and an Envoy's program.
struct Shop {
    mesh: Mesh,
    ports: Ports,
    origin: Origin,
    greeter: Origin,
    program: PathBuf,
    roots: String,
}

impl Shop {
    /// None where no Envoy is installed, which it tells.
    fn open(test: &str) -> Option<Shop> {
        let program = peers::find("envoy", test)?;
        let [web, secure, bytes, back, guarded] = std::array::from_fn(|_| free_port());
        let ports = Ports { web, secure, bytes, back, guarded };
        let origin = Origin::fixed(respond(200, "X-Secret: 1\r\nX-Served: them\r\n", b"app"));
        let greeter = Origin::new(|talk| {
            talk.send("welcome");
            talk.some();
        });
        let mesh = Mesh::start();
        let authority = Authority::new("public");
        let issued = authority.issue(&Leaf::of(&["shop.test"]));
        let roots = authority.pem();
        fs::write(mesh.folder().join("shop.pem"), &issued.chain).unwrap();
        fs::write(mesh.folder().join("shop.key"), &issued.key).unwrap();
        let shop = Shop { mesh, ports, origin, greeter, program, roots };
        shop.push("app");
        let put = ["secret", "put", "shop", "--group", "front", "--certificate", "shop.pem", "--key", "shop.key"];
        shop.mesh.done(&put);
        Some(shop)
    }

    fn document(&self, cart: &str) -> String {
        document(&self.ports, &self.origin, &self.greeter, cart)
    }

    fn push(&self, cart: &str) {
        self.mesh.push(&self.document(cart));
    }

    fn take(&self, group: &str, who: &str) -> Place {
        match who {
            "ringway" => Place::Ours { _runs: self.mesh.proxy(group) },
            xds => Place::Theirs(Envoy::join(&self.mesh, &self.program, group, xds)),
        }
    }

    /// The front's proxy is there, and the back's endpoints have come to it.
    fn is_whole(&self, who: &str) {
        let come = until(Duration::from_secs(20), || (self.ask("/back/x")? == 200).then_some(()));
        assert!(
            come.is_some(),
            "{who}: the back never answers: {:?}\n{}",
            self.ask("/back/x"),
            self.mesh.done(&["status"])
        );
    }

    fn ask(&self, path: &str) -> Option<u16> {
        let mut client = Client::try_to(local(self.ports.web)).ok()?;
        client.try_send(format!("GET {path} HTTP/1.1\r\nHost: shop.test\r\n\r\n")).ok()?;
        client.try_answer("GET").ok().map(|answer| answer.status)
    }
}

#[test]
fn an_envoy_answers_as_a_proxy_of_ours_of_the_same_group() {
    let Some(shop) = Shop::open("mesh::an_envoy_answers_as_a_proxy_of_ours_of_the_same_group") else { return };
    let _back = shop.mesh.proxy("back");
    let mut all: Vec<(&str, Vec<Outcome>, Vec<Outcome>)> = Vec::new();
    for who in ["ringway", "delta", "sotw"] {
        let front = shop.take("front", who);
        shop.is_whole(who);
        let first = outcomes(&shop.ports, &shop.origin);
        beside_routes(&shop, who);
        // Both take a change.
        shop.push("nobody");
        eventually("it has taken a change", || shop.ask("/cart/x") == Some(503));
        let second = outcomes(&shop.ports, &shop.origin);
        shop.push("app");
        eventually("it is as before", || shop.ask("/cart/x") == Some(200));
        // The document has no word that an Envoy honours otherwise but one.
        let words = shop.mesh.control(&["check", "mesh.yaml", "--for", "envoy"]);
        assert!(words.code == Some(2) && words.out.lines().count() == 1 && words.out.contains("`body`"), "{words:?}");
        let rejects = shop.mesh.done(&["rejects"]);
        assert_eq!(rejects, "no proxy refuses anything\n", "{who}");
        if let Place::Theirs(envoy) = &front {
            let said = envoy.said();
            assert!(!said.contains("unknown field") && !said.contains("rejected"), "{said}");
        }
        all.push((who, first, second));
        drop(front);
        eventually("nobody is there", || shop.ask("/ping").is_none());
    }
    let (_, first, second) = &all[0];
    assert_ne!(first, second);
    let mut differences = Vec::new();
    for (who, their_first, their_second) in &all[1..] {
        let ours = first.iter().chain(second);
        for (ours, theirs) in ours.zip(their_first.iter().chain(their_second)) {
            if ours != theirs {
                differences.push(format!("{who}:\n  ours:   {ours:?}\n  theirs: {theirs:?}"));
            }
        }
    }
    assert!(differences.is_empty(), "{} differ:\n{}", differences.len(), differences.join("\n"));
}

/// TLS with a certificate by SDS, who is in `X-Forwarded-For`, bodies, bytes.
fn beside_routes(shop: &Shop, who: &str) {
    let before = shop.origin.count();
    let mut secure = Tls::rooted(&shop.roots).connect(local(shop.ports.secure), "shop.test");
    secure.send("GET /x HTTP/1.1\r\nHost: shop.test\r\nX-Forwarded-For: 203.0.113.9\r\n\r\n");
    assert_eq!(secure.answer().status, 200, "{who}");
    let seen = &shop.origin.seen()[before].head;
    assert!(!seen.all("x-forwarded-for").join(",").contains("203.0.113.9"), "{who}: {seen:?}");
    assert_eq!(seen.all("x-forwarded-proto"), ["https"], "{who}");

    for (length, wanted) in [(1024, 200), (1025, 413)] {
        let mut client = Client::to(local(shop.ports.web));
        client.send(format!("POST /exact HTTP/1.1\r\nHost: shop.test\r\nContent-Length: {length}\r\n\r\n"));
        // Who refuses need not read.
        let _ = client.try_send("x".repeat(length));
        assert_eq!(client.answer().status, wanted, "{who}: {length}");
    }
    assert_eq!(Client::to(local(shop.ports.bytes)).read(7), b"welcome", "{who}");
}

#[test]
fn hops_between_envoys_and_proxies_of_ours_are_mtls_both_ways() {
    let Some(shop) = Shop::open("mesh::hops_between_envoys_and_proxies_of_ours_are_mtls_both_ways") else { return };
    for (front, back) in [("delta", "ringway"), ("ringway", "delta"), ("ringway", "sotw"), ("delta", "delta")] {
        let who = format!("{front} to {back}");
        let (_front, _back) = (shop.take("front", front), shop.take("back", back));
        shop.is_whole(&who);
        // Who may not is refused by the other's rules; who is not expected is not sent to.
        assert_eq!(shop.ask("/closed/x"), Some(403), "{who}");
        assert_eq!(shop.ask("/strange/x"), Some(503), "{who}");
        // Nobody without a certificate of the mesh comes in by the side.
        let strange = Authority::new("strange").issue(&Leaf::of(&["spiffe://shop/group/front"]));
        let roots = fs::read_to_string(shop.mesh.folder().join("data/operator/ca.pem")).unwrap();
        Tls::rooted(&roots).any_name().refused(local(shop.ports.back), "back");
        Tls::rooted(&roots).any_name().with(&strange).refused(local(shop.ports.back), "back");
    }
}

/// The certificate that a port shows.
fn shown(port: u16, roots: &str) -> Option<Vec<u8>> {
    let mut client = Tls::rooted(roots).any_name().try_connect(local(port), "back").ok()?;
    client.met().certificate
}

#[test]
fn an_envoy_takes_up_a_renewed_certificate_and_outlives_the_daemon() {
    let test = "mesh::an_envoy_takes_up_a_renewed_certificate_and_outlives_the_daemon";
    let Some(mut shop) = Shop::open(test) else { return };
    let roots = fs::read_to_string(shop.mesh.folder().join("data/operator/ca.pem")).unwrap();
    let (front, back) = (shop.take("front", "delta"), shop.take("back", "delta"));
    shop.is_whole("envoys");
    let (Place::Theirs(front), Place::Theirs(back)) = (&front, &back) else { panic!("two envoys") };
    let first = shown(shop.ports.back, &roots).expect("a certificate");
    for envoy in [front, back] {
        let said = shop.mesh.control_as("nowhere", &["envoy", "renew", envoy.folder.to_str().unwrap()]);
        assert!(said.code == Some(0) && said.out.contains("was renewed"), "no operator is needed: {said:?}");
    }
    eventually("the other one is shown", || shown(shop.ports.back, &roots).is_some_and(|now| now != first));
    assert_eq!(shop.ask("/back/x"), Some(200));
    for entry in fs::read_dir(&front.folder).unwrap().flatten().filter(|entry| entry.file_name() != "log") {
        let mode = std::os::unix::fs::PermissionsExt::mode(&entry.metadata().unwrap().permissions()) & 0o077;
        assert!(entry.file_type().unwrap().is_symlink() || mode == 0, "{entry:?} is the owner's alone");
    }
    let again = shop.mesh.control(&["envoy", "join", "--group", "front", "--into", front.folder.to_str().unwrap()]);
    assert!(again.code == Some(1) && again.err.contains("renew"), "{again:?}");

    // With the new certificate it comes back to a daemon that was away; meanwhile it serves.
    shop.mesh.kill();
    assert_eq!(shop.ask("/back/x"), Some(200));
    shop.mesh.revive();
    let both = || [shop.mesh.proxies("front"), shop.mesh.proxies("back")].concat();
    eventually("both are back", || both().iter().all(|proxy| proxy["connected"] == true));
    shop.push("nobody");
    eventually("it is told what is new", || shop.ask("/cart/x") == Some(503));
    assert_eq!(shop.ask("/back/x"), Some(200));
}
