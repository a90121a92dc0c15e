//! `diff`: what differs between two versions.

use super::show::version;
use crate::Common;
use crate::exit::{Exit, Failure};
use crate::show::{self, Format};
use clap::Args;

/// Exit 0: nothing. 2: what is shown.
#[derive(Args)]
pub(crate) struct Diff {
    /// The number of the older one
    a: u64,
    /// The number of the newer one; absent: the one in force
    #[arg(default_value_t = 0, hide_default_value = true)]
    b: u64,
}

impl Diff {
    pub(super) async fn run(self, common: &Common) -> Result<Exit, Failure> {
        let mut daemon = common.connect().await?;
        let (a, b) = (version(&mut daemon, self.a).await?, version(&mut daemon, self.b).await?);
        let name = |number: u64| format!("version {number}");
        let differ = a.document != b.document;
        match common.output {
            Format::Table => {
                let (a_name, b_name) = (name(a.number), name(b.number));
                show::print(&show::difference((&a_name, &a.document), (&b_name, &b.document)))?;
            }
            Format::Json => show::answer(common.output, &[a, b], |_| String::new())?,
        }
        Ok(if differ { Exit::Changes } else { Exit::Done })
    }
}
