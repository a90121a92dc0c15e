//! Which sides of the proxy speak TLS in a run, with which certificates.

use crate::choice::Choice;
use ringway_tests::certificates::{Authority, Issued, Key, Leaf};
use ringway_tests::tls::{TLS_1_2, TLS_1_3};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection};
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::{Arc, LazyLock};
use std::time::{SystemTime, UNIX_EPOCH};

/// The name of everybody who has one.
const NAME: &str = "sim.test";
const PROXY: &str = "spiffe://sim/proxy";
/// A seed's bits from here on say who speaks TLS.
const MARK: u32 = 40;

/// What one side speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Speech {
    Plain,
    /// TLS 1.3.
    New,
    /// TLS 1.2.
    Old,
}

/// What both sides of the proxy speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Security {
    pub(crate) client: Speech,
    pub(crate) origin: Speech,
}

impl Security {
    /// As a seed says it.
    pub(crate) fn of(seed: u64) -> Security {
        let speech = |number| [Speech::Plain, Speech::New, Speech::Old][number as usize % 3];
        let mark = seed >> MARK;
        Security { client: speech(mark), origin: speech(mark / 3) }
    }

    /// Another seed, with TLS on one side or on both: each of eight ways in turn.
    pub(crate) fn marked(seed: u64, turn: u64) -> u64 {
        seed | (1 + turn % 8) << MARK
    }

    pub(crate) fn client_is_secure(self) -> bool {
        self.client != Speech::Plain
    }

    /// The configuration, with TLS where it is wanted. It is written as the scenarios write it: a listener's address ends
    /// its line, or stands in a map of one line; a service's endpoints come first.
    pub(crate) fn configure(self, yaml: &str) -> String {
        if self.client == Speech::Plain && self.origin == Speech::Plain {
            return yaml.to_owned();
        }
        let listener =
            "tls: { certificates: [ { certificate: own.pem, key: own.key } ], clients: optional, trust: ca.pem }";
        let service = format!("tls: {{ expect: {NAME}, trust: ca.pem }}, endpoints: [");
        let mut out = String::from("identity: { certificate: own.pem, key: own.key, trust: ca.pem }\n");
        for line in yaml.lines() {
            let mut line =
                if self.origin == Speech::Plain { line.to_owned() } else { line.replace("endpoints: [", &service) };
            if let (true, Some(at)) = (self.client_is_secure(), line.find("address: ")) {
                match line[at..].find(',') {
                    Some(comma) => line.insert_str(at + comma, &format!(", {listener}")),
                    None => line.push_str(&format!("\n{}{listener}", " ".repeat(at))),
                }
            }
            out.push_str(&line);
            out.push('\n');
        }
        out
    }

    /// What plans take from outside, at a time of the simulation. Certificates and the keys of tickets change with each
    /// generation.
    pub(crate) fn outside(generation: u64, now_ns: u64) -> plan::World {
        let own = &SHOP.proxy[generation as usize % 2];
        let files = [("ca.pem", &SHOP.root), ("own.pem", &own.chain), ("own.key", &own.key)];
        let clock = wire::tls::Clock::default();
        clock.follow(SHOP.now_ns + now_ns, now_ns);
        let key = |generation: u64| [generation as u8; 32];
        let previous = (generation > 1).then(|| key(generation - 1));
        plan::World {
            files: files.into_iter().map(|(name, text)| (name.into(), Ok(text.as_bytes().into()))).collect(),
            clock,
            tickets: Some(wire::tls::TicketKeys { current: key(generation), previous }),
            ..plan::World::default()
        }
    }
}

/// Certificates of a run of tests.
struct Shop {
    root: String,
    proxy: [Issued; 2],
    client: Issued,
    origin: Issued,
    roots: Arc<RootCertStore>,
    provider: Arc<CryptoProvider>,
    /// When they were made, Unix nanoseconds.
    now_ns: u64,
}

static SHOP: LazyLock<Shop> = LazyLock::new(|| {
    let authority = Authority::of("sim", Key::Ed25519);
    let issue = |names: &[&str]| authority.issue(&Leaf::of(names).key(Key::Ed25519));
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(authority.der())).expect("a root");
    Shop {
        root: authority.pem(),
        proxy: [issue(&[NAME, PROXY]), issue(&[NAME, PROXY])],
        client: issue(&["spiffe://sim/client"]),
        origin: issue(&[NAME]),
        roots: Arc::new(roots),
        provider: Arc::new(rustls::crypto::ring::default_provider()),
        now_ns: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64),
    }
});

fn pair(of: &Issued) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let chain = CertificateDer::pem_slice_iter(of.chain.as_bytes()).map(|der| der.expect("PEM")).collect();
    (chain, PrivateKeyDer::from_pem_slice(of.key.as_bytes()).expect("a key"))
}

impl Speech {
    fn versions(self) -> &'static [&'static rustls::SupportedProtocolVersion] {
        if self == Speech::Old { TLS_1_2 } else { TLS_1_3 }
    }
}

/// Begins sessions of clients, which resume those before.
#[derive(Clone)]
pub(crate) struct Dialler {
    config: Arc<ClientConfig>,
    choice: Rc<RefCell<Choice>>,
}

impl Dialler {
    /// With a certificate to show or none; `None` where clients speak no TLS.
    pub(crate) fn new(security: Security, shows: bool, choice: Choice) -> Option<Dialler> {
        if !security.client_is_secure() {
            return None;
        }
        let config = ClientConfig::builder_with_provider(SHOP.provider.clone());
        let config = config.with_protocol_versions(security.client.versions()).expect("versions");
        let config = config.with_root_certificates(SHOP.roots.clone());
        let (chain, key) = pair(&SHOP.client);
        let config = if shows {
            config.with_client_auth_cert(chain, key).expect("a pair")
        } else {
            config.with_no_client_auth()
        };
        Some(Dialler { config: Arc::new(config), choice: Rc::new(RefCell::new(choice)) })
    }

    /// A session, and what it chooses by.
    pub(crate) fn begin(&self) -> (ClientConnection, Choice) {
        let name = ServerName::try_from(NAME).expect("a name");
        let connection = ClientConnection::new(self.config.clone(), name).expect("a connection");
        (connection, self.choice.borrow_mut().split())
    }
}

/// Begins sessions of origins, who want to see the proxy's certificate.
#[derive(Clone)]
pub(crate) struct Acceptor {
    config: Arc<ServerConfig>,
    choice: Rc<RefCell<Choice>>,
}

impl Acceptor {
    /// `None` where origins speak no TLS.
    pub(crate) fn new(security: Security, choice: Choice) -> Option<Acceptor> {
        if security.origin == Speech::Plain {
            return None;
        }
        let verifier = WebPkiClientVerifier::builder_with_provider(SHOP.roots.clone(), SHOP.provider.clone());
        let config = ServerConfig::builder_with_provider(SHOP.provider.clone());
        let config = config.with_protocol_versions(security.origin.versions()).expect("versions");
        let config = config.with_client_cert_verifier(verifier.build().expect("roots"));
        let (chain, key) = pair(&SHOP.origin);
        let config = config.with_single_cert(chain, key).expect("a pair");
        Some(Acceptor { config: Arc::new(config), choice: Rc::new(RefCell::new(choice)) })
    }

    /// As [`Dialler::begin`].
    pub(crate) fn begin(&self) -> (ServerConnection, Choice) {
        (ServerConnection::new(self.config.clone()).expect("a connection"), self.choice.borrow_mut().split())
    }
}
