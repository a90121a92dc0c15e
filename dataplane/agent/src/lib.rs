//! The slow thread: sockets, reload, DNS, admin and metrics pages, logs.
