//! A push of one route to all proxies of a group.

use std::io;
use std::time::{Duration, Instant};

use super::daemon::Daemon;
use super::fleet::Fleet;
use super::table::{Goal, middle};
use super::{Setup, document};

/// All have acknowledged within so long, milliseconds.
const WITHIN_MS: f64 = 2000.0;
/// The most memory that the daemon may ever have, MB.
const MOST_MB: f64 = 300.0;

pub(super) async fn run(setup: &Setup) -> io::Result<Vec<Goal>> {
    let size = setup.sizes.proxies;
    let daemon = Daemon::start(&setup.ringwayd, &setup.dir.join("push"), None)?;
    let mut operator = daemon.operator().await?;
    operator.push(document::fleet(0)).await?;
    let began = Instant::now();
    let mut fleet = Fleet::start(size, &daemon, &mut operator).await?;
    eprintln!(
        "  {size} proxies joined and connected in {:.1} s; {:.0} MB",
        began.elapsed().as_secs_f64(),
        daemon.peak_rss()? as f64 / 1e6
    );
    tokio::time::sleep(Duration::from_secs_f64(setup.sizes.rest_s)).await;
    let (mut acknowledged, mut reported, mut bytes) = (Vec::new(), Vec::new(), 0);
    for round in 1..=setup.sizes.rounds {
        fleet.forget();
        let cpu = crate::proc::run_ns(&daemon.pids())?;
        let began = Instant::now();
        let mut pushing = operator.clone();
        let push = tokio::spawn(async move { (pushing.push(document::fleet(round)).await, Instant::now()) });
        let taken = fleet.taken(round as u64 + 1).await?;
        let (pushed, at) = push.await.map_err(super::failed)?;
        let (_, of) = pushed?;
        if of as usize != size {
            return Err(super::failed(format!("{of} of {size} proxies are connected")));
        }
        let cpu = (crate::proc::run_ns(&daemon.pids())? - cpu) as f64 / 1e6;
        let (all, told) = (ms(began, taken.last), ms(began, at));
        eprintln!(
            "  push {round}: acknowledged by all after {all:.0} ms, known to the daemon after {told:.0} ms, {cpu:.0} ms of its CPU"
        );
        acknowledged.push(all);
        reported.push(told);
        bytes = taken.bytes;
        tokio::time::sleep(Duration::from_secs_f64(setup.sizes.rest_s)).await;
    }
    let note = format!(
        "{size} proxies, {} pushes, medians; the slowest push {:.0} ms; {:.1} KiB to each proxy",
        setup.sizes.rounds,
        acknowledged.iter().copied().fold(0.0, f64::max),
        bytes as f64 / size as f64 / 1024.0
    );
    Ok(vec![
        Goal::at_most("push", "all have acknowledged", WITHIN_MS, middle(&mut acknowledged), "ms", note),
        Goal::at_most(
            "push",
            "all report that they work with it, and the daemon knows",
            f64::INFINITY,
            middle(&mut reported),
            "ms",
            String::new(),
        ),
        Goal::at_most(
            "push",
            "the daemon's memory, at its most",
            MOST_MB,
            daemon.peak_rss()? as f64 / 1e6,
            "MB",
            "joins included".into(),
        ),
    ])
}

fn ms(from: Instant, to: Instant) -> f64 {
    to.saturating_duration_since(from).as_secs_f64() * 1000.0
}
