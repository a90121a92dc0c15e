//! Words that a proxy claims (`Node.client_features`), and what is sent to one of an older release that does not claim them: the
//! same resource in words that it knows, where that makes nothing weaker; otherwise nothing, and its name and why are told.
//!
//! | word | what it stands for | without it |
//! | --- | --- | --- |
//! | `ringway.peak-ewma` | `balance: peak-ewma` | `least_request`, which stands behind it anyway |
//! | `ringway.sds` | secrets that come over the same stream | listeners and services that name one are not sent |
//! | `ringway.rejected` | refusals resource by resource | one refusal counts for all of its message |
//! | `ringway.session` | reports and orders | it has no session |
//!
//! A field that is added to what proxies are sent, and that a proxy of the two releases before does not know, gets a word here. A
//! client that is no proxy of ours claims none of them, and is sent everything: it refuses what it does not know.

use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::core::v3::{
    Node, TransportSocket, config_source::ConfigSourceSpecifier, transport_socket::ConfigType,
};
use envoy_types::pb::envoy::config::listener::v3::Listener;
use envoy_types::pb::envoy::extensions::transport_sockets::proxy_protocol::v3::ProxyProtocolUpstreamTransport;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::common_tls_context::ValidationContextType;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::{
    CommonTlsContext, DownstreamTlsContext, SdsSecretConfig, UpstreamTlsContext,
};

use crate::{resources::Packed, xds};

/// What our own proxies call themselves (`Node.user_agent_name`).
pub const PROGRAM: &str = "ringway";

const PEAK_EWMA: &str = "ringway.peak-ewma";
const SDS: &str = "ringway.sds";

/// All words, as a proxy of this release claims them.
pub const FEATURES: [&str; 4] = ["ringway.rejected", "ringway.session", PEAK_EWMA, SDS];

/// A proxy of ours that lacks some of the words that change what it is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lacking {
    peak_ewma: bool,
    sds: bool,
}

impl Lacking {
    /// What the client that says this lacks; `None`: nothing, or it is not of ours.
    pub fn of(node: &Node) -> Option<Lacking> {
        let lacks = |word: &str| node.client_features.iter().all(|claimed| claimed != word);
        let lacking = Lacking { peak_ewma: lacks(PEAK_EWMA), sds: lacks(SDS) };
        (node.user_agent_name == PROGRAM && (lacking.peak_ewma || lacking.sds)).then_some(lacking)
    }

    /// A resource as this proxy understands it; `None`: as it is.
    ///
    /// # Errors
    /// What in it the proxy would not understand, or would take for something weaker: it must not be sent.
    pub fn fit(&self, of: &Packed) -> Result<Option<Packed>, String> {
        let mut sockets = Vec::new();
        let mut fitted = None;
        if xds::is(&of.body, xds::LISTENER) {
            let listener: Listener = xds::decode(&of.body, xds::LISTENER)?;
            let chains = listener.filter_chains.into_iter().chain(listener.default_filter_chain);
            sockets.extend(chains.filter_map(|chain| chain.transport_socket));
        } else if xds::is(&of.body, xds::CLUSTER) {
            let mut cluster: Cluster = xds::decode(&of.body, xds::CLUSTER)?;
            sockets.extend(cluster.transport_socket.clone());
            let matches = cluster.transport_socket_matches.iter();
            sockets.extend(matches.filter_map(|one| one.transport_socket.clone()));
            if self.peak_ewma && without_peak_ewma(&mut cluster)? {
                fitted = Some(Packed::cluster(&cluster));
            }
        }
        if self.sds && sockets.iter().map(asks).collect::<Result<Vec<_>, _>>()?.contains(&true) {
            return Err(missing(SDS));
        }
        Ok(fitted)
    }
}

fn missing(word: &str) -> String {
    format!("it needs `{word}`, which this release of the proxy does not know: update the proxy")
}

/// Takes the policy away, if there is another behind it; whether it did.
fn without_peak_ewma(of: &mut Cluster) -> Result<bool, String> {
    let Some(balance) = &mut of.load_balancing_policy else { return Ok(false) };
    let before = balance.policies.len();
    balance.policies.retain(|policy| {
        let config = policy.typed_extension_config.as_ref().and_then(|one| one.typed_config.as_ref());
        !config.is_some_and(|config| xds::is(config, xds::PEAK_EWMA))
    });
    match balance.policies.len() {
        0 if before > 0 => Err(missing(PEAK_EWMA)),
        after => Ok(after < before),
    }
}

/// Whether a transport socket names secrets that come over the stream.
fn asks(of: &TransportSocket) -> Result<bool, String> {
    let Some(ConfigType::TypedConfig(config)) = &of.config_type else { return Ok(false) };
    let common = if xds::is(config, xds::DOWNSTREAM_TLS) {
        xds::decode::<DownstreamTlsContext>(config, xds::DOWNSTREAM_TLS)?.common_tls_context
    } else if xds::is(config, xds::UPSTREAM_TLS) {
        xds::decode::<UpstreamTlsContext>(config, xds::UPSTREAM_TLS)?.common_tls_context
    } else if xds::is(config, xds::UPSTREAM_PROXY_PROTOCOL) {
        let around: ProxyProtocolUpstreamTransport = xds::decode(config, xds::UPSTREAM_PROXY_PROTOCOL)?;
        return around.transport_socket.as_ref().map_or(Ok(false), asks);
    } else {
        None
    };
    Ok(common.is_some_and(|common| names(&common).any(comes_over_ads)))
}

fn names(of: &CommonTlsContext) -> impl Iterator<Item = &SdsSecretConfig> {
    let trust = match &of.validation_context_type {
        Some(ValidationContextType::ValidationContextSdsSecretConfig(one)) => Some(one),
        Some(ValidationContextType::CombinedValidationContext(both)) => {
            both.validation_context_sds_secret_config.as_ref()
        }
        _ => None,
    };
    of.tls_certificate_sds_secret_configs.iter().chain(trust)
}

fn comes_over_ads(of: &SdsSecretConfig) -> bool {
    let source = of.sds_config.as_ref().and_then(|source| source.config_source_specifier.as_ref());
    matches!(source, Some(ConfigSourceSpecifier::Ads(_)))
}
