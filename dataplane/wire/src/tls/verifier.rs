//! The verification of the other end's certificate: chain, usage, time, revocation, then name or identity, before any byte of the
//! connection is looked at.

use super::credential::identity;
use super::der::Leaf;
use super::failure::NotExpected;
use super::trust::List;
use super::{Expect, Trust, aside};
use crate::spiffe::SpiffeId;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::borrow::Cow;
use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;
use webpki::{CertRevocationList, EndEntityCert, ExpirationPolicy, KeyUsage, RevocationCheckDepth};
use webpki::{RevocationOptionsBuilder, UnknownStatusPolicy, VerifiedPath};

/// Certificates between a leaf and a root that are looked at; a chain is rarely longer than four.
const BETWEEN: usize = 15;
/// Of those, certificates of one subject: one that two others have signed stands there twice.
const NAMESAKES: usize = 2;

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
        let parsed = EndEntityCert::try_from(leaf).map_err(refused)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        let ends_s = Cell::new(0);
        let judge = |path: &VerifiedPath<'_>| self.judge(path, now, usage).map(|at_s| ends_s.set(at_s));
        let (roots, chain) = (self.trust.roots(), &bounded(chain)[..]);
        parsed.verify_for_usage(algorithms, roots, chain, now, usage, None, Some(&judge)).map_err(refused)?;
        if !self.is_expected(&parsed, leaf) {
            return Err(self.not_expected());
        }
        aside::ends(ends_s.get());
        Ok(())
    }

    /// Whether a chain that holds together may be relied upon: its root has not ended, and nothing in it is revoked. When the
    /// first thing ends on which that rests, Unix seconds.
    fn judge(&self, path: &VerifiedPath<'_>, now: UnixTime, usage: KeyUsage) -> Result<u64, webpki::Error> {
        let root_ends_s = self.trust.root_ends_s(path.anchor());
        if now.as_secs() > root_ends_s {
            let not_after = UnixTime::since_unix_epoch(Duration::from_secs(root_ends_s));
            return Err(webpki::Error::CertExpired { time: now, not_after });
        }
        let between: Vec<CertificateDer<'_>> = path.intermediate_certificates().map(|issuer| issuer.der()).collect();
        let leaf = path.end_entity();
        let ends = |der: &CertificateDer<'_>| Leaf::read(der).map_or(0, |read| read.not_after_s);
        let mut ends_s = between.iter().map(ends).fold(root_ends_s.min(ends(&leaf.der())), u64::min);
        for List { list, ends_s: list_ends_s } in self.trust.lists() {
            let issued = leaf.issuer() == list.issuer()
                || path.intermediate_certificates().any(|issuer| issuer.issuer() == list.issuer());
            if issued && self.applies(list, path, &between, now, usage)? {
                ends_s = ends_s.min(*list_ends_s);
            }
        }
        Ok(ends_s)
    }

    /// Holds a chain against one list; false: another issuer of that name has made the list. One at a time, as webpki takes
    /// the first list of an issuer's name, whoever has signed it, and nothing but this very chain.
    fn applies(
        &self,
        list: &CertRevocationList<'_>,
        path: &VerifiedPath<'_>,
        between: &[CertificateDer<'_>],
        now: UnixTime,
        usage: KeyUsage,
    ) -> Result<bool, webpki::Error> {
        let algorithms = self.provider.signature_verification_algorithms.all;
        let lists = [list];
        let revocation = RevocationOptionsBuilder::new(&lists).ok().map(|options| {
            options
                .with_depth(RevocationCheckDepth::Chain)
                .with_status_policy(UnknownStatusPolicy::Allow)
                .with_expiration_policy(ExpirationPolicy::Enforce)
                .build()
        });
        let root = std::slice::from_ref(path.anchor());
        let leaf = path.end_entity();
        match leaf.verify_for_usage(algorithms, root, between, now, usage, revocation, None) {
            Ok(_) => Ok(true),
            Err(webpki::Error::InvalidCrlSignatureForPublicKey) => Ok(false),
            Err(error @ (webpki::Error::CertRevoked | webpki::Error::CrlExpired { .. })) => Err(error),
            Err(_) => Err(webpki::Error::UnknownRevocationStatus),
        }
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
            [] if self.trust.domains().is_empty() => identity != Err(Identity::Ambiguous),
            [] => identity.is_ok(),
            expect => expect.iter().any(is),
        }
    }

    /// Whether a certificate that has this identity, and no name, is let in.
    pub(super) fn takes(&self, identity: &SpiffeId) -> bool {
        let is = |expect: &Expect| matches!(expect, Expect::Identity(pattern) if pattern.matches(identity.as_str()));
        self.trust.speaks_for(identity.trust_domain()) && (self.expect.is_empty() || self.expect.iter().any(is))
    }

    fn not_expected(&self) -> Error {
        let names = !self.expect.is_empty() && self.expect.iter().all(|expect| matches!(expect, Expect::Name(_)));
        match names {
            true => Error::InvalidCertificate(CertificateError::NotValidForName),
            false => not_expected(),
        }
    }
}

/// Somebody, but not who should be there.
pub(super) fn not_expected() -> Error {
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(NotExpected))))
}

/// The certificates between a leaf and a root that are looked at, of all that the other end sends. webpki tries every path
/// through them: of a few kilobytes of namesakes that issue each other it makes 200,000, a third of a second, for somebody
/// who has proved nothing yet.
fn bounded<'a>(chain: &'a [CertificateDer<'a>]) -> Cow<'a, [CertificateDer<'a>]> {
    if chain.len() <= NAMESAKES {
        return Cow::Borrowed(chain);
    }
    let mut subjects: Vec<EndEntityCert<'_>> = Vec::new();
    let mut kept = Vec::new();
    for der in &chain[..chain.len().min(BETWEEN)] {
        let Ok(read) = EndEntityCert::try_from(der) else { continue };
        let namesakes = subjects.iter().filter(|other| other.subject() == read.subject()).count();
        if namesakes < NAMESAKES {
            subjects.push(read);
            kept.push(der.clone());
        }
    }
    Cow::Owned(kept)
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
    if trust.speaks_for(identity.trust_domain()) { Ok(identity) } else { Err(Identity::OtherDomain) }
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
        E::UnknownRevocationStatus | E::CrlExpired { .. } => CertificateError::UnknownRevocationStatus,
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
        self.trust.subjects()
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
