//! Quotas: how many requests a client may make, exact across the cores, in bounded memory.

use crate::gate::{Gate, TLS, ask, gate, text};
use ringway_tests::{Answer, Client};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Asks so often; how many were let through.
fn passed(client: &mut Client, request: &str, count: usize) -> usize {
    (0..count).filter(|_| status(&ask(client, request))).count()
}

/// Whether it was let through; if not, it was for the quota and said so.
fn status(answer: &Answer) -> bool {
    if answer.status == 200 {
        return true;
    }
    assert_eq!(answer.status, 429, "{answer:?}");
    let after: u32 = answer.field("retry-after").expect("Retry-After").parse().expect("seconds");
    assert!(after >= 1, "{answer:?}");
    let fields: Vec<_> =
        answer.head.fields.iter().filter(|(name, _)| name.to_ascii_lowercase().starts_with("ratelimit")).collect();
    assert!(!fields.is_empty(), "RateLimit fields: {answer:?}");
    false
}

#[test]
fn a_burst_then_the_rate() {
    let gate = gate(&text("quota: { name: q, requests: 2/s, burst: 5 },", "{ to: app }"));
    let mut client = gate.proxy.client();
    let begun = Instant::now();
    let first = passed(&mut client, "GET /", 20);
    let slack = (begun.elapsed().as_secs_f64() * 2.0).ceil() as usize;
    assert!((5..=5 + slack).contains(&first), "{first}");
    assert_eq!(gate.origin.count(), first, "what is refused is not forwarded");
    let line = gate.proxy.logged_ending("quota_exceeded");
    assert_eq!(line["status"], 429, "{line}");
    // What Retry-After says is enough, and one comes at a time.
    let refused = (0..10).map(|_| ask(&mut client, "GET /")).find(|answer| answer.status == 429).expect("a refusal");
    let after: u64 = refused.field("retry-after").unwrap().parse().unwrap();
    assert!(after <= 2, "{refused:?}");
    std::thread::sleep(Duration::from_secs(after));
    assert_eq!(ask(&mut client, "GET /").status, 200);
    assert!(passed(&mut client, "GET /", 10) <= 3);
    let labels = [("listener", "web"), ("route", ""), ("quota", "q")];
    assert!(gate.proxy.metrics().total("ringway_quota_refused_total", &labels) >= 15.0);
    assert_eq!(line["rule"], "q", "{line}");
}

#[test]
fn the_rate_is_kept_over_time() {
    let gate = gate(&text("quota: { requests: 50/s, burst: 1 },", "{ to: app }"));
    let mut client = gate.proxy.client();
    let begun = Instant::now();
    let mut count = 0;
    while begun.elapsed() < Duration::from_secs(3) {
        count += usize::from(ask(&mut client, "GET /").status == 200);
    }
    let most = (begun.elapsed().as_secs_f64() * 50.0) as usize + 2;
    assert!((most * 8 / 10..=most).contains(&count), "{count} of {most}");
}

#[test]
fn the_burst_is_the_rate_unless_it_is_said() {
    for (quota, burst) in
        [("requests: 4/m", 4), ("requests: 7/h", 7), ("requests: 3/h, burst: 9", 9), ("requests: 60/h, burst: 1", 1)]
    {
        let gate = gate(&text(&format!("quota: {{ name: q, {quota} }},"), "{ to: app }"));
        assert_eq!(passed(&mut gate.proxy.client(), "GET /", 20), burst, "{quota}");
    }
}

#[test]
fn each_header_has_its_own() {
    let gate = gate(&text("quota: { requests: 3/h, per: { header: x-key } },", "{ to: app }"));
    let mut client = gate.proxy.client();
    for key in ["a", "b", "c"] {
        assert_eq!(passed(&mut client, &format!("GET / X-Key: {key}"), 5), 3, "{key}");
    }
    // Those without it are one client; a name in other letters is the same name, a value is not.
    assert_eq!(passed(&mut client, "GET /", 5), 3);
    assert_eq!(passed(&mut client, "GET / x-KEY: a", 5), 0);
    assert_eq!(passed(&mut client, "GET / X-Key: A", 5), 3);
    // Another connection is not another client.
    assert_eq!(passed(&mut gate.proxy.client(), "GET / X-Key: a", 5), 0);
}

