//! A connection whose handshake is done. It ends when its certificate does, or when its holder is forgotten: then all
//! streams on it end too.

use crate::authority::{Peer, PeerCertificate};
use crate::server::connected::Present;
use crate::state::{Daemon, now_ms};
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, broadcast};
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

/// One connection.
pub(crate) struct Connection {
    stream: TlsStream<TcpStream>,
    peer: Peer,
    over: Pin<Box<dyn Future<Output = ()> + Send>>,
    _place: OwnedSemaphorePermit,
    _present: Option<Present>,
}

impl Connection {
    /// It counts against the limit by `place` until it is dropped. None if the certificate that was shown is none of ours.
    pub(super) fn new(
        daemon: &Daemon,
        stream: TlsStream<TcpStream>,
        address: SocketAddr,
        place: OwnedSemaphorePermit,
    ) -> Option<Connection> {
        let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        let certificate = match shown {
            Some(leaf) => Some(Arc::new(PeerCertificate::read(leaf)?)),
            None => None,
        };
        let present = certificate.as_ref().map(|certificate| daemon.connected.enter(certificate.holder()));
        let over = Box::pin(over(certificate.clone(), daemon.authority.gone()));
        Some(Connection { stream, peer: Peer { address, certificate }, over, _place: place, _present: present })
    }
}

/// Waits for the end of who may not stay.
async fn over(certificate: Option<Arc<PeerCertificate>>, mut gone: broadcast::Receiver<String>) {
    let Some(certificate) = certificate else { return std::future::pending().await };
    let holder = certificate.holder();
    let left_ms = certificate.not_after_ms.saturating_sub(now_ms());
    // Who came with an expired one came to renew it.
    let left = if left_ms == 0 { RENEWING } else { Duration::from_millis(left_ms) };
    let end = tokio::time::sleep(left);
    tokio::pin!(end);
    loop {
        tokio::select! {
            () = &mut end => return,
            who = gone.recv() => match who {
                Ok(who) if who != holder => {}
                // This one; or so many that it may have been among them: it comes again if not.
                Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => return,
                Err(broadcast::error::RecvError::Closed) => return,
            },
        }
    }
}

/// For one request, and then to come again.
const RENEWING: Duration = Duration::from_secs(30);

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.over.as_mut().poll(cx).is_ready() {
            self.over = Box::pin(std::future::ready(()));
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}
