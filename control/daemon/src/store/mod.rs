//! What the daemon must not lose: an ordered map from keys to values, changed in transactions that name what they
//! expect to find. An acknowledged change is on the disk; one that expected something else changes nothing. It is a file of
//! this daemon's own, or an etcd that several share.
//!
//! | keys | what |
//! | --- | --- |
//! | `documents/...` | documents, their versions, and which is in force (`documents`) |
//! | `authority/...`, `tokens/...`, `proxies/...`, `operators/...`, `secrets/...` | certificates and who holds them (`crate::authority`) |
//! | `places/...`, `endpoints` | where proxies listen (`crate::collect`), and what operators set |
//! | `daemons/...`, `seen/...`, `drains/...` | who shares the store, and what each knows of its proxies (`crate::peers`) |
//! | `trial/...` | the push that is on trial (`crate::operator`) |
//!
//! Values are JSON, but for the pieces of documents and what stands under `seen/`. Each entry knows the revision that
//! wrote it; revisions never go back.

mod disk;
pub mod documents;
mod etcd;

#[cfg(test)]
pub(crate) mod tests;

use serde::Serialize;
use serde::de::DeserializeOwned;
use std::path::Path;
use std::sync::Arc;
use tokio::sync::{broadcast, mpsc, oneshot, watch};

/// Changes that wait for the disk; more wait for their place.
const QUEUE: usize = 1024;

/// The store. Clones are the same store.
#[derive(Clone, Debug)]
pub struct Store {
    /// Names this process among those that share the store.
    id: Arc<str>,
    place: Place,
    revision: watch::Receiver<u64>,
}

/// Where it is.
#[derive(Clone, Debug)]
enum Place {
    Disk { disk: Arc<disk::Disk>, changes: mpsc::Sender<Job> },
    Etcd(Arc<etcd::Etcd>),
}

/// A value as it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry<T> {
    /// What stands there.
    pub value: T,
    /// The revision that wrote it.
    pub revision: u64,
}

/// A key, and what was found there.
pub type Keyed<T> = (String, Entry<T>);

