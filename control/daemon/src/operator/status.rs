//! Each proxy that has joined: who it is, whether it is there, and how far.

use crate::authority::{Proxy, Refusal};
use crate::collect::Member;
use crate::state::Daemon;
use api::pb;
use std::sync::Arc;

/// Everything that is known of proxies.
pub(super) async fn status(daemon: &Daemon) -> Result<pb::StatusAnswer, Refusal> {
    let version = daemon.in_force().borrow().as_ref().map_or(0, |now| now.version.number);
    let mut members = daemon.fleet.members();
    let records = daemon.authority.proxies().await?;
    let proxies = records.into_iter().map(|record| {
        let member = members.remove(record.id.as_str()).unwrap_or_default();
        shown(record, &member)
    });
    Ok(pb::StatusAnswer {
        version,
        proxies: proxies.collect(),
        daemon_version: env!("CARGO_PKG_VERSION").to_owned(),
        canary: daemon.trial.now().map(|trial| trial.told()).unwrap_or_default(),
    })
}

fn shown(record: Proxy, member: &Member) -> pb::Proxy {
    let report: Arc<pb::Report> = member.report.clone().unwrap_or_default();
    let progress = member.resources.clone().unwrap_or_default();
    // What a proxy works with, in the numbers of documents: pushes that had nothing for it are behind it too.
    let applied = match (member.applied(), report.applied.clone()) {
        (0, reported) => reported,
        (number, reported) => Some(pb::Applied { version: number.to_string(), ..reported.unwrap_or_default() }),
    };
    let hello = member.hello.clone().unwrap_or_default();
    let program = match (hello.version.as_str(), member.program.as_str()) {
        ("", program) => program.to_owned(),
        (version, "") => version.to_owned(),
        (version, program) => format!("{program} {version}"),
    };
    pb::Proxy {
        certificate_not_after_ms: record.in_use().map_or(0, |certificate| certificate.not_after_ms),
        name: if hello.host.is_empty() { record.name } else { hello.host },
        id: record.id,
        group: record.group,
        identity: record.identity,
        connected: member.is_connected(),
        last_contact_ms: member.last_contact_ms,
        sent_version: if progress.sent == 0 { String::new() } else { progress.sent.to_string() },
        applied,
        clock_skew_ms: member.clock_skew_ms,
        address: member.address.map(|address| address.to_string()).unwrap_or_default(),
        // An Envoy reports nothing: one that has taken a document is taken for ready.
        ready: report.ready || (member.report.is_none() && member.is_connected() && member.applied() > 0),
        draining: report.draining,
        rejected: member.rejected(),
        ignored: report.ignored.clone(),
        listeners: report.listeners.clone(),
        program_version: program,
    }
}

/// What is said about a proxy that nobody knows.
pub(super) fn no_proxy(id: &str) -> Refusal {
    let id: String = id.escape_default().take(130).collect();
    Refusal::Missing(format!("there is no proxy `{id}`; `ringwayctl status` shows all"))
}
