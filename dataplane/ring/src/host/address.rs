//! Socket addresses in the kernel's form.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

/// Where to connect to or listen: an IP address with a port, or a unix socket's path.
#[derive(Clone)]
pub struct Address {
    storage: libc::sockaddr_storage,
    length: libc::socklen_t,
}

impl Address {
    /// A unix socket. `None` when the path does not fit into an address (107 bytes).
    pub fn unix(path: &Path) -> Option<Address> {
        let bytes = path.as_os_str().as_encoded_bytes();
        // SAFETY: all zeros is a valid sockaddr_storage.
        let mut storage: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
        // SAFETY: sockaddr_storage is large enough and aligned for every kind of address.
        let unix = unsafe { &mut *(&raw mut storage).cast::<libc::sockaddr_un>() };
        if bytes.is_empty() || bytes.len() >= unix.sun_path.len() || bytes.contains(&0) {
            return None;
        }
        unix.sun_family = libc::AF_UNIX as _;
        for (to, from) in unix.sun_path.iter_mut().zip(bytes) {
            *to = *from as _;
        }
        let length = std::mem::offset_of!(libc::sockaddr_un, sun_path) + bytes.len() + 1;
        Some(Address { storage, length: length as _ })
    }

    /// The IP address and port, when it is one.
    pub fn ip(&self) -> Option<SocketAddr> {
        let pointer = &raw const self.storage;
        match i32::from(self.storage.ss_family) {
            libc::AF_INET => {
                // SAFETY: the family says what it is.
                let v4 = unsafe { &*pointer.cast::<libc::sockaddr_in>() };
                let ip = Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr));
                Some(SocketAddr::new(IpAddr::V4(ip), u16::from_be(v4.sin_port)))
            }
            libc::AF_INET6 => {
                // SAFETY: the family says what it is.
                let v6 = unsafe { &*pointer.cast::<libc::sockaddr_in6>() };
                let ip = Ipv6Addr::from(v6.sin6_addr.s6_addr);
                Some(SocketAddr::new(IpAddr::V6(ip), u16::from_be(v6.sin6_port)))
            }
            _ => None,
        }
    }

    /// The unix socket's path, when it is one.
    pub fn path(&self) -> Option<PathBuf> {
        if i32::from(self.storage.ss_family) != libc::AF_UNIX {
            return None;
        }
        // SAFETY: the family says what it is.
        let unix = unsafe { &*(&raw const self.storage).cast::<libc::sockaddr_un>() };
        let bytes: Vec<u8> = unix.sun_path.iter().take_while(|byte| **byte != 0).map(|byte| *byte as u8).collect();
        String::from_utf8(bytes).ok().map(PathBuf::from)
    }

    pub(crate) fn family(&self) -> i32 {
        i32::from(self.storage.ss_family)
    }

    pub(crate) fn raw(&self) -> (*const libc::sockaddr, libc::socklen_t) {
        ((&raw const self.storage).cast(), self.length)
    }

    /// An address that the kernel filled in.
    pub(crate) fn filled(fill: impl FnOnce(*mut libc::sockaddr, *mut libc::socklen_t) -> i32) -> Option<Address> {
        // SAFETY: all zeros is a valid sockaddr_storage.
        let mut storage: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
        let mut length = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
        (fill((&raw mut storage).cast(), &raw mut length) == 0).then_some(Address { storage, length })
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Address {
        // SAFETY: all zeros is a valid sockaddr_storage.
        let mut storage: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
        let pointer = &raw mut storage;
        let length = match address {
            SocketAddr::V4(v4) => {
                // SAFETY: sockaddr_storage is large enough and aligned for every kind of address.
                let to = unsafe { &mut *pointer.cast::<libc::sockaddr_in>() };
                to.sin_family = libc::AF_INET as _;
                to.sin_port = v4.port().to_be();
                to.sin_addr.s_addr = u32::from(*v4.ip()).to_be();
                size_of::<libc::sockaddr_in>()
            }
            SocketAddr::V6(v6) => {
                // SAFETY: as above.
                let to = unsafe { &mut *pointer.cast::<libc::sockaddr_in6>() };
                to.sin6_family = libc::AF_INET6 as _;
                to.sin6_port = v6.port().to_be();
                to.sin6_addr.s6_addr = v6.ip().octets();
                to.sin6_scope_id = v6.scope_id();
                size_of::<libc::sockaddr_in6>()
            }
        };
        Address { storage, length: length as _ }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.ip(), self.path()) {
            (Some(ip), _) => write!(f, "{ip}"),
            (None, Some(path)) => write!(f, "unix:{}", path.display()),
            (None, None) => f.write_str("-"),
        }
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl PartialEq for Address {
    fn eq(&self, other: &Address) -> bool {
        self.ip() == other.ip() && self.path() == other.path()
    }
}

impl Eq for Address {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_survive_the_kernels_form() {
        for text in ["127.0.0.1:80", "[::1]:8443", "0.0.0.0:0"] {
            let address: SocketAddr = text.parse().unwrap();
            assert_eq!(Address::from(address).ip(), Some(address));
        }
        let unix = Address::unix(Path::new("/run/x.sock")).unwrap();
        assert_eq!(unix.path().as_deref(), Some(Path::new("/run/x.sock")));
        assert_eq!(unix.to_string(), "unix:/run/x.sock");
        assert_eq!(Address::unix(Path::new(&"x".repeat(108))), None);
    }
}
