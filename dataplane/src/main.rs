//! `ringway`: arguments, then the agent on this thread and cores on theirs.
//!
//! # The life of one request
//!
//! ```text
//!   client                                  one core: a pinned thread, one ring                             endpoint
//!     │                                                                                                         │
//!     │ connect ──► flow::port      accepts, or leaves it to the kernel while the process is full               │
//!     │ bytes ────► flow::http      the idle connection's table entry becomes a task                            │
//!     │             wire::h1        parses the head in the buffer that the kernel filled, or answers 400        │
//!     │             plan            decides: listener → host → route → one printable `Decision`                 │
//!     │             balance         picks an endpoint, on state that all cores share without locks              │
//!     │             flow::upstream  takes a pooled connection, opens one, or waits in a bounded line ── connect ►│
//!     │             wire::h1        writes the head anew; the body passes in the buffers it came in ──── send ──►│
//!     │             wire::h1        parses the answer's head, or answers 502 ◄───────────────────────── bytes ──│
//!     │ ◄── send ── flow            passes the answer on as it comes                                            │
//!     │             flow            counts it, logs it, keeps or closes both connections                        │
//!
//!   the agent: this thread. File ─► api (model, xDS) ─► plan ─► a mailbox a core; and reload, DNS, admin pages, logs.
//! ```
//!
//! `ring` is below all of it: the turn, tasks, buffers, timers. To read on: `flow/src/lib.rs`, then `plan/src/decide.rs`.
#![forbid(unsafe_code)]

use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

/// The cores allocate seldom, and then in small pieces on many threads.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A service-mesh data plane and gateway on io_uring.
#[derive(Parser)]
#[command(name = "ringway", version, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Run the proxy.
    ///
    /// SIGTERM drains, a second one ends at once; SIGHUP reloads the file; SIGUSR1 reopens the access log.
    Run {
        #[command(flatten)]
        file: File,
        /// How many cores to run, whatever the file says
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=256))]
        cores: Option<u32>,
    },
    /// Check a configuration file: exit 0, or 1 with one line a finding on standard error.
    ///
    /// No name is resolved and no address bound.
    Check {
        #[command(flatten)]
        file: File,
    },
}

#[derive(Args)]
struct File {
    /// The configuration file
    #[arg(short = 'c', long = "config", value_name = "FILE")]
    path: PathBuf,
}

fn main() -> ExitCode {
    match Arguments::parse().verb {
        Verb::Run { file, cores } => agent::run(&file.path, cores),
        Verb::Check { file } => agent::check(&file.path),
    }
}
