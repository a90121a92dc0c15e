//! What one send carries: up to 16 parts of memory that it owns until the kernel is done with them; when its owner lays
//! them out anew (around a cipher's headers), up to 128 slices of them.
//!
//! A [`Message`] that is dropped while its send is under way leaves its slot to the completion, which frees it.

use crate::buffer::{Buf, OutBuf};
use crate::core::{Core, with};
use crate::driver::{Completion, Kind, Tag};
use crate::socket::{Error, Socket};
use crate::task::TaskId;
use std::future::Future;
use std::ops::{Deref, Range};
use std::pin::Pin;
use std::task::{Context, Poll};

/// Slices that one send carries at most.
pub(crate) const SLICES: usize = 128;
/// Parts that are added to one, at most.
const PARTS: usize = 16;

/// Bytes to be sent, in order.
#[derive(Debug)]
pub struct Message {
    slot: u32,
}

/// Where a message lives while the kernel may look at it.
pub(crate) struct Slot {
    pub(crate) slices: [libc::iovec; SLICES],
    pub(crate) header: libc::msghdr,
    /// First slice not wholly sent.
    pub(crate) first: u8,
    pub(crate) count: u8,
    /// The FIN follows.
    pub(crate) last: bool,
    owned: Vec<Part>,
    state: State,
    generation: u32,
    sent: u64,
    fd: i32,
    socket: u32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Held by a `Message`, not under way.
    Held,
    /// Under way for a task.
    UnderWay(TaskId),
    /// Under way, and nobody waits for it.
    Orphan,
    /// Ended with this result.
    Done(Result<(), Error>),
}

/// A part of a message.
#[derive(Debug)]
pub enum Part {
    /// Output memory.
    Out(OutBuf),
    /// A received buffer.
    Buf(Buf),
    /// Bytes that live for ever.
    Fixed(&'static [u8]),
}

impl Deref for Part {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        match self {
            Part::Out(out) => out,
            Part::Buf(buf) => buf,
            Part::Fixed(bytes) => bytes,
        }
    }
}

pub(crate) struct Messages {
    // Boxed, because the kernel keeps the addresses of a slot's parts.
    #[expect(clippy::vec_box, reason = "slots must not move when the list grows")]
    slots: Vec<Box<Slot>>,
    free: Vec<u32>,
}

impl Message {
    /// An empty message.
    pub fn new() -> Message {
        Message { slot: with(|core| core.messages.take()) }
    }

    /// Parts that can still be added.
    pub fn room(&self) -> usize {
        with(|core| PARTS.saturating_sub(core.messages.slots[self.slot as usize].count as usize))
    }

    /// Bytes not yet sent.
    pub fn length(&self) -> usize {
        with(|core| core.messages.slots[self.slot as usize].pending())
    }

    /// Bytes of this message that were handed to the kernel.
    pub fn sent(&self) -> u64 {
        with(|core| core.messages.slots[self.slot as usize].sent)
    }

    /// Adds output memory.
    pub fn out(&mut self, out: OutBuf) {
        self.part(Part::Out(out));
    }

    /// Adds a received buffer.
    pub fn buf(&mut self, buf: Buf) {
        self.part(Part::Buf(buf));
    }

    /// Adds bytes that live for ever.
    pub fn fixed(&mut self, bytes: &'static [u8]) {
        self.part(Part::Fixed(bytes));
    }

    /// What is empty takes no place: a body's framing comes in many pieces that carry nothing.
    fn part(&mut self, part: Part) {
        if part.is_empty() {
            return;
        }
        with(|core| {
            let slot = &mut core.messages.slots[self.slot as usize];
            slot.add(part.as_ptr(), part.len());
            slot.owned.push(part);
        });
    }

    /// Looks at the parts of a message of which nothing was sent.
    pub fn with_parts<R>(&self, look: impl FnOnce(&[Part]) -> R) -> R {
        with(|core| look(&core.messages.slots[self.slot as usize].owned))
    }

