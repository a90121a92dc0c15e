//! The timer wheel: four levels of 64 slots, a millisecond a slot on the lowest (4.6 hours in all; what is later is
//! looked at again then).
//!
//! Deadlines on the request path move later far more often than they fire, so a [`Timer`] is lazy: moving it later is
//! a store, and the wheel finds out when the old time comes. Only moving it earlier touches the wheel.

const LEVELS: usize = 4;
const SLOTS: usize = 64;
const TICK_NS: u64 = 1_000_000;
const NONE: u32 = u32::MAX;

/// Who is told when the time has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    Task(u32),
    Socket(u32),
}

/// A deadline of one owner.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timer {
    /// When the owner wants to be told; `u64::MAX` is never.
    pub(crate) deadline_ns: u64,
    node: u32,
}

impl Timer {
    pub(crate) const NONE: Timer = Timer { deadline_ns: u64::MAX, node: NONE };
}

#[derive(Clone, Copy)]
struct Node {
    next: u32,
    prev: u32,
    /// The tick that the node is filed under, always at or before the owner's deadline.
    tick: u64,
    slot: u16,
    owner: Owner,
}

pub(crate) struct Wheel {
    nodes: Vec<Node>,
    free: Vec<u32>,
    heads: [u32; LEVELS * SLOTS],
    used: [u64; LEVELS],
    tick: u64,
    fired: Vec<(u32, Owner)>,
}

impl Wheel {
    pub(crate) fn new() -> Wheel {
        Wheel {
            nodes: Vec::new(),
            free: Vec::new(),
            heads: [NONE; LEVELS * SLOTS],
            used: [0; LEVELS],
            tick: 0,
            fired: Vec::new(),
        }
    }

    /// Gives `timer` a new deadline (`u64::MAX`: none, which leaves the node to be found out).
    #[inline]
    pub(crate) fn set(&mut self, timer: &mut Timer, deadline_ns: u64, owner: Owner) {
        timer.deadline_ns = deadline_ns;
        if deadline_ns == u64::MAX {
            return;
        }
        let tick = ticks(deadline_ns);
        if timer.node != NONE {
            if self.nodes[timer.node as usize].tick <= tick {
                return;
            }
            self.unlink(timer.node);
        } else {
            timer.node = self.node(owner);
        }
        self.link(timer.node, tick);
    }

    /// Forgets a timer.
    pub(crate) fn cancel(&mut self, timer: Timer) {
        if timer.node != NONE {
            self.unlink(timer.node);
            self.free.push(timer.node);
        }
    }

    /// When [`Wheel::advance`] should be called next at the latest; `None` when nothing is filed.
    pub(crate) fn next_ns(&self) -> Option<u64> {
        (0..LEVELS)
            .filter(|level| self.used[*level] != 0)
            .map(|level| {
                let shift = 6 * level as u32;
                let now = self.tick >> shift;
                let ahead = self.used[level].rotate_right((now & 63) as u32 + 1).trailing_zeros() as u64 + 1;
                ((now + ahead) << shift) * TICK_NS
            })
            .min()
    }

    /// Moves the wheel to `now_ns`. `due` is asked for each node that came up: it returns the owner's true deadline, and
    /// the node is filed again when that is later, or forgotten when it is `u64::MAX`; an owner whose time has come is told.
    pub(crate) fn advance(&mut self, now_ns: u64, mut due: impl FnMut(Owner, bool) -> u64) {
        let target = now_ns / TICK_NS;
        while self.tick < target {
            let Some(next) = self.next_ns() else {
                self.tick = target;
                break;
            };
            self.tick = (next / TICK_NS).min(target);
            self.come_up();
        }
        let mut fired = std::mem::take(&mut self.fired);
        for (node, owner) in fired.drain(..) {
            let deadline = due(owner, false);
            if deadline == u64::MAX || deadline <= now_ns {
                self.free.push(node);
                due(owner, true);
            } else {
                self.link(node, ticks(deadline));
            }
        }
        self.fired = fired;
    }

    /// Empties the slots that begin at the current tick: lowest level fires, higher levels are filed again lower.
    fn come_up(&mut self) {
        for level in (0..LEVELS).rev() {
            let shift = 6 * level as u32;
            if self.tick & ((1 << shift) - 1) != 0 {
                continue;
            }
            let slot = level * SLOTS + ((self.tick >> shift) & 63) as usize;
            while self.heads[slot] != NONE {
                let node = self.heads[slot];
                self.unlink(node);
                if self.nodes[node as usize].tick <= self.tick {
                    self.fired.push((node, self.nodes[node as usize].owner));
                } else {
                    self.link(node, self.nodes[node as usize].tick);
                }
            }
        }
    }

