//! Paths, brought to one form before anything is matched, so that what is matched is what is forwarded.

use crate::h1::bytes::{self, CLEAN_PATH, HEX, PATH, UNRESERVED};
use crate::h1::reject::Reject;
pub use crate::host::normalise_host;

/// Normalises a path once (RFC 3986 section 6.2.2, and stricter): `//` is merged, `.` and `..` are resolved,
/// percent-encoded unreserved characters are decoded (once: `%252e` stays), other triplets get upper-case digits.
///
/// False: it is normal already; forward `path` itself (`out` is mostly untouched: one scan sees most normal paths).
/// True: `out` holds the normal path, and its former content is gone.
/// `*` is normal. Refused are encoded slashes, backslashes and NUL, raw backslashes, malformed triplets, bytes that no path
/// has, a path that does not begin with `/`, and one that climbs above its root. After an error `out` means nothing.
pub fn normalise(path: &[u8], out: &mut Vec<u8>) -> Result<bool, Reject> {
    if is_normal(path) || path == b"*" {
        return Ok(false);
    }
    let [b'/', segments @ ..] = path else {
        return Err(Reject::BadTarget);
    };
    out.clear();
    out.push(b'/');
    let mut rest = segments;
    loop {
        let (segment, behind) = split_segment(rest);
        push_segment(segment, out)?;
        let Some(behind) = behind else { break };
        if out.last() != Some(&b'/') {
            out.push(b'/');
        }
        rest = behind;
    }
    // Triplets may have been upper-case and reserved already.
    Ok(out != path)
}

/// May say no to a path that is normal: `normalise` then finds nothing to change.
fn is_normal(path: &[u8]) -> bool {
    path.first() == Some(&b'/')
        && bytes::path_end(path, 0, CLEAN_PATH) == path.len()
        && !bytes::has_pair(path, b'/', [b'/', b'.'])
}

fn split_segment(rest: &[u8]) -> (&[u8], Option<&[u8]>) {
    match memchr::memchr(b'/', rest) {
        Some(at) => (&rest[..at], Some(&rest[at + 1..])),
        None => (rest, None),
    }
}

/// Appends a segment behind the `/` that `out` ends with, or takes the last one away for `..`.
fn push_segment(segment: &[u8], out: &mut Vec<u8>) -> Result<(), Reject> {
    let start = out.len();
    push_decoded(segment, out)?;
    match &out[start..] {
        b"." => out.truncate(start),
        b".." if start == 1 => return Err(Reject::PathAboveRoot),
        b".." => {
            out.truncate(start - 1);
            let slash = memchr::memrchr(b'/', out).unwrap_or(0);
            out.truncate(slash + 1);
        }
        _ => {}
    }
    Ok(())
}

fn push_decoded(segment: &[u8], out: &mut Vec<u8>) -> Result<(), Reject> {
    let mut rest = segment;
    while let [byte, behind @ ..] = rest {
        rest = behind;
        match byte {
            b'%' => {
                let [high, low, behind @ ..] = rest else {
                    return Err(Reject::BadPercent);
                };
                push_triplet(*high, *low, out)?;
                rest = behind;
            }
            b'\\' => return Err(Reject::ForbiddenInPath),
            0 => return Err(Reject::Nul),
            byte if bytes::is(*byte, PATH) => out.push(*byte),
            _ => return Err(Reject::BadTarget),
        }
    }
    Ok(())
}

