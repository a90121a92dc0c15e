//! TLS sessions without I/O: records in, bytes out, and back. The one place that names rustls.
//!
//! ```text
//!  Credential, Trust ─► Server / Client (settings, shared) ─► Session: handshake (rustls, `shaking`) ─► open, seal
//!                                                                      our own records, in place (`traffic`, `record`)
//! ```
//!
//! The other end is verified before the handshake is done: chain, usage, time, revocation, name or SPIFFE identity.
//! No early data, no renegotiation.

mod aside;
mod client;
mod credential;
mod der;
mod elsewhere;
mod failure;
mod quick;
mod record;
mod server;
mod session;
mod shaking;
mod suite;
#[cfg(test)]
mod tests;
mod ticket;
mod traffic;
mod trust;
mod verifier;

pub use client::{Client, ClientSettings};
pub use credential::Credential;
pub use elsewhere::{failure, pinned, root_keys, verifier};
pub use failure::Failure;
pub use server::{Clients, Server, ServerSettings};
pub use session::{Handshake, HandshakeState, Opened, Peer, Session};
pub use suite::{Narrow, Suite};
pub use ticket::TicketKeys;
pub use trust::{Expect, Trust};

use rustls::crypto::CryptoProvider;
use rustls::time_provider::TimeProvider;
use rustls_pki_types::UnixTime;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

/// The time of day, told from outside: this room has no clock. Whoever sets it may be late, or hang: once it knows how the
/// clock of those who use it stands to the time of day, they move it on by themselves.
#[derive(Clone, Debug, Default)]
pub struct Clock(Arc<Hands>);

#[derive(Debug, Default)]
struct Hands {
    now_s: AtomicU64,
    /// Nanoseconds that the time of day is ahead of the users' clock; 0: not known.
    ahead_ns: AtomicU64,
}

impl Clock {
    /// A clock that stands at so many Unix seconds.
    pub fn new(now_s: u64) -> Clock {
        let clock = Clock::default();
        clock.set(now_s);
        clock
    }

    /// Sets it, Unix seconds.
    pub fn set(&self, now_s: u64) {
        self.0.now_s.store(now_s, Relaxed);
    }

    /// Says that it is `unix_ns` when the users' clock says `at_ns`; both in nanoseconds.
    pub fn follow(&self, unix_ns: u64, at_ns: u64) {
        self.0.ahead_ns.store(unix_ns.saturating_sub(at_ns), Relaxed);
        self.set(unix_ns / 1_000_000_000);
    }

    /// Moves it to when the users' clock says `at_ns`. It stands still while it is not known how that stands to it.
    pub fn tick(&self, at_ns: u64) {
        let ahead_ns = self.0.ahead_ns.load(Relaxed);
        if ahead_ns > 0 {
            self.set(ahead_ns.saturating_add(at_ns) / 1_000_000_000);
        }
    }

    /// What it says, Unix seconds.
    pub fn now_s(&self) -> u64 {
        self.0.now_s.load(Relaxed)
    }
}

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_secs(self.now_s())))
    }
}

fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| Arc::new(quick::provider()));
    PROVIDER.clone()
}
