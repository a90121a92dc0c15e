//! Who asks whom: requests by the client's identity and the service.
//!
//! ```text
//! Pairs, shared by all cores:  hash(identity, service) ─► [ pair | pair | - | pair | ... ]   slots, each set once, never emptied
//! PairCounts, one a core:                        PairId ─► [ 6 counts ] ...                   by status class; the last for `other`
//! ```
//! Identities come from certificates that a trusted authority signed, but there may be any number of them over time: the table is
//! bounded, and what finds no room is counted together.

use super::Count;
use std::sync::OnceLock;

/// Pairs that are counted for themselves.
pub const PAIRS: usize = 1024;
/// Slots that are looked at for one pair. This, not the table's size, bounds what a look-up costs.
const PROBES: usize = 16;

/// Which pair: a slot of [`Pairs`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PairId(u16);

/// A client's identity and the service that it asked.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PairKey {
    /// The client's SPIFFE ID.
    pub identity: Box<str>,
    /// The service's name; empty when the route answered by itself.
    pub service: Box<str>,
}

/// The pairs that were seen. Shared by all cores.
#[derive(Debug)]
pub struct Pairs {
    slots: Box<[OnceLock<Slot>]>,
}

#[derive(Debug)]
struct Slot {
    hash: u64,
    key: PairKey,
}

impl PairId {
    /// All the pairs that found no room.
    pub const OTHER: PairId = PairId(PAIRS as u16);
}

impl Default for Pairs {
    fn default() -> Pairs {
        Pairs { slots: (0..PAIRS).map(|_| OnceLock::new()).collect() }
    }
}

impl Pairs {
    /// The id of a pair; for one that is new and finds no room, [`PairId::OTHER`]. Nothing is allocated for a pair that is
    /// known: a hash over both names, and usually one comparison.
    pub fn intern(&self, identity: &str, service: &str) -> PairId {
        let hash = hash(identity, service);
        // An odd step of the pair's own visits different slots and does not queue behind its neighbours.
        let (first, step) = (hash as usize, (hash >> 32) as usize | 1);
        for probe in 0..PROBES {
            let at = first.wrapping_add(step.wrapping_mul(probe)) % PAIRS;
            let slot = &self.slots[at];
            // The key is made before the slot is taken, so that another core waits at most for it to be moved in.
            let taken = slot.get().or_else(|| {
                let key = PairKey { identity: identity.into(), service: service.into() };
                let _ = slot.set(Slot { hash, key });
                slot.get()
            });
            if taken.is_some_and(|taken| taken.is(hash, identity, service)) {
                return PairId(at as u16);
            }
        }
        PairId::OTHER
    }

    /// The pairs there are, with their ids; [`PairId::OTHER`] is not among them.
    pub fn iter(&self) -> impl Iterator<Item = (PairId, &PairKey)> {
        self.slots.iter().enumerate().filter_map(|(at, slot)| Some((PairId(at as u16), &slot.get()?.key)))
    }
}

impl Slot {
    fn is(&self, hash: u64, identity: &str, service: &str) -> bool {
        self.hash == hash && *self.key.identity == *identity && *self.key.service == *service
    }
}

/// What one core counts by pair. Takes no memory before the first request with an identity.
#[derive(Debug, Default)]
pub struct PairCounts(OnceLock<Box<[PairCount]>>);

#[derive(Debug, Default)]
struct PairCount {
    classes: [Count; 6],
    denied: Count,
}

impl PairCounts {
    /// Counts one request by its status (0 for none), and whether policy refused it; only the core may.
    #[inline]
    pub fn record(&self, pair: PairId, status: u16, denied: bool) {
        let counts = self.0.get_or_init(|| (0..=PAIRS).map(|_| PairCount::default()).collect());
        let count = &counts[usize::from(pair.0)];
        count.classes[usize::from(status / 100).min(5)].add(1);
        if denied {
            count.denied.add(1);
        }
    }

    /// A pair's requests by class: `none`, 1xx, 2xx, 3xx, 4xx, 5xx.
    pub fn classes(&self, pair: PairId) -> [u64; 6] {
        self.0.get().map_or([0; 6], |counts| counts[usize::from(pair.0)].classes.each_ref().map(Count::value))
    }

