//! The push that is on trial, as all daemons of a store know it. One of them leads: it watches, judges, and puts the push in
//! force or takes it back; when it is lost, another one does. Each gives it to those of its own proxies that try it.
//!
//! | key | what |
//! | --- | --- |
//! | `trial/now` | what is tried, by whom, and how far it is ([`Record`]) |
//! | `trial/leader` | the daemon that leads; it leaves some seconds after the daemon did |
//! | `trial/counts/DAEMON` | what the proxies of a daemon that does not lead counted since the watch began |

use super::apply::{self, Counted, count};
use super::canary::{Canary, compared};
use super::documents;
use crate::authority::Refusal;
use crate::collect::{Counts, Member};
use crate::state::Daemon;
use crate::store::{Change, Entry, Failure, Store};
use crate::tell;
use api::pb;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tonic::Status;

/// All that stands in the store of a trial begins so.
const ALL: &str = "trial/";
const NOW: &str = "trial/now";
const LEADER: &str = "trial/leader";
const COUNTS: &str = "trial/counts/";
/// Those on trial get so long to take the push.
const TAKE: Duration = Duration::from_secs(60);
/// One that is gone for so long has not only lost its connection.
const GONE: Duration = Duration::from_secs(10);
/// The same where it may go to another daemon: the one that it was connected to may be lost.
const GONE_ELSEWHERE: Duration = Duration::from_secs(30);
/// How often is looked, and told.
const LOOK: Duration = Duration::from_millis(250);
const TELL: Duration = Duration::from_secs(2);
/// How often the others tell the leader what they counted.
const COUNT: Duration = Duration::from_secs(1);

/// What is tried.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// The version.
    pub(super) number: u64,
    /// The version in force, if one is.
    pub(super) base: Option<u64>,
    pub(super) author: String,
    /// Who tries it, by group.
    pub(super) members: BTreeMap<String, BTreeSet<String>>,
    /// Of so many.
    pub(super) of: usize,
    pub(super) percent: u32,
    pub(super) watch_ms: u32,
    pub(super) abort_on: Vec<String>,
    /// All who try it have it: what they count from now on counts.
    pub(super) counts: bool,
    /// An operator wants it to end.
    pub(super) stopped: bool,
}

/// By group, what those on trial counted since the watch began, and the rest of the group.
type ByGroup = BTreeMap<String, (Counts, Counts)>;
/// By proxy: its epoch, and what it had counted.
type Seen = HashMap<Arc<str>, (u64, Counts)>;

/// The trial as this daemon takes part in it.
#[derive(Debug, Default)]
pub(crate) struct Slot {
    here: Mutex<Option<Here>>,
    /// The store is looked at by one after the other.
    looking: tokio::sync::Mutex<()>,
    /// This daemon leads.
    leads: Mutex<bool>,
}

#[derive(Debug)]
struct Here {
    record: Record,
    /// Since when is watched, and what had been counted then.
    since: Option<(Instant, Seen)>,
}

/// What became of a trial.
pub(super) enum Verdict {
    /// What it was judged by.
    Good(String),
    /// Why it is taken back.
    Bad(Vec<String>),
    /// Another daemon leads it now.
    Lost,
}

impl Record {
    fn has(&self, proxy: &str) -> bool {
        self.members.values().any(|members| members.contains(proxy))
    }
}

impl Slot {
    fn here(&self) -> MutexGuard<'_, Option<Here>> {
        self.here.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// This daemon leads from now on; false: it does already.
    fn lead(&self) -> bool {
        let mut leads = self.leads.lock().unwrap_or_else(PoisonError::into_inner);
        !std::mem::replace(&mut *leads, true)
    }

    /// It leads no more.
    pub(super) fn leave(&self) {
        *self.leads.lock().unwrap_or_else(PoisonError::into_inner) = false;
    }
}

/// The trial under way.
pub(super) async fn now(store: &Store) -> Result<Option<Entry<Record>>, Failure> {
    store.get(NOW).await
}

