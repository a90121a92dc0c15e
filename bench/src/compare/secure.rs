//! What TLS adds to a comparison: certificates, options of load and origin, the words of configurations, and the proof that
//! each arm did what it is compared for.

use std::io;
use std::path::{Path, PathBuf};

use super::arms::Kind;
use crate::certificates::Authority;
use crate::report::Report;

/// The one suite that load and origin know, so that no arm can choose another.
const SUITE: &str = "aes-128-gcm";
const SUITE_NAME: &str = "TLS13_AES_128_GCM_SHA256";

/// Where TLS is spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Tls {
    #[default]
    None,
    /// Towards the proxy.
    Down,
    /// Towards the proxy and from it to the origin, each end with a certificate that the other verifies.
    Mutual,
}

/// The files of one comparison: `ca.pem`, who issued `proxy`, `client` and `origin`; and `stranger`, whom another authority did.
pub(crate) struct Certificates {
    dir: PathBuf,
}

impl Certificates {
    pub(crate) fn make(dir: &Path) -> io::Result<Certificates> {
        let dir = dir.join("certificates");
        std::fs::create_dir_all(&dir)?;
        let (ca, other) = (Authority::new(&dir, "ca")?, Authority::new(&dir, "other")?);
        ["proxy", "client", "origin"].into_iter().try_for_each(|role| ca.issue(&dir, role))?;
        other.issue(&dir, "stranger")?;
        Ok(Certificates { dir })
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    fn file(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }

    fn own(&self, role: &str) -> [String; 4] {
        ["--certificate".into(), self.file(&format!("{role}.pem")), "--key".into(), self.file(&format!("{role}.key"))]
    }

    /// What the load is told: it trusts the authority, expects the proxy, and shows the certificate of a role, or none.
    pub(crate) fn of_load(&self, tls: Tls, role: Option<&str>) -> Vec<String> {
        if tls == Tls::None {
            return Vec::new();
        }
        let trust = self.file("ca.pem");
        let mut words =
            ["--tls", "--trust", &trust, "--sni", "proxy.test", "--suite", SUITE].map(String::from).to_vec();
        words.extend(role.into_iter().flat_map(|role| self.own(role)));
        words
    }

    /// What an origin with the certificate of a role is told.
    pub(crate) fn of_origin(&self, tls: Tls, role: &str) -> Vec<String> {
        if tls != Tls::Mutual {
            return Vec::new();
        }
        let mut words = self.own(role).to_vec();
        words.extend(["--clients", &self.file("ca.pem"), "--suite", SUITE].map(String::from));
        words
    }
}

/// Which certificate the load shows.
pub(crate) fn shown(tls: Tls) -> Option<&'static str> {
    (tls == Tls::Mutual).then_some("client")
}

/// Answers that did not come as they were to: under another suite, or without the full handshake that each of them was to have.
pub(crate) fn astray(report: &Report, each_shakes: bool) -> u64 {
    let secured = report.secured.clone().unwrap_or_default();
    let proper = secured.suites.get(SUITE_NAME).copied().unwrap_or(0);
    let proper = if each_shakes { proper.min(secured.full) } else { proper };
    report.requests - proper.min(report.requests)
}

/// What a template's words mean; `{certificates}` in them is filled in later.
///
/// No arm gives tickets or keeps sessions, and the load never resumes.
pub(crate) fn words(kind: Kind, tls: Tls) -> [(&'static str, &'static str); 3] {
    let (own, clients, upstream) = match kind {
        Kind::Ours => (RINGWAY_OWN, RINGWAY_CLIENTS, RINGWAY_UPSTREAM),
        Kind::Nginx => (NGINX_OWN, NGINX_CLIENTS, NGINX_UPSTREAM),
        Kind::Haproxy => (HAPROXY_OWN, HAPROXY_CLIENTS, HAPROXY_UPSTREAM),
        Kind::Envoy => (ENVOY_OWN, ENVOY_CLIENTS, ENVOY_UPSTREAM),
        Kind::Relay { .. } | Kind::Naive => ("", "", ""),
    };
    match tls {
        Tls::None => [("tls", ""), ("clients", ""), ("upstream_tls", "")],
        Tls::Down => [("tls", own), ("clients", ""), ("upstream_tls", "")],
        Tls::Mutual => [("tls", own), ("clients", clients), ("upstream_tls", upstream)],
    }
}

const RINGWAY_OWN: &str = "
    tls:
      certificates: [ { certificate: {certificates}/proxy.pem, key: {certificates}/proxy.key } ]
      tickets: false{clients}";
const RINGWAY_CLIENTS: &str = "
      clients: required
      trust: {certificates}/ca.pem";
