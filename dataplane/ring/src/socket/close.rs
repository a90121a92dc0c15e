//! Telling whoever waits for a socket, and closing: stop the work, cancel what is armed, and close the descriptor after
//! its last completion.

use super::{End, Error, Life, Mode, NONE, QUEUE_FULL, Receive};
use crate::core::Core;
use crate::driver::{Completion, Kind, Tag};
use crate::task::TaskId;
use crate::timer::{Owner, Timer};

impl Core {
    pub(super) fn look_for_failure(&mut self, index: u32) -> bool {
        let current = self.tasks.current;
        let entry = self.sockets.at(index);
        if let End::Failed(_) = entry.end {
            return true;
        }
        entry.reader = current;
        // Only an armed receive hears of it.
        if entry.receive == Receive::Idle && entry.queued < QUEUE_FULL {
            self.arm(index);
        }
        false
    }

    pub(super) fn break_all(&mut self) {
        for index in 0..self.sockets.entries.len() as u32 {
            let entry = self.sockets.at(index);
            if !matches!(entry.life, Life::Open | Life::Connecting) {
                continue;
            }
            entry.broken = true;
            entry.end = End::Failed(Error::Reset);
            let sending = entry.sending;
            if sending != NONE {
                self.cancel(index, self.send_tag(sending));
            }
            self.tell(index);
        }
    }

    pub(super) fn cancel_receive(&mut self, index: u32) {
        let entry = self.sockets.at(index);
        if let Some(kind) = entry.receive.kind() {
            let target = Tag::new(kind, entry.generation, index);
            // A receive into the reserve keeps its state: the completion must find the buffer's number.
            if entry.receive == Receive::Multishot {
                entry.receive = Receive::Cancelling;
            }
            self.cancel(index, target);
        }
    }

    pub(super) fn cancel(&mut self, index: u32, target: Tag) {
        let entry = self.sockets.at(index);
        entry.armed += 1;
        let tag = Tag::new(Kind::Cancel, entry.generation, index);
        self.driver.cancel(target, tag);
    }

    pub(crate) fn cancelled(&mut self, completion: &Completion) {
        let index = completion.tag.index();
        let entry = self.sockets.at(index);
        debug_assert_eq!(entry.generation, completion.tag.generation());
        entry.armed -= 1;
        entry.missed |= completion.result == -libc::ENOENT;
        if entry.missed {
            self.cancel_missed(index);
        }
        self.tell(index);
    }

    /// A cancel found nothing: its target had ended, or the kernel was just between two steps of it (a retry that is
    /// queued as task work is in no list). What is still armed is cancelled again.
    pub(super) fn cancel_missed(&mut self, index: u32) {
        let entry = self.sockets.at(index);
        if entry.life == Life::Closing {
            // All cancels have come back.
            if entry.armed == entry.operations() {
                entry.missed = false;
                self.cancel_all(index);
            }
            return;
        }
        entry.missed = false;
        if entry.receive == Receive::Cancelling {
            entry.receive = Receive::Multishot;
            if entry.queued >= QUEUE_FULL || entry.mode == Mode::Bulk {
                self.cancel_receive(index);
            }
        }
    }

    pub(super) fn cancel_all(&mut self, index: u32) {
        self.cancel_receive(index);
        let entry = self.sockets.at(index);
        let (sending, connecting, generation) = (entry.sending, entry.address.is_some(), entry.generation);
        if sending != NONE {
            self.cancel(index, self.send_tag(sending));
        }
        if connecting {
            self.cancel(index, Tag::new(Kind::Connect, generation, index));
        }
    }

    /// The send on this socket ended; `broken`: it was told that the connection failed.
    pub(crate) fn send_ended(&mut self, index: u32, broken: bool) {
        let entry = self.sockets.at(index);
        entry.armed -= 1;
        entry.sending = NONE;
        entry.broken |= broken;
        if broken && entry.end == End::Eof {
            entry.end = End::Failed(Error::Reset);
        }
        self.finish_closing(index);
    }

    /// Tells whoever waits for the socket, and takes the last step of closing.
    pub(super) fn tell(&mut self, index: u32) {
        let entry = self.sockets.at(index);
        let reader = std::mem::replace(&mut entry.reader, TaskId::NONE);
        if reader != TaskId::NONE {
            self.tasks.wake(reader);
        } else if entry.watched {
            self.tell_watcher(index);
        }
        self.finish_closing(index);
    }

    pub(super) fn tell_watcher(&mut self, index: u32) {
        let entry = self.sockets.at(index);
        if entry.queued == 0 && entry.end == End::None {
            // Nothing to tell: a receive that has to be armed again.
            if entry.receive == Receive::Idle {
                self.arm(index);
            }
            return;
        }
        if let Some(token) = self.sockets.unwatch(index) {
            self.watched.push_back(token);
            self.tasks.wake(self.watcher);
        }
    }

    pub(super) fn watch(&mut self, index: u32, token: u64, until_ns: u64) {
        let entry = self.sockets.at(index);
        entry.watched = true;
        entry.token = token;
        entry.reader = TaskId::NONE;
        let mut timer = entry.timer;
        self.timers.set(&mut timer, until_ns, Owner::Socket(index));
        let entry = self.sockets.at(index);
        entry.timer = timer;
        if entry.queued > 0 || entry.end != End::None || entry.receive == Receive::Idle {
            self.tell_watcher(index);
        }
    }

    pub(super) fn close(&mut self, index: u32) {
        while let Some(buf) = self.sockets.pop(index) {
            drop(buf);
        }
        let entry = self.sockets.at(index);
        entry.life = Life::Closing;
        entry.watched = false;
        entry.reader = TaskId::NONE;
        let timer = std::mem::replace(&mut entry.timer, Timer::NONE);
        self.timers.cancel(timer);
        self.cancel_all(index);
        self.finish_closing(index);
    }

    pub(super) fn finish_closing(&mut self, index: u32) {
        let entry = self.sockets.at(index);
        if entry.life != Life::Closing || entry.armed > 0 {
            return;
        }
        let fd = entry.fd;
        entry.life = Life::Free;
        entry.generation = (entry.generation + 1) & 0xff_ffff;
        self.sockets.open -= 1;
        self.sockets.free.push(index);
        self.driver.close(fd);
    }
}
