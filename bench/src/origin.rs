//! `ringway-bench origin`: a web server that is never the limit, for load, tests and the demo.
//!
//! What it answers is set by its options, and by words in the path for one request; words it does not know are skipped, so that
//! it serves behind any prefix: `/cart/size/100/delay/20` is 100 bytes after 20 ms.
//!
//! | in the path | effect |
//! | --- | --- |
//! | `size/N` | a body of N bytes |
//! | `delay/MS` | the answer waits |
//! | `status/N` | that status |
//! | `chunked` | chunked framing |
//! | `close` | closes after the answer |
//! | `reset` | resets the connection instead of answering |
//! | `echo` | the request's body comes back |
//! | `headers` | the request's head comes back |

use std::fmt::Write;
use std::io;
use std::rc::Rc;

use clap::Args;
use ring::{Listener, Message, OutBuf, Socket};
use wire::tls::Server;

use crate::core;
use crate::scan::{Event, Fault, Head, Scan, Side};
use crate::stream::{Broken, Stream};
use crate::tls::{self, ServerOptions};

/// Bodies up to this size are copied behind their head; larger ones are sent from where they are.
const COPIED: u64 = 2048;
/// The largest body that is echoed; a larger one is answered 413.
const ECHOED: usize = 64 << 20;
const BLOCK: usize = 1 << 20;
const HANDSHAKE_NS: u64 = 10_000_000_000;
static BODY: [u8; BLOCK] = [b'x'; BLOCK];

/// Arguments of `ringway-bench origin`.
#[derive(Clone, Debug, Args)]
pub(crate) struct Origin {
    /// Address to listen on: 127.0.0.1:9000, "[::1]:9000" or unix:/path
    listen: String,
    /// Bytes of every body
    #[arg(long, default_value_t = 64)]
    size: u64,
    /// Milliseconds that every answer waits
    #[arg(long, default_value_t = 0, value_name = "MS")]
    delay: u64,
    /// Answer with the request's body
    #[arg(long)]
    echo: bool,
    /// Close the connection after every answer
    #[arg(long)]
    close: bool,
    /// Status of every answer
    #[arg(long, default_value_t = 200)]
    status: u16,
    /// Chunked framing
    #[arg(long)]
    chunked: bool,
    /// Share of requests that are answered 503, from 0 to 1
    #[arg(long, default_value_t = 0.0, value_name = "SHARE")]
    error_rate: f64,
    /// Answer with a field `x-origin` of this value, and with a line of text that names it instead of a body of `--size`
    #[arg(long)]
    name: Option<String>,
    /// Threads, each with a listening socket of its own
    #[arg(long, default_value_t = 1)]
    cores: usize,
    #[command(flatten)]
    tls: ServerOptions,
}

/// Serves until killed.
pub(crate) fn run(origin: &Origin) -> io::Result<()> {
    let server = origin.tls.server()?;
    core::serve(&origin.listen, origin.cores, core::config(), |listener, _| {
        tls::set_clock();
        let settings = Rc::new(Settings::new(origin.clone(), server.clone()));
        ring::spawn(accept(listener, settings));
    })
}

async fn accept(listener: Listener, settings: Rc<Settings>) {
    loop {
        // A failed accept concerns that client alone.
        if let Ok(socket) = listener.accept().await {
            ring::spawn(open(socket, settings.clone()));
        }
    }
}

async fn open(socket: Socket, settings: Rc<Settings>) {
    let stream = match &settings.server {
        None => Stream::plain(socket),
        // Whoever the ends do not agree with has been told.
        Some(server) => match Stream::accept(socket, server, ring::now() + HANDSHAKE_NS).await {
            Ok(stream) => stream,
            Err(_) => return,
        },
    };
    serve(stream, settings).await;
}

/// What holds for all requests.
struct Settings {
    origin: Origin,
    /// TLS, where it is served.
    server: Option<Server>,
    /// `x-origin` as a line, or nothing.
    field: String,
    /// The default body, where it is text.
    text: Option<String>,
}

impl Settings {
    fn new(origin: Origin, server: Option<Server>) -> Settings {
        let name = origin.name.as_deref();
        let field = name.map_or(String::new(), |name| format!("x-origin: {name}\r\n"));
        let text = name.map(|name| format!("hello from {name}\n"));
        Settings { origin, server, field, text }
    }
}

/// What one request gets.
#[derive(Clone, Debug, Default, PartialEq)]
struct Answer {
    status: u16,
    /// Bytes of the body; none when the body is in `body`.
    size: Option<u64>,
    delay_ms: u64,
    chunked: bool,
    close: bool,
    reset: bool,
    echo: bool,
    /// The request was HEAD.
    bodyless: bool,
    /// What is echoed.
    body: Vec<u8>,
}

