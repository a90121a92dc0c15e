//! A service: its endpoints with their weights, how one of them is chosen, and its limits.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use crossbeam_utils::CachePadded;

use crate::alias::Weighted;
use crate::budget::{Budget, Kind, Limits, Permit};
use crate::endpoint::{Address, Endpoint};
use crate::schedule::schedule;
use crate::sync::{AtomicU64, Ordering};

/// The most endpoints of one service: indices are `u16`.
pub const MAX_ENDPOINTS: usize = 65_535;

/// How many draws a choice makes before it looks at every endpoint instead.
const DRAWS: usize = 8;

/// Under peak-EWMA the second choice must cost less than this part of the first. Peaks of equal endpoints differ by
/// noise, and idle ones look better by the millisecond; were each difference followed, the weights would not count.
const CLEARLY_LESS: f32 = 7.0 / 8.0;

/// What a request costs on an endpoint that has one under way and has never answered, in microseconds: a new endpoint
/// gets one request at a time until it is known how it does.
const UNKNOWN_US: f32 = 60_000_000.0;

/// How an endpoint is chosen. Weights count in all of them; an endpoint of weight zero is never chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// In turns, smoothly interleaved by weight; one cursor for all cores.
    RoundRobin,
    /// By chance.
    Random,
    /// Of two drawn by weight the one with fewer requests in flight for its weight; the first drawn if they are equal.
    LeastRequest,
    /// Of two drawn by weight the one whose peak-EWMA latency, times its load, is clearly lower; else the first drawn.
    PeakEwma,
}

/// A service holds more than [`MAX_ENDPOINTS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManyEndpoints {
    /// How many it was to hold.
    pub count: usize,
}

impl fmt::Display for TooManyEndpoints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} endpoints, a service can have {MAX_ENDPOINTS}", self.count)
    }
}

impl std::error::Error for TooManyEndpoints {}

/// The endpoints of one service under one plan. Immutable apart from atomics, and shared by all cores.
#[derive(Debug)]
pub struct Service {
    name: Box<str>,
    members: Box<[Member]>,
    algorithm: Algorithm,
    /// Round robin's turns; empty for the others.
    turns: Box<[u16]>,
    /// Draws by weight; `None` if no endpoint can be chosen.
    by_weight: Option<Weighted>,
    limits: Limits,
    budget: Arc<Budget>,
    cursor: CachePadded<AtomicU64>,
}

#[derive(Debug)]
struct Member {
    endpoint: Arc<Endpoint>,
    weight: u32,
    /// The mean weight divided by this one: what one request weighs here, 1 where all weights are equal.
    load: f32,
}

impl Service {
    /// A service with a budget of its own. Weights count relative to each other; zero takes an endpoint out.
    pub fn new(
        name: impl Into<Box<str>>,
        endpoints: Vec<(Arc<Endpoint>, u32)>,
        algorithm: Algorithm,
        limits: Limits,
    ) -> Result<Self, TooManyEndpoints> {
        Service::with(name.into(), endpoints, algorithm, limits, Arc::default(), 0)
    }

    /// The service as a new plan wants it, with what the previous plan's service of the same name knows: endpoints
    /// of the same address keep their state, the budget keeps its counts (under the new limits), turns go on. `previous` is
    /// not changed and stays valid. An address that is named twice becomes one endpoint with the sum of the weights,
    /// at its first place, so indices may differ from those of `endpoints`.
    pub fn carry(
        previous: Option<&Service>,
        name: impl Into<Box<str>>,
        endpoints: impl IntoIterator<Item = (Address, u32)>,
        algorithm: Algorithm,
        limits: Limits,
    ) -> Result<Self, TooManyEndpoints> {
        let known: HashMap<&Address, &Arc<Endpoint>> =
            previous.iter().flat_map(|service| service.endpoints()).map(|(it, _)| (it.address(), it)).collect();
        let endpoints = merged(endpoints)
            .into_iter()
            .map(|(address, weight)| match known.get(&address) {
                Some(&endpoint) => (endpoint.clone(), weight),
                None => (Arc::new(Endpoint::new(address)), weight),
            })
            .collect();
        let budget = previous.map(|service| service.budget.clone()).unwrap_or_default();
        let turn = previous.map_or(0, |service| service.cursor.load(Ordering::Relaxed));
        Service::with(name.into(), endpoints, algorithm, limits, budget, turn)
    }

    /// Whether a plan that wants these endpoints, this algorithm and these limits can go on with this very service. An
    /// address that is named twice is said to be another service.
    pub fn is(&self, endpoints: &[(Address, u32)], algorithm: Algorithm, limits: &Limits) -> bool {
        let same = |(member, (address, weight)): (&Member, &(Address, u32))| {
            member.weight == *weight && member.endpoint.address() == address
        };
        self.algorithm == algorithm
            && self.limits == *limits
            && self.members.len() == endpoints.len()
            && self.members.iter().zip(endpoints).all(same)
    }

