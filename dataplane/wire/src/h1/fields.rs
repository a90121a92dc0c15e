//! Names of fields that a proxy must know, found by length and lower-case bytes, without allocating.

macro_rules! names {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// A well-known field name.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
        pub enum FieldName {
            /// None of the others.
            #[default]
            Other,
            $($(#[$doc])* $variant,)*
        }

        impl FieldName {
            /// All well-known names.
            pub const ALL: &[FieldName] = &[$(FieldName::$variant,)*];

            /// The name in lower case; empty for `Other`.
            pub fn as_str(self) -> &'static str {
                match self {
                    FieldName::Other => "",
                    $(FieldName::$variant => $name,)*
                }
            }

            /// The only name that has this key, if any.
            #[inline]
            fn candidate(wanted: Key) -> FieldName {
                #![allow(non_upper_case_globals)]
                $(const $variant: Key = key($name.as_bytes());)*
                match wanted {
                    $($variant => FieldName::$variant,)*
                    _ => FieldName::Other,
                }
            }
        }
    };
}

names! {
    /// Accept
    Accept = "accept",
    /// Accept-Encoding
    AcceptEncoding = "accept-encoding",
    /// Age
    Age = "age",
    /// Allow
    Allow = "allow",
    /// Authorization
    Authorization = "authorization",
    /// Cache-Control
    CacheControl = "cache-control",
    /// Connection
    Connection = "connection",
    /// Content-Encoding
    ContentEncoding = "content-encoding",
    /// Content-Length
    ContentLength = "content-length",
    /// Content-Range
    ContentRange = "content-range",
    /// Content-Type
    ContentType = "content-type",
    /// Cookie
    Cookie = "cookie",
    /// Date
    Date = "date",
    /// ETag
    Etag = "etag",
    /// Expect
    Expect = "expect",
    /// Expires
    Expires = "expires",
    /// Forwarded
    Forwarded = "forwarded",
    /// Host
    Host = "host",
    /// HTTP2-Settings
    Http2Settings = "http2-settings",
    /// If-Modified-Since
    IfModifiedSince = "if-modified-since",
    /// If-None-Match
    IfNoneMatch = "if-none-match",
    /// Keep-Alive
    KeepAlive = "keep-alive",
    /// Last-Modified
    LastModified = "last-modified",
    /// Location
    Location = "location",
    /// Max-Forwards
    MaxForwards = "max-forwards",
    /// Origin
    Origin = "origin",
    /// Pragma
    Pragma = "pragma",
    /// Proxy-Authenticate
    ProxyAuthenticate = "proxy-authenticate",
    /// Proxy-Authorization
    ProxyAuthorization = "proxy-authorization",
    /// Proxy-Connection
    ProxyConnection = "proxy-connection",
    /// Range
    Range = "range",
    /// Referer
    Referer = "referer",
    /// Retry-After
    RetryAfter = "retry-after",
    /// Server
    Server = "server",
    /// Set-Cookie
    SetCookie = "set-cookie",
    /// TE
    Te = "te",
    /// Trailer
    Trailer = "trailer",
    /// Transfer-Encoding
    TransferEncoding = "transfer-encoding",
    /// Upgrade
    Upgrade = "upgrade",
    /// User-Agent
    UserAgent = "user-agent",
    /// Vary
    Vary = "vary",
    /// Via
    Via = "via",
    /// WWW-Authenticate
    WwwAuthenticate = "www-authenticate",
    /// X-Forwarded-Client-Cert
    XForwardedClientCert = "x-forwarded-client-cert",
    /// X-Forwarded-For
    XForwardedFor = "x-forwarded-for",
    /// X-Forwarded-Host
    XForwardedHost = "x-forwarded-host",
    /// X-Forwarded-Proto
    XForwardedProto = "x-forwarded-proto",
    /// X-Request-Id
    XRequestId = "x-request-id",
}

impl FieldName {
    /// Which field `name` is, whatever its case. `name` must hold no byte below 0x21; every name in a parsed head is so.
    #[inline]
    pub fn of(name: &[u8]) -> FieldName {
        let candidate = FieldName::candidate(key(name));
        // The key of a longer name leaves out its middle.
        if name.len() > 16 && !name.eq_ignore_ascii_case(candidate.as_str().as_bytes()) {
            return FieldName::Other;
        }
        candidate
    }