impl Answer {
    fn new(head: &Head, settings: &Settings) -> Answer {
        let origin = &settings.origin;
        let mut answer = Answer {
            status: origin.status,
            size: Some(origin.size),
            delay_ms: origin.delay,
            chunked: origin.chunked,
            // HTTP/1.0 clients are not asked what they want kept.
            close: origin.close || head.close || head.line.ends_with(b"HTTP/1.0"),
            echo: origin.echo,
            bodyless: head.method() == b"HEAD",
            ..Answer::default()
        };
        if let Some(text) = &settings.text {
            answer.size = None;
            answer.body.extend_from_slice(text.as_bytes());
        }
        answer.override_by(head);
        if origin.error_rate > 0.0 && (ring::random() >> 11) as f64 / (1u64 << 53) as f64 <= origin.error_rate {
            answer.status = 503;
        }
        if answer.echo {
            answer.size = None;
            answer.body.clear();
        }
        answer
    }

    /// Takes the words of the path.
    fn override_by(&mut self, head: &Head) {
        let target = head.target();
        let path = target.split(|&byte| byte == b'?').next().unwrap_or_default();
        let mut words = path.split(|&byte| byte == b'/').map(|word| std::str::from_utf8(word).unwrap_or_default());
        while let Some(word) = words.next() {
            let mut number = || words.next().and_then(|word| word.parse::<u64>().ok());
            match word {
                "size" => self.size = number().or(self.size),
                "delay" => self.delay_ms = number().unwrap_or(self.delay_ms),
                "status" => {
                    self.status =
                        number().filter(|status| (200..600).contains(status)).map_or(200, |status| status as u16)
                }
                "chunked" => self.chunked = true,
                "close" => self.close = true,
                "reset" => self.reset = true,
                "echo" => self.echo = true,
                "headers" => {
                    self.size = None;
                    self.body = head.bytes.to_vec();
                }
                _ => {}
            }
        }
    }

    fn length(&self) -> u64 {
        self.size.unwrap_or(self.body.len() as u64)
    }

    fn take(&mut self, part: &[u8]) {
        if self.echo {
            if self.body.len() + part.len() > ECHOED {
                (self.status, self.echo, self.close) = (413, false, true);
                self.body.clear();
            } else {
                self.body.extend_from_slice(part);
            }
        }
    }

    fn head(&self, settings: &Settings, out: &mut Vec<u8>) {
        let mut text = Text(out);
        // Text grows as needed.
        let _ = write!(text, "HTTP/1.1 {} {}\r\n", self.status, reason(self.status));
        let _ = text.write_str("content-type: text/plain\r\n");
        let _ = text.write_str(&settings.field);
        if matches!(self.status, 204 | 304) {
            // These have no body, and no length (RFC 9110 sections 8.6 and 15.3.5).
        } else if self.chunked {
            let _ = text.write_str("transfer-encoding: chunked\r\n");
        } else {
            let _ = write!(text, "content-length: {}\r\n", self.length());
        }
        let _ = text.write_str(if self.close { "connection: close\r\n\r\n" } else { "\r\n" });
    }
}

struct Text<'a>(&'a mut Vec<u8>);

impl Write for Text<'_> {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

/// One connection.
async fn serve(stream: Stream, settings: Rc<Settings>) {
    let mut connection = Connection { stream, out: OutBuf::new(), message: Message::new() };
    let mut scan = Scan::new(Side::Requests);
    let mut answer = Answer::default();
    while let Ok(Some(buf)) = connection.stream.recv(u64::MAX).await {
        let mut input = &buf[..];
        loop {
            match scan.next(&mut input) {
                Ok(Some(Event::Head(head))) => {
                    answer = Answer::new(&head, &settings);
                    if head.expects {
                        connection.out.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
                    }
                }
                Ok(Some(Event::Body(part))) => answer.take(part),
                Ok(Some(Event::End)) => {
                    if connection.answer(&answer, &settings).await.is_err() {
                        return;
                    }
                    if answer.close {
                        return connection.close(input.is_empty()).await;
                    }
                }
                Ok(None) => break,
                Err(fault) => return connection.refuse(fault).await,
            }
        }
        drop(buf);
        if connection.flush().await.is_err() {
            return;
        }
    }
}

/// A connection with what is to be sent next: answers to pipelined requests leave in one send.
struct Connection {
    stream: Stream,
    out: OutBuf,
    message: Message,
}

impl Connection {
    async fn answer(&mut self, answer: &Answer, settings: &Settings) -> Result<(), Broken> {
        if answer.delay_ms > 0 {
            self.flush().await?;
            ring::sleep_until(ring::now() + answer.delay_ms * 1_000_000).await;
        }
        if answer.reset {
            self.stream.reset_on_close();
            return Err(ring::Error::Reset.into());
        }
        answer.head(settings, &mut self.out);
        let bodyless = answer.bodyless || matches!(answer.status, 204 | 304);
        if bodyless {
            return Ok(());
        }
        match (answer.chunked, answer.length()) {
            (true, 0) => self.out.extend_from_slice(b"0\r\n\r\n"),
            (true, length) => {
                let _ = write!(Text(&mut self.out), "{length:x}\r\n");
                self.body(answer).await?;
                self.out.extend_from_slice(b"\r\n0\r\n\r\n");
            }
            (false, _) => self.body(answer).await?,
        }
        Ok(())
    }

