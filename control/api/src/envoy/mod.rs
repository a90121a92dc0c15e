//! What an Envoy is sent in the place of what a proxy of ours is: the same resources, with what it does otherwise put into
//! words of its own. What it has no words for it is not sent: a listener that is not there lets nobody in.
//!
//! | word | what an Envoy is told beside |
//! | --- | --- |
//! | `tls` with the joined identity | where on its own disk that is |
//! | `forwarded: { mode: replace }` | to remove the field before anything else |
//! | `limits: { body }` | to hold bodies back, and to refuse those that are longer |
//! | `deny`, `allow` of tcp | to connect to the service when the client has sent something: its rules are asked no earlier |
//! | `cors` of routes with methods or headers | to answer preflights before their route does |
//! | `limits: { pending: 0 }` of a service | 1: it counts who opens a connection too |
//! | `balance: peak-ewma` | `least_request` alone |

mod words;

pub use words::{Word, words};

use std::net::SocketAddr;

use envoy_types::pb::{
    envoy::{
        config::{
            cluster::v3::Cluster,
            common::mutation_rules::v3::{HeaderMutation, header_mutation},
            core::v3::{
                Node, PathConfigSource, TransportSocket, TypedExtensionConfig, config_source::ConfigSourceSpecifier,
                transport_socket,
            },
            listener::v3::{Filter, Listener, filter},
            route::v3::{RouteAction, RouteConfiguration, route::Action, route_action::ClusterSpecifier},
        },
        extensions::{
            filters::{
                http::buffer::v3::Buffer,
                network::{
                    http_connection_manager::v3::{HttpConnectionManager, HttpFilter, http_filter},
                    rbac::v3::Rbac,
                    tcp_proxy::v3::{TcpProxy, UpstreamConnectMode},
                },
            },
            http::early_header_mutation::header_mutation::v3::HeaderMutation as EarlyMutation,
            transport_sockets::{
                proxy_protocol::v3::ProxyProtocolUpstreamTransport,
                tls::v3::{CommonTlsContext, DownstreamTlsContext, UpstreamTlsContext},
            },
        },
    },
    google::protobuf::{Any, Struct, UInt32Value, value::Kind},
};

use crate::{
    model::{Address, ForwardedMode},
    resources::Packed,
    translate::{PREFLIGHT, address},
    xds,
};

/// What an Envoy calls itself.
const PROGRAM: &str = "envoy";
/// Under `xds::METADATA` in a node's metadata: where its identity is.
const METADATA_IDENTITY: &str = "identity";
/// The longest path, bytes.
const MOST_PATH: usize = 1024;
/// What begins the names of types that are our own.
const OURS: &[u8] = b"/ringway.v1.";
/// What a client may send before the service is connected, bytes.
const EARLY_BYTES: u32 = 64 * 1024;

/// The longest body that an Envoy can be told, bytes.
const MOST_BODY: u64 = u32::MAX as u64;
/// No service: their names have no `:`.
const NOWHERE: &str = "ringway:nowhere";

const EARLY_MUTATION: &str =
    "type.googleapis.com/envoy.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation";
const BUFFER: &str = "type.googleapis.com/envoy.extensions.filters.http.buffer.v3.Buffer";

/// One Envoy, as far as it told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envoy {
    /// The file with the secret that is its identity.
    identity: String,
}

impl Envoy {
    /// The Envoy that a client says it is; `None`: it is something else.
    pub fn of(node: &Node) -> Option<Envoy> {
        if node.user_agent_name != PROGRAM {
            return None;
        }
        let told = node.metadata.as_ref().and_then(|metadata| field(metadata, xds::METADATA));
        let told = match told {
            Some(Kind::StructValue(ours)) => field(ours, METADATA_IDENTITY),
            _ => None,
        };
        let identity = match told {
            Some(Kind::StringValue(path)) if is_path(path) => path.clone(),
            _ => xds::IDENTITY_PATH.to_owned(),
        };
        Some(Envoy { identity })
    }

