//! `quota` as a local rate limit. What an Envoy would do otherwise let pass unlimited (a client without the header or
//! the identity that tells clients apart) has a count of its own here.

use std::time::Duration;

use envoy_types::pb::{
    envoy::{
        config::{
            core::v3::{RuntimeFractionalPercent, TypedExtensionConfig},
            route::v3::{
                HeaderMatcher, RateLimit,
                header_matcher::HeaderMatchSpecifier,
                rate_limit::{
                    Action,
                    action::{ActionSpecifier, HeaderValueMatch, RemoteAddress, RequestHeaders},
                },
            },
        },
        extensions::{
            common::ratelimit::v3::{LocalRateLimitDescriptor, rate_limit_descriptor::Entry},
            filters::http::local_ratelimit::v3::LocalRateLimit,
            rate_limit_descriptors::expr::v3::{Descriptor, descriptor::ExprSpecifier},
        },
        r#type::v3::{FractionalPercent, TokenBucket, fractional_percent::DenominatorType},
    },
    google::protobuf::{self, BoolValue, UInt32Value},
};

use super::{RATE_LIMIT_EXPRESSION, any};
use crate::model::{PerClient, Quota};

/// Keys of descriptors.
const IDENTITY: &str = "identity";
const SOURCE: &str = "remote_address";
const HEADER: &str = "header";
const ABSENT: &str = "absent";
/// Clients without an identity have one count.
const EXPRESSION: &str = "has(connection.uri_san_peer_certificate) ? connection.uri_san_peer_certificate : '-'";
/// The statistics' name where there is no quota; quotas have names without a space.
const NOTHING: &str = "no quota";

/// A quota; `None` is a filter that lets everything pass, for the others to stand behind.
pub fn write_quota(of: Option<&Quota>) -> LocalRateLimit {
    let Some(of) = of else {
        return LocalRateLimit { stat_prefix: NOTHING.to_owned(), ..LocalRateLimit::default() };
    };
    let bucket = bucket(of);
    let base = LocalRateLimit {
        stat_prefix: of.name.clone(),
        filter_enabled: always(),
        filter_enforced: always(),
        enable_retry_after_header: true,
        ..LocalRateLimit::default()
    };
    let Some(per) = &of.per else {
        return LocalRateLimit { token_bucket: Some(bucket), ..base };
    };
    let (key, actions, absent) = actions(per);
    let descriptor = |key: &str, value: &str| LocalRateLimitDescriptor {
        entries: vec![Entry { key: key.to_owned(), value: value.to_owned() }],
        token_bucket: Some(bucket),
        ..LocalRateLimitDescriptor::default()
    };
    let limit = |action| RateLimit { actions: vec![Action { action_specifier: Some(action) }], ..RateLimit::default() };
    LocalRateLimit {
        // Wanted by Envoy; the descriptors' intervals are a multiple of its own.
        token_bucket: Some(TokenBucket { max_tokens: u32::MAX, tokens_per_fill: number(u32::MAX), ..bucket }),
        always_consume_default_token_bucket: Some(BoolValue { value: false }),
        // A blank value: each value that comes has a bucket of its own.
        descriptors: [descriptor(key, "")]
            .into_iter()
            .chain(absent.as_ref().map(|_| descriptor(ABSENT, HEADER)))
            .collect(),
        rate_limits: [actions].into_iter().chain(absent).map(limit).collect(),
        max_dynamic_descriptors: number(of.clients),
        ..base
    }
}

/// The key of the descriptor, what gives it its value, and what gives one to clients without.
fn actions(per: &PerClient) -> (&'static str, ActionSpecifier, Option<ActionSpecifier>) {
    match per {
        PerClient::Source => (SOURCE, ActionSpecifier::RemoteAddress(RemoteAddress {}), None),
        PerClient::Identity => {
            let descriptor = Descriptor {
                descriptor_key: IDENTITY.to_owned(),
                expr_specifier: Some(ExprSpecifier::Text(EXPRESSION.to_owned())),
                ..Descriptor::default()
            };
            let extension = TypedExtensionConfig {
                name: "envoy.rate_limit_descriptors.expr".to_owned(),
                typed_config: Some(any(RATE_LIMIT_EXPRESSION, &descriptor)),
            };
            (IDENTITY, ActionSpecifier::Extension(extension), None)
        }
        PerClient::Header(name) => {
            let value = RequestHeaders {
                header_name: name.clone(),
                descriptor_key: HEADER.to_owned(),
                ..RequestHeaders::default()
            };
            let absent = HeaderMatcher {
                name: name.clone(),
                header_match_specifier: Some(HeaderMatchSpecifier::PresentMatch(false)),
                ..HeaderMatcher::default()
            };
            let absent = HeaderValueMatch {
                descriptor_key: ABSENT.to_owned(),
                descriptor_value: HEADER.to_owned(),
                headers: vec![absent],
                ..HeaderValueMatch::default()
            };
            (HEADER, ActionSpecifier::RequestHeaders(value), Some(ActionSpecifier::HeaderValueMatch(absent)))
        }
    }
}

