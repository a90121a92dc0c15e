//! `apply`: a document is put in force.

use crate::daemon::refusal;
use crate::exit::{Exit, Failure};
use crate::{Common, progress};
use api::pb::ApplyRequest;
use clap::Args;
use std::path::PathBuf;

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
}

impl Apply {
    pub(super) async fn run(self, common: &Common) -> Result<Exit, Failure> {
        let Apply { file, wait, force, base, comment } = self;
        let (document, file) = super::document(&file)?;
        let mut daemon = common.connect().await?;
        let request = ApplyRequest { document, file, base, force, wait, canary: None, comment };
        let stream = daemon.operator().apply(request).await.map_err(refusal)?.into_inner();
        progress::ended(progress::follow(stream, common.output).await?)
    }
}
