//! Pushes: a document becomes a version, the version is put in force, and whoever pushed is told how far it is.
//!
//! ```text
//!   checked ─► compared ─► in the store, on the disk ─► in force ─► taken by each proxy (--wait)
//!      │          │              │                                     │
//!   REFUSED   UNCHANGED,      CONFLICT                       APPLIED, REJECTED, TIMED_OUT
//!             NEEDS_FORCE
//! ```

use super::canary::Canary;
use super::trial::{self, Record, Verdict};
use super::{difference, documents};
use crate::authority::Refusal;
use crate::collect::Member;
use crate::state::{Daemon, InForce, now_ms};
use crate::store::Failure;
use crate::store::documents::{About, Version};
use crate::tell;
use api::pb;
use api::pb::Outcome;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tonic::Status;

/// Proxies that are connected get so long to take a push; then it is told who has not.
const WAIT: Duration = Duration::from_secs(60);
/// What proxies tell within so long is looked at once.
const TOGETHER: Duration = Duration::from_millis(20);
/// The longest comment, characters.
const LONGEST_COMMENT: usize = 1000;
/// Lines about proxies that one message has at most.
const MOST_LINES: usize = 100;

/// What somebody pushes.
#[derive(Debug)]
pub(super) struct Push {
    document: String,
    file: String,
    /// The version that the operator saw; without one, whatever is in force.
    base: Option<u64>,
    force: bool,
    wait: bool,
    canary: Option<(Canary, pb::Canary)>,
    comment: String,
    author: String,
    again: Option<u64>,
}

impl Push {
    /// What an operator asks for.
    pub(super) fn of(request: pb::ApplyRequest, author: String) -> Result<Push, Refusal> {
        let pb::ApplyRequest { document, file, base, force, wait, canary, comment } = request;
        let read = |asked: pb::Canary| Canary::read(&asked).map(|canary| (canary, asked));
        let canary = canary.map(read).transpose().map_err(Refusal::Wrong)?;
        let comment = comment.chars().map(|c| if c.is_control() { ' ' } else { c }).take(LONGEST_COMMENT).collect();
        Ok(Push { document, file, base, force, wait, canary, comment, author, again: None })
    }

    /// An earlier version's document once more.
    pub(super) async fn again(daemon: &Daemon, request: pb::RollbackRequest, author: String) -> Result<Push, Refusal> {
        let pb::RollbackRequest { version, force, wait } = request;
        if version == 0 {
            return Err(Refusal::Wrong("to which version? `ringwayctl history` shows all".to_owned()));
        }
        let found = documents::version(daemon, version).await?;
        let document = daemon.store.document(&found).await?;
        let (file, comment) = (format!("version {version}"), format!("back to version {version}"));
        Ok(Push { document, file, base: None, force, wait, canary: None, comment, author, again: Some(version) })
    }
}

/// Does it, and tells. Whoever asked may go: what was acknowledged stays.
pub(super) async fn apply(daemon: Arc<Daemon>, push: Push, sender: mpsc::Sender<Result<pb::Progress, Status>>) {
    let wait = push.wait;
    let last = match put_in_force(&daemon, push, &sender).await {
        Ok(Done { number, outcome: Outcome::Running, line, .. }) if wait => {
            let first = pb::Progress { line, version: number, ..pb::Progress::default() };
            if sender.send(Ok(first)).await.is_err() {
                return;
            }
            Ok(follow(&daemon, number, &sender).await)
        }
        Ok(Done { number, outcome, line, findings }) => {
            let outcome = if outcome == Outcome::Running { Outcome::Applied } else { outcome };
            Ok(pb::Progress { line, version: number, outcome: outcome.into(), findings, ..pb::Progress::default() })
        }
        Err(refusal) => Err(Status::from(refusal)),
    };
    let _ = sender.send(last).await;
}

/// What became of it; `Running`: it is in force.
pub(super) struct Done {
    number: u64,
    outcome: Outcome,
    line: String,
    findings: Vec<String>,
}