    fn with(
        name: Box<str>,
        endpoints: Vec<(Arc<Endpoint>, u32)>,
        algorithm: Algorithm,
        limits: Limits,
        budget: Arc<Budget>,
        turn: u64,
    ) -> Result<Self, TooManyEndpoints> {
        if endpoints.len() > MAX_ENDPOINTS {
            return Err(TooManyEndpoints { count: endpoints.len() });
        }
        let weights: Vec<u32> = endpoints.iter().map(|(_, weight)| *weight).collect();
        let turns = if algorithm == Algorithm::RoundRobin { schedule(&weights) } else { Box::default() };
        let cursor = CachePadded::new(AtomicU64::new(turn));
        let by_weight = Weighted::new(&weights);
        Ok(Service { name, members: members(endpoints), algorithm, turns, by_weight, limits, budget, cursor })
    }

    /// Its name in the configuration.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How its endpoints are chosen.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Its limits under this plan.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// What it uses of them, over all plans.
    pub fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }

    /// The number of endpoints, those of weight zero included.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether it has no endpoint at all.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// The endpoint at an index that [`pick`](Service::pick) returned.
    pub fn endpoint(&self, index: usize) -> Option<&Arc<Endpoint>> {
        self.members.get(index).map(|member| &member.endpoint)
    }

    /// All endpoints with their weights, in order of their indices.
    pub fn endpoints(&self) -> impl ExactSizeIterator<Item = (&Arc<Endpoint>, u32)> {
        self.members.iter().map(|member| (&member.endpoint, member.weight))
    }

    /// Takes one of `kind` from the budget under this plan's limits. It clones the budget's `Arc`: right for a connection; for
    /// every request use [`Budget::try_take`] with a core's own handle.
    pub fn try_take(&self, kind: Kind) -> Option<Permit<Arc<Budget>>> {
        Budget::try_take(self.budget.clone(), kind, &self.limits)
    }

    /// Chooses an endpoint: its index, or `None` if all that have a weight are in `exclude`. `random` is 64 uniform
    /// bits, `exclude` the indices that this request has already tried.
    ///
    /// Ejected endpoints are passed over, unless all that are not excluded are ejected: then these are chosen from as
    /// if none were, because a try is better than a refusal. Takes constant time where a few draws find an endpoint
    /// that is neither excluded nor ejected; else it looks at all of them and draws among the remaining, by weight.
    pub fn pick(&self, now_ns: u64, random: u64, exclude: &[u16]) -> Option<usize> {
        let by_weight = self.by_weight.as_ref()?;
        let left = |index: usize| !exclude.contains(&(index as u16));
        let usable = |index: usize| left(index) && !self.members[index].endpoint.is_ejected(now_ns);
        let mut draws = Draws::new(random);
        let chosen = match self.algorithm {
            Algorithm::RoundRobin => self.next_turn(usable),
            Algorithm::Random => draw(by_weight, &mut draws, usable),
            Algorithm::LeastRequest => self.of_two(by_weight, &mut draws, usable, least_request),
            Algorithm::PeakEwma => {
                let better = |a: &Member, b: &Member| cost_us(b, now_ns) < cost_us(a, now_ns) * CLEARLY_LESS;
                self.of_two(by_weight, &mut draws, usable, better)
            }
        };
        let random = draws.next();
        chosen.or_else(|| self.scan(random, usable)).or_else(|| self.scan(random, left))
    }

    /// The next in turn that is usable.
    fn next_turn(&self, usable: impl Fn(usize) -> bool) -> Option<usize> {
        let mut turns = (0..DRAWS).map(|_| {
            let turn = self.cursor.fetch_add(1, Ordering::Relaxed);
            usize::from(self.turns[(turn % self.turns.len() as u64) as usize])
        });
        turns.find(|&index| usable(index))
    }

    /// Of two different endpoints drawn by weight the second if it is better, else the first.
    fn of_two(
        &self,
        by_weight: &Weighted,
        draws: &mut Draws,
        usable: impl Fn(usize) -> bool,
        better: impl Fn(&Member, &Member) -> bool,
    ) -> Option<usize> {
        let first = draw(by_weight, draws, &usable)?;
        let second = match self.members.len() {
            1 => None,
            // No draw needed, and none could be relied on to hit the lighter of two very different weights.
            2 => Some(1 - first).filter(|&other| self.members[other].weight > 0 && usable(other)),
            _ => draw(by_weight, draws, |index| index != first && usable(index)),
        };
        second.filter(|&second| better(&self.members[first], &self.members[second])).or(Some(first))
    }

    /// Looks at every endpoint and draws among those that are usable, by weight.
    fn scan(&self, random: u64, usable: impl Fn(usize) -> bool) -> Option<usize> {
        // Others may eject or readmit between the two passes: where the sum does not fit any more, the last one seen.
        let weights =
            || (0..self.members.len()).filter(|&index| usable(index)).map(|index| (index, self.members[index].weight));
        let total: u64 = weights().map(|(_, weight)| u64::from(weight)).sum();
        let mut rest = ((u128::from(random) * u128::from(total)) >> 64) as u64;
        let mut last = None;
        for (index, weight) in weights().filter(|&(_, weight)| weight > 0) {
            last = Some(index);
            match rest.checked_sub(u64::from(weight)) {
                Some(less) => rest = less,
                None => break,
            }
        }
        last
    }
}

