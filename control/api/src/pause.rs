//! How long to wait before a daemon is asked again: longer each time, and never all proxies at once.

use std::time::Duration;

/// The first pause is up to this long.
const FIRST: Duration = Duration::from_secs(1);
/// No pause is longer.
const LONGEST: Duration = Duration::from_secs(30);

/// Pauses between attempts.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pauses {
    doublings: u32,
}

impl Pauses {
    /// The next one: between a tenth of the current bound and all of it, by the random number. The bound doubles.
    pub fn next(&mut self, random: u64) -> Duration {
        let most = FIRST.saturating_mul(1 << self.doublings.min(10)).min(LONGEST);
        self.doublings += u32::from(most < LONGEST);
        let most_ms = most.as_millis() as u64;
        let least_ms = most_ms / 10;
        Duration::from_millis(least_ms + random % (most_ms - least_ms + 1))
    }

    /// All is well: the next pause is a first one.
    pub fn reset(&mut self) {
        self.doublings = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_bound_and_spread() {
        let mut pauses = Pauses::default();
        let longest: Vec<u64> = (0..7).map(|_| pauses.next(0).as_millis() as u64 * 10).collect();
        assert_eq!(longest, [1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000]);
        pauses.reset();
        let first: Vec<Duration> = (0..1000).map(|n| Pauses::default().next(n * 7919)).collect();
        let early = first.iter().filter(|pause| **pause < Duration::from_millis(550)).count();
        assert!((400..600).contains(&early), "{early} of a thousand in the first half");
        assert!(first.iter().all(|pause| (100..=1000).contains(&(pause.as_millis() as u64))));
        assert_eq!(pauses.next(0), Duration::from_millis(100));
    }
}
