//! Addresses as xDS writes them.

use super::rejection::Place;
use super::{Name, Work};
use api::envoy_types::pb::envoy::config::core::v3::{Address, SocketAddress, address, socket_address};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

/// The longest path of a unix socket: `sun_path` without its last byte (unix(7)).
const UNIX_PATH_BYTES: usize = 107;

/// What an address says.
pub(super) enum Read {
    Known(balance::Address),
    Name(Name),
}

/// Reads an address that may be a name.
pub(super) fn read(work: &mut Work<'_>, place: &Place, message: Option<&Address>) -> Option<Read> {
    match message.and_then(|message| message.address.as_ref()) {
        Some(address::Address::SocketAddress(socket)) => socket_address(work, &place.field("socket_address"), socket),
        Some(address::Address::Pipe(pipe)) => {
            let place = place.field("pipe.path");
            let path = &pipe.path;
            if path.is_empty() || path.len() > UNIX_PATH_BYTES || path.contains('\0') {
                work.refuse(&place, format!("must have 1 to {UNIX_PATH_BYTES} bytes and no NUL"));
                return None;
            }
            Some(Read::Known(balance::Address::Unix(Path::new(path).into())))
        }
        Some(address::Address::EnvoyInternalAddress(_)) => {
            work.refuse(&place.field("envoy_internal_address"), "is not supported");
            None
        }
        None => {
            work.refuse(place, "must be given");
            None
        }
    }
}

/// Reads an address that must not be a name.
pub(super) fn read_known(work: &mut Work<'_>, place: &Place, message: Option<&Address>) -> Option<balance::Address> {
    match read(work, place, message)? {
        Read::Known(address) => Some(address),
        Read::Name(name) => {
            work.refuse(place, format!("{} is not an IP address", name.host));
            None
        }
    }
}

fn socket_address(work: &mut Work<'_>, place: &Place, message: &SocketAddress) -> Option<Read> {
    if message.protocol != socket_address::Protocol::Tcp as i32 {
        work.refuse(&place.field("protocol"), "must be TCP");
        return None;
    }
    let rest = SocketAddress {
        address: String::new(),
        port_specifier: None,
        ipv4_compat: false,
        protocol: 0,
        ..message.clone()
    };
    work.refuse_rest(place, &rest);
    let port = match message.port_specifier {
        Some(socket_address::PortSpecifier::PortValue(port)) => u16::try_from(port).ok().filter(|port| *port > 0),
        _ => None,
    };
    let Some(port) = port else {
        work.refuse(&place.field("port_value"), "must be 1 to 65535");
        return None;
    };
    if let Ok(ip) = message.address.parse::<IpAddr>() {
        return Some(Read::Known(balance::Address::Ip(SocketAddr::new(ip, port))));
    }
    match host_name(&message.address) {
        Some(host) => Some(Read::Name(Name { host, port })),
        None => {
            work.refuse(&place.field("address"), "must be an IP address or a DNS name");
            None
        }
    }
}

/// A DNS name in lower case, without its last dot (RFC 1035 section 2.3.4: at most 253 bytes in labels of 1 to 63).
fn host_name(text: &str) -> Option<Box<str>> {
    let name = text.strip_suffix('.').unwrap_or(text);
    let byte = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    let label = |label: &str| (1..=63).contains(&label.len()) && label.bytes().all(byte);
    (name.len() <= 253 && name.split('.').all(label)).then(|| name.to_ascii_lowercase().into())
}
