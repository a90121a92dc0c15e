//! RBAC filters as an xDS server may send them, in an http and in a tcp listener. The first byte says what follows: a message as it
//! is (compiled, or refused with reasons), or the shape of one that is made of what we understand: then the plan's verdict is the one
//! that a plain reading of the message gives.
#![no_main]

use api::envoy_types::pb::envoy::config::core::v3::CidrRange;
use api::envoy_types::pb::envoy::config::listener::v3::filter::ConfigType;
use api::envoy_types::pb::envoy::config::rbac::v3::permission::{Rule as Asks, Set as Permissions};
use api::envoy_types::pb::envoy::config::rbac::v3::principal::{Authenticated, Identifier, Set as Principals};
use api::envoy_types::pb::envoy::config::rbac::v3::{Permission, Policy, Principal, Rbac as Rules};
use api::envoy_types::pb::envoy::config::route::v3::{HeaderMatcher, header_matcher::HeaderMatchSpecifier};
use api::envoy_types::pb::envoy::extensions::filters::http::rbac::v3::Rbac;
use api::envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager;
use api::envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::http_filter;
use api::envoy_types::pb::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use api::envoy_types::pb::envoy::r#type::matcher::v3::{PathMatcher, StringMatcher, path_matcher};
use api::envoy_types::pb::google::protobuf::{Any, UInt32Value};
use api::{Resources, prost::Message, xds};
use libfuzzer_sys::fuzz_target;
use plan::{Action, Cache, ListenerId, Peer, Plan, Request, World};
use std::net::IpAddr;
use std::sync::LazyLock;
use wire::h1::{Head, Limits};

const GOOD: &str = "
listeners:
  web: { address: 127.0.0.1:8080, protocol: http, allow: [ { name: a, methods: [GET] } ], routes: [ { respond: { status: 200 } } ] }
  db: { address: 127.0.0.1:8081, protocol: tcp, deny: [ { name: a, source: [10.0.0.0/8] } ], to: pg }
services: { pg: { endpoints: [127.0.0.1:1] } }
";

static RESOURCES: LazyLock<Resources> = LazyLock::new(|| match api::load(GOOD, "good.yaml") {
    Ok(document) => api::translate(&document),
    Err(findings) => panic!("{findings:#?}"),
});

fuzz_target!(|bytes: &[u8]| {
    let Some((&kind, bytes)) = bytes.split_first() else { return };
    match kind % 3 {
        0 => {
            let _ = compile(&with_http(bytes.to_vec()));
        }
        1 => {
            let _ = compile(&with_tcp(bytes.to_vec()));
        }
        _ => {
            let mut shape = Shape(bytes);
            let (rules, shadow_rules) = (shape.rules(), None);
            let message = Rbac { rules: Some(rules.clone()), shadow_rules, ..Rbac::default() };
            let plan = compile(&with_http(message.encode_to_vec())).unwrap_or_else(|reasons| panic!("{reasons:#?}"));
            judge(&plan, &rules);
        }
    }
});

/// The plan, after a decision in each listener; or why there is none.
fn compile(resources: &Resources) -> Result<Plan, Vec<String>> {
    let plan = plan::compile(resources, None, 1, &World::default()).map_err(|rejections| {
        let reasons: Vec<String> = rejections.iter().map(ToString::to_string).collect();
        assert!(!reasons.is_empty() && reasons.iter().all(|reason| reason.lines().count() == 1));
        reasons
    })?;
    for caller in callers() {
        plan.decide(ListenerId(0), &caller.request(), 7, &mut Cache::default());
        plan.decide_tcp(ListenerId(1), &caller.peer, 7);
    }
    assert!(!plan.to_json().is_empty());
    Ok(plan)
}

/// The http listener's first filter says this.
fn with_http(value: Vec<u8>) -> Resources {
    let mut resources = RESOURCES.clone();
    let config = &mut resources.listeners[0].filter_chains[0].filters[0].config_type;
    let Some(ConfigType::TypedConfig(packed)) = config else { panic!("no manager") };
    let mut manager: HttpConnectionManager = xds::decode(packed, xds::HTTP_CONNECTION_MANAGER).unwrap();
    let typed = Any { type_url: xds::RBAC.to_owned(), value };
    manager.http_filters[1].config_type = Some(http_filter::ConfigType::TypedConfig(typed));
    *packed = xds::any(xds::HTTP_CONNECTION_MANAGER, &manager);
    resources
}

/// The tcp listener's first filter says this.
fn with_tcp(value: Vec<u8>) -> Resources {
    let mut resources = RESOURCES.clone();
    let typed = Any { type_url: xds::NETWORK_RBAC.to_owned(), value };
    resources.listeners[1].filter_chains[0].filters[0].config_type = Some(ConfigType::TypedConfig(typed));
    resources
}

