//! The first message of a TLS connection, read for the name that it asks for; its bytes go on untouched.
//!
//! ```text
//! record   22  3 x  length  ┐                 RFC 8446 section 5.1: a message may span records,
//!          message 1: length, version, random, session, suites, compression, extensions ┐
//!                                             0: server_name    RFC 6066 section 3
//!                                            16: ALPN           RFC 7301 section 3.1
//! ```
//!
//! What a server would choke on is left to the server. What decides where the bytes go is read strictly, so that nobody
//! reads another name than we do: every length must fit, no extension may stand twice, the message ends with its record.

use std::fmt;

/// What a reader may usefully allow: twice what fits into one record. A hello with post-quantum keys and a ticket is 2 KiB.
pub const MOST_BYTES: usize = 32 * 1024;

/// Bytes before what a record carries (RFC 8446 section 5.1).
const RECORD_HEAD: usize = 5;
/// The most that a record carries in plaintext (RFC 8446 section 5.1).
const MOST_FRAGMENT: usize = 1 << 14;
/// Content types: change_cipher_spec to heartbeat.
const CONTENT_TYPES: std::ops::RangeInclusive<u8> = 20..=24;
const HANDSHAKE: u8 = 22;
/// Bytes before what a handshake message carries: its type and a length of three bytes (RFC 8446 section 4).
const MESSAGE_HEAD: usize = 4;
const CLIENT_HELLO: u8 = 1;
const SERVER_NAME: u16 = 0;
const ALPN: u16 = 16;
const HOST_NAME: u8 = 0;
/// The longest host name and label in text (RFC 1035 section 2.3.4).
const MOST_NAME: usize = 253;
const MOST_LABEL: usize = 63;

/// Why the bytes are no ClientHello that we let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reject {
    /// Not TLS at all: plaintext, or an SSL 2 hello.
    NotTls,
    /// TLS, but a record that no ClientHello has: another type, empty, too long, or longer than the message.
    BadRecord,
    /// A handshake message other than a ClientHello.
    NotClientHello,
    /// Longer than allowed, its records included.
    TooLarge,
    /// A length that does not fit, or an extension that stands twice (RFC 8446 sections 3.4, 4.1.2, 4.2).
    Malformed,
    /// Other than one name (RFC 6066 section 3).
    NotOneName,
    /// A name that is no host name: an address, a dot at its end, a character or a length that none has.
    BadName,
}

impl Reject {
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
            Reject::NotTls => ("not_tls", "no TLS: plaintext on a TLS port?"),
            Reject::BadRecord => ("bad_record", "a record that no ClientHello has"),
            Reject::NotClientHello => ("not_client_hello", "a handshake that begins with another message"),
            Reject::TooLarge => ("too_large", "ClientHello too large"),
            Reject::Malformed => ("malformed", "malformed ClientHello"),
            Reject::NotOneName => ("not_one_name", "server_name with other than one name"),
            Reject::BadName => ("bad_name", "server_name that is no host name"),
        }
    }
}

impl fmt::Display for Reject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

impl std::error::Error for Reject {}

/// What a ClientHello says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Bytes that it takes, its records included; what follows may be anything.
    pub length: usize,
    /// The host that the client asks for, lower-case, without a dot at its end.
    pub sni: Option<Box<str>>,
    /// The application protocols it offers.
    pub alpn: Alpn,
}

/// A checked list of application protocols, in the client's order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Alpn(Box<[u8]>);

impl Alpn {
    /// Their names, such as `h2`; none is empty.
    pub fn names(&self) -> impl Iterator<Item = &[u8]> {
        let mut list = Bytes(&self.0);
        std::iter::from_fn(move || list.list(1).ok().map(|name| name.0))
    }
}

/// Reads a ClientHello from the front of `bytes`, of which it may take `most`. `None`: more are needed. A part of a hello is
/// never refused for other reasons than the whole is.
///
/// Looks at each record's head again on every call, so at every sixth byte at worst: [`Reader`] is for those who call often.
///
/// # Errors
/// It is none, or one that is not let through; more bytes change nothing.
pub fn read(bytes: &[u8], most: usize) -> Result<Option<Hello>, Reject> {
    Reader::new(most).read(bytes)
}

