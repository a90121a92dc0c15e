//! Ten thousand services for a real proxy with traffic.

use std::io;
use std::time::{Duration, Instant};

use super::daemon::Daemon;
use super::proxy::Proxy;
use super::table::{Goal, middle};
use super::traffic::{Load, Origin, load};
use super::{Setup, document, failed};
use crate::core::free_address;
use crate::proc;

/// Applied within so long, seconds.
const WITHIN_S: f64 = 5.0;
/// The 99th percentile while it is applied, by that before.
const SHIFT: f64 = 1.10;
/// The share of its most that the proxy is asked for.
const SHARE: f64 = 1.0 / 3.0;

pub(super) async fn run(setup: &Setup) -> io::Result<Vec<Goal>> {
    let cpus = proc::allowed_cpus()?;
    let [first, .., last] = cpus[..] else { return Err(failed("this needs two CPUs")) };
    let dir = setup.dir.join("services");
    // What would be on other machines goes where the proxy's core is not; the daemon, which works hard, takes what nobody wants.
    let origin = Origin::start(setup, Some(first))?;
    let daemon = Daemon::start(&setup.ringwayd, &dir, None)?;
    daemon.give_way()?;
    let mut operator = daemon.operator().await?;
    let listen = free_address()?;
    let few = document::services(listen, origin.address, 0, false);
    let many = document::services(listen, origin.address, setup.sizes.services, false);
    operator.push(few.clone()).await?;
    let proxy = Proxy::start(setup, &dir, &mut operator, "edge", Some(last)).await?;
    let mut asked = Load { to: listen, seconds: setup.sizes.rest_s, rate: None, anew: false, cpu: Some(first) };
    let most = load(setup, asked).await?.per_second();
    let rate = most * SHARE;
    asked.rate = Some(rate);
    // How long it takes, with traffic: so long are the windows that are compared.
    let first_s = applied(setup, &mut operator, &many, Load { seconds: 2.0, ..asked }).await?.0;
    asked.seconds = first_s.max(0.5);
    let (mut took, mut before, mut during, mut shifts, mut failures) = (vec![first_s], vec![], vec![], vec![], 0);
    for round in 1..=setup.sizes.rounds {
        operator.push(few.clone()).await?;
        tokio::time::sleep(Duration::from_secs_f64(setup.sizes.rest_s)).await;
        let quiet = load(setup, asked).await?;
        let cpu = proc::run_ns(&proxy.pids())?;
        let (applied_s, busy) = applied(setup, &mut operator, &many, asked).await?;
        let cpu = (proc::run_ns(&proxy.pids())? - cpu) as f64 / 1e6;
        failures += quiet.failures() + busy.failures();
        let (a, b) = (quiet.latency.p99_us, busy.latency.p99_us);
        eprintln!(
            "  round {round}: applied after {applied_s:.2} s; p99 {a:.0} us before, {b:.0} us meanwhile; {cpu:.0} ms of the proxy's CPU"
        );
        took.push(applied_s);
        before.push(a);
        during.push(b);
        shifts.push(b / a);
    }
    let note = format!(
        "medians of {} rounds at {rate:.0} requests a second: {:.0} us before, {:.0} us meanwhile; the daemon, which would be on another machine, at nice 19",
        setup.sizes.rounds,
        middle(&mut before),
        middle(&mut during)
    );
    let (of, endpoints) = (setup.sizes.services + 1, document::ENDPOINTS);
    Ok(vec![
        Goal::at_most(
            "services",
            "applied",
            WITHIN_S,
            middle(&mut took),
            "s",
            format!("{of} services of {endpoints} endpoints and as many routes, from the operator's call"),
        ),
        Goal::at_most(
            "services",
            "p99 of traffic while it is applied, by that before",
            SHIFT,
            middle(&mut shifts),
            "",
            note,
        ),
        Goal::at_most("services", "failed requests", 0.0, failures as f64, "", String::new()),
        Goal::at_most(
            "services",
            "the proxy's memory, at its most",
            f64::INFINITY,
            proc::peak_rss(&proxy.pids())? as f64 / 1e6,
            "MB",
            String::new(),
        ),
    ])
}

/// Pushes under load, from the moment that the load has begun; seconds until the proxy works with it, and what the load saw.
async fn applied(
    setup: &Setup,
    operator: &mut super::daemon::Operator,
    document: &str,
    asked: Load,
) -> io::Result<(f64, crate::report::Report)> {
    let pushed = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let began = Instant::now();
        let (_, of) = operator.push(document.to_owned()).await?;
        if of != 1 {
            return Err(failed("the proxy is not connected"));
        }
        Ok(began.elapsed().as_secs_f64())
    };
    let (pushed, report) = tokio::join!(pushed, load(setup, asked));
    Ok((pushed?, report?))
}
