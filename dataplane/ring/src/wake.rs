//! Waking a core from another thread: whoever rings puts what it has to say somewhere first; the core's task that
//! waits in [`rung`] looks there.

use crate::core::{Core, with};
use crate::driver::{Kind, Tag};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;

/// Wakes one core. Many rings before the core looks count as one and cost one write.
#[derive(Clone, Debug)]
pub struct Wake {
    bell: Arc<Bell>,
}

#[derive(Debug)]
struct Bell {
    /// Rung, and not yet heard.
    rung: AtomicBool,
    /// An eventfd that the core reads; none in the simulation, which looks at `rung`.
    event: Option<OwnedFd>,
}

impl Wake {
    pub(crate) fn new(event: Option<OwnedFd>) -> Wake {
        Wake { bell: Arc::new(Bell { rung: AtomicBool::new(false), event }) }
    }

    /// Wakes the core; returns at once.
    pub fn ring(&self) {
        if !self.bell.rung.swap(true, Ordering::SeqCst)
            && let Some(event) = &self.bell.event
        {
            crate::host::event_write(event.as_raw_fd());
        }
    }

    /// Hears the bell: what was put before the rings up to now is visible after this.
    pub(crate) fn hear(&self) -> bool {
        self.bell.rung.swap(false, Ordering::SeqCst)
    }

    pub(crate) fn is_rung(&self) -> bool {
        self.bell.rung.load(Ordering::SeqCst)
    }

    pub(crate) fn event(&self) -> Option<i32> {
        self.bell.event.as_ref().map(AsRawFd::as_raw_fd)
    }
}

/// Waits until somebody rang this core's [`Wake`]. One task of a core waits here.
pub async fn rung() {
    std::future::poll_fn(|_| {
        with(|core| {
            if std::mem::take(&mut core.rung) {
                return Poll::Ready(());
            }
            core.rung_task = core.tasks.current;
            Poll::Pending
        })
    })
    .await;
}

impl Core {
    pub(crate) fn was_rung(&mut self) {
        self.wake.hear();
        self.rung = true;
        self.tasks.wake(self.rung_task);
        self.driver.arm_wake(Tag::new(Kind::Wake, 0, 0));
    }
}
