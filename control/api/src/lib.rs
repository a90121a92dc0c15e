//! What both planes know: the configuration model, its checks, and its translation to xDS.
//!
//! YAML -> tree with positions (`tree`) -> model, checked (`read`, `values`) -> xDS resources (`translate`).
//! All errors of a document are found in one go, each with line, column and what would be right.
#![forbid(unsafe_code)]

mod canonical;
pub mod envoy;
pub mod features;
mod finding;
mod keys;
pub mod mesh;
mod model;
mod pause;
pub mod pb;
mod process;
mod read;
mod resources;
pub mod settings;
pub mod token;
mod translate;
mod tree;
mod values;
pub mod xds;

#[cfg(test)]
mod tests;

pub use envoy_types;
pub use finding::Finding;
pub use model::*;
pub use pause::Pauses;
pub use process::{Process, process};
pub use prost;
pub use resources::{Packed, Resources};
pub use tonic;
pub use translate::{address::read as read_address, translate};

/// The bounds of `latency` in what proxies report, microseconds; what took longer is counted behind the last.
pub const LATENCY_BOUNDS_US: [u64; 16] = [
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000,
    10_000_000, 30_000_000, 60_000_000,
];

/// The duration that this share (0 to 1) of requests stayed under, microseconds; within a bucket, evenly. 0 without a request.
/// `buckets`: how many there are, or how many a second, by [`LATENCY_BOUNDS_US`].
pub fn quantile_us(buckets: &[f64], share: f64) -> f64 {
    let wanted = share * buckets.iter().sum::<f64>();
    let (mut below, mut from) = (0.0, 0.0);
    for (at, count) in buckets.iter().enumerate() {
        // Beyond the last bound nothing is known but that.
        let to = LATENCY_BOUNDS_US.get(at).map_or(from, |bound| *bound as f64);
        if *count > 0.0 && below + count >= wanted {
            return from + (to - from) * ((wanted - below) / count).clamp(0.0, 1.0);
        }
        (below, from) = (below + count, to);
    }
    0.0
}

/// Reads and checks a document. `file` is only the name that findings carry, and the place that relative paths
/// start from; nothing is opened.
///
/// # Errors
/// Everything that is wrong, sorted by position. A syntax error may stand alone.
pub fn load(text: &str, file: &str) -> Result<Document, Vec<Finding>> {
    let mut findings = finding::Findings::default();
    let root = tree::parse(text, &mut findings);
    let document = root.and_then(|root| read::document(&root, file, &mut findings));
    match document {
        Some(document) if findings.is_empty() => Ok(document),
        _ => Err(findings.finish(file)),
    }
}
