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
    /// Certificates, keys and bundles are read. No name is resolved and no address bound.
    Check {
        #[command(flatten)]
        file: File,
    },
    /// Say what would become of a request or a connection: listener, route, every rule and whether it matched, service.
    ///
    /// Nothing is sent. Exit 0; 1 with the findings of the file; 2 when the question is wrong.
    Explain {
        #[command(flatten)]
        file: File,
        #[command(flatten)]
        question: Question,
    },
}

#[derive(Args)]
struct File {
    /// The configuration file
    #[arg(short = 'c', long = "config", value_name = "FILE")]
    path: PathBuf,
}

#[derive(Args)]
struct Question {
    /// The method
    method: String,
    /// http://host:port/path, https://..., or the path alone; the port or the host chooses the listener
    url: String,
    /// The SPIFFE ID that the client's certificate proves; without it the client shows no certificate
    #[arg(long, value_name = "ID")]
    identity: Option<String>,
    /// The client's address; behind a PROXY header, the one that stands there
    #[arg(long, value_name = "IP")]
    source: Option<String>,
    /// The address that the connection comes from, when it is another
    #[arg(long, value_name = "IP")]
    peer: Option<String>,
    /// A header field; may be repeated
    #[arg(long = "header", value_name = "NAME:VALUE")]
    headers: Vec<String>,
    /// The listener, whatever the URL says
    #[arg(long, value_name = "NAME")]
    listener: Option<String>,
}

impl From<Question> for agent::Question {
    fn from(typed: Question) -> agent::Question {
        let Question { method, url, identity, source, peer, headers, listener } = typed;
        agent::Question { method, url, identity, source, peer, headers, listener }
    }
}

fn main() -> ExitCode {
    match Arguments::parse().verb {
        Verb::Run { file, cores } => agent::run(&file.path, cores),
        Verb::Check { file } => agent::check(&file.path),
        Verb::Explain { file, question } => agent::explain(&file.path, &question.into()),
    }
}
