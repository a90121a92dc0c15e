//! A web server for tests: a thread a connection, strict about what it is sent, and every answer is the test's own.

use crate::http::{Head, Source};
use crate::stream::{Met, Stream};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// One request as it arrived.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The connection it came on, from 0 in the order of accepting.
    pub connection: usize,
    /// Request line and fields.
    pub head: Head,
    /// Its content.
    pub body: Vec<u8>,
    /// What came behind a chunked body.
    pub trailers: Vec<(String, String)>,
}

/// A server on a port of its own, until it is dropped.
#[derive(Debug)]
pub struct Origin {
    address: Option<SocketAddr>,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    seen: Mutex<Vec<Seen>>,
    faults: Mutex<Vec<String>>,
    met: Mutex<Vec<Met>>,
    refused: Mutex<Vec<String>>,
    accepted: AtomicUsize,
    open: AtomicUsize,
    stop: AtomicBool,
}

/// One accepted connection, in the hands of the test.
#[derive(Debug)]
pub struct Conversation {
    source: Source<Stream>,
    number: usize,
    shared: Arc<Shared>,
}

impl Origin {
    /// Serves each connection with `serve`, on a free port of 127.0.0.1.
    pub fn new(serve: impl Fn(&mut Conversation) + Send + Sync + 'static) -> Origin {
        Origin::on("127.0.0.1:0", serve)
    }

    /// Serves on this address.
    ///
    /// # Panics
    /// It is taken.
    pub fn on(address: &str, serve: impl Fn(&mut Conversation) + Send + Sync + 'static) -> Origin {
        let listener = TcpListener::bind(address).unwrap_or_else(|e| panic!("bind {address}: {e}"));
        let address = listener.local_addr().expect("address");
        let origin = Origin { address: Some(address), shared: Arc::default() };
        let accept = move || {
            let (stream, _) = listener.accept()?;
            stream.set_nodelay(true)?;
            Ok(Stream::Tcp(stream))
        };
        origin.run(accept, serve);
        origin
    }

    /// Serves on a unix socket. Its accepting thread lives as long as the process.
    ///
    /// # Panics
    /// The path is taken.
    pub fn on_unix(path: &Path, serve: impl Fn(&mut Conversation) + Send + Sync + 'static) -> Origin {
        let listener = UnixListener::bind(path).expect("bind");
        let origin = Origin { address: None, shared: Arc::default() };
        origin.run(move || Ok(Stream::Unix(listener.accept()?.0)), serve);
        origin
    }

    /// Serves over TLS, on a free port of 127.0.0.1.
    ///
    /// # Panics
    /// There is none.
    #[cfg(feature = "tls")]
    pub fn secure(server: &crate::tls::Server, serve: impl Fn(&mut Conversation) + Send + Sync + 'static) -> Origin {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let origin = Origin { address: listener.local_addr().ok(), shared: Arc::default() };
        let shared = origin.shared.clone();
        let session = server.sessions(Arc::new(move |met| match met {
            Ok(met) => shared.met.lock().expect("no test panicked").push(met),
            Err(why) => shared.refused.lock().expect("no test panicked").push(why),
        }));
        let accept = move || {
            let (socket, _) = listener.accept()?;
            socket.set_nodelay(true)?;
            Ok(session(socket))
        };
        origin.run(accept, serve);
        origin
    }

    /// Answers every request with 200 and a JSON description of it ([`describe`]).
    pub fn echo() -> Origin {
        Origin::answering(|seen| respond(200, "Content-Type: application/json\r\n", describe(seen).as_bytes()))
    }

    /// Answers every request with what `answer` makes of it; keeps connections.
    pub fn answering(answer: impl Fn(&Seen) -> Vec<u8> + Send + Sync + 'static) -> Origin {
        Origin::new(answers(answer))
    }

    /// Answers every request with the same bytes; keeps connections.
    pub fn fixed(answer: impl Into<Vec<u8>>) -> Origin {
        let answer = answer.into();
        Origin::answering(move |_| answer.clone())
    }

