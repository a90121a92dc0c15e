//! The files that a configuration names beside itself: certificates, keys, bundles, lists of revoked certificates.
//!
//! ```text
//!                look, once a second             compiled
//! disk ─────────────────────────────► seen ─────────────────► in force
//!       read again what has another         refused: stays as it was, and is tried again
//!       time, length or inode
//! ```
//! What is seen may be half of a change: a certificate whose key is written a moment later, or a file that is not whole yet.
//! So nothing here judges a content: whoever compiles does, and says with [`Files::apply`] what is in force from now on.
//!
//! A disk may hang: [`Files::read`] and [`Glance::cast`] are for threads that nobody waits for.

mod disk;
mod wanted;

pub(crate) use wanted::{Use, Wanted, tls_context};

use disk::Seen;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The bytes of each file, or why it has none.
pub(crate) type Contents = BTreeMap<Box<str>, Result<Arc<[u8]>, Box<str>>>;

/// Looks after which something that was refused is tried again although nothing has changed: a certificate may have become
/// valid.
const RETRY_LOOKS: u32 = 10;
/// Groups that are tried one by one when not all that changed is good.
const MOST_GROUPS: usize = 16;

/// What a look at the disk has shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// Nothing that is worth doing anything.
    Nothing,
    /// Something is there to be tried.
    Changed,
    /// What was refused is gone: the disk has what is in force.
    Restored,
}

/// The files as they were seen, and are to be seen again.
#[derive(Debug)]
pub(crate) struct Glance {
    seen: BTreeMap<Box<str>, Seen>,
    uses: BTreeMap<Box<str>, Use>,
    fresh: bool,
}

impl Glance {
    /// Reads again what has changed.
    pub(crate) fn cast(mut self) -> Glance {
        for (name, seen) in &mut self.seen {
            let for_what = self.uses.get(name).copied().unwrap_or_default();
            self.fresh |= seen.refresh(name, for_what);
        }
        self
    }
}

/// What came of trying changes.
#[derive(Debug)]
pub(crate) struct Tried<T> {
    /// What can be used: all that has changed, or the part of it that is good by itself.
    pub(crate) good: Option<(Contents, T)>,
    /// Why not all of it; empty when it is all.
    pub(crate) refused: Vec<String>,
}

/// The files of one configuration.
#[derive(Debug)]
pub(crate) struct Files {
    wanted: Wanted,
    /// What the disk had at the last look.
    seen: BTreeMap<Box<str>, Seen>,
    /// What the plan in force was compiled from.
    in_force: Contents,
    looks: u32,
    /// Reasons for which changes were refused since the last one that was not.
    told: BTreeSet<String>,
}

impl Files {
    /// Reads all of them. Nothing is in force yet.
    pub(crate) fn read(wanted: Wanted) -> Files {
        let seen = wanted.uses.iter().map(|(name, for_what)| (name.clone(), Seen::read(name, *for_what))).collect();
        Files { wanted, seen, in_force: Contents::new(), looks: 0, told: BTreeSet::new() }
    }

    /// Whether these are the files.
    pub(crate) fn has(&self, wanted: &Wanted) -> bool {
        self.wanted == *wanted
    }

    /// What the disk had at the last look.
    pub(crate) fn seen(&self) -> Contents {
        self.seen.iter().map(|(name, seen)| (name.clone(), seen.content.clone())).collect()
    }

    /// What the plan in force was compiled from.
    pub(crate) fn in_force(&self) -> &Contents {
        &self.in_force
    }

    /// These contents are in force from now on.
    pub(crate) fn apply(&mut self, contents: Contents) {
        self.in_force = contents;
        if self.changed().next().is_none() {
            self.told.clear();
        }
    }

    /// A glance at the disk, to be cast elsewhere; [`Files::look`] takes what it showed.
    pub(crate) fn glance(&self) -> Glance {
        Glance { seen: self.seen.clone(), uses: self.wanted.uses.clone(), fresh: false }
    }

    /// Takes what a glance at these files showed; to be called once a second or so.
    pub(crate) fn look(&mut self, glance: Glance) -> Look {
        self.seen = glance.seen;
        self.looks += 1;
        if !glance.fresh && self.looks < RETRY_LOOKS {
            return Look::Nothing;
        }
        self.looks = 0;
        if self.changed().next().is_some() {
            return Look::Changed;
        }
        match std::mem::take(&mut self.told).is_empty() {
            true => Look::Nothing,
            false => Look::Restored,
        }
    }

    /// Tries what has changed, all of it together; where that is refused, one group of files that belong together after the
    /// other, because one broken file must not keep the others from being replaced.
    pub(crate) fn try_changes<T>(&self, compile: impl Fn(&Contents) -> Result<T, Vec<String>>) -> Tried<T> {
        let all = self.seen();
        let refused = match compile(&all) {
            Ok(done) => return Tried { good: Some((all, done)), refused: Vec::new() },
            Err(reasons) => reasons,
        };
        let (mut contents, mut good) = (self.in_force.clone(), None);
        for part in self.parts() {
            let tried = self.with(&contents, part);
            if tried != contents
                && let Ok(done) = compile(&tried)
            {
                (contents, good) = (tried, Some(done));
            }
        }
        Tried { good: good.map(|done| (contents, done)), refused }
    }

