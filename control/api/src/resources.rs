//! What a document becomes: xDS v3 resources. The same messages whether they come from a file or from a daemon.

use std::collections::BTreeSet;

use envoy_types::pb::envoy::config::{
    bootstrap::v3::Bootstrap, cluster::v3::Cluster, endpoint::v3::ClusterLoadAssignment, listener::v3::Listener,
    route::v3::RouteConfiguration,
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
    /// The files that TLS contexts name: what must be read to compile the rest.
    pub files: BTreeSet<String>,
}