/// Whether `b` has clearly fewer requests in flight for its weight: `in_flight / weight`, compared without dividing. Not
/// `(in_flight + 1) / weight`: on idle endpoints that would always choose the heavier of two, and never the weights' share.
fn least_request(a: &Member, b: &Member) -> bool {
    let in_flight = |member: &Member| u64::from(member.endpoint.in_flight());
    in_flight(b) * u64::from(a.weight) < in_flight(a) * u64::from(b.weight)
}

/// What one more request costs on a member, in microseconds: its average for every request that it would have, where a
/// request counts less on heavier members. A member that was never measured costs nothing while idle, much while not.
fn cost_us(member: &Member, now_ns: u64) -> f32 {
    let in_flight = member.endpoint.in_flight();
    let load = in_flight as f32 * member.load + 1.0;
    match member.endpoint.average_us(now_ns) {
        Some(average_us) => average_us * load,
        None if in_flight == 0 => 0.0,
        None => UNKNOWN_US * load,
    }
}

/// Draws until a usable one is found, at most [`DRAWS`] times.
fn draw(by_weight: &Weighted, draws: &mut Draws, usable: impl Fn(usize) -> bool) -> Option<usize> {
    (0..DRAWS).map(|_| by_weight.pick(draws.next())).find(|&index| usable(index))
}

fn members(endpoints: Vec<(Arc<Endpoint>, u32)>) -> Box<[Member]> {
    let total: u64 = endpoints.iter().map(|(_, weight)| u64::from(*weight)).sum();
    let counted = endpoints.iter().filter(|(_, weight)| *weight > 0).count().max(1);
    let mean = total as f64 / counted as f64;
    let member = |(endpoint, weight): (Arc<Endpoint>, u32)| {
        let load = (mean / f64::from(weight.max(1))) as f32;
        Member { endpoint, weight, load }
    };
    endpoints.into_iter().map(member).collect()
}

/// Each address once, at its first place, with the sum of its weights.
fn merged(endpoints: impl IntoIterator<Item = (Address, u32)>) -> Vec<(Address, u32)> {
    let mut places: HashMap<Address, usize> = HashMap::new();
    let mut merged: Vec<(Address, u32)> = Vec::new();
    for (address, weight) in endpoints {
        match places.get(&address) {
            Some(&place) => merged[place].1 = merged[place].1.saturating_add(weight),
            None => {
                places.insert(address.clone(), merged.len());
                merged.push((address, weight));
            }
        }
    }
    merged
}

/// Random numbers that follow from one: the given one itself, then SplitMix64 (Steele, Lea, Flood 2014) from it.
pub(crate) struct Draws {
    state: u64,
    first: Option<u64>,
}

impl Draws {
    pub(crate) fn new(random: u64) -> Self {
        Draws { state: random, first: Some(random) }
    }

    pub(crate) fn next(&mut self) -> u64 {
        if let Some(first) = self.first.take() {
            return first;
        }
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.state ^ self.state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }
}

#[cfg(all(test, not(loom)))]
mod tests;

#[cfg(all(test, loom))]
mod loom_models {
    use super::*;
    use loom::thread;

    /// Two cores take turns on one cursor: every turn of the round is taken, none twice.
    #[test]
    fn loom_cores_share_the_turns_of_round_robin() {
        loom::model(|| {
            let endpoints = (1..=4).map(|port| (Address::Ip(([127, 0, 0, 1], port).into()), 1));
            let service = Service::carry(None, "s", endpoints, Algorithm::RoundRobin, Limits::default());
            let service = Arc::new(service.unwrap());
            let other = service.clone();
            let two = |service: &Service| [0, 0].map(|random| service.pick(1, random, &[]).unwrap());
            let thread = thread::spawn(move || two(&other));
            let mut all: Vec<usize> = two(&service).into_iter().chain(thread.join().unwrap()).collect();
            all.sort_unstable();
            assert_eq!(all, [0, 1, 2, 3]);
        });
    }
}
