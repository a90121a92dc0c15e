//! Operators: people and programs with a certificate and a role. The role stands in the record, not in the certificate.

use super::caller::operator_holder;
use super::proxies::{in_use, is_newer};
use super::{Authority, Certificate, ProvenKey, Refusal, Subject, issue, keep};
use crate::encode::{hex, sha256};
use crate::files;
use crate::store::{Change, Entry, Failure};
use rcgen::{KeyPair, PublicKeyData};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::Path;
use std::str::FromStr;

/// The operator whose credential the daemon keeps in its data directory; where daemons share a store, each has its own,
/// with the beginning of its key's digest behind a `.`.
pub(crate) const LOCAL: &str = "admin";
const TRIES: usize = 16;

/// What an operator may do; each may do what those before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Look.
    Read,
    /// Push, roll back, drain, set endpoints.
    Write,
    /// Tokens, secrets, operators, roots.
    Admin,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Role::Read => "read",
            Role::Write => "write",
            Role::Admin => "admin",
        })
    }
}

impl FromStr for Role {
    type Err = Refusal;

    fn from_str(text: &str) -> Result<Role, Refusal> {
        let known = [Role::Read, Role::Write, Role::Admin];
        let found = known.into_iter().find(|role| role.to_string() == text);
        found.ok_or_else(|| Refusal::Wrong(format!("a role is read, write or admin, not `{text}`")))
    }
}

/// An operator's record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operator {
    /// Unique; stands in the identity.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// The operator who made it; empty: the daemon.
    pub author: String,
    /// What it may show, the newest last.
    pub certificates: Vec<Certificate>,
    /// The fingerprint of the newest that it was seen with.
    pub seen: Option<String>,
}

impl Operator {
    /// The certificate that it works with, as far as is known.
    pub fn in_use(&self) -> Option<&Certificate> {
        in_use(&self.certificates, self.seen.as_deref())
    }
}

/// What an operator gets.
#[derive(Clone, Debug)]
pub struct Credential {
    /// PEM: the leaf, then the intermediate.
    pub chain: String,
    /// PEM: all roots.
    pub bundle: String,
    /// Who it is.
    pub operator: Operator,
    /// Milliseconds since 1970.
    pub not_after_ms: u64,
}

impl Authority {
    /// Makes an operator, or one anew: certificates of an earlier one of this name count no more.
    ///
    /// # Errors
    /// The name or the request is none.
    pub async fn create_operator(
        &self,
        name: &str,
        role: Role,
        csr: &[u8],
        author: &str,
        trust_domain: &str,
        now_ms: u64,
    ) -> Result<Credential, Refusal> {
        let fits = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if name.is_empty() || name.len() > 64 || !name.chars().all(fits) || name.starts_with('.') {
            let form = "an operator's name is 1 to 64 letters, digits, `-`, `_` or `.`";
            return Err(Refusal::Wrong(format!("{form}, not `{}`", name.escape_default())));
        }
        if name == LOCAL || name.starts_with("admin.") {
            return Err(Refusal::Wrong(format!("`{name}` is the daemon's own operator; choose another name")));
        }
        let key = ProvenKey::read(csr)?;
        let operator =
            Operator { name: name.to_owned(), role, author: author.to_owned(), certificates: Vec::new(), seen: None };
        let made = self.certify(operator, &key.key, Change::new(), trust_domain, now_ms).await?;
        self.lost_operator(name);
        Ok(made)
    }

    /// Connections of an operator with an earlier certificate end. Nobody may be connected.
    pub(crate) fn lost_operator(&self, name: &str) {
        let _ = self.gone.send(operator_holder(name));
    }

    fn local_name(&self, key: &KeyPair) -> String {
        match self.store.is_shared() {
            true => format!("{LOCAL}.{}", &hex(&sha256(&key.subject_public_key_info()))[..8]),
            false => LOCAL.to_owned(),
        }
    }

    /// Another certificate for an operator who showed who it is.
    ///
    /// # Errors
    /// The request is none, or the operator is not known (any more).
    pub async fn renew_operator(
        &self,
        name: &str,
        csr: &[u8],
        trust_domain: &str,
        now_ms: u64,
    ) -> Result<Credential, Refusal> {
        let key = ProvenKey::read(csr)?;
        for _ in 0..TRIES {
            let gone = || Refusal::Unknown(format!("operator `{name}` was removed"));
            let Entry { value, revision } = self.store.get::<Operator>(&place(name)).await?.ok_or_else(gone)?;
            let change = Change::new().expect(place(name), Some(revision));
            match self.certify(value, &key.key, change, trust_domain, now_ms).await {
                Err(Refusal::Store(Failure::Conflict { .. })) => {}
                done => return done,
            }
        }
        Err(Refusal::NotYet(format!("too many renew operator `{name}` at the same time; try again")))
    }

    /// Takes an operator's rights.
    ///
    /// # Errors
    /// There is none of this name, or it is the daemon's own.
    pub async fn remove_operator(&self, name: &str) -> Result<(), Refusal> {
        if name == LOCAL {
            return Err(Refusal::Wrong(format!("`{LOCAL}` is the daemon's own operator and stays")));
        }
        if self.operator(name).await?.is_none() {
            return Err(Refusal::Missing(format!("there is no operator `{name}`")));
        }
        self.store.commit(Change::new().delete(place(name))).await?;
        self.lost_operator(name);
        Ok(())
    }

