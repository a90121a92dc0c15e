//! HTTP/1.1 messages (RFC 9112): heads parsed into offsets, bodies decoded, heads written. Strict: what the RFC lets a
//! recipient reject is rejected, nothing is repaired.

pub(crate) mod bytes;
pub mod chunked;
pub mod fields;
pub mod head;
pub mod parse;
pub mod reject;
pub mod write;

pub use chunked::{Chunked, LAST_CHUNK, Piece, write_chunk_head};
pub use fields::FieldName;
pub use head::{Body, Field, Head, Method, Span, Version};
pub use parse::{HeadEnd, Limits, Parsed};
pub use reject::Reject;