    /// A resource as this Envoy takes it; `None`: as it is.
    ///
    /// # Errors
    /// What in it an Envoy has no words for: it must not be sent.
    pub fn fit(&self, of: &Packed) -> Result<Option<Packed>, String> {
        let fitted = if xds::is(&of.body, xds::LISTENER) {
            Some(Packed::listener(&self.listener(xds::decode(&of.body, xds::LISTENER)?)?))
        } else if xds::is(&of.body, xds::CLUSTER) {
            Some(Packed::cluster(&self.cluster(xds::decode(&of.body, xds::CLUSTER)?)?))
        } else if xds::is(&of.body, xds::ROUTE_CONFIGURATION) {
            Some(Packed::routes(&routes(xds::decode(&of.body, xds::ROUTE_CONFIGURATION)?)))
        } else {
            None
        };
        match fitted.as_ref().unwrap_or(of).body.value.windows(OURS.len()).any(|some| some == OURS) {
            true => Err("it has a type of ringway's own".to_owned()),
            false => Ok(fitted),
        }
    }

    fn listener(&self, mut of: Listener) -> Result<Listener, String> {
        let metadata = of.metadata.as_ref().and_then(|metadata| metadata.filter_metadata.get(xds::METADATA));
        let ours = Ours::read(metadata);
        for chain in &mut of.filter_chains {
            if let Some(socket) = &mut chain.transport_socket {
                self.socket(socket)?;
            }
            let has_rules = chain.filters.iter().any(refuses);
            for filter in &mut chain.filters {
                let Some(filter::ConfigType::TypedConfig(config)) = &mut filter.config_type else { continue };
                if xds::is(config, xds::HTTP_CONNECTION_MANAGER) {
                    let manager = manager(xds::decode(config, xds::HTTP_CONNECTION_MANAGER)?, &ours)?;
                    *config = xds::any(xds::HTTP_CONNECTION_MANAGER, &manager);
                } else if has_rules && xds::is(config, xds::TCP_PROXY) {
                    let proxy: TcpProxy = xds::decode(config, xds::TCP_PROXY)?;
                    *config = xds::any(xds::TCP_PROXY, &late(proxy));
                }
            }
        }
        Ok(of)
    }

    fn cluster(&self, mut of: Cluster) -> Result<Cluster, String> {
        if let Some(socket) = &mut of.transport_socket {
            self.socket(socket)?;
        }
        let thresholds = of.circuit_breakers.iter_mut().flat_map(|limits| &mut limits.thresholds);
        for pending in thresholds.filter_map(|limits| limits.max_pending_requests.as_mut()) {
            pending.value = pending.value.max(1);
        }
        if let Some(balance) = &mut of.load_balancing_policy {
            let typed = |one: &TypedExtensionConfig| one.typed_config.as_ref().is_some_and(is_ours);
            balance.policies.retain(|policy| !policy.typed_extension_config.as_ref().is_some_and(typed));
        }
        Ok(of)
    }

    /// Tells TLS where the identity is.
    fn socket(&self, of: &mut TransportSocket) -> Result<(), String> {
        let Some(transport_socket::ConfigType::TypedConfig(config)) = &mut of.config_type else { return Ok(()) };
        if xds::is(config, xds::DOWNSTREAM_TLS) {
            let mut context: DownstreamTlsContext = xds::decode(config, xds::DOWNSTREAM_TLS)?;
            self.find(context.common_tls_context.as_mut());
            *config = xds::any(xds::DOWNSTREAM_TLS, &context);
        } else if xds::is(config, xds::UPSTREAM_TLS) {
            let mut context: UpstreamTlsContext = xds::decode(config, xds::UPSTREAM_TLS)?;
            self.find(context.common_tls_context.as_mut());
            *config = xds::any(xds::UPSTREAM_TLS, &context);
        } else if xds::is(config, xds::UPSTREAM_PROXY_PROTOCOL) {
            let mut around: ProxyProtocolUpstreamTransport = xds::decode(config, xds::UPSTREAM_PROXY_PROTOCOL)?;
            if let Some(inner) = &mut around.transport_socket {
                self.socket(inner)?;
            }
            *config = xds::any(xds::UPSTREAM_PROXY_PROTOCOL, &around);
        }
        Ok(())
    }

    fn find(&self, of: Option<&mut CommonTlsContext>) {
        let secrets = of.into_iter().flat_map(|context| &mut context.tls_certificate_sds_secret_configs);
        for source in secrets.filter(|one| one.name == xds::IDENTITY_SECRET).filter_map(|one| one.sds_config.as_mut()) {
            let path = PathConfigSource { path: self.identity.clone(), ..PathConfigSource::default() };
            source.config_source_specifier = Some(ConfigSourceSpecifier::PathConfigSource(path));
        }
    }
}

