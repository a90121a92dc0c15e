//! What changes while the configuration stays the same: certificates, and the keys of tickets. Open connections go on; new
//! handshakes use the new plan. What is refused leaves in force what was, and is tried again.

use super::Agent;
use crate::files::{Contents, Glance, Look, Tried};
use crate::tell::tell;
use crate::world::now_s;
use plan::{CertificateKind, Plan, Transport};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

const DAY_S: u64 = 24 * 3600;
/// How long before its end a certificate is worth a warning.
const WARN_S: u64 = 14 * DAY_S;
/// The same of a list of revoked ones, of which there are new ones every day or week.
const WARN_LIST_S: u64 = 6 * 3600;
/// Names that a line has at most.
const MOST_NAMES: usize = 8;

/// What was warned of, so that it is said once.
#[derive(Debug, Default)]
pub(super) struct Warnings {
    /// Their ends are near, or (true) have come.
    ending: BTreeMap<Box<str>, bool>,
    open: BTreeSet<Box<str>>,
    tickets: bool,
}

impl Agent {
    /// Sends somebody to look at the files of the configuration.
    pub(super) fn look_at_files(&mut self) {
        if !self.looking.is_under_way() {
            let glance = self.around.files.glance();
            self.looking.begin(|| glance.cast());
        }
        if self.looking.is_slow() {
            tell(
                "the files of the configuration cannot be looked at: their disk does not answer; what is in force stays",
            );
        }
    }

    /// What has changed makes another plan.
    pub(super) fn files_seen(&mut self, glance: Glance) {
        match self.around.files.look(glance) {
            Look::Nothing => {}
            Look::Restored => tell("certificates are again as they are in force"),
            Look::Changed => {
                let Tried { good, refused } = self.around.files.try_changes(|files| self.compile_files(files));
                if let Some((files, plan)) = good {
                    self.use_files(files, plan);
                }
                self.refuse_files(refused);
            }
        }
    }

    fn compile_files(&self, files: &Contents) -> Result<Plan, Vec<String>> {
        let answers = self.dns.answers(self.plan.names());
        self.compile(self.around.with(answers, files.clone()))
    }

    fn use_files(&mut self, files: Contents, plan: Plan) {
        let before = self.around.files.in_force();
        let changed = files.iter().filter(|(name, content)| before.get(*name) != Some(*content));
        let changed = names(changed.map(|(name, _)| &**name));
        self.around.files.apply(files);
        self.use_plan(Arc::new(plan));
        self.state.certificates.applied.fetch_add(1, Relaxed);
        tell(format_args!("certificates reloaded: generation {} applied: {changed}", self.plan.generation));
        self.warn_of_certificates();
    }

    fn refuse_files(&mut self, mut reasons: Vec<String>) {
        reasons.retain(|reason| self.around.files.is_news(reason));
        if reasons.is_empty() {
            return;
        }
        self.state.certificates.refused.fetch_add(1, Relaxed);
        let changed = names(self.around.files.changed());
        tell(format_args!("certificates refused, those in force stay: {changed}: {}", reasons.join("; ")));
    }

    /// Replaces the keys of tickets when it is time.
    pub(super) fn rotate_tickets(&mut self) {
        let now = Instant::now();
        let Some(keys) = self.around.tickets.next(now) else { return };
        let gives_tickets = |listener: &plan::Listener| !matches!(listener.transport, Transport::Plain);
        if !self.plan.listeners.iter().any(gives_tickets) {
            return self.around.tickets.replace(keys, now);
        }
        let world = plan::World { tickets: Some(keys.clone()), ..self.world() };
        match self.compile(world) {
            Ok(plan) => {
                self.around.tickets.replace(keys, now);
                self.warnings.tickets = false;
                self.use_plan(Arc::new(plan));
            }
            Err(reasons) => {
                if !std::mem::replace(&mut self.warnings.tickets, true) {
                    tell(format_args!("the keys of tickets are not replaced: {}", reasons.join("; ")));
                }
            }
        }
    }

