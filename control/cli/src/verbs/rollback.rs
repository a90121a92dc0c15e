//! `rollback`: an earlier version's document once more.

use crate::daemon::refusal;
use crate::exit::{Exit, Failure};
use crate::{Common, progress};
use api::pb::RollbackRequest;
use clap::Args;

/// The numbers go on: what is in force then is a new version. Exit codes as of `apply`.
#[derive(Args)]
pub(crate) struct Rollback {
    /// The version whose document is wanted
    version: u64,
    /// Wait until every connected proxy works with it, for up to a minute
    #[arg(long)]
    wait: bool,
    /// Also what `apply` wants forced
    #[arg(long)]
    force: bool,
}

impl Rollback {
    pub(super) async fn run(self, common: &Common) -> Result<Exit, Failure> {
        let Rollback { version, wait, force } = self;
        let mut daemon = common.connect().await?;
        let request = RollbackRequest { version, force, wait };
        let stream = daemon.operator().rollback(request).await.map_err(refusal)?.into_inner();
        progress::ended(progress::follow(stream, common.output).await?)
    }
}
