//! One core's life: accept, request, connect, forward, close; every ending, every event.
//!
//! No `Arc` is cloned, no lock taken and nothing allocated for a request on warm connections. Time and random numbers
//! come from `ring`, so all of this runs in the simulator.
#![forbid(unsafe_code)]

mod client;
mod core;
mod counters;
mod ending;
mod greet;
mod http;
pub mod log;
mod order;
mod passthrough;
mod port;
mod pump;
mod stream;
mod table;
mod tcp;
mod tunnel;
mod upstream;

pub use core::start;
pub use counters::{
    Count, Counters, FAILURES, LATENCY_BOUNDS_S, PAIRS, PairCounts, PairId, PairKey, Pairs, RuleCore, RuleCounts,
    RuleSum, Series, SeriesCore, SeriesSum,
};
pub use ending::{Blame, Ending, LABELS, Opening};
pub use order::{Order, Process, Start};
