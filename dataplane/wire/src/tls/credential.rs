//! A certificate chain with its key.

use super::der::{DNS, Leaf, URI};
use crate::spiffe::SpiffeId;
use crypto::digest::{SHA256, digest};
use rustls::InconsistentKeys;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::{PemObject, SectionKind};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::sync::Arc;

/// The longest chain.
const CHAIN: usize = 16;

/// A certificate chain and the key of its first certificate. Cheap to clone; prints nothing of the key.
#[derive(Clone, Debug)]
pub struct Credential(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    key: Arc<CertifiedKey>,
    names: Vec<Box<str>>,
    identity: Result<SpiffeId, &'static str>,
    not_before_s: u64,
    not_after_s: u64,
    digest: [u8; 32],
}

impl Credential {
    /// Reads a chain, the leaf first, and the leaf's key, both as PEM.
    ///
    /// # Errors
    /// What is wrong: nothing there, half written, a key that does not fit.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Credential, String> {
        let chain = certificates(chain)?;
        if chain.len() > CHAIN {
            return Err(format!("the chain has more than {CHAIN} certificates"));
        }
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| "the key file has no whole private key".to_owned())?;
        let leaf = Leaf::read(&chain[0]).ok_or("the first certificate is malformed")?;
        let names = leaf.names(DNS).filter_map(|name| std::str::from_utf8(name).ok());
        let names = names.map(|name| name.to_ascii_lowercase().into()).collect();
        let (not_before_s, not_after_s, identity) = (leaf.not_before_s, leaf.not_after_s, identity(&leaf));
        let digest = digest_of(chain.iter().map(|certificate| &certificate[..]));
        let key = CertifiedKey::from_der(chain, key, &super::provider()).map_err(|error| match error {
            rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                "the key does not belong to the certificate".to_owned()
            }
            error => format!("the key cannot be used: {error}"),
        })?;
        Ok(Credential(Arc::new(Inner { key: Arc::new(key), names, identity, not_before_s, not_after_s, digest })))
    }

    /// The DNS names that the certificate is for, in lower case; `*.x` stands for one label before `.x`.
    pub fn names(&self) -> &[Box<str>] {
        &self.0.names
    }

    /// Its SPIFFE ID.
    ///
    /// # Errors
    /// Why it has none.
    pub fn identity(&self) -> Result<&SpiffeId, &'static str> {
        self.0.identity.as_ref().map_err(|reason| *reason)
    }

    /// Unix seconds from which on it is valid.
    pub fn not_before_s(&self) -> u64 {
        self.0.not_before_s
    }

    /// Unix seconds after which it is not valid.
    pub fn not_after_s(&self) -> u64 {
        self.0.not_after_s
    }

    /// Whether it is valid at a time.
    ///
    /// # Errors
    /// Why it is not.
    pub fn check_time(&self, now_s: u64) -> Result<(), &'static str> {
        match () {
            () if now_s < self.0.not_before_s => Err("the certificate is not valid yet"),
            () if now_s > self.0.not_after_s => Err("the certificate has expired"),
            () => Ok(()),
        }
    }

    /// SHA-256 over the chain.
    pub fn digest(&self) -> [u8; 32] {
        self.0.digest
    }

    pub(super) fn key(&self) -> &Arc<CertifiedKey> {
        &self.0.key
    }
}

/// The one identity of a certificate: exactly one URI among its names, and a SPIFFE ID.
pub(super) fn identity(leaf: &Leaf<'_>) -> Result<SpiffeId, &'static str> {
    let mut uris = leaf.names(URI);
    match (uris.next(), uris.next()) {
        (Some(uri), None) => {
            std::str::from_utf8(uri).ok().and_then(|uri| SpiffeId::parse(uri).ok()).ok_or("its URI is no SPIFFE ID")
        }
        (None, _) => Err("it has no URI"),
        (Some(_), Some(_)) => Err("it has more than one URI"),
    }
}

/// All certificates of a PEM text; it ends where one ends, and has nothing but certificates (and perhaps a key beside them).
pub(super) fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let mut found = Vec::new();
    for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(pem) {
        match section {
            Ok((SectionKind::Certificate, der)) => found.push(CertificateDer::from(der)),
            Ok(_) => {}
            Err(error) => return Err(format!("is no whole PEM: {error}")),
        }
    }
    if count(pem, b"-----BEGIN CERTIFICATE-----") != found.len() {
        return Err("is cut off within a certificate".to_owned());
    }
    if found.is_empty() {
        return Err("has no certificate".to_owned());
    }
    if found.iter().any(|certificate| Leaf::read(certificate).is_none()) {
        return Err("has a malformed certificate".to_owned());
    }
    Ok(found)
}

fn count(text: &[u8], word: &[u8]) -> usize {
    text.windows(word.len()).filter(|window| *window == word).count()
}

/// SHA-256 over parts, each with its length.
pub(super) fn digest_of<'a>(parts: impl Iterator<Item = &'a [u8]>) -> [u8; 32] {
    let mut all = Vec::new();
    for part in parts {
        all.extend_from_slice(&(part.len() as u64).to_le_bytes());
        all.extend_from_slice(part);
    }
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest(&SHA256, &all).as_ref());
    bytes
}
