//! The daemon: where the configuration comes from when it is not in the file.
#![allow(dead_code, unused_imports)]

mod needs;
mod offer;
mod shelf;
mod told;
mod unknown;
mod xds;
