//! Which files a configuration names, and what for.

use api::envoy_types::pb::envoy::config::core::v3::data_source::Specifier;
use api::envoy_types::pb::envoy::config::core::v3::{DataSource, TransportSocket, transport_socket};
use api::envoy_types::pb::envoy::extensions::transport_sockets::proxy_protocol::v3::ProxyProtocolUpstreamTransport;
use api::envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::common_tls_context::ValidationContextType;
use api::envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, CommonTlsContext, DownstreamTlsContext, TlsCertificate, UpstreamTlsContext, secret,
};
use api::{Resources, xds};
use std::collections::BTreeMap;

/// What a file is for: its size is bounded accordingly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Use {
    /// A certificate chain.
    Certificate,
    /// A private key: others should not read it.
    Key,
    /// Roots to trust, or certificates not to trust any more.
    #[default]
    Trust,
}

impl Use {
    /// How large such a file may be, bytes.
    pub(super) fn most_bytes(self) -> u64 {
        match self {
            Use::Certificate | Use::Key => 1 << 20,
            Use::Trust => 16 << 20,
        }
    }
}

/// The files of a configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// What each is for.
    pub(crate) uses: BTreeMap<Box<str>, Use>,
    /// Files that change together: a certificate and its key, the parts of a bundle.
    pub(crate) groups: Vec<Vec<Box<str>>>,
}

impl Wanted {
    /// The files that these resources name. What their TLS contexts do not explain is read all the same.
    pub(crate) fn of(resources: &Resources) -> Wanted {
        let mut wanted = Wanted::default();
        let chains = resources.listeners.iter().flat_map(|listener| &listener.filter_chains);
        let servers = chains.filter_map(|chain| chain.transport_socket.as_ref());
        let clients = resources.clusters.iter().filter_map(|cluster| cluster.transport_socket.as_ref());
        for context in servers.chain(clients).filter_map(tls_context) {
            context.tls_certificates.iter().for_each(|certificate| wanted.pair(certificate));
            if let Some(ValidationContextType::ValidationContext(context)) = &context.validation_context_type {
                wanted.trust(context);
            }
        }
        for secret in &resources.secrets {
            match &secret.r#type {
                Some(secret::Type::TlsCertificate(certificate)) => wanted.pair(certificate),
                Some(secret::Type::ValidationContext(context)) => wanted.trust(context),
                _ => {}
            }
        }
        for name in &resources.files {
            wanted.uses.entry(name.as_str().into()).or_default();
        }
        wanted.groups.sort();
        wanted.groups.dedup();
        wanted
    }

    fn pair(&mut self, certificate: &TlsCertificate) {
        let chain = file(certificate.certificate_chain.as_ref()).map(|name| (name, Use::Certificate));
        let key = file(certificate.private_key.as_ref()).map(|name| (name, Use::Key));
        // One file may hold both: then it is a key.
        self.group(chain.into_iter().chain(key));
    }

    fn trust(&mut self, context: &CertificateValidationContext) {
        let Ok(Some(trust)) = xds::Trust::take(&mut context.clone()) else { return };
        let files = trust.roots.iter().chain(&trust.crl).filter_map(|source| file(Some(source)));
        self.group(files.map(|name| (name, Use::Trust)));
    }

    fn group<'a>(&mut self, files: impl Iterator<Item = (&'a str, Use)>) {
        let mut group: Vec<Box<str>> = Vec::new();
        for (name, for_what) in files {
            self.uses.insert(name.into(), for_what);
            if group.iter().all(|known| **known != *name) {
                group.push(name.into());
            }
        }
        if !group.is_empty() {
            self.groups.push(group);
        }
    }
}

/// What both kinds of TLS contexts have in common.
pub(crate) fn tls_context(socket: &TransportSocket) -> Option<CommonTlsContext> {
    let transport_socket::ConfigType::TypedConfig(config) = socket.config_type.as_ref()?;
    let server = || xds::decode::<DownstreamTlsContext>(config, xds::DOWNSTREAM_TLS).ok()?.common_tls_context;
    let client = || xds::decode::<UpstreamTlsContext>(config, xds::UPSTREAM_TLS).ok()?.common_tls_context;
    // TLS behind a PROXY header.
    let behind = || {
        let outer = xds::decode::<ProxyProtocolUpstreamTransport>(config, xds::UPSTREAM_PROXY_PROTOCOL).ok()?;
        let inner = outer.transport_socket?;
        let transport_socket::ConfigType::TypedConfig(config) = inner.config_type?;
        xds::decode::<UpstreamTlsContext>(&config, xds::UPSTREAM_TLS).ok()?.common_tls_context
    };
    server().or_else(client).or_else(behind)
}

fn file(source: Option<&DataSource>) -> Option<&str> {
    match source?.specifier.as_ref()? {
        Specifier::Filename(name) => Some(name),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_known_by_what_they_are_for_and_belong_together() {
        let text = "
identity: { certificate: own.pem, key: own.key, trust: { roots: [a.pem, b.pem], domains: [shop], crl: gone.pem } }
listeners:
  web:
    address: 127.0.0.1:8443
    protocol: http
    tls: { certificates: [ { certificate: web.pem, key: web.key }, { certificate: both.pem, key: both.pem } ] }
    routes: [ { name: all, to: cart } ]
services:
  cart: { endpoints: ['10.0.0.1:80'], tls: { expect: 'spiffe://shop/cart' } }
  out: { endpoints: ['10.0.0.2:80'], tls: { expect: out.example.com } }
  behind: { endpoints: ['10.0.0.3:80'], proxy-protocol: v2, tls: { expect: out.example.com, trust: behind.pem } }
";
        let resources = api::translate(&api::load(text, "/etc/ringway/r.yaml").unwrap());
        let wanted = Wanted::of(&resources);
        let name = |name: &str| -> Box<str> { format!("/etc/ringway/{name}").into() };
        let for_what = |file: &str| wanted.uses[&name(file)];
        assert_eq!([for_what("own.pem"), for_what("web.pem")], [Use::Certificate; 2]);
        assert_eq!([for_what("own.key"), for_what("web.key"), for_what("both.pem")], [Use::Key; 3]);
        assert_eq!([for_what("a.pem"), for_what("b.pem"), for_what("gone.pem")], [Use::Trust; 3]);

        assert_eq!(wanted.uses[xds::SYSTEM_ROOTS], Use::Trust);
        let groups: Vec<String> = wanted.groups.iter().map(|group| group.join(" ")).collect();
        // `behind.pem`: TLS behind a PROXY header.
        let expected = ["a.pem b.pem gone.pem", "behind.pem", "both.pem", "own.pem own.key", "web.pem web.key"];
        let expected = expected.map(|group| group.split(' ').map(name).collect::<Vec<_>>().join(" "));
        assert_eq!(groups[..5], expected);
        assert_eq!(groups[5..], [xds::SYSTEM_ROOTS]);
        let names: std::collections::BTreeSet<String> = wanted.uses.keys().map(ToString::to_string).collect();
        assert_eq!(names, resources.files);
    }
}
