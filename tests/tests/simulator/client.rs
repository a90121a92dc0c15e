//! A client that sends requests by script, pipelined or not, and judges every byte of the answers.

use crate::choice::Choice;
use crate::data;
use crate::line::{Dial, Line};
use crate::origin::trailer;
use crate::script::{Entry, Framing, Ledger, Outcome, Pace};
use crate::stream::{Body, Cut, Head, Reader, Writer};
use ring::host::Address;
use ring::{Either, Error};
use std::cell::Cell;
use std::pin::pin;
use std::rc::Rc;

const SECOND: u64 = 1_000_000_000;

/// How a client behaves.
#[derive(Clone, Debug)]
pub(crate) struct Manner {
    /// Requests that it sends before it has the first one's answer.
    pub(crate) depth: usize,
    /// It puts pipelined requests into one send.
    pub(crate) together: bool,
    pub(crate) read: Pace,
    /// It rests for up to so long between requests.
    pub(crate) rest_ns: u64,
    /// It goes away after up to so long.
    pub(crate) patience_ns: Option<u64>,
    /// It says that it has nothing more to send.
    pub(crate) half_close: bool,
    /// When its requests begin, at the latest.
    pub(crate) begins_ns: u64,
}

impl Manner {
    /// One request after the other, at once.
    pub(crate) fn plain() -> Manner {
        Manner {
            depth: 1,
            together: false,
            read: Pace::WHOLE,
            rest_ns: 0,
            patience_ns: None,
            half_close: false,
            begins_ns: 0,
        }
    }

    /// Any that stays to the end.
    pub(crate) fn any(choice: &mut Choice) -> Manner {
        Manner {
            depth: choice.one_of(&[1, 1, 2, 5]),
            together: choice.percent(50),
            read: Pace::any(choice),
            rest_ns: choice.one_of(&[0, 0, 1_000_000, 300_000_000]),
            patience_ns: None,
            half_close: choice.percent(20),
            begins_ns: choice.one_of(&[0, 1_000_000, 100_000_000]),
        }
    }
}

/// Makes all the requests, over as many connections as it takes.
pub(crate) async fn run(
    ledger: Ledger,
    (address, dial): (Address, Dial),
    manner: Manner,
    entries: Vec<Rc<Entry>>,
    mut choice: Choice,
) {
    if manner.begins_ns > 0 {
        ring::sleep_until(ring::now() + choice.below(manner.begins_ns)).await;
    }
    let (mut next, mut vain) = (0, 0);
    while next < entries.len() {
        let line = match ring::connect(&address, ring::now() + 100 * SECOND).await {
            Ok(socket) => dial.line(socket).await,
            Err(_) => None,
        };
        let talked = match line {
            Some(line) => talk(&ledger, &line, &manner, &entries[next..], choice.split()).await,
            None => 0,
        };
        next += talked;
        vain = if talked == 0 { vain + 1 } else { 0 };
        if vain == 100 {
            // Nobody listens any more.
            entries[next..].iter().for_each(|entry| entry.outcome.set(Some(Outcome::Left)));
            return;
        }
        if vain > 0 {
            ring::sleep_until(ring::now() + SECOND / 100).await;
        }
    }
}

/// One connection.
struct Talk<'a> {
    manner: &'a Manner,
    entries: &'a [Rc<Entry>],
    begun: Cell<usize>,
    answered: Cell<usize>,
    /// Of so many a `100 Continue` came.
    continued: Cell<usize>,
    /// The connection ends: nothing more is to be sent.
    over: Cell<bool>,
}

/// Makes requests over a connection while it lasts; how many were begun.
async fn talk(ledger: &Ledger, line: &Line, manner: &Manner, entries: &[Rc<Entry>], mut choice: Choice) -> usize {
    let talk = Talk {
        manner,
        entries,
        begun: Cell::new(0),
        answered: Cell::new(0),
        continued: Cell::new(0),
        over: Cell::new(false),
    };
    let mut reader = Reader::new(line, ledger.client.clone(), manner.read, choice.split());
    let mut writer = Writer::new(line, ledger.client.clone(), Pace::WHOLE, choice.split());
    let leaves = manner.patience_ns.map_or(u64::MAX, |most| ring::now() + choice.below(most));
    let asking = choice.split();
    let whole = async {
        let mut up = pin!(talk.ask(&mut writer, asking));
        let mut down = pin!(talk.listen(&mut reader));
        match ring::select(up.as_mut(), down.as_mut()).await {
            Either::First(_) => down.await,
            Either::Second(()) => {}
        }
    };
    let left = match ring::select(pin!(whole), pin!(ring::sleep_until(leaves))).await {
        Either::First(()) => Outcome::Unanswered,
        Either::Second(()) => {
            if choice.percent(50) {
                line.reset_on_close();
            }
            Outcome::Left
        }
    };
    for entry in entries[..talk.begun.get()].iter().filter(|entry| entry.outcome.get().is_none()) {
        entry.outcome.set(Some(left));
        entry.after_the_end.set(talk.over.replace(true));
    }
    talk.begun.get()
}

