//! `ringwayd`: a store, a certificate authority, and what proxies and operators are told.
//!
//! | module | what it is |
//! | --- | --- |
//! | `store` | what must not be lost: documents as numbered versions, records of who holds which certificate |
//! | `settings` | the daemon's file and command line |
//! | `admin` | `/ready` and `/metrics` |
//! | `encode` | bytes as text, digests, random bytes |
//! | `tell` | what people are told |
#![forbid(unsafe_code)]

mod admin;
mod encode;
mod run;
mod settings;
pub mod store;
mod tell;

pub use run::run;
pub use settings::Given;

use std::path::Path;
use std::process::ExitCode;

/// Checks the daemon's file. The exit code is 0, or 1 with one line a finding on standard error.
pub fn check(file: &Path) -> ExitCode {
    settings::read(file).map_or(ExitCode::FAILURE, |_| ExitCode::SUCCESS)
}
