//! Decides many times over, so that a profiler can say what one decision costs:
//!
//! ```text
//! cargo build --release -p ringway-plan --example decide
//! valgrind --tool=callgrind --toggle-collect='*decide_often*' target/release/examples/decide 1000 1
//! valgrind --tool=callgrind --toggle-collect='*decide_often*' target/release/examples/decide 1000 1000
//! valgrind --tool=callgrind --toggle-collect='*decide_often*' target/release/examples/decide 1000 1 rules 10
//! ```
//!
//! The arguments are decisions, routes, and optionally `hosts` to give each route a host of its own, or `rules` and how many the
//! `allow` list of each route has, of which the last holds, or `quotas` to give the listener one of everybody and one for each
//! source. What is taken of quotas is a part of each decision.
#![forbid(unsafe_code)]

use ringway_plan::{Action, Cache, ListenerId, Peer, Plan, Request, World};
use std::hint::black_box;
use wire::h1::head::Method;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let mut number = |default: usize| arguments.next().and_then(|text| text.parse().ok()).unwrap_or(default);
    let (decisions, routes) = (number(1000), number(1));
    let kind = std::env::args().nth(3).unwrap_or_default();
    let by_host = kind == "hosts";
    let rules = std::env::args().nth(4).filter(|_| kind == "rules").and_then(|text| text.parse().ok());
    let resources = match api::load(&configuration(routes, by_host, rules, kind == "quotas"), "decide.yaml") {
        Ok(document) => api::translate(&document),
        Err(findings) => return eprintln!("{findings:#?}"),
    };
    match ringway_plan::compile(&resources, None, 1, &world()) {
        Ok(plan) => {
            let own = rules.map(|rules| identity(rules.saturating_sub(1)));
            let peer = Peer { identity: own.as_deref(), address: Some([10, 1, 2, 3].into()), direct: None };
            let passed = decide_often(&plan, decisions, routes, by_host, peer);
            println!("{passed} of {decisions} decisions found a route that lets pass")
        }
        Err(rejections) => eprintln!("{rejections:#?}"),
    }
}

/// A configuration with so many routes, by prefix, or one for each host.
fn configuration(routes: usize, by_host: bool, rules: Option<usize>, quotas: bool) -> String {
    let mut text = "listeners:\n  web:\n    address: 127.0.0.1:80\n    protocol: http\n".to_owned();
    // Identities need certificates.
    if rules.is_some() {
        text += "    tls: { certificates: [ { certificate: a.pem, key: a.key } ], clients: required, trust: a.pem }\n";
    }
    if quotas {
        text += "    quota: [ { requests: 1000000/s }, { requests: 1000000/s, per: source } ]\n";
    }
    let allow = allow(rules.unwrap_or(0));
    text += if by_host { "    hosts:\n" } else { "    routes:\n" };
    for route in 0..routes {
        text += &match by_host {
            true => format!(
                "      - {{ names: [s{route}.shop.com], routes: [ {{ name: r{route}, match: {{ path: /api/* }}, to: a }} ] }}\n"
            ),
            false => format!("      - {{ name: r{route}, match: {{ path: /s{route}/* }}, to: a{allow} }}\n"),
        };
    }
    text + "services:\n  a: { endpoints: [10.0.0.1:80] }\n"
}

/// So many rules as people write them. Of the three kinds none but the last one holds.
fn allow(rules: usize) -> String {
    let rule = |number: usize| {
        let identity = identity(number);
        let words = match number % 3 {
            _ if number + 1 == rules => format!("identity: \"{identity}\""),
            0 => format!("identity: \"{identity}\", methods: [GET, POST]"),
            1 => format!("identity: \"spiffe://shop/ns/app{number}/**\", path: /s0/items/*"),
            _ => format!("source: 192.0.{number}.0/24, methods: [GET]"),
        };
        format!("{{ name: a{number}, {words} }}")
    };
    let rules: Vec<String> = (0..rules).map(rule).collect();
    if rules.is_empty() { String::new() } else { format!(", allow: [ {} ]", rules.join(", ")) }
}

fn identity(number: usize) -> String {
    format!("spiffe://shop/ns/app{number}/sa/web")
}

/// A world with a certificate.
fn world() -> World {
    let key = rcgen::KeyPair::generate().expect("randomness");
    let made = rcgen::CertificateParams::new(vec!["web.shop.com".to_owned()]).expect("a name").self_signed(&key);
    let mut world = World { clock: wire::tls::Clock::new(1_735_689_600), ..World::default() };
    for (name, text) in [("a.pem", made.expect("a certificate").pem()), ("a.key", key.serialize_pem())] {
        world.files.insert(name.into(), Ok(text.into_bytes().into()));
    }
    world
}

/// Makes the decisions, for targets spread over all routes; how many found one that lets pass.
#[inline(never)]
fn decide_often(plan: &Plan, decisions: usize, routes: usize, by_host: bool, peer: Peer<'_>) -> usize {
    let mut cache = Cache::default();
    // As many as targets, made beforehand: formatting is not what is measured.
    let targets = targets(routes, by_host);
    let mut found = 0;
    for decision in 0..decisions {
        let (authority, path) = &targets[decision % targets.len()];
        found += usize::from(decide(plan, authority.as_bytes(), path.as_bytes(), &mut cache, peer));
    }
    found
}

#[inline(never)]
fn decide(plan: &Plan, authority: &[u8], path: &[u8], cache: &mut Cache, peer: Peer<'_>) -> bool {
    let request = Request {
        method: Method::Get,
        method_bytes: b"GET",
        authority,
        path,
        query: b"?page=1",
        fields: &[],
        head: b"",
        peer,
    };
    let decision = plan.decide(ListenerId(0), black_box(&request), 7, cache);
    let decision = black_box(&decision);
    let passes = plan.take_quotas(decision, black_box(&request), 1_000_000).is_ok();
    passes && decision.route.is_some() && !matches!(decision.action, Action::Denied)
}

/// Sixteen targets among all routes. Their numbers have three digits where they can, so that paths are equally long.
fn targets(routes: usize, by_host: bool) -> Vec<(String, String)> {
    let route = |target: usize| (routes - 1).saturating_sub(target * routes / 32);
    let target = |route: usize| match by_host {
        true => (format!("s{route}.shop.com"), "/api/items/4711".to_owned()),
        false => ("web.shop.com".to_owned(), format!("/s{route}/items/4711")),
    };
    (0..16).map(|number| target(route(number))).collect()
}
