//! What is counted, as reports carry it: cumulative, and bounded however many routes, services and identities there are.

use super::joined::Joined;
use super::standing::Told;
use crate::state::State;
use api::pb;
use flow::{LATENCY_BOUNDS_S, PairId, RuleSum, SeriesSum};
use plan::{CertificateKind, RuleKey, SeriesKey};
use std::collections::{BTreeMap, BTreeSet};
use wire::tls::Failure;

/// Series that are reported one by one; all others are added up.
const MOST_SERIES: usize = 2000;
/// Certificates, and listeners, of one report.
const MOST_HELD: usize = 1000;
const OTHER: &str = "other";

// The daemon reads the buckets by these bounds.
const _: () = {
    assert!(LATENCY_BOUNDS_S.len() == api::LATENCY_BOUNDS_US.len());
    let mut at = 0;
    while at < LATENCY_BOUNDS_S.len() {
        assert!((LATENCY_BOUNDS_S[at] * 1e6 + 0.5) as u64 == api::LATENCY_BOUNDS_US[at]);
        at += 1;
    }
};

/// Which series have been reported one by one. They stay so, and the others stay among the others: otherwise what counts
/// would go back and forth between them.
#[derive(Debug, Default)]
pub(super) struct Reported {
    single: BTreeSet<[String; 4]>,
    /// Never less than before, though what it was made of may be forgotten.
    others: [pb::Series; 2],
}

impl Reported {
    /// What the process has counted since it began. With `detail`, by the clients' identities too.
    pub(super) fn counters(&mut self, state: &State, detail: bool) -> pb::Counters {
        let mut series = series(state.series().sums(), state.rules().sums());
        if detail {
            series.extend(pairs(state));
        }
        let sum = |of: &dyn Fn(&flow::Counters) -> u64| state.counters.iter().map(|core| of(core)).sum::<u64>();
        let mut endings: BTreeMap<String, u64> = BTreeMap::new();
        for (label, count) in state.counters.iter().flat_map(|core| core.endings()).filter(|(_, count)| *count > 0) {
            *endings.entry(label.to_owned()).or_default() += count;
        }
        let failures = Failure::ALL
            .iter()
            .map(|failure| (failure.label().to_owned(), sum(&|core| core.handshake_failures[failure.index()].value())));
        let rules = state.rules().sums();
        let of_connections = rules.iter().filter(|(key, _)| key.route.is_empty());
        pb::Counters {
            series: self.bounded(series, MOST_SERIES),
            invalid_requests: endings.get("refused").copied().unwrap_or_default(),
            refused_connections: of_connections.map(|(_, sum)| sum.refused).sum(),
            handshakes: sum(&|core| core.handshakes.value()),
            handshake_failures: failures.filter(|(_, count)| *count > 0).collect(),
            endings,
        }
    }

    /// The series; what is beyond the bound is added up: those by route, and those by identity, which count the same requests.
    fn bounded(&mut self, series: Vec<pb::Series>, most: usize) -> Vec<pb::Series> {
        let mut single = Vec::with_capacity(series.len().min(most));
        let mut others = [other(""), other(OTHER)];
        for one in series {
            let key = [&one.source, &one.listener, &one.route, &one.service].map(String::clone);
            if self.single.contains(&key) || self.single.len() < most {
                self.single.insert(key);
                single.push(one);
            } else {
                let other = &mut others[usize::from(!one.source.is_empty())];
                each(&mut other.classes, &one.classes, |sum, more| sum + more);
                each(&mut other.latency, &one.latency, |sum, more| sum + more);
                other.denied += one.denied;
                other.latency_sum_us += one.latency_sum_us;
                other.failed += one.failed;
                one.endings.into_iter().for_each(|(label, count)| *other.endings.entry(label).or_default() += count);
            }
        }
        // Who has left the series took its counts along: totals never go back.
        for (other, before) in others.iter_mut().zip(&self.others) {
            each(&mut other.classes, &before.classes, u64::max);
            each(&mut other.latency, &before.latency, u64::max);
            other.denied = other.denied.max(before.denied);
            other.latency_sum_us = other.latency_sum_us.max(before.latency_sum_us);
            other.failed = other.failed.max(before.failed);
            for (label, count) in &before.endings {
                let now = other.endings.entry(label.clone()).or_default();
                *now = (*now).max(*count);
            }
        }
        self.others = others.clone();
        single.extend(others.into_iter().filter(|one| one.classes.iter().chain([&one.denied]).any(|count| *count > 0)));
        single
    }
}

