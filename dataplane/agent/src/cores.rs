//! The cores' threads: which CPUs they get, how they are started, given orders, and watched.

use crate::host;
use crate::tell::tell;
use flow::{Counters, Order};
use ring::between::{Reader, Sender, bytes, mailbox};
use ring::host::cpu;
use ring::{Features, StartError, Stats, Wake};
use std::sync::{Arc, OnceLock, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

/// Room for log records that wait for the agent, a core: some 4,000 of them.
const LOG_BYTES: usize = 1 << 20;

/// Seconds for which a core may leave the agent's wake unanswered.
const STUCK_S: u32 = 5;

/// All cores of the process.
#[derive(Debug)]
pub(crate) struct Cores {
    list: Vec<Core>,
    wakes: Arc<[OnceLock<Wake>]>,
    watch: Watch,
}

/// A core as the agent sees it.
#[derive(Debug)]
struct Core {
    orders: Sender<Order>,
    counters: Arc<Counters>,
    stats: Arc<Stats>,
    log: Option<Reader>,
    began: Began,
    thread: JoinHandle<()>,
}

/// When a core's clock was zero.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Began {
    /// On the wall.
    pub(crate) wall: SystemTime,
    /// On the agent's own clock.
    pub(crate) instant: Instant,
}

/// Chooses a CPU for each core, among those that the process may use. More cores than CPUs share them in turn.
///
/// # Errors
/// A CPU was asked for that the process may not use, or more cores than there can be.
pub(crate) fn choose(wanted: &api::Cores, allowed: &[usize]) -> Result<Vec<usize>, String> {
    let cpus: Vec<usize> = match wanted {
        api::Cores::All => allowed.iter().copied().take(balance::MAX_CORES).collect(),
        api::Cores::Count(count) => allowed.iter().copied().cycle().take(*count as usize).collect(),
        api::Cores::List(list) => list.iter().map(|cpu| *cpu as usize).collect(),
    };
    if let Some(cpu) = cpus.iter().find(|cpu| !allowed.contains(cpu)) {
        return Err(format!("cores: CPU {cpu} is not among those that this process may use ({})", numbers(allowed)));
    }
    if cpus.len() > balance::MAX_CORES {
        return Err(format!("cores: {} are more than the {} that there can be", cpus.len(), balance::MAX_CORES));
    }
    Ok(cpus)
}

