//! Distributions are held against bounds of five standard deviations, with fixed seeds.

use super::*;
use crate::endpoint::{InFlight, Outcome};
use proptest::prelude::*;

const ALL: [Algorithm; 4] = [Algorithm::RoundRobin, Algorithm::Random, Algorithm::LeastRequest, Algorithm::PeakEwma];
const PICKS: usize = 60_000;
const MS: u64 = 1_000_000;

fn address(index: usize) -> Address {
    Address::Ip(([10, 0, (index / 256) as u8, (index % 256) as u8], 80).into())
}

fn service(algorithm: Algorithm, weights: &[u32]) -> Service {
    let endpoints = weights.iter().enumerate().map(|(index, &weight)| (address(index), weight));
    Service::carry(None, "cart", endpoints, algorithm, Limits::default()).unwrap()
}

/// All endpoints measured alike, so that peak-EWMA has no reason to prefer one.
fn warm(service: &Service) {
    service.endpoints().for_each(|(endpoint, _)| Endpoint::begin(&**endpoint).finish(0, 5 * MS, Outcome::Success));
}

fn counts(service: &Service, picks: usize, seed: u64, exclude: &[u16]) -> Vec<usize> {
    let mut counts = vec![0; service.len()];
    let mut draws = Draws::new(seed);
    (0..picks).for_each(|_| counts[service.pick(0, draws.next(), exclude).unwrap()] += 1);
    counts
}

fn assert_shares(counts: &[usize], weights: &[u32], what: &str) {
    let picks: usize = counts.iter().sum();
    let total: u32 = weights.iter().sum();
    for (&count, &weight) in counts.iter().zip(weights) {
        let share = f64::from(weight) / f64::from(total);
        let expected = picks as f64 * share;
        let allowed = 5.0 * (expected * (1.0 - share)).sqrt() + 1.0;
        assert!((count as f64 - expected).abs() <= allowed, "{what}: {counts:?} for weights {weights:?}");
    }
}

#[test]
fn weights_are_honoured_on_idle_endpoints() {
    for algorithm in ALL {
        for weights in [&[1, 1][..], &[1, 3], &[0, 2, 2], &[1, 9], &[7], &[5, 0]] {
            let service = service(algorithm, weights);
            warm(&service);
            assert_shares(&counts(&service, PICKS, 1, &[]), weights, &format!("{algorithm:?}"));
        }
    }
}

#[test]
fn weights_are_honoured_among_many_idle_endpoints() {
    // Two different draws by weight are a little less skewed than the weights when the first draw decides, not at all:
    // the first is exactly by weight, and equal costs leave it in place.
    for algorithm in ALL {
        let weights = [1, 2, 3, 4, 10, 1, 1, 2];
        let service = service(algorithm, &weights);
        warm(&service);
        assert_shares(&counts(&service, PICKS, 2, &[]), &weights, &format!("{algorithm:?}"));
    }
}

/// Requests that stay: what is in flight on each endpoint goes by the weights.
#[test]
fn load_in_flight_goes_by_weight() {
    for algorithm in [Algorithm::LeastRequest, Algorithm::PeakEwma] {
        let weights = [1, 2, 4];
        let service = service(algorithm, &weights);
        warm(&service);
        let mut draws = Draws::new(3);
        let mut held: Vec<InFlight<Arc<Endpoint>>> = Vec::new();
        for _ in 0..700 {
            let index = service.pick(0, draws.next(), &[]).unwrap();
            held.push(Endpoint::begin(service.endpoint(index).unwrap().clone()));
        }
        for (endpoint, weight) in service.endpoints() {
            let expected = 100 * weight;
            let allowed = expected / 6;
            assert!(
                endpoint.in_flight().abs_diff(expected) <= allowed,
                "{algorithm:?} {weight}: {}",
                endpoint.in_flight()
            );
        }
        drop(held);
        assert!(service.endpoints().all(|(endpoint, _)| endpoint.in_flight() == 0));
    }
}

#[test]
fn least_request_takes_the_less_busy_of_two() {
    let service = service(Algorithm::LeastRequest, &[1, 1]);
    let _busy = Endpoint::begin(service.endpoint(0).unwrap().clone());
    assert_eq!(counts(&service, 100, 4, &[]), [0, 100]);
}

