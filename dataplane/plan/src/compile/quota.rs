//! Local rate limits: quotas of listeners and routes. What is not understood is refused: it would limit nobody.

use super::Work;
use super::rejection::Place;
use crate::quota::{Per, QUOTA, Quota, QuotaId, Settings};
use crate::{Plan, RuleId, RuleKey};
use api::envoy_types::pb::envoy::extensions::filters::http::local_ratelimit::v3::LocalRateLimit;
use api::envoy_types::pb::google::protobuf::Any;
use api::{PerClient, xds};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// A rate limit filter of a listener: its name, and its quota, if it has one.
pub(super) type Filter = (String, Option<QuotaId>);

/// How many clients all quotas of a plan may tell apart; each takes 16 bytes.
const CLIENTS: u64 = 16 * 1024 * 1024;

/// The buckets of a plan's quotas, for those of the next that are the same.
#[derive(Default)]
pub(super) struct Kept<'a>(HashMap<&'a RuleKey, Vec<&'a Quota>>);

impl<'a> Kept<'a> {
    pub(super) fn of(plan: Option<&'a Plan>) -> Kept<'a> {
        let mut kept: HashMap<&RuleKey, Vec<&Quota>> = HashMap::new();
        for (plan, quota) in plan.iter().flat_map(|plan| plan.quotas.iter().map(move |quota| (plan, quota))) {
            kept.entry(&plan.rules[quota.rule.0 as usize]).or_default().push(quota);
        }
        Kept(kept)
    }

    /// The buckets that a quota had. Each is given once: routes of different hosts may have one name.
    fn take(&mut self, key: &RuleKey, settings: &Settings) -> Option<Arc<balance::Quota>> {
        let same = self.0.get_mut(key)?;
        let at = same.iter().position(|quota| quota.settings == *settings)?;
        Some(same.remove(at).buckets.clone())
    }
}

/// The quota of an http filter.
pub(super) fn http_filter(work: &mut Work<'_>, place: &Place, listener: &str, config: &Any) -> Option<QuotaId> {
    quota(work, place, (listener, ""), config)
}

/// The quotas that a route's requests take of: the listener's, but for those filters that it has its own for, which are
/// taken out of `own`.
pub(super) fn of_route(
    work: &mut Work<'_>,
    place: &Place,
    whose: (&str, &str),
    own: &mut BTreeMap<String, Any>,
) -> Box<[QuotaId]> {
    let mut quotas = Vec::new();
    for (name, base) in work.limits.clone() {
        match own.remove(&name) {
            Some(config) => quotas.extend(quota(work, &place.field(&name), whose, &config)),
            None => quotas.extend(base),
        }
    }
    quotas.into()
}

fn quota(work: &mut Work<'_>, place: &Place, (listener, route): (&str, &str), config: &Any) -> Option<QuotaId> {
    let limit = xds::decode::<LocalRateLimit>(config, xds::LOCAL_RATE_LIMIT);
    let read = match limit.and_then(|limit| xds::read_quota(&limit)) {
        Ok(read) => read?,
        Err(reason) => {
            work.refuse(place, reason);
            return None;
        }
    };
    let settings = Settings {
        requests: read.requests,
        per_ns: u64::try_from(read.period.as_nanos()).unwrap_or(u64::MAX),
        burst: read.burst,
        clients: read.clients,
        per: match read.per {
            None => Per::All,
            Some(PerClient::Identity) => Per::Identity,
            Some(PerClient::Source) => Per::Source,
            Some(PerClient::Header(name)) => Per::Header(name.into()),
        },
    };
    work.clients += u64::from(settings.clients);
    if work.clients > CLIENTS {
        work.refuse(place, format!("all quotas together may tell {CLIENTS} clients apart"));
        return None;
    }
    let key = RuleKey { listener: listener.into(), route: route.into(), list: QUOTA, name: read.name.into() };
    let Settings { requests, per_ns, burst, clients, .. } = settings;
    let buckets = work
        .kept
        .take(&key, &settings)
        .unwrap_or_else(|| Arc::new(balance::Quota::new(requests, per_ns, burst, clients as usize)));
    work.rules.push(key);
    let rule = RuleId(work.rules.len() as u32 - 1);
    work.quotas.push(Quota { rule, settings, buckets });
    Some(QuotaId(work.quotas.len() as u32 - 1))
}
