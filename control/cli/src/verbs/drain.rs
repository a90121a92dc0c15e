//! `drain`: a proxy finishes what it is doing.

use crate::Common;
use crate::daemon::refusal;
use crate::exit::{Exit, Failure};
use api::pb::DrainRequest;
use clap::Args;

/// Others stop sending to it, and it says that it is not ready.
#[derive(Args)]
pub(crate) struct Drain {
    /// As `status` shows it
    proxy: String,
}

impl Drain {
    pub(super) async fn run(self, common: &Common) -> Result<Exit, Failure> {
        let mut daemon = common.connect().await?;
        let answer = daemon.operator().drain(DrainRequest { proxy: self.proxy }).await.map_err(refusal)?;
        super::done(common, answer.into_inner())
    }
}