/// The trial under way, for people.
pub(super) fn told(daemon: &Daemon) -> Option<String> {
    let here = daemon.trial.here();
    let Here { record, since } = here.as_ref()?;
    let watch = Duration::from_millis(record.watch_ms.into());
    let left = match since {
        Some((since, _)) => format!("{} s left", watch.saturating_sub(since.elapsed()).as_secs()),
        None => "being taken".to_owned(),
    };
    let members: usize = record.members.values().map(BTreeSet::len).sum();
    Some(format!("version {} by `{}` on {members} of {} proxies, {left}", record.number, record.author, record.of))
}

/// Begins, with this daemon as the leader. False: another trial is under way.
pub(super) async fn begin(daemon: &Daemon, record: &Record) -> Result<bool, Refusal> {
    let own = daemon.store.id().to_string();
    let change = Change::new().expect(NOW, None).put(NOW, record).put_leased(LEADER, &own);
    if !daemon.trial.lead() {
        return Ok(false);
    }
    let begun = daemon.store.commit(change).await;
    if begun.is_err() {
        daemon.trial.leave();
    }
    match begun {
        Ok(_) => Ok(true),
        Err(Failure::Conflict { .. }) => Ok(false),
        Err(failure) => Err(failure.into()),
    }
}

/// An operator wants the trial to end.
pub(super) async fn stop(daemon: &Daemon) -> Result<(), Refusal> {
    while let Some(Entry { value, revision }) = now(&daemon.store).await? {
        let change = Change::new().expect(NOW, Some(revision)).put(NOW, &Record { stopped: true, ..value });
        match daemon.store.commit(change).await {
            Err(Failure::Conflict { .. }) => {}
            done => return Ok(done.map(drop)?),
        }
    }
    Ok(())
}

/// A daemon with a store of its own ended while something was on trial: that is taken back.
pub(crate) async fn forget(store: &Store) -> Result<(), Failure> {
    match now(store).await? {
        Some(_) if !store.is_shared() => store.commit(Change::new().clear(ALL)).await.map(drop),
        _ => Ok(()),
    }
}

/// What ends a trial in the store.
pub(super) fn over(change: Change) -> Change {
    change.clear(ALL)
}

/// Takes part in trials of the daemons that share the store, and leads one whose leader is lost; as long as the daemon runs.
pub(crate) async fn attend(daemon: Arc<Daemon>) {
    let mut store = daemon.store.watch();
    loop {
        store.mark_unchanged();
        let looked = match look(&daemon).await {
            Ok(()) => take_part(&daemon).await,
            failed => failed,
        };
        match looked {
            Ok(()) | Err(Refusal::Store(Failure::Away(_) | Failure::Conflict { .. })) => {}
            Err(refusal) => tell::tell(refusal),
        }
        let _ = tokio::time::timeout(COUNT, store.changed()).await;
    }
}

/// Takes over what the store says of a trial: proxies of this daemon that try it have it, or have it no more.
pub(super) async fn look(daemon: &Daemon) -> Result<(), Refusal> {
    let _alone = daemon.trial.looking.lock().await;
    let head = daemon.store.head().await?.map(|head| head.number);
    let found = now(&daemon.store).await?.map(|entry| entry.value);
    // What is in force is no trial any more, though its leader has not said so yet.
    let found = found.filter(|record| Some(record.number) != head);
    let held = daemon.trial.here().as_ref().map(|here| here.record.number);
    let Some(record) = found else {
        if held.is_some() {
            // First what is in force, so that nobody goes back and forth.
            daemon.read_document().await?;
            *daemon.trial.here() = None;
            daemon.snapshots.end_trial();
        }
        return Ok(());
    };
    if held != Some(record.number) {
        let version = documents::version(daemon, record.number).await?;
        let text = daemon.store.document(&version).await?;
        let mesh = api::mesh::load(&text, &format!("version {}", record.number));
        let mesh = mesh.map_err(|_| Refusal::Broken(format!("version {} cannot be read here", record.number)))?;
        daemon.snapshots.try_out(record.number, Arc::new(mesh), &record.members);
        *daemon.trial.here() = Some(Here { record: record.clone(), since: None });
    }
    if let Some(here) = &mut *daemon.trial.here() {
        if record.counts && here.since.is_none() {
            here.since = Some((Instant::now(), daemon.fleet.telemetry().of_proxies()));
        }
        here.record = record;
    }
    Ok(())
}