#[test]
fn each_source_has_its_own_and_none_is_made_up() {
    let gate = gate(&text("forwarded: { trusted-hops: 1 }, quota: { requests: 3/h, per: source },", "{ to: app }"));
    let mut client = gate.proxy.client();
    for source in ["198.51.100.1", "198.51.100.2", "2001:db8::1"] {
        assert_eq!(passed(&mut client, &format!("GET / X-Forwarded-For: {source}"), 5), 3, "{source}");
    }
    // What stands before the trusted hop's word changes nothing.
    assert_eq!(passed(&mut client, "GET / X-Forwarded-For: 1.2.3.4, 198.51.100.1", 5), 0);
    let gate = crate::gate::gate(&text("quota: { requests: 3/h, per: source },", "{ to: app }"));
    let spoofed = (0..10).filter(|n| gate.status(&format!("GET / X-Forwarded-For: 198.51.100.{n}")) == 200).count();
    assert_eq!(spoofed, 3);
}

#[test]
fn each_identity_has_its_own() {
    let gate = gate(&text(&format!("{TLS}, quota: {{ requests: 3/h, per: identity }},"), "{ to: app }"));
    for identity in [Some("spiffe://shop/a"), Some("spiffe://shop/b"), None] {
        let let_through: usize = (0..3).map(|_| passed(&mut gate.tls("web", identity), "GET /", 2)).sum();
        assert_eq!(let_through, 3, "{identity:?}");
    }
}

#[test]
fn routes_have_their_own_and_the_listeners_holds_too() {
    let routes = "{ name: a, match: { path: /a }, quota: { requests: 3/h }, to: app }, \
                  { name: b, match: { path: /b }, quota: [ { name: few, requests: 2/h }, { name: more, requests: 100/h, per: source } ], to: app }, \
                  { name: c, match: { path: /c }, quota: { requests: 100/h }, respond: { status: 200 } }, { name: rest, to: app }";
    let gate = gate(&text("quota: { name: all, requests: 12/h },", routes));
    let mut client = gate.proxy.client();
    assert_eq!(passed(&mut client, "GET /a", 5), 3);
    assert_eq!(passed(&mut client, "GET /b", 4), 2);
    // A fixed answer costs too. Whether what a route's quota refused had already cost the listener's is not said.
    let rest = passed(&mut client, "GET /c", 20);
    assert!((3..=7).contains(&rest), "{rest}");
    assert_eq!(passed(&mut client, "GET /d", 5), 0);
}

#[test]
fn what_is_not_allowed_costs_nothing() {
    let routes = "{ name: all, deny: [ { name: bad, headers: { x-bad: { present: true } } } ], to: app }";
    let gate = gate(&text("quota: { requests: 5/h },", routes));
    let mut client = gate.proxy.client();
    for _ in 0..20 {
        assert_eq!(ask(&mut client, "GET / X-Bad: 1").status, 403);
    }
    assert_eq!(passed(&mut client, "GET /", 10), 5);
    // And is refused as such when the quota is used up.
    assert_eq!(ask(&mut client, "GET / X-Bad: 1").status, 403);
}

#[test]
fn two_cores_share_it_exactly() {
    const BURST: usize = 400;
    let gate = gate(
        &(text(&format!("quota: {{ requests: 60/h, burst: {BURST} }},"), "{ respond: { status: 200 } }")
            + "cores: 2\n"),
    );
    let count = Arc::new(AtomicUsize::new(0));
    let address = gate.proxy.address("web");
    let workers: Vec<_> = (0..8)
        .map(|_| {
            let count = count.clone();
            std::thread::spawn(move || {
                for _ in 0..10 {
                    // New connections meet both cores.
                    let mut client = Client::to(address);
                    count.fetch_add(passed(&mut client, "GET /", 10), Ordering::SeqCst);
                }
            })
        })
        .collect();
    workers.into_iter().for_each(|worker| worker.join().unwrap());
    // One more may have come due while they asked.
    let count = count.load(Ordering::SeqCst);
    assert!((BURST..=BURST + 1).contains(&count), "{count}");
    let metrics = gate.proxy.metrics();
    let by_core: Vec<f64> = metrics.all("ringway_core_connections", &[]).map(|sample| sample.value).collect();
    assert_eq!(by_core.len(), 2, "two cores were at work");
}

/// Over time too: never more than the burst and what the rate gives, whichever core is asked.
#[test]
fn two_cores_keep_the_rate_together() {
    const BURST: usize = 10;
    const RATE: f64 = 400.0;
    let quota = format!("quota: {{ requests: {RATE}/s, burst: {BURST} }},");
    let gate = gate(&(text(&quota, "{ respond: { status: 200 } }") + "cores: 2\n"));
    let address = gate.proxy.address("web");
    let begun = Instant::now();
    let workers: Vec<_> = (0..6)
        .map(|_| {
            std::thread::spawn(move || {
                let mut count = 0;
                while begun.elapsed() < Duration::from_secs(2) {
                    count += passed(&mut Client::to(address), "GET /", 50);
                }
                count
            })
        })
        .collect();
    let count: usize = workers.into_iter().map(|worker| worker.join().unwrap()).sum();
    let most = BURST as f64 + RATE * begun.elapsed().as_secs_f64() + 1.0;
    assert!(count as f64 <= most && count as f64 >= most * 0.9, "{count} of {most}");
}

