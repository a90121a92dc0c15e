//! The configuration, compiled: one immutable snapshot and pure functions over it.
