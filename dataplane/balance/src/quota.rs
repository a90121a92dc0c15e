//! How many requests a client may make: the generic cell rate algorithm (ITU-T I.371) in one atomic word a client.
//!
//! ```text
//! client, a hash ─┬─► one of the sets ─► 8 slots, one cache line; the slot with its tag is its bucket
//!                 └─► tag              ─► none, and no slot to be had: the bucket that all such clients share
//! ```
//!
//! A bucket is the time at which it will be full again: in the past, it is full; a burst ahead, it is empty. Nothing ticks,
//! and a full bucket says nothing that an absent one does not: so a slot is given to another client only when its bucket is
//! full, and whoever is forgotten has lost nothing and won nothing.

mod rate;
mod slots;

use crossbeam_utils::CachePadded;
use rate::Rate;
use slots::{Claims, SLOTS, Set, Spent, Tag};

use crate::sync::AtomicU64;

/// More clients than this are not told apart.
const MOST_CLIENTS: usize = 1 << 24;
/// Slots for each client that is to be told apart: with as many of them active at once as were asked for, fewer than one
/// in 100 finds no slot in its set (8 slots, 4 clients on average, by Poisson's distribution).
const SLOTS_A_CLIENT: usize = 2;

/// A rate and a burst for each of many clients, shared by all cores. Lock-free: atomics alone, memory does not grow.
///
/// **One client, any number of cores.** In any span of `t` ns it gets at most `burst + t × rate` requests, and is never refused
/// one of them, to within 1/64 of a request (more coarsely beyond 100,000 a second: 1/2^n, at least one whole request).
/// Clocks of cores that differ by `d` ns may let `d × rate` more through.
///
/// **All together**: at most `(slots + 1) × (burst + t × rate)`, whoever they say they are.
///
/// **What is not exact.** Two clients share a bucket when they meet in a set of 8 with the same tag of 20 bits: a client does
/// so with a chance of at most 7 in 2^20. Times are kept to 43 bits. A client that comes back after they have wrapped (after
/// a week at the earliest, up to ten million requests a second) may find its bucket, which is full, as if it had just been used,
/// for as long as a burst takes and 8 s: with a chance of `burst + 8 s × rate` in 2^37, so of 10^-8 at a hundred a second.
#[derive(Debug)]
pub struct Quota {
    rate: Rate,
    sets: Box<[Set]>,
    claims: CachePadded<Claims>,
    /// The bucket of those that have no slot.
    shared: CachePadded<AtomicU64>,
}

/// What came of a request, in the terms of the `RateLimit` fields (draft-ietf-httpapi-ratelimit-headers): the limit is its
/// quota `q`, what remains its `r`, the reset its `t`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Whether the request may go on. Those that may not are not counted.
    pub allowed: bool,
    /// How many requests may be made at once: the burst.
    pub limit: u32,
    /// How many may be made now.
    pub remaining: u32,
    /// When the next one may be made, ns from now; 0 unless this one is refused.
    pub retry_after_ns: u64,
    /// When all of them may be made again, ns from now.
    pub reset_ns: u64,
    /// The client has no bucket of its own now.
    pub shared: bool,
}

impl Quota {
    /// `requests` in every `per_ns`, and up to `burst` at once; at least one each, bursts of up to 10^9, no more than one
    /// request in a nanosecond. So many clients are told apart at once, 16 bytes each; one alone takes 64.
    pub fn new(requests: u32, per_ns: u64, burst: u32, clients: usize) -> Quota {
        let slots = clients.clamp(1, MOST_CLIENTS) * SLOTS_A_CLIENT;
        Quota {
            rate: Rate::new(requests, per_ns, burst),
            sets: (0..slots.div_ceil(SLOTS)).map(|_| Set::new()).collect(),
            claims: CachePadded::new(Claims::new()),
            shared: CachePadded::new(AtomicU64::new(0)),
        }
    }

    /// How many clients can have a bucket of their own at once.
    pub fn slots(&self) -> usize {
        self.sets.len() * SLOTS
    }

    /// Takes one request of what `client` may make, which is a hash of who it is: the caller's, keyed, so that nobody can
    /// choose whose bucket is theirs. `now_ns` is of a clock that all cores share, at most 8 s behind any other core's.
    pub fn take(&self, client: u64, now_ns: u64) -> Taken {
        let now = self.rate.at(now_ns);
        // The tag is of the low bits, the set of the high ones.
        let set = (u128::from(client) * self.sets.len() as u128) >> 64;
        let own = self.sets[set as usize].take(Tag::of(client), &self.rate, now, &self.claims);
        let spent = own.unwrap_or_else(|| slots::take_shared(&self.shared, &self.rate, now));
        self.taken(spent, now_ns, own.is_none())
    }

    fn taken(&self, spent: Spent, now_ns: u64, shared: bool) -> Taken {
        let (Ok(debt) | Err(debt)) = spent;
        let over = self.rate.over(debt);
        Taken {
            allowed: spent.is_ok(),
            limit: self.rate.burst(),
            remaining: self.rate.remaining(debt),
            retry_after_ns: if spent.is_ok() { 0 } else { self.rate.until(now_ns, over) },
            reset_ns: self.rate.until(now_ns, debt),
            shared,
        }
    }
}

#[cfg(all(test, loom))]
mod models;
#[cfg(all(test, not(loom)))]
mod tests;
