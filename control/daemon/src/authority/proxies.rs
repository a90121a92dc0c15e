//! Proxies: joining with a token, renewing, being forgotten. What a proxy is stands in its record; what it says about
//! itself is not asked.

use super::{Authority, Certificate, GRACE_MS, LEAF_LIFE, ProvenKey, Refusal, Subject, keep, tokens};
use crate::encode::{hex, random};
use crate::store::{Change, Entry, Failure};
use serde::{Deserialize, Serialize};

/// Somebody else may be first so often; then it is told.
const TRIES: usize = 16;

/// A proxy's record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proxy {
    /// Given by the daemon: the group and eight digits.
    pub id: String,
    /// What it called itself when it joined: a host name.
    pub name: String,
    /// The group that it belongs to.
    pub group: String,
    /// Its SPIFFE ID.
    pub identity: String,
    /// The token that it joined with.
    pub token: String,
    /// When it joined, milliseconds since 1970.
    pub joined_ms: u64,
    /// What it may show, the newest last.
    pub certificates: Vec<Certificate>,
    /// The fingerprint of the newest that it was seen with.
    pub seen: Option<String>,
}

impl Proxy {
    /// The certificate that it works with, as far as is known.
    pub fn in_use(&self) -> Option<&Certificate> {
        in_use(&self.certificates, self.seen.as_deref())
    }

    /// It can come back by itself: it has a certificate, or one that it may renew.
    pub fn may_return(&self, now_ms: u64) -> bool {
        self.certificates.iter().any(|certificate| certificate.not_after_ms + GRACE_MS > now_ms)
    }
}

/// What a proxy gets.
#[derive(Clone, Debug)]
pub struct Issued {
    /// PEM: the leaf, then the intermediate.
    pub chain: String,
    /// PEM: all roots.
    pub bundle: String,
    /// Who it is.
    pub proxy: Proxy,
    /// Milliseconds since 1970.
    pub not_before_ms: u64,
    /// Milliseconds since 1970.
    pub not_after_ms: u64,
}

impl Authority {
    /// A proxy joins: its first certificate, or the same proxy's again when the answer was lost.
    ///
    /// # Errors
    /// The request is none; the token is not known, expired, or used up by other keys.
    pub async fn join(&self, token: &str, csr: &[u8], name: &str, now_ms: u64) -> Result<Issued, Refusal> {
        let key = ProvenKey::read(csr)?;
        let _alone = self.joining.lock().await;
        for _ in 0..TRIES {
            let token = self.proven(token, now_ms).await?;
            let result = match self.joined(&token.value.id, &key.spki).await? {
                Some(id) => self.issue_again(&id, &key, None, now_ms).await,
                None => self.admit(&token, &key, name, now_ms).await,
            };
            if !is_conflict(&result) {
                return result;
            }
        }
        Err(busy())
    }

    /// Another certificate for a proxy that showed who it is, with the certificate `over` by fingerprint. The request may have
    /// another key.
    ///
    /// # Errors
    /// The request is none, or the proxy is not known (any more).
    pub async fn renew(&self, proxy: &str, csr: &[u8], over: Option<&str>, now_ms: u64) -> Result<Issued, Refusal> {
        let key = ProvenKey::read(csr)?;
        for _ in 0..TRIES {
            let result = match self.store.cut_off() {
                // Its record does not name it: it is renewed once more when etcd is back (`server::agent`).
                Some(_) => {
                    let known = self.proxy(proxy).await?.ok_or_else(|| forgotten(proxy))?;
                    self.certify_proxy(known, &key, over, now_ms).map(|(issued, _)| issued)
                }
                None => self.issue_again(proxy, &key, over, now_ms).await,
            };
            let was_cut_off = matches!(result, Err(Refusal::Store(Failure::Away(_))));
            if !is_conflict(&result) && !was_cut_off {
                return result;
            }
        }
        Err(busy())
    }

