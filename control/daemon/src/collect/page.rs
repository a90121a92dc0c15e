//! What proxies told, on the page of metrics.

use super::{Counts, Fleet, Key, Member, Word};
use api::LATENCY_BOUNDS_US;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;

const CLASSES: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];

/// The fleet, as metrics.
#[derive(Debug)]
pub(crate) struct Page(pub(crate) Arc<Fleet>);

impl Collector for Page {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let members = self.0.own_members();
        proxies(&mut encoder, &members)?;
        requests(&mut encoder, &self.0.telemetry().totals())?;
        let words = self.0.telemetry().words();
        for (name, what) in WORDS {
            let help = format!("{what}, as proxies told since the daemon began");
            let mut family = encoder.encode_descriptor(name, &help, None, MetricType::Counter)?;
            for ((group, word), count) in words.iter().filter(|(_, count)| **count > 0) {
                let (of, mut labels) = shown(word);
                labels.insert(0, ("group", group));
                if of == name {
                    family.encode_family(&labels.as_slice())?.encode_counter::<NoLabelSet, u64, f64>(count, None)?;
                }
            }
        }
        Ok(())
    }
}

const WORDS: [(&str, &str); 6] = [
    ("failed_requests", "Requests that somebody ended before they were complete"),
    ("proxy_endings", "Requests and connections by how they ended"),
    ("proxy_handshakes", "TLS handshakes with clients that were completed"),
    ("proxy_handshake_failures", "TLS handshakes with clients that failed"),
    ("invalid_requests", "Requests that were malformed or over a limit"),
    ("refused_connections", "Connections that rules refused"),
];

/// Under which of these names a word is shown, and its labels.
fn shown(word: &Word) -> (&'static str, Vec<(&str, &str)>) {
    match word {
        Word::Failed { listener, route, service, ending } => {
            let names = [("listener", listener), ("route", route), ("service", service), ("ending", ending)];
            ("failed_requests", names.map(|(name, value)| (name, value.as_str())).into())
        }
        Word::Ending(ending) => ("proxy_endings", vec![("ending", ending)]),
        Word::Handshake => ("proxy_handshakes", Vec::new()),
        Word::HandshakeFailure(reason) => ("proxy_handshake_failures", vec![("reason", reason)]),
        Word::InvalidRequest => ("invalid_requests", Vec::new()),
        Word::RefusedConnection => ("refused_connections", Vec::new()),
    }
}

fn proxies(encoder: &mut DescriptorEncoder<'_>, members: &HashMap<Arc<str>, Member>) -> fmt::Result {
    let mut gauge = |name: &str, help: &str, count: usize| {
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        encoder.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&count)
    };
    let connected = members.values().filter(|member| member.is_connected());
    gauge("proxies", "Proxies that are connected", connected.clone().count())?;
    let refusing = connected.filter(|member| !member.rejected().is_empty());
    gauge("refusing_proxies", "Of those, proxies that refuse something that they were sent", refusing.count())?;
    // Of each proxy, and of each kind, the one that ends first: names are many.
    let mut first: BTreeMap<(&str, &str, &str), u64> = BTreeMap::new();
    for (proxy, member) in members {
        for held in member.report.iter().flat_map(|report| &report.certificates) {
            let kind = ["own", "trust", "crl"].into_iter().find(|kind| *kind == held.kind).unwrap_or("other");
            let ends_s = first.entry((&**proxy, &member.group, kind)).or_insert(u64::MAX);
            *ends_s = (*ends_s).min(held.not_after_ms / 1000);
        }
    }
    let help = "When the first certificate of this kind that a connected proxy holds expires, seconds since 1970";
    let name = "proxy_certificate_not_after_seconds";
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for ((proxy, group, kind), ends_s) in first {
        let labels = [("proxy", proxy), ("group", group), ("kind", kind)];
        family.encode_family(&labels.as_slice())?.encode_gauge(&ends_s)?;
    }
    Ok(())
}

fn requests(encoder: &mut DescriptorEncoder<'_>, totals: &BTreeMap<Key, Counts>) -> fmt::Result {
    let help = "Requests that proxies told of since the daemon began";
    let mut requests = encoder.encode_descriptor("requests", help, None, MetricType::Counter)?;
    for (key, counts) in totals {
        for (class, count) in CLASSES.into_iter().zip(counts.classes).filter(|(_, count)| *count > 0) {
            let labels = [labels(key).as_slice(), &[("class", class)]].concat();
            requests.encode_family(&labels.as_slice())?.encode_counter::<NoLabelSet, u64, f64>(&count, None)?;
        }
    }
    let help = "Requests and connections that rules refused, as proxies told since the daemon began";
    let mut denied = encoder.encode_descriptor("denied", help, None, MetricType::Counter)?;
    for (key, counts) in totals.iter().filter(|(_, counts)| counts.denied > 0) {
        denied.encode_family(&labels(key).as_slice())?.encode_counter::<NoLabelSet, u64, f64>(&counts.denied, None)?;
    }
    let help = "How long requests took, as proxies told since the daemon began, seconds";
    let mut durations = encoder.encode_descriptor("request_duration_seconds", help, None, MetricType::Histogram)?;
    for (key, counts) in totals {
        let count = counts.latency.iter().fold(0, |sum: u64, count| sum.saturating_add(*count));
        if count > 0 {
            let bounds = LATENCY_BOUNDS_US.iter().map(|us| *us as f64 / 1e6).chain([f64::INFINITY]);
            let buckets: Vec<_> = bounds.zip(counts.latency).collect();
            let sum_s = counts.latency_sum_us as f64 / 1e6;
            let labels = labels(key);
            durations
                .encode_family(&labels.as_slice())?
                .encode_histogram::<NoLabelSet>(sum_s, count, &buckets, None)?;
        }
    }
    Ok(())
}

fn labels(key: &Key) -> [(&str, &str); 4] {
    let Key { group, listener, route, service } = key;
    [("group", group), ("listener", listener), ("route", route), ("service", service)]
}
