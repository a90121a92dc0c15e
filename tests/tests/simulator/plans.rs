//! New plans and draining, in the midst of traffic.

use crate::choice::each_seed;
use crate::script::Outcome;
use crate::stage::{Stage, crowd, web};
use ring::sim::Faults;

const MS: u64 = 1_000_000;

/// Some of three endpoints.
fn some(stage: &mut Stage) -> String {
    let chosen: Vec<&str> =
        ["10.1.0.1:80", "10.1.0.2:80", "10.1.0.3:80"].into_iter().filter(|_| stage.choice.percent(60)).collect();
    if chosen.is_empty() { "10.1.0.1:80".to_owned() } else { chosen.join(", ") }
}

#[test]
fn new_plans_fail_no_request() {
    each_seed("new_plans_fail_no_request", 80, |seed| {
        let endpoints = "10.1.0.1:80";
        let mut stage = Stage::new(seed, Faults::seeded(seed).unbroken(), 2, &web(endpoints, "", "", ""));
        for origin in ["10.1.0.1:80", "10.1.0.2:80", "10.1.0.3:80"] {
            stage.origin(origin);
        }
        crowd(&mut stage, 20_000, |_, _, _| {});
        for _ in 0..10 {
            let pause = stage.choice.one_of(&[MS / 10, MS, 10 * MS, 200 * MS]);
            let pause = stage.choice.below(pause);
            stage.run_for(pause);
            let endpoints = some(&mut stage);
            let balance = stage.choice.one_of(&["round-robin", "random", "least-request", "peak-ewma"]);
            let connections = stage.choice.one_of(&[1, 2, 1000]);
            let service = format!(", balance: {balance}, limits: {{ connections: {connections} }}");
            stage.order(&web(&endpoints, "", &service, ""));
        }
        stage.finish();
        stage.all_as_scripted(|_, _| false);
    });
}

#[test]
fn draining_fails_no_request_that_was_taken() {
    each_seed("draining_fails_no_request_that_was_taken", 60, |seed| {
        let mut stage = Stage::new(seed, Faults::seeded(seed).unbroken(), 2, &web("10.1.0.1:80", "", "", ""));
        stage.origin("10.1.0.1:80");
        crowd(&mut stage, 20_000, |_, _, _| {});
        let before = stage.choice.below(300 * MS);
        stage.run_for(before);
        stage.drain();
        stage.finish();
        // A request that was on its way to an idle connection, or to nobody, is not touched.
        stage.all_as_scripted(|entry, outcome| {
            matches!(outcome, Outcome::Left | Outcome::Unanswered) && entry.seen.get() == 0
        });
    });
}

#[test]
fn a_listener_that_goes_away_fails_no_request_that_was_taken() {
    each_seed("a_listener_that_goes_away_fails_no_request_that_was_taken", 40, |seed| {
        let yaml = web("10.1.0.1:80", "", "", "");
        let elsewhere = yaml.replace("10.9.0.1:80", "10.9.0.1:81");
        let mut stage = Stage::new(seed, Faults::seeded(seed).unbroken(), 2, &yaml);
        stage.origin("10.1.0.1:80");
        crowd(&mut stage, 20_000, |_, _, _| {});
        for plan in [&elsewhere, &yaml, &elsewhere, &yaml] {
            let before = stage.choice.below(100 * MS);
            stage.run_for(before);
            stage.order(plan);
        }
        stage.finish();
        stage.all_as_scripted(|entry, outcome| outcome == Outcome::Unanswered && entry.seen.get() == 0);
    });
}
