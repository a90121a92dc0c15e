//! `operator`: who may do what.

use crate::Common;
use crate::credential::{Asking, is_one};
use crate::daemon::refusal;
use crate::exit::{Exit, Failure};
use crate::show;
use api::pb::{CreateOperatorRequest, OperatorCertificate, RemoveOperatorRequest};
use clap::{Subcommand, ValueEnum};
use std::path::PathBuf;

#[derive(Subcommand)]
pub(crate) enum Operator {
    /// Make an operator, and a folder with the credential
    ///
    /// The key is made here. The credential lives 30 days; every verb that its operator calls renews it when it is
    /// older than a day.
    Create {
        /// 1 to 64 letters, digits, `-`, `_` or `.`
        name: String,
        /// What the operator may do
        #[arg(long, value_enum)]
        role: Role,
        /// The folder, for `--credential`; give it to the operator, and to nobody else
        #[arg(long, value_name = "DIR")]
        into: PathBuf,
    },
    /// Take an operator's rights, at once
    Remove {
        /// As `certs` shows it
        name: String,
    },
}

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Role {
    /// Look
    Read,
    /// Also push, roll back, drain, set endpoints
    Write,
    /// Also tokens, secrets, operators, roots
    Admin,
}

impl Operator {
    pub(super) async fn run(self, common: &Common) -> Result<Exit, Failure> {
        match self {
            Operator::Create { name, role, into } => {
                if is_one(&into) {
                    let why = format!("{} has a credential already; choose another folder", into.display());
                    return Err(Failure::refused(why));
                }
                let asking = Asking::new()?;
                let mut daemon = common.connect().await?;
                let role = match role {
                    Role::Read => "read",
                    Role::Write => "write",
                    Role::Admin => "admin",
                };
                let request = CreateOperatorRequest { name, role: role.to_owned(), csr: asking.csr.clone() };
                let given = daemon.operator().create_operator(request).await.map_err(refusal)?.into_inner();
                asking.keep(&into, &given, &daemon.address)?;
                let made = Made { folder: into.display().to_string(), given };
                show::answer(
                    common.output,
                    &made,
                    |Made { folder, given: OperatorCertificate { name, role, .. } }| {
                        format!("operator `{name}` may {role}; the credential is in {folder}\n")
                    },
                )?;
                Ok(Exit::Done)
            }
            Operator::Remove { name } => {
                let mut daemon = common.connect().await?;
                let answer =
                    daemon.operator().remove_operator(RemoveOperatorRequest { name }).await.map_err(refusal)?;
                super::done(common, answer.into_inner())
            }
        }
    }
}

#[derive(serde::Serialize)]
struct Made {
    folder: String,
    #[serde(flatten)]
    given: OperatorCertificate,
}
