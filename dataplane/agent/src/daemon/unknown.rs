//! Fields that are newer than our types. Decoding drops them without a word, so what was decoded is encoded again and compared
//! with what came: a field that is only in the one was not understood.
//!
//! There are no names for such fields on this side of the wire, whatever is done (a description of the same version knows as
//! little of them as our types do), so a place is told as numbers: `3.3.HttpConnectionManager.57`.

use super::xds::Kind;
use api::envoy_types::pb::envoy::config::cluster::v3::Cluster;
use api::envoy_types::pb::envoy::config::endpoint::v3::ClusterLoadAssignment;
use api::envoy_types::pb::envoy::config::listener::v3::Listener;
use api::envoy_types::pb::envoy::config::route::v3::RouteConfiguration;
use api::envoy_types::pb::envoy::extensions::filters::http::cors::v3::{Cors, CorsPolicy};
use api::envoy_types::pb::envoy::extensions::filters::http::local_ratelimit::v3::LocalRateLimit;
use api::envoy_types::pb::envoy::extensions::filters::http::rbac::v3::{Rbac as HttpRbac, RbacPerRoute};
use api::envoy_types::pb::envoy::extensions::filters::http::router::v3::Router;
use api::envoy_types::pb::envoy::extensions::filters::listener::proxy_protocol::v3::ProxyProtocol;
use api::envoy_types::pb::envoy::extensions::filters::listener::tls_inspector::v3::TlsInspector;
use api::envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager;
use api::envoy_types::pb::envoy::extensions::filters::network::rbac::v3::Rbac as NetworkRbac;
use api::envoy_types::pb::envoy::extensions::filters::network::tcp_proxy::v3::TcpProxy;
use api::envoy_types::pb::envoy::extensions::load_balancing_policies::least_request::v3::LeastRequest;
use api::envoy_types::pb::envoy::extensions::rate_limit_descriptors::expr::v3::Descriptor;
use api::envoy_types::pb::envoy::extensions::transport_sockets::proxy_protocol::v3::ProxyProtocolUpstreamTransport;
use api::envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::{
    DownstreamTlsContext, Secret, SpiffeCertValidatorConfig, UpstreamTlsContext,
};
use api::prost::Message;
use api::xds;
use std::collections::{BTreeMap, BTreeSet};

/// A field that was not understood.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Unknown {
    /// Numbers of fields from the resource down, and types of what is packed.
    pub(crate) place: String,
    /// It may decide who is let in or where a request goes.
    pub(crate) matters: bool,
}

/// Messages within messages within messages; decoding has a bound of its own.
const DEEPEST: usize = 64;
/// What every packed message's type begins with, as far as servers of xDS go.
const PACKED_PREFIX: &[u8] = b"type.googleapis.com/";

type Again = fn(&[u8]) -> Option<Vec<u8>>;

/// What is looked into where it is packed. Other types are refused, or ignored as a whole, by whoever compiles.
static PACKED: &[(&str, Again)] = &[
    (xds::HTTP_CONNECTION_MANAGER, again::<HttpConnectionManager>),
    (xds::TCP_PROXY, again::<TcpProxy>),
    (xds::ROUTER, again::<Router>),
    (xds::RBAC, again::<HttpRbac>),
    (xds::RBAC_PER_ROUTE, again::<RbacPerRoute>),
    (xds::NETWORK_RBAC, again::<NetworkRbac>),
    (xds::DOWNSTREAM_TLS, again::<DownstreamTlsContext>),
    (xds::UPSTREAM_TLS, again::<UpstreamTlsContext>),
    (xds::SPIFFE_VALIDATOR, again::<SpiffeCertValidatorConfig>),
    (xds::UPSTREAM_PROXY_PROTOCOL, again::<ProxyProtocolUpstreamTransport>),
    (xds::PROXY_PROTOCOL, again::<ProxyProtocol>),
    (xds::TLS_INSPECTOR, again::<TlsInspector>),
    (xds::LOCAL_RATE_LIMIT, again::<LocalRateLimit>),
    (xds::RATE_LIMIT_EXPRESSION, again::<Descriptor>),
    (xds::CORS, again::<Cors>),
    (xds::CORS_POLICY, again::<CorsPolicy>),
    (xds::LEAST_REQUEST, again::<LeastRequest>),
];

