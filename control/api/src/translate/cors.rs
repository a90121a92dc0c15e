//! `cors`, and the routes that preflights take.

use envoy_types::pb::{
    envoy::{
        config::{
            core::v3::RuntimeFractionalPercent,
            route::v3::{Route as Resource, route::Action},
        },
        extensions::filters::{
            http::cors::v3::{Cors as Filter, CorsPolicy},
            network::http_connection_manager::v3::{HttpFilter, http_filter},
        },
        r#type::{
            matcher::v3::{StringMatcher, string_matcher::MatchPattern},
            v3::{FractionalPercent, fractional_percent::DenominatorType},
        },
    },
    google::protobuf::{Any, BoolValue},
};

use super::route;
use crate::{
    model::{Cors, Http, Match, Respond, Route, ValueMatch},
    xds,
};

const FILTER: &str = "envoy.filters.http.cors";
/// Behind a route's name: the route of its preflights. Names have no `:`.
pub(crate) const PREFLIGHT: &str = ":preflight";

/// The filter that answers preflights, before all others; none where there is nothing to answer.
pub(super) fn http_filter(http: &Http) -> Option<HttpFilter> {
    let routes = || http.hosts.iter().flat_map(|host| &host.routes);
    let wanted = http.cors.is_some() || routes().any(|route| route.cors.is_some());
    wanted.then(|| HttpFilter {
        name: FILTER.to_owned(),
        config_type: Some(http_filter::ConfigType::TypedConfig(xds::any(xds::CORS, &Filter {}))),
        ..HttpFilter::default()
    })
}

/// What the filter is told by a listener or a route. A preflight of another origin is answered too, without leave, and never
/// forwarded.
pub(super) fn policy(of: Option<&Cors>) -> Option<(String, Any)> {
    let of = of?;
    let all = FractionalPercent { numerator: 100, denominator: DenominatorType::Hundred as i32 };
    let policy = CorsPolicy {
        allow_origin_string_match: of.origins.iter().map(|origin| matcher(origin)).collect(),
        allow_methods: of.methods.join(", "),
        allow_headers: of.headers.join(", "),
        expose_headers: of.expose.join(", "),
        max_age: of.max_age.map(|age| age.as_secs().to_string()).unwrap_or_default(),
        allow_credentials: of.credentials.then_some(BoolValue { value: true }),
        filter_enabled: Some(RuntimeFractionalPercent { default_value: Some(all), runtime_key: String::new() }),
        forward_not_matching_preflights: Some(BoolValue { value: false }),
        ..CorsPolicy::default()
    };
    Some((FILTER.to_owned(), xds::any(xds::CORS_POLICY, &policy)))
}

/// One of `origins`; an exact `*` is every origin to an Envoy too.
fn matcher(origin: &str) -> StringMatcher {
    let pattern = match origin.split_once("*.") {
        Some((scheme, suffix)) => {
            let (scheme, suffix) = (regex_syntax::escape(scheme), regex_syntax::escape(suffix));
            MatchPattern::SafeRegex(route::regex(&format!(r"{scheme}[^/:@]+\.{suffix}")))
        }
        None => MatchPattern::Exact(origin.to_owned()),
    };
    StringMatcher { match_pattern: Some(pattern), ..StringMatcher::default() }
}

/// A preflight has another method than the request that it asks about, and none of its headers: where a route's match
/// would miss it, one more route takes it. The answer is the filter's; this one refuses, should there be no filter.
pub(super) fn preflight(of: &Route, http: &Http) -> Option<Resource> {
    let methods = &of.matches.methods;
    let missed = !methods.is_empty() && !methods.iter().any(|method| method == "OPTIONS");
    let wanted = (of.cors.is_some() || http.cors.is_some()) && (missed || !of.matches.headers.is_empty());
    let asked = match &methods[..] {
        [] => ValueMatch::Present(true),
        [one] => ValueMatch::Exact(one.clone()),
        several => ValueMatch::Regex(several.join("|")),
    };
    let matches = Match {
        path: of.matches.path.clone(),
        methods: vec!["OPTIONS".to_owned()],
        headers: vec![
            ("origin".to_owned(), ValueMatch::Present(true)),
            ("access-control-request-method".to_owned(), asked),
        ],
        query: of.matches.query.clone(),
    };
    wanted.then(|| Resource {
        name: format!("{}{PREFLIGHT}", of.name),
        r#match: Some(route::matches(&matches)),
        action: Some(Action::DirectResponse(route::response(&Respond { status: 403, body: String::new() }))),
        typed_per_filter_config: policy(of.cors.as_ref()).into_iter().collect(),
        ..Resource::default()
    })
}
