//! An origin that answers by script and believes nothing: every request is well formed, seen once, its body exactly what
//! the client sends, or visibly cut.

use crate::choice::Choice;
use crate::data;
use crate::line::{Hall, Line};
use crate::script::{End, Entry, Framing, Ledger, Pace};
use crate::stream::{Body, Cut, Head, Reader, Writer};
use ring::{Error, Socket};
use std::rc::Rc;

/// What is no answer.
pub(crate) const GARBAGE: &[&str] = &[
    "SSH-2.0-OpenSSH_9.2\r\n\r\n",
    "HTTP/1.1 2OO OK\r\n\r\n",
    "HTTP/2.0 200 OK\r\n\r\n",
    "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello!",
    "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\n",
    "HTTP/1.1 200 OK\r\ncontent-length: +5\r\n\r\nhello",
    "HTTP/1.1 200 OK\r\nx y: 1\r\n\r\n",
    "HTTP/1.1 200 OK\nx: 1\n\n",
    "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
    "\0\0\0\0\0\0\0\0\r\n\r\n",
];

/// Serves one connection of the proxy's.
pub(crate) async fn serve(ledger: Ledger, hall: Hall, socket: Socket, mut choice: Choice) {
    let pace = Pace::any(&mut choice);
    let Some(line) = hall.line(socket).await else { return };
    let mut reader = Reader::new(&line, ledger.origin.clone(), pace, choice.split());
    let mut writer = Writer::new(&line, ledger.origin.clone(), pace, choice.split());
    while reader.begins().await.is_ok() {
        let Ok(head) = reader.head().await else { return };
        let entry = of(&ledger, &head);
        check(&ledger, &entry, &head);
        match answer(&entry, &mut reader, &mut writer).await {
            Ok(true) => {}
            // Where the length was said, an end that is not is none of the answer's.
            Ok(false) if line.is_secure() && !ends_with_line(&entry, &line) && choice.percent(30) => return,
            Ok(false) => {
                if writer.flush().await.is_ok() {
                    entry.answered.set(entry.answered.get() | line.say_end());
                    line.finish().await;
                }
                return;
            }
            Err(Broken::Reset) => return line.reset_on_close(),
            Err(Broken::Gone) => return,
        }
    }
}

/// The answer's last byte is the end of what its connection carries, which TLS has a record for.
fn ends_with_line(entry: &Entry, line: &Line) -> bool {
    line.is_secure() && entry.script.answer.framing == Framing::Close && entry.script.answer_has_body()
}

enum Broken {
    /// The connection is to be reset.
    Reset,
    Gone,
}

impl From<Cut> for Broken {
    fn from(_: Cut) -> Broken {
        Broken::Gone
    }
}

impl From<Error> for Broken {
    fn from(_: Error) -> Broken {
        Broken::Gone
    }
}

fn of(ledger: &Ledger, head: &Head) -> Rc<Entry> {
    let target = head.first.split(' ').nth(1).unwrap_or_default();
    let id = target.rsplit('/').next().and_then(|id| id.parse().ok());
    id.and_then(|id| ledger.entry(id)).unwrap_or_else(|| panic!("a request that nobody made: {head:?}"))
}

fn check(ledger: &Ledger, entry: &Entry, head: &Head) {
    let script = &entry.script;
    assert_eq!(head.first, format!("{} {}{} HTTP/1.1", script.method, script.path, script.id));
    entry.seen.set(entry.seen.get() + 1);
    assert_eq!(entry.seen.get(), 1, "a request was forwarded twice: {entry:?}");
    assert_eq!(head.one("host"), Some("sim.test"));
    assert_eq!(head.one("x-own"), Some(&*script.id.to_string()));
    assert_eq!(head.one("via"), Some("1.1 ringway"));
    assert_eq!(head.one("x-forwarded-proto"), Some(if ledger.secure.get() { "https" } else { "http" }));
    assert!(head.one("x-request-id").is_some() && head.one("x-forwarded-for").is_some(), "{head:?}");
    assert_eq!(head.one("expect").is_some(), script.expect);
    for hop in ["keep-alive", "x-hop", "proxy-connection", "trailer"] {
        assert!(hop == "trailer" || head.one(hop).is_none(), "{hop} went through: {head:?}");
    }
    let length = if script.body == Framing::Length { script.size } else { 0 };
    assert_eq!(head.framing(), (script.body, length), "{head:?}");
}

