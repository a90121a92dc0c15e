//! Receiving: what is armed, what came, and how the next is armed; standing in line when buffers have run out.

use super::{BULK_AFTER, End, Error, Life, Mode, QUEUE_FULL, Receive, SMALL_AFTER};
use crate::buffer::Buf;
use crate::core::Core;
use crate::driver::{Completion, Group, Kind, Tag};
use crate::task::TaskId;
use std::task::Poll;

impl Core {
    #[inline]
    pub(super) fn poll_recv(&mut self, index: u32, until_ns: u64) -> Poll<Result<Option<Buf>, Error>> {
        if let Some(buf) = self.take_queued(index) {
            return Poll::Ready(Ok(Some(buf)));
        }
        let (now, current) = (self.now_ns, self.tasks.current);
        let entry = self.sockets.at(index);
        match entry.end {
            End::Eof => return Poll::Ready(Ok(None)),
            End::Failed(error) => return Poll::Ready(Err(error)),
            End::None => {}
        }
        entry.reader = current;
        if entry.receive == Receive::Idle {
            self.arm(index);
        }
        if now >= until_ns {
            return Poll::Ready(Err(Error::TimedOut));
        }
        self.due(until_ns);
        Poll::Pending
    }

    #[inline]
    pub(super) fn take_queued(&mut self, index: u32) -> Option<Buf> {
        let buf = self.sockets.pop(index)?;
        let entry = self.sockets.at(index);
        // Bulk is read ahead by one buffer, so that receiving and sending overlap.
        if entry.mode == Mode::Bulk && entry.receive == Receive::Idle && entry.end == End::None && entry.queued == 0 {
            self.arm(index);
        }
        Some(buf)
    }

    pub(super) fn arm(&mut self, index: u32) {
        let entry = self.sockets.at(index);
        if entry.life != Life::Open || entry.end != End::None {
            return;
        }
        let multishot = entry.mode == Mode::Stream;
        let group = entry.group();
        entry.receive = if multishot { Receive::Multishot } else { Receive::Once(group) };
        entry.armed += 1;
        let (fd, tag) = (entry.fd, Tag::new(Kind::Receive, entry.generation, index));
        self.driver.receive(fd, group, multishot, tag);
    }

    pub(crate) fn received(&mut self, completion: &Completion) {
        let index = completion.tag.index();
        let entry = self.sockets.at(index);
        debug_assert_eq!(entry.generation & 0xff_ffff, completion.tag.generation());
        let buf = self.received_bytes(completion);
        let entry = self.sockets.at(index);
        if !completion.more {
            entry.armed -= 1;
            entry.receive = Receive::Idle;
        }
        match completion.result {
            0 if entry.broken => entry.end = End::Failed(Error::Reset),
            0 => entry.end = End::Eof,
            count if count > 0 => {}
            errno => match -errno {
                libc::ECANCELED | libc::EINTR | libc::EAGAIN => {}
                libc::ENOBUFS => self.no_buffer(index),
                errno => entry.end = End::Failed(Error::from_errno(errno)),
            },
        }
        if let Some(buf) = buf {
            self.queue(index, buf);
        }
        self.tell(index);
    }

    /// The buffer that a receive filled, from the pool or the reserve.
    pub(super) fn received_bytes(&mut self, completion: &Completion) -> Option<Buf> {
        let entry = self.sockets.at(completion.tag.index());
        let length = completion.result.max(0) as u32;
        if let Receive::Reserve(id) = entry.receive {
            return Some(self.buffers.reserve_filled(id, length));
        }
        let group = match entry.receive {
            Receive::Once(group) => group,
            _ => Group::Small,
        };
        completion.buffer.map(|id| self.buffers.filled(group, id, length))
    }

    pub(super) fn queue(&mut self, index: u32, buf: Buf) {
        if buf.is_empty() || self.sockets.at(index).life != Life::Open {
            return;
        }
        self.adapt(index, buf.len());
        let entry = self.sockets.at(index);
        let awaited = entry.reader != TaskId::NONE && entry.queued == 0;
        let buf = if awaited || buf.len() >= self.buffers.bytes(Group::Small) as usize / 4 {
            buf
        } else {
            match self.buffers.compact(self.sockets.last(index), buf) {
                Ok(None) => return,
                Ok(Some(piece)) => piece,
                Err(buf) => buf,
            }
        };
        self.sockets.push(index, buf);
        let entry = self.sockets.at(index);
        if entry.queued >= QUEUE_FULL && entry.receive == Receive::Multishot {
            self.cancel_receive(index);
        }
    }

