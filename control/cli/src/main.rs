//! `ringwayctl`: arguments, then one verb.
//!
//! | module | what it is |
//! | --- | --- |
//! | `verbs` | one file a verb |
//! | `credential` | who the operator is, from files, and their renewal |
//! | `daemon` | the connection, and what a daemon's refusals mean |
//! | `envoy` | the folder of an Envoy that is a proxy of the mesh |
//! | `progress` | what a push or a change of roots tells while it goes on |
//! | `show` | tables, times, colours, JSON |
//! | `exit` | exit codes |
#![forbid(unsafe_code)]

mod credential;
mod daemon;
mod envoy;
mod exit;
mod progress;
mod show;
mod verbs;

use clap::{Args, CommandFactory, Parser};
use credential::Credential;
use daemon::Daemon;
use exit::{EXITS, Exit, Failure};
use std::path::PathBuf;
use std::process::ExitCode;

/// What operators of a Ringway mesh see and do.
#[derive(Parser)]
#[command(name = "ringwayctl", version, max_term_width = 100, after_help = EXITS)]
struct Arguments {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    verb: verbs::Verb,
}

/// What every verb knows.
#[derive(Args)]
struct Common {
    /// The folder of the operator's credential [default: ~/.config/ringway, then /var/lib/ringwayd/operator]
    ///
    /// It has `operator.pem`, `operator.key`, `ca.pem` and `daemon` (HOST:PORT), as `ringwayctl operator create` makes
    /// it; or is the folder `operator` of a daemon's data directory.
    #[arg(long, global = true, env = "RINGWAY_CREDENTIAL", value_name = "DIR")]
    credential: Option<PathBuf>,
    /// The data directory of a daemon on this machine, whose own operator this then is
    #[arg(long, global = true, value_name = "DIR", conflicts_with = "credential")]
    daemon_dir: Option<PathBuf>,
    /// Where the daemon is, whatever the credential says
    #[arg(long, global = true, env = "RINGWAY_DAEMON", value_name = "HOST:PORT")]
    daemon: Option<String>,
    /// Tables for people, or JSON for programs, as messages of control/api/proto/ringway.proto
    #[arg(short = 'o', long = "output", global = true, value_enum, default_value_t = show::Format::Table)]
    output: show::Format,
}

impl Common {
    async fn connect(&self) -> Result<Daemon, Failure> {
        let credential = Credential::find(self.credential.as_deref(), self.daemon_dir.as_deref())?;
        Daemon::connect(credential, self.daemon.clone()).await
    }
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let _ = error.print();
            // 2, clap's own, is that something would change.
            return if error.use_stderr() { Exit::Usage.into() } else { Exit::Done.into() };
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let ended = match runtime {
        Ok(runtime) => runtime.block_on(arguments.verb.run(&arguments.common)),
        Err(error) => Err(Failure::new(Exit::Refused, format!("cannot start: {error}"))),
    };
    match ended {
        Ok(exit) => exit.into(),
        Err(failure) => {
            show::tell(&failure.message);
            failure.exit.into()
        }
    }
}

/// The program as clap knows it, for completions and manual pages.
fn program() -> clap::Command {
    Arguments::command()
}
