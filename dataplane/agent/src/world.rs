//! What plans are compiled with beside the configuration: files, the time, and the keys of tickets.

use crate::files::{Contents, Files, Wanted};
use crate::host;
use crate::tickets::Tickets;
use api::Resources;
use plan::{Answers, World};
use std::time::{Instant, SystemTime, UNIX_EPOCH};
use wire::tls::Clock;

/// The world around one process.
#[derive(Debug)]
pub(crate) struct Around {
    /// Set each second, and before a plan is compiled.
    clock: Clock,
    /// The keys of session tickets.
    pub(crate) tickets: Tickets,
    /// Keys the hash by which quotas tell clients apart.
    seed: [u64; 2],
    /// The files of the configuration in force.
    pub(crate) files: Files,
}

impl Around {
    /// The world of a process that starts with these resources: their files are read.
    ///
    /// # Errors
    /// The system has no random bytes.
    pub(crate) fn new(resources: &Resources) -> std::io::Result<Around> {
        let clock = Clock::default();
        set(&clock);
        let tickets = Tickets::new(Instant::now())?;
        let seed = [host::random_u64()?, host::random_u64()?];
        Ok(Around { clock, tickets, seed, files: Files::read(Wanted::of(resources)) })
    }

    /// Sets the clock that certificates are held against. `at_ns` is what the cores' clock says: they move it on from
    /// there, whatever this thread does.
    pub(crate) fn set_clock(&self, at_ns: u64) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.clock.follow(now.as_nanos() as u64, at_ns);
    }

    /// The world with these answers and files.
    pub(crate) fn with(&self, answers: Answers, files: Contents) -> World {
        set(&self.clock);
        let tickets = Some(self.tickets.keys().clone());
        World { answers, files, clock: self.clock.clone(), tickets, seed: self.seed }
    }
}

/// The world of a plan that no core will use: its files and the time.
pub(crate) fn of_check(resources: &Resources) -> World {
    let files = Files::read(Wanted::of(resources));
    let clock = Clock::default();
    set(&clock);
    World { files: files.seen(), clock, ..World::default() }
}

/// Seconds since 1970.
pub(crate) fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

fn set(clock: &Clock) {
    clock.set(now_s());
}