/// Where a listener takes connections; none at a unix socket.
pub fn address_of(listener: &Packed) -> Option<SocketAddr> {
    let listener: Listener = xds::decode(&listener.body, xds::LISTENER).ok()?;
    match address::read(listener.address.as_ref()?).ok()? {
        Address::Socket(address) => Some(address),
        Address::Unix(_) => None,
    }
}

/// What rides in our own metadata of a listener.
#[derive(Debug, Default)]
struct Ours {
    replaces: bool,
    body_bytes: Option<f64>,
}

impl Ours {
    fn read(of: Option<&Struct>) -> Ours {
        let get = |name: &str| of.and_then(|of| field(of, name));
        let replaces = matches!(get(xds::METADATA_FORWARDED), Some(Kind::StringValue(mode)) if mode == ForwardedMode::Replace.word());
        let body_bytes = match get(xds::METADATA_BODY_BYTES) {
            Some(Kind::NumberValue(bytes)) => Some(*bytes),
            _ => None,
        };
        Ours { replaces, body_bytes }
    }
}

fn manager(mut of: HttpConnectionManager, ours: &Ours) -> Result<HttpConnectionManager, String> {
    if ours.replaces {
        if of.xff_num_trusted_hops > 0 {
            return Err("`forwarded: { mode: replace }` with `trusted-hops`: an Envoy has no word for it".to_owned());
        }
        let remove = HeaderMutation { action: Some(header_mutation::Action::Remove("x-forwarded-for".to_owned())) };
        of.early_header_mutation_extensions.push(TypedExtensionConfig {
            name: "envoy.http.early_header_mutation.header_mutation".to_owned(),
            typed_config: Some(xds::any(EARLY_MUTATION, &EarlyMutation { mutations: vec![remove] })),
        });
    }
    if let Some(bytes) = ours.body_bytes {
        if !(1.0..=MOST_BODY as f64).contains(&bytes) {
            return Err("`limits: { body }` of 4 GiB or more, or of nothing: an Envoy has no word for it".to_owned());
        }
        // An upgrade has no end to wait for.
        for upgrade in &mut of.upgrade_configs {
            upgrade.filters.clone_from(&of.http_filters);
        }
        let buffer = Buffer { max_request_bytes: Some(UInt32Value { value: bytes as u32 }) };
        let filter = HttpFilter {
            name: "envoy.filters.http.buffer".to_owned(),
            config_type: Some(http_filter::ConfigType::TypedConfig(xds::any(BUFFER, &buffer))),
            ..HttpFilter::default()
        };
        let last = of.http_filters.len().saturating_sub(1);
        of.http_filters.insert(last, filter);
    }
    Ok(of)
}

/// An Envoy's filter that answers preflights looks at none whose route answers by itself. It answers them all, so nothing
/// goes to that cluster, which there is not.
fn routes(mut of: RouteConfiguration) -> RouteConfiguration {
    let routes = of.virtual_hosts.iter_mut().flat_map(|host| &mut host.routes);
    for preflight in routes.filter(|route| route.name.ends_with(PREFLIGHT)) {
        let nowhere = ClusterSpecifier::Cluster(NOWHERE.to_owned());
        preflight.action =
            Some(Action::Route(RouteAction { cluster_specifier: Some(nowhere), ..RouteAction::default() }));
    }
    of
}

/// Connects to the service when the client has sent something: an Envoy asks its rules no earlier, and what the service
/// says first would reach whom they refuse.
fn late(of: TcpProxy) -> TcpProxy {
    TcpProxy {
        upstream_connect_mode: UpstreamConnectMode::OnDownstreamData as i32,
        max_early_data_bytes: Some(UInt32Value { value: EARLY_BYTES }),
        ..of
    }
}

/// Whether it is rules that do more than try.
fn refuses(filter: &Filter) -> bool {
    let Some(filter::ConfigType::TypedConfig(config)) = &filter.config_type else { return false };
    xds::decode::<Rbac>(config, xds::NETWORK_RBAC).is_ok_and(|rules| rules.rules.is_some())
}

fn is_ours(config: &Any) -> bool {
    config.type_url.as_bytes().windows(OURS.len()).any(|some| some == OURS)
}

fn is_path(text: &str) -> bool {
    text.starts_with('/') && text.len() <= MOST_PATH && !text.contains(char::is_control)
}

fn field<'s>(of: &'s Struct, name: &str) -> Option<&'s Kind> {
    of.fields.get(name)?.kind.as_ref()
}