async fn put_in_force(
    daemon: &Daemon,
    push: Push,
    sender: &mpsc::Sender<Result<pb::Progress, Status>>,
) -> Result<Done, Refusal> {
    let now = daemon.in_force().borrow().clone();
    let number = now.as_ref().map_or(0, |now| now.version.number);
    let stays = |outcome: Outcome, line: String, findings: Vec<String>| Ok(Done { number, outcome, line, findings });
    let mesh = match documents::read(push.document.clone(), push.file).await {
        Ok(mesh) => mesh,
        Err(findings) => {
            return stays(Outcome::Refused, "the document is refused; nothing has changed".to_owned(), findings);
        }
    };
    if push.base.is_some_and(|base| base != number) {
        return stays(Outcome::Conflict, conflict(now.as_deref(), push.base), Vec::new());
    }
    if let Some(tried) = trial::now(&daemon.store).await? {
        if push.again == Some(number) {
            trial::stop(daemon).await?;
            let tried = tried.value.number;
            let line = format!("the trial of version {tried} is ended; version {number} stays in force");
            return stays(Outcome::Unchanged, line, Vec::new());
        }
        return stays(Outcome::Conflict, on_trial(daemon, number), Vec::new());
    }
    if let Some(now) = &now
        && daemon.store.document(&now.version).await? == push.document
    {
        return stays(Outcome::Unchanged, format!("version {number} is in force and says the same"), Vec::new());
    }
    let proxies = daemon.authority.proxies().await?;
    let difference = difference::between(now.as_ref().and_then(|now| now.mesh.as_deref()), &mesh, &proxies);
    let needs_force = difference.needs_force(push.again.is_some());
    if !needs_force.is_empty() && !push.force {
        let line = "this needs --force; nothing has changed".to_owned();
        return stays(Outcome::NeedsForce, line, needs_force);
    }
    let about = About { at_ms: now_ms(), author: push.author.clone(), comment: push.comment, again: push.again };
    let base = now.as_ref().map(|now| now.version.number);
    if let Some(canary) = &push.canary {
        let groups: Vec<String> = difference.affected.into_iter().map(|affected| affected.group).collect();
        return try_out(daemon, canary, (&push.document, about), base, &groups, sender).await;
    }
    let version = match daemon.store.push(base, &push.document, about).await {
        Ok(version) => version,
        Err(Failure::Conflict { .. }) => {
            daemon.read_document().await?;
            let now = daemon.in_force().borrow().clone();
            return stays(Outcome::Conflict, conflict(now.as_deref(), base), Vec::new());
        }
        Err(failure) => return Err(failure.into()),
    };
    read(daemon).await;
    let Version { number, author, .. } = version;
    let line = format!("version {number} is in force");
    tell::tell(format_args!("operator `{author}`: {line}"));
    Ok(Done { number, outcome: Outcome::Running, line, findings: Vec::new() })
}

/// Puts a version in force after some proxies have tried it; or takes it back.
async fn try_out(
    daemon: &Daemon,
    (canary, asked): &(Canary, pb::Canary),
    (document, about): (&str, About),
    base: Option<u64>,
    groups: &[String],
    sender: &mpsc::Sender<Result<pb::Progress, Status>>,
) -> Result<Done, Refusal> {
    let author = about.author.clone();
    let now = base.unwrap_or(0);
    let number = match daemon.store.add(document, about).await {
        Ok(version) => version.number,
        Err(Failure::Conflict { .. }) => {
            let line = conflict(daemon.in_force().borrow().as_deref(), base);
            return Ok(Done { number: now, outcome: Outcome::Conflict, line, findings: Vec::new() });
        }
        Err(failure) => return Err(failure.into()),
    };
    let all = daemon.fleet.members();
    let members = canary.members(number, groups, &all);
    let of = all.values().filter(|member| member.is_connected() && members.contains_key(&member.group)).count();
    let pb::Canary { percent, abort_on, .. } = asked.clone();
    let watch_ms = u32::try_from(canary.watch.as_millis()).unwrap_or(u32::MAX);
    let (counts, stopped) = (false, false);
    let record = Record { number, base, author, members, of, percent, watch_ms, abort_on, counts, stopped };
    if record.members.is_empty() {
        return end(daemon, &record, Verdict::Good(String::new())).await;
    }
    // Until it is known otherwise: should the daemon end now, that is what became of it.
    documents::taken_back(&daemon.store, number, "the daemon ended while it was on trial").await?;
    if !trial::begin(daemon, &record).await? {
        documents::taken_back(&daemon.store, number, "another version was on trial").await?;
        let line = on_trial(daemon, now);
        return Ok(Done { number: now, outcome: Outcome::Conflict, line, findings: Vec::new() });
    }
    let tried: usize = record.members.values().map(std::collections::BTreeSet::len).sum();
    tell::tell(format_args!("operator `{}`: version {number} is on trial with {tried} proxies", record.author));
    lead(daemon, &record, sender).await
}

