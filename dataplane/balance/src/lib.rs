//! Endpoint state shared by all cores, with atomics alone, and the algorithms that choose an endpoint.
#![forbid(unsafe_code)]
