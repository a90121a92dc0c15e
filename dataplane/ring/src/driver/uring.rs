//! The driver on io_uring.
//!
//! Floor: kernel 6.1 (SINGLE_ISSUER and DEFER_TASKRUN, multishot accept and receive, provided-buffer rings). What newer
//! kernels have is used where the probe found it: no SQ index array (6.6), the ring's own descriptor registered.

use super::{Completion, Group, Kind, Tag};
use crate::core::Config;
use crate::host::{self, Address};
pub use crate::host::{Features, StartError};
use crate::listener::Bound;
use crate::message::Slot;
use crate::wake::Wake;
use io_uring::{IoUring, cqueue, opcode, squeue, types};
use std::io;
use std::os::fd::{AsRawFd, IntoRawFd};
use std::ptr::NonNull;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Instant;

/// Most entries that a provided-buffer ring can have.
const MOST_BUFFERS: u16 = 32768;

pub(crate) struct UringDriver {
    ring: IoUring,
    /// What `enter` names the ring by: its index among registered rings, or its descriptor.
    enter_fd: i32,
    enter_flags: u32,
    groups: [BufferRing; 2],
    wake: Wake,
    woken: Box<u64>,
    origin: Instant,
}

/// When the clock of every core of this process was zero: they share endpoint state that has times in it.
#[expect(clippy::disallowed_methods, reason = "the driver is where time comes from")]
fn origin() -> Instant {
    static ORIGIN: OnceLock<Instant> = OnceLock::new();
    *ORIGIN.get_or_init(Instant::now)
}

impl UringDriver {
    pub(crate) fn new(config: &Config, features: &Features) -> Result<UringDriver, StartError> {
        let ring = host::open_ring(config.submissions, config.completions, features)?;
        let mut enter_fd = ring.as_raw_fd();
        let mut enter_flags = enter_flag::EXT_ARG;
        if features.registered_ring
            && let Some(index) = host::register_ring(ring.as_raw_fd())
        {
            enter_fd = index;
            enter_flags |= enter_flag::REGISTERED_RING;
        }
        let small = BufferRing::new(&ring, Group::Small, config.small.most)?;
        let large = BufferRing::new(&ring, Group::Large, config.large.most)?;
        let wake = Wake::new(Some(host::event().map_err(StartError::Other)?));
        Ok(UringDriver {
            ring,
            enter_fd,
            enter_flags,
            groups: [small, large],
            wake,
            woken: Box::new(0),
            origin: origin(),
        })
    }

    #[inline]
    pub(crate) fn now_ns(&self) -> u64 {
        self.origin.elapsed().as_nanos() as u64
    }

    #[inline]
    fn push(&mut self, entry: squeue::Entry) {
        // SAFETY: callers queue operations whose memory stays in place until their last completion (see `driver`).
        while unsafe { self.ring.submission().push(&entry) }.is_err() {
            // The queue is full: hand it over without waiting.
            if let Err(error) = self.ring.submit()
                && error.raw_os_error() != Some(libc::EINTR)
                && error.raw_os_error() != Some(libc::EBUSY)
                && error.raw_os_error() != Some(libc::EAGAIN)
            {
                panic!("io_uring refuses submissions: {error}");
            }
        }
    }

    pub(crate) fn accept(&mut self, fd: i32, tag: Tag) {
        self.push(opcode::AcceptMulti::new(types::Fd(fd)).flags(libc::SOCK_CLOEXEC).build().user_data(tag.0));
    }

    #[inline]
    pub(crate) fn receive(&mut self, fd: i32, group: Group, multishot: bool, tag: Tag) {
        let entry = if multishot {
            opcode::RecvMulti::new(types::Fd(fd), group as u16).build()
        } else {
            opcode::Recv::new(types::Fd(fd), std::ptr::null_mut(), 0)
                .buf_group(group as u16)
                .build()
                .flags(squeue::Flags::BUFFER_SELECT)
        };
        self.push(entry.user_data(tag.0));
    }

    pub(crate) fn receive_into(&mut self, fd: i32, memory: NonNull<u8>, length: u32, tag: Tag) {
        self.push(opcode::Recv::new(types::Fd(fd), memory.as_ptr(), length).build().user_data(tag.0));
    }

    pub(crate) fn readable(&mut self, fd: i32, tag: Tag) {
        self.push(opcode::PollAdd::new(types::Fd(fd), libc::POLLIN as u32).build().user_data(tag.0));
    }

    #[inline]
    pub(crate) fn send(&mut self, fd: i32, slot: &mut Slot, tag: Tag) {
        // MSG_WAITALL: the kernel finishes short sends itself.
        let more = if slot.last { libc::MSG_MORE } else { 0 };
        let flags = libc::MSG_NOSIGNAL | libc::MSG_WAITALL | more;
        let rest = slot.rest();
        let entry = if let [slice] = rest {
            opcode::Send::new(types::Fd(fd), slice.iov_base.cast(), slice.iov_len as u32).flags(flags).build()
        } else {
            let (first, count) = (rest.as_ptr(), rest.len());
            slot.header.msg_iov = first.cast_mut();
            slot.header.msg_iovlen = count as _;
            opcode::SendMsg::new(types::Fd(fd), &slot.header).flags(flags as u32).build()
        };
        self.push(entry.user_data(tag.0));
    }

