//! The counters of a plan's parts: by name, so that they outlive plans.

use flow::{RuleCounts, RuleSum, Series, SeriesSum};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Entries that are kept beyond the plans that had them. A plan may have more, while it is the current one.
const KEPT: usize = 10_000;

/// What is counted under one name, a part a core.
pub(crate) trait Counted {
    /// All cores' parts, added up.
    type Sum;

    /// For this many cores.
    fn new(cores: usize) -> Self;

    /// Adds all cores up.
    fn sum(&self) -> Self::Sum;
}

impl Counted for Series {
    type Sum = SeriesSum;

    fn new(cores: usize) -> Series {
        Series::new(cores)
    }

    fn sum(&self) -> SeriesSum {
        self.sum()
    }
}

impl Counted for RuleCounts {
    type Sum = RuleSum;

    fn new(cores: usize) -> RuleCounts {
        RuleCounts::new(cores)
    }

    fn sum(&self) -> RuleSum {
        self.sum()
    }
}

/// All there are of one kind.
#[derive(Debug)]
pub(crate) struct Registry<K, C> {
    cores: usize,
    kept: usize,
    entries: BTreeMap<K, Entry<C>>,
}

#[derive(Debug)]
struct Entry<C> {
    counts: Arc<C>,
    /// The last plan that had it.
    generation: u64,
}

impl<K: Ord + Clone, C: Counted> Registry<K, C> {
    /// An empty registry, for this many cores.
    pub(crate) fn new(cores: usize) -> Registry<K, C> {
        Registry { cores, kept: KEPT, entries: BTreeMap::new() }
    }

    /// The counters of a plan that is about to be used, in the order of its `keys`.
    pub(crate) fn of(&mut self, keys: &[K], generation: u64) -> Arc<[Arc<C>]> {
        let counts = keys.iter().map(|key| {
            let fresh = || Entry { counts: Arc::new(C::new(self.cores)), generation };
            let entry = self.entries.entry(key.clone()).or_insert_with(fresh);
            entry.generation = generation;
            entry.counts.clone()
        });
        let counts = counts.collect();
        self.forget(generation);
        counts
    }

    /// All counts, by name.
    pub(crate) fn sums(&self) -> Vec<(K, C::Sum)> {
        self.entries.iter().map(|(key, entry)| (key.clone(), entry.counts.sum())).collect()
    }

    /// Forgets those that were out of use for longest, while there are too many.
    fn forget(&mut self, current: u64) {
        let excess = self.entries.len().saturating_sub(self.kept);
        if excess == 0 {
            return;
        }
        let unused = self.entries.iter().filter(|(_, entry)| entry.generation != current);
        let mut unused: Vec<(u64, K)> = unused.map(|(key, entry)| (entry.generation, key.clone())).collect();
        unused.sort();
        for (_, key) in unused.into_iter().take(excess) {
            self.entries.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use plan::SeriesKey;

    type OfSeries = Registry<SeriesKey, Series>;

    fn key(route: &str) -> SeriesKey {
        SeriesKey { listener: "web".into(), route: route.into(), service: "cart".into() }
    }

    #[test]
    fn counts_outlive_the_plan_that_had_them() {
        let mut registry = OfSeries::new(2);
        let first = registry.of(&[key("a"), key("b")], 1);
        first[0].core(1).record(flow::Ending::Complete, 200, 1_000);
        registry.of(&[key("b")], 2);
        let again = registry.of(&[key("b"), key("a")], 3);
        assert!(Arc::ptr_eq(&first[0], &again[1]));
        assert_eq!(registry.sums()[0].1.classes, [0, 0, 1, 0, 0, 0]);
    }

    #[test]
    fn those_longest_out_of_use_are_forgotten_when_there_are_too_many() {
        let mut registry = OfSeries { kept: 2, ..OfSeries::new(1) };
        registry.of(&[key("a"), key("b")], 1);
        registry.of(&[key("b")], 2);
        registry.of(&[key("c")], 3);
        let names = |registry: &OfSeries| registry.entries.keys().map(|key| key.route.to_string()).collect::<Vec<_>>();
        assert_eq!(names(&registry), ["b", "c"]);
        registry.of(&[key("d"), key("e"), key("f")], 4);
        assert_eq!(names(&registry), ["d", "e", "f"], "the current plan's all stay");
    }
}
