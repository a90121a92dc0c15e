//! The first line: request line (RFC 9112 section 3) and status line (section 4).

use super::{Head, Limits, Method, Reject, Stop, Version, line_end, span, wrong};
use crate::h1::bytes::{self, PATH, QUERY, TOKEN};
use crate::host;

/// Steps over the one empty line that may stand before a request (RFC 9112 section 2.2).
#[inline]
pub(super) fn skip_empty_line(bytes: &[u8]) -> Result<usize, Stop> {
    match bytes.first() {
        Some(b'\r') => {}
        Some(_) => return Ok(0),
        None => return Err(Stop::More),
    }
    let at = line_end(bytes, 0, Reject::EmptyLine)?;
    match bytes.get(at) {
        Some(b'\r') => Err(wrong(bytes, at, Reject::EmptyLine)),
        _ => Ok(at),
    }
}

impl Head {
    /// Parses the request line; gives where the next line begins and whether the target has an authority.
    pub(super) fn request_line(&mut self, bytes: &[u8], at: usize, limits: &Limits) -> Result<(usize, bool), Stop> {
        let at = self.method(bytes, at)?;
        let (end, absolute) = self.target(bytes, at, limits)?;
        if bytes.get(end) != Some(&b' ') {
            let reject = match bytes.get(end) {
                Some(b'#') => Reject::Fragment,
                Some(b'\r' | b'\t') => Reject::BadRequestLine,
                _ => Reject::BadTarget,
            };
            return Err(wrong(bytes, end, reject));
        }
        let (version, at) = version(bytes, end + 1, Reject::BadRequestLine)?;
        self.version = version;
        let at = line_end(bytes, at, Reject::BadVersion)?;
        Ok((at, absolute))
    }

    #[inline]
    fn method(&mut self, bytes: &[u8], at: usize) -> Result<usize, Stop> {
        let end = bytes::run_end(bytes, at, TOKEN);
        if end == at || bytes.get(end) != Some(&b' ') {
            return Err(wrong(bytes, end, Reject::BadMethod));
        }
        self.method_span = span(at, end);
        self.method = match &bytes[at..end] {
            b"GET" => Method::Get,
            b"HEAD" => Method::Head,
            b"POST" => Method::Post,
            b"PUT" => Method::Put,
            b"DELETE" => Method::Delete,
            b"OPTIONS" => Method::Options,
            b"TRACE" => Method::Trace,
            b"PATCH" => Method::Patch,
            b"CONNECT" => return Err(Reject::ConnectRefused.into()),
            _ => Method::Other,
        };
        Ok(end + 1)
    }

    /// Parses the target up to the first byte that is none of it.
    #[inline]
    fn target(&mut self, bytes: &[u8], start: usize, limits: &Limits) -> Result<(usize, bool), Stop> {
        match bytes.get(start) {
            Some(b'/') => Ok((self.path_and_query(bytes, start, start, limits)?, false)),
            Some(b'*') if self.method == Method::Options => {
                self.path = span(start, start + 1);
                Ok((start + 1, false))
            }
            Some(b' ') => Err(Reject::BadRequestLine.into()),
            Some(byte) if byte.is_ascii_alphabetic() => Ok((self.absolute_form(bytes, start, limits)?, true)),
            _ => Err(wrong(bytes, start, Reject::BadTarget)),
        }
    }

    #[inline]
    fn path_and_query(&mut self, bytes: &[u8], start: usize, path: usize, limits: &Limits) -> Result<usize, Stop> {
        let mut end = bytes::path_end(bytes, path, PATH);
        self.path = span(path, end);
        if bytes.get(end) == Some(&b'?') {
            let query = end;
            end = bytes::run_end(bytes, query, QUERY);
            self.query = span(query, end);
        }
        check_length(start, end, limits)?;
        Ok(end)
    }

    /// `http://authority/path?query` (RFC 9112 section 3.2.2). An empty path means `/`: the span is then that of a slash
    /// before the authority. `OPTIONS` with an empty path would have to become `*` (section 3.2.4): refused.
    fn absolute_form(&mut self, bytes: &[u8], start: usize, limits: &Limits) -> Result<usize, Stop> {
        let authority = scheme_end(bytes, start)?;
        let is_delimiter = |byte: &u8| *byte <= b' ' || matches!(byte, b'/' | b'?' | b'#');
        let rest = &bytes[authority..];
        let end = rest.iter().position(is_delimiter).map_or(bytes.len(), |end| authority + end);
        check_length(start, end, limits)?;
        let Some(&delimiter) = bytes.get(end) else {
            return Err(Stop::More);
        };
        host::check(&bytes[authority..end])?;
        self.authority = span(authority, end);
        if delimiter == b'/' {
            return self.path_and_query(bytes, start, end, limits);
        }
        if self.method == Method::Options {
            return Err(Reject::BadTarget.into());
        }
        let target_end = self.path_and_query(bytes, start, end, limits)?;
        self.path = span(authority - 1, authority);
        Ok(target_end)
    }
}

