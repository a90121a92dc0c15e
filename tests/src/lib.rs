//! The toolbox of the black-box tests and of the demo: real processes, real sockets, strict parsers on both ends.
//!
//! - [`Proxy`] starts `ringway` with a configuration and ends it when dropped.
//! - [`Origin`] is a web server of a few lines whose every answer the test writes itself.
//! - [`Client`] writes bytes as told and reads answers strictly.
//! - [`Metrics`] reads a page of metrics strictly.
//! - [`Mesh`] starts `ringwayd` and calls `ringwayctl`.
//! - With the feature `tls`: `certificates` makes good and bad certificates, `tls` has clients and servers of rustls.
#![forbid(unsafe_code)]

#[cfg(feature = "tls")]
pub mod certificates;
mod client;
mod etcd;
pub mod http;
mod mesh;
mod metrics;
pub mod origin;
pub mod peers;
mod ports;
mod program;
mod proxy;
mod stream;
#[cfg(feature = "tls")]
pub mod tls;
mod wait;

pub use client::Client;
pub use etcd::Etcd;
pub use http::{Answer, Head};
pub use mesh::{Mesh, Said};
pub use metrics::{Metrics, Sample};
pub use origin::{Conversation, Origin, Seen, answers, describe, respond};
pub use ports::{black_hole, free_port};
pub use program::{build, build_bench, build_control, build_daemon, workspace};
pub use proxy::{Proxy, Run, check, plain, routes};
pub use stream::{Layer, Met, Stream};
pub use wait::{eventually, until};
