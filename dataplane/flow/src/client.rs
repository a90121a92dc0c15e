//! A client's connection while it has a task, and where it comes from.

use crate::log::Record;
use crate::stream::Stream;
use plan::Peer;
use ring::{Buf, Socket};
use std::net::SocketAddr;

/// A client's connection while it has a task.
pub(crate) struct Client {
    pub(crate) stream: Stream,
    /// Bytes that have arrived and were not taken.
    pub(crate) input: Option<Buf>,
    pub(crate) source: Source,
}

/// The client's address, and in words: `IP:port`, of which the first part is the IP. Empty on a unix socket.
#[derive(Clone, Copy)]
pub(crate) struct Source {
    address: Option<SocketAddr>,
    text: [u8; 56],
    ip: u8,
    all: u8,
}

impl Client {
    pub(crate) fn new(stream: Stream) -> Client {
        let source = Source::of(stream.address());
        Client { stream, input: None, source }
    }

    pub(crate) fn plain(socket: Socket) -> Client {
        Client::new(Stream::plain(socket))
    }

    /// What policy may ask about it.
    pub(crate) fn peer(&self) -> Peer<'_> {
        Peer {
            identity: self.identity(),
            address: self.source.address.map(|address| address.ip()),
            direct: self.source.address.map(|address| address.ip()),
        }
    }

    /// `record`, with what is known of the client.
    pub(crate) fn record<'a>(&'a self, record: Record<'a>) -> Record<'a> {
        let tls = self.stream.peer();
        Record {
            source: self.source.text(),
            source_identity: self.identity().unwrap_or_default(),
            tls: tls.map_or("", |peer| peer.version),
            sni: tls.and_then(|peer| peer.sni.as_deref()).unwrap_or(record.sni),
            ..record
        }
    }

    /// The SPIFFE ID of its certificate.
    pub(crate) fn identity(&self) -> Option<&str> {
        self.stream.identity().map(|identity| &**identity)
    }
}

impl Source {
    pub(crate) fn of(address: Option<SocketAddr>) -> Source {
        use std::io::Write;
        let mut source = Source { address, text: [0; 56], ip: 0, all: 0 };
        if let Some(address) = address {
            let mut rest = &mut source.text[..];
            let _ = write!(rest, "{}", address.ip());
            let ip = 56 - rest.len();
            let _ = write!(rest, ":{}", address.port());
            let all = 56 - rest.len();
            (source.ip, source.all) = (ip as u8, all as u8);
        }
        source
    }

    /// The IP address.
    pub(crate) fn ip(&self) -> &[u8] {
        &self.text[..usize::from(self.ip)]
    }

    /// Address and port.
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.text[..usize::from(self.all)]).unwrap_or_default()
    }
}
