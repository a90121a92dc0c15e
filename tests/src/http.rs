//! HTTP/1.1 as strictly as tests want it: what is not exactly right is an error that says what came.

use std::io::{self, Read};

/// The first line and the fields of a message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// The request line or status line.
    pub line: String,
    /// Names as sent, and values.
    pub fields: Vec<(String, String)>,
}

/// An answer, whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// 200, 404 …
    pub status: u16,
    /// Status line and fields.
    pub head: Head,
    /// The content, without its framing.
    pub body: Vec<u8>,
    /// What came behind a chunked body.
    pub trailers: Vec<(String, String)>,
    /// The body ended with the connection.
    pub until_close: bool,
}

impl Head {
    /// All values of a field, in order.
    pub fn all(&self, name: &str) -> Vec<&str> {
        let of_name = self.fields.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name));
        of_name.map(|(_, value)| value.as_str()).collect()
    }

    /// The value of a field that stands once; none if it is absent.
    ///
    /// # Panics
    /// It stands more than once.
    pub fn field(&self, name: &str) -> Option<&str> {
        let all = self.all(name);
        assert!(all.len() <= 1, "{name} stands {} times: {self:?}", all.len());
        all.first().copied()
    }

    /// The n-th word of the first line.
    pub fn word(&self, n: usize) -> &str {
        self.line.split(' ').nth(n).unwrap_or_default()
    }

    /// Whether `Connection` has this option.
    pub fn connection(&self, option: &str) -> bool {
        self.all("connection").iter().any(|v| v.split(',').any(|o| o.trim().eq_ignore_ascii_case(option)))
    }

    /// Whether the body is chunked.
    pub fn chunked(&self) -> bool {
        self.field("transfer-encoding").is_some()
    }
}

impl Answer {
    /// The value of a field that stands once.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.head.field(name)
    }

    /// The body as text.
    ///
    /// # Panics
    /// It is none.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("text")
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// It is none.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {:?}", self.text()))
    }
}

/// Received bytes that are not used up yet, over a socket.
#[derive(Debug)]
pub struct Source<S> {
    stream: S,
    held: Vec<u8>,
    used: usize,
}

impl<S: Read> Source<S> {
    /// Nothing received yet.
    pub fn new(stream: S) -> Source<S> {
        Source { stream, held: Vec::new(), used: 0 }
    }

    /// The socket.
    pub fn stream(&mut self) -> &mut S {
        &mut self.stream
    }

    /// Bytes that were received and not used.
    pub fn left(&self) -> &[u8] {
        &self.held[self.used..]
    }

    /// Receives more; false at the end.
    fn more(&mut self) -> io::Result<bool> {
        if self.used > 0 && self.used == self.held.len() {
            self.held.clear();
            self.used = 0;
        }
        let mut piece = [0; 65536];
        let count = self.stream.read(&mut piece)?;
        self.held.extend_from_slice(&piece[..count]);
        Ok(count > 0)
    }

    /// A line without its CRLF; none at a clean end before its first byte.
    ///
    /// # Errors
    /// The connection ended or broke within the line, or the line does not end in CRLF.
    pub fn line(&mut self) -> io::Result<Option<String>> {
        loop {
            if let Some(end) = self.left().iter().position(|b| *b == b'\n') {
                let line = self.left()[..end].to_vec();
                self.used += end + 1;
                let text = line.strip_suffix(b"\r").ok_or_else(|| wrong("a line ends in LF alone", &line))?;
                if text.contains(&b'\r') || text.contains(&0) {
                    return Err(wrong("CR or NUL in a line", text));
                }
                return Ok(Some(String::from_utf8_lossy(text).into_owned()));
            }
            if !self.more()? {
                return match self.left() {
                    [] => Ok(None),
                    rest => Err(wrong("the connection ended within a line", rest)),
                };
            }
        }
    }

    /// Exactly so many bytes.
    ///
    /// # Errors
    /// The connection ended or broke before.
    pub fn exactly(&mut self, count: usize) -> io::Result<Vec<u8>> {
        while self.left().len() < count {
            if !self.more()? {
                let have = self.left().len();
                return Err(wrong(&format!("the connection ended after {have} of {count} bytes"), b""));
            }
        }
        let bytes = self.left()[..count].to_vec();
        self.used += count;
        Ok(bytes)
    }

