//! What the agent tells a core, and what a core is made of as seen from outside.

use crate::counters::{Counters, Pairs, RuleCounts, Series};
use plan::Plan;
use ring::Bound;
use ring::between;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// The whole of what a core is to do from now on. The last order wins; each holds everything.
#[derive(Debug)]
pub struct Order {
    /// The plan.
    pub plan: Arc<Plan>,
    /// The counters of `plan.series`, in the same order.
    pub series: Arc<[Arc<Series>]>,
    /// The counters of `plan.rules`, in the same order.
    pub rules: Arc<[Arc<RuleCounts>]>,
    /// A listening socket for each of `plan.listeners`, in the same order: this core's own (the core takes a second
    /// handle of those that it does not have yet, by address).
    pub sockets: Arc<[Arc<Bound>]>,
    /// Stop accepting, and end connections with their request under way.
    pub drain: bool,
    /// Cut off what is left at the end of draining: every connection breaks.
    pub cut: bool,
}

/// What all cores of a process share besides plans.
#[derive(Debug, Default)]
pub struct Process {
    /// Connections from clients open now, over all cores.
    pub connections: AtomicU32,
    /// The pairs of identity and service that requests are counted by.
    pub pairs: Pairs,
}

impl Process {
    /// Counts a connection, unless `limit` are open.
    pub fn open(&self, limit: u32) -> bool {
        self.connections.fetch_update(Relaxed, Relaxed, |open| (open < limit).then_some(open + 1)).is_ok()
    }

    /// Counts a connection out.
    pub fn close(&self) {
        self.connections.fetch_sub(1, Relaxed);
    }
}

/// What a core is started with.
pub struct Start {
    /// Its number, from 0.
    pub core: usize,
    /// How to wake each core, by number; this one's too.
    pub wakes: Arc<[std::sync::OnceLock<ring::Wake>]>,
    /// Where its orders come in.
    pub orders: between::Receiver<Order>,
    /// Where it counts.
    pub counters: Arc<Counters>,
    /// Where its log records go.
    pub log: between::Writer,
    /// What it shares with the others.
    pub process: Arc<Process>,
    /// The first 8 bytes of the request ids that it makes: different for each start of a process and each core.
    pub id_prefix: u64,
}
