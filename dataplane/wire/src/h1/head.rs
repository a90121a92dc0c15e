//! What a parsed HTTP/1.1 head is: offsets into the bytes that it was parsed from, and what its fields say about framing.
//!
//! A `Head` is scratch memory that a core reuses: it holds no bytes and no borrow, so it may outlive the buffer,
//! but every `Span` means something only together with the bytes that were parsed.

use super::fields::FieldName;

/// A range of bytes in the head it was parsed from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// First byte.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
}

impl Span {
    /// The bytes that the span stands for in `head`; empty when it lies outside.
    #[inline]
    pub fn of(self, head: &[u8]) -> &[u8] {
        head.get(self.start as usize..self.end as usize).unwrap_or_default()
    }

    /// Whether the span covers no byte.
    #[inline]
    pub fn is_empty(self) -> bool {
        self.start >= self.end
    }
}

/// One field line.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// The name as it was sent.
    pub name: Span,
    /// The value without the white space around it.
    pub value: Span,
    /// Which well-known field it is, or `FieldName::Other`.
    pub id: FieldName,
    /// Concerns this connection only (RFC 9110 section 7.6.1: hop-by-hop, or named by `Connection`): never forwarded.
    pub hop_by_hop: bool,
}

/// The HTTP version of a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0
    Http10,
    /// HTTP/1.1
    #[default]
    Http11,
}

/// A request method.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Method {
    /// GET
    #[default]
    Get,
    /// HEAD
    Head,
    /// POST
    Post,
    /// PUT
    Put,
    /// DELETE
    Delete,
    /// CONNECT
    Connect,
    /// OPTIONS
    Options,
    /// TRACE
    Trace,
    /// PATCH
    Patch,
    /// Any other token; its bytes are `Head::method_span`.
    Other,
}

/// How the body of a message is framed (RFC 9112 section 6.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Body {
    /// There is none.
    #[default]
    None,
    /// `Content-Length` bytes; may be 0.
    Length(u64),
    /// The chunked coding.
    Chunked,
    /// Until the connection closes (responses only).
    UntilClose,
}

/// A parsed head. Request parts are meaningful after `parse_request`, `status` and `reason` after `parse_response`.
#[derive(Debug, Default)]
pub struct Head {
    /// The version that the message says.
    pub version: Version,
    /// Request method.
    pub method: Method,
    /// The bytes of the method.
    pub method_span: Span,
    /// The path of the request target, as sent: starts with `/`, or is `*` for `OPTIONS *`. Not normalised.
    pub path: Span,
    /// The query with its `?`; empty when there is none.
    pub query: Span,
    /// The authority: from an absolute-form target or the one `Host` field; may be empty (HTTP/1.0 only).
    pub authority: Span,
    /// Response status, 100 to 599.
    pub status: u16,
    /// Response reason phrase.
    pub reason: Span,
    /// The field lines, in order.
    pub fields: Vec<Field>,
    /// The framing of the body. For responses it takes the request's method and the status into account.
    pub body: Body,
    /// The sender is willing to use the connection again after this message.
    pub keep_alive: bool,
    /// `Expect: 100-continue` stands (HTTP/1.1 requests with a body only).
    pub expect_continue: bool,
    /// The one protocol of `Upgrade`, when `Connection` names `upgrade` too (never h2c).
    pub upgrade: Span,
    /// `TE: trailers` stands.
    pub te_trailers: bool,
}
