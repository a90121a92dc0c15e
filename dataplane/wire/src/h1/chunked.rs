//! The chunked coding (RFC 9112 section 7.1): decoded without copying, written as chunk heads.
//!
//! ```text
//! 1a;ext=1 CRLF  <26 bytes> CRLF   0 CRLF  name: value CRLF  CRLF
//! Size Extension Data       DataCr Size    Trailer           Final
//! ```

use super::bytes::{self, HEX};
use super::fields::FieldName;
use super::head::Field;
use super::parse;
use super::reject::Reject;

/// What `Chunked::next` found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece {
    /// `bytes[skip..skip + length]` is data of the body; go on behind it. `length` is never 0.
    Data {
        /// Bytes of framing before the data.
        skip: usize,
        /// Bytes of data.
        length: usize,
    },
    /// All bytes are used up, and the body is not at its end.
    More,
    /// The body has ended; the next message begins at `bytes[consumed]`.
    End {
        /// Bytes that still belonged to this body.
        consumed: usize,
    },
}

/// Decodes one body. It never copies data: it says which ranges of what was received are data.
#[derive(Debug)]
pub struct Chunked {
    state: State,
    /// Digits of the size so far.
    digits: u8,
    /// Bytes of extensions that the body may still have.
    extensions_left: u16,
    /// Bytes of trailers that the body may still have.
    trailers_left: u32,
    /// How much of `trailers` is finished; a line that is not whole stands behind.
    trailers_kept: u32,
    /// The size as its digits come, then what is left of the chunk.
    left: u64,
    trailers: Vec<u8>,
}

/// What the next byte is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Size,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    TrailerStart,
    Trailer,
    FinalLf,
    End,
}

/// Extensions that a body may have altogether. Nobody we forward to ever sees one (RFC 9112 section 7.1.1).
pub const EXTENSION_BYTES: u16 = 16 * 1024;

/// As many as 64 bits need; leading zeros count, or a size would never have to end.
const SIZE_DIGITS: u8 = 16;

/// The last chunk; trailers and an empty line follow it.
pub const LAST_CHUNK: &[u8] = b"0\r\n";

impl Chunked {
    /// A decoder at the start of a body whose trailers may have `trailer_limit` bytes.
    pub fn new(trailer_limit: usize) -> Chunked {
        Chunked {
            state: State::Size,
            digits: 0,
            extensions_left: EXTENSION_BYTES,
            trailers_left: trailer_limit.min(u32::MAX as usize) as u32,
            trailers_kept: 0,
            left: 0,
            trailers: Vec::new(),
        }
    }

    /// The next piece of `bytes`, which begin where the last piece ended. After an error the decoder means nothing.
    pub fn next(&mut self, bytes: &[u8]) -> Result<Piece, Reject> {
        let mut at = 0;
        loop {
            if self.state == State::End {
                return Ok(Piece::End { consumed: at });
            }
            let Some(&byte) = bytes.get(at) else {
                return Ok(Piece::More);
            };
            match self.state {
                State::Data => {
                    let rest = bytes.len() - at;
                    let length = usize::try_from(self.left).map_or(rest, |left| left.min(rest));
                    self.left -= length as u64;
                    if self.left == 0 {
                        self.state = State::DataCr;
                    }
                    return Ok(Piece::Data { skip: at, length });
                }
                State::Trailer => at += self.trailer(&bytes[at..])?,
                State::TrailerStart if byte != b'\r' => self.state = State::Trailer,
                _ => {
                    self.state = self.framing(byte)?;
                    at += 1;
                }
            }
        }
    }

    /// After `Piece::End`: the trailers that may be forwarded, `name: value` CRLF each, without the empty line.
    pub fn trailers(&self) -> &[u8] {
        &self.trailers[..self.trailers_kept as usize]
    }

    /// Takes one byte of framing.
    fn framing(&mut self, byte: u8) -> Result<State, Reject> {
        match (self.state, byte) {
            (State::Size, _) => self.size(byte),
            (State::Extension, _) => self.extension(byte),
            (State::SizeLf, b'\n') if self.left == 0 => Ok(State::TrailerStart),
            (State::SizeLf, b'\n') => Ok(State::Data),
            (State::DataCr, b'\r') => Ok(State::DataLf),
            (State::DataLf, b'\n') => {
                self.digits = 0;
                Ok(State::Size)
            }
            (State::DataCr | State::DataLf, _) => Err(Reject::BadChunkEnd),
            (State::TrailerStart, b'\r') => Ok(State::FinalLf),
            (State::FinalLf, b'\n') => Ok(State::End),
            _ => Err(Reject::BareCr),
        }
    }