    /// Chooses how the socket receives next by the sizes of what came.
    pub(super) fn adapt(&mut self, index: u32, length: usize) {
        let small = self.buffers.bytes(Group::Small) as usize;
        let entry = self.sockets.at(index);
        match entry.mode {
            Mode::Bulk if length >= small => entry.row = 0,
            Mode::Bulk => {
                entry.row += 1;
                if entry.row >= SMALL_AFTER {
                    entry.mode = Mode::Stream;
                    entry.row = 0;
                }
            }
            Mode::First | Mode::Stream if length < small => {
                entry.mode = Mode::Stream;
                entry.row = 0;
            }
            Mode::First | Mode::Stream => {
                entry.mode = Mode::Stream;
                entry.row += 1;
                if entry.row >= BULK_AFTER {
                    self.become_bulk(index);
                }
            }
        }
    }

    pub(super) fn expect(&mut self, index: u32, bytes: u64) {
        if bytes >= 4 * u64::from(self.buffers.bytes(Group::Small)) && self.sockets.at(index).mode != Mode::Bulk {
            self.become_bulk(index);
        }
    }

    pub(super) fn become_bulk(&mut self, index: u32) {
        let entry = self.sockets.at(index);
        entry.mode = Mode::Bulk;
        entry.row = 0;
        if entry.receive == Receive::Multishot {
            self.cancel_receive(index);
        }
    }

    pub(super) fn no_buffer(&mut self, index: u32) {
        let entry = self.sockets.at(index);
        if entry.life != Life::Open {
            return;
        }
        let group = entry.group();
        if self.buffers.ran_empty(&mut self.driver, group) {
            self.arm(index);
            return;
        }
        // Only those with input stand in line: idle sockets would hold the reserve while others need it.
        let entry = self.sockets.at(index);
        if !entry.is_awaited() {
            return;
        }
        entry.receive = Receive::Readable;
        entry.armed += 1;
        let (fd, tag) = (entry.fd, Tag::new(Kind::Readable, entry.generation, index));
        self.driver.readable(fd, tag);
    }

    pub(crate) fn became_readable(&mut self, completion: &Completion) {
        let index = completion.tag.index();
        let entry = self.sockets.at(index);
        debug_assert_eq!(entry.generation, completion.tag.generation());
        entry.armed -= 1;
        if entry.life == Life::Open && !entry.is_awaited() {
            entry.receive = Receive::Idle;
        } else if entry.life == Life::Open {
            entry.receive = Receive::InLine;
            let (group, accepted, socket) = (entry.group(), entry.accepted, (index, entry.generation));
            self.buffers.stand_in_line(group, accepted, socket);
        } else {
            entry.receive = Receive::Idle;
            self.finish_closing(index);
        }
    }

    /// Lets as many of those in line receive as there are buffers, and a few more into the reserve.
    pub(crate) fn serve_line(&mut self) {
        for group in [Group::Small, Group::Large] {
            let mut served = 0;
            while let Some((index, generation)) = self.buffers.next_in_line(group, served) {
                if self.still_in_line(index, generation) {
                    self.arm(index);
                    served += 1;
                }
            }
        }
        while let Some(((index, generation), id)) = self.buffers.next_for_reserve() {
            if !self.still_in_line(index, generation) {
                self.buffers.reserve_unused(id);
                continue;
            }
            let (memory, length) = self.buffers.reserve_memory(id);
            let entry = self.sockets.at(index);
            entry.receive = Receive::Reserve(id);
            entry.armed += 1;
            let (fd, tag) = (entry.fd, Tag::new(Kind::Receive, generation, index));
            self.driver.receive_into(fd, memory, length, tag);
        }
    }

    pub(super) fn still_in_line(&mut self, index: u32, generation: u32) -> bool {
        let entry = self.sockets.at(index);
        let stands = entry.generation == generation && entry.receive == Receive::InLine && entry.life == Life::Open;
        if stands && !entry.is_awaited() {
            entry.receive = Receive::Idle;
            return false;
        }
        stands
    }
}
