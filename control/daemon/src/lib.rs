//! `ringwayd`: a store, a certificate authority, and what proxies and operators are told.
//!
//! | module | what it is |
//! | --- | --- |
//! | `store` | what must not be lost: documents as numbered versions, records of who holds which certificate |
//! | `snapshot` | what the proxies of each group are to have |
//! | `xds` | ADS: telling each proxy what changed |
//! | `collect` | what proxies tell: that they are there, how far they are, where they listen |
//! | `authority` | who may be whom: roots, leaves, tokens, proxies, operators, edge certificates |
//! | `operator` | what operators ask for and do: pushes, history, status, endpoints |
//! | `credentials` | what operators ask for about certificates |
//! | `peers` | the daemons that share a store, and what each knows |
//! | `files` | files that only the daemon reads |
//! | `settings` | the daemon's file and command line |
//! | `admin` | `/ready` and `/metrics` |
//! | `encode` | bytes as text, digests, random bytes |
//! | `server` | gRPC over TLS: what proxies and operators call |
//! | `state` | what all modules share |
//! | `metrics` | what is counted |
//! | `tell` | what people are told |
#![forbid(unsafe_code)]

mod admin;
pub mod authority;
pub mod collect;
pub mod credentials;
mod encode;
mod files;
mod metrics;
mod operator;
mod peers;
mod run;
mod server;
mod settings;
pub mod snapshot;
pub mod state;
pub mod store;
mod tell;
mod xds;

pub use run::run;
pub use settings::Given;

use std::path::Path;
use std::process::ExitCode;

/// Checks the daemon's file. The exit code is 0, or 1 with one line a finding on standard error.
pub fn check(file: &Path) -> ExitCode {
    settings::read(file).map_or(ExitCode::FAILURE, |_| ExitCode::SUCCESS)
}