const RINGWAY_UPSTREAM: &str = "
    tls: { expect: origin.test, trust: {certificates}/ca.pem }
identity: { certificate: {certificates}/proxy.pem, key: {certificates}/proxy.key, trust: {certificates}/ca.pem }";

const NGINX_OWN: &str = "
        ssl_certificate {certificates}/proxy.pem;
        ssl_certificate_key {certificates}/proxy.key;
        ssl_protocols TLSv1.3;
        ssl_conf_command Ciphersuites TLS_AES_128_GCM_SHA256;
        ssl_ecdh_curve X25519;
        ssl_session_cache off;
        ssl_session_tickets off;{clients}";
const NGINX_CLIENTS: &str = "
        ssl_client_certificate {certificates}/ca.pem;
        ssl_verify_client on;";
const NGINX_UPSTREAM: &str = "
            proxy_ssl_protocols TLSv1.3;
            proxy_ssl_conf_command Ciphersuites TLS_AES_128_GCM_SHA256;
            proxy_ssl_certificate {certificates}/proxy.pem;
            proxy_ssl_certificate_key {certificates}/proxy.key;
            proxy_ssl_trusted_certificate {certificates}/ca.pem;
            proxy_ssl_verify on;
            proxy_ssl_server_name on;
            proxy_ssl_name origin.test;";

const HAPROXY_OWN: &str = " ssl crt {certificates}/proxy.both ssl-min-ver TLSv1.3 ciphersuites TLS_AES_128_GCM_SHA256 curves X25519 \
     no-tls-tickets{clients}";
const HAPROXY_CLIENTS: &str = " ca-file {certificates}/ca.pem verify required";
const HAPROXY_UPSTREAM: &str = " ssl crt {certificates}/proxy.both ca-file {certificates}/ca.pem verify required verifyhost origin.test \
     sni str(origin.test) ssl-min-ver TLSv1.3 ciphersuites TLS_AES_128_GCM_SHA256";

const ENVOY_OWN: &str = r#"
          transport_socket:
            name: tls
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
              disable_stateless_session_resumption: true
              disable_stateful_session_resumption: true
              common_tls_context:
                tls_params: { tls_minimum_protocol_version: TLSv1_3, tls_maximum_protocol_version: TLSv1_3, ecdh_curves: [X25519] }
                tls_certificates:
                  - certificate_chain: { filename: "{certificates}/proxy.pem" }
                    private_key: { filename: "{certificates}/proxy.key" }{clients}"#;
const ENVOY_CLIENTS: &str = r#"
                validation_context: { trusted_ca: { filename: "{certificates}/ca.pem" } }
              require_client_certificate: true"#;
const ENVOY_UPSTREAM: &str = r#"
      transport_socket:
        name: tls
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
          sni: origin.test
          common_tls_context:
            tls_params: { tls_minimum_protocol_version: TLSv1_3, tls_maximum_protocol_version: TLSv1_3, ecdh_curves: [X25519] }
            tls_certificates:
              - certificate_chain: { filename: "{certificates}/proxy.pem" }
                private_key: { filename: "{certificates}/proxy.key" }
            validation_context:
              trusted_ca: { filename: "{certificates}/ca.pem" }
              match_typed_subject_alt_names: [ { san_type: DNS, matcher: { exact: origin.test } } ]"#;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Secured;

    #[test]
    fn answers_under_another_suite_or_without_their_handshake_are_astray() {
        let report = |suite: &str, full: u64| Report {
            requests: 10,
            secured: Some(Secured { suites: [(suite.to_owned(), 10)].into(), full, resumed: 10 - full }),
            ..Report::default()
        };
        assert_eq!((astray(&report(SUITE_NAME, 0), false), astray(&report(SUITE_NAME, 10), true)), (0, 0));
        assert_eq!(astray(&report(SUITE_NAME, 7), true), 3);
        assert_eq!(astray(&report("TLS13_AES_256_GCM_SHA384", 10), false), 10);
        assert_eq!(astray(&Report { requests: 4, ..Report::default() }, false), 4);
    }

    #[test]
    fn only_the_arms_that_other_people_built_and_ours_speak_tls() {
        for kind in [Kind::Ours, Kind::Nginx, Kind::Haproxy, Kind::Envoy] {
            assert!(words(kind, Tls::None).iter().all(|(_, text)| text.is_empty()));
            assert!(words(kind, Tls::Mutual).iter().all(|(_, text)| !text.is_empty()));
        }
        assert!(words(Kind::Naive, Tls::Mutual).iter().all(|(_, text)| text.is_empty()));
    }
}
