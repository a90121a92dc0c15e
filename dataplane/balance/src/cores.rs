//! A set of cores that any core may change: who waits, or who has something to give.

use crate::sync::{AtomicU32, AtomicU64, Ordering};

/// The most cores a set can name: 0 to 255. Higher numbers are never members.
pub const MAX_CORES: usize = 256;

const WORDS: usize = MAX_CORES / 64;

/// A set of cores. Empty is by far the usual state, so asking for that is one load of a summary.
///
/// Everything here is relaxed: a set orders nothing by itself. [`Budget`](crate::Budget) builds the protocol of
/// waiting on it, with its own fences, and says what holds.
#[derive(Debug)]
pub struct CoreSet {
    /// At least the number of members: raised before a bit is set, lowered after it was cleared.
    summary: AtomicU32,
    words: [AtomicU64; WORDS],
}

impl CoreSet {
    /// The empty set.
    pub fn new() -> Self {
        CoreSet { summary: AtomicU32::new(0), words: std::array::from_fn(|_| AtomicU64::new(0)) }
    }

    /// Adds a core. True if it was not in the set (false also for a number from 256).
    pub fn add(&self, core: usize) -> bool {
        let Some((word, bit)) = self.place(core) else {
            return false;
        };
        self.summary.fetch_add(1, Ordering::Relaxed);
        let added = word.fetch_or(bit, Ordering::Relaxed) & bit == 0;
        if !added {
            self.summary.fetch_sub(1, Ordering::Relaxed);
        }
        added
    }

    /// Removes a core. False if somebody else took it out before, or it never was in.
    pub fn remove(&self, core: usize) -> bool {
        self.place(core).is_some_and(|(word, bit)| self.clear(word, bit))
    }

    /// Whether the core is in the set. One load.
    pub fn contains(&self, core: usize) -> bool {
        self.place(core).is_some_and(|(word, bit)| word.load(Ordering::Relaxed) & bit != 0)
    }

    /// Whether any core may be in the set. One load. False is exact as far as this core can know; true may turn out
    /// empty a moment later.
    pub fn any(&self) -> bool {
        self.summary.load(Ordering::Relaxed) != 0
    }

    /// Takes one core other than `not` out of the set. Of two that try, one gets it. The search begins behind `not`
    /// and goes round, so that low numbers are not served first.
    pub fn take_one(&self, not: usize) -> Option<usize> {
        if !self.any() {
            return None;
        }
        let start = (not + 1) % MAX_CORES;
        // The first word twice: what lies behind `start` at first, what lies before it at last.
        (0..=WORDS).find_map(|step| {
            let index = (start / 64 + step) % WORDS;
            let behind = u64::MAX << (start % 64);
            let part = match step {
                0 => behind,
                WORDS => !behind,
                _ => u64::MAX,
            };
            self.take_from(index, part, not)
        })
    }

    fn take_from(&self, index: usize, part: u64, not: usize) -> Option<usize> {
        let word = &self.words[index];
        let own = if not / 64 == index { 1 << (not % 64) } else { 0 };
        loop {
            let members = word.load(Ordering::Relaxed) & part & !own;
            if members == 0 {
                return None;
            }
            // A core that another took first is gone from the word: look again.
            if self.clear(word, members & members.wrapping_neg()) {
                return Some(index * 64 + members.trailing_zeros() as usize);
            }
        }
    }

    fn clear(&self, word: &AtomicU64, bit: u64) -> bool {
        let cleared = word.fetch_and(!bit, Ordering::Relaxed) & bit != 0;
        if cleared {
            self.summary.fetch_sub(1, Ordering::Relaxed);
        }
        cleared
    }

    fn place(&self, core: usize) -> Option<(&AtomicU64, u64)> {
        Some((self.words.get(core / 64)?, 1 << (core % 64)))
    }
}

impl Default for CoreSet {
    fn default() -> Self {
        CoreSet::new()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_core_beyond_the_last_is_never_a_member() {
        let set = CoreSet::new();
        assert!(!set.add(MAX_CORES) && !set.contains(MAX_CORES) && !set.remove(usize::MAX) && !set.any());
        set.add(3);
        assert_eq!(set.take_one(MAX_CORES + 7), Some(3));
    }

    #[test]
    fn taking_goes_round_behind_the_taker() {
        let set = CoreSet::new();
        for core in [2, 70, 255] {
            set.add(core);
        }
        assert_eq!(set.take_one(70), Some(255));
        assert_eq!(set.take_one(70), Some(2));
        assert_eq!(set.take_one(70), None, "its own bit is left alone");
        assert!(set.contains(70) && set.any());
    }

    proptest! {
        #[test]
        fn it_is_a_set(steps in prop::collection::vec((0u8..3, 0usize..256), 0..200)) {
            let set = CoreSet::new();
            let mut model = BTreeSet::new();
            for (step, core) in steps {
                match step {
                    0 => prop_assert_eq!(set.add(core), model.insert(core)),
                    1 => prop_assert_eq!(set.remove(core), model.remove(&core)),
                    _ => {
                        let next = model.range(core + 1..).next().or_else(|| model.range(..core).next()).copied();
                        prop_assert_eq!(set.take_one(core), next);
                        next.map(|next| model.remove(&next));
                    }
                }
                prop_assert_eq!(set.any(), !model.is_empty());
                prop_assert!((0..256).all(|core| set.contains(core) == model.contains(&core)));
            }
        }
    }
}

#[cfg(all(test, loom))]
mod loom_models {
    use super::*;
    use loom::thread;
    use std::sync::Arc;

    /// Two takers and one member: exactly one gets it, and the summary ends at zero.
    #[test]
    fn loom_a_member_is_taken_once() {
        loom::model(|| {
            let set = Arc::new(CoreSet::new());
            set.add(9);
            let other = set.clone();
            let thread = thread::spawn(move || other.take_one(1));
            let here = set.take_one(2);
            let there = thread.join().unwrap();
            assert!(matches!((here, there), (Some(9), None) | (None, Some(9))));
            assert!(!set.any());
        });
    }

    /// Adding while another core takes: the member is taken or still there, and the summary agrees.
    #[test]
    fn loom_adding_and_taking_agree() {
        loom::model(|| {
            let set = Arc::new(CoreSet::new());
            set.add(65);
            let other = set.clone();
            let thread = thread::spawn(move || other.take_one(1));
            set.add(65);
            let taken = thread.join().unwrap();
            assert_eq!(taken, Some(65));
            assert_eq!(set.any(), set.contains(65));
        });
    }
}
