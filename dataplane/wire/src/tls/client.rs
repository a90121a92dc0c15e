//! The client's settings.

use super::credential::digest_of;
use super::verifier::Verifier;
use super::{Clock, Credential, Expect, Narrow, Trust, aside};
use rustls::client::{
    ClientSessionMemoryCache, ClientSessionStore, Resumption, Tls12ClientSessionValue, Tls13ClientSessionValue,
};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, NamedGroup};
use rustls_pki_types::ServerName;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{AcqRel, Acquire};

/// Sessions that one client's settings remember for resumption: as many as rustls keeps of one server, which is all there is
/// behind one name.
const REMEMBERED: usize = 8;

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

/// Sessions that can be resumed, until the first of them rests on something that has ended: then all are forgotten, and the
/// next handshake verifies the server again.
#[derive(Debug)]
struct Memory {
    sessions: ClientSessionMemoryCache,
    /// Unix seconds.
    ends_s: AtomicU64,
    clock: Clock,
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
            false => Resumption::store(Arc::new(Memory::new(clock.clone()))),
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

impl Memory {
    fn new(clock: Clock) -> Memory {
        Memory { sessions: ClientSessionMemoryCache::new(REMEMBERED), ends_s: AtomicU64::new(u64::MAX), clock }
    }

    /// After a session was put in: whoever forgets meanwhile takes it out again, or leaves this.
    fn ends(&self) {
        self.ends_s.fetch_min(aside::ends_s(), AcqRel);
    }

    /// Before a session is taken out.
    fn forget_ended(&self, server: &ServerName<'_>) {
        let now_s = self.clock.now_s();
        let forget = |ends_s: u64| (now_s > ends_s).then_some(u64::MAX);
        if self.ends_s.try_update(AcqRel, Acquire, forget).is_ok() {
            let server = server.to_owned();
            self.sessions.remove_tls12_session(&server);
            while self.sessions.take_tls13_ticket(&server).is_some() {}
        }
        // What is taken ends with the first of all, at the latest.
        aside::ends(self.ends_s.load(Acquire));
    }
}

impl ClientSessionStore for Memory {
    fn set_kx_hint(&self, server: ServerName<'static>, group: NamedGroup) {
        self.sessions.set_kx_hint(server, group);
    }

    fn kx_hint(&self, server: &ServerName<'_>) -> Option<NamedGroup> {
        self.sessions.kx_hint(server)
    }

    fn set_tls12_session(&self, server: ServerName<'static>, session: Tls12ClientSessionValue) {
        self.sessions.set_tls12_session(server, session);
        self.ends();
    }

    fn tls12_session(&self, server: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.forget_ended(server);
        self.sessions.tls12_session(server)
    }

    fn remove_tls12_session(&self, server: &ServerName<'static>) {
        self.sessions.remove_tls12_session(server);
    }

    fn insert_tls13_ticket(&self, server: ServerName<'static>, session: Tls13ClientSessionValue) {
        self.sessions.insert_tls13_ticket(server, session);
        self.ends();
    }

    fn take_tls13_ticket(&self, server: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.forget_ended(server);
        self.sessions.take_tls13_ticket(server)
    }
}