/// Reads one ClientHello from bytes that become more. All calls together cost what one call with all of them does: records
/// seen whole are not looked at again until the last is there.
#[derive(Clone, Debug)]
pub struct Reader {
    most: usize,
    /// Where the first record begins that was not seen whole.
    at: usize,
    /// Bytes of the message in the records before it.
    gathered: usize,
    head: [u8; MESSAGE_HEAD],
}

impl Reader {
    /// For a hello of at most `most` bytes, its records included.
    pub fn new(most: usize) -> Reader {
        Reader { most, at: 0, gathered: 0, head: [0; MESSAGE_HEAD] }
    }

    /// Goes on reading. `bytes` are all that have arrived, from the first on.
    ///
    /// # Errors
    /// See [`read`].
    pub fn read(&mut self, bytes: &[u8]) -> Result<Option<Hello>, Reject> {
        loop {
            if self.gathered >= MESSAGE_HEAD && self.gathered == self.message_length() {
                return self.finish(bytes).map(Some);
            }
            let record = bytes.get(self.at..).unwrap_or_default();
            let Some(length) = self.fragment_length(record)? else {
                return Ok(None);
            };
            let fragment = &record[RECORD_HEAD..record.len().min(RECORD_HEAD + length)];
            self.look_at_head(fragment, length)?;
            if fragment.len() < length {
                return Ok(None);
            }
            self.gathered += length;
            self.at += RECORD_HEAD + length;
        }
    }

    /// What the record at the front of `record` carries, bytes.
    fn fragment_length(&self, record: &[u8]) -> Result<Option<usize>, Reject> {
        let is_first = self.at == 0;
        let foreign = if is_first { Reject::NotTls } else { Reject::BadRecord };
        if self.at + RECORD_HEAD > self.most {
            return Err(Reject::TooLarge);
        }
        match *record {
            // What its bytes must be is checked as soon as they are there; the minor version means nothing.
            [kind, ..] if !CONTENT_TYPES.contains(&kind) => return Err(foreign),
            [_, major, ..] if major != 3 => return Err(foreign),
            [kind, _, ..] if kind != HANDSHAKE => return Err(Reject::BadRecord),
            _ => {}
        }
        let [_, _, _, high, low, ..] = *record else {
            return Ok(None);
        };
        let length = usize::from(u16::from_be_bytes([high, low]));
        match length {
            0 => Err(Reject::BadRecord),
            _ if length > MOST_FRAGMENT => Err(Reject::BadRecord),
            _ if self.at + RECORD_HEAD + length > self.most => Err(Reject::TooLarge),
            _ => Ok(Some(length)),
        }
    }

    /// Checks what is there of the message's head. `fragment` is what is there of a record's `length` bytes.
    fn look_at_head(&mut self, fragment: &[u8], length: usize) -> Result<(), Reject> {
        let missing = self.head.get_mut(self.gathered..).unwrap_or_default();
        for (place, byte) in missing.iter_mut().zip(fragment) {
            *place = *byte;
        }
        let seen = self.gathered + fragment.len();
        if seen > 0 && self.head[0] != CLIENT_HELLO {
            return Err(Reject::NotClientHello);
        }
        if seen < MESSAGE_HEAD {
            return Ok(());
        }
        if RECORD_HEAD + self.message_length() > self.most {
            return Err(Reject::TooLarge);
        }
        // No message may follow in the record: the client waits for the server now (RFC 8446 section 2).
        if self.gathered + length > self.message_length() { Err(Reject::BadRecord) } else { Ok(()) }
    }

    /// With its head; meaningless until that is there.
    fn message_length(&self) -> usize {
        let [_, high, middle, low] = self.head;
        MESSAGE_HEAD + u32::from_be_bytes([0, high, middle, low]) as usize
    }

    /// All of it is there, in the first `self.at` bytes.
    fn finish(&self, bytes: &[u8]) -> Result<Hello, Reject> {
        let records = bytes.get(..self.at).unwrap_or_default();
        let in_one = records.len() == RECORD_HEAD + self.gathered;
        if in_one {
            return parse(&records[RECORD_HEAD + MESSAGE_HEAD..], self.at);
        }
        let mut message = Vec::with_capacity(self.gathered);
        let mut rest = Bytes(records);
        while !rest.0.is_empty() {
            rest.take(RECORD_HEAD - 2)?;
            message.extend_from_slice(rest.list(2)?.0);
        }
        parse(message.get(MESSAGE_HEAD..).unwrap_or_default(), self.at)
    }
}

