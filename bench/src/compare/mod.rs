//! `ringway-bench compare`: the same job for every proxy, in short alternating slices, in one run.
//!
//! Each proxy runs alone on one CPU; load and origin share the others. A slice is one run of `ringway-bench load` that reads the
//! proxy's CPU time from the scheduler at both ends of its window. All proxies of a scenario are running all the time, idle
//! but for the one whose turn it is; the order moves on by one each round, so that drift of the machine meets all alike.

mod arms;
mod cgroup;
mod figures;
mod goals;
mod place;
mod plot;
mod proof;
mod results;
mod scenario;
mod secure;
mod table;

use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use clap::Args;

use crate::core::free_address;
use crate::proc;
use crate::report::Report;
use arms::{Addresses, Arm, Programs, Running, Setting};
use place::Place;
use results::{IdleBytes, Results, Row, Table};
use scenario::{Load, Measure, Scenario};
use secure::{Certificates, Tls};

/// The slowest arm's share of its most that every arm is asked for in `rate`.
const RATE_SHARE: f64 = 0.6;
/// After a slice with many connections, a proxy needs a moment to close them, on the CPU that the next one is measured on.
const REST: Duration = Duration::from_millis(400);
const WARM_SECONDS: f64 = 0.5;

/// Arguments of `ringway-bench compare`.
#[derive(Debug, Args)]
pub(crate) struct Compare {
    /// Scenarios to run: small, rate, new, down, up, idle, latency, tls-small, tls-new, mtls, tls-down, tls-idle, long
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    only: Vec<String>,
    /// Arms to run: ringway (or ours), relay, relay-16k, relay-64k, relay-256k, naive, nginx, haproxy, envoy
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    arms: Vec<String>,
    /// How often each arm has its turn; an odd number makes medians of single slices
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Length of a slice: seconds, or with a unit (`500ms`, `2s`, `1m`)
    #[arg(long, default_value = "1.5", value_name = "TIME", value_parser = crate::time::seconds)]
    slice: f64,
    /// Also run the scenario `long`: a minute of load for each arm, then its memory
    #[arg(long)]
    long: bool,
    /// Length of `long`
    #[arg(long, default_value_t = 60.0, value_name = "SECONDS")]
    long_seconds: f64,
    /// Requests a second for `rate` (absent: 0.6 of what the slowest arm can do)
    #[arg(long)]
    rate: Option<f64>,
    /// The proxy's binary (absent: `ringway` beside this one)
    #[arg(long, value_name = "PATH")]
    ringway: Option<PathBuf>,
    /// Envoy's binary (absent: on the path; tests/peers.sh --print envoy tells)
    #[arg(long, value_name = "PATH")]
    envoy: Option<PathBuf>,
    /// Write the table to this file too
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
    /// Write the plot to this file
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    /// Print all slices as JSON instead of the table
    #[arg(long)]
    json: bool,
    /// Keep configurations and outputs of the proxies here
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
}

/// Runs the comparison and prints it.
pub(crate) fn run(compare: &Compare) -> io::Result<()> {
    let mut bench = Bench::new(compare)?;
    let scenarios = chosen(&compare.only, compare.long)?;
    for scenario in scenarios {
        let table = bench.scenario(scenario)?;
        bench.results.scenarios.push(table);
        bench.write_files()?;
    }
    let text = match compare.json {
        true => serde_json::to_string_pretty(&bench.results)? + "\n",
        false => table::markdown(&bench.results),
    };
    io::stdout().write_all(text.as_bytes())
}

/// The scenarios that were asked for; without a word, all but the long one.
fn chosen(names: &[String], long: bool) -> io::Result<Vec<Scenario>> {
    let find = |name: &String| {
        let found = Scenario::ALL.into_iter().find(|scenario| scenario.name() == name);
        found.ok_or_else(|| io::Error::other(format!("no scenario {name}; there are {}", names_of_all())))
    };
    let mut chosen: Vec<Scenario> = names.iter().map(find).collect::<io::Result<_>>()?;
    if names.is_empty() {
        chosen = Scenario::ALL.into_iter().filter(|scenario| *scenario != Scenario::Long).collect();
    }
    if long && !chosen.contains(&Scenario::Long) {
        chosen.push(Scenario::Long);
    }
    Ok(chosen)
}

fn names_of_all() -> String {
    Scenario::ALL.map(Scenario::name).join(", ")
}

/// One comparison under way.
struct Bench<'a> {
    compare: &'a Compare,
    place: Place,
    program: PathBuf,
    certificates: Certificates,
    arms: Vec<Arm>,
    results: Results,
    dir: PathBuf,
    /// Requests a second that each arm can do with small messages, by name, once it was tried.
    most: Vec<(String, f64)>,
}