/// Numbers with commas between.
pub(crate) fn numbers(list: &[usize]) -> String {
    list.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

impl Cores {
    /// Starts a core on each of these CPUs; they wait for their first order.
    ///
    /// # Errors
    /// Why the first one that could not be started was not.
    pub(crate) fn start(
        cpus: &[usize],
        features: &Features,
        process: &Arc<flow::Process>,
    ) -> Result<Cores, StartError> {
        let wakes: Arc<[OnceLock<Wake>]> = cpus.iter().map(|_| OnceLock::new()).collect();
        let mut list = Vec::with_capacity(cpus.len());
        for (core, cpu) in cpus.iter().enumerate() {
            list.push(Core::start(core, *cpu, features, process, &wakes)?);
        }
        let watch = Watch::new(list.len());
        Ok(Cores { list, wakes, watch })
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.list.len()
    }

    /// Gives each core its order; one that it did not take yet is dropped here.
    pub(crate) fn order(&mut self, of_core: impl Fn(usize) -> Order) {
        for (number, core) in self.list.iter_mut().enumerate() {
            drop(core.orders.put(of_core(number)));
        }
        self.ring();
    }

    /// Wakes all cores.
    pub(crate) fn ring(&self) {
        self.wakes.iter().filter_map(OnceLock::get).for_each(Wake::ring);
    }

    /// What each core counts.
    pub(crate) fn counters(&self) -> Vec<Arc<Counters>> {
        self.list.iter().map(|core| core.counters.clone()).collect()
    }

    /// What each core's runtime counts.
    pub(crate) fn stats(&self) -> Vec<Arc<Stats>> {
        self.list.iter().map(|core| core.stats.clone()).collect()
    }

    /// What the clock of the cores says, nanoseconds: it is the same on all of them.
    pub(crate) fn now_ns(&self) -> u64 {
        self.list.first().map_or(0, |core| core.began.instant.elapsed().as_nanos() as u64)
    }

    /// When each core's clock was zero.
    pub(crate) fn began(&self) -> Vec<Began> {
        self.list.iter().map(|core| core.began).collect()
    }

    /// The log records of each core, with when its clock was zero; once.
    pub(crate) fn take_logs(&mut self) -> Vec<(Reader, SystemTime)> {
        self.list.iter_mut().filter_map(|core| Some((core.log.take()?, core.began.wall))).collect()
    }

    /// Turns that each core has taken.
    pub(crate) fn turns(&self) -> Vec<u64> {
        self.list.iter().map(|core| core.stats.snapshot().turns).collect()
    }

    /// Whether every core works with this plan or a later one.
    pub(crate) fn acknowledged(&self, generation: u64) -> bool {
        self.list.iter().all(|core| core.counters.generation.value() >= generation)
    }

    /// Connections from clients that are open.
    pub(crate) fn connections(&self) -> u64 {
        self.list.iter().map(|core| core.counters.downstream.value()).sum()
    }

    /// To be called once a second: rings every core, and ends the process when one has not answered for too long. A
    /// supervisor starts it again; otherwise a share of the connections would hang.
    pub(crate) fn check(&mut self) {
        let ended = self.list.iter().position(|core| core.thread.is_finished());
        if let Some(number) = ended {
            tell(format_args!("core {number} has ended, which it must not: aborting"));
            std::process::abort();
        }
        let turns = self.turns();
        if let Some(number) = self.watch.stuck(&turns) {
            let stats = self.list[number].stats.snapshot();
            tell(format_args!(
                "core {number} has not answered for {STUCK_S} s ({}; {} turns, {} tasks, {} sockets): aborting",
                host::thread_state(&thread_name(number)),
                stats.turns,
                stats.tasks,
                stats.sockets,
            ));
            std::process::abort();
        }
        self.ring();
    }
}

impl Core {
    fn start(
        number: usize,
        cpu: usize,
        features: &Features,
        process: &Arc<flow::Process>,
        wakes: &Arc<[OnceLock<Wake>]>,
    ) -> Result<Core, StartError> {
        let (orders, inbox) = mailbox();
        let (log_in, log) = bytes(LOG_BYTES);
        let counters = Arc::new(Counters::default());
        let start = flow::Start {
            core: number,
            wakes: wakes.clone(),
            orders: inbox,
            counters: counters.clone(),
            log: log_in,
            process: process.clone(),
            id_prefix: host::random_u64().map_err(StartError::Other)?,
        };
        let config = ring::Config { seed: host::random_u64().map_err(StartError::Other)?, ..ring::Config::default() };
        let features = features.clone();
        let (report, reports) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name(thread_name(number))
            .spawn(move || live(cpu, &config, &features, start, &report))
            .map_err(StartError::Other)?;
        let gone = || StartError::Other(std::io::Error::other("the core's thread ended"));
        let (stats, began) = reports.recv().map_err(|_| gone())??;
        Ok(Core { orders, counters, stats, log: Some(log), began, thread })
    }
}

type Report = Result<(Arc<Stats>, Began), StartError>;

/// A core's thread.
fn live(cpu: usize, config: &ring::Config, features: &Features, start: flow::Start, report: &mpsc::Sender<Report>) {
    if let Err(error) = cpu::pin(cpu) {
        tell(format_args!("core {} cannot be kept on CPU {cpu}: {error}", start.core));
    }
    let ended = ring::run(config, features, |stats, wake| {
        // Set once, by this core alone.
        let _ = start.wakes[start.core].set(wake);
        let age = Duration::from_nanos(ring::now());
        let (wall, instant) = (SystemTime::now(), Instant::now());
        let began =
            Began { wall: wall.checked_sub(age).unwrap_or(wall), instant: instant.checked_sub(age).unwrap_or(instant) };
        flow::start(start);
        let _ = report.send(Ok((stats, began)));
    });
    if let Err(error) = ended {
        let _ = report.send(Err(error));
    }
}

fn thread_name(number: usize) -> String {
    format!("ringway-{number}")
}

/// Notices cores whose turns do not move although they are rung.
#[derive(Debug)]
struct Watch {
    /// Turns at the last look, and looks since they moved.
    seen: Vec<(u64, u32)>,
}

impl Watch {
    fn new(cores: usize) -> Watch {
        Watch { seen: vec![(u64::MAX, 0); cores] }
    }

    /// The first core whose turns have stood still for [`STUCK_S`] looks.
    fn stuck(&mut self, turns: &[u64]) -> Option<usize> {
        let mut stuck = None;
        for (number, (now, (last, looks))) in turns.iter().zip(&mut self.seen).enumerate() {
            *looks = if now == last { *looks + 1 } else { 0 };
            *last = *now;
            if *looks >= STUCK_S {
                stuck = stuck.or(Some(number));
            }
        }
        stuck
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::Cores as Wanted;

    #[test]
    fn cpus_are_chosen_within_the_mask() {
        assert_eq!(choose(&Wanted::All, &[2, 5]), Ok(vec![2, 5]));
        assert_eq!(choose(&Wanted::Count(1), &[2, 5]), Ok(vec![2]));
        assert_eq!(choose(&Wanted::Count(5), &[2, 5]), Ok(vec![2, 5, 2, 5, 2]), "more cores than CPUs take turns");
        assert_eq!(choose(&Wanted::List(vec![5]), &[2, 5]), Ok(vec![5]));
        let outside = choose(&Wanted::List(vec![2, 3]), &[2, 5]).unwrap_err();
        assert!(outside.contains("CPU 3") && outside.contains("2,5"), "{outside}");
        assert!(choose(&Wanted::Count(balance::MAX_CORES as u32 + 1), &[0]).is_err());
    }

    #[test]
    fn a_core_is_stuck_when_its_turns_stand_still_for_five_looks() {
        let mut watch = Watch::new(2);
        for turn in 0..20 {
            assert_eq!(watch.stuck(&[turn, 7 + turn % 2]), None);
        }
        let looks: Vec<Option<usize>> = (20..26).map(|turn| watch.stuck(&[turn, 9])).collect();
        assert_eq!(looks, [None, None, None, None, None, Some(1)]);
        assert_eq!(watch.stuck(&[26, 10]), None, "a turn clears it");
    }
}
