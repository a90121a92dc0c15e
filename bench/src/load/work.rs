//! One core of load: its connections, its window, its counts.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ring::host::{Address, Features};
use ring::{Message, Wake};
use wire::tls::Client;

use super::Live;
use super::pace::Pace;
use super::tally::Tally;
use crate::core;
use crate::proc::{self, Memory};
use crate::report::Watched;
use crate::scan::{Event, Scan, Side};
use crate::stream::{Agreed, Broken, Kind, Stream};
use crate::tls;

/// Idle connections that are opened at the same time.
const OPENERS: usize = 64;
/// After the idle connections were used: until nobody works on them any more.
const SETTLE_NS: u64 = 500_000_000;
/// Opening the idle connections is given up after this.
const OPEN_WITHIN_NS: u64 = 30_000_000_000;
/// After a failure a connection waits, so that a dead target is not hammered.
const PAUSE_NS: u64 = 10_000_000;
/// A start that is overdue by this counts as late when the window ends.
const LATE_NS: u64 = 1_000_000_000;

/// Everything about a run that does not change.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) address: Address,
    /// TLS towards it, where wanted.
    pub(crate) tls: Option<Client>,
    pub(crate) request: &'static [u8],
    pub(crate) body_bytes: u64,
    /// The method is HEAD: answers have no body.
    pub(crate) head: bool,
    /// The body length that answers have to have.
    pub(crate) length: Option<u64>,
    pub(crate) keep: bool,
    pub(crate) connections: usize,
    pub(crate) idle: usize,
    pub(crate) rate: Option<f64>,
    pub(crate) requests: Option<u64>,
    pub(crate) duration: Duration,
    pub(crate) warmup: Duration,
    pub(crate) timeout: Duration,
    pub(crate) watch: Vec<u32>,
}

/// Runs core number `core` of `cores` to the end of its window.
pub(crate) fn core(
    job: Arc<Job>,
    core: usize,
    cores: usize,
    live: Arc<Live>,
    features: &Features,
) -> io::Result<Tally> {
    let share = |all: usize| all / cores + usize::from(core < all % cores);
    let (connections, idle) = (share(job.connections), share(job.idle));
    let state = Rc::new(State {
        pace: job.rate.map(|rate| Pace::new(rate * connections as f64 / job.connections as f64)),
        limit: job.requests.map(|requests| share(requests as usize) as u64),
        watch: if core == 0 { job.watch.clone() } else { Vec::new() },
        job,
        live: live.clone(),
        tally: RefCell::new(Tally::new()),
        open: Cell::new(false),
        failures: Cell::new(0),
        ended: Arc::new(AtomicBool::new(false)),
        left: Cell::new(idle),
        idle: RefCell::default(),
        failure: RefCell::default(),
    });
    let mut config = core::config();
    config.seed = config.seed.wrapping_add(core as u64);
    let run = ring::run(&config, features, |_, wake| {
        tls::set_clock();
        ring::spawn(window(state.clone(), connections, idle, wake));
    });
    state.ended.store(true, Ordering::Relaxed);
    live.ended.store(true, Ordering::Relaxed);
    run.map_err(io::Error::other)?;
    if let Some(error) = state.failure.take() {
        return Err(error);
    }
    Ok(state.tally.replace(Tally::new()))
}

/// What the tasks of one core share.
struct State {
    job: Arc<Job>,
    live: Arc<Live>,
    pace: Option<Pace>,
    /// Answers after which this core ends.
    limit: Option<u64>,
    watch: Vec<u32>,
    tally: RefCell<Tally>,
    /// The window is open.
    open: Cell<bool>,
    /// Requests that failed while it was.
    failures: Cell<u64>,
    ended: Arc<AtomicBool>,
    /// Idle connections still to be opened.
    left: Cell<usize>,
    idle: RefCell<Vec<Connection>>,
    failure: RefCell<Option<io::Error>>,
}

impl State {
    fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    fn fail(&self, kind: impl Into<Kind>) {
        self.live.errors.fetch_add(1, Ordering::Relaxed);
        if self.open.get() {
            self.failures.set(self.failures.get() + 1);
            self.tally.borrow_mut().failed(kind);
        }
    }
}

/// The order of a run.
async fn window(state: Rc<State>, connections: usize, idle: usize, wake: Wake) {
    if let Err(error) = measure(&state, connections, idle, wake).await {
        state.failure.replace(Some(error));
    }
    // Sockets belong to the core, and it is about to end.
    state.idle.take();
    ring::stop();
}

