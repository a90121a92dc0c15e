//! What a route matches, from `RouteMatch`. Anything that is not understood is refused: ignoring it would match more.

use super::rejection::Place;
use super::{Work, fields};
use crate::matcher::{FieldMatch, Match, Methods, Part, Path, QueryMatch, Test};
use crate::regex::RegexId;
use api::envoy_types::pb::envoy::config::route::v3::header_matcher::HeaderMatchSpecifier;
use api::envoy_types::pb::envoy::config::route::v3::query_parameter_matcher::QueryParameterMatchSpecifier;
use api::envoy_types::pb::envoy::config::route::v3::route_match::PathSpecifier;
use api::envoy_types::pb::envoy::config::route::v3::{HeaderMatcher, QueryParameterMatcher, RouteMatch};
use api::envoy_types::pb::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use api::envoy_types::pb::envoy::r#type::matcher::v3::{RegexMatcher, StringMatcher};
use std::mem::take;

/// Compiles `match`.
pub(super) fn matches(work: &mut Work<'_>, place: &Place, mut rest: RouteMatch) -> Option<Match> {
    let before = work.rejections.len();
    let path = path(work, place, rest.path_specifier.take());
    let (mut methods, mut compiled) = (Methods::default(), Vec::new());
    for (index, header) in take(&mut rest.headers).into_iter().enumerate() {
        let place = place.element("headers", index);
        match method_names(&header).filter(|_| methods.is_any()) {
            Some(names) => methods = Methods::of(names.iter().map(String::as_str)),
            None => compiled.extend(field(work, &place, header)),
        }
    }
    let mut query = Vec::new();
    for (index, parameter) in take(&mut rest.query_parameters).into_iter().enumerate() {
        query.extend(self::query(work, &place.element("query_parameters", index), parameter));
    }
    if rest.case_sensitive.take().is_some_and(|sensitive| !sensitive.value) {
        work.refuse(&place.field("case_sensitive"), "must be true");
    }
    work.refuse_rest(place, &rest);
    let whole = work.rejections.len() == before;
    let matches = Match { path: path?, methods, fields: compiled.into(), query: query.into() };
    whole.then_some(matches)
}

fn path(work: &mut Work<'_>, place: &Place, specifier: Option<PathSpecifier>) -> Option<Path> {
    let (field, text) = match &specifier {
        Some(PathSpecifier::Path(text)) => ("path", text),
        Some(PathSpecifier::Prefix(text)) => ("prefix", text),
        Some(PathSpecifier::PathSeparatedPrefix(text)) => ("path_separated_prefix", text),
        Some(PathSpecifier::SafeRegex(pattern)) => {
            return regex(work, &place.field("safe_regex"), pattern).map(Path::Regex);
        }
        _ => {
            work.refuse(place, "must have path, prefix, path_separated_prefix or safe_regex");
            return None;
        }
    };
    let place = place.field(field);
    let bytes: Box<[u8]> = text.as_bytes().into();
    if !(text.starts_with('/') || text == "*" && field == "path") || text.contains(['?', '#']) {
        work.refuse(&place, format!("{text:?} must begin with / and have no ? or #"));
        return None;
    }
    match field {
        "path" => Some(Path::Exact(bytes)),
        "prefix" => Some(Path::Prefix(bytes)),
        _ if text.ends_with('/') => {
            work.refuse(&place, format!("{text:?} must not end with /"));
            None
        }
        _ => Some(Path::Segments(bytes)),
    }
}

