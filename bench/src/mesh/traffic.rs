//! An origin, and load through a proxy: this program, as processes of their own.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use tokio::process::Command;
use tokio::task::JoinHandle;

use super::{Setup, failed};
use crate::core::free_address;
use crate::report::Report;

/// The length of one run of a load that goes on until it is told to end, seconds.
const PIECE_S: f64 = 4.0;

/// An origin; killed when dropped.
pub(super) struct Origin {
    child: Child,
    pub(super) address: SocketAddr,
}

impl Origin {
    /// Starts one; `cpu`: where it runs.
    pub(super) fn start(setup: &Setup, cpu: Option<usize>) -> io::Result<Origin> {
        let address = free_address()?;
        let mut command = program(setup, cpu);
        command.args(["origin", &address.to_string()]).stdin(Stdio::null());
        let child = command.into_std().spawn()?;
        let origin = Origin { child, address };
        let until = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect(address).is_err() {
            if Instant::now() > until {
                return Err(failed("the origin does not start"));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(origin)
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill().and_then(|()| self.child.wait());
    }
}

fn program(setup: &Setup, cpu: Option<usize>) -> Command {
    match cpu {
        Some(cpu) => {
            let mut command = Command::new("taskset");
            command.args(["-c", &cpu.to_string()]).arg(&setup.bench);
            command
        }
        None => Command::new(&setup.bench),
    }
}

/// What is sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    pub(super) to: SocketAddr,
    pub(super) seconds: f64,
    /// Requests a second; absent: as many as can be.
    pub(super) rate: Option<f64>,
    /// A new connection for each request.
    pub(super) anew: bool,
    pub(super) cpu: Option<usize>,
}

/// Runs a load to its end.
pub(super) async fn load(setup: &Setup, load: Load) -> io::Result<Report> {
    let mut command = program(setup, load.cpu);
    command.args(["load", &format!("http://{}/size/64", load.to), "--json", "--duration", &load.seconds.to_string()]);
    let connections = if load.rate.is_some_and(|rate| rate < 5_000.0) { "16" } else { "64" };
    command.args(["--connections", connections]);
    if let Some(rate) = load.rate {
        command.args(["--rate", &format!("{rate:.0}")]);
    }
    if load.anew {
        command.arg("--no-keepalive");
    }
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output().await?;
    serde_json::from_slice(&output.stdout)
        .map_err(|error| failed(format!("the load ({}) printed no report: {error}", output.status)))
}

/// What a long load found.
#[derive(Clone, Debug, Default)]
pub(super) struct Found {
    pub(super) requests: u64,
    pub(super) failures: u64,
    /// The first kinds of failures.
    pub(super) kinds: Vec<String>,
}

/// A load that goes on until it is told to end: connections that are kept, and others that are made for each request.
pub(super) struct Steady {
    ends: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<io::Result<Found>>>,
}

impl Steady {
    /// Begins.
    pub(super) fn start(setup: &Arc<Setup>, to: SocketAddr, rate: f64) -> Steady {
        let ends = Arc::new(AtomicBool::new(false));
        let tasks = [false, true].map(|anew| {
            let (setup, ends) = (setup.clone(), ends.clone());
            tokio::spawn(async move {
                let mut found = Found::default();
                while !ends.load(Relaxed) {
                    let rate = if anew { rate / 10.0 } else { rate };
                    let report = load(&setup, Load { to, seconds: PIECE_S, rate: Some(rate), anew, cpu: None }).await?;
                    found.requests += report.requests;
                    found.failures += report.failures() + report.late;
                    found.kinds.extend(report.errors.into_keys());
                }
                Ok(found)
            })
        });
        Steady { ends, tasks: tasks.into() }
    }

    /// Ends when the pieces that are under way have.
    pub(super) async fn end(self) -> io::Result<Found> {
        self.ends.store(true, Relaxed);
        let mut all = Found::default();
        for task in self.tasks {
            let Found { requests, failures, kinds } = task.await.map_err(failed)??;
            all.requests += requests;
            all.failures += failures;
            all.kinds.extend(kinds);
        }
        all.kinds.sort();
        all.kinds.dedup();
        Ok(all)
    }
}
