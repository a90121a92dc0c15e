//! RBAC filters: lists of rules. What is not understood is refused.

use super::rejection::Place;
use super::{Work, matching};
use crate::Networks;
use crate::matcher::{Methods, Test};
use crate::policy::{Condition, List, ListId, ListKind, Rule, RuleId, RuleKey};
use api::envoy_types::pb::envoy::config::core::v3::CidrRange;
use api::envoy_types::pb::envoy::config::rbac::v3::permission::Rule as Asks;
use api::envoy_types::pb::envoy::config::rbac::v3::principal::Identifier;
use api::envoy_types::pb::envoy::config::rbac::v3::rbac::Action;
use api::envoy_types::pb::envoy::config::rbac::v3::{Permission, Policy, Principal, Rbac as Rules};
use api::envoy_types::pb::envoy::extensions::filters::http::rbac::v3::{Rbac, RbacPerRoute};
use api::envoy_types::pb::envoy::extensions::filters::network::rbac::v3::Rbac as NetworkRbac;
use api::envoy_types::pb::envoy::r#type::matcher::v3::path_matcher;
use api::envoy_types::pb::google::protobuf::Any;
use api::xds;
use std::collections::BTreeMap;
use std::mem::take;

/// An RBAC filter of a listener: its name, and its list, if it has rules.
pub(super) type Filter = (String, Option<ListId>);

/// The list of an http filter.
pub(super) fn http_filter(work: &mut Work<'_>, place: &Place, listener: &str, config: &Any) -> Option<ListId> {
    let rbac = xds::decode::<Rbac>(config, xds::RBAC).map_err(|error| work.refuse(place, error)).ok()?;
    http(work, place, (listener, ""), rbac)
}

/// The list of a network filter.
pub(super) fn network_filter(work: &mut Work<'_>, place: &Place, listener: &str, config: &Any) -> Option<ListId> {
    let mut rest: NetworkRbac =
        xds::decode(config, xds::NETWORK_RBAC).map_err(|error| work.refuse(place, error)).ok()?;
    let (enforced, tried) = (rest.rules.take(), rest.shadow_rules.take());
    (rest.stat_prefix, rest.shadow_rules_stat_prefix) = Default::default();
    work.refuse_rest(place, &rest);
    list(work, place, (listener, ""), enforced, tried)
}

/// The lists that a route passes: the listener's, but for those that it has its own for, which are taken out of `own`.
pub(super) fn of_route(
    work: &mut Work<'_>,
    place: &Place,
    whose: (&str, &str),
    own: &mut BTreeMap<String, Any>,
) -> Box<[ListId]> {
    let mut lists = Vec::new();
    for (name, base) in work.through.clone() {
        let Some(config) = own.remove(&name) else {
            lists.extend(base);
            continue;
        };
        let place = place.field(&name);
        match xds::decode::<RbacPerRoute>(&config, xds::RBAC_PER_ROUTE) {
            Ok(RbacPerRoute { rbac: Some(rbac) }) => lists.extend(http(work, &place, whose, rbac)),
            Ok(RbacPerRoute { rbac: None }) => {}
            Err(error) => work.refuse(&place, error),
        }
    }
    lists.into()
}

fn http(work: &mut Work<'_>, place: &Place, whose: (&str, &str), mut rest: Rbac) -> Option<ListId> {
    let (enforced, tried) = (rest.rules.take(), rest.shadow_rules.take());
    (rest.rules_stat_prefix, rest.shadow_rules_stat_prefix) = Default::default();
    work.refuse_rest(place, &rest);
    list(work, place, whose, enforced, tried)
}

fn list(
    work: &mut Work<'_>,
    place: &Place,
    (listener, route): (&str, &str),
    enforced: Option<Rules>,
    tried: Option<Rules>,
) -> Option<ListId> {
    let action = enforced.as_ref().or(tried.as_ref())?.action;
    if tried.as_ref().is_some_and(|tried| tried.action != action) {
        work.refuse(&place.field("shadow_rules.action"), "must be that of rules");
    }
    let kind = match Action::try_from(action) {
        Ok(Action::Allow) => ListKind::Allow,
        Ok(Action::Deny) => ListKind::Deny,
        _ => {
            work.refuse(&place.field("rules.action"), "must be ALLOW or DENY");
            return None;
        }
    };
    let mut policies: BTreeMap<String, (Policy, bool, bool)> = BTreeMap::new();
    let is_enforced = enforced.is_some();
    for (name, policy) in enforced.map(|rules| rules.policies).unwrap_or_default() {
        policies.insert(name, (policy, true, false));
    }
    let is_tried = tried.is_some();
    for (name, policy) in tried.map(|rules| rules.policies).unwrap_or_default() {
        match policies.get_mut(&name) {
            Some((known, _, tried)) if *known == policy => *tried = true,
            Some(_) => {
                work.refuse(&place.field(&name), "differs between rules and shadow_rules; give one another name")
            }
            None => {
                policies.insert(name, (policy, false, true));
            }
        }
    }
    let word = kind.word();
    let id = |work: &mut Work<'_>, name: &str| {
        work.rules.push(RuleKey { listener: listener.into(), route: route.into(), list: word, name: name.into() });
        RuleId(work.rules.len() as u32 - 1)
    };
    let mut rules = Vec::new();
    for (name, (policy, enforced, tried)) in policies {
        let when = condition(work, &place.field(&name), policy);
        let id = id(work, &name);
        rules.extend(when.map(|when| Rule { id, enforced, tried, when }));
    }
    let nobody = id(work, "");
    work.lists.push(List { kind, rules: rules.into(), enforced: is_enforced, tried: is_tried, nobody });
    Some(ListId(work.lists.len() as u32 - 1))
}