    /// The files that are not as they are in force.
    pub(crate) fn changed(&self) -> impl Iterator<Item = &str> {
        let differs = |name: &str, seen: &Seen| self.in_force.get(name) != Some(&seen.content);
        self.seen.iter().filter(move |(name, seen)| differs(name, seen)).map(|(name, _)| &**name)
    }

    /// The groups of which some file has changed; none when there is only one, which was tried then.
    fn parts(&self) -> impl Iterator<Item = &[Box<str>]> {
        let changed: BTreeSet<&str> = self.changed().collect();
        let groups = self.wanted.groups.iter().filter(|group| group.iter().any(|name| changed.contains(&**name)));
        let groups: Vec<_> = groups.take(MOST_GROUPS).map(|group| &group[..]).collect();
        let several = groups.len() > 1;
        groups.into_iter().filter(move |_| several)
    }

    /// `base`, with these files as the disk has them.
    fn with(&self, base: &Contents, names: &[Box<str>]) -> Contents {
        let mut contents = base.clone();
        contents.extend(names.iter().filter_map(|name| Some((name.clone(), self.seen.get(name)?.content.clone()))));
        contents
    }

    /// Whether a reason for a refusal is a new one; until something is in force again it is told once.
    pub(crate) fn is_news(&mut self, reason: &str) -> bool {
        self.told.insert(reason.to_owned())
    }

