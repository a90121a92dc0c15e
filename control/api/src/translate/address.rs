//! Addresses as xDS writes them: a socket address, or a pipe for the path of a unix socket.

use envoy_types::pb::envoy::config::core::v3::{
    self as core, Pipe, SocketAddress, address::Address as Kind, socket_address::PortSpecifier,
};

use crate::model::{Address, DnsName};

/// An address of the model.
pub(crate) fn write(address: &Address) -> core::Address {
    match address {
        Address::Socket(socket) => host_and_port(socket.ip().to_string(), socket.port()),
        Address::Unix(path) => core::Address { address: Some(Kind::Pipe(Pipe { path: path.clone(), mode: 0 })) },
    }
}

/// A DNS name, in the place where xDS has addresses.
pub(super) fn write_name(to: &DnsName) -> core::Address {
    host_and_port(to.name.clone(), to.port)
}

/// Reads an address back.
///
/// # Errors
/// A kind of address that the model does not have, a name in place of an IP address, or a port that is none.
pub fn read(address: &core::Address) -> Result<Address, String> {
    match &address.address {
        Some(Kind::Pipe(pipe)) => Ok(Address::Unix(pipe.path.clone())),
        Some(Kind::SocketAddress(socket)) => {
            let ip = socket.address.parse().map_err(|_| format!("{} is no IP address", socket.address))?;
            let Some(PortSpecifier::PortValue(port)) = socket.port_specifier else {
                return Err("a port number is wanted".to_owned());
            };
            let port = u16::try_from(port).map_err(|_| format!("{port} is no port"))?;
            Ok(Address::Socket(std::net::SocketAddr::new(ip, port)))
        }
        _ => Err("a socket address or a pipe is wanted".to_owned()),
    }
}

fn host_and_port(host: String, port: u16) -> core::Address {
    let socket = SocketAddress {
        address: host,
        port_specifier: Some(PortSpecifier::PortValue(u32::from(port))),
        ..SocketAddress::default()
    };
    core::Address { address: Some(Kind::SocketAddress(socket)) }
}
