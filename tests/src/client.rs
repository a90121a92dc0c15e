//! A client that sends exactly the bytes it is given.

use crate::http::{Answer, Head, Source};
use crate::stream::{Met, Stream};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// How long a test waits for bytes before it fails.
const PATIENCE: Duration = Duration::from_secs(20);

/// One connection.
#[derive(Debug)]
pub struct Client {
    source: Source<Stream>,
    /// The interim answers that were read on the way to the last answer.
    pub interim: Vec<Head>,
}

impl Client {
    /// Connects.
    ///
    /// # Panics
    /// Nobody listens.
    pub fn to(address: SocketAddr) -> Client {
        Client::try_to(address).unwrap_or_else(|e| panic!("connect to {address}: {e}"))
    }

    /// Connects.
    ///
    /// # Errors
    /// Nobody listens.
    pub fn try_to(address: SocketAddr) -> io::Result<Client> {
        let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_nodelay(true)?;
        Ok(Client::over(Stream::Tcp(stream)))
    }

    /// Connects to a unix socket.
    ///
    /// # Panics
    /// Nobody listens.
    pub fn to_unix(path: &Path) -> Client {
        Client::over(Stream::Unix(UnixStream::connect(path).expect("connect")))
    }

    /// Over a connected socket.
    pub fn over(stream: Stream) -> Client {
        stream.limit(PATIENCE);
        Client { source: Source::new(stream), interim: Vec::new() }
    }

    /// Sends bytes.
    ///
    /// # Panics
    /// The other side does not take them.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Client {
        self.try_send(bytes).expect("the proxy takes bytes");
        self
    }

    /// Sends bytes.
    ///
    /// # Errors
    /// The other side does not take them.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.source.stream().write_all(bytes.as_ref())
    }

    /// Sends bytes in pieces of `size`, so that each one arrives for itself.
    /// What the proxy does not take any more, because it has answered and closed, is not sent.
    pub fn send_in_pieces(&mut self, bytes: &[u8], size: usize, pause: Duration) -> &mut Client {
        for piece in bytes.chunks(size) {
            if self.try_send(piece).is_err() {
                break;
            }
            std::thread::sleep(pause);
        }
        self
    }

    /// Reads the answer to a request of this method.
    ///
    /// # Errors
    /// None comes, or it is malformed or broken off.
    pub fn try_answer(&mut self, method: &str) -> io::Result<Answer> {
        self.interim.clear();
        self.source.answer(method, &mut self.interim)
    }

    /// Reads the answer to a GET or the like.
    ///
    /// # Panics
    /// None comes, or it is malformed or broken off.
    pub fn answer(&mut self) -> Answer {
        self.try_answer("GET").unwrap_or_else(|e| panic!("no answer: {e}"))
    }

    /// Reads one head, interim ones too.
    ///
    /// # Panics
    /// None comes.
    pub fn head(&mut self) -> Head {
        self.source.head().expect("a head").expect("a head")
    }

    /// Sends a GET with more field lines (each ends in CRLF) and reads the answer.
    pub fn get_with(&mut self, path: &str, fields: &str) -> Answer {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: test.example\r\n{fields}\r\n")).answer()
    }

    /// Sends a GET and reads the answer.
    pub fn get(&mut self, path: &str) -> Answer {
        self.get_with(path, "")
    }

    /// Reads exactly so many bytes.
    ///
    /// # Panics
    /// They do not come.
    pub fn read(&mut self, count: usize) -> Vec<u8> {
        self.source.exactly(count).expect("bytes")
    }

    /// Reads exactly so many bytes.
    ///
    /// # Errors
    /// They do not come.
    pub fn try_read(&mut self, count: usize) -> io::Result<Vec<u8>> {
        self.source.exactly(count)
    }

    /// Reads until the other side ends.
    ///
    /// # Errors
    /// The connection broke.
    pub fn rest(&mut self) -> io::Result<Vec<u8>> {
        self.source.rest()
    }

    /// Whether the other side closes (or resets) without another byte.
    pub fn is_closed(&mut self) -> bool {
        match self.rest() {
            Ok(rest) => rest.is_empty(),
            Err(e) => e.kind() == io::ErrorKind::ConnectionReset,
        }
    }

    /// Whether nothing comes for this long, and the connection stays.
    pub fn is_silent(&mut self, time: Duration) -> bool {
        if !self.source.left().is_empty() {
            return false;
        }
        self.source.stream().limit(time);
        let came = self.source.stream().read(&mut [0]);
        self.source.stream().limit(PATIENCE);
        matches!(came, Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut))
    }

    /// Ends our sending side.
    pub fn finish(&mut self) -> &mut Client {
        self.source.stream().finish();
        self
    }

    /// Ends our sending side without a word of the protocol above the socket.
    pub fn cut(&mut self) -> &mut Client {
        self.source.stream().cut();
        self
    }

    /// What the TLS handshake came to.
    ///
    /// # Panics
    /// There was none.
    pub fn met(&mut self) -> Met {
        self.source.stream().met().expect("a session")
    }

    /// The socket: a second handle, for a thread of its own.
    pub fn twin(&mut self) -> Stream {
        self.source.stream().twin()
    }
}
