//! The settings of TLS on the command line, for the load's end and the origin's.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::SystemTime;

use clap::Args;
use wire::tls::{
    Client, ClientSettings, Clients, Clock, Credential, Expect, Narrow, Server, ServerSettings, Suite, Trust,
};

use crate::load::Target;

/// TLS towards the target.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct ClientOptions {
    /// TLS to the target, as https:// says too; needs --trust
    #[arg(long)]
    tls: bool,
    /// Certificates of the authorities that count, PEM
    #[arg(long, value_name = "FILE")]
    trust: Option<PathBuf>,
    /// The name to ask for and to expect (absent: the URL's host is expected)
    #[arg(long, value_name = "NAME")]
    sni: Option<String>,
    /// Application protocols to offer, such as http/1.1 (absent: none)
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    alpn: Vec<String>,
    /// The client's own certificate, with its chain, PEM
    #[arg(long, value_name = "FILE", requires = "key")]
    certificate: Option<PathBuf>,
    /// Its key, PEM
    #[arg(long, value_name = "FILE", requires = "certificate")]
    key: Option<PathBuf>,
    /// Resume sessions where the target lets us (absent: every handshake is a full one)
    #[arg(long)]
    resume: bool,
    /// Offer nothing but TLS 1.3, X25519 and this suite: aes-128-gcm, aes-256-gcm or chacha20-poly1305
    #[arg(long, value_name = "SUITE", value_parser = suite)]
    suite: Option<Suite>,
}

/// TLS of an origin.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct ServerOptions {
    /// Serve TLS with this certificate and its chain, PEM
    #[arg(long, value_name = "FILE", requires = "key")]
    certificate: Option<PathBuf>,
    /// Its key, PEM
    #[arg(long, value_name = "FILE", requires = "certificate")]
    key: Option<PathBuf>,
    /// Clients have to show a certificate of one of these authorities, PEM
    #[arg(long, value_name = "FILE", requires = "certificate")]
    clients: Option<PathBuf>,
    /// Take nothing but TLS 1.3, X25519 and this suite
    #[arg(long, value_name = "SUITE", value_parser = suite, requires = "certificate")]
    suite: Option<Suite>,
}

const SUITES: [(&str, Suite); 3] = [
    ("aes-128-gcm", Suite::Aes128Gcm),
    ("aes-256-gcm", Suite::Aes256Gcm),
    ("chacha20-poly1305", Suite::Chacha20Poly1305),
];

fn suite(word: &str) -> Result<Suite, String> {
    let found = SUITES.iter().find(|(name, _)| *name == word).map(|(_, suite)| *suite);
    found.ok_or_else(|| format!("no suite of that name; there are {}", SUITES.map(|(name, _)| name).join(", ")))
}

impl ClientOptions {
    /// The client's side, where TLS is wanted. The target's host is expected unless there is a name to ask for.
    ///
    /// # Errors
    /// Which file or option is wrong, and how.
    pub(crate) fn client(&self, target: &Target) -> io::Result<Option<Client>> {
        if !self.tls && !target.tls {
            return Ok(None);
        }
        let trust =
            self.trust.as_deref().ok_or_else(|| io::Error::other("TLS needs --trust, a file of certificates"))?;
        let settings = ClientSettings {
            trust: read_trust(trust)?,
            expect: vec![Expect::Name(self.sni.as_deref().unwrap_or(target.name()).into())],
            sni: self.sni.clone(),
            certificate: credential(self.certificate.as_deref(), self.key.as_deref())?,
            alpn: self.alpn.iter().map(|name| name.clone().into_bytes()).collect(),
            clock: CLOCK.clone(),
        };
        let narrow = Narrow { suite: self.suite, never_resumes: !self.resume };
        Client::narrowed(settings, narrow).map(Some).map_err(io::Error::other)
    }
}

impl ServerOptions {
    /// The server's side, where there is a certificate.
    ///
    /// # Errors
    /// Which file is wrong, and how.
    pub(crate) fn server(&self) -> io::Result<Option<Server>> {
        let Some(certificate) = credential(self.certificate.as_deref(), self.key.as_deref())? else { return Ok(None) };
        let trust = self.clients.as_deref().map(read_trust).transpose()?;
        let settings = ServerSettings {
            certificates: vec![certificate],
            clients: if trust.is_some() { Clients::Required } else { Clients::None },
            trust,
            expect: Vec::new(),
            alpn: Vec::new(),
            tickets: None,
            clock: CLOCK.clone(),
        };
        let narrow = Narrow { suite: self.suite, never_resumes: true };
        Server::narrowed(settings, narrow).map(Some).map_err(io::Error::other)
    }
}

fn read_trust(file: &Path) -> io::Result<Trust> {
    Trust::from_pem(&[&read(file)?], Vec::new(), &[])
        .map_err(|why| io::Error::other(format!("{}: {why}", file.display())))
}

fn credential(certificate: Option<&Path>, key: Option<&Path>) -> io::Result<Option<Credential>> {
    let (Some(certificate), Some(key)) = (certificate, key) else { return Ok(None) };
    let read = Credential::from_pem(&read(certificate)?, &read(key)?);
    read.map(Some).map_err(|why| io::Error::other(format!("{} with {}: {why}", certificate.display(), key.display())))
}

fn read(file: &Path) -> io::Result<Vec<u8>> {
    std::fs::read(file).map_err(|error| io::Error::other(format!("{}: {error}", file.display())))
}

/// The time of day, that certificates are held against.
static CLOCK: LazyLock<Clock> = LazyLock::new(Clock::default);

/// Sets the clock by the system's; on a core, whose own clock moves it on.
pub(crate) fn set_clock() {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    CLOCK.follow(now.as_nanos() as u64, ring::now());
}
