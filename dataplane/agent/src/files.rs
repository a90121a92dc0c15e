//! Files that a configuration names: certificates, keys, bundles, revocation lists. Read whole, and looked at once a second.

use plan::Files as Contents;
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

/// A file of more than this is refused unread, bytes.
const MOST_BYTES: u64 = 16 << 20;

/// What stood in files when they were read.
#[derive(Debug, Default)]
pub(crate) struct Files {
    contents: Contents,
    stamps: BTreeMap<Box<str>, Stamp>,
}

/// By what a change of a file shows: modified (seconds, nanoseconds), length, inode; nothing for one that is not there.
type Stamp = Option<(i64, i64, u64, u64)>;

impl Files {
    /// Reads all of them.
    pub(crate) fn read(paths: &BTreeSet<String>) -> Files {
        let mut files = Files::default();
        for path in paths {
            // Stamped first: what is written meanwhile shows at the next look.
            files.stamps.insert(path.as_str().into(), stamp(path));
            files.contents.insert(path.as_str().into(), read(path));
        }
        files
    }

    /// What they held.
    pub(crate) fn contents(&self) -> &Contents {
        &self.contents
    }

    /// Whether one of them is another than the one that was read.
    pub(crate) fn changed(&self) -> bool {
        self.stamps.iter().any(|(path, seen)| stamp(path) != *seen)
    }
}

fn stamp(path: &str) -> Stamp {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.mtime(), metadata.mtime_nsec(), metadata.len(), metadata.ino()))
}

fn read(path: &str) -> Result<Arc<[u8]>, Box<str>> {
    let cannot = |error: std::io::Error| format!("cannot be read: {error}");
    if std::fs::metadata(path).map_err(cannot)?.len() > MOST_BYTES {
        return Err(format!("is larger than {} MiB", MOST_BYTES >> 20).into());
    }
    Ok(std::fs::read(path).map_err(cannot)?.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_shows_and_what_is_missing_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.pem").display().to_string();
        let paths = BTreeSet::from([path.clone()]);
        let missing = Files::read(&paths);
        assert!(missing.contents()[path.as_str()].as_ref().unwrap_err().contains("cannot be read"));
        std::fs::write(&path, "one").unwrap();
        assert!(missing.changed());
        let files = Files::read(&paths);
        assert!(!files.changed());
        assert_eq!(&**files.contents()[path.as_str()].as_ref().unwrap(), b"one");
        // Another file takes the name: the usual way to replace a certificate.
        let other = folder.path().join("b.pem");
        std::fs::write(&other, "two").unwrap();
        std::fs::rename(other, &path).unwrap();
        assert!(files.changed());
        std::fs::remove_file(&path).unwrap();
        assert!(files.changed());
    }
}
