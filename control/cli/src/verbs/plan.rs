//! `plan`: what a document would change.

use crate::Common;
use crate::daemon::refusal;
use crate::exit::{Exit, Failure};
use crate::show::{self, Colour, Format, clean, coloured};
use api::pb::{Affected, PlanRequest, Planned};
use clap::Args;
use std::path::PathBuf;

/// Exit 0: nothing. 2: what is shown. 1: the document has findings.
#[derive(Args)]
pub(crate) struct Plan {
    /// The mesh document; `-` is standard input
    file: PathBuf,
}

impl Plan {
    pub(super) async fn run(self, common: &Common) -> Result<Exit, Failure> {
        let (document, file) = super::document(&self.file)?;
        let mut daemon = common.connect().await?;
        let request = PlanRequest { document: document.clone(), file: file.clone() };
        let planned = daemon.operator().plan(request).await.map_err(refusal)?.into_inner();
        match common.output {
            Format::Json => show::answer(common.output, &planned, |_| String::new())?,
            Format::Table if !planned.findings.is_empty() => super::check::findings(&planned.findings),
            Format::Table => show::print(&people(&planned, &document, &file))?,
        }
        Ok(match &planned {
            Planned { findings, .. } if !findings.is_empty() => Exit::Refused,
            Planned { changes: true, .. } => Exit::Changes,
            _ => Exit::Done,
        })
    }
}

fn people(planned: &Planned, document: &str, file: &str) -> String {
    let Planned { base, base_document, changes, affected, needs_force, .. } = planned;
    let old = if *base == 0 { "nothing".to_owned() } else { format!("version {base}") };
    if !changes {
        return format!("{old} is in force and says the same\n");
    }
    let mut text = show::difference((&old, base_document), (file, document));
    text.push('\n');
    if affected.is_empty() {
        text += "no proxy would get anything else\n";
    }
    for one in affected {
        text += &group(one);
    }
    if !needs_force.is_empty() {
        text += &format!("\n{}\n", coloured(Colour::Yellow, "needs --force, as it"));
        text.extend(needs_force.iter().map(|why| format!("  {}\n", coloured(Colour::Yellow, &clean(why)))));
    }
    let force = if needs_force.is_empty() { "" } else { " --force" };
    text + &format!(
        "\nto put it in force, if nothing else is by then: ringwayctl apply {} --base {base}{force}\n",
        clean(file)
    )
}

fn group(affected: &Affected) -> String {
    let proxies = match affected.proxies {
        0 => "no proxy yet".to_owned(),
        1 => "1 proxy".to_owned(),
        count => format!("{count} proxies"),
    };
    let mut text = format!("{} ({proxies})\n", coloured(Colour::Bold, &format!("group {}", clean(&affected.group))));
    for change in &affected.changes {
        let colour = match change.split(' ').next_back() {
            Some("added") => Colour::Green,
            Some("removed") => Colour::Red,
            _ => Colour::Yellow,
        };
        text += &format!("  {}\n", coloured(colour, &clean(change)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(planned: &Planned) -> String {
        anstream::adapter::strip_str(&people(planned, "b\n", "shop.yaml")).to_string()
    }

    #[test]
    fn a_plan_says_what_whom_and_how_to_go_on() {
        let affected = Affected {
            group: "cart".to_owned(),
            changes: vec!["route in/app changed".to_owned(), "listener db removed".to_owned()],
            proxies: 2,
        };
        let planned = Planned {
            base: 7,
            base_document: "a\n".to_owned(),
            changes: true,
            affected: vec![affected],
            needs_force: vec!["removes every `allow` of listener `in`".to_owned()],
            ..Planned::default()
        };
        let wanted = "--- version 7\n+++ shop.yaml\n@@ -1 +1 @@\n-a\n+b\n\ngroup cart (2 proxies)\n  route in/app changed\n  \
                      listener db removed\n\nneeds --force, as it\n  removes every `allow` of listener `in`\n\nto put it in \
                      force, if nothing else is by then: ringwayctl apply shop.yaml --base 7 --force\n";
        assert_eq!(plain(&planned), wanted);
    }

    #[test]
    fn a_comment_changes_a_document_and_no_proxy() {
        let planned = Planned { base: 1, base_document: "a\n".to_owned(), changes: true, ..Planned::default() };
        assert!(plain(&planned).contains("no proxy would get anything else"));
        let same = Planned { base: 1, ..Planned::default() };
        assert_eq!(plain(&same), "version 1 is in force and says the same\n");
    }
}
