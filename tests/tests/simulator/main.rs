//! The simulator's scenarios: the whole data plane of a core, from listener to upstream, over the simulated driver:
//! virtual time, a network in memory, seeded faults. Clients and origins (on nodes of their own) verify every byte.
//! Every scenario runs in plain, and with TLS on either side or both, in either version: a seed's high bits say so.
//!
//! `RINGWAY_SEEDS=N` runs the first N seeds of each scenario (`RINGWAY_FROM=M`: those from M on), `RINGWAY_SEED=N` one
//! alone. A failure prints its scenario and seed; it then belongs into `tests/seeds.txt`, which is always run.
//!
//! | module | what it is |
//! | --- | --- |
//! | `choice` | seeds, and what follows from them |
//! | `data` | the bytes of bodies |
//! | `script` | what a request is to be, how it is to be answered, what came of it |
//! | `security` | which sides speak TLS, and with what |
//! | `line` | a connection of a peer, with TLS or without |
//! | `stream` | a reader and a writer of HTTP/1.1 that share nothing with the proxy's |
//! | `client`, `origin` | the peers |
//! | `stage` | a world with all of them, and what must hold at its end |
//! | the others | scenarios |
#![forbid(unsafe_code)]

mod choice;
mod client;
mod data;
mod endpoints;
mod flaws;
mod http;
mod limits;
mod line;
mod malformed;
mod origin;
mod plans;
mod script;
mod security;
mod stage;
mod stream;
mod tunnel;
