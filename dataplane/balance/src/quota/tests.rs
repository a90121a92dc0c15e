//! A quota against simple models; churn; threads.

use super::*;
use proptest::prelude::*;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

const SECOND: u64 = 1_000_000_000;

/// Good for hashes: every input has one of its own (splitmix64).
fn mixed(number: u64) -> u64 {
    let mut x = number.wrapping_add(0x9e37_79b9_7f4a_7c15).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ x >> 31
}

#[test]
fn a_burst_then_the_rate() {
    let quota = Quota::new(10, SECOND, 3, 1000);
    for left in [2, 1, 0] {
        let taken = quota.take(7, SECOND);
        let reset_ns = u64::from(3 - left) * SECOND / 10;
        let expected = Taken { allowed: true, limit: 3, remaining: left, retry_after_ns: 0, reset_ns, shared: false };
        assert_eq!(taken, expected);
    }
    let refused = quota.take(7, SECOND);
    assert_eq!((refused.allowed, refused.remaining, refused.retry_after_ns), (false, 0, SECOND / 10));
    assert_eq!(refused.reset_ns, 3 * SECOND / 10, "what is refused costs nothing");
    assert!(!quota.take(7, SECOND + SECOND / 10 - 1).allowed);
    assert!(quota.take(7, SECOND + SECOND / 10).allowed);
    assert!(!quota.take(7, SECOND + SECOND / 10).allowed);
    let rested = quota.take(7, 10 * SECOND);
    assert_eq!((rested.allowed, rested.remaining), (true, 2), "never more than a burst is saved");
}

#[test]
fn clients_have_buckets_of_their_own() {
    let quota = Quota::new(1, SECOND, 2, 1000);
    let mut own = 0;
    for client in (0..1000).map(mixed) {
        let taken = [(); 3].map(|()| quota.take(client, 5));
        if !taken[0].shared {
            assert_eq!(
                taken.map(|taken| (taken.allowed, taken.shared)),
                [(true, false), (true, false), (false, false)]
            );
            own += 1;
        }
    }
    assert!(own > 980, "{own}");
}

#[test]
fn extremes() {
    let most = 1_000_000_000;
    let quota = Quota::new(most, SECOND, most, 1);
    let now_ns = u64::MAX / 2;
    assert_eq!(quota.take(1, now_ns).remaining, most - 1);
    assert_eq!(quota.take(1, now_ns).reset_ns, 2);
    let slow = Quota::new(1, 3600 * SECOND, most, 1);
    assert_eq!(slow.take(1, 0).reset_ns, 3600 * SECOND);
    let one = Quota::new(1, 3600 * SECOND, 1, 1);
    assert!(one.take(1, 0).allowed);
    assert_eq!(one.take(1, 1).retry_after_ns, 3600 * SECOND - 1);
    assert!(!one.take(1, 3600 * SECOND - 1).allowed);
    assert!(one.take(1, 3600 * SECOND).allowed);
}

/// A set is full of clients that have all used something; one more shares.
#[test]
fn who_finds_no_slot_shares_and_a_full_bucket_makes_room() {
    let quota = Quota::new(1, SECOND, 2, 1);
    let slots = quota.slots() as u64;
    assert_eq!(slots, 8);
    let part_ns = SECOND / 64;
    for client in 1..=slots {
        assert!(!quota.take(client, client * part_ns).shared);
    }
    let late = [slots + 1, slots + 2, slots + 3];
    let now_ns = SECOND;
    let taken = late.map(|client| quota.take(client, now_ns));
    assert_eq!(taken.map(|taken| (taken.shared, taken.allowed)), [(true, true), (true, true), (true, false)]);
    // The first one's bucket fills up; the latecomer has it, and the first has lost nothing, as others' are full by then.
    let taken = quota.take(late[2], now_ns + part_ns);
    assert_eq!((taken.shared, taken.remaining), (false, 1));
    let now_ns = now_ns + 2 * part_ns;
    assert_eq!(quota.take(1, now_ns).remaining, 1);
    assert_eq!(quota.take(late[2], now_ns).remaining, 0, "and still has what it has spent");
}

