//! Values.

/// The longest body of a fixed answer, in bytes.
pub(crate) const MAX_BODY: u32 = 64 * 1024;
