//! One endpoint as all cores see it: where it is, how busy, how slow, how healthy.
//!
//! The counters stand on cache lines of their own, because every core writes them on every request; the address,
//! which is only read, stands on another.

use std::fmt;
use std::net::SocketAddr;
use std::ops::Deref;
use std::path::Path;

use crate::ewma::{Ewma, LEAST_US};
use crate::sync::{AtomicU32, AtomicU64, Ordering};

/// What a failure of an endpoint that has never answered counts as, in microseconds: without a floor an endpoint
/// that refuses at once would look like the fastest.
const UNPROVEN_FAILURE_US: f32 = 100_000.0;

/// The most that successive failures can raise an average to, in microseconds.
const WORST_FAILURE_US: f32 = 60_000_000.0;

/// Where an endpoint is: its identity across plans.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Address {
    /// TCP over IPv4 or IPv6.
    Ip(SocketAddr),
    /// A unix socket, by its path.
    Unix(Box<Path>),
}

impl fmt::Display for Address {
    /// As configurations write it: `10.0.0.1:80`, `[::1]:80`, `unix:/run/app.sock`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Ip(address) => address.fmt(f),
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Address::Ip(address)
    }
}

/// An endpoint's state, shared by all cores and by all plans that name its address in the same service.
#[derive(Debug)]
#[repr(C, align(128))]
pub struct Endpoint {
    hot: Hot,
    address: Address,
}

/// What is written on every request. 128 bytes: processors fetch lines of 64 in pairs.
#[derive(Debug)]
#[repr(align(128))]
struct Hot {
    latency: Ewma,
    /// Nanoseconds on the caller's clock; 0 = not ejected.
    ejected_until_ns: AtomicU64,
    requests: AtomicU64,
    failures: AtomicU64,
    in_flight: AtomicU32,
    successive_failures: AtomicU32,
}

#[cfg(not(loom))]
const _: () = {
    assert!(size_of::<Hot>() == 128, "the counters of an endpoint fill one pair of cache lines");
    assert!(size_of::<Endpoint>().is_multiple_of(128) && align_of::<Endpoint>() == 128);
    assert!(std::mem::offset_of!(Endpoint, address) >= 128, "the address shares no line with the counters");
};

impl Endpoint {
    /// An endpoint of which nothing is known yet.
    pub fn new(address: Address) -> Self {
        let hot = Hot {
            latency: Ewma::new(),
            ejected_until_ns: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            in_flight: AtomicU32::new(0),
            successive_failures: AtomicU32::new(0),
        };
        Endpoint { hot, address }
    }

    /// Where it is.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Counts a request (or a TCP connection) as in flight until the guard is finished or dropped. `endpoint` is any
    /// handle that always leads to the same endpoint: a core's own `Rc`-based one costs no shared count.
    pub fn begin<R: Deref<Target = Endpoint>>(endpoint: R) -> InFlight<R> {
        endpoint.hot.in_flight.fetch_add(1, Ordering::Relaxed);
        endpoint.hot.requests.fetch_add(1, Ordering::Relaxed);
        InFlight { endpoint }
    }

    /// Requests in flight, from all cores.
    pub fn in_flight(&self) -> u32 {
        self.hot.in_flight.load(Ordering::Relaxed)
    }

    /// Requests begun since the endpoint was first named.
    pub fn requests(&self) -> u64 {
        self.hot.requests.load(Ordering::Relaxed)
    }

    /// Requests that ended in [`Outcome::Failure`] since the endpoint was first named.
    pub fn failures(&self) -> u64 {
        self.hot.failures.load(Ordering::Relaxed)
    }

    /// Failures since the last success.
    pub fn successive_failures(&self) -> u32 {
        self.hot.successive_failures.load(Ordering::Relaxed)
    }

    /// The peak-EWMA of its latency in microseconds as it counts at `now_ns`; `None` before the first sample.
    pub fn average_us(&self, now_ns: u64) -> Option<f32> {
        self.hot.latency.average_us(ms(now_ns))
    }

    /// Takes the endpoint out of balancing until `until_ns`. It is chosen all the same when nothing else is left.
    pub fn eject(&self, until_ns: u64) {
        self.hot.ejected_until_ns.store(until_ns, Ordering::Relaxed);
    }

    /// Ends an ejection now.
    pub fn readmit(&self) {
        self.eject(0);
    }

    /// Whether it is out of balancing at `now_ns`.
    pub fn is_ejected(&self, now_ns: u64) -> bool {
        now_ns < self.ejected_until_ns()
    }

    /// When its ejection ends, in nanoseconds; 0 if it was never ejected, or readmitted. May lie in the past.
    pub fn ejected_until_ns(&self) -> u64 {
        self.hot.ejected_until_ns.load(Ordering::Relaxed)
    }