    /// Takes out all parts of a message of which nothing was sent, through `each`; what was said by
    /// [`Message::is_last`] stays. The message is empty then.
    pub fn take_parts(&mut self, mut each: impl FnMut(Part)) {
        let mut owned = with(|core| {
            let slot = &mut core.messages.slots[self.slot as usize];
            debug_assert!(slot.sent == 0 && slot.state == State::Held);
            (slot.first, slot.count) = (0, 0);
            std::mem::take(&mut slot.owned)
        });
        owned.drain(..).for_each(&mut each);
        with(|core| core.messages.slots[self.slot as usize].owned = owned);
    }

    /// Adds parts of which nothing is sent yet, and slices of them in the order given: the part's number (from 0, of those
    /// given here) and a range of its bytes. What lies outside a part is cut to it.
    ///
    /// # Panics
    /// With more than 128 slices in all.
    pub fn lay_out(&mut self, parts: impl Iterator<Item = Part>, slices: impl Iterator<Item = (usize, Range<usize>)>) {
        with(|core| {
            let slot = &mut core.messages.slots[self.slot as usize];
            let before = slot.owned.len();
            slot.owned.extend(parts);
            for (part, range) in slices {
                let bytes = slot.owned.get(before + part).map(|part| &**part).unwrap_or_default();
                let bytes = bytes.get(range.start..range.end.min(bytes.len())).unwrap_or_default();
                let (start, length) = (bytes.as_ptr(), bytes.len());
                slot.add(start, length);
            }
        });
    }

    /// Whether writing ends behind it.
    pub fn ends_writing(&self) -> bool {
        with(|core| core.messages.slots[self.slot as usize].last)
    }

    /// Says that writing ends right behind this message, by closing or by [`Socket::shutdown_write`]: the kernel may then
    /// keep the last bytes back for a moment and send them with the FIN, one segment instead of two.
    pub fn is_last(&mut self) {
        with(|core| core.messages.slots[self.slot as usize].last = true);
    }
}

impl Default for Message {
    fn default() -> Message {
        Message::new()
    }
}

impl Drop for Message {
    fn drop(&mut self) {
        with(|core| core.messages.let_go(self.slot));
    }
}

/// Sends all of a message. Made by [`Socket::send`].
#[derive(Debug)]
pub struct Send<'a> {
    pub(crate) socket: &'a Socket,
    pub(crate) message: &'a mut Message,
    pub(crate) until_ns: u64,
}

impl Future for Send<'_> {
    type Output = Result<(), Error>;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        with(|core| core.poll_send(self.socket.index(), self.message.slot, self.until_ns))
    }
}

impl Core {
    fn poll_send(&mut self, socket: u32, slot: u32, until_ns: u64) -> Poll<Result<(), Error>> {
        match self.messages.slots[slot as usize].state {
            State::Done(result) => {
                self.messages.slots[slot as usize].state = State::Held;
                if result.is_ok() {
                    self.messages.slots[slot as usize].clear();
                }
                return Poll::Ready(result);
            }
            State::Held if self.messages.slots[slot as usize].pending() == 0 => {
                // It may hold buffers of which nothing was left to send.
                self.messages.slots[slot as usize].clear();
                return Poll::Ready(Ok(()));
            }
            State::Held if !self.sockets.may_send(socket) => return Poll::Ready(Err(Error::Reset)),
            State::Held => {
                self.messages.slots[slot as usize].state = State::UnderWay(self.tasks.current);
                self.start_send(socket, slot);
            }
            State::UnderWay(_) | State::Orphan if self.now_ns >= until_ns => return Poll::Ready(Err(Error::TimedOut)),
            // Another task may poll it than the one that began.
            State::UnderWay(_) | State::Orphan => {
                self.messages.slots[slot as usize].state = State::UnderWay(self.tasks.current);
            }
        }
        self.due(until_ns);
        Poll::Pending
    }

    fn start_send(&mut self, socket: u32, index: u32) {
        let fd = self.sockets.begin_send(socket, index);
        let slot = &mut self.messages.slots[index as usize];
        slot.socket = socket;
        slot.fd = fd;
        self.driver.send(fd, slot, Tag::new(Kind::Send, slot.generation, index));
    }

