//! CORS policies of listeners and routes.

use super::rejection::Place;
use super::{Work, matching};
use crate::cors::Cors;
use crate::matcher::Test;
use api::envoy_types::pb::envoy::config::core::v3::RuntimeFractionalPercent;
use api::envoy_types::pb::envoy::extensions::filters::http::cors::v3::CorsPolicy;
use api::envoy_types::pb::envoy::r#type::v3::fractional_percent::DenominatorType;
use api::envoy_types::pb::google::protobuf::Any;
use api::xds;
use std::collections::BTreeMap;
use std::mem::take;

/// The CORS filter of the listener that is being compiled.
#[derive(Clone, Debug)]
pub(super) struct Filter {
    name: String,
    /// The rule of routes that have none of their own.
    base: Option<u32>,
}

/// Takes note of an http filter, which says nothing but that there is one.
pub(super) fn http_filter(work: &mut Work<'_>, place: &Place, name: &str) {
    if !work.through.is_empty() || !work.limits.is_empty() {
        work.refuse(place, "must stand before policy and quotas");
    }
    if work.cors_filter.is_some() {
        work.refuse(place, "stands there twice");
    }
    work.cors_filter = Some(Filter { name: name.to_owned(), base: None });
}

/// The rule of all routes, which is taken out of `own`.
pub(super) fn of_all(work: &mut Work<'_>, place: &Place, own: &mut BTreeMap<String, Any>) {
    let base = of_route(work, place, own);
    if let Some(filter) = &mut work.cors_filter {
        filter.base = base;
    }
}

/// The rule of a route: its own, which is taken out of `own`, or that of all.
pub(super) fn of_route(work: &mut Work<'_>, place: &Place, own: &mut BTreeMap<String, Any>) -> Option<u32> {
    let Filter { name, base } = work.cors_filter.clone()?;
    let Some(config) = own.remove(&name) else { return base };
    let place = place.field(&name);
    match xds::decode::<CorsPolicy>(&config, xds::CORS_POLICY) {
        Ok(policy) => {
            let rule = rule(work, &place, policy);
            work.cors.push(rule);
            Some(work.cors.len() as u32 - 1)
        }
        Err(error) => {
            work.refuse(&place, error);
            None
        }
    }
}

fn rule(work: &mut Work<'_>, place: &Place, mut rest: CorsPolicy) -> Cors {
    let mut cors = Cors {
        expose: text(work, &place.field("expose_headers"), take(&mut rest.expose_headers)),
        credentials: rest.allow_credentials.take().is_some_and(|allow| allow.value),
        forwards: rest.forward_not_matching_preflights.take().is_none_or(|forward| forward.value),
        ..Cors::default()
    };
    let mut origins = Vec::new();
    for matcher in take(&mut rest.allow_origin_string_match) {
        let test = matching::string(work, &place.field("allow_origin_string_match"), matcher);
        cors.any |= matches!(&test, Some(Test::Exact(text)) if **text == *b"*");
        origins.extend(test);
    }
    cors.origins = origins.into();
    let lines = [
        ("access-control-allow-methods", "allow_methods", take(&mut rest.allow_methods)),
        ("access-control-allow-headers", "allow_headers", take(&mut rest.allow_headers)),
        ("access-control-max-age", "max_age", take(&mut rest.max_age)),
    ];
    let lines = lines.into_iter().map(|(name, field, value)| (name, text(work, &place.field(field), value)));
    cors.preflight = lines.filter(|(_, value)| !value.is_empty()).collect();
    if !rest.filter_enabled.take().is_none_or(|enabled| is_always(&enabled)) {
        work.refuse(&place.field("filter_enabled"), "must be 100 percent");
    }
    work.refuse_rest(place, &rest);
    cors
}

/// A value that stands in answers.
fn text(work: &mut Work<'_>, place: &Place, value: String) -> Box<str> {
    if !value.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
        work.refuse(place, "must have visible characters alone");
    }
    value.into()
}

fn is_always(enabled: &RuntimeFractionalPercent) -> bool {
    enabled.default_value.as_ref().is_some_and(|percent| {
        let of = match DenominatorType::try_from(percent.denominator) {
            Ok(DenominatorType::Hundred) => 100,
            Ok(DenominatorType::TenThousand) => 10_000,
            Ok(DenominatorType::Million) => 1_000_000,
            Err(_) => u32::MAX,
        };
        percent.numerator >= of
    })
}

#[cfg(test)]
mod tests {
    use crate::{Action, Cache, ListenerId, Plan, Request, World, compile};
    use api::Resources;
    use api::envoy_types::pb::envoy::config::core::v3::RuntimeFractionalPercent;
    use api::envoy_types::pb::envoy::extensions::filters::http::cors::v3::CorsPolicy;
    use api::envoy_types::pb::google::protobuf::BoolValue;
    use api::xds;
    use wire::h1::{Head, Limits, Parsed};

