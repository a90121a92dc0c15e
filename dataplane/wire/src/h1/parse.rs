//! Parsing heads: one pass from left to right, without allocating once `Head::fields` has grown. What is wrong is refused at the
//! first byte that shows it, so a part of a head is refused for the same reason as the whole.
//!
//! Decisions where RFC 9112 leaves a choice: bare LF ends no line; a request may follow one empty line, an answer none; a version
//! other than 1.0 and 1.1 is 505; raw characters that no URI has are refused in the path, and the ones that browsers leave in
//! a query are let through there; the authority of an absolute-form target must be Host's, port included, whatever the case.

mod fieldlines;
mod meaning;
mod startline;
#[cfg(test)]
mod tests;

use super::fields::FieldName;
use super::head::{Body, Field, Head, Method, Span, Version};
pub use super::reject::Reject;

/// What a head may be at most.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of the whole head, its last empty line included.
    pub head_bytes: usize,
    /// Field lines.
    pub fields: usize,
    /// Bytes of the request target.
    pub target_bytes: usize,
}

/// How far a head is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// The head is whole; its body, or the next message, begins `length` bytes behind its first.
    Complete {
        /// Bytes of the head.
        length: usize,
    },
    /// Nothing is wrong so far; more bytes are needed. The `Head` means nothing yet.
    Partial,
}

impl Head {
    /// Parses a request's head from the start of `bytes`. After an error the `Head` means nothing.
    pub fn parse_request(&mut self, bytes: &[u8], limits: &Limits) -> Result<Parsed, Reject> {
        let window = limits.window(bytes);
        let length = self.request(window, limits);
        limits.verdict(window, length)
    }

    /// Parses an answer's head from the start of `bytes`; `request_method` decides whether a body follows.
    /// After an error the `Head` means nothing.
    pub fn parse_response(&mut self, bytes: &[u8], request_method: Method, limits: &Limits) -> Result<Parsed, Reject> {
        let window = limits.window(bytes);
        let length = self.response(window, request_method, limits);
        limits.verdict(window, length)
    }

    /// The first field of a well-known name.
    #[inline]
    pub fn field(&self, id: FieldName) -> Option<&Field> {
        self.fields.iter().find(|field| field.id == id)
    }

    /// All values of the fields named `name` (any case), in order; `head` is what was parsed.
    pub fn values<'a>(&'a self, head: &'a [u8], name: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
        let named = move |field: &&Field| field.name.of(head).eq_ignore_ascii_case(name);
        self.fields.iter().filter(named).map(|field| field.value.of(head))
    }

    fn request(&mut self, bytes: &[u8], limits: &Limits) -> Result<usize, Stop> {
        self.clear();
        let at = startline::skip_empty_line(bytes)?;
        let (at, absolute) = self.request_line(bytes, at, limits)?;
        let mut meaning = meaning::Meaning::new(meaning::Side::Request, self.version);
        let at = self.field_lines(bytes, at, limits, &mut meaning)?;
        self.conclude_request(bytes, &meaning, absolute)?;
        Ok(at)
    }

    fn response(&mut self, bytes: &[u8], to: Method, limits: &Limits) -> Result<usize, Stop> {
        self.clear();
        let at = self.status_line(bytes)?;
        let mut meaning = meaning::Meaning::new(meaning::Side::Response, self.version);
        let at = self.field_lines(bytes, at, limits, &mut meaning)?;
        self.conclude_response(bytes, &meaning, to)?;
        Ok(at)
    }

    fn clear(&mut self) {
        self.fields.clear();
        self.version = Version::Http11;
        self.method = Method::Other;
        self.method_span = Span::default();
        self.path = Span::default();
        self.query = Span::default();
        self.authority = Span::default();
        self.status = 0;
        self.reason = Span::default();
        self.body = Body::None;
        self.keep_alive = false;
        self.expect_continue = false;
        self.upgrade = Span::default();
        self.te_trailers = false;
    }
}

impl Limits {
    /// What may be looked at: offsets are 32 bits wide.
    #[inline]
    fn window<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        let most = self.most();
        if bytes.len() > most { &bytes[..most] } else { bytes }
    }

    fn most(&self) -> usize {
        self.head_bytes.min(u32::MAX as usize)
    }

    #[inline]
    fn verdict(&self, window: &[u8], length: Result<usize, Stop>) -> Result<Parsed, Reject> {
        match length {
            Ok(length) => Ok(Parsed::Complete { length }),
            Err(Stop::Wrong(reject)) => Err(reject),
            Err(Stop::More) if window.len() >= self.most() => Err(Reject::HeadTooLarge),
            Err(Stop::More) => Ok(Parsed::Partial),
        }
    }
}

/// Finds the end of a head in bytes that grow, in linear time altogether, so that bytes that come one by one need no parsing
/// each time.
#[derive(Clone, Copy, Debug, Default)]
pub struct HeadEnd {
    scanned: usize,
}

impl HeadEnd {
    /// Whether `bytes`, which must begin with all that was given before, are worth parsing: they hold the end of a head,
    /// or a line end that no head may have. Then parsing never gives `Partial`. A caller also parses when `bytes` reach
    /// `Limits::head_bytes`. Start anew (`default`) for the next head.
    pub fn find(&mut self, bytes: &[u8]) -> bool {
        let from = self.scanned.min(bytes.len());
        for lf in memchr::memchr_iter(b'\n', &bytes[from..]) {
            let line = &bytes[..from + lf];
            if !line.ends_with(b"\r") || line.ends_with(b"\r\n\r") {
                self.scanned = line.len();
                return true;
            }
        }
        self.scanned = bytes.len();
        false
    }
}

/// Parses one field line that is whole, its CRLF included.
pub(super) fn parse_line(line: &[u8]) -> Result<Field, Reject> {
    match fieldlines::field_line(line, 0) {
        Ok((field, end)) if end == line.len() => Ok(field),
        Ok(_) | Err(Stop::More) => Err(Reject::BadName),
        Err(Stop::Wrong(reject)) => Err(reject),
    }
}

/// Why parsing stopped before the end of the head.
enum Stop {
    /// The bytes end.
    More,
    /// The message is refused.
    Wrong(Reject),
}

impl From<Reject> for Stop {
    fn from(reject: Reject) -> Stop {
        Stop::Wrong(reject)
    }
}

/// What is wrong with a byte that must not stand at `at`: the end of the bytes is not, and broken line ends and NUL have reasons
/// of their own.
#[cold]
fn wrong(bytes: &[u8], at: usize, otherwise: Reject) -> Stop {
    match bytes.get(at) {
        None => Stop::More,
        Some(0) => Stop::Wrong(Reject::Nul),
        Some(b'\n') => Stop::Wrong(Reject::BareLf),
        Some(b'\r') => match bytes.get(at + 1) {
            None => Stop::More,
            Some(b'\n') => Stop::Wrong(otherwise),
            Some(_) => Stop::Wrong(Reject::BareCr),
        },
        Some(_) => Stop::Wrong(otherwise),
    }
}

/// Steps over the CRLF that must stand at `at`.
#[inline]
fn line_end(bytes: &[u8], at: usize, otherwise: Reject) -> Result<usize, Stop> {
    match bytes.get(at..) {
        Some([b'\r', b'\n', ..]) => Ok(at + 2),
        _ => Err(wrong(bytes, at, otherwise)),
    }
}

/// Bytes are never more than 32 bits can count: see `Limits::window`.
#[inline]
fn span(start: usize, end: usize) -> Span {
    Span { start: start as u32, end: end as u32 }
}
