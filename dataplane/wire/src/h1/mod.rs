//! HTTP/1.1 messages (RFC 9112): heads parsed into offsets, bodies decoded, heads written. Strict: what the RFC lets a
//! recipient reject is rejected, nothing is repaired.

pub mod fields;
pub mod head;
