//! The counters of listeners, routes and services, and of policy's rules: by name, so that they outlive plans.

use flow::{RuleCounts, RuleSum, Series, SeriesSum};
use plan::{Plan, RuleKey, SeriesKey};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Series that are kept beyond the plans that had them. A plan may have more, while it is the current one.
const KEPT: usize = 10_000;

/// All series there are.
#[derive(Debug)]
pub(crate) struct Registry {
    cores: usize,
    kept: usize,
    entries: BTreeMap<SeriesKey, Entry>,
    rules: BTreeMap<RuleKey, (Arc<RuleCounts>, u64)>,
}

#[derive(Debug)]
struct Entry {
    series: Arc<Series>,
    /// The last plan that had it.
    generation: u64,
}

impl Registry {
    /// An empty registry, for this many cores.
    pub(crate) fn new(cores: usize) -> Registry {
        Registry { cores, kept: KEPT, entries: BTreeMap::new(), rules: BTreeMap::new() }
    }

    /// The series of a plan that is about to be used, in the order of `plan.series`.
    pub(crate) fn of(&mut self, plan: &Plan) -> Arc<[Arc<Series>]> {
        self.of_keys(&plan.series, plan.generation)
    }

    fn of_keys(&mut self, keys: &[SeriesKey], generation: u64) -> Arc<[Arc<Series>]> {
        let series = keys.iter().map(|key| {
            let fresh = || Entry { series: Arc::new(Series::new(self.cores)), generation };
            let entry = self.entries.entry(key.clone()).or_insert_with(fresh);
            entry.generation = generation;
            entry.series.clone()
        });
        let series = series.collect();
        self.forget(generation);
        series
    }

    /// The counters of a plan's rules, in the order of `plan.rules`.
    pub(crate) fn rules_of(&mut self, plan: &Plan) -> Arc<[Arc<RuleCounts>]> {
        if self.rules.len() + plan.rules.len() > self.kept {
            self.rules.retain(|_, (_, generation)| *generation + 1 >= plan.generation);
        }
        let counts = plan.rules.iter().map(|key| {
            let fresh = || (Arc::new(RuleCounts::new(self.cores)), plan.generation);
            let (counts, generation) = self.rules.entry(key.clone()).or_insert_with(fresh);
            *generation = plan.generation;
            counts.clone()
        });
        counts.collect()
    }

    /// Every rule's counts, by name.
    pub(crate) fn rule_sums(&self) -> Vec<(RuleKey, RuleSum)> {
        self.rules.iter().map(|(key, (counts, _))| (key.clone(), counts.sum())).collect()
    }

    /// Every series' counts, by name.
    pub(crate) fn sums(&self) -> Vec<(SeriesKey, SeriesSum)> {
        self.entries.iter().map(|(key, entry)| (key.clone(), entry.series.sum())).collect()
    }

    /// Forgets those that were out of use for longest, while there are too many.
    fn forget(&mut self, current: u64) {
        let excess = self.entries.len().saturating_sub(self.kept);
        if excess == 0 {
            return;
        }
        let unused = self.entries.iter().filter(|(_, entry)| entry.generation != current);
        let mut unused: Vec<(u64, SeriesKey)> = unused.map(|(key, entry)| (entry.generation, key.clone())).collect();
        unused.sort();
        for (_, key) in unused.into_iter().take(excess) {
            self.entries.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(route: &str) -> SeriesKey {
        SeriesKey { listener: "web".into(), route: route.into(), service: "cart".into() }
    }

    #[test]
    fn counts_outlive_the_plan_that_had_them() {
        let mut registry = Registry::new(2);
        let first = registry.of_keys(&[key("a"), key("b")], 1);
        first[0].core(1).record(200, 1_000);
        registry.of_keys(&[key("b")], 2);
        let again = registry.of_keys(&[key("b"), key("a")], 3);
        assert!(Arc::ptr_eq(&first[0], &again[1]));
        assert_eq!(registry.sums()[0].1.classes, [0, 0, 1, 0, 0, 0]);
    }

    #[test]
    fn those_longest_out_of_use_are_forgotten_when_there_are_too_many() {
        let mut registry = Registry { kept: 2, ..Registry::new(1) };
        registry.of_keys(&[key("a"), key("b")], 1);
        registry.of_keys(&[key("b")], 2);
        registry.of_keys(&[key("c")], 3);
        let names = |registry: &Registry| registry.entries.keys().map(|key| key.route.to_string()).collect::<Vec<_>>();
        assert_eq!(names(&registry), ["b", "c"]);
        registry.of_keys(&[key("d"), key("e"), key("f")], 4);
        assert_eq!(names(&registry), ["d", "e", "f"], "the current plan's all stay");
    }
}
