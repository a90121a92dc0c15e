//! What `check --for envoy` says of an Envoy is what a real one does, and what it cannot have is not there.

use super::{Envoy, Shop, local};
use ringway_tests::tls::Tls;
use ringway_tests::{Answer, Client, Mesh, Origin, eventually, free_port, peers, respond};
use std::fs;
use std::net::TcpListener;
use std::time::Duration;

struct Ports {
    optional: u16,
    quota: u16,
    cors: u16,
    guarded: u16,
    denied: u16,
    keep: u16,
    hops: u16,
}

fn document(ports: &Ports, origins: [&Origin; 3]) -> String {
    let Ports { optional, quota, cors, guarded, denied, keep, hops } = ports;
    let [app, other, greeter] = origins.map(Origin::address);
    format!(
        "trust-domain: shop
groups:
  edge:
    listeners:
      optional: {{ address: '127.0.0.1:{optional}', tls: {{ clients: optional }}, routes: [ {{ to: app }} ] }}
      quota: {{ address: '127.0.0.1:{quota}', quota: {{ name: q, requests: 2/h, per: {{ header: x-key }}, clients: 1 }}, routes: [ {{ to: app }} ] }}
      cors:
        address: '127.0.0.1:{cors}'
        cors: {{ origins: ['https://a.test'], methods: [PUT] }}
        deny: [ {{ name: tried, path: /tried, dry-run: true }} ]
        routes:
          - {{ match: {{ path: /put, methods: [PUT] }}, to: app }}
          - {{ match: {{ path: /away }}, redirect: {{ path: /x }} }}
          - {{ match: {{ path: /random }}, to: random }}
          - {{ match: {{ path: /none }}, to: none-waits }}
          - {{ to: app }}
      guarded: {{ address: '127.0.0.1:{guarded}', protocol: tcp, allow: [ {{ name: here, source: 127.0.0.0/8 }} ], to: greeter }}
      denied: {{ address: '127.0.0.1:{denied}', protocol: tcp, deny: [ {{ name: here, source: 127.0.0.0/8 }} ], to: greeter }}
      keep: {{ address: '127.0.0.1:{keep}', forwarded: {{ mode: keep }}, routes: [ {{ to: app }} ] }}
      hops: {{ address: '127.0.0.1:{hops}', forwarded: {{ mode: replace, trusted-hops: 1 }}, routes: [ {{ to: app }} ] }}
services:
  app: {{ endpoints: ['{app}'], balance: least-request }}
  random: {{ endpoints: [ {{ address: '{app}', weight: 9 }}, '{other}' ], balance: random }}
  none-waits: {{ endpoints: ['{app}'], balance: round-robin, limits: {{ pending: 0 }} }}
  greeter: {{ endpoints: ['{greeter}'] }}
"
    )
}

fn ask(port: u16, request: &str, fields: &str) -> Answer {
    let (method, _) = request.split_once(' ').unwrap();
    let mut client = Client::to(local(port));
    client.send(format!("{request} HTTP/1.1\r\nHost: a\r\n{fields}\r\n"));
    client.try_answer(method).unwrap_or_else(|error| panic!("{request}: {error}"))
}

