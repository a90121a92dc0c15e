//! Why a message is refused. One variant a reason: no text is built for a hostile peer.

use std::fmt;

/// Why a head, a chunked body, a path or a host is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reject {
    /// CR without LF (RFC 9112 section 2.2).
    BareCr,
    /// LF without CR (RFC 9112 section 2.2).
    BareLf,
    /// NUL where text must stand (RFC 9110 section 5.5).
    Nul,
    /// Another control character in a value or a reason phrase (RFC 9110 section 5.5).
    ControlCharacter,
    /// More than one empty line before a request, or any before an answer (RFC 9112 section 2.2).
    EmptyLine,
    /// The method is not a token (RFC 9110 section 9.1).
    BadMethod,
    /// CONNECT: this proxy opens no tunnels (RFC 9110 section 9.3.6).
    ConnectRefused,
    /// TRACE with a body (RFC 9110 section 9.3.8).
    TraceWithBody,
    /// The request line is not method, one space, target, one space, version (RFC 9112 section 3).
    BadRequestLine,
    /// The request target is none that RFC 9112 section 3.2 knows, or has characters that no URI has.
    BadTarget,
    /// The request target has a fragment (RFC 9112 section 3.2).
    Fragment,
    /// The request target is longer than the limit (RFC 9112 section 3).
    TargetTooLong,
    /// What stands for the version is none (RFC 9112 section 2.3).
    BadVersion,
    /// A version other than HTTP/1.0 and HTTP/1.1.
    VersionUnsupported,
    /// The status line is not version, space, three digits, space, reason (RFC 9112 section 4).
    BadStatusLine,
    /// A status outside of 100 to 599 (RFC 9110 section 15).
    BadStatus,
    /// A field line without a name (RFC 9112 section 5).
    EmptyName,
    /// A field line without a colon, or with a character that no name has (RFC 9110 section 5.1).
    BadName,
    /// White space between a field's name and its colon (RFC 9112 section 5.1).
    SpaceBeforeColon,
    /// A field line that begins with white space (RFC 9112 section 5.2).
    ObsFold,
    /// The head is longer than the limit (RFC 6585 section 5).
    HeadTooLarge,
    /// More field lines than the limit (RFC 6585 section 5).
    TooManyFields,
    /// Content-Length together with Transfer-Encoding (RFC 9112 section 6.3).
    BothLengths,
    /// Content-Length that is no number, a list, or beyond 64 bits (RFC 9112 section 6.3).
    BadLength,
    /// More than one Content-Length (RFC 9112 section 6.3).
    TwoLengths,
    /// Transfer-Encoding other than one `chunked` (RFC 9112 section 6.1).
    BadTransferEncoding,
    /// A transfer coding before `chunked` that we do not speak (RFC 9112 section 6.1).
    UnsupportedTransferCoding,
    /// Transfer-Encoding in HTTP/1.0 (RFC 9112 section 6.1).
    TransferEncodingInHttp10,
    /// A body, or a length of one, in an answer that must not have any: 1xx, 204 (RFC 9110 section 8.6).
    BodyForbidden,
    /// HTTP/1.1 without Host (RFC 9112 section 3.2).
    MissingHost,
    /// More than one Host (RFC 9112 section 3.2).
    TwoHosts,
    /// A host that is neither a name nor an address (RFC 9112 section 3.2).
    BadHost,
    /// An absolute-form target with another authority than Host (RFC 9112 section 3.2.2).
    HostMismatch,
    /// Connection is no list of tokens, is too long, or names a field that is not its to name (RFC 9110 section 7.6.1).
    BadConnection,
    /// An expectation other than 100-continue (RFC 9110 section 10.1.1).
    ExpectationUnknown,
    /// A chunk size that is not hexadecimal digits, or beyond 64 bits (RFC 9112 section 7.1).
    BadChunkSize,
    /// A chunk whose end is not CRLF (RFC 9112 section 7.1).
    BadChunkEnd,
    /// A chunk extension with a character that none may have (RFC 9112 section 7.1.1).
    BadChunkExtension,
    /// More chunk extensions than a body may have (RFC 9112 section 7.1.1).
    ChunkExtensionsTooLong,
    /// Trailers longer than the limit (RFC 6585 section 5).
    TrailersTooLarge,
    /// A path with `%` and not two hexadecimal digits behind it (RFC 3986 section 2.1).
    BadPercent,
    /// A path with an encoded slash, backslash or NUL, or a raw backslash.
    ForbiddenInPath,
    /// A path that climbs above its root with `..`.
    PathAboveRoot,
}

