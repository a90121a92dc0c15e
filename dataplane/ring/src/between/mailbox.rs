//! A mailbox of one slot: the last value put wins. The sender gets back what it replaced, so that a plan that no core ever saw
//! is freed where plans are made.
//!
//! One pointer, swapped: whoever swaps a value out owns it alone.

use std::fmt;
use std::marker::PhantomData;
use std::ptr;

use super::sync::{Arc, AtomicPtr, Ordering};

/// Both ends of an empty mailbox.
pub fn mailbox<T: Send>() -> (Sender<T>, Receiver<T>) {
    let slot = Arc::new(Slot { value: AtomicPtr::new(ptr::null_mut()), owns: PhantomData });
    (Sender { slot: slot.clone() }, Receiver { slot })
}

/// The end that puts values in.
pub struct Sender<T: Send> {
    slot: Arc<Slot<T>>,
}

/// The end that takes them out.
pub struct Receiver<T: Send> {
    slot: Arc<Slot<T>>,
}

/// Null, or a pointer from `Box::into_raw` that belongs to whoever swaps it out.
struct Slot<T: Send> {
    value: AtomicPtr<T>,
    owns: PhantomData<T>,
}

impl<T: Send> Sender<T> {
    /// Puts a value in, and returns the one before it if that was not taken yet. Allocates a box. Ring the receiver's
    /// [`Doorbell`](super::Doorbell) afterwards.
    pub fn put(&mut self, value: T) -> Option<T> {
        self.slot.swap(Box::into_raw(Box::new(value)))
    }
}

impl<T: Send> Receiver<T> {
    /// Takes the value, if there is one. Wait-free; a single load while there is none.
    pub fn take(&mut self) -> Option<T> {
        // Relaxed: this only asks whether a swap is worth its price, and the swap then synchronises. A value put before
        // the bell was rung is seen, because hearing the bell happens after ringing it.
        if self.slot.value.load(Ordering::Relaxed).is_null() {
            return None;
        }
        self.slot.swap(ptr::null_mut())
    }
}

impl<T: Send> Slot<T> {
    fn swap(&self, new: *mut T) -> Option<T> {
        // Release publishes the new value's contents, acquire receives the old one's.
        let old = self.value.swap(new, Ordering::AcqRel);
        if old.is_null() {
            return None;
        }
        // SAFETY: a pointer in the slot that is not null came from `Box::into_raw` in `put`, and this swap took it out: no
        // other swap can return it again. The acquire above makes what its sender wrote visible here.
        Some(*unsafe { Box::from_raw(old) })
    }
}

impl<T: Send> Drop for Slot<T> {
    fn drop(&mut self) {
        drop(self.swap(ptr::null_mut()));
    }
}

impl<T: Send> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sender")
    }
}

impl<T: Send> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Receiver")
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn the_last_value_wins_and_the_replaced_one_comes_back() {
        let (mut sender, mut receiver) = mailbox();
        assert_eq!(receiver.take(), None);
        assert_eq!(sender.put("first".to_owned()), None);
        assert_eq!(sender.put("second".to_owned()).as_deref(), Some("first"));
        assert_eq!(receiver.take().as_deref(), Some("second"));
        assert_eq!(receiver.take(), None);
    }

    #[test]
    fn a_value_nobody_took_is_freed() {
        let value = Arc::new(());
        let (mut sender, receiver) = mailbox();
        sender.put(value.clone());
        drop(sender);
        assert_eq!(Arc::strong_count(&value), 2);
        drop(receiver);
        assert_eq!(Arc::strong_count(&value), 1);
    }

    #[test]
    fn threads_see_values_in_order_and_lose_none() {
        let (mut sender, mut receiver) = mailbox();
        let thread = std::thread::spawn(move || (1..=10_000u64).filter_map(|value| sender.put(value)).count());
        let mut seen = Vec::new();
        while seen.last() != Some(&10_000) {
            seen.extend(receiver.take());
        }
        let replaced = thread.join().unwrap();
        assert!(seen.is_sorted_by(|a, b| a < b));
        assert_eq!(seen.len() + replaced, 10_000);
    }
}

#[cfg(all(test, loom))]
mod loom_models {
    use super::*;
    use loom::alloc::Track;
    use loom::cell::Cell;
    use loom::thread;

    /// Every value is owned once: taken, handed back, or freed with the mailbox (loom reports a leak of one that is not). Its
    /// contents, a cell that loom watches for races, arrive whole.
    #[test]
    fn loom_each_value_has_one_owner() {
        loom::model(|| {
            let (mut sender, mut receiver) = mailbox();
            let value = |number: u32| Track::new(Cell::new(number));
            let thread = thread::spawn(move || {
                let replaced = [sender.put(value(1)), sender.put(value(2))];
                replaced.map(|value| value.map(|value| value.get_ref().get()))
            });
            let taken = [receiver.take(), receiver.take()].map(|value| value.map(|value| value.get_ref().get()));
            let [nothing, replaced] = thread.join().unwrap();
            assert_eq!(nothing, None);
            match taken {
                [Some(1), second] => assert!(replaced.is_none() && matches!(second, None | Some(2))),
                [None, Some(1)] => assert_eq!(replaced, None),
                [Some(2), None] | [None, Some(2)] | [None, None] => assert!(matches!(replaced, None | Some(1))),
                other => panic!("{other:?}"),
            }
            let left = receiver.take().map(|value| value.get_ref().get());
            let all: u32 = taken.into_iter().chain([replaced, left]).flatten().sum();
            assert_eq!(all, 3, "a value was lost or came twice");
        });
    }
}
