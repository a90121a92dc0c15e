//! The PROXY header, which tells at the front of a connection whose connection it really is. By HAProxy's
//! `proxy-protocol.txt` of 2020/03/05; the sections named here are its.
//!
//! ```text
//! version 1   PROXY TCP4 192.0.2.1 192.0.2.2 56324 443 CRLF     (section 2.1)
//! version 2   signature 12 │ 2 command │ family transport │ length 2 │ addresses and ports │ TLVs     (section 2.2)
//! ```
//!
//! Whoever reads it must know that the other end is one that may say so, and that the header is there: there is no guessing.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The longest version 1 header, its CRLF included (section 2.1).
pub const MOST_V1_BYTES: usize = 107;
/// The longest version 2 header that is read. Senders keep to 536 bytes so that one segment holds it (section 2); with
/// a certificate's names and what cloud providers add it can be longer.
pub const MOST_V2_BYTES: usize = 4096;

const V1: &[u8] = b"PROXY ";
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Bytes of a version 2 header before its addresses.
const V2_HEAD: usize = 16;
const LOCAL: u8 = 0;
const PROXY: u8 = 1;
const UNSPECIFIED: u8 = 0;
const IPV4: u8 = 1;
const IPV6: u8 = 2;
const UNIX: u8 = 3;
const STREAM: u8 = 1;
const DATAGRAM: u8 = 2;
/// Bytes of two addresses with their ports; of two paths.
const IPV4_BYTES: usize = 12;
const IPV6_BYTES: usize = 36;
const UNIX_BYTES: usize = 216;

/// Why a connection that must begin with a PROXY header is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reject {
    /// It begins with something else.
    NotProxy,
    /// Longer than any header is.
    TooLong,
    /// A version 1 line that is not exactly as section 2.1 says.
    BadLine,
    /// The signature of version 2 with another version or an unknown command.
    BadCommand,
    /// An address family or transport that section 2.2 does not know.
    BadFamily,
    /// A version 2 length that the addresses, or the TLVs behind them, do not fit.
    BadLength,
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
            Reject::NotProxy => ("not_proxy", "no PROXY header"),
            Reject::TooLong => ("too_long", "PROXY header too long"),
            Reject::BadLine => ("bad_line", "malformed PROXY line"),
            Reject::BadCommand => ("bad_command", "PROXY header of an unknown version or command"),
            Reject::BadFamily => ("bad_family", "PROXY header of an unknown address family"),
            Reject::BadLength => ("bad_length", "PROXY header with a length that does not fit"),
        }
    }
}

impl fmt::Display for Reject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

impl std::error::Error for Reject {}

/// What a PROXY header says. Without addresses (`LOCAL`, `UNKNOWN`, unix sockets, datagrams) the connection's own hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Bytes that it takes; the connection's own follow.
    pub consumed: usize,
    /// The client. IPv4 addresses mapped into IPv6 are told as IPv4, so that rules about one see the other.
    pub source: Option<SocketAddr>,
    /// Whom the client connected to; there if and only if `source` is.
    pub destination: Option<SocketAddr>,
}

impl Header {
    fn without_addresses(consumed: usize) -> Header {
        Header { consumed, source: None, destination: None }
    }

    fn new(consumed: usize, [source, destination]: [IpAddr; 2], ports: [u16; 2]) -> Header {
        let address = |ip: IpAddr, port| Some(SocketAddr::new(ip.to_canonical(), port));
        Header { consumed, source: address(source, ports[0]), destination: address(destination, ports[1]) }
    }
}

/// Reads a header of either version from the front of `bytes`. `None`: more are needed. A part is never refused for other
/// reasons than the whole is; what cannot become a header is refused at the first byte that shows it. A call looks at
/// [`MOST_V1_BYTES`] bytes at most, or at the head of a version 2 header until that is there whole.
///
/// # Errors
/// There is no header that may be believed: the connection is to be closed.
pub fn read(bytes: &[u8]) -> Result<Option<Header>, Reject> {
    let begins = |with: &[u8]| bytes.iter().zip(with).all(|(byte, expected)| byte == expected);
    match () {
        () if begins(V1) && bytes.len() < V1.len() => Ok(None),
        () if begins(V1) => read_v1(bytes),
        () if begins(V2) => read_v2(bytes),
        () => Err(Reject::NotProxy),
    }
}