/// Each word of the document, and what became of it: of a proxy of ours, and of an Envoy.
fn seen(ports: &Ports, origins: [&Origin; 3], roots: &str) -> Vec<(&'static str, String)> {
    let mut all = Vec::new();
    let mut saw = |word, what: String| all.push((word, what));
    let stranger = Tls::rooted(roots).any_name().try_connect(local(ports.optional), "edge");
    let heard = stranger.and_then(|mut client| {
        client.try_send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")?;
        client.try_answer("GET").map(|answer| answer.status)
    });
    saw("clients: optional", format!("{:?}", heard.ok()));

    let keyed = |key: &str| ask(ports.quota, "GET /", &format!("X-Key: {key}\r\n"));
    let first: Vec<u16> = (0..3).map(|_| keyed("a").status).collect();
    assert_eq!(first, [200, 200, 429], "both count");
    let (refused, _another) = (keyed("a"), keyed("b"));
    assert!(refused.field("retry-after").is_some(), "{refused:?}");
    saw("quota", format!("{}", refused.field("ratelimit").is_some()));
    saw("per", format!("{}", keyed("a").status));

    let origin = "Origin: https://a.test\r\n";
    let preflight = ask(ports.cors, "OPTIONS /put", &format!("{origin}Access-Control-Request-Method: PUT\r\n"));
    assert_eq!(preflight.field("access-control-allow-origin"), Some("https://a.test"), "{preflight:?}");
    assert_eq!(preflight.field("access-control-allow-methods"), Some("PUT"), "{preflight:?}");
    let actual = ask(ports.cors, "PUT /put", &format!("{origin}Content-Length: 0\r\n"));
    assert_eq!(actual.field("access-control-allow-origin"), Some("https://a.test"), "{actual:?}");
    saw("cors", format!("{} {}", preflight.status, actual.field("vary").is_some()));
    let away = ask(ports.cors, "GET /away", origin);
    saw("redirect", format!("{} {:?}", away.status, away.field("access-control-allow-origin")));
    assert_eq!(ask(ports.cors, "GET /tried", "").status, 200, "it is only tried");

    let before = origins[1].count();
    (0..100).for_each(|_| assert_eq!(ask(ports.cors, "GET /random", "").status, 200));
    saw("random", if origins[1].count() - before > 30 { "as often" } else { "by weight" }.to_owned());
    assert_eq!(ask(ports.cors, "GET /none", "").status, 200, "a request that opens a connection");

    let mut client = Client::to(local(ports.guarded));
    let silent = client.is_silent(Duration::from_millis(700));
    client.send("hello");
    // Looking takes the first byte.
    let heard = if silent { client.read(7) } else { [b"w", &*client.read(6)].concat() };
    assert_eq!(heard, b"welcome");
    saw("allow of tcp", format!("{silent}"));
    let mut refused = Client::to(local(ports.denied));
    // It may be gone already.
    std::thread::sleep(Duration::from_millis(300));
    let _ = refused.try_send("hello");
    assert!(refused.try_read(1).is_err(), "who is denied hears nothing");

    let before = origins[0].count();
    ask(ports.keep, "GET /", "");
    let proto = origins[0].seen()[before].head.all("x-forwarded-proto").len();
    saw("mode: keep", format!("{proto}"));
    saw("mode: replace", format!("{}", Client::try_to(local(ports.hops)).is_ok()));
    all
}

