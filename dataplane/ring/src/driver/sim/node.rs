//! One core's side of the network: what it submitted, what completed, the buffers it provided.

use super::network::Network;
use crate::driver::{Completion, Group, Kind, Tag};
use crate::host::Address;
use crate::wake::Wake;
use std::collections::{HashMap, VecDeque};
use std::ptr::NonNull;

/// What stands in a buffer that the driver owns.
const POISON: u8 = 0xdb;

pub(super) struct Node {
    pub(super) submitted: VecDeque<Submission>,
    /// Completed, not delivered, in order.
    pub(super) done: Vec<Done>,
    /// The descriptor of each operation whose last completion was not delivered yet.
    pub(super) under_way: HashMap<u64, i32>,
    pub(super) groups: [Provided; 2],
    pub(super) wake: Wake,
    pub(super) wake_tag: Option<Tag>,
}

pub(super) struct Done {
    /// The descriptor; -1 for a cancel or a wake.
    pub(super) fd: i32,
    pub(super) completion: Completion,
    /// A send's memory, and what it held when it was sent.
    pub(super) sent: Option<Sent>,
}

/// What was taken from a send's memory, and from where.
#[derive(Default)]
pub(super) struct Sent {
    pub(super) bytes: Vec<u8>,
    pub(super) slices: Vec<(NonNull<u8>, usize)>,
}

/// An operation as it was queued.
pub(super) enum Submission {
    Accept { fd: i32, tag: Tag },
    Receive { fd: i32, into: Into, tag: Tag },
    Send { fd: i32, slices: Vec<(NonNull<u8>, usize)>, tag: Tag },
    Connect { fd: i32, address: Address, tag: Tag },
    Readable { fd: i32, tag: Tag },
    Cancel { target: Tag, tag: Tag },
    Close { fd: i32 },
}

/// Where a receive puts its bytes.
#[derive(Clone, Copy)]
pub(super) enum Into {
    Provided { group: Group, multishot: bool },
    Memory { memory: NonNull<u8>, length: u32 },
}

/// The ring of provided buffers of one group.
#[derive(Default)]
pub(super) struct Provided {
    ring: VecDeque<Buffer>,
    unpublished: Vec<Buffer>,
    /// For each buffer that was ever provided: whether the driver has it, and how much was written into it.
    known: Vec<(bool, u32)>,
}

#[derive(Clone, Copy)]
struct Buffer {
    id: u16,
    memory: NonNull<u8>,
    length: u32,
}

impl Node {
    pub(super) fn new() -> Node {
        Node {
            submitted: VecDeque::new(),
            done: Vec::new(),
            under_way: HashMap::new(),
            groups: Default::default(),
            wake: Wake::new(None),
            wake_tag: None,
        }
    }

    pub(super) fn has_work(&self) -> bool {
        !self.submitted.is_empty() || !self.done.is_empty() || (self.wake_tag.is_some() && self.wake.is_rung())
    }

    fn look_at_wake(&mut self) {
        if self.wake.is_rung()
            && let Some(tag) = self.wake_tag.take()
        {
            let completion = Completion { tag, result: 8, buffer: None, more: false };
            self.done.push(Done { fd: -1, completion, sent: None });
        }
    }
}

impl Done {
    /// Whether two completions keep their order: those of one operation; and a failure that was told to the send, before
    /// the mere end that the receive then saw (it saw it only because the send had been told).
    fn keeps_order_with(&self, other: &Done) -> bool {
        let failed = |done: &Done| done.completion.tag.kind() == Kind::Send && done.completion.result < 0;
        let ended = |done: &Done| done.completion.tag.kind() == Kind::Receive && done.completion.result == 0;
        self.completion.tag == other.completion.tag
            || (self.fd == other.fd && (failed(self) && ended(other) || failed(other) && ended(self)))
    }
}

