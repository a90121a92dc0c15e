//! `top`: live rates.

use crate::Common;
use crate::daemon::{Daemon, is_missing, refusal};
use crate::exit::{Exit, Failure};
use crate::show::{self, Format};
use api::pb::{Rate, Rates, TopRequest};
use api::quantile_us;
use clap::Args;
use std::io::IsTerminal;
use std::time::Duration;
use tokio::sync::watch;
use tonic::Status;

/// Home, then what is below goes: a screen that does not flicker.
const AGAIN: &str = "\x1b[H\x1b[J";

/// How long another daemon's first word is waited for.
const FIRST: Duration = Duration::from_secs(2);

#[derive(Args)]
pub(crate) struct Top {
    /// Show them once
    #[arg(long)]
    once: bool,
    /// Milliseconds between looks
    #[arg(long, value_name = "MS", default_value_t = 2000, value_parser = clap::value_parser!(u32).range(200..=60_000))]
    interval: u32,
}

impl Top {
    pub(super) async fn run(self, common: &Common) -> Result<Exit, Failure> {
        let Top { once, interval: interval_ms } = self;
        let mut daemon = common.connect().await?;
        let request = TopRequest { interval_ms, once };
        let mut others: Vec<_> = daemon.others().await?.into_iter().map(|other| listen(other, request)).collect();
        let mut stream = daemon.operator().top(request).await.map_err(refusal)?.into_inner();
        // Each has said something, or it takes too long; from then on, what each said last.
        for other in &mut others {
            let _ = tokio::time::timeout(FIRST, other.changed()).await;
        }
        let is_screen = !once && common.output == Format::Table && std::io::stdout().is_terminal();
        while let Some(rates) = stream.message().await.map_err(refusal)? {
            let rates = others.iter().fold(rates, |rates, other| together(rates, &other.borrow()));
            let text = show::text(common.output, &rates, people);
            let text = if is_screen { format!("{AGAIN}{text}") } else { text };
            if !show::print_to_reader(&text)? {
                return Ok(Exit::Done);
            }
        }
        match once {
            true => Ok(Exit::Done),
            false => Err(Failure::new(Exit::Unreached, "the daemon said no more; call it again")),
        }
    }
}

/// What another daemon said last; nothing, when it says no more.
fn listen(mut daemon: Daemon, request: TopRequest) -> watch::Receiver<Vec<Rate>> {
    let (heard, last) = watch::channel(Vec::new());
    tokio::spawn(async move {
        let done = async {
            let mut stream = daemon.operator().top(request).await?.into_inner();
            while let Some(rates) = stream.message().await? {
                heard.send_replace(rates.rates);
            }
            match request.once {
                true => Ok(()),
                false => Err(Status::unavailable("it says no more")),
            }
        };
        if let Err(status) = done.await {
            is_missing(&daemon.address, &refusal(status));
            heard.send_replace(Vec::new());
        }
    });
    last
}

/// What two daemons count, together; the busiest first.
fn together(mut rates: Rates, more: &[Rate]) -> Rates {
    for more in more {
        let is_same =
            |one: &&mut Rate| (&one.group, &one.route, &one.service) == (&more.group, &more.route, &more.service);
        match rates.rates.iter_mut().find(is_same) {
            Some(rate) => add(rate, more),
            None => rates.rates.push(more.clone()),
        }
    }
    rates.rates.sort_by(|a, b| b.requests_per_s.total_cmp(&a.requests_per_s));
    rates
}

fn add(rate: &mut Rate, more: &Rate) {
    let requests_per_s = rate.requests_per_s + more.requests_per_s;
    if requests_per_s > 0.0 {
        rate.success = (rate.success * rate.requests_per_s + more.success * more.requests_per_s) / requests_per_s;
    }
    rate.requests_per_s = requests_per_s;
    rate.denied_per_s += more.denied_per_s;
    let buckets = rate.latency_per_s.len().max(more.latency_per_s.len());
    rate.latency_per_s.resize(buckets, 0.0);
    rate.latency_per_s.iter_mut().zip(&more.latency_per_s).for_each(|(to, from)| *to += from);
    (rate.p50_us, rate.p99_us) = (quantile_us(&rate.latency_per_s, 0.5), quantile_us(&rate.latency_per_s, 0.99));
}

fn people(rates: &Rates) -> String {
    let rows = rates.rates.iter().map(|rate| {
        let hundredths = format!("{:.2} %", rate.success * 100.0);
        vec![
            rate.group.clone(),
            rate.route.clone(),
            rate.service.clone(),
            format!("{:.1}", rate.requests_per_s),
            hundredths,
            latency(rate.p50_us),
            latency(rate.p99_us),
            format!("{:.1}", rate.denied_per_s),
        ]
    });
    let head = ["group", "route", "service", "requests/s", "success", "p50", "p99", "denied/s"];
    let table = show::table(&head, rows.collect(), "no request in the last seconds");
    format!("{}\n\n{table}", show::moment(rates.at_ms))
}

fn latency(us: f64) -> String {
    match us {
        us if us < 1000.0 => format!("{us:.0} us"),
        us if us < 1_000_000.0 => format!("{:.1} ms", us / 1000.0),
        us => format!("{:.1} s", us / 1_000_000.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_said_in_units_that_people_read() {
        let rate = Rate {
            group: "cart".to_owned(),
            route: "in/app".to_owned(),
            service: "app".to_owned(),
            requests_per_s: 1234.56,
            success: 0.9991,
            p50_us: 850.0,
            p99_us: 12_300.0,
            denied_per_s: 0.0,
            latency_per_s: Vec::new(),
        };
        let shown = people(&Rates { at_ms: 1_000_000_000_000, rates: vec![rate] });
        let row = shown.lines().last().unwrap_or_default();
        assert_eq!(row, "cart   in/app  app      1234.6      99.91 %  850 us  12.3 ms  0.0");
        assert_eq!(latency(2_500_000.0), "2.5 s");
    }
    #[test]
    fn what_two_daemons_count_is_one_rate_with_quantiles_of_both() {
        let rate = |route: &str, requests_per_s: f64, success: f64, bucket: usize| {
            let mut latency_per_s = vec![0.0; api::LATENCY_BOUNDS_US.len() + 1];
            latency_per_s[bucket] = requests_per_s;
            let route = route.to_owned();
            Rate { route, requests_per_s, success, latency_per_s, denied_per_s: 1.0, ..Rate::default() }
        };
        let first = Rates { at_ms: 7, rates: vec![rate("a", 30.0, 1.0, 0)] };
        // Of the one all took up to 500 us, of the other from 5 to 10 ms.
        let both = together(first, &[rate("b", 50.0, 1.0, 0), rate("a", 10.0, 0.6, 4)]);
        let [b, a] = &both.rates[..] else { panic!("{both:?}") };
        assert_eq!((both.at_ms, &*b.route, b.requests_per_s), (7, "b", 50.0));
        assert_eq!((&*a.route, a.requests_per_s, a.denied_per_s), ("a", 40.0, 2.0));
        assert!((a.success - 0.9).abs() < 1e-9, "{}", a.success);
        assert!(a.p50_us < 500.0 && a.p99_us > 5_000.0, "{} {}", a.p50_us, a.p99_us);
    }
}
