//! `apply`: a document is put in force, at once or after a trial.

use crate::daemon::refusal;
use crate::exit::{Exit, Failure};
use crate::{Common, progress};
use api::pb::{ApplyRequest, Canary};
use clap::Args;
use std::path::PathBuf;

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
    /// Try it with so many of each group's proxies first, at least one and never all unless there is one alone: it is
    /// taken back where they refuse it, are gone, or do worse than the rest
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    canary: Option<u32>,
    /// How long the trial is, once they have it: 30s, 5m
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = super::seconds, requires = "canary")]
    watch: u32,
    /// What takes it back: 'errors>1%', 'p99>200ms', 'latency>1.5x' (the rest of the group); may be repeated [default:
    /// errors>1%]
    #[arg(long, value_name = "LIMIT", requires = "canary")]
    abort_on: Vec<String>,
    /// Why, for `history`
    #[arg(long, value_name = "TEXT", default_value = "")]
    comment: String,
}

impl Apply {
    pub(super) async fn run(self, common: &Common) -> Result<Exit, Failure> {
        let Apply { file, wait, force, base, canary, watch, abort_on, comment } = self;
        let canary = canary.map(|percent| Canary { percent, watch_ms: watch.saturating_mul(1000), abort_on });
        let (document, file) = super::document(&file)?;
        let mut daemon = common.connect().await?;
        let request = ApplyRequest { document, file, base, force, wait, canary, comment };
        let stream = daemon.operator().apply(request).await.map_err(refusal)?.into_inner();
        progress::ended(progress::follow(stream, common.output).await?)
    }
}

/// `10%`
fn percent(text: &str) -> Result<u32, String> {
    let number = text.strip_suffix('%').and_then(|number| number.parse().ok());
    number.filter(|number| (1..=99).contains(number)).ok_or_else(|| "write 1% to 99%".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_a_percentage_that_leaves_a_rest() {
        assert_eq!((percent("10%"), percent("99%")), (Ok(10), Ok(99)));
        for wrong in ["", "%", "10", "0%", "100%", "-1%", "1.5%"] {
            assert!(percent(wrong).is_err(), "{wrong}");
        }
    }
}
