//! Changes that a route makes to fields.

/// What is changed in the fields of a message. Names are in lower case and never one of those that frame or route a
/// message; values hold no control character.
///
/// To apply: forward the lines whose names `drops` does not name, then write `set` and `add`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Edits {
    /// Written once, in place of whatever was there.
    pub set: Vec<(Box<str>, Box<[u8]>)>,
    /// Written besides whatever was there.
    pub add: Vec<(Box<str>, Box<[u8]>)>,
    /// Not forwarded.
    pub remove: Vec<Box<str>>,
}

impl Edits {
    /// Nothing is changed.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.set.is_empty() && self.add.is_empty() && self.remove.is_empty()
    }

    /// Whether the lines of this name, in any case, are not forwarded: because they are removed or replaced.
    #[inline]
    pub fn drops(&self, name: &[u8]) -> bool {
        self.removes(name) || self.set.iter().any(|(set, _)| set.as_bytes().eq_ignore_ascii_case(name))
    }

    /// Whether the lines of this name, in any case, are removed.
    #[inline]
    pub fn removes(&self, name: &[u8]) -> bool {
        self.remove.iter().any(|removed| removed.as_bytes().eq_ignore_ascii_case(name))
    }

    /// The lines to write: name and value.
    #[inline]
    pub fn writes(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.set.iter().chain(&self.add).map(|(name, value)| (&**name, &**value))
    }

    /// One more step after those already there: the name goes, whatever stood or was written.
    pub(crate) fn then_remove(&mut self, name: &str) {
        self.forget(name);
        if !self.remove.iter().any(|removed| **removed == *name) {
            self.remove.push(name.into());
        }
    }

    /// One more step: the value takes the place of whatever stood or was written.
    pub(crate) fn then_set(&mut self, name: &str, value: &[u8]) {
        self.forget(name);
        self.set.push((name.into(), value.into()));
    }

    /// One more step: the value stands besides whatever stood or was written.
    pub(crate) fn then_add(&mut self, name: &str, value: &[u8]) {
        self.add.push((name.into(), value.into()));
    }

    fn forget(&mut self, name: &str) {
        self.set.retain(|(set, _)| **set != *name);
        self.add.retain(|(added, _)| **added != *name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_steps_win() {
        let mut edits = Edits::default();
        edits.then_add("x-a", b"1");
        edits.then_set("x-a", b"2");
        edits.then_set("x-a", b"3");
        edits.then_add("x-a", b"4");
        let lines: Vec<_> = edits.writes().collect();
        assert_eq!(lines, [("x-a", &b"3"[..]), ("x-a", &b"4"[..])]);
        assert!(edits.drops(b"X-A") && !edits.removes(b"x-a"));
        edits.then_remove("x-a");
        assert_eq!(edits.writes().count(), 0);
        assert!(edits.removes(b"X-a"));
        assert!(!edits.drops(b"x-b"));
    }
}
