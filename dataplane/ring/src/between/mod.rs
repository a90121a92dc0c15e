//! What passes between threads: plans and orders in, log records out, and the bell that ends a core's sleep. Generic:
//! nothing here knows HTTP. Nothing here waits: what is full or empty says so.
//!
//! | to pass | use | when it is full |
//! | --- | --- | --- |
//! | the newest of something (a plan) | [`mailbox`] | the newer replaces the older, which goes back to the sender |
//! | records of bytes (the access log) | [`bytes`] | the record is refused and counted |
//! | values, each of them (connections handed over) | [`ArrayQueue`] | the value goes back to the sender |
//! | "look into your queues" | [`Doorbell`] and an eventfd | rings that were not heard yet are one |
//!
//! Model checks: `RUSTFLAGS="--cfg loom" cargo test -p ringway-ring --release --lib loom`. Under `cfg(loom)` the atomics and cells
//! of `sync` are loom's; without it the same code runs under ordinary tests. (`ArrayQueue` is crossbeam's own
//! to check: loom does not see inside.)

mod bytes;
mod doorbell;
mod mailbox;

pub use bytes::{MOST_BYTES, Reader, Writer, bytes};
pub use crossbeam_queue::ArrayQueue;
pub use doorbell::Doorbell;
pub use mailbox::{Receiver, Sender, mailbox};

/// The atomics, cells and shared ownership of this module: the standard library's, or loom's.
mod sync {
    #[cfg(not(loom))]
    pub(super) use std::sync::{
        Arc,
        atomic::{AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering},
    };

    #[cfg(loom)]
    pub(super) use loom::sync::{
        Arc,
        atomic::{AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering},
    };
}