fn again<M: Message + Default>(bytes: &[u8]) -> Option<Vec<u8>> {
    M::decode(bytes).ok().map(|message| message.encode_to_vec())
}

/// What of a resource's content was not understood; nothing where it does not decode.
pub(crate) fn unknown(kind: Kind, bytes: &[u8]) -> BTreeSet<Unknown> {
    let again = match kind {
        Kind::Cluster => again::<Cluster>,
        Kind::Endpoints => again::<ClusterLoadAssignment>,
        Kind::Listener => again::<Listener>,
        Kind::Route => again::<RouteConfiguration>,
        Kind::Secret => again::<Secret>,
    };
    let mut search = Search { kind, steps: Vec::new(), found: BTreeSet::new() };
    if let Some(understood) = again(bytes) {
        search.compare(bytes, &understood);
    }
    search.found
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Field(u32),
    Packed(&'static str),
}

struct Search {
    kind: Kind,
    steps: Vec<Step>,
    found: BTreeSet<Unknown>,
}

impl Search {
    /// Compares what came with what was understood of it, and looks into what is packed there.
    fn compare(&mut self, came: &[u8], understood: &[u8]) {
        if self.steps.len() > DEEPEST || (came == understood && !has_packed(came)) {
            return;
        }
        // What cannot be read as a message is a text, or numbers in a row.
        let (Some(came), Some(understood)) = (fields(came), fields(understood)) else { return };
        if let Some((type_url, value)) = packed(&came) {
            return self.look_into(type_url, value);
        }
        for (number, values) in &came {
            self.steps.push(Step::Field(*number));
            match understood.get(number) {
                Some(again) => self.compare_field(values, again),
                // A number that is zero says what its absence says.
                None if values.iter().all(|value| matches!(value, Value::Number(0))) => {}
                None => self.note(),
            }
            self.steps.pop();
        }
    }

    fn compare_field(&mut self, came: &[Value<'_>], understood: &[Value<'_>]) {
        let (came, mut understood) = (texts(came), texts(understood));
        let mut others = Vec::new();
        for one in came {
            // Maps come in any order.
            match understood.iter().position(|other| *other == one) {
                Some(at) => {
                    understood.remove(at);
                    self.compare(one, one);
                }
                None => others.push(one),
            }
        }
        if others.len() != understood.len() {
            // A message in pieces counts as if it had come in one (protobuf's encoding, "Last One Wins").
            return self.compare(&others.concat(), &understood.concat());
        }
        let key = |bytes: &[u8]| fields(bytes).and_then(|fields| fields.get(&1).map(|key| texts(key).concat()));
        for (at, one) in others.iter().enumerate() {
            let same_key = understood.iter().find(|other| key(one).is_some_and(|own| key(other) == Some(own)));
            self.compare(one, same_key.unwrap_or(&understood[at]));
        }
    }

    fn look_into(&mut self, type_url: &[u8], value: &[u8]) {
        let name = |url: &[u8]| url.rsplit(|byte| *byte == b'/').next().map(<[u8]>::to_vec);
        let Some((known, again)) = PACKED.iter().find(|(known, _)| name(known.as_bytes()) == name(type_url)) else {
            return;
        };
        if let Some(understood) = again(value) {
            self.steps.push(Step::Packed(known.rsplit('.').next().unwrap_or(known)));
            self.compare(value, &understood);
            self.steps.pop();
        }
    }

    fn note(&mut self) {
        let place: Vec<String> = self.steps.iter().map(ToString::to_string).collect();
        self.found.insert(Unknown { place: place.join("."), matters: self.matters() });
    }

    /// Whether the field that the steps lead to is one of a match, a filter chain, TLS or policy.
    fn matters(&self) -> bool {
        let packed = self.steps.iter().rposition(|step| matches!(step, Step::Packed(_)));
        let numbers = self.steps[packed.map_or(0, |at| at + 1)..].iter().filter_map(|step| match step {
            Step::Field(number) => Some(*number),
            Step::Packed(_) => None,
        });
        let numbers: Vec<u32> = numbers.collect();
        match packed.map(|at| self.steps[at]) {
            // `route_config` and `http_filters`; beside them stand settings.
            Some(Step::Packed("HttpConnectionManager")) => numbers.len() > 1 && matches!(numbers[0], 4 | 5),
            Some(Step::Packed("TcpProxy")) => numbers.len() > 1,
            Some(Step::Packed("Router" | "LeastRequest" | "Cors")) => false,
            Some(_) => true,
            None => match self.kind {
                // `transport_socket` and `transport_socket_matches`.
                Kind::Cluster => numbers.len() > 1 && matches!(numbers[0], 24 | 43),
                Kind::Endpoints => false,
                Kind::Listener | Kind::Route | Kind::Secret => true,
            },
        }
    }
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Step::Field(number) => write!(f, "{number}"),
            Step::Packed(name) => f.write_str(name),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Value<'a> {
    Number(u64),
    Text(&'a [u8]),
}

type Fields<'a> = BTreeMap<u32, Vec<Value<'a>>>;

fn texts<'a>(values: &[Value<'a>]) -> Vec<&'a [u8]> {
    let text = |value: &Value<'a>| match value {
        Value::Text(text) => Some(*text),
        Value::Number(_) => None,
    };
    values.iter().filter_map(text).collect()
}

