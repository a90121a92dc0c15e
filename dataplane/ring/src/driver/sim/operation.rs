//! What the kernel does with operations on descriptors: takes them, works on them when something happened, ends them.

use super::network::{Connection, Is, Network, What};
use super::node::{Done, Into, Sent, Submission};
use crate::driver::{Completion, Kind, Tag};
use std::ptr::NonNull;

/// Buffers of one socket that a multishot receive fills in one pass.
const A_PASS: usize = 32;
/// Until the next pass.
const PASS_NS: u64 = 1_000;

/// The operations under way on one descriptor.
#[derive(Default)]
pub(super) struct Operations {
    accept: Option<Plain>,
    pub(super) connect: Option<Plain>,
    readable: Option<Plain>,
    receive: Option<Receive>,
    send: Option<Send>,
}

#[derive(Clone, Copy)]
pub(super) struct Plain {
    tag: Tag,
    serial: u64,
}

#[derive(Clone, Copy)]
struct Receive {
    tag: Tag,
    serial: u64,
    into: Into,
}

struct Send {
    tag: Tag,
    serial: u64,
    sent: Sent,
    /// Ends here, short or not.
    until: usize,
}

impl Network {
    pub(super) fn submit(&mut self, node: usize, submission: Submission) {
        let serial = self.serial();
        match submission {
            Submission::Accept { fd, tag } => {
                self.operations(fd).accept = Some(Plain { tag, serial });
                self.pump_accept(fd);
            }
            Submission::Connect { fd, address, tag } => {
                self.operations(fd).connect = Some(Plain { tag, serial });
                self.begin_connect(fd, address);
            }
            Submission::Readable { fd, tag } => {
                self.operations(fd).readable = Some(Plain { tag, serial });
                self.pump_receive(fd);
            }
            Submission::Receive { fd, into, tag } => {
                self.operations(fd).receive = Some(Receive { tag, serial, into });
                self.begin_receive(node, fd, into);
            }
            Submission::Send { fd, slices, tag } => self.begin_send(fd, slices, tag, serial),
            Submission::Cancel { target, tag } => self.cancel(node, target, tag),
            Submission::Close { fd } => self.close(fd),
        }
    }

    fn operations(&mut self, fd: i32) -> &mut Operations {
        self.descriptor(fd).operations.get_or_insert_default()
    }

    fn post(&mut self, fd: i32, tag: Tag, result: i32, buffer: Option<u16>, more: bool, sent: Option<Sent>) {
        let node = self.descriptor(fd).node;
        self.nodes[node].done.push(Done { fd, completion: Completion { tag, result, buffer, more }, sent });
    }

    fn end(&mut self, fd: i32, tag: Tag, result: i32) {
        self.post(fd, tag, result, None, false, None);
    }

    fn side(&mut self, fd: i32) -> Option<(usize, usize)> {
        match self.descriptor(fd).is {
            Is::Connected { connection, side } => Some((connection, side)),
            _ => None,
        }
    }
}

/// Accepting and connecting.
impl Network {
    pub(super) fn pump_accept(&mut self, listener: i32) {
        while let Some(Plain { tag, .. }) = self.operations(listener).accept {
            let fails = self.random.happens(self.faults.accept_fails);
            let descriptor = self.descriptor(listener);
            let node = descriptor.node;
            let Is::Listening { backlog, .. } = &mut descriptor.is else { return };
            let Some(connection) = backlog.pop_front() else { return };
            if fails {
                self.operations(listener).accept = None;
                return self.accept_fails(listener, tag, connection);
            }
            let fd = self.open(node, Is::Connected { connection, side: 1 });
            if let Some(made) = &mut self.connections[connection] {
                made.ends[1].fd = fd;
            }
            let more = !self.random.happens(self.faults.multishot_ends);
            if !more {
                self.operations(listener).accept = None;
            }
            self.post(listener, tag, fd, None, more, None);
        }
    }

    fn accept_fails(&mut self, listener: i32, tag: Tag, connection: usize) {
        let errno = [libc::EMFILE, libc::ENFILE, libc::ECONNABORTED][self.random.below(3) as usize];
        if errno == libc::ECONNABORTED {
            self.reset(connection, 0);
        } else if let Is::Listening { backlog, .. } = &mut self.descriptor(listener).is {
            backlog.push_front(connection);
        }
        self.end(listener, tag, -errno);
    }

    pub(super) fn connect_ends(&mut self, fd: i32, result: i32) {
        let operations = self.descriptor(fd).operations.as_mut();
        if let Some(connect) = operations.and_then(|operations| operations.connect.take()) {
            self.end(fd, connect.tag, result);
        }
    }
}

