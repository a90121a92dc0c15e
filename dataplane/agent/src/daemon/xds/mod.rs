//! xDS as a proxy speaks it, without the stream: messages in, messages out, and what is said about them. Nothing here opens
//! a socket or reads a clock.
//!
//! ```text
//!            Delta, or Whole                       Shelf (beside this folder)
//! response ─────────────────► Update ─► judged ──► [Rejection]
//!                                                      │
//! request ◄── ACK, or NACK with every reason ◄─────────┘
//! ```
//! An ACK says that what came is valid, and waits for nothing else (not for other resources that it needs, nor for cores).

mod delta;
mod whole;

pub(crate) use delta::Delta;
pub(crate) use whole::Whole;

use api::envoy_types::pb::envoy::config::core::v3::{Node, node};
use api::envoy_types::pb::google::protobuf::Any;
use api::envoy_types::pb::google::rpc::Status;
use api::xds;
use plan::Rejection;
use std::collections::{BTreeMap, BTreeSet};

/// The types of resources that are asked for, in the order in which they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Kind {
    /// CDS
    Cluster,
    /// EDS
    Endpoints,
    /// LDS
    Listener,
    /// RDS
    Route,
    /// SDS
    Secret,
}

impl Kind {
    /// All of them.
    pub(crate) const ALL: [Kind; 5] = [Kind::Cluster, Kind::Endpoints, Kind::Listener, Kind::Route, Kind::Secret];

    /// The type of its resources.
    pub(crate) fn type_url(self) -> &'static str {
        match self {
            Kind::Cluster => xds::CLUSTER,
            Kind::Endpoints => xds::CLUSTER_LOAD_ASSIGNMENT,
            Kind::Listener => xds::LISTENER,
            Kind::Route => xds::ROUTE_CONFIGURATION,
            Kind::Secret => xds::SECRET,
        }
    }

    /// What a `plan::Rejection` calls it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Kind::Cluster => "cluster",
            Kind::Endpoints => "endpoints",
            Kind::Listener => "listener",
            Kind::Route => "route",
            Kind::Secret => "secret",
        }
    }

    /// The kind of a type URL.
    pub(crate) fn of(type_url: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.type_url() == type_url)
    }

    /// The kind that a rejection is about.
    pub(crate) fn of_word(word: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.word() == word)
    }

    /// All there are of it are asked for, not single names.
    pub(crate) fn is_wildcard(self) -> bool {
        matches!(self, Kind::Cluster | Kind::Listener)
    }
}

/// By kind, the names that are wanted; of those that are asked for as a whole nothing stands here.
pub(crate) type Names = BTreeMap<Kind, BTreeSet<String>>;

/// By kind and name, the version that is held.
pub(crate) type Versions = BTreeMap<Kind, BTreeMap<String, String>>;

/// What a response said.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Update {
    pub(crate) kind: Kind,
    /// To be named in the answer.
    pub(crate) nonce: String,
    /// Of the push that it is a part of.
    pub(crate) version: String,
    pub(crate) resources: Vec<Incoming>,
    /// Names that are no more.
    pub(crate) removed: Vec<String>,
    /// What is not among `resources` is no more.
    pub(crate) complete: bool,
    /// What cannot be used, whatever it holds.
    pub(crate) refused: Vec<Rejection>,
}

/// One resource that came. Without a name (state of the world) its content has it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Incoming {
    pub(crate) name: Option<String>,
    pub(crate) version: String,
    pub(crate) resource: Any,
}

/// What is to be done about a response.
#[derive(Debug, PartialEq)]
pub(crate) enum Heard<Request> {
    /// Judge it, then answer.
    Update(Update),
    /// Nothing in it was asked for: this is the answer.
    Refuse(Request),
    /// The other end does not speak the protocol: the stream is of no use.
    Fault(&'static str),
}

/// One end of a stream, without the stream.
pub(crate) trait Speak {
    type Request;
    type Response;

    /// Takes a response.
    fn hear(&mut self, response: Self::Response) -> Heard<Self::Request>;

    /// The answer to an update, when it was judged.
    fn answer(&mut self, update: &Update, rejections: &[Rejection]) -> Self::Request;

    /// From now on these names of a kind are wanted; None: they were already.
    fn want(&mut self, kind: Kind, names: &BTreeSet<String>) -> Option<Self::Request>;
}

/// What a response without a nonce is: an answer to it would be taken for a new question.
const NO_NONCE: &str = "a response has no nonce";

/// How a proxy introduces itself. `features` are words that both ends know: `api::features`.
pub(crate) fn node(id: &str, group: &str, features: &[&str]) -> Node {
    Node {
        id: id.to_owned(),
        cluster: group.to_owned(),
        user_agent_name: api::features::PROGRAM.to_owned(),
        user_agent_version_type: Some(node::UserAgentVersionType::UserAgentVersion(crate::VERSION.to_owned())),
        client_features: features.iter().map(ToString::to_string).collect(),
        ..Node::default()
    }
}

/// Reasons that one NACK has at most: the first ones tell as much, and reports have all.
const MOST_REASONS: usize = 64;
/// `google.rpc.Code.INVALID_ARGUMENT`
const INVALID_ARGUMENT: i32 = 3;

/// The `error_detail` of an answer: none without rejections.
fn error_detail(rejections: &[Rejection], version_of: impl Fn(&str) -> String) -> Option<Status> {
    if rejections.is_empty() {
        return None;
    }
    let told = &rejections[..rejections.len().min(MOST_REASONS)];
    let mut message = told.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    if rejections.len() > told.len() {
        message.push_str(&format!("\nand {} more", rejections.len() - told.len()));
    }
    let details =
        told.iter().map(|one| xds::any(xds::REJECTED, &super::told::rejected(one, version_of(&one.name)))).collect();
    Some(Status { code: INVALID_ARGUMENT, message, details })
}

/// What is said about a response of a type that was not asked for.
fn not_asked_for(type_url: &str) -> Status {
    let message = format!("{type_url} was not asked for");
    Status { code: INVALID_ARGUMENT, message, details: Vec::new() }
}

/// The version with which each resource of an update came.
fn version_in<'a>(update: &'a Update) -> impl Fn(&str) -> String + 'a {
    move |name| {
        let found = update.resources.iter().find(|one| one.name.as_deref() == Some(name));
        found.map_or_else(|| update.version.clone(), |one| one.version.clone())
    }
}

/// A rejection of a resource as it came, before anybody looked into it.
pub(super) fn rejection(kind: Kind, name: &str, reason: &str) -> Rejection {
    Rejection { kind: kind.word(), name: name.into(), field: "".into(), reason: reason.into() }
}
