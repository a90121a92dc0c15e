//! What one proxy is to have: its group's snapshots, or for a while those of a document on trial.

use super::Snapshot;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use tokio::sync::watch;

/// A document on trial: who has it, and what they are to have.
#[derive(Debug)]
pub struct Trial {
    /// The document's number.
    pub number: u64,
    pub(super) members: BTreeSet<Arc<str>>,
    pub(super) groups: HashMap<Arc<str>, watch::Receiver<Arc<Snapshot>>>,
}

/// One proxy's view.
#[derive(Debug)]
pub struct Feed {
    proxy: Arc<str>,
    group: Arc<str>,
    stable: watch::Receiver<Arc<Snapshot>>,
    trials: watch::Receiver<Option<Arc<Trial>>>,
    /// While it has the document on trial.
    own: Option<watch::Receiver<Arc<Snapshot>>>,
}

impl Feed {
    pub(super) fn new(
        proxy: &str,
        group: &str,
        stable: watch::Receiver<Arc<Snapshot>>,
        trials: watch::Receiver<Option<Arc<Trial>>>,
    ) -> Feed {
        let mut feed = Feed { proxy: proxy.into(), group: group.into(), stable, trials, own: None };
        feed.choose();
        feed
    }

    /// What the proxy is to have now; seen.
    pub fn now(&mut self) -> Arc<Snapshot> {
        // What comes of the other is not missed: it is looked at when the trial ends.
        self.stable.mark_unchanged();
        let receiver = self.own.as_mut().unwrap_or(&mut self.stable);
        receiver.borrow_and_update().clone()
    }

    /// Waits until it may be another one. False: there will be none any more.
    pub async fn changed(&mut self) -> bool {
        let own = async {
            match &mut self.own {
                // Its sender goes when the trial ends; that is told by the other channel.
                Some(own) => match own.changed().await {
                    Ok(()) => {}
                    Err(_) => std::future::pending().await,
                },
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = own => true,
            stable = self.stable.changed() => stable.is_ok(),
            trial = self.trials.changed() => {
                self.choose();
                trial.is_ok()
            }
        }
    }

    fn choose(&mut self) {
        let trial = self.trials.borrow_and_update();
        let own = trial.as_ref().filter(|trial| trial.members.contains(&self.proxy));
        self.own = own.and_then(|trial| trial.groups.get(&self.group)).cloned();
    }
}