/// Receiving.
impl Network {
    fn begin_receive(&mut self, node: usize, fd: i32, into: Into) {
        // A receive takes its buffer before it looks whether something is there (liburing issue 1275).
        if let Into::Provided { group, .. } = into
            && self.nodes[node].groups[group as usize].is_empty()
            && self.random.happens(self.faults.idle_no_buffers)
        {
            return self.end_receive(fd, -libc::ENOBUFS);
        }
        self.pump_receive(fd);
    }

    fn end_receive(&mut self, fd: i32, result: i32) {
        if let Some(receive) = self.operations(fd).receive.take() {
            self.end(fd, receive.tag, result);
        }
    }

    /// Works on what waits for input.
    pub(super) fn pump_receive(&mut self, fd: i32) {
        let Some((connection, side)) = self.side(fd) else { return };
        self.pump_readable(fd, connection, side);
        for _ in 0..A_PASS {
            let Some(receive) = self.operations(fd).receive else { return };
            let Some(made) = &mut self.connections[connection] else { return };
            if made.streams[1 - side].arrived > 0 {
                self.receive(fd, connection, side, receive);
            } else if made.streams[1 - side].ended {
                self.end_receive(fd, 0);
            } else if let Some(errno) = made.ends[side].error.take() {
                self.end_receive(fd, -errno);
            } else if made.ends[side].broken {
                self.end_receive(fd, 0);
            } else {
                return;
            }
        }
        self.schedule(self.now_ns + PASS_NS, What::More { fd });
    }

    fn pump_readable(&mut self, fd: i32, connection: usize, side: usize) {
        let Some(made) = &self.connections[connection] else { return };
        let incoming = &made.streams[1 - side];
        if (incoming.arrived > 0 || incoming.ended || made.ends[side].broken)
            && let Some(readable) = self.operations(fd).readable.take()
        {
            self.end(fd, readable.tag, i32::from(libc::POLLIN));
        }
    }

    /// One piece of what has arrived.
    fn receive(&mut self, fd: i32, connection: usize, side: usize, receive: Receive) {
        let node = self.descriptor(fd).node;
        let (memory, length, buffer) = match receive.into {
            Into::Memory { memory, length } => (memory, length, None),
            Into::Provided { group, .. } => match self.nodes[node].groups[group as usize].first() {
                Some((id, memory, length)) => (memory, length, Some(id)),
                None => return self.end_receive(fd, -libc::ENOBUFS),
            },
        };
        let short = self.random.happens(self.faults.short_receive);
        let Some(made) = &mut self.connections[connection] else { return };
        let mut count = made.streams[1 - side].arrived.min(length as usize);
        if short {
            count = 1 + self.random.below(count as u64) as usize;
        }
        take(made, 1 - side, memory, count);
        let mut more = false;
        if let Into::Provided { group, multishot } = receive.into {
            self.nodes[node].groups[group as usize].taken(count as u32);
            more = multishot && !self.random.happens(self.faults.multishot_ends);
        }
        if !more {
            self.operations(fd).receive = None;
        }
        self.post(fd, receive.tag, count as i32, buffer, more, None);
        self.later(What::Room { connection, side: 1 - side });
    }
}

/// Moves bytes of a stream that have arrived into memory.
fn take(connection: &mut Connection, from: usize, memory: NonNull<u8>, count: usize) {
    let stream = &mut connection.streams[from];
    let (front, back) = stream.bytes.as_slices();
    let first = count.min(front.len());
    // SAFETY: the memory belongs to the driver and has room for `count` bytes: a provided buffer of at least that
    // length, or what a receive into memory was given.
    unsafe {
        memory.copy_from_nonoverlapping(NonNull::from(front).cast(), first);
        memory.add(first).copy_from_nonoverlapping(NonNull::from(back).cast(), count - first);
    }
    stream.bytes.drain(..count);
    stream.arrived -= count;
}

/// Sending.
impl Network {
    fn begin_send(&mut self, fd: i32, slices: Vec<(NonNull<u8>, usize)>, tag: Tag, serial: u64) {
        let length: usize = slices.iter().map(|(_, length)| length).sum();
        if length == 0 {
            self.fail("a send of nothing");
        }
        let short = self.random.happens(self.faults.short_send);
        let until = if short { 1 + self.random.below(length as u64) as usize } else { length };
        let sent = Sent { bytes: Vec::new(), slices };
        self.operations(fd).send = Some(Send { tag, serial, sent, until });
        match self.side(fd) {
            // The kernel looks at the memory only later.
            Some((connection, side)) if self.random.happens(self.faults.hold) => {
                self.later(What::Room { connection, side });
            }
            _ => self.pump_send(fd),
        }
    }

