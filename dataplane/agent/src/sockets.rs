//! Listening sockets, keyed by address: bound before a plan is handed over, kept while plans name their address.

use crate::tell::tell;
use balance::Address;
use ring::Bound;
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long after an address was given up a core may still hold it: it accepts a port empty before it closes it.
const LETTING_GO: Duration = Duration::from_millis(200);

/// One socket a core.
type OfAddress = Vec<Arc<Bound>>;

/// The sockets of the current plan.
#[derive(Debug)]
pub(crate) struct Sockets {
    cores: usize,
    bound: BTreeMap<Address, OfAddress>,
    /// Addresses that were given up, and when: cores close their handles of them a moment later.
    given_up: BTreeMap<Address, Instant>,
    /// The files of unix sockets, with what they were when they were made, so that nobody else's is removed.
    files: BTreeMap<Address, File>,
}

/// The sockets of a plan to come. Dropped, it leaves everything as it was.
#[derive(Debug)]
pub(crate) struct Binding {
    bound: BTreeMap<Address, OfAddress>,
    fresh: BTreeMap<Address, File>,
}

/// An address that could not be bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unbound {
    /// Whose it is.
    pub(crate) listener: Box<str>,
    /// Which, and why.
    pub(crate) reason: String,
}

impl std::fmt::Display for Unbound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "listener {}: {}", self.listener, self.reason)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct File {
    device: u64,
    inode: u64,
}

impl Sockets {
    /// No sockets, for this many cores.
    pub(crate) fn new(cores: usize) -> Sockets {
        Sockets { cores, bound: BTreeMap::new(), given_up: BTreeMap::new(), files: BTreeMap::new() }
    }

    /// Binds those of `wanted` that are not bound yet.
    ///
    /// # Errors
    /// Each address that cannot be bound; nothing has changed then.
    pub(crate) fn bind<'a>(
        &self,
        wanted: impl Iterator<Item = (&'a str, &'a Address)>,
    ) -> Result<Binding, Vec<Unbound>> {
        let mut binding = Binding { bound: BTreeMap::new(), fresh: BTreeMap::new() };
        let mut failures = Vec::new();
        for (listener, address) in wanted {
            if binding.bound.contains_key(address) {
                continue;
            }
            match self.bound.get(address) {
                Some(kept) => drop(binding.bound.insert(address.clone(), kept.clone())),
                None => match self.bind_one(address) {
                    Ok(sockets) => {
                        binding.bound.insert(address.clone(), sockets);
                        binding.fresh.extend(File::of(address).map(|file| (address.clone(), file)));
                    }
                    Err(error) => failures.push(Unbound {
                        listener: listener.into(),
                        reason: format!("cannot listen on {address}: {error}"),
                    }),
                },
            }
        }
        if failures.is_empty() { Ok(binding) } else { Err(failures) }
    }

    /// As [`Sockets::bind`], but addresses that were ours until just now are tried again for a moment.
    ///
    /// # Errors
    /// As there.
    pub(crate) async fn bind_again<'a>(
        &self,
        wanted: impl Iterator<Item = (&'a str, &'a Address)> + Clone,
    ) -> Result<Binding, Vec<Unbound>> {
        let until = Instant::now() + LETTING_GO;
        let just_left = |(_, address): (&str, &Address)| {
            let given_up = self.given_up.get(address).filter(|_| !self.bound.contains_key(address));
            given_up.is_some_and(|at| at.elapsed() < LETTING_GO)
        };
        let patient = wanted.clone().any(just_left);
        loop {
            match self.bind(wanted.clone()) {
                Err(_) if patient && Instant::now() < until => tokio::time::sleep(Duration::from_millis(10)).await,
                done => return done,
            }
        }
    }

    /// Makes a binding the current one; addresses that it does not have are given up.
    pub(crate) fn replace(&mut self, mut binding: Binding) {
        let gone: Vec<Address> =
            self.files.keys().filter(|address| !binding.bound.contains_key(*address)).cloned().collect();
        for address in gone {
            if let Some(file) = self.files.remove(&address) {
                file.remove(&address);
            }
        }
        self.files.append(&mut binding.fresh);
        let before = std::mem::replace(&mut self.bound, std::mem::take(&mut binding.bound));
        self.given_up.retain(|_, at| at.elapsed() < LETTING_GO);
        let gone = before.into_keys().filter(|address| !self.bound.contains_key(address));
        self.given_up.extend(gone.map(|address| (address, Instant::now())));
    }

    /// One core's sockets of these addresses, in their order; all of them are bound.
    pub(crate) fn of_core<'a>(&self, core: usize, addresses: impl Iterator<Item = &'a Address>) -> Arc<[Arc<Bound>]> {
        addresses.filter_map(|address| self.bound.get(address)?.get(core).cloned()).collect()
    }

    /// Gives all sockets up, and removes the files of unix sockets.
    pub(crate) fn clear(&mut self) {
        self.replace(Binding { bound: BTreeMap::new(), fresh: BTreeMap::new() });
    }

    fn bind_one(&self, address: &Address) -> std::io::Result<OfAddress> {
        let address = match address {
            Address::Ip(ip) => ring::host::Address::from(*ip),
            Address::Unix(path) => ring::host::Address::unix(path)
                .ok_or_else(|| std::io::Error::new(std::io::ErrorKind::InvalidInput, "the path is too long"))?,
        };
        Ok(ring::host::bind(&address, self.cores)?.into_iter().map(Arc::new).collect())
    }
}

