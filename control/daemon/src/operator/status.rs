//! Each proxy that has joined: who it is, whether it is there, and how far.

use super::trial;
use crate::authority::{Proxy, Refusal};
use crate::collect::{Member, shown};
use crate::peers;
use crate::state::Daemon;
use api::pb;

/// Everything that is known of proxies.
pub(super) async fn status(daemon: &Daemon) -> Result<pb::StatusAnswer, Refusal> {
    let version = daemon.in_force().borrow().as_ref().map_or(0, |now| now.version.number);
    let mut members = daemon.fleet.members();
    let records = daemon.authority.proxies().await?;
    let proxies = records.into_iter().map(|record| {
        let member = members.remove(record.id.as_str()).unwrap_or_default();
        with_record(record, &member)
    });
    let named = |id: &str, peer: peers::Sharer, is_this: bool| pb::DaemonThere {
        id: id.to_owned(),
        name: peer.name,
        addresses: peer.addresses,
        version: peer.version,
        proxies: peer.proxies,
        is_this,
    };
    let others = peers::others(&daemon.store).await?;
    let own = daemon.store.is_shared().then(|| named(daemon.store.id(), daemon.as_sharer(), true));
    let daemons = own.into_iter().chain(others.into_iter().map(|(id, peer)| named(&id, peer, false))).collect();
    Ok(pb::StatusAnswer {
        version,
        daemons,
        cut_off: daemon.store.cut_off().map(|away| away.to_string()).unwrap_or_default(),
        proxies: proxies.collect(),
        daemon_version: env!("CARGO_PKG_VERSION").to_owned(),
        canary: trial::told(daemon).unwrap_or_default(),
    })
}

fn with_record(record: Proxy, member: &Member) -> pb::Proxy {
    let known = shown(member);
    pb::Proxy {
        certificate_not_after_ms: record.in_use().map_or(0, |certificate| certificate.not_after_ms),
        name: if known.name.is_empty() { record.name } else { known.name },
        id: record.id,
        group: record.group,
        identity: record.identity,
        ..known
    }
}

/// What is said about a proxy that nobody knows.
pub(super) fn no_proxy(id: &str) -> Refusal {
    let id: String = id.escape_default().take(130).collect();
    Refusal::Missing(format!("there is no proxy `{id}`; `ringwayctl status` shows all"))
}
