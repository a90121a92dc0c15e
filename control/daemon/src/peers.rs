//! The daemons that share a store: who is there, and what each knows of the proxies that are connected to it.
//!
//! | key | what |
//! | --- | --- |
//! | `daemons/DAEMON` | a daemon that is there; it leaves some seconds after the daemon did |
//! | `seen/PROXY` | what the daemon that the proxy is connected to knows of it (`pb::Proxy`), written when it changes |
//! | `drains/PROXY` | an operator wants it to drain: for the daemon that it is connected to |

use crate::collect::{Member, shown};
use crate::state::Daemon;
use crate::store::{Change, Failure, Store};
use crate::tell;
use api::pb;
use prost::Message as _;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast::error::RecvError;

const DAEMONS: &str = "daemons/";
const SEEN: &str = "seen/";
const DRAINS: &str = "drains/";
/// Entries of one change, and their bytes.
const TOGETHER: usize = 100;
const MOST_BYTES: usize = 500_000;
/// What changes within so long is told, and heard, together.
const GATHER: Duration = Duration::from_millis(100);
/// At least so often is looked whether everything is told.
const LOOK: Duration = Duration::from_secs(2);
/// Lines about one proxy that others are told.
const MOST_LISTED: usize = 50;

/// What a daemon says about itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sharer {
    /// Its machine's name.
    pub(crate) name: String,
    /// `host:port` where proxies and operators find it.
    pub(crate) addresses: Vec<String>,
    /// Its program's version.
    pub(crate) version: String,
    /// How many proxies are connected to it.
    pub(crate) proxies: u32,
}

/// All daemons that are there, this one among them.
pub(crate) async fn ids(store: &Store) -> Result<BTreeSet<String>, Failure> {
    let others = store.list_bytes(DAEMONS).await?.into_iter().map(|(key, _)| key[DAEMONS.len()..].to_owned());
    Ok(others.chain([store.id().to_string()]).collect())
}

/// The other daemons, by id.
pub(crate) async fn others(store: &Store) -> Result<Vec<(String, Sharer)>, Failure> {
    let all = store.list::<Sharer>(DAEMONS).await?.into_iter();
    let all = all.map(|(key, entry)| (key[DAEMONS.len()..].to_owned(), entry.value));
    Ok(all.filter(|(id, _)| **id != **store.id()).collect())
}

/// A proxy that is connected elsewhere shall drain.
pub(crate) async fn drain(store: &Store, proxy: &str) -> Result<(), Failure> {
    store.commit(Change::new().put(format!("{DRAINS}{proxy}"), &())).await.map(drop)
}

/// Tells the others what this daemon knows, and hears what they do; as long as the daemon runs.
pub(crate) async fn keep(daemon: Arc<Daemon>) {
    let mut told = Told::default();
    let (mut store, mut fleet) = (daemon.store.watch(), daemon.fleet.changes());
    loop {
        store.mark_unchanged();
        fleet.mark_unchanged();
        let done = match hear(&daemon).await {
            Ok(()) => told.tell(&daemon).await,
            failed => failed,
        };
        match done {
            // That etcd is away was told.
            Ok(()) | Err(Failure::Away(_) | Failure::Conflict { .. }) => {}
            Err(failure) => tell::tell(format_args!("what daemons know of proxies is not exchanged: {failure}")),
        }
        tokio::select! {
            _ = store.changed() => {}
            _ = fleet.changed() => {}
            () = tokio::time::sleep(LOOK) => {}
        }
        tokio::time::sleep(GATHER).await;
    }
}

/// Hears of proxies and operators that others forgot: their connections here end too.
pub(crate) async fn hear_of_the_gone(daemon: Arc<Daemon>) {
    let Some(mut removed) = daemon.store.removed() else { return };
    loop {
        match removed.recv().await {
            Ok(key) => {
                if let Some(proxy) = key.strip_prefix("proxies/") {
                    daemon.authority.lost(proxy);
                    daemon.fleet.forget(proxy).await;
                } else if let Some(operator) = key.strip_prefix("operators/") {
                    daemon.authority.lost_operator(operator);
                }
            }
            // So many at once: each request looks at its record anyway.
            Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return,
        }
    }
}