/// Leads a trial to its end.
pub(super) async fn lead(
    daemon: &Daemon,
    record: &Record,
    sender: &mpsc::Sender<Result<pb::Progress, Status>>,
) -> Result<Done, Refusal> {
    let ended = match trial::watch(daemon, record, sender).await {
        Ok(verdict) => end(daemon, record, verdict).await,
        Err(refusal) => Err(refusal),
    };
    daemon.trial.leave();
    ended
}

/// Does what became of a trial.
async fn end(daemon: &Daemon, record: &Record, verdict: Verdict) -> Result<Done, Refusal> {
    let &Record { number, base, .. } = record;
    let now = base.unwrap_or(0);
    let back = |line: String, findings: Vec<String>| Done { number: now, outcome: Outcome::RolledBack, line, findings };
    let (seen, why) = match verdict {
        Verdict::Good(seen) => (seen, None),
        Verdict::Bad(why) => (String::new(), Some(why)),
        Verdict::Lost => {
            let line = format!(
                "this daemon was cut off from etcd for a while, and leads the trial of version {number} no more; \
                 `ringwayctl history` tells what became of it"
            );
            return Ok(Done { number: now, outcome: Outcome::TimedOut, line, findings: Vec::new() });
        }
    };
    if let Some(why) = why {
        daemon.store.commit(trial::over(documents::is_taken_back(number, &why.join("; ")))).await?;
        look(daemon).await;
        tell::tell(format_args!("version {number} is taken back: {}", why.join("; ")));
        return Ok(back(format!("version {number} is taken back; version {now} is in force"), why));
    }
    // Another leader may have done so, and not said it any more.
    if daemon.store.head().await?.map(|head| head.number) != Some(number) {
        match daemon.store.put_in_force(base, number).await {
            Ok(()) => {}
            Err(Failure::Conflict { .. }) => {
                let why = "another version came in force meanwhile";
                daemon.store.commit(trial::over(documents::is_taken_back(number, why))).await?;
                read(daemon).await;
                look(daemon).await;
                return Ok(back(conflict(daemon.in_force().borrow().as_deref(), base), Vec::new()));
            }
            Err(failure) => return Err(failure.into()),
        }
    }
    // It is in force: whatever fails now changes nothing of that.
    if let Err(failure) = daemon.store.commit(trial::over(documents::is_not_taken_back(number))).await {
        tell::tell(format_args!("version {number} is in force, and its history may say that it is not: {failure}"));
    }
    read(daemon).await;
    look(daemon).await;
    let line = match record.members.is_empty() {
        true => format!("version {number} is in force; nobody who is connected could try it"),
        false => format!("version {number} is in force, after its trial: {seen}"),
    };
    tell::tell(format_args!("operator `{}`: {line}", record.author));
    Ok(Done { number, outcome: Outcome::Running, line, findings: Vec::new() })
}

/// Reads what was put in force. It is on the disk: a failure changes nothing of that, and whoever watches the store reads it
/// in a moment.
async fn read(daemon: &Daemon) {
    if let Err(failure) = daemon.read_document().await {
        tell::tell(format_args!("another version is in force, and is not read yet: {failure}"));
    }
}

/// Sends everybody what became of a trial. That is on the disk, as above.
async fn look(daemon: &Daemon) {
    if let Err(refusal) = trial::look(daemon).await {
        let why = Status::from(refusal);
        tell::tell(format_args!("what became of the trial is in the store, and is not read yet: {}", why.message()));
    }
}

/// One push at a time.
fn on_trial(daemon: &Daemon, now: u64) -> String {
    let told = trial::told(daemon).unwrap_or_else(|| "another version is on trial".to_owned());
    format!("{told}: wait for it, or end it with `ringwayctl rollback {now}`; nothing has changed")
}

/// Somebody else was first: who, and what to do.
fn conflict(now: Option<&InForce>, base: Option<u64>) -> String {
    let saw = match base {
        None | Some(0) => "none".to_owned(),
        Some(base) => format!("version {base}"),
    };
    let is = match now {
        None => "no version is in force".to_owned(),
        Some(InForce { version, .. }) => format!("version {} by `{}` is in force", version.number, version.author),
    };
    format!("{is}, and you saw {saw}; look at `ringwayctl diff`, then plan again; nothing has changed")
}

