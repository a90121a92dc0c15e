//! What the daemon works with: the file, then what the command line said instead, then what goes without saying.

use crate::authority::{RootFiles, Signer};
use crate::tell;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

/// What the command line gives; it wins over the file.
#[derive(Clone, Debug, Default)]
pub struct Given {
    /// The folder of the store and of the local administrator's credential.
    pub data_dir: Option<PathBuf>,
    /// Where proxies and operators are answered.
    pub address: Option<SocketAddr>,
    /// Where `/ready` and `/metrics` are answered.
    pub admin: Option<SocketAddr>,
}

/// Everything, said.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) data_dir: PathBuf,
    pub(crate) address: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) names: Vec<String>,
    /// Empty: this machine's name, or `address` when it is one that others can reach.
    pub(crate) advertise: Vec<String>,
    pub(crate) trust_domain: Option<String>,
    pub(crate) store_key: Option<PathBuf>,
    pub(crate) root: Option<RootFiles>,
    pub(crate) etcd: Option<api::settings::Etcd>,
}

impl Settings {
    /// Reads the file, if there is one.
    ///
    /// # Errors
    /// It was told what is wrong.
    pub(crate) fn read(file: Option<&Path>, given: &Given) -> Result<Settings, ()> {
        let api::settings::Settings { address, admin, data_dir, names, advertise, trust_domain, root, store_key, etcd } =
            file.map_or(Ok(api::settings::Settings::default()), read)?;
        let data_dir = given.data_dir.clone().or(data_dir.map(PathBuf::from));
        Ok(Settings {
            data_dir: data_dir.unwrap_or_else(|| PathBuf::from("ringwayd-data")),
            address: given.address.or(address).unwrap_or((Ipv4Addr::UNSPECIFIED, 9443).into()),
            admin: given.admin.or(admin).unwrap_or((Ipv4Addr::LOCALHOST, 9902).into()),
            names,
            advertise,
            trust_domain,
            store_key: store_key.map(PathBuf::from),
            root: root.map(files),
            etcd,
        })
    }

    /// Where proxies find a daemon that listens here.
    pub(crate) fn daemons(&self, bound: SocketAddr) -> Vec<String> {
        if !self.advertise.is_empty() {
            return self.advertise.clone();
        }
        if !bound.ip().is_unspecified() {
            return vec![bound.to_string()];
        }
        vec![format!("{}:{}", host_name(), bound.port())]
    }

    /// What stands in the daemon's own certificate beside its identity.
    pub(crate) fn certificate_names(&self) -> Vec<String> {
        let mut names = self.names.clone();
        names.extend([host_name(), "localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()]);
        names.extend((!self.address.ip().is_unspecified()).then(|| self.address.ip().to_string()));
        let advertised = self.advertise.iter().filter_map(|place| place.rsplit_once(':'));
        names.extend(advertised.map(|(host, _)| host.trim_matches(['[', ']']).to_owned()));
        names.sort();
        names.dedup();
        names
    }
}

fn files(root: api::settings::Root) -> RootFiles {
    let signer = match root.signer {
        api::settings::Signer::Key(path) => Signer::Key(path.into()),
        api::settings::Signer::Intermediate { certificate, key } => {
            Signer::Intermediate { certificate: certificate.into(), key: key.into() }
        }
    };
    RootFiles { certificate: root.certificate.into(), signer }
}

/// Reads and checks the daemon's file, and tells what is wrong with it.
pub(crate) fn read(file: &Path) -> Result<api::settings::Settings, ()> {
    let name = file.display().to_string();
    let text =
        std::fs::read_to_string(file).map_err(|error| tell::tell(format_args!("cannot read {name}: {error}")))?;
    api::settings::load(&text, &name).map_err(|findings| tell::tell_findings(&findings))
}

pub(crate) fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    if name.is_empty() { "localhost".to_owned() } else { name.to_ascii_lowercase() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_wins_over_the_file_and_the_file_over_defaults() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ringwayd.yaml");
        std::fs::write(&file, "address: 127.0.0.1:1\nadmin: 127.0.0.1:2\n").unwrap();
        let given = Given { admin: "127.0.0.1:3".parse().ok(), ..Given::default() };
        let settings = Settings::read(Some(&file), &given).unwrap();
        assert_eq!(settings.address.port(), 1);
        assert_eq!(settings.admin.port(), 3);
        assert_eq!(settings.data_dir, Path::new("ringwayd-data"));
        assert_eq!(settings.daemons(settings.address), ["127.0.0.1:1"]);
        assert!(Settings::read(Some(&folder.path().join("none")), &given).is_err());
        std::fs::write(&file, "adress: 127.0.0.1:1").unwrap();
        assert!(Settings::read(Some(&file), &given).is_err());
    }

    #[test]
    fn proxies_are_sent_where_they_can_come() {
        let mut settings = Settings::read(None, &Given::default()).unwrap();
        let daemons = settings.daemons("0.0.0.0:9443".parse().unwrap());
        assert!(!daemons[0].starts_with("0.0.0.0") && daemons[0].ends_with(":9443"), "{daemons:?}");
        settings.advertise = vec!["ctl:443".to_owned(), "[fd00::1]:443".to_owned()];
        assert_eq!(settings.daemons(settings.address), ["ctl:443", "[fd00::1]:443"]);
        let names = settings.certificate_names();
        assert!(names.contains(&"ctl".to_owned()) && names.contains(&"fd00::1".to_owned()), "{names:?}");
    }
}
