//! `top`: live rates.

use crate::Common;
use crate::daemon::refusal;
use crate::exit::{Exit, Failure};
use crate::show::{self, Format};
use api::pb::{Rates, TopRequest};
use clap::Args;
use std::io::IsTerminal;

/// Home, then what is below goes: a screen that does not flicker.
const AGAIN: &str = "\x1b[H\x1b[J";

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
        let mut stream = daemon.operator().top(request).await.map_err(refusal)?.into_inner();
        let is_screen = !once && common.output == Format::Table && std::io::stdout().is_terminal();
        while let Some(rates) = stream.message().await.map_err(refusal)? {
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
    use api::pb::Rate;

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
        };
        let shown = people(&Rates { at_ms: 1_000_000_000_000, rates: vec![rate] });
        let row = shown.lines().last().unwrap_or_default();
        assert_eq!(row, "cart   in/app  app      1234.6      99.91 %  850 us  12.3 ms  0.0");
        assert_eq!(latency(2_500_000.0), "2.5 s");
    }
}
