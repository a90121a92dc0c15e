//! `explain`: what would become of a request, by the document in force.

use crate::Common;
use crate::daemon::refusal;
use crate::exit::{Exit, Failure};
use crate::show;
use api::pb::ExplainRequest;
use clap::Args;

/// Nothing is sent to any proxy.
#[derive(Args)]
pub(crate) struct Explain {
    /// The group
    group: String,
    /// The method
    method: String,
    /// http://host:port/path, https://..., or the path alone; the port or the host chooses the listener
    url: String,
    /// The SPIFFE ID that the client's certificate proves
    #[arg(long, value_name = "ID", default_value = "", hide_default_value = true)]
    identity: String,
    /// The client's address; behind a PROXY header, the one that stands there
    #[arg(long, value_name = "IP", default_value = "", hide_default_value = true)]
    source: String,
    /// A header field; may be repeated
    #[arg(long = "header", value_name = "NAME:VALUE")]
    headers: Vec<String>,
    /// The listener, whatever the URL says
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    listener: String,
}

impl Explain {
    pub(super) async fn run(self, common: &Common) -> Result<Exit, Failure> {
        let Explain { group, method, url, identity, source, headers, listener } = self;
        let mut daemon = common.connect().await?;
        let request = ExplainRequest { group, method, url, identity, source, headers, listener };
        let text = daemon.operator().explain(request).await.map_err(refusal)?.into_inner();
        show::answer(common.output, &text, |text| show::lines(&text.text))?;
        Ok(Exit::Done)
    }
}
