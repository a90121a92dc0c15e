//! The machine below: addresses and sockets ([`Address`], [`bind`]), CPUs ([`cpu`]), the ring's set-up ([`Features`]).

mod address;
pub mod cpu;
mod kernel;
mod memory;
mod net;

pub use address::Address;
pub use kernel::{Features, StartError, probe};
pub(crate) use kernel::{enter, event, event_write, open_ring, register_ring};
pub use memory::small_pages;
pub(crate) use memory::{map_memory, unmap_memory};
pub use net::{bind, descriptor_limit, share};
pub(crate) use net::{defer_accept, local, peer, reset_on_close, shutdown_write, stream_socket};