fn has_packed(bytes: &[u8]) -> bool {
    memchr::memmem::find(bytes, PACKED_PREFIX).is_some()
}

/// The type and the content, when these fields are those of an `Any`.
fn packed<'a>(fields: &Fields<'a>) -> Option<(&'a [u8], &'a [u8])> {
    let only = |number: u32| match fields.get(&number).map(Vec::as_slice) {
        Some([Value::Text(text)]) => Some(*text),
        _ => None,
    };
    let type_url = only(1).filter(|url| url.starts_with(PACKED_PREFIX))?;
    fields.keys().all(|number| matches!(number, 1 | 2)).then(|| (type_url, only(2).unwrap_or_default()))
}

/// The fields of a message, by number (<https://protobuf.dev/programming-guides/encoding/>); None: it is none.
fn fields(mut bytes: &[u8]) -> Option<Fields<'_>> {
    let mut found = Fields::new();
    while !bytes.is_empty() {
        let tag = varint(&mut bytes)?;
        let number = u32::try_from(tag >> 3).ok().filter(|number| *number > 0)?;
        let value = match tag & 7 {
            0 => Value::Number(varint(&mut bytes)?),
            1 => Value::Number(u64::from_le_bytes(take(&mut bytes, 8)?.try_into().ok()?)),
            2 => {
                let length = usize::try_from(varint(&mut bytes)?).ok()?;
                Value::Text(take(&mut bytes, length)?)
            }
            5 => Value::Number(u32::from_le_bytes(take(&mut bytes, 4)?.try_into().ok()?).into()),
            _ => return None,
        };
        found.entry(number).or_default().push(value);
    }
    Some(found)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = *take(bytes, 1)?.first()?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

