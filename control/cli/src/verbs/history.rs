//! `history`: versions, the newest first.

use crate::Common;
use crate::daemon::refusal;
use crate::exit::{Exit, Failure};
use crate::show;
use api::pb::{HistoryRequest, Versions};
use clap::Args;

#[derive(Args)]
pub(crate) struct History {
    /// How many
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    last: u32,
}

impl History {
    pub(super) async fn run(self, common: &Common) -> Result<Exit, Failure> {
        let mut daemon = common.connect().await?;
        let request = HistoryRequest { last: self.last };
        let versions = daemon.operator().history(request).await.map_err(refusal)?.into_inner();
        show::answer(common.output, &versions, people)?;
        Ok(Exit::Done)
    }
}

fn people(versions: &Versions) -> String {
    let rows = versions.versions.iter().map(|one| {
        let digest = one.digest.chars().take(12).collect();
        vec![
            one.number.to_string(),
            one.state.clone(),
            show::moment(one.at_ms),
            one.author.clone(),
            digest,
            one.comment.clone(),
        ]
    });
    let head = ["version", "state", "at", "by", "digest", "comment"];
    show::table(&head, rows.collect(), "no version yet; `ringwayctl apply FILE` makes the first")
}
