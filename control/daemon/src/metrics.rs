//! What the daemon counts, as OpenMetrics text.

use crate::collect::{Fleet, Page};
use crate::state::Daemon;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};
use std::sync::Arc;

/// The type of the page.
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Counters of the daemon.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    pub(crate) joins: Counter,
    pub(crate) refused_joins: Counter,
    pub(crate) renewals: Counter,
    pub(crate) handshake_failures: Counter,
    pub(crate) accept_failures: Counter,
    pub(crate) turned_away: Counter,
    pub(crate) swept: Counter,
    connections: Gauge,
    version: Gauge,
    daemons: Gauge,
    store_reachable: Gauge,
    root_not_after: Gauge,
    issuing_not_after: Gauge,
}

impl Metrics {
    /// With what this fleet's proxies tell.
    pub(crate) fn new(fleet: Arc<Fleet>) -> Metrics {
        let mut registry = Registry::with_prefix("ringwayd");
        registry.register_collector(Box::new(Page(fleet)));
        let mut counter = |name: &str, help: &str| {
            let counter = Counter::default();
            registry.register(name, help, counter.clone());
            counter
        };
        let joins = counter("joins", "Proxies that joined with a token, repeated ones too");
        let refused_joins = counter("refused_joins", "Proxies that did not");
        let renewals = counter("renewals", "Certificates of proxies that were renewed");
        let handshake_failures =
            counter("handshake_failures", "Connections that ended before their handshake was done");
        let accept_failures = counter("accept_failures", "Times that the kernel did not give a connection");
        let turned_away = counter("turned_away", "Connections for which there were too many strangers");
        let swept = counter("swept_proxies", "Records of proxies that were removed since they cannot come back");
        let mut gauge = |name: &str, unit: Option<Unit>, help: &str| {
            let gauge = Gauge::default();
            match unit {
                Some(unit) => registry.register_with_unit(name, help, unit, gauge.clone()),
                None => registry.register(name, help, gauge.clone()),
            }
            gauge
        };
        let connections = gauge("connections", None, "Connections of proxies and operators that showed a certificate");
        let version = gauge("version", None, "The version in force; 0 before the first");
        let daemons = gauge("daemons", None, "Daemons that share the store, this one among them");
        let store_reachable = gauge("store_reachable", None, "1, or 0 while this daemon is cut off from etcd");
        let root_not_after = gauge("root_not_after", Some(Unit::Seconds), "When the first root expires, since 1970");
        let issuing_not_after =
            gauge("issuing_not_after", Some(Unit::Seconds), "When what issues certificates expires, since 1970");
        Metrics {
            registry,
            joins,
            refused_joins,
            renewals,
            handshake_failures,
            accept_failures,
            turned_away,
            swept,
            connections,
            version,
            daemons,
            store_reachable,
            root_not_after,
            issuing_not_after,
        }
    }

    /// The page.
    pub(crate) fn page(&self, daemon: &Daemon) -> String {
        self.connections.set(i64::try_from(daemon.connected.count()).unwrap_or(i64::MAX));
        let version = daemon.in_force().borrow().as_ref().map_or(0, |now| now.version.number);
        self.version.set(i64::try_from(version).unwrap_or(i64::MAX));
        self.daemons.set(i64::try_from(daemon.others().len() + 1).unwrap_or(i64::MAX));
        self.store_reachable.set(i64::from(daemon.store.cut_off().is_none()));
        let seconds = |ms: u64| i64::try_from(ms / 1000).unwrap_or(i64::MAX);
        self.root_not_after.set(seconds(daemon.authority.root_not_after_ms()));
        self.issuing_not_after.set(seconds(daemon.authority.issuing_not_after_ms()));
        let mut page = String::new();
        // Writing to a String does not fail.
        let _ = encode(&mut page, &self.registry);
        page
    }
}

#[cfg(test)]
mod tests {
    use crate::server::tests::Running;
    use api::pb;
    use std::collections::BTreeSet;

    /// What is on deploy/DAEMON.md.
    fn page() -> String {
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/DAEMON.md")).unwrap()
    }

    #[tokio::test]
    async fn the_page_names_every_metric_and_none_else() {
        let running = Running::start().await;
        // What proxies tell has no line before one has.
        for count in [0, 1] {
            let label = || [("x".to_owned(), count)].into();
            let (classes, latency) = (vec![count], vec![count]);
            let series = pb::Series { classes, latency, denied: count, endings: label(), ..pb::Series::default() };
            let counters = pb::Counters {
                series: vec![series],
                invalid_requests: count,
                refused_connections: count,
                handshakes: count,
                handshake_failures: label(),
                endings: label(),
            };
            running.daemon.fleet.telemetry().take("a", "cart", 1, &counters);
        }
        let session = running.daemon.fleet.session("a", "cart", ([127, 0, 0, 1], 1).into());
        let certificates = vec![pb::HeldCertificate { kind: "own".to_owned(), ..pb::HeldCertificate::default() }];
        session.reported(pb::Report { certificates, ..pb::Report::default() }).await;
        let shown = running.daemon.metrics.page(&running.daemon);
        let shown: BTreeSet<_> = shown
            .lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| line.split([' ', '{']).next())
            .collect();
        let page = page();
        let named: BTreeSet<_> =
            page.split('`').filter(|word| word.starts_with("ringwayd_") && !word.contains([' ', '\n'])).collect();
        assert_eq!(shown, named);
    }

    #[test]
    fn the_file_on_the_page_is_read_and_has_every_key() {
        let page = page();
        let (_, block) = page.split_once("```yaml\n").unwrap();
        let (text, _) = block.split_once("```").unwrap();
        let settings = api::settings::load(text, "DAEMON.md").unwrap();
        assert_eq!(settings.trust_domain.as_deref(), Some("shop"));
        let unknown = api::settings::load("x: 1", "f").unwrap_err()[0].message.clone();
        for key in unknown.split('`').skip(3).step_by(2) {
            assert!(text.contains(&format!("\n{key}:")) || text.starts_with(&format!("{key}:")), "{key}");
        }
        assert!(unknown.contains("`store-key`"), "{unknown}");
        // And the one for several daemons.
        let (_, block) = page.split_once("```yaml\nstore:\n").unwrap();
        let (text, _) = block.split_once("```").unwrap();
        let settings = api::settings::load(&format!("store:\n{text}"), "DAEMON.md").unwrap();
        let etcd = settings.etcd.unwrap();
        assert!(etcd.ca.is_some() && etcd.certificate.is_some() && etcd.user.is_some());
    }
}
