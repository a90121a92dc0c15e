//! Limits: connections, queues, buffers; several cores that share them.

use crate::choice::each_seed;
use crate::client::Manner;
use crate::script::{Outcome, Script};
use crate::stage::{Stage, crowd, web};
use ring::sim::Faults;
use ring::{BufferSizes, Config};

fn busy(stage: &mut Stage, clients: u64, requests: u64) {
    for _ in 0..clients {
        let mut choice = stage.choice.split();
        let manner = Manner { patience_ns: None, ..Manner::any(&mut choice) };
        let scripts = (0..requests).map(|_| Script::any(&mut choice, 3000)).collect();
        stage.client(manner, scripts);
    }
}

#[test]
fn no_core_starves_on_connections_that_others_hold() {
    each_seed("no_core_starves_on_connections_that_others_hold", 60, |seed| {
        let connections = 1 + seed % 3;
        let service = format!(", limits: {{ connections: {connections} }}");
        let yaml = web("10.1.0.1:80, 10.1.0.2:80", "", &service, "");
        let mut stage = Stage::new(seed, Faults::seeded(seed).unbroken(), 3, &yaml);
        stage.origin("10.1.0.1:80");
        stage.origin("10.1.0.2:80");
        busy(&mut stage, 8, 4);
        stage.finish();
        stage.all_as_scripted(|_, _| false);
    });
}

#[test]
fn a_full_queue_is_answered_at_once() {
    each_seed("a_full_queue_is_answered_at_once", 30, |seed| {
        let service = ", limits: { connections: 1, pending: 1 }";
        let mut stage = Stage::new(seed, Faults::seeded(seed).unbroken(), 2, &web("10.1.0.1:80", "", service, ""));
        stage.origin("10.1.0.1:80");
        busy(&mut stage, 10, 3);
        stage.finish();
        stage.all_as_scripted(|_, outcome| outcome == Outcome::Status(503));
        assert_eq!(stage.ended("overloaded"), stage.ledger.count(Outcome::Status(503)) as u64);
    });
}

#[test]
fn more_connections_than_the_process_may_have_wait() {
    each_seed("more_connections_than_the_process_may_have_wait", 30, |seed| {
        let yaml = web("10.1.0.1:80", "", "", ", connections: 2");
        let mut stage = Stage::new(seed, Faults::seeded(seed).unbroken(), 2, &yaml);
        stage.origin("10.1.0.1:80");
        busy(&mut stage, 8, 3);
        stage.finish();
        stage.all_as_scripted(|_, _| false);
    });
}

#[test]
fn nothing_is_lost_when_buffers_run_out() {
    each_seed("nothing_is_lost_when_buffers_run_out", 40, |seed| {
        let config = Config {
            small: BufferSizes { bytes: 256, count: 2, most: 2 },
            large: BufferSizes { bytes: 2048, count: 1, most: 1 },
            seed,
            ..Config::default()
        };
        let yaml = web("10.1.0.1:80, 10.1.0.2:80", "", "", "");
        let mut stage = Stage::with(seed, Faults::seeded(seed).unbroken(), 1, &yaml, &config);
        stage.origin("10.1.0.1:80");
        stage.origin("10.1.0.2:80");
        // (Where answers come while the request still goes up, each side may wait for the other's buffers.)
        let one_way = |script: &mut Script| (script.answer.echo, script.answer.early) = (false, None);
        crowd(&mut stage, 20_000, |_, _, script| one_way(script));
        crowd(&mut stage, 3000, |_, _, script| one_way(script));
        crowd(&mut stage, 3000, |_, _, script| one_way(script));
        stage.finish();
        stage.all_as_scripted(|_, _| false);
    });
}
