//! What waits for a disk, which may be a network's and hang: one thing at a time, on a thread that nobody else waits for.

use std::future::pending;
use std::time::{Duration, Instant};
use tokio::task::{JoinHandle, spawn_blocking};

/// How long an errand may take before it is worth a word.
const SLOW: Duration = Duration::from_secs(10);

/// Something that is under way elsewhere, or nothing.
#[derive(Debug)]
pub(crate) struct Errand<T> {
    under_way: Option<(JoinHandle<T>, Instant)>,
    told: bool,
}

impl<T> Default for Errand<T> {
    fn default() -> Errand<T> {
        Errand { under_way: None, told: false }
    }
}

impl<T: Send + 'static> Errand<T> {
    /// Begins, unless it is under way.
    pub(crate) fn begin(&mut self, work: impl FnOnce() -> T + Send + 'static) {
        if self.under_way.is_none() {
            self.under_way = Some((spawn_blocking(work), Instant::now()));
        }
    }

    pub(crate) fn is_under_way(&self) -> bool {
        self.under_way.is_some()
    }

    /// Nobody waits for it any more.
    pub(crate) fn forget(&mut self) {
        *self = Errand::default();
    }

    /// Waits for it; for ever, when nothing is under way. Whoever stops waiting loses nothing.
    pub(crate) async fn done(&mut self) -> T {
        loop {
            let Some((handle, _)) = &mut self.under_way else { return pending().await };
            let done = handle.await;
            self.forget();
            // Else it has panicked, which says so itself.
            if let Ok(done) = done {
                return done;
            }
        }
    }

    /// It takes strangely long: true once.
    pub(crate) fn is_slow(&mut self) -> bool {
        let slow = self.under_way.as_ref().is_some_and(|(_, begun)| begun.elapsed() >= SLOW);
        slow && !std::mem::replace(&mut self.told, true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use tokio::time::timeout;

    #[tokio::test]
    async fn what_takes_long_holds_nobody_up() {
        let mut errand = Errand::default();
        assert!(timeout(Duration::from_millis(10), errand.done()).await.is_err(), "nothing is under way");
        let (go, wait) = mpsc::channel::<()>();
        errand.begin(move || wait.recv().is_ok());
        errand.begin(|| false);
        assert!(errand.is_under_way() && !errand.is_slow());
        assert!(timeout(Duration::from_millis(10), errand.done()).await.is_err(), "others go on");
        go.send(()).unwrap();
        assert!(errand.done().await, "the first, which nobody stopped waiting for");
        assert!(!errand.is_under_way());
        errand.begin(|| false);
        assert!(!errand.done().await);
    }

    #[tokio::test]
    async fn what_is_forgotten_is_not_heard_of() {
        let mut errand = Errand::default();
        errand.begin(|| 1);
        errand.forget();
        errand.begin(|| 2);
        assert_eq!(errand.done().await, 2);
    }
}
