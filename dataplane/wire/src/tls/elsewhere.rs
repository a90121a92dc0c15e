//! Verifiers for connections that other programs' TLS carries, off the cores: whom a proxy takes for its daemon.

use super::verifier::{Verifier, not_expected, trusted_identity};
use super::{Expect, Failure, Trust, provider};
use crypto::digest::{SHA256, digest};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, Error, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::sync::Arc;
use webpki::EndEntityCert;

/// Takes for a server who has a certificate of these roots and is expected. The name that was connected to does not matter.
pub fn verifier(trust: Trust, expect: Vec<Expect>) -> Arc<dyn ServerCertVerifier> {
    Arc::new(Verifier { provider: provider(), trust, expect, optional: false })
}

/// Takes for a server whose chain leads to a root of which only the SHA-256 of its public key (SubjectPublicKeyInfo) is known,
/// so that the server must send the root too; and whose identity has this path, in whatever trust domain: a root that is
/// known by its key alone vouches for its own.
pub fn pinned(roots: Vec<[u8; 32]>, path: &str) -> Arc<dyn ServerCertVerifier> {
    Arc::new(Pinned { provider: provider(), roots, path: path.into() })
}

/// Why these, or other programs' own, did not take a server's certificate; None: the error is another one.
pub fn failure(error: &(dyn std::error::Error + 'static)) -> Option<Failure> {
    if let Some(inner) = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
        return failure(inner);
    }
    match error.downcast_ref::<Error>()? {
        error @ Error::InvalidCertificate(_) => Some(Failure::of(error)),
        _ => None,
    }
}

/// What [`pinned`] knows roots by, of each root of a bundle (PEM).
///
/// # Errors
/// What is wrong with the bundle.
pub fn root_keys(bundle: &[u8]) -> Result<Vec<[u8; 32]>, String> {
    super::credential::certificates(bundle)?
        .iter()
        .map(|root| key_of(root).ok_or("has something else".into()))
        .collect()
}

/// SHA-256 of a certificate's public key.
fn key_of(certificate: &CertificateDer<'_>) -> Option<[u8; 32]> {
    let parsed = EndEntityCert::try_from(certificate).ok()?;
    digest(&SHA256, &parsed.subject_public_key_info()).as_ref().try_into().ok()
}

#[derive(Debug)]
struct Pinned {
    provider: Arc<rustls::crypto::CryptoProvider>,
    roots: Vec<[u8; 32]>,
    path: Box<str>,
}

impl Pinned {
    fn is_root(&self, certificate: &CertificateDer<'_>) -> bool {
        key_of(certificate).is_some_and(|key| self.roots.contains(&key))
    }

    fn with(&self, trust: Trust) -> Verifier {
        Verifier { provider: self.provider.clone(), trust, expect: Vec::new(), optional: false }
    }
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        stapled: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let refused = |why: CertificateError| Error::InvalidCertificate(why);
        let root = chain.iter().find(|one| self.is_root(one)).ok_or(refused(CertificateError::UnknownIssuer))?;
        let trust = Trust::of_root(root).map_err(|_| refused(CertificateError::BadEncoding))?;
        let verified = self.with(trust.clone()).verify_server_cert(leaf, chain, name, stapled, now)?;
        let identity = trusted_identity(&trust, leaf);
        let path = identity.as_ref().map(|id| &id.as_str()["spiffe://".len() + id.trust_domain().len()..]);
        match path {
            Ok(path) if *path == *self.path => Ok(verified),
            _ => Err(not_expected()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
