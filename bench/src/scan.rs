//! A small incremental reader of HTTP/1.1 messages for the load and the origin: finds heads, follows bodies by length,
//! by chunks and until close. It reads the language that proxies under test write, and is not strict beyond that.
//!
//! ```text
//!   Head ──► Body(left) ──► End ──► Head ...
//!     │ ├──► Chunks ─────────┘
//!     │ └──► UntilClose ──► (closed)
//!     └────► Head            after a 1xx
//! ```

use std::fmt;

/// Longest head that is accepted.
const HEAD_MAX: usize = 64 * 1024;
/// Longest chunk-size line or trailer line that is accepted.
const LINE_MAX: usize = 8 * 1024;

/// Which side's messages are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// Requests: no length means no body.
    Requests,
    /// Answers: no length means a body until close; 1xx, 204 and 304 have none (RFC 9112 section 6.3).
    Answers,
}

/// What was found in the bytes given.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Event<'a> {
    /// A complete head.
    Head(Head<'a>),
    /// Part of a body, chunk framing removed.
    Body(&'a [u8]),
    /// The message is complete. Interim answers (1xx) have none.
    End,
}

/// A head: its first line and what of its fields matters here.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Head<'a> {
    /// The whole head, the empty line included.
    pub(crate) bytes: &'a [u8],
    /// The first line without its end.
    pub(crate) line: &'a [u8],
    /// The answer's status; 0 in a request.
    pub(crate) status: u16,
    /// `Connection: close` was there.
    pub(crate) close: bool,
    /// The body comes in chunks.
    pub(crate) chunked: bool,
    /// `Expect: 100-continue` was there.
    pub(crate) expects: bool,
}

impl Head<'_> {
    /// The request's method: the first word of the line.
    pub(crate) fn method(&self) -> &[u8] {
        self.line.split(|&byte| byte == b' ').next().unwrap_or_default()
    }

    /// The request's target: the second word of the line.
    pub(crate) fn target(&self) -> &[u8] {
        self.line.split(|&byte| byte == b' ').nth(1).unwrap_or_default()
    }
}

/// Why bytes could not be read as messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A head, chunk line or trailer longer than this reader takes.
    TooLong,
    /// The first line is no HTTP/1 line.
    Line,
    /// Content-Length is not a number.
    Length,
    /// Chunk framing is broken.
    Chunk,
    /// The connection closed inside a message.
    Truncated,
}

impl fmt::Display for Fault {
    fn fmt(&self, to: &mut fmt::Formatter) -> fmt::Result {
        to.write_str(match self {
            Fault::TooLong => "head too long",
            Fault::Line => "first line is no HTTP/1",
            Fault::Length => "Content-Length is no number",
            Fault::Chunk => "chunk framing broken",
            Fault::Truncated => "closed inside a message",
        })
    }
}

impl std::error::Error for Fault {}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Head,
    Body(u64),
    UntilClose,
    Chunk(Chunk),
    End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Chunk {
    Size,
    Data(u64),
    DataEnd,
    Trailer,
}

/// The reader's state between two receives.
#[derive(Debug)]
pub(crate) struct Scan {
    side: Side,
    state: State,
    /// A head or line that is not complete yet; when it was handed out, `handed` is set and the next call clears it.
    held: Vec<u8>,
    handed: bool,
    /// Set for answers to HEAD: they have no body whatever their fields say.
    pub(crate) bodyless: bool,
}

impl Scan {
    /// A reader at the start of a connection.
    pub(crate) fn new(side: Side) -> Scan {
        Scan { side, state: State::Head, held: Vec::new(), handed: false, bodyless: false }
    }