impl Talk<'_> {
    /// What one side changed is looked at by the other.
    fn tell(&self) {
        ring::wake_task(ring::current_task());
    }

    async fn until<T>(&self, until_ns: u64, ready: impl FnMut() -> Option<T>) -> Option<T> {
        ring::wait_until(until_ns, ready).await
    }

    /// Sends requests.
    async fn ask(&self, writer: &mut Writer<'_>, mut choice: Choice) -> Result<(), Error> {
        for (index, entry) in self.entries.iter().enumerate() {
            let may = || (self.over.get() || index < self.answered.get() + self.manner.depth).then_some(());
            if may().is_none() {
                writer.flush().await?;
            }
            self.until(u64::MAX, may).await;
            if self.manner.rest_ns > 0 {
                writer.flush().await?;
                ring::sleep_until(ring::now() + choice.below(self.manner.rest_ns)).await;
            }
            if self.over.get() {
                return Ok(());
            }
            self.begun.set(index + 1);
            writer.pace = entry.script.pace;
            writer.put(request_head(entry).as_bytes());
            if entry.script.expect && !self.may_send_body(index, writer).await? {
                return Ok(());
            }
            self.send_body(entry, writer).await?;
            if !self.manner.together || index + 1 == self.entries.len() {
                writer.flush().await?;
            }
            if !entry.script.keep {
                return writer.flush().await;
            }
        }
        if self.manner.half_close {
            return writer.finish().await;
        }
        Ok(())
    }

    /// Waits for `100 Continue`, for a while. `false`: the answer came instead, and the body is kept.
    async fn may_send_body(&self, index: usize, writer: &mut Writer<'_>) -> Result<bool, Error> {
        writer.flush().await?;
        let come = || {
            let done = self.continued.get() > index || self.answered.get() > index || self.over.get();
            done.then_some(())
        };
        self.until(ring::now() + 2 * SECOND, come).await;
        Ok(self.answered.get() <= index && !self.over.get())
    }

    async fn send_body(&self, entry: &Entry, writer: &mut Writer<'_>) -> Result<(), Error> {
        let script = &entry.script;
        let until = script.stops_at.unwrap_or(script.size);
        let mut at = 0;
        while at < until && !self.over.get() {
            let part = data::part(script.body_key(), at, until - at);
            at += part.len();
            entry.uploaded.set(at);
            writer.body(script.body, part).await?;
        }
        if script.stops_at.is_some() {
            writer.flush().await?;
            self.until(u64::MAX, || self.over.get().then_some(())).await;
        }
        if self.over.get() {
            return Ok(());
        }
        let rest = if script.body == Framing::Chunked { trailer(entry) } else { None };
        if script.body == Framing::Chunked {
            writer.put(b"0\r\n");
            if let Some(id) = rest {
                writer.put(format!("x-trailer: {id}\r\n").as_bytes());
            }
            writer.put(b"\r\n");
        }
        Ok(())
    }

    /// Takes answers until the connection ends or all have come.
    async fn listen(&self, reader: &mut Reader<'_>) {
        for (index, entry) in self.entries.iter().enumerate() {
            if reader.begins().await.is_err() {
                break;
            }
            assert!(index < self.begun.get(), "bytes that nobody asked for: {:?}", reader.head().await);
            match self.answer(reader, index, entry).await {
                Ok((outcome, closes)) => {
                    entry.outcome.set(Some(outcome));
                    self.answered.set(index + 1);
                    self.over.set(closes);
                    self.tell();
                }
                Err(_) => {
                    entry.outcome.set(Some(Outcome::Cut));
                    return self.over.set(true);
                }
            }
            if self.over.get() {
                let (count, _) = reader.rest().await;
                assert_eq!(count, 0, "bytes behind the last answer: {entry:?}");
                return;
            }
        }
    }

    /// One answer: what it was, and whether the connection ends with it.
    async fn answer(&self, reader: &mut Reader<'_>, index: usize, entry: &Entry) -> Result<(Outcome, bool), Cut> {
        let script = &entry.script;
        loop {
            let head = reader.head().await?;
            let status = status(&head);
            if status < 200 {
                assert!(!script.old, "an interim answer for HTTP/1.0: {head:?}");
                assert!(status == 103 || (status == 100 && script.expect), "{head:?} for {script:?}");
                if status == 100 {
                    self.continued.set(index + 1);
                    self.tell();
                }
                continue;
            }
            let own = head.one("x-origin").is_none();
            let kept = match head.one("connection") {
                None => !script.old,
                Some("close") => false,
                Some("keep-alive") => true,
                Some(other) => panic!("connection: {other}"),
            };
            // 408: the method was perhaps not seen.
            let own_body = script.method != "HEAD" || status == 408;
            let has_body = if own { own_body } else { script.answer_has_body() };
            let (framing, length) = match head.framing() {
                _ if !has_body => (Framing::None, 0),
                (Framing::None, _) => (Framing::Close, 0),
                framing => framing,
            };
            assert!(!script.old || framing != Framing::Chunked, "chunked for HTTP/1.0: {script:?}");
            assert!(framing != Framing::Close || !kept, "{head:?} does not say where it ends");
            let mut body = Body::new(framing, length);
            let outcome = if own {
                while body.next(reader).await?.is_some() {}
                Outcome::Status(status)
            } else {
                check(script.answer.status == status, entry, &head);
                check(head.one("x-origin") == Some(&script.id.to_string()), entry, &head);
                check(head.one("x-hop").is_none() && head.one("keep-alive").is_none(), entry, &head);
                right(reader, &mut body, entry).await?;
                Outcome::Right
            };
            return Ok((outcome, !kept));
        }
    }
}

