//! Accepting: a multishot accept per listening socket.
//!
//! [`Bound`] is an address that is bound but belongs to no core yet; it can be sent to the core that will accept.

use crate::core::{Core, with};
use crate::driver::{Completion, Kind, Tag};
use crate::host::Address;
use crate::socket::{Error, Socket};
use crate::task::TaskId;
use std::collections::VecDeque;
use std::future::Future;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::task::{Context, Poll};

/// A listening socket on its way to a core.
#[derive(Debug)]
pub enum Bound {
    /// A descriptor that listens.
    Descriptor(OwnedFd),
    /// An address of the simulated network.
    Simulated(Address),
}

/// A listening socket of this core. Dropping it cancels the accept and closes it; connections that were accepted but
/// not taken are closed.
#[derive(Debug)]
pub struct Listener {
    index: u32,
}

impl Listener {
    /// Starts to accept on the current core.
    ///
    /// # Errors
    /// Only in the simulation: the address is taken.
    pub fn new(bound: Bound) -> std::io::Result<Listener> {
        with(|core| {
            let fd = core.driver.listen(bound)?;
            Ok(Listener { index: core.listeners.insert(fd) })
        })
    }

    /// Says whether clients speak first: then the kernel may hold a connection back until its first bytes are there, and
    /// accepting and receiving take one wake instead of two. A connection that stays silent comes about a second later.
    pub fn client_speaks_first(&self, first: bool) {
        with(|core| {
            let fd = core.listeners.entries[self.index as usize].fd;
            core.driver.defer_accept(fd, first);
        });
    }

    /// The next connection. Arms the accept when it is not; connections that arrive between calls wait in line.
    pub fn accept(&self) -> Accept<'_> {
        Accept { listener: self }
    }

    /// A connection that has already arrived.
    pub fn try_accept(&self) -> Option<Socket> {
        with(|core| {
            let fd = core.listeners.entries[self.index as usize].arrived.pop_front()?;
            Some(core.adopt(fd))
        })
    }

    /// Stops accepting until the next [`Listener::accept`]; what the kernel queues meanwhile waits in its backlog.
    pub fn pause(&self) {
        with(|core| core.disarm(self.index));
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        with(|core| core.close_listener(self.index));
    }
}

/// Accepts. Made by [`Listener::accept`].
#[derive(Debug)]
pub struct Accept<'a> {
    listener: &'a Listener,
}

impl Future for Accept<'_> {
    type Output = Result<Socket, Error>;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        with(|core| core.poll_accept(self.listener.index))
    }
}

pub(crate) struct Listeners {
    entries: Vec<Entry>,
}

struct Entry {
    fd: i32,
    generation: u32,
    armed: bool,
    cancelling: bool,
    life: Life,
    failed: Option<Error>,
    arrived: VecDeque<i32>,
    acceptor: TaskId,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Life {
    Free,
    Open,
    Closing,
}

impl Listeners {
    pub(crate) fn new() -> Listeners {
        Listeners { entries: Vec::new() }
    }

    pub(crate) fn all_closed(&self) -> bool {
        self.entries.iter().all(|entry| entry.life == Life::Free)
    }

    fn insert(&mut self, fd: i32) -> u32 {
        let index = self.entries.iter().position(|entry| entry.life == Life::Free).unwrap_or(self.entries.len());
        let generation = self.entries.get(index).map_or(0, |entry| entry.generation + 1);
        let entry = Entry {
            fd,
            generation,
            armed: false,
            cancelling: false,
            life: Life::Open,
            failed: None,
            arrived: VecDeque::new(),
            acceptor: TaskId::NONE,
        };
        if index == self.entries.len() {
            self.entries.push(entry);
        } else {
            self.entries[index] = entry;
        }
        index as u32
    }
}

impl Core {
    fn poll_accept(&mut self, index: u32) -> Poll<Result<Socket, Error>> {
        let current = self.tasks.current;
        let entry = &mut self.listeners.entries[index as usize];
        if let Some(fd) = entry.arrived.pop_front() {
            return Poll::Ready(Ok(self.adopt(fd)));
        }
        if let Some(error) = entry.failed.take() {
            return Poll::Ready(Err(error));
        }
        entry.acceptor = current;
        if !entry.armed {
            entry.armed = true;
            let (fd, tag) = (entry.fd, Tag::new(Kind::Accept, entry.generation, index));
            self.driver.accept(fd, tag);
        }
        Poll::Pending
    }

    pub(crate) fn accepted(&mut self, completion: &Completion) {
        let index = completion.tag.index();
        let entry = &mut self.listeners.entries[index as usize];
        if !completion.more {
            entry.armed = false;
            entry.cancelling = false;
        }
        match completion.result {
            fd if fd >= 0 && entry.life == Life::Open => entry.arrived.push_back(fd),
            fd if fd >= 0 => self.driver.close(fd),
            errno => match -errno {
                // The client was gone before it was accepted, or the accept was cancelled: accept again.
                libc::ECANCELED | libc::ECONNABORTED | libc::EINTR | libc::EAGAIN => {}
                errno => entry.failed = Some(Error::from_errno(errno)),
            },
        }
        let acceptor = self.listeners.entries[index as usize].acceptor;
        self.tasks.wake(acceptor);
        self.finish_closing_listener(index);
    }

    fn disarm(&mut self, index: u32) {
        let entry = &mut self.listeners.entries[index as usize];
        if entry.armed && !entry.cancelling {
            entry.cancelling = true;
            let target = Tag::new(Kind::Accept, entry.generation, index);
            self.driver.cancel(target, Tag::new(Kind::Disarm, entry.generation, index));
        }
    }

    /// The cancel of an accept completed. One that found nothing though the accept goes on is tried again.
    pub(crate) fn disarmed(&mut self, completion: &Completion) {
        let index = completion.tag.index();
        let entry = &mut self.listeners.entries[index as usize];
        let same = entry.generation & 0xff_ffff == completion.tag.generation();
        if same && entry.cancelling && completion.result == -libc::ENOENT {
            entry.cancelling = false;
            self.disarm(index);
        }
    }

    fn close_listener(&mut self, index: u32) {
        self.disarm(index);
        let entry = &mut self.listeners.entries[index as usize];
        entry.life = Life::Closing;
        entry.acceptor = TaskId::NONE;
        for fd in std::mem::take(&mut entry.arrived) {
            self.driver.close(fd);
        }
        self.finish_closing_listener(index);
    }

    fn finish_closing_listener(&mut self, index: u32) {
        let entry = &mut self.listeners.entries[index as usize];
        if entry.life == Life::Closing && !entry.armed {
            entry.life = Life::Free;
            let fd = entry.fd;
            self.driver.close(fd);
        }
    }
}
