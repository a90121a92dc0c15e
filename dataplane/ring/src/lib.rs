//! The runtime: rings, executor, buffers, sockets, timers, and what passes between threads.
