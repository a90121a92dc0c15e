//! Addresses: where we listen, and where services are reached.

use std::{net::SocketAddr, path::Path};

use super::text;
use crate::{
    finding::{At, Findings, quoted},
    model::{Address, DnsName},
    tree::Node,
};

/// `sun_path` has 108 bytes with its end (unix(7)).
const MAX_UNIX_PATH: usize = 107;

/// Where to listen: `ip:port` or `unix:path`. Relative paths start at the file's directory.
pub(crate) fn listen_address(node: &Node, file: &str, findings: &mut Findings) -> Option<Address> {
    const FORM: &str = "an address is `ip:port`, `[ipv6]:port` or `unix:path`";
    let text = text(node, findings)?;
    if let Some(path) = text.strip_prefix("unix:") {
        return unix_path(path, file, node.at, findings).map(Address::Unix);
    }
    match text.parse::<SocketAddr>() {
        Ok(socket) if socket.port() != 0 => Some(Address::Socket(plain(socket))),
        Ok(_) => {
            findings.add(node.at, format!("port 0 in {}; a port is from 1 to 65535", quoted(text)));
            None
        }
        Err(_) => {
            let hint = hint(text);
            findings.add(node.at, format!("{FORM}, not {}{hint}", quoted(text)));
            None
        }
    }
}

/// The path of a unix socket, read relative to the file that names it.
fn unix_path(path: &str, file: &str, at: At, findings: &mut Findings) -> Option<String> {
    let path = relative_to(path, file);
    if path.is_empty() || path.contains('\0') || path.starts_with('@') {
        findings.add(at, "a unix socket has a path, such as `unix:/run/ringway.sock`");
        return None;
    }
    if path.len() > MAX_UNIX_PATH {
        findings.add(at, format!("the path of a unix socket has at most {MAX_UNIX_PATH} bytes, not {}", path.len()));
        return None;
    }
    Some(path)
}

/// The path of a file, read relative to the file that names it.
pub(crate) fn file_path(node: &Node, file: &str, findings: &mut Findings) -> Option<String> {
    let text = text(node, findings)?;
    if text.is_empty() || text.len() > 4095 || text.contains('\0') {
        findings.add(node.at, "a path of a file has 1 to 4095 bytes (PATH_MAX)");
        return None;
    }
    Some(relative_to(text, file))
}

/// Relative paths are relative to the file that names them.
fn relative_to(path: &str, file: &str) -> String {
    match Path::new(file).parent() {
        Some(directory) if !path.is_empty() && !path.starts_with('/') && directory != Path::new("") => {
            directory.join(path).to_string_lossy().into_owned()
        }
        _ => path.to_owned(),
    }
}

/// Where an endpoint is: the two kinds that a service may have.
pub(crate) enum EndpointAddress {
    Address(Address),
    Name(DnsName),
}

/// `ip:port`, `[ipv6]:port`, `name:port` or `unix:path`.
pub(crate) fn endpoint(node: &Node, file: &str, findings: &mut Findings) -> Option<EndpointAddress> {
    let text = text(node, findings)?;
    let wrong = |findings: &mut Findings| {
        let form = "an endpoint is `ip:port`, `[ipv6]:port`, `name:port` or `unix:path`";
        findings.add(node.at, format!("{form}, not {}{}", quoted(text), hint(text)));
        None
    };
    let numeric = |text: &str| text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    if text.starts_with("unix:") || text.parse::<SocketAddr>().is_ok() {
        return listen_address(node, file, findings).map(EndpointAddress::Address);
    }
    match text.rsplit_once(':') {
        Some((name, port)) if is_dns_name(name) && !numeric(name) => match port.parse::<u16>() {
            Ok(port) if port != 0 => Some(EndpointAddress::Name(DnsName { name: name.to_ascii_lowercase(), port })),
            _ => wrong(findings),
        },
        _ => wrong(findings),
    }
}

/// Labels of letters, digits, `-` and `_`, at most 63 bytes each and 253 together (RFC 1035, section 2.3.4).
pub(crate) fn is_dns_name(name: &str) -> bool {
    let label = |l: &str| {
        let fits = l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        (1..=63).contains(&l.len()) && fits && !l.starts_with('-') && !l.ends_with('-')
    };
    name.len() <= 253 && name.split('.').all(label)
}

/// Scope ids and flow labels of IPv6 do not travel in xDS.
fn plain(socket: SocketAddr) -> SocketAddr {
    SocketAddr::new(socket.ip(), socket.port())
}

fn hint(text: &str) -> &'static str {
    if text.contains("://") {
        "; leave out the scheme"
    } else if text.parse::<std::net::Ipv6Addr>().is_ok() {
        "; an IPv6 address stands in brackets, with a port behind"
    } else if text.parse::<std::net::Ipv4Addr>().is_ok() || is_dns_name(text) {
        "; the port is missing"
    } else if text.starts_with(':') {
        "; write `0.0.0.0` or `[::]` before the port for all addresses"
    } else {
        ""
    }
}
