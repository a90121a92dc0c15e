//! The arithmetic of a bucket: pure functions over times that are counted in parts of a request.

/// Bits that a time has in a slot. It wraps; see [`Rate::debt`].
pub(super) const TIME_BITS: u32 = 43;
const TIME_MASK: u64 = (1 << TIME_BITS) - 1;
/// The finest part of a request that times are counted in: 1/64.
const FINEST: u32 = 6;
/// Times shall not wrap before this, if that can be had by coarser parts.
const HORIZON_NS: u64 = 7 * 24 * 3600 * 1_000_000_000;
/// How far a core's clock may be behind another's. One that is stuck is ended after 5 s (DESIGN.md section 2).
const SKEW_NS: u64 = 8_000_000_000;
const MOST_BURST: u32 = 1_000_000_000;

/// A rate and a burst. Time is counted in *units*, of which a request takes `1 << fineness`; a unit passes every
/// `per_ns / units` ns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rate {
    /// In lowest terms.
    units: u64,
    per_ns: u64,
    fineness: u32,
    burst: u32,
    /// The furthest ahead that a time can be.
    window: u64,
}

impl Rate {
    pub(super) fn new(requests: u32, per_ns: u64, burst: u32) -> Rate {
        let (requests, burst) = (u64::from(requests.max(1)), burst.clamp(1, MOST_BURST));
        let per_ns = per_ns.max(requests);
        let in_horizon =
            |fineness: u32| (u128::from(requests) << fineness) * u128::from(HORIZON_NS) / u128::from(per_ns);
        let fineness = (1..=FINEST).rev().find(|&fineness| in_horizon(fineness) < 1 << TIME_BITS).unwrap_or(0);
        let divisor = gcd(requests << fineness, per_ns);
        let mut rate =
            Rate { units: (requests << fineness) / divisor, per_ns: per_ns / divisor, fineness, burst, window: 0 };
        rate.window = rate.most_debt() + rate.whole_units(SKEW_NS) as u64 + 1;
        rate
    }

    pub(super) fn burst(&self) -> u32 {
        self.burst
    }

    /// The time in units, wrapped.
    pub(super) fn at(&self, now_ns: u64) -> u64 {
        // Mostly the product fits, and dividing it is cheaper.
        let units = match now_ns.checked_mul(self.units) {
            Some(product) => product / self.per_ns,
            None => self.whole_units(now_ns) as u64,
        };
        units & TIME_MASK
    }

    /// How far ahead of `now` a bucket's time is: what its client owes, in units. A time further ahead than any can be is one
    /// that has wrapped, and so is long past.
    pub(super) fn debt(&self, full_at: u64, now: u64) -> u64 {
        let ahead = full_at.wrapping_sub(now) & TIME_MASK;
        if ahead <= self.window { ahead } else { 0 }
    }

    /// What is owed with one more request, and the bucket's time then; or what is owed already, if that would be too much.
    pub(super) fn spend(&self, full_at: u64, now: u64) -> Result<(u64, u64), u64> {
        let debt = self.debt(full_at, now);
        let more = debt + (1 << self.fineness);
        if more <= self.most_debt() { Ok((more, (now + more) & TIME_MASK)) } else { Err(debt) }
    }

    /// How many requests can still be made by who owes so much.
    pub(super) fn remaining(&self, debt: u64) -> u32 {
        (self.most_debt().saturating_sub(debt) >> self.fineness) as u32
    }

    /// What must be paid off of a debt before the next request.
    pub(super) fn over(&self, debt: u64) -> u64 {
        (debt + (1 << self.fineness)).saturating_sub(self.most_debt())
    }

    /// When so many units more than at `now_ns` have passed, ns from then: exactly the first time at which they have.
    pub(super) fn until(&self, now_ns: u64, units: u64) -> u64 {
        if units == 0 {
            return 0;
        }
        let target = self.whole_units(now_ns) + u128::from(units);
        let then_ns = (target * u128::from(self.per_ns)).div_ceil(u128::from(self.units));
        u64::try_from(then_ns - u128::from(now_ns)).unwrap_or(u64::MAX)
    }

    /// An empty bucket's.
    fn most_debt(&self) -> u64 {
        u64::from(self.burst) << self.fineness
    }

    /// The time in units, not wrapped.
    fn whole_units(&self, now_ns: u64) -> u128 {
        u128::from(now_ns) * u128::from(self.units) / u128::from(self.per_ns)
    }
}

