//! What comes and goes without a new document: endpoints, secrets, roots.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::SocketAddr,
};

use envoy_types::pb::envoy::{
    config::core::v3::{DataSource, TypedExtensionConfig, data_source::Specifier},
    extensions::transport_sockets::tls::v3::{
        CertificateValidationContext, Secret, SpiffeCertValidatorConfig, TlsCertificate, secret::Type,
        spiffe_cert_validator_config::TrustDomain,
    },
};

use super::{Group, Mesh};
use crate::{
    finding::Findings,
    model::{Address, Endpoint},
    tree, values, xds,
};

/// A certificate chain and its key, PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyPair {
    /// The leaf first.
    pub chain: Vec<u8>,
    /// The leaf's key.
    pub key: Vec<u8>,
}

/// Without the key: what is printed ends in logs.
impl fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyPair").field("chain", &String::from_utf8_lossy(&self.chain)).finish_non_exhaustive()
    }
}

/// What a mesh's resources depend on beside the document.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    /// By group and listener: where its proxies that are ready say they listen.
    pub endpoints: BTreeMap<(String, String), BTreeSet<SocketAddr>>,
    /// By service: what operators set.
    pub set: BTreeMap<String, Vec<Address>>,
    /// By group and name: what operators put there.
    pub secrets: BTreeMap<(String, String), KeyPair>,
    /// The roots of the mesh, PEM, one after the other.
    pub trust: Vec<u8>,
}

impl State {
    /// The endpoints that a group's proxies report, in an order that does not depend on who came first.
    pub(super) fn reported(&self, group: &str, listener: &str) -> Vec<Endpoint<Address>> {
        let found = self.endpoints.get(&(group.to_owned(), listener.to_owned()));
        found.into_iter().flatten().map(|address| endpoint(Address::Socket(*address))).collect()
    }

    /// The endpoints that operators set.
    pub(super) fn set(&self, service: &str) -> Vec<Endpoint<Address>> {
        self.set.get(service).into_iter().flatten().cloned().map(endpoint).collect()
    }

    /// The roots, and those of the group's own secrets that are there.
    pub(super) fn secrets_of(&self, mesh: &Mesh, group: &Group) -> Vec<Secret> {
        let mut secrets = vec![trust(&mesh.trust_domain, &self.trust)];
        for name in group.secret_names() {
            let found = self.secrets.get(&(group.name.clone(), name.to_owned()));
            secrets.extend(found.map(|pair| certificate(name, pair)));
        }
        secrets
    }
}

fn endpoint(address: Address) -> Endpoint<Address> {
    Endpoint { address, weight: 1, zone: String::new() }
}

/// The roots of a mesh as the secret that TLS contexts name; they speak for its trust domain alone.
pub fn trust(trust_domain: &str, roots: &[u8]) -> Secret {
    let domain =
        TrustDomain { name: trust_domain.to_owned(), trust_bundle: Some(inline(roots)), ..TrustDomain::default() };
    let config = SpiffeCertValidatorConfig { trust_domains: vec![domain], ..SpiffeCertValidatorConfig::default() };
    let context = CertificateValidationContext {
        custom_validator_config: Some(TypedExtensionConfig {
            name: "envoy.tls.cert_validator.spiffe".to_owned(),
            typed_config: Some(xds::any(xds::SPIFFE_VALIDATOR, &config)),
        }),
        ..CertificateValidationContext::default()
    };
    Secret { name: xds::TRUST_SECRET.to_owned(), r#type: Some(Type::ValidationContext(context)) }
}

/// A certificate and its key as the secret that a listener of a mesh document names so.
pub fn certificate(name: &str, pair: &KeyPair) -> Secret {
    tls_certificate(xds::secret_name(name), pair)
}

/// A proxy's own certificate and key, as the secret that TLS contexts name; it never leaves the proxy.
pub fn identity(pair: &KeyPair) -> Secret {
    tls_certificate(xds::IDENTITY_SECRET.to_owned(), pair)
}

fn tls_certificate(name: String, pair: &KeyPair) -> Secret {
    let certificate = TlsCertificate {
        certificate_chain: Some(inline(&pair.chain)),
        private_key: Some(inline(&pair.key)),
        ..TlsCertificate::default()
    };
    Secret { name, r#type: Some(Type::TlsCertificate(certificate)) }
}

fn inline(bytes: &[u8]) -> DataSource {
    DataSource { specifier: Some(Specifier::InlineBytes(bytes.to_vec())), ..DataSource::default() }
}

/// As many as a document's list may have.
const MOST_ADDRESSES: usize = 4000;

/// Reads the addresses that an operator sets for a service: `ip:port` or `unix:/path`, sorted, none twice.
///
/// # Errors
/// The first that is none.
pub fn read_addresses(texts: &[String]) -> Result<Vec<Address>, String> {
    if texts.len() > MOST_ADDRESSES {
        return Err(format!("{} addresses; at most {MOST_ADDRESSES} are allowed", texts.len()));
    }
    let mut list = Vec::with_capacity(texts.len());
    for text in texts {
        let node = tree::Node {
            at: crate::finding::At::START,
            value: tree::Value::Scalar { text: text.clone(), plain: false },
        };
        let mut findings = Findings::default();
        let address = values::listen_address(&node, "", &mut findings);
        let relative = matches!(&address, Some(Address::Unix(path)) if !path.starts_with('/'));
        match address {
            Some(_) if relative => return Err(format!("{text}: a unix socket's path begins with `/`")),
            Some(address) if list.contains(&address) => return Err(format!("{text} stands twice")),
            Some(address) => list.push(address),
            None => {
                return Err(findings.finish("").into_iter().map(|finding| finding.message).next().unwrap_or_default());
            }
        }
    }
    list.sort_by_key(|address| format!("{address:?}"));
    Ok(list)
}