    /// Takes the next event off the front of `input`; `None` when the rest of it is not enough for one.
    pub(crate) fn next<'a, 'b: 'a>(&'a mut self, input: &mut &'b [u8]) -> Result<Option<Event<'a>>, Fault> {
        if self.handed {
            self.held.clear();
            self.handed = false;
        }
        loop {
            match self.state {
                State::End => {
                    self.state = State::Head;
                    return Ok(Some(Event::End));
                }
                _ if input.is_empty() => return Ok(None),
                State::Head => return self.head(input),
                State::Body(left) => {
                    let part = take(input, left);
                    let left = left - part.len() as u64;
                    self.state = if left == 0 { State::End } else { State::Body(left) };
                    return Ok(Some(Event::Body(part)));
                }
                State::UntilClose => return Ok(Some(Event::Body(take(input, u64::MAX)))),
                State::Chunk(Chunk::Data(left)) => {
                    let part = take(input, left);
                    let left = left - part.len() as u64;
                    self.state = State::Chunk(if left == 0 { Chunk::DataEnd } else { Chunk::Data(left) });
                    return Ok(Some(Event::Body(part)));
                }
                State::Chunk(chunk) => {
                    if !self.chunk_line(chunk, input)? {
                        return Ok(None);
                    }
                }
            }
        }
    }

    /// The connection was closed by its peer: true when that ended a message whose body ran until close.
    pub(crate) fn closed(&mut self) -> Result<bool, Fault> {
        let between = self.state == State::Head && (self.held.is_empty() || self.handed);
        match self.state {
            State::UntilClose => Ok(true),
            _ if between => Ok(false),
            _ => Err(Fault::Truncated),
        }
    }

    fn head<'a, 'b: 'a>(&'a mut self, input: &mut &'b [u8]) -> Result<Option<Event<'a>>, Fault> {
        let bytes: &'a [u8] = if self.held.is_empty() {
            match head_end(input) {
                Some(end) => take(input, end as u64),
                None => return self.hold(input, HEAD_MAX),
            }
        } else {
            // The end may straddle the old bytes and the new: search from three bytes back.
            let old = self.held.len();
            let from = old.saturating_sub(3);
            self.held.extend_from_slice(input);
            let Some(end) = head_end(&self.held[from..]) else {
                *input = &[];
                return if self.held.len() > HEAD_MAX { Err(Fault::TooLong) } else { Ok(None) };
            };
            let end = from + end;
            self.held.truncate(end);
            take(input, (end - old) as u64);
            self.handed = true;
            &self.held
        };
        let (head, framing) = parse(bytes, self.side)?;
        self.state = match framing {
            _ if self.side == Side::Answers && head.status / 100 == 1 && head.status != 101 => State::Head,
            _ if self.bodyless => State::End,
            Framing::None | Framing::Length(0) => State::End,
            Framing::Length(length) => State::Body(length),
            Framing::Chunked => State::Chunk(Chunk::Size),
            Framing::UntilClose => State::UntilClose,
        };
        Ok(Some(Event::Head(head)))
    }

    fn hold<'a>(&mut self, input: &mut &[u8], most: usize) -> Result<Option<Event<'a>>, Fault> {
        self.held.extend_from_slice(input);
        *input = &[];
        if self.held.len() > most { Err(Fault::TooLong) } else { Ok(None) }
    }

    /// Reads one line of chunk framing; false when it is not complete yet.
    fn chunk_line(&mut self, chunk: Chunk, input: &mut &[u8]) -> Result<bool, Fault> {
        let Some(end) = memchr::memchr(b'\n', input) else {
            self.hold(input, LINE_MAX)?;
            return Ok(false);
        };
        self.held.extend_from_slice(take(input, end as u64 + 1));
        let line = self.held.strip_suffix(b"\r\n").ok_or(Fault::Chunk)?;
        self.state = match chunk {
            Chunk::Size => match chunk_size(line)? {
                0 => State::Chunk(Chunk::Trailer),
                size => State::Chunk(Chunk::Data(size)),
            },
            Chunk::DataEnd if line.is_empty() => State::Chunk(Chunk::Size),
            Chunk::DataEnd => return Err(Fault::Chunk),
            Chunk::Trailer if line.is_empty() => State::End,
            Chunk::Trailer | Chunk::Data(_) => State::Chunk(chunk),
        };
        self.held.clear();
        Ok(true)
    }
}

#[derive(Clone, Copy)]
enum Framing {
    None,
    Length(u64),
    Chunked,
    UntilClose,
}

