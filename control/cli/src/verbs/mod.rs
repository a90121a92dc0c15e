//! The verbs: what each may be told, and the file that does it.

mod apply;
mod certs;
mod check;
mod completion;
mod diff;
mod drain;
mod edges;
mod endpoints;
mod envoy;
mod explain;
mod history;
mod ignored;
mod man;
mod operator;
mod plan;
mod proxy;
mod rejects;
mod rollback;
mod secret;
mod show;
mod status;
mod token;
mod top;

use crate::Common;
use crate::exit::{Exit, Failure};
use clap::Subcommand;
use std::io::Read;
use std::path::Path;
use std::time::Duration;

#[derive(Subcommand)]
pub(crate) enum Verb {
    /// Check a mesh document, without a daemon
    Check(check::Check),
    /// Show what a document would change, and change nothing
    Plan(plan::Plan),
    /// Put a document in force
    Apply(apply::Apply),
    /// List versions, the newest first
    History(history::History),
    /// Show what differs between two versions
    Diff(diff::Diff),
    /// Print the document of a version
    Show(show::Show),
    /// Put an earlier version's document in force, as a new version
    Rollback(rollback::Rollback),
    /// List the proxies that have joined: how far they are, whether they are there
    Status,
    /// List what proxies refuse, and why
    Rejects,
    /// List fields of what proxies were given that they do not know
    Ignored,
    /// Say what would become of a request in a group's proxies: listener, route, every rule, service
    Explain(explain::Explain),
    /// Watch live rates, success and latency, by route and service
    Top(top::Top),
    /// List who talks to whom, with which identity, allowed or denied
    Edges,
    /// Tokens, with which proxies join
    #[command(subcommand)]
    Token(token::Token),
    /// Endpoints of services whose document says `endpoints: set`
    #[command(subcommand)]
    Endpoints(endpoints::Endpoints),
    /// Certificates of the mesh's edge, by SDS to one group alone
    #[command(subcommand)]
    Secret(secret::Secret),
    /// Operators: people and programs with a credential
    #[command(subcommand)]
    Operator(operator::Operator),
    /// List who holds which certificate; change the root
    Certs(certs::Certs),
    /// Have a proxy finish what it is doing and take nothing new
    Drain(drain::Drain),
    /// Proxies that have joined
    #[command(subcommand)]
    Proxy(proxy::Proxy),
    /// An Envoy as a proxy of the mesh
    #[command(subcommand)]
    Envoy(envoy::Envoy),
    /// Print a shell's completions
    Completion(completion::Completion),
    /// Print the manual, or write all its pages
    Man(man::Man),
}

impl Verb {
    /// Does it.
    ///
    /// # Errors
    /// Why it could not be done.
    pub(crate) async fn run(self, common: &Common) -> Result<Exit, Failure> {
        match self {
            Verb::Check(check) => check.run(common),
            Verb::Plan(plan) => plan.run(common).await,
            Verb::Apply(apply) => apply.run(common).await,
            Verb::History(history) => history.run(common).await,
            Verb::Diff(diff) => diff.run(common).await,
            Verb::Show(show) => show.run(common).await,
            Verb::Rollback(rollback) => rollback.run(common).await,
            Verb::Status => status::run(common).await,
            Verb::Rejects => rejects::run(common).await,
            Verb::Ignored => ignored::run(common).await,
            Verb::Explain(explain) => explain.run(common).await,
            Verb::Top(top) => top.run(common).await,
            Verb::Edges => edges::run(common).await,
            Verb::Token(token) => token.run(common).await,
            Verb::Endpoints(endpoints) => endpoints.run(common).await,
            Verb::Secret(secret) => secret.run(common).await,
            Verb::Operator(operator) => operator.run(common).await,
            Verb::Certs(certs) => certs.run(common).await,
            Verb::Drain(drain) => drain.run(common).await,
            Verb::Proxy(proxy) => proxy.run(common).await,
            Verb::Envoy(envoy) => envoy.run(common).await,
            Verb::Completion(completion) => completion.run(),
            Verb::Man(man) => man.run(),
        }
    }
}

/// A document's text and the name that findings carry; `-` is standard input.
fn document(file: &Path) -> Result<(String, String), Failure> {
    let name = file.display().to_string();
    let read = match name.as_str() {
        "-" => {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).map(|_| (text, "stdin".to_owned()))
        }
        _ => std::fs::read_to_string(file).map(|text| (text, name.clone())),
    };
    read.map_err(|error| Failure::refused(format!("cannot read {name}: {error}")))
}

/// What the daemon did, in its words.
fn done(common: &Common, done: api::pb::Done) -> Result<Exit, Failure> {
    crate::show::answer(common.output, &done, |done| format!("{}\n", crate::show::clean(&done.line)))?;
    Ok(Exit::Done)
}

/// `250ms`, `30s`, `5m`, `24h`, `7d`; up to 49 days.
fn time(text: &str) -> Result<Duration, String> {
    let units = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
    let of = |(unit, ms): (&str, u32)| text.strip_suffix(unit)?.parse::<u32>().ok()?.checked_mul(ms);
    let found = units.into_iter().find_map(of).filter(|ms| *ms > 0);
    found.map(|ms| Duration::from_millis(ms.into())).ok_or_else(|| "a time is a number and its unit, as 30s".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_a_number_and_a_unit() {
        let ms = |text: &str| time(text).map(|time| time.as_millis());
        let read = [ms("250ms"), ms("30s"), ms("5m"), ms("1h"), ms("7d")];
        assert_eq!(read, [Ok(250), Ok(30_000), Ok(300_000), Ok(3_600_000), Ok(604_800_000)]);
        for wrong in ["", "30", "s", "0s", "-1s", "1.5h", "1w", "5µ", "5000000000ms", "2000h"] {
            assert!(time(wrong).is_err(), "{wrong}");
        }
    }
}
