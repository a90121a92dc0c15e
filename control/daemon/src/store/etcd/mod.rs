//! The store that several daemons share: an etcd. Changes are its transactions; all that stands under our prefix is held
//! in memory too, by a watch, so that reading costs nothing and goes on when etcd is away. The pieces of documents are not:
//! they are read when somebody wants them.
//!
//! ```text
//!   commit ─► one transaction, with what it expects as compares ─► etcd
//!   get, list ◄─ mirror ◄─ watch from the last revision on (everything again after a compaction) ◄─┘
//! ```
//!
//! What is held may be some milliseconds old. Whoever changes something names the revision that it saw, so that nothing
//! is lost by that; after a conflict or a change the mirror is waited for.

mod wire;

/// etcd's messages and clients.
#[allow(missing_docs, unreachable_pub, clippy::all)]
mod pb {
    tonic::include_proto!("etcdserverpb");
}

use super::{Change, Entry, Failure, Keyed, Write, documents};
use crate::encode::random;
use crate::tell;
use pb::request_op::Request as Operation;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, broadcast, watch};
use tonic::Status;
use wire::{Wire, reason};

/// etcd refuses larger transactions, unless it is told otherwise: operations, and bytes of a request.
const MOST_OPERATIONS: usize = 128;
const MOST_BYTES: usize = 1_400_000;
/// Entries of one page of the listing.
const PAGE: i64 = 500;
/// At the start etcd may be away for so long.
const START: Duration = Duration::from_secs(10);
/// What a daemon leased leaves so long after it did.
const LEASE_S: i64 = 10;
/// How often the lease is kept; it tells too that etcd is there.
const BEAT: Duration = Duration::from_secs(2);
/// Between attempts, at first and at most; of each, between a half and all is waited.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(3));
/// The watch tells of a change some milliseconds after it was made.
const CATCH_UP: Duration = Duration::from_secs(2);
/// Keys that were taken out, until those who hear of them have.
const QUEUE: usize = 4096;

/// The way to the store.
#[derive(Debug)]
pub(super) struct Etcd {
    wire: Wire,
    /// With its `/`.
    prefix: String,
    mirror: Mutex<Mirror>,
    revised: watch::Sender<u64>,
    /// Since when etcd is away, and why.
    away: Mutex<Option<(Instant, String)>>,
    /// The watch is to be opened anew.
    broken: Notify,
    lease: AtomicI64,
    leases: watch::Sender<u64>,
    removed: broadcast::Sender<String>,
}

#[derive(Default)]
struct Mirror {
    entries: BTreeMap<String, (u64, Arc<[u8]>)>,
    /// All changes up to here are in it.
    revision: u64,
}

impl std::fmt::Debug for Mirror {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mirror").field("revision", &self.revision).finish_non_exhaustive()
    }
}

/// Why a watch ended.
enum Ended {
    /// What it should have told next is gone: read everything again.
    Behind,
    Broken(String),
}

impl From<Status> for Ended {
    fn from(status: Status) -> Ended {
        Ended::Broken(told(&status))
    }
}

impl Etcd {
    /// Reads all that is there, and begins to follow.
    pub(super) async fn open(settings: api::settings::Etcd) -> Result<Arc<Etcd>, Failure> {
        let prefix = format!("{}/", settings.prefix);
        let etcd = Arc::new(Etcd {
            wire: Wire::new(settings),
            prefix,
            mirror: Mutex::default(),
            revised: watch::channel(0).0,
            away: Mutex::default(),
            broken: Notify::new(),
            lease: AtomicI64::new(0),
            leases: watch::channel(0).0,
            removed: broadcast::channel(QUEUE).0,
        });
        let begun = Instant::now();
        let mut pauses = Pauses::default();
        while let Err(status) = etcd.read_all().await {
            etcd.wire.turn();
            if begun.elapsed() > START {
                let (place, why) = (etcd.wire.place(), told(&status));
                return Err(Failure::Broken(format!(
                    "etcd at {place} does not answer: {why}; start it, or see `store`"
                )));
            }
            pauses.wait().await;
        }
        etcd.renew_lease().await.map_err(|status| etcd.went(&status))?;
        tokio::spawn(follow(etcd.clone()));
        tokio::spawn(beat(etcd.clone()));
        Ok(etcd)
    }

