//! The server's settings.

use super::credential::digest_of;
use super::ticket::Tickets;
use super::verifier::Verifier;
use super::{Clock, Credential, Expect, Failure, Narrow, TicketKeys, Trust, aside};
use crate::spiffe::SpiffeId;
use rustls::ServerConfig;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use std::collections::HashMap;
use std::sync::Arc;

/// Whether clients show certificates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Clients {
    /// They are not asked.
    #[default]
    None,
    /// They may; a bad one fails the handshake.
    Optional,
    /// They must.
    Required,
}

/// What a [`Server`] is made of.
#[derive(Clone, Debug)]
pub struct ServerSettings {
    /// Chosen by SNI; the first is the default. Never empty.
    pub certificates: Vec<Credential>,
    /// Whether clients show certificates.
    pub clients: Clients,
    /// Whose certificates count.
    pub trust: Option<Trust>,
    /// Who may come; anyone trusted when empty.
    pub expect: Vec<Expect>,
    /// Application protocols, the most wanted first.
    pub alpn: Vec<Vec<u8>>,
    /// What tickets are sealed with; none are given without.
    pub tickets: Option<TicketKeys>,
    /// The time.
    pub clock: Clock,
}

/// The server's side of TLS. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Server(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    config: Arc<ServerConfig>,
    chooser: Arc<Chooser>,
    /// Whoever judges clients, where they are asked for certificates.
    verifier: Option<Arc<Verifier>>,
    clock: Clock,
    digest: [u8; 32],
}

impl Server {
    /// Makes a server of settings.
    ///
    /// # Errors
    /// What does not go together.
    pub fn new(settings: ServerSettings) -> Result<Server, String> {
        Server::narrowed(settings, Narrow::default())
    }

    /// Makes a server of settings that knows less than we do.
    ///
    /// # Errors
    /// What does not go together.
    pub fn narrowed(settings: ServerSettings, narrow: Narrow) -> Result<Server, String> {
        let ServerSettings { certificates, clients, trust, expect, alpn, tickets, clock } = settings;
        if certificates.is_empty() {
            return Err("needs a certificate".to_owned());
        }
        let provider = narrow.provider();
        let clients_part = [clients as u8];
        let expected = format!("{expect:?}");
        let trusted = trust.as_ref().map(Trust::digest).unwrap_or_default();
        let settings = digest_of(
            [&trusted[..], &clients_part, expected.as_bytes()].into_iter().chain(alpn.iter().map(|name| &name[..])),
        );
        let digests: Vec<[u8; 32]> = certificates.iter().map(Credential::digest).collect();
        let keys = tickets.iter().map(|keys| &keys.current[..]);
        let digest = digest_of(digests.iter().map(|digest| &digest[..]).chain([&settings[..]]).chain(keys));
        let chooser = Arc::new(Chooser::new(certificates));
        let builder = ServerConfig::builder_with_details(provider.clone(), Arc::new(clock.clone()))
            .with_protocol_versions(narrow.versions())
            .map_err(|error| error.to_string())?;
        let verifier = match (clients, trust) {
            (Clients::None, _) => None,
            (_, None) => return Err("client certificates need a trust bundle".to_owned()),
            (_, Some(trust)) => {
                Some(Arc::new(Verifier { provider, trust, expect, optional: clients == Clients::Optional }))
            }
        };
        let builder = match &verifier {
            None => builder.with_no_client_auth(),
            Some(verifier) => builder.with_client_cert_verifier(verifier.clone()),
        };
        let mut config = builder.with_cert_resolver(chooser.clone());
        config.alpn_protocols = alpn;
        config.enable_secret_extraction = true;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.max_early_data_size = 0;
        match tickets.and_then(|keys| Tickets::new(&keys, &settings, clock.clone())) {
            Some(tickets) => {
                config.ticketer = Arc::new(tickets);
                config.send_tls13_tickets = 1;
            }
            None => config.send_tls13_tickets = 0,
        }
        Ok(Server(Arc::new(Inner { config: Arc::new(config), chooser, verifier, clock, digest })))
    }