    fn record(&self, now_ns: u64, latency_ns: u64, outcome: Outcome) {
        let hot = &self.hot;
        let latency_us = (latency_ns / 1_000) as f32;
        match outcome {
            Outcome::Success => {
                hot.latency.record(ms(now_ns), |_| latency_us);
                // Read first: the line is here anyway, and a store would be for nothing nearly always.
                if hot.successive_failures.load(Ordering::Relaxed) != 0 {
                    hot.successive_failures.store(0, Ordering::Relaxed);
                }
            }
            Outcome::Failure => {
                hot.latency.record(ms(now_ns), |average| failure_us(average, latency_us));
                hot.successive_failures.fetch_add(1, Ordering::Relaxed);
                hot.failures.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// The sample that a failure counts as: twice the average, so that an endpoint that fails fast gets slower with each
/// failure instead of faster, and one rare failure costs it little.
fn failure_us(average_us: Option<f32>, latency_us: f32) -> f32 {
    let doubled_us = average_us.map_or(UNPROVEN_FAILURE_US, |average| average.max(LEAST_US) * 2.0);
    latency_us.max(doubled_us.min(WORST_FAILURE_US))
}

/// Milliseconds as the average keeps them; they wrap after 49 days.
fn ms(now_ns: u64) -> u32 {
    (now_ns / 1_000_000) as u32
}

/// How a request on an endpoint ended, as far as the endpoint is to blame or to praise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It answered: its latency counts, its successive failures are over.
    Success,
    /// It refused, reset, timed out, or answered with what the caller counts as failure.
    Failure,
}

/// One request in flight. [`finish`](InFlight::finish) says how it ended; a guard that is dropped instead (the client
/// went away) gives back the count and tells nothing about the endpoint.
#[derive(Debug)]
#[must_use = "the request counts as in flight only while this is held"]
pub struct InFlight<R: Deref<Target = Endpoint>> {
    endpoint: R,
}

impl<R: Deref<Target = Endpoint>> InFlight<R> {
    /// The endpoint it runs on.
    pub fn endpoint(&self) -> &R {
        &self.endpoint
    }

    /// Records latency and outcome, and gives back the count.
    pub fn finish(self, now_ns: u64, latency_ns: u64, outcome: Outcome) {
        self.endpoint.record(now_ns, latency_ns, outcome);
    }
}

impl<R: Deref<Target = Endpoint>> Drop for InFlight<R> {
    fn drop(&mut self) {
        self.endpoint.hot.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::rc::Rc;

    const MS: u64 = 1_000_000;

    fn endpoint() -> Endpoint {
        Endpoint::new(Address::Ip("10.0.0.1:80".parse().unwrap()))
    }

    #[test]
    fn endpoints_in_a_row_share_no_cache_line() {
        let two = [endpoint(), endpoint()];
        let (a, b) = (&raw const two[0].hot as usize, &raw const two[1].hot as usize);
        assert_eq!((a % 128, b % 128), (0, 0));
        assert!(b - a >= 256, "address and counters take at least two pairs of lines");
    }

    #[test]
    fn guards_give_back_however_they_end() {
        let endpoint = Rc::new(endpoint());
        let finished = Endpoint::begin(endpoint.clone());
        let dropped = Endpoint::begin(&*endpoint);
        assert_eq!(endpoint.in_flight(), 2);
        drop(dropped);
        assert_eq!((endpoint.in_flight(), endpoint.average_us(0)), (1, None), "a drop tells nothing");
        finished.finish(MS, 3 * MS, Outcome::Success);
        assert_eq!((endpoint.in_flight(), endpoint.average_us(MS)), (0, Some(3_000.0)));
        assert_eq!((endpoint.requests(), endpoint.failures()), (2, 0));
    }

    #[test]
    fn a_success_ends_successive_failures() {
        let endpoint = endpoint();
        for expected in 1..=3 {
            Endpoint::begin(&endpoint).finish(0, MS, Outcome::Failure);
            assert_eq!(endpoint.successive_failures(), expected);
        }
        Endpoint::begin(&endpoint).finish(0, MS, Outcome::Success);
        assert_eq!((endpoint.successive_failures(), endpoint.failures()), (0, 3));
    }

    #[test]
    fn failing_fast_does_not_look_fast() {
        let endpoint = endpoint();
        Endpoint::begin(&endpoint).finish(0, 50_000, Outcome::Failure);
        assert_eq!(endpoint.average_us(0), Some(UNPROVEN_FAILURE_US));
        Endpoint::begin(&endpoint).finish(0, 50_000, Outcome::Failure);
        assert_eq!(endpoint.average_us(0), Some(2.0 * UNPROVEN_FAILURE_US));
        for _ in 0..100 {
            Endpoint::begin(&endpoint).finish(0, 50_000, Outcome::Failure);
        }
        assert_eq!(endpoint.average_us(0), Some(WORST_FAILURE_US));
    }

    #[test]
    fn ejection_ends_at_its_time() {
        let endpoint = endpoint();
        assert!(!endpoint.is_ejected(0));
        endpoint.eject(10);
        assert!(endpoint.is_ejected(9));
        assert!(!endpoint.is_ejected(10));
        endpoint.eject(u64::MAX);
        endpoint.readmit();
        assert!(!endpoint.is_ejected(9));
    }

    #[test]
    fn addresses_are_shown_as_configured() {
        assert_eq!(Address::from("[::1]:80".parse::<SocketAddr>().unwrap()).to_string(), "[::1]:80");
        assert_eq!(Address::Unix(Path::new("/run/a.sock").into()).to_string(), "unix:/run/a.sock");
    }
}

#[cfg(all(test, loom))]
mod loom_models {
    use super::*;
    use loom::thread;
    use std::sync::Arc;

    /// Whatever guards do on two cores, the count comes back to zero and is never seen above what is held.
    #[test]
    fn loom_in_flight_is_never_lost() {
        loom::model(|| {
            let endpoint = Arc::new(Endpoint::new(Address::Ip(([127, 0, 0, 1], 80).into())));
            let other = endpoint.clone();
            let thread = thread::spawn(move || {
                let guard = Endpoint::begin(other.clone());
                assert!((1..=2).contains(&other.in_flight()));
                guard.finish(1, 5_000, Outcome::Failure);
            });
            let guard = Endpoint::begin(endpoint.clone());
            assert!((1..=2).contains(&endpoint.in_flight()));
            drop(guard);
            thread.join().unwrap();
            assert_eq!(endpoint.in_flight(), 0);
            assert_eq!((endpoint.requests(), endpoint.failures(), endpoint.successive_failures()), (2, 1, 1));
        });
    }
}
