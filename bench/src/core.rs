//! Threads that are cores: what load, origin and relay share.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use ring::host::{self, Address};
use ring::{Config, Listener, Stats};

/// The settings of a core that all of this program's cores begin with.
pub(crate) fn config() -> Config {
    Config { seed: std::process::id().into(), ..Config::default() }
}

/// `127.0.0.1:80`, `[::1]:80`, `localhost:80` or `unix:/path`.
///
/// # Errors
/// What is none of these; names are not looked up.
pub(crate) fn address(text: &str) -> io::Result<Address> {
    let wrong =
        || io::Error::other(format!("{text} is no address; it would read 127.0.0.1:80, [::1]:80 or unix:/path"));
    if let Some(path) = text.strip_prefix("unix:") {
        return Address::unix(Path::new(path)).ok_or_else(wrong);
    }
    let text = text.strip_prefix("localhost:").map_or(text.to_string(), |port| format!("127.0.0.1:{port}"));
    text.parse::<SocketAddr>().map(Address::from).map_err(|_| wrong())
}

/// A loopback address that nobody listens on, below the ephemeral ports, so that no outgoing connection takes it.
pub(crate) fn free_address() -> io::Result<SocketAddr> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    for _ in 0..8000 {
        let port = 20_000 + NEXT.fetch_add(1, Ordering::Relaxed) % 8000;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if TcpListener::bind(address).is_ok() {
            return Ok(address);
        }
    }
    Err(io::Error::other("no free port between 20000 and 28000"))
}

/// Binds `address` for `count` cores and runs them, each on a thread; `start` runs on every core with its listener
/// and its counters.
///
/// # Errors
/// The address cannot be had, or io_uring cannot.
pub(crate) fn serve<S>(listen: &str, count: usize, config: Config, start: S) -> io::Result<()>
where
    S: Fn(Listener, Arc<Stats>) + Send + Sync,
{
    let features = host::probe().map_err(io::Error::other)?;
    host::descriptor_limit();
    let bound = host::bind(&address(listen)?, count.max(1))?;
    std::thread::scope(|scope| {
        let cores: Vec<_> = bound
            .into_iter()
            .map(|bound| {
                let (config, features, start) = (&config, &features, &start);
                scope.spawn(move || {
                    let mut result = Ok(());
                    let run = ring::run(config, features, |stats, _| match Listener::new(bound) {
                        Ok(listener) => start(listener, stats),
                        Err(error) => {
                            result = Err(error);
                            ring::stop();
                        }
                    });
                    run.map_err(io::Error::other).and(result)
                })
            })
            .collect();
        cores.into_iter().try_for_each(|core| core.join().unwrap_or_else(|_| Err(io::Error::other("a core panicked"))))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_all_families() {
        assert_eq!(address("localhost:80").unwrap().ip(), Some("127.0.0.1:80".parse().unwrap()));
        assert_eq!(address("[::1]:80").unwrap().ip(), Some("[::1]:80".parse().unwrap()));
        assert_eq!(address("unix:/tmp/x").unwrap().path().as_deref(), Some(Path::new("/tmp/x")));
        for wrong in ["example.org:80", "127.0.0.1", "unix:", ""] {
            assert!(address(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn addresses_differ_and_can_be_bound() {
        let (a, b) = (free_address().unwrap(), free_address().unwrap());
        assert_ne!(a, b);
        TcpListener::bind(a).unwrap();
    }
}