/// What is beyond the bound; `source` is empty for sums by route.
fn other(source: &str) -> pb::Series {
    let name = || OTHER.to_owned();
    pb::Series { source: source.to_owned(), listener: name(), route: name(), service: name(), ..pb::Series::default() }
}

fn each(to: &mut Vec<u64>, from: &[u64], with: impl Fn(u64, u64) -> u64) {
    to.resize(to.len().max(from.len()), 0);
    to.iter_mut().zip(from).for_each(|(to, from)| *to = with(*to, *from));
}

/// Requests by listener, route and service, and what policy refused by listener and route.
fn series(requests: Vec<(SeriesKey, SeriesSum)>, rules: Vec<(RuleKey, RuleSum)>) -> Vec<pb::Series> {
    let mut found: BTreeMap<SeriesKey, pb::Series> = BTreeMap::new();
    for (key, sum) in requests.into_iter().filter(|(_, sum)| sum.classes.iter().any(|count| *count > 0)) {
        let series = pb::Series {
            classes: sum.classes.to_vec(),
            latency: sum.latency.to_vec(),
            latency_sum_us: sum.latency_sum_ns / 1_000,
            failed: sum.failed,
            endings: sum.endings.into_iter().map(|(label, count)| (label.to_owned(), count)).collect(),
            ..pb::Series::default()
        };
        found.insert(key, series);
    }
    for (key, sum) in rules.into_iter().filter(|(_, sum)| sum.refused > 0) {
        // Which service it would have been does not matter to who is refused.
        let key = SeriesKey { listener: key.listener, route: key.route, service: "".into() };
        found.entry(key).or_default().denied += sum.refused;
    }
    let named = |(key, series): (SeriesKey, pb::Series)| pb::Series {
        listener: key.listener.into(),
        route: key.route.into(),
        service: key.service.into(),
        ..series
    };
    found.into_iter().map(named).collect()
}

/// Requests by the client's identity and the service.
fn pairs(state: &State) -> Vec<pb::Series> {
    let pairs = &state.process.pairs;
    let known = pairs.iter().map(|(id, key)| (id, key.identity.to_string(), key.service.to_string()));
    let all = known.chain([(PairId::OTHER, OTHER.to_owned(), OTHER.to_owned())]);
    let series = |(id, source, service): (PairId, String, String)| {
        let mut series = pb::Series { source, service, classes: vec![0; 6], ..pb::Series::default() };
        for core in &state.counters {
            each(&mut series.classes, &core.pairs.classes(id), |sum, more| sum + more);
            series.denied += core.pairs.denied(id);
        }
        series
    };
    all.map(series).filter(|series| series.classes.iter().any(|count| *count > 0)).collect()
}

/// The certificates that the plan holds; first of all the proxy's own, whether the plan needs it or not. That one, and the
/// mesh's roots, are told as all cores work with them: a change of roots goes by it.
pub(super) fn certificates(state: &State, joined: Option<&Joined>, told: &Told) -> Vec<pb::HeldCertificate> {
    let plan = state.plan();
    let own = joined.filter(|_| told.not_after_s > 0).map(|joined| pb::HeldCertificate {
        name: api::xds::IDENTITY_SECRET.to_owned(),
        kind: "own".to_owned(),
        subject: joined.identity.clone(),
        not_after_ms: told.not_after_s.saturating_mul(1000),
        version: String::new(),
    });
    let certificates = plan.iter().flat_map(|plan| plan.certificates());
    let certificates = certificates.filter(|one| *one.name != *api::xds::IDENTITY_SECRET).take(MOST_HELD);
    let held = certificates.map(|certificate| pb::HeldCertificate {
        name: certificate.name.to_string(),
        kind: match certificate.kind {
            CertificateKind::Own => "own".to_owned(),
            CertificateKind::Trust => "trust".to_owned(),
            CertificateKind::Revocations => "crl".to_owned(),
        },
        subject: certificate.subject.to_string(),
        not_after_ms: certificate.not_after_s.saturating_mul(1000),
        version: match &*certificate.name {
            api::xds::TRUST_SECRET => told.trust_version.clone(),
            _ => String::new(),
        },
    });
    own.into_iter().chain(held).collect()
}