    pub(super) fn revisions(&self) -> watch::Receiver<u64> {
        self.revised.subscribe()
    }

    pub(super) fn leases(&self) -> watch::Receiver<u64> {
        self.leases.subscribe()
    }

    pub(super) fn removed(&self) -> broadcast::Receiver<String> {
        self.removed.subscribe()
    }

    /// What to say to who wants to change something while etcd is away.
    pub(super) fn cut_off(&self) -> Option<Failure> {
        let away = self.away.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, why) = away.as_ref()?;
        let (seconds, place) = (since.elapsed().as_secs(), self.wire.place());
        Some(Failure::Away(format!(
            "this daemon is cut off from etcd at {place} for {seconds} s ({why}): it serves and renews, but takes no \
             change and lets nobody join until etcd is back; ask another daemon"
        )))
    }

    pub(super) async fn get(&self, key: &str) -> Result<Option<Entry<Vec<u8>>>, Failure> {
        if key.starts_with(documents::TEXTS) {
            return self.fetch(key).await;
        }
        let mirror = self.mirror();
        Ok(mirror.entries.get(key).map(|(revision, value)| Entry { value: value.to_vec(), revision: *revision }))
    }

    /// Asks etcd itself.
    pub(super) async fn fetch(&self, key: &str) -> Result<Option<Entry<Vec<u8>>>, Failure> {
        self.is_there()?;
        let request = pb::RangeRequest { key: self.key(key), ..pb::RangeRequest::default() };
        let answer = match self.wire.range(request.clone()).await {
            Ok(answer) => answer,
            // Its member may be gone and others there.
            Err(_) => {
                self.wire.turn();
                self.wire.range(request).await.map_err(|status| self.went(&status))?
            }
        };
        let found = answer.kvs.into_iter().next();
        Ok(found.map(|found| Entry { revision: number(found.mod_revision), value: found.value }))
    }

    pub(super) fn list(&self, prefix: &str) -> Vec<Keyed<Vec<u8>>> {
        let mirror = self.mirror();
        let from = mirror.entries.range::<str, _>((std::ops::Bound::Included(prefix), std::ops::Bound::Unbounded));
        let listed = from.take_while(|(key, _)| key.starts_with(prefix));
        listed
            .map(|(key, (revision, value))| (key.clone(), Entry { value: value.to_vec(), revision: *revision }))
            .collect()
    }

    pub(super) async fn commit(&self, change: Change) -> Result<u64, Failure> {
        self.is_there()?;
        let request = self.transaction(&change)?;
        let answer = self.wire.transact(request).await.map_err(|status| self.lost(&status))?;
        let revision = answer.header.map_or(0, |header| number(header.revision));
        if !answer.succeeded {
            let found = answer.responses.iter().map(found);
            let unexpected = change.expected.iter().zip(found).find(|((_, expected), found)| expected != found);
            let Some(((key, _), found)) = unexpected else {
                return Err(Failure::Broken("etcd found a conflict where there is none".to_owned()));
            };
            self.until(|mirror| {
                mirror.entries.get(key).map(|(revision, _)| *revision) == found || revision <= mirror.revision
            })
            .await;
            return Err(Failure::Conflict { key: key.clone() });
        }
        let writes = change.writes.iter().any(|write| write.value.is_some());
        self.until(|mirror| {
            let cleared = |prefix: &String| {
                let first = mirror.entries.range(prefix.clone()..).next();
                first.is_none_or(|(key, _)| !key.starts_with(prefix.as_str()))
            };
            let deleted = |write: &Write| write.value.is_some() || !mirror.entries.contains_key(&write.key);
            // Taking out what is not there makes no revision.
            mirror.revision >= revision
                || !writes && change.writes.iter().all(deleted) && change.clears.iter().all(cleared)
        })
        .await;
        Ok(revision)
    }

    /// Ends what was leased.
    pub(super) async fn leave(&self) {
        let lease = self.lease.swap(0, Relaxed);
        if lease != 0 && self.is_there().is_ok() {
            // It ends by itself otherwise.
            let _ = self.wire.revoke(lease).await;
        }
    }

    fn transaction(&self, change: &Change) -> Result<pb::TxnRequest, Failure> {
        let own = self.lease.load(Relaxed);
        if own == 0 && change.writes.iter().any(|write| write.is_leased) {
            return Err(Failure::Away("this daemon's lease in etcd is gone; a new one comes".to_owned()));
        }
        let compare = |(key, revision): &(String, Option<u64>)| pb::Compare {
            result: pb::compare::CompareResult::Equal.into(),
            target: pb::compare::CompareTarget::Mod.into(),
            key: self.key(key),
            target_union: Some(pb::compare::TargetUnion::ModRevision(
                revision.map_or(0, |revision| i64::try_from(revision).unwrap_or(i64::MAX)),
            )),
        };
        let write = |Write { key, value, is_leased }: &Write| {
            let (key, lease) = (self.key(key), if *is_leased { own } else { 0 });
            match value {
                Some(value) => Operation::RequestPut(pb::PutRequest { key, value: value.clone(), lease }),
                None => Operation::RequestDeleteRange(pb::DeleteRangeRequest { key, range_end: Vec::new() }),
            }
        };
        let clear = |prefix: &String| {
            let key = self.key(prefix);
            let range_end = after(&key);
            Operation::RequestDeleteRange(pb::DeleteRangeRequest { key, range_end })
        };
        // Which one it was is not told otherwise.
        let look = |(key, _): &(String, Option<u64>)| {
            Operation::RequestRange(pb::RangeRequest {
                key: self.key(key),
                keys_only: true,
                ..pb::RangeRequest::default()
            })
        };
        let operation = |request: Operation| pb::RequestOp { request: Some(request) };
        let request = pb::TxnRequest {
            compare: change.expected.iter().map(compare).collect(),
            success: change.clears.iter().map(clear).chain(change.writes.iter().map(write)).map(operation).collect(),
            failure: change.expected.iter().map(look).map(operation).collect(),
        };
        let bytes = prost::Message::encoded_len(&request);
        if request.compare.len().max(request.success.len()) > MOST_OPERATIONS || bytes > MOST_BYTES {
            let count = request.success.len();
            return Err(Failure::Broken(format!(
                "a change of {count} entries and {bytes} bytes is too large for etcd"
            )));
        }
        Ok(request)
    }

    /// Waits until the mirror is as it should be soon. When it is not, it was changed again, or is late.
    async fn until(&self, is_so: impl Fn(&Mirror) -> bool) {
        let mut revised = self.revised.subscribe();
        let wait = async {
            while !is_so(&self.mirror()) {
                if revised.changed().await.is_err() {
                    return;
                }
            }
        };
        let _ = tokio::time::timeout(CATCH_UP, wait).await;
    }

    /// Lists everything, and takes it for what is there.
    async fn read_all(&self) -> Result<(), Status> {
        let texts = self.key(documents::TEXTS);
        let (first, end) = (self.key(""), after(&self.key("")));
        let mut entries = BTreeMap::new();
        let mut revision = 0;
        for (mut key, range_end) in [(first, texts.clone()), (after(&texts), end)] {
            loop {
                let request =
                    pb::RangeRequest { key, range_end: range_end.clone(), limit: PAGE, revision, ..Default::default() };
                let answer = self.wire.range(request).await?;
                // All pages are of one moment.
                if revision == 0 {
                    revision = answer.header.map_or(0, |header| header.revision);
                }
                let last = answer.kvs.last().map(|last| [&last.key[..], &[0]].concat());
                for found in answer.kvs {
                    if let Some(name) = self.name(&found.key) {
                        entries.insert(name, (number(found.mod_revision), found.value.into()));
                    }
                }
                match (answer.more, last) {
                    (true, Some(last)) => key = last,
                    _ => break,
                }
            }
        }
        let mut mirror = self.mirror();
        let gone: Vec<String> = mirror.entries.keys().filter(|key| !entries.contains_key(*key)).cloned().collect();
        *mirror = Mirror { entries, revision: number(revision) };
        drop(mirror);
        // Nobody may listen.
        gone.into_iter().for_each(|key| drop(self.removed.send(key)));
        self.revised.send_replace(number(revision));
        Ok(())
    }

    /// Follows from what the mirror has on.
    async fn watch(&self) -> Result<std::convert::Infallible, Ended> {
        let (key, from) = (self.key(""), self.mirror().revision);
        let range_end = after(&key);
        let start_revision = i64::try_from(from).unwrap_or(i64::MAX - 1) + 1;
        let mut stream = self.wire.watch(pb::WatchCreateRequest { key, range_end, start_revision }).await?;
        while let Some(told) = stream.message().await? {
            if told.compact_revision > 0 {
                return Err(Ended::Behind);
            }
            if told.canceled {
                return Err(Ended::Broken(format!("the watch was ended: {}", told.cancel_reason)));
            }
            let now = told.header.map_or(0, |header| number(header.revision));
            if told.created {
                // It was brought back from a backup.
                if now < from {
                    return Err(Ended::Behind);
                }
                // It is back when it takes something.
                self.renew_lease().await?;
                self.came_back();
            }
            self.take(told.events);
        }
        Err(Ended::Broken("the watch ended".to_owned()))
    }

    /// Takes over what has changed: all events of some revisions.
    fn take(&self, events: Vec<pb::Event>) {
        let Some(revision) =
            events.iter().filter_map(|event| event.kv.as_ref()).map(|kv| number(kv.mod_revision)).max()
        else {
            return;
        };
        let mut gone = Vec::new();
        let mut mirror = self.mirror();
        for event in events {
            let is_delete = event.r#type == i32::from(pb::event::EventType::Delete);
            let Some(kv) = event.kv else { continue };
            let Some(name) = self.name(&kv.key).filter(|name| !name.starts_with(documents::TEXTS)) else { continue };
            if is_delete {
                mirror.entries.remove(&name);
                gone.push(name);
            } else {
                mirror.entries.insert(name, (number(kv.mod_revision), kv.value.into()));
            }
        }
        mirror.revision = mirror.revision.max(revision);
        drop(mirror);
        gone.into_iter().for_each(|key| drop(self.removed.send(key)));
        self.revised.send_replace(revision);
    }

    async fn renew_lease(&self) -> Result<(), Status> {
        let lease = self.lease.load(Relaxed);
        if lease != 0 && self.wire.keep(lease).await? {
            return Ok(());
        }
        self.lease.store(0, Relaxed);
        self.lease.store(self.wire.grant(LEASE_S).await?, Relaxed);
        self.leases.send_modify(|count| *count += 1);
        Ok(())
    }

    fn is_there(&self) -> Result<(), Failure> {
        self.cut_off().map_or(Ok(()), Err)
    }

    /// It did not answer: it is away until the watch is there again.
    fn went(&self, status: &Status) -> Failure {
        self.is_away(told(status));
        // It is opened anew, with another member, and says when etcd is back.
        self.broken.notify_one();
        self.cut_off().unwrap_or_else(|| Failure::Away("etcd was away for a moment; try again".to_owned()))
    }

    /// A change got no answer.
    fn lost(&self, status: &Status) -> Failure {
        let code = status.code();
        if matches!(
            code,
            tonic::Code::Unavailable | tonic::Code::DeadlineExceeded | tonic::Code::Unknown | tonic::Code::Cancelled
        ) {
            let (place, why) = (self.wire.place(), told(status));
            return Failure::Away(format!(
                "etcd at {place} did not say whether it was done ({why}); look, and try again"
            ));
        }
        Failure::Broken(format!("etcd at {} refuses a change: {}", self.wire.place(), told(status)))
    }

    fn is_away(&self, why: String) {
        let mut away = self.away.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *away {
            Some(_) => {}
            None => {
                tell::tell(format_args!(
                    "etcd at {} is away ({why}); this daemon serves and renews, and takes no change",
                    self.wire.place()
                ));
                *away = Some((Instant::now(), why));
                drop(away);
                // Who watches looks again.
                self.revised.send_modify(|_| {});
            }
        }
    }

    fn came_back(&self) {
        let before = self.away.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some((since, _)) = before {
            tell::tell(format_args!("etcd is back after {} s", since.elapsed().as_secs()));
            self.revised.send_modify(|_| {});
        }
    }

    fn mirror(&self) -> MutexGuard<'_, Mirror> {
        self.mirror.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn key(&self, name: &str) -> Vec<u8> {
        format!("{}{name}", self.prefix).into_bytes()
    }

    /// Ours without the prefix.
    fn name(&self, key: &[u8]) -> Option<String> {
        Some(std::str::from_utf8(key).ok()?.strip_prefix(&self.prefix)?.to_owned())
    }
}

