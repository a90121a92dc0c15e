//! `ringway-bench mesh`: a real `ringwayd` with proxies, real ones and simulated ones over real sockets, and what it takes to
//! tell them something.
//!
//! | module | what it is |
//! | --- | --- |
//! | `daemon`, `proxy` | the processes, and the operator |
//! | `fleet`, `member` | simulated proxies: mutual TLS, delta ADS, reports |
//! | `wire` | the bytes between a real proxy and the daemon, counted |
//! | `traffic` | an origin, and load through a proxy |
//! | `push`, `services`, `endpoint`, `outage`, `rotations` | the scenarios |
//! | `document`, `table` | what is pushed; what is printed |

mod daemon;
mod document;
mod endpoint;
mod fleet;
mod member;
mod outage;
mod proxy;
mod push;
mod rotations;
mod services;
mod table;
mod traffic;
mod wire;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::{Args, ValueEnum};

use crate::compare;

/// Where `--write` writes.
const HEADING: &str = "# The mesh";

/// Arguments of `ringway-bench mesh`.
#[derive(Debug, Args)]
pub(crate) struct Mesh {
    /// Scenarios to run
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    only: Vec<Scenario>,
    /// Everything very small and short: that it runs at all, no figures
    #[arg(long)]
    smoke: bool,
    /// Simulated proxies
    #[arg(long, value_name = "N")]
    proxies: Option<usize>,
    /// The folder of `ringway` and `ringwayd` (absent: that of this program)
    #[arg(long, value_name = "DIR")]
    programs: Option<PathBuf>,
    /// Write the table into this file's section `# The mesh`
    #[arg(long, value_name = "FILE")]
    write: Option<PathBuf>,
    /// Keep configurations, stores and outputs here
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Scenario {
    /// One route to all proxies of a group
    Push,
    /// Ten thousand services for a real proxy with traffic
    Services,
    /// One endpoint of a hundred thousand is another one
    Endpoint,
    /// The daemon is killed for a minute, and comes back
    Outage,
    /// Certificates change again and again, with traffic
    Rotations,
}

/// What scenarios need.
struct Setup {
    bench: PathBuf,
    ringway: PathBuf,
    ringwayd: PathBuf,
    dir: PathBuf,
    sizes: Sizes,
}

/// How large everything is.
#[derive(Clone, Copy, Debug)]
struct Sizes {
    /// Simulated proxies.
    proxies: usize,
    /// How often something is measured.
    rounds: usize,
    /// Services of `services` and `endpoint`.
    services: usize,
    /// Between rounds, seconds.
    rest_s: f64,
    /// The length of an outage, seconds.
    outage_s: f64,
    /// Rotations of certificates.
    rotations: u64,
}

impl Sizes {
    const FULL: Sizes =
        Sizes { proxies: 1000, rounds: 9, services: 9_999, rest_s: 3.0, outage_s: 60.0, rotations: 600 };
    const SMOKE: Sizes = Sizes { proxies: 3, rounds: 1, services: 20, rest_s: 0.2, outage_s: 1.0, rotations: 24 };
}

/// Runs the scenarios and prints the table.
pub(crate) fn run(mesh: &Mesh) -> io::Result<()> {
    let bench = std::env::current_exe()?;
    let programs = mesh.programs.clone().unwrap_or_else(|| bench.parent().unwrap_or(Path::new("")).to_owned());
    let folder = tempfile::tempdir()?;
    let dir = match &mesh.keep {
        Some(dir) => std::path::absolute(dir)?,
        None => folder.path().to_owned(),
    };
    let mut sizes = if mesh.smoke { Sizes::SMOKE } else { Sizes::FULL };
    sizes.proxies = mesh.proxies.unwrap_or(sizes.proxies);
    let (ringway, ringwayd) = (programs.join("ringway"), programs.join("ringwayd"));
    let setup = Arc::new(Setup { bench, ringway, ringwayd, dir, sizes });
    ring::host::descriptor_limit();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let mut goals = Vec::new();
    let all = Scenario::value_variants();
    for scenario in all.iter().filter(|scenario| mesh.only.is_empty() || mesh.only.contains(scenario)) {
        eprintln!("{scenario:?}");
        goals.extend(runtime.block_on(async {
            match scenario {
                Scenario::Push => push::run(&setup).await,
                Scenario::Services => services::run(&setup).await,
                Scenario::Endpoint => endpoint::run(&setup).await,
                Scenario::Outage => outage::run(&setup).await,
                Scenario::Rotations => rotations::run(&setup).await,
            }
        })?);
    }
    let text = table::markdown(&goals, &about());
    if let Some(file) = &mesh.write {
        let before = std::fs::read_to_string(file).unwrap_or_default();
        std::fs::write(file, table::with_section(&before, HEADING, &text))?;
    }
    io::stdout().write_all(text.as_bytes())
}

/// When and where.
fn about() -> String {
    let (date, machine) = (compare::date(SystemTime::now()), compare::processor());
    let cpus = crate::proc::allowed_cpus().map_or(0, |cpus| cpus.len());
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').nth(2).unwrap_or("?");
    format!(
        "Measured {date} on {machine}, {cpus} CPUs for everything; the machine's load in the quarter of an hour before the end was {load}."
    )
}

/// Something went wrong.
fn failed(why: impl std::fmt::Display) -> io::Error {
    io::Error::other(why.to_string())
}

/// Milliseconds since 1970.
fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
