//! `ringwayd`: arguments, then the daemon.
#![forbid(unsafe_code)]

use clap::{Args, Parser, Subcommand};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

/// The control daemon of a Ringway mesh: configuration, certificates, telemetry.
#[derive(Parser)]
#[command(name = "ringwayd", version, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Run the daemon.
    ///
    /// The first start makes a certificate authority and an administrator's credential in the data directory.
    /// SIGTERM ends it; proxies go on with what they have.
    Run(Run),
    /// Check the daemon's file: exit 0, or 1 with one line a finding on standard error.
    Check {
        /// The daemon's file
        #[arg(short = 'c', long = "config", value_name = "FILE")]
        file: PathBuf,
    },
}

/// Options win over the file.
#[derive(Args)]
struct Run {
    /// The daemon's file; everything in it is optional
    #[arg(short = 'c', long = "config", value_name = "FILE")]
    file: Option<PathBuf>,
    /// The folder of the store and of the local administrator's credential [default: ringwayd-data]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Where proxies and operators are answered [default: 0.0.0.0:9443]
    #[arg(long, value_name = "IP:PORT")]
    address: Option<SocketAddr>,
    /// Where /ready and /metrics are answered [default: 127.0.0.1:9902]
    #[arg(long, value_name = "IP:PORT")]
    admin: Option<SocketAddr>,
}

fn main() -> ExitCode {
    match Arguments::parse().verb {
        Verb::Run(Run { file, data_dir, address, admin }) => {
            daemon::run(file.as_deref(), &daemon::Given { data_dir, address, admin })
        }
        Verb::Check { file } => daemon::check(&file),
    }
}
