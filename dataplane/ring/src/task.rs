//! The executor: a task is a plain future with a number. Whoever completes something wakes the number; there are no
//! reference counts and no atomics. The memory of a finished task is kept for the next one of the same layout.
//!
//! A future that waits for time says so while it is polled ([`crate::core::Core::due`]); the earliest such time is the
//! task's deadline, and reaching it polls the task. Wakes may be spurious: every future looks again.

use crate::core::{Core, with};
use crate::timer::{Owner, Timer};
use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::ptr::NonNull;
use std::task::{Context, Poll};

/// Finished tasks of one layout whose memory is kept; what a storm of connections took beyond goes back.
const KEPT: usize = 256;

/// The number of a task; free for reuse after the task ended, so a wake may reach a successor (harmless).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaskId(pub(crate) u32);

impl TaskId {
    pub(crate) const NONE: TaskId = TaskId(u32::MAX);
}

/// Starts a task on the current core. It is polled for the first time in this turn, after the task that spawned it.
pub fn spawn<F: Future<Output = ()> + 'static>(future: F) -> TaskId {
    with(|core| core.tasks.spawn(future))
}

/// The task that is being polled. Outside a poll: a number that no task has.
pub fn current_task() -> TaskId {
    with(|core| core.tasks.current)
}

/// Polls a task of this core again. A number that no task has is ignored.
pub fn wake_task(id: TaskId) {
    with(|core| core.tasks.wake(id));
}

pub(crate) struct Tasks {
    slots: Vec<Slot>,
    free: Vec<u32>,
    ready: VecDeque<u32>,
    memory: Vec<(Layout, Vec<NonNull<u8>>)>,
    pub(crate) current: TaskId,
    pub(crate) live: u32,
}

struct Slot {
    future: Option<RawFuture>,
    timer: Timer,
    queued: bool,
}

/// A future behind pointers, so that its memory can be used again.
#[derive(Clone, Copy)]
pub(crate) struct RawFuture {
    memory: NonNull<u8>,
    table: &'static Table,
}

struct Table {
    poll: unsafe fn(NonNull<u8>, &mut Context<'_>) -> Poll<()>,
    drop: unsafe fn(NonNull<u8>),
    layout: Layout,
}

impl RawFuture {
    /// Polls the future.
    ///
    /// # Safety
    /// The future is alive, and nobody else polls or drops it meanwhile.
    pub(crate) unsafe fn poll(self, context: &mut Context<'_>) -> Poll<()> {
        // SAFETY: the table was made for the type that stands in `memory`; the caller vouches for the rest.
        unsafe { (self.table.poll)(self.memory, context) }
    }
}

trait HasTable {
    const TABLE: Table;
}

impl<F: Future<Output = ()>> HasTable for F {
    const TABLE: Table = Table {
        // SAFETY: called with the memory of a live F that never moves until it is dropped in place.
        poll: |memory, context| unsafe { Pin::new_unchecked(memory.cast::<F>().as_mut()).poll(context) },
        // SAFETY: called once, with the memory of a live F.
        drop: |memory| unsafe { memory.cast::<F>().drop_in_place() },
        layout: Layout::new::<F>(),
    };
}

impl Tasks {
    pub(crate) fn new() -> Tasks {
        Tasks {
            slots: Vec::new(),
            free: Vec::new(),
            ready: VecDeque::new(),
            memory: Vec::new(),
            current: TaskId::NONE,
            live: 0,
        }
    }

    pub(crate) fn spawn<F: Future<Output = ()> + 'static>(&mut self, future: F) -> TaskId {
        let table: &'static Table = const { &<F as HasTable>::TABLE };
        let memory = self.memory_for(table.layout);
        // SAFETY: the memory has F's layout and nothing lives in it.
        unsafe { memory.cast::<F>().write(future) };
        let slot = Slot { future: Some(RawFuture { memory, table }), timer: Timer::NONE, queued: true };
        let id = match self.free.pop() {
            Some(id) => {
                self.slots[id as usize] = slot;
                id
            }
            None => {
                self.slots.push(slot);
                self.slots.len() as u32 - 1
            }
        };
        self.live += 1;
        self.ready.push_back(id);
        TaskId(id)
    }

    fn memory_for(&mut self, layout: Layout) -> NonNull<u8> {
        if layout.size() == 0 {
            return NonNull::dangling();
        }
        for (kept, list) in &mut self.memory {
            if *kept == layout
                && let Some(memory) = list.pop()
            {
                return memory;
            }
        }
        // SAFETY: the layout's size is not zero.
        let memory = unsafe { alloc(layout) };
        NonNull::new(memory).unwrap_or_else(|| handle_alloc_error(layout))
    }

