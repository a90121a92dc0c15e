//! What a document becomes: xDS v3 resources. The same messages whether they come from a file or from a daemon.

use std::{collections::BTreeSet, fmt, sync::Arc};

use envoy_types::pb::{
    envoy::{
        config::{
            bootstrap::v3::Bootstrap, cluster::v3::Cluster, endpoint::v3::ClusterLoadAssignment,
            listener::v3::Listener, route::v3::RouteConfiguration,
        },
        extensions::transport_sockets::tls::v3::Secret,
    },
    google::protobuf::Any,
};
use prost::Message;

use crate::{
    canonical::{self, Shape},
    xds,
};

/// One whole configuration as xDS resources.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Resources {
    /// What belongs to the process: cores, admin address, limits, access log.
    pub bootstrap: Bootstrap,
    /// LDS
    pub listeners: Vec<Listener>,
    /// RDS; one per http listener, of the listener's name.
    pub routes: Vec<RouteConfiguration>,
    /// CDS
    pub clusters: Vec<Cluster>,
    /// EDS; one per service with endpoints by address.
    pub endpoints: Vec<ClusterLoadAssignment>,
    /// SDS: certificates with their keys, and roots, that TLS contexts name. They hold keys: they are not for logs.
    pub secrets: Vec<Secret>,
    /// The files that TLS contexts name: what must be read to compile the rest.
    pub files: BTreeSet<String>,
}

/// One resource as a server sends it.
#[derive(Clone, PartialEq)]
pub struct Packed {
    /// Unique among those of its type.
    pub name: Arc<str>,
    /// A hash of the content: equal resources have equal versions, wherever and whenever they are made.
    pub version: Arc<str>,
    /// The type URL and the bytes.
    pub body: Any,
}

/// Without the content, which may be a key.
impl fmt::Debug for Packed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{} {}", self.body.type_url, self.name, self.version)
    }
}

impl Packed {
    /// LDS
    pub fn listener(of: &Listener) -> Packed {
        packed(xds::LISTENER, &of.name, of, &canonical::LISTENER)
    }

    /// RDS
    pub fn routes(of: &RouteConfiguration) -> Packed {
        packed(xds::ROUTE_CONFIGURATION, &of.name, of, &canonical::ROUTES)
    }

    /// CDS
    pub fn cluster(of: &Cluster) -> Packed {
        packed(xds::CLUSTER, &of.name, of, &canonical::CLUSTER)
    }

    /// EDS
    pub fn endpoints(of: &ClusterLoadAssignment) -> Packed {
        packed(xds::CLUSTER_LOAD_ASSIGNMENT, &of.cluster_name, of, &canonical::ENDPOINTS)
    }

    /// SDS
    pub fn secret(of: &Secret) -> Packed {
        packed(xds::SECRET, &of.name, of, &canonical::SECRET)
    }
}

fn packed(type_url: &str, name: &str, of: &impl Message, shape: &Shape) -> Packed {
    let value = canonical::sorted(&of.encode_to_vec(), shape);
    let version = version(&value);
    Packed { name: name.into(), version: version.into(), body: Any { type_url: type_url.to_owned(), value } }
}

/// 128 bits of SHA-256: no two resources of one name meet by accident or on purpose.
fn version(bytes: &[u8]) -> String {
    let digest = crypto::digest::digest(&crypto::digest::SHA256, bytes);
    digest.as_ref()[..16].iter().map(|byte| format!("{byte:02x}")).collect()
}
