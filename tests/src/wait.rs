//! Waiting for something that another process does, without sleeping longer than needed.

use std::time::{Duration, Instant};

/// Asks again and again until there is a value; none after `limit`.
pub fn until<T>(limit: Duration, mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + limit;
    loop {
        if let Some(value) = ask() {
            return Some(value);
        }
        if Instant::now() >= end {
            return None;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Waits until a condition holds.
///
/// # Panics
/// It did not within 10 s.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    assert!(until(Duration::from_secs(10), || holds().then_some(())).is_some(), "did not come true: {what}");
}