/// An arm that is running, and its row so far.
struct Lane<'a> {
    arm: &'a Arm,
    running: Running,
    row: Row,
}

impl<'a> Bench<'a> {
    fn new(compare: &'a Compare) -> io::Result<Bench<'a>> {
        let program = std::env::current_exe()?;
        let ringway = compare.ringway.clone().unwrap_or_else(|| program.with_file_name("ringway"));
        let programs = Programs { bench: program.clone(), ringway, envoy: compare.envoy.clone() };
        let (mut arms, mut missing) = arms::all(&programs);
        let wanted = |name: &str| {
            let same = |word: &String| word == name || (word == "ours" && name == "ringway");
            compare.arms.is_empty() || compare.arms.iter().any(same)
        };
        arms.retain(|arm| wanted(&arm.name));
        missing.retain(|(name, _)| wanted(name));
        let place = Place::choose()?;
        let dir = match &compare.keep {
            Some(dir) => std::path::absolute(dir)?,
            None => std::env::temp_dir().join(format!("ringway-bench-{}", std::process::id())),
        };
        std::fs::create_dir_all(&dir)?;
        let certificates = Certificates::make(&dir)?;
        let results = Results {
            date: date(SystemTime::now()),
            machine: machine(&place),
            arms: arms.iter().map(|arm| (arm.name.clone(), arm.version.clone())).collect(),
            missing,
            rounds: compare.rounds,
            slice_seconds: compare.slice,
            scenarios: Vec::new(),
        };
        Ok(Bench { compare, place, program, certificates, arms, results, dir, most: Vec::new() })
    }

    /// Runs one scenario: starts everything, warms up, takes turns.
    fn scenario(&mut self, scenario: Scenario) -> io::Result<Table> {
        let mut table = Table { name: scenario.name().into(), ..Table::default() };
        let origin = self.origin(scenario.tls(), "origin")?;
        let arms = self.arms.clone();
        let mut lanes = self.lanes(scenario, &arms, origin.at.listen, &mut table.notes)?;
        let load = self.load(scenario, &lanes)?;
        table.title = scenario.title(&load);
        eprintln!("{}", table.title);
        if scenario.has_idle() && load.idle < 10_000 {
            table.notes.push(format!("{} idle connections: that is what the descriptor limit allows.", load.idle));
        }
        self.warm_up(scenario, &mut lanes)?;
        let rounds = if scenario == Scenario::Long { 1 } else { self.compare.rounds };
        for round in 0..rounds {
            for turn in 0..lanes.len() {
                let at = (round + turn) % lanes.len();
                self.slice(scenario, &load, &mut lanes[at])?;
            }
            eprintln!("  round {} of {rounds}{}", round + 1, so_far(scenario, &lanes));
        }
        table.rows = lanes.into_iter().map(|lane| lane.row).collect();
        table.notes.extend(proof::note(scenario, &table.rows));
        Ok(table)
    }

    /// Starts an origin; with TLS, it has the certificate of a role.
    fn origin(&self, tls: Tls, role: &str) -> io::Result<Running> {
        let listen = free_address()?;
        let at = Addresses { listen, upstream: listen, admin: listen };
        let mut command = self.place.command(self.place.origin, &self.program, None);
        command.args(["origin", &listen.to_string()]).args(self.certificates.of_origin(tls, role));
        let mut origin = Running::spawn(command, role, at, &self.dir, None)?;
        origin.wait_ready(|at| TcpStream::connect(at).is_ok())?;
        Ok(origin)
    }

    /// Starts every arm that takes part; one that does not start is noted, and the others go on.
    fn lanes<'b>(
        &self,
        scenario: Scenario,
        arms: &'b [Arm],
        upstream: SocketAddr,
        notes: &mut Vec<String>,
    ) -> io::Result<Vec<Lane<'b>>> {
        let mut lanes = Vec::new();
        for arm in arms {
            if let Some(why) = scenario.leaves_out(arm, self.place.descriptors) {
                if !why.is_empty() {
                    notes.push(format!("{}: not measured ({why}).", arm.name));
                }
                continue;
            }
            match self.start(scenario, arm, upstream, &self.dir) {
                Ok(running) => {
                    if let Some(wrong) = self.lets_pass(scenario, arm, &running)? {
                        notes.push(format!("{}: not measured, it {wrong}.", arm.name));
                        continue;
                    }
                    let rss_start = proc::memory(&running.pids())?.rss;
                    let name = arm.name.clone();
                    let row =
                        Row { arm: name, peer: arm.is_peer(), relay: arm.is_relay(), rss_start, ..Row::default() };
                    lanes.push(Lane { arm, running, row });
                }
                Err(error) => {
                    eprintln!("  {}: {error}", arm.name);
                    notes.push(format!("{}: not measured, it did not start.", arm.name));
                }
            }
        }
        Ok(lanes)
    }

    /// Starts an arm that forwards to `upstream`.
    fn start(&self, scenario: Scenario, arm: &Arm, upstream: SocketAddr, dir: &Path) -> io::Result<Running> {
        let at = Addresses { listen: free_address()?, upstream, admin: free_address()? };
        let setting = Setting {
            descriptors: self.place.descriptors,
            bulk: scenario.measure() == Measure::Bulk,
            tls: scenario.tls(),
            certificates: self.certificates.dir(),
        };
        Running::start(arm, at, dir, &self.place, setting, |at| self.answers(scenario, at))
    }

    /// What every slice of a scenario is asked for.
    fn load(&mut self, scenario: Scenario, lanes: &[Lane]) -> io::Result<Load> {
        let mut load = Load { seconds: self.compare.slice, rate: None, idle: scenario.idle(self.place.descriptors) };
        if scenario == Scenario::Long {
            load.seconds = self.compare.long_seconds;
        }
        if scenario.fixed_rate() {
            self.find_most(lanes)?;
            load.rate = Some(match scenario {
                Scenario::Rate => self.compare.rate.unwrap_or(self.slowest() * RATE_SHARE),
                _ => self.best_peer() / 3.0,
            });
        }
        Ok(load)
    }

    /// Tries once how many small requests a second each arm can do.
    fn find_most(&mut self, lanes: &[Lane]) -> io::Result<()> {
        for lane in lanes {
            if !self.most.iter().any(|(name, _)| *name == lane.arm.name) {
                let load = Load { seconds: 1.0, ..Load::default() };
                let report = self.run_load(Scenario::Small, &load, &lane.running)?;
                self.most.push((lane.arm.name.clone(), report.per_second()));
            }
        }
        Ok(())
    }

    fn slowest(&self) -> f64 {
        self.most.iter().map(|(_, most)| *most).fold(f64::INFINITY, f64::min)
    }

    /// The most of the best peer; without peers, of the best arm.
    fn best_peer(&self) -> f64 {
        let peer = |name: &str| self.arms.iter().any(|arm| arm.name == name && arm.is_peer());
        let best = |values: Vec<f64>| values.into_iter().reduce(f64::max);
        let peers = self.most.iter().filter(|(name, _)| peer(name)).map(|(_, most)| *most).collect();
        best(peers).or_else(|| best(self.most.iter().map(|(_, most)| *most).collect())).unwrap_or(1000.0)
    }

    /// Fills pools and caches.
    fn warm_up(&self, scenario: Scenario, lanes: &mut [Lane]) -> io::Result<()> {
        let load = Load { seconds: WARM_SECONDS, rate: None, idle: 0 };
        for lane in lanes {
            self.run_load(scenario.warm_up(), &load, &lane.running)?;
        }
        std::thread::sleep(REST);
        Ok(())
    }

    fn slice(&self, scenario: Scenario, load: &Load, lane: &mut Lane) -> io::Result<()> {
        let before = ring_counts(lane);
        let mut report = self.run_load(scenario, load, &lane.running)?;
        if let (Some(before), Some(after)) = (before, ring_counts(lane)) {
            let turns = after.turns - before.turns;
            lane.row.per_turn.extend((turns > 0.0).then(|| (after.completions - before.completions) / turns));
        }
        if let (Some(watched), None, true) = (&report.watched, lane.row.idle_bytes, load.idle > 0) {
            let each = |after: u64, before: u64| (after as f64 - before as f64) / load.idle as f64;
            lane.row.idle_bytes = Some(IdleBytes {
                rss: each(watched.idle.rss, watched.before.rss),
                kernel: each(watched.idle.kernel, watched.before.kernel),
                cgroup: watched.idle.cgroup.zip(watched.before.cgroup).map(|(after, before)| each(after, before)),
            });
        }
        if scenario.tls() != Tls::None {
            let astray = secure::astray(&report, scenario.connects_anew());
            if astray > 0 {
                report.errors.insert("another handshake than wanted".into(), astray);
            }
        }
        lane.row.slices.push(report);
        if scenario.has_idle() || scenario.connects_anew() {
            std::thread::sleep(REST);
        }
        Ok(())
    }

    /// One run of the load against one arm.
    fn run_load(&self, scenario: Scenario, load: &Load, running: &Running) -> io::Result<Report> {
        let mut command = self.place.command(self.place.load, &self.program, None);
        command.arg("load").arg(format!("http://{}{}", running.at.listen, scenario.path()));
        command
            .args(scenario.options(load))
            .args(self.certificates.of_load(scenario.tls(), secure::shown(scenario.tls())));
        for pid in running.pids() {
            command.args(["--watch", &pid.to_string()]);
        }
        let output = command.stderr(Stdio::piped()).output()?;
        serde_json::from_slice(&output.stdout).map_err(|_| {
            io::Error::other(format!("the load said no figures: {}", String::from_utf8_lossy(&output.stderr).trim()))
        })
    }

    fn write_files(&self) -> io::Result<()> {
        if let Some(file) = &self.compare.markdown {
            std::fs::write(file, table::markdown(&self.results))?;
        }
        if let Some(file) = &self.compare.plot {
            std::fs::write(file, plot::svg(&self.results))?;
        }
        Ok(())
    }
}

