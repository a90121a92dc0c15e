//! Who the operator is: a folder with a certificate, its key, the mesh's roots and where the daemon is. The key is made
//! here and goes nowhere.

use crate::daemon::Daemon;
use crate::exit::Failure;
use crate::show;
use api::pb;
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const KEY: &str = "operator.key";
const CHAIN: &str = "operator.pem";
const ROOTS: &str = "ca.pem";
const DAEMON: &str = "daemon";
/// What the daemon keeps for its own machine, and renews itself.
const LOCAL_CHAIN: &str = "admin.pem";
const LOCAL_KEY: &str = "admin.key";
/// A certificate older than this is renewed by whatever verb comes next: so those who work every day follow a change of
/// roots without doing anything for it.
const RENEW_AFTER: Duration = Duration::from_secs(24 * 60 * 60);

/// What an operator shows, and whom it takes for the daemon.
pub(crate) struct Credential {
    folder: PathBuf,
    /// PEM.
    pub(crate) chain: Vec<u8>,
    /// PEM.
    pub(crate) key: Vec<u8>,
    /// PEM: the mesh's roots.
    pub(crate) roots: Vec<u8>,
    /// HOST:PORT.
    pub(crate) daemon: String,
    /// The daemon renews it.
    is_local: bool,
    made_s: u64,
}

impl Credential {
    /// Where it was said to be, or where it usually is.
    ///
    /// # Errors
    /// It is not there, or what is there is of no use.
    pub(crate) fn find(given: Option<&Path>, daemon_dir: Option<&Path>) -> Result<Credential, Failure> {
        match (given, daemon_dir) {
            (_, Some(folder)) => Credential::read(&folder.join("operator")),
            (Some(folder), None) => Credential::read(folder),
            (None, None) => {
                let usual = usual();
                let found = usual.iter().find(|folder| is_one(folder));
                let none = || {
                    let places: Vec<_> = usual.iter().map(|folder| folder.display().to_string()).collect();
                    Failure::refused(format!(
                        "no credential in {}; on the daemon's machine give `--daemon-dir DIR` (its data directory), \
                         elsewhere `--credential DIR` with what `ringwayctl operator create` made for you",
                        places.join(" nor ")
                    ))
                };
                Credential::read(found.ok_or_else(none)?)
            }
        }
    }

    /// Reads a folder.
    ///
    /// # Errors
    /// As [`Credential::find`].
    pub(crate) fn read(folder: &Path) -> Result<Credential, Failure> {
        let read = |name: &str| {
            let path = folder.join(name);
            fs::read(&path).map_err(|error| {
                Failure::refused(format!(
                    "cannot read {}: {error}; a credential is a folder with {CHAIN}, {KEY}, {ROOTS} and {DAEMON}, or a \
                     daemon's DATA-DIR/operator",
                    path.display()
                ))
            })
        };
        let is_local = !folder.join(CHAIN).exists() && folder.join(LOCAL_CHAIN).exists();
        let (chain, key) = if is_local { (LOCAL_CHAIN, LOCAL_KEY) } else { (CHAIN, KEY) };
        let (chain, key, roots) = (read(chain)?, read(key)?, read(ROOTS)?);
        let daemon = String::from_utf8_lossy(&read(DAEMON)?).trim().to_owned();
        let own = wire::tls::Credential::from_pem(&chain, &key);
        let own = own.map_err(|why| Failure::refused(format!("the credential in {}: {why}", folder.display())))?;
        let made_s = own.not_before_s();
        Ok(Credential { folder: folder.to_owned(), chain, key, roots, daemon, is_local, made_s })
    }

    /// Whether another certificate is due, that the daemon does not bring by itself.
    pub(crate) fn is_due(&self) -> bool {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        !self.is_local && self.made_s.saturating_add(RENEW_AFTER.as_secs()) < now.as_secs()
    }

    /// Another certificate for the same key, on the disk; where the daemon renews, what it has written meanwhile.
    ///
    /// # Errors
    /// The daemon gives none, or it cannot be kept: then the old one is still there.
    pub(crate) async fn renewed(self, daemon: &mut Daemon) -> Result<Credential, Failure> {
        if !self.is_local {
            let csr = request(&self.key)?;
            let request = pb::RenewRequest { csr, clock_ms: show::now_ms() };
            let given = daemon.operator().renew_operator(request).await.map_err(crate::daemon::refusal)?.into_inner();
            keep(&self.folder, &[(ROOTS, &given.bundle), (CHAIN, &given.chain)])?;
        }
        Credential::read(&self.folder)
    }
}

/// A new credential's key, before its certificate is there.
pub(crate) struct Asking {
    key: String,
    /// PKCS #10, DER.
    pub(crate) csr: Vec<u8>,
}

