//! Ends that must not come together, each with its reason.