impl Drop for Bench<'_> {
    fn drop(&mut self) {
        if self.compare.keep.is_none() {
            let _ = std::fs::remove_dir_all(&self.dir);
        }
    }
}

/// The medians so far, for whoever waits.
fn so_far(scenario: Scenario, lanes: &[Lane]) -> String {
    let value = goals::value(scenario.measure());
    let mut text = String::new();
    for lane in lanes {
        if let Some(middle) = lane.row.middle(value) {
            text.push_str(&format!("  {} {}", lane.arm.name, short(middle)));
        }
    }
    text
}

fn short(value: f64) -> String {
    match value {
        value if value >= 1e6 => format!("{:.2}e9", value / 1e9),
        value => format!("{value:.1}"),
    }
}

/// Turns and completions of an arm's ring since it started.
#[derive(Clone, Copy, Debug, PartialEq)]
struct RingCounts {
    turns: f64,
    completions: f64,
}

fn ring_counts(lane: &Lane) -> Option<RingCounts> {
    parse_counts(&lane.running.counters(lane.arm.kind)?)
}

/// Adds up the cores' counters in Prometheus text.
fn parse_counts(text: &str) -> Option<RingCounts> {
    let sum = |name: &str| {
        let lines = text.lines().filter(|line| !line.starts_with('#') && line.starts_with(name));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).reduce(|a, b| a + b)
    };
    Some(RingCounts { turns: sum("ringway_core_turns_total")?, completions: sum("ringway_core_completions_total")? })
}

