//! Requests through the whole mesh, from its start to its end.

use crate::ask::{Caller, line};
use ringway_tests::{Answer, until};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::ops::Sub;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// So many customers at once.
const CUSTOMERS: usize = 2;
/// Of failures so many are kept, in words.
const KEPT: usize = 5;

/// Customers who look into their baskets again and again, until this is dropped.
pub(crate) struct Traffic {
    seen: Arc<Seen>,
    customers: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Seen {
    count: Mutex<Count>,
    /// Who called with which certificate, since it was last asked.
    certificates: Mutex<BTreeSet<(String, String)>>,
    failures: Mutex<Vec<String>>,
    pause_ms: AtomicU64,
    stop: AtomicBool,
}

/// Answers, and who gave them.
#[derive(Clone, Copy, Default)]
pub(crate) struct Count {
    pub(crate) all: u64,
    pub(crate) v1: u64,
    pub(crate) v2: u64,
    /// Not answered with 200.
    pub(crate) failed: u64,
}

impl Sub for Count {
    type Output = Count;

    fn sub(self, before: Count) -> Count {
        Count {
            all: self.all - before.all,
            v1: self.v1 - before.v1,
            v2: self.v2 - before.v2,
            failed: self.failed - before.failed,
        }
    }
}

impl Traffic {
    pub(crate) fn begin(to: SocketAddr) -> Traffic {
        let seen = Arc::new(Seen { pause_ms: 4.into(), ..Seen::default() });
        let customers = (0..CUSTOMERS).map(|_| {
            let seen = seen.clone();
            std::thread::spawn(move || seen.drive(to))
        });
        Traffic { customers: customers.collect(), seen }
    }

    /// For as long as people only watch.
    pub(crate) fn slow_down(&self) {
        self.seen.pause_ms.store(40, Relaxed);
    }

    pub(crate) fn count(&self) -> Count {
        *self.seen.count.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What comes while something is done.
    pub(crate) fn during<T>(&self, work: impl FnOnce() -> T) -> (Count, T) {
        let before = self.count();
        let done = work();
        (self.count() - before, done)
    }

    /// Waits for so many more answers, at most a minute.
    pub(crate) fn wait_for(&self, more: u64) -> Count {
        let before = self.count();
        let _come = until(Duration::from_secs(60), || (self.count().all >= before.all + more).then_some(()));
        self.count() - before
    }

    /// Identities, and the certificates that they called with in the next so many requests.
    pub(crate) fn certificates(&self, requests: u64) -> BTreeSet<(String, String)> {
        let take = || std::mem::take(&mut *self.seen.certificates.lock().unwrap_or_else(PoisonError::into_inner));
        take();
        self.wait_for(requests);
        take()
    }

    /// The first failures, in words.
    pub(crate) fn failures(&self) -> Vec<String> {
        self.seen.failures.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.seen.stop.store(true, Relaxed);
        for customer in self.customers.drain(..) {
            let _ended = customer.join();
        }
    }
}

impl Seen {
    fn drive(&self, to: SocketAddr) {
        let (mut caller, begun) = (Caller::new(to), Instant::now());
        while !self.stop.load(Relaxed) {
            let came = caller.ask("GET", "/basket").and_then(|answer| match answer.status {
                200 => Ok(answer),
                _ => Err(line(&answer)),
            });
            self.note(came, begun);
            std::thread::sleep(Duration::from_millis(self.pause_ms.load(Relaxed)));
        }
    }

    fn note(&self, came: Result<Answer, String>, begun: Instant) {
        let mut count = self.count.lock().unwrap_or_else(PoisonError::into_inner);
        count.all += 1;
        match came {
            Ok(answer) => {
                let text = String::from_utf8_lossy(&answer.body);
                count.v1 += u64::from(text.contains("\ncart v1: "));
                count.v2 += u64::from(text.contains("\ncart v2: "));
                let mut certificates = self.certificates.lock().unwrap_or_else(PoisonError::into_inner);
                certificates.extend(text.lines().filter_map(certificate));
            }
            Err(why) => {
                count.failed += 1;
                let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
                if failures.len() < KEPT {
                    failures.push(format!("after {:.1} s: {why}", begun.elapsed().as_secs_f64()));
                }
            }
        }
    }
}

/// Of `web: called by ID, certificate DIGITS`: identity and certificate.
fn certificate(line: &str) -> Option<(String, String)> {
    let (_, rest) = line.split_once(": called by ")?;
    let (identity, digits) = rest.split_once(", certificate ")?;
    Some((identity.to_owned(), digits.to_owned()))
}
