//! What goes wrong with TLS: streams that are cut, fall silent or have a bit changed, anywhere from the first byte of the
//! handshake on; ends that nobody said.

use crate::choice::each_secure_seed;
use crate::client::Manner;
use crate::line::{Flaw, Flawed, Wrong};
use crate::script::{End, Framing, Outcome, Script};
use crate::security::Speech;
use crate::stage::{Stage, WEB, at, crowd, right_or_broken, web};
use ring::sim::Faults;
use wire::tls::Failure;

const SECOND: u64 = 1_000_000_000;
const ORIGIN: &str = "10.1.0.1:80";

/// Requests that may fail.
const FLAWED: &str = "/flawed/";

#[test]
fn what_clients_break_breaks_no_other() {
    each_secure_seed("what_clients_break_breaks_no_other", 40, client_is_secure, |seed| {
        let mut stage = Stage::new(seed, Faults::seeded(seed).unbroken(), 1, &web(ORIGIN, "", "", ""));
        stage.origin(ORIGIN);
        stage.clients_flawed = Flawed::Some(60);
        crowd(&mut stage, 20_000, |_, _, script| script.path = FLAWED);
        stage.clients_flawed = Flawed::None;
        crowd(&mut stage, 3000, |_, _, _| {});
        stage.finish();
        stage.all_as_scripted(|entry, outcome| entry.script.path == FLAWED && right_or_broken(outcome));
    });
}

#[test]
fn what_origins_break_shows() {
    each_secure_seed("what_origins_break_shows", 40, origin_is_secure, |seed| {
        let yaml = web("10.1.0.1:80, 10.1.0.2:80", ", timeout: 60s", "", "");
        let mut stage = Stage::new(seed, Faults::seeded(seed).unbroken(), 1, &yaml);
        stage.origins_flawed = Flawed::Some(50);
        stage.origin("10.1.0.1:80");
        stage.origin("10.1.0.2:80");
        crowd(&mut stage, 20_000, |_, _, _| {});
        stage.finish();
        stage.all_right_or_broken();
    });
}

#[test]
fn an_end_that_is_not_said_never_looks_whole() {
    each_secure_seed("an_end_that_is_not_said_never_looks_whole", 24, origin_is_secure, |seed| {
        let mut stage = Stage::new(seed, Faults::seeded(seed).unbroken(), 1, &web(ORIGIN, "", "", ""));
        stage.origin(ORIGIN);
        crowd(&mut stage, 20_000, |choice, _, script| {
            if !matches!(script.answer.framing, Framing::None) && script.method != "HEAD" && choice.percent(50) {
                (script.answer.framing, script.answer.echo, script.answer.early) = (Framing::Close, false, None);
                (script.answer.close, script.answer.end) = (true, End::Unsaid);
            }
        });
        stage.finish();
        stage.all_as_scripted(|_, _| false);
    });
}

#[test]
fn records_may_be_cut_at_every_byte() {
    // So many places in each run, one after the other; then any behind.
    const PLACES: usize = 6;
    each_secure_seed(
        "records_may_be_cut_at_every_byte",
        40,
        |_| true,
        |seed| {
            let mut stage = Stage::new(seed, Faults::seeded(seed).unbroken(), 1, &web(ORIGIN, "", "", ""));
            let first = PLACES * (seed & 0xffff_ffff) as usize;
            for place in first..first + PLACES {
                let at = if place < 120 { place } else { stage.choice.up_to(10_000) };
                let flawed = Flawed::All(Flaw { at, kind: Wrong::Rest });
                (stage.clients_flawed, stage.origins_flawed) = (flawed, flawed);
                let origin = format!("10.1.0.{}:80", place % PLACES + 1);
                if place == first {
                    let all: Vec<String> = (1..=PLACES).map(|number| format!("10.1.0.{number}:80")).collect();
                    stage.order(&web(&all.join(", "), "", "", ""));
                }
                stage.origin(&origin);
                let scripts = vec![Script::get(300), Script::echo(Framing::Chunked, 2000), Script::get(20_000)];
                stage.client(Manner::plain(), scripts);
            }
            stage.finish();
            stage.all_as_scripted(|_, _| false);
        },
    );
}

#[test]
fn half_a_handshake_ends_in_time() {
    each_secure_seed("half_a_handshake_ends_in_time", 16, client_is_secure, |seed| {
        let mut stage = Stage::new(seed, Faults::some().unbroken(), 1, &web(ORIGIN, "", "", ""));
        stage.clients_flawed = Flawed::All(Flaw { at: stage.choice.up_to(150), kind: Wrong::Silence });
        let dial = stage.dial();
        stage.peer(async move {
            ring::sleep_until(SECOND).await;
            let socket = ring::connect(&at(WEB), u64::MAX).await.expect("a connection");
            let begun = ring::now();
            assert!(dial.line(socket).await.is_none(), "half a handshake is enough");
            let waited = ring::now() - begun;
            assert!((9_900_000_000..11_000_000_000).contains(&waited), "{waited} ns");
        });
        stage.finish();
        assert_eq!(stage.ended("handshake_failed"), 1);
        assert_eq!(stage.sum(|counters| counters.handshake_failures[Failure::Timeout.index()].value()), 1);
    });
}

#[test]
fn an_origin_that_stops_in_its_handshake_is_given_up() {
    each_secure_seed("an_origin_that_stops_in_its_handshake_is_given_up", 16, origin_is_secure, |seed| {
        // One of two: the other answers. (A handshake that resumes is short.)
        let mut stage = Stage::new(
            seed,
            Faults::some().unbroken(),
            1,
            &web("10.1.0.1:80, 10.1.0.2:80", "", ", balance: round-robin", ""),
        );
        stage.origins_flawed = Flawed::All(Flaw { at: stage.choice.up_to(100), kind: Wrong::Silence });
        stage.origin("10.1.0.1:80");
        stage.origins_flawed = Flawed::None;
        stage.origin("10.1.0.2:80");
        for _ in 0..4 {
            let scripts = vec![Script::get(300), Script::echo(Framing::Length, 2000)];
            stage.client(Manner::plain(), scripts);
        }
        stage.finish();
        stage.all_as_scripted(|_, _| false);
        assert!(stage.sum(|counters| counters.upstream_handshake_failures[Failure::Timeout.index()].value()) > 0);
        assert_eq!(stage.ledger.count(Outcome::Right), 8);
    });
}

fn client_is_secure(security: crate::security::Security) -> bool {
    security.client != Speech::Plain
}

fn origin_is_secure(security: crate::security::Security) -> bool {
    security.origin != Speech::Plain
}
