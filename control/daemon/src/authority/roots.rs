//! The roots as the store has them, and the intermediates of this process below them.

use super::Refusal;
use super::brought::RootFiles;
use super::issue::{Intermediate, Root};
use super::rotation::Stage;
use super::seal::Seal;
use crate::encode::unhex;
use crate::store::{Change, Entry, Failure, Store};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

pub(super) const KEY: &str = "authority/roots";

/// All roots that are trusted, the oldest first: one, or two while they change.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Roots {
    pub(crate) stage: Stage,
    pub(crate) list: Vec<Root>,
}

impl Roots {
    pub(super) fn oldest(&self) -> &Root {
        &self.list[0]
    }

    pub(super) fn newest(&self) -> &Root {
        &self.list[self.list.len() - 1]
    }

    /// The one that leaves of others chain to.
    fn issuing(&self) -> &Root {
        match self.stage {
            Stage::Steady | Stage::Trusting => self.oldest(),
            Stage::Issuing | Stage::Serving => self.newest(),
        }
    }

    /// The one that the daemon's own leaf chains to.
    pub(super) fn serving(&self) -> &Root {
        match self.stage {
            Stage::Steady | Stage::Trusting | Stage::Issuing => self.oldest(),
            Stage::Serving => self.newest(),
        }
    }

    pub(crate) fn bundle(&self) -> String {
        self.list.iter().map(|root| root.certificate.as_str()).collect()
    }

    pub(crate) fn ids(&self) -> Vec<String> {
        self.list.iter().map(|root| root.id.clone()).collect()
    }

    /// The digests of their public keys, for tokens.
    pub(crate) fn spkis(&self) -> Vec<[u8; 32]> {
        self.list.iter().filter_map(|root| unhex(&root.spki)?.try_into().ok()).collect()
    }
}

/// What the process works with.
#[derive(Debug)]
pub(crate) struct Held {
    pub(super) entry: Entry<Roots>,
    /// Signs leaves of proxies and operators.
    pub(super) issuing: Arc<Intermediate>,
    /// Signs the daemon's own leaf.
    pub(super) serving: Arc<Intermediate>,
    /// Counts what came before it.
    pub(super) number: u64,
}

impl Held {
    /// Reads the roots; the first daemon of a store makes one, or takes the one that is brought.
    pub(super) async fn open(
        store: &Store,
        seal: &Seal,
        brought: Option<&RootFiles>,
        now_ms: u64,
    ) -> Result<Held, Refusal> {
        if let Some(entry) = store.get::<Roots>(KEY).await? {
            return Held::below(entry, &[], seal, now_ms);
        }
        let root = new_root(seal, brought, now_ms)?;
        let first = Roots { stage: Stage::Steady, list: vec![root] };
        match store.commit(Change::new().expect(KEY, None).put(KEY, &first)).await {
            Ok(revision) => Held::below(Entry { value: first, revision }, &[], seal, now_ms),
            // Another daemon of the same store was first.
            Err(Failure::Conflict { .. }) => Box::pin(Held::open(store, seal, brought, now_ms)).await,
            Err(failure) => Err(failure.into()),
        }
    }

    /// What to work with from now on; none when that is what it was.
    pub(super) async fn next(&self, store: &Store, seal: &Seal, now_ms: u64) -> Result<Option<Held>, Refusal> {
        let gone = || Refusal::Broken("the roots are gone from the store".to_owned());
        let entry = store.get::<Roots>(KEY).await?.ok_or_else(gone)?;
        let old = self.issuing.is_old(now_ms) || self.serving.is_old(now_ms);
        if entry.revision == self.entry.revision && !old {
            return Ok(None);
        }
        let fit: Vec<_> = [&self.issuing, &self.serving].into_iter().filter(|one| !one.is_old(now_ms)).collect();
        let next = Held::below(entry, &fit, seal, now_ms)?;
        Ok(Some(Held { number: self.number + 1, ..next }))
    }

    /// With intermediates of the right roots: those that fit, or new ones.
    fn below(entry: Entry<Roots>, fit: &[&Arc<Intermediate>], seal: &Seal, now_ms: u64) -> Result<Held, Refusal> {
        let of = |root: &Root, fit: &[&Arc<Intermediate>]| match fit.iter().find(|one| one.fits(root)) {
            Some(one) => Ok((*one).clone()),
            None => Intermediate::of(root, seal, now_ms).map(Arc::new),
        };
        let issuing = of(entry.value.issuing(), fit)?;
        let fit: Vec<_> = [&issuing].into_iter().chain(fit.iter().copied()).collect();
        let serving = of(entry.value.serving(), &fit)?;
        Ok(Held { entry, issuing, serving, number: 0 })
    }

    /// Where the root's key is elsewhere and the intermediate is in the second half of its life: the change that takes
    /// the next one, if it was brought.
    pub(super) fn replacement(&self, seal: &Seal, brought: Option<&RootFiles>, now_ms: u64) -> Option<Change> {
        let files = brought.filter(|_| self.issuing.fades(now_ms) || self.serving.fades(now_ms))?;
        // What is wrong with the files was told when the daemon started, and is in the days that are left.
        let found = files.read(seal, now_ms).ok()?;
        let mut roots = self.entry.value.clone();
        let root = roots.list.iter_mut().find(|root| root.id == found.id)?;
        let certificate = |root: &Root| root.intermediate.as_ref().map(|above| above.certificate.clone());
        let other = certificate(root) != certificate(&found);
        root.intermediate = found.intermediate;
        other.then(|| Change::new().expect(KEY, Some(self.entry.revision)).put(KEY, &roots))
    }

    pub(super) fn roots(&self) -> &Roots {
        &self.entry.value
    }
}

/// The root that is brought, or one that is made.
pub(super) fn new_root(seal: &Seal, brought: Option<&RootFiles>, now_ms: u64) -> Result<Root, Refusal> {
    brought.map_or_else(|| Root::make(seal, now_ms), |files| files.read(seal, now_ms))
}