    pub(crate) fn sent(&mut self, completion: &Completion) {
        let index = completion.tag.index();
        let slot = &mut self.messages.slots[index as usize];
        debug_assert_eq!(slot.generation & 0xff_ffff, completion.tag.generation());
        let result = match completion.result {
            // A send that reports nothing would be repeated for ever.
            0 => Err(Error::Reset),
            errno if errno < 0 => Err(Error::from_errno(-errno)),
            count => {
                slot.advance(count as usize);
                Ok(())
            }
        };
        if result.is_ok() && slot.pending() > 0 && self.sockets.may_send(slot.socket) {
            self.driver.send(slot.fd, slot, completion.tag);
            return;
        }
        let result = if slot.pending() > 0 { result.and(Err(Error::Reset)) } else { result };
        let socket = slot.socket;
        match slot.state {
            State::UnderWay(task) => {
                slot.state = State::Done(result);
                self.tasks.wake(task);
            }
            _ => self.messages.free(index),
        }
        // EPIPE: the input had ended before (or we said FIN); what was received is whole. ECANCELED: our own doing.
        let broken = completion.result < 0 && !matches!(-completion.result, libc::EPIPE | libc::ECANCELED);
        self.send_ended(socket, broken);
    }

    /// The tag of a send that is under way, to cancel it.
    pub(crate) fn send_tag(&self, slot: u32) -> Tag {
        Tag::new(Kind::Send, self.messages.slots[slot as usize].generation, slot)
    }
}

impl Messages {
    pub(crate) fn new() -> Messages {
        Messages { slots: Vec::new(), free: Vec::new() }
    }

    fn take(&mut self) -> u32 {
        if let Some(index) = self.free.pop() {
            self.slots[index as usize].state = State::Held;
            return index;
        }
        self.slots.push(Box::new(Slot::new()));
        self.slots.len() as u32 - 1
    }

    fn let_go(&mut self, index: u32) {
        let slot = &mut self.slots[index as usize];
        match slot.state {
            State::UnderWay(_) => slot.state = State::Orphan,
            State::Held | State::Done(_) => self.free(index),
            State::Orphan => {}
        }
    }

    fn free(&mut self, index: u32) {
        let slot = &mut self.slots[index as usize];
        slot.clear();
        slot.generation = slot.generation.wrapping_add(1);
        slot.state = State::Held;
        self.free.push(index);
    }
}

impl Slot {
    fn new() -> Slot {
        Slot {
            slices: [libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }; SLICES],
            // SAFETY: a msghdr of zeros is a valid one that names nothing.
            header: unsafe { std::mem::zeroed() },
            first: 0,
            count: 0,
            last: false,
            owned: Vec::with_capacity(PARTS),
            state: State::Held,
            generation: 0,
            sent: 0,
            fd: -1,
            socket: u32::MAX,
        }
    }

    fn add(&mut self, start: *const u8, length: usize) {
        if length == 0 {
            return;
        }
        assert!((self.count as usize) < SLICES, "a message has room for {SLICES} slices");
        self.slices[self.count as usize] = libc::iovec { iov_base: start as *mut _, iov_len: length };
        self.count += 1;
    }

    /// Slices that are still to be sent.
    pub(crate) fn rest(&self) -> &[libc::iovec] {
        &self.slices[self.first as usize..self.count as usize]
    }

    pub(crate) fn pending(&self) -> usize {
        self.rest().iter().map(|slice| slice.iov_len).sum()
    }

    fn advance(&mut self, mut count: usize) {
        self.sent += count as u64;
        while count > 0 && self.first < self.count {
            let slice = &mut self.slices[self.first as usize];
            let taken = count.min(slice.iov_len);
            // SAFETY: at most the slice's length.
            slice.iov_base = unsafe { slice.iov_base.cast::<u8>().add(taken) }.cast();
            slice.iov_len -= taken;
            count -= taken;
            if slice.iov_len == 0 {
                self.first += 1;
            }
        }
    }

    fn clear(&mut self) {
        self.owned.clear();
        self.first = 0;
        self.count = 0;
        self.last = false;
        self.sent = 0;
    }
}
