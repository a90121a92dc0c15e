//! `completion`: what a shell reads.

use crate::exit::{Exit, Failure};
use crate::show;
use clap::Args;
use clap_complete::Shell;

/// For bash: `ringwayctl completion bash > /etc/bash_completion.d/ringwayctl`
#[derive(Args)]
pub(crate) struct Completion {
    /// For which
    shell: Shell,
}

impl Completion {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut crate::program(), "ringwayctl", &mut script);
        show::print(&String::from_utf8_lossy(&script))?;
        Ok(Exit::Done)
    }
}
