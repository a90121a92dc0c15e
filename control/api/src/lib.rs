//! What both planes know: the configuration model, its checks, and its translation to xDS.
#![forbid(unsafe_code)]

mod finding;
mod model;
mod process;
mod resources;
mod translate;
mod values;
pub mod xds;

pub use envoy_types;
pub use finding::Finding;
pub use model::*;
pub use process::{Process, process};
pub use resources::Resources;
pub use translate::{address::read as read_address, translate};
