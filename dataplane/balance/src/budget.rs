//! A service's limits, which hold for the process, and how a core that is refused gets its turn.
//!
//! Upstream pools are per core, limits are not: a core at the limit may starve beside another core's idle connections.
//! So two sets of cores stand beside the counts: who *wants* a connection, and who may hold an *idle* one. Waking a core is
//! the caller's, as is what a connection is. The protocol:
//!
//! ```text
//! a core is refused         want(me); then try again; still refused: wake every core that take_holder(me) gives, wait
//! a core releases           permit.release(me) → Some(core): wake it
//! a connection falls idle   put it into the pool; if keep_idle(me): take it out again, close it, release
//! a core is woken           give up its idle connections while wanted() (close, release); try for its own waiters;
//!                           a core that finds it has no more need: settle(me) → Some(core): wake it
//! ```
//!
//! No wake-up is lost. *Release against refusal*: the releaser lowers the count, passes a fence and looks for waiters; the
//! refused core enters itself, passes a fence and looks at the count. Of two such sequences at least one sees the
//! other (C++20 [atomics.order], sequentially consistent fences): the core gets the connection, or is woken. *Idle
//! against refusal*: the same with "enters itself as holder, looks for waiters" against "enters itself as waiter, looks for holders".
//! A holder's entry is left in place while its pool empties and fills (so that requests write nothing shared); it goes when
//! a refused core takes it, which wakes the holder, and `keep_idle` enters it again.

use std::ops::Deref;

use crossbeam_utils::CachePadded;

use crate::cores::CoreSet;
use crate::sync::{AtomicU32, Ordering, fence};

/// How much of a service the whole process may use at once. Zero refuses everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Upstream connections, idle ones included.
    pub connections: u32,
    /// Requests that wait for a connection.
    pub pending: u32,
    /// Requests under way.
    pub requests: u32,
}

impl Default for Limits {
    /// Envoy's defaults: 1024 of each.
    fn default() -> Self {
        Limits { connections: 1024, pending: 1024, requests: 1024 }
    }
}

impl Limits {
    fn of(&self, kind: Kind) -> u32 {
        match kind {
            Kind::Connection => self.connections,
            Kind::Pending => self.pending,
            Kind::Request => self.requests,
        }
    }
}

/// What a permit is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One upstream connection.
    Connection,
    /// One request that waits for a connection.
    Pending,
    /// One request under way.
    Request,
}

/// What a service uses of its limits, counted over all cores and carried from plan to plan. The limits themselves belong
/// to the plan: a plan that lowers them takes nothing back, and refuses until the counts have fallen below.
#[derive(Debug, Default)]
pub struct Budget {
    /// Written on every request, so on a line of its own, like each of the others.
    requests: CachePadded<AtomicU32>,
    connections: CachePadded<AtomicU32>,
    pending: CachePadded<AtomicU32>,
    wanting: CachePadded<CoreSet>,
    holders: CachePadded<CoreSet>,
}

impl Budget {
    /// Nothing used, nobody waiting.
    pub fn new() -> Self {
        Budget::default()
    }

    /// Takes one of `kind`, unless that many are taken as `limits` allow. Never more than the limit are held at
    /// once, and never is one refused while fewer are. `budget` is any handle that always leads to the same budget.
    pub fn try_take<R: Deref<Target = Budget>>(budget: R, kind: Kind, limits: &Limits) -> Option<Permit<R>> {
        let limit = limits.of(kind);
        let count = budget.count(kind);
        count
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| (used < limit).then_some(used.wrapping_add(1)))
            .ok()?;
        Some(Permit { budget, held: Some(kind) })
    }

    /// [`try_take`](Budget::try_take) of an upstream connection.
    pub fn try_connection<R: Deref<Target = Budget>>(budget: R, limits: &Limits) -> Option<Permit<R>> {
        Budget::try_take(budget, Kind::Connection, limits)
    }

    /// [`try_take`](Budget::try_take) of a place among the requests that wait.
    pub fn try_pending<R: Deref<Target = Budget>>(budget: R, limits: &Limits) -> Option<Permit<R>> {
        Budget::try_take(budget, Kind::Pending, limits)
    }

    /// [`try_take`](Budget::try_take) of a request under way.
    pub fn try_request<R: Deref<Target = Budget>>(budget: R, limits: &Limits) -> Option<Permit<R>> {
        Budget::try_take(budget, Kind::Request, limits)
    }

    /// How many of `kind` are taken, by all cores.
    pub fn used(&self, kind: Kind) -> u32 {
        self.count(kind).load(Ordering::Relaxed)
    }

    /// Enters `core` as waiting for a connection. The caller must try once more after this, and only then wait.
    pub fn want(&self, core: usize) {
        self.wanting.add(core);
        fence(Ordering::SeqCst);
    }

    /// Whether any core may be waiting for a connection: one relaxed load.
    pub fn wanted(&self) -> bool {
        self.wanting.any()
    }

    /// The next core that waits, other than `not`, taken out of the waiting: the caller must wake it. For use after a
    /// connection was given up ([`Permit::release`] does it).
    pub fn take_wanting(&self, not: usize) -> Option<usize> {
        fence(Ordering::SeqCst);
        self.wanting.take_one(not)
    }

    /// Ends the waiting of `core`, which needs no connection any more. If somebody had already taken it out to wake
    /// it, that wake belongs to another: the core returned, if any, must be woken instead.
    pub fn settle(&self, core: usize) -> Option<usize> {
        if self.wanting.remove(core) { None } else { self.take_wanting(core) }
    }

    /// Tells that `core` has put a connection into its idle pool, which must happen before. True if a core
    /// waits for it: give it up. Two loads when nothing has changed.
    pub fn keep_idle(&self, core: usize) -> bool {
        if !self.holders.contains(core) {
            self.holders.add(core);
            fence(Ordering::SeqCst);
        }
        self.wanted()
    }

    /// A core other than `not` that may hold idle connections, taken out of the holders: the caller, which was refused
    /// and has entered itself with [`want`](Budget::want), must wake it.
    pub fn take_holder(&self, not: usize) -> Option<usize> {
        self.holders.take_one(not)
    }

    fn count(&self, kind: Kind) -> &AtomicU32 {
        match kind {
            Kind::Connection => &self.connections,
            Kind::Pending => &self.pending,
            Kind::Request => &self.requests,
        }
    }
}

