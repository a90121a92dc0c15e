//! Slots: how a client gets one, on any core, without a lock and never twice.
//!
//! ```text
//! 63        44  43  42                0
//! ├ tag ───────┼ 0 ┼ full at ─────────┤   a bucket: all there is to know of it
//! ├ tag ───────┼ 1 ┼ number ──────────┤   a claim: its client is about to have a bucket here; no number comes again
//! └ 0 ─────────┴───┴──────────────── 0┘   free
//! ```
//!
//! A bucket is one word, so whoever changes it changes the bucket of the client whose tag is in it, or fails: nobody can
//! spend what is another's, however late it comes.
//!
//! What could go wrong is that two cores, which see the set at different times, give one client two buckets. So a bucket is
//! made in two steps, from a claim:
//!
//! ```text
//! look at all slots           a bucket with our tag: spend of it
//!                             no claim either: a free slot or a full bucket ─► claim it, look again
//! fence, look at all others   our tag in none, bucket or claim: our claim ─► bucket
//!                             a claim behind ours: ─► free; look again
//! ```
//!
//! Any core may finish another's claim, so none waits. *Why there is never a second bucket*: let X turn claim `x` into a bucket in
//! slot i, and Y turn `y` into one in slot j, both of one tag. X saw `x`, passed its fence, saw our tag not in j, and changed
//! `x`, which no slot ever held before or since; Y likewise with i. One of the fences is before the other, say Y's, which
//! came after Y saw `y`. Then X's look at j saw `y` or what came later there; it was not our tag any more, so the bucket that
//! `y` became had been given away, as a full one, before X made its own. (C++20 [atomics.order], paragraph 4.)

use super::rate::{Rate, TIME_BITS};
use crate::sync::{AtomicU64, Ordering, fence};

/// A set has as many slots as a cache line has words; loom tries all interleavings, for which two do.
pub(super) const SLOTS: usize = if cfg!(loom) { 2 } else { 8 };

const TAG_SHIFT: u32 = TIME_BITS + 1;
const CLAIM: u64 = 1 << TIME_BITS;
const VALUE_MASK: u64 = CLAIM - 1;
const FREE: u64 = 0;

/// What is owed after a request was let through, or, if it is refused, what was owed.
pub(super) type Spent = Result<u64, u64>;

/// Tells the clients of one set apart; never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tag(u64);

impl Tag {
    pub(super) fn of(client: u64) -> Tag {
        let bits = client & (u64::MAX >> TAG_SHIFT);
        Tag(bits.max(1) << TAG_SHIFT)
    }

    fn is_of(self, word: u64) -> bool {
        word >> TAG_SHIFT == self.0 >> TAG_SHIFT
    }
}

/// Numbers for claims.
#[derive(Debug)]
pub(super) struct Claims(AtomicU64);

impl Claims {
    pub(super) fn new() -> Claims {
        Claims(AtomicU64::new(0))
    }

    /// A claim that is like no other, until 2^43 more have been made.
    fn make(&self, tag: Tag) -> u64 {
        tag.0 | CLAIM | (self.0.fetch_add(1, Ordering::Relaxed) & VALUE_MASK)
    }
}

/// The slots in which a client may have its bucket.
#[derive(Debug)]
#[repr(align(64))]
pub(super) struct Set([AtomicU64; SLOTS]);

/// What stands where.
#[derive(Clone, Copy)]
struct Found {
    slot: usize,
    word: u64,
}

/// What a client sees of its set.
struct View {
    bucket: Option<Found>,
    /// The first one.
    claim: Option<Found>,
    /// A free slot, or else the first full bucket.
    room: Option<Found>,
}

impl Set {
    pub(super) fn new() -> Set {
        Set(std::array::from_fn(|_| AtomicU64::new(FREE)))
    }

    /// Takes one request of the client's bucket. `None`: it has none, and no slot can be had.
    pub(super) fn take(&self, tag: Tag, rate: &Rate, now: u64, claims: &Claims) -> Option<Spent> {
        // The usual case, without a look at what others have.
        for slot in &self.0 {
            let word = slot.load(Ordering::Relaxed);
            if tag.is_of(word)
                && word & CLAIM == 0
                && let Some(spent) = spend(slot, word, rate, now)
            {
                return Some(spent);
            }
        }
        let mut own = None;
        let spent = self.take_or_claim(tag, rate, now, claims, &mut own);
        // Another claim may have been the one; nobody else would free ours.
        if let Some(Found { slot, word }) = own {
            self.change(slot, word, FREE);
        }
        spent
    }