#[test]
fn what_check_says_of_an_envoy_is_what_it_does() {
    let Some(program) = peers::find("envoy", "mesh::what_check_says_of_an_envoy_is_what_it_does") else { return };
    let [optional, quota, cors, guarded, denied, keep, hops] = std::array::from_fn(|_| free_port());
    let ports = Ports { optional, quota, cors, guarded, denied, keep, hops };
    let greeter = Origin::new(|talk| {
        talk.send("welcome");
        talk.some();
    });
    let (app, other) = (Origin::fixed(respond(200, "", b"app")), Origin::fixed(respond(200, "", b"other")));
    let origins = [&app, &other, &greeter];
    let text = document(&ports, origins);
    let mesh = Mesh::start();
    mesh.write(&text);

    let said = mesh.control(&["check", "mesh.yaml", "--for", "envoy"]);
    assert_eq!(said.code, Some(2), "{said:?}");
    let words = ["clients: optional", "quota", "per", "cors", "redirect", "dry-run", "balance: random", "pending: 0"];
    let words = words.iter().chain(&["allow` of tcp", "deny` of tcp", "mode: keep", "mode: replace", "no `balance`"]);
    for word in words.clone() {
        assert!(
            said.out.contains(&format!(": `{word}")) || said.out.contains(&format!(": {word}")),
            "{word}: {said:?}"
        );
    }
    assert_eq!(said.out.lines().count(), words.count(), "{said:?}");
    assert_eq!(said.out.matches("LEFT OUT").count(), 1, "{said:?}");
    let json = mesh.control(&["check", "mesh.yaml", "--for", "envoy", "-o", "json"]);
    let json: serde_json::Value = serde_json::from_str(&json.out).unwrap();
    let left: Vec<_> = json.as_array().unwrap().iter().filter(|word| word["sent"] == false).collect();
    assert_eq!((left.len(), left[0]["file"].as_str()), (1, Some("mesh.yaml")), "{json}");

    mesh.push(&text);
    let roots = fs::read_to_string(mesh.folder().join("data/operator/ca.pem")).unwrap();
    let ours = mesh.proxy("edge");
    eventually("ours is ready", || ours.is_ready());
    let by_ours = seen(&ports, origins, &roots);
    drop(ours);
    let theirs = Envoy::join(&mesh, &program, "edge", "delta");
    eventually("theirs is ready", || {
        mesh.proxies("edge").iter().any(|one| one["rejected"].as_array().is_some_and(|list| !list.is_empty()))
    });
    eventually("theirs listens", || Client::try_to(local(ports.keep)).is_ok());
    let by_theirs = seen(&ports, origins, &roots);
    let wanted = [
        ("clients: optional", "Some(200)", "None"),
        ("quota", "true", "false"),
        ("per", "429", "200"),
        ("cors", "204 true", "200 false"),
        ("redirect", "302 Some(\"https://a.test\")", "302 None"),
        ("random", "by weight", "as often"),
        ("allow of tcp", "false", "true"),
        ("mode: keep", "0", "1"),
        ("mode: replace", "true", "false"),
    ];
    let found: Vec<_> =
        by_ours.iter().zip(&by_theirs).map(|((word, ours), (_, theirs))| (*word, &**ours, &**theirs)).collect();
    assert_eq!(found, wanted);
    let rejects = mesh.done(&["rejects"]);
    let row = rejects.lines().find(|line| line.contains("listener hops")).unwrap_or_else(|| panic!("{rejects}"));
    assert!(row.contains("not sent to an Envoy") && row.contains("trusted-hops"), "{row}");
    drop(theirs);
}

#[test]
fn what_an_envoy_refuses_is_told_by_name_and_the_rest_is_in_force() {
    let Some(shop) = Shop::open("mesh::what_an_envoy_refuses_is_told_by_name_and_the_rest_is_in_force") else { return };
    let (taken, open) = (TcpListener::bind("127.0.0.1:0").unwrap(), free_port());
    for xds in ["delta", "sotw"] {
        let _back = shop.mesh.proxy("back");
        let front = Envoy::join(&shop.mesh, &shop.program, "front", xds);
        shop.is_whole(xds);
        let more = format!(
            "    listeners:\n      taken: {{ address: '{}', routes: [ {{ to: app }} ] }}\n      open: {{ address: '127.0.0.1:{open}', routes: [ {{ to: app }} ] }}\n",
            taken.local_addr().unwrap()
        );
        let text = shop.document("nobody").replacen("    listeners:\n", &more, 1);
        shop.mesh.write(&text);
        let said = shop.mesh.control(&["apply", "mesh.yaml", "--wait"]);
        assert!(said.code == Some(4) && said.all().contains("listener/taken: cannot bind"), "{xds}: {said:?}");
        let rejects = shop.mesh.json(&["rejects"]);
        let names: Vec<_> = rejects.as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["taken"], "{xds}: {rejects}");
        eventually("the rest is in force", || shop.ask("/cart/x") == Some(503) && Client::try_to(local(open)).is_ok());
        shop.push("app");
        eventually("it is as before", || shop.ask("/cart/x") == Some(200));
        assert_eq!(shop.mesh.done(&["rejects"]), "no proxy refuses anything\n", "{xds}");
        drop(front);
        eventually("nobody is there", || shop.ask("/ping").is_none());
    }
}