    /// All that comes until the end.
    ///
    /// # Errors
    /// The connection broke.
    pub fn rest(&mut self) -> io::Result<Vec<u8>> {
        while self.more()? {}
        let bytes = self.left().to_vec();
        self.used = self.held.len();
        Ok(bytes)
    }

    /// A head; none at a clean end before its first byte.
    ///
    /// # Errors
    /// It is not exactly as RFC 9112 has it, or the connection ended within.
    pub fn head(&mut self) -> io::Result<Option<Head>> {
        let Some(line) = self.line()? else { return Ok(None) };
        let fields = self.fields()?;
        Ok(Some(Head { line, fields }))
    }

    /// Field lines to the empty line.
    fn fields(&mut self) -> io::Result<Vec<(String, String)>> {
        let mut fields = Vec::new();
        loop {
            let line = self.line()?.ok_or_else(|| wrong("the connection ended within a head", b""))?;
            if line.is_empty() {
                return Ok(fields);
            }
            let (name, value) = line.split_once(':').ok_or_else(|| wrong("a field without colon", line.as_bytes()))?;
            if name.is_empty() || name.contains([' ', '\t']) {
                return Err(wrong("a field's name", line.as_bytes()));
            }
            fields.push((name.to_owned(), value.trim_matches([' ', '\t']).to_owned()));
        }
    }

    /// A body as a head frames it; `otherwise_to_end` for answers without a length. Gives body and trailers.
    ///
    /// # Errors
    /// The framing is wrong or broken off.
    pub fn body(&mut self, head: &Head, otherwise_to_end: bool) -> io::Result<Body> {
        match (head.all("transfer-encoding").as_slice(), head.all("content-length").as_slice()) {
            (["chunked"], []) => self.chunks(),
            ([], [length]) => {
                let length = length.parse().map_err(|_| wrong("Content-Length", length.as_bytes()))?;
                Ok((self.exactly(length)?, Vec::new()))
            }
            ([], []) if otherwise_to_end => Ok((self.rest()?, Vec::new())),
            ([], []) => Ok((Vec::new(), Vec::new())),
            both => Err(wrong(&format!("framing {both:?}"), b"")),
        }
    }

    fn chunks(&mut self) -> io::Result<Body> {
        let mut body = Vec::new();
        loop {
            let line = self.line()?.ok_or_else(|| wrong("the connection ended between chunks", b""))?;
            let size = usize::from_str_radix(&line, 16).map_err(|_| wrong("a chunk's size", line.as_bytes()))?;
            if size == 0 {
                return Ok((body, self.fields()?));
            }
            body.extend(self.exactly(size)?);
            if self.exactly(2)? != b"\r\n" {
                return Err(wrong("a chunk's end", b""));
            }
        }
    }

    /// A final answer; `method` is what was asked. Interim answers go to `interim`.
    ///
    /// # Errors
    /// It is malformed or broken off.
    pub fn answer(&mut self, method: &str, interim: &mut Vec<Head>) -> io::Result<Answer> {
        loop {
            let head = self.head()?.ok_or_else(|| wrong("the connection ended before an answer", b""))?;
            let status = status_of(&head.line)?;
            if status < 200 && status != 101 {
                interim.push(head);
                continue;
            }
            let no_body = method == "HEAD" || matches!(status, 101 | 204 | 304);
            let until_close = !no_body && !head.chunked() && head.field("content-length").is_none();
            let (body, trailers) = if no_body { Default::default() } else { self.body(&head, true)? };
            return Ok(Answer { status, head, body, trailers, until_close });
        }
    }
}

/// A body and what came behind it.
pub type Body = (Vec<u8>, Vec<(String, String)>);

fn status_of(line: &str) -> io::Result<u16> {
    let rest = line.strip_prefix("HTTP/1.1 ").ok_or_else(|| wrong("a status line", line.as_bytes()))?;
    let (digits, _reason) = rest.split_once(' ').ok_or_else(|| wrong("a status line", line.as_bytes()))?;
    match digits.parse() {
        Ok(status) if digits.len() == 3 => Ok(status),
        _ => Err(wrong("a status", line.as_bytes())),
    }
}

fn wrong(what: &str, bytes: &[u8]) -> io::Error {
    let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(200)]).into_owned();
    io::Error::new(io::ErrorKind::InvalidData, format!("{what}: {shown:?}"))
}
