//! The roots as the store has them, and the intermediates of this process below them.

use super::Refusal;
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
    fn serving(&self) -> &Root {
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
    /// Reads the roots; the first daemon of a store makes one.
    pub(super) async fn open(store: &Store, seal: &Seal, now_ms: u64) -> Result<Held, Refusal> {
        if let Some(entry) = store.get::<Roots>(KEY).await? {
            return Held::below(entry, &[], seal, now_ms);
        }
        let first = Roots { stage: Stage::Steady, list: vec![Root::make(seal, now_ms)?] };
        match store.commit(Change::new().expect(KEY, None).put(KEY, &first)).await {
            Ok(revision) => Held::below(Entry { value: first, revision }, &[], seal, now_ms),
            // Another daemon of the same store was first.
            Err(Failure::Conflict { .. }) => Box::pin(Held::open(store, seal, now_ms)).await,
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
        let of = |root: &Root, fit: &[&Arc<Intermediate>]| match fit.iter().find(|one| one.root == root.id) {
            Some(one) => Ok((*one).clone()),
            None => Intermediate::make(root, seal, now_ms).map(Arc::new),
        };
        let issuing = of(entry.value.issuing(), fit)?;
        let serving =
            of(entry.value.serving(), &[&issuing].into_iter().chain(fit.iter().copied()).collect::<Vec<_>>())?;
        Ok(Held { entry, issuing, serving, number: 0 })
    }

    pub(super) fn roots(&self) -> &Roots {
        &self.entry.value
    }
}
