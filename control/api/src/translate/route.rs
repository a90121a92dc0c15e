//! Routes: one RouteConfiguration per http listener, one VirtualHost per entry of `hosts`.

use envoy_types::pb::envoy::{
    config::{
        core::v3::{HeaderValue, HeaderValueOption, header_value_option::HeaderAppendAction},
        route::v3::{
            DirectResponseAction, HeaderMatcher, QueryParameterMatcher, RedirectAction, RetryPolicy, Route as Resource,
            RouteAction, RouteConfiguration, RouteMatch, VirtualHost, WeightedCluster,
            header_matcher::HeaderMatchSpecifier,
            query_parameter_matcher::QueryParameterMatchSpecifier,
            redirect_action::{PathRewriteSpecifier, RedirectResponseCode},
            retry_policy::{RetryHostPredicate, retry_host_predicate},
            route::Action as ResourceAction,
            route_action::{ClusterSpecifier, HostRewriteSpecifier},
            route_match::PathSpecifier,
            weighted_cluster::ClusterWeight,
        },
    },
    extensions::retry::host::previous_hosts::v3::PreviousHostsPredicate,
    r#type::matcher::v3::{RegexMatchAndSubstitute, RegexMatcher, StringMatcher, string_matcher::MatchPattern},
};

use super::{cors, duration, inline, number, policy, quota};
use crate::{
    model::{
        Action, Forward, HeaderEdits, Host, Http, Match, PathMatch, PathTarget, Redirect, Respond, Retry, Route,
        Target, ValueMatch,
    },
    values::MAX_BODY,
    xds,
};

/// All routes of one http listener, under its name.
pub(super) fn configuration(listener: &str, http: &Http) -> RouteConfiguration {
    RouteConfiguration {
        name: listener.to_owned(),
        virtual_hosts: http.hosts.iter().map(|of| host(of, http)).collect(),
        typed_per_filter_config: cors::policy(http.cors.as_ref()).into_iter().collect(),
        ignore_port_in_host_matching: true,
        // Envoy's own limit is 4 KiB.
        max_direct_response_body_size_bytes: number(MAX_BODY),
        ..RouteConfiguration::default()
    }
}

/// Envoy picks exact, then longest `*.suffix`, then `*`, and nothing falls through: as the language says.
fn host(of: &Host, http: &Http) -> VirtualHost {
    VirtualHost {
        name: of.names.first().cloned().unwrap_or_default(),
        domains: of.names.clone(),
        routes: of.routes.iter().flat_map(|of| [Some(route(of)), cors::preflight(of, http)]).flatten().collect(),
        ..VirtualHost::default()
    }
}

fn route(of: &Route) -> Resource {
    let path = of.matches.path.as_ref();
    let mut resource = Resource {
        name: of.name.clone(),
        r#match: Some(matches(&of.matches)),
        response_headers_to_add: headers_to_add(&of.response_headers),
        response_headers_to_remove: of.response_headers.remove.clone(),
        typed_per_filter_config: policy::per_route(&of.policy)
            .into_iter()
            .chain(quota::per_route(&of.quotas))
            .chain(cors::policy(of.cors.as_ref()))
            .collect(),
        ..Resource::default()
    };
    resource.action = Some(match &of.action {
        Action::Redirect(redirect) => ResourceAction::Redirect(redirection(redirect, path)),
        Action::Respond(respond) => ResourceAction::DirectResponse(response(respond)),
        Action::Forward(to) => {
            resource.request_headers_to_add = headers_to_add(&to.request_headers);
            resource.request_headers_to_remove = to.request_headers.remove.clone();
            ResourceAction::Route(forward(to, path))
        }
    });
    resource
}

/// `match`
pub(super) fn matches(of: &Match) -> RouteMatch {
    let query = of.query.iter().map(|(name, value)| query_parameter(name, value));
    let headers = of.headers.iter().map(|(name, value)| header(name, value));
    RouteMatch {
        path_specifier: Some(path(of.path.as_ref())),
        headers: methods(&of.methods).into_iter().chain(headers).collect(),
        query_parameters: query.collect(),
        ..RouteMatch::default()
    }
}

