//! Sockets as plain system calls: for binding and closing, off the request path.

use super::Address;
use crate::listener::Bound;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// Connections that the kernel holds for us before it refuses (it cuts this to `net.core.somaxconn`).
const BACKLOG: i32 = 4096;

/// Binds and listens: `count` sockets of one address, one a core, among which the kernel spreads connections. A unix
/// socket is one, which all cores accept from.
///
/// # Errors
/// The address is taken by somebody else, or cannot be bound here.
pub fn bind(address: &Address, count: usize) -> io::Result<Vec<Bound>> {
    if let Some(path) = address.path() {
        remove_stale(&path, address)?;
        let socket = listen(address, false)?;
        return (0..count).map(|_| socket.try_clone().map(Bound::Descriptor)).collect();
    }
    // With SO_REUSEPORT a second owner would share the port unseen; without it the kernel refuses.
    let trial = listen(address, false)?;
    let bound = Address::filled(|to, length| {
        // SAFETY: the kernel writes an address of at most the length given.
        unsafe { libc::getsockname(trial.as_raw_fd(), to, length) }
    })
    .ok_or_else(io::Error::last_os_error)?;
    drop(trial);
    (0..count).map(|_| listen(&bound, true).map(Bound::Descriptor)).collect()
}

/// A second handle of the same listening socket, for another core or a later plan.
///
/// # Errors
/// No descriptors are left.
pub fn share(bound: &Bound) -> io::Result<Bound> {
    Ok(match bound {
        Bound::Descriptor(fd) => Bound::Descriptor(fd.try_clone()?),
        Bound::Simulated(address) => Bound::Simulated(address.clone()),
    })
}

/// How many descriptors the process may have; raised to the hard limit.
pub fn descriptor_limit() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the calls read and write the struct given.
    unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit);
        if limit.rlim_cur < limit.rlim_max {
            let raised = libc::rlimit { rlim_cur: limit.rlim_max, ..limit };
            if libc::setrlimit(libc::RLIMIT_NOFILE, &raw const raised) == 0 {
                limit = raised;
            }
        }
    }
    limit.rlim_cur
}

fn listen(address: &Address, reuse_port: bool) -> io::Result<OwnedFd> {
    let socket = stream_socket(address)?;
    let fd = socket.as_raw_fd();
    if address.family() != libc::AF_UNIX {
        option(fd, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
        if reuse_port {
            option(fd, libc::SOL_SOCKET, libc::SO_REUSEPORT, 1)?;
        }
        if address.family() == libc::AF_INET6 {
            option(fd, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 1)?;
        }
    }
    let (pointer, length) = address.raw();
    // SAFETY: the address is valid for its length.
    check(unsafe { libc::bind(fd, pointer, length) })?;
    // SAFETY: a plain call on our descriptor.
    check(unsafe { libc::listen(fd, BACKLOG) })?;
    Ok(socket)
}

/// A file of a unix socket that nobody listens on any more is removed.
fn remove_stale(path: &std::path::Path, address: &Address) -> io::Result<()> {
    use std::os::unix::fs::FileTypeExt;
    let Ok(metadata) = std::fs::symlink_metadata(path) else { return Ok(()) };
    if !metadata.file_type().is_socket() {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "the path exists and is no socket"));
    }
    let probe = stream_socket(address)?;
    let (pointer, length) = address.raw();
    // SAFETY: the address is valid for its length.
    if unsafe { libc::connect(probe.as_raw_fd(), pointer, length) } == 0 {
        return Err(io::Error::from_raw_os_error(libc::EADDRINUSE));
    }
    match io::Error::last_os_error().raw_os_error() {
        Some(libc::ECONNREFUSED) => std::fs::remove_file(path),
        // Its backlog is full: somebody listens.
        _ => Err(io::Error::from_raw_os_error(libc::EADDRINUSE)),
    }
}

/// A stream socket of the address's family, with TCP_NODELAY (accepted sockets inherit it).
pub(crate) fn stream_socket(address: &Address) -> io::Result<OwnedFd> {
    // SAFETY: a plain call.
    let fd = check(unsafe { libc::socket(address.family(), libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) })?;
    // SAFETY: the descriptor is new and ours.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    if address.family() != libc::AF_UNIX {
        option(fd, libc::IPPROTO_TCP, libc::TCP_NODELAY, 1)?;
    }
    Ok(socket)
}

pub(crate) fn shutdown_write(fd: i32) {
    // SAFETY: a plain call on our descriptor; that the peer is gone already does not matter.
    unsafe { libc::shutdown(fd, libc::SHUT_WR) };
}

/// Whether the kernel holds back connections until their first bytes are there (TCP_DEFER_ACCEPT; a connection that
/// stays silent is handed over after about a second).
pub(crate) fn defer_accept(fd: i32, defer: bool) {
    // A unix socket has no such option, and needs none.
    let _ = option(fd, libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, defer.into());
}

pub(crate) fn reset_on_close(fd: i32) {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    // SAFETY: the option's value is read from the struct given.
    unsafe {
        libc::setsockopt(
            fd,
            libc::SOL_SOCKET,
            libc::SO_LINGER,
            (&raw const linger).cast(),
            size_of::<libc::linger>() as libc::socklen_t,
        )
    };
}

pub(crate) fn peer(fd: i32) -> Option<Address> {
    // SAFETY: the kernel writes an address of at most the length given.
    Address::filled(|to, length| unsafe { libc::getpeername(fd, to, length) })
}

pub(crate) fn local(fd: i32) -> Option<Address> {
    // SAFETY: the kernel writes an address of at most the length given.
    Address::filled(|to, length| unsafe { libc::getsockname(fd, to, length) })
}

fn option(fd: i32, level: i32, name: i32, value: i32) -> io::Result<()> {
    // SAFETY: the option's value is read from the int given.
    let result =
        unsafe { libc::setsockopt(fd, level, name, (&raw const value).cast(), size_of::<i32>() as libc::socklen_t) };
    check(result).map(drop)
}

fn check(result: i32) -> io::Result<i32> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
