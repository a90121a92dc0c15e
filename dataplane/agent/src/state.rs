//! What the agent and its admin pages share: counters to read, the plan, and what the agent has done so far.

use crate::cores::{Began, Cores};
use crate::daemon::Standing;
use crate::log::Tally;
use crate::series::Registry;
use flow::{Counters, Process, RuleCounts, Series};
use plan::{Plan, RuleKey, SeriesKey};
use ring::{Features, Stats};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime};
use tokio::sync::Notify;

/// The state of the process, as the admin pages show it.
#[derive(Debug)]
pub(crate) struct State {
    /// What each core counts.
    pub(crate) counters: Vec<Arc<Counters>>,
    /// What each core's runtime counts.
    pub(crate) stats: Vec<Arc<Stats>>,
    /// When each core's clock was zero.
    pub(crate) began: Vec<Began>,
    /// What the kernel offers.
    pub(crate) features: Features,
    /// Descriptors that the process may have.
    pub(crate) descriptor_limit: u64,
    /// When the process started, on the wall and on the agent's clock.
    pub(crate) started: (SystemTime, Instant),
    /// What became of log records.
    pub(crate) log: Arc<Tally>,
    /// Questions to DNS without an answer.
    pub(crate) dns_failures: Arc<AtomicU64>,
    /// Plans applied, the first among them.
    pub(crate) plans: AtomicU64,
    /// Files that were reloaded.
    pub(crate) reloads: AtomicU64,
    /// Files that were refused.
    pub(crate) refused: AtomicU64,
    /// Changes of certificates and other files that the configuration names: applied, and refused.
    pub(crate) certificates: Tried,
    /// How things stand with the daemon; None: the file has the configuration.
    pub(crate) daemon: Option<Arc<Standing>>,
    /// What all cores share.
    pub(crate) process: Arc<Process>,
    /// Every core works with a plan.
    pub(crate) ready: AtomicBool,
    /// The process drains.
    pub(crate) draining: AtomicBool,
    /// Somebody asked on the admin page that it should.
    pub(crate) drain: Notify,
    series: Mutex<Registry<SeriesKey, Series>>,
    rules: Mutex<Registry<RuleKey, RuleCounts>>,
    plan: Mutex<Option<Arc<Plan>>>,
}

/// How often something was done, and how often refused.
#[derive(Debug, Default)]
pub(crate) struct Tried {
    /// Done.
    pub(crate) applied: AtomicU64,
    /// Refused.
    pub(crate) refused: AtomicU64,
}

impl State {
    /// The state of a process whose cores have been started.
    pub(crate) fn new(
        cores: &Cores,
        process: Arc<Process>,
        features: Features,
        descriptor_limit: u64,
        daemon: Option<Arc<Standing>>,
    ) -> State {
        State {
            counters: cores.counters(),
            stats: cores.stats(),
            began: cores.began(),
            features,
            descriptor_limit,
            started: (SystemTime::now(), Instant::now()),
            log: Arc::default(),
            dns_failures: Arc::default(),
            plans: AtomicU64::new(0),
            reloads: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            certificates: Tried::default(),
            daemon,
            process,
            ready: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            drain: Notify::new(),
            series: Mutex::new(Registry::new(cores.len())),
            rules: Mutex::new(Registry::new(cores.len())),
            plan: Mutex::new(None),
        }
    }

    /// The series there are.
    pub(crate) fn series(&self) -> MutexGuard<'_, Registry<SeriesKey, Series>> {
        self.series.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The rules of policy that there are.
    pub(crate) fn rules(&self) -> MutexGuard<'_, Registry<RuleKey, RuleCounts>> {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The plan that the cores have, or are about to have.
    pub(crate) fn plan(&self) -> Option<Arc<Plan>> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Shows another plan; the one before is returned.
    pub(crate) fn show(&self, plan: Arc<Plan>) -> Option<Arc<Plan>> {
        self.plans.fetch_add(1, Relaxed);
        self.plan.lock().unwrap_or_else(PoisonError::into_inner).replace(plan)
    }
}