    /// Answers every request with the same bytes and closes.
    pub fn fixed_then_close(answer: impl Into<Vec<u8>>) -> Origin {
        let answer = answer.into();
        Origin::new(move |conversation| {
            if conversation.request().is_some() {
                conversation.send(&answer);
            }
        })
    }

    /// 200 with this text; keeps connections.
    pub fn text(text: &str) -> Origin {
        Origin::fixed(respond(200, "", text.as_bytes()))
    }

    fn run(
        &self,
        accept: impl Fn() -> io::Result<Stream> + Send + 'static,
        serve: impl Fn(&mut Conversation) + Send + Sync + 'static,
    ) {
        let shared = self.shared.clone();
        let serve = Arc::new(serve);
        std::thread::spawn(move || {
            while let Ok(stream) = accept() {
                if shared.stop.load(Ordering::SeqCst) {
                    break;
                }
                stream.limit(Duration::from_secs(60));
                let number = shared.accepted.fetch_add(1, Ordering::SeqCst);
                shared.open.fetch_add(1, Ordering::SeqCst);
                let (serve, shared) = (serve.clone(), shared.clone());
                std::thread::spawn(move || {
                    let mut conversation = Conversation { source: Source::new(stream), number, shared };
                    serve(&mut conversation);
                });
            }
        });
    }

    /// Where it listens.
    ///
    /// # Panics
    /// It listens on a unix socket.
    pub fn address(&self) -> SocketAddr {
        self.address.expect("a TCP origin")
    }

    /// The requests so far, in the order of their ends.
    pub fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().expect("no test panicked").clone()
    }

    /// The only request so far.
    ///
    /// # Panics
    /// There is another number of them.
    pub fn only(&self) -> Seen {
        let seen = self.seen();
        assert_eq!(seen.len(), 1, "{seen:?}");
        seen.into_iter().next().expect("one")
    }

    /// How many requests came so far.
    pub fn count(&self) -> usize {
        self.shared.seen.lock().expect("no test panicked").len()
    }

    /// How many connections were accepted so far.
    pub fn connections(&self) -> usize {
        self.shared.accepted.load(Ordering::SeqCst)
    }

    /// How many connections are in their handler's hands now.
    pub fn open(&self) -> usize {
        self.shared.open.load(Ordering::SeqCst)
    }

    /// What TLS handshakes came to, in the order of their ends.
    pub fn met(&self) -> Vec<Met> {
        self.shared.met.lock().expect("no test panicked").clone()
    }

    /// Why TLS handshakes failed.
    pub fn refused(&self) -> Vec<String> {
        self.shared.refused.lock().expect("no test panicked").clone()
    }

    /// What arrived malformed or broken off, if anything.
    pub fn faults(&self) -> Vec<String> {
        self.shared.faults.lock().expect("no test panicked").clone()
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        if let Some(address) = self.address {
            let _woken = TcpStream::connect(address);
        }
    }
}

impl Conversation {
    /// Which connection this is, from 0.
    pub fn number(&self) -> usize {
        self.number
    }

    /// How long to wait for bytes, in place of a minute.
    pub fn wait_up_to(&mut self, time: Duration) {
        self.source.stream().limit(time);
    }

    /// Reads a whole request; none when the other side is done.
    pub fn request(&mut self) -> Option<Seen> {
        let head = self.head()?;
        self.body(head)
    }

    /// Reads a head; none when the other side is done.
    pub fn head(&mut self) -> Option<Head> {
        match self.source.head() {
            Ok(head) => {
                if let Some(head) = &head {
                    let well_formed = head.line.split(' ').count() == 3 && head.line.ends_with(" HTTP/1.1");
                    assert!(self.note(well_formed, || format!("request line {:?}", head.line)), "{head:?}");
                }
                head
            }
            Err(e) => {
                // A connection that breaks between requests is the proxy closing it.
                self.note(e.kind() != io::ErrorKind::InvalidData, || e.to_string());
                None
            }
        }
    }