impl Reject {
    /// The status that a client is answered with; for an upstream's answer it is 502 whatever the reason.
    pub fn status(self) -> u16 {
        match self {
            Reject::TargetTooLong => 414,
            Reject::ExpectationUnknown => 417,
            Reject::HeadTooLarge | Reject::TooManyFields | Reject::TrailersTooLarge => 431,
            // RFC 9110 section 15.6.2: a method that is supported for no resource. 405 would promise that others know it.
            Reject::ConnectRefused | Reject::UnsupportedTransferCoding => 501,
            Reject::VersionUnsupported => 505,
            _ => 400,
        }
    }

    /// The name of the reason in metrics and logs.
    pub fn label(self) -> &'static str {
        self.words().0
    }

    /// The reason for people, a few words.
    pub fn text(self) -> &'static str {
        self.words().1
    }

    fn words(self) -> (&'static str, &'static str) {
        match self {
            Reject::BareCr => ("bare_cr", "carriage return without line feed"),
            Reject::BareLf => ("bare_lf", "line feed without carriage return"),
            Reject::Nul => ("nul", "NUL character"),
            Reject::ControlCharacter => ("control_character", "control character"),
            Reject::EmptyLine => ("empty_line", "empty line before the message"),
            Reject::BadMethod => ("bad_method", "malformed method"),
            Reject::ConnectRefused => ("connect_refused", "CONNECT is not supported"),
            Reject::TraceWithBody => ("trace_with_body", "TRACE with a body"),
            Reject::BadRequestLine => ("bad_request_line", "malformed request line"),
            Reject::BadTarget => ("bad_target", "malformed request target"),
            Reject::Fragment => ("fragment", "fragment in the request target"),
            Reject::TargetTooLong => ("target_too_long", "request target too long"),
            Reject::BadVersion => ("bad_version", "malformed HTTP version"),
            Reject::VersionUnsupported => ("version_unsupported", "HTTP version not supported"),
            Reject::BadStatusLine => ("bad_status_line", "malformed status line"),
            Reject::BadStatus => ("bad_status", "status out of range"),
            Reject::EmptyName => ("empty_name", "field without a name"),
            Reject::BadName => ("bad_name", "malformed field name"),
            Reject::SpaceBeforeColon => ("space_before_colon", "white space before a field's colon"),
            Reject::ObsFold => ("obs_fold", "folded field line"),
            Reject::HeadTooLarge => ("head_too_large", "message head too large"),
            Reject::TooManyFields => ("too_many_fields", "too many fields"),
            Reject::BothLengths => ("both_lengths", "Content-Length together with Transfer-Encoding"),
            Reject::BadLength => ("bad_length", "malformed Content-Length"),
            Reject::TwoLengths => ("two_lengths", "more than one Content-Length"),
            Reject::BadTransferEncoding => ("bad_transfer_encoding", "malformed Transfer-Encoding"),
            Reject::UnsupportedTransferCoding => ("unsupported_transfer_coding", "transfer coding not supported"),
            Reject::TransferEncodingInHttp10 => ("transfer_encoding_in_http10", "Transfer-Encoding in HTTP/1.0"),
            Reject::BodyForbidden => ("body_forbidden", "length in an answer that has no body"),
            Reject::MissingHost => ("missing_host", "no Host"),
            Reject::TwoHosts => ("two_hosts", "more than one Host"),
            Reject::BadHost => ("bad_host", "malformed host"),
            Reject::HostMismatch => ("host_mismatch", "Host differs from the request target"),
            Reject::BadConnection => ("bad_connection", "Connection names what it must not"),
            Reject::ExpectationUnknown => ("expectation_unknown", "unknown expectation"),
            Reject::BadChunkSize => ("bad_chunk_size", "malformed chunk size"),
            Reject::BadChunkEnd => ("bad_chunk_end", "chunk without its end"),
            Reject::BadChunkExtension => ("bad_chunk_extension", "malformed chunk extension"),
            Reject::ChunkExtensionsTooLong => ("chunk_extensions_too_long", "chunk extensions too long"),
            Reject::TrailersTooLarge => ("trailers_too_large", "trailers too large"),
            Reject::BadPercent => ("bad_percent", "malformed percent-encoding in the path"),
            Reject::ForbiddenInPath => ("forbidden_in_path", "forbidden character in the path"),
            Reject::PathAboveRoot => ("path_above_root", "path above its root"),
        }
    }
}

impl fmt::Display for Reject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

impl std::error::Error for Reject {}
