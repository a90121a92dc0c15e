//! What a push or a change of roots tells while it goes on, and how it ended.

use crate::daemon::refusal;
use crate::exit::{Exit, Failure};
use crate::show::{self, Colour, Format, clean, coloured};
use api::pb::{Outcome, Progress};
use tonic::Streaming;

/// Shows each message; the last one, None if there was none.
///
/// # Errors
/// The daemon refuses, or has gone before it said how it ended.
pub(crate) async fn follow(mut stream: Streaming<Progress>, format: Format) -> Result<Option<Progress>, Failure> {
    let mut last = None;
    while let Some(progress) = stream.message().await.map_err(cut)? {
        match format {
            Format::Table => show::print(&people(&progress))?,
            Format::Json => show::print(&json(&progress))?,
        }
        last = Some(progress);
    }
    Ok(last)
}

/// How a push ended.
///
/// # Errors
/// Nobody said.
pub(crate) fn ended(last: Option<Progress>) -> Result<Exit, Failure> {
    let outcome = last.map_or(Outcome::Running, |last| last.outcome());
    exit(outcome).ok_or_else(|| {
        Failure::new(Exit::Unreached, "the daemon said no more; `ringwayctl status` shows what is in force")
    })
}

/// None: it is not over.
pub(crate) fn exit(outcome: Outcome) -> Option<Exit> {
    match outcome {
        Outcome::Running => None,
        Outcome::Applied | Outcome::Unchanged => Some(Exit::Done),
        Outcome::Refused | Outcome::Conflict | Outcome::NeedsForce | Outcome::RolledBack => Some(Exit::Refused),
        Outcome::Rejected | Outcome::TimedOut => Some(Exit::Partly),
    }
}

/// An outage in the middle is no refusal.
fn cut(status: tonic::Status) -> Failure {
    let failure = refusal(status);
    match failure.exit {
        Exit::Unreached => {
            let message = format!("{}; `ringwayctl status` shows what is in force", failure.message);
            Failure { message, ..failure }
        }
        _ => failure,
    }
}

fn people(progress: &Progress) -> String {
    let line = clean(&progress.line);
    let line = match exit(progress.outcome()) {
        None => line.into_owned(),
        Some(Exit::Done) => coloured(Colour::Green, &line),
        Some(Exit::Partly) => coloured(Colour::Yellow, &line),
        Some(_) => coloured(Colour::Red, &line),
    };
    let findings = progress.findings.iter().map(|finding| format!("{}\n", clean(finding)));
    std::iter::once(format!("{line}\n")).chain(findings).collect()
}

/// One line; the outcome by its name, in small letters.
fn json(progress: &Progress) -> String {
    let Progress { line, version, done, of, findings, .. } = progress;
    let outcome = progress.outcome().as_str_name().to_ascii_lowercase();
    let message = serde_json::json!({
        "line": line, "version": version, "done": done, "of": of, "outcome": outcome, "findings": findings,
    });
    format!("{message}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(outcome: Outcome) -> Progress {
        let findings = vec!["shop.yaml:3:1: wrong".to_owned()];
        Progress {
            line: "the document is refused".to_owned(),
            outcome: outcome.into(),
            findings,
            ..Progress::default()
        }
    }

    #[test]
    fn what_is_not_in_force_fails_and_what_some_refuse_is_told_apart() {
        assert_eq!(ended(Some(progress(Outcome::Refused))).unwrap(), Exit::Refused);
        assert_eq!(ended(Some(progress(Outcome::Rejected))).unwrap(), Exit::Partly);
        assert_eq!(ended(Some(progress(Outcome::Unchanged))).unwrap(), Exit::Done);
        // A stream that breaks off is no success.
        assert_eq!(ended(Some(progress(Outcome::Running))).unwrap_err().exit, Exit::Unreached);
        assert_eq!(ended(None).unwrap_err().exit, Exit::Unreached);
    }

    #[test]
    fn people_get_lines_and_programs_one_object() {
        let refused = progress(Outcome::Refused);
        assert_eq!(people(&refused), "\x1b[31mthe document is refused\x1b[0m\nshop.yaml:3:1: wrong\n");
        let object: serde_json::Value = serde_json::from_str(&json(&refused)).unwrap();
        assert_eq!((&object["outcome"], &object["findings"][0]), (&"refused".into(), &"shop.yaml:3:1: wrong".into()));
        assert_eq!(json(&refused).lines().count(), 1);
    }
}
