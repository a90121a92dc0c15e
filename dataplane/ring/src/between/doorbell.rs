//! When a core must be woken, and when it may sleep. The kernel's part (an eventfd, read by the core's ring) is the caller's:
//! this only says when a write to it is needed, which for a busy core is never.
//!
//! ```text
//!          awake()  drain the queues, work, before_sleep()
//!   ┌──────────────────────────────────────────────┐
//!   ▼                                              │
//! AWAKE ──── before_sleep() = true ──────────► SLEEPING     the core enters its ring and waits
//!   │ ring() = false                               │ ring() = true: write the eventfd
//!   ▼                                              ▼
//! RUNG ◄───────────────────────────────────────── RUNG
//!   └─ before_sleep() = false: AWAKE, drain again; do not sleep
//! ```
//!
//! What is put into a queue before `ring` is never slept over: all changes of the state are swaps of one word, so the core's
//! next one comes after the ring's (it sees RUNG, and with it what was put) or before (then the ring sees SLEEPING and a write follows).

use super::sync::{AtomicU32, Ordering};

const AWAKE: u32 = 0;
const SLEEPING: u32 = 1;
const RUNG: u32 = 2;

/// One core's bell. Any thread may ring, the core alone calls the rest.
#[derive(Debug)]
pub struct Doorbell {
    state: AtomicU32,
}

impl Doorbell {
    /// The bell of a core that is awake.
    pub fn new() -> Self {
        Doorbell { state: AtomicU32::new(AWAKE) }
    }

    /// Tells the core to look into its queues; what it shall find must be there already. True if the core sleeps: then
    /// the caller must write its eventfd. Of several who ring, one is told so.
    #[must_use = "if this is true the core sleeps until its eventfd is written"]
    pub fn ring(&self) -> bool {
        // Always a swap, never a load first: a load may be old, and what was put would be overlooked. Release hands over what was put.
        self.state.swap(RUNG, Ordering::AcqRel) == SLEEPING
    }

    /// Asks, with the queues drained, whether the core may sleep. False if the bell was rung meanwhile: drain again.
    #[must_use = "if this is false the core must not sleep"]
    pub fn before_sleep(&self) -> bool {
        let slept = self.state.compare_exchange(AWAKE, SLEEPING, Ordering::AcqRel, Ordering::Acquire);
        if slept.is_err() {
            self.awake();
        }
        slept.is_ok()
    }

    /// Tells that the core is awake, whatever woke it. To be called before it drains its queues.
    pub fn awake(&self) {
        // A swap, not a store: it continues the rings' release, so what all of them put is seen.
        self.state.swap(AWAKE, Ordering::AcqRel);
    }
}

impl Default for Doorbell {
    fn default() -> Self {
        Doorbell::new()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_busy_core_needs_no_write_and_does_not_sleep() {
        let bell = Doorbell::new();
        assert!(!bell.ring());
        assert!(!bell.before_sleep(), "rung: drain again");
        assert!(bell.before_sleep(), "heard already");
    }

    #[test]
    fn a_sleeping_core_needs_one_write() {
        let bell = Doorbell::default();
        assert!(bell.before_sleep());
        assert!(bell.ring());
        assert!(!bell.ring(), "the second ring is covered by the first write");
        bell.awake();
        assert!(!bell.ring());
    }

    #[test]
    fn a_core_woken_by_something_else_is_awake() {
        let bell = Doorbell::new();
        assert!(bell.before_sleep());
        bell.awake();
        assert!(!bell.ring());
    }
}

#[cfg(all(test, loom))]
mod loom_models {
    use super::*;
    use crate::between::mailbox;
    use loom::sync::{Arc, Condvar, Mutex};
    use loom::thread;

    /// An eventfd: a count that a reader waits for. A reader that waits for ever is a deadlock, which loom reports.
    #[derive(Clone, Default)]
    struct EventFd(Arc<(Mutex<u32>, Condvar)>);

    impl EventFd {
        fn write(&self) {
            *self.0.0.lock().unwrap() += 1;
            self.0.1.notify_one();
        }

        fn read(&self) {
            let mut count = self.0.0.lock().unwrap();
            while *count == 0 {
                count = self.0.1.wait(count).unwrap();
            }
            *count = 0;
        }
    }

    /// A core that sleeps whenever it may still receives what was put before the ring.
    #[test]
    fn loom_what_was_put_before_the_ring_is_never_slept_over() {
        loom::model(|| {
            let (mut sender, mut receiver) = mailbox();
            let bell = Arc::new(Doorbell::new());
            let eventfd = EventFd::default();
            let thread = {
                let (bell, eventfd) = (bell.clone(), eventfd.clone());
                thread::spawn(move || {
                    sender.put(7u32);
                    if bell.ring() {
                        eventfd.write();
                    }
                })
            };
            let received = loop {
                bell.awake();
                if let Some(value) = receiver.take() {
                    break value;
                }
                if bell.before_sleep() {
                    eventfd.read();
                }
            };
            assert_eq!(received, 7);
            thread.join().unwrap();
        });
    }

    /// Two threads put into queues of their own and ring: the core gets both, however the rings merge.
    #[test]
    fn loom_rings_that_merge_lose_nothing() {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(3);
        model.check(|| {
            let bell = Arc::new(Doorbell::new());
            let eventfd = EventFd::default();
            let (threads, mut receivers): (Vec<_>, Vec<_>) = (0..2u32)
                .map(|number| {
                    let (mut sender, receiver) = mailbox();
                    let (bell, eventfd) = (bell.clone(), eventfd.clone());
                    let thread = thread::spawn(move || {
                        sender.put(number);
                        if bell.ring() {
                            eventfd.write();
                        }
                    });
                    (thread, receiver)
                })
                .unzip();
            let mut received = 0;
            loop {
                bell.awake();
                received += receivers.iter_mut().filter_map(|receiver| receiver.take()).count();
                if received == 2 {
                    break;
                }
                if bell.before_sleep() {
                    eventfd.read();
                }
            }
            threads.into_iter().for_each(|thread| thread.join().unwrap());
        });
    }
}
