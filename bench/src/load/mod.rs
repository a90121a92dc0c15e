//! `ringway-bench load`: requests as fast as connections allow (closed loop) or at a rate of their own (open loop).
//!
//! One run: memory of the watched processes is read, idle connections are opened and used once, the busy ones begin, the warm-up
//! passes, and a window opens. What ends inside the window counts; the watched processes' CPU time is read at both its ends.

mod pace;
mod tally;
mod target;
mod work;

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use clap::Args;

use crate::report::Report;
use crate::tls::ClientOptions;
use tally::Tally;
use target::Request;
pub(crate) use target::Target;
use work::Job;

/// Arguments of `ringway-bench load`.
#[derive(Clone, Debug, Args)]
pub(crate) struct Load {
    /// http://127.0.0.1:8080/path, https://[::1]:8443/, or unix:/run/x.sock:/path
    url: String,
    /// Connections that send requests
    #[arg(short, long, default_value_t = 64)]
    connections: usize,
    /// Requests a second, whatever becomes of them (open loop); absent: each connection sends when its answer came (closed loop)
    #[arg(short, long)]
    rate: Option<f64>,
    /// Length of the measured window: seconds, or with a unit (`500ms`, `10s`, `1m`)
    #[arg(short, long, default_value = "10", value_name = "TIME", value_parser = crate::time::seconds)]
    duration: f64,
    /// End after so many answers and failures instead
    #[arg(short = 'n', long)]
    requests: Option<u64>,
    /// Load before the window
    #[arg(long, default_value = "0", value_name = "TIME", value_parser = crate::time::seconds)]
    warmup: f64,
    #[arg(short = 'X', long, default_value = "GET")]
    /// Method
    method: String,
    /// A header, `Name: value`; may be repeated
    #[arg(short = 'H', long = "header", value_name = "LINE")]
    headers: Vec<String>,
    /// The body of every request
    #[arg(long)]
    body: Option<String>,
    /// A body of so many bytes
    #[arg(long, conflicts_with = "body", value_name = "BYTES")]
    body_size: Option<usize>,
    /// The body length that every answer has to have; others count as errors
    #[arg(long, value_name = "BYTES")]
    length: Option<u64>,
    /// A new connection for each request
    #[arg(long)]
    no_keepalive: bool,
    /// Open so many more connections, use each once, and leave them open
    #[arg(long, default_value_t = 0, value_name = "N")]
    idle: usize,
    /// Give a request up after
    #[arg(long, default_value = "10", value_name = "TIME", value_parser = crate::time::seconds)]
    timeout: f64,
    /// Account for CPU and memory of this process; may be repeated
    #[arg(long, value_name = "PID")]
    watch: Vec<u32>,
    /// Threads
    #[arg(long, default_value_t = 1)]
    cores: usize,
    #[command(flatten)]
    tls: ClientOptions,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
    /// No live line
    #[arg(short, long)]
    quiet: bool,
}

/// Runs the load and prints its report. Exit code 1 when nothing succeeded.
pub(crate) fn run(load: &Load) -> io::Result<ExitCode> {
    let report = measure(load)?;
    let text = if load.json { serde_json::to_string(&report)? + "\n" } else { report.text() };
    io::stdout().write_all(text.as_bytes())?;
    let good: u64 = report.status.iter().filter(|(status, _)| **status < 400).map(|(_, count)| count).sum();
    Ok(if good > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs the load and returns what it found.
fn measure(load: &Load) -> io::Result<Report> {
    let job = Arc::new(Job::new(load)?);
    ring::host::descriptor_limit();
    let features = ring::host::probe().map_err(io::Error::other)?;
    let live = Arc::new(Live::default());
    let cores = load.cores.clamp(1, load.connections.max(1));
    let tallies: Vec<io::Result<Tally>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..cores)
            .map(|core| {
                let (job, live, features) = (job.clone(), live.clone(), &features);
                scope.spawn(move || work::core(job, core, cores, live, features))
            })
            .collect();
        if io::stderr().is_terminal() && !load.quiet && !load.json {
            live.show();
        }
        let join = |thread: std::thread::ScopedJoinHandle<'_, _>| {
            thread.join().unwrap_or_else(|_| Err(io::Error::other("a core panicked")))
        };
        threads.into_iter().map(join).collect()
    });
    let mut total = Tally::new();
    for tally in tallies {
        total.add(&tally?);
    }
    Ok(total.report(load.url.clone(), load.connections, load.idle, load.rate))
}

impl Job {
    /// Everything about a run that does not change.
    fn new(load: &Load) -> io::Result<Job> {
        let target = Target::parse(&load.url)?;
        let filler = load.body_size.map(|size| vec![b'y'; size]);
        let body = load.body.as_ref().map(String::as_bytes).or(filler.as_deref());
        let request = Request { method: &load.method, headers: &load.headers, body, close: load.no_keepalive };
        let bytes = request.bytes(&target)?;
        if load.duration <= 0.0 || load.rate.is_some_and(|rate| rate <= 0.0) {
            return Err(io::Error::other("--duration and --rate have to be above 0"));
        }
        Ok(Job {
            tls: load.tls.client(&target)?,
            address: target.address,
            // One for the process's life: sends need bytes that stay where they are.
            request: Box::leak(bytes.into_boxed_slice()),
            body_bytes: body.map_or(0, <[u8]>::len) as u64,
            head: load.method == "HEAD",
            length: load.length,
            keep: !load.no_keepalive,
            connections: load.connections.max(1),
            idle: load.idle,
            rate: load.rate,
            requests: load.requests,
            duration: Duration::from_secs_f64(load.duration),
            warmup: Duration::from_secs_f64(load.warmup.max(0.0)),
            timeout: Duration::from_secs_f64(load.timeout.max(0.001)),
            watch: load.watch.clone(),
        })
    }
}

/// What the live line shows, added to by all cores.
#[derive(Debug, Default)]
pub(crate) struct Live {
    pub(crate) requests: AtomicU64,
    pub(crate) errors: AtomicU64,
    pub(crate) ended: AtomicBool,
}

impl Live {
    /// Writes the line each second until the run has ended.
    fn show(&self) {
        let mut before = 0;
        for tenth in 0u64.. {
            if self.ended.load(Ordering::Relaxed) {
                break;
            }
            if tenth % 10 == 0 && tenth > 0 {
                let (requests, errors) = (self.requests.load(Ordering::Relaxed), self.errors.load(Ordering::Relaxed));
                eprint!("\r{:>5} s  {:>8} requests/s  {errors} errors  ", tenth / 10, requests - before);
                before = requests;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        eprint!("\r{:60}\r", "");
    }
}

#[cfg(test)]
mod tests;
