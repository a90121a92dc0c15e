//! One endpoint of a hundred thousand is another one.

use std::io;
use std::time::{Duration, Instant};

use super::daemon::{Daemon, Operator};
use super::proxy::Proxy;
use super::table::{Goal, middle};
use super::traffic::Origin;
use super::wire::Wire;
use super::{Setup, document, failed, now_ms};
use crate::core::free_address;
use crate::proc;

/// To a proxy, bytes on the wire.
const MOST_BYTES: f64 = 1024.0;
/// Applied within so long, milliseconds.
const WITHIN_MS: f64 = 50.0;
/// Changes for each round.
const CHANGES: usize = 10;
/// The proxy has to tell within this.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) async fn run(setup: &Setup) -> io::Result<Vec<Goal>> {
    let dir = setup.dir.join("endpoint");
    let origin = Origin::start(setup, None)?;
    let (relay, at) = Wire::bind().await?;
    let daemon = Daemon::start(&setup.ringwayd, &dir, Some(at))?;
    let wire = Wire::connect(relay, daemon.address);
    let mut operator = daemon.operator().await?;
    let services = setup.sizes.services;
    operator.push(document::services(free_address()?, origin.address, services, true)).await?;
    let began = Instant::now();
    for n in 0..services {
        operator.set(&format!("s{n}"), document::addresses(n)).await?;
    }
    eprintln!("  {services} services have endpoints after {:.1} s", began.elapsed().as_secs_f64());
    let proxy = Proxy::start(setup, &dir, &mut operator, "edge", None).await?;
    settle(&wire).await;
    let (mut took, mut bytes, mut cpu) = (Vec::new(), Vec::new(), Vec::new());
    for change in 0..setup.sizes.rounds * CHANGES {
        let (service, mut addresses) = (change * 97 % services, document::addresses(change * 97 % services));
        addresses[change % document::ENDPOINTS] = format!("10.9.{}.{}:8080", change / 250, 1 + change % 250);
        let (generation, _) = applied(&mut operator).await?;
        let (sent, ran, from_ms) = (wire.down(), proc::run_ns(&proxy.pids())?, now_ms());
        operator.set(&format!("s{service}"), addresses).await?;
        let until = Instant::now() + PATIENCE;
        let at_ms = loop {
            tokio::time::sleep(Duration::from_millis(10)).await;
            match applied(&mut operator).await? {
                (now, at_ms) if now > generation => break at_ms,
                _ if Instant::now() > until => return Err(failed("the proxy does not apply the change")),
                _ => {}
            }
        };
        settle(&wire).await;
        took.push(at_ms.saturating_sub(from_ms) as f64);
        bytes.push((wire.down() - sent) as f64);
        cpu.push((proc::run_ns(&proxy.pids())? - ran) as f64 / 1e6);
    }
    let most = |list: &[f64]| list.iter().copied().fold(0.0, f64::max);
    let all = (services * document::ENDPOINTS).max(1);
    let of = format!("of {all} endpoints, median of {} changes", took.len());
    let (slowest, largest) = (most(&took), most(&bytes));
    Ok(vec![
        Goal::at_most(
            "endpoint",
            "sent to the proxy",
            MOST_BYTES,
            middle(&mut bytes),
            "bytes",
            format!("TLS and HTTP/2 included; the most {largest:.0}"),
        ),
        Goal::at_most(
            "endpoint",
            "applied",
            WITHIN_MS,
            middle(&mut took),
            "ms",
            format!(
                "{of}, from the operator's call to all cores; the slowest {slowest:.0} ms; {:.0} ms of the proxy's CPU",
                middle(&mut cpu)
            ),
        ),
    ])
}

/// The proxy's own number for what all its cores work with, and since when they do, milliseconds since 1970.
async fn applied(operator: &mut Operator) -> io::Result<(u64, u64)> {
    let status = operator.status().await?;
    let applied = status.proxies.into_iter().find_map(|proxy| proxy.applied);
    Ok(applied.map_or((0, 0), |applied| (applied.generation, applied.at_ms)))
}

/// Waits until nothing is on the wire.
async fn settle(wire: &Wire) {
    let mut before = wire.down();
    loop {
        tokio::time::sleep(Duration::from_millis(120)).await;
        let now = wire.down();
        if now == before {
            return;
        }
        before = now;
    }
}