    /// The record of a proxy.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn proxy(&self, id: &str) -> Result<Option<Proxy>, Refusal> {
        Ok(self.store.get::<Proxy>(&place(id)).await?.map(|entry| entry.value))
    }

    /// The records of all proxies, sorted by id.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn proxies(&self) -> Result<Vec<Proxy>, Refusal> {
        let list = self.store.list::<Proxy>("proxies/").await?;
        Ok(list.into_iter().map(|(_, entry)| entry.value).collect())
    }

    /// Drops a proxy: its certificates count no more here. It may join again, with another token or another key.
    ///
    /// # Errors
    /// There is none of this id.
    pub async fn forget(&self, id: &str) -> Result<(), Refusal> {
        if self.store.get::<Proxy>(&place(id)).await?.is_none() {
            return Err(Refusal::Missing(format!("there is no proxy `{id}`; `ringwayctl status` shows all")));
        }
        let traces = Change::new().delete(format!("seen/{id}")).delete(format!("drains/{id}"));
        self.store.commit(traces.delete(place(id))).await?;
        self.lost(id);
        Ok(())
    }

    /// Connections of a proxy that was forgotten, here or at another daemon, end. Nobody may be connected.
    pub(crate) fn lost(&self, id: &str) {
        let _ = self.gone.send(id.to_owned());
    }

    /// Drops the records of proxies that cannot come back: what they hold has ended too long ago, and the token that they
    /// joined with too. The ids of those.
    ///
    /// # Errors
    /// The store cannot be read or written.
    pub async fn sweep_proxies(&self, now_ms: u64) -> Result<Vec<String>, Refusal> {
        let mut swept = Vec::new();
        for (place, Entry { value: proxy, revision }) in self.store.list::<Proxy>("proxies/").await? {
            if proxy.may_return(now_ms) || self.token_holds(&proxy.token, now_ms).await? {
                continue;
            }
            match self.store.commit(Change::new().expect(&place, Some(revision)).delete(&place)).await {
                Ok(_) => swept.push(proxy.id),
                // It has just come back, or somebody else did this.
                Err(Failure::Conflict { .. }) => {}
                Err(failure) => return Err(failure.into()),
            }
        }
        Ok(swept)
    }

    /// A proxy was seen with this certificate: it has it, and the roots that came with it.
    ///
    /// # Errors
    /// The store cannot be written.
    pub async fn saw(&self, id: &str, fingerprint: &str) -> Result<(), Refusal> {
        for _ in 0..TRIES {
            let Some(Entry { value: proxy, revision }) = self.store.get::<Proxy>(&place(id)).await? else {
                return Ok(());
            };
            if !is_newer(&proxy.certificates, proxy.seen.as_deref(), fingerprint) {
                return Ok(());
            }
            let proxy = Proxy { seen: Some(fingerprint.to_owned()), ..proxy };
            match self.store.commit(Change::new().expect(place(id), Some(revision)).put(place(id), &proxy)).await {
                Err(Failure::Conflict { .. }) => {}
                // It is seen again when etcd is back.
                Err(Failure::Away(_)) => return Ok(()),
                done => return Ok(done.map(|_| ())?),
            }
        }
        Err(busy())
    }

    /// A proxy told that the certificate it works with ends then: as [`Authority::saw`]. False: the record does not name
    /// it; a daemon that was cut off from the store renewed it.
    ///
    /// # Errors
    /// The store cannot be written.
    pub async fn saw_ending(&self, proxy: &Proxy, not_after_ms: u64) -> Result<bool, Refusal> {
        let told = proxy.certificates.iter().rev().find(|one| one.not_after_ms / 1000 == not_after_ms / 1000);
        match told {
            Some(certificate) => self.saw(&proxy.id, &certificate.fingerprint).await.map(|()| true),
            None => Ok(false),
        }
    }

    /// A new record, and its first certificate.
    async fn admit(
        &self,
        token: &Entry<tokens::TokenInfo>,
        key: &ProvenKey,
        name: &str,
        now_ms: u64,
    ) -> Result<Issued, Refusal> {
        if token.value.uses_left == 0 {
            return Err(Refusal::Denied("the token is used up by another key; make a new one".to_owned()));
        }
        let tokens::TokenInfo { id: token_id, group, identity, .. } = &token.value;
        let proxy = Proxy {
            id: new_id(group),
            name: printable(name),
            group: group.clone(),
            identity: identity.clone(),
            token: token_id.clone(),
            joined_ms: now_ms,
            certificates: Vec::new(),
            seen: None,
        };
        let change = tokens::spend(token, &key.spki, &proxy.id).expect(place(&proxy.id), None);
        self.issue(proxy, key, change, now_ms).await
    }

    /// Another certificate for a record that is there.
    async fn issue_again(&self, id: &str, key: &ProvenKey, over: Option<&str>, now_ms: u64) -> Result<Issued, Refusal> {
        let found = self.store.get::<Proxy>(&place(id)).await?;
        let Entry { value: proxy, revision } = found.ok_or_else(|| forgotten(id))?;
        let change = Change::new().expect(place(id), Some(revision));
        let (issued, place) = self.certify_proxy(proxy, key, over, now_ms)?;
        self.store.commit(change.put(place, &issued.proxy)).await?;
        Ok(issued)
    }

    /// The certificate leaves only after its record is on the disk.
    async fn issue(&self, proxy: Proxy, key: &ProvenKey, change: Change, now_ms: u64) -> Result<Issued, Refusal> {
        let (issued, place) = self.certify_proxy(proxy, key, None, now_ms)?;
        self.store.commit(change.put(place, &issued.proxy)).await?;
        Ok(issued)
    }

    /// A certificate, and the place of the record that names it.
    fn certify_proxy(
        &self,
        mut proxy: Proxy,
        key: &ProvenKey,
        over: Option<&str>,
        now_ms: u64,
    ) -> Result<(Issued, String), Refusal> {
        let subject = Subject { common_name: &proxy.id, uri: &proxy.identity, names: &[], server: true };
        let leaf = self.leaf(&key.key, &subject, LEAF_LIFE, now_ms)?;
        let not_after_ms = leaf.certificate.not_after_ms;
        keep(&mut proxy.certificates, leaf.certificate, &[proxy.seen.as_deref(), over], now_ms);
        let (chain, not_before_ms, place) = (leaf.chain, leaf.not_before_ms, place(&proxy.id));
        Ok((Issued { chain, bundle: self.bundle(), proxy, not_before_ms, not_after_ms }, place))
    }
}

