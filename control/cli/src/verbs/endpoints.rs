//! `endpoints`: those that come from operators, at once and without a version.

use crate::Common;
use crate::daemon::refusal;
use crate::exit::{Exit, Failure};
use api::pb::SetEndpointsRequest;
use clap::Subcommand;

#[derive(Subcommand)]
pub(crate) enum Endpoints {
    /// Set all endpoints of a service, in place of those it had
    Set {
        /// A service under top-level `services` whose document says `endpoints: set`
        service: String,
        /// IP:PORT or unix:/PATH, each
        #[arg(required_unless_present = "none")]
        addresses: Vec<String>,
        /// It has none
        #[arg(long, conflicts_with = "addresses")]
        none: bool,
    },
}

impl Endpoints {
    pub(super) async fn run(self, common: &Common) -> Result<Exit, Failure> {
        let Endpoints::Set { service, addresses, none: _ } = self;
        let mut daemon = common.connect().await?;
        let request = SetEndpointsRequest { service, addresses };
        let answer = daemon.operator().set_endpoints(request).await.map_err(refusal)?;
        super::done(common, answer.into_inner())
    }
}
