//! `check`: what is wrong with a document, or what another proxy would do otherwise, without a daemon.

use crate::Common;
use crate::exit::{Exit, Failure};
use crate::show;
use clap::{Args, ValueEnum};
use std::path::PathBuf;

/// Exit 0, or 1 with one line a finding on standard error: `FILE:LINE:COLUMN: what is wrong, and what would be right`.
/// Nothing is asked of a daemon, which says the same at `apply`: the document is read, and compiled as each group's proxies
/// will.
///
/// With `--for envoy`, a document in which nothing is wrong is looked through for words that an Envoy would not honour, or
/// would honour otherwise: exit 2 if there is one, each with its position and what an Envoy would do.
#[derive(Args)]
pub(crate) struct Check {
    /// The mesh document; `-` is standard input
    file: PathBuf,
    /// List what these proxies would not honour
    #[arg(long = "for", value_name = "PROXY")]
    whom: Option<Whom>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Whom {
    /// Envoy 1.40
    Envoy,
}

impl Check {
    pub(super) fn run(self, common: &Common) -> Result<Exit, Failure> {
        let (text, name) = super::document(&self.file)?;
        let stand_in = stand_in().map_err(|error| Failure::refused(format!("cannot make a key: {error}")))?;
        let found = stand_in.check(&text, &name).and_then(|_| match self.whom {
            None => Ok(Vec::new()),
            Some(Whom::Envoy) => api::envoy::words(&text, &name),
        });
        let words = match found {
            Ok(words) => words,
            Err(findings) => return wrong(common, findings.iter().map(ToString::to_string).collect()),
        };
        if self.whom.is_none() {
            return wrong(common, Vec::new());
        }
        let exit = if words.is_empty() { Exit::Done } else { Exit::Changes };
        let words: Vec<Word> = words.into_iter().map(Word::from).collect();
        show::answer(common.output, &words, |words| people(words))?;
        Ok(exit)
    }
}

/// A certificate that is made up, for what a document says of those that are not here.
fn stand_in() -> Result<plan::StandIn, rcgen::Error> {
    let key = rcgen::KeyPair::generate()?;
    let chain = rcgen::CertificateParams::new(vec!["made.up.invalid".to_owned()])?.self_signed(&key)?.pem();
    let pair = api::mesh::KeyPair { chain: chain.into_bytes(), key: key.serialize_pem().into_bytes() };
    Ok(plan::StandIn::new(pair, show::now_ms() / 1000))
}

/// A word that is honoured otherwise, for programs.
#[derive(serde::Serialize)]
struct Word {
    file: String,
    line: u32,
    column: u32,
    message: String,
    /// Whether the proxy gets the listener or service in which it stands.
    sent: bool,
}

impl From<api::envoy::Word> for Word {
    fn from(of: api::envoy::Word) -> Word {
        let api::Finding { file, line, column, message } = of.finding;
        Word { file, line, column, message, sent: of.sent }
    }
}

fn people(words: &[Word]) -> String {
    let line = |Word { file, line, column, message, sent }: &Word| {
        let word = if *sent { "" } else { "LEFT OUT: " };
        format!("{}:{line}:{column}: {word}{}\n", show::clean(file), show::clean(message))
    };
    words.iter().map(line).collect()
}

fn wrong(common: &Common, lines: Vec<String>) -> Result<Exit, Failure> {
    let exit = if lines.is_empty() { Exit::Done } else { Exit::Refused };
    match common.output {
        show::Format::Table => findings(&lines),
        show::Format::Json => show::answer(common.output, &api::pb::Findings { lines }, |_| String::new())?,
    }
    Ok(exit)
}

/// One line each, on standard error.
pub(super) fn findings(lines: &[String]) {
    for line in lines {
        eprintln!("{}", show::clean(line));
    }
}
