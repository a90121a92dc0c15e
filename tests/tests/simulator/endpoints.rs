//! Endpoints that cannot be reached or do not answer, clients that stall.

use crate::choice::each_seed;
use crate::client::Manner;
use crate::script::{End, Framing, Outcome, Script};
use crate::stage::{Stage, at, crowd, web};
use ring::sim::Faults;

const SECOND: u64 = 1_000_000_000;

#[test]
fn what_cannot_be_connected_to_is_passed_over() {
    each_seed("what_cannot_be_connected_to_is_passed_over", 40, |seed| {
        // One refuses, one is silent, one is good.
        let yaml = web("10.1.0.8:80, 10.1.0.9:80, 10.1.0.1:80", "", "", "");
        let mut stage = Stage::new(seed, Faults::seeded(seed).unbroken(), 2, &yaml);
        stage.origin("10.1.0.1:80");
        stage.world.blackhole(at("10.1.0.8:80"));
        crowd(&mut stage, 5000, |_, _, _| {});
        stage.finish();
        stage.all_as_scripted(|_, _| false);
    });
}

#[test]
fn where_nobody_is_the_answer_is_503() {
    each_seed("where_nobody_is_the_answer_is_503", 20, |seed| {
        let mut stage =
            Stage::new(seed, Faults::seeded(seed).unbroken(), 1, &web("10.1.0.8:80, 10.1.0.9:80", "", "", ""));
        stage.world.blackhole(at("10.1.0.8:80"));
        crowd(&mut stage, 5000, |_, _, _| {});
        stage.finish();
        for entry in stage.ledger.all() {
            let outcome = entry.outcome.get();
            let fine = outcome == Some(Outcome::Status(503))
                || (outcome == Some(Outcome::Unanswered) && entry.after_the_end.get())
                || (matches!(outcome, Some(Outcome::Unanswered | Outcome::Cut)) && entry.script.body != Framing::None);
            assert!(fine && entry.seen.get() == 0, "{outcome:?} came of {entry:?}");
        }
    });
}

#[test]
fn an_answer_that_does_not_come_is_504() {
    each_seed("an_answer_that_does_not_come_is_504", 30, |seed| {
        let yaml = web("10.1.0.1:80", ", timeout: 60s", "", "");
        let mut stage = Stage::new(seed, Faults::seeded(seed).unbroken(), 1, &yaml);
        stage.origin("10.1.0.1:80");
        crowd(&mut stage, 5000, |choice, _, script| {
            if choice.percent(30) {
                script.answer.end = End::Never;
                (script.answer.echo, script.answer.early, script.answer.delay_ns) = (false, None, 0);
            }
        });
        stage.finish();
        stage.all_as_scripted(|_, _| false);
        assert_eq!(stage.ended("upstream_timeout"), stage.ledger.count(Outcome::Status(504)) as u64);
    });
}

#[test]
fn a_body_that_does_not_come_is_408() {
    each_seed("a_body_that_does_not_come_is_408", 30, |seed| {
        let yaml = web("10.1.0.1:80", "", "", "").replace("request-timeout: 600s", "request-timeout: 60s");
        let mut stage = Stage::new(seed, Faults::seeded(seed).unbroken(), 1, &yaml);
        stage.origin("10.1.0.1:80");
        crowd(&mut stage, 5000, |choice, _, script| {
            if script.size > 0 && choice.percent(50) {
                script.stops_at = Some(choice.up_to(script.size - 1));
                (script.answer.echo, script.answer.early) = (false, None);
            }
        });
        stage.finish();
        stage.all_as_scripted(|entry, outcome| {
            entry.script.stops_at.is_some() && matches!(outcome, Outcome::Status(408))
        });
        for entry in stage.ledger.all().iter().filter(|entry| entry.script.stops_at.is_some()) {
            assert_ne!(entry.outcome.get(), Some(Outcome::Right), "{entry:?}");
        }
    });
}

#[test]
fn an_idle_connection_ends_without_a_request_lost_on_it() {
    each_seed("an_idle_connection_ends_without_a_request_lost_on_it", 30, |seed| {
        let yaml = web("10.1.0.1:80", "", "", "").replace("idle-timeout: 600s", "idle-timeout: 2s");
        let mut stage = Stage::new(seed, Faults::some().unbroken(), 2, &yaml);
        stage.origin("10.1.0.1:80");
        for client in 0..4 {
            let rest_ns = [1, 3, 5, 8][client] * SECOND;
            stage.client(Manner { rest_ns, ..Manner::plain() }, (0..6).map(|_| Script::get(100)).collect());
        }
        stage.finish();
        // It may end while the request is on its way.
        stage.all_as_scripted(|entry, outcome| outcome == Outcome::Unanswered && entry.seen.get() == 0);
    });
}