async fn measure(state: &Rc<State>, connections: usize, idle: usize, wake: Wake) -> io::Result<()> {
    let mut watched = Watched { before: state.memory()?, ..Watched::default() };
    open_idle(state, idle).await?;
    watched.idle = state.memory()?;
    if let Some(pace) = &state.pace {
        pace.begin(ring::now(), wake, state.ended.clone());
        let state = state.clone();
        ring::spawn(async move { tick(&state).await });
    }
    for _ in 0..connections {
        let state = state.clone();
        ring::spawn(async move { busy(&state).await });
    }
    ring::sleep_until(ring::now() + state.job.warmup.as_nanos() as u64).await;
    state.tally.replace(Tally::new());
    let (begun, run, ticks) = (Instant::now(), proc::run_ns(&state.watch)?, proc::ticks_ns(&state.watch)?);
    state.open.set(true);
    wait_for_end(state).await;
    state.open.set(false);
    watched.cpu_ns = proc::run_ns(&state.watch)? - run;
    let window = begun.elapsed();
    watched.ticks_ns = proc::ticks_ns(&state.watch)? - ticks;
    watched.after = state.memory()?;
    let mut tally = state.tally.borrow_mut();
    tally.window = window;
    tally.watched = (!state.watch.is_empty()).then_some(watched);
    tally.late = state.pace.as_ref().map_or(0, |pace| pace.late(ring::now(), LATE_NS));
    Ok(())
}

impl State {
    fn memory(&self) -> io::Result<Memory> {
        if self.watch.is_empty() { Ok(Memory::default()) } else { proc::memory(&self.watch) }
    }
}

/// The window's end: its time, or the last of the requests asked for, answered or failed.
async fn wait_for_end(state: &State) {
    let begun = ring::now();
    let until = begun + state.job.duration.as_nanos() as u64;
    match state.limit {
        None => ring::sleep_until(until).await,
        // A count is looked at often enough for a person, seldom enough for the figures.
        Some(limit) => {
            while state.tally.borrow().requests + state.failures.get() < limit {
                ring::sleep_until(ring::now() + 1_000_000).await;
            }
        }
    }
}

/// Opens the idle connections, a few at a time, and has each used once.
async fn open_idle(state: &Rc<State>, idle: usize) -> io::Result<()> {
    if idle == 0 {
        return Ok(());
    }
    let until = ring::now() + OPEN_WITHIN_NS;
    for _ in 0..OPENERS.min(idle) {
        let state = state.clone();
        ring::spawn(async move { open_some(&state).await });
    }
    while state.left.get() > 0 || state.idle.borrow().len() < idle {
        ring::sleep_until(ring::now() + 5_000_000).await;
        if ring::now() > until {
            let open = state.idle.borrow().len();
            return Err(io::Error::other(format!("only {open} of {idle} idle connections could be opened")));
        }
    }
    ring::sleep_until(ring::now() + SETTLE_NS).await;
    Ok(())
}

async fn open_some(state: &State) {
    while state.left.get() > 0 {
        state.left.set(state.left.get() - 1);
        let mut connection = None;
        match exchange(state, &mut connection).await {
            Ok(_) => state.idle.borrow_mut().extend(connection),
            Err(kind) => {
                state.fail(kind);
                state.left.set(state.left.get() + 1);
                ring::sleep_until(ring::now() + PAUSE_NS).await;
            }
        }
    }
}

/// Hands out starts whenever the pace rings.
async fn tick(state: &State) {
    let Some(pace) = &state.pace else { return };
    while !state.has_ended() {
        ring::rung().await;
        pace.wake(ring::now());
    }
}

/// One connection's work: a request whenever it may, until the run ends.
async fn busy(state: &State) {
    let mut connection = None;
    while let Some(start) = next_start(state).await {
        match exchange(state, &mut connection).await {
            Ok(answer) => {
                record(state, &answer, start);
                if !answer.keep {
                    let gone = connection.take();
                    wait_for_close(state, gone).await;
                }
            }
            Err(kind) => {
                connection = None;
                state.fail(kind);
                ring::sleep_until(ring::now() + PAUSE_NS).await;
            }
        }
    }
}

