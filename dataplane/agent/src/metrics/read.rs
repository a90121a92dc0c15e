//! How values come from a snapshot to the encoder.

use super::Snapshot;
use balance::{Endpoint, Kind};
use flow::{Count, LATENCY_BOUNDS_S};
use plan::{CertificateKind, QUOTA};
use prometheus_client::encoding::{MetricEncoder, NoLabelSet};
use ring::StatsSnapshot;
use std::fmt;
use wire::tls::Failure;

/// Where one metric's values go.
pub(super) type Out<'a> = MetricEncoder<'a>;
/// Exemplars are not used.
pub(super) type NoExemplar = NoLabelSet;
type Labels<'a> = [(&'a str, &'a str)];

const CLASSES: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];

/// A counter without labels.
pub(super) fn counter_of(out: &mut Out<'_>, value: u64) -> fmt::Result {
    out.encode_counter::<NoExemplar, u64, f64>(&value, None)
}

/// A gauge without labels.
pub(super) fn gauge_of(out: &mut Out<'_>, value: u64) -> fmt::Result {
    out.encode_gauge(&value)
}

/// A counter with labels.
pub(super) fn counts(out: &mut Out<'_>, labels: &Labels<'_>, value: u64) -> fmt::Result {
    out.encode_family(&labels)?.encode_counter::<NoExemplar, u64, f64>(&value, None)
}

/// A gauge with labels.
pub(super) fn gauges(out: &mut Out<'_>, labels: &Labels<'_>, value: u64) -> fmt::Result {
    out.encode_family(&labels)?.encode_gauge(&value)
}

/// Constant facts.
pub(super) fn info(out: &mut Out<'_>, facts: &Labels<'_>) -> fmt::Result {
    out.encode_info(&facts)
}

/// Requests of every series by class; classes that never occurred are left out, but the commonest.
pub(super) fn requests(from: &Snapshot, out: &mut Out<'_>) -> fmt::Result {
    for (key, sum) in &from.series {
        for (class, count) in CLASSES.iter().zip(sum.classes) {
            if count > 0 || *class == "2xx" {
                let labels =
                    [("listener", &*key.listener), ("route", &key.route), ("service", &key.service), ("class", class)];
                counts(out, &labels, count)?;
            }
        }
    }
    Ok(())
}

/// Latencies of every series that has any: a histogram takes 19 lines, and most routes of most listeners see no traffic.
pub(super) fn latencies(from: &Snapshot, out: &mut Out<'_>) -> fmt::Result {
    let counted = from.series.iter().filter(|(_, sum)| sum.latency.iter().any(|count| *count > 0));
    for (key, sum) in counted {
        let bounds = LATENCY_BOUNDS_S.iter().copied().chain([f64::INFINITY]);
        let buckets: Vec<(f64, u64)> = bounds.zip(sum.latency).collect();
        let labels = [("listener", &*key.listener), ("route", &*key.route), ("service", &*key.service)];
        let (seconds, count) = (sum.latency_sum_ns as f64 / 1e9, sum.latency.iter().sum());
        out.encode_family(&labels)?.encode_histogram::<NoExemplar>(seconds, count, &buckets, None)?;
    }
    Ok(())
}

