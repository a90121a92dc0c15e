//! The embedded store: one redb file, which one process opens.

use super::{Change, Entry, Failure, Keyed, Write};
use crate::encode::{hex, random};
use redb::backends::FileBackend;
use redb::{Builder, Database, DatabaseError, ReadableDatabase, ReadableTable, StorageError, TableDefinition};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

/// Key to revision and value.
const ENTRIES: TableDefinition<&str, (u64, &[u8])> = TableDefinition::new("entries");
/// `revision`, and `format`: the layout of keys and values, for versions to come.
const NUMBERS: TableDefinition<&str, u64> = TableDefinition::new("numbers");

const REVISION: &str = "revision";
const FORMAT: (&str, u64) = ("format", 1);

/// redb would take up to 1 GiB; what the daemon reads again and again is small.
const CACHE_BYTES: usize = 16 * 1024 * 1024;

/// Opens the file; a test has one whose disk fails.
type Open = Box<dyn Fn(&Builder) -> Result<Database, DatabaseError> + Send + Sync>;

/// A file, open or waiting to be opened again: redb refuses all work after the disk failed once.
pub(super) struct Disk {
    name: String,
    open: Open,
    database: Mutex<Option<Arc<Database>>>,
}

impl std::fmt::Debug for Disk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Disk").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Disk {
    /// `FOLDER/store.redb`, readable by its owner alone.
    pub(super) fn open(folder: &Path) -> Result<Disk, Failure> {
        let path = folder.join("store.redb");
        let name = path.display().to_string();
        let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
        made.map_err(|error| Failure::Broken(format!("cannot make the folder {}: {error}", folder.display())))?;
        if !path.exists() {
            Disk::make(folder, &path, &name)?;
        }
        Disk::with(name, Box::new(move |builder: &Builder| opened(&path, builder)))
    }

    /// Makes a store under another name, and gives it its own when it is whole: redb's first writing can be cut in two.
    fn make(folder: &Path, path: &Path, name: &str) -> Result<(), Failure> {
        let new = folder.join(format!("store.redb.{}.new", hex(&random::<4>())));
        let at = new.clone();
        let made = Disk::with(name.to_owned(), Box::new(move |builder: &Builder| opened(&at, builder))).map(drop);
        let linked = made.and_then(|()| match std::fs::hard_link(&new, path) {
            // Somebody else was first.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
            linked => linked.map_err(|error| Failure::Broken(format!("cannot make {name}: {error}"))),
        });
        let _ = std::fs::remove_file(&new);
        linked?;
        // The file's name must survive a crash as its bytes do.
        let synced = File::open(folder).and_then(|folder| folder.sync_all());
        synced.map_err(|error| Failure::Broken(format!("cannot make {name}: {error}")))
    }

    /// A store whose bytes go where `open` says. `name` stands in errors.
    pub(super) fn with(name: String, open: Open) -> Result<Disk, Failure> {
        let disk = Disk { name, open, database: Mutex::new(None) };
        let format = disk.prepare()?;
        if format != FORMAT.1 {
            let (name, ours) = (&disk.name, FORMAT.1);
            return Err(Failure::Broken(format!(
                "{name} has format {format}, this ringwayd knows {ours}: run the version that wrote it, or a newer one"
            )));
        }
        Ok(disk)
    }

    /// Makes the tables where there are none; the format that the file has.
    fn prepare(&self) -> Result<u64, Failure> {
        self.work(|database| {
            let transaction = database.begin_write()?;
            let format = {
                let mut numbers = transaction.open_table(NUMBERS)?;
                let found = numbers.get(FORMAT.0)?.map(|number| number.value());
                if found.is_none() {
                    numbers.insert(FORMAT.0, FORMAT.1)?;
                }
                transaction.open_table(ENTRIES)?;
                found.unwrap_or(FORMAT.1)
            };
            transaction.commit()?;
            Ok(format)
        })
    }

    /// The last change's revision; 0 before the first.
    pub(super) fn revision(&self) -> Result<u64, Failure> {
        self.work(|database| {
            let numbers = database.begin_read()?.open_table(NUMBERS)?;
            Ok(numbers.get(REVISION)?.map_or(0, |number| number.value()))
        })
    }

    pub(super) fn get(&self, key: &str) -> Result<Option<Entry<Vec<u8>>>, Failure> {
        self.work(|database| {
            let entries = database.begin_read()?.open_table(ENTRIES)?;
            Ok(entries.get(key)?.map(|found| entry(found.value())))
        })
    }

    pub(super) fn list(&self, prefix: &str) -> Result<Vec<Keyed<Vec<u8>>>, Failure> {
        self.work(|database| {
            let entries = database.begin_read()?.open_table(ENTRIES)?;
            let mut list = Vec::new();
            for found in entries.range(prefix..)? {
                let (key, value) = found?;
                if !key.value().starts_with(prefix) {
                    break;
                }
                list.push((key.value().to_owned(), entry(value.value())));
            }
            Ok(list)
        })
    }

    /// Commits changes in their order, with one sync: each is done or refused by itself, but the disk fails all.
    pub(super) fn commit<'c>(&self, changes: impl ExactSizeIterator<Item = &'c Change>) -> Vec<Result<u64, Failure>> {
        let count = changes.len();
        let worked = self.work(|database| {
            let transaction = database.begin_write()?;
            let mut results = Vec::with_capacity(count);
            {
                let mut numbers = transaction.open_table(NUMBERS)?;
                let mut entries = transaction.open_table(ENTRIES)?;
                let mut revision = numbers.get(REVISION)?.map_or(0, |number| number.value());
                for change in changes {
                    if let Some(key) = unexpected(&entries, change)? {
                        results.push(Err(Failure::Conflict { key }));
                        continue;
                    }
                    revision += 1;
                    for prefix in &change.clears {
                        entries.retain_in(prefix.as_str().., |key, _| !key.starts_with(prefix.as_str()))?;
                    }
                    for Write { key, value, .. } in &change.writes {
                        match value {
                            Some(value) => entries.insert(key.as_str(), (revision, value.as_slice()))?,
                            None => entries.remove(key.as_str())?,
                        };
                    }
                    results.push(Ok(revision));
                }
                numbers.insert(REVISION, revision)?;
            }
            transaction.commit()?;
            Ok(results)
        });
        worked.unwrap_or_else(|failure| vec![Err(failure); count])
    }

    /// Runs work on the open file. When the disk fails, the file is closed, and opened again by who comes next.
    fn work<T>(&self, work: impl FnOnce(&Database) -> Result<T, redb::Error>) -> Result<T, Failure> {
        let database = self.database()?;
        work(&database).map_err(|error| {
            *self.database.lock().unwrap_or_else(PoisonError::into_inner) = None;
            self.failure(error)
        })
    }

    fn database(&self) -> Result<Arc<Database>, Failure> {
        let mut held = self.database.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(database) = &*held {
            return Ok(database.clone());
        }
        let mut builder = Database::builder();
        // The check reads the file once; without it, a file that somebody else changed would make redb panic.
        builder.set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true);
        let database = Arc::new((self.open)(&builder).map_err(|error| self.failure(error.into()))?);
        *held = Some(database.clone());
        Ok(database)
    }

    fn failure(&self, error: redb::Error) -> Failure {
        let name = &self.name;
        Failure::Broken(match error {
            redb::Error::DatabaseAlreadyOpen => {
                format!(
                    "{name} is open in another process: one ringwayd a data directory; stop the other, or give this one --data-dir"
                )
            }
            redb::Error::Io(error) if is_full(error.kind()) => {
                format!("{name} cannot be written, the disk is full: free some space and try again ({error})")
            }
            redb::Error::Io(error) if error.kind() == ErrorKind::InvalidData => {
                format!("{name} is no store of ringwayd's: move it away, or restore it from a backup ({error})")
            }
            redb::Error::Corrupted(what) => {
                format!("{name} is damaged: restore it from a backup ({what})")
            }
            error => format!("{name}: {error}"),
        })
    }
}

fn opened(path: &Path, builder: &Builder) -> Result<Database, DatabaseError> {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
    builder.create_with_backend(FileBackend::new(file)?)
}

fn is_full(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge)
}

fn entry((revision, value): (u64, &[u8])) -> Entry<Vec<u8>> {
    Entry { value: value.to_vec(), revision }
}

/// The first key that is not as the change expects it.
fn unexpected(
    entries: &impl ReadableTable<&'static str, (u64, &'static [u8])>,
    change: &Change,
) -> Result<Option<String>, StorageError> {
    for (key, expected) in &change.expected {
        let found = entries.get(key.as_str())?.map(|found| found.value().0);
        if found != *expected {
            return Ok(Some(key.clone()));
        }
    }
    Ok(None)
}
