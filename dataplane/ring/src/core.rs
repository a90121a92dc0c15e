//! The current core of this thread, and its turn.

use crate::buffer::{Buffers, OutPool, Returned};
use crate::driver::{Completion, Driver, Kind, Tag};
use crate::host::Features;
use crate::listener::Listeners;
use crate::message::Messages;
use crate::socket::Sockets;
use crate::task::{self, TaskId, Tasks};
use crate::timer::{Owner, Wheel};
use crate::wake::Wake;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Nanoseconds since the first core of the process began, the same on all of them (since the simulation began, on
/// simulated cores).
pub type Instant = u64;

/// At most this many polls between two enters, so that tasks which wake each other cannot keep the core from the ring.
const POLLS_A_TURN: u32 = 4096;

/// Turns that a core which was stopped takes at most until everything is closed.
const LAST_TURNS: u32 = 1000;

/// The buffers of one group of a core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BufferSizes {
    /// Bytes of one buffer.
    pub bytes: u32,
    /// How many there are at the start.
    pub count: u16,
    /// How many there may be; the pool grows when it ran empty. A power of two, at most 32,768.
    pub most: u16,
}

/// How a core is made.
#[derive(Clone, Debug)]
pub struct Config {
    /// Entries of the submission queue.
    pub submissions: u32,
    /// Entries of the completion queue.
    pub completions: u32,
    /// Buffers for small messages: few enough to stay in cache.
    pub small: BufferSizes,
    /// Buffers for connections that carry bulk.
    pub large: BufferSizes,
    /// Seed of [`random`].
    pub seed: u64,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            submissions: 1024,
            completions: 8192,
            small: BufferSizes { bytes: 4096, count: 256, most: 4096 },
            large: BufferSizes { bytes: 256 * 1024, count: 8, most: 32 },
            seed: 0,
        }
    }
}

/// What a core counts, written by the core once a turn, read by anyone.
#[derive(Debug, Default)]
pub struct Stats {
    turns: AtomicU64,
    completions: AtomicU64,
    polls: AtomicU64,
    busy_ns: AtomicU64,
    no_buffers: AtomicU64,
    buffers_held: AtomicU64,
    buffers: AtomicU64,
    large_held: AtomicU64,
    waiting_for_buffers: AtomicU64,
    tasks: AtomicU64,
    sockets: AtomicU64,
    ready: AtomicU64,
    copied_bytes: AtomicU64,
}

/// A reading of [`Stats`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StatsSnapshot {
    /// Turns taken; also the core's heartbeat.
    pub turns: u64,
    /// Completions handled.
    pub completions: u64,
    /// Polls of tasks.
    pub polls: u64,
    /// Nanoseconds spent outside the ring's enter.
    pub busy_ns: u64,
    /// Receives that ended because the pool was empty.
    pub no_buffers: u64,
    /// Small buffers held by connections now.
    pub buffers_held: u64,
    /// Small buffers there are.
    pub buffers: u64,
    /// Large buffers held by connections now.
    pub large_held: u64,
    /// Sockets that wait in line for a buffer now.
    pub waiting_for_buffers: u64,
    /// Tasks alive.
    pub tasks: u64,
    /// Sockets open.
    pub sockets: u64,
    /// Tasks that were ready when the last turn began.
    pub ready: u64,
    /// Received bytes that the ring copied in user space.
    pub copied_bytes: u64,
}

impl Stats {
    /// Reads all counters, each for itself.
    pub fn snapshot(&self) -> StatsSnapshot {
        StatsSnapshot {
            turns: self.turns.load(Relaxed),
            completions: self.completions.load(Relaxed),
            polls: self.polls.load(Relaxed),
            busy_ns: self.busy_ns.load(Relaxed),
            no_buffers: self.no_buffers.load(Relaxed),
            buffers_held: self.buffers_held.load(Relaxed),
            buffers: self.buffers.load(Relaxed),
            large_held: self.large_held.load(Relaxed),
            waiting_for_buffers: self.waiting_for_buffers.load(Relaxed),
            tasks: self.tasks.load(Relaxed),
            sockets: self.sockets.load(Relaxed),
            ready: self.ready.load(Relaxed),
            copied_bytes: self.copied_bytes.load(Relaxed),
        }
    }
}

