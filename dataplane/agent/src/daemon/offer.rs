//! A resource as it came: decoded, its name checked, with what it needs and what of it was not understood.

use super::needs::Needs;
use super::unknown::unknown;
use super::xds::{Incoming, Kind};
use api::envoy_types::pb::envoy::config::cluster::v3::Cluster;
use api::envoy_types::pb::envoy::config::endpoint::v3::ClusterLoadAssignment;
use api::envoy_types::pb::envoy::config::listener::v3::Listener;
use api::envoy_types::pb::envoy::config::route::v3::RouteConfiguration;
use api::envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::Secret;
use api::envoy_types::pb::google::protobuf::Any;
use api::prost::Message;
use plan::Rejection;

/// One resource of one version.
#[derive(Clone, PartialEq)]
pub(super) struct Offer {
    pub(super) name: String,
    pub(super) version: String,
    /// As it came: what is kept on disk.
    pub(super) packed: Any,
    pub(super) content: Content,
    pub(super) needs: Needs,
    /// Fields that were not understood: `type/name: field`.
    pub(super) ignored: Vec<String>,
}

/// What it is.
#[derive(Clone, PartialEq)]
pub(super) enum Content {
    Cluster(Box<Cluster>),
    Endpoints(ClusterLoadAssignment),
    Listener(Box<Listener>),
    Route(RouteConfiguration),
    Secret(Secret),
}

impl Offer {
    /// Reads what came.
    ///
    /// # Errors
    /// Why it is refused.
    pub(super) fn read(kind: Kind, incoming: Incoming) -> Result<Offer, Vec<Rejection>> {
        let Incoming { name: outer, version, resource: packed } = incoming;
        let refuse = |name: &str, field: &str, reason: String| {
            let (name, field) = (name.into(), field.into());
            Rejection { kind: kind.word(), name, field, reason: reason.into() }
        };
        let outer_name = outer.as_deref().unwrap_or_default();
        if !api::xds::is(&packed, kind.type_url()) {
            let reason = format!("is a {}", packed.type_url);
            return Err(vec![refuse(outer_name, "", reason)]);
        }
        let content = Content::decode(kind, &packed.value);
        let content = content.map_err(|error| vec![refuse(outer_name, "", format!("cannot be decoded: {error}"))])?;
        let name = content.name().to_owned();
        if name.is_empty() {
            return Err(vec![refuse(outer_name, "name", "must be given".to_owned())]);
        }
        if outer.as_ref().is_some_and(|outer| *outer != name) {
            return Err(vec![refuse(outer_name, "name", format!("is {name:?} inside"))]);
        }
        let mut refused = Vec::new();
        let mut ignored = Vec::new();
        for field in unknown(kind, &packed.value) {
            match field.matters {
                true => refused.push(refuse(&name, &field.place, "is a field that is not known".to_owned())),
                false => ignored.push(format!("{}/{name}: {}", kind.word(), field.place)),
            }
        }
        if !refused.is_empty() {
            return Err(refused);
        }
        let needs = match &content {
            Content::Cluster(cluster) => Needs::of_cluster(cluster),
            Content::Listener(listener) => Needs::of_listener(listener),
            _ => Needs::default(),
        };
        Ok(Offer { name, version, packed, content, needs, ignored })
    }
}

/// Without the content, which may be a key.
impl std::fmt::Debug for Offer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{} {}", self.packed.type_url, self.name, self.version)
    }
}

impl Content {
    fn decode(kind: Kind, bytes: &[u8]) -> Result<Content, api::prost::DecodeError> {
        Ok(match kind {
            Kind::Cluster => Content::Cluster(Box::new(Message::decode(bytes)?)),
            Kind::Endpoints => Content::Endpoints(Message::decode(bytes)?),
            Kind::Listener => Content::Listener(Box::new(Message::decode(bytes)?)),
            Kind::Route => Content::Route(Message::decode(bytes)?),
            Kind::Secret => Content::Secret(Message::decode(bytes)?),
        })
    }

    fn name(&self) -> &str {
        match self {
            Content::Cluster(one) => &one.name,
            Content::Endpoints(one) => &one.cluster_name,
            Content::Listener(one) => &one.name,
            Content::Route(one) => &one.name,
            Content::Secret(one) => &one.name,
        }
    }
}