/// `path`. The separated prefix refuses `/`, which matches whole segments anyhow.
fn path(of: Option<&PathMatch>) -> PathSpecifier {
    match of {
        None => PathSpecifier::Prefix("/".to_owned()),
        Some(PathMatch::Prefix(prefix)) if prefix.is_empty() => PathSpecifier::Prefix("/".to_owned()),
        Some(PathMatch::Prefix(prefix)) => PathSpecifier::PathSeparatedPrefix(prefix.clone()),
        Some(PathMatch::Exact(path)) => PathSpecifier::Path(path.clone()),
        Some(PathMatch::Regex(pattern)) => PathSpecifier::SafeRegex(regex(pattern)),
    }
}

/// `methods`: several are one pattern, as conditions on a header are joined by "and". Methods are letters, so
/// nothing needs escaping.
fn methods(of: &[String]) -> Option<HeaderMatcher> {
    let value = match of {
        [] => return None,
        [one] => ValueMatch::Exact(one.clone()),
        several => ValueMatch::Regex(several.join("|")),
    };
    Some(header(":method", &value))
}

/// One entry of `headers`. Of a repeated header each value is judged by itself, as by Envoy 1.40 (measured: `1` matches
/// where `1` and `2` came; the joined `1,2` does not).
pub(super) fn header(name: &str, value: &ValueMatch) -> HeaderMatcher {
    let specifier = match value {
        ValueMatch::Present(present) => HeaderMatchSpecifier::PresentMatch(*present),
        value => HeaderMatchSpecifier::StringMatch(string(value)),
    };
    HeaderMatcher { name: name.to_owned(), header_match_specifier: Some(specifier), ..HeaderMatcher::default() }
}

/// One entry of `query`.
fn query_parameter(name: &str, value: &ValueMatch) -> QueryParameterMatcher {
    let specifier = match value {
        ValueMatch::Present(present) => QueryParameterMatchSpecifier::PresentMatch(*present),
        value => QueryParameterMatchSpecifier::StringMatch(string(value)),
    };
    QueryParameterMatcher { name: name.to_owned(), query_parameter_match_specifier: Some(specifier) }
}

/// A condition on a text; presence has carriers of its own.
fn string(value: &ValueMatch) -> StringMatcher {
    let pattern = match value {
        ValueMatch::Exact(text) => MatchPattern::Exact(text.clone()),
        ValueMatch::Regex(pattern) => MatchPattern::SafeRegex(regex(pattern)),
        ValueMatch::Present(_) => MatchPattern::Prefix(String::new()),
    };
    StringMatcher { match_pattern: Some(pattern), ..StringMatcher::default() }
}

/// Envoy matches the whole text, as the language does.
pub(super) fn regex(pattern: &str) -> RegexMatcher {
    RegexMatcher { regex: pattern.to_owned(), ..RegexMatcher::default() }
}

/// `redirect`. The query is kept unless `strip_query` says otherwise.
fn redirection(of: &Redirect, path: Option<&PathMatch>) -> RedirectAction {
    let specifier = match &of.path {
        PathTarget::Exact(to) => PathRewriteSpecifier::PathRedirect(to.clone()),
        target => match path_change(target, path) {
            PathChange::Prefix(to) => PathRewriteSpecifier::PrefixRewrite(to),
            PathChange::Regex(rule) => PathRewriteSpecifier::RegexRewrite(rule),
        },
    };
    let code = match of.status {
        302 => RedirectResponseCode::Found,
        303 => RedirectResponseCode::SeeOther,
        307 => RedirectResponseCode::TemporaryRedirect,
        308 => RedirectResponseCode::PermanentRedirect,
        _ => RedirectResponseCode::MovedPermanently,
    };
    RedirectAction { response_code: code as i32, path_rewrite_specifier: Some(specifier), ..RedirectAction::default() }
}

/// How Envoy is told to change a path.
enum PathChange {
    /// What the match took (all of it for exact paths) becomes this.
    Prefix(String),
    /// What the pattern takes becomes this.
    Regex(RegexMatchAndSubstitute),
}