    /// Keys that others than their owner may read.
    pub(crate) fn open_keys(&self) -> impl Iterator<Item = &str> {
        self.seen.iter().filter(|(_, seen)| seen.is_open_key()).map(|(name, _)| &**name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::{Path, PathBuf};

    struct Stand {
        directory: tempfile::TempDir,
    }

    impl Stand {
        fn new() -> Stand {
            Stand { directory: tempfile::tempdir().unwrap() }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.directory.path().join(name)
        }

        fn name(&self, name: &str) -> Box<str> {
            self.path(name).display().to_string().into()
        }

        fn write(&self, name: &str, text: &str) {
            std::fs::write(self.path(name), text).unwrap();
        }

        fn wanted(&self, groups: &[&[&str]]) -> Wanted {
            let groups: Vec<Vec<Box<str>>> =
                groups.iter().map(|group| group.iter().map(|name| self.name(name)).collect()).collect();
            let uses = groups.iter().flatten().map(|name| (name.clone(), Use::Certificate)).collect();
            Wanted { uses, groups }
        }

        fn files(&self, groups: &[&[&str]]) -> Files {
            let mut files = Files::read(self.wanted(groups));
            files.apply(files.seen());
            settle(&mut files);
            files
        }

        fn text(&self, contents: &Contents, name: &str) -> String {
            let content = contents[&self.name(name)].clone().unwrap();
            String::from_utf8(content.to_vec()).unwrap()
        }
    }

    /// From here on stamps alone tell changes, and what comes has another time.
    fn settle(files: &mut Files) {
        files.seen.values_mut().for_each(Seen::settle);
        std::thread::sleep(std::time::Duration::from_millis(20));
    }

    fn look(files: &mut Files) -> Look {
        let glance = files.glance().cast();
        files.look(glance)
    }

    fn age(path: &Path, seconds: u64) {
        let file = std::fs::File::options().write(true).open(path).unwrap();
        file.set_modified(std::time::SystemTime::now() - std::time::Duration::from_secs(seconds)).unwrap();
    }

    #[test]
    fn a_change_is_seen_and_stays_out_of_force_until_it_is_applied() {
        let stand = Stand::new();
        stand.write("a", "one");
        let mut files = stand.files(&[&["a"]]);
        assert_eq!(look(&mut files), Look::Nothing);
        stand.write("a", "two");
        assert_eq!(look(&mut files), Look::Changed, "a change");
        assert_eq!(stand.text(files.in_force(), "a"), "one");
        assert_eq!(stand.text(&files.seen(), "a"), "two");
        assert_eq!(look(&mut files), Look::Nothing, "it was tried, and has not changed since");
        files.apply(files.seen());
        assert_eq!((stand.text(files.in_force(), "a").as_str(), files.changed().count()), ("two", 0));
    }

    #[test]
    fn the_same_length_at_the_same_time_is_a_change_too() {
        let stand = Stand::new();
        stand.write("a", "one");
        let mut files = stand.files(&[&["a"]]);
        let modified = std::fs::metadata(stand.path("a")).unwrap().modified().unwrap();
        stand.write("a", "two");
        std::fs::File::options().write(true).open(stand.path("a")).unwrap().set_modified(modified).unwrap();
        assert_eq!(look(&mut files), Look::Changed);
    }

    #[test]
    fn a_file_that_takes_anothers_place_is_a_change_even_when_it_is_as_old_and_as_long() {
        let stand = Stand::new();
        for (name, text) in [("a", "one"), ("b", "two")] {
            stand.write(name, text);
            age(&stand.path(name), 3600);
        }
        let mut files = stand.files(&[&["a"]]);
        std::fs::rename(stand.path("b"), stand.path("a")).unwrap();
        assert_eq!(look(&mut files), Look::Changed);
        assert_eq!(stand.text(&files.seen(), "a"), "two");
    }

    #[test]
    fn a_link_that_leads_elsewhere_is_a_change() {
        let stand = Stand::new();
        stand.write("first", "one");
        stand.write("second", "two");
        let link = |to: &str| {
            std::os::unix::fs::symlink(stand.path(to), stand.path("new")).unwrap();
            std::fs::rename(stand.path("new"), stand.path("a")).unwrap();
        };
        link("first");
        let mut files = stand.files(&[&["a"]]);
        link("second");
        assert_eq!(look(&mut files), Look::Changed);
        assert_eq!(stand.text(&files.seen(), "a"), "two");
    }

    #[test]
    fn what_was_touched_alone_has_not_changed() {
        let stand = Stand::new();
        stand.write("a", "one");
        let mut files = stand.files(&[&["a"]]);
        age(&stand.path("a"), 3600);
        assert_eq!(look(&mut files), Look::Nothing);
    }

    #[test]
    fn what_is_refused_is_tried_again_after_a_while_and_its_reason_told_once() {
        let stand = Stand::new();
        stand.write("a", "one");
        let mut files = stand.files(&[&["a"]]);
        stand.write("a", "two");
        assert_eq!(look(&mut files), Look::Changed);
        assert!(files.is_news("it is odd") && !files.is_news("it is odd") && files.is_news("it is even"));
        let tries = (0..2 * RETRY_LOOKS).filter(|_| look(&mut files) == Look::Changed).count();
        assert_eq!(tries, 2);
        stand.write("a", "one");
        assert_eq!(look(&mut files), Look::Restored);
        assert!(files.is_news("it is odd"), "another time is another story");
    }

    #[test]
    fn a_file_that_goes_and_comes_back() {
        let stand = Stand::new();
        stand.write("a", "one");
        let mut files = stand.files(&[&["a"]]);
        std::fs::remove_file(stand.path("a")).unwrap();
        assert_eq!(look(&mut files), Look::Changed);
        let reason = files.seen()[&stand.name("a")].clone().unwrap_err();
        assert!(reason.starts_with("cannot be read: "), "{reason}");
        assert_eq!(stand.text(files.in_force(), "a"), "one");
        stand.write("a", "one");
        assert_eq!(look(&mut files), Look::Nothing, "it is as it was");
        assert_eq!(files.changed().count(), 0);
    }

    /// Takes pairs whose halves say the same.
    fn pairs(stand: &Stand, contents: &Contents) -> Result<(), Vec<String>> {
        let odd = ["a", "b"].iter().filter(|pair| {
            let [chain, key] = ["pem", "key"].map(|half| stand.text(contents, &format!("{pair}.{half}")));
            chain != key
        });
        let reasons: Vec<String> = odd.map(|pair| format!("{pair} does not fit")).collect();
        if reasons.is_empty() { Ok(()) } else { Err(reasons) }
    }

    #[test]
    fn a_pair_that_is_replaced_in_two_steps_is_refused_and_then_taken() {
        let stand = Stand::new();
        ["a.pem", "a.key", "b.pem", "b.key"].iter().for_each(|name| stand.write(name, "old"));
        let mut files = stand.files(&[&["a.pem", "a.key"], &["b.pem", "b.key"]]);
        stand.write("a.pem", "new");
        assert_eq!(look(&mut files), Look::Changed);
        let tried = files.try_changes(|contents| pairs(&stand, contents));
        assert!(tried.good.is_none() && tried.refused == ["a does not fit"]);
        stand.write("a.key", "new");
        assert_eq!(look(&mut files), Look::Changed);
        let tried = files.try_changes(|contents| pairs(&stand, contents));
        assert!(tried.refused.is_empty());
        files.apply(tried.good.unwrap().0);
        assert_eq!(stand.text(files.in_force(), "a.key"), "new");
    }

    #[test]
    fn a_broken_pair_does_not_keep_another_from_being_replaced() {
        let stand = Stand::new();
        ["a.pem", "a.key", "b.pem", "b.key"].iter().for_each(|name| stand.write(name, "old"));
        let mut files = stand.files(&[&["a.pem", "a.key"], &["b.pem", "b.key"]]);
        ["a.pem", "b.pem", "b.key"].iter().for_each(|name| stand.write(name, "new"));
        assert_eq!(look(&mut files), Look::Changed);
        let tried = files.try_changes(|contents| pairs(&stand, contents));
        assert_eq!(tried.refused, ["a does not fit"]);
        files.apply(tried.good.unwrap().0);
        let texts = ["a.pem", "a.key", "b.pem", "b.key"].map(|name| stand.text(files.in_force(), name));
        assert_eq!(texts, ["old", "old", "new", "new"]);
        assert_eq!(files.changed().collect::<Vec<_>>(), [&*stand.name("a.pem")], "it is tried again");
    }
}