/// When the next request is meant to start: now, or as the pace says. None at the end.
async fn next_start(state: &State) -> Option<u64> {
    loop {
        if state.has_ended() {
            return None;
        }
        let Some(pace) = &state.pace else { return Some(ring::now()) };
        if let Some(start) = pace.take(ring::now()) {
            return Some(start);
        }
        pace.wait();
        // Woken in turn; another connection that became free may have been quicker.
        let mut asked = false;
        ring::wait_until(u64::MAX, || std::mem::replace(&mut asked, true).then_some(())).await;
    }
}

fn record(state: &State, answer: &Answer, start: u64) {
    state.live.requests.fetch_add(1, Ordering::Relaxed);
    if !state.open.get() {
        return;
    }
    let mut tally = state.tally.borrow_mut();
    tally.bytes_in += answer.bytes;
    tally.bytes_out += state.job.body_bytes;
    tally.answered(answer.status, ring::now().saturating_sub(start));
    if let Some(agreed) = answer.agreed {
        tally.secured(agreed, answer.first);
    }
    if state.job.length.is_some_and(|length| length != answer.bytes) {
        tally.failed("length");
    }
    if state.limit.is_some_and(|limit| tally.requests >= limit) {
        state.open.set(false);
    }
}

/// The server closes first, as it was asked to: so the closing's cost falls to the side that is measured, and the wait for
/// stray packets (TIME_WAIT) does not eat up this side's ports.
async fn wait_for_close(state: &State, connection: Option<Connection>) {
    if let Some(mut connection) = connection {
        let until = ring::now() + state.job.timeout.as_nanos() as u64;
        let closed = match connection.stream.recv(until).await {
            Ok(None) => connection.stream.wait_closed(until).await,
            // The answer was whole: nothing is lost (RFC 9112 section 9.8).
            Err(Broken::Cut) => Ok(()),
            Ok(Some(_)) => return state.fail("bytes behind the answer"),
            Err(broken) => Err(broken),
        };
        if let Err(broken) = closed {
            state.fail(broken.kind());
        }
    }
}

/// A connection and the reader of its answers.
struct Connection {
    stream: Stream,
    scan: Scan,
}

/// A complete answer.
struct Answer {
    status: u16,
    /// Bytes of its body.
    bytes: u64,
    /// The connection can be used again.
    keep: bool,
    /// What the ends of its connection agreed on, with TLS.
    agreed: Option<Agreed>,
    /// It is its connection's first.
    first: bool,
}

/// Sends the request and reads the answer, over the connection that is there or a new one.
async fn exchange(state: &State, connection: &mut Option<Connection>) -> Result<Answer, Kind> {
    let until = ring::now() + state.job.timeout.as_nanos() as u64;
    let first = connection.is_none();
    let mut open = match connection.take() {
        Some(open) => open,
        None => connect(&state.job, until).await?,
    };
    let mut message = Message::new();
    message.fixed(state.job.request);
    open.stream.send(&mut message, until).await.map_err(Broken::kind)?;
    drop(message);
    let answer = open.answer(until, state.job.keep).await?;
    let agreed = open.stream.agreed();
    *connection = Some(open);
    Ok(Answer { agreed, first, ..answer })
}

async fn connect(job: &Job, until: u64) -> Result<Connection, Kind> {
    let socket = ring::connect(&job.address, until).await.map_err(|_| "connect")?;
    let stream = match &job.tls {
        None => Stream::plain(socket),
        Some(client) => Stream::connect(socket, client, until).await.map_err(Broken::kind)?,
    };
    let mut scan = Scan::new(Side::Answers);
    scan.bodyless = job.head;
    Ok(Connection { stream, scan })
}

impl Connection {
    async fn answer(&mut self, until: u64, keep: bool) -> Result<Answer, Kind> {
        let mut answer = Answer { status: 0, bytes: 0, keep, agreed: None, first: false };
        loop {
            let Some(buf) = self.stream.recv(until).await.map_err(Broken::kind)? else {
                answer.keep = false;
                // The end of the stream ends a body without length, and nothing else.
                return match self.scan.closed() {
                    Ok(true) => Ok(answer),
                    Ok(false) => Err("closed before the answer".into()),
                    Err(_) => Err("closed inside the answer".into()),
                };
            };
            let mut input = &buf[..];
            while let Some(event) = self.scan.next(&mut input).map_err(|_| "protocol")? {
                match event {
                    Event::Head(head) => {
                        answer.status = head.status;
                        answer.keep = keep && !head.close;
                    }
                    Event::Body(part) => answer.bytes += part.len() as u64,
                    Event::End if input.is_empty() => return Ok(answer),
                    Event::End => return Err("bytes behind the answer".into()),
                }
            }
        }
    }
}
