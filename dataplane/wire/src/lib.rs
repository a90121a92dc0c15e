//! Protocols without I/O: bytes in, events and bytes out. No sockets, no clock, no threads.
#![forbid(unsafe_code)]

pub mod h1;
pub mod host;
pub mod path;