/// One line (section 2.1). Nothing of it means anything until its end is there.
fn read_v1(bytes: &[u8]) -> Result<Option<Header>, Reject> {
    let window = &bytes[..bytes.len().min(MOST_V1_BYTES)];
    let end = window.iter().position(|byte| matches!(byte, b'\r' | b'\n'));
    let line = match end {
        Some(end) if end + 1 == MOST_V1_BYTES => return Err(Reject::TooLong),
        Some(end) if window[end] == b'\n' => return Err(Reject::BadLine),
        Some(end) => match window.get(end + 1) {
            Some(b'\n') => &window[V1.len()..end],
            Some(_) => return Err(Reject::BadLine),
            None => return Ok(None),
        },
        None if window.len() == MOST_V1_BYTES => return Err(Reject::TooLong),
        None => return Ok(None),
    };
    let consumed = V1.len() + line.len() + 2;
    if let Some(rest) = line.strip_prefix(b"UNKNOWN")
        && matches!(rest, [] | [b' ', ..])
    {
        return Ok(Some(Header::without_addresses(consumed)));
    }
    let words = std::str::from_utf8(line).ok().and_then(|line| {
        let mut words = line.split(' ');
        let five = [words.next()?, words.next()?, words.next()?, words.next()?, words.next()?];
        words.next().is_none().then_some(five)
    });
    let Some([family, source, destination, source_port, destination_port]) = words else {
        return Err(Reject::BadLine);
    };
    let address = |text: &str| -> Option<IpAddr> {
        match family {
            "TCP4" => text.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
            // Those with dots in them are what inet_ntop writes for IPv4.
            "TCP6" => text.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
            _ => None,
        }
    };
    let addresses = address(source).zip(address(destination));
    match addresses.zip(port(source_port).zip(port(destination_port))) {
        Some(((source, destination), ports)) => Ok(Some(Header::new(consumed, [source, destination], ports.into()))),
        None => Err(Reject::BadLine),
    }
}

/// Decimal digits without zeros in front.
fn port(text: &str) -> Option<u16> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| is_number)
}

/// The binary form (section 2.2).
fn read_v2(bytes: &[u8]) -> Result<Option<Header>, Reject> {
    let command = match bytes.get(12) {
        None => return Ok(None),
        Some(byte) if byte >> 4 == 2 && matches!(byte & 15, LOCAL | PROXY) => byte & 15,
        Some(_) => return Err(Reject::BadCommand),
    };
    let (family, transport) = match bytes.get(13) {
        None => return Ok(None),
        // Of a local connection all that follows is to be skipped, its family included.
        Some(_) if command == LOCAL => (UNSPECIFIED, UNSPECIFIED),
        Some(byte) if byte >> 4 <= UNIX && byte & 15 <= DATAGRAM => (byte >> 4, byte & 15),
        Some(_) => return Err(Reject::BadFamily),
    };
    let Some(&[high, low]) = bytes.get(14..V2_HEAD) else {
        return Ok(None);
    };
    let length = usize::from(u16::from_be_bytes([high, low]));
    let address_bytes = match family {
        _ if transport == UNSPECIFIED => 0,
        IPV4 => IPV4_BYTES,
        IPV6 => IPV6_BYTES,
        UNIX => UNIX_BYTES,
        _ => 0,
    };
    match () {
        () if length < address_bytes => return Err(Reject::BadLength),
        () if V2_HEAD + length > MOST_V2_BYTES => return Err(Reject::TooLong),
        () => {}
    }
    let Some(block) = bytes.get(V2_HEAD..V2_HEAD + length) else {
        return Ok(None);
    };
    let (addresses, tlvs) = block.split_at(address_bytes);
    // Without addresses nobody says where TLVs begin.
    if address_bytes > 0 {
        skip_tlvs(tlvs)?;
    }
    let consumed = V2_HEAD + length;
    let header = match (addresses.as_chunks::<4>().0, addresses.as_chunks::<16>().0) {
        _ if transport != STREAM => None,
        (&[source, destination, ports], _) if family == IPV4 => {
            Some(Header::new(consumed, [source.into(), destination.into()], split(ports)))
        }
        (&[.., ports], &[source, destination]) if family == IPV6 => {
            Some(Header::new(consumed, [source.into(), destination.into()], split(ports)))
        }
        _ => None,
    };
    Ok(Some(header.unwrap_or(Header::without_addresses(consumed))))
}

