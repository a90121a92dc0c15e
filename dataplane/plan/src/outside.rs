//! Shapes of other rooms' types, until those rooms have them.
#![allow(missing_docs)]

pub use wire::tls::{Clock, TicketKeys};

/// TLS towards clients.
#[derive(Clone, Debug)]
pub struct Server;

/// TLS towards services.
#[derive(Clone, Debug)]
pub struct Client;

/// Requests a client may make.
#[derive(Debug)]
pub struct Bucket;

pub struct Taken {
    pub allowed: bool,
    pub limit: u32,
    pub remaining: u32,
    pub retry_after_ns: u64,
    pub reset_ns: u64,
    pub shared: bool,
}

impl Bucket {
    pub fn take(&self, _: u64, _: u64) -> Taken {
        Taken { allowed: true, limit: 0, remaining: 0, retry_after_ns: 0, reset_ns: 0, shared: false }
    }
}
