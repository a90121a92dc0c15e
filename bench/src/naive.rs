//! A straightforward HTTP/1.1 proxy on tokio-uring, written the way one writes it first: a task a connection, one
//! heap buffer a side, read then write, bodies copied. It stands in comparisons for "io_uring alone", without multishot receives,
//! provided buffers and batching. It is no product: no limits, no timeouts, little strictness, one upstream.
//!
//! tokio-uring 0.5 must not drop a read in flight (its buffer would be freed under the kernel): nothing here cancels one.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use clap::Args;
use tokio_uring::net::{TcpListener, TcpStream};

use crate::scan::{Event, Scan, Side};

/// Size of the one read buffer of each side.
const BUFFER: usize = 16 * 1024;

/// Arguments of `ringway-bench naive`.
#[derive(Debug, Args)]
pub(crate) struct Naive {
    /// Address to listen on
    listen: SocketAddr,
    /// Address to forward to
    upstream: SocketAddr,
}

/// Serves until killed.
pub(crate) fn run(naive: &Naive) -> io::Result<()> {
    tokio_uring::start(async {
        let listener = TcpListener::bind(naive.listen)?;
        let pool = Rc::new(Pool { upstream: naive.upstream, idle: RefCell::default() });
        loop {
            let (stream, peer) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let pool = pool.clone();
            tokio_uring::spawn(async move {
                // Whatever ends a connection here, there is nobody to tell.
                let _ = serve(Half::new(stream, Side::Requests), peer, &pool).await;
            });
        }
    })
}

/// Connections to the upstream that wait for work.
struct Pool {
    upstream: SocketAddr,
    idle: RefCell<Vec<Half>>,
}

impl Pool {
    async fn take(&self) -> io::Result<Half> {
        if let Some(half) = self.idle.borrow_mut().pop() {
            return Ok(half);
        }
        let stream = TcpStream::connect(self.upstream).await?;
        stream.set_nodelay(true)?;
        Ok(Half::new(stream, Side::Answers))
    }
}

/// One side: its stream, the reader of its messages, and its buffer, read up to `at`.
struct Half {
    stream: TcpStream,
    scan: Scan,
    buffer: Vec<u8>,
    at: usize,
}

impl Half {
    fn new(stream: TcpStream, side: Side) -> Half {
        Half { stream, scan: Scan::new(side), buffer: Vec::with_capacity(BUFFER), at: 0 }
    }

    /// Receives into the buffer, which has been read to its end; false when the peer closed.
    async fn fill(&mut self) -> io::Result<bool> {
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        self.at = 0;
        let (count, buffer) = self.stream.read(buffer).await;
        self.buffer = buffer;
        Ok(count? > 0)
    }
}

async fn serve(mut client: Half, peer: SocketAddr, pool: &Pool) -> io::Result<()> {
    let forwarded = format!("x-forwarded-for: {}\r\nx-forwarded-proto: http\r\nvia: 1.1 naive\r\n", peer.ip());
    let mut number = 0u64;
    loop {
        let request_id = format!("{forwarded}x-request-id: {:016x}-{number:x}\r\n", peer.port());
        number += 1;
        if client.at == client.buffer.len() && !client.fill().await? {
            return Ok(());
        }
        let mut upstream = pool.take().await?;
        let request = pass(&mut client, &upstream.stream, &request_id).await?;
        upstream.scan.bodyless = request.head;
        let answer = pass(&mut upstream, &client.stream, "via: 1.1 naive\r\n").await?;
        if !answer.close {
            pool.idle.borrow_mut().push(upstream);
        }
        if request.close || answer.until_close {
            client.stream.shutdown(std::net::Shutdown::Write)?;
            return Ok(());
        }
    }
}

/// What one message said about its connection.
#[derive(Default)]
struct Passed {
    close: bool,
    until_close: bool,
    head: bool,
}

/// Passes one message on, with fields added to its head.
async fn pass(from: &mut Half, to: &TcpStream, fields: &str) -> io::Result<Passed> {
    let mut passed = Passed::default();
    let mut chunked = false;
    loop {
        let mut out = Vec::new();
        let mut ended = false;
        let mut input = &from.buffer[from.at..];
        while !ended && let Some(event) = from.scan.next(&mut input).map_err(io::Error::other)? {
            match event {
                Event::Head(head) => {
                    passed.close |= head.close;
                    passed.head = head.method() == b"HEAD";
                    chunked = head.chunked;
                    edit(head.bytes, fields, &mut out);
                }
                Event::Body(part) if chunked => {
                    out.extend_from_slice(format!("{:x}\r\n", part.len()).as_bytes());
                    out.extend_from_slice(part);
                    out.extend_from_slice(b"\r\n");
                }
                Event::Body(part) => out.extend_from_slice(part),
                Event::End if chunked => {
                    out.extend_from_slice(b"0\r\n\r\n");
                    ended = true;
                }
                Event::End => ended = true,
            }
        }
        from.at = from.buffer.len() - input.len();
        if !out.is_empty() {
            to.write_all(out).await.0?;
        }
        if ended {
            return Ok(passed);
        }
        if !from.fill().await? {
            passed.until_close = from.scan.closed().map_err(io::Error::other)?;
            passed.close = true;
            return if passed.until_close { Ok(passed) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
        }
    }
}

/// Copies a head without its `Connection` field and with other fields added.
fn edit(head: &[u8], fields: &str, out: &mut Vec<u8>) {
    let lines = head.strip_suffix(b"\r\n").unwrap_or(head);
    for line in lines.split_inclusive(|&byte| byte == b'\n') {
        let connection = line.len() > 11 && line[..11].eq_ignore_ascii_case(b"connection:");
        if !connection {
            out.extend_from_slice(line);
        }
    }
    out.extend_from_slice(fields.as_bytes());
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_loses_its_connection_field_and_gains_ours() {
        let mut out = Vec::new();
        edit(b"GET / HTTP/1.1\r\nConnection: close\r\nHost: x\r\n\r\n", "via: n\r\n", &mut out);
        assert_eq!(out, b"GET / HTTP/1.1\r\nHost: x\r\nvia: n\r\n\r\n");
    }
}