/// What the store has of us.
#[derive(Default)]
struct Told {
    lease: u64,
    own: Option<Sharer>,
    seen: HashMap<Arc<str>, pb::Proxy>,
}

impl Told {
    async fn tell(&mut self, daemon: &Daemon) -> Result<(), Failure> {
        let store = &daemon.store;
        let members = daemon.fleet.own_members();
        let own = daemon.as_sharer();
        let lease = *store.lease().borrow();
        if self.lease != lease || self.own.as_ref() != Some(&own) {
            store.commit(Change::new().put_leased(format!("{DAEMONS}{}", store.id()), &own)).await?;
            (self.lease, self.own) = (lease, Some(own));
        }
        let mut change = Change::new();
        let mut news: Vec<(Arc<str>, pb::Proxy)> = Vec::new();
        let mut bytes = 0;
        for (id, member) in &members {
            let proxy = about(store.id(), id, member);
            if self.seen.get(id) == Some(&proxy) {
                continue;
            }
            // A proxy that left is another daemon's by now, perhaps.
            if !proxy.connected && !self.is_ours(store, id).await? {
                self.seen.insert(id.clone(), proxy);
                continue;
            }
            let encoded = pb::Proxy { last_contact_ms: member.last_contact_ms, ..proxy.clone() }.encode_to_vec();
            bytes += encoded.len();
            change = change.put_bytes(format!("{SEEN}{id}"), encoded);
            news.push((id.clone(), proxy));
            if news.len() >= TOGETHER || bytes > MOST_BYTES {
                store.commit(std::mem::take(&mut change)).await?;
                self.seen.extend(std::mem::take(&mut news));
                bytes = 0;
            }
        }
        if !news.is_empty() {
            store.commit(change).await?;
            self.seen.extend(news);
        }
        self.seen.retain(|id, _| members.contains_key(id));
        Ok(())
    }

    async fn is_ours(&self, store: &Store, proxy: &str) -> Result<bool, Failure> {
        let found = store.get_bytes(&format!("{SEEN}{proxy}")).await?;
        let found = found.and_then(|entry| pb::Proxy::decode(&entry.value[..]).ok());
        Ok(found.is_some_and(|found| *found.daemon == **store.id()))
    }
}

/// What others are told of a proxy: all but what changes with each word of it.
fn about(daemon: &str, id: &str, member: &Member) -> pb::Proxy {
    let mut proxy = pb::Proxy { id: id.to_owned(), last_contact_ms: 0, clock_skew_ms: 0, ..shown(member) };
    proxy.rejected.truncate(MOST_LISTED);
    proxy.ignored.truncate(MOST_LISTED);
    proxy.listeners.truncate(MOST_LISTED);
    proxy.daemon = daemon.to_owned();
    proxy
}

/// Takes over what the others know, and what operators asked them for.
async fn hear(daemon: &Daemon) -> Result<(), Failure> {
    let store = &daemon.store;
    let ids = ids(store).await?;
    let mut elsewhere = HashMap::new();
    for (key, entry) in store.list_bytes(SEEN).await? {
        // Another version of this program may write what we cannot read.
        let Ok(proxy) = pb::Proxy::decode(&entry.value[..]) else { continue };
        if *proxy.daemon != **store.id() {
            let is_there = ids.contains(&proxy.daemon);
            elsewhere.insert(key[SEEN.len()..].into(), Member::elsewhere(proxy, is_there));
        }
    }
    daemon.fleet.hear(elsewhere);
    daemon.set_others(others(store).await?.into_iter().map(|(_, peer)| peer).collect());
    for (key, _) in store.list_bytes(DRAINS).await? {
        if daemon.fleet.drain(&key[DRAINS.len()..]) {
            store.commit(Change::new().delete(&key)).await?;
        }
    }
    Ok(())
}
