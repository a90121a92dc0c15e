//! `deny` and `allow`: an RBAC filter each, always in this order: listener deny, listener allow, route deny, route allow.
//! A route's own lists take the place of the last two. Entries that only try stand in the shadow rules, together with
//! those that are enforced.

use std::collections::HashMap;

use envoy_types::pb::{
    envoy::{
        config::{
            core::v3::CidrRange,
            listener::v3::{Filter, filter},
            rbac::v3::{
                Permission, Policy as Allowed, Principal, Rbac as Rules,
                permission::{self, Rule as Asks},
                principal::{self, Authenticated, Identifier},
                rbac::Action,
            },
            route::v3::{HeaderMatcher, header_matcher::HeaderMatchSpecifier},
        },
        extensions::filters::{
            http::rbac::v3::{Rbac, RbacPerRoute},
            network::{
                http_connection_manager::v3::{HttpFilter, http_filter},
                rbac::v3::Rbac as NetworkRbac,
            },
        },
        r#type::matcher::v3::{PathMatcher, StringMatcher, path_matcher, string_matcher::MatchPattern},
    },
    google::protobuf::Any,
};
use prost::Message;
use wire::spiffe::Pattern;

use super::{number, route};
use crate::{
    model::{Http, Network, PathMatch, Policy, Rule},
    xds,
};

const ROUTE_DENY: &str = "ringway.route-deny";
const ROUTE_ALLOW: &str = "ringway.route-allow";

/// The filters of an http listener; none where neither it nor a route has a rule.
pub(super) fn http_filters(policy: &Policy, http: &Http) -> Vec<HttpFilter> {
    let rules = |policy: &Policy| !policy.deny.is_empty() || !policy.allow.is_empty();
    let mut routes = http.hosts.iter().flat_map(|host| &host.routes);
    if !rules(policy) && !routes.any(|route| rules(&route.policy)) {
        return Vec::new();
    }
    let filter = |name: &str, rules: &[Rule], action| HttpFilter {
        name: name.to_owned(),
        config_type: Some(http_filter::ConfigType::TypedConfig(http_rbac(rules, action))),
        ..HttpFilter::default()
    };
    vec![
        filter("ringway.listener-deny", &policy.deny, Action::Deny),
        filter("ringway.listener-allow", &policy.allow, Action::Allow),
        filter(ROUTE_DENY, &[], Action::Deny),
        filter(ROUTE_ALLOW, &[], Action::Allow),
    ]
}

/// A route's own lists.
pub(super) fn per_route(policy: &Policy) -> HashMap<String, Any> {
    let lists = [(ROUTE_DENY, &policy.deny, Action::Deny), (ROUTE_ALLOW, &policy.allow, Action::Allow)];
    let own = lists.into_iter().filter(|(_, rules, _)| !rules.is_empty());
    own.map(|(name, rules, action)| {
        let one = |enforced, tried| {
            let rbac = Rbac { rules: enforced, shadow_rules: tried, ..Rbac::default() };
            RbacPerRoute { rbac: Some(rbac) }.encode_to_vec()
        };
        let value = merged(rules, action, one);
        (name.to_owned(), Any { type_url: xds::RBAC_PER_ROUTE.to_owned(), value })
    })
    .collect()
}

/// The filters of a tcp listener that stand before its proxy.
pub(super) fn network_filters(name: &str, policy: &Policy) -> Vec<Filter> {
    let lists = [("deny", &policy.deny, Action::Deny), ("allow", &policy.allow, Action::Allow)];
    let some = lists.into_iter().filter(|(_, rules, _)| !rules.is_empty());
    some.map(|(list, rules, action)| {
        let one = |enforced, tried| {
            NetworkRbac {
                stat_prefix: format!("{name}.{list}"),
                rules: enforced,
                shadow_rules: tried,
                ..Default::default()
            }
            .encode_to_vec()
        };
        let config = Any { type_url: xds::NETWORK_RBAC.to_owned(), value: merged(rules, action, one) };
        Filter { name: format!("ringway.{list}"), config_type: Some(filter::ConfigType::TypedConfig(config)) }
    })
    .collect()
}

fn http_rbac(rules: &[Rule], action: Action) -> Any {
    let one = |enforced, tried| Rbac { rules: enforced, shadow_rules: tried, ..Rbac::default() }.encode_to_vec();
    Any { type_url: xds::RBAC.to_owned(), value: merged(rules, action, one) }
}

/// Maps are encoded in any order, but equal documents must give equal bytes: each policy is a message of its own, and all
/// of them, one after the other, are one (protobuf's encoding, "merge").
fn merged(rules: &[Rule], action: Action, one: impl Fn(Option<Rules>, Option<Rules>) -> Vec<u8>) -> Vec<u8> {
    let tries = rules.iter().any(|rule| rule.dry_run);
    let mut value = Vec::new();
    for rule in rules {
        let rules = Rules {
            action: action as i32,
            policies: HashMap::from([(rule.name.clone(), allowed(rule))]),
            ..Rules::default()
        };
        let enforced = (!rule.dry_run).then(|| rules.clone());
        value.extend(one(enforced, tries.then_some(rules)));
    }
    value
}

fn allowed(rule: &Rule) -> Allowed {
    Allowed { permissions: vec![permission(rule)], principals: vec![principal(rule)], ..Allowed::default() }
}

