//! The slow thread: sockets, reload, DNS, admin and metrics pages, logs.
//!
//! It may be slow and may wait; it must never make a core wait. What it has for the cores it puts into their mailboxes
//! and rings; what it wants to know it reads from counters that they write.
//!
//! | module | what it is |
//! | --- | --- |
//! | `agent` | the thread's life: start, reload, changes of DNS answers and of certificates, drain |
//! | `file` | the configuration file |
//! | `daemon` | the daemon, where the configuration comes from one |
//! | `files`, `tickets`, `world` | certificates and the like; the keys of tickets; all that plans are compiled with beside the file |
//! | `cores` | the cores' threads: CPUs, start, orders, heartbeat |
//! | `sockets` | listening sockets, keyed by address |
//! | `dns` | names of services |
//! | `series` | counters by listener, route and service, and by rule, which outlive plans |
//! | `state` | what the admin pages show |
//! | `admin`, `metrics` | the admin pages |
//! | `log` | the access log |
//! | `explain` | what would become of a request that is never sent |
//! | `difference` | what a new configuration changed, in words |
//! | `host`, `tell` | what the kernel says about us, what we say to people |
#![forbid(unsafe_code)]

mod admin;
mod agent;
mod cores;
mod daemon;
mod difference;
mod dns;
mod errand;
mod explain;
mod file;
mod files;
mod host;
mod log;
mod metrics;
mod series;
mod sockets;
mod state;
mod tell;
mod tickets;
mod world;

pub use explain::{Question, explain};

use std::path::Path;
use std::process::ExitCode;

/// The version of this program.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Runs the proxy with a configuration file until a signal, or the admin page, ends it. `cores` overrides the file's.
///
/// The exit code is 0 after draining, and 1 when it could not start; then standard error says why.
pub fn run(path: &Path, cores: Option<u32>) -> ExitCode {
    ring::host::small_pages();
    match agent::run(path, cores) {
        Ok(()) => ExitCode::SUCCESS,
        Err(agent::Refused::Findings(findings)) => {
            tell::tell_findings(&findings);
            ExitCode::FAILURE
        }
        Err(agent::Refused::Start(reasons)) => {
            reasons.iter().for_each(tell::tell);
            ExitCode::FAILURE
        }
    }
}

/// Checks a configuration file without resolving a name or binding an address.
///
/// The exit code is 0, or 1 with one line a finding on standard error: `FILE:LINE:COLUMN: what is wrong`.
pub fn check(path: &Path) -> ExitCode {
    let plan =
        file::read(path).and_then(|resources| file::compile(path, &resources, None, 1, &world::of_check(&resources)));
    let checked = plan.and_then(|plan| match &plan.process.daemon {
        Some(section) => daemon::check(section).map_err(|reason| vec![file::at_start(path, &reason)]),
        None => Ok(()),
    });
    match checked {
        Ok(()) => ExitCode::SUCCESS,
        Err(findings) => {
            tell::tell_findings(&findings);
            ExitCode::FAILURE
        }
    }
}
