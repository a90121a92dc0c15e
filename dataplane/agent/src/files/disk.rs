//! One file on the disk: what it holds, and how to tell without reading that it still holds it.

use super::Use;
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// File systems know times to a few milliseconds, some to two seconds: a file that was written so recently may be written once
/// more without another time.
const COARSE: Duration = Duration::from_secs(3);

/// Read permission of the group and of others.
const READ_BY_OTHERS: u32 = 0o044;

/// A file as it was when it was last read. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    /// None: it could not be read.
    stamp: Option<Stamp>,
    /// It had been changed so recently that the same stamp may stand for something else a moment later.
    fresh: bool,
    /// What it held, or why that is not known.
    pub(super) content: Result<Arc<[u8]>, Box<str>>,
    for_what: Use,
}

/// What changes when a file does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    length: u64,
    modified: (i64, i64),
    /// Of the inode: also after a copy that brings the old file's time along.
    changed: (i64, i64),
    mode: u32,
}

impl Seen {
    /// Reads a file.
    pub(super) fn read(name: &str, for_what: Use) -> Seen {
        match read(name, for_what.most_bytes()) {
            Ok((stamp, bytes)) => {
                Seen { fresh: stamp.is_fresh(), stamp: Some(stamp), content: Ok(bytes.into()), for_what }
            }
            Err(reason) => Seen { stamp: None, fresh: true, content: Err(reason.into()), for_what },
        }
    }

    /// Reads it again if it may have changed. True: it has.
    pub(super) fn refresh(&mut self, name: &str, for_what: Use) -> bool {
        if !self.fresh && fs::metadata(name).is_ok_and(|data| Some(Stamp::of(&data)) == self.stamp) {
            return false;
        }
        let now = Seen::read(name, for_what);
        let changed = now.content != self.content;
        match changed {
            true => *self = now,
            // The memory that the plan has too.
            false => (self.stamp, self.fresh) = (now.stamp, now.fresh),
        }
        changed
    }

    /// As if time had passed since it was changed: its stamp alone decides.
    #[cfg(test)]
    pub(super) fn settle(&mut self) {
        self.fresh = false;
    }

    /// A key that others than its owner may read.
    pub(super) fn is_open_key(&self) -> bool {
        self.for_what == Use::Key && self.stamp.is_some_and(|stamp| stamp.mode & READ_BY_OTHERS != 0)
    }
}

impl Stamp {
    fn of(data: &Metadata) -> Stamp {
        Stamp {
            device: data.dev(),
            inode: data.ino(),
            length: data.size(),
            modified: (data.mtime(), data.mtime_nsec()),
            changed: (data.ctime(), data.ctime_nsec()),
            mode: data.mode(),
        }
    }

    fn is_fresh(&self) -> bool {
        let newest = self.modified.0.max(self.changed.0);
        let at = UNIX_EPOCH.checked_add(Duration::from_secs(newest.max(0) as u64));
        // A time to come is another machine's: then it is as if it were old, and found out by its next change.
        at.and_then(|at| SystemTime::now().duration_since(at).ok()).is_some_and(|age| age < COARSE)
    }
}

/// The bytes of a file, with the stamp that it had before they were read: what is written meanwhile gives it another.
fn read(name: &str, most: u64) -> Result<(Stamp, Vec<u8>), String> {
    let cannot = |error: io::Error| format!("cannot be read: {error}");
    // Opening a pipe would wait for somebody who writes.
    if !fs::metadata(name).map_err(cannot)?.is_file() {
        return Err("is no file".to_owned());
    }
    let file = File::open(name).map_err(cannot)?;
    let data = file.metadata().map_err(cannot)?;
    let stamp = Stamp::of(&data);
    let mut bytes = Vec::with_capacity(data.len().min(most) as usize);
    file.take(most + 1).read_to_end(&mut bytes).map_err(cannot)?;
    if bytes.len() as u64 > most {
        return Err(format!("is larger than {} MiB", most >> 20));
    }
    Ok((stamp, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn reason(name: &std::path::Path, for_what: Use) -> String {
        Seen::read(&name.display().to_string(), for_what).content.unwrap_err().into()
    }

    #[test]
    fn what_is_no_file_is_not_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(reason(directory.path(), Use::Key), "is no file");
        assert_eq!(reason("/dev/zero".as_ref(), Use::Key), "is no file");
        assert!(reason(&directory.path().join("none"), Use::Key).starts_with("cannot be read: "));
    }

    #[test]
    fn a_byte_over_the_bound_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a");
        let name = path.display().to_string();
        std::fs::write(&path, vec![b'x'; 1 << 20]).unwrap();
        assert_eq!(Seen::read(&name, Use::Certificate).content.map(|bytes| bytes.len()), Ok(1 << 20));
        std::fs::write(&path, vec![b'x'; (1 << 20) + 1]).unwrap();
        assert_eq!(reason(&path, Use::Certificate), "is larger than 1 MiB");
        assert!(Seen::read(&name, Use::Trust).content.is_ok());
    }

    #[test]
    fn keys_that_others_may_read_are_told_apart() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.key");
        std::fs::write(&path, "key").unwrap();
        let open = |mode: u32, for_what: Use| {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            Seen::read(&path.display().to_string(), for_what).is_open_key()
        };
        assert!(open(0o640, Use::Key) && open(0o604, Use::Key));
        assert!(!open(0o600, Use::Key) && !open(0o644, Use::Certificate));
    }

    #[test]
    fn an_old_file_is_not_read_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a");
        std::fs::write(&path, "one").unwrap();
        let name = path.display().to_string();
        let mut seen = Seen::read(&name, Use::Certificate);
        assert!(seen.fresh, "it is a moment old");
        // As if it were older: its stamp decides, and nobody notices that this is not what the disk has.
        (seen.fresh, seen.content) = (false, Ok(b"kept".as_slice().into()));
        assert!(!seen.refresh(&name, Use::Certificate));
        assert_eq!(seen.content.as_deref(), Ok(b"kept".as_slice()));
        std::fs::write(&path, "three").unwrap();
        assert!(seen.refresh(&name, Use::Certificate));
        assert_eq!(seen.content.as_deref(), Ok(b"three".as_slice()));
    }
}