#[test]
fn two_choices_spread_better_than_chance() {
    let spread = |algorithm| {
        let service = service(algorithm, &[1; 100]);
        let mut draws = Draws::new(5);
        let held: Vec<_> = (0..10_000)
            .map(|_| Endpoint::begin(service.endpoint(service.pick(0, draws.next(), &[]).unwrap()).unwrap().clone()))
            .collect();
        let most = service.endpoints().map(|(endpoint, _)| endpoint.in_flight()).max().unwrap();
        drop(held);
        most
    };
    let (random, least) = (spread(Algorithm::Random), spread(Algorithm::LeastRequest));
    assert!(least <= 105 && random >= 115, "mean 100, most by chance {random}, by two choices {least}");
}

#[test]
fn peak_ewma_leaves_the_slow_one() {
    let service = service(Algorithm::PeakEwma, &[1, 1, 1]);
    warm(&service);
    Endpoint::begin(&**service.endpoint(1).unwrap()).finish(0, 500 * MS, Outcome::Success);
    assert_eq!(counts(&service, 3_000, 6, &[])[1], 0);
    // Idle for a minute it has decayed below what the others answer in, and is tried again.
    let later = 60_000 * MS;
    for index in [0, 2] {
        Endpoint::begin(&**service.endpoint(index).unwrap()).finish(later, 5 * MS, Outcome::Success);
    }
    let mut draws = Draws::new(7);
    assert!((0..100).any(|_| service.pick(later, draws.next(), &[]) == Some(1)));
}

#[test]
fn peak_ewma_overlooks_small_differences() {
    let service = service(Algorithm::PeakEwma, &[1, 1]);
    for (index, latency_ns) in [(0, 10 * MS), (1, 9 * MS)] {
        Endpoint::begin(&**service.endpoint(index).unwrap()).finish(0, latency_ns, Outcome::Success);
    }
    assert_shares(&counts(&service, PICKS, 8, &[]), &[1, 1], "a tenth faster");
}

#[test]
fn peak_ewma_starts_a_new_endpoint_with_one_request() {
    let service = service(Algorithm::PeakEwma, &[1, 1]);
    Endpoint::begin(&**service.endpoint(0).unwrap()).finish(0, 50 * MS, Outcome::Success);
    assert_eq!(counts(&service, 100, 9, &[]), [0, 100], "idle and unknown: tried at once");
    let first = Endpoint::begin(service.endpoint(1).unwrap().clone());
    let _busy: Vec<_> = (0..100).map(|_| Endpoint::begin(service.endpoint(0).unwrap().clone())).collect();
    assert_eq!(counts(&service, 100, 10, &[]), [100, 0], "one at a time until it has answered");
    first.finish(0, MS, Outcome::Success);
    assert_eq!(counts(&service, 100, 11, &[]), [0, 100]);
}

#[test]
fn excluded_endpoints_are_never_chosen() {
    for algorithm in ALL {
        let weights = [5, 1, 1, 2];
        let service = service(algorithm, &weights);
        warm(&service);
        let chosen = counts(&service, 2_000, 12, &[0, 3]);
        assert_eq!((chosen[0], chosen[3]), (0, 0), "{algorithm:?}");
        assert!(chosen[1] > 500 && chosen[2] > 500, "{algorithm:?}: {chosen:?}");
        assert_eq!(service.pick(0, 1, &[0, 1, 2, 3]), None, "{algorithm:?}");
    }
}

#[test]
fn ejected_endpoints_are_passed_over_until_all_are() {
    for algorithm in ALL {
        let service = service(algorithm, &[1, 1, 1, 0]);
        warm(&service);
        service.endpoint(0).unwrap().eject(100);
        service.endpoint(1).unwrap().eject(100);
        assert_eq!(counts(&service, 1_000, 13, &[]), [0, 0, 1_000, 0], "{algorithm:?}");
        assert!(matches!(service.pick(0, 1, &[2]), Some(0 | 1)), "{algorithm:?}: better an ejected one than none");
        assert_eq!(service.pick(0, 1, &[2, 0]), Some(1), "{algorithm:?}");
        service.endpoint(2).unwrap().eject(100);
        assert!(counts(&service, 3_000, 14, &[])[..3].iter().all(|&count| count > 500), "{algorithm:?}: all ejected");
        let mut draws = Draws::new(15);
        let mut after = [0; 4];
        service.endpoint(2).unwrap().eject(1_000);
        (0..1_000).for_each(|_| after[service.pick(100, draws.next(), &[]).unwrap()] += 1);
        assert!(after[0] > 300 && after[1] > 300 && after[2] == 0, "{algorithm:?}: the ejection ended");
    }
}

#[test]
fn nothing_to_choose_is_none() {
    for algorithm in ALL {
        assert_eq!(service(algorithm, &[]).pick(0, 0, &[]), None);
        assert_eq!(service(algorithm, &[0, 0]).pick(0, 0, &[]), None, "zero is never chosen, not even alone");
    }
}

