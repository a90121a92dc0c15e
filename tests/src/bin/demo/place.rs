//! Where the demo's files are: `target/demo`, made anew each time, for one demo at a time.

use ringway_tests::workspace;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};

/// A log of so many bytes is emptied.
const LONG: u64 = 64 << 20;

/// The folder, for as long as this lives.
pub(crate) struct Place {
    folder: PathBuf,
    _lock: File,
}

impl Place {
    /// Takes the folder, and throws away what an earlier demo left there.
    pub(crate) fn take() -> Result<Place, String> {
        let folder = workspace().join("target/demo");
        let told = |error: std::io::Error| format!("{}: {error}", folder.display());
        fs::create_dir_all(&folder).map_err(told)?;
        let lock = File::create(folder.join("lock")).map_err(told)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(format!("another demo runs in {}", folder.display())),
            Err(TryLockError::Error(error)) => return Err(told(error)),
        }
        for entry in fs::read_dir(&folder).map_err(told)?.flatten().filter(|entry| entry.file_name() != "lock") {
            let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
            let gone = if is_folder { fs::remove_dir_all(entry.path()) } else { fs::remove_file(entry.path()) };
            gone.map_err(told)?;
        }
        Ok(Place { folder, _lock: lock })
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Writes a file, and the folder that it is in.
    pub(crate) fn write(&self, name: &str, text: &str) -> Result<(), String> {
        let path = self.folder.join(name);
        let made = path.parent().map_or(Ok(()), fs::create_dir_all);
        made.and_then(|()| fs::write(&path, text)).map_err(|error| format!("{}: {error}", path.display()))
    }

    /// The lines of a file, none where there is no such file.
    pub(crate) fn lines(&self, name: &str) -> Vec<String> {
        let text = fs::read_to_string(self.folder.join(name)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// The last lines of a file, for people who want to know what went wrong.
    pub(crate) fn tail(&self, name: &str) -> String {
        let lines = self.lines(name);
        lines[lines.len().saturating_sub(12)..].join("\n")
    }

    /// Empties a log that has become long; its process writes on behind what is there.
    pub(crate) fn shorten(&self, name: &str) {
        let file = OpenOptions::new().write(true).open(self.folder.join(name));
        if let Ok(file) = file
            && file.metadata().is_ok_and(|now| now.len() > LONG)
        {
            let _full = file.set_len(0);
        }
    }
}

/// A path as one types it in the workspace.
pub(crate) fn relative(path: &Path) -> String {
    path.strip_prefix(workspace()).unwrap_or(path).display().to_string()
}
