//! What executes operations: io_uring, or the simulation. The rest of the room does not know which.
//!
//! An operation is queued with a [`Tag`]; its completions carry the tag back. Memory that an operation names stays
//! where it is until its last completion: the caller's duty, kept by `message`, `socket` and `buffer`.

pub mod sim;
pub(crate) mod uring;

use crate::core::Config;
use crate::host::{Address, Features};
use crate::message::Slot;
use crate::wake::Wake;
use sim::SimDriver;
use std::io;
use std::ptr::NonNull;
use uring::{StartError, UringDriver};

/// Which group of provided buffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Group {
    Small = 0,
    Large = 1,
}

/// What kind of operation completed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    Nothing = 0,
    Receive = 1,
    Send = 2,
    Accept = 3,
    Connect = 4,
    Cancel = 5,
    Wake = 6,
    /// Waits until there is something to receive, without a buffer.
    Readable = 7,
    /// Cancels an accept.
    Disarm = 8,
}

/// Names an operation: its kind, the slot it belongs to, and the slot's generation (24 bits), so that a late
/// completion cannot reach a successor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tag(pub(crate) u64);

impl Tag {
    pub(crate) const fn new(kind: Kind, generation: u32, index: u32) -> Tag {
        Tag((kind as u64) << 56 | ((generation & 0xff_ffff) as u64) << 32 | index as u64)
    }

    pub(crate) fn kind(self) -> Kind {
        match self.0 >> 56 {
            1 => Kind::Receive,
            2 => Kind::Send,
            3 => Kind::Accept,
            4 => Kind::Connect,
            5 => Kind::Cancel,
            6 => Kind::Wake,
            7 => Kind::Readable,
            8 => Kind::Disarm,
            _ => Kind::Nothing,
        }
    }

    pub(crate) fn generation(self) -> u32 {
        (self.0 >> 32) as u32 & 0xff_ffff
    }

    pub(crate) fn index(self) -> u32 {
        self.0 as u32
    }
}

/// The end, or one step, of an operation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Completion {
    pub(crate) tag: Tag,
    /// Bytes or a descriptor; negative: an errno.
    pub(crate) result: i32,
    /// The provided buffer that was filled.
    pub(crate) buffer: Option<u16>,
    /// A multishot operation goes on.
    pub(crate) more: bool,
}

pub(crate) enum Driver {
    Uring(Box<UringDriver>),
    Sim(Box<SimDriver>),
}

macro_rules! either {
    ($self:expr, $driver:ident => $call:expr) => {
        match $self {
            Driver::Uring($driver) => $call,
            Driver::Sim($driver) => $call,
        }
    };
}

impl Driver {
    pub(crate) fn uring(config: &Config, features: &Features) -> Result<Driver, StartError> {
        Ok(Driver::Uring(Box::new(UringDriver::new(config, features)?)))
    }

    /// Monotonic nanoseconds.
    #[inline]
    pub(crate) fn now_ns(&self) -> u64 {
        either!(self, driver => driver.now_ns())
    }

    /// Accepts until it fails or is cancelled; each result is a descriptor.
    pub(crate) fn accept(&mut self, fd: i32, tag: Tag) {
        either!(self, driver => driver.accept(fd, tag))
    }

    /// Receives into a provided buffer: once, or until it ends (multishot).
    #[inline]
    pub(crate) fn receive(&mut self, fd: i32, group: Group, multishot: bool, tag: Tag) {
        either!(self, driver => driver.receive(fd, group, multishot, tag))
    }

    /// Receives once into the memory given, which stays the driver's until the completion.
    pub(crate) fn receive_into(&mut self, fd: i32, memory: NonNull<u8>, length: u32, tag: Tag) {
        either!(self, driver => driver.receive_into(fd, memory, length, tag))
    }

    /// Completes once when there is something to receive (bytes, the end, an error), or at once when there already is.
    pub(crate) fn readable(&mut self, fd: i32, tag: Tag) {
        either!(self, driver => driver.readable(fd, tag))
    }

    /// Sends what the slot holds from where it stands; may end short. The slot stays until the completion.
    #[inline]
    pub(crate) fn send(&mut self, fd: i32, slot: &mut Slot, tag: Tag) {
        either!(self, driver => driver.send(fd, slot, tag))
    }

    /// A new socket for `address`, and the start of its connection. The address stays until the completion.
    pub(crate) fn socket(&mut self, address: &Address) -> io::Result<i32> {
        either!(self, driver => driver.socket(address))
    }

    pub(crate) fn connect(&mut self, fd: i32, address: &Address, tag: Tag) {
        either!(self, driver => driver.connect(fd, address, tag))
    }

    /// Cancels the operation `target`; completes with the tag given, in any order with the target's own end.
    pub(crate) fn cancel(&mut self, target: Tag, tag: Tag) {
        either!(self, driver => driver.cancel(target, tag))
    }

    /// Closes a descriptor on which nothing is armed.
    pub(crate) fn close(&mut self, fd: i32) {
        either!(self, driver => driver.close(fd))
    }

    /// Says that no more will be sent (FIN).
    pub(crate) fn shutdown_write(&mut self, fd: i32) {
        either!(self, driver => driver.shutdown_write(fd))
    }

    /// Makes the close of this socket a reset.
    pub(crate) fn reset_on_close(&mut self, fd: i32) {
        either!(self, driver => driver.reset_on_close(fd))
    }

    /// The address at the other end, where there is one.
    pub(crate) fn peer(&self, fd: i32) -> Option<Address> {
        either!(self, driver => driver.peer(fd))
    }

    /// The address at this end.
    pub(crate) fn local(&self, fd: i32) -> Option<Address> {
        either!(self, driver => driver.local(fd))
    }

    /// Starts listening on a descriptor or, in the simulation, an address.
    pub(crate) fn listen(&mut self, bound: crate::listener::Bound) -> io::Result<i32> {
        either!(self, driver => driver.listen(bound))
    }

    /// Whether connections are held back until their first bytes are there.
    pub(crate) fn defer_accept(&mut self, fd: i32, defer: bool) {
        match self {
            Driver::Uring(_) => crate::host::defer_accept(fd, defer),
            Driver::Sim(_) => {}
        }
    }

    /// Hands a buffer of a group to the driver, with [`Driver::publish`] later.
    #[inline]
    pub(crate) fn provide(&mut self, group: Group, id: u16, memory: NonNull<u8>, length: u32) {
        either!(self, driver => driver.provide(group, id, memory, length))
    }

    /// Makes provided buffers visible.
    #[inline]
    pub(crate) fn publish(&mut self) {
        either!(self, driver => driver.publish())
    }

    /// How to wake this core from another thread.
    pub(crate) fn wake(&self) -> Wake {
        either!(self, driver => driver.wake())
    }

    /// Completes once when the core was woken.
    pub(crate) fn arm_wake(&mut self, tag: Tag) {
        either!(self, driver => driver.arm_wake(tag))
    }

    /// Submits, waits for a completion or the timeout when `wait`, and collects what completed.
    #[inline]
    pub(crate) fn enter(&mut self, wait: bool, timeout_ns: Option<u64>, done: &mut Vec<Completion>) {
        either!(self, driver => driver.enter(wait, timeout_ns, done))
    }
}
