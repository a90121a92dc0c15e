//! `man`: the manual, made from what the program knows of itself.

use crate::exit::{Exit, Failure};
use crate::show;
use clap::Args;
use std::path::PathBuf;

/// Read it at once: `ringwayctl man | man -l -`
#[derive(Args)]
pub(crate) struct Man {
    /// Write a page a verb into this folder, such as /usr/local/share/man/man1
    #[arg(long, value_name = "DIR")]
    into: Option<PathBuf>,
}

impl Man {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        let cannot = |error| Failure::refused(format!("cannot write the manual: {error}"));
        let program = crate::program();
        match self.into {
            Some(folder) => {
                std::fs::create_dir_all(&folder).map_err(cannot)?;
                clap_mangen::generate_to(program, &folder).map_err(cannot)?;
            }
            None => {
                let mut page = Vec::new();
                clap_mangen::Man::new(program).render(&mut page).map_err(cannot)?;
                show::print(&String::from_utf8_lossy(&page))?;
            }
        }
        Ok(Exit::Done)
    }
}