/// How far the proxies are with a version.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Counted {
    /// Connected.
    pub(super) of: u32,
    pub(super) done: u32,
    /// `PROXY: kind/name: field: reason`, of those that refuse something of it.
    pub(super) refused: Vec<String>,
    /// Those that have not taken it yet.
    pub(super) behind: Vec<String>,
}

pub(super) fn count(members: HashMap<Arc<str>, Member>, number: u64) -> Counted {
    let mut counted = Counted::default();
    let mut members: Vec<_> = members.into_iter().filter(|(_, member)| member.is_connected()).collect();
    members.sort_by(|(a, _), (b, _)| a.cmp(b));
    for (id, member) in members {
        counted.of += 1;
        let refused = member.rejected().into_iter().filter(|one| is_of(one, number)).collect::<Vec<_>>();
        let has_answered = member.resources.as_ref().is_none_or(|progress| progress.settled >= number);
        if !refused.is_empty() && has_answered {
            counted.refused.extend(refused.iter().map(|one| format!("{id}: {}", line(one))));
        } else if member.applied() >= number {
            counted.done += 1;
        } else {
            counted.behind.push(id.to_string());
        }
    }
    counted
}

/// It was refused in this push. What an earlier one brought and is refused still is no fault of this one.
fn is_of(rejected: &pb::Rejected, number: u64) -> bool {
    rejected.version.parse() == Ok(number)
}

/// `listener/web: field: reason`
fn line(rejected: &pb::Rejected) -> String {
    let kind = crate::snapshot::Kind::of(&rejected.type_url).map_or("resource", crate::snapshot::Kind::word);
    let mut line = format!("{kind}/{}", rejected.name);
    for part in [&rejected.field, &rejected.reason] {
        if !part.is_empty() {
            line.push_str(": ");
            line.push_str(part);
        }
    }
    line
}

/// Tells how far it is until all who are connected have answered; the last message.
async fn follow(daemon: &Daemon, number: u64, sender: &mpsc::Sender<Result<pb::Progress, Status>>) -> pb::Progress {
    let mut changes = daemon.fleet.changes();
    let mut documents = daemon.in_force();
    let late = tokio::time::sleep(WAIT);
    tokio::pin!(late);
    let mut told = None;
    loop {
        changes.mark_unchanged();
        let counted = count(daemon.fleet.members(), number);
        let Counted { of, done, ref refused, ref behind } = counted;
        let end = |outcome: Outcome, line: String, mut findings: Vec<String>| {
            let more = findings.len().saturating_sub(MOST_LINES);
            findings.truncate(MOST_LINES);
            findings.extend((more > 0).then(|| format!("and {more} more")));
            pb::Progress { line, version: number, done, of, outcome: outcome.into(), findings }
        };
        let newer = documents.borrow_and_update().as_ref().map_or(0, |now| now.version.number);
        if newer > number {
            // It is not known who has had it, and nobody waits for it any more.
            let line = format!("version {newer} took its place before all had version {number}");
            return end(Outcome::TimedOut, line, Vec::new());
        }
        if behind.is_empty() && refused.is_empty() {
            return end(Outcome::Applied, format!("version {number} is applied by {}", all(of)), Vec::new());
        }
        if behind.is_empty() {
            let line =
                format!("version {number} is in force, and some of it is refused; they keep their last good one");
            return end(Outcome::Rejected, line, refused.clone());
        }
        if told != Some((done, of)) {
            told = Some((done, of));
            let line = format!("{done} of {of} proxies have version {number}");
            let progress = pb::Progress { line, version: number, done, of, ..pb::Progress::default() };
            if sender.send(Ok(progress)).await.is_err() {
                return pb::Progress::default();
            }
        }
        tokio::select! {
            // Many proxies tell something many times: they are looked at together.
            _ = changes.changed() => tokio::time::sleep(TOGETHER).await,
            _ = documents.changed() => {}
            () = sender.closed() => return pb::Progress::default(),
            () = &mut late => {
                let seconds = WAIT.as_secs();
                let line = format!("version {number} is in force; {} of {of} proxies have not taken it in {seconds} s", behind.len());
                let findings = refused.iter().cloned().chain(behind.iter().map(|id| format!("{id}: not yet")));
                return end(Outcome::TimedOut, line, findings.collect());
            }
        }
    }
}

fn all(of: u32) -> String {
    match of {
        0 => "all proxies that are connected: none is".to_owned(),
        1 => "the 1 proxy that is connected".to_owned(),
        _ => format!("all {of} proxies that are connected"),
    }
}