fn take<'a>(input: &mut &'a [u8], most: u64) -> &'a [u8] {
    let at = input.len().min(usize::try_from(most).unwrap_or(usize::MAX));
    let (part, rest) = input.split_at(at);
    *input = rest;
    part
}

/// The length of the head at the front of `bytes`, its empty line included.
fn head_end(bytes: &[u8]) -> Option<usize> {
    memchr::memchr_iter(b'\n', bytes).find(|&at| bytes[..at].ends_with(b"\r\n\r")).map(|at| at + 1)
}

fn parse(bytes: &[u8], side: Side) -> Result<(Head<'_>, Framing), Fault> {
    let line_end = memchr::memchr(b'\r', bytes).ok_or(Fault::Line)?;
    let line = &bytes[..line_end];
    let status = match side {
        Side::Requests if line.windows(7).any(|part| part == b"HTTP/1.") => 0,
        Side::Answers => status(line)?,
        Side::Requests => return Err(Fault::Line),
    };
    let mut head = Head { bytes, line, status, close: false, chunked: false, expects: false };
    let mut framing = match side {
        Side::Requests => Framing::None,
        Side::Answers => Framing::UntilClose,
    };
    for field in bytes[line_end..].split(|&byte| byte == b'\n') {
        // Most fields are told apart by their first letter.
        match field.first() {
            Some(b'c' | b'C') => {
                if let Some(value) = value(field, b"content-length") {
                    if !matches!(framing, Framing::Chunked) {
                        framing = Framing::Length(number(value)?);
                    }
                } else if let Some(value) = value(field, b"connection") {
                    head.close |= value.eq_ignore_ascii_case(b"close");
                }
            }
            Some(b't' | b'T') if value(field, b"transfer-encoding").is_some() => {
                framing = Framing::Chunked;
                head.chunked = true;
            }
            Some(b'e' | b'E') => {
                head.expects |=
                    value(field, b"expect").is_some_and(|value| value.eq_ignore_ascii_case(b"100-continue"));
            }
            _ => {}
        }
    }
    if matches!(status, 101 | 204 | 304) {
        framing = Framing::None;
    }
    Ok((head, framing))
}

fn status(line: &[u8]) -> Result<u16, Fault> {
    let digits = line.strip_prefix(b"HTTP/1.").and_then(|rest| rest.get(2..5)).ok_or(Fault::Line)?;
    Ok(number(digits).map_err(|_| Fault::Line)? as u16)
}

fn value<'a>(field: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (found, rest) = field.split_at_checked(name.len())?;
    let value = rest.strip_prefix(b":")?;
    found.eq_ignore_ascii_case(name).then(|| value.trim_ascii())
}

fn number(digits: &[u8]) -> Result<u64, Fault> {
    let text = std::str::from_utf8(digits).map_err(|_| Fault::Length)?;
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Fault::Length);
    }
    text.parse().map_err(|_| Fault::Length)
}

