//! Peak-EWMA in one atomic word: how slow an endpoint has been lately, quick to rise and slow to forget.
//!
//! ```text
//! 63            32 31             0
//! ├ average, µs ──┼ time, ms ──────┤     average: the bits of an f32, 0 = never measured
//! └ f32           ┴ u32, wrapping ─┘     time: of the newest sample
//! ```
//!
//! A sample above the average replaces it at once; one below moves the average towards it by `1 - exp(-elapsed/τ)`
//! (after Finagle's `PeakEwma`). One word, so that average and time can never belong to different samples.

use crate::sync::{AtomicU64, Ordering};

/// How long an average takes to forget: after τ a peak counts 1/e. Finagle's default.
pub(crate) const TAU_MS: u32 = 10_000;

/// The lowest average, in microseconds: above zero, so that zero can mean "never measured" and load still counts.
pub(crate) const LEAST_US: f32 = 1.0;

/// How far clocks of two cores may run apart: a time up to this much before the newest sample counts as "now", one
/// still further back as a wrap of the 32-bit time (49 days) and so as long ago.
const SKEW_MS: u32 = 1 << 22;

/// An average of microseconds, updated by all cores.
#[derive(Debug)]
pub(crate) struct Ewma(AtomicU64);

impl Ewma {
    pub(crate) fn new() -> Self {
        Ewma(AtomicU64::new(0))
    }

    /// Takes in one sample, worked out from the average so far (decayed to `now_ms`; `None` if never measured).
    /// Two cores that record at once both count: the second starts from the first's result.
    pub(crate) fn record(&self, now_ms: u32, sample_us: impl Fn(Option<f32>) -> f32) {
        // Relaxed: the word is all there is, nothing else is published by it.
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |word| {
            Some(step(word, now_ms, sample_us(decayed(word, now_ms))))
        });
    }

    /// The average in microseconds, decayed towards zero for the time nothing was measured, so that an endpoint
    /// that was once slow is tried again. `None` if never measured.
    pub(crate) fn average_us(&self, now_ms: u32) -> Option<f32> {
        decayed(self.0.load(Ordering::Relaxed), now_ms)
    }
}

/// The word after one more sample.
fn step(word: u64, now_ms: u32, sample_us: f32) -> u64 {
    let sample_us = if sample_us.is_nan() { LEAST_US } else { sample_us.clamp(LEAST_US, f32::MAX) };
    let Some((average_us, then_ms)) = unpack(word) else {
        return pack(sample_us, now_ms);
    };
    let (elapsed_ms, newest_ms) = elapsed(then_ms, now_ms);
    if sample_us >= average_us {
        return pack(sample_us, newest_ms);
    }
    let (old, sample) = (f64::from(average_us), f64::from(sample_us));
    let average = sample + (old - sample) * remaining(elapsed_ms);
    pack(average as f32, newest_ms)
}

/// The average of a word as it counts at `now_ms`.
fn decayed(word: u64, now_ms: u32) -> Option<f32> {
    let (average_us, then_ms) = unpack(word)?;
    let (elapsed_ms, _) = elapsed(then_ms, now_ms);
    let average = f64::from(average_us) * remaining(elapsed_ms);
    Some((average as f32).max(LEAST_US))
}

/// How much time passed, negative counting as none, and which of the two times is the newer one. Keeping the newer
/// matters: cores whose clocks differ by a millisecond would otherwise decay the average once for every pair of samples.
fn elapsed(then_ms: u32, now_ms: u32) -> (u32, u32) {
    let elapsed_ms = now_ms.wrapping_sub(then_ms);
    if elapsed_ms > u32::MAX - SKEW_MS { (0, then_ms) } else { (elapsed_ms, now_ms) }
}

/// `exp(-elapsed/τ)` as `(1 - x/256)^256`: within 0.2 % of it at τ, no library call, and monotone, because every
/// step (a subtraction, eight squarings of numbers from 0 to 1) is monotone and so is their rounding.
fn remaining(elapsed_ms: u32) -> f64 {
    let x = f64::from(elapsed_ms) / f64::from(TAU_MS);
    let mut power = (1.0 - x / 256.0).max(0.0);
    for _ in 0..8 {
        power *= power;
    }
    power
}

fn pack(average_us: f32, time_ms: u32) -> u64 {
    u64::from(average_us.to_bits()) << 32 | u64::from(time_ms)
}

