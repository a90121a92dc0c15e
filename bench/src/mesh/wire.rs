//! A relay between a proxy and its daemon that counts the bytes: TLS, HTTP/2 and gRPC included.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// The relay; ends with this value.
pub(super) struct Wire {
    down: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Wire {
    /// Listens; where to, is told by [`Wire::connect`].
    pub(super) async fn bind() -> io::Result<(TcpListener, SocketAddr)> {
        let listener = TcpListener::bind(crate::core::free_address()?).await?;
        let address = listener.local_addr()?;
        Ok((listener, address))
    }

    /// Relays to this daemon from now on.
    pub(super) fn connect(listener: TcpListener, daemon: SocketAddr) -> Wire {
        let down = Arc::new(AtomicU64::new(0));
        let counter = down.clone();
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(daemon).await else { continue };
                if client.set_nodelay(true).and(server.set_nodelay(true)).is_err() {
                    continue;
                }
                let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
                tokio::spawn(pass(from_client, to_server, Arc::default()));
                tokio::spawn(pass(from_server, to_client, counter.clone()));
            }
        });
        Wire { down, task }
    }

    /// Bytes that the daemon has sent so far.
    pub(super) fn down(&self) -> u64 {
        self.down.load(Relaxed)
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, counter: Arc<AtomicU64>) {
    let mut buffer = vec![0; 16 << 10];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        counter.fetch_add(count as u64, Relaxed);
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}
