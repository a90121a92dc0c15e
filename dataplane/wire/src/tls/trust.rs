//! Whom to trust, and the verification of the other end's certificate: chain, usage, time, revocation, then name or identity,
//! before any byte of the connection is looked at.

use super::credential::{certificates, digest_of, identity};
use super::der::Leaf;
use super::failure::NotExpected;
use crate::spiffe::{Pattern, SpiffeId};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, ServerName, TrustAnchor, UnixTime};
use std::sync::Arc;
use webpki::{CertRevocationList, EndEntityCert, KeyUsage, OwnedCertRevocationList, RevocationOptionsBuilder};

/// The most roots of one bundle (a system's has some 150).
const ROOTS: usize = 2000;

/// Roots, the trust domains that they speak for, and revocation lists. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Trust(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    roots: Vec<TrustAnchor<'static>>,
    subjects: Vec<DistinguishedName>,
    domains: Vec<String>,
    lists: Vec<CertRevocationList<'static>>,
    not_after_s: u64,
    digest: [u8; 32],
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
        let not_after_s = found.iter().filter_map(|root| Leaf::read(root)).map(|root| root.not_after_s).min();
        let anchors: Result<Vec<TrustAnchor<'static>>, String> = found
            .iter()
            .map(|root| webpki::anchor_from_trusted_cert(root).map(|anchor| anchor.to_owned()))
            .map(|anchor| anchor.map_err(|error| format!("has a certificate that cannot be a root: {error}")))
            .collect();
        let roots = anchors?;
        let subjects = roots.iter().map(|root| DistinguishedName::in_sequence(&root.subject)).collect();
        let mut revoked = Vec::new();
        for pem in lists {
            for list in CertificateRevocationListDer::pem_slice_iter(pem) {
                let list = list.map_err(|error| format!("the revocation list is no whole PEM: {error}"))?;
                let list = OwnedCertRevocationList::from_der(&list)
                    .map_err(|error| format!("the revocation list cannot be used: {error}"))?;
                revoked.push(CertRevocationList::Owned(list));
            }
        }
        if !lists.is_empty() && revoked.is_empty() {
            return Err("the revocation file has no list".to_owned());
        }
        let (lists, not_after_s) = (revoked, not_after_s.unwrap_or(0));
        Ok(Trust(Arc::new(Inner { roots, subjects, domains, lists, not_after_s, digest })))
    }

    /// SHA-256 over all that it was made of.
    pub fn digest(&self) -> [u8; 32] {
        self.0.digest
    }

    /// Unix seconds after which the first of the roots is not valid.
    pub fn not_after_s(&self) -> u64 {
        self.0.not_after_s
    }
}

/// Verifies the other end, on either side.
#[derive(Debug)]
pub(super) struct Verifier {
    pub(super) provider: Arc<CryptoProvider>,
    pub(super) trust: Trust,
    pub(super) expect: Vec<Expect>,
    /// A client without a certificate is let in.
    pub(super) optional: bool,
}

impl Verifier {
    fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        now: UnixTime,
        usage: KeyUsage,
    ) -> Result<(), Error> {
        let trust = &self.trust.0;
        let parsed = EndEntityCert::try_from(leaf).map_err(refused)?;
        let lists: Vec<&CertRevocationList<'_>> = trust.lists.iter().collect();
        let revocation = RevocationOptionsBuilder::new(&lists).ok().map(RevocationOptionsBuilder::build);
        let algorithms = self.provider.signature_verification_algorithms.all;
        parsed.verify_for_usage(algorithms, &trust.roots, chain, now, usage, revocation, None).map_err(refused)?;
        if self.is_expected(&parsed, leaf) { Ok(()) } else { Err(self.not_expected()) }
    }

    /// Without an expectation, the roots alone decide; but what has an identity has one of a trusted domain.
    fn is_expected(&self, parsed: &EndEntityCert<'_>, leaf: &CertificateDer<'_>) -> bool {
        let identity = trusted_identity(&self.trust, leaf);
        let is = |expect: &Expect| match expect {
            Expect::Identity(pattern) => identity.as_ref().is_ok_and(|id| pattern.matches(id.as_str())),
            Expect::Name(name) => {
                ServerName::try_from(&**name).is_ok_and(|name| parsed.verify_is_valid_for_subject_name(&name).is_ok())
            }
        };
        match &self.expect[..] {
            [] if self.trust.0.domains.is_empty() => identity != Err(Identity::Ambiguous),
            [] => identity.is_ok(),
            expect => expect.iter().any(is),
        }
    }

    fn not_expected(&self) -> Error {
        let names = !self.expect.is_empty() && self.expect.iter().all(|expect| matches!(expect, Expect::Name(_)));
        Error::InvalidCertificate(match names {
            true => CertificateError::NotValidForName,
            false => return not_expected(),
        })
    }
}

/// Somebody, but not who should be there.
pub(super) fn not_expected() -> Error {
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(NotExpected))))
}

/// Why a certificate has no identity that counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Identity {
    /// It has no URI at all.
    None,
    /// More than one URI, or one that is no SPIFFE ID.
    Ambiguous,
    /// Its trust domain is not among those trusted.
    OtherDomain,
}

/// The identity that a verified certificate proves.
pub(super) fn trusted_identity(trust: &Trust, leaf: &[u8]) -> Result<SpiffeId, Identity> {
    let leaf = Leaf::read(leaf).ok_or(Identity::Ambiguous)?;
    if leaf.names(super::der::URI).next().is_none() {
        return Err(Identity::None);
    }
    let identity = identity(&leaf).map_err(|_| Identity::Ambiguous)?;
    let domains = &trust.0.domains;
    let trusted = domains.is_empty() || domains.iter().any(|domain| domain == identity.trust_domain());
    if trusted { Ok(identity) } else { Err(Identity::OtherDomain) }
}

fn refused(error: webpki::Error) -> Error {
    use webpki::Error as E;
    Error::InvalidCertificate(match error {
        E::CertExpired { .. } => CertificateError::Expired,
        E::CertNotValidYet { .. } => CertificateError::NotValidYet,
        E::CertRevoked => CertificateError::Revoked,
        // An issuer of the same name as a root's, but with another key, is another issuer.
        E::UnknownIssuer
        | E::InvalidSignatureForPublicKey
        | E::PathLenConstraintViolated
        | E::MaximumPathDepthExceeded => CertificateError::UnknownIssuer,
        E::RequiredEkuNotFoundContext(_) | E::EmptyEkuExtension => CertificateError::InvalidPurpose,
        E::UnknownRevocationStatus => CertificateError::UnknownRevocationStatus,
        _ => CertificateError::BadEncoding,
    })
}

macro_rules! signatures {
    () => {
        fn verify_tls12_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            let algorithms = &self.provider.signature_verification_algorithms;
            verify_tls12_signature(message, certificate, signature, algorithms)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            let algorithms = &self.provider.signature_verification_algorithms;
            verify_tls13_signature(message, certificate, signature, algorithms)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.provider.signature_verification_algorithms.supported_schemes()
        }
    };
}

impl ClientCertVerifier for Verifier {
    fn client_auth_mandatory(&self) -> bool {
        !self.optional
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.trust.0.subjects
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.verify(leaf, chain, now, KeyUsage::client_auth()).map(|()| ClientCertVerified::assertion())
    }

    signatures!();
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.verify(leaf, chain, now, KeyUsage::server_auth()).map(|()| ServerCertVerified::assertion())
    }

    signatures!();
}