fn unpack(word: u64) -> Option<(f32, u32)> {
    let bits = (word >> 32) as u32;
    (bits != 0).then(|| (f32::from_bits(bits), word as u32))
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn first_sample_is_the_average() {
        let ewma = Ewma::new();
        assert_eq!(ewma.average_us(7), None);
        ewma.record(7, |average| {
            assert_eq!(average, None);
            250.0
        });
        assert_eq!(ewma.average_us(7), Some(250.0));
    }

    #[test]
    fn a_peak_replaces_the_average_at_once() {
        let ewma = Ewma::new();
        ewma.record(0, |_| 100.0);
        ewma.record(0, |_| 5_000.0);
        assert_eq!(ewma.average_us(0), Some(5_000.0));
    }

    #[test]
    fn a_peak_is_forgotten_with_tau() {
        let ewma = Ewma::new();
        ewma.record(0, |_| 100_100.0);
        ewma.record(TAU_MS, |_| 100.0);
        let expected = 100.0 + 100_000.0 * (-1f32).exp();
        let average = ewma.average_us(TAU_MS).unwrap();
        assert!((average - expected).abs() < expected * 0.005, "{average} is not {expected}");
    }

    #[test]
    fn many_samples_a_millisecond_decay_as_few_do() {
        let (busy, calm) = (Ewma::new(), Ewma::new());
        busy.record(0, |_| 9_000.0);
        calm.record(0, |_| 9_000.0);
        for now_ms in 1..=1_000 {
            (0..20).for_each(|_| busy.record(now_ms, |_| 1_000.0));
            calm.record(now_ms, |_| 1_000.0);
        }
        let (busy, calm) = (busy.average_us(1_000).unwrap(), calm.average_us(1_000).unwrap());
        assert_eq!(busy, calm);
        let expected = 1_000.0 + 8_000.0 * (-0.1f32).exp();
        assert!((busy - expected).abs() < 10.0, "{busy} is not {expected}");
    }

    #[test]
    fn clocks_that_differ_do_not_speed_up_forgetting() {
        let ewma = Ewma::new();
        ewma.record(1_000, |_| 9_000.0);
        for _ in 0..10_000 {
            ewma.record(999, |_| 1.0);
            ewma.record(1_000, |_| 1.0);
        }
        assert_eq!(ewma.average_us(1_000), Some(9_000.0));
    }

    #[test]
    fn time_wraps() {
        let ewma = Ewma::new();
        ewma.record(u32::MAX - 4_999, |_| 1_000.0);
        let average = ewma.average_us(5_000).unwrap();
        assert!((average - 367.9).abs() < 2.0, "{average}");
        // Forty days: past half of what the time can tell, and still long ago.
        assert_eq!(ewma.average_us(5_000u32.wrapping_add(40 * 86_400_000)), Some(LEAST_US));
    }

    proptest! {
        #[test]
        fn remaining_is_monotone_and_near_exp(a in 0u32..200_000, more in 0u32..200_000) {
            prop_assert!(remaining(a + more) <= remaining(a));
            prop_assert!((0.0..=1.0).contains(&remaining(a)));
            let exact = (-f64::from(a) / f64::from(TAU_MS)).exp();
            prop_assert!((remaining(a) - exact).abs() < 0.002);
        }

        #[test]
        fn an_average_stays_between_its_samples(samples in prop::collection::vec((0u32..30_000, 1f32..1e9), 1..50)) {
            let ewma = Ewma::new();
            let mut now_ms = u32::MAX - 100_000;
            let mut least = f32::MAX;
            let mut most = 0f32;
            for (pause_ms, sample_us) in samples {
                now_ms = now_ms.wrapping_add(pause_ms);
                ewma.record(now_ms, |_| sample_us);
                least = least.min(sample_us);
                most = most.max(sample_us);
                let average = ewma.average_us(now_ms).unwrap();
                prop_assert!(average >= sample_us, "below the newest sample");
                prop_assert!((least..=most).contains(&average), "{average} is outside {least}..={most}");
            }
        }

        #[test]
        fn any_time_and_sample_gives_a_finite_average(word: u64, now_ms: u32, sample in any::<f32>()) {
            let ewma = Ewma::new();
            ewma.record(word as u32, |_| sample);
            ewma.record(now_ms, |_| sample);
            prop_assert!(ewma.average_us(now_ms).unwrap().is_finite());
            prop_assert!(ewma.average_us(now_ms).unwrap() >= LEAST_US);
        }

        #[test]
        fn idle_averages_only_fall(sample in 1f32..1e9, a in 0u32..100_000, more in 0u32..100_000) {
            let ewma = Ewma::new();
            ewma.record(0, |_| sample);
            prop_assert!(ewma.average_us(a + more) <= ewma.average_us(a));
        }
    }
}

#[cfg(all(test, loom))]
mod loom_models {
    use super::*;
    use loom::thread;
    use std::sync::Arc;

    /// Two cores record and a third reads: the higher sample is never lost, and a reader sees whole words only.
    #[test]
    fn loom_racing_samples_keep_the_peak() {
        loom::model(|| {
            let ewma = Arc::new(Ewma::new());
            let (a, b) = (ewma.clone(), ewma.clone());
            let one = thread::spawn(move || a.record(5, |_| 100.0));
            let two = thread::spawn(move || b.record(5, |_| 700.0));
            let seen = ewma.average_us(5);
            assert!(matches!(seen, None | Some(100.0) | Some(700.0)), "{seen:?}");
            one.join().unwrap();
            two.join().unwrap();
            assert_eq!(ewma.average_us(5), Some(700.0));
        });
    }

    /// Samples that depend on the average (failures double it) count one by one.
    #[test]
    fn loom_racing_doublings_both_count() {
        loom::model(|| {
            let ewma = Arc::new(Ewma::new());
            ewma.record(1, |_| 100.0);
            let other = ewma.clone();
            let thread = thread::spawn(move || other.record(1, |average| average.unwrap() * 2.0));
            ewma.record(1, |average| average.unwrap() * 2.0);
            thread.join().unwrap();
            assert_eq!(ewma.average_us(1), Some(400.0));
        });
    }
}
