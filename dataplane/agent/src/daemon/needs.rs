//! What a resource needs of others: a listener its routes, a cluster its endpoints, both their secrets. By this, names are
//! subscribed to, and by this it is known what is still on its way.

use crate::files::tls_context;
use api::envoy_types::pb::envoy::config::cluster::v3::Cluster;
use api::envoy_types::pb::envoy::config::cluster::v3::cluster::{ClusterDiscoveryType, DiscoveryType};
use api::envoy_types::pb::envoy::config::core::v3::TransportSocket;
use api::envoy_types::pb::envoy::config::core::v3::config_source::ConfigSourceSpecifier;
use api::envoy_types::pb::envoy::config::listener::v3::{Listener, filter};
use api::envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager;
use api::envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::RouteSpecifier;
use api::envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::SdsSecretConfig;
use api::envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::common_tls_context::ValidationContextType;
use api::xds;
use std::collections::BTreeSet;

/// The names of other resources that one needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Needs {
    /// RDS
    pub(crate) routes: BTreeSet<String>,
    /// EDS
    pub(crate) endpoints: BTreeSet<String>,
    /// SDS, over the stream.
    pub(crate) secrets: BTreeSet<String>,
    /// What this proxy proves itself with: it comes from nowhere but here.
    pub(crate) identity: bool,
}

impl Needs {
    /// A listener's.
    pub(crate) fn of_listener(listener: &Listener) -> Needs {
        let mut needs = Needs::default();
        for chain in listener.filter_chains.iter().chain(&listener.default_filter_chain) {
            needs.socket(chain.transport_socket.as_ref());
            for filter in &chain.filters {
                if let Some(filter::ConfigType::TypedConfig(config)) = &filter.config_type
                    && let Ok(manager) = xds::decode::<HttpConnectionManager>(config, xds::HTTP_CONNECTION_MANAGER)
                    && let Some(RouteSpecifier::Rds(rds)) = manager.route_specifier
                {
                    needs.routes.insert(rds.route_config_name);
                }
            }
        }
        needs
    }

    /// A cluster's.
    pub(crate) fn of_cluster(cluster: &Cluster) -> Needs {
        let mut needs = Needs::default();
        needs.socket(cluster.transport_socket.as_ref());
        if cluster.cluster_discovery_type == Some(ClusterDiscoveryType::Type(DiscoveryType::Eds as i32)) {
            let other = cluster.eds_cluster_config.as_ref().map(|eds| eds.service_name.clone());
            needs.endpoints.insert(other.filter(|name| !name.is_empty()).unwrap_or_else(|| cluster.name.clone()));
        }
        needs
    }

    fn socket(&mut self, socket: Option<&TransportSocket>) {
        let Some(context) = socket.and_then(tls_context) else { return };
        context.tls_certificate_sds_secret_configs.iter().for_each(|config| self.secret(config));
        match &context.validation_context_type {
            Some(ValidationContextType::ValidationContextSdsSecretConfig(config)) => self.secret(config),
            Some(ValidationContextType::CombinedValidationContext(combined)) => {
                combined.validation_context_sds_secret_config.iter().for_each(|config| self.secret(config));
            }
            _ => {}
        }
    }

    fn secret(&mut self, config: &SdsSecretConfig) {
        let source = config.sds_config.as_ref().and_then(|source| source.config_source_specifier.as_ref());
        match source {
            Some(ConfigSourceSpecifier::Ads(_) | ConfigSourceSpecifier::Self_(_)) => {
                self.secrets.insert(config.name.clone());
            }
            Some(ConfigSourceSpecifier::PathConfigSource(_)) => self.identity = true,
            // Other sources are refused by the compiler; a name alone is a secret of a file.
            _ => {}
        }
    }
}
