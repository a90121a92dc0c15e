//! Files that only the daemon's own user reads.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// Makes a folder with mode 0700, and those above it that are not there.
pub(crate) fn make_folder(folder: &Path) -> Result<(), String> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(|error| format!("cannot make the folder {}: {error}", folder.display()))
}

/// Writes a file with mode 0600, whole or not at all: readers see the old one or the new one, also after a crash.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<(), String> {
    try_write(path, bytes).map_err(|error| format!("cannot write {}: {error}", path.display()))
}

fn try_write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&name)?;
    // The mode above is for new files; one that a crash left here may have another.
    file.set_permissions(Permissions::from_mode(0o600))?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&name, path)?;
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn files_are_their_owners_alone_and_whole() {
        let folder = tempfile::tempdir().unwrap();
        let below = folder.path().join("a/b");
        make_folder(&below).unwrap();
        assert_eq!(std::fs::metadata(&below).unwrap().mode() & 0o777, 0o700);
        let path = below.join("key");
        std::fs::write(below.join("key.new"), "what a crash left, and longer").unwrap();
        write(&path, b"one").unwrap();
        write(&path, b"two").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"two");
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(&below).unwrap().count(), 1);
        assert!(write(&below.join("none/key"), b"").unwrap_err().starts_with("cannot write "));
    }
}
