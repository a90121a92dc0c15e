//! The client's settings.

use super::credential::digest_of;
use super::trust::Verifier;
use super::{Clock, Credential, Expect, Narrow, Trust};
use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls_pki_types::ServerName;
use std::sync::Arc;

/// Sessions that one client's settings remember for resumption.
const REMEMBERED: usize = 256;

/// What a [`Client`] is made of.
#[derive(Clone, Debug)]
pub struct ClientSettings {
    /// Whose certificates count.
    pub trust: Trust,
    /// Who may answer, any of them. Empty: anyone of the trust's domains.
    pub expect: Vec<Expect>,
    /// The name to ask for; none is sent without.
    pub sni: Option<String>,
    /// What to show when asked.
    pub certificate: Option<Credential>,
    /// Application protocols, the most wanted first.
    pub alpn: Vec<Vec<u8>>,
    /// The time.
    pub clock: Clock,
}

/// The client's side of TLS. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Client(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    trust: Trust,
    clock: Clock,
    digest: [u8; 32],
    peer_digest: [u8; 32],
}

impl Client {
    /// Makes a client of settings.
    ///
    /// # Errors
    /// What does not go together.
    pub fn new(settings: ClientSettings) -> Result<Client, String> {
        Client::narrowed(settings, Narrow::default())
    }

    /// Makes a client of settings that knows less than we do.
    ///
    /// # Errors
    /// What does not go together.
    pub fn narrowed(settings: ClientSettings, narrow: Narrow) -> Result<Client, String> {
        let ClientSettings { trust, expect, sni, certificate, alpn, clock } = settings;
        let provider = narrow.provider();
        let (expected, trusted) = (format!("{expect:?} {sni:?}"), trust.digest());
        let alpn_parts = alpn.iter().map(|name| &name[..]);
        let peer_digest = digest_of([&trusted[..], expected.as_bytes()].into_iter().chain(alpn_parts));
        let shown = certificate.as_ref().map(Credential::digest).unwrap_or_default();
        let digest = digest_of([&peer_digest[..], &shown].into_iter());
        let verifier = Verifier { provider: provider.clone(), trust: trust.clone(), expect, optional: false };
        let builder = ClientConfig::builder_with_details(provider, Arc::new(clock.clone()))
            .with_protocol_versions(narrow.versions())
            .map_err(|error| error.to_string())?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let mut config = match certificate {
            Some(certificate) => {
                let key = SingleCertAndKey::from(CertifiedKey::clone(certificate.key()));
                builder.with_client_cert_resolver(Arc::new(key))
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = alpn;
        config.enable_secret_extraction = true;
        config.resumption = match narrow.never_resumes {
            true => Resumption::disabled(),
            false => Resumption::in_memory_sessions(REMEMBERED),
        };
        config.enable_sni = sni.is_some();
        let name = match sni {
            Some(name) => ServerName::try_from(name.clone()).map_err(|_| format!("{name:?} is no DNS name"))?,
            // Only a key in the memory of sessions.
            None => ServerName::try_from("none.invalid").map_err(|error| error.to_string())?,
        };
        Ok(Client(Arc::new(Inner { config: Arc::new(config), name, trust, clock, digest, peer_digest })))
    }

    /// SHA-256 over all settings.
    pub fn digest(&self) -> [u8; 32] {
        self.0.digest
    }

    /// SHA-256 over what decides who may answer.
    pub fn peer_digest(&self) -> [u8; 32] {
        self.0.peer_digest
    }

    pub(super) fn config(&self) -> &Arc<ClientConfig> {
        &self.0.config
    }

    pub(super) fn name(&self) -> &ServerName<'static> {
        &self.0.name
    }

    pub(super) fn trust(&self) -> &Trust {
        &self.0.trust
    }

    pub(super) fn clock(&self) -> &Clock {
        &self.0.clock
    }
}