    /// Reads the body that belongs to a head, and counts the request as seen.
    pub fn body(&mut self, head: Head) -> Option<Seen> {
        match self.source.body(&head, false) {
            Ok((body, trailers)) => {
                let seen = Seen { connection: self.number, head, body, trailers };
                self.shared.seen.lock().expect("no test panicked").push(seen.clone());
                Some(seen)
            }
            Err(e) => {
                self.note(false, || e.to_string());
                None
            }
        }
    }

    /// Sends bytes; a client that is gone does not matter.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Conversation {
        let _gone = self.source.stream().write_all(bytes.as_ref());
        self
    }

    /// Sends after a while.
    pub fn send_after(&mut self, time: Duration, bytes: impl AsRef<[u8]>) -> &mut Conversation {
        std::thread::sleep(time);
        self.send(bytes)
    }

    /// Reads exactly so many bytes; none when they do not come.
    pub fn read(&mut self, count: usize) -> Option<Vec<u8>> {
        self.source.exactly(count).ok()
    }

    /// Reads what comes next, without waiting for more; none at the end.
    pub fn some(&mut self) -> Option<Vec<u8>> {
        if !self.source.left().is_empty() {
            let count = self.source.left().len();
            return self.read(count);
        }
        let mut piece = vec![0; 65536];
        let count = self.source.stream().read(&mut piece).ok()?;
        piece.truncate(count);
        (count > 0).then_some(piece)
    }

    /// Reads until the other side ends its direction; none when it breaks.
    pub fn rest(&mut self) -> Option<Vec<u8>> {
        self.source.rest().ok()
    }

    /// Ends our direction; the other one stays.
    pub fn finish(&mut self) {
        self.source.stream().finish();
    }

    /// Ends our direction without a word of TLS.
    pub fn cut(&mut self) {
        self.source.stream().cut();
    }

    /// Closes so that the other side sees a reset, once bytes have arrived: the kernel sends one when a socket is
    /// closed with unread input. Use it instead of reading.
    pub fn reset_unread(&mut self) {
        // Half a second covers loopback; what lies unread in the socket is what makes the reset.
        let mut one = [0];
        if let Stream::Tcp(stream) = self.source.stream() {
            let _any = stream.peek(&mut one);
        }
    }

    fn note(&self, good: bool, what: impl FnOnce() -> String) -> bool {
        if !good {
            self.shared.faults.lock().expect("no test panicked").push(what());
        }
        good
    }
}

impl Drop for Conversation {
    fn drop(&mut self) {
        self.shared.open.fetch_sub(1, Ordering::SeqCst);
    }
}

/// What serves a connection so that every request is answered with what `answer` makes of it.
pub fn answers(answer: impl Fn(&Seen) -> Vec<u8> + Send + Sync + 'static) -> impl Fn(&mut Conversation) + Send + Sync {
    move |conversation| {
        while let Some(seen) = conversation.request() {
            conversation.send(answer(&seen));
        }
    }
}

/// An answer with `Content-Length`. `fields` are lines that end in CRLF.
pub fn respond(status: u16, fields: &str, body: &[u8]) -> Vec<u8> {
    let mut answer = format!("HTTP/1.1 {status} OK\r\nContent-Length: {}\r\n{fields}\r\n", body.len()).into_bytes();
    answer.extend_from_slice(body);
    answer
}

/// A request in JSON: method, target, fields (in order), length of the body, connection.
pub fn describe(seen: &Seen) -> String {
    let fields: Vec<_> = seen.head.fields.iter().map(|(n, v)| serde_json::json!([n.to_ascii_lowercase(), v])).collect();
    serde_json::json!({
        "method": seen.head.word(0),
        "target": seen.head.word(1),
        "fields": fields,
        "body_bytes": seen.body.len(),
        "connection": seen.connection,
    })
    .to_string()
}
