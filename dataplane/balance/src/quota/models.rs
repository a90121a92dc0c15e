//! Model checks: what cores may do to one set of two slots at once, in every interleaving.

use super::*;
use loom::thread;
use std::sync::Arc;

/// Three clients of the one set, whose tags differ.
const A: u64 = 1;
const B: u64 = 2;
const C: u64 = 3;

/// Times are in ms: below, whole requests would be the finest that is counted.
const MS: u64 = 1_000_000;

/// One request in 100 ms, a burst of one, one set.
fn quota() -> Arc<Quota> {
    Arc::new(Quota::new(1, 100 * MS, 1, 1))
}

/// Let through out of a bucket of its own.
fn takes(quota: &Quota, client: u64, now_ms: u64) -> bool {
    let taken = quota.take(client, now_ms * MS);
    taken.allowed && !taken.shared
}

/// Clients with a bucket; no claim is left.
fn owners(quota: &Quota) -> Vec<u64> {
    let mut owners: Vec<_> = quota.sets[0].words().into_iter().filter(|word| *word != 0).collect();
    assert!(owners.iter().all(|word| word & 1 << 43 == 0), "a claim is left");
    owners.iter_mut().for_each(|word| *word >>= 44);
    owners.sort_unstable();
    owners
}

/// Two cores take of a burst of one: one gets it.
#[test]
fn loom_one_bucket_is_spent_once() {
    loom::model(|| {
        let quota = quota();
        assert!(takes(&quota, A, 0));
        let other = quota.clone();
        let thread = thread::spawn(move || takes(&other, A, 100));
        let here = takes(&quota, A, 100);
        let there = thread.join().unwrap();
        assert!(here ^ there);
        assert_eq!(owners(&quota), [A]);
    });
}

/// Two cores see one new client at the same time: it gets one bucket, and one request.
#[test]
fn loom_a_new_client_gets_one_bucket() {
    loom::model(|| {
        let quota = quota();
        let other = quota.clone();
        let thread = thread::spawn(move || other.take(A, 0));
        let here = quota.take(A, 0);
        let there = thread.join().unwrap();
        assert!(here.allowed ^ there.allowed && !here.shared && !there.shared);
        assert_eq!(owners(&quota), [A]);
    });
}

/// Two cores see a new client, at times at which different slots can be had: still one bucket, one request.
#[test]
fn loom_cores_that_choose_different_slots_make_one_bucket() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(|| {
        let quota = quota();
        // Full at 150, in the first slot, and at 100.
        assert!(takes(&quota, A, 50) && takes(&quota, B, 0));
        let other = quota.clone();
        let thread = thread::spawn(move || other.take(C, 120 * MS));
        let here = quota.take(C, 160 * MS);
        let there = thread.join().unwrap();
        assert!(here.allowed ^ there.allowed && !here.shared && !there.shared, "{here:?} {there:?}");
        let owners = owners(&quota);
        assert_eq!(owners.iter().filter(|owner| **owner == C).count(), 1, "{owners:?}");
    });
}

/// The same with a third core that takes a slot away meanwhile.
#[test]
fn loom_a_slot_that_is_lost_meanwhile() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(2);
    model.check(|| {
        let quota = quota();
        assert!(takes(&quota, A, 50) && takes(&quota, B, 0));
        let spawn = |client, now_ms| {
            let quota = quota.clone();
            thread::spawn(move || takes(&quota, client, now_ms))
        };
        let threads = [spawn(C, 120), spawn(A, 150)];
        let here = takes(&quota, C, 160);
        let [there, _] = threads.map(|thread| thread.join().unwrap());
        assert!(!(here && there), "two buckets");
        assert!(owners(&quota).iter().filter(|owner| **owner == C).count() <= 1);
    });
}

/// Three cores, one new client.
#[test]
fn loom_three_cores_see_one_new_client() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(2);
    model.check(|| {
        let quota = quota();
        assert!(takes(&quota, A, 50) && takes(&quota, B, 0));
        let spawn = |now_ms| {
            let quota = quota.clone();
            thread::spawn(move || takes(&quota, C, now_ms))
        };
        let threads = [spawn(120), spawn(160)];
        let here = takes(&quota, C, 165);
        let through =
            threads.map(|thread| thread.join().unwrap()).into_iter().chain([here]).filter(|took| *took).count();
        assert_eq!(through, 1);
        assert_eq!(owners(&quota).iter().filter(|owner| **owner == C).count(), 1);
    });
}

/// A client comes back just as its full bucket is given to another: one of them has the slot and has spent of it, the other
/// shares; neither spends what is the other's, and a slot lets no more through than a bucket has.
#[test]
fn loom_a_slot_that_is_given_away_is_not_spent_of() {
    loom::model(|| {
        let quota = quota();
        // Full at 100, and at 190.
        assert!(takes(&quota, A, 0) && takes(&quota, B, 90));
        let other = quota.clone();
        let thread = thread::spawn(move || other.take(A, 110 * MS));
        let new = quota.take(C, 110 * MS);
        let old = thread.join().unwrap();
        assert!(new.allowed && old.allowed);
        assert!(new.shared ^ old.shared, "{new:?} {old:?}");
        assert_eq!(owners(&quota), if new.shared { [A, B] } else { [B, C] });
    });
}

/// Those without a slot share one bucket.
#[test]
fn loom_the_shared_bucket_is_spent_once() {
    loom::model(|| {
        let quota = quota();
        assert!(takes(&quota, A, 50) && takes(&quota, B, 50));
        let other = quota.clone();
        let thread = thread::spawn(move || other.take(C, 60 * MS).allowed);
        let here = quota.take(C, 60 * MS);
        assert!(here.shared && (here.allowed ^ thread.join().unwrap()));
    });
}