/// RFC 9112 section 3: a target that is too long is 414. Looked at before the byte behind it, so that a part of a target that is too
/// long gets the answer of the whole.
#[inline]
fn check_length(start: usize, end: usize, limits: &Limits) -> Result<(), Stop> {
    match end - start > limits.target_bytes {
        true => Err(Reject::TargetTooLong.into()),
        false => Ok(()),
    }
}

/// Steps over `http://` or `https://`, in any case (RFC 3986 section 3.1).
fn scheme_end(bytes: &[u8], start: usize) -> Result<usize, Stop> {
    let mut at = start;
    for &expected in b"http" {
        at = step(bytes, at, expected)?;
    }
    if matches!(bytes.get(at), Some(b's' | b'S')) {
        at += 1;
    }
    for &expected in b"://" {
        at = step(bytes, at, expected)?;
    }
    Ok(at)
}

fn step(bytes: &[u8], at: usize, expected: u8) -> Result<usize, Stop> {
    match bytes.get(at) {
        Some(byte) if byte.to_ascii_lowercase() == expected => Ok(at + 1),
        _ => Err(wrong(bytes, at, Reject::BadTarget)),
    }
}

/// Parses `HTTP/1.1` or `HTTP/1.0` (RFC 9112 section 2.3). `missing` is the reason when nothing like it begins.
#[inline]
fn version(bytes: &[u8], at: usize, missing: Reject) -> Result<(Version, usize), Stop> {
    match bytes.get(at..at + 8) {
        Some(b"HTTP/1.1") => Ok((Version::Http11, at + 8)),
        Some(b"HTTP/1.0") => Ok((Version::Http10, at + 8)),
        _ => Err(version_stop(bytes, at, missing)),
    }
}

#[cold]
fn version_stop(bytes: &[u8], start: usize, missing: Reject) -> Stop {
    let mut at = start;
    for &expected in b"HTTP/" {
        if bytes.get(at) != Some(&expected) {
            return wrong(bytes, at, if at == start { missing } else { Reject::BadVersion });
        }
        at += 1;
    }
    for part in 0..3 {
        let fits = match bytes.get(at) {
            Some(b'.') => part == 1,
            Some(byte) => part != 1 && byte.is_ascii_digit(),
            None => false,
        };
        if !fits {
            return wrong(bytes, at, Reject::BadVersion);
        }
        at += 1;
    }
    Stop::Wrong(Reject::VersionUnsupported)
}

impl Head {
    /// Parses the status line; gives where the next line begins.
    pub(super) fn status_line(&mut self, bytes: &[u8]) -> Result<usize, Stop> {
        let (version, at) = version(bytes, 0, Reject::BadStatusLine)?;
        self.version = version;
        let at = space(bytes, at)?;
        let at = self.status_code(bytes, at)?;
        // The space stands even before an empty reason.
        let at = space(bytes, at)?;
        let end = bytes::text_end(bytes, at);
        self.reason = span(at, end);
        line_end(bytes, end, Reject::ControlCharacter)
    }

    fn status_code(&mut self, bytes: &[u8], start: usize) -> Result<usize, Stop> {
        let mut status = 0;
        for at in start..start + 3 {
            match bytes.get(at) {
                Some(digit) if digit.is_ascii_digit() => {
                    status = status * 10 + u16::from(digit - b'0');
                }
                _ => return Err(wrong(bytes, at, Reject::BadStatusLine)),
            }
        }
        // HTTP/1.0 knows no 1xx (RFC 9110 section 15.2).
        let least = if self.version == Version::Http10 { 200 } else { 100 };
        if !(least..600).contains(&status) {
            return Err(Reject::BadStatus.into());
        }
        self.status = status;
        Ok(start + 3)
    }
}

fn space(bytes: &[u8], at: usize) -> Result<usize, Stop> {
    match bytes.get(at) {
        Some(b' ') => Ok(at + 1),
        _ => Err(wrong(bytes, at, Reject::BadStatusLine)),
    }
}