/// Makes the calling thread a core on io_uring and runs until [`stop`]. `init` runs first, on the core, with the
/// handles that other threads use.
///
/// # Errors
/// Why the ring could not be made; see [`crate::StartError`].
pub fn run(config: &Config, features: &Features, init: impl FnOnce(Arc<Stats>, Wake)) -> Result<(), crate::StartError> {
    let driver = Driver::uring(config, features)?;
    let shared = Shared::new(config, driver);
    let entered = shared.enter();
    let (stats, wake) = with(|core| (core.stats.clone(), core.wake.clone()));
    init(stats, wake);
    while !with(|core| core.stopped) {
        turn(&shared, true);
    }
    task::drop_all();
    // What the tasks held is cancelled, then closed: each step takes a turn.
    for _ in 0..LAST_TURNS {
        if !turn(&shared, false) && with(|core| core.sockets.open == 0 && core.listeners.all_closed()) {
            break;
        }
    }
    drop(entered);
    Ok(())
}

/// Ends the current core after this turn; tasks that still live are dropped.
pub fn stop() {
    with(|core| core.stopped = true);
}

/// The time at which the turn's completions were taken.
#[inline]
pub fn now() -> Instant {
    with(|core| core.now_ns)
}

/// The time at which the ring was last entered, that is at which what the turn before had queued was handed to the kernel.
#[inline]
pub fn entered_at() -> Instant {
    with(|core| core.entered_ns)
}

/// The next number of the core's generator: fast, seeded, not for secrets.
#[inline]
pub fn random() -> u64 {
    with(|core| {
        // splitmix64
        core.random = core.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = core.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    })
}

/// A core with what may be touched while it is borrowed: dropping a buffer only appends to a list.
pub(crate) struct Shared {
    core: RefCell<Core>,
    pub(crate) returned: RefCell<Vec<Returned>>,
    pub(crate) out: RefCell<OutPool>,
}

pub(crate) struct Core {
    // Fields are dropped in order: the driver first, so that the kernel stops writing before memory goes.
    pub(crate) driver: Driver,
    pub(crate) tasks: Tasks,
    pub(crate) timers: Wheel,
    pub(crate) buffers: Buffers,
    pub(crate) sockets: Sockets,
    pub(crate) listeners: Listeners,
    pub(crate) messages: Messages,
    pub(crate) now_ns: u64,
    pub(crate) entered_ns: u64,
    pub(crate) poll_deadline: u64,
    pub(crate) watched: VecDeque<u64>,
    pub(crate) watcher: TaskId,
    pub(crate) rung: bool,
    pub(crate) rung_task: TaskId,
    pub(crate) wake: Wake,
    pub(crate) stopped: bool,
    random: u64,
    stats: Arc<Stats>,
    done: Vec<Completion>,
}

thread_local! {
    static CURRENT: Cell<Option<NonNull<Shared>>> = const { Cell::new(None) };
}

impl Shared {
    pub(crate) fn new(config: &Config, mut driver: Driver) -> Box<Shared> {
        let buffers = Buffers::new(config, &mut driver);
        let wake = driver.wake();
        driver.arm_wake(Tag::new(Kind::Wake, 0, 0));
        let now_ns = driver.now_ns();
        let mut timers = Wheel::new();
        timers.advance(now_ns, |_, _| u64::MAX);
        Box::new(Shared {
            core: RefCell::new(Core {
                driver,
                tasks: Tasks::new(),
                timers,
                buffers,
                sockets: Sockets::new(),
                listeners: Listeners::new(),
                messages: Messages::new(),
                now_ns,
                entered_ns: now_ns,
                poll_deadline: u64::MAX,
                watched: VecDeque::new(),
                watcher: TaskId::NONE,
                rung: false,
                rung_task: TaskId::NONE,
                wake,
                stopped: false,
                random: config.seed,
                stats: Arc::default(),
                done: Vec::new(),
            }),
            returned: RefCell::default(),
            out: RefCell::default(),
        })
    }

    /// Makes this the thread's current core until the result is dropped.
    pub(crate) fn enter(&self) -> Entered {
        Entered { before: CURRENT.replace(Some(NonNull::from(self))) }
    }
}

pub(crate) struct Entered {
    before: Option<NonNull<Shared>>,
}

impl Drop for Entered {
    fn drop(&mut self) {
        CURRENT.set(self.before);
    }
}

/// Acts on the current core. Panics when the thread has none: that is a defect of the caller, not of any input.
#[inline]
pub(crate) fn with<R>(act: impl FnOnce(&mut Core) -> R) -> R {
    let shared = CURRENT.get().expect("this thread is no core");
    // SAFETY: CURRENT is set only by `enter`, whose guard is dropped before the Shared is.
    let shared = unsafe { shared.as_ref() };
    act(&mut shared.core.borrow_mut())
}

/// Like [`with`] for what stands beside the core; `None` when the thread is no core (any more).
#[inline]
pub(crate) fn beside<R>(act: impl FnOnce(&Shared) -> R) -> Option<R> {
    // SAFETY: as in `with`.
    CURRENT.get().map(|shared| act(unsafe { shared.as_ref() }))
}

