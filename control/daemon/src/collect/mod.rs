//! What proxies tell: that they are there, how far they are, where they listen, what they refuse. All of it is in memory
//! but for the places where they listen: those stand in the store too, so that a daemon that comes back knows the
//! endpoints before the first proxy has called again.

mod fleet;
mod page;
mod places;
mod telemetry;
mod word;

#[cfg(test)]
mod tests;

pub(crate) use fleet::Session;
pub(crate) use fleet::shown;
pub use fleet::{Fleet, Member, Streams};
pub(crate) use page::Page;
pub use places::Places;
pub use telemetry::{Counts, Key, Pair, Rate, Telemetry};
pub use word::Word;