/// Where this proxy listens: others find it there. A unix socket is for this machine alone.
pub(super) fn listeners(state: &State, ready: bool) -> Vec<pb::OwnListener> {
    let plan = state.plan();
    let listeners = plan.iter().flat_map(|plan| plan.listeners.iter()).filter_map(|listener| match &listener.address {
        balance::Address::Ip(address) => {
            Some(pb::OwnListener { name: listener.name.to_string(), address: address.to_string(), ready })
        }
        balance::Address::Unix(_) => None,
    });
    listeners.take(MOST_HELD).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(route: &str, count: u64) -> pb::Series {
        pb::Series { route: route.into(), classes: vec![0, 0, count], latency: vec![count], ..pb::Series::default() }
    }

    #[test]
    fn beyond_the_bound_series_are_one_and_what_is_single_stays_so() {
        let mut reported = Reported::default();
        let first = reported.bounded(vec![one("b", 1), one("c", 2), one("d", 3), one("e", 4)], 2);
        let routes =
            |list: &[pb::Series]| list.iter().map(|one| (one.route.clone(), one.classes[2])).collect::<Vec<_>>();
        assert_eq!(routes(&first), [("b".into(), 1), ("c".into(), 2), ("other".into(), 7)]);
        assert_eq!(first[2].latency, [7]);
        // One that comes first by name, and one that has been forgotten.
        let second = reported.bounded(vec![one("a", 9), one("b", 1), one("c", 5), one("d", 3)], 2);
        assert_eq!(routes(&second), [("b".into(), 1), ("c".into(), 5), ("other".into(), 12)]);
        let third = reported.bounded(vec![one("b", 1), one("c", 5)], 2);
        assert_eq!(routes(&third)[2], ("other".into(), 12), "it never goes back");
    }

    #[test]
    fn beyond_the_bound_identities_are_no_routes() {
        let by = |source: &str, count| pb::Series { source: source.into(), ..one("", count) };
        let found =
            Reported::default().bounded(vec![one("a", 1), one("b", 2), by("x", 4), one("c", 8), by("y", 16)], 1);
        let told: Vec<_> = found.iter().map(|one| (&*one.source, &*one.route, one.classes[2])).collect();
        assert_eq!(told, [("", "a", 1), ("", "other", 10), ("other", "other", 20)]);
    }

    #[test]
    fn requests_and_refusals_of_a_route_are_one_series() {
        let key = |service: &str| SeriesKey { listener: "web".into(), route: "cart".into(), service: service.into() };
        let endings = BTreeMap::from([("upstream_truncated", 2)]);
        let sum = SeriesSum {
            classes: [0, 0, 3, 0, 1, 0],
            latency_sum_ns: 5_000,
            failed: 2,
            endings,
            ..SeriesSum::default()
        };
        let rule = RuleKey { listener: "web".into(), route: "cart".into(), list: "allow", name: "".into() };
        let refused = RuleSum { refused: 1, would_refuse: 7 };
        let found = series(
            vec![(key("cart"), sum.clone()), (key(""), sum), (key("idle"), SeriesSum::default())],
            vec![(rule, refused)],
        );
        let told: Vec<_> =
            found.iter().map(|one| (&*one.service, one.classes[2], one.denied, one.latency_sum_us)).collect();
        assert_eq!(told, [("", 3, 1, 5), ("cart", 3, 0, 5)]);
        assert_eq!((found[1].failed, found[1].endings["upstream_truncated"]), (2, 2));
    }
}
