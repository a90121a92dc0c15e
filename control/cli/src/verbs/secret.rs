//! `secret`: certificates that a group's listeners show to the outside.

use crate::Common;
use crate::daemon::refusal;
use crate::exit::{Exit, Failure};
use crate::show;
use api::pb::{ListSecretsRequest, PutSecretRequest, RemoveSecretRequest, Secrets};
use clap::Subcommand;
use std::path::{Path, PathBuf};

#[derive(Subcommand)]
pub(crate) enum Secret {
    /// Put a certificate, or another one in its place
    Put {
        /// As `certificates: [ { secret: NAME } ]` says it
        name: String,
        /// The group that gets it, and nobody else
        #[arg(long)]
        group: String,
        /// The chain, PEM: the leaf first
        #[arg(long, value_name = "FILE")]
        certificate: PathBuf,
        /// Its key, PEM
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
    },
    /// List certificates, without their keys
    List,
    /// Take a certificate away
    Remove {
        /// As `list` shows it
        name: String,
        /// The group that has it
        #[arg(long)]
        group: String,
    },
}

impl Secret {
    pub(super) async fn run(self, common: &Common) -> Result<Exit, Failure> {
        match self {
            Secret::Put { name, group, certificate, key } => {
                let request = PutSecretRequest { name, group, chain: read(&certificate)?, key: read(&key)? };
                let mut daemon = common.connect().await?;
                let answer = daemon.operator().put_secret(request).await.map_err(refusal)?;
                super::done(common, answer.into_inner())
            }
            Secret::List => {
                let mut daemon = common.connect().await?;
                let secrets =
                    daemon.operator().list_secrets(ListSecretsRequest {}).await.map_err(refusal)?.into_inner();
                show::answer(common.output, &secrets, |secrets| people(secrets, show::now_ms()))?;
                Ok(Exit::Done)
            }
            Secret::Remove { name, group } => {
                let mut daemon = common.connect().await?;
                let request = RemoveSecretRequest { name, group };
                let answer = daemon.operator().remove_secret(request).await.map_err(refusal)?;
                super::done(common, answer.into_inner())
            }
        }
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(path).map_err(|error| Failure::refused(format!("cannot read {}: {error}", path.display())))
}

fn people(secrets: &Secrets, now_ms: u64) -> String {
    let rows = secrets.secrets.iter().map(|secret| {
        vec![secret.name.clone(), secret.group.clone(), secret.subject.clone(), show::ends(secret.not_after_ms, now_ms)]
    });
    show::table(&["secret", "group", "for", "ends"], rows.collect(), "no secret; `ringwayctl secret put` puts one")
}
