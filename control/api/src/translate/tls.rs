//! TLS contexts. Certificates, keys and bundles are named by file: what they hold is read by whoever compiles.

use std::collections::BTreeSet;

use envoy_types::pb::envoy::{
    config::core::v3::{
        ApiVersion, ConfigSource, DataSource, PathConfigSource, TransportSocket, config_source::ConfigSourceSpecifier,
        data_source::Specifier, transport_socket::ConfigType,
    },
    extensions::transport_sockets::tls::v3::{
        CertificateValidationContext, CommonTlsContext, DownstreamTlsContext, SdsSecretConfig, SubjectAltNameMatcher,
        TlsCertificate, UpstreamTlsContext,
        common_tls_context::{CombinedCertificateValidationContext, ValidationContextType},
        downstream_tls_context::SessionTicketKeysType,
        subject_alt_name_matcher::SanType,
    },
};

use super::{ads, policy::identity, yes};
use crate::{
    model::{Clients, Credential, Document, Expect, ListenerTls, Protocol, Roots, ServiceTls, Trust},
    xds,
};

/// `tls` of a listener, as a transport socket.
pub(super) fn downstream(of: &ListenerTls, protocol: &Protocol) -> TransportSocket {
    let expect: Vec<Expect> = of.expect.iter().cloned().map(Expect::Identity).collect();
    let alpn: &[&str] = if matches!(protocol, Protocol::Http(_)) { &["http/1.1", "http/1.0"] } else { &[] };
    let context = DownstreamTlsContext {
        common_tls_context: Some(CommonTlsContext {
            tls_certificates: of.certificates.iter().filter_map(certificate).collect(),
            tls_certificate_sds_secret_configs: of.certificates.iter().filter_map(secret).collect(),
            alpn_protocols: alpn.iter().map(|name| (*name).to_owned()).collect(),
            validation_context_type: of.trust.as_ref().map(|trust| validation(trust, &expect)),
            ..CommonTlsContext::default()
        }),
        require_client_certificate: if matches!(of.clients, Clients::Required | Clients::Migrate) {
            yes()
        } else {
            None
        },
        session_ticket_keys_type: (!of.tickets)
            .then_some(SessionTicketKeysType::DisableStatelessSessionResumption(true)),
        ..DownstreamTlsContext::default()
    };
    socket(xds::any(xds::DOWNSTREAM_TLS, &context))
}

/// `tls` of a service, as a transport socket. `http`: nothing but requests goes there.
pub(super) fn upstream(of: &ServiceTls, http: bool) -> TransportSocket {
    let roots = Roots { files: vec![xds::SYSTEM_ROOTS.to_owned()], domains: Vec::new(), crl: None };
    let system = Trust::Files(roots);
    let context = UpstreamTlsContext {
        common_tls_context: Some(CommonTlsContext {
            tls_certificates: of.shown.iter().filter_map(certificate).collect(),
            tls_certificate_sds_secret_configs: of.shown.iter().filter_map(secret).collect(),
            alpn_protocols: http.then(|| "http/1.1".to_owned()).into_iter().collect(),
            validation_context_type: Some(validation(of.trust.as_ref().unwrap_or(&system), &of.expect)),
            ..CommonTlsContext::default()
        }),
        sni: of.sni.clone().unwrap_or_default(),
        ..UpstreamTlsContext::default()
    };
    socket(xds::any(xds::UPSTREAM_TLS, &context))
}

fn socket(config: envoy_types::pb::google::protobuf::Any) -> TransportSocket {
    TransportSocket {
        name: "envoy.transport_sockets.tls".to_owned(),
        config_type: Some(ConfigType::TypedConfig(config)),
    }
}

fn certificate(of: &Credential) -> Option<TlsCertificate> {
    let Credential::Files { certificate, key } = of else { return None };
    Some(TlsCertificate {
        certificate_chain: Some(file(certificate)),
        private_key: Some(file(key)),
        ..TlsCertificate::default()
    })
}

/// What comes by SDS. The daemon has no workload's key: a proxy finds it at home, and an Envoy would at that path.
fn secret(of: &Credential) -> Option<SdsSecretConfig> {
    let (name, source) = match of {
        Credential::Files { .. } => return None,
        Credential::Secret(name) => (xds::secret_name(name), ads()),
        Credential::Joined => {
            let path = PathConfigSource { path: xds::IDENTITY_PATH.to_owned(), ..PathConfigSource::default() };
            let source = ConfigSource {
                resource_api_version: ApiVersion::V3 as i32,
                config_source_specifier: Some(ConfigSourceSpecifier::PathConfigSource(path)),
                ..ConfigSource::default()
            };
            (xds::IDENTITY_SECRET.to_owned(), source)
        }
    };
    Some(SdsSecretConfig { name, sds_config: Some(source) })
}

/// Who may be there, and whose word for it counts.
fn validation(trust: &Trust, expect: &[Expect]) -> ValidationContextType {
    let expect = expect.iter().map(expected).collect();
    match trust {
        Trust::Files(roots) => by_files(roots, expect),
        Trust::Mesh => ValidationContextType::CombinedValidationContext(CombinedCertificateValidationContext {
            default_validation_context: Some(CertificateValidationContext {
                match_typed_subject_alt_names: expect,
                ..CertificateValidationContext::default()
            }),
            validation_context_sds_secret_config: Some(SdsSecretConfig {
                name: xds::TRUST_SECRET.to_owned(),
                sds_config: Some(ads()),
            }),
            ..CombinedCertificateValidationContext::default()
        }),
    }
}

fn by_files(trust: &Roots, expect: Vec<SubjectAltNameMatcher>) -> ValidationContextType {
    let form = xds::Trust::of_files(&trust.files, &trust.domains, trust.crl.as_deref()).write();
    ValidationContextType::ValidationContext(CertificateValidationContext {
        match_typed_subject_alt_names: expect,
        ..form
    })
}

fn expected(of: &Expect) -> SubjectAltNameMatcher {
    let (kind, matcher) = match of {
        Expect::Identity(pattern) => (SanType::Uri, identity(pattern)),
        Expect::Name(name) => (SanType::Dns, super::policy::exact(name)),
    };
    SubjectAltNameMatcher { san_type: kind as i32, matcher: Some(matcher), ..SubjectAltNameMatcher::default() }
}

fn file(path: &str) -> DataSource {
    DataSource { specifier: Some(Specifier::Filename(path.to_owned())), ..DataSource::default() }
}

/// All files that the contexts of a document name.
pub(super) fn files(document: &Document) -> BTreeSet<String> {
    let mut files = BTreeSet::new();
    let mut pair = |of: &Credential| {
        if let Credential::Files { certificate, key } = of {
            files.extend([certificate.clone(), key.clone()]);
        }
    };
    let mut trusts: Vec<&Trust> = Vec::new();
    for tls in document.listeners.iter().filter_map(|listener| listener.tls.as_ref()) {
        tls.certificates.iter().for_each(&mut pair);
        trusts.extend(&tls.trust);
    }
    let mut system = false;
    for tls in document.services.iter().filter_map(|service| service.tls.as_ref()) {
        tls.shown.iter().for_each(&mut pair);
        trusts.extend(&tls.trust);
        system |= tls.trust.is_none();
    }
    for trust in trusts {
        if let Trust::Files(roots) = trust {
            files.extend(roots.files.iter().chain(&roots.crl).cloned());
        }
    }
    files.extend(system.then(|| xds::SYSTEM_ROOTS.to_owned()));
    files
}