/// The kernel, the processor and how its CPUs are shared out.
fn machine(place: &Place) -> String {
    let shared =
        if place.load == place.origin { "load and origin share the other" } else { "load and origin have their own" };
    format!("{}, proxy on one CPU, {shared}", processor())
}

/// The processor and the kernel.
pub(crate) fn processor() -> String {
    let read = |file: &str| std::fs::read_to_string(file).unwrap_or_default();
    let cpus = read("/proc/cpuinfo");
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("unknown CPU");
    let model = model.trim_start_matches([' ', '\t', ':']);
    let kernel = read("/proc/sys/kernel/osrelease");
    format!("{model}, Linux {}", kernel.trim())
}

/// `YYYY-MM-DD`, by UTC. `date(1)` knows the calendar.
pub(crate) fn date(now: SystemTime) -> String {
    let seconds = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let output = Command::new("date").args(["-u", "-d", &format!("@{seconds}"), "+%F"]).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_string()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_choose_scenarios() {
        let names = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(chosen(&names(&["up", "small"]), false).unwrap(), [Scenario::Up, Scenario::Small]);
        assert_eq!(chosen(&[], false).unwrap().len(), 12);
        assert_eq!(chosen(&[], true).unwrap().last(), Some(&Scenario::Long));
        assert!(chosen(&names(&["smal"]), false).unwrap_err().to_string().contains("no scenario smal"));
    }

    #[test]
    fn counters_of_all_cores_are_added() {
        let text = "# TYPE ringway_turns counter\nringway_core_turns_total{core=\"0\"} 10\nringway_core_turns_total{core=\"1\"} 5\n\
                    ringway_core_completions_total{core=\"0\"} 30\nringway_core_completions_total{core=\"1\"} 20\n";
        assert_eq!(parse_counts(text), Some(RingCounts { turns: 15.0, completions: 50.0 }));
        assert_eq!(parse_counts("nothing"), None);
    }

    #[test]
    fn dates_are_of_the_calendar() {
        assert_eq!(date(SystemTime::UNIX_EPOCH + Duration::from_secs(86_400 * 59)), "1970-03-01");
    }
}