/// Two ports.
fn split([a, b, c, d]: [u8; 4]) -> [u16; 2] {
    [u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])]
}

/// Type, length of two bytes, value; nothing left over. A header that does not add up is not believed.
fn skip_tlvs(mut tlvs: &[u8]) -> Result<(), Reject> {
    while let [_, high, low, rest @ ..] = tlvs {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        tlvs = rest.get(length..).ok_or(Reject::BadLength)?;
    }
    if tlvs.is_empty() { Ok(()) } else { Err(Reject::BadLength) }
}

/// Puts a version 1 header behind `out`. Without both addresses it is `UNKNOWN`, which some receivers refuse. An IPv4 address
/// beside an IPv6 one is written as the IPv6 address that stands for it.
pub fn write_v1(out: &mut Vec<u8>, source: Option<SocketAddr>, destination: Option<SocketAddr>) {
    let Some((source, destination)) = source.zip(destination) else {
        out.extend_from_slice(b"PROXY UNKNOWN\r\n");
        return;
    };
    let ports = (source.port(), destination.port());
    let line = match common(source, destination) {
        Common::V4(source, destination) => format!("PROXY TCP4 {source} {destination} {} {}\r\n", ports.0, ports.1),
        Common::V6(source, destination) => {
            format!("PROXY TCP6 {} {} {} {}\r\n", hexadecimal(source), hexadecimal(destination), ports.0, ports.1)
        }
    };
    out.extend_from_slice(line.as_bytes());
}

/// Puts a version 2 header behind `out`. Without both addresses it is `LOCAL`, which every receiver must accept (section
/// 2.2) and which sends it to the connection's own addresses.
pub fn write_v2(out: &mut Vec<u8>, source: Option<SocketAddr>, destination: Option<SocketAddr>) {
    let mut head = |command: u8, family: u8, transport: u8, length: usize| {
        out.extend_from_slice(V2);
        out.extend_from_slice(&[2 << 4 | command, family << 4 | transport, 0, length as u8]);
    };
    let Some((source, destination)) = source.zip(destination) else {
        head(LOCAL, UNSPECIFIED, UNSPECIFIED, 0);
        return;
    };
    match common(source, destination) {
        Common::V4(source, destination) => {
            head(PROXY, IPV4, STREAM, IPV4_BYTES);
            out.extend_from_slice(&source.octets());
            out.extend_from_slice(&destination.octets());
        }
        Common::V6(source, destination) => {
            head(PROXY, IPV6, STREAM, IPV6_BYTES);
            out.extend_from_slice(&source.octets());
            out.extend_from_slice(&destination.octets());
        }
    }
    out.extend_from_slice(&source.port().to_be_bytes());
    out.extend_from_slice(&destination.port().to_be_bytes());
}

/// Two addresses of one family: a header has no other.
enum Common {
    V4(Ipv4Addr, Ipv4Addr),
    V6(Ipv6Addr, Ipv6Addr),
}

fn common(source: SocketAddr, destination: SocketAddr) -> Common {
    let mapped = |ip| match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    match (source.ip().to_canonical(), destination.ip().to_canonical()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => Common::V4(source, destination),
        (source, destination) => Common::V6(mapped(source), mapped(destination)),
    }
}

/// An address as section 2.1 wants it: hexadecimal groups alone, where others write IPv4 in its end with dots.
fn hexadecimal(address: Ipv6Addr) -> String {
    match address.segments() {
        [0, 0, 0, 0, 0, 0xffff, high, low] => format!("::ffff:{high:x}:{low:x}"),
        _ => address.to_string(),
    }
}

#[cfg(test)]
mod tests;