    fn size(&mut self, byte: u8) -> Result<State, Reject> {
        match byte {
            digit if bytes::is(digit, HEX) => {
                if self.digits == SIZE_DIGITS {
                    return Err(Reject::BadChunkSize);
                }
                self.digits += 1;
                self.left = self.left << 4 | u64::from(bytes::hex_value(digit));
                Ok(State::Size)
            }
            b'\n' => Err(Reject::BareLf),
            _ if self.digits == 0 => Err(Reject::BadChunkSize),
            b'\r' => Ok(State::SizeLf),
            b';' => self.extension(byte),
            _ => Err(Reject::BadChunkSize),
        }
    }

    /// What an extension says matters to nobody; what it must not do is end a line for someone else.
    fn extension(&mut self, byte: u8) -> Result<State, Reject> {
        match byte {
            b'\r' => return Ok(State::SizeLf),
            b'\n' => return Err(Reject::BareLf),
            b'\t' | b' '..=b'~' => {}
            _ => return Err(Reject::BadChunkExtension),
        }
        let left = self.extensions_left.checked_sub(1);
        self.extensions_left = left.ok_or(Reject::ChunkExtensionsTooLong)?;
        Ok(State::Extension)
    }

    /// Takes a trailer line, or as much of it as is there; gives how many bytes.
    fn trailer(&mut self, bytes: &[u8]) -> Result<usize, Reject> {
        let line_end = memchr::memchr(b'\n', bytes).map(|lf| lf + 1);
        let length = line_end.unwrap_or(bytes.len());
        match u32::try_from(length) {
            Ok(length) if length <= self.trailers_left => self.trailers_left -= length,
            _ => return Err(Reject::TrailersTooLarge),
        }
        self.trailers.extend_from_slice(&bytes[..length]);
        if line_end.is_some() {
            self.keep_line()?;
            self.state = State::TrailerStart;
        }
        Ok(length)
    }

    /// Brings the line behind the finished ones to its one form, or drops it.
    fn keep_line(&mut self) -> Result<(), Reject> {
        let start = self.trailers_kept as usize;
        let line = &self.trailers[start..];
        let field = parse::parse_line(line)?;
        if is_forbidden(line, &field) {
            self.trailers.truncate(start);
            return Ok(());
        }
        let value = field.value.of(line).to_vec();
        self.trailers.truncate(start + field.name.end as usize);
        self.trailers.extend_from_slice(b": ");
        self.trailers.extend_from_slice(&value);
        self.trailers.extend_from_slice(b"\r\n");
        self.trailers_kept = self.trailers.len() as u32;
        Ok(())
    }
}

/// Whether a field must not stand in trailers: it frames, routes, authenticates, modifies the request or says how the content is to
/// be read (RFC 9110 section 6.5.1). Well-known fields are forbidden but for a few; of the others, families are.
fn is_forbidden(line: &[u8], field: &Field) -> bool {
    const FAMILIES: [&[u8]; 6] = [b"accept-", b"content-", b"if-", b"proxy-", b"www-", b"x-forwarded-"];
    let name = field.name.of(line);
    let is = |other: &[u8]| name.eq_ignore_ascii_case(other);
    match field.id {
        FieldName::Date | FieldName::Etag | FieldName::Server => false,
        // Digests are what trailers are for (RFC 9530 section 2).
        FieldName::Other if is(b"content-digest") || is(b"content-md5") => false,
        FieldName::Other => {
            let begins = |family: &&[u8]| name.get(..family.len()).is_some_and(|b| b.eq_ignore_ascii_case(family));
            FAMILIES.iter().any(begins)
        }
        _ => true,
    }
}

/// Writes the line before a chunk of `length` bytes, which must not be 0: that would end the body. Behind the chunk stands CRLF.
pub fn write_chunk_head(out: &mut Vec<u8>, length: usize) {
    debug_assert!(length > 0);
    let digits = (usize::BITS - length.leading_zeros()).div_ceil(4).max(1);
    for place in (0..digits).rev() {
        out.push(b"0123456789abcdef"[length >> (place * 4) & 15]);
    }
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests;