impl Drop for Binding {
    /// The files of a binding that was not used go with it.
    fn drop(&mut self) {
        for (address, file) in &self.fresh {
            file.remove(address);
        }
    }
}

impl File {
    fn of(address: &Address) -> Option<File> {
        let Address::Unix(path) = address else { return None };
        File::at(path).ok()
    }

    fn at(path: &Path) -> std::io::Result<File> {
        std::fs::symlink_metadata(path).map(|data| File { device: data.dev(), inode: data.ino() })
    }

    fn remove(self, address: &Address) {
        let Address::Unix(path) = address else { return };
        if File::at(path).is_ok_and(|now| now == self)
            && let Err(error) = std::fs::remove_file(path)
        {
            tell(format_args!("cannot remove {address}: {error}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{SocketAddr, TcpListener, TcpStream};

    fn free() -> Address {
        let probe = TcpListener::bind("127.0.0.1:0").unwrap();
        Address::Ip(probe.local_addr().unwrap())
    }

    fn bind(sockets: &Sockets, addresses: &[&Address]) -> Result<Binding, Vec<Unbound>> {
        sockets.bind(addresses.iter().map(|address| ("web", *address)))
    }

    fn ip(address: &Address) -> SocketAddr {
        match address {
            Address::Ip(ip) => *ip,
            Address::Unix(_) => unreachable!(),
        }
    }

    #[test]
    fn unchanged_addresses_keep_their_sockets_and_removed_ones_close() {
        let (a, b) = (free(), free());
        let mut sockets = Sockets::new(2);
        sockets.replace(bind(&sockets, &[&a, &b]).unwrap());
        let before = sockets.of_core(1, [&a, &b].into_iter());
        assert_eq!(before.len(), 2);
        sockets.replace(bind(&sockets, &[&b]).unwrap());
        let after = sockets.of_core(1, [&b].into_iter());
        assert!(Arc::ptr_eq(&before[1], &after[0]));
        drop(before);
        assert!(TcpStream::connect(ip(&a)).is_err());
        assert!(TcpStream::connect(ip(&b)).is_ok());
    }

    #[tokio::test]
    async fn an_address_that_was_ours_until_just_now_is_tried_again() {
        let a = free();
        let wanted = || [("web", &a)].into_iter();
        let mut sockets = Sockets::new(1);
        sockets.replace(bind(&sockets, &[&a]).unwrap());
        // A core that has yet to close its handle.
        let held = sockets.of_core(0, [&a].into_iter());
        sockets.clear();
        assert!(bind(&sockets, &[&a]).is_err());
        let core = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(50));
            drop(held);
        });
        let binding = sockets.bind_again(wanted()).await.unwrap();
        core.join().unwrap();
        drop(binding);
        // Somebody else's is refused, if a moment later.
        let _other = TcpListener::bind(ip(&a)).unwrap();
        assert!(sockets.bind_again(wanted()).await.is_err());
    }

    #[test]
    fn a_failed_bind_refuses_all_and_changes_nothing() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let taken = (Address::Ip(taken.local_addr().unwrap()), taken);
        let (a, b) = (free(), free());
        let mut sockets = Sockets::new(1);
        sockets.replace(bind(&sockets, &[&a]).unwrap());
        let failures = bind(&sockets, &[&b, &taken.0]).unwrap_err();
        assert_eq!(failures.len(), 1);
        let told = failures[0].to_string();
        assert!(told.starts_with(&format!("listener web: cannot listen on {}", taken.0)), "{told}");
        assert!(TcpStream::connect(ip(&a)).is_ok());
        assert!(TcpStream::connect(ip(&b)).is_err());
    }

    #[test]
    fn files_of_unix_sockets_are_removed_with_them_unless_they_are_somebody_elses() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.sock");
        let address = Address::Unix(path.clone().into());
        let mut sockets = Sockets::new(2);
        drop(bind(&sockets, &[&address]).unwrap());
        assert!(!path.exists(), "a binding that was not used leaves no file");
        sockets.replace(bind(&sockets, &[&address]).unwrap());
        assert!(path.exists());
        sockets.replace(bind(&sockets, &[&address]).unwrap());
        assert!(path.exists());
        sockets.clear();
        assert!(!path.exists());
        sockets.replace(bind(&sockets, &[&address]).unwrap());
        let other = directory.path().join("b.sock");
        std::fs::write(&other, "another's").unwrap();
        std::fs::rename(&other, &path).unwrap();
        sockets.clear();
        assert!(path.exists());
    }
}