/// The right to one connection, one place in the queue, or one request. Given back when it is dropped.
#[derive(Debug)]
#[must_use = "what was taken is given back when this is dropped"]
pub struct Permit<R: Deref<Target = Budget>> {
    budget: R,
    /// `None` once it was given back.
    held: Option<Kind>,
}

impl<R: Deref<Target = Budget>> Permit<R> {
    /// The budget it was taken from.
    pub fn budget(&self) -> &R {
        &self.budget
    }

    /// Gives a connection back and returns the core, other than `core` itself, that waits for it and must be woken.
    /// (Dropping the permit gives back as well, and wakes nobody: for a process that ends.)
    #[must_use = "the core returned must be woken"]
    pub fn release(mut self, core: usize) -> Option<usize> {
        self.give_back();
        self.budget.take_wanting(core)
    }

    fn give_back(&mut self) {
        if let Some(kind) = self.held.take() {
            self.budget.count(kind).fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl<R: Deref<Target = Budget>> Drop for Permit<R> {
    fn drop(&mut self) {
        self.give_back();
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::rc::Rc;
    use std::sync::Arc;

    const ONE: Limits = Limits { connections: 1, pending: 2, requests: 3 };

    #[test]
    fn each_kind_has_its_own_limit() {
        for (kind, limit) in [(Kind::Connection, 1), (Kind::Pending, 2), (Kind::Request, 3)] {
            let budget = Rc::new(Budget::new());
            let held: Vec<_> = (0..5).filter_map(|_| Budget::try_take(budget.clone(), kind, &ONE)).collect();
            assert_eq!((held.len(), budget.used(kind)), (limit, limit as u32));
            drop(held);
            assert_eq!(budget.used(kind), 0);
        }
    }

    #[test]
    fn zero_refuses_and_the_highest_limit_does_not_wrap() {
        let budget = Budget::new();
        assert!(Budget::try_request(&budget, &Limits { requests: 0, ..ONE }).is_none());
        assert!(Budget::try_request(&budget, &Limits { requests: u32::MAX, ..ONE }).is_some());
        assert_eq!(budget.used(Kind::Request), 0);
    }

    #[test]
    fn a_lower_limit_refuses_until_the_count_has_fallen() {
        let budget = Arc::new(Budget::new());
        let mut held: Vec<_> = (0..3).filter_map(|_| Budget::try_request(budget.clone(), &ONE)).collect();
        let lower = Limits { requests: 2, ..ONE };
        held.pop();
        assert!(Budget::try_request(budget.clone(), &lower).is_none());
        held.pop();
        assert!(Budget::try_request(budget.clone(), &lower).is_some());
    }

    #[test]
    fn a_release_names_one_waiting_core_and_never_its_own() {
        let budget = Budget::new();
        let permit = Budget::try_connection(&budget, &ONE).unwrap();
        for core in [0, 1, 2] {
            budget.want(core);
        }
        assert_eq!(permit.release(1), Some(2));
        assert_eq!(Budget::try_connection(&budget, &ONE).unwrap().release(1), Some(0));
        assert_eq!(Budget::try_connection(&budget, &ONE).unwrap().release(1), None);
        assert!(budget.wanted(), "core 1 still waits");
        assert_eq!(budget.settle(1), None);
        assert!(!budget.wanted());
    }

    #[test]
    fn a_wake_that_came_too_late_is_passed_on() {
        let budget = Budget::new();
        for core in [3, 4] {
            budget.want(core);
        }
        assert_eq!(budget.take_wanting(2), Some(3));
        assert_eq!(budget.settle(3), Some(4), "core 3 was woken and has no need: core 4's turn");
    }

    #[test]
    fn holders_hear_of_waiters_and_waiters_of_holders() {
        let budget = Budget::new();
        assert!(!budget.keep_idle(5));
        budget.want(6);
        assert!(budget.keep_idle(5));
        assert_eq!(budget.take_holder(6), Some(5));
        assert_eq!(budget.take_holder(6), None);
        assert!(budget.keep_idle(5), "enters itself again");
        assert_eq!(budget.take_holder(6), Some(5));
    }
}

#[cfg(all(test, loom))]
mod loom_models {
    use super::*;
    use loom::thread;
    use std::sync::Arc;

    const ONE: Limits = Limits { connections: 1, pending: 1, requests: 2 };

    /// Two cores and a limit of one: never two inside at once, one at least gets in, and the count comes back to zero.
    #[test]
    fn loom_a_budget_is_never_exceeded() {
        loom::model(|| {
            let budget = Arc::new(Budget::new());
            let inside = Arc::new(AtomicU32::new(0));
            let work = |budget: Arc<Budget>, inside: Arc<AtomicU32>| {
                let permit = Budget::try_connection(budget, &ONE);
                if permit.is_some() {
                    assert_eq!(inside.fetch_add(1, Ordering::Relaxed), 0, "more inside than the limit");
                    inside.fetch_sub(1, Ordering::Relaxed);
                }
                permit.is_some()
            };
            let thread = {
                let (budget, inside) = (budget.clone(), inside.clone());
                thread::spawn(move || work(budget, inside))
            };
            let here = work(budget.clone(), inside);
            let there = thread.join().unwrap();
            assert!(here || there, "both refused, though nothing was taken");
            assert_eq!(budget.used(Kind::Connection), 0);
        });
    }

    /// A core is refused while another releases: it gets the connection on its second try, or it is woken.
    #[test]
    fn loom_no_release_is_missed() {
        loom::model(|| {
            let budget = Arc::new(Budget::new());
            let held = Budget::try_connection(budget.clone(), &ONE).unwrap();
            let releaser = thread::spawn(move || held.release(0));
            let got = Budget::try_connection(budget.clone(), &ONE).is_some() || {
                budget.want(1);
                Budget::try_connection(budget.clone(), &ONE).is_some()
            };
            let woken = releaser.join().unwrap() == Some(1);
            assert!(got || woken, "refused, and nobody will wake it");
        });
    }

    /// A core is refused while another's connection falls idle: the holder gives it up, or the refused core
    /// finds the holder and wakes it. `known`: the holder was entered before, as it is in the usual case.
    fn idle_against_refusal(known: bool) {
        loom::model(move || {
            let budget = Arc::new(Budget::new());
            if known {
                budget.keep_idle(0);
            }
            let held = Budget::try_connection(budget.clone(), &ONE).unwrap();
            let holder = {
                let budget = budget.clone();
                thread::spawn(move || if budget.keep_idle(0) { (None, held.release(0)) } else { (Some(held), None) })
            };
            budget.want(1);
            let got = Budget::try_connection(budget.clone(), &ONE).is_some();
            let wakes_holder = budget.take_holder(1) == Some(0);
            let (kept, woken) = holder.join().unwrap();
            // A woken holder sees that it is wanted and gives up what it kept.
            let woken =
                woken.or_else(|| kept.filter(|_| wakes_holder && budget.wanted()).and_then(|held| held.release(0)));
            assert!(got || woken == Some(1), "an idle connection is kept, and a core starves beside it");
        });
    }

    #[test]
    fn loom_no_idle_connection_is_kept_from_a_waiter() {
        idle_against_refusal(false);
    }

    #[test]
    fn loom_no_idle_connection_of_a_known_holder_is_kept_from_a_waiter() {
        idle_against_refusal(true);
    }

    /// A waiter that no longer needs its turn passes the wake on to the next, so that no free connection goes unseen.
    #[test]
    fn loom_a_wake_is_passed_on() {
        loom::model(|| {
            let budget = Arc::new(Budget::new());
            let held = Budget::try_connection(budget.clone(), &ONE).unwrap();
            budget.want(1);
            budget.want(2);
            let releaser = thread::spawn(move || held.release(0));
            let passed = budget.settle(1);
            let released = releaser.join().unwrap();
            assert!(passed == Some(2) || released == Some(2), "core 2 waits beside a free connection");
        });
    }
}