/// Keeps the mirror.
async fn follow(etcd: Arc<Etcd>) {
    let mut pauses = Pauses::default();
    loop {
        let begun = Instant::now();
        let ended = tokio::select! {
            ended = etcd.watch() => ended,
            () = etcd.broken.notified() => Err(Ended::Broken("it does not answer".to_owned())),
        };
        let why = match ended {
            Err(Ended::Behind) => etcd.read_all().await.err().map(|status| told(&status)),
            Err(Ended::Broken(why)) => Some(why),
        };
        if begun.elapsed() > PAUSES.1 {
            pauses = Pauses::default();
        }
        if let Some(why) = why {
            etcd.is_away(why);
            etcd.wire.turn();
            pauses.wait().await;
        }
    }
}

/// Keeps the lease. An etcd without a majority takes none, though its watches may stand.
async fn beat(etcd: Arc<Etcd>) {
    loop {
        tokio::time::sleep(BEAT).await;
        if etcd.is_there().is_ok()
            && let Err(status) = etcd.renew_lease().await
        {
            etcd.went(&status);
        }
    }
}

/// Longer each time, with chance in it: not all daemons come at once.
#[derive(Default)]
struct Pauses(u32);

impl Pauses {
    async fn wait(&mut self) {
        let most = (PAUSES.0 * 2_u32.pow(self.0.min(10))).min(PAUSES.1);
        self.0 += 1;
        let [chance] = random::<1>();
        tokio::time::sleep(most / 2 + most / 2 * u32::from(chance) / 255).await;
    }
}

/// The revision that was found at a key.
fn found(answer: &pb::ResponseOp) -> Option<u64> {
    let pb::response_op::Response::ResponseRange(range) = answer.response.as_ref()?;
    range.kvs.first().map(|kv| number(kv.mod_revision))
}

/// The first key behind all that begin with this.
fn after(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    // Ours end with `/` or a letter.
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    end
}

fn number(revision: i64) -> u64 {
    u64::try_from(revision).unwrap_or(0)
}

/// For people.
fn told(status: &Status) -> String {
    let inner = std::error::Error::source(status).map(reason);
    inner.unwrap_or_else(|| status.message().to_owned())
}