/// The body of the message (RFC 8446 section 4.1.2; RFC 5246 section 7.4.1.2 where there are no extensions).
fn parse(body: &[u8], length: usize) -> Result<Hello, Reject> {
    let mut body = Bytes(body);
    let version = body.take(2)?;
    let _random = body.take(32)?;
    let session = body.list(1)?;
    let suites = body.list(2)?;
    let compression = body.list(1)?;
    let fits = session.0.len() <= 32 && suites.0.len() >= 2 && suites.0.len() % 2 == 0 && !compression.0.is_empty();
    if version[0] != 3 || !fits {
        return Err(Reject::Malformed);
    }
    let mut hello = Hello { length, sni: None, alpn: Alpn::default() };
    if body.0.is_empty() {
        return Ok(hello);
    }
    let mut extensions = body.list(2)?;
    if !body.0.is_empty() {
        return Err(Reject::Malformed);
    }
    let mut seen = Vec::with_capacity(32);
    while !extensions.0.is_empty() {
        let kind = extensions.number()?;
        let data = extensions.list(2)?;
        seen.push(kind);
        match kind {
            SERVER_NAME => hello.sni = Some(server_name(data)?),
            ALPN => hello.alpn = protocols(data)?,
            _ => {}
        }
    }
    seen.sort_unstable();
    if seen.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(Reject::Malformed);
    }
    Ok(hello)
}

/// The one host name in a list of names (RFC 6066 section 3). Names of other types never were.
fn server_name(mut data: Bytes<'_>) -> Result<Box<str>, Reject> {
    let mut list = data.list(2)?;
    if !data.0.is_empty() {
        return Err(Reject::Malformed);
    }
    if list.0.is_empty() {
        return Err(Reject::NotOneName);
    }
    let kind = list.take(1)?[0];
    let name = list.list(2)?;
    if kind != HOST_NAME || !list.0.is_empty() {
        return Err(Reject::NotOneName);
    }
    host_name(name.0)
}

/// Letters, digits, hyphens inside of labels, and the underscore that some names have against RFC 1123. A name that ends
/// with a number would be an address to somebody (RFC 6066 section 3 has none here).
fn host_name(name: &[u8]) -> Result<Box<str>, Reject> {
    let is_label = |label: &[u8]| {
        (1..=MOST_LABEL).contains(&label.len())
            && label.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
            && label[0] != b'-'
            && label[label.len() - 1] != b'-'
    };
    let is_number = |label: &[u8]| label.iter().all(u8::is_ascii_digit);
    let mut labels = name.split(|&byte| byte == b'.');
    let is_name = name.len() <= MOST_NAME
        && labels.clone().all(is_label)
        && labels.next_back().is_some_and(|label| !is_number(label));
    match std::str::from_utf8(name) {
        Ok(name) if is_name => Ok(name.to_ascii_lowercase().into()),
        _ => Err(Reject::BadName),
    }
}

/// The application protocols (RFC 7301 section 3.1): at least one, none empty.
fn protocols(mut data: Bytes<'_>) -> Result<Alpn, Reject> {
    let list = data.list(2)?;
    if list.0.is_empty() || !data.0.is_empty() {
        return Err(Reject::Malformed);
    }
    let mut names = list;
    while !names.0.is_empty() {
        if names.list(1)?.0.is_empty() {
            return Err(Reject::Malformed);
        }
    }
    Ok(Alpn(list.0.into()))
}

/// What is left to read of something.
#[derive(Clone, Copy)]
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Reject> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(Reject::Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    fn number(&mut self) -> Result<u16, Reject> {
        self.take(2).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    /// What follows a length of so many bytes.
    fn list(&mut self, length_bytes: usize) -> Result<Bytes<'a>, Reject> {
        let length = self.take(length_bytes)?.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
        self.take(length).map(Bytes)
    }
}

#[cfg(test)]
mod tests;