/// The names that a condition on `:method` admits, when it is one that only lists names.
#[allow(deprecated, reason = "xDS deprecates fields that proxies must go on to read")]
pub(super) fn method_names(matcher: &HeaderMatcher) -> Option<Vec<String>> {
    if matcher.name != ":method" || matcher.invert_match {
        return None;
    }
    let pattern = match matcher.header_match_specifier.as_ref()? {
        HeaderMatchSpecifier::ExactMatch(name) => return Some(vec![name.clone()]),
        HeaderMatchSpecifier::SafeRegexMatch(pattern) => &pattern.regex,
        HeaderMatchSpecifier::StringMatch(StringMatcher { match_pattern: Some(pattern), ignore_case: false }) => {
            match pattern {
                MatchPattern::Exact(name) => return Some(vec![name.clone()]),
                MatchPattern::SafeRegex(pattern) => &pattern.regex,
                _ => return None,
            }
        }
        _ => return None,
    };
    let names: Vec<String> = pattern.split('|').map(str::to_owned).collect();
    let plain = |name: &String| {
        !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    names.iter().all(plain).then_some(names)
}

#[allow(deprecated, reason = "xDS deprecates fields that proxies must go on to read")]
pub(super) fn field(work: &mut Work<'_>, place: &Place, matcher: HeaderMatcher) -> Option<FieldMatch> {
    let part = match matcher.name.as_str() {
        ":authority" => Part::Authority,
        ":method" => Part::Method,
        name if name.eq_ignore_ascii_case("host") => Part::Authority,
        name => Part::Field(fields::name(work, &place.field("name"), name)?),
    };
    let mut invert = matcher.invert_match;
    let test = match matcher.header_match_specifier {
        None => Test::Present,
        Some(HeaderMatchSpecifier::PresentMatch(present)) => {
            invert ^= !present;
            Test::Present
        }
        Some(HeaderMatchSpecifier::ExactMatch(text)) => Test::Exact(text.into_bytes().into()),
        Some(HeaderMatchSpecifier::PrefixMatch(text)) => Test::Prefix(text.into_bytes().into()),
        Some(HeaderMatchSpecifier::SuffixMatch(text)) => Test::Suffix(text.into_bytes().into()),
        Some(HeaderMatchSpecifier::ContainsMatch(text)) => Test::Contains(text.into_bytes().into()),
        Some(HeaderMatchSpecifier::SafeRegexMatch(pattern)) => {
            Test::Regex(regex(work, &place.field("safe_regex_match"), &pattern)?)
        }
        Some(HeaderMatchSpecifier::StringMatch(text)) => string(work, &place.field("string_match"), text)?,
        Some(HeaderMatchSpecifier::RangeMatch(_)) => {
            work.refuse(&place.field("range_match"), "is not supported");
            return None;
        }
    };
    Some(FieldMatch { part, test, invert, missing_is_empty: matcher.treat_missing_header_as_empty })
}

fn query(work: &mut Work<'_>, place: &Place, matcher: QueryParameterMatcher) -> Option<QueryMatch> {
    if matcher.name.is_empty() {
        work.refuse(&place.field("name"), "must be given");
        return None;
    }
    let test = match matcher.query_parameter_match_specifier {
        None | Some(QueryParameterMatchSpecifier::PresentMatch(true)) => Test::Present,
        Some(QueryParameterMatchSpecifier::PresentMatch(false)) => Test::Absent,
        Some(QueryParameterMatchSpecifier::StringMatch(text)) => string(work, &place.field("string_match"), text)?,
    };
    Some(QueryMatch { name: matcher.name.into_bytes().into(), test })
}

pub(super) fn string(work: &mut Work<'_>, place: &Place, matcher: StringMatcher) -> Option<Test> {
    let bytes = |text: String| text.into_bytes().into();
    match (matcher.match_pattern, matcher.ignore_case) {
        (Some(MatchPattern::Exact(text)), true) => Some(Test::ExactIgnoringCase(bytes(text))),
        (Some(MatchPattern::Exact(text)), false) => Some(Test::Exact(bytes(text))),
        (Some(MatchPattern::Prefix(text)), false) => Some(Test::Prefix(bytes(text))),
        (Some(MatchPattern::Suffix(text)), false) => Some(Test::Suffix(bytes(text))),
        (Some(MatchPattern::Contains(text)), false) => Some(Test::Contains(bytes(text))),
        // `ignore_case` does not concern patterns.
        (Some(MatchPattern::SafeRegex(pattern)), _) => {
            regex(work, &place.field("safe_regex"), &pattern).map(Test::Regex)
        }
        (Some(_), true) => {
            work.refuse(&place.field("ignore_case"), "is supported for exact only");
            None
        }
        _ => {
            work.refuse(place, "must have exact, prefix, suffix, contains or safe_regex");
            None
        }
    }
}

fn regex(work: &mut Work<'_>, place: &Place, matcher: &RegexMatcher) -> Option<RegexId> {
    work.regexes.add(&matcher.regex).map_err(|error| work.refuse(place, error)).ok()
}
