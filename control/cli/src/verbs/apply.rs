//! `apply`: a document is put in force.

use crate::daemon::refusal;
use crate::exit::{Exit, Failure};
use crate::{Common, progress};
use api::pb::{ApplyRequest, Canary};
use clap::Args;
use std::path::PathBuf;
use std::time::Duration;

/// Exit 0: it is in force. 1: it is not, and nothing has changed. 4: it is, but some proxies refuse it or have not taken it.
///
/// A trial (`--canary`) goes on when this program ends; `ringwayctl rollback` to the version in force ends it. One that
/// was taken back is exit 1.
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
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = super::time, requires = "canary")]
    watch: Duration,
    /// What takes it back: `errors>1%`, `p99>200ms`, `latency>1.5x`; may be repeated
    #[arg(long, value_name = "LIMIT", requires = "canary")]
    abort_on: Vec<String>,
}

fn percent(typed: &str) -> Result<u32, String> {
    let number = typed.strip_suffix('%').and_then(|number| number.parse().ok());
    number.filter(|number| (1..=99).contains(number)).ok_or_else(|| "a share is 1% to 99%".to_owned())
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
    fn a_share_leaves_a_rest() {
        assert_eq!((percent("10%"), percent("99%")), (Ok(10), Ok(99)));
        for wrong in ["0%", "100%", "10", "%", "-1%", "1.5%"] {
            assert!(percent(wrong).is_err(), "{wrong}");
        }
    }
}
