//! HTTP/1.1 as seen by a peer that trusts nobody: a reader and a writer of its own, none of the proxy's code.

use crate::choice::Choice;
use crate::line::{Line, PATIENCE_NS};
use crate::script::{Framing, Pace, Traffic};
use ring::Error;
use std::rc::Rc;

/// How a connection ended for its reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// A clean end: FIN; in TLS close_notify before it.
    End,
    Reset,
}

/// A message's head.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) first: String,
    pub(crate) fields: Vec<(String, String)>,
}

impl Head {
    /// The values of a field.
    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.fields.iter().filter(move |(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| &**value)
    }

    /// The value of a field that stands at most once.
    pub(crate) fn one<'a>(&'a self, name: &'a str) -> Option<&'a str> {
        let mut all = self.all(name);
        let value = all.next();
        assert_eq!(all.next(), None, "{name} stands twice in {self:?}");
        value
    }

    /// The framing that its fields say; `None` for none. Never two of them.
    pub(crate) fn framing(&self) -> (Framing, usize) {
        match (self.one("content-length"), self.one("transfer-encoding")) {
            (None, None) => (Framing::None, 0),
            (Some(length), None) => (Framing::Length, length.parse().expect("a length")),
            (None, Some("chunked")) => (Framing::Chunked, 0),
            _ => panic!("framing of {self:?}"),
        }
    }
}

/// Reads what comes on a line.
pub(crate) struct Reader<'a> {
    line: &'a Line,
    traffic: Rc<Traffic>,
    held: Vec<u8>,
    at: usize,
    /// Rests before it takes more.
    pace: Pace,
    choice: Choice,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(line: &'a Line, traffic: Rc<Traffic>, pace: Pace, choice: Choice) -> Reader<'a> {
        Reader { line, traffic, held: Vec::new(), at: 0, pace, choice }
    }

    async fn more(&mut self) -> Result<(), Cut> {
        if self.choice.percent(self.pace.rest_percent) {
            ring::sleep_until(ring::now() + self.choice.below(self.pace.rest_ns)).await;
        }
        self.held.drain(..self.at);
        self.at = 0;
        match self.line.recv(ring::now() + PATIENCE_NS).await {
            Ok(Some(buf)) => {
                self.traffic.received.set(self.traffic.received.get() + buf.len() as u64);
                self.held.extend_from_slice(&buf);
                Ok(())
            }
            Ok(None) => Err(Cut::End),
            Err(Error::TimedOut) => panic!("nothing comes"),
            Err(_) => Err(Cut::Reset),
        }
    }

    /// Waits for a first byte.
    pub(crate) async fn begins(&mut self) -> Result<(), Cut> {
        if self.at == self.held.len() { self.more().await } else { Ok(()) }
    }

    /// A line, without its CRLF.
    async fn line(&mut self) -> Result<String, Cut> {
        let mut from = 0;
        loop {
            let rest = &self.held[self.at..];
            if let Some(end) = rest[from..].iter().position(|byte| *byte == b'\n') {
                let line = &rest[..from + end];
                let line = String::from_utf8(line.to_vec()).expect("text in a line");
                assert!(line.ends_with('\r') && !line[..line.len() - 1].contains('\r'), "line {line:?}");
                self.at += from + end + 1;
                return Ok(line[..line.len() - 1].to_owned());
            }
            from = rest.len();
            assert!(from < 100_000, "an endless line");
            self.more().await?;
        }
    }

    async fn fields(&mut self) -> Result<Vec<(String, String)>, Cut> {
        let mut fields = Vec::new();
        loop {
            let line = self.line().await?;
            if line.is_empty() {
                return Ok(fields);
            }
            let (name, value) = line.split_once(':').expect("a colon");
            assert!(!name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic()), "name {name:?}");
            fields.push((name.to_owned(), value.trim().to_owned()));
        }
    }

    pub(crate) async fn head(&mut self) -> Result<Head, Cut> {
        let first = self.line().await?;
        Ok(Head { first, fields: self.fields().await? })
    }

    /// At most `most` bytes, as they come.
    pub(crate) async fn some(&mut self, most: usize) -> Result<Vec<u8>, Cut> {
        self.begins().await?;
        let end = self.held.len().min(self.at.saturating_add(most));
        let bytes = self.held[self.at..end].to_vec();
        self.at = end;
        Ok(bytes)
    }

    /// Nothing has come that was not taken.
    pub(crate) fn is_drained(&self) -> bool {
        self.at == self.held.len() && self.line.is_drained()
    }

    /// Takes everything until the end, and counts it.
    pub(crate) async fn rest(&mut self) -> (usize, Cut) {
        let mut count = self.held.len() - self.at;
        self.at = self.held.len();
        loop {
            match self.more().await {
                Ok(()) => count += self.held.len(),
                Err(cut) => return (count, cut),
            }
            self.at = self.held.len();
        }
    }
}