fn check(holds: bool, entry: &Entry, head: &Head) {
    assert!(holds, "{head:?} answers {entry:?}");
}

fn status(head: &Head) -> u16 {
    let status = head.first.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok());
    status.unwrap_or_else(|| panic!("{head:?}"))
}

/// Reads the body of the origin's answer: every byte is where it belongs, and an end is the end.
async fn right(reader: &mut Reader<'_>, body: &mut Body, entry: &Entry) -> Result<(), Cut> {
    let script = &entry.script;
    let mut got = 0;
    while let Some(bytes) = body.next(reader).await? {
        assert!(data::is_part(script.answer_key(), got, &bytes), "wrong bytes behind {got}: {entry:?}");
        got += bytes.len();
    }
    let size = if script.answer_has_body() { script.answer.size } else { 0 };
    assert!(got == size && entry.answered.get(), "after {got} of {size} bytes an answer ends as if whole: {entry:?}");
    let passed = script.answer.framing == Framing::Chunked && script.answer_has_body() && !script.old;
    let expected: Vec<_> =
        trailer(entry).filter(|_| passed).iter().map(|id| ("x-trailer".to_owned(), id.to_string())).collect();
    assert_eq!(body.trailers, expected, "{entry:?}");
    Ok(())
}

fn request_head(entry: &Entry) -> String {
    let script = &entry.script;
    let version = if script.old { "1.0" } else { "1.1" };
    let mut head = format!("{} {}{} HTTP/{version}\r\nHost: sim.test\r\n", script.method, script.path, script.id);
    match script.body {
        Framing::Length => head += &format!("Content-Length: {}\r\n", script.size),
        Framing::Chunked => head += "Transfer-Encoding: chunked\r\n",
        Framing::None | Framing::Close => {}
    }
    if script.expect {
        head += "Expect: 100-continue\r\n";
    }
    head += match (script.old, script.keep) {
        (false, true) => "Connection: x-hop\r\nX-Hop: 1\r\n",
        (true, true) => "Connection: keep-alive\r\n",
        (_, false) => "Connection: close\r\n",
    };
    head + &format!("X-Own: {}\r\n\r\n", script.id)
}