    async fn body(&mut self, answer: &Answer) -> Result<(), Broken> {
        let mut left = answer.length();
        if answer.size.is_none() {
            self.out.extend_from_slice(&answer.body);
            return Ok(());
        }
        if left <= COPIED {
            self.out.extend_from_slice(&BODY[..left as usize]);
            return Ok(());
        }
        while left > 0 {
            let part = left.min(BLOCK as u64);
            self.part(&BODY[..part as usize]).await?;
            left -= part;
        }
        Ok(())
    }

    /// Queues a part behind what was written, and sends when the message is full.
    async fn part(&mut self, part: &'static [u8]) -> Result<(), Broken> {
        if !self.out.is_empty() {
            self.message.out(std::mem::take(&mut self.out));
        }
        self.message.fixed(part);
        // Two slices make one more round; and no send grows beyond a block, so that progress shows.
        if self.message.room() < 3 || self.message.length() >= BLOCK {
            self.stream.send(&mut self.message, u64::MAX).await?;
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), Broken> {
        if !self.out.is_empty() {
            self.message.out(std::mem::take(&mut self.out));
        }
        if self.message.length() > 0 {
            self.stream.send(&mut self.message, u64::MAX).await?;
        }
        Ok(())
    }

    async fn refuse(mut self, fault: Fault) {
        let body = format!("{fault}\n");
        let head =
            format!("HTTP/1.1 400 Bad Request\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len());
        self.out.extend_from_slice(head.as_bytes());
        self.close(false).await;
    }

    /// Sends what is left and closes; with unread input, after a moment in which it is read, because closing before that would
    /// reset the connection and destroy the answer (RFC 9112 section 9.6).
    async fn close(mut self, read_to_end: bool) {
        if self.flush().await.is_err() {
            return;
        }
        let until = ring::now() + 1_000_000_000;
        if !read_to_end || self.stream.agreed().is_some() {
            self.stream.finish(until).await;
        }
        if !read_to_end {
            while let Ok(Some(_)) = self.stream.recv(until).await {}
        }
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        204 => "No Content",
        301 => "Moved Permanently",
        302 => "Found",
        304 => "Not Modified",
        400 => "Bad Request",
        404 => "Not Found",
        413 => "Content Too Large",
        500 => "Internal Server Error",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        _ => "Status",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(words: &[&str]) -> Settings {
        use clap::Parser;
        #[derive(Parser)]
        struct Cli {
            #[command(flatten)]
            origin: Origin,
        }
        let words = ["origin", "127.0.0.1:1"].iter().chain(words);
        Settings::new(Cli::parse_from(words).origin, None)
    }

    fn answer(target: &str, settings: &Settings) -> Answer {
        let text = format!("GET {target} HTTP/1.1\r\nhost: x\r\n\r\n");
        let mut scan = Scan::new(Side::Requests);
        let mut input = text.as_bytes();
        match scan.next(&mut input) {
            Ok(Some(Event::Head(head))) => Answer::new(&head, settings),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn words_of_the_path_override_the_options() {
        let settings = settings(&["--size", "10", "--status", "201"]);
        let plain = answer("/", &settings);
        assert_eq!((plain.status, plain.length(), plain.close), (201, 10, false));
        let told = answer("/cart/size/7/delay/20/status/404/chunked/close?size/9", &settings);
        assert_eq!((told.status, told.length(), told.delay_ms, told.chunked, told.close), (404, 7, 20, true, true));
    }

    #[test]
    fn a_status_that_http_does_not_have_is_200() {
        assert_eq!(answer("/status/99", &settings(&[])).status, 200);
        assert_eq!(answer("/status/x", &settings(&[])).status, 200);
    }

    #[test]
    fn headers_come_back_and_a_name_is_told() {
        let settings = settings(&["--name", "one"]);
        assert_eq!(answer("/", &settings).body, b"hello from one\n");
        assert!(answer("/headers", &settings).body.starts_with(b"GET /headers HTTP/1.1\r\n"));
        let mut out = Vec::new();
        answer("/", &settings).head(&settings, &mut out);
        assert!(String::from_utf8(out).unwrap().contains("\r\nx-origin: one\r\ncontent-length: 15\r\n"));
    }

    #[test]
    fn rfc9110_15_3_5_no_content_has_no_length() {
        let mut out = Vec::new();
        let settings = settings(&[]);
        answer("/status/204", &settings).head(&settings, &mut out);
        assert!(!String::from_utf8(out).unwrap().contains("length"));
    }

    #[test]
    fn echo_takes_the_body_until_it_is_too_large() {
        let mut echo = answer("/echo", &settings(&[]));
        echo.take(b"abc");
        echo.take(b"def");
        assert_eq!((echo.length(), &echo.body[..]), (6, &b"abcdef"[..]));
        echo.take(&vec![0; ECHOED]);
        assert_eq!((echo.status, echo.close), (413, true));
    }
}
