//! What policy did, by rule; a part a core. Which rule it is says the order of the plan's rules, as with series.

use super::Count;

/// What is counted for one rule of a policy, or for a list that no rule of let a request in.
#[derive(Debug)]
pub struct RuleCounts {
    cores: Box<[RuleCore]>,
}

/// One core's part of it.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct RuleCore {
    /// Requests and connections that it refused.
    pub refused: Count,
    /// Those that it would have refused, were it enforced.
    pub would_refuse: Count,
}

/// All cores' parts, added up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RuleSum {
    /// Requests and connections that it refused.
    pub refused: u64,
    /// Those that it would have refused, were it enforced.
    pub would_refuse: u64,
}

impl RuleCounts {
    /// Counts for this many cores.
    pub fn new(cores: usize) -> RuleCounts {
        RuleCounts { cores: (0..cores).map(|_| RuleCore::default()).collect() }
    }

    /// The part of one core.
    #[inline]
    pub fn core(&self, core: usize) -> &RuleCore {
        &self.cores[core]
    }

    /// Adds all cores up.
    pub fn sum(&self) -> RuleSum {
        let add = |sum: RuleSum, core: &RuleCore| RuleSum {
            refused: sum.refused + core.refused.value(),
            would_refuse: sum.would_refuse + core.would_refuse.value(),
        };
        self.cores.iter().fold(RuleSum::default(), add)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_adds_its_cores_up() {
        let rule = RuleCounts::new(3);
        rule.core(0).refused.add(1);
        rule.core(2).refused.add(4);
        rule.core(1).would_refuse.add(2);
        assert_eq!(rule.sum(), RuleSum { refused: 5, would_refuse: 2 });
    }
}
