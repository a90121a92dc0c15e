//! Protocols without I/O: bytes in, events and bytes out. No sockets, no clock, no threads. TLS stands in `tls`, the one
//! place that names rustls.
#![forbid(unsafe_code)]

pub mod client_hello;
pub mod h1;
pub mod host;
pub mod path;
pub mod proxy;
pub mod spiffe;
pub mod tls;