/// Tells the leader what was counted here; leads when nobody does.
async fn take_part(daemon: &Arc<Daemon>) -> Result<(), Refusal> {
    let Some(Entry { value: record, revision }) = now(&daemon.store).await? else { return Ok(()) };
    let own: &str = daemon.store.id();
    let leader = daemon.store.get::<String>(LEADER).await?;
    if leader.as_ref().is_none_or(|leader| leader.value == own) && daemon.trial.lead() {
        let change = Change::new().expect(NOW, Some(revision)).expect(LEADER, leader.map(|leader| leader.revision));
        if let Err(failure) = daemon.store.commit(change.put_leased(LEADER, &own.to_owned())).await {
            daemon.trial.leave();
            return Err(failure.into());
        }
        tell::tell(format_args!(
            "the daemon that led the trial of version {} is lost: this one goes on",
            record.number
        ));
        let daemon = daemon.clone();
        tokio::spawn(async move {
            let (nobody, _) = mpsc::channel(1);
            if let Err(refusal) = apply::lead(&daemon, &record, &nobody).await {
                tell::tell(refusal);
            }
        });
        return Ok(());
    }
    if daemon.store.is_shared()
        && leader.is_some_and(|leader| leader.value != own)
        && let Some(groups) = counted(daemon)
    {
        let key = format!("{COUNTS}{own}");
        let counts = (record.number, groups);
        if daemon.store.get::<(u64, ByGroup)>(&key).await?.is_none_or(|told| told.value != counts) {
            daemon.store.commit(Change::new().expect(NOW, Some(revision)).put_leased(key, &counts)).await?;
        }
    }
    Ok(())
}

/// What this daemon's proxies counted since the watch began.
fn counted(daemon: &Daemon) -> Option<ByGroup> {
    let mut here = daemon.trial.here();
    let Here { record, since } = here.as_mut()?;
    let (_, before) = since.as_mut()?;
    let mut groups: ByGroup = record.members.keys().map(|group| (group.clone(), Default::default())).collect();
    let members = daemon.fleet.own_members();
    for (proxy, (epoch, counts)) in daemon.fleet.telemetry().of_proxies() {
        let Some(member) = members.get(&proxy) else { continue };
        let Some((trial, rest)) = groups.get_mut(&member.group) else { continue };
        // Of one that is seen for the first time it is not known when it counted what: that is where counting begins.
        let (same, start) = *before.entry(proxy.clone()).or_insert((epoch, counts));
        // Of another process all is new.
        let news = if same == epoch { counts.since(&start) } else { counts };
        if record.has(&proxy) { trial.add(&news) } else { rest.add(&news) }
    }
    Some(groups)
}

