//! A table of things that wait without a task: idle connections. Its keys fit into a watch token.

/// Things by key; a key never means a later thing of the same place.
pub(crate) struct Table<T> {
    places: Vec<Place<T>>,
    free: Vec<u32>,
}

struct Place<T> {
    generation: u32,
    thing: Option<T>,
}

/// Which table a token belongs to stands in its highest bit, the place's generation below, the place in the low half.
const GENERATION: u32 = 0x7fff_ffff;

impl<T> Table<T> {
    /// Memory for one thing.
    #[cfg(test)]
    pub(crate) const PLACE_BYTES: usize = size_of::<Place<T>>();

    pub(crate) fn new() -> Table<T> {
        Table { places: Vec::new(), free: Vec::new() }
    }

    /// Puts a thing in; its key.
    pub(crate) fn insert(&mut self, thing: T) -> u64 {
        let index = self.free.pop().unwrap_or_else(|| {
            self.places.push(Place { generation: 0, thing: None });
            self.places.len() as u32 - 1
        });
        let place = &mut self.places[index as usize];
        place.thing = Some(thing);
        u64::from(place.generation) << 32 | u64::from(index)
    }

    pub(crate) fn get(&self, key: u64) -> Option<&T> {
        let place = self.places.get(key as u32 as usize)?;
        place.thing.as_ref().filter(|_| u64::from(place.generation) == key >> 32)
    }

    /// Takes a thing out; `None` when it is there no more.
    pub(crate) fn remove(&mut self, key: u64) -> Option<T> {
        let place = self.places.get_mut(key as u32 as usize)?;
        if u64::from(place.generation) != key >> 32 {
            return None;
        }
        let thing = place.thing.take()?;
        place.generation = (place.generation + 1) & GENERATION;
        self.free.push(key as u32);
        Some(thing)
    }

    /// The keys of everything in it.
    pub(crate) fn keys(&self) -> Vec<u64> {
        let filled = self.places.iter().enumerate().filter(|(_, place)| place.thing.is_some());
        filled.map(|(index, place)| u64::from(place.generation) << 32 | index as u64).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_key_finds_nothing() {
        let mut table = Table::new();
        let first = table.insert('a');
        assert_eq!(table.remove(first), Some('a'));
        let second = table.insert('b');
        assert_eq!(first as u32, second as u32);
        assert_eq!(table.get(first), None);
        assert_eq!(table.remove(first), None);
        assert_eq!(table.get(second), Some(&'b'));
        assert_eq!(table.keys(), [second]);
    }
}