    /// Works on the send of a descriptor.
    pub(super) fn pump_send(&mut self, fd: i32) {
        let Some((connection, side)) = self.side(fd) else { return };
        let Some(send) = self.descriptor(fd).operations.as_mut().and_then(|operations| operations.send.take()) else {
            return;
        };
        let Some(made) = &mut self.connections[connection] else { return };
        let done = send.sent.bytes.len();
        if made.ends[side].broken || made.streams[side].shut {
            let result = match done {
                0 => -made.ends[side].error.take().unwrap_or(libc::EPIPE),
                done => done as i32,
            };
            return self.post(fd, send.tag, result, None, false, Some(send.sent));
        }
        let stream = &mut made.streams[side];
        let count = (send.until - done).min(stream.capacity.saturating_sub(stream.bytes.len()));
        self.transfer(fd, connection, side, send, count);
    }

    fn transfer(&mut self, fd: i32, connection: usize, side: usize, mut send: Send, count: usize) {
        if let Some(made) = &mut self.connections[connection] {
            let before = send.sent.bytes.len();
            send.sent.copy(count);
            made.streams[side].bytes.extend(&send.sent.bytes[before..]);
        }
        let mut left = count;
        while left > 0 {
            let piece = self.random.size(self.faults.segment_bytes).clamp(1, left);
            left -= piece;
            self.travel(connection, side, What::Segment { connection, side, count: piece });
        }
        if send.sent.bytes.len() == send.until {
            self.post(fd, send.tag, send.until as i32, None, false, Some(send.sent));
        } else {
            self.operations(fd).send = Some(send);
        }
    }
}

impl Sent {
    /// Copies the next `count` bytes out of the slices.
    fn copy(&mut self, mut count: usize) {
        let mut skip = self.bytes.len();
        for (memory, length) in &self.slices {
            let from = skip.min(*length);
            skip -= from;
            let these = count.min(length - from);
            // SAFETY: within a slice of a send whose completion was not delivered: `driver`'s contract keeps it.
            let bytes = unsafe { std::slice::from_raw_parts(memory.as_ptr().add(from), these) };
            self.bytes.extend_from_slice(bytes);
            count -= these;
        }
    }
}

/// Cancelling.
impl Network {
    fn cancel(&mut self, node: usize, target: Tag, tag: Tag) {
        let fd = self.nodes[node].under_way.get(&target.0).copied();
        let serial = fd.and_then(|fd| self.serial_of(fd, target.kind()));
        let result = match fd.zip(serial) {
            None => -libc::ENOENT,
            Some(_) if self.random.happens(self.faults.cancel_misses) => -libc::ENOENT,
            Some((fd, serial)) if self.random.happens(self.faults.cancel_late) => {
                self.later(What::CancelLate { fd, kind: target.kind(), serial });
                -libc::EALREADY
            }
            Some(_) => 0,
        };
        let completion = Completion { tag, result, buffer: None, more: false };
        self.nodes[node].done.push(Done { fd: -1, completion, sent: None });
        if let Some(fd) = fd.filter(|_| result == 0) {
            self.cancel_now(fd, target.kind());
        }
    }

    pub(super) fn cancel_late(&mut self, fd: i32, kind: Kind, serial: u64) {
        if self.serial_of(fd, kind) == Some(serial) {
            self.cancel_now(fd, kind);
        }
    }

    /// The serial number of an operation that the kernel still works on.
    fn serial_of(&mut self, fd: i32, kind: Kind) -> Option<u64> {
        let operations = self.descriptor(fd).operations.as_ref()?;
        match kind {
            Kind::Accept => operations.accept.map(|accept| accept.serial),
            Kind::Connect => operations.connect.map(|connect| connect.serial),
            Kind::Readable => operations.readable.map(|readable| readable.serial),
            Kind::Receive => operations.receive.map(|receive| receive.serial),
            Kind::Send => operations.send.as_ref().map(|send| send.serial),
            Kind::Nothing | Kind::Cancel | Kind::Disarm | Kind::Wake => None,
        }
    }

    fn cancel_now(&mut self, fd: i32, kind: Kind) {
        let operations = self.operations(fd);
        let plain = match kind {
            Kind::Accept => operations.accept.take(),
            Kind::Connect => operations.connect.take(),
            Kind::Readable => operations.readable.take(),
            _ => None,
        };
        if let Some(plain) = plain {
            self.end(fd, plain.tag, -libc::ECANCELED);
        } else if kind == Kind::Receive {
            self.end_receive(fd, -libc::ECANCELED);
        } else if kind == Kind::Send
            && let Some(send) = self.operations(fd).send.take()
        {
            // What went out already is told (MSG_WAITALL).
            let done = send.sent.bytes.len() as i32;
            let result = if done > 0 { done } else { -libc::ECANCELED };
            self.post(fd, send.tag, result, None, false, Some(send.sent));
        }
    }
}
