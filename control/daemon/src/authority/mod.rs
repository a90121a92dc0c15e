//! Who may be whom: roots and what is issued from them, tokens, the records of proxies and operators, edge
//! certificates. Time is an argument, milliseconds since 1970; keys stand sealed in the store, or nowhere.
//!
//! ```text
//!   root (10 years, sealed in the store) ─► intermediate (90 days, in this process alone) ─► leaves
//!                                                             proxies 24 h, the daemon's own 24 h, operators 30 days
//! ```
//!
//! A leaf counts while its record names it: who is forgotten has nothing, whatever the leaf says.

mod brought;
mod caller;
mod issue;
mod operators;
mod proxies;
mod roots;
mod rotation;
mod seal;
mod secrets;
mod tokens;

#[cfg(test)]
mod tests;

pub use caller::{Caller, Peer, PeerCertificate};
pub use issue::Certificate;
pub use operators::{Credential, Operator, Role};
pub use proxies::{Issued, Proxy};
pub use rotation::{Stage, Step};
pub use secrets::SecretInfo;
pub use tokens::{NewToken, TokenInfo};

pub(crate) use brought::{RootFiles, Signer};
pub(crate) use issue::LEAF_LIFE;
pub(crate) use seal::{Source, VARIABLE};

use crate::store::{Failure, Store};
use issue::{Leaf, ProvenKey, Subject};
use rcgen::PublicKeyData;
use roots::Held;
use seal::Seal;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio::sync::{Mutex, broadcast, watch};

/// Half an outage of a week: a proxy whose certificate expired while there was no daemon may renew it for so long after.
pub(crate) const GRACE_MS: u64 = 7 * 24 * 60 * 60 * 1000;

/// Why the authority does not do it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// What was sent is no such thing.
    Wrong(String),
    /// Nobody knows who this is.
    Unknown(String),
    /// It is known who this is, and that is not enough.
    Denied(String),
    /// There is no such thing.
    Missing(String),
    /// Not now; says what must happen first.
    NotYet(String),
    /// The store did not do it.
    Store(Failure),
    /// Ours to repair.
    Broken(String),
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Refusal::Store(failure) => failure.fmt(f),
            Refusal::Wrong(why)
            | Refusal::Unknown(why)
            | Refusal::Denied(why)
            | Refusal::Missing(why)
            | Refusal::NotYet(why)
            | Refusal::Broken(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for Refusal {}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Refusal {
        Refusal::Store(failure)
    }
}

impl From<Refusal> for tonic::Status {
    fn from(refusal: Refusal) -> tonic::Status {
        let text = refusal.to_string();
        match refusal {
            Refusal::Wrong(_) => tonic::Status::invalid_argument(text),
            Refusal::Unknown(_) => tonic::Status::unauthenticated(text),
            Refusal::Denied(_) => tonic::Status::permission_denied(text),
            Refusal::Missing(_) => tonic::Status::not_found(text),
            Refusal::NotYet(_) => tonic::Status::failed_precondition(text),
            Refusal::Store(Failure::Conflict { .. }) => tonic::Status::aborted(text),
            Refusal::Store(Failure::Broken(_) | Failure::Away(_)) => tonic::Status::unavailable(text),
            Refusal::Broken(_) => tonic::Status::internal(text),
        }
    }
}

/// The certificate authority.
pub struct Authority {
    store: Store,
    seal: Seal,
    /// A root that somebody brings.
    brought: Option<RootFiles>,
    held: RwLock<Arc<Held>>,
    /// Joins one after the other: they meet at the same tokens.
    joining: Mutex<()>,
    refreshing: Mutex<()>,
    /// Writes the local operator's files.
    writing: Mutex<()>,
    changes: watch::Sender<u64>,
    /// What the daemon proves itself with.
    own: RwLock<Option<Certificate>>,
    /// Has the holders (see [`PeerCertificate::holder`]) whose certificates count no more.
    gone: broadcast::Sender<String>,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").field("held", &self.held()).finish_non_exhaustive()
    }
}

impl Authority {
    /// Opens the authority of this store; the first time it is made, with the root that is `brought` if there is one.
    ///
    /// # Errors
    /// The store, its key, or a root that is needed cannot be read.
    pub(crate) async fn open(
        store: Store,
        source: &Source,
        brought: Option<RootFiles>,
        now_ms: u64,
    ) -> Result<Authority, Refusal> {
        let seal = Seal::open(&store, source).await?;
        let held = Arc::new(Held::open(&store, &seal, brought.as_ref(), now_ms).await?);
        let (changes, _) = watch::channel(0);
        let (gone, _) = broadcast::channel(256);
        let held = RwLock::new(held);
        let (joining, refreshing, writing) = (Mutex::default(), Mutex::default(), Mutex::default());
        let own = RwLock::default();
        Ok(Authority { store, seal, brought, held, joining, refreshing, writing, changes, own, gone })
    }

    /// All roots that are trusted, PEM, the oldest first.
    pub fn bundle(&self) -> String {
        self.held().roots().bundle()
    }

    /// All roots that are trusted, the oldest first: id, subject, and when they expire, milliseconds since 1970.
    pub fn roots(&self) -> Vec<(String, String, u64)> {
        let of = |root: &issue::Root| (root.id.clone(), root.subject.clone(), root.not_after_ms);
        self.held().roots().list.iter().map(of).collect()
    }

