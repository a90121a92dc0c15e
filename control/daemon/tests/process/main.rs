//! `ringwayd` as a process, with clients over real sockets.
#![forbid(unsafe_code)]

mod killed;
mod program;
mod start;
mod told;
