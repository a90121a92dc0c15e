//! TLS through a real proxy process, on both sides of it, with peers that share nothing with it: names, clients, identities, upstream,
//! PROXY headers, passthrough, ends, and what must be refused.

mod clients;
mod disk;
mod ends;
mod matrix;
mod mesh;
mod passthrough;
mod proxied;
mod refusals;
mod rotation;
mod serving;
mod shop;
mod tickets;
mod upstream;
