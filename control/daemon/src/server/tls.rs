//! The settings of TLS: our own certificate, and whose certificates count.

use crate::authority::{GRACE_MS, PeerCertificate, Refusal};
use rcgen::KeyPair;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::CryptoProvider;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, ServerConfig, SignatureScheme,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, UnixTime};
use std::sync::Arc;
use std::time::Duration;

/// Settings with this chain and key, and these roots (PEM).
///
/// # Errors
/// They are no certificates: ours to repair.
pub(crate) fn config(chain: &str, key: &KeyPair, roots: &str) -> Result<Arc<ServerConfig>, Refusal> {
    let broken = |error: &dyn std::fmt::Display| Refusal::Broken(format!("cannot set up TLS: {error}"));
    let list = |pem: &str| CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<Vec<_>, _>>();
    let mut trusted = RootCertStore::empty();
    for root in list(roots).map_err(|error| broken(&error))? {
        trusted.add(root).map_err(|error| broken(&error))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = Verifier::new(trusted, &provider).map_err(|error| broken(&error))?;
    let chain = list(chain).map_err(|error| broken(&error))?;
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| broken(&error))?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_single_cert(chain, key)
        .map_err(|error| broken(&error))?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    // A session that is taken up again would bring a certificate that nobody verified today.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// Verifies as WebPKI does, but lets in who expired not long ago: it may renew, and nothing else.
#[derive(Debug)]
struct Verifier(Arc<dyn ClientCertVerifier>);

impl Verifier {
    fn new(roots: RootCertStore, provider: &Arc<CryptoProvider>) -> Result<Verifier, impl std::fmt::Display> {
        let strict = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
        strict.allow_unauthenticated().build().map(Verifier)
    }
}

impl ClientCertVerifier for Verifier {
    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let strict = self.0.verify_client_cert(leaf, intermediates, now);
        let expired = matches!(
            strict,
            Err(Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }))
        );
        let grace = Duration::from_millis(GRACE_MS).as_secs();
        match PeerCertificate::read(leaf).map(|leaf| leaf.not_after_ms / 1000) {
            // Everything else must have been right in the last second of its life.
            Some(end) if expired && end <= now.as_secs() && end + grace > now.as_secs() => {
                let last = UnixTime::since_unix_epoch(Duration::from_secs(end.saturating_sub(1)));
                self.0.verify_client_cert(leaf, intermediates, last)
            }
            _ => strict,
        }
    }

    fn offer_client_auth(&self) -> bool {
        self.0.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.0.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, leaf, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, leaf, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}
