//! Endpoints that operators set: for services whose document says `endpoints: set`.

use crate::authority::Refusal;
use crate::state::Daemon;
use crate::store::{Change, Failure, Store};
use crate::tell;
use api::{Address, Endpoints, pb};
use std::collections::{BTreeMap, HashMap};

/// The prefix of their keys; the service stands behind it, the addresses as they were given are the value.
const PREFIX: &str = "endpoints/";

/// By service, the revision that wrote what the snapshots have.
pub(crate) type Seen = HashMap<String, u64>;

/// Sets a service's endpoints, all of them; the answer says so.
pub(super) async fn set(daemon: &Daemon, request: pb::SetEndpointsRequest) -> Result<String, Refusal> {
    let pb::SetEndpointsRequest { service, addresses } = request;
    may_be_set(daemon, &service)?;
    let read = api::mesh::read_addresses(&addresses).map_err(Refusal::Wrong)?;
    let (count, key) = (read.len(), format!("{PREFIX}{service}"));
    let change = match addresses.is_empty() {
        true => Change::new().delete(key),
        false => Change::new().put(key, &addresses),
    };
    let revision = daemon.store.commit(change).await?;
    daemon.endpoints_set(&service, revision, read).await;
    Ok(match count {
        0 => format!("service `{service}` has no endpoint any more"),
        1 => format!("service `{service}` has 1 endpoint"),
        count => format!("service `{service}` has {count} endpoints"),
    })
}

/// Only what the document leaves to operators is theirs.
fn may_be_set(daemon: &Daemon, service: &str) -> Result<(), Refusal> {
    let now = daemon.in_force().borrow().clone();
    let no_document = "no document is in force yet; `ringwayctl apply` one that has the service";
    let now = now.ok_or_else(|| Refusal::NotYet(no_document.to_owned()))?;
    let shown: String = service.escape_default().take(130).collect();
    match now.mesh()?.services.iter().find(|known| known.name == service) {
        Some(known) if known.endpoints == Endpoints::Set => Ok(()),
        Some(_) => Err(Refusal::Wrong(format!(
            "the endpoints of service `{shown}` stand in the document; change them there, or write `endpoints: set`"
        ))),
        None => {
            Err(Refusal::Missing(format!("no group shares a service `{shown}`; write it under top-level `services`")))
        }
    }
}

/// What operators have set since it was seen last, by service; empty: it is gone. What cannot be read any more is left out,
/// and told.
pub(crate) async fn read_set(store: &Store, seen: &mut Seen) -> Result<BTreeMap<String, Vec<Address>>, Failure> {
    let (mut changed, mut there) = (BTreeMap::new(), Seen::new());
    for (key, entry) in store.list_bytes(PREFIX).await? {
        let (service, revision) = (key[PREFIX.len()..].to_owned(), entry.revision);
        // There may be ten thousand, and one that is new: only that is parsed.
        if seen.remove(&service) != Some(revision) {
            let value = entry.read::<Vec<String>>(&key).map_err(|failure| failure.to_string());
            let read = value.and_then(|entry| api::mesh::read_addresses(&entry.value)).unwrap_or_else(|why| {
                tell::tell(format_args!("the endpoints that were set for service `{service}` cannot be read: {why}"));
                Vec::new()
            });
            changed.insert(service.clone(), read);
        }
        there.insert(service, revision);
    }
    changed.extend(seen.drain().map(|(gone, _)| (gone, Vec::new())));
    *seen = there;
    Ok(changed)
}
