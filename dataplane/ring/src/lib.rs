//! The runtime: one ring, one executor, one buffer pool and one timer wheel a core, and what passes between threads.
//!
//! This is the only room with `unsafe` code. It knows the kernel and threads; it knows no protocol.
//!
//! Everything here acts on the *current core* of the thread. [`run`] makes the calling thread a core on io_uring;
//! [`sim`] drives several cores on one thread over a network in memory, with virtual time and seeded faults.
//!
//! One turn of a core: enter the ring once (submit what is queued, wait for a completion or the next timer), put
//! completions into the slots of their operations, advance the timers, poll every task that is ready until all wait.
//!
//! | module | what it is |
//! | --- | --- |
//! | `core` | the current core, the turn |
//! | `task` | the executor: plain futures, woken by number |
//! | `timer` | the wheel |
//! | `buffer` | provided buffers ([`Buf`]) and pooled output memory ([`OutBuf`]) |
//! | `socket` | sockets: receive, send, connect, watch, close |
//! | `listener` | accepting |
//! | `message` | what one send carries |
//! | `wait`, `wake` | waiting for time, conditions and watched sockets; waking a core from another thread |
//! | `driver` | io_uring, or the simulation |
//! | `between` | what passes between threads: mailbox, byte queue, doorbell |
//! | `host` | the machine: addresses bound, CPUs, limits, kernel features |
#![deny(unsafe_op_in_unsafe_fn)]

pub mod between;
mod buffer;
mod core;
mod driver;
pub mod host;
mod listener;
mod message;
mod socket;
mod task;
mod timer;
mod wait;
mod wake;

pub use buffer::{Buf, OutBuf};
pub use core::{BufferSizes, Config, Instant, Stats, StatsSnapshot, entered_at, now, random, run, stop};
pub use driver::sim;
pub use driver::uring::{Features, StartError};
pub use listener::{Bound, Listener};
pub use message::{Message, Part};
pub use socket::{Error, Mode, Peer, Socket, break_all, connect};
pub use task::{TaskId, current_task, spawn, wake_task};
pub use wait::{Either, select, sleep_until, wait_until, watched};
pub use wake::{Wake, rung};