#[test]
fn memory_is_as_said_and_does_not_grow() {
    assert_eq!(size_of::<Set>(), 64);
    let quota = Quota::new(100, SECOND, 5, 65_536);
    assert_eq!(quota.slots() * 8, 65_536 * 16);
    assert_eq!(Quota::new(1, 1, 1, usize::MAX).slots(), MOST_CLIENTS * 2);
    assert_eq!(Quota::new(1, 1, 1, 0).slots(), 8);
    let allocated = allocation_counter::measure(|| {
        for client in 0..200_000 {
            quota.take(mixed(client), client * 100);
        }
    });
    assert_eq!(allocated.count_total, 0);
}

#[test]
fn as_many_clients_as_were_asked_for_nearly_all_have_a_slot() {
    let quota = Quota::new(1, SECOND, 2, 65_536);
    let shared = (0..65_536).filter(|client| quota.take(mixed(*client), 1).shared).count();
    assert!(shared < 655, "{shared} share");
    assert!(shared > 65, "{shared} share: hashes are not spread as a crowd would be");
}

/// Ten times as many clients as slots, in random order, all at one time: what gets through is what the slots and the shared
/// bucket hold.
#[test]
fn churn_buys_nothing_at_one_time() {
    let burst = 4;
    let quota = Quota::new(1, SECOND, burst, 256);
    let most = (quota.slots() as u64 + 1) * u64::from(burst);
    let clients = quota.slots() as u64 * 10;
    let mut through = 0;
    for turn in 0..clients * 20 {
        through += u64::from(quota.take(mixed(mixed(turn) % clients), 77).allowed);
    }
    assert!(through <= most, "{through} of {most}");
    assert!(through > most * 9 / 10, "{through} of {most}: slots are not used");
}

/// The same while time goes on, and buckets fill and change hands.
#[test]
fn churn_buys_nothing_over_time() {
    let (burst, rate) = (3, 50);
    let quota = Quota::new(rate, SECOND, burst, 64);
    let clients = quota.slots() as u64 * 10;
    let (mut through, mut now_ns) = (0, 0);
    let mut last = Vec::new();
    for turn in 0..400_000 {
        now_ns += mixed(turn) % 10_000;
        let client = mixed(turn ^ 0xabcd) % clients;
        let taken = quota.take(mixed(client), now_ns);
        through += u64::from(taken.allowed);
        last.push((client, taken, now_ns));
    }
    let each = u64::from(burst) + u64::from(rate) * now_ns / SECOND + 1;
    let most = (quota.slots() as u64 + 1) * each;
    assert!(through <= most, "{through} of {most}");
    // Nor does one client get more than its own and what is shared.
    let mut own: HashMap<u64, u64> = HashMap::new();
    for (client, taken, _) in &last {
        *own.entry(*client).or_default() += u64::from(taken.allowed && !taken.shared);
    }
    assert!(own.values().all(|count| *count <= each));
    let shared = last.iter().filter(|(_, taken, _)| taken.allowed && taken.shared).count() as u64;
    assert!(shared <= each, "{shared} of {each}");
}

/// One busy client among a crowd that comes and goes: it gets what it would alone, and the crowd takes none of it.
#[test]
fn a_crowd_does_not_disturb_who_has_a_bucket() {
    let (crowded, alone) = (Quota::new(100, SECOND, 20, 64), Quota::new(100, SECOND, 20, 1));
    let busy = mixed(u64::MAX);
    for turn in 0..50_000 {
        let now_ns = turn * 5_000_000;
        crowded.take(busy, now_ns);
        alone.take(busy, now_ns);
        for other in 0..3 {
            crowded.take(mixed(turn * 3 + other), now_ns);
        }
        // Twice its rate, so that its bucket is never full.
        let (one, other) = (crowded.take(busy, now_ns + 1), alone.take(busy, now_ns + 1));
        assert_eq!(one, other, "turn {turn}");
    }
}

