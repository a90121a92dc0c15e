//! What the tests have in common: configurations with one listener and one service, and what counters say of handshakes.

use ringway_tests::{Metrics, Origin, Proxy, eventually};

/// A listener's own certificate, in `own.pem` and `own.key`.
pub(crate) const OWN: &str = "tls: { certificates: [ { certificate: own.pem, key: own.key } ] },";

/// One http listener `web` with these words (each ends in a comma), which sends everything to a service `app` with these words.
pub(crate) fn web(listener: &str, service: &str, origin: &Origin) -> String {
    format!(
        "listeners:\n  web: {{ address: '127.0.0.1:$web', {listener} routes: [ {{ name: all, to: app }} ] }}\n\
         services:\n  app: {{ {service} endpoints: [{}] }}\n",
        origin.address()
    )
}

/// One tcp listener `web` in the same way.
pub(crate) fn tcp(listener: &str, service: &str, origin: &Origin) -> String {
    format!(
        "listeners:\n  web: {{ address: '127.0.0.1:$web', protocol: tcp, {listener} to: app }}\n\
         services:\n  app: {{ {service} endpoints: [{}] }}\n",
        origin.address()
    )
}

/// How many handshakes of a side have failed for one of these reasons.
pub(crate) fn failures(metrics: &Metrics, side: &str, reasons: &[&str]) -> f64 {
    let of =
        |reason: &&str| metrics.total("ringway_tls_handshake_failures_total", &[("side", side), ("reason", reason)]);
    reasons.iter().map(of).sum()
}

/// Waits until so many handshakes of a side have failed for one of these reasons, and no other has.
pub(crate) fn failed(proxy: &Proxy, side: &str, reasons: &[&str], count: f64) {
    eventually(&format!("{count} {side} handshakes failed: {reasons:?}"), || {
        failures(&proxy.metrics(), side, reasons) >= count
    });
    let metrics = proxy.metrics();
    let all = metrics.total("ringway_tls_handshake_failures_total", &[("side", side)]);
    let told: Vec<_> = metrics.all("ringway_tls_handshake_failures_total", &[]).filter(|s| s.value > 0.0).collect();
    assert_eq!((failures(&metrics, side, reasons), all), (count, count), "{reasons:?}: {told:?}");
}

/// How many handshakes of a side were made.
pub(crate) fn made(proxy: &Proxy, side: &str, resumed: bool) -> f64 {
    let resumed = if resumed { "true" } else { "false" };
    proxy.metrics().total("ringway_tls_handshakes_total", &[("side", side), ("resumed", resumed)])
}

/// Bytes that show any loss, doubling or exchange.
pub(crate) fn pattern(length: usize, key: u64) -> Vec<u8> {
    (0..length as u64).map(|n| ((n ^ key << 32).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8).collect()
}
