//! Choices of a scenario, and the seeds it runs with.

use crate::security::Security;

/// A generator of choices; the same seed makes the same ones.
#[derive(Clone, Debug)]
pub(crate) struct Choice(u64);

impl Choice {
    pub(crate) fn new(seed: u64) -> Choice {
        Choice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x7363_656e_6172_696f)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `limit`, which is not zero.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    /// At most `most`.
    pub(crate) fn up_to(&mut self, most: usize) -> usize {
        self.below(most as u64 + 1) as usize
    }

    pub(crate) fn one_of<T: Copy>(&mut self, values: &[T]) -> T {
        values[self.below(values.len() as u64) as usize]
    }

    pub(crate) fn percent(&mut self, share: u64) -> bool {
        self.below(100) < share
    }

    /// Another generator, whose choices depend on nothing that is chosen here later.
    pub(crate) fn split(&mut self) -> Choice {
        Choice(self.next())
    }
}

/// Seeds of scenarios that failed once: `scenario seed`, a line each.
const FAILED_ONCE: &str = include_str!("../../seeds.txt");

/// Runs a scenario with each seed: those that failed once, then the first `count` (`RINGWAY_SEEDS=N`: the first N of
/// every scenario; `RINGWAY_SEED=N`: that one alone). Every third runs again with TLS.
pub(crate) fn each_seed(name: &str, count: u64, scenario: impl Fn(u64)) {
    let seeds = |first: u64, count: u64| {
        let secure = (first..first + (count / 3).clamp(count.min(4), count)).zip(first / 3..);
        (first..first + count).chain(secure.map(|(seed, turn)| Security::marked(seed, turn))).collect()
    };
    run(name, count, seeds, scenario);
}

/// The same, always with TLS on the sides that `sides` wants.
pub(crate) fn each_secure_seed(name: &str, count: u64, sides: fn(Security) -> bool, scenario: impl Fn(u64)) {
    let seeds = |first: u64, count: u64| {
        let marked = |seed| (0..8).map(move |turn| Security::marked(seed, seed + turn));
        let wanted = |seed| marked(seed).find(|seed| sides(Security::of(*seed)));
        (first..first + count).filter_map(wanted).collect()
    };
    run(name, count, seeds, scenario);
}

fn run(name: &str, count: u64, seeds: impl Fn(u64, u64) -> Vec<u64>, scenario: impl Fn(u64)) {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seeds = match number("RINGWAY_SEED") {
        Some(seed) => vec![seed],
        None => {
            let failed = FAILED_ONCE.lines().filter_map(|line| line.split_once(' ')).filter(|(of, _)| *of == name);
            let mut all: Vec<u64> = failed.filter_map(|(_, seed)| seed.trim().parse().ok()).collect();
            all.extend(seeds(number("RINGWAY_FROM").unwrap_or(0), number("RINGWAY_SEEDS").unwrap_or(count)));
            all
        }
    };
    for seed in seeds {
        let _tell = Tell(name, seed);
        scenario(seed);
    }
}

struct Tell<'a>(&'a str, u64);

impl Drop for Tell<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Tell(name, seed) = self;
            eprintln!(
                "scenario {name}, seed {seed}: RINGWAY_SEED={seed} cargo test -p ringway-tests --test simulator -- {name} replays it"
            );
        }
    }
}
