//! The daemon is killed for a minute, with traffic through two proxies and a fleet connected, and comes back.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::daemon::Daemon;
use super::fleet::Fleet;
use super::proxy::Proxy;
use super::table::Goal;
use super::traffic::{Origin, Steady};
use super::{Setup, document};
use crate::core::free_address;

/// Of all that come back, so many percent in any one second at most: more is a storm.
const STORM: f64 = 10.0;
/// Requests a second.
const RATE: f64 = 1000.0;

pub(super) async fn run(setup: &Arc<Setup>) -> io::Result<Vec<Goal>> {
    let (size, dir) = (setup.sizes.proxies, setup.dir.join("outage"));
    let origin = Origin::start(setup, None)?;
    let mut daemon = Daemon::start(&setup.ringwayd, &dir, None)?;
    let mut operator = daemon.operator().await?;
    let listen = free_address()?;
    operator.push(document::chain(listen, free_address()?, origin.address)).await?;
    let _back = Proxy::start(setup, &dir, &mut operator, "back", None).await?;
    let front = Proxy::start(setup, &dir, &mut operator, "front", None).await?;
    let mut fleet = Fleet::start(size, &daemon, &mut operator).await?;
    tokio::time::sleep(Duration::from_secs_f64(setup.sizes.rest_s)).await;
    let steady = Steady::start(setup, listen, RATE);
    tokio::time::sleep(Duration::from_secs_f64(setup.sizes.rest_s)).await;
    daemon.kill()?;
    tokio::time::sleep(Duration::from_secs_f64(setup.sizes.outage_s)).await;
    fleet.forget();
    let revived = Instant::now();
    tokio::task::block_in_place(|| daemon.revive())?;
    let ready = revived.elapsed();
    let times = fleet.connected(size).await?;
    // The real ones are among those that come back.
    let until = Instant::now() + Duration::from_secs(60);
    while front.metric("ringway_daemon_connected")? < 1.0 && Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    tokio::time::sleep(Duration::from_secs_f64(setup.sizes.rest_s)).await;
    let found = steady.end().await?;
    let all = times.last().map_or(0.0, |last| last.saturating_duration_since(revived).as_secs_f64());
    let most = most_within_a_second(&times);
    let percent = most as f64 * 100.0 / size.max(1) as f64;
    eprintln!("  ready after {:.2} s; all back after {all:.1} s; {most} in one second; {found:?}", ready.as_secs_f64());
    let kinds = if found.kinds.is_empty() { String::new() } else { format!(": {}", found.kinds.join(", ")) };
    Ok(vec![
        Goal::at_most(
            "outage",
            "failed requests",
            0.0,
            found.failures as f64,
            "",
            format!(
                "of {} through two proxies with mutual TLS between them, the daemon away for {:.0} s{kinds}",
                found.requests, setup.sizes.outage_s
            ),
        ),
        Goal::at_most(
            "outage",
            "of the proxies that come back, in the busiest second",
            STORM,
            percent,
            "%",
            format!("{size} proxies; all were back after {all:.1} s"),
        ),
        Goal::at_most(
            "outage",
            "the daemon's memory, at its most after the start",
            f64::INFINITY,
            daemon.peak_rss()? as f64 / 1e6,
            "MB",
            String::new(),
        ),
    ])
}

/// The most of these moments that lie within any one second.
fn most_within_a_second(times: &[Instant]) -> usize {
    let mut times = times.to_vec();
    times.sort();
    let within = |(n, from): (usize, &Instant)| times[n..].partition_point(|at| *at - *from < Duration::from_secs(1));
    times.iter().enumerate().map(within).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_busiest_second_begins_with_any_of_them() {
        let start = Instant::now();
        let at = |ms: &[u64]| ms.iter().map(|ms| start + Duration::from_millis(*ms)).collect::<Vec<_>>();
        assert_eq!(most_within_a_second(&at(&[])), 0);
        assert_eq!(most_within_a_second(&at(&[0, 900, 1100, 1800, 2200])), 3);
        assert_eq!(most_within_a_second(&at(&[2000, 0])), 1);
    }
}
