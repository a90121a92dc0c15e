//! What proxies told, on the page of metrics.

use super::{Fleet, Key};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use std::fmt;
use std::sync::Arc;

const CLASSES: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];

/// The fleet, as metrics.
#[derive(Debug)]
pub(crate) struct Page(pub(crate) Arc<Fleet>);

impl Collector for Page {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let members = self.0.own_members();
        let mut gauge = |name: &str, help: &str, count: usize| {
            let count = u64::try_from(count).unwrap_or(u64::MAX);
            encoder.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&count)
        };
        let connected = members.values().filter(|member| member.is_connected());
        gauge("proxies", "Proxies that are connected", connected.clone().count())?;
        let refusing = connected.filter(|member| !member.rejected().is_empty());
        gauge("refusing_proxies", "Of those, proxies that refuse something that they were sent", refusing.count())?;
        let totals = self.0.telemetry().totals();
        let help = "Requests that proxies told of since the daemon began";
        let mut requests = encoder.encode_descriptor("requests", help, None, MetricType::Counter)?;
        for (key, counts) in &totals {
            for (class, count) in CLASSES.into_iter().zip(counts.classes).filter(|(_, count)| *count > 0) {
                let labels = [labels(key).as_slice(), &[("class", class)]].concat();
                requests.encode_family(&labels.as_slice())?.encode_counter::<NoLabelSet, u64, f64>(&count, None)?;
            }
        }
        let help = "Requests and connections that rules refused, as proxies told since the daemon began";
        let mut denied = encoder.encode_descriptor("denied", help, None, MetricType::Counter)?;
        for (key, counts) in totals.iter().filter(|(_, counts)| counts.denied > 0) {
            denied
                .encode_family(&labels(key).as_slice())?
                .encode_counter::<NoLabelSet, u64, f64>(&counts.denied, None)?;
        }
        Ok(())
    }
}

fn labels(key: &Key) -> [(&str, &str); 4] {
    let Key { group, listener, route, service } = key;
    [("group", group), ("listener", listener), ("route", route), ("service", service)]
}
