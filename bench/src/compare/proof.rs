//! The proof that arms do what they are compared for: they answer, and with mutual TLS they refuse whom they must not trust, at
//! both their ends.

use std::io;
use std::net::SocketAddr;

use super::arms::{Arm, Running, get};
use super::results::Row;
use super::scenario::Scenario;
use super::secure::{self, Tls};
use super::{Bench, results};
use crate::report::{Report, Secured};

impl Bench<'_> {
    /// Whether there is an answer of any kind; without TLS, a good one.
    pub(super) fn answers(&self, scenario: Scenario, at: SocketAddr) -> bool {
        match scenario.tls() {
            Tls::None => get(at, "/").is_ok_and(|answer| answer.starts_with("HTTP/1.1 200")),
            tls => self.ask(tls, at, secure::shown(tls)).is_ok_and(|report| !report.status.is_empty()),
        }
    }

    /// One request, with the certificate of a role or none.
    fn ask(&self, tls: Tls, at: SocketAddr, role: Option<&str>) -> io::Result<Report> {
        let mut command = self.place.command(self.place.load, &self.program, None);
        command.arg("load").arg(format!("http://{at}/")).args(["-n", "1", "-c", "1", "--timeout", "8", "--json"]);
        let output = command.args(self.certificates.of_load(tls, role)).output()?;
        serde_json::from_slice(&output.stdout)
            .map_err(|_| io::Error::other(String::from_utf8_lossy(&output.stderr).into_owned()))
    }

    /// What an arm does that it must not, or none.
    pub(super) fn lets_pass(&self, scenario: Scenario, arm: &Arm, running: &Running) -> io::Result<Option<String>> {
        if scenario.tls() == Tls::None {
            return Ok(None);
        }
        let at = running.at.listen;
        let good = self.ask(scenario.tls(), at, secure::shown(scenario.tls()))?;
        if !good.status.contains_key(&200) {
            return Ok(Some(format!("did not answer 200 but {:?} {:?}", good.status, good.errors)));
        }
        if scenario.tls() != Tls::Mutual {
            return Ok(None);
        }
        for (role, who) in [(None, "without a certificate"), (Some("stranger"), "of another authority")] {
            // Some end the handshake, nginx answers 400 behind it.
            if self.ask(Tls::Mutual, at, role)?.status.keys().any(|status| *status < 400) {
                return Ok(Some(format!("took a client {who}")));
            }
        }
        for (role, who) in [("stranger", "of another authority"), ("client", "of another name")] {
            let origin = self.origin(Tls::Mutual, role)?;
            let arm = match self.start(scenario, arm, origin.at.listen, &self.dir.join(role)) {
                Ok(arm) => arm,
                Err(error) => return Ok(Some(format!("did not answer before an upstream {who} ({error})"))),
            };
            let status = self.ask(Tls::Mutual, arm.at.listen, secure::shown(Tls::Mutual))?.status;
            if status.keys().any(|status| *status < 500) {
                return Ok(Some(format!("took an upstream {who}")));
            }
        }
        Ok(None)
    }
}

/// What the load counted, for whoever reads the table.
pub(super) fn note(scenario: Scenario, rows: &[Row]) -> Option<String> {
    if scenario.tls() == Tls::None || rows.is_empty() {
        return None;
    }
    let counts: Vec<String> = rows.iter().map(counts).collect();
    let verified = match scenario.tls() {
        Tls::Mutual => {
            " Before that, each arm refused a client without a certificate and one of another authority, an upstream of another \
             authority and one of another name; the origin refuses proxies without a certificate."
        }
        _ => "",
    };
    Some(format!("Counted by the load: {}.{verified}", counts.join("; ")))
}

/// Answers by suite, and handshakes, of all slices of a row.
fn counts(row: &results::Row) -> String {
    let mut all = Secured::default();
    for secured in row.slices.iter().filter_map(|slice| slice.secured.as_ref()) {
        secured.suites.iter().for_each(|(suite, count)| *all.suites.entry(suite.clone()).or_default() += count);
        (all.full, all.resumed) = (all.full + secured.full, all.resumed + secured.resumed);
    }
    let suites: Vec<String> =
        all.suites.iter().map(|(suite, count)| format!("{count} answers under {suite}")).collect();
    format!("{} {}, {} full handshakes, {} resumed", row.arm, suites.join(", "), all.full, all.resumed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::results::tests::row;

    #[test]
    fn counts_of_all_slices_are_added() {
        let mut row = row("nginx", &[30.0, 29.0]);
        for (slice, resumed) in row.slices.iter_mut().zip([0, 1]) {
            slice.secured = Some(Secured { suites: [("A".to_owned(), 5)].into(), full: 4, resumed });
        }
        let note = note(Scenario::TlsNew, &[row]).unwrap();
        assert_eq!(note, "Counted by the load: nginx 10 answers under A, 8 full handshakes, 1 resumed.");
    }
}
