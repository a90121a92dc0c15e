//! `show`: the document of a version.

use crate::Common;
use crate::daemon::{Daemon, refusal};
use crate::exit::{Exit, Failure};
use crate::show;
use api::pb::{ShowRequest, Version};
use clap::Args;

#[derive(Args)]
pub(crate) struct Show {
    /// Its number; absent: the one in force
    #[arg(default_value_t = 0, hide_default_value = true)]
    version: u64,
}

impl Show {
    pub(super) async fn run(self, common: &Common) -> Result<Exit, Failure> {
        let mut daemon = common.connect().await?;
        let version = version(&mut daemon, self.version).await?;
        show::answer(common.output, &version, |version| version.document.clone())?;
        Ok(Exit::Done)
    }
}

/// A version with its document; 0: the one in force.
pub(super) async fn version(daemon: &mut Daemon, number: u64) -> Result<Version, Failure> {
    Ok(daemon.operator().show(ShowRequest { number }).await.map_err(refusal)?.into_inner())
}
