//! The metrics page. Every metric stands in one list, [`METRICS`], with its name, its meaning and where its values come
//! from; a test holds the list of names. A scrape reads counters that cores write and makes no core wait.

mod read;

use crate::daemon::Standing;
use crate::host;
use crate::state::State;
use crate::world;
use flow::{Counters, PairId, PairKey, RuleSum, SeriesSum};
use plan::{Certificate, Plan, RuleKey, SeriesKey};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;
use read::{
    Out, certificates, counter_of, counts, gauge_of, gauges, handshake_failures, handshakes, info, latencies, of_cores,
    of_endpoints, of_services, pairs, quotas, refusals, requests,
};
use ring::StatsSnapshot;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::UNIX_EPOCH;

/// The content type of [`page`].
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// One metric: counters get `_total` behind their name, information `_info`.
struct Metric {
    name: &'static str,
    kind: MetricType,
    help: &'static str,
    read: fn(&Snapshot, &mut Out<'_>) -> fmt::Result,
}

/// All metrics, in the order of the page.
#[rustfmt::skip]
static METRICS: &[Metric] = &[
    counter("ringway_requests", "Requests and tunnels that ended, by status class", requests),
    Metric { name: "ringway_request_duration_seconds", kind: MetricType::Histogram, help: "From a request's first byte to its answer's last; not of upgraded ones", read: latencies },
    counter("ringway_endings", "How requests, tunnels and connections without a request ended", |from, out| {
        for at in 0..flow::LABELS.len() {
            let count = from.sum(|core| core.endings().nth(at).map_or(0, |(_, count)| count));
            counts(out, &[("ending", flow::LABELS[at])], count)?;
        }
        Ok(())
    }),
    gauge("ringway_requests_active", "Requests under way", |from, out| gauge_of(out, from.sum(|core| core.active.value()))),
    gauge("ringway_requests_pending", "Requests that wait for a connection to an endpoint", |from, out| gauge_of(out, from.sum(|core| core.pending.value()))),

    counter("ringway_connections_accepted", "Connections accepted from clients", |from, out| counter_of(out, from.sum(|core| core.accepted.value()))),
    counter("ringway_accept_failures", "Accepts that failed for want of descriptors or memory", |from, out| counter_of(out, from.sum(|core| core.accept_failures.value()))),
    gauge("ringway_connections_open", "Connections from clients that are open", |from, out| gauge_of(out, from.sum(|core| core.downstream.value()))),
    gauge("ringway_connections_idle", "Of those, connections without a request", |from, out| gauge_of(out, from.sum(|core| core.downstream_idle.value()))),
    gauge("ringway_connections_limit", "Connections from clients at which accepting pauses", |from, out| gauge_of(out, from.connections_limit)),
    counter("ringway_upstream_connections_opened", "Connections opened to endpoints", |from, out| counter_of(out, from.sum(|core| core.connects.value()))),
    counter("ringway_upstream_connect_failures", "Connections to endpoints that could not be opened", |from, out| counter_of(out, from.sum(|core| core.connect_failures.value()))),
    counter("ringway_upstream_reuses", "Requests sent on a connection that was used before", |from, out| counter_of(out, from.sum(|core| core.reused.value()))),
    gauge("ringway_upstream_connections_open", "Connections to endpoints that are open", |from, out| gauge_of(out, from.sum(|core| core.upstream.value()))),
    gauge("ringway_upstream_connections_idle", "Of those, connections without a request", |from, out| gauge_of(out, from.sum(|core| core.upstream_idle.value()))),

    counter("ringway_downstream_received_bytes", "Bytes received from clients", |from, out| counter_of(out, from.sum(|core| core.downstream_received_bytes.value()))),
    counter("ringway_downstream_sent_bytes", "Bytes sent to clients", |from, out| counter_of(out, from.sum(|core| core.downstream_sent_bytes.value()))),
    counter("ringway_upstream_received_bytes", "Bytes received from endpoints", |from, out| counter_of(out, from.sum(|core| core.upstream_received_bytes.value()))),
    counter("ringway_upstream_sent_bytes", "Bytes sent to endpoints", |from, out| counter_of(out, from.sum(|core| core.upstream_sent_bytes.value()))),
    counter("ringway_body_bytes", "Bytes of bodies and tunnels that were passed on, either way", |from, out| counter_of(out, from.sum(|core| core.body_bytes.value()))),
    counter("ringway_body_copied_bytes", "Of those, bytes that were copied in user space", |from, out| counter_of(out, from.sum(|core| core.body_copied_bytes.value()))),

    counter("ringway_tls_handshakes", "TLS handshakes that were completed", handshakes),
    counter("ringway_tls_handshake_failures", "TLS handshakes that failed, by reason", handshake_failures),
    counter("ringway_plaintext_connections", "Connections that came in plain where TLS is offered too", |from, out| counter_of(out, from.sum(|core| core.plaintext.value()))),
    counter("ringway_policy_refused", "Requests and connections that a rule refused, or would have refused (dry-run)", refusals),
    counter("ringway_quota_refused", "Requests that a quota refused", quotas),
    counter("ringway_identity_requests", "Requests by the client's identity and the service, up to 1024 pairs", pairs),
    gauge("ringway_certificate_expiry_days", "Days until a certificate, the first of a bundle, or a list of revoked ones ends", certificates),
    counter("ringway_certificate_reloads", "Changes of the files that the configuration names", |from, out| {
        let results = [("applied", from.certificates_applied), ("refused", from.certificates_refused)];
        results.iter().try_for_each(|(result, count)| counts(out, &[("result", result)], *count))
    }),

    gauge("ringway_service_connections", "Connections that count against the service's limit", |from, out| of_services(from, out, balance::Kind::Connection)),
    gauge("ringway_service_pending", "Waiting requests that count against the service's limit", |from, out| of_services(from, out, balance::Kind::Pending)),
    gauge("ringway_service_requests", "Requests that count against the service's limit", |from, out| of_services(from, out, balance::Kind::Request)),
    gauge("ringway_endpoint_in_flight", "Requests and tunnels under way at an endpoint", |from, out| {
        of_endpoints(from, |endpoint, labels| gauges(out, labels, u64::from(endpoint.in_flight())))
    }),
    counter("ringway_endpoint_requests", "Requests that an endpoint was given", |from, out| {
        of_endpoints(from, |endpoint, labels| counts(out, labels, endpoint.requests()))
    }),
    counter("ringway_endpoint_failures", "Requests that failed at an endpoint", |from, out| {
        of_endpoints(from, |endpoint, labels| counts(out, labels, endpoint.failures()))
    }),
    gauge("ringway_endpoint_latency_seconds", "The average that peak-ewma goes by, raised by failures", |from, out| {
        of_endpoints(from, |endpoint, labels| match endpoint.average_us(from.core_now_ns) {
            Some(us) => out.encode_family(&labels)?.encode_gauge(&(f64::from(us) / 1e6)),
            None => Ok(()),
        })
    }),

    counter("ringway_core_turns", "Turns of a core", |from, out| of_cores(from, |stats, labels| counts(out, labels, stats.turns))),
    counter("ringway_core_completions", "Completions that a core handled", |from, out| of_cores(from, |stats, labels| counts(out, labels, stats.completions))),
    gauge("ringway_core_completions_per_turn", "Completions a turn since the start", |from, out| {
        of_cores(from, |stats, labels| {
            let ratio = stats.completions as f64 / stats.turns.max(1) as f64;
            out.encode_family(&labels)?.encode_gauge(&ratio)
        })
    }),
    counter("ringway_core_polls", "Polls of a core's tasks", |from, out| of_cores(from, |stats, labels| counts(out, labels, stats.polls))),
    counter("ringway_core_busy_seconds", "Time that a core spent outside the kernel's wait", |from, out| {
        of_cores(from, |stats, labels| {
            let seconds = stats.busy_ns as f64 / 1e9;
            out.encode_family(&labels)?.encode_counter::<read::NoExemplar, f64, f64>(&seconds, None)
        })
    }),
    gauge("ringway_core_tasks", "Tasks alive", |from, out| of_cores(from, |stats, labels| gauges(out, labels, stats.tasks))),
    gauge("ringway_core_ready_tasks", "Tasks that were ready when the last turn began", |from, out| of_cores(from, |stats, labels| gauges(out, labels, stats.ready))),
    gauge("ringway_core_sockets", "Sockets open", |from, out| of_cores(from, |stats, labels| gauges(out, labels, stats.sockets))),
    gauge("ringway_core_buffers", "Small receive buffers there are", |from, out| of_cores(from, |stats, labels| gauges(out, labels, stats.buffers))),
    gauge("ringway_core_buffers_held", "Small receive buffers held by connections", |from, out| of_cores(from, |stats, labels| gauges(out, labels, stats.buffers_held))),
    gauge("ringway_core_large_buffers_held", "Large receive buffers held by connections", |from, out| of_cores(from, |stats, labels| gauges(out, labels, stats.large_held))),
    gauge("ringway_core_waiting_for_buffers", "Sockets that wait in line for a receive buffer", |from, out| of_cores(from, |stats, labels| gauges(out, labels, stats.waiting_for_buffers))),
    counter("ringway_core_no_buffers", "Receives that ended because there was no buffer", |from, out| of_cores(from, |stats, labels| counts(out, labels, stats.no_buffers))),
    counter("ringway_core_copied_bytes", "Received bytes that were copied to give their buffer back", |from, out| of_cores(from, |stats, labels| counts(out, labels, stats.copied_bytes))),
    gauge("ringway_core_connections", "Connections from clients that a core has", |from, out| {
        from.counters.iter().enumerate().try_for_each(|(core, counters)| {
            gauges(out, &[("core", &core.to_string())], counters.downstream.value())
        })
    }),
    gauge("ringway_core_plan_generation", "The plan that a core works with", |from, out| {
        from.counters.iter().enumerate().try_for_each(|(core, counters)| {
            gauges(out, &[("core", &core.to_string())], counters.generation.value())
        })
    }),

    counter("ringway_log_records_written", "Access-log records written", |from, out| counter_of(out, from.log_written)),
    counter("ringway_log_records_dropped", "Access-log records dropped because the log had fallen behind, or could not be written", |from, out| {
        counter_of(out, from.log_lost + from.sum(|core| core.log_dropped.value()))
    }),
    counter("ringway_log_errors", "Failed attempts to open or write the access log", |from, out| counter_of(out, from.log_errors)),
    gauge("ringway_plan_generation", "The newest plan", |from, out| gauge_of(out, from.plan.as_ref().map_or(0, |plan| plan.generation))),
    counter("ringway_plans_applied", "Plans applied, from files and from changes of DNS answers", |from, out| counter_of(out, from.plans)),
    counter("ringway_reloads_applied", "Files that were reloaded", |from, out| counter_of(out, from.reloads)),
    counter("ringway_reloads_refused", "Files that were refused, the plan staying as it was", |from, out| counter_of(out, from.refused)),
    counter("ringway_dns_failures", "Questions to DNS without an answer", |from, out| counter_of(out, from.dns_failures)),
    gauge("ringway_daemon_connected", "1 while the daemon is listened to", |from, out| of_daemon(from, out, |daemon| Some(u64::from(daemon.connected)))),
    gauge("ringway_daemon_last_contact_seconds", "When the daemon last said something, since 1970", |from, out| {
        match from.daemon.as_ref().filter(|daemon| daemon.last_contact_ms > 0) {
            Some(daemon) => out.encode_gauge(&(daemon.last_contact_ms as f64 / 1e3)),
            None => Ok(()),
        }
    }),
    gauge("ringway_daemon_push", "The push whose configuration all cores work with", |from, out| of_daemon(from, out, |daemon| daemon.push)),
    counter("ringway_daemon_responses", "Responses with configuration that were judged", |from, out| {
        from.daemon.as_ref().map_or(Ok(()), |daemon| counter_of(out, daemon.responses))
    }),
    counter("ringway_daemon_resources_refused", "Resources in them that were refused", |from, out| {
        from.daemon.as_ref().map_or(Ok(()), |daemon| counter_of(out, daemon.refused))
    }),
    gauge("ringway_daemon_resources_rejected", "Reasons for which resources are not in force as the daemon has them", |from, out| of_daemon(from, out, |daemon| Some(daemon.rejected))),
    counter("ringway_daemon_certificates", "Questions for a certificate, by result", |from, out| {
        let Some(daemon) = &from.daemon else { return Ok(()) };
        let results = [("issued", daemon.issued), ("failed", daemon.not_issued)];
        results.iter().try_for_each(|(result, count)| counts(out, &[("result", result)], *count))
    }),
    gauge("ringway_draining", "1 while the process drains", |from, out| gauge_of(out, from.draining.into())),
    gauge("ringway_cores", "Cores", |from, out| gauge_of(out, from.counters.len() as u64)),
    gauge("ringway_start_time_seconds", "When the process started, since 1970", |from, out| out.encode_gauge(&from.start_time_s)),
    gauge("ringway_uptime_seconds", "For how long the process has been running", |from, out| out.encode_gauge(&from.uptime_s)),
    gauge("ringway_resident_memory_bytes", "Resident memory of the process", |from, out| gauge_of(out, from.resident_bytes)),
    gauge("ringway_open_descriptors", "Open descriptors of the process", |from, out| gauge_of(out, from.descriptors)),
    gauge("ringway_descriptor_limit", "Descriptors that the process may have", |from, out| gauge_of(out, from.descriptor_limit)),
    Metric { name: "ringway_build", kind: MetricType::Info, help: "The version of this program", read: |_, out| info(out, &[("version", crate::VERSION)]) },
    Metric { name: "ringway_kernel", kind: MetricType::Info, help: "The kernel, and what it offers of what we look for", read: |from, out| {
        let yes = |has: bool| if has { "true" } else { "false" };
        let features = &from.features;
        info(out, &[("release", &features.release), ("no_sq_array", yes(features.no_sq_array)), ("registered_ring", yes(features.registered_ring))])
    } },
];

const fn counter(name: &'static str, help: &'static str, read: fn(&Snapshot, &mut Out<'_>) -> fmt::Result) -> Metric {
    Metric { name, kind: MetricType::Counter, help, read }
}

const fn gauge(name: &'static str, help: &'static str, read: fn(&Snapshot, &mut Out<'_>) -> fmt::Result) -> Metric {
    Metric { name, kind: MetricType::Gauge, help, read }
}

/// The page, in OpenMetrics text (<https://github.com/prometheus/OpenMetrics>, version 1.0.0).
pub(crate) fn page(state: &State) -> String {
    encode(Snapshot::of(state))
}

fn encode(snapshot: Snapshot) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(snapshot));
    let mut page = String::new();
    // Writing to a String does not fail.
    let _ = text::encode(&mut page, &registry);
    page
}

/// Everything that the page shows, read once.
#[derive(Debug, Default)]
struct Snapshot {
    counters: Vec<Arc<Counters>>,
    stats: Vec<StatsSnapshot>,
    series: Vec<(SeriesKey, SeriesSum)>,
    rules: Vec<(RuleKey, RuleSum)>,
    /// The last stands for all that found no room.
    pairs: Vec<(PairId, PairKey)>,
    certificates: Vec<Certificate>,
    certificates_applied: u64,
    certificates_refused: u64,
    /// Seconds since 1970.
    now_s: u64,
    plan: Option<Arc<Plan>>,
    features: ring::Features,
    connections_limit: u64,
    /// On the clock of the cores.
    core_now_ns: u64,
    log_written: u64,
    log_lost: u64,
    log_errors: u64,
    plans: u64,
    reloads: u64,
    refused: u64,
    dns_failures: u64,
    daemon: Option<Daemon>,
    draining: bool,
    start_time_s: f64,
    uptime_s: f64,
    resident_bytes: u64,
    descriptors: u64,
    descriptor_limit: u64,
}

/// How things stand with the daemon.
#[derive(Debug)]
struct Daemon {
    connected: bool,
    last_contact_ms: u64,
    push: Option<u64>,
    rejected: u64,
    responses: u64,
    refused: u64,
    issued: u64,
    not_issued: u64,
}

impl Daemon {
    fn of(standing: &Standing) -> Daemon {
        let (push, rejected) = standing.applied();
        Daemon {
            connected: standing.is_connected(),
            last_contact_ms: standing.last_contact_ms(),
            push,
            rejected,
            responses: standing.responses.load(Relaxed),
            refused: standing.refused.load(Relaxed),
            issued: standing.issued.load(Relaxed),
            not_issued: standing.not_issued.load(Relaxed),
        }
    }
}

/// A gauge of a proxy under a daemon.
fn of_daemon(from: &Snapshot, out: &mut Out<'_>, value: impl Fn(&Daemon) -> Option<u64>) -> fmt::Result {
    from.daemon.as_ref().and_then(value).map_or(Ok(()), |value| gauge_of(out, value))
}

impl Snapshot {
    fn of(state: &State) -> Snapshot {
        let plan = state.plan();
        let (wall, instant) = state.started;
        Snapshot {
            counters: state.counters.clone(),
            stats: state.stats.iter().map(|stats| stats.snapshot()).collect(),
            series: state.series().sums(),
            rules: state.rules().sums(),
            pairs: pairs_of(&state.process.pairs),
            certificates: plan.iter().flat_map(|plan| plan.certificates()).cloned().collect(),
            certificates_applied: state.certificates.applied.load(Relaxed),
            certificates_refused: state.certificates.refused.load(Relaxed),
            now_s: world::now_s(),
            features: state.features.clone(),
            connections_limit: plan.as_ref().map_or(0, |plan| plan.process.connections.into()),
            plan,
            core_now_ns: state.began.first().map_or(0, |began| began.instant.elapsed().as_nanos() as u64),
            log_written: state.log.written.load(Relaxed),
            log_lost: state.log.lost.load(Relaxed),
            log_errors: state.log.errors.load(Relaxed),
            plans: state.plans.load(Relaxed),
            reloads: state.reloads.load(Relaxed),
            refused: state.refused.load(Relaxed),
            dns_failures: state.dns_failures.load(Relaxed),
            daemon: state.daemon.as_deref().map(Daemon::of),
            draining: state.draining.load(Relaxed),
            start_time_s: wall.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64(),
            uptime_s: instant.elapsed().as_secs_f64(),
            resident_bytes: host::resident_bytes(),
            descriptors: host::open_descriptors(),
            descriptor_limit: state.descriptor_limit,
        }
    }