/// A body as it is read.
pub(crate) struct Body {
    framing: Framing,
    /// Bytes left, of the body or of the chunk.
    left: usize,
    began: bool,
    pub(crate) trailers: Vec<(String, String)>,
}

impl Body {
    pub(crate) fn new(framing: Framing, length: usize) -> Body {
        let left = if framing == Framing::Length { length } else { 0 };
        Body { framing, left, began: false, trailers: Vec::new() }
    }

    /// The next bytes; `None` at its end.
    pub(crate) async fn next(&mut self, reader: &mut Reader<'_>) -> Result<Option<Vec<u8>>, Cut> {
        match self.framing {
            Framing::None => Ok(None),
            Framing::Close => match reader.some(usize::MAX).await {
                Ok(bytes) => Ok(Some(bytes)),
                Err(Cut::End) => Ok(None),
                Err(Cut::Reset) => Err(Cut::Reset),
            },
            Framing::Length if self.left == 0 => Ok(None),
            Framing::Chunked if self.left == 0 => {
                if self.began {
                    assert_eq!(reader.line().await?, "", "behind a chunk");
                }
                self.began = true;
                let size = reader.line().await?;
                let digits = size.split(';').next().unwrap_or_default();
                self.left = usize::from_str_radix(digits, 16).unwrap_or_else(|_| panic!("chunk size {size:?}"));
                if self.left == 0 {
                    self.trailers = reader.fields().await?;
                    self.framing = Framing::None;
                    return Ok(None);
                }
                self.take(reader).await
            }
            Framing::Length | Framing::Chunked => self.take(reader).await,
        }
    }

    async fn take(&mut self, reader: &mut Reader<'_>) -> Result<Option<Vec<u8>>, Cut> {
        let bytes = reader.some(self.left).await?;
        self.left -= bytes.len();
        Ok(Some(bytes))
    }
}

/// Sends bytes on a line, in pieces.
pub(crate) struct Writer<'a> {
    pub(crate) line: &'a Line,
    traffic: Rc<Traffic>,
    held: Vec<u8>,
    pub(crate) pace: Pace,
    /// Extensions of chunks so far.
    extended: u32,
    choice: Choice,
}

impl<'a> Writer<'a> {
    pub(crate) fn new(line: &'a Line, traffic: Rc<Traffic>, pace: Pace, choice: Choice) -> Writer<'a> {
        Writer { line, traffic, held: Vec::new(), pace, extended: 0, choice }
    }

    /// Adds bytes; they are sent at the next flush.
    pub(crate) fn put(&mut self, bytes: &[u8]) {
        self.held.extend_from_slice(bytes);
    }

    /// Adds bytes, and sends when many are waiting.
    pub(crate) async fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.put(bytes);
        if self.held.len() > 20_000 { self.flush().await } else { Ok(()) }
    }

    pub(crate) async fn flush(&mut self) -> Result<(), Error> {
        let held = std::mem::take(&mut self.held);
        // In TLS some are records of their own, and the line cuts those.
        let most = if self.line.is_secure() { self.pace.most.max(held.len() / 20) } else { self.pace.most };
        for piece in held.chunks(most.clamp(1, 100_000)) {
            if self.choice.percent(self.pace.rest_percent) {
                ring::sleep_until(ring::now() + self.choice.below(self.pace.rest_ns)).await;
            }
            self.line.send(piece).await?;
            self.traffic.sent.set(self.traffic.sent.get() + piece.len() as u64);
        }
        Ok(())
    }

    /// Ends our direction behind all of it.
    pub(crate) async fn finish(&mut self) -> Result<(), Error> {
        self.flush().await?;
        self.line.finish().await;
        Ok(())
    }

    /// Adds a part of a body, in its framing. Chunks are of any size, with an extension now and then.
    pub(crate) async fn body(&mut self, framing: Framing, mut bytes: &[u8]) -> Result<(), Error> {
        while !bytes.is_empty() {
            if framing != Framing::Chunked {
                return self.write(bytes).await;
            }
            let bound = self.choice.one_of(&[1, 16, 1000, 10_000, 100_000]).min(bytes.len()).max(bytes.len() / 100);
            let (chunk, rest) = bytes.split_at(1 + self.choice.up_to(bound - 1));
            bytes = rest;
            // A body may have 16 KiB of them.
            let extended = self.extended < 1000 && self.choice.percent(5);
            self.extended += u32::from(extended);
            let extension = if extended { ";ext=\"a;b\"" } else { "" };
            self.put(format!("{:X}{extension}\r\n", chunk.len()).as_bytes());
            self.put(chunk);
            self.write(b"\r\n").await?;
        }
        Ok(())
    }

    /// Ends a body.
    pub(crate) async fn body_end(&mut self, framing: Framing, trailer: Option<u64>) -> Result<(), Error> {
        if framing == Framing::Chunked {
            self.put(b"0\r\n");
            if let Some(trailer) = trailer {
                self.put(format!("x-trailer: {trailer}\r\n").as_bytes());
            }
            self.put(b"\r\n");
        }
        self.flush().await
    }
}