    /// The certificate that is shown to a client that asks for this name: that of the exact name, of a wildcard of one label, the
    /// first.
    pub fn certificate_for(&self, name: Option<&str>) -> &Credential {
        let Chooser { keys, .. } = &*self.0.chooser;
        &keys[name.map_or(0, |name| self.0.chooser.choose(name.as_bytes()))]
    }

    /// Whether a host has the certificate that is shown to a client that asks for this name.
    pub fn is_certificate_for(&self, name: &str, host: &[u8]) -> bool {
        let chooser = &self.0.chooser;
        // One that asks for the host itself, as nearly all do, is not looked up.
        chooser.keys.len() < 2 || name.as_bytes() == host || chooser.choose(name.as_bytes()) == chooser.choose(host)
    }

    /// Whether clients show certificates.
    pub fn clients(&self) -> Clients {
        match &self.0.verifier {
            None => Clients::None,
            Some(verifier) if verifier.optional => Clients::Optional,
            Some(_) => Clients::Required,
        }
    }

    /// Whose certificates count; `None` where clients are not asked for any.
    pub fn trust(&self) -> Option<&Trust> {
        self.0.verifier.as_ref().map(|verifier| &verifier.trust)
    }

    /// Who may come; anyone trusted when empty.
    pub fn expect(&self) -> &[Expect] {
        self.0.verifier.as_ref().map_or(&[], |verifier| &verifier.expect)
    }

    /// What a handshake makes of a client that shows a good certificate with this identity, or (`None`) no certificate: the
    /// identity that is known afterwards.
    ///
    /// # Errors
    /// Why it comes to nothing.
    pub fn admits<'a>(&self, identity: Option<&'a SpiffeId>) -> Result<Option<&'a SpiffeId>, Failure> {
        match (&self.0.verifier, identity) {
            (None, _) => Ok(None),
            (Some(verifier), None) if verifier.optional => Ok(None),
            (Some(_), None) => Err(Failure::NoCertificate),
            (Some(verifier), Some(id)) if verifier.takes(id) => Ok(identity),
            (Some(_), Some(_)) => Err(Failure::WrongIdentity),
        }
    }

    /// SHA-256 over all settings.
    pub fn digest(&self) -> [u8; 32] {
        self.0.digest
    }

    pub(super) fn config(&self) -> &Arc<ServerConfig> {
        &self.0.config
    }

    pub(super) fn clock(&self) -> &Clock {
        &self.0.clock
    }
}

/// Chooses a certificate by name.
#[derive(Debug)]
struct Chooser {
    keys: Vec<Credential>,
    /// Exact names, and `.x` for `*.x`; of two certificates with one name the first counts.
    names: HashMap<Box<str>, usize>,
}

impl Chooser {
    fn new(keys: Vec<Credential>) -> Chooser {
        let mut names = HashMap::new();
        for (number, key) in keys.iter().enumerate() {
            for name in key.names() {
                names.entry(name.strip_prefix('*').unwrap_or(name).into()).or_insert(number);
            }
        }
        Chooser { keys, names }
    }

    fn choose(&self, host: &[u8]) -> usize {
        if self.keys.len() < 2 {
            return 0;
        }
        let mut scratch = Vec::new();
        let host = crate::host::normalise_host(host, &mut scratch).ok().and_then(|host| std::str::from_utf8(host).ok());
        let Some(host) = host else { return 0 };
        let exact = self.names.get(host);
        let wildcard = || host.find('.').and_then(|dot| self.names.get(&host[dot..]));
        exact.or_else(wildcard).copied().unwrap_or(0)
    }
}

impl ResolvesServerCert for Chooser {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        aside::asks(hello.server_name());
        let number = hello.server_name().map_or(0, |name| self.choose(name.as_bytes()));
        self.keys.get(number).map(|key| key.key().clone())
    }
}