#[test]
fn the_limit_of_endpoints_is_told() {
    let one = Arc::new(Endpoint::new(address(0)));
    let many = |count| vec![(one.clone(), 1); count];
    let limits = Limits::default();
    let most = Service::new("most", many(MAX_ENDPOINTS), Algorithm::RoundRobin, limits).unwrap();
    assert!((0..100).all(|_| most.pick(0, 0, &[]).is_some()));
    let error = Service::new("more", many(MAX_ENDPOINTS + 1), Algorithm::Random, limits).unwrap_err();
    assert_eq!(error.to_string(), "65536 endpoints, a service can have 65535");
}

#[test]
fn a_new_plan_forgets_nothing() {
    let old = service(Algorithm::RoundRobin, &[1, 1, 1]);
    let first = old.pick(0, 0, &[]);
    let held = Endpoint::begin(old.endpoint(1).unwrap().clone());
    let connection = old.try_take(Kind::Connection).unwrap();
    let limits = Limits { connections: 1, ..Limits::default() };
    let endpoints = [(address(7), 1), (address(1), 5), (address(2), 1)];
    let new = Service::carry(Some(&old), "cart", endpoints, Algorithm::RoundRobin, limits).unwrap();

    assert_eq!((first, new.len()), (Some(0), 3));
    assert_eq!(new.endpoint(0).unwrap().address(), &address(7));
    assert!(Arc::ptr_eq(new.endpoint(1).unwrap(), old.endpoint(1).unwrap()));
    assert!(Arc::ptr_eq(new.endpoint(2).unwrap(), old.endpoint(2).unwrap()));
    assert_eq!(new.endpoint(1).unwrap().in_flight(), 1);
    assert!(new.try_take(Kind::Connection).is_none(), "the old plan's connection counts under the new limit");
    drop((held, connection));
    assert_eq!(old.endpoint(1).unwrap().in_flight(), 0);
    assert!(new.try_take(Kind::Connection).is_some());
}

#[test]
fn a_service_knows_what_it_is() {
    let (limits, one) = (Limits::default(), service(Algorithm::RoundRobin, &[1, 2]));
    let is = [(address(0), 1), (address(1), 2)];
    assert!(one.is(&is, Algorithm::RoundRobin, &limits));
    assert!(!one.is(&is, Algorithm::Random, &limits));
    assert!(!one.is(&is, Algorithm::RoundRobin, &Limits { pending: 1, ..limits }));
    for other in [&is[..1], &[(address(1), 2), (address(0), 1)], &[(address(0), 1), (address(1), 3)]] {
        assert!(!one.is(other, Algorithm::RoundRobin, &limits), "{other:?}");
    }
}

#[test]
fn an_address_named_twice_is_one_endpoint() {
    let endpoints = [(address(1), 2), (address(2), 1), (address(1), u32::MAX)];
    let service = Service::carry(None, "cart", endpoints, Algorithm::Random, Limits::default()).unwrap();
    let members: Vec<_> = service.endpoints().map(|(endpoint, weight)| (endpoint.address().clone(), weight)).collect();
    assert_eq!(members, [(address(1), u32::MAX), (address(2), 1)]);
}

proptest! {
    /// Whatever is ejected and excluded: what is chosen has a weight, is not excluded, and is ejected only if all are.
    #[test]
    fn a_choice_is_always_a_right_one(
        members in prop::collection::vec((0u32..5, any::<bool>()), 0..20),
        exclude in prop::collection::vec(0u16..20, 0..6),
        seeds in prop::collection::vec(any::<u64>(), 20),
    ) {
        let weights: Vec<u32> = members.iter().map(|(weight, _)| *weight).collect();
        for algorithm in ALL {
            let service = service(algorithm, &weights);
            for (index, (_, ejected)) in members.iter().enumerate() {
                if *ejected { service.endpoint(index).unwrap().eject(10) }
            }
            let left: Vec<usize> = (0..members.len())
                .filter(|&index| weights[index] > 0 && !exclude.contains(&(index as u16)))
                .collect();
            let all_ejected = left.iter().all(|&index| members[index].1);
            for &seed in &seeds {
                match service.pick(1, seed, &exclude) {
                    None => prop_assert!(left.is_empty()),
                    Some(index) => {
                        prop_assert!(left.contains(&index));
                        prop_assert!(all_ejected || !members[index].1);
                    }
                }
            }
        }
    }
}