/// Watches a trial that this daemon leads, until its end.
pub(super) async fn watch(
    daemon: &Daemon,
    record: &Record,
    sender: &mpsc::Sender<Result<pb::Progress, Status>>,
) -> Result<Verdict, Refusal> {
    let number = record.number;
    let asked = pb::Canary { percent: record.percent, watch_ms: record.watch_ms, abort_on: record.abort_on.clone() };
    let canary = Canary::read(&asked).map_err(Refusal::Broken)?;
    let begun = Instant::now();
    let mut absent: HashMap<String, Instant> = HashMap::new();
    let mut epochs: HashMap<Arc<str>, u64> = HashMap::new();
    let mut told: Option<Instant> = None;
    loop {
        if daemon.store.cut_off().is_some() {
            tokio::time::sleep(LOOK).await;
            continue;
        }
        look(daemon).await?;
        if daemon.store.head().await?.map(|head| head.number) == Some(number) {
            return Ok(Verdict::Good("by another daemon".to_owned()));
        }
        let leader = daemon.store.get::<String>(LEADER).await?;
        let Some(Entry { value: record, revision }) = now(&daemon.store).await? else { return Ok(Verdict::Lost) };
        if record.number != number || leader.is_none_or(|leader| *leader.value != **daemon.store.id()) {
            return Ok(Verdict::Lost);
        }
        if record.stopped {
            return Ok(Verdict::Bad(vec!["an operator ended it".to_owned()]));
        }
        let members = daemon.fleet.members();
        let tried: HashMap<_, _> =
            members.iter().filter(|(id, _)| record.has(id)).map(|(id, member)| (id.clone(), member.clone())).collect();
        let patience = if daemon.store.is_shared() { GONE_ELSEWHERE } else { GONE };
        let gone = gone(&record, &tried, &mut absent, patience);
        if let Some(gone) = gone.or_else(|| began_anew(&tried, &mut epochs)) {
            return Ok(Verdict::Bad(vec![gone]));
        }
        let Counted { of, done, refused, behind } = count(tried, number);
        if !refused.is_empty() {
            return Ok(Verdict::Bad(refused));
        }
        let mut line = format!("{done} of {of} proxies on trial have version {number}");
        let since = daemon.trial.here().as_ref().and_then(|here| here.since.as_ref().map(|(since, _)| *since));
        match since {
            None if behind.is_empty() && !record.counts => {
                let change = Change::new().expect(NOW, Some(revision)).put(NOW, &Record { counts: true, ..record });
                match daemon.store.commit(change).await {
                    Ok(_) | Err(Failure::Conflict { .. } | Failure::Away(_)) => {}
                    Err(failure) => return Err(failure.into()),
                }
                continue;
            }
            None if begun.elapsed() > TAKE => {
                let seconds = TAKE.as_secs();
                let late = behind.iter().map(|id| format!("{id}: has not taken it in {seconds} s"));
                return Ok(Verdict::Bad(late.collect()));
            }
            None => {}
            Some(since) => {
                let groups = counted_by_all(daemon, number).await?;
                let judged = groups.iter().flat_map(|(group, (trial, rest))| {
                    let bad = canary.judge(trial, rest).into_iter();
                    bad.map(move |bad| format!("group {group}: {bad}"))
                });
                let bad: Vec<String> = judged.collect();
                if !bad.is_empty() {
                    return Ok(Verdict::Bad(bad));
                }
                let seen = groups.iter().map(|(group, (trial, rest))| format!("{group}: {}", compared(trial, rest)));
                let seen = seen.collect::<Vec<_>>().join("; ");
                let Some(left) = canary.watch.checked_sub(since.elapsed()) else { return Ok(Verdict::Good(seen)) };
                line.push_str(&format!("; {} s left: {seen}", left.as_secs()));
            }
        }
        if told.is_none_or(|told| told.elapsed() >= TELL) {
            told = Some(Instant::now());
            let progress = pb::Progress { line, version: number, done, of, ..pb::Progress::default() };
            // It goes on though nobody listens.
            let _ = sender.try_send(Ok(progress));
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// As [`counted`], with what the other daemons told.
async fn counted_by_all(daemon: &Daemon, number: u64) -> Result<ByGroup, Failure> {
    let mut groups = counted(daemon).unwrap_or_default();
    for (key, entry) in daemon.store.list::<(u64, ByGroup)>(COUNTS).await? {
        let (of, told) = entry.value;
        if of != number || key[COUNTS.len()..] == **daemon.store.id() {
            continue;
        }
        for (group, (on_trial, beside)) in told {
            let (trial, rest) = groups.entry(group).or_default();
            trial.add(&on_trial);
            rest.add(&beside);
        }
    }
    Ok(groups)
}

/// One of those on trial whose process is another than before: it ended, whatever it was that ended it.
fn began_anew(tried: &HashMap<Arc<str>, Member>, epochs: &mut HashMap<Arc<str>, u64>) -> Option<String> {
    tried.iter().find_map(|(proxy, member)| {
        let epoch = member.hello.as_ref().map(|hello| hello.epoch).filter(|epoch| *epoch > 0)?;
        let first = *epochs.entry(proxy.clone()).or_insert(epoch);
        (first != epoch).then(|| format!("{proxy}: its process ended, and began anew"))
    })
}

/// One of those on trial that is not connected any more.
fn gone(
    record: &Record,
    tried: &HashMap<Arc<str>, Member>,
    absent: &mut HashMap<String, Instant>,
    patience: Duration,
) -> Option<String> {
    for proxy in record.members.values().flatten() {
        if tried.get(proxy.as_str()).is_some_and(Member::is_connected) {
            absent.remove(proxy);
        } else if absent.entry(proxy.clone()).or_insert_with(Instant::now).elapsed() > patience {
            return Some(format!("{proxy}: is gone"));
        }
    }
    None
}