#[test]
fn threads_share_one_bucket_exactly() {
    let quota = Arc::new(Quota::new(1, 3600 * SECOND, 10_000, 64));
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let quota = quota.clone();
            std::thread::spawn(move || (0..5_000).filter(|_| quota.take(42, 9).allowed).count())
        })
        .collect();
    let through: usize = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
    assert_eq!(through, 10_000);
}

/// Many times over: threads that see different times all want a bucket for one client, while others come and go in its set.
#[test]
fn threads_never_make_two_buckets_for_one_client() {
    const THREADS: u64 = 4;
    for round in 0..1_000 {
        let quota = Arc::new(Quota::new(1, SECOND, 1, 1));
        // Buckets that are full at different times.
        for other in 0..8 {
            quota.take(100 + other, mixed(round * 8 + other) % SECOND);
        }
        let through = Arc::new(AtomicU32::new(0));
        let barrier = Arc::new(std::sync::Barrier::new(THREADS as usize));
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let (quota, through, barrier) = (quota.clone(), through.clone(), barrier.clone());
                std::thread::spawn(move || {
                    barrier.wait();
                    let now_ns = SECOND + mixed(round * THREADS + thread) % (SECOND * 9 / 10);
                    let taken = quota.take(7, now_ns);
                    through.fetch_add(u32::from(taken.allowed && !taken.shared), Ordering::Relaxed);
                    quota.take(200 + thread, now_ns);
                    let taken = quota.take(7, now_ns);
                    through.fetch_add(u32::from(taken.allowed && !taken.shared), Ordering::Relaxed);
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert!(through.load(Ordering::Relaxed) <= 1, "round {round}");
        let count = quota.sets[0].words().iter().filter(|word| **word >> 44 == 7).count();
        assert!(count <= 1, "round {round}: {count} buckets");
        assert!(quota.sets[0].words().iter().all(|word| word & 1 << 43 == 0), "round {round}: a claim is left");
    }
}

proptest! {
    /// A set that has room for all: every client is as if it were alone, to the nanosecond; and what is told is so.
    #[test]
    fn each_client_is_as_if_alone(
        requests in 1u32..1_000_000,
        burst in 1u32..20,
        steps in prop::collection::vec((1u64..=8, 0u64..3_000_000), 1..200),
    ) {
        let quota = Quota::new(requests, SECOND, burst, 1);
        let mut alone: HashMap<u64, Quota> = HashMap::new();
        let mut now_ns = 0;
        for (client, step_ns) in steps {
            now_ns += step_ns;
            let taken = quota.take(client, now_ns);
            prop_assert!(!taken.shared);
            let other = alone.entry(client).or_insert_with(|| Quota::new(requests, SECOND, burst, 1));
            prop_assert_eq!(taken, other.take(client, now_ns));
            prop_assert_eq!(taken.limit, burst);
            prop_assert!(taken.allowed || taken.retry_after_ns > 0);
            prop_assert!(taken.reset_ns > 0);
        }
    }

    /// Few slots and many clients: no bucket, whoever has it, and no client lets more through than rate and burst.
    #[test]
    fn a_slot_is_one_bucket_whoever_has_it(
        burst in 1u64..5,
        steps in prop::collection::vec((1u64..=40, 0u64..1_000), 1..600),
    ) {
        let interval_ns = 5_000;
        let quota = Quota::new(1, interval_ns, burst as u32, 1);
        let (mut through, mut shared, mut now_ns) = (0, 0, 0);
        let mut own: HashMap<u64, u64> = HashMap::new();
        for (client, step_ns) in steps {
            now_ns += step_ns;
            let taken = quota.take(client, now_ns);
            through += u64::from(taken.allowed);
            shared += u64::from(taken.allowed && taken.shared);
            *own.entry(client).or_default() += u64::from(taken.allowed && !taken.shared);
        }
        let each = burst + now_ns / interval_ns + 1;
        prop_assert!(through <= (quota.slots() as u64 + 1) * each);
        prop_assert!(shared <= each);
        prop_assert!(own.values().all(|count| *count <= each));
    }
}
