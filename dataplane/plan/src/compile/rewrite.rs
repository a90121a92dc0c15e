//! Rewrites of paths and targets of redirects. Of the substitutions by pattern that xDS can say, those two are understood
//! that mean what a prefix cannot say: the whole path, and a prefix that becomes the root.

use super::rejection::Place;
use super::{Work, fields};
use crate::matcher::Path;
use crate::rewrite::{Location, PathRewrite};
use api::envoy_types::pb::envoy::config::route::v3::RedirectAction;
use api::envoy_types::pb::envoy::config::route::v3::redirect_action::{PathRewriteSpecifier, SchemeRewriteSpecifier};
use api::envoy_types::pb::envoy::r#type::matcher::v3::RegexMatchAndSubstitute;
use std::mem::take;

/// The rewrite of a route; `matched` is the path that it matches.
pub(super) fn path_rewrite(
    work: &mut Work<'_>,
    place: &Place,
    prefix: String,
    pattern: Option<RegexMatchAndSubstitute>,
    matched: &Path,
) -> Option<PathRewrite> {
    match (prefix.as_str(), pattern) {
        ("", None) => Some(PathRewrite::Keep),
        (to, None) => by_prefix(work, &place.field("prefix_rewrite"), to, matched),
        ("", Some(pattern)) => by_pattern(work, &place.field("regex_rewrite"), &pattern, matched),
        (_, Some(_)) => {
            work.refuse(&place.field("regex_rewrite"), "cannot stand beside prefix_rewrite");
            None
        }
    }
}

/// Where a redirect points.
pub(super) fn location(
    work: &mut Work<'_>,
    place: &Place,
    mut redirect: RedirectAction,
    matched: &Path,
) -> Option<Location> {
    let before = work.rejections.len();
    let scheme = match redirect.scheme_rewrite_specifier.take() {
        None | Some(SchemeRewriteSpecifier::HttpsRedirect(false)) => None,
        Some(SchemeRewriteSpecifier::HttpsRedirect(true)) => Some("https".into()),
        Some(SchemeRewriteSpecifier::SchemeRedirect(scheme)) => match scheme.as_str() {
            "http" | "https" => Some(scheme.into()),
            _ => {
                work.refuse(&place.field("scheme_redirect"), "must be http or https");
                None
            }
        },
    };
    let host = match take(&mut redirect.host_redirect) {
        host if host.is_empty() => None,
        host => fields::host(work, &place.field("host_redirect"), &host),
    };
    let port = match take(&mut redirect.port_redirect) {
        0 => None,
        port => match u16::try_from(port) {
            Ok(port) => Some(port),
            Err(_) => {
                work.refuse(&place.field("port_redirect"), "must be 1 to 65535");
                None
            }
        },
    };
    let mut query = take(&mut redirect.strip_query).then(Box::default);
    let path = match redirect.path_rewrite_specifier.take() {
        None => Some(PathRewrite::Keep),
        Some(PathRewriteSpecifier::PathRedirect(to)) => {
            let place = place.field("path_redirect");
            // A query of its own takes the place of the request's, as in Envoy.
            let (path, own_query) = to.split_at(to.find('?').unwrap_or(to.len()));
            if !own_query.is_empty() {
                query = Some(own_query.into());
            }
            target(work, &place, path).map(PathRewrite::Whole)
        }
        Some(PathRewriteSpecifier::PrefixRewrite(to)) => by_prefix(work, &place.field("prefix_rewrite"), &to, matched),
        Some(PathRewriteSpecifier::RegexRewrite(pattern)) => {
            by_pattern(work, &place.field("regex_rewrite"), &pattern, matched)
        }
        Some(PathRewriteSpecifier::PathRewrite(_)) => {
            work.refuse(&place.field("path_rewrite"), "is not supported");
            None
        }
    };
    let path = path?;
    (work.rejections.len() == before).then_some(Location { scheme, host, port, path, query })
}

/// What matched becomes `to`: of an exact path or a pattern that is all of it.
fn by_prefix(work: &mut Work<'_>, place: &Place, to: &str, matched: &Path) -> Option<PathRewrite> {
    let to = target(work, place, to)?;
    Some(match matched {
        Path::Exact(_) | Path::Regex(_) => PathRewrite::Whole(to),
        Path::Segments(prefix) | Path::Prefix(prefix) => PathRewrite::Prefix { bytes: prefix.len(), to },
    })
}

fn by_pattern(
    work: &mut Work<'_>,
    place: &Place,
    rule: &RegexMatchAndSubstitute,
    matched: &Path,
) -> Option<PathRewrite> {
    let pattern = rule.pattern.as_ref().map(|pattern| pattern.regex.as_str()).unwrap_or_default();
    if rule.substitution.contains('\\') {
        work.refuse(&place.field("substitution"), "must not have groups");
        return None;
    }
    match (pattern, matched) {
        ("^/.*" | "^/.*$" | "^.*$", _) => target(work, place, &rule.substitution).map(PathRewrite::Whole),
        (_, Path::Segments(prefix)) if rule.substitution == "/" && is_prefix_and_slash(pattern, prefix) => {
            Some(PathRewrite::Prefix { bytes: prefix.len(), to: Box::default() })
        }
        _ => {
            let reason = format!("{pattern:?} is not supported: `^/.*` and `^PREFIX/?` to `/` are");
            work.refuse(&place.field("pattern"), reason);
            None
        }
    }
}

/// Whether a pattern is `^PREFIX/?`, the prefix escaped.
fn is_prefix_and_slash(pattern: &str, prefix: &[u8]) -> bool {
    let Some(escaped) = pattern.strip_prefix('^').and_then(|rest| rest.strip_suffix("/?")) else {
        return false;
    };
    let mut plain = Vec::with_capacity(escaped.len());
    let mut bytes = escaped.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => match bytes.next() {
                Some(escaped) if escaped.is_ascii_punctuation() => plain.push(escaped),
                _ => return false,
            },
            b'.' | b'+' | b'*' | b'?' | b'(' | b')' | b'[' | b']' | b'{' | b'}' | b'|' | b'^' | b'$' => return false,
            byte => plain.push(byte),
        }
    }
    plain == prefix
}

/// A path to write: it begins with a slash and has neither query nor anything that would need to be encoded.
fn target(work: &mut Work<'_>, place: &Place, text: &str) -> Option<Box<[u8]>> {
    let byte = |byte: u8| byte.is_ascii_graphic() && !b"?#\\\"<>".contains(&byte);
    if !text.starts_with('/') || !text.bytes().all(byte) {
        work.refuse(place, format!("{text:?} must begin with / and have no ?, #, space or control character"));
        return None;
    }
    Some(text.as_bytes().into())
}