/// What each core's runtime counts.
pub(super) fn of_cores(
    from: &Snapshot,
    mut read: impl FnMut(&StatsSnapshot, &Labels<'_>) -> fmt::Result,
) -> fmt::Result {
    from.stats.iter().enumerate().try_for_each(|(core, stats)| read(stats, &[("core", &core.to_string())]))
}

/// What counts against a limit of each service.
pub(super) fn of_services(from: &Snapshot, out: &mut Out<'_>, kind: Kind) -> fmt::Result {
    let services = from.plan.iter().flat_map(|plan| &plan.services);
    services.into_iter().try_for_each(|service| {
        gauges(out, &[("service", &service.name)], u64::from(service.balance.budget().used(kind)))
    })
}

/// Each endpoint of each service.
pub(super) fn of_endpoints(
    from: &Snapshot,
    mut read: impl FnMut(&Endpoint, &Labels<'_>) -> fmt::Result,
) -> fmt::Result {
    for service in from.plan.iter().flat_map(|plan| &plan.services) {
        for (endpoint, _) in service.balance.endpoints() {
            read(endpoint, &[("service", &service.name), ("endpoint", &endpoint.address().to_string())])?;
        }
    }
    Ok(())
}

/// Completed handshakes of both sides. Both counters of a side are read one after the other: the one that is part of the other
/// may be ahead for a moment.
pub(super) fn handshakes(from: &Snapshot, out: &mut Out<'_>) -> fmt::Result {
    let sides = [
        ("downstream", from.sum(|core| core.handshakes_resumed.value()), from.sum(|core| core.handshakes.value())),
        (
            "upstream",
            from.sum(|core| core.upstream_handshakes_resumed.value()),
            from.sum(|core| core.upstream_handshakes.value()),
        ),
    ];
    for (side, resumed, all) in sides {
        counts(out, &[("side", side), ("resumed", "false")], all.saturating_sub(resumed))?;
        counts(out, &[("side", side), ("resumed", "true")], resumed)?;
    }
    Ok(())
}

/// Failed handshakes of both sides, by reason.
pub(super) fn handshake_failures(from: &Snapshot, out: &mut Out<'_>) -> fmt::Result {
    for failure in Failure::ALL {
        let of = |counts: &[Count]| counts.get(failure.index()).map_or(0, Count::value);
        let sides = [
            ("downstream", from.sum(|core| of(&core.handshake_failures))),
            ("upstream", from.sum(|core| of(&core.upstream_handshake_failures))),
        ];
        for (side, count) in sides {
            counts(out, &[("side", side), ("reason", failure.label())], count)?;
        }
    }
    Ok(())
}

/// What policy refused. Rules that only try are told apart from those that are enforced by what they have counted; a rule
/// that never refused anybody shows with zero.
pub(super) fn refusals(from: &Snapshot, out: &mut Out<'_>) -> fmt::Result {
    for (key, sum) in from.rules.iter().filter(|(key, _)| key.list != QUOTA) {
        let mut mode = |mode: &str, count: u64| {
            let labels = [
                ("listener", &*key.listener),
                ("route", &key.route),
                ("list", key.list),
                ("rule", &key.name),
                ("mode", mode),
            ];
            counts(out, &labels, count)
        };
        mode("enforced", sum.refused)?;
        if sum.would_refuse > 0 {
            mode("dry-run", sum.would_refuse)?;
        }
    }
    Ok(())
}

/// What quotas refused.
pub(super) fn quotas(from: &Snapshot, out: &mut Out<'_>) -> fmt::Result {
    for (key, sum) in from.rules.iter().filter(|(key, _)| key.list == QUOTA) {
        let labels = [("listener", &*key.listener), ("route", &key.route), ("quota", &key.name)];
        counts(out, &labels, sum.refused)?;
    }
    Ok(())
}

/// Requests by identity and service; classes that never occurred are left out.
pub(super) fn pairs(from: &Snapshot, out: &mut Out<'_>) -> fmt::Result {
    for (id, key) in &from.pairs {
        for (at, class) in CLASSES.iter().enumerate() {
            let count = from.sum(|core| core.pairs.classes(*id)[at]);
            if count > 0 {
                counts(out, &[("source", &*key.identity), ("service", &key.service), ("class", class)], count)?;
            }
        }
    }
    Ok(())
}

/// Days left of each certificate: below zero when it has ended.
pub(super) fn certificates(from: &Snapshot, out: &mut Out<'_>) -> fmt::Result {
    for certificate in &from.certificates {
        let kind = match certificate.kind {
            CertificateKind::Own => "own",
            CertificateKind::Trust => "trust",
            CertificateKind::Revocations => "crl",
        };
        let labels = [("name", &*certificate.name), ("kind", kind), ("subject", &*certificate.subject)];
        let days = (certificate.not_after_s as f64 - from.now_s as f64) / 86_400.0;
        out.encode_family(&labels)?.encode_gauge(&days)?;
    }
    Ok(())
}