fn gcd(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: u64 = 1_000_000_000;

    fn any_rate() -> impl Strategy<Value = (u32, u64, u32)> {
        let requests = prop_oneof![1u32..20, 1u32..2_000_000, Just(1_000_000_000)];
        let per_ns = prop_oneof![Just(SECOND), Just(60 * SECOND), Just(3600 * SECOND)];
        let burst = prop_oneof![1u32..5, 1u32..100_000, Just(MOST_BURST)];
        (requests, per_ns, burst)
    }

    #[test]
    fn parts_are_as_fine_as_the_horizon_allows() {
        for (requests, fineness) in
            [(1, 6), (100, 6), (100_000, 6), (1_000_000, 3), (10_000_000, 0), (1_000_000_000, 0)]
        {
            let rate = Rate::new(requests, SECOND, 1);
            assert_eq!(rate.fineness, fineness, "{requests}");
            let wraps_after_s = (1u128 << TIME_BITS) * u128::from(rate.per_ns) / u128::from(rate.units * SECOND);
            assert!(wraps_after_s >= if requests <= 10_000_000 { 604_800 } else { 8_000 });
        }
    }

    #[test]
    fn settings_beyond_the_limits() {
        assert_eq!(Rate::new(0, 0, 0), Rate::new(1, 1, 1));
        assert_eq!(Rate::new(u32::MAX, 1, u32::MAX), Rate::new(1, 1, MOST_BURST));
        for (requests, per_ns) in [(1, u64::MAX), (u32::MAX, u64::MAX), (u32::MAX, 1)] {
            let rate = Rate::new(requests, per_ns, u32::MAX);
            assert!(rate.window < 1 << (TIME_BITS - 1));
            let (debt, _) = rate.spend(rate.at(u64::MAX), rate.at(u64::MAX)).unwrap();
            assert!(rate.until(u64::MAX, debt) >= 1);
        }
    }

    #[test]
    fn a_time_that_has_wrapped_is_past() {
        let rate = Rate::new(100, SECOND, 200);
        let now = rate.at(5 * SECOND);
        for past in [0, 1, 1_000_000, (1 << TIME_BITS) - rate.window - 1] {
            assert_eq!(rate.debt(now.wrapping_sub(past) & TIME_MASK, now), 0, "{past}");
        }
        assert_eq!(rate.debt((now + 5) & TIME_MASK, now), 5);
        // Another core's clock runs ahead of ours.
        let ahead = rate.at(10 * SECOND);
        let (debt, full_at) = rate.spend(ahead, ahead).unwrap();
        assert_eq!(debt, 64);
        assert_eq!(rate.spend(full_at, now), Err(5 * 100 * 64 + 64), "ours refuses, and forgets nothing");
    }

    proptest! {
        /// Against exact fractions: a request is never refused that the rate and burst allow, and never let through earlier than
        /// one unit too early; and what is told about waiting is so to the nanosecond.
        #[test]
        fn it_is_exact_to_one_unit(
            (requests, per_ns, burst) in any_rate(),
            start_ns in prop_oneof![Just(0u64), 0u64..1 << 62],
            steps in prop::collection::vec(prop_oneof![Just(0u64), 0u64..2_000, 0u64..20_000_000_000], 1..60),
        ) {
            let rate = Rate::new(requests, per_ns, burst);
            // In these, a request is `per_ns << fineness`, a nanosecond `requests << fineness`, a unit `per_ns`.
            let one = u128::from(per_ns) << rate.fineness;
            let ideal = |now_ns: u64| u128::from(now_ns) * (u128::from(requests) << rate.fineness);
            let mut now_ns = start_ns;
            let (mut full_at, mut ideal_full_at) = (rate.at(now_ns), 0);
            for step_ns in steps {
                now_ns += step_ns;
                let more = ideal(now_ns).max(ideal_full_at) + one - ideal(now_ns);
                let most = one * u128::from(burst);
                match rate.spend(full_at, rate.at(now_ns)) {
                    Ok((debt, then)) => {
                        prop_assert!(more < most + u128::from(per_ns));
                        full_at = then;
                        ideal_full_at = ideal(now_ns) + more;
                        let reset_ns = rate.until(now_ns, debt);
                        prop_assert_eq!(rate.debt(full_at, rate.at(now_ns.saturating_add(reset_ns))), 0);
                        prop_assert!(rate.debt(full_at, rate.at(now_ns.saturating_add(reset_ns - 1))) > 0);
                    }
                    Err(debt) => {
                        prop_assert!(more > most);
                        prop_assert_eq!(rate.remaining(debt), 0);
                        let retry_ns = rate.until(now_ns, rate.over(debt));
                        prop_assert!(rate.spend(full_at, rate.at(now_ns + retry_ns)).is_ok());
                        prop_assert!(rate.spend(full_at, rate.at(now_ns + retry_ns - 1)).is_err());
                    }
                }
            }
        }
    }
}
