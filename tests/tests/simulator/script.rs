//! What one request is to be, how the origin is to answer it, and what came of it. Client and origin both follow the
//! script, find it by the request's number, and write down what they did.

use crate::choice::Choice;
use std::cell::{Cell, RefCell};
use std::rc::Rc;

/// How a body is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    None,
    Length,
    Chunked,
    Close,
}

/// In what pieces something is sent, and how often the sender rests.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    pub(crate) most: usize,
    pub(crate) rest_percent: u64,
    pub(crate) rest_ns: u64,
}

/// How an origin's answer ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Whole,
    /// Before its first byte, by a reset (`true`) or a mere end.
    Before(bool),
    /// Within its head.
    InHead(bool),
    /// After so many bytes of its body.
    InBody(usize, bool),
    /// With something that is no answer: a place in [`crate::origin::GARBAGE`].
    Garbage(usize),
    /// After its body, with an end that TLS does not say.
    Unsaid,
    /// It never comes.
    Never,
}

#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) framing: Framing,
    pub(crate) size: usize,
    /// Interim answers before it.
    pub(crate) interim: u64,
    /// It comes when so many bytes of the request's body are there, whatever follows.
    pub(crate) early: Option<usize>,
    /// It is the request's body, passed back as it comes.
    pub(crate) echo: bool,
    pub(crate) delay_ns: u64,
    pub(crate) pace: Pace,
    pub(crate) end: End,
    /// The origin says `Connection: close`, and closes.
    pub(crate) close: bool,
    /// The origin closes without having said so.
    pub(crate) rude: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Script {
    pub(crate) id: u64,
    pub(crate) path: &'static str,
    pub(crate) method: &'static str,
    /// HTTP/1.0.
    pub(crate) old: bool,
    pub(crate) keep: bool,
    pub(crate) body: Framing,
    pub(crate) size: usize,
    pub(crate) expect: bool,
    pub(crate) pace: Pace,
    /// The client sends no more than so much of its body, and waits.
    pub(crate) stops_at: Option<usize>,
    pub(crate) answer: Answer,
}

/// What came of a request for its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The origin's answer, whole and right.
    Right,
    /// An answer of the proxy's own.
    Status(u16),
    /// The answer broke off, and it showed.
    Cut,
    /// The connection ended before the answer's first byte.
    Unanswered,
    /// The client went away by itself.
    Left,
}

/// A script with what became of it.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) script: Script,
    /// Times that an origin saw its head.
    pub(crate) seen: Cell<u32>,
    /// Bytes of its body that the client handed to its socket.
    pub(crate) uploaded: Cell<usize>,
    /// An origin has begun to send the last byte of its answer.
    pub(crate) answered: Cell<bool>,
    /// The connection had ended with an earlier request: no origin may see this one.
    pub(crate) after_the_end: Cell<bool>,
    pub(crate) outcome: Cell<Option<Outcome>>,
}

/// All requests of a run.
#[derive(Clone, Default)]
pub(crate) struct Ledger {
    entries: Rc<RefCell<Vec<Rc<Entry>>>>,
    /// Clients speak TLS.
    pub(crate) secure: Rc<Cell<bool>>,
    pub(crate) client: Rc<Traffic>,
    pub(crate) origin: Rc<Traffic>,
}

/// Bytes on one side's sockets.
#[derive(Default)]
pub(crate) struct Traffic {
    pub(crate) sent: Cell<u64>,
    pub(crate) received: Cell<u64>,
}

impl Ledger {
    pub(crate) fn add(&self, mut script: Script) -> Rc<Entry> {
        let mut entries = self.entries.borrow_mut();
        script.id = entries.len() as u64;
        let entry = Rc::new(Entry {
            script,
            seen: Cell::default(),
            uploaded: Cell::default(),
            answered: Cell::default(),
            after_the_end: Cell::default(),
            outcome: Cell::default(),
        });
        entries.push(entry.clone());
        entry
    }

    pub(crate) fn entry(&self, id: u64) -> Option<Rc<Entry>> {
        self.entries.borrow().get(id as usize).cloned()
    }

    pub(crate) fn all(&self) -> Vec<Rc<Entry>> {
        self.entries.borrow().clone()
    }

    /// How many requests came to this.
    pub(crate) fn count(&self, outcome: Outcome) -> usize {
        self.entries.borrow().iter().filter(|entry| entry.outcome.get() == Some(outcome)).count()
    }
}

impl Pace {
    pub(crate) const WHOLE: Pace = Pace { most: usize::MAX, rest_percent: 0, rest_ns: 0 };

    pub(crate) fn any(choice: &mut Choice) -> Pace {
        Pace {
            most: choice.one_of(&[usize::MAX, usize::MAX, 100_000, 4096, 1000, 100, 7]),
            rest_percent: choice.one_of(&[0, 0, 0, 5, 50]),
            rest_ns: choice.one_of(&[10_000, 1_000_000, 20_000_000]),
        }
    }