/// There are two slots for each client that is asked for, so that nearly all who come at once find one.
const SLOTS: usize = 2 * 64;

#[test]
fn churn_of_clients_buys_nothing() {
    let gate = gate(&text(
        "quota: { requests: 1/h, burst: 2, per: { header: x-key }, clients: 64 },",
        "{ respond: { status: 200 } }",
    ));
    let mut client = gate.proxy.client();
    let mut counts = vec![0; 3000];
    for round in 0..3 {
        for (n, count) in counts.iter_mut().enumerate() {
            *count += passed(&mut client, &format!("GET / X-Key: key-{n}"), 1);
        }
        // Two each for those that have a slot, and two for all others together.
        let let_through: usize = counts.iter().sum();
        assert!(let_through <= 2 * (SLOTS + 1), "{let_through} after round {round}");
        assert!(let_through >= SLOTS * 9 / 10, "{let_through}: the slots are used");
    }
    assert!(counts.iter().all(|count| *count <= 2 + 2), "who lost nothing has won nothing");
    // A newcomer shares with all who found no slot, and their bucket is empty.
    assert_eq!(passed(&mut client, "GET / X-Key: late", 3), 0);
}

fn exhausted(gate: &Gate) -> bool {
    passed(&mut gate.proxy.client(), "GET /", 3) == 0
}

#[test]
fn a_new_plan_forgives_nothing_and_new_numbers_begin_anew() {
    let with = |quota: &str, route: &str| text(&format!("quota: {quota},"), &format!("{{ name: {route}, to: app }}"));
    let mut gate = gate(&with("{ name: q, requests: 3/h, per: source }", "old"));
    assert_eq!(passed(&mut gate.proxy.client(), "GET /", 5), 3);
    let origin = gate.origin.address().to_string();
    let mut change = |quota: &str, route: &str| {
        gate.proxy.rewrite(&with(quota, route).replace("$origin", &origin));
        gate.proxy.signal("HUP");
        let named = format!("\"{route}\"");
        ringway_tests::eventually("the plan is in force", || gate.proxy.admin("GET", "/plan").text().contains(&named));
        exhausted(&gate)
    };
    assert!(change("{ name: q, requests: 3/h, per: source }", "new"));
    assert!(change("[ { name: more, requests: 100/h }, { name: q, requests: 3/h, per: source } ]", "beside"));
    assert!(!change("{ name: q, requests: 4/h, per: source }", "other"));
}

/// Routes of two hosts may have one name: each has a quota of its own, also under a later plan.
#[test]
fn routes_of_one_name_in_two_hosts_do_not_share() {
    let route = "routes: [ { name: api, quota: { name: q, requests: 2/h }, to: app } ]";
    let with = |more: &str| {
        format!(
            "listeners:\n  web:\n    address: 127.0.0.1:$web\n    hosts:\n      - {{ names: [a.test], {route} }}\n      \
             - {{ names: [b.test], {route} }}\n{more}services:\n  app: {{ endpoints: [$origin] }}\n"
        )
    };
    let mut gate = gate(&with(""));
    let ask_both = |gate: &Gate| {
        let mut client = gate.proxy.client();
        ["a.test", "b.test"].map(|host| passed(&mut client, &format!("GET / Host: {host}"), 4))
    };
    assert_eq!(ask_both(&gate), [2, 2]);
    let host = "      - { names: [later.test], routes: [ { to: app } ] }\n";
    gate.proxy.rewrite(&with(host).replace("$origin", &gate.origin.address().to_string()));
    gate.proxy.signal("HUP");
    ringway_tests::eventually("the plan is in force", || {
        gate.proxy.admin("GET", "/plan").text().contains("later.test")
    });
    assert_eq!(ask_both(&gate), [0, 0]);
}

#[test]
fn the_rest_of_the_quota_is_told() {
    let gate = gate(&text("quota: { name: q, requests: 5/h },", "{ to: app }"));
    let mut client = gate.proxy.client();
    let refused = (0..10).map(|_| ask(&mut client, "GET /")).find(|answer| answer.status == 429).expect("a refusal");
    assert_eq!(refused.field("ratelimit-policy"), Some("\"q\";q=5;w=3600"), "{refused:?}");
    let told = refused.field("ratelimit").expect("RateLimit");
    let reset = told.strip_prefix("\"q\";r=0;t=").unwrap_or_else(|| panic!("{told}"));
    assert!((3590..=3600).contains(&reset.parse::<u32>().unwrap()), "{told}");
    assert!(refused.field("retry-after").unwrap().parse::<u32>().unwrap() <= 720, "{refused:?}");
}