impl Provided {
    /// Takes a buffer over; false when the driver had it already.
    pub(super) fn put(&mut self, id: u16, memory: NonNull<u8>, length: u32) -> bool {
        if self.known.len() <= id as usize {
            self.known.resize(id as usize + 1, (false, 0));
        }
        let (here, written) = &mut self.known[id as usize];
        // SAFETY: the core hands the buffer over with `length` bytes of memory, and has no handle to it any more.
        unsafe { memory.write_bytes(POISON, (*written).min(length) as usize) };
        *written = 0;
        self.unpublished.push(Buffer { id, memory, length });
        !std::mem::replace(here, true)
    }

    pub(super) fn publish(&mut self) {
        self.ring.extend(self.unpublished.drain(..));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ring.is_empty()
    }

    /// The first buffer's number, memory and length. Only [`Provided::taken`] takes it.
    pub(super) fn first(&self) -> Option<(u16, NonNull<u8>, u32)> {
        self.ring.front().map(|buffer| (buffer.id, buffer.memory, buffer.length))
    }

    /// The first buffer was filled with `count` bytes.
    pub(super) fn taken(&mut self, count: u32) {
        if let Some(buffer) = self.ring.pop_front() {
            self.known[buffer.id as usize] = (false, count);
        }
    }

    pub(super) fn missing(&self) -> usize {
        self.known.iter().filter(|(here, _)| !here).count()
    }
}

impl Network {
    /// One enter of a node's ring: takes submissions, hands out completions.
    pub(super) fn enter(&mut self, node: usize, done: &mut Vec<Completion>) {
        let full = self.random.happens(self.faults.ring_full);
        let slots = if full { self.random.size(self.faults.ring_slots) } else { usize::MAX };
        for _ in 0..slots {
            let Some(submission) = self.nodes[node].submitted.pop_front() else { break };
            self.submit(node, submission);
        }
        self.nodes[node].look_at_wake();
        self.reorder(node);
        self.deliver(node, done);
    }

    /// Exchanges neighbours of different operations; one operation's completions keep their order.
    fn reorder(&mut self, node: usize) {
        for at in 1..self.nodes[node].done.len() {
            let swap = self.random.happens(self.faults.reorder);
            let list = &mut self.nodes[node].done;
            if swap && !list[at].keeps_order_with(&list[at - 1]) {
                list.swap(at, at - 1);
            }
        }
    }

    fn deliver(&mut self, node: usize, out: &mut Vec<Completion>) {
        let mut held: Vec<Done> = Vec::new();
        for done in std::mem::take(&mut self.nodes[node].done) {
            if self.random.happens(self.faults.hold) || held.iter().any(|other| other.keeps_order_with(&done)) {
                held.push(done);
            } else {
                self.check_sent(&done);
                self.delivered(node, &done.completion);
                out.push(done.completion);
            }
        }
        self.nodes[node].done = held;
    }

    /// Memory under a send belongs to the driver until the completion is delivered.
    fn check_sent(&self, done: &Done) {
        let Some(sent) = &done.sent else { return };
        let mut rest = &sent.bytes[..];
        for (memory, length) in &sent.slices {
            let (these, after) = rest.split_at(rest.len().min(*length));
            // SAFETY: the core keeps a send's memory alive until its completion: `driver`'s contract, tested here.
            let now = unsafe { std::slice::from_raw_parts(memory.as_ptr(), these.len()) };
            if now != these {
                self.fail("memory of a send changed before its completion");
            }
            rest = after;
        }
    }

    fn delivered(&mut self, node: usize, completion: &Completion) {
        let tag = completion.tag;
        for value in [node as u64, tag.0, completion.result as u64, self.now_ns] {
            self.mix(value);
        }
        self.mix(completion.buffer.map_or(u64::MAX, u64::from) << 1 | u64::from(completion.more));
        if completion.more || matches!(tag.kind(), Kind::Wake | Kind::Nothing | Kind::Cancel | Kind::Disarm) {
            return;
        }
        match self.nodes[node].under_way.remove(&tag.0) {
            Some(fd) => self.end_of_operation(fd, tag.kind()),
            None => self.fail(&format!("a completion of {tag:?}, which is not under way")),
        }
    }

    fn mix(&mut self, value: u64) {
        self.trace = (self.trace ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    }
}
