//! The keys of session tickets: random from the start, and replaced now and then, so that a key that gets out opens the
//! sessions of a day at most. All cores have the same ones, through the plan.

use crate::host;
use std::time::{Duration, Instant};
use wire::tls::TicketKeys;

/// How long new tickets are sealed with one key. They are taken for as long again.
pub(crate) const ROTATION: Duration = Duration::from_secs(12 * 3600);
/// How soon a rotation that came to nothing is tried again.
const RETRY: Duration = Duration::from_secs(60);

/// The keys in use, and when they are to be replaced.
#[derive(Debug)]
pub(crate) struct Tickets {
    keys: TicketKeys,
    due: Instant,
}

impl Tickets {
    /// New keys.
    ///
    /// # Errors
    /// The system has no random bytes.
    pub(crate) fn new(now: Instant) -> std::io::Result<Tickets> {
        let keys = TicketKeys { current: host::random_bytes()?, previous: None };
        Ok(Tickets { keys, due: now + ROTATION })
    }

    /// The keys in use.
    pub(crate) fn keys(&self) -> &TicketKeys {
        &self.keys
    }

    /// The keys that should be used from now on, if it is time for others.
    pub(crate) fn next(&mut self, now: Instant) -> Option<TicketKeys> {
        if now < self.due {
            return None;
        }
        self.due = now + RETRY;
        // Without random bytes the old key is better than none.
        let current = host::random_bytes().ok()?;
        Some(TicketKeys { current, previous: Some(self.keys.current) })
    }

    /// These are in use now.
    pub(crate) fn replace(&mut self, keys: TicketKeys, now: Instant) {
        (self.keys, self.due) = (keys, now + ROTATION);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_replaced_twice_a_day_and_the_last_one_is_kept() {
        let began = Instant::now();
        let mut tickets = Tickets::new(began).unwrap();
        let first = tickets.keys().clone();
        assert!(first.previous.is_none() && first.current != [0; 32]);
        assert!(tickets.next(began + ROTATION - Duration::from_secs(1)).is_none());
        let at = began + ROTATION;
        let next = tickets.next(at).unwrap();
        assert_ne!(next.current, first.current);
        assert_eq!(next.previous, Some(first.current));
        assert_eq!(tickets.keys().current, first.current, "not before a plan has them");
        assert!(tickets.next(at).is_none() && tickets.next(at + RETRY).is_some(), "a refused one is tried again");
        tickets.replace(next.clone(), at);
        assert!(tickets.next(at + RETRY).is_none());
        assert_eq!(tickets.next(at + ROTATION).unwrap().previous, Some(next.current));
    }
}
