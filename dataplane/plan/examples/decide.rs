//! Decides many times over, so that a profiler can say what one decision costs:
//!
//! ```text
//! cargo build --release -p ringway-plan --example decide
//! valgrind --tool=callgrind --toggle-collect='*decide_often*' target/release/examples/decide 1000 1
//! valgrind --tool=callgrind --toggle-collect='*decide_often*' target/release/examples/decide 1000 1000
//! ```
//!
//! The arguments are decisions, routes, and optionally `hosts` to give each route a host of its own, or `quotas` to give the
//! listener one of everybody and one for each source. What is taken of quotas is a part of each decision.
#![forbid(unsafe_code)]

use ringway_plan::{Cache, ListenerId, Peer, Plan, Request, World};
use std::hint::black_box;
use wire::h1::head::Method;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let mut number = |default: usize| arguments.next().and_then(|text| text.parse().ok()).unwrap_or(default);
    let (decisions, routes) = (number(1000), number(1));
    let with = std::env::args().nth(3).unwrap_or_default();
    let (by_host, quotas) = (with == "hosts", with == "quotas");
    let resources = match api::load(&configuration(routes, by_host, quotas), "decide.yaml") {
        Ok(document) => api::translate(&document),
        Err(findings) => return eprintln!("{findings:#?}"),
    };
    match ringway_plan::compile(&resources, None, 1, &World::default()) {
        Ok(plan) => {
            println!("{} of {decisions} decisions found a route", decide_often(&plan, decisions, routes, by_host))
        }
        Err(rejections) => eprintln!("{rejections:#?}"),
    }
}

/// A configuration with so many routes, by prefix, or one for each host.
fn configuration(routes: usize, by_host: bool, quotas: bool) -> String {
    let mut text = "listeners:\n  web:\n    address: 127.0.0.1:80\n    protocol: http\n".to_owned();
    if quotas {
        text += "    quota: [ { requests: 1000000/s }, { requests: 1000000/s, per: source } ]\n";
    }
    text += if by_host { "    hosts:\n" } else { "    routes:\n" };
    for route in 0..routes {
        text += &match by_host {
            true => format!(
                "      - {{ names: [s{route}.shop.com], routes: [ {{ name: r{route}, match: {{ path: /api/* }}, to: a }} ] }}\n"
            ),
            false => format!("      - {{ name: r{route}, match: {{ path: /s{route}/* }}, to: a }}\n"),
        };
    }
    text + "services:\n  a: { endpoints: [10.0.0.1:80] }\n"
}

/// Makes the decisions, for targets spread over all routes; how many found one.
#[inline(never)]
fn decide_often(plan: &Plan, decisions: usize, routes: usize, by_host: bool) -> usize {
    let mut cache = Cache::default();
    // As many as targets, made beforehand: formatting is not what is measured.
    let targets = targets(routes, by_host);
    let mut found = 0;
    for decision in 0..decisions {
        let (authority, path) = &targets[decision % targets.len()];
        let now_ns = decision as u64 * 1_000_000;
        found += usize::from(decide(plan, authority.as_bytes(), path.as_bytes(), now_ns, &mut cache));
    }
    found
}

#[inline(never)]
fn decide(plan: &Plan, authority: &[u8], path: &[u8], now_ns: u64, cache: &mut Cache) -> bool {
    let request = Request {
        method: Method::Get,
        method_bytes: b"GET",
        authority,
        path,
        query: b"?page=1",
        fields: &[],
        head: b"",
        peer: Peer { address: Some(std::net::Ipv4Addr::LOCALHOST.into()), ..Peer::default() },
    };
    let decision = plan.decide(ListenerId(0), black_box(&request), 7, cache);
    let passes = plan.take_quotas(black_box(&decision), black_box(&request), now_ns).is_ok();
    decision.route.is_some() && passes
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
