//! Ports that nobody uses.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Below the ports that the kernel gives to connections (`ip_local_port_range`, from 32768): what is free stays free.
const FIRST: u32 = 10_000;
const COUNT: u32 = 22_000;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A TCP port that is free on IPv4 and IPv6; never the same one twice in a process.
///
/// # Panics
/// No port is free.
pub fn free_port() -> u16 {
    let start = std::process::id().wrapping_mul(7919) % COUNT;
    for _ in 0..COUNT {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = (FIRST + (start + step) % COUNT) as u16;
        let free = |address: &str| TcpListener::bind((address, port)).is_ok();
        if free("0.0.0.0") && (free("::") || !has_ipv6()) {
            return port;
        }
    }
    panic!("no free port");
}

fn has_ipv6() -> bool {
    TcpListener::bind("[::1]:0").is_ok()
}

/// A listener that answers no connect any more: its backlog is full of connections whose clients are gone, so the
/// kernel drops further SYNs. Drop it to be rid of it.
///
/// # Panics
/// It cannot be filled.
pub fn black_hole() -> (TcpListener, SocketAddr) {
    // One at a time: filling takes a few thousand local ports for a minute.
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock();
    let listener = TcpListener::bind(("127.0.0.1", free_port())).expect("bind");
    let address = listener.local_addr().expect("address");
    for _ in 0..20_000 {
        if TcpStream::connect_timeout(&address, Duration::from_millis(200)).is_err() {
            return (listener, address);
        }
    }
    panic!("the backlog of {address} has no end");
}