    /// The root below which certificates are issued now, by id.
    pub(crate) fn issuing_root(&self) -> String {
        self.held().issuing.root.clone()
    }

    /// What the daemon proves itself with, once there is something.
    pub(crate) fn own(&self) -> Option<Certificate> {
        self.own.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// When what issues now expires, milliseconds since 1970; a new one comes in time, unless it must be brought.
    pub fn issuing_not_after_ms(&self) -> u64 {
        self.held().issuing.not_after_ms()
    }

    /// What somebody should know about the root that is brought: it is another one, or the next intermediate is due.
    pub(crate) fn notice(&self, now_ms: u64) -> Option<String> {
        let files = self.brought.as_ref()?;
        let held = self.held();
        let days = held.issuing.not_after_ms().saturating_sub(now_ms) / 86_400_000;
        match files.read(&self.seal, now_ms) {
            Err(refusal) if held.issuing.fades(now_ms) => {
                Some(format!("the intermediate expires in {days} days, and there is no other: {refusal}"))
            }
            // The store has what was brought before.
            Err(_) => None,
            Ok(root) if held.roots().list.iter().all(|known| known.id != root.id) => {
                let name = files.certificate.display();
                Some(format!(
                    "{name} is another root than the one in use; `ringwayctl certs rotate --root` goes over to it"
                ))
            }
            Ok(_) if held.issuing.fades(now_ms) => {
                Some(format!("the intermediate expires in {days} days; put another one in its place"))
            }
            Ok(_) => None,
        }
    }

    /// When the first of the roots expires, milliseconds since 1970.
    pub fn root_not_after_ms(&self) -> u64 {
        self.held().roots().list.iter().map(|root| root.not_after_ms).min().unwrap_or(0)
    }

    /// Changes when roots or edge certificates did; look again at [`Authority::bundle`] and [`Authority::secrets`].
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Hears of holders whose certificates count no more from now on.
    pub(crate) fn gone(&self) -> broadcast::Receiver<String> {
        self.gone.subscribe()
    }

    /// Takes over what stands in the store, and makes new intermediates when they are old. The answer is another
    /// number whenever roots or intermediates are others than before, whoever noticed it first.
    ///
    /// # Errors
    /// The store cannot be read.
    pub(crate) async fn refresh(&self, now_ms: u64) -> Result<u64, Refusal> {
        let _alone = self.refreshing.lock().await;
        let held = self.held();
        if let Some(change) = held.replacement(&self.seal, self.brought.as_ref(), now_ms) {
            match self.store.commit(change).await {
                // Somebody else was first: that is what stands there now.
                Ok(_) | Err(Failure::Conflict { .. } | Failure::Away(_)) => {}
                Err(failure) => return Err(failure.into()),
            }
        }
        let Some(next) = held.next(&self.store, &self.seal, now_ms).await? else { return Ok(held.number) };
        let number = next.number;
        *self.held.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(next);
        self.changed();
        Ok(number)
    }

    /// The daemon's own certificate: a chain and a key, PEM, with these names. The chain has the root too: who joins knows
    /// no more of it than the digest of its key.
    ///
    /// # Errors
    /// It cannot be made.
    pub(crate) fn own_certificate(
        &self,
        trust_domain: &str,
        names: &[String],
        now_ms: u64,
    ) -> Result<(String, rcgen::KeyPair), Refusal> {
        let key = rcgen::KeyPair::generate().map_err(issue::broken)?;
        let uri = format!("spiffe://{trust_domain}/ringwayd");
        let subject = Subject { common_name: "ringwayd", uri: &uri, names, server: true };
        let held = self.held();
        let leaf = held.serving.issue(&key, &subject, LEAF_LIFE, now_ms)?;
        *self.own.write().unwrap_or_else(PoisonError::into_inner) = Some(leaf.certificate);
        Ok((leaf.chain + &held.roots().serving().certificate, key))
    }

    /// A leaf of the root that issues now; its record says which roots its holder gets with it.
    fn leaf(
        &self,
        key: &impl PublicKeyData,
        subject: &Subject<'_>,
        life: Duration,
        now_ms: u64,
    ) -> Result<Leaf, Refusal> {
        let held = self.held();
        let mut leaf = held.issuing.issue(key, subject, life, now_ms)?;
        leaf.certificate.bundle = held.roots().ids();
        Ok(leaf)
    }

    fn held(&self) -> Arc<Held> {
        self.held.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }
}

/// Adds a certificate to those of a record, the newest last. Those that nobody can use any more go, and the oldest
/// beyond a few; never those that are `used`, by fingerprint: a connection lives on with the certificate that it began with.
fn keep(certificates: &mut Vec<Certificate>, new: Certificate, used: &[Option<&str>], now_ms: u64) {
    /// One is in use, one is new; the answers with the others were lost.
    const MOST: usize = 8;
    certificates.retain(|one| one.not_after_ms + GRACE_MS > now_ms);
    certificates.push(new);
    while certificates.len() > MOST {
        let oldest = certificates.iter().position(|one| !used.contains(&Some(one.fingerprint.as_str())));
        certificates.remove(oldest.unwrap_or(0));
    }
}
