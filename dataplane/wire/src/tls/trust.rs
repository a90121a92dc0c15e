//! Whom to trust: roots, the trust domains that they speak for, and the lists of what they have revoked.

use super::credential::{certificates, digest_of};
use super::der::{Leaf, next_update_s};
use crate::spiffe::Pattern;
use rustls::DistinguishedName;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, TrustAnchor};
use std::sync::Arc;
use webpki::{CertRevocationList, OwnedCertRevocationList};

/// The most roots of one bundle (a system's has some 150).
const ROOTS: usize = 2000;

/// The most that clients are told of whose certificates count (RFC 8446 section 4.2.4). A large bundle's names would not fit
/// into a message, and without any name a client shows what it has.
const HINT_BYTES: usize = 4096;

/// Roots, the trust domains that they speak for, and revocation lists. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Trust(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    roots: Vec<TrustAnchor<'static>>,
    /// When each root ends, Unix seconds.
    ends_s: Vec<u64>,
    /// What clients are told of whose certificates count; perhaps nothing.
    subjects: Vec<DistinguishedName>,
    domains: Vec<String>,
    lists: Vec<List>,
    digest: [u8; 32],
}

/// What an issuer has revoked.
#[derive(Debug)]
pub(super) struct List {
    pub(super) list: CertRevocationList<'static>,
    /// When there is another, Unix seconds: after that this one says nothing about who is still well.
    pub(super) ends_s: u64,
}

/// Who may be at the other end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expect {
    /// Whoever has such an identity.
    Identity(Pattern),
    /// Whoever has a certificate for this DNS name.
    Name(Box<str>),
}

impl Trust {
    /// Reads bundles of roots and revocation lists, as PEM. Without `domains`, identities of any trust domain count.
    ///
    /// A list is enforced for whoever has issued it, as far up the chain as it goes; who has none is not held against any.
    ///
    /// # Errors
    /// What is wrong.
    pub fn from_pem(roots: &[&[u8]], domains: Vec<String>, lists: &[&[u8]]) -> Result<Trust, String> {
        let parts = roots.iter().chain(lists).copied().chain(domains.iter().map(|domain| domain.as_bytes()));
        let digest = digest_of(parts);
        let mut found = Vec::new();
        for pem in roots {
            found.extend(certificates(pem)?);
        }
        Trust::of(&found, domains, lists, digest)
    }

    /// One root, as DER, whose word counts for any trust domain.
    pub(super) fn of_root(root: &CertificateDer<'_>) -> Result<Trust, String> {
        Trust::of(&[root.clone().into_owned()], Vec::new(), &[], digest_of([&root[..]].into_iter()))
    }

    fn of(
        found: &[CertificateDer<'static>],
        domains: Vec<String>,
        lists: &[&[u8]],
        digest: [u8; 32],
    ) -> Result<Trust, String> {
        if found.len() > ROOTS {
            return Err(format!("has more than {ROOTS} roots"));
        }
        let ends_s = found.iter().map(|root| Leaf::read(root).map_or(0, |root| root.not_after_s)).collect();
        let anchors: Result<Vec<TrustAnchor<'static>>, String> = found
            .iter()
            .map(|root| webpki::anchor_from_trusted_cert(root).map(|anchor| anchor.to_owned()))
            .map(|anchor| anchor.map_err(|error| format!("has a certificate that cannot be a root: {error}")))
            .collect();
        let roots = anchors?;
        let mut subjects: Vec<_> = roots.iter().map(|root| DistinguishedName::in_sequence(&root.subject)).collect();
        if subjects.iter().map(|subject| subject.as_ref().len() + 2).sum::<usize>() > HINT_BYTES {
            subjects.clear();
        }
        let mut revoked = Vec::new();
        for pem in lists {
            for list in CertificateRevocationListDer::pem_slice_iter(pem) {
                revoked
                    .push(List::read(&list.map_err(|error| format!("the revocation list is no whole PEM: {error}"))?)?);
            }
        }
        if !lists.is_empty() && revoked.is_empty() {
            return Err("the revocation file has no list".to_owned());
        }
        Ok(Trust(Arc::new(Inner { roots, ends_s, subjects, domains, lists: revoked, digest })))
    }

    /// SHA-256 over all that it was made of.
    pub fn digest(&self) -> [u8; 32] {
        self.0.digest
    }

    /// Unix seconds after which the first of the roots is not valid.
    pub fn not_after_s(&self) -> u64 {
        self.0.ends_s.iter().copied().min().unwrap_or(0)
    }

    /// Unix seconds after which the first of the revocation lists is out of date; `None` without lists.
    pub fn lists_end_s(&self) -> Option<u64> {
        self.0.lists.iter().map(|list| list.ends_s).min()
    }

    /// Whether identities of a trust domain count.
    pub fn speaks_for(&self, domain: &str) -> bool {
        self.0.domains.is_empty() || self.0.domains.iter().any(|known| known == domain)
    }

    /// The trust domains whose identities count; empty: of any.
    pub fn domains(&self) -> &[String] {
        &self.0.domains
    }

    pub(super) fn roots(&self) -> &[TrustAnchor<'static>] {
        &self.0.roots
    }

    /// When a root ends that [`Trust::roots`] gave.
    pub(super) fn root_ends_s(&self, root: &TrustAnchor<'_>) -> u64 {
        let mut all = self.0.roots.iter().zip(&self.0.ends_s);
        all.find(|(known, _)| *known == root).map_or(0, |(_, ends_s)| *ends_s)
    }

    pub(super) fn subjects(&self) -> &[DistinguishedName] {
        &self.0.subjects
    }

    pub(super) fn lists(&self) -> &[List] {
        &self.0.lists
    }
}

impl List {
    fn read(der: &[u8]) -> Result<List, String> {
        let list = OwnedCertRevocationList::from_der(der)
            .map_err(|error| format!("the revocation list cannot be used: {error}"))?;
        let ends_s = next_update_s(der).ok_or("the revocation list does not say when the next one comes")?;
        Ok(List { list: CertRevocationList::Owned(list), ends_s })
    }
}
