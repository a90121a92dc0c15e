//! xDS words that both the translation and the plan's compiler need: type URLs, metadata keys, how a message is packed
//! into an `Any`, and the forms that quotas and trust have, written and read back.

mod quota;
mod trust;

pub use quota::{read_quota, write_quota};
pub use trust::Trust;

use envoy_types::pb::google::protobuf::Any;
use prost::Message;

/// LDS resources.
pub const LISTENER: &str = "type.googleapis.com/envoy.config.listener.v3.Listener";
/// RDS resources.
pub const ROUTE_CONFIGURATION: &str = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration";
/// CDS resources.
pub const CLUSTER: &str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";
/// EDS resources.
pub const CLUSTER_LOAD_ASSIGNMENT: &str = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment";
/// SDS resources.
pub const SECRET: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";
/// `pb::Rejected` in the details of a NACK.
pub const REJECTED: &str = "type.googleapis.com/ringway.v1.Rejected";

/// The secret that is a proxy's own certificate and key: SDS never carries it, a proxy has it from joining.
pub const IDENTITY_SECRET: &str = "identity";
/// Where an Envoy would find `IDENTITY_SECRET`; ringway asks its own agent.
pub const IDENTITY_PATH: &str = "/var/lib/ringway/identity.yaml";
/// The secret with the mesh's roots.
pub const TRUST_SECRET: &str = "mesh-trust";

/// The network filter of an http listener.
pub const HTTP_CONNECTION_MANAGER: &str =
    "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
/// The network filter of a tcp listener.
pub const TCP_PROXY: &str = "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy";
/// The last HTTP filter.
pub const ROUTER: &str = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router";
/// `tls` of a listener.
pub const DOWNSTREAM_TLS: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext";
/// `tls` of a service.
pub const UPSTREAM_TLS: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext";
/// Trust domains, each with its roots.
pub const SPIFFE_VALIDATOR: &str =
    "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.SPIFFECertValidatorConfig";
/// [`Trust`]: what the validators of others have no form for.
pub const TRUST: &str = "type.googleapis.com/ringway.v1.Trust";
/// Tells TLS from other bytes.
pub const TLS_INSPECTOR: &str = "type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector";
/// Reads a PROXY header from the front of a connection.
pub const PROXY_PROTOCOL: &str =
    "type.googleapis.com/envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol";
/// Writes a PROXY header before what another transport socket sends.
pub const UPSTREAM_PROXY_PROTOCOL: &str =
    "type.googleapis.com/envoy.extensions.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport";
/// TCP alone, as a transport socket.
pub const RAW_BUFFER: &str = "type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer";
/// Where Debian and its kin keep the roots that the system trusts.
pub const SYSTEM_ROOTS: &str = "/etc/ssl/certs/ca-certificates.crt";
/// `deny` or `allow` of requests.
pub const RBAC: &str = "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC";
/// The same of one route.
pub const RBAC_PER_ROUTE: &str = "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBACPerRoute";
/// `deny` or `allow` of connections.
pub const NETWORK_RBAC: &str = "type.googleapis.com/envoy.extensions.filters.network.rbac.v3.RBAC";
/// `quota`
pub const LOCAL_RATE_LIMIT: &str =
    "type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit";
/// Whose quota, by an expression.
pub const RATE_LIMIT_EXPRESSION: &str =
    "type.googleapis.com/envoy.extensions.rate_limit_descriptors.expr.v3.Descriptor";
/// The filter that answers preflights.
pub const CORS: &str = "type.googleapis.com/envoy.extensions.filters.http.cors.v3.Cors";
/// `cors`
pub const CORS_POLICY: &str = "type.googleapis.com/envoy.extensions.filters.http.cors.v3.CorsPolicy";
/// The access log to a file.
pub const FILE_ACCESS_LOG: &str = "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog";
/// A retry avoids endpoints that were tried.
pub const PREVIOUS_HOSTS: &str =
    "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate";

/// `balance: round-robin`
pub const ROUND_ROBIN: &str = "type.googleapis.com/envoy.extensions.load_balancing_policies.round_robin.v3.RoundRobin";
/// `balance: random`
pub const RANDOM: &str = "type.googleapis.com/envoy.extensions.load_balancing_policies.random.v3.Random";
/// `balance: least-request`
pub const LEAST_REQUEST: &str =
    "type.googleapis.com/envoy.extensions.load_balancing_policies.least_request.v3.LeastRequest";
/// `balance: peak-ewma`: our own; the message is empty. Stands before `LEAST_REQUEST`, which others take.
pub const PEAK_EWMA: &str = "type.googleapis.com/ringway.v1.PeakEwma";

/// The key of our settings in `filter_metadata`, and in a node's metadata.
pub const METADATA: &str = "ringway";
/// Under `METADATA` of an http listener: `append`, `replace` or `keep`.
pub const METADATA_FORWARDED: &str = "forwarded";
/// Under `METADATA` of an http listener: the largest request body, bytes, as a whole number; absent: no limit.
pub const METADATA_BODY_BYTES: &str = "body_bytes";

/// The secret with the certificate and key that operators put under this name.
pub fn secret_name(name: &str) -> String {
    format!("secret/{name}")
}

/// Packs a message under the type URL that belongs to it.
pub fn any(type_url: &str, message: &impl Message) -> Any {
    Any { type_url: type_url.to_owned(), value: message.encode_to_vec() }
}

/// Unpacks a message if it has this type URL (the part behind the last `/` decides, as protobuf says).
///
/// # Errors
/// Another type, or bytes that do not decode.
pub fn decode<M: Message + Default>(packed: &Any, type_url: &str) -> Result<M, String> {
    if !is(packed, type_url) {
        return Err(format!("{} stands where {type_url} is wanted", packed.type_url));
    }
    M::decode(packed.value.as_slice()).map_err(|e| format!("{type_url}: {e}"))
}

/// Whether a packed message is of this type.
pub fn is(packed: &Any, type_url: &str) -> bool {
    let name = |url: &str| url.rsplit('/').next().map(str::to_owned);
    name(&packed.type_url) == name(type_url)
}
