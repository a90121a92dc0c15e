//! `check`: what is wrong with a document, without a daemon.

use crate::Common;
use crate::exit::{Exit, Failure};
use crate::show;
use clap::Args;
use std::path::PathBuf;

/// Exit 0, or 1 with one line a finding on standard error: `FILE:LINE:COLUMN: what is wrong, and what would be right`.
#[derive(Args)]
pub(crate) struct Check {
    /// The mesh document; `-` is standard input
    file: PathBuf,
}

impl Check {
    pub(super) fn run(self, common: &Common) -> Result<Exit, Failure> {
        let (text, name) = super::document(&self.file)?;
        let lines = match api::mesh::load(&text, &name) {
            Ok(_) => Vec::new(),
            Err(findings) => findings.iter().map(ToString::to_string).collect(),
        };
        let exit = if lines.is_empty() { Exit::Done } else { Exit::Refused };
        match common.output {
            show::Format::Table => findings(&lines),
            show::Format::Json => show::answer(common.output, &api::pb::Findings { lines }, |_| String::new())?,
        }
        Ok(exit)
    }
}

/// One line each, on standard error.
pub(super) fn findings(lines: &[String]) {
    for line in lines {
        eprintln!("{}", show::clean(line));
    }
}