    const TEXT: &str = "listeners: { web: { address: 127.0.0.1:80, cors: { origins: ['https://a.b', 'https://*.c'], credentials: true, methods: PUT }, \
                        deny: [ { methods: OPTIONS } ], routes: [ { name: r, match: { path: /r }, respond: { status: 200 } } ] } }";

    /// With this change to the policy of all routes.
    fn changed(change: impl FnOnce(&mut CorsPolicy)) -> Resources {
        let mut resources = api::load(TEXT, "").map(|document| api::translate(&document)).unwrap();
        let config = resources.routes[0].typed_per_filter_config.get_mut("envoy.filters.http.cors").unwrap();
        let mut policy: CorsPolicy = xds::decode(config, xds::CORS_POLICY).unwrap();
        change(&mut policy);
        *config = xds::any(xds::CORS_POLICY, &policy);
        resources
    }

    fn refused(resources: &Resources) -> Vec<String> {
        let found = compile(resources, None, 1, &World::default()).expect_err("refused");
        found.iter().map(ToString::to_string).collect()
    }

    /// What is done with an OPTIONS with these fields, and the lines of its answer.
    fn asked(plan: &Plan, fields: &str) -> (Action, Vec<String>) {
        let bytes = format!("OPTIONS /r HTTP/1.1\r\nHost: a\r\n{fields}\r\n").into_bytes();
        let mut head = Head::default();
        let limits = Limits { head_bytes: 4096, fields: 20, target_bytes: 100 };
        assert!(matches!(head.parse_request(&bytes, &limits), Ok(Parsed::Complete { .. })), "{fields}");
        let request = Request {
            method: head.method,
            method_bytes: head.method_span.of(&bytes),
            authority: head.authority.of(&bytes),
            path: head.path.of(&bytes),
            query: b"",
            fields: &head.fields,
            head: &bytes,
            peer: Default::default(),
        };
        let decision = plan.decide(ListenerId(0), &request, 0, &mut Cache::default());
        let line = |(name, value): (&str, &[u8])| format!("{name}: {}", value.escape_ascii());
        (decision.action, plan.cors_lines(&decision, &request).map(line).collect())
    }

    const ASKS: &str = "Access-Control-Request-Method: PUT\r\n";

    #[test]
    fn preflights_pass_policy_and_others_do_not() {
        let plan = compile(&changed(|_| {}), None, 1, &World::default()).unwrap();
        for origin in ["https://a.b", "https://x.y.c"] {
            let (action, lines) = asked(&plan, &format!("Origin: {origin}\r\n{ASKS}"));
            let named = format!("access-control-allow-origin: {origin}");
            let rest = ["access-control-allow-credentials: true", "access-control-allow-methods: PUT", "vary: origin"];
            assert_eq!(
                (action, lines),
                (Action::Preflight, [&[named.as_str()][..], &rest].concat().iter().map(ToString::to_string).collect())
            );
        }
        for fields in [ASKS.to_owned(), "Origin: https://a.b\r\n".to_owned()] {
            assert_eq!(asked(&plan, &fields).0, Action::Denied, "{fields}");
        }
        let two = format!("Origin: https://a.b\r\nOrigin: https://a.b\r\n{ASKS}");
        assert_eq!(asked(&plan, &two), (Action::Preflight, vec!["vary: origin".to_owned()]), "two origins are none");
    }

    #[test]
    fn preflights_that_do_not_match_are_requests_where_the_policy_says_so() {
        for (forward, action) in
            [(Some(false), Action::Preflight), (Some(true), Action::Denied), (None, Action::Denied)]
        {
            let resources =
                changed(|policy| policy.forward_not_matching_preflights = forward.map(|value| BoolValue { value }));
            let plan = compile(&resources, None, 1, &World::default()).unwrap();
            assert_eq!(asked(&plan, &format!("Origin: https://other\r\n{ASKS}")).0, action, "{forward:?}");
            assert_eq!(asked(&plan, &format!("Origin: https://a.b\r\n{ASKS}")).0, Action::Preflight);
        }
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        let some = Some(RuntimeFractionalPercent::default());
        let half = refused(&changed(|policy| policy.filter_enabled = some.clone()));
        assert!(half[0].contains("filter_enabled: must be 100 percent"), "{half:?}");
        let shadow = refused(&changed(|policy| policy.shadow_enabled = some.clone()));
        assert!(shadow[0].contains("shadow_enabled: is not supported"), "{shadow:?}");
        let split = refused(&changed(|policy| policy.allow_methods = "PUT\r\nx: y".to_owned()));
        assert!(split[0].contains("allow_methods: must have visible characters"), "{split:?}");
        let mut other = changed(|_| {});
        let config = other.routes[0].typed_per_filter_config.remove("envoy.filters.http.cors").unwrap();
        other.routes[0].typed_per_filter_config.insert("other".to_owned(), config);
        assert!(refused(&other)[0].contains("belongs to no filter of the listener"));
    }
}