    /// Of these, those that policy refused.
    pub fn denied(&self, pair: PairId) -> u64 {
        self.0.get().map_or(0, |counts| counts[usize::from(pair.0)].denied.value())
    }
}

/// Eight bytes a step, by a folded multiplication. It has no secret, for the same run in the simulator: whoever finds names
/// that collide gets them counted as `other`.
fn hash(identity: &str, service: &str) -> u64 {
    // Digits of the golden ratio here, of pi below.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64 ^ identity.len() as u64;
    let mut mix = |word: u64| {
        let product = u128::from(state ^ word) * u128::from(0x243f_6a88_85a3_08d3_u64);
        state = (product as u64) ^ ((product >> 64) as u64) ^ word.rotate_left(32);
    };
    for text in [identity, service] {
        let (words, rest) = text.as_bytes().as_chunks::<8>();
        words.iter().for_each(|word| mix(u64::from_le_bytes(*word)));
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        mix(u64::from_le_bytes(last));
    }
    mix(0);
    state
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn identity(number: usize) -> String {
        format!("spiffe://shop/ns/web/sa/client-{number}")
    }

    #[test]
    fn a_pair_keeps_its_id_and_pairs_are_told_apart() {
        let pairs = Pairs::default();
        let first = pairs.intern("spiffe://shop/web", "cart");
        assert_eq!(pairs.intern("spiffe://shop/web", "cart"), first);
        let others = [("spiffe://shop/web", "pay"), ("spiffe://shop/we", "bcart"), ("spiffe://shop/web", "")];
        for (identity, service) in others {
            assert_ne!(pairs.intern(identity, service), first, "{identity} {service}");
        }
        assert_eq!(pairs.iter().count(), 4);
        let key = pairs.iter().find(|(id, _)| *id == first).unwrap().1;
        assert_eq!((&*key.identity, &*key.service), ("spiffe://shop/web", "cart"));
    }

    #[test]
    fn what_finds_no_room_is_other_and_known_pairs_stay() {
        let pairs = Pairs::default();
        let ids: Vec<PairId> = (0..20 * PAIRS).map(|number| pairs.intern(&identity(number), "cart")).collect();
        let own: Vec<usize> = (0..ids.len()).filter(|number| ids[*number] != PairId::OTHER).collect();
        let different: BTreeSet<u16> = own.iter().map(|number| ids[*number].0).collect();
        assert_eq!(different.len(), own.len(), "no two pairs share an id");
        assert_eq!(pairs.iter().count(), own.len());
        assert!(own.len() <= PAIRS && own.len() > PAIRS * 9 / 10, "{}", own.len());
        // Names spread: a table that is half full has turned nobody away.
        assert!(own[..PAIRS / 2].iter().enumerate().all(|(at, number)| at == *number));
        for number in own {
            assert_eq!(pairs.intern(&identity(number), "cart"), ids[number]);
        }
    }

    #[test]
    fn cores_that_meet_a_pair_at_once_agree() {
        let pairs = Pairs::default();
        let all = || (0..500).map(|number| pairs.intern(&identity(number), "cart")).collect::<Vec<_>>();
        let seen = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(all)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
        });
        assert!(seen.iter().all(|ids| *ids == seen[0]));
        assert_eq!(pairs.iter().count(), 500);
    }

    #[test]
    fn requests_are_counted_by_class() {
        let (pairs, counts) = (Pairs::default(), PairCounts::default());
        let pair = pairs.intern("spiffe://shop/web", "cart");
        assert_eq!(counts.classes(pair), [0; 6]);
        for status in [200, 204, 503, 0, 999] {
            counts.record(pair, status, false);
        }
        counts.record(PairId::OTHER, 403, true);
        assert_eq!((counts.classes(pair), counts.denied(pair)), ([1, 0, 2, 0, 0, 2], 0));
        assert_eq!((counts.classes(PairId::OTHER), counts.denied(PairId::OTHER)), ([0, 0, 0, 0, 1, 0], 1));
    }
}
