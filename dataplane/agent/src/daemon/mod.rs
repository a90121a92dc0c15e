//! The daemon: where the configuration comes from when it is not in the file.
#![allow(dead_code, unused_imports)]

mod folder;
mod generation;
mod joined;
mod needs;
mod offer;
mod pause;
mod shelf;
mod told;
mod unknown;
mod xds;
