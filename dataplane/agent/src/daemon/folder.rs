//! The folder of a proxy's own state: its key, its certificates, what it was last told. Only this process writes there, and
//! whatever is written is whole or was never there.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

const LOCK: &str = "lock";

/// The folder, for as long as it is ours.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    /// Held open: the lock goes with it.
    _lock: File,
}

impl Folder {
    /// Takes the folder, and makes it where it is not there.
    ///
    /// # Errors
    /// It cannot be made or written to, or another process has it.
    pub(crate) fn open(path: &Path) -> Result<Folder, String> {
        let cannot = |error: io::Error| format!("{}: cannot be used as state: {error}", path.display());
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(cannot)?;
        let lock = options().truncate(false).open(path.join(LOCK)).map_err(cannot)?;
        match lock.try_lock() {
            Ok(()) => Ok(Folder { path: path.to_owned(), _lock: lock }),
            Err(TryLockError::WouldBlock) => {
                Err(format!("{}: another process has this state; give each proxy one of its own", path.display()))
            }
            Err(TryLockError::Error(error)) => Err(cannot(error)),
        }
    }

    /// Where a file of it is, for people.
    pub(crate) fn name(&self, file: &str) -> String {
        self.path.join(file).display().to_string()
    }

    /// The content of a file; None: there is none.
    ///
    /// # Errors
    /// It cannot be read, or has more bytes than `most`.
    pub(crate) fn read(&self, file: &str, most: u64) -> Result<Option<Vec<u8>>, String> {
        read(&self.path, file, most)
    }

    /// Writes a file, readable for its owner alone: whole, or not at all.
    ///
    /// # Errors
    /// It could not be written; what was there before still is.
    pub(crate) fn write(&self, file: &str, bytes: &[u8]) -> Result<(), String> {
        let cannot = |error: io::Error| format!("{}: cannot be written: {error}", self.name(file));
        let (fresh, last) = (self.path.join(format!("{file}.new")), self.path.join(file));
        let mut open = options().truncate(true).open(&fresh).map_err(cannot)?;
        open.write_all(bytes).and_then(|()| open.sync_all()).map_err(cannot)?;
        std::fs::rename(&fresh, &last).and_then(|()| self.sync()).map_err(cannot)
    }

    /// Gives a file another name, in place of what had it.
    ///
    /// # Errors
    /// As the kernel says.
    pub(crate) fn rename(&self, from: &str, to: &str) -> Result<(), String> {
        let renamed = std::fs::rename(self.path.join(from), self.path.join(to)).and_then(|()| self.sync());
        renamed.map_err(|error| format!("{}: cannot be renamed to {to}: {error}", self.name(from)))
    }

    /// Removes a file, if it is there.
    pub(crate) fn remove(&self, file: &str) {
        let _ = std::fs::remove_file(self.path.join(file));
    }

    /// A new name outlives a crash when its folder has been written too.
    fn sync(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }
}

/// The content of a file in a folder that is perhaps another process's; None: there is none.
///
/// # Errors
/// It cannot be read, or has more bytes than `most`.
pub(crate) fn read(folder: &Path, file: &str, most: u64) -> Result<Option<Vec<u8>>, String> {
    let path = folder.join(file);
    let cannot = |error: io::Error| format!("{}: cannot be read: {error}", path.display());
    let open = match File::open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(cannot)?,
    };
    let mut bytes = Vec::new();
    open.take(most + 1).read_to_end(&mut bytes).map_err(cannot)?;
    if bytes.len() as u64 > most {
        return Err(format!("{}: is larger than {} MiB", path.display(), most >> 20));
    }
    Ok(Some(bytes))
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).create(true).mode(0o600);
    options
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn the_folder_is_made_for_its_owner_and_has_one_user() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a/state");
        let folder = Folder::open(&path).unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().mode() & 0o777;
        assert_eq!(mode(&path), 0o700);
        folder.write("key.pem", b"one").unwrap();
        assert_eq!(mode(&path.join("key.pem")), 0o600);
        assert!(Folder::open(&path).unwrap_err().contains("another process has this state"));
        drop(folder);
        let folder = Folder::open(&path).unwrap();
        assert_eq!(folder.read("key.pem", 3).unwrap().as_deref(), Some(&b"one"[..]));
        assert!(folder.read("key.pem", 2).unwrap_err().ends_with("key.pem: is larger than 0 MiB"));
        assert_eq!(folder.read("none", 3), Ok(None));
    }

    #[test]
    fn a_write_that_fails_leaves_what_was_there() {
        let directory = tempfile::tempdir().unwrap();
        let folder = Folder::open(directory.path()).unwrap();
        folder.write("a", b"one").unwrap();
        std::fs::create_dir(directory.path().join("a.new")).unwrap();
        assert!(folder.write("a", b"two").unwrap_err().contains("a: cannot be written"));
        assert_eq!(folder.read("a", 9).unwrap().as_deref(), Some(&b"one"[..]));
        let file = directory.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert!(Folder::open(&file).unwrap_err().contains("cannot be used as state"));
    }
}