    /// The records of all operators, sorted by name.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn operators(&self) -> Result<Vec<Operator>, Refusal> {
        let list = self.store.list::<Operator>("operators/").await?;
        Ok(list.into_iter().map(|(_, entry)| entry.value).collect())
    }

    /// The record of an operator.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn operator(&self, name: &str) -> Result<Option<Operator>, Refusal> {
        Ok(self.store.get::<Operator>(&place(name)).await?.map(|entry| entry.value))
    }

    /// An operator was seen with this certificate.
    pub(super) async fn saw_operator(&self, name: &str, fingerprint: &str) -> Result<(), Refusal> {
        let Some(Entry { value, revision }) = self.store.get::<Operator>(&place(name)).await? else { return Ok(()) };
        if !is_newer(&value.certificates, value.seen.as_deref(), fingerprint) {
            return Ok(());
        }
        let value = Operator { seen: Some(fingerprint.to_owned()), ..value };
        match self.store.commit(Change::new().expect(place(name), Some(revision)).put(place(name), &value)).await {
            // Seen again with the next call.
            Ok(_) | Err(Failure::Conflict { .. } | Failure::Away(_)) => Ok(()),
            Err(failure) => Err(failure.into()),
        }
    }

    /// Keeps the local administrator's credential in this folder fresh: `admin.pem`, `admin.key`, `ca.pem`, and
    /// `daemon`, where the daemon is.
    ///
    /// # Errors
    /// The store or the folder cannot be written.
    pub(crate) async fn keep_local_operator(
        &self,
        folder: &Path,
        daemon: &str,
        trust_domain: &str,
        now_ms: u64,
    ) -> Result<(), Refusal> {
        let _alone = self.writing.lock().await;
        files::make_folder(folder).map_err(Refusal::Broken)?;
        let write = |name: &str, bytes: &[u8]| files::write(&folder.join(name), bytes).map_err(Refusal::Broken);
        let daemon = format!("{daemon}\n");
        if std::fs::read(folder.join("daemon")).ok().as_deref() != Some(daemon.as_bytes()) {
            write("daemon", daemon.as_bytes())?;
        }
        let text = std::fs::read_to_string(folder.join("admin.key")).ok();
        let key = match text.and_then(|text| KeyPair::from_pem(&text).ok()) {
            Some(key) => key,
            None => {
                let key = KeyPair::generate().map_err(issue::broken)?;
                write("admin.key", key.serialize_pem().as_bytes())?;
                key
            }
        };
        let name = self.local_name(&key);
        let found = self.store.get::<Operator>(&place(&name)).await?;
        let chain = std::fs::read(folder.join("admin.pem")).ok();
        let shown = found.as_ref().and_then(|found| shown_by(&found.value, &key, chain.as_deref()?));
        if shown.is_some_and(|shown| self.is_fresh(shown, now_ms)) {
            return Ok(());
        }
        let change = Change::new().expect(place(&name), found.as_ref().map(|found| found.revision));
        // Who has read the folder just now goes on with what stood there; what was lost or broken counts no more.
        let (certificates, seen) = match (shown, &found) {
            (Some(_), Some(found)) => (found.value.certificates.clone(), found.value.seen.clone()),
            _ => (Vec::new(), None),
        };
        let operator = Operator { name: name.clone(), role: Role::Admin, author: String::new(), certificates, seen };
        let credential = self.certify(operator, &key, change, trust_domain, now_ms).await?;
        write("ca.pem", credential.bundle.as_bytes())?;
        write("admin.pem", credential.chain.as_bytes())?;
        // It is where it is read from: nothing can get lost on the way.
        match credential.operator.certificates.last() {
            Some(newest) => self.saw_operator(&name, &newest.fingerprint).await,
            None => Ok(()),
        }
    }

    /// In the first half of its life, and of today's roots.
    fn is_fresh(&self, certificate: &Certificate, now_ms: u64) -> bool {
        let half_ms = u64::try_from(issue::OPERATOR_LIFE.as_millis()).unwrap_or(u64::MAX) / 2;
        certificate.not_after_ms > now_ms + half_ms && self.is_of_today(certificate)
    }

    /// From the root that issues now, and given with the roots that are trusted now.
    pub(super) fn is_of_today(&self, certificate: &Certificate) -> bool {
        let held = self.held();
        certificate.root == held.issuing.root && certificate.bundle == held.roots().ids()
    }

    async fn certify(
        &self,
        mut operator: Operator,
        key: &impl PublicKeyData,
        change: Change,
        trust_domain: &str,
        now_ms: u64,
    ) -> Result<Credential, Refusal> {
        let uri = format!("spiffe://{trust_domain}/ringway-operator/{}", operator.name);
        let subject = Subject { common_name: &operator.name, uri: &uri, names: &[], server: false };
        let leaf = self.leaf(key, &subject, issue::OPERATOR_LIFE, now_ms)?;
        let not_after_ms = leaf.certificate.not_after_ms;
        keep(&mut operator.certificates, leaf.certificate, &[operator.seen.as_deref()], now_ms);
        self.store.commit(change.put(place(&operator.name), &operator)).await?;
        Ok(Credential { chain: leaf.chain, bundle: self.bundle(), operator, not_after_ms })
    }
}

/// What the record has of the certificate in this chain, if it is of this key.
fn shown_by<'o>(operator: &'o Operator, key: &KeyPair, chain: &[u8]) -> Option<&'o Certificate> {
    use rustls_pki_types::{CertificateDer, pem::PemObject};
    let leaf = CertificateDer::from_pem_slice(chain).ok()?;
    let fingerprint = issue::fingerprint(&leaf);
    let (_, read) = x509_parser::parse_x509_certificate(&leaf).ok()?;
    let is_own = read.public_key().raw == key.subject_public_key_info();
    operator.certificates.iter().find(|one| is_own && one.fingerprint == fingerprint)
}

fn place(name: &str) -> String {
    format!("operators/{name}")
}
