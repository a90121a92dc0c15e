//! A connected socket: TCP, unix, or TLS over TCP.

use std::fmt::Debug;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// A connected socket.
#[derive(Debug)]
pub enum Stream {
    /// TCP
    Tcp(TcpStream),
    /// A unix socket.
    Unix(UnixStream),
    /// Something over a socket.
    Layer(Box<dyn Layer>),
}

/// A protocol between a socket and those who read and write.
pub trait Layer: Read + Write + Debug + Send {
    /// Reads and writes fail after this long.
    fn limit(&self, time: Duration);
    /// Says that nothing more comes, and closes the sending side.
    fn finish(&mut self);
    /// Closes the sending side without a word of this protocol.
    fn cut(&mut self);
    /// What both sides agreed on, once they have.
    fn met(&self) -> Option<Met>;
}

/// What two peers agreed on and showed each other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Met {
    /// `TLSv1.3`, `TLSv1.2`
    pub version: String,
    /// The cipher suite, as rustls calls it.
    pub suite: String,
    /// The application protocol.
    pub alpn: Option<String>,
    /// The name that the client asked for; servers only.
    pub name: Option<String>,
    /// The handshake was an abbreviated one.
    pub resumed: bool,
    /// The other side's certificate.
    pub certificate: Option<Vec<u8>>,
    /// Early data was sent, and whether it was taken; clients only.
    pub early: Option<bool>,
}

impl Stream {
    /// Reads and writes fail after this long.
    pub fn limit(&self, time: Duration) {
        let done = match self {
            Stream::Tcp(s) => s.set_read_timeout(Some(time)).and_then(|()| s.set_write_timeout(Some(time))),
            Stream::Unix(s) => s.set_read_timeout(Some(time)).and_then(|()| s.set_write_timeout(Some(time))),
            Stream::Layer(layer) => {
                layer.limit(time);
                Ok(())
            }
        };
        done.expect("timeouts can be set");
    }

    /// A second handle.
    ///
    /// # Panics
    /// There can be only one.
    pub fn twin(&self) -> Stream {
        match self {
            Stream::Tcp(s) => Stream::Tcp(s.try_clone().expect("handle")),
            Stream::Unix(s) => Stream::Unix(s.try_clone().expect("handle")),
            Stream::Layer(_) => panic!("a session has one handle"),
        }
    }

    /// Closes the sending side: the other one reads an end.
    pub fn finish(&mut self) {
        let _gone = match self {
            Stream::Tcp(s) => s.shutdown(Shutdown::Write),
            Stream::Unix(s) => s.shutdown(Shutdown::Write),
            Stream::Layer(layer) => {
                layer.finish();
                Ok(())
            }
        };
    }

    /// Closes the sending side of the socket; a protocol above it has no say.
    pub fn cut(&mut self) {
        match self {
            Stream::Layer(layer) => layer.cut(),
            plain => plain.finish(),
        }
    }

    /// What both sides agreed on; none without TLS.
    pub fn met(&self) -> Option<Met> {
        match self {
            Stream::Layer(layer) => layer.met(),
            _ => None,
        }
    }
}

impl Read for Stream {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(s) => s.read(out),
            Stream::Unix(s) => s.read(out),
            Stream::Layer(s) => s.read(out),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(s) => s.write(bytes),
            Stream::Unix(s) => s.write(bytes),
            Stream::Layer(s) => s.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
