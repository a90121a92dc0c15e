//! Certificates of two proxies change again and again, with traffic and mutual TLS between them. What makes them change is what
//! an operator has: another root (`ringwayctl certs rotate --root`), for which each proxy renews twice, once to trust the new
//! root and once to be of it.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::daemon::{Daemon, http_get};
use super::proxy::Proxy;
use super::table::Goal;
use super::traffic::{Origin, Steady};
use super::{Setup, document, failed};
use crate::core::free_address;

/// Requests a second.
const RATE: f64 = 1000.0;
/// Calls for one change of root: the credential that calls is renewed between them.
const CALLS: usize = 4;

pub(super) async fn run(setup: &Arc<Setup>) -> io::Result<Vec<Goal>> {
    let dir = setup.dir.join("rotations");
    let origin = Origin::start(setup, None)?;
    let daemon = Daemon::start(&setup.ringwayd, &dir, None)?;
    let mut operator = daemon.operator().await?;
    let listen = free_address()?;
    operator.push(document::chain(listen, free_address()?, origin.address)).await?;
    let back = Proxy::start(setup, &dir, &mut operator, "back", None).await?;
    let front = Proxy::start(setup, &dir, &mut operator, "front", None).await?;
    tokio::time::sleep(Duration::from_secs_f64(setup.sizes.rest_s)).await;
    let steady = Steady::start(setup, listen, RATE);
    tokio::time::sleep(Duration::from_secs_f64(setup.sizes.rest_s)).await;
    let (began, mut roots) = (Instant::now(), 0);
    while issued(&daemon)? < setup.sizes.rotations {
        change_root(&daemon).await?;
        roots += 1;
        if roots % 20 == 0 {
            eprintln!(
                "  {} certificates, {roots} roots after {:.0} s",
                issued(&daemon)?,
                began.elapsed().as_secs_f64()
            );
        }
    }
    tokio::time::sleep(Duration::from_secs_f64(setup.sizes.rest_s)).await;
    let found = steady.end().await?;
    let seconds = began.elapsed().as_secs_f64();
    let handshakes = back.metric("ringway_tls_handshakes_total")? + front.metric("ringway_tls_handshakes_total")?;
    let kinds = if found.kinds.is_empty() { String::new() } else { format!(": {}", found.kinds.join(", ")) };
    Ok(vec![Goal::at_most(
        "rotations",
        "failed requests",
        0.0,
        found.failures as f64,
        "",
        format!(
            "of {} in {seconds:.0} s, with {} certificates of two proxies and {roots} roots of the mesh replaced, {handshakes:.0} handshakes{kinds}",
            found.requests,
            issued(&daemon)?
        ),
    )])
}

/// Another root, all the way.
async fn change_root(daemon: &Daemon) -> io::Result<()> {
    for _ in 0..CALLS {
        // The daemon renews the administrator's credential on its own machine.
        if daemon.operator().await?.rotate().await? {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Err(failed("the root does not change"))
}

/// Certificates that were renewed so far.
fn issued(daemon: &Daemon) -> io::Result<u64> {
    let text = http_get(daemon.admin, "/metrics")?;
    let found = text.lines().find_map(|line| line.strip_prefix("ringwayd_renewals_total ")?.parse::<f64>().ok());
    found.map(|count| count as u64).ok_or_else(|| failed("the daemon does not tell how many certificates it renewed"))
}
