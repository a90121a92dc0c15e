//! `envoy`: an Envoy as a proxy of the mesh.

use crate::Common;
use crate::daemon::{Daemon, open_agent, refusal};
use crate::envoy::{Folder, Wish};
use crate::exit::{Exit, Failure};
use crate::show;
use api::pb;
use api::token::Token;
use clap::{Subcommand, ValueEnum};
use std::path::{Path, PathBuf};
use tonic::transport::Identity;

#[derive(Subcommand)]
pub(crate) enum Envoy {
    /// Join a group for an Envoy: make its key here, get its certificate, write how it starts
    ///
    /// Run it as the user that the Envoy runs as: what it writes is for that user alone. Then start
    /// `envoy -c DIR/envoy.yaml --reject-unknown-dynamic-fields`, and renew every hour.
    Join {
        /// The group; the token is made with the operator's credential, which needs the role admin
        #[arg(long, value_name = "GROUP", required_unless_present = "token", conflicts_with = "token")]
        group: Option<String>,
        /// A file with a token, as `ringwayctl token create` printed it; needs no credential
        #[arg(long, value_name = "FILE")]
        token: Option<PathBuf>,
        /// The folder for key, certificate and bootstrap
        #[arg(long, value_name = "DIR")]
        into: PathBuf,
        /// How the Envoy asks for its configuration
        #[arg(long, value_enum, default_value_t = Xds::Delta)]
        xds: Xds,
        /// Where the Envoy's own admin pages shall be [default: nowhere]
        #[arg(long, value_name = "HOST:PORT", value_parser = address)]
        admin: Option<(String, u16)>,
        /// What operators see beside the proxy's id [default: this machine's name]
        #[arg(long)]
        name: Option<String>,
    },
    /// Get another certificate for an Envoy, which it takes up by itself; run it every hour
    Renew {
        /// The folder that `join` wrote
        folder: PathBuf,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Xds {
    /// What has changed
    Delta,
    /// All there is, each time: state of the world
    Sotw,
}

impl Envoy {
    pub(super) async fn run(self, common: &Common) -> Result<Exit, Failure> {
        match self {
            Envoy::Join { group, token, into, xds, admin, name } => {
                let folder = Folder::new(&into)?;
                let csr = folder.ask()?;
                let token = match (group, token) {
                    (Some(group), _) => make_token(common, group).await?,
                    (None, Some(file)) => read(&file)?,
                    (None, None) => String::new(),
                };
                let contents = Token::decode(&token).map_err(Failure::refused)?;
                let name = name.unwrap_or_else(host);
                let request = pb::JoinRequest { token, csr, name, clock_ms: show::now_ms() };
                let daemons = common.daemon.iter().chain(&contents.daemons);
                let mut client = open_agent(daemons, contents.roots.clone(), None).await?;
                let given = client.join(request).await.map_err(refusal)?.into_inner();
                // Where it says nothing of itself, it is where it was found.
                let daemons = if given.daemons.is_empty() { contents.daemons } else { given.daemons };
                let given = pb::Issued { daemons, ..given };
                folder.describe(&given, &Wish { delta: xds == Xds::Delta, admin })?;
                folder.answered(&given)?;
                told(common, &given, &folder, "joined")
            }
            Envoy::Renew { folder } => {
                let (folder, own) = Folder::open(&folder)?;
                let roots = wire::tls::root_keys(&own.roots);
                let roots = roots.map_err(|why| Failure::refused(format!("current/bundle.pem {why}")))?;
                let csr = folder.ask()?;
                let daemons = common.daemon.iter().chain(&own.daemons);
                let identity = Identity::from_pem(&own.chain, &own.key);
                let mut client = open_agent(daemons, roots, Some(identity)).await?;
                let request = pb::RenewRequest { csr, clock_ms: show::now_ms() };
                let given = client.renew(request).await.map_err(refusal)?.into_inner();
                let daemons = if given.daemons.is_empty() { own.daemons } else { given.daemons };
                let given = pb::Issued { daemons, ..given };
                folder.answered(&given)?;
                told(common, &given, &folder, "was renewed in")
            }
        }
    }
}

/// Who the Envoy is, for programs.
#[derive(serde::Serialize)]
struct Told<'g> {
    proxy: &'g str,
    group: &'g str,
    identity: &'g str,
    not_after_ms: u64,
    bootstrap: PathBuf,
}

fn told(common: &Common, given: &pb::Issued, folder: &Folder, what: &str) -> Result<Exit, Failure> {
    let pb::Issued { proxy, group, identity, not_after_ms, .. } = given;
    let told = Told { proxy, group, identity, not_after_ms: *not_after_ms, bootstrap: folder.bootstrap() };
    show::answer(common.output, &told, |told| {
        let ends = show::ends(told.not_after_ms, show::now_ms());
        format!(
            "{} {what} group {} as {}; its certificate ends {ends}; {} starts it\n",
            show::clean(told.proxy),
            show::clean(told.group),
            show::clean(told.identity),
            told.bootstrap.display()
        )
    })?;
    Ok(Exit::Done)
}

async fn make_token(common: &Common, group: String) -> Result<String, Failure> {
    let mut daemon: Daemon = common.connect().await?;
    let request = pb::CreateTokenRequest { group, uses: 1, ttl_s: 300 };
    Ok(daemon.operator().create_token(request).await.map_err(refusal)?.into_inner().token)
}

fn read(file: &Path) -> Result<String, Failure> {
    let cannot = |error| Failure::refused(format!("cannot read {}: {error}", file.display()));
    std::fs::read_to_string(file).map(|text| text.trim().to_owned()).map_err(cannot)
}

fn host() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_owned()
}

fn address(text: &str) -> Result<(String, u16), String> {
    let split = text.rsplit_once(':').filter(|(host, _)| !host.is_empty());
    let split = split.and_then(|(host, port)| Some((host.to_owned(), port.parse().ok()?)));
    split.ok_or_else(|| "an address is HOST:PORT".to_owned())
}