    /// Down to single bytes, where there are not too many of them.
    fn fit(mut self, size: usize, choice: &mut Choice) -> Pace {
        if size < 400 && choice.percent(20) {
            self.most = 1;
        }
        // Whatever it is, in at most a few hundred pieces.
        self.most = self.most.max(size / 300);
        self
    }
}

impl Script {
    /// A GET that is answered with `size` bytes.
    pub(crate) fn get(size: usize) -> Script {
        Script {
            id: 0,
            path: "/r/",
            method: "GET",
            old: false,
            keep: true,
            body: Framing::None,
            size: 0,
            expect: false,
            pace: Pace::WHOLE,
            stops_at: None,
            answer: Answer {
                status: 200,
                framing: Framing::Length,
                size,
                interim: 0,
                early: None,
                echo: false,
                delay_ns: 0,
                pace: Pace::WHOLE,
                end: End::Whole,
                close: false,
                rude: false,
            },
        }
    }

    /// A POST of `size` bytes that come back.
    pub(crate) fn echo(body: Framing, size: usize) -> Script {
        let mut script = Script::get(size);
        script.method = "POST";
        (script.body, script.size) = (body, size);
        script.answer.framing = body;
        script.answer.echo = true;
        script
    }

    /// Any good request with any good answer; bodies of at most `most` bytes.
    pub(crate) fn any(choice: &mut Choice, most: usize) -> Script {
        let mut script = Script::get(0);
        script.method =
            choice.one_of(&["GET", "GET", "HEAD", "POST", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "BREW"]);
        script.old = choice.percent(8);
        script.keep = choice.percent(if script.old { 50 } else { 95 });
        if matches!(script.method, "POST" | "PUT" | "PATCH" | "BREW") {
            script.body =
                if script.old { Framing::Length } else { choice.one_of(&[Framing::Length, Framing::Chunked]) };
            script.size = size(choice, most);
            script.expect = !script.old && script.size > 0 && choice.percent(10);
        }
        script.pace = Pace::any(choice).fit(script.size + 100, choice);
        script.answer = Answer::any(choice, most, &script);
        script
    }

    /// Whether the answer carries bytes of a body.
    pub(crate) fn answer_has_body(&self) -> bool {
        self.method != "HEAD" && self.answer.framing != Framing::None
    }

    /// Whose bytes the answer's body carries.
    pub(crate) fn answer_key(&self) -> u64 {
        if self.answer.echo { self.body_key() } else { self.id * 2 + 1 }
    }

    pub(crate) fn body_key(&self) -> u64 {
        self.id * 2
    }
}

fn size(choice: &mut Choice, most: usize) -> usize {
    let bound = choice.one_of(&[0, 1, 20, 300, 3000, 20_000, 70_000, 300_000, 2_000_000]).min(most);
    choice.up_to(bound)
}

impl Answer {
    fn any(choice: &mut Choice, most: usize, script: &Script) -> Answer {
        let has_body = script.body != Framing::None;
        let status = choice.one_of(&[200, 200, 200, 201, 404, 500, 204, 304]);
        let mut answer = Answer {
            status,
            framing: choice.one_of(&[Framing::Length, Framing::Length, Framing::Chunked, Framing::Close]),
            size: size(choice, most),
            interim: if choice.percent(8) { choice.below(4) } else { 0 },
            early: if has_body && choice.percent(10) { Some(choice.up_to(script.size)) } else { None },
            echo: false,
            delay_ns: choice.one_of(&[0, 0, 0, 1_000_000, 150_000_000]),
            pace: Pace::any(choice),
            end: End::Whole,
            close: choice.percent(8),
            rude: false,
        };
        if has_body && choice.percent(30) {
            answer.echo = true;
            answer.early = None;
            answer.status = 200;
            (answer.framing, answer.size) = (script.body, script.size);
        }
        if matches!(answer.status, 204 | 304) {
            (answer.framing, answer.size) = (Framing::None, 0);
        }
        answer.close |= answer.framing == Framing::Close && script.method != "HEAD";
        answer.pace = answer.pace.fit(answer.size + 100, choice);
        answer
    }

    /// Breaks the answer somewhere.
    pub(crate) fn broken(&mut self, choice: &mut Choice) {
        let reset = choice.percent(50);
        self.end = match choice.below(4) {
            0 => End::Before(reset),
            1 => End::InHead(reset),
            2 => End::Garbage(choice.below(crate::origin::GARBAGE.len() as u64) as usize),
            // Until close, only a reset shows.
            _ if self.size > 0 && self.framing != Framing::None => {
                End::InBody(choice.up_to(self.size - 1), reset || self.framing == Framing::Close)
            }
            _ => End::Before(reset),
        };
        (self.echo, self.early) = (false, None);
    }
}