fn chunk_size(line: &[u8]) -> Result<u64, Fault> {
    let digits = line.split(|&byte| byte == b';').next().unwrap_or_default().trim_ascii();
    let text = std::str::from_utf8(digits).map_err(|_| Fault::Chunk)?;
    if text.starts_with('+') {
        return Err(Fault::Chunk);
    }
    u64::from_str_radix(text, 16).map_err(|_| Fault::Chunk)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads `bytes` in pieces of `step`; heads as their lines, bodies joined.
    fn read(side: Side, bytes: &[u8], step: usize) -> Result<Vec<String>, Fault> {
        let mut scan = Scan::new(side);
        let mut found: Vec<String> = Vec::new();
        let mut body = Vec::new();
        for piece in bytes.chunks(step) {
            let mut input = piece;
            while let Some(event) = scan.next(&mut input)? {
                match event {
                    Event::Head(head) => found.push(String::from_utf8_lossy(head.line).into()),
                    Event::Body(part) => body.extend_from_slice(part),
                    Event::End => found.push(format!("[{}]", String::from_utf8_lossy(&std::mem::take(&mut body)))),
                }
            }
            assert!(input.is_empty());
        }
        if scan.closed()? {
            found.push(format!("[{}]", String::from_utf8_lossy(&body)));
        }
        Ok(found)
    }

    fn every_step(side: Side, bytes: &str) -> Result<Vec<String>, Fault> {
        let whole = read(side, bytes.as_bytes(), bytes.len().max(1));
        for step in 1..bytes.len() {
            assert_eq!(read(side, bytes.as_bytes(), step), whole, "in pieces of {step}");
        }
        whole
    }

    #[test]
    fn pipelined_requests_with_and_without_bodies() {
        let text = "GET /a HTTP/1.1\r\nHost: x\r\n\r\nPOST /b HTTP/1.1\r\nContent-Length: 5\r\n\r\nhelloGET /c HTTP/1.1\r\n\r\n";
        let found = every_step(Side::Requests, text).unwrap();
        assert_eq!(found, ["GET /a HTTP/1.1", "[]", "POST /b HTTP/1.1", "[hello]", "GET /c HTTP/1.1", "[]"]);
    }

    #[test]
    fn rfc9112_7_1_chunks_with_extensions_and_trailers() {
        let text = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4;x=1\r\nwiki\r\nB\r\npedia again\r\n0\r\nt: 1\r\n\r\nHTTP/1.1 204 No\r\n\r\n";
        let found = every_step(Side::Answers, text).unwrap();
        assert_eq!(found, ["HTTP/1.1 200 OK", "[wikipedia again]", "HTTP/1.1 204 No", "[]"]);
    }

    #[test]
    fn rfc9112_6_3_interim_answers_are_followed_by_the_final_one() {
        let text = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
        assert_eq!(every_step(Side::Answers, text).unwrap(), ["HTTP/1.1 100 Continue", "HTTP/1.1 200 OK", "[ok]"]);
    }

    #[test]
    fn rfc9112_6_3_no_length_means_until_close() {
        let text = "HTTP/1.1 200 OK\r\n\r\nall of it";
        assert_eq!(every_step(Side::Answers, text).unwrap(), ["HTTP/1.1 200 OK", "[all of it]"]);
    }

    #[test]
    fn rfc9112_8_a_short_body_is_not_a_message() {
        for text in [
            "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nab",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nab",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n",
            "HTTP/1.1 200",
        ] {
            assert_eq!(every_step(Side::Answers, text), Err(Fault::Truncated), "{text}");
        }
    }

    #[test]
    fn faults_have_names() {
        assert_eq!(read(Side::Answers, b"SSH-2.0\r\n\r\n", 99), Err(Fault::Line));
        assert_eq!(read(Side::Requests, b"GET / SSH\r\n\r\n", 99), Err(Fault::Line));
        assert_eq!(read(Side::Answers, b"HTTP/1.1 200 OK\r\ncontent-length: +3\r\n\r\n", 99), Err(Fault::Length));
        let chunked = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nabc\r\n";
        assert_eq!(read(Side::Answers, chunked, 99), Err(Fault::Chunk));
        assert_eq!(read(Side::Requests, &vec![b'a'; HEAD_MAX + 1], 1000), Err(Fault::TooLong));
    }

    #[test]
    fn answers_to_head_have_no_body() {
        let mut scan = Scan::new(Side::Answers);
        scan.bodyless = true;
        let mut input: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\nConnection: Close\r\n\r\n";
        assert!(matches!(scan.next(&mut input), Ok(Some(Event::Head(Head { status: 200, close: true, .. })))));
        assert_eq!(scan.next(&mut input), Ok(Some(Event::End)));
    }

    #[test]
    fn words_of_a_request_line() {
        let mut scan = Scan::new(Side::Requests);
        let mut input: &[u8] = b"PUT /size/9 HTTP/1.1\r\n\r\n";
        let Ok(Some(Event::Head(head))) = scan.next(&mut input) else { panic!("no head") };
        assert_eq!((head.method(), head.target()), (&b"PUT"[..], &b"/size/9"[..]));
    }
}