fn take<'a>(bytes: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(taken)
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::envoy_types::pb::envoy::config::core::v3::{TransportSocket, transport_socket};
    use api::envoy_types::pb::envoy::config::listener::v3::{Filter, FilterChain, filter};
    use api::envoy_types::pb::envoy::config::route::v3::{Route, VirtualHost};
    use api::envoy_types::pb::google::protobuf::Any;

    /// Field 1999, a text.
    const NEWER: &[u8] = &[0xfa, 0x7c, 3, b'n', b'e', b'w'];

    fn found(kind: Kind, bytes: &[u8]) -> Vec<(String, bool)> {
        unknown(kind, bytes).into_iter().map(|one| (one.place, one.matters)).collect()
    }

    fn with(mut bytes: Vec<u8>, more: &[u8]) -> Vec<u8> {
        bytes.extend_from_slice(more);
        bytes
    }

    /// Field `number` with a content.
    fn field(number: u32, content: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        api::prost::encoding::bytes::encode(number, &content.to_vec(), &mut bytes);
        bytes
    }

    fn listener(manager: Vec<u8>, socket: Vec<u8>) -> Vec<u8> {
        let any = |type_url: &str, value| Any { type_url: type_url.to_owned(), value };
        let typed = filter::ConfigType::TypedConfig(any(xds::HTTP_CONNECTION_MANAGER, manager));
        let socket = transport_socket::ConfigType::TypedConfig(any(xds::DOWNSTREAM_TLS, socket));
        let chain = FilterChain {
            filters: vec![Filter { name: "hcm".into(), config_type: Some(typed) }],
            transport_socket: Some(TransportSocket { name: "tls".into(), config_type: Some(socket) }),
            ..FilterChain::default()
        };
        Listener { name: "web".into(), filter_chains: vec![chain], ..Listener::default() }.encode_to_vec()
    }

    /// Every word of the language, as our own translation writes it.
    #[test]
    fn what_is_understood_is_not_told() {
        let all = include_str!("../../../../control/api/src/tests/full.yaml");
        let resources = api::translate(&api::load(all, "r.yaml").unwrap());
        let packed = (resources.listeners.iter().map(|one| (Kind::Listener, one.encode_to_vec())))
            .chain(resources.routes.iter().map(|one| (Kind::Route, one.encode_to_vec())))
            .chain(resources.clusters.iter().map(|one| (Kind::Cluster, one.encode_to_vec())))
            .chain(resources.endpoints.iter().map(|one| (Kind::Endpoints, one.encode_to_vec())));
        let packed: Vec<_> = packed.collect();
        assert!(packed.len() > 5);
        packed.iter().for_each(|(kind, bytes)| assert_eq!(found(*kind, bytes), []));
        let pair = api::mesh::KeyPair { chain: b"chain".into(), key: b"key".into() };
        assert_eq!(found(Kind::Secret, &api::mesh::certificate("a", &pair).encode_to_vec()), []);
        assert_eq!(found(Kind::Secret, &api::mesh::trust("shop", b"roots").encode_to_vec()), []);
        assert_eq!(found(Kind::Listener, b"garbage"), []);
    }

    #[test]
    fn newer_fields_are_found_wherever_they_stand() {
        let cluster = Cluster { name: "cart".into(), ..Cluster::default() }.encode_to_vec();
        assert_eq!(found(Kind::Cluster, &with(cluster.clone(), NEWER)), [("1999".to_owned(), false)]);
        let socket = field(24, &with(field(1, b"tls"), NEWER));
        assert_eq!(found(Kind::Cluster, &with(cluster, &socket)), [("24.1999".to_owned(), true)]);
        let in_manager = listener(NEWER.to_vec(), Vec::new());
        assert_eq!(found(Kind::Listener, &in_manager), [("3.3.4.HttpConnectionManager.1999".to_owned(), false)]);
        let filter = field(5, &with(field(1, b"router"), NEWER));
        let expected = [("3.3.4.HttpConnectionManager.5.1999".to_owned(), true)];
        assert_eq!(found(Kind::Listener, &listener(filter, Vec::new())), expected);
        let in_tls = listener(Vec::new(), NEWER.to_vec());
        assert_eq!(found(Kind::Listener, &in_tls), [("3.6.3.DownstreamTlsContext.1999".to_owned(), true)]);
    }

    #[test]
    fn one_of_several_is_found_and_maps_may_come_in_any_order() {
        let host = |name: &str| VirtualHost {
            name: name.into(),
            routes: vec![Route { name: "all".into(), ..Route::default() }],
            ..VirtualHost::default()
        };
        let hosts = [host("a").encode_to_vec(), with(host("b").encode_to_vec(), NEWER), host("c").encode_to_vec()];
        let bytes = hosts.iter().flat_map(|host| field(2, host)).collect::<Vec<u8>>();
        assert_eq!(found(Kind::Route, &bytes), [("2.1999".to_owned(), true)]);
        let mut route = Route::default();
        for n in 0..20 {
            let any =
                Any { type_url: xds::RBAC_PER_ROUTE.into(), value: if n == 7 { NEWER.to_vec() } else { Vec::new() } };
            route.typed_per_filter_config.insert(format!("filter-{n}"), any);
        }
        let bytes = field(2, &with(host("a").encode_to_vec(), &field(3, &route.encode_to_vec())));
        assert_eq!(found(Kind::Route, &bytes), [("2.3.13.2.RBACPerRoute.1999".to_owned(), true)]);
    }

    #[test]
    fn an_empty_message_counts_and_a_zero_does_not() {
        let arm = field(1999, b"");
        assert_eq!(found(Kind::Secret, &arm), [("1999".to_owned(), true)]);
        let zero = [0xf8, 0x7c, 0];
        assert_eq!(found(Kind::Secret, &zero), []);
        assert_eq!(found(Kind::Secret, &[0xf8, 0x7c, 1]), [("1999".to_owned(), true)]);
    }
}