    fn node(&mut self, owner: Owner) -> u32 {
        let node = Node { next: NONE, prev: NONE, tick: 0, slot: 0, owner };
        match self.free.pop() {
            Some(index) => {
                self.nodes[index as usize] = node;
                index
            }
            None => {
                self.nodes.push(node);
                self.nodes.len() as u32 - 1
            }
        }
    }

    fn link(&mut self, node: u32, tick: u64) {
        let tick = tick.max(self.tick + 1);
        let ahead = tick ^ self.tick;
        let level = ((63 - ahead.leading_zeros()) / 6).min(LEVELS as u32 - 1) as usize;
        // Beyond the wheel's reach: the furthest slot of the highest level, looked at again then.
        let reach = (self.tick >> 18) + 63;
        let filed = if level == LEVELS - 1 { (tick >> 18).min(reach) } else { tick >> (6 * level) };
        let slot = level * SLOTS + (filed & 63) as usize;
        let head = self.heads[slot];
        self.nodes[node as usize].next = head;
        self.nodes[node as usize].prev = NONE;
        self.nodes[node as usize].tick = tick;
        self.nodes[node as usize].slot = slot as u16;
        if head != NONE {
            self.nodes[head as usize].prev = node;
        }
        self.heads[slot] = node;
        self.used[level] |= 1 << (slot % SLOTS);
    }

    fn unlink(&mut self, node: u32) {
        let Node { next, prev, slot, .. } = self.nodes[node as usize];
        if prev == NONE {
            self.heads[slot as usize] = next;
        } else {
            self.nodes[prev as usize].next = next;
        }
        if next != NONE {
            self.nodes[next as usize].prev = prev;
        }
        if self.heads[slot as usize] == NONE {
            self.used[slot as usize / SLOTS] &= !(1 << (slot as usize % SLOTS));
        }
    }
}

/// The first tick at which a deadline has passed.
fn ticks(deadline_ns: u64) -> u64 {
    deadline_ns.div_ceil(TICK_NS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    /// Advances in steps and notes when each owner was told.
    fn run(wheel: &mut Wheel, timers: &mut HashMap<u32, Timer>, until_ns: u64, step_ns: u64) -> Vec<(u32, u64)> {
        let mut told = Vec::new();
        let mut now = 0;
        while now < until_ns {
            now += step_ns;
            wheel.advance(now, |owner, fire| {
                let Owner::Task(id) = owner else { unreachable!() };
                let timer = timers.get_mut(&id).expect("a timer that was set");
                if fire {
                    if timer.deadline_ns != u64::MAX {
                        told.push((id, now));
                    }
                    *timer = Timer::NONE;
                }
                timer.deadline_ns
            });
        }
        told
    }

    #[test]
    fn every_deadline_fires_once_and_never_early() {
        let mut wheel = Wheel::new();
        let mut timers = HashMap::new();
        let mut seed = 7u64;
        for id in 0..2_000 {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let mut timer = Timer::NONE;
            wheel.set(&mut timer, 1 + (seed >> 20) % 400_000_000_000, Owner::Task(id));
            timers.insert(id, timer);
        }
        let deadlines: HashMap<u32, u64> = timers.iter().map(|(id, timer)| (*id, timer.deadline_ns)).collect();
        let told = run(&mut wheel, &mut timers, 401_000_000_000, 3_700_000);
        assert_eq!(told.len(), 2_000);
        for (id, at) in told {
            assert!(
                at >= deadlines[&id] && at <= deadlines[&id] + 3_700_000 + TICK_NS,
                "{id}: {at} {}",
                deadlines[&id]
            );
        }
    }

    #[test]
    fn a_deadline_moved_later_fires_then_and_one_moved_earlier_fires_at_once() {
        let mut wheel = Wheel::new();
        let mut timers = HashMap::new();
        for (id, first, second) in [(1, 5, 5_000), (2, 5_000, 5), (3, 5, u64::MAX / 1_000_000)] {
            let mut timer = Timer::NONE;
            wheel.set(&mut timer, first * TICK_NS, Owner::Task(id));
            wheel.set(&mut timer, second * TICK_NS, Owner::Task(id));
            timers.insert(id, timer);
        }
        let told = run(&mut wheel, &mut timers, 10_000 * TICK_NS, TICK_NS);
        assert_eq!(told, [(2, 5 * TICK_NS), (1, 5_000 * TICK_NS)]);
    }

    #[test]
    fn a_wheel_with_nothing_due_names_no_time_and_jumps() {
        let mut wheel = Wheel::new();
        assert_eq!(wheel.next_ns(), None);
        wheel.advance(3_600_000_000_000, |_, _| unreachable!());
        let mut timer = Timer::NONE;
        wheel.set(&mut timer, 3_600_000_000_000 + 70 * TICK_NS, Owner::Task(0));
        assert!(wheel.next_ns().is_some_and(|at| at <= 3_600_000_000_000 + 70 * TICK_NS));
        wheel.cancel(timer);
        assert_eq!(wheel.next_ns(), None);
    }
}