    /// Each turn that is not the last was spoilt by a change that another core made, or makes one itself.
    fn take_or_claim(
        &self,
        tag: Tag,
        rate: &Rate,
        now: u64,
        claims: &Claims,
        own: &mut Option<Found>,
    ) -> Option<Spent> {
        loop {
            let view = self.look(tag, rate, now);
            if let Some(Found { slot, word }) = view.bucket {
                match spend(&self.0[slot], word, rate, now) {
                    Some(spent) => return Some(spent),
                    None => continue,
                }
            }
            let Some(claim) = view.claim else {
                let Found { slot, word } = view.room?;
                let claim = claims.make(tag);
                if self.change(slot, word, claim) {
                    *own = Some(Found { slot, word: claim });
                }
                continue;
            };
            if self.is_alone(tag, claim.slot)
                && let Ok((debt, full_at)) = rate.spend(now, now)
                && self.change(claim.slot, claim.word, tag.0 | full_at)
            {
                return Some(Ok(debt));
            }
        }
    }

    fn look(&self, tag: Tag, rate: &Rate, now: u64) -> View {
        let mut view = View { bucket: None, claim: None, room: None };
        let mut full = None;
        for (slot, place) in self.0.iter().enumerate() {
            let word = place.load(Ordering::Relaxed);
            let found = Some(Found { slot, word });
            match word & CLAIM != 0 {
                _ if word == FREE => view.room = view.room.or(found),
                true if tag.is_of(word) => view.claim = view.claim.or(found),
                true => {}
                false if tag.is_of(word) => view.bucket = view.bucket.or(found),
                false if rate.debt(word & VALUE_MASK, now) == 0 => full = full.or(found),
                false => {}
            }
        }
        view.room = view.room.or(full);
        view
    }

    /// Whether the tag stands in no slot but this one. Frees claims behind it.
    fn is_alone(&self, tag: Tag, claimed: usize) -> bool {
        fence(Ordering::SeqCst);
        let mut alone = true;
        for (slot, place) in self.0.iter().enumerate() {
            let word = place.load(Ordering::Relaxed);
            if slot == claimed || !tag.is_of(word) {
                continue;
            }
            alone = false;
            if slot > claimed && word & CLAIM != 0 {
                self.change(slot, word, FREE);
            }
        }
        alone
    }

    /// What stands in the slots.
    #[cfg(test)]
    pub(super) fn words(&self) -> Vec<u64> {
        self.0.iter().map(|slot| slot.load(Ordering::Relaxed)).collect()
    }

    fn change(&self, slot: usize, from: u64, to: u64) -> bool {
        // Relaxed: a word is all there is, nothing else is published by it.
        self.0[slot].compare_exchange(from, to, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

/// Takes one request of a bucket that has no owner.
pub(super) fn take_shared(slot: &AtomicU64, rate: &Rate, now: u64) -> Spent {
    loop {
        let word = slot.load(Ordering::Relaxed);
        // Until its first use it is full, whatever the time.
        let full_at = if word == FREE { now } else { word & VALUE_MASK };
        let (debt, full_at) = rate.spend(full_at, now)?;
        let next = Tag::of(0).0 | full_at;
        if slot.compare_exchange(word, next, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            return Ok(debt);
        }
    }
}

/// Takes one request of the bucket that `word` is. `None`: it has changed.
fn spend(slot: &AtomicU64, word: u64, rate: &Rate, now: u64) -> Option<Spent> {
    match rate.spend(word & VALUE_MASK, now) {
        // Refusing writes nothing: a flood that is refused keeps no cache line busy.
        Err(debt) => Some(Err(debt)),
        Ok((debt, full_at)) => {
            let next = word & !VALUE_MASK | full_at;
            let changed = slot.compare_exchange(word, next, Ordering::Relaxed, Ordering::Relaxed);
            changed.is_ok().then_some(Ok(debt))
        }
    }
}