fn condition(work: &mut Work<'_>, place: &Place, mut rest: Policy) -> Option<Condition> {
    let (permissions, principals) = (take(&mut rest.permissions), take(&mut rest.principals));
    work.refuse_rest(place, &rest);
    let before = work.rejections.len();
    let asks = permissions.into_iter().filter_map(|one| permission(work, &place.field("permissions"), one)).collect();
    let asks = Condition::one(asks);
    let who = principals.into_iter().filter_map(|one| principal(work, &place.field("principals"), one)).collect();
    let who = Condition::one(who);
    (work.rejections.len() == before).then(|| Condition::all(vec![asks, who]))
}

fn permission(work: &mut Work<'_>, place: &Place, of: Permission) -> Option<Condition> {
    let all = |work: &mut Work<'_>, rules: Vec<Permission>| {
        rules.into_iter().filter_map(|one| permission(work, place, one)).collect::<Vec<_>>()
    };
    Some(match of.rule {
        Some(Asks::Any(true)) => Condition::Any,
        Some(Asks::AndRules(set)) => Condition::all(all(work, set.rules)),
        Some(Asks::OrRules(set)) => Condition::one(all(work, set.rules)),
        Some(Asks::NotRule(inner)) => Condition::Not(Box::new(permission(work, place, *inner)?)),
        Some(Asks::Header(header)) => match matching::method_names(&header) {
            Some(names) => Condition::Methods(Methods::of(names.iter().map(String::as_str))),
            None => Condition::Field(matching::field(work, &place.field("header"), header)?),
        },
        Some(Asks::UrlPath(path)) => match path.rule {
            Some(path_matcher::Rule::Path(text)) => {
                Condition::Path(matching::string(work, &place.field("url_path"), text)?)
            }
            None => return refused(work, &place.field("url_path")),
        },
        _ => return refused(work, place),
    })
}

fn principal(work: &mut Work<'_>, place: &Place, of: Principal) -> Option<Condition> {
    let all = |work: &mut Work<'_>, ids: Vec<Principal>| {
        ids.into_iter().filter_map(|one| principal(work, place, one)).collect::<Vec<_>>()
    };
    Some(match of.identifier {
        Some(Identifier::Any(true)) => Condition::Any,
        Some(Identifier::AndIds(set)) => Condition::all(all(work, set.ids)),
        Some(Identifier::OrIds(set)) => Condition::one(all(work, set.ids)),
        Some(Identifier::NotId(inner)) => Condition::Not(Box::new(principal(work, place, *inner)?)),
        Some(Identifier::Authenticated(of)) => match of.principal_name {
            Some(name) => Condition::Identity(matching::string(work, &place.field("authenticated"), name)?),
            None => Condition::Identity(Test::Present),
        },
        Some(Identifier::RemoteIp(range)) => Condition::Source(networks(work, place, range)?),
        Some(Identifier::DirectRemoteIp(range)) => Condition::Peer(networks(work, place, range)?),
        Some(Identifier::Header(header)) => Condition::Field(matching::field(work, &place.field("header"), header)?),
        _ => return refused(work, place),
    })
}

fn refused(work: &mut Work<'_>, place: &Place) -> Option<Condition> {
    work.refuse(place, "asks what is not supported");
    None
}

fn networks(work: &mut Work<'_>, place: &Place, range: CidrRange) -> Option<Networks> {
    let bits = range.prefix_len.map_or(0, |bits| bits.value);
    let Ok(address) = range.address_prefix.parse() else {
        work.refuse(place, format!("{:?} is no address", range.address_prefix));
        return None;
    };
    Networks::new([(address, bits)]).map_err(|reason| work.refuse(place, reason)).ok()
}