    /// One counter, added up over all cores.
    fn sum(&self, of: impl Fn(&Counters) -> u64) -> u64 {
        self.counters.iter().map(|core| of(core)).sum()
    }
}

/// The pairs there are, by name, and behind them all that found no room.
fn pairs_of(pairs: &flow::Pairs) -> Vec<(PairId, PairKey)> {
    let mut known: Vec<(PairId, PairKey)> = pairs.iter().map(|(id, key)| (id, key.clone())).collect();
    known.sort_by(|one, other| one.1.cmp(&other.1));
    known.push((PairId::OTHER, PairKey { identity: "other".into(), service: "other".into() }));
    known
}

impl Collector for Snapshot {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for metric in METRICS {
            let mut out = encoder.encode_descriptor(metric.name, metric.help, None, metric.kind)?;
            (metric.read)(self, &mut out)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flow::Ending;
    use wire::tls::Failure;

    fn snapshot() -> Snapshot {
        let counters = Counters::default();
        counters.accepted.add(3);
        counters.ended(Ending::NoRoute);
        counters.handshakes.add(5);
        counters.handshakes_resumed.add(2);
        counters.upstream_handshake_failures[Failure::UnknownIssuer.index()].add(4);
        counters.plaintext.add(6);
        let pairs = flow::Pairs::default();
        counters.pairs.record(pairs.intern("spiffe://shop/web", "cart"), 201, false);
        counters.pairs.record(PairId::OTHER, 404, false);
        let rule = |route: &str, list: &'static str, name: &str| RuleKey {
            listener: "web".into(),
            route: route.into(),
            list,
            name: name.into(),
        };
        let series = flow::Series::new(1);
        series.core(0).record(flow::Ending::Complete, 200, 700_000);
        series.core(0).record(flow::Ending::Complete, 503, 99_000_000_000);
        let key = SeriesKey { listener: "web".into(), route: "a\"b".into(), service: "cart".into() };
        Snapshot {
            counters: vec![Arc::new(counters), Arc::default()],
            stats: vec![StatsSnapshot {
                turns: 4,
                completions: 10,
                busy_ns: 1_500_000_000,
                ..StatsSnapshot::default()
            }],
            series: vec![(key, series.sum())],
            rules: vec![
                (rule("", "deny", "old-net"), RuleSum { refused: 7, would_refuse: 0 }),
                (rule("cart", "allow", ""), RuleSum { refused: 0, would_refuse: 8 }),
                (rule("cart", plan::QUOTA, "each"), RuleSum { refused: 9, would_refuse: 0 }),
            ],
            pairs: pairs_of(&pairs),
            certificates: vec![Certificate {
                name: "certs/a.pem".into(),
                kind: plan::CertificateKind::Own,
                subject: "spiffe://shop/web".into(),
                not_after_s: 1_000_000 + 36 * 3600,
            }],
            certificates_refused: 9,
            daemon: Some(Daemon {
                connected: true,
                last_contact_ms: 1_500,
                push: Some(7),
                rejected: 2,
                responses: 30,
                refused: 4,
                issued: 5,
                not_issued: 6,
            }),
            now_s: 1_000_000,
            ..Snapshot::default()
        }
    }