/// Why the store did not do it. Nothing was changed, as far as anybody can know; when etcd goes away under a change, it may
/// have been done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// An entry was not as the change expected: somebody else was first. Read again.
    Conflict {
        /// The entry's key.
        key: String,
    },
    /// The store cannot be read or written; says why, and what helps.
    Broken(String),
    /// The daemon is cut off from etcd: it knows what it knew, and changes nothing.
    Away(String),
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Failure::Conflict { key } => write!(f, "somebody else changed `{key}` at the same time; try again"),
            Failure::Broken(why) | Failure::Away(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for Failure {}

/// A transaction: all of it, or nothing when something is not as expected.
#[derive(Clone, Debug, Default)]
pub struct Change {
    expected: Vec<(String, Option<u64>)>,
    writes: Vec<Write>,
    /// Takes out all entries whose keys begin so.
    clears: Vec<String>,
}

#[derive(Clone, Debug)]
struct Write {
    key: String,
    /// None: it is taken out.
    value: Option<Vec<u8>>,
    is_leased: bool,
}

impl Change {
    /// A change that expects and writes nothing yet.
    pub fn new() -> Change {
        Change::default()
    }

    /// The entry must still have this revision; `None`: there must be none.
    pub fn expect(mut self, key: impl Into<String>, revision: Option<u64>) -> Change {
        self.expected.push((key.into(), revision));
        self
    }

    /// Writes a value as JSON.
    pub fn put<T: Serialize>(self, key: impl Into<String>, value: &T) -> Change {
        // Our records have string keys and no hand-written serialisation: there is nothing that can fail.
        let bytes = serde_json::to_vec(value).expect("a record is JSON");
        self.put_bytes(key, bytes)
    }

    /// Writes a value as it is.
    pub fn put_bytes(self, key: impl Into<String>, value: Vec<u8>) -> Change {
        self.write(key.into(), Some(value), false)
    }

    /// As [`Change::put`]; it leaves a shared store some seconds after this daemon did ([`Store::lease`]).
    pub fn put_leased<T: Serialize>(self, key: impl Into<String>, value: &T) -> Change {
        let bytes = serde_json::to_vec(value).expect("a record is JSON");
        self.write(key.into(), Some(bytes), true)
    }

    /// Takes an entry out; that there is none is fine.
    pub fn delete(self, key: impl Into<String>) -> Change {
        self.write(key.into(), None, false)
    }

    /// Takes out all entries whose keys begin so.
    pub fn clear(mut self, prefix: impl Into<String>) -> Change {
        self.clears.push(prefix.into());
        self
    }

    fn write(mut self, key: String, value: Option<Vec<u8>>, is_leased: bool) -> Change {
        self.writes.push(Write { key, value, is_leased });
        self
    }
}

/// A change on its way to the disk, and who waits for it.
struct Job {
    change: Change,
    done: oneshot::Sender<Result<u64, Failure>>,
}

impl Store {
    /// Opens the store in this folder, or makes one there.
    ///
    /// # Errors
    /// Another process has it, it is damaged, or the disk does not let us.
    pub fn open(folder: &Path) -> Result<Store, Failure> {
        Store::on(disk::Disk::open(folder)?)
    }

    fn on(disk: disk::Disk) -> Result<Store, Failure> {
        let (revised, revision) = watch::channel(disk.revision()?);
        let (changes, jobs) = mpsc::channel(QUEUE);
        let disk = Arc::new(disk);
        let writer = disk.clone();
        let thread = std::thread::Builder::new().name("store".to_owned());
        thread
            .spawn(move || write(&writer, jobs, &revised))
            .map_err(|error| Failure::Broken(format!("the store's thread cannot start: {error}")))?;
        Ok(Store { id: new_id(), place: Place::Disk { disk, changes }, revision })
    }

    /// Opens the store that is in an etcd.
    ///
    /// # Errors
    /// etcd does not answer, or not to us.
    pub async fn share(settings: api::settings::Etcd) -> Result<Store, Failure> {
        let etcd = etcd::Etcd::open(settings).await?;
        Ok(Store { id: new_id(), revision: etcd.revisions(), place: Place::Etcd(etcd) })
    }

    /// Names this process among those that share the store; another start has another.
    pub fn id(&self) -> &Arc<str> {
        &self.id
    }

    /// Other daemons may have it too.
    pub fn is_shared(&self) -> bool {
        matches!(self.place, Place::Etcd(_))
    }

    /// Why nothing can be changed now: etcd is away.
    pub fn cut_off(&self) -> Option<Failure> {
        match &self.place {
            Place::Disk { .. } => None,
            Place::Etcd(etcd) => etcd.cut_off(),
        }
    }

    /// Counts the leases that this daemon has had; with each, what stood under the one before is to be written again.
    pub fn lease(&self) -> watch::Receiver<u64> {
        match &self.place {
            Place::Disk { .. } => watch::channel(1).1,
            Place::Etcd(etcd) => etcd.leases(),
        }
    }

    /// Hears of keys that are no more, whoever took them out; `None`: this daemon alone does.
    pub(crate) fn removed(&self) -> Option<broadcast::Receiver<String>> {
        match &self.place {
            Place::Disk { .. } => None,
            Place::Etcd(etcd) => Some(etcd.removed()),
        }
    }

    /// The daemon ends in order: what it leased goes at once.
    pub(crate) async fn leave(&self) {
        if let Place::Etcd(etcd) = &self.place {
            etcd.leave().await;
        }
    }

    /// The value of a key.
    ///
    /// # Errors
    /// The store cannot be read, or something else stands there than this program writes.
    pub async fn get<T: DeserializeOwned>(&self, key: &str) -> Result<Option<Entry<T>>, Failure> {
        self.get_bytes(key).await?.map(|entry| entry.read(key)).transpose()
    }

    /// As [`Store::get`], for values that are no JSON.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn get_bytes(&self, key: &str) -> Result<Option<Entry<Vec<u8>>>, Failure> {
        match &self.place {
            Place::Disk { disk, .. } => disk.get(key),
            Place::Etcd(etcd) => etcd.get(key).await,
        }
    }

    /// As [`Store::get`]; what another daemon has just written is never missed.
    ///
    /// # Errors
    /// As for [`Store::get`]; away when etcd is.
    pub async fn get_newest<T: DeserializeOwned>(&self, key: &str) -> Result<Option<Entry<T>>, Failure> {
        match &self.place {
            Place::Disk { .. } => self.get(key).await,
            Place::Etcd(etcd) => etcd.fetch(key).await?.map(|entry| entry.read(key)).transpose(),
        }
    }

    /// All entries whose keys begin with this, sorted by key.
    ///
    /// # Errors
    /// As for [`Store::get`].
    pub async fn list<T: DeserializeOwned>(&self, prefix: &str) -> Result<Vec<Keyed<T>>, Failure> {
        let entries = self.list_bytes(prefix).await?;
        entries.into_iter().map(|(key, entry)| Ok((key.clone(), entry.read(&key)?))).collect()
    }

    /// As [`Store::list`], for values that are no JSON.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn list_bytes(&self, prefix: &str) -> Result<Vec<Keyed<Vec<u8>>>, Failure> {
        match &self.place {
            Place::Disk { disk, .. } => disk.list(prefix),
            Place::Etcd(etcd) => Ok(etcd.list(prefix)),
        }
    }

    /// Commits a change, and waits until it is on the disk. The answer is its revision.
    ///
    /// # Errors
    /// Something was not as expected, or the disk is full or broken.
    pub async fn commit(&self, change: Change) -> Result<u64, Failure> {
        let changes = match &self.place {
            Place::Disk { changes, .. } => changes,
            Place::Etcd(etcd) => return etcd.commit(change).await,
        };
        let (done, answer) = oneshot::channel();
        let gone = || Failure::Broken("the store's thread is gone; restart ringwayd".to_owned());
        changes.send(Job { change, done }).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }

    /// Has the revision of the last change, whoever made it.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.revision.clone()
    }
}

fn new_id() -> Arc<str> {
    crate::encode::hex(&crate::encode::random::<8>()).into()
}

impl Entry<Vec<u8>> {
    pub(crate) fn read<T: DeserializeOwned>(self, key: &str) -> Result<Entry<T>, Failure> {
        let wrong = |error| Failure::Broken(format!("`{key}` in the store is not what this version writes: {error}"));
        let value = serde_json::from_slice(&self.value).map_err(wrong)?;
        Ok(Entry { value, revision: self.revision })
    }
}

/// The writing thread: whatever waits is committed together, so that many joins cost one sync of the disk.
fn write(disk: &disk::Disk, mut jobs: mpsc::Receiver<Job>, revised: &watch::Sender<u64>) {
    const TOGETHER: usize = 256;
    let mut batch = Vec::with_capacity(TOGETHER);
    while jobs.blocking_recv_many(&mut batch, TOGETHER) > 0 {
        let results = disk.commit(batch.iter().map(|job| &job.change));
        let newest = results.iter().filter_map(|result| result.as_ref().ok()).max().copied();
        // First the watchers' value, then the answers: who was answered finds what it wrote.
        if let Some(newest) = newest {
            revised.send_replace(newest);
        }
        for (job, result) in batch.drain(..).zip(results) {
            // Who asked may have gone; the change stands.
            let _ = job.done.send(result);
        }
    }
}
