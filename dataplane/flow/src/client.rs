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
    /// What a PROXY header says of it. Boxed: most connections have none.
    pub(crate) proxied: Option<Box<Proxied>>,
}

/// Whose connection it really is, by a PROXY header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Proxied {
    /// The client.
    pub(crate) source: SocketAddr,
    /// Whom the client connected to.
    pub(crate) destination: SocketAddr,
}

/// The client's address, and in words: `IP:port`, and where the IP stands in it. Empty on a unix socket.
#[derive(Clone, Copy)]
pub(crate) struct Source {
    pub(crate) address: Option<SocketAddr>,
    text: [u8; 56],
    ip: [u8; 2],
    all: u8,
}

impl Client {
    pub(crate) fn new(stream: Stream, proxied: Option<Box<Proxied>>) -> Client {
        let source = match &proxied {
            Some(proxied) => Some(proxied.source),
            None => stream.address(),
        };
        Client { stream, input: None, source: Source::of(source), proxied }
    }

    pub(crate) fn plain(socket: Socket) -> Client {
        Client::new(Stream::plain(socket), None)
    }

    /// What policy may ask about it.
    pub(crate) fn peer(&self) -> Peer<'_> {
        let direct = match self.proxied {
            Some(_) => self.stream.address(),
            None => self.source.address,
        };
        Peer {
            identity: self.identity(),
            address: self.source.address.map(|address| address.ip()),
            direct: direct.map(|address| address.ip()),
        }
    }

    /// Whom the client connected to: by the PROXY header, or this end's address.
    pub(crate) fn destination(&self) -> Option<SocketAddr> {
        match &self.proxied {
            Some(proxied) => Some(proxied.destination),
            None => self.stream.local(),
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
        let mut source = Source { address, text: [0; 56], ip: [0; 2], all: 0 };
        if let Some(address) = address {
            let begin = usize::from(address.is_ipv6());
            let mut rest = &mut source.text[begin..];
            let _ = write!(rest, "{}", address.ip());
            let end = 56 - rest.len();
            let _ = write!(rest, "{}:{}", if begin > 0 { "]" } else { "" }, address.port());
            let all = 56 - rest.len();
            if begin > 0 {
                source.text[0] = b'[';
            }
            (source.ip, source.all) = ([begin as u8, end as u8], all as u8);
        }
        source
    }

    /// The IP address.
    pub(crate) fn ip(&self) -> &[u8] {
        &self.text[usize::from(self.ip[0])..usize::from(self.ip[1])]
    }

    /// Address and port.
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.text[..usize::from(self.all)]).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_in_words_says_which_part_is_the_port() {
        let longest = "[1111:2222:3333:4444:5555:6666:7777:8888]:65535";
        for (text, ip) in [
            ("192.0.2.1:80", "192.0.2.1"),
            ("[2001:db8::7]:5000", "2001:db8::7"),
            ("[::ffff:192.0.2.1]:1", "::ffff:192.0.2.1"),
            (longest, &longest[1..40]),
        ] {
            let source = Source::of(text.parse().ok());
            assert_eq!((source.text(), source.ip()), (text, ip.as_bytes()));
        }
        assert_eq!((Source::of(None).text(), Source::of(None).ip()), ("", &b""[..]));
    }
}