    pub(crate) fn socket(&mut self, address: &Address) -> io::Result<i32> {
        host::stream_socket(address).map(IntoRawFd::into_raw_fd)
    }

    pub(crate) fn connect(&mut self, fd: i32, address: &Address, tag: Tag) {
        let (pointer, length) = address.raw();
        self.push(opcode::Connect::new(types::Fd(fd), pointer, length).build().user_data(tag.0));
    }

    pub(crate) fn cancel(&mut self, target: Tag, tag: Tag) {
        self.push(opcode::AsyncCancel::new(target.0).build().user_data(tag.0));
    }

    pub(crate) fn close(&mut self, fd: i32) {
        self.push(opcode::Close::new(types::Fd(fd)).build().user_data(Tag::new(Kind::Nothing, 0, 0).0));
    }

    pub(crate) fn shutdown_write(&mut self, fd: i32) {
        host::shutdown_write(fd);
    }

    pub(crate) fn reset_on_close(&mut self, fd: i32) {
        host::reset_on_close(fd);
    }

    pub(crate) fn peer(&self, fd: i32) -> Option<Address> {
        host::peer(fd)
    }

    pub(crate) fn local(&self, fd: i32) -> Option<Address> {
        host::local(fd)
    }

    pub(crate) fn listen(&mut self, bound: Bound) -> io::Result<i32> {
        match bound {
            Bound::Descriptor(fd) => Ok(fd.into_raw_fd()),
            Bound::Simulated(_) => Err(io::Error::from_raw_os_error(libc::EADDRNOTAVAIL)),
        }
    }

    #[inline]
    pub(crate) fn provide(&mut self, group: Group, id: u16, memory: NonNull<u8>, length: u32) {
        self.groups[group as usize].put(id, memory, length);
    }

    #[inline]
    pub(crate) fn publish(&mut self) {
        for group in &mut self.groups {
            group.publish();
        }
    }

    pub(crate) fn wake(&self) -> Wake {
        self.wake.clone()
    }

    pub(crate) fn arm_wake(&mut self, tag: Tag) {
        if let Some(fd) = self.wake.event() {
            let into: *mut u64 = &mut *self.woken;
            self.push(opcode::Read::new(types::Fd(fd), into.cast(), 8).build().user_data(tag.0));
        }
    }

    pub(crate) fn enter(&mut self, wait: bool, timeout_ns: Option<u64>, done: &mut Vec<Completion>) {
        let want = u32::from(wait && timeout_ns != Some(0));
        let queued = self.ring.submission().len() as u32;
        let result = host::enter(self.enter_fd, queued, want, self.enter_flags, timeout_ns.filter(|_| want > 0));
        if let Err(errno) = result
            && !matches!(errno, libc::EINTR | libc::ETIME | libc::EBUSY | libc::EAGAIN)
        {
            panic!("io_uring_enter failed: {}", io::Error::from_raw_os_error(errno));
        }
        done.extend(self.ring.completion().map(|entry| Completion {
            tag: Tag(entry.user_data()),
            result: entry.result(),
            buffer: cqueue::buffer_select(entry.flags()),
            more: cqueue::more(entry.flags()),
        }));
    }
}

/// Flags of `io_uring_enter` (include/uapi/linux/io_uring.h).
mod enter_flag {
    pub(super) const EXT_ARG: u32 = 1 << 3;
    pub(super) const REGISTERED_RING: u32 = 1 << 4;
}

/// A ring of provided buffers: shared with the kernel, which takes at the head; we put at the tail.
struct BufferRing {
    entries: NonNull<types::BufRingEntry>,
    length: usize,
    mask: u16,
    tail: u16,
    published: u16,
}

impl BufferRing {
    fn new(ring: &IoUring, group: Group, most: u16) -> Result<BufferRing, StartError> {
        let count = most.next_power_of_two().min(MOST_BUFFERS);
        let length = count as usize * size_of::<types::BufRingEntry>();
        let entries = host::map_memory(length).cast::<types::BufRingEntry>();
        // SAFETY: the mapping is page-aligned, holds `count` entries, and lives until the ring is gone (field order
        // in UringDriver: the ring is dropped first).
        unsafe { ring.submitter().register_buf_ring_with_flags(entries.as_ptr() as u64, count, group as u16, 0) }
            .map_err(StartError::from_setup)?;
        Ok(BufferRing { entries, length, mask: count - 1, tail: 0, published: 0 })
    }

    #[inline]
    fn put(&mut self, id: u16, memory: NonNull<u8>, length: u32) {
        // SAFETY: the index is masked to the ring; entries between head and tail are the kernel's, and this one is
        // not, because no more buffers exist than entries.
        let entry = unsafe { self.entries.add((self.tail & self.mask) as usize).as_mut() };
        entry.set_addr(memory.as_ptr() as u64);
        entry.set_len(length);
        entry.set_bid(id);
        self.tail = self.tail.wrapping_add(1);
    }

    #[inline]
    fn publish(&mut self) {
        if self.published != self.tail {
            self.published = self.tail;
            // SAFETY: the tail lies in the first entry's reserved field, shared with the kernel as an atomic.
            let tail = unsafe { &*types::BufRingEntry::tail(self.entries.as_ptr()).cast::<AtomicU16>() };
            tail.store(self.tail, Ordering::Release);
        }
    }
}

impl Drop for BufferRing {
    fn drop(&mut self) {
        host::unmap_memory(self.entries.cast(), self.length);
    }
}