fn judge(plan: &Plan, rules: &Rules) {
    for caller in callers() {
        let decision = plan.decide(ListenerId(0), &caller.request(), 7, &mut Cache::default());
        let holds = rules.policies.values().any(|policy| {
            policy.permissions.iter().any(|asks| caller.may(asks)) && policy.principals.iter().any(|who| caller.is(who))
        });
        let passes = holds == (rules.action == 0);
        assert_eq!(!matches!(decision.action, Action::Denied), passes, "{rules:#?}\n{:?}", caller.peer);
    }
}

/// Who asks for what; one line a field, as more may be read in several ways.
struct Caller {
    head: Head,
    bytes: &'static [u8],
    peer: Peer<'static>,
}

fn callers() -> impl Iterator<Item = Caller> {
    let one = |bytes: &'static [u8], identity, ip: &str| {
        let mut head = Head::default();
        head.parse_request(bytes, &Limits { head_bytes: 2048, fields: 30, target_bytes: 500 }).unwrap();
        let address = ip.parse().ok();
        Caller { head, bytes, peer: Peer { identity, address, direct: address } }
    };
    let first = one(b"GET /a/b HTTP/1.1\r\nhost: a\r\nx: ab\r\n\r\n", Some("spiffe://a/b"), "10.0.0.1");
    let second = one(b"POST /b HTTP/1.1\r\nhost: b\r\n\r\n", None, "::1");
    let third = one(b"X /a HTTP/1.1\r\nhost: ab\r\nx: b\r\n\r\n", Some("spiffe://a/a"), "");
    [first, second, third].into_iter()
}

impl Caller {
    fn request(&self) -> Request<'_> {
        Request {
            method: self.head.method,
            method_bytes: self.head.method_span.of(self.bytes),
            authority: self.field("host").unwrap_or_default(),
            path: self.head.path.of(self.bytes),
            query: b"",
            fields: &self.head.fields,
            head: self.bytes,
            peer: self.peer,
        }
    }

    fn field(&self, name: &str) -> Option<&[u8]> {
        let named = |field: &&wire::h1::Field| field.name.of(self.bytes) == name.as_bytes();
        self.head.fields.iter().find(named).map(|field| field.value.of(self.bytes))
    }

    fn may(&self, permission: &Permission) -> bool {
        match permission.rule.as_ref().unwrap() {
            Asks::Any(any) => *any,
            Asks::AndRules(set) => set.rules.iter().all(|one| self.may(one)),
            Asks::OrRules(set) => set.rules.iter().any(|one| self.may(one)),
            Asks::NotRule(inner) => !self.may(inner),
            Asks::UrlPath(PathMatcher { rule: Some(path_matcher::Rule::Path(text)) }) => {
                fits(text, self.head.path.of(self.bytes))
            }
            Asks::Header(header) => {
                let value = match header.name.as_str() {
                    ":method" => Some(self.head.method_span.of(self.bytes)),
                    ":authority" => self.field("host"),
                    name => self.field(name),
                };
                match &header.header_match_specifier {
                    Some(HeaderMatchSpecifier::PresentMatch(present)) => value.is_some() == *present,
                    Some(HeaderMatchSpecifier::StringMatch(text)) => {
                        value.is_some_and(|value| fits(text, value) != header.invert_match)
                    }
                    other => panic!("{other:?}"),
                }
            }
            other => panic!("{other:?}"),
        }
    }

    fn is(&self, principal: &Principal) -> bool {
        let within = |range: &CidrRange, address: Option<IpAddr>| {
            let bits = range.prefix_len.map_or(0, |bits| bits.value);
            let wanted: IpAddr = range.address_prefix.parse().unwrap();
            match (wanted, address) {
                (IpAddr::V4(wanted), Some(IpAddr::V4(got))) => {
                    bits == 0 || (u32::from(wanted) ^ u32::from(got)) >> (32 - bits) == 0
                }
                (IpAddr::V6(wanted), Some(IpAddr::V6(got))) => {
                    bits == 0 || (u128::from(wanted) ^ u128::from(got)) >> (128 - bits) == 0
                }
                _ => false,
            }
        };
        match principal.identifier.as_ref().unwrap() {
            Identifier::Any(any) => *any,
            Identifier::AndIds(set) => set.ids.iter().all(|one| self.is(one)),
            Identifier::OrIds(set) => set.ids.iter().any(|one| self.is(one)),
            Identifier::NotId(inner) => !self.is(inner),
            Identifier::RemoteIp(range) => within(range, self.peer.address),
            Identifier::DirectRemoteIp(range) => within(range, self.peer.direct),
            Identifier::Authenticated(Authenticated { principal_name }) => match principal_name {
                Some(text) => self.peer.identity.is_some_and(|identity| fits(text, identity.as_bytes())),
                None => self.peer.identity.is_some(),
            },
            other => panic!("{other:?}"),
        }
    }
}

