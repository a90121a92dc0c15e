//! Endpoints that operators set: for services whose document says `endpoints: set`.

use crate::authority::Refusal;
use crate::state::Daemon;
use crate::store::{Change, Failure, Store};
use crate::tell;
use api::{Address, Endpoints, pb};
use std::collections::BTreeMap;

/// By service, the addresses as they were given.
type Given = BTreeMap<String, Vec<String>>;

const KEY: &str = "endpoints";
/// Somebody else may be first so often.
const TRIES: usize = 16;

/// Sets a service's endpoints, all of them; the answer says so.
pub(super) async fn set(daemon: &Daemon, request: pb::SetEndpointsRequest) -> Result<String, Refusal> {
    let pb::SetEndpointsRequest { service, addresses } = request;
    may_be_set(daemon, &service)?;
    let read = api::mesh::read_addresses(&addresses).map_err(Refusal::Wrong)?;
    for _ in 0..TRIES {
        let before = daemon.store.get::<Given>(KEY).await?;
        let revision = before.as_ref().map(|entry| entry.revision);
        let mut given = before.map(|entry| entry.value).unwrap_or_default();
        match addresses.is_empty() {
            true => given.remove(&service),
            false => given.insert(service.clone(), addresses.clone()),
        };
        match daemon.store.commit(Change::new().expect(KEY, revision).put(KEY, &given)).await {
            Err(Failure::Conflict { .. }) => continue,
            Err(failure) => return Err(failure.into()),
            Ok(_) => daemon.read_endpoints().await?,
        }
        return Ok(match read.len() {
            0 => format!("service `{service}` has no endpoint any more"),
            1 => format!("service `{service}` has 1 endpoint"),
            count => format!("service `{service}` has {count} endpoints"),
        });
    }
    Err(Refusal::NotYet("too many set endpoints at the same time; try again".to_owned()))
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

/// All that operators have set. What cannot be read any more is left out, and told.
pub(crate) async fn read_set(store: &Store) -> Result<BTreeMap<String, Vec<Address>>, Failure> {
    let given = store.get::<Given>(KEY).await?.map(|entry| entry.value).unwrap_or_default();
    let read = |(service, addresses): (String, Vec<String>)| match api::mesh::read_addresses(&addresses) {
        Ok(list) => Some((service, list)),
        Err(why) => {
            tell::tell(format_args!("the endpoints that were set for service `{service}` cannot be read: {why}"));
            None
        }
    };
    Ok(given.into_iter().filter_map(read).collect())
}