/// The certificate with this fingerprint, or the oldest: nothing newer was seen.
pub(super) fn in_use<'c>(certificates: &'c [Certificate], seen: Option<&str>) -> Option<&'c Certificate> {
    let found = certificates.iter().find(|one| Some(one.fingerprint.as_str()) == seen);
    found.or(certificates.first())
}

/// This fingerprint stands behind the one that was seen.
pub(super) fn is_newer(certificates: &[Certificate], seen: Option<&str>, fingerprint: &str) -> bool {
    let at = |wanted: &str| certificates.iter().position(|one| one.fingerprint == wanted);
    match (at(fingerprint), seen.and_then(at)) {
        (Some(found), Some(before)) => found > before,
        (Some(_), None) => true,
        (None, _) => false,
    }
}

fn is_conflict<T>(result: &Result<T, Refusal>) -> bool {
    matches!(result, Err(Refusal::Store(Failure::Conflict { .. })))
}

fn forgotten(id: &str) -> Refusal {
    Refusal::Denied(format!("the proxy `{id}` was forgotten; join with a new token and a new key"))
}

fn busy() -> Refusal {
    Refusal::NotYet("too many ask for the same at the same time; try again".to_owned())
}

/// Subjects have at most 64 characters (RFC 5280, ub-common-name).
fn new_id(group: &str) -> String {
    let group: String = group.chars().take(55).collect();
    format!("{group}-{}", hex(&random::<4>()))
}

/// What operators see: no control characters, no more than a host name has.
fn printable(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).take(253).collect()
}

fn place(id: &str) -> String {
    format!("proxies/{id}")
}