    /// Warns of certificates that end soon, again when they have, and of keys that others may read; of each once, until it is well
    /// again.
    pub(super) fn warn_of_certificates(&mut self) {
        let now_s = now_s();
        for certificate in self.plan.certificates() {
            let left_s = certificate.not_after_s.saturating_sub(now_s);
            let own_s = self.daemon.as_ref().and_then(|daemon| daemon.warn_s(certificate));
            let warn_s = match certificate.kind {
                CertificateKind::Revocations => WARN_LIST_S,
                CertificateKind::Own | CertificateKind::Trust => own_s.unwrap_or(WARN_S),
            };
            if left_s >= warn_s {
                self.warnings.ending.remove(&certificate.name);
                continue;
            }
            let over = left_s == 0;
            if self.warnings.ending.insert(certificate.name.clone(), over) != Some(over) {
                tell(ending(certificate, left_s));
            }
        }
        let open: BTreeSet<Box<str>> = self.around.files.open_keys().map(Into::into).collect();
        for name in open.difference(&self.warnings.open) {
            tell(format_args!("{name}: a key that its group or others may read: `chmod 600` it"));
        }
        self.warnings.open = open;
    }
}

fn ending(certificate: &plan::Certificate, left_s: u64) -> String {
    let what = match certificate.kind {
        CertificateKind::Own => "the certificate",
        CertificateKind::Trust => "a trusted certificate",
        CertificateKind::Revocations => "a list of revoked certificates",
    };
    let whose = if certificate.subject.is_empty() { String::new() } else { format!(" of {}", certificate.subject) };
    let when = match left_s {
        0 if certificate.kind == CertificateKind::Revocations => {
            "is out of date: whom its issuer has certified is refused until there is another".to_owned()
        }
        0 => "has expired".to_owned(),
        1..7200 => format!("expires in {} minutes", left_s.div_ceil(60)),
        7200..DAY_S => format!("expires in {} hours", left_s / 3600),
        _ => format!("expires in {} days", left_s / DAY_S),
    };
    format!("{}: {what}{whose} {when}", certificate.name)
}

/// Some names, and how many more.
fn names<'a>(all: impl Iterator<Item = &'a str>) -> String {
    let all: Vec<&str> = all.collect();
    let mut text = all.iter().take(MOST_NAMES).copied().collect::<Vec<_>>().join(", ");
    if all.len() > MOST_NAMES {
        text += &format!(" and {} more", all.len() - MOST_NAMES);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_names_some_files_and_counts_the_others() {
        assert_eq!(names(["a", "b"].into_iter()), "a, b");
        let many: Vec<String> = (0..10).map(|n| n.to_string()).collect();
        assert_eq!(names(many.iter().map(String::as_str)), "0, 1, 2, 3, 4, 5, 6, 7 and 2 more");
    }

    #[test]
    fn an_end_is_told_in_days_then_in_hours() {
        let certificate = plan::Certificate {
            name: "a.pem".into(),
            kind: CertificateKind::Own,
            subject: "shop.example.com".into(),
            not_after_s: 0,
        };
        assert_eq!(ending(&certificate, 3 * DAY_S + 1), "a.pem: the certificate of shop.example.com expires in 3 days");
        assert_eq!(ending(&certificate, 7200), "a.pem: the certificate of shop.example.com expires in 2 hours");
        assert_eq!(ending(&certificate, 61), "a.pem: the certificate of shop.example.com expires in 2 minutes");
        let trust = plan::Certificate { kind: CertificateKind::Trust, subject: "".into(), ..certificate };
        assert_eq!(ending(&trust, 0), "a.pem: a trusted certificate has expired");
        let list = plan::Certificate { kind: CertificateKind::Revocations, ..trust };
        assert_eq!(ending(&list, 7200), "a.pem: a list of revoked certificates expires in 2 hours");
        assert!(ending(&list, 0).starts_with("a.pem: a list of revoked certificates is out of date"));
    }
}