    /// Whether the field concerns one connection only and is never forwarded: the list of RFC 9110 section 7.6.1,
    /// HTTP2-Settings (RFC 7540 section 3.2.1), and what RFC 9110 section 11.7 means for the next proxy alone.
    #[inline]
    pub fn is_hop_by_hop(self) -> bool {
        matches!(
            self,
            FieldName::Connection
                | FieldName::Http2Settings
                | FieldName::KeepAlive
                | FieldName::ProxyAuthenticate
                | FieldName::ProxyAuthorization
                | FieldName::ProxyConnection
                | FieldName::Te
                | FieldName::TransferEncoding
                | FieldName::Upgrade
        )
    }

    /// Whether a parser has to look at the value.
    #[inline]
    pub(super) fn has_meaning(self) -> bool {
        matches!(
            self,
            FieldName::Connection
                | FieldName::ContentLength
                | FieldName::Expect
                | FieldName::Host
                | FieldName::Te
                | FieldName::TransferEncoding
                | FieldName::Upgrade
        )
    }
}

/// Length, first and last bytes of a name, with bit 0x20 set. Of the bytes from 0x21 on, only letters of either case, digits
/// and `-` become what well-known names consist of, so that an equal key of up to 16 bytes is an equal name.
type Key = (usize, u64, u64);

const FOLD: u64 = 0x2020_2020_2020_2020;

#[inline]
const fn key(name: &[u8]) -> Key {
    let length = name.len();
    if let (Some(first), Some(last)) = (name.first_chunk::<8>(), name.last_chunk::<8>()) {
        return (length, u64::from_le_bytes(*first) | FOLD, u64::from_le_bytes(*last) | FOLD);
    }
    if let (Some(first), Some(last)) = (name.first_chunk::<4>(), name.last_chunk::<4>()) {
        let (first, last) = (u32::from_le_bytes(*first), u32::from_le_bytes(*last));
        return (length, (first as u64 | (last as u64) << 32) | FOLD, 0);
    }
    let mut word = 0;
    let mut at = 0;
    while at < length {
        word = word << 8 | name[at] as u64;
        at += 1;
    }
    (length, word | FOLD, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_found_in_any_case() {
        for &id in FieldName::ALL {
            let name = id.as_str();
            assert_eq!(FieldName::of(name.as_bytes()), id, "{name}");
            assert_eq!(FieldName::of(name.to_ascii_uppercase().as_bytes()), id, "{name}");
        }
    }

    #[test]
    fn a_name_with_one_byte_changed_is_another() {
        for &id in FieldName::ALL {
            for at in 0..id.as_str().len() {
                for byte in 0x21..=0xff {
                    let mut name = id.as_str().as_bytes().to_vec();
                    if name[at] == byte || name[at].to_ascii_uppercase() == byte {
                        continue;
                    }
                    name[at] = byte;
                    assert_ne!(FieldName::of(&name), id, "{}", String::from_utf8_lossy(&name));
                }
            }
        }
    }

    #[test]
    fn shorter_and_longer_names_are_others() {
        assert_eq!(FieldName::of(b""), FieldName::Other);
        for &id in FieldName::ALL {
            let name = id.as_str();
            assert_ne!(FieldName::of(&name.as_bytes()[1..]), id);
            assert_eq!(FieldName::of(format!("{name}{name}").as_bytes()), FieldName::Other);
            assert_eq!(FieldName::of(format!("x{name}").as_bytes()), FieldName::Other, "{name}");
        }
    }

    #[test]
    fn rfc9110_7_6_1_hop_by_hop() {
        for name in ["connection", "proxy-connection", "keep-alive", "te", "transfer-encoding", "upgrade"] {
            assert!(FieldName::of(name.as_bytes()).is_hop_by_hop(), "{name}");
        }
        for name in ["host", "content-length", "trailer", "via", "expect", "x-other"] {
            assert!(!FieldName::of(name.as_bytes()).is_hop_by_hop(), "{name}");
        }
    }
}