/// One turn. Says whether anything was done.
pub(crate) fn turn(shared: &Shared, may_wait: bool) -> bool {
    let polls = task::run_ready(POLLS_A_TURN);
    let mut returned = shared.returned.take();
    let completions = {
        let core = &mut *shared.core.borrow_mut();
        core.settle(&mut returned);
        core.enter(may_wait)
    };
    shared.returned.replace(returned);
    let core = &mut *shared.core.borrow_mut();
    core.dispatch();
    core.advance_timers();
    core.count(polls, completions);
    polls > 0 || completions > 0 || core.tasks.has_ready()
}

impl Core {
    /// Gives returned buffers back to the driver and lets those who waited in line receive again.
    fn settle(&mut self, returned: &mut Vec<Returned>) {
        for buffer in returned.drain(..) {
            self.buffers.take_back(&mut self.driver, buffer);
        }
        if self.buffers.anyone_waits() {
            self.serve_line();
        }
        self.driver.publish();
    }

    fn enter(&mut self, may_wait: bool) -> usize {
        let wait = may_wait && !self.stopped && !self.tasks.has_ready();
        self.entered_ns = self.driver.now_ns();
        let timeout_ns =
            if wait { self.timers.next_ns().map(|at| at.saturating_sub(self.entered_ns)) } else { Some(0) };
        let busy = self.entered_ns.saturating_sub(self.now_ns);
        self.stats.busy_ns.store(self.stats.busy_ns.load(Relaxed) + busy, Relaxed);
        self.done.clear();
        self.driver.enter(wait, timeout_ns, &mut self.done);
        self.now_ns = self.driver.now_ns();
        self.done.len()
    }

    fn dispatch(&mut self) {
        let mut done = std::mem::take(&mut self.done);
        for completion in done.drain(..) {
            match completion.tag.kind() {
                Kind::Receive => self.received(&completion),
                Kind::Send => self.sent(&completion),
                Kind::Accept => self.accepted(&completion),
                Kind::Connect => self.connected(&completion),
                Kind::Cancel => self.cancelled(&completion),
                Kind::Readable => self.became_readable(&completion),
                Kind::Disarm => self.disarmed(&completion),
                Kind::Wake => self.was_rung(),
                Kind::Nothing => {}
            }
        }
        self.done = done;
    }

    fn advance_timers(&mut self) {
        let Core { timers, tasks, sockets, watched, watcher, now_ns, .. } = self;
        timers.advance(*now_ns, |owner, fire| match owner {
            Owner::Task(id) => {
                let Some(timer) = tasks.timer(TaskId(id)) else { return u64::MAX };
                let deadline = timer.deadline_ns;
                if fire {
                    *timer = crate::timer::Timer::NONE;
                    if deadline != u64::MAX {
                        tasks.wake(TaskId(id));
                    }
                }
                deadline
            }
            Owner::Socket(index) => {
                let deadline = sockets.watch_deadline(index, fire);
                if fire
                    && deadline != u64::MAX
                    && let Some(token) = sockets.unwatch(index)
                {
                    watched.push_back(token);
                    tasks.wake(*watcher);
                }
                deadline
            }
        });
    }

    fn count(&mut self, polls: u32, completions: usize) {
        let add = |counter: &AtomicU64, more: u64| counter.store(counter.load(Relaxed) + more, Relaxed);
        add(&self.stats.turns, 1);
        add(&self.stats.polls, u64::from(polls));
        add(&self.stats.completions, completions as u64);
        self.buffers.report(&self.stats);
        self.stats.tasks.store(u64::from(self.tasks.live), Relaxed);
        self.stats.sockets.store(u64::from(self.sockets.open), Relaxed);
        self.stats.ready.store(self.tasks.ready_len() as u64, Relaxed);
    }

    /// When this core wants to be run again at the latest; for the simulation.
    pub(crate) fn next_timer_ns(&self) -> Option<u64> {
        self.timers.next_ns()
    }

    pub(crate) fn has_ready(&self) -> bool {
        self.tasks.has_ready()
    }

    pub(crate) fn stats(&self) -> Arc<Stats> {
        self.stats.clone()
    }
}

impl Shared {
    pub(crate) fn peek<R>(&self, look: impl FnOnce(&mut Core) -> R) -> R {
        look(&mut self.core.borrow_mut())
    }
}

impl Stats {
    pub(crate) fn buffers(&self, held: u64, all: u64, large_held: u64, waiting: u64, refused: u64, copied: u64) {
        self.buffers_held.store(held, Relaxed);
        self.buffers.store(all, Relaxed);
        self.large_held.store(large_held, Relaxed);
        self.waiting_for_buffers.store(waiting, Relaxed);
        self.no_buffers.store(refused, Relaxed);
        self.copied_bytes.store(copied, Relaxed);
    }
}