    /// A name that changes breaks somebody's dashboard: change `names.txt` with it, and say so in the release's notes.
    #[test]
    fn names_and_types_are_those_written_down() {
        let kind = |metric: &Metric| metric.kind.as_str().to_owned();
        let lines: Vec<String> = METRICS.iter().map(|metric| format!("{} {}", metric.name, kind(metric))).collect();
        assert_eq!(lines.join("\n"), include_str!("names.txt").trim_end());
    }

    #[test]
    fn every_name_is_unique_ours_and_in_base_units() {
        for (at, metric) in METRICS.iter().enumerate() {
            assert!(metric.name.starts_with("ringway_"), "{}", metric.name);
            assert!(!metric.name.ends_with("_total"), "{}: the encoder adds it", metric.name);
            assert!(!metric.name.contains("_ms") && !metric.name.contains("_ns"), "{}", metric.name);
            assert!(METRICS[..at].iter().all(|other| other.name != metric.name), "{}", metric.name);
        }
    }

    #[test]
    fn the_page_adds_cores_up_and_escapes_names() {
        let page = encode(snapshot());
        for line in [
            "ringway_connections_accepted_total 3",
            "ringway_endings_total{ending=\"no_route\"} 1",
            "ringway_endings_total{ending=\"complete\"} 0",
            "ringway_requests_total{listener=\"web\",route=\"a\\\"b\",service=\"cart\",class=\"2xx\"} 1",
            "ringway_requests_total{listener=\"web\",route=\"a\\\"b\",service=\"cart\",class=\"5xx\"} 1",
            "ringway_request_duration_seconds_bucket{le=\"0.001\",listener=\"web\",route=\"a\\\"b\",service=\"cart\"} 1",
            "ringway_request_duration_seconds_bucket{le=\"60.0\",listener=\"web\",route=\"a\\\"b\",service=\"cart\"} 1",
            "ringway_request_duration_seconds_bucket{le=\"+Inf\",listener=\"web\",route=\"a\\\"b\",service=\"cart\"} 2",
            "ringway_request_duration_seconds_count{listener=\"web\",route=\"a\\\"b\",service=\"cart\"} 2",
            "ringway_tls_handshakes_total{side=\"downstream\",resumed=\"false\"} 3",
            "ringway_tls_handshakes_total{side=\"downstream\",resumed=\"true\"} 2",
            "ringway_tls_handshakes_total{side=\"upstream\",resumed=\"false\"} 0",
            "ringway_tls_handshake_failures_total{side=\"upstream\",reason=\"unknown_issuer\"} 4",
            "ringway_plaintext_connections_total 6",
            "ringway_policy_refused_total{listener=\"web\",route=\"\",list=\"deny\",rule=\"old-net\",mode=\"enforced\"} 7",
            "ringway_policy_refused_total{listener=\"web\",route=\"cart\",list=\"allow\",rule=\"\",mode=\"dry-run\"} 8",
            "ringway_quota_refused_total{listener=\"web\",route=\"cart\",quota=\"each\"} 9",
            "ringway_identity_requests_total{source=\"spiffe://shop/web\",service=\"cart\",class=\"2xx\"} 1",
            "ringway_identity_requests_total{source=\"other\",service=\"other\",class=\"4xx\"} 1",
            "ringway_certificate_expiry_days{name=\"certs/a.pem\",kind=\"own\",subject=\"spiffe://shop/web\"} 1.5",
            "ringway_certificate_reloads_total{result=\"applied\"} 0",
            "ringway_certificate_reloads_total{result=\"refused\"} 9",
            "ringway_daemon_connected 1",
            "ringway_daemon_last_contact_seconds 1.5",
            "ringway_daemon_push 7",
            "ringway_daemon_responses_total 30",
            "ringway_daemon_resources_refused_total 4",
            "ringway_daemon_resources_rejected 2",
            "ringway_daemon_certificates_total{result=\"issued\"} 5",
            "ringway_daemon_certificates_total{result=\"failed\"} 6",
            "ringway_core_completions_per_turn{core=\"0\"} 2.5",
            "ringway_core_busy_seconds_total{core=\"0\"} 1.5",
            concat!("ringway_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"),
            "# TYPE ringway_requests counter",
        ] {
            assert!(page.lines().any(|found| found == line), "{line} is not in\n{page}");
        }
        assert!(page.ends_with("# EOF\n"));
    }

    #[test]
    fn a_proxy_without_a_daemon_has_no_values_of_one() {
        let page = encode(Snapshot { daemon: None, ..snapshot() });
        assert!(!page.lines().any(|line| line.starts_with("ringway_daemon_")), "{page}");
    }
}
