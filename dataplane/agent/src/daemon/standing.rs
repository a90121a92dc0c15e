//! How things stand between this proxy and its daemon: what the metrics show and what reports tell.

use crate::host;
use api::pb;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::{Notify, watch};

/// Rejections and ignored fields that a report has at most.
const MOST_TOLD: usize = 1000;
/// Absences that are remembered until a daemon can be told of them.
const MOST_ABSENCES: usize = 64;

/// Shared by the agent, the connection to the daemon and the admin pages.
#[derive(Debug)]
pub(crate) struct Standing {
    /// Random; another process has another.
    pub(crate) epoch: u64,
    /// Configuration is being listened for.
    connected: AtomicBool,
    last_contact_ms: AtomicU64,
    /// Responses that were judged.
    pub(crate) responses: AtomicU64,
    /// Resources in them that were refused.
    pub(crate) refused: AtomicU64,
    /// Certificates that were issued, and attempts at one that failed.
    pub(crate) issued: AtomicU64,
    pub(crate) not_issued: AtomicU64,
    told: watch::Sender<Told>,
    absences: Mutex<Vec<pb::Absence>>,
    /// Somebody wants another certificate now.
    pub(crate) renew: Notify,
}

/// What reports tell of the configuration.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Told {
    /// What all cores work with.
    pub(crate) applied: Option<pb::Applied>,
    /// What is refused.
    pub(crate) rejected: Vec<pb::Rejected>,
    /// What was not understood.
    pub(crate) ignored: Vec<String>,
    /// The process is ready.
    pub(crate) ready: bool,
    /// The process drains, or is about to.
    pub(crate) draining: bool,
    /// When the proxy's own certificate ends that all cores work with, seconds since 1970; 0: they have none.
    pub(crate) not_after_s: u64,
    /// The version of the mesh's roots that all cores work with.
    pub(crate) trust_version: String,
}

impl Standing {
    /// Of a process that has just begun.
    ///
    /// # Errors
    /// The system has no random bytes.
    pub(crate) fn new() -> std::io::Result<Standing> {
        Ok(Standing {
            epoch: host::random_u64()?,
            connected: AtomicBool::new(false),
            last_contact_ms: AtomicU64::new(0),
            responses: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            issued: AtomicU64::new(0),
            not_issued: AtomicU64::new(0),
            told: watch::Sender::new(Told::default()),
            absences: Mutex::new(Vec::new()),
            renew: Notify::new(),
        })
    }

    /// The daemon has said something.
    pub(crate) fn heard(&self) {
        self.last_contact_ms.store(now_ms(), Relaxed);
    }

    /// When it last did, milliseconds since 1970; 0: never.
    pub(crate) fn last_contact_ms(&self) -> u64 {
        self.last_contact_ms.load(Relaxed)
    }

    /// Configuration is listened for from now on, or no longer.
    pub(crate) fn set_connected(&self, connected: bool) {
        self.connected.store(connected, Relaxed);
    }

    /// Whether it is.
    pub(crate) fn is_connected(&self) -> bool {
        self.connected.load(Relaxed)
    }

    /// Changes what reports tell; whoever waits for a change learns of one.
    pub(crate) fn tell(&self, change: impl FnOnce(&mut Told)) {
        self.told.send_if_modified(|told| {
            let before = told.clone();
            change(told);
            told.rejected.truncate(MOST_TOLD);
            told.ignored.truncate(MOST_TOLD);
            *told != before
        });
    }

    /// The push whose configuration all cores work with, where its version is a number; and how much is refused.
    pub(crate) fn applied(&self) -> (Option<u64>, u64) {
        let told = self.told.borrow();
        let push = told.applied.as_ref().and_then(|applied| applied.version.parse().ok());
        (push, told.rejected.len() as u64)
    }

    /// What reports tell, as it changes.
    pub(crate) fn told(&self) -> watch::Receiver<Told> {
        self.told.subscribe()
    }

    /// Remembers a time without a daemon.
    pub(crate) fn was_absent(&self, from_ms: u64, to_ms: u64) {
        let mut absences = self.absences.lock().unwrap_or_else(PoisonError::into_inner);
        if absences.len() >= MOST_ABSENCES {
            absences.remove(0);
        }
        absences.push(pb::Absence { from_ms, to_ms });
    }

    /// The times without a daemon that nobody was told of yet.
    pub(crate) fn take_absences(&self) -> Untold<'_> {
        let list = std::mem::take(&mut *self.absences.lock().unwrap_or_else(PoisonError::into_inner));
        Untold { standing: self, list }
    }
}

/// Times without a daemon that are on their way to one; they come back when this ends before it is known that they arrived.
#[derive(Debug)]
pub(crate) struct Untold<'a> {
    standing: &'a Standing,
    list: Vec<pb::Absence>,
}

impl Untold<'_> {
    pub(crate) fn list(&self) -> &[pb::Absence] {
        &self.list
    }

    /// They arrived.
    pub(crate) fn are_told(&mut self) {
        self.list.clear();
    }
}

impl Drop for Untold<'_> {
    fn drop(&mut self) {
        let mut absences = self.standing.absences.lock().unwrap_or_else(PoisonError::into_inner);
        self.list.append(&mut absences);
        let beyond = self.list.len().saturating_sub(MOST_ABSENCES);
        self.list.drain(..beyond);
        *absences = std::mem::take(&mut self.list);
    }
}

/// Milliseconds since 1970.
pub(crate) fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_changes_are_told_and_not_without_bound() {
        let standing = Standing::new().unwrap();
        let mut told = standing.told();
        standing.tell(|told| told.ready = false);
        assert!(!told.has_changed().unwrap());
        standing.tell(|told| told.ignored = vec![String::new(); 5000]);
        assert!(told.has_changed().unwrap());
        assert_eq!(told.borrow_and_update().ignored.len(), MOST_TOLD);
        (0..100).for_each(|n| standing.was_absent(n, n + 1));
        let mut absences = standing.take_absences();
        assert_eq!((absences.list().len(), absences.list()[0].from_ms), (MOST_ABSENCES, 36));
        assert!(standing.take_absences().list().is_empty(), "they are on their way");
        absences.are_told();
        drop(absences);
        assert!(standing.take_absences().list().is_empty());
    }

    #[test]
    fn absences_that_did_not_arrive_come_back_before_later_ones() {
        let standing = Standing::new().unwrap();
        standing.was_absent(1, 2);
        let lost = standing.take_absences();
        standing.was_absent(3, 4);
        drop(lost);
        let from: Vec<_> = standing.take_absences().list().iter().map(|one| one.from_ms).collect();
        assert_eq!(from, [1, 3]);
        (0..100).for_each(|n| standing.was_absent(n, n + 1));
        let lost = standing.take_absences();
        (0..10).for_each(|n| standing.was_absent(100 + n, 101 + n));
        drop(lost);
        let again = standing.take_absences();
        assert_eq!((again.list().len(), again.list()[0].from_ms), (MOST_ABSENCES, 46), "the newest stay");
    }
}