fn bucket(of: &Quota) -> TokenBucket {
    TokenBucket {
        max_tokens: of.burst,
        tokens_per_fill: number(of.requests),
        fill_interval: Some(protobuf::Duration { seconds: of.period.as_secs() as i64, nanos: 0 }),
    }
}

/// Envoy's default is never.
fn always() -> Option<RuntimeFractionalPercent> {
    let all = FractionalPercent { numerator: 100, denominator: DenominatorType::Hundred as i32 };
    Some(RuntimeFractionalPercent { default_value: Some(all), runtime_key: String::new() })
}

fn number(value: u32) -> Option<UInt32Value> {
    Some(UInt32Value { value })
}

/// Reads back what [`write_quota`] wrote. `None`: nothing is limited.
///
/// # Errors
/// Another form: a limit that this proxy would not keep.
pub fn read_quota(of: &LocalRateLimit) -> Result<Option<Quota>, String> {
    if *of == write_quota(None) {
        return Ok(None);
    }
    let bucket = match of.descriptors.first() {
        Some(descriptor) => descriptor.token_bucket.as_ref(),
        None => of.token_bucket.as_ref(),
    };
    let bucket = bucket.ok_or("token_bucket is missing")?;
    let seconds = bucket.fill_interval.as_ref().map_or(0, |d| d.seconds);
    let quota = Quota {
        name: of.stat_prefix.clone(),
        requests: bucket.tokens_per_fill.map_or(1, |n| n.value),
        period: Duration::from_secs(u64::try_from(seconds).unwrap_or(0)),
        burst: bucket.max_tokens,
        per: of.rate_limits.first().map(per).transpose()?,
        clients: of.max_dynamic_descriptors.map_or(1, |n| n.value),
    };
    if quota.requests == 0 || quota.burst == 0 || quota.period.is_zero() || quota.clients == 0 {
        return Err("a bucket has tokens, gets some in whole seconds, and is for some clients".to_owned());
    }
    // It stands in answers, between quotes.
    let fits = |byte: u8| (b' '..=b'~').contains(&byte) && byte != b'"' && byte != b'\\';
    if !(1..=128).contains(&quota.name.len()) || !quota.name.bytes().all(fits) {
        return Err("stat_prefix is the quota's name: 1 to 128 visible characters".to_owned());
    }
    match write_quota(Some(&quota)) == *of {
        true => Ok(Some(quota)),
        false => Err("this form of a local rate limit is not understood".to_owned()),
    }
}

fn per(of: &RateLimit) -> Result<PerClient, String> {
    match of.actions.first().and_then(|a| a.action_specifier.as_ref()) {
        Some(ActionSpecifier::RemoteAddress(_)) => Ok(PerClient::Source),
        Some(ActionSpecifier::Extension(_)) => Ok(PerClient::Identity),
        Some(ActionSpecifier::RequestHeaders(header)) => Ok(PerClient::Header(header.header_name.clone())),
        _ => Err("this action of a rate limit is not understood".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotas_are_read_as_they_were_written() {
        let whom =
            [None, Some(PerClient::Identity), Some(PerClient::Source), Some(PerClient::Header("x-key".to_owned()))];
        for per in whom {
            let clients = if per.is_some() { 1000 } else { 1 };
            let period = Duration::from_secs(60);
            let quota = Quota { name: "n".to_owned(), requests: 100, period, burst: 200, per, clients };
            let written = write_quota(Some(&quota));
            assert_eq!(read_quota(&written), Ok(Some(quota)));
            let mut other = written.clone();
            other.filter_enforced = None;
            assert!(read_quota(&other).is_err());
            let mut other = written;
            other.local_rate_limit_per_downstream_connection = true;
            assert!(read_quota(&other).is_err());
        }
        assert_eq!(read_quota(&write_quota(None)), Ok(None));
        assert!(read_quota(&LocalRateLimit::default()).is_err());
        let mut named = write_quota(Some(&Quota {
            name: "n".to_owned(),
            requests: 1,
            period: Duration::from_secs(1),
            burst: 1,
            per: None,
            clients: 1,
        }));
        assert!(read_quota(&named).is_ok());
        for name in ["", "a\"b", "a\\b", "a\r\nb"] {
            named.stat_prefix = name.to_owned();
            assert!(read_quota(&named).is_err(), "{name:?}");
        }
    }
}