impl Asking {
    /// A key of its own.
    ///
    /// # Errors
    /// It cannot be made.
    pub(crate) fn new() -> Result<Asking, Failure> {
        let key = KeyPair::generate().map_err(|error| Failure::refused(format!("cannot make a key: {error}")))?;
        let key = key.serialize_pem();
        let csr = request(key.as_bytes())?;
        Ok(Asking { key, csr })
    }

    /// Keeps what the daemon gave, in a folder that has no credential yet.
    ///
    /// # Errors
    /// It cannot be written.
    pub(crate) fn keep(self, folder: &Path, given: &pb::OperatorCertificate, daemon: &str) -> Result<(), Failure> {
        let daemon = format!("{daemon}\n");
        let files = [
            (KEY, self.key.as_bytes()),
            (ROOTS, &given.bundle[..]),
            (DAEMON, daemon.as_bytes()),
            (CHAIN, &given.chain[..]),
        ];
        keep(folder, &files)
    }
}

/// Whether a folder holds a credential.
pub(crate) fn is_one(folder: &Path) -> bool {
    folder.join(CHAIN).exists() || folder.join(LOCAL_CHAIN).exists()
}

/// Not the working directory: who plants a folder there would choose the daemon that is told the secrets.
fn usual() -> Vec<PathBuf> {
    let home = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from);
    let home = home.or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".config")));
    let own = home.map(|folder| folder.join("ringway"));
    own.into_iter().chain([PathBuf::from("/var/lib/ringwayd/operator")]).collect()
}

/// A request for a certificate. The daemon writes the names.
///
/// # Errors
/// The key is none.
pub(crate) fn request(key: &[u8]) -> Result<Vec<u8>, Failure> {
    let broken = |error: &dyn std::fmt::Display| Failure::refused(format!("the key is of no use: {error}"));
    let text = std::str::from_utf8(key).map_err(|error| broken(&error))?;
    let key = KeyPair::from_pem(text).map_err(|error| broken(&error))?;
    let mut request = CertificateParams::default();
    request.distinguished_name = DistinguishedName::new();
    Ok(request.serialize_request(&key).map_err(|error| broken(&error))?.der().to_vec())
}

/// Each file whole or not at all, for its owner alone; in this order.
///
/// # Errors
/// One cannot be written.
pub(crate) fn keep(folder: &Path, files: &[(&str, &[u8])]) -> Result<(), Failure> {
    let cannot = |error| Failure::refused(format!("cannot write in {}: {error}", folder.display()));
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(cannot)?;
    for (name, bytes) in files {
        // Two that renew at once write files of their own.
        let new = folder.join(format!("{name}.{}.new", std::process::id()));
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&new).map_err(cannot)?;
        file.write_all(bytes).and_then(|()| file.sync_all()).map_err(cannot)?;
        fs::rename(&new, folder.join(name)).map_err(cannot)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn given(key: &str, from: rcgen::SanType) -> pb::OperatorCertificate {
        let key = KeyPair::from_pem(key).unwrap();
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![from];
        let chain = params.self_signed(&key).unwrap().pem().into_bytes();
        pb::OperatorCertificate { bundle: chain.clone(), chain, ..pb::OperatorCertificate::default() }
    }

    #[test]
    fn a_credential_is_kept_for_its_owner_alone_and_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("deep/ann");
        let asking = Asking::new().unwrap();
        assert!(!is_one(&folder));
        let uri = rcgen::SanType::URI("spiffe://shop/ringway-operator/ann".try_into().unwrap());
        let given = given(&asking.key, uri);
        asking.keep(&folder, &given, "ctl:9443").unwrap();
        assert!(is_one(&folder));
        for entry in fs::read_dir(&folder).unwrap() {
            let entry = entry.unwrap();
            assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{entry:?}");
        }
        let read = Credential::find(Some(&folder), None).unwrap();
        assert_eq!((read.daemon.as_str(), read.is_local), ("ctl:9443", false));
        // That certificate's life began in 1975.
        assert!(read.is_due());
    }

    #[test]
    fn what_is_missing_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let refused = Credential::find(None, Some(folder.path())).err().unwrap();
        assert!(refused.message.contains("operator/operator.pem"), "{}", refused.message);
        fs::write(folder.path().join(CHAIN), "x").unwrap();
        fs::write(folder.path().join(KEY), "x").unwrap();
        let refused = Credential::read(folder.path()).err().unwrap();
        assert!(refused.message.contains("ca.pem"), "{}", refused.message);
        fs::write(folder.path().join(ROOTS), "x").unwrap();
        fs::write(folder.path().join(DAEMON), "x").unwrap();
        let refused = Credential::read(folder.path()).err().unwrap();
        assert!(refused.message.starts_with("the credential in"), "{}", refused.message);
    }
}