fn permission(rule: &Rule) -> Permission {
    let header = |name: &str, pattern: StringMatcher| {
        Asks::Header(HeaderMatcher {
            name: name.to_owned(),
            header_match_specifier: Some(HeaderMatchSpecifier::StringMatch(pattern)),
            ..HeaderMatcher::default()
        })
    };
    let mut all: Vec<Permission> = Vec::new();
    let mut any_of = |asks: Vec<Asks>| {
        let mut rules: Vec<Permission> = asks.into_iter().map(|rule| Permission { rule: Some(rule) }).collect();
        match rules.len() {
            0 => {}
            1 => all.extend(rules.pop()),
            _ => all.push(Permission { rule: Some(Asks::OrRules(permission::Set { rules })) }),
        }
    };
    any_of(rule.methods.iter().map(|method| header(":method", exact(method))).collect());
    any_of(rule.paths.iter().flat_map(paths).map(|path| Asks::UrlPath(PathMatcher { rule: Some(path) })).collect());
    any_of(rule.hosts.iter().map(|host| header(":authority", authority(host))).collect());
    for (name, value) in &rule.headers {
        any_of(vec![Asks::Header(route::header(name, value))]);
    }
    match all.len() {
        0 => Permission { rule: Some(Asks::Any(true)) },
        1 => all.remove(0),
        _ => Permission { rule: Some(Asks::AndRules(permission::Set { rules: all })) },
    }
}

fn principal(rule: &Rule) -> Principal {
    let mut all: Vec<Principal> = Vec::new();
    let mut any_of = |ids: Vec<Identifier>| {
        let mut ids: Vec<Principal> = ids.into_iter().map(|id| Principal { identifier: Some(id) }).collect();
        match ids.len() {
            0 => {}
            1 => all.extend(ids.pop()),
            _ => all.push(Principal { identifier: Some(Identifier::OrIds(principal::Set { ids })) }),
        }
    };
    let authenticated =
        |pattern: &String| Identifier::Authenticated(Authenticated { principal_name: Some(identity(pattern)) });
    any_of(rule.identities.iter().map(authenticated).collect());
    any_of(rule.sources.iter().map(|network| Identifier::RemoteIp(range(network))).collect());
    any_of(rule.peers.iter().map(|network| Identifier::DirectRemoteIp(range(network))).collect());
    match all.len() {
        0 => Principal { identifier: Some(Identifier::Any(true)) },
        1 => all.remove(0),
        _ => Principal { identifier: Some(Identifier::AndIds(principal::Set { ids: all })) },
    }
}

/// `/cart/*` is `/cart` and all below it.
fn paths(of: &PathMatch) -> Vec<path_matcher::Rule> {
    let rule = |pattern| path_matcher::Rule::Path(StringMatcher { match_pattern: Some(pattern), ..Default::default() });
    match of {
        PathMatch::Exact(path) => vec![rule(MatchPattern::Exact(path.clone()))],
        PathMatch::Prefix(path) if path.is_empty() => vec![rule(MatchPattern::Prefix("/".to_owned()))],
        PathMatch::Prefix(path) => {
            vec![rule(MatchPattern::Exact(path.clone())), rule(MatchPattern::Prefix(format!("{path}/")))]
        }
        PathMatch::Regex(pattern) => vec![rule(MatchPattern::SafeRegex(route::regex(pattern)))],
    }
}

/// A host name, in any case, with a trailing dot and a port or without.
fn authority(host: &str) -> StringMatcher {
    let name = match host.strip_prefix("*.") {
        _ if host == "*" => ".*".to_owned(),
        Some(suffix) => format!(r"[^:]+\.{}", regex_syntax::escape(suffix)),
        None => regex_syntax::escape(host),
    };
    let pattern = route::regex(&format!(r"(?i){name}\.?(:[0-9]*)?"));
    StringMatcher { match_pattern: Some(MatchPattern::SafeRegex(pattern)), ..StringMatcher::default() }
}

/// A pattern of SPIFFE IDs.
pub(super) fn identity(pattern: &str) -> StringMatcher {
    let parsed = Pattern::parse(pattern);
    let match_pattern = match &parsed {
        Ok(pattern) if pattern.prefix().is_some() => {
            MatchPattern::Prefix(pattern.prefix().unwrap_or_default().to_owned())
        }
        Ok(pattern) if !pattern.is_exact() => {
            let segment = |segment: &str| match segment {
                "*" => "[^/]+".to_owned(),
                "**" => ".+".to_owned(),
                literal => regex_syntax::escape(literal),
            };
            let segments: Vec<String> = pattern.as_str().split('/').map(segment).collect();
            MatchPattern::SafeRegex(route::regex(&segments.join("/")))
        }
        _ => MatchPattern::Exact(pattern.to_owned()),
    };
    StringMatcher { match_pattern: Some(match_pattern), ..StringMatcher::default() }
}

pub(super) fn exact(text: &str) -> StringMatcher {
    StringMatcher { match_pattern: Some(MatchPattern::Exact(text.to_owned())), ..StringMatcher::default() }
}

pub(super) fn range(of: &Network) -> CidrRange {
    CidrRange { address_prefix: of.address.to_string(), prefix_len: number(u32::from(of.bits)) }
}