/// Answers one request. Says whether the connection goes on.
async fn answer(entry: &Entry, reader: &mut Reader<'_>, writer: &mut Writer<'_>) -> Result<bool, Broken> {
    let script = &entry.script;
    let answer = &script.answer;
    writer.pace = answer.pace;
    let mut body = Upload { entry, body: Body::new(script.body, script.size), got: 0 };
    if script.expect && answer.early != Some(0) {
        writer.put(b"HTTP/1.1 100 Continue\r\n\r\n");
        writer.flush().await?;
    }
    if !answer.echo {
        body.read(reader, answer.early.unwrap_or(usize::MAX)).await?;
    }
    if answer.delay_ns > 0 {
        ring::sleep_until(ring::now() + answer.delay_ns).await;
    }
    for _ in 0..answer.interim {
        writer.put(b"HTTP/1.1 103 Early Hints\r\nlink: </style.css>\r\n\r\n");
        writer.flush().await?;
    }
    match answer.end {
        End::Before(reset) => return Err(if reset { Broken::Reset } else { Broken::Gone }),
        End::Never => {
            reader.rest().await;
            return Ok(false);
        }
        End::Garbage(place) => {
            writer.put(GARBAGE[place].as_bytes());
            writer.flush().await?;
            return Ok(false);
        }
        _ => {}
    }
    let head = head(entry);
    if let End::InHead(reset) = answer.end {
        writer.put(&head[..1 + script.id as usize * 13 % (head.len() - 4)]);
        writer.flush().await?;
        return Err(if reset { Broken::Reset } else { Broken::Gone });
    }
    let apart = ends_with_line(entry, writer.line);
    entry.answered.set(!apart && (answer.size == 0 || !script.answer_has_body()));
    writer.put(&head);
    writer.flush().await?;
    if answer.echo {
        while let Some(bytes) = body.next(reader).await? {
            entry.answered.set(body.got == script.size);
            writer.body(answer.framing, &bytes).await?;
            writer.flush().await?;
        }
        writer.body_end(answer.framing, trailer(entry)).await?;
    } else if script.answer_has_body() {
        send_body(entry, writer).await?;
    }
    if answer.early.is_some() {
        body.read(reader, usize::MAX).await?;
    }
    Ok(!answer.close && !answer.rude)
}

fn head(entry: &Entry) -> Vec<u8> {
    let answer = &entry.script.answer;
    let mut head = format!("HTTP/1.1 {} Whatever\r\nX-Origin: {}\r\n", answer.status, entry.script.id);
    match answer.framing {
        Framing::Length => head += &format!("Content-Length: {}\r\n", answer.size),
        Framing::Chunked => head += "Transfer-Encoding: chunked\r\n",
        Framing::None | Framing::Close => {}
    }
    head += if answer.close {
        "Connection: close, x-hop\r\nX-Hop: 1\r\n\r\n"
    } else {
        "Connection: X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\n\r\n"
    };
    head.into_bytes()
}

/// The trailer of a chunked body, which some have.
pub(crate) fn trailer(entry: &Entry) -> Option<u64> {
    Some(entry.script.id).filter(|id| id % 3 == 0)
}

async fn send_body(entry: &Entry, writer: &mut Writer<'_>) -> Result<(), Broken> {
    let answer = &entry.script.answer;
    let (until, reset) = match answer.end {
        End::InBody(until, reset) => (until, Some(reset)),
        _ => (answer.size, None),
    };
    let mut at = 0;
    while at < until {
        let part = data::part(entry.script.answer_key(), at, until - at);
        at += part.len();
        entry.answered.set(at == answer.size && !ends_with_line(entry, writer.line));
        writer.body(answer.framing, part).await?;
    }
    if answer.end == End::Unsaid {
        writer.flush().await?;
        return Err(Broken::Gone);
    }
    match reset {
        None => writer.body_end(answer.framing, trailer(entry)).await?,
        Some(reset) => {
            if answer.framing == Framing::Chunked && !reset && entry.script.id.is_multiple_of(2) {
                // Not a mere end, but what cannot be a chunk.
                writer.put(b"zz\r\n");
            }
            writer.flush().await?;
            return Err(if reset { Broken::Reset } else { Broken::Gone });
        }
    }
    Ok(())
}

/// The request's body, checked as it comes.
struct Upload<'a> {
    entry: &'a Entry,
    body: Body,
    got: usize,
}

impl Upload<'_> {
    async fn next(&mut self, reader: &mut Reader<'_>) -> Result<Option<Vec<u8>>, Cut> {
        let script = &self.entry.script;
        let next = self.body.next(reader).await?;
        match &next {
            Some(bytes) => {
                assert!(
                    data::is_part(script.body_key(), self.got, bytes),
                    "wrong bytes behind {}: {:?} {script:?}",
                    self.got,
                    String::from_utf8_lossy(&bytes[..bytes.len().min(100)])
                );
                self.got += bytes.len();
                assert!(self.got <= self.entry.uploaded.get(), "more than was sent: {:?}", self.entry);
            }
            None => {
                assert_eq!(self.got, script.size, "a cut body is shown as whole: {:?}", self.entry);
                let trailer = trailer(self.entry).filter(|_| script.body == Framing::Chunked);
                let expected: Vec<_> = trailer.iter().map(|id| ("x-trailer".to_owned(), id.to_string())).collect();
                assert_eq!(self.body.trailers, expected, "{script:?}");
            }
        }
        Ok(next)
    }

    /// Reads until `most` bytes are there, or to its end.
    async fn read(&mut self, reader: &mut Reader<'_>, most: usize) -> Result<(), Cut> {
        while self.got < most && self.next(reader).await?.is_some() {}
        Ok(())
    }
}
