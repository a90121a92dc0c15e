//! What a configuration needs to know of the world to be compiled: it is read elsewhere, and handed in.

use crate::compile::Answers;
use std::collections::BTreeMap;
use std::sync::Arc;
use wire::tls::{Clock, TicketKeys};

/// By path: a file's bytes, or why they could not be read.
pub type Files = BTreeMap<Box<str>, Result<Arc<[u8]>, Box<str>>>;

/// What is known while a plan is compiled. The default knows nothing.
#[derive(Clone, Debug, Default)]
pub struct World {
    /// What DNS said so far.
    pub answers: Answers,
    /// The files that the configuration names, by the name it uses: their bytes, or why they could not be read.
    pub files: Files,
    /// The time, against which certificates are held.
    pub clock: Clock,
    /// What tickets of TLS sessions are sealed with; none: no tickets are given.
    pub tickets: Option<TicketKeys>,
    /// Random, and the same for all plans of a process: it keys the hash by which quotas tell clients apart, so that nobody
    /// can choose names that count as one.
    pub seed: [u64; 2],
}
