//! A simulated world: several cores on one thread, a network in memory, virtual time, seeded faults.
//!
//! The same seed gives the same run. Beyond faults, the world checks what a kernel would not: it panics, naming the
//! seed, when an operation is queued on a closed descriptor, a descriptor is closed while something is armed on it, two
//! sends or two receives are armed at once, two operations under way share a tag, or memory under a send changes
//! before its completion. Buffers that come back to the driver are overwritten, so that a use after the return shows.
//!
//! | module | what it is |
//! | --- | --- |
//! | `faults` | what goes wrong, and how often |
//! | `network` | addresses, connections, events in the order of virtual time |
//! | `operation` | what the kernel does with operations on descriptors |
//! | `node` | one core's side: submissions, completions, provided buffers |
//! | `driver` | the driver that the core sees |

mod driver;
mod faults;
mod network;
mod node;
mod operation;
mod random;

pub(crate) use driver::SimDriver;
pub use faults::Faults;

use super::Driver;
use crate::core::{self, Config, Shared, Stats};
use crate::host::Address;
use crate::task;
use crate::wake::Wake;
use network::Network;
use random::Random;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

/// A core of the simulation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeId(usize);

/// Cores that share a simulated network, and the time.
pub struct World {
    network: Rc<RefCell<Network>>,
    nodes: Vec<Member>,
    random: Random,
}

struct Member {
    shared: Box<Shared>,
    stats: Arc<Stats>,
    /// The last turn did something, or somebody acted on the core: what follows from it wants a turn.
    again: bool,
    stopped: bool,
}

impl World {
    /// An empty world at time zero.
    pub fn new(seed: u64, faults: Faults) -> World {
        World {
            network: Rc::new(RefCell::new(Network::new(seed, faults))),
            nodes: Vec::new(),
            random: Random::new(seed ^ 0x77_6f72_6c64),
        }
    }

    /// Adds a core; `init` runs with it as the current core, as in [`crate::run`].
    pub fn node(&mut self, config: &Config, init: impl FnOnce(Arc<Stats>, Wake) + 'static) -> NodeId {
        let driver = SimDriver::new(self.network.clone());
        let shared = Shared::new(config, Driver::Sim(Box::new(driver)));
        let entered = shared.enter();
        let (stats, wake) = shared.peek(|core| (core.stats(), core.wake.clone()));
        init(stats.clone(), wake);
        drop(entered);
        self.nodes.push(Member { shared, stats, again: true, stopped: false });
        NodeId(self.nodes.len() - 1)
    }

    /// Runs all cores until the virtual time, or until nothing will ever happen.
    pub fn run(&mut self, until_ns: u64) {
        self.run_until(until_ns, || false);
    }

    /// Runs all cores until the condition holds (looked at after every turn), the virtual time has come, or nothing
    /// will ever happen. Says whether the condition holds.
    pub fn run_until(&mut self, limit_ns: u64, mut condition: impl FnMut() -> bool) -> bool {
        loop {
            if condition() {
                return true;
            }
            if self.now_ns() >= limit_ns {
                return false;
            }
            let mut active: Vec<usize> = (0..self.nodes.len()).filter(|node| self.wants_turn(*node)).collect();
            if active.is_empty() {
                match self.next_ns() {
                    Some(at) if at < limit_ns => self.network.borrow_mut().pass_until(at),
                    Some(_) => self.network.borrow_mut().pass_until(limit_ns),
                    None => return condition(),
                }
            }
            while !active.is_empty() {
                let next = active.swap_remove(self.random.below(active.len() as u64) as usize);
                self.turn(next);
                if condition() {
                    return true;
                }
            }
        }
    }

    /// The virtual time.
    pub fn now_ns(&self) -> u64 {
        self.network.borrow().now_ns
    }

    /// A hash over every completion delivered so far, with its time: the same seed gives the same.
    pub fn trace_hash(&self) -> u64 {
        self.network.borrow().trace
    }

    /// What a core counts.
    pub fn stats(&self, node: NodeId) -> Arc<Stats> {
        self.nodes[node.0].stats.clone()
    }

    /// Acts with a core as the current one: starts tasks, rings, looks.
    pub fn with_node<R>(&mut self, node: NodeId, act: impl FnOnce() -> R) -> R {
        let member = &mut self.nodes[node.0];
        member.again = true;
        let _entered = member.shared.enter();
        act()
    }

    /// Connects to this address are never answered from now on.
    pub fn blackhole(&mut self, address: Address) {
        self.network.borrow_mut().blackholes.push(address);
    }

    /// Drops all tasks of all cores, lets everything close, and panics when a descriptor stays open or a buffer did not
    /// come back.
    pub fn check_leaks(&mut self) {
        for member in &mut self.nodes {
            let _entered = member.shared.enter();
            task::drop_all();
            member.again = true;
            member.stopped = true;
        }
        let limit = self.now_ns() + 60_000_000_000;
        self.run(limit);
        for (node, member) in self.nodes.iter().enumerate() {
            let network = self.network.borrow();
            network.check_closed(node);
            let (open, held) = member.shared.peek(|core| (core.sockets.open, core.buffers.away()));
            if open > 0 || held > 0 {
                network.fail(&format!("node {node} ends with {open} sockets in its table and {held} buffers held"));
            }
        }
    }

    fn wants_turn(&self, node: usize) -> bool {
        let member = &self.nodes[node];
        member.again
            || self.network.borrow().nodes[node].has_work()
            || member.shared.peek(|core| {
                core.has_ready() || core.next_timer_ns().is_some_and(|at| at <= self.network.borrow().now_ns)
            })
    }

    fn next_ns(&self) -> Option<u64> {
        let timers = self.nodes.iter().filter_map(|member| member.shared.peek(|core| core.next_timer_ns()));
        timers.chain(self.network.borrow().next_event_ns()).min()
    }

    fn turn(&mut self, node: usize) {
        let member = &mut self.nodes[node];
        let _entered = member.shared.enter();
        member.again = core::turn(&member.shared, false);
        if !member.stopped && member.shared.peek(|core| core.stopped) {
            member.stopped = true;
            member.again = true;
            task::drop_all();
        }
        self.network.borrow_mut().turn_passes();
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // Destructors of tasks in an unknown state could panic again and hide the first panic.
            self.nodes.drain(..).for_each(std::mem::forget);
            return;
        }
        for member in &mut self.nodes {
            let _entered = member.shared.enter();
            task::drop_all();
        }
    }
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("World").field("now_ns", &self.now_ns()).field("nodes", &self.nodes.len()).finish()
    }
}
