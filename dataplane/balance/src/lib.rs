//! State shared by all cores, with atomics alone: of endpoints, with the algorithms that choose one, and of clients' quotas.
//!
//! The law of this room: no lock, no clock, no I/O. Time comes in as nanoseconds of one monotonic clock, random
//! numbers as `u64`; so the simulator decides both. [`Service`] is immutable apart from atomics and allocates only
//! when it is made; choosing, beginning and finishing allocate nothing.
//!
//! ```text
//! Service ── members ──► Arc<Endpoint>   in flight, failures, ejection, peak-EWMA    kept across plans, by address
//!    │ └──── Budget (Arc)                connections, pending, requests; who waits   kept across plans, by service
//!    └────── Limits, schedule or alias table                                         new with each plan
//! Quota ──── buckets of clients         requests they may make                        kept across plans, by name
//! ```
//!
//! Model checks (every test whose name holds `loom`, about a minute):
//! `RUSTFLAGS="--cfg loom" cargo test -p ringway-balance --release --lib loom`. Under `cfg(loom)` the atomics of the
//! `sync` module are loom's; without it the same code runs under ordinary tests.
#![forbid(unsafe_code)]

mod alias;
mod budget;
mod cores;
mod endpoint;
mod ewma;
mod quota;
mod schedule;
mod service;
mod sync;

pub use alias::Weighted;
pub use budget::{Budget, Kind, Limits, Permit};
pub use cores::{CoreSet, MAX_CORES};
pub use endpoint::{Address, Endpoint, InFlight, Outcome};
pub use quota::{Quota, Taken};
pub use service::{Algorithm, MAX_ENDPOINTS, Service, TooManyEndpoints};