fn push_triplet(high: u8, low: u8, out: &mut Vec<u8>) -> Result<(), Reject> {
    if !bytes::is(high, HEX) || !bytes::is(low, HEX) {
        return Err(Reject::BadPercent);
    }
    let byte = bytes::hex_value(high) << 4 | bytes::hex_value(low);
    match byte {
        b'/' | b'\\' | 0 => return Err(Reject::ForbiddenInPath),
        byte if bytes::is(byte, UNRESERVED) => out.push(byte),
        _ => out.extend_from_slice(&[b'%', high.to_ascii_uppercase(), low.to_ascii_uppercase()]),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn normal(path: &str) -> Result<String, Reject> {
        let mut out = b"old".to_vec();
        match normalise(path.as_bytes(), &mut out)? {
            true => Ok(String::from_utf8(out).unwrap()),
            false => Ok(path.to_string()),
        }
    }

    #[test]
    fn rfc3986_6_2_2_one_form() {
        for (given, path) in [
            ("/", "/"),
            ("//", "/"),
            ("/a//b///c", "/a/b/c"),
            ("/a/./b", "/a/b"),
            ("/./", "/"),
            ("/.", "/"),
            ("/a/.", "/a/"),
            ("/a/b/../c", "/a/c"),
            ("/a/b/..", "/a/"),
            ("/a/..", "/"),
            ("/a/../", "/"),
            ("/a//../b", "/b"),
            ("/a/b/c/../../../d", "/d"),
            ("/%61%2d%5f%7e", "/a-_~"),
            ("/a/%2e%2e/b", "/b"),
            ("/a/%2E./b", "/b"),
            ("/%2e", "/"),
            ("/%c3%a4", "/%C3%A4"),
            ("/%20%3f%23", "/%20%3F%23"),
            ("/%25", "/%25"),
            ("/.well-known/x", "/.well-known/x"),
            ("/...", "/..."),
            ("/a..b/..c/d..", "/a..b/..c/d.."),
            ("/a;b=c/,@:!$&'()*+", "/a;b=c/,@:!$&'()*+"),
            ("/..;/a", "/..;/a"),
            ("*", "*"),
        ] {
            assert_eq!(normal(given).as_deref(), Ok(path), "{given}");
        }
    }

    #[test]
    fn rfc3986_2_4_never_decoded_twice() {
        assert_eq!(normal("/%252e%252e/a").as_deref(), Ok("/%252e%252e/a"));
        assert_eq!(normal("/%252f").as_deref(), Ok("/%252f"));
        assert_eq!(normal("/%2561").as_deref(), Ok("/%2561"));
    }

    #[test]
    fn what_is_normal_is_left_alone() {
        for path in ["/", "/a/b.c/d", "*", "/%20", "/.a"] {
            let mut out = b"old".to_vec();
            assert_eq!(normalise(path.as_bytes(), &mut out), Ok(false));
            if !path.contains(['%', '.']) {
                assert_eq!(out, b"old", "{path}");
            }
        }
    }

    #[test]
    fn refused_paths() {
        use Reject::*;
        for (given, reject) in [
            ("/%2f", ForbiddenInPath),
            ("/a%2Fb", ForbiddenInPath),
            ("/%5c", ForbiddenInPath),
            ("/%00", ForbiddenInPath),
            ("/a\\b", ForbiddenInPath),
            ("/..", PathAboveRoot),
            ("/a/../..", PathAboveRoot),
            ("/%2e%2e/", PathAboveRoot),
            ("//..", PathAboveRoot),
            ("/./../a", PathAboveRoot),
            ("/%", BadPercent),
            ("/%4", BadPercent),
            ("/%g1", BadPercent),
            ("/%1g", BadPercent),
            ("/%4/1", BadPercent),
            ("/%%41", BadPercent),
            ("/% 41", BadPercent),
            ("", BadTarget),
            ("a", BadTarget),
            ("**", BadTarget),
            ("%2f", BadTarget),
            ("/a b", BadTarget),
            ("/a?b", BadTarget),
            ("/a#b", BadTarget),
            ("/ä", BadTarget),
            ("/a\tb", BadTarget),
            ("/a\rb", BadTarget),
            ("/a\0b", Nul),
        ] {
            assert_eq!(normal(given), Err(reject), "{given:?}");
        }
    }

    proptest! {
        /// What came out is normal: a second time changes nothing, and no part of it means anything else.
        #[test]
        fn once_is_enough(path in "/([a.%/25eEfF0;]|%2e|/\\.\\./){0,40}") {
            if let Ok(once) = normal(&path) {
                prop_assert_eq!(normal(&once), Ok(once.clone()));
                prop_assert!(!once.contains("//") && !once.contains("/./") && !once.contains("/../"));
                prop_assert!(once.starts_with('/') && !once.ends_with("/..") && !once.ends_with("/."));
                prop_assert!(!once.contains("%2F") && !once.contains("%2f") || path.contains("%25"));
                let mut out = b"old".to_vec();
                prop_assert_eq!(normalise(once.as_bytes(), &mut out), Ok(false));
            }
        }

        #[test]
        fn any_bytes(path in prop::collection::vec(any::<u8>(), 0..64)) {
            let mut out = Vec::new();
            let _ = normalise(&path, &mut out);
            let _ = normalise_host(&path, &mut out);
        }
    }
}