    /// Ends the task: the caller has dropped, or will drop, the future that this returns with [`drop_future`].
    pub(crate) fn remove(&mut self, id: TaskId) -> Option<(RawFuture, Timer)> {
        let slot = self.slots.get_mut(id.0 as usize)?;
        let future = slot.future.take()?;
        let timer = std::mem::replace(&mut slot.timer, Timer::NONE);
        self.free.push(id.0);
        self.live -= 1;
        Some((future, timer))
    }

    pub(crate) fn keep_memory(&mut self, future: RawFuture) {
        let layout = future.table.layout;
        if layout.size() == 0 {
            return;
        }
        match self.memory.iter_mut().find(|(kept, _)| *kept == layout) {
            // SAFETY: allocated with this layout in `memory_for`; what lived in it was dropped.
            Some((_, list)) if list.len() >= KEPT => unsafe { dealloc(future.memory.as_ptr(), layout) },
            Some((_, list)) => list.push(future.memory),
            None => self.memory.push((layout, vec![future.memory])),
        }
    }

    pub(crate) fn wake(&mut self, id: TaskId) {
        if let Some(slot) = self.slots.get_mut(id.0 as usize)
            && slot.future.is_some()
            && !slot.queued
        {
            slot.queued = true;
            self.ready.push_back(id.0);
        }
    }

    pub(crate) fn next_ready(&mut self) -> Option<(TaskId, RawFuture)> {
        while let Some(id) = self.ready.pop_front() {
            let slot = &mut self.slots[id as usize];
            slot.queued = false;
            if let Some(future) = slot.future {
                return Some((TaskId(id), future));
            }
        }
        None
    }

    pub(crate) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    pub(crate) fn ready_len(&self) -> usize {
        self.ready.len()
    }

    pub(crate) fn timer(&mut self, id: TaskId) -> Option<&mut Timer> {
        let slot = self.slots.get_mut(id.0 as usize)?;
        slot.future.is_some().then_some(&mut slot.timer)
    }

    fn any(&self) -> Option<TaskId> {
        self.slots.iter().position(|slot| slot.future.is_some()).map(|id| TaskId(id as u32))
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        for (layout, list) in &self.memory {
            for memory in list {
                // SAFETY: allocated with this layout in `memory_for`, and nothing lives in it.
                unsafe { dealloc(memory.as_ptr(), *layout) };
            }
        }
    }
}

/// Drops what a task held. Called without any borrow of the core, because destructors act on the core.
pub(crate) fn drop_future(future: RawFuture) {
    // SAFETY: `remove` gave out this future once; nothing polls it any more.
    unsafe { (future.table.drop)(future.memory) };
    with(|core| core.tasks.keep_memory(future));
}

/// Drops every task of the current core; for the end of a core's life.
pub(crate) fn drop_all() {
    while let Some((future, _)) = with(|core| core.tasks.any().and_then(|id| core.tasks.remove(id))) {
        drop_future(future);
    }
}

/// Polls every task that is ready until all wait, at most `budget` polls. Says how many were polled.
pub(crate) fn run_ready(budget: u32) -> u32 {
    let mut context = Context::from_waker(std::task::Waker::noop());
    let mut polls = 0;
    while polls < budget {
        let Some((id, future)) = with(Core::next_task) else { break };
        polls += 1;
        // SAFETY: the slot holds the future alive; only this loop polls, and only it removes a finished one.
        if unsafe { future.poll(&mut context) }.is_ready() {
            if let Some((future, timer)) = with(|core| core.tasks.remove(id)) {
                with(|core| core.timers.cancel(timer));
                drop_future(future);
            }
        } else {
            with(|core| core.after_poll(id));
        }
    }
    polls
}

impl Core {
    fn next_task(&mut self) -> Option<(TaskId, RawFuture)> {
        let next = self.tasks.next_ready();
        self.tasks.current = next.map_or(TaskId::NONE, |(id, _)| id);
        self.poll_deadline = u64::MAX;
        next
    }

    fn after_poll(&mut self, id: TaskId) {
        let deadline = self.poll_deadline;
        if let Some(timer) = self.tasks.timer(id) {
            self.timers.set(timer, deadline, Owner::Task(id.0));
        }
        self.tasks.current = TaskId::NONE;
    }

    /// The task that is being polled waits until `at_ns` at most.
    #[inline]
    pub(crate) fn due(&mut self, at_ns: u64) {
        self.poll_deadline = self.poll_deadline.min(at_ns);
    }
}
