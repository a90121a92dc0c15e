//! A map from byte strings that is made once and then only read. The keys come from the configuration, so nobody can
//! insert colliding ones by sending requests; the hash may be simple, and is computed byte by byte so that one pass over
//! a path yields the hashes of all its prefixes.

/// FNV-1a's first state. <http://www.isthe.com/chongo/tech/comp/fnv/>
pub(crate) const HASH_START: u64 = 0xcbf2_9ce4_8422_2325;

/// FNV-1a's step.
#[inline(always)]
pub(crate) fn hash_step(hash: u64, byte: u8) -> u64 {
    (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
}

/// The hash of a whole string.
#[inline]
pub(crate) fn hash_of(key: &[u8]) -> u64 {
    key.iter().fold(HASH_START, |hash, byte| hash_step(hash, *byte))
}

/// The map: open addressing with linear probing, at most half full.
#[derive(Debug)]
pub(crate) struct Table<V> {
    slots: Box<[Slot]>,
    entries: Vec<(Box<[u8]>, V)>,
    shift: u32,
}

/// Where an entry stands: the hash's upper half beside it spares most comparisons.
#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    hash: u32,
    /// Index plus one; 0 is empty.
    entry: u32,
}

impl<V> Table<V> {
    /// A table of these entries; of two with the same key the first counts.
    pub(crate) fn new(entries: Vec<(Box<[u8]>, V)>) -> Table<V> {
        let size = (entries.len() * 2).next_power_of_two().max(2);
        let mut table = Table { slots: vec![Slot::default(); size].into(), entries, shift: 64 - size.trailing_zeros() };
        for entry in 0..table.entries.len() {
            table.place(entry);
        }
        table
    }

    fn place(&mut self, entry: usize) {
        let hash = hash_of(&self.entries[entry].0);
        let mut slot = self.first_slot(hash);
        while self.slots[slot].entry != 0 {
            slot = (slot + 1) & (self.slots.len() - 1);
        }
        self.slots[slot] = Slot { hash: (hash >> 32) as u32, entry: entry as u32 + 1 };
    }

    /// The value of a key whose hash is known.
    #[inline]
    pub(crate) fn at(&self, hash: u64, key: &[u8]) -> Option<&V> {
        let mut slot = self.first_slot(hash);
        loop {
            let Slot { hash: upper, entry } = self.slots[slot];
            if entry == 0 {
                return None;
            }
            if upper == (hash >> 32) as u32 {
                let (stored, value) = &self.entries[entry as usize - 1];
                if **stored == *key {
                    return Some(value);
                }
            }
            slot = (slot + 1) & (self.slots.len() - 1);
        }
    }

    /// The value of a key.
    #[inline]
    pub(crate) fn find(&self, key: &[u8]) -> Option<&V> {
        self.at(hash_of(key), key)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// FNV's lower bits are its better ones; a multiplication spreads them to the top (Knuth's multiplicative hashing).
    #[inline(always)]
    fn first_slot(&self, hash: u64) -> usize {
        (hash.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> self.shift) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_found_and_no_other() {
        for count in [0, 1, 2, 3, 1000] {
            let key = |number: usize| format!("/route-{number}").into_bytes().into_boxed_slice();
            let table = Table::new((0..count).map(|number| (key(number), number)).collect());
            for number in 0..count {
                assert_eq!(table.find(&key(number)), Some(&number));
            }
            assert_eq!(table.find(&key(count)), None);
            assert_eq!(table.find(b""), None);
        }
    }

    #[test]
    fn the_first_of_equal_keys_counts() {
        let table = Table::new(vec![(Box::from(*b"a"), 1), (Box::from(*b"a"), 2)]);
        assert_eq!(table.find(b"a"), Some(&1));
    }
}