fn fits(text: &StringMatcher, value: &[u8]) -> bool {
    let (text, exactly) = match text.match_pattern.as_ref().unwrap() {
        MatchPattern::Exact(exact) if text.ignore_case => return exact.as_bytes().eq_ignore_ascii_case(value),
        MatchPattern::Exact(exact) => return exact.as_bytes() == value,
        MatchPattern::Prefix(prefix) => return value.starts_with(prefix.as_bytes()),
        MatchPattern::Suffix(suffix) => return value.ends_with(suffix.as_bytes()),
        MatchPattern::Contains(part) => (part, false),
        MatchPattern::SafeRegex(pattern) => (&pattern.regex, true),
        other => panic!("{other:?}"),
    };
    assert!(!exactly);
    text.is_empty() || value.windows(text.len()).any(|window| window == text.as_bytes())
}

/// Bytes, each of which decides what comes next. Where they end all is 0, which nests no deeper.
struct Shape<'a>(&'a [u8]);

impl Shape<'_> {
    fn next(&mut self, most: u8) -> u8 {
        let (first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        first % most
    }

    fn several<T>(&mut self, depth: u8, one: impl Fn(&mut Self, u8) -> T) -> Vec<T> {
        (0..=self.next(3)).map(|_| one(self, depth + 1)).collect()
    }

    fn rules(&mut self) -> Rules {
        let policies = (0..self.next(4)).map(|number| {
            let (permissions, principals) = (self.several(0, Self::permission), self.several(0, Self::principal));
            (number.to_string(), Policy { permissions, principals, ..Policy::default() })
        });
        let policies = policies.collect();
        Rules { action: self.next(2).into(), policies, ..Rules::default() }
    }

    fn permission(&mut self, depth: u8) -> Permission {
        let kinds = if depth > 4 { 4 } else { 7 };
        let rule = match self.next(kinds) {
            0 => Asks::Any(true),
            1 => Asks::UrlPath(PathMatcher { rule: Some(path_matcher::Rule::Path(self.text())) }),
            2 | 3 => Asks::Header(self.header()),
            4 => Asks::NotRule(Box::new(self.permission(depth + 1))),
            5 => Asks::AndRules(Permissions { rules: self.several(depth, Self::permission) }),
            _ => Asks::OrRules(Permissions { rules: self.several(depth, Self::permission) }),
        };
        Permission { rule: Some(rule) }
    }

    fn principal(&mut self, depth: u8) -> Principal {
        let kinds = if depth > 4 { 5 } else { 8 };
        let identifier = match self.next(kinds) {
            0 => Identifier::Any(true),
            1 => Identifier::Authenticated(Authenticated { principal_name: None }),
            2 => Identifier::Authenticated(Authenticated { principal_name: Some(self.text()) }),
            3 => Identifier::RemoteIp(self.range()),
            4 => Identifier::DirectRemoteIp(self.range()),
            5 => Identifier::NotId(Box::new(self.principal(depth + 1))),
            6 => Identifier::AndIds(Principals { ids: self.several(depth, Self::principal) }),
            _ => Identifier::OrIds(Principals { ids: self.several(depth, Self::principal) }),
        };
        Principal { identifier: Some(identifier) }
    }

    fn header(&mut self) -> HeaderMatcher {
        let name = [":method", ":authority", "x", "y"][usize::from(self.next(4))].to_owned();
        let specifier = match self.next(4) {
            0 => HeaderMatchSpecifier::PresentMatch(true),
            1 => HeaderMatchSpecifier::PresentMatch(false),
            _ => HeaderMatchSpecifier::StringMatch(self.text()),
        };
        let invert_match = matches!(specifier, HeaderMatchSpecifier::StringMatch(_)) && self.next(2) == 1;
        HeaderMatcher { name, header_match_specifier: Some(specifier), invert_match, ..HeaderMatcher::default() }
    }

    fn text(&mut self) -> StringMatcher {
        let words = ["GET", "POST", "X", "a", "ab", "b", "/", "/a", "/a/", "spiffe://a/", "spiffe://a/b", "A", "e://"];
        let word = words[usize::from(self.next(words.len() as u8))].to_owned();
        let (pattern, ignore_case) = match self.next(5) {
            0 => (MatchPattern::Exact(word), false),
            1 => (MatchPattern::Exact(word), true),
            2 => (MatchPattern::Prefix(word), false),
            3 => (MatchPattern::Suffix(word), false),
            _ => (MatchPattern::Contains(word), false),
        };
        StringMatcher { match_pattern: Some(pattern), ignore_case }
    }

    fn range(&mut self) -> CidrRange {
        let (address, bits) = match self.next(5) {
            0 => ("10.0.0.0", 8),
            1 => ("10.0.0.1", 32),
            2 => ("0.0.0.0", 0),
            3 => ("::1", 128),
            _ => ("::", 0),
        };
        CidrRange { address_prefix: address.to_owned(), prefix_len: Some(UInt32Value { value: bits }) }
    }
}
