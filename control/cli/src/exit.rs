//! Exit codes: what programs that call this one rely on.

use std::process::ExitCode;

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Done, or nothing to do.
    Done = 0,
    /// Not done, and nothing has changed.
    Refused = 1,
    /// `plan` and `diff`: there are changes; `check --for`: something would be otherwise.
    Changes = 2,
    /// No daemon answers, or none that is proven to be one.
    Unreached = 3,
    /// It is in force, but not with all proxies; a change of roots waits for somebody; or a part of many changes is done.
    Partly = 4,
    /// The command line is wrong.
    Usage = 64,
}

/// What `--help` says of them.
pub(crate) const EXITS: &str = "\
Exit codes:
   0  done, or nothing to do
   1  not done, and nothing has changed: findings in a document, a refusal, something that is not there
   2  `plan`, `diff`: there are changes; `check --for`: something would be otherwise
   3  no daemon answers, or none that proves to be one
   4  in force, but some proxies refuse it or have not taken it yet; a change of roots waits for somebody;
      of `endpoints set --file` a part may be done
  64  the command line is wrong";

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}

/// Why it is not done, and what to do.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    pub(crate) message: String,
}

impl Failure {
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Failure {
        Failure { exit, message: message.into() }
    }

    pub(crate) fn refused(message: impl Into<String>) -> Failure {
        Failure::new(Exit::Refused, message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_names_every_exit_code() {
        for exit in [Exit::Done, Exit::Refused, Exit::Changes, Exit::Unreached, Exit::Partly, Exit::Usage] {
            let code = format!("{:>4}  ", exit as u8);
            assert!(EXITS.lines().any(|line| line.starts_with(&code)), "{code}");
        }
    }
}
