//! `apply`: a document is put in force.

use crate::daemon::refusal;
use crate::exit::{Exit, Failure};
use crate::{Common, progress};
use api::pb::{ApplyRequest, Canary};
use clap::Args;
use std::path::PathBuf;
use std::time::Duration;

/// Exit 0: it is in force. 1: it is not, and nothing has changed. 4: it is, but some proxies refuse it or have not taken it.
#[derive(Args)]
pub(crate) struct Apply {
    /// The mesh document; `-` is standard input
    file: PathBuf,
    /// Wait until every connected proxy works with it, for up to a minute
    #[arg(long)]
    wait: bool,
    /// Also what removes a group, a service in use, every `allow`, or half of anything
    #[arg(long)]
    force: bool,
    /// Only if this version is still in force: the one that you planned against; 0: none is
    #[arg(long, value_name = "VERSION")]
    base: Option<u64>,
    /// Why, for `history`
    #[arg(long, value_name = "TEXT", default_value = "")]
    comment: String,
    /// Let so many of each group's proxies have it first, and take it back by itself if they fare worse
    #[arg(long, value_name = "N%", value_parser = percent)]
    canary: Option<u32>,
    /// How long they are watched, as 30s or 5m
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = time, requires = "canary")]
    watch: Duration,
    /// What takes it back: `errors>1%`, `p99>200ms`, `latency>1.5x`; may be repeated
    #[arg(long, value_name = "LIMIT", requires = "canary")]
    abort_on: Vec<String>,
}

fn percent(typed: &str) -> Result<u32, String> {
    let number = typed.strip_suffix('%').and_then(|number| number.parse().ok());
    number.filter(|number| (1..=99).contains(number)).ok_or_else(|| "a share is 1% to 99%".to_owned())
}

fn time(typed: &str) -> Result<Duration, String> {
    let units = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000)];
    let of = |(unit, ms): (&str, u32)| typed.strip_suffix(unit)?.parse::<u32>().ok()?.checked_mul(ms);
    let found = units.into_iter().find_map(of).filter(|ms| *ms > 0);
    found.map(|ms| Duration::from_millis(ms.into())).ok_or_else(|| "a time is a number and its unit, as 30s".to_owned())
}

impl Apply {
    pub(super) async fn run(self, common: &Common) -> Result<Exit, Failure> {
        let Apply { file, wait, force, base, comment, canary, watch, abort_on } = self;
        let (document, file) = super::document(&file)?;
        let mut daemon = common.connect().await?;
        let watch_ms = u32::try_from(watch.as_millis()).unwrap_or(u32::MAX);
        let canary = canary.map(|percent| Canary { percent, watch_ms, abort_on });
        let request = ApplyRequest { document, file, base, force, wait, canary, comment };
        let stream = daemon.operator().apply(request).await.map_err(refusal)?.into_inner();
        progress::ended(progress::follow(stream, common.output).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_and_times_are_read_or_refused() {
        assert_eq!((percent("10%"), percent("99%")), (Ok(10), Ok(99)));
        for wrong in ["0%", "100%", "10", "%", "-1%", "1.5%"] {
            assert!(percent(wrong).is_err(), "{wrong}");
        }
        let ms = |typed: &str| time(typed).map(|time| time.as_millis());
        assert_eq!([ms("250ms"), ms("30s"), ms("5m"), ms("1h")], [Ok(250), Ok(30_000), Ok(300_000), Ok(3_600_000)]);
        for wrong in ["30", "s", "0s", "-1s", "5000000000ms", "2000h"] {
            assert!(time(wrong).is_err(), "{wrong}");
        }
    }
}
