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
    _stranger: Option<Present>,
}

impl Connection {
    /// It counts against the limit by `place` until it is dropped, and against its holder's; who has shown nothing, or
    /// something that has ended, goes on counting as a stranger. None if the certificate that was shown is none of ours, or
    /// its holder has too many.
    pub(super) fn new(
        daemon: &Daemon,
        stream: TlsStream<TcpStream>,
        address: SocketAddr,
        place: OwnedSemaphorePermit,
        stranger: Present,
    ) -> Option<Connection> {
        let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        let certificate = match shown {
            Some(leaf) => Some(Arc::new(PeerCertificate::read(leaf)?)),
            None => None,
        };
        let present = match &certificate {
            Some(certificate) => Some(daemon.connected.enter(certificate.holder(), MOST_OF_HOLDER)?),
            None => None,
        };
        let is_known = certificate.as_ref().is_some_and(|certificate| certificate.not_after_ms > now_ms());
        let stranger = (!is_known).then_some(stranger);
        let over = Box::pin(over(certificate.clone(), daemon.authority.gone()));
        Some(Connection {
            stream,
            peer: Peer { address, certificate },
            over,
            _place: place,
            _present: present,
            _stranger: stranger,
        })
    }
}

/// Waits for the end of who may not stay.
async fn over(certificate: Option<Arc<PeerCertificate>>, mut gone: broadcast::Receiver<String>) {
    let left_ms = certificate.as_ref().map_or(0, |one| one.not_after_ms.saturating_sub(now_ms()));
    // Who shows nothing came to join, who shows an expired one to renew it: strangers cannot fill the places.
    let left = if left_ms == 0 { ONE_REQUEST } else { Duration::from_millis(left_ms) };
    let end = tokio::time::sleep(left);
    let Some(holder) = certificate.map(|certificate| certificate.holder()) else { return end.await };
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

/// Connections of one proxy or operator.
pub(super) const MOST_OF_HOLDER: usize = 64;

/// For one request, and then to come again.
const ONE_REQUEST: Duration = Duration::from_secs(30);

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

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(left_ms: u64) -> Option<Arc<PeerCertificate>> {
        Some(Arc::new(PeerCertificate {
            fingerprint: String::new(),
            common_name: "cart-1".to_owned(),
            uri: "spiffe://shop/group/cart".to_owned(),
            not_after_ms: now_ms() + left_ms,
        }))
    }

    /// It ends within a second of this time, and not before.
    async fn ends_after(certificate: Option<Arc<PeerCertificate>>, wanted: Duration) {
        let (_gone, heard) = broadcast::channel(4);
        let start = tokio::time::Instant::now();
        over(certificate, heard).await;
        let took = start.elapsed();
        assert!(took + Duration::from_secs(1) > wanted && took < wanted + Duration::from_secs(1), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_lives_as_long_as_its_certificate_or_for_one_request() {
        ends_after(certificate(3_600_000), Duration::from_secs(3600)).await;
        ends_after(certificate(0), ONE_REQUEST).await;
        ends_after(None, ONE_REQUEST).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_ends_when_its_holder_is_forgotten_or_may_have_been() {
        let wait = Duration::from_secs(60);
        let (gone, heard) = broadcast::channel(4);
        let over = over(certificate(3_600_000), heard);
        tokio::pin!(over);
        gone.send("cart-2".to_owned()).unwrap();
        assert!(tokio::time::timeout(wait, &mut over).await.is_err());
        gone.send("cart-1".to_owned()).unwrap();
        assert!(tokio::time::timeout(wait, &mut over).await.is_ok());

        let (gone, heard) = broadcast::channel(4);
        for n in 0..10 {
            gone.send(format!("other-{n}")).unwrap();
        }
        assert!(tokio::time::timeout(wait, super::over(certificate(3_600_000), heard)).await.is_ok());
    }
}
