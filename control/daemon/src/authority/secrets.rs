//! Edge certificates: chains and keys that operators put for a group, sealed at rest, for that group's proxies alone.

use super::{Authority, Refusal};
use crate::store::{Change, Entry};
use api::mesh::KeyPair;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use zeroize::Zeroizing;

/// The longest chain, and the longest key, bytes.
const MAX_BYTES: usize = 128 * 1024;

/// An edge certificate without its key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretInfo {
    /// The group that gets it.
    pub group: String,
    /// What the group's listeners call it.
    pub name: String,
    /// The leaf's subject and names, for people.
    pub subject: String,
    /// When the leaf expires, milliseconds since 1970.
    pub not_after_ms: u64,
    /// The operator who put it.
    pub author: String,
}

#[derive(Serialize, Deserialize)]
struct Record {
    info: SecretInfo,
    /// [`Plain`] as JSON, sealed for the entry's key.
    sealed: String,
}

#[derive(Serialize, Deserialize)]
struct Plain {
    chain: String,
    key: String,
}

impl Authority {
    /// Puts an edge certificate, or another in its place.
    ///
    /// # Errors
    /// Chain and key are none, do not belong together, or have expired.
    pub async fn put_secret(
        &self,
        group: &str,
        name: &str,
        pair: &KeyPair,
        author: &str,
        now_ms: u64,
    ) -> Result<SecretInfo, Refusal> {
        check_name("a group's name", group)?;
        check_name("a secret's name", name)?;
        let (subject, not_after_ms) = check(pair)?;
        if not_after_ms <= now_ms {
            return Err(Refusal::Wrong(format!("the certificate of {subject} has expired")));
        }
        let info = SecretInfo {
            group: group.to_owned(),
            name: name.to_owned(),
            subject,
            not_after_ms,
            author: author.to_owned(),
        };
        let text =
            |bytes: &[u8]| String::from_utf8(bytes.to_vec()).map_err(|_| Refusal::Wrong("PEM is text".to_owned()));
        let plain = Plain { chain: text(&pair.chain)?, key: text(&pair.key)? };
        let plain = Zeroizing::new(serde_json::to_vec(&plain).expect("two texts are JSON"));
        let place = place(group, name);
        let sealed = self.seal.seal(&place, &plain);
        self.store.commit(Change::new().put(place, &Record { info: info.clone(), sealed })).await?;
        self.changed();
        Ok(info)
    }

    /// Takes an edge certificate away.
    ///
    /// # Errors
    /// There is none.
    pub async fn remove_secret(&self, group: &str, name: &str) -> Result<(), Refusal> {
        let place = place(group, name);
        if self.store.get::<Record>(&place).await?.is_none() {
            return Err(Refusal::Missing(format!("group `{group}` has no secret `{name}`")));
        }
        self.store.commit(Change::new().delete(place)).await?;
        self.changed();
        Ok(())
    }

    /// All edge certificates, without their keys, by group and name.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn secret_infos(&self) -> Result<Vec<SecretInfo>, Refusal> {
        let list = self.store.list::<serde_json::Value>("secrets/").await?.into_iter();
        Ok(list
            .filter_map(|(_, entry)| serde_json::from_value::<Record>(entry.value).ok())
            .map(|one| one.info)
            .collect())
    }

    /// All edge certificates with their keys, by group and name: for the proxies of that group alone. And those that were
    /// changed in the store, each as the refusal that it is: it is no reason to have none.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn secrets(&self) -> Result<(BTreeMap<(String, String), KeyPair>, Vec<Refusal>), Refusal> {
        let (mut good, mut damaged) = (BTreeMap::new(), Vec::new());
        for (place, entry) in self.store.list::<serde_json::Value>("secrets/").await? {
            let Entry { value, revision } = entry;
            let opened = match serde_json::from_value(value) {
                Ok(value) => self.open_secret(&place, Entry { value, revision }),
                Err(_) => Err(Refusal::Broken(format!("`{place}` is damaged in the store; put that secret again"))),
            };
            match opened {
                Ok((name, pair)) => drop(good.insert(name, pair)),
                Err(refusal) => damaged.push(refusal),
            }
        }
        Ok((good, damaged))
    }

    fn open_secret(&self, place: &str, entry: Entry<Record>) -> Result<((String, String), KeyPair), Refusal> {
        let Record { info, sealed } = entry.value;
        let damaged =
            || Refusal::Broken(format!("secret `{}` of group `{}` is damaged; put it again", info.name, info.group));
        let plain = self.seal.open_text(place, &sealed).ok_or_else(damaged)?;
        let Plain { chain, key } = serde_json::from_slice(&plain).map_err(|_| damaged())?;
        Ok(((info.group.clone(), info.name.clone()), KeyPair { chain: chain.into_bytes(), key: key.into_bytes() }))
    }
}

/// The leaf's subject and when it expires, of a chain and a key that belong together.
fn check(pair: &KeyPair) -> Result<(String, u64), Refusal> {
    let wrong = |why: &str| Refusal::Wrong(why.to_owned());
    if pair.chain.len() > MAX_BYTES || pair.key.len() > MAX_BYTES {
        return Err(wrong("a chain and a key have at most 128 KiB each"));
    }
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pair.chain).collect();
    let chain = chain.map_err(|_| wrong("the chain is no PEM"))?;
    let leaf = chain.first().ok_or_else(|| wrong("the chain has no certificate (PEM, the leaf first)"))?.clone();
    let key = PrivateKeyDer::from_pem_slice(&pair.key).map_err(|_| wrong("the key is no private key in PEM"))?;
    let key = rustls::crypto::ring::sign::any_supported_type(&key);
    let key =
        key.map_err(|_| wrong("the key is of a kind that is not supported: RSA, ECDSA P-256 or P-384, Ed25519"))?;
    let matches = CertifiedKey::new(chain, key).keys_match();
    matches.map_err(|_| wrong("the key does not belong to the first certificate of the chain"))?;
    let parsed = x509_parser::parse_x509_certificate(&leaf);
    let (_, leaf) = parsed.map_err(|_| wrong("the first certificate of the chain cannot be read"))?;
    let not_after_ms = u64::try_from(leaf.validity().not_after.timestamp()).unwrap_or(0) * 1000;
    Ok((subject(&leaf), not_after_ms))
}

/// The names that clients ask for, or the subject when there are none.
fn subject(leaf: &x509_parser::certificate::X509Certificate<'_>) -> String {
    use x509_parser::extensions::GeneralName;
    let names = leaf.subject_alternative_name().ok().flatten();
    let names = names.map(|names| names.value.general_names.iter()).into_iter().flatten();
    let names: Vec<_> =
        names.filter_map(|name| if let GeneralName::DNSName(name) = name { Some(*name) } else { None }).collect();
    if names.is_empty() { leaf.subject().to_string() } else { names.join(", ") }
}

fn check_name(what: &str, name: &str) -> Result<(), Refusal> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
    if !name.is_empty() && name.len() <= 128 && name.chars().all(fits) {
        return Ok(());
    }
    let form = "1 to 128 letters, digits, `-`, `_`, `.` or `/`";
    Err(Refusal::Wrong(format!("{what} is {form}, not `{}`", name.escape_default())))
}

/// No name has a colon.
fn place(group: &str, name: &str) -> String {
    format!("secrets/{group}:{name}")
}
