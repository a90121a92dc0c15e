//! What both planes know: the configuration model, its checks, and its translation to xDS.
#![forbid(unsafe_code)]

mod resources;

pub use envoy_types;
pub use resources::Resources;