/// Envoy's prefixes are replaced byte by byte, so the slash between prefix and rest needs care: `/cart/*` to
/// `/*` would give `//x` (envoy#23130), and `/*` matches the slash itself.
fn path_change(target: &PathTarget, path: Option<&PathMatch>) -> PathChange {
    match (target, path) {
        (PathTarget::Exact(to), Some(PathMatch::Exact(_))) => PathChange::Prefix(to.clone()),
        (PathTarget::Exact(to), _) => PathChange::Regex(substitute("^/.*".to_owned(), to)),
        (PathTarget::Prefix(to), Some(PathMatch::Prefix(from))) if !from.is_empty() => match to.as_str() {
            "" => PathChange::Regex(substitute(format!("^{}/?", regex_syntax::escape(from)), "/")),
            to => PathChange::Prefix(to.to_owned()),
        },
        (PathTarget::Prefix(to), _) => PathChange::Prefix(format!("{to}/")),
    }
}

/// A path in RE2's substitutions needs no escape: `\` cannot stand in it.
fn substitute(pattern: String, substitution: &str) -> RegexMatchAndSubstitute {
    RegexMatchAndSubstitute { pattern: Some(regex(&pattern)), substitution: substitution.to_owned() }
}

/// `respond`
pub(super) fn response(of: &Respond) -> DirectResponseAction {
    DirectResponseAction {
        status: u32::from(of.status),
        body: (!of.body.is_empty()).then(|| inline(&of.body)),
        ..DirectResponseAction::default()
    }
}

/// `to`, with `rewrite`, `timeout` and `retry`.
fn forward(of: &Forward, path: Option<&PathMatch>) -> RouteAction {
    let mut action = RouteAction {
        cluster_specifier: Some(to(&of.to)),
        // Envoy's default would be 15 s; zero is none.
        timeout: Some(duration(of.timeout.unwrap_or_default())),
        retry_policy: of.retry.as_ref().map(retry),
        host_rewrite_specifier: of.rewrite_host.clone().map(HostRewriteSpecifier::HostRewriteLiteral),
        ..RouteAction::default()
    };
    match of.rewrite_path.as_ref().map(|target| path_change(target, path)) {
        Some(PathChange::Prefix(to)) => action.prefix_rewrite = to,
        Some(PathChange::Regex(rule)) => action.regex_rewrite = Some(rule),
        None => {}
    }
    action
}

/// `to`
fn to(targets: &[Target]) -> ClusterSpecifier {
    let weighted =
        |t: &Target| ClusterWeight { name: t.service.clone(), weight: number(t.weight), ..ClusterWeight::default() };
    match targets {
        [one] => ClusterSpecifier::Cluster(one.service.clone()),
        several => ClusterSpecifier::WeightedClusters(WeightedCluster {
            clusters: several.iter().map(weighted).collect(),
            ..WeightedCluster::default()
        }),
    }
}

/// `retry`. Another endpoint is tried only if `previous_hosts` says so.
fn retry(of: &Retry) -> RetryPolicy {
    let previous = xds::any(xds::PREVIOUS_HOSTS, &PreviousHostsPredicate {});
    RetryPolicy {
        retry_on: "connect-failure".to_owned(),
        num_retries: number(of.retries),
        per_try_timeout: of.per_try_timeout.map(duration),
        retry_host_predicate: vec![RetryHostPredicate {
            name: "envoy.retry_host_predicates.previous_hosts".to_owned(),
            config_type: Some(retry_host_predicate::ConfigType::TypedConfig(previous)),
        }],
        host_selection_retry_max_attempts: 3,
        ..RetryPolicy::default()
    }
}

/// `set` and `add`
fn headers_to_add(of: &HeaderEdits) -> Vec<HeaderValueOption> {
    let set = of.set.iter().map(|edit| (edit, HeaderAppendAction::OverwriteIfExistsOrAdd));
    let add = of.add.iter().map(|edit| (edit, HeaderAppendAction::AppendIfExistsOrAdd));
    let option = |((name, value), action): (&(String, String), HeaderAppendAction)| HeaderValueOption {
        header: Some(HeaderValue {
            key: name.clone(),
            // Values are formats to Envoy: `%` stands for itself only when doubled.
            value: value.replace('%', "%%"),
            ..HeaderValue::default()
        }),
        append_action: action as i32,
        // Envoy drops empty values otherwise.
        keep_empty_value: true,
        ..HeaderValueOption::default()
    };
    set.chain(add).map(option).collect()
}
