//! The authority of a request: checked when a head is parsed, brought to one form when a route is looked for.

use std::net::Ipv6Addr;

use crate::h1::bytes;
use crate::h1::reject::Reject;

/// The longest name that DNS knows (RFC 1035 section 2.3.4), its trailing dot included.
const NAME_BYTES: usize = 254;

/// The host of an authority as it is matched: lower-case, without port and trailing dot; an IPv6 address keeps its brackets.
/// A slice of `authority` when nothing has to be rewritten, else of `out`, whose former content is gone.
pub fn normalise_host<'a>(authority: &'a [u8], out: &'a mut Vec<u8>) -> Result<&'a [u8], Reject> {
    let mut host = check(authority)?;
    if let [name @ .., b'.'] = host {
        host = name;
    }
    if !host.iter().any(u8::is_ascii_uppercase) {
        return Ok(host);
    }
    out.clear();
    out.extend_from_slice(host);
    out.make_ascii_lowercase();
    Ok(out)
}

/// Checks `host [":" port]` (RFC 9112 section 3.2, RFC 3986 section 3.2.2) and gives the host. A host that is empty
/// must be rejected (RFC 9110 section 4.2.1); user information never stands in Host.
pub(crate) fn check(authority: &[u8]) -> Result<&[u8], Reject> {
    let end = match authority.first() {
        Some(b'[') => literal_end(authority)?,
        _ => name_end(authority)?,
    };
    let (host, port) = authority.split_at(end);
    if !port.is_empty() {
        check_port(port)?;
    }
    Ok(host)
}

fn name_end(authority: &[u8]) -> Result<usize, Reject> {
    let end = bytes::host_end(authority);
    let name = &authority[..end];
    let has_empty_label = bytes::has_pair(name, b'.', [b'.', b'.']);
    if name.is_empty() || name.len() > NAME_BYTES || name[0] == b'.' || has_empty_label {
        return Err(Reject::BadHost);
    }
    Ok(end)
}

/// Only addresses stand in brackets: no IPvFuture, no zone.
fn literal_end(authority: &[u8]) -> Result<usize, Reject> {
    let end = authority.iter().position(|&byte| byte == b']').ok_or(Reject::BadHost)?;
    let address = std::str::from_utf8(&authority[1..end]).map_err(|_| Reject::BadHost)?;
    let _: Ipv6Addr = address.parse().map_err(|_| Reject::BadHost)?;
    Ok(end + 1)
}

/// `:` and digits, which may be none (RFC 3986 section 3.2.3), up to 65535.
fn check_port(port: &[u8]) -> Result<(), Reject> {
    let [b':', digits @ ..] = port else {
        return Err(Reject::BadHost);
    };
    let mut number = 0u32;
    for &digit in digits {
        if !digit.is_ascii_digit() {
            return Err(Reject::BadHost);
        }
        number = number * 10 + u32::from(digit - b'0');
        if number > 65535 {
            return Err(Reject::BadHost);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn normal(authority: &str) -> Result<String, Reject> {
        let mut out = b"old".to_vec();
        let host = normalise_host(authority.as_bytes(), &mut out)?;
        Ok(String::from_utf8(host.to_vec()).unwrap())
    }

    #[test]
    fn rfc9110_4_2_3_case_port_and_trailing_dot() {
        for (given, host) in [
            ("example.com", "example.com"),
            ("Example.COM", "example.com"),
            ("EXAMPLE.com.:80", "example.com"),
            ("example.com:", "example.com"),
            ("example.com:65535", "example.com"),
            ("10.0.0.1:8080", "10.0.0.1"),
            ("a_b-c.d", "a_b-c.d"),
            ("[::1]", "[::1]"),
            ("[FE80::A]:443", "[fe80::a]"),
            ("[::ffff:1.2.3.4]", "[::ffff:1.2.3.4]"),
        ] {
            assert_eq!(normal(given).as_deref(), Ok(host), "{given}");
        }
    }

    #[test]
    fn a_normal_host_is_not_copied() {
        let mut out = Vec::new();
        assert_eq!(normalise_host(b"a.b:80", &mut out), Ok(&b"a.b"[..]));
        assert_eq!(out.capacity(), 0);
    }

    #[test]
    fn rfc9112_3_2_bad_hosts() {
        for given in [
            "",
            ".",
            "..",
            ".a",
            "a..b",
            "a..",
            ":80",
            "a:b",
            "a:65536",
            "a:99999999999",
            "a:8 0",
            "a:80:80",
            "u@a",
            "a/b",
            "a b",
            "a,b",
            "a%41",
            "a\tb",
            "[::1",
            "::1",
            "[]",
            "[::1]x",
            "[::1]:x",
            "[v1.a]",
            "[fe80::1%25eth0]",
            "[1.2.3.4]",
            "a\0b",
            "a\r",
            "ä",
            "a?b",
            "a#b",
            "a\\b",
        ] {
            assert_eq!(normal(given), Err(Reject::BadHost), "{given:?}");
        }
    }

    #[test]
    fn rfc1035_2_3_4_length() {
        assert!(normal(&"a".repeat(NAME_BYTES)).is_ok());
        assert_eq!(normal(&"a".repeat(NAME_BYTES + 1)), Err(Reject::BadHost));
    }
}
