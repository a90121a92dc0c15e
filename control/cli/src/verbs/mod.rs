//! The verbs: what each may be told, and the file that does it.

mod apply;
mod certs;
mod check;
mod completion;
mod diff;
mod drain;
mod edges;
mod endpoints;
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

/// `90s`, `30m`, `24h`, `7d`
fn seconds(text: &str) -> Result<u32, String> {
    let wrong = || "write a number and s, m, h or d: 30m".to_owned();
    let (number, unit) = text.split_at(text.len() - text.chars().next_back().map_or(0, char::len_utf8));
    let unit = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err(wrong()),
    };
    let number: u32 = number.parse().map_err(|_| wrong())?;
    match number.checked_mul(unit) {
        Some(0) => Err("0 is no time".to_owned()),
        Some(seconds) => Ok(seconds),
        None => Err("that is too long".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_a_number_and_a_unit() {
        assert_eq!(seconds("90s"), Ok(90));
        assert_eq!(seconds("7d"), Ok(604_800));
        for wrong in ["", "5", "m", "0h", "-1h", "1.5h", "1w", "5µ", "99999999d"] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }
}
