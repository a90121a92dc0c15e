//! `proxy`: those that have joined.

use crate::Common;
use crate::daemon::refusal;
use crate::exit::{Exit, Failure};
use api::pb::ForgetRequest;
use clap::Subcommand;

#[derive(Subcommand)]
pub(crate) enum Proxy {
    /// Drop a proxy: its certificate counts no more with the daemon, and a change of roots does not wait for it
    ///
    /// To come back, it needs a new token and an empty folder of state.
    Forget {
        /// As `status` shows it
        proxy: String,
    },
}

impl Proxy {
    pub(super) async fn run(self, common: &Common) -> Result<Exit, Failure> {
        let Proxy::Forget { proxy } = self;
        let mut daemon = common.connect().await?;
        let answer = daemon.operator().forget(ForgetRequest { proxy }).await.map_err(refusal)?;
        super::done(common, answer.into_inner())
    }
}
