//! Documents: checked, compared, shown.

use super::{difference, judge, trial};
use crate::authority::Refusal;
use crate::state::Daemon;
use crate::store::documents::Version;
use crate::store::{Change, Failure, Store};
use api::mesh::Mesh;
use api::pb;

/// More versions than this are not listed at once.
const MOST_LISTED: u32 = 10_000;
/// When nobody says how many.
const USUAL_LISTED: u32 = 20;

/// Reads and checks a document, and has it judged as proxies will. Large ones take a while: it is a thread of its own.
///
/// # Errors
/// One line a finding.
pub(super) async fn read(text: String, file: String) -> Result<Mesh, Vec<String>> {
    let file: String = file.chars().filter(|c| !c.is_control()).take(4096).collect();
    let file = if file.is_empty() { "mesh.yaml".to_owned() } else { file };
    let read = tokio::task::spawn_blocking(move || {
        let told = |findings: Vec<api::Finding>| findings.iter().map(ToString::to_string).collect::<Vec<_>>();
        let no_key = || vec!["the document could not be checked: no key could be made".to_owned()];
        judge::stand_in().ok_or_else(no_key)?.check(&text, &file).map_err(told)
    });
    read.await.unwrap_or_else(|_| Err(vec!["the document could not be read: this is the daemon's fault".to_owned()]))
}

/// What a push of this document would change.
pub(super) async fn plan(daemon: &Daemon, request: pb::PlanRequest) -> Result<pb::Planned, Refusal> {
    let pb::PlanRequest { document, file } = request;
    let now = daemon.in_force().borrow().clone();
    let base = now.as_ref().map_or(0, |now| now.version.number);
    let base_document = match &now {
        Some(now) => daemon.store.document(&now.version).await?,
        None => String::new(),
    };
    let mesh = match read(document.clone(), file).await {
        Ok(mesh) => mesh,
        Err(findings) => return Ok(pb::Planned { findings, base, base_document, ..pb::Planned::default() }),
    };
    let proxies = daemon.authority.proxies().await?;
    let difference = difference::between(now.as_ref().and_then(|now| now.mesh.as_deref()), &mesh, &proxies);
    Ok(pb::Planned {
        findings: Vec::new(),
        base,
        changes: document != base_document,
        base_document,
        needs_force: difference.needs_force(false),
        affected: difference.affected,
    })
}

/// The last versions, the newest first.
pub(super) async fn history(daemon: &Daemon, last: u32) -> Result<pb::Versions, Refusal> {
    let last = if last == 0 { USUAL_LISTED } else { last.min(MOST_LISTED) };
    let in_force = daemon.store.head().await?.map_or(0, |head| head.number);
    let versions = daemon.store.history(last as usize).await?;
    let mut list = Vec::with_capacity(versions.len());
    for version in versions {
        list.push(shown(daemon, version, in_force).await?);
    }
    Ok(pb::Versions { versions: list })
}

/// One version with its document; 0 is the one in force.
pub(super) async fn show(daemon: &Daemon, number: u64) -> Result<pb::Version, Refusal> {
    let in_force = daemon.store.head().await?.map_or(0, |head| head.number);
    let number = if number == 0 { in_force } else { number };
    let version = version(daemon, number).await?;
    let document = daemon.store.document(&version).await?;
    Ok(pb::Version { document, ..shown(daemon, version, in_force).await? })
}

/// A version that is there.
pub(super) async fn version(daemon: &Daemon, number: u64) -> Result<Version, Refusal> {
    let none = || match number {
        0 => Refusal::Missing("no version is in force yet; `ringwayctl apply` a document".to_owned()),
        _ => Refusal::Missing(format!("there is no version {number}; `ringwayctl history` shows all")),
    };
    daemon.store.version(number).await?.ok_or_else(none)
}

async fn shown(daemon: &Daemon, version: Version, in_force: u64) -> Result<pb::Version, Refusal> {
    let Version { number, at_ms, author, comment, digest, again: _ } = version;
    let is_tried = trial::now(&daemon.store).await?.is_some_and(|trial| trial.value.number == number);
    let why = daemon.store.get::<String>(&taken_back_key(number)).await?.map(|entry| entry.value);
    let (state, comment) = match why {
        _ if number == in_force => ("in force", comment),
        _ if is_tried => ("canary", comment),
        Some(why) if comment.is_empty() => ("rolled back", why),
        Some(why) => ("rolled back", format!("{comment} ({why})")),
        None => ("replaced", comment),
    };
    Ok(pb::Version { number, at_ms, author, comment, document: String::new(), digest, state: state.to_owned() })
}

/// Notes that a version was tried, and why it did not come in force.
pub(super) async fn taken_back(store: &Store, number: u64, why: &str) -> Result<(), Failure> {
    store.commit(is_taken_back(number, why)).await.map(drop)
}

/// The change that notes it.
pub(super) fn is_taken_back(number: u64, why: &str) -> Change {
    let why: String = why.chars().filter(|c| !c.is_control()).take(1000).collect();
    Change::new().put(taken_back_key(number), &why)
}

/// It came in force after all.
pub(super) fn is_not_taken_back(number: u64) -> Change {
    Change::new().delete(taken_back_key(number))
}

fn taken_back_key(number: u64) -> String {
    format!("documents/taken-back/{number:020}")
}
