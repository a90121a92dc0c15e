//! Who sent a request, as far as it can be known.

use crate::decide::Request;
use std::net::{IpAddr, SocketAddr};
use wire::h1::FieldName;

/// The other end of a client's connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Peer<'a> {
    /// The SPIFFE ID that its certificate proved.
    pub identity: Option<&'a str>,
    /// Its address: the PROXY header's source where the listener takes one, else the socket's. None on a unix socket.
    pub address: Option<IpAddr>,
    /// The socket's address, always.
    pub direct: Option<IpAddr>,
}

/// The client's address as far as proxies in front of us are trusted: with none, the peer's; with N, the Nth element of
/// `X-Forwarded-For` from the right, because each of them has appended what it saw. Fewer elements, or one that is no
/// address: the peer's.
pub fn source(request: &Request<'_>, trusted_hops: u32) -> Option<IpAddr> {
    let forwarded = match trusted_hops {
        0 => None,
        hops => nth_from_right(request, hops),
    };
    forwarded.or(request.peer.address).map(|address| address.to_canonical())
}

/// Several lines are one list (RFC 9110 section 5.3).
fn nth_from_right(request: &Request<'_>, hops: u32) -> Option<IpAddr> {
    let mut left = hops;
    let lines = request.fields.iter().rev().filter(|field| field.id == FieldName::XForwardedFor);
    for line in lines {
        for element in line.value.of(request.head).rsplit(|byte| *byte == b',') {
            left -= 1;
            if left == 0 {
                return address(element.trim_ascii());
            }
        }
    }
    None
}

/// An address, perhaps with a port, as some proxies write it.
fn address(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?;
    if let Ok(address) = text.parse() {
        return Some(address);
    }
    if let Some(inner) = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')) {
        return inner.parse().ok().map(IpAddr::V6);
    }
    text.parse::<SocketAddr>().ok().map(|socket| socket.ip())
}
