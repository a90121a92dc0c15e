//! Open loop: when each request is meant to start, whatever became of those before it.
//!
//! A core's timers count in milliseconds, which is too coarse for thousands of requests a second; so a thread of its own sleeps
//! until the next start and rings the core. Latency counts from the intended start, so a server that makes the load
//! wait is charged for the wait (coordinated omission: Gil Tene, "How not to measure latency", 2015).

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ring::{TaskId, Wake};

/// Starts closer than this share one ring: a thread cannot be woken much more often.
const FINEST: Duration = Duration::from_micros(25);

/// The starts of one core's requests.
pub(crate) struct Pace {
    interval_ns: f64,
    first_ns: Cell<u64>,
    /// Starts given out so far.
    given: Cell<u64>,
    waiting: RefCell<VecDeque<TaskId>>,
}

impl Pace {
    /// So many starts a second.
    pub(crate) fn new(rate: f64) -> Pace {
        Pace {
            interval_ns: 1e9 / rate.max(1e-3),
            first_ns: Cell::new(u64::MAX),
            given: Cell::new(0),
            waiting: RefCell::default(),
        }
    }

    /// The first start is at `now_ns`; a thread rings `wake` for this and all others until `done`.
    pub(crate) fn begin(&self, now_ns: u64, wake: Wake, done: Arc<AtomicBool>) {
        self.first_ns.set(now_ns);
        let interval = Duration::from_nanos(self.interval_ns as u64).max(FINEST);
        std::thread::spawn(move || {
            sharpen();
            let begin = Instant::now();
            for number in 1u32.. {
                wake.ring();
                if done.load(Ordering::Relaxed) {
                    return;
                }
                let next = begin + interval.mul_f64(f64::from(number));
                std::thread::sleep(next.saturating_duration_since(Instant::now()));
            }
        });
    }

    /// The next intended start, when it has come.
    pub(crate) fn take(&self, now_ns: u64) -> Option<u64> {
        let next = self.next_ns()?;
        (next <= now_ns).then(|| {
            self.given.set(self.given.get() + 1);
            next
        })
    }

    /// Starts that were due more than `late_ns` ago and were not given out.
    pub(crate) fn late(&self, now_ns: u64, late_ns: u64) -> u64 {
        let Some(next) = self.next_ns() else { return 0 };
        let until = now_ns.saturating_sub(late_ns);
        if until < next { 0 } else { ((until - next) as f64 / self.interval_ns) as u64 + 1 }
    }

    /// Puts the current task in line for a start.
    pub(crate) fn wait(&self) {
        self.waiting.borrow_mut().push_back(ring::current_task());
    }

    /// Wakes as many tasks as there are starts due.
    pub(crate) fn wake(&self, now_ns: u64) {
        let due = self.late(now_ns, 0);
        let mut waiting = self.waiting.borrow_mut();
        for _ in 0..due {
            let Some(task) = waiting.pop_front() else { return };
            ring::wake_task(task);
        }
    }

    fn next_ns(&self) -> Option<u64> {
        let first = self.first_ns.get();
        (first != u64::MAX).then(|| first + (self.given.get() as f64 * self.interval_ns) as u64)
    }
}

/// Asks the kernel for exact sleeps: a thread's are lengthened by up to 50 microseconds otherwise (proc_pid_timerslack_ns(5)).
fn sharpen() {
    let Ok(link) = std::fs::read_link("/proc/thread-self") else { return };
    if let Some(thread) = link.file_name().and_then(|name| name.to_str()) {
        // Without the permission, sleeps are less exact, for every arm alike.
        let _ = std::fs::write(format!("/proc/{thread}/timerslack_ns"), "1");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_keep_their_times_when_they_are_taken_late() {
        let pace = Pace::new(1000.0);
        assert_eq!(pace.take(u64::MAX - 1), None);
        pace.first_ns.set(5_000_000);
        assert_eq!(pace.take(4_999_999), None);
        let late: Vec<u64> = std::iter::from_fn(|| pace.take(8_500_000)).collect();
        assert_eq!(late, [5_000_000, 6_000_000, 7_000_000, 8_000_000]);
        assert_eq!(pace.take(9_000_000), Some(9_000_000));
    }

    #[test]
    fn starts_overdue_are_counted() {
        let pace = Pace::new(1000.0);
        assert_eq!(pace.late(9, 0), 0);
        pace.first_ns.set(0);
        assert_eq!(pace.late(10_000_000, 0), 11);
        assert_eq!(pace.late(10_000_000, 8_000_000), 3);
        assert_eq!(pace.late(1_000_000, 2_000_000), 1);
        assert_eq!(pace.take(1_000_000), Some(0));
        assert_eq!(pace.late(1_000_000, 2_000_000), 0);
    }
}
