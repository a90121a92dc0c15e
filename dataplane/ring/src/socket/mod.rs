//! Sockets: receive, send, connect, watch, close.
//!
//! A socket is an entry in the core's table and a [`Socket`] that owns it. Closing is a protocol: dropping the
//! `Socket` stops the work → what is armed is cancelled → after its last completion the descriptor is closed → the
//! entry is free, under a new generation.
//!
//! Receiving adapts to what the connection carries. The first receive is single-shot (a connection with one request
//! then has nothing to cancel); later ones are multishot into small buffers; two full buffers in a row make it bulk:
//! single-shot into large buffers, the next armed while the last is sent; a row of small receives makes it small again.

mod close;
mod receive;

use crate::buffer::Buf;
use crate::core::{Core, with};
use crate::driver::{Completion, Group, Kind, Tag};
use crate::host::Address;
use crate::message::{Message, Send};
use crate::task::TaskId;
use crate::timer::Timer;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

/// Buffers that a connection holds before it stops receiving. A wake may have brought more: the kernel posts up to 32
/// buffers of one socket in a pass.
const QUEUE_FULL: u16 = 4;
/// Full buffers in a row that make a connection bulk.
const BULK_AFTER: u8 = 2;
/// Receives below a small buffer's size in a row that end bulk.
const SMALL_AFTER: u8 = 4;
const NONE: u32 = u32::MAX;

/// Why an operation on a socket failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// The time given passed.
    TimedOut,
    /// The peer reset the connection, or it broke.
    Reset,
    /// Nobody listens there (ECONNREFUSED, or no such unix socket).
    Refused,
    /// No way there (ENETUNREACH, EHOSTUNREACH).
    Unreachable,
    /// No descriptors, ports or memory left here (EMFILE, ENFILE, EADDRNOTAVAIL, ENOBUFS, ENOMEM).
    Exhausted,
    /// Any other errno.
    Other(i32),
}

impl Error {
    pub(crate) fn from_errno(errno: i32) -> Error {
        match errno {
            libc::ETIMEDOUT => Error::TimedOut,
            libc::ECONNRESET | libc::EPIPE | libc::ECONNABORTED | libc::ENOTCONN | libc::ECANCELED => Error::Reset,
            libc::ECONNREFUSED | libc::ENOENT => Error::Refused,
            libc::ENETUNREACH | libc::EHOSTUNREACH => Error::Unreachable,
            libc::EMFILE | libc::ENFILE | libc::EADDRNOTAVAIL | libc::ENOBUFS | libc::ENOMEM | libc::EAGAIN => {
                Error::Exhausted
            }
            other => Error::Other(other),
        }
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Error::TimedOut => f.write_str("timed out"),
            Error::Reset => f.write_str("connection reset"),
            Error::Refused => f.write_str("connection refused"),
            Error::Unreachable => f.write_str("unreachable"),
            Error::Exhausted => f.write_str("out of descriptors, ports or memory"),
            Error::Other(errno) => write!(f, "{}", std::io::Error::from_raw_os_error(*errno)),
        }
    }
}

impl std::error::Error for Error {}

/// The other end of a connection, as far as it has an address.
pub type Peer = Option<std::net::SocketAddr>;

/// How a socket receives now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Single-shot, small buffers: the first receive of an accepted connection.
    First,
    /// Multishot, small buffers.
    Stream,
    /// Single-shot, large buffers.
    Bulk,
}

/// A connected socket of this core. Dropping it closes the connection (with a reset when input was left unread, as
/// the kernel does).
#[derive(Debug)]
pub struct Socket {
    index: u32,
}

/// Connects to `address`.
///
/// # Errors
/// As the kernel says, or [`Error::TimedOut`] at `until_ns`.
pub async fn connect(address: &Address, until_ns: u64) -> Result<Socket, Error> {
    let socket = with(|core| core.start_connect(address))?;
    Connect { socket: &socket, until_ns }.await?;
    Ok(socket)
}

/// Breaks every connection of the current core, for the end of its process: what waits for one, or uses it from now on,
/// gets [`Error::Reset`]. What has arrived can still be taken.
pub fn break_all() {
    with(Core::break_all);
}

impl Socket {
    /// Memory that the core's table holds for one socket.
    pub const TABLE_BYTES: usize = size_of::<Entry>();

    /// The next bytes; `None` at the end of the stream. Cancel-safe: bytes that arrive meanwhile stay queued.
    ///
    /// # Errors
    /// A broken connection, or [`Error::TimedOut`] at `until_ns` (the connection can be used further).
    #[inline]
    pub fn recv(&self, until_ns: u64) -> Recv<'_> {
        Recv { socket: self, until_ns }
    }

    /// Bytes that have already arrived.
    #[inline]
    pub fn try_recv(&self) -> Option<Buf> {
        with(|core| core.take_queued(self.index))
    }

    /// Sends all of `message` and empties it. One send at a time.
    ///
    /// # Errors
    /// A broken connection: [`Message::sent`] says how much of it went out, and the rest stands in the message.
    /// [`Error::TimedOut`] at `until_ns`: the send is still under way, and the socket can only be closed.
    #[inline]
    pub fn send<'a>(&'a self, message: &'a mut Message, until_ns: u64) -> Send<'a> {
        Send { socket: self, message, until_ns }
    }

    /// Nothing has arrived, no end and no failure: an idle connection that can be used.
    pub fn is_quiet(&self) -> bool {
        with(|core| {
            let entry = core.sockets.at(self.index);
            entry.queued == 0 && entry.end == End::None
        })
    }

    /// Whether the connection has failed. If not, the current task is woken when it does (and by bytes that arrive): for
    /// one that waits for something else. An end of the peer's sending (FIN) is no failure.
    pub fn is_failed(&self) -> bool {
        with(|core| core.look_for_failure(self.index))
    }

    /// Instead of a task, `token` waits: once bytes, the end, an error or `until_ns` come, [`crate::watched`] yields it.
    pub fn watch(&self, token: u64, until_ns: u64) {
        with(|core| core.watch(self.index, token, until_ns));
    }

    /// Ends a watch. A token that is already on its way is still yielded.
    pub fn unwatch(&self) {
        with(|core| core.sockets.unwatch(self.index));
    }

    /// Says that nothing more will be sent (FIN), after what was sent.
    pub fn shutdown_write(&self) {
        with(|core| {
            let fd = core.sockets.at(self.index).fd;
            core.driver.shutdown_write(fd);
        });
    }

    /// Makes the coming close a reset: the peer must not take what it got for complete.
    pub fn reset_on_close(&self) {
        with(|core| {
            let fd = core.sockets.at(self.index).fd;
            core.driver.reset_on_close(fd);
        });
    }

    /// The address at the other end; `None` on unix sockets.
    pub fn peer(&self) -> Peer {
        with(|core| core.driver.peer(core.sockets.at(self.index).fd)).and_then(|address| address.ip())
    }

    /// The address at this end; `None` on unix sockets.
    pub fn local(&self) -> Peer {
        with(|core| core.driver.local(core.sockets.at(self.index).fd)).and_then(|address| address.ip())
    }

    /// How it receives now.
    pub fn mode(&self) -> Mode {
        with(|core| core.sockets.at(self.index).mode)
    }

    /// Says that at least `bytes` more are to come, so that bulk is received as bulk from the start.
    pub fn expect(&self, bytes: u64) {
        with(|core| core.expect(self.index, bytes));
    }

    pub(crate) fn index(&self) -> u32 {
        self.index
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        with(|core| core.close(self.index));
    }
}

/// Receives. Made by [`Socket::recv`].
#[derive(Debug)]
pub struct Recv<'a> {
    socket: &'a Socket,
    until_ns: u64,
}

impl Future for Recv<'_> {
    type Output = Result<Option<Buf>, Error>;

    #[inline]
    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        with(|core| core.poll_recv(self.socket.index, self.until_ns))
    }
}

struct Connect<'a> {
    socket: &'a Socket,
    until_ns: u64,
}

impl Future for Connect<'_> {
    type Output = Result<(), Error>;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        with(|core| core.poll_connect(self.socket.index, self.until_ns))
    }
}

pub(crate) struct Sockets {
    entries: Vec<Entry>,
    free: Vec<u32>,
    /// Queued buffers of all sockets, as linked lists.
    nodes: Vec<Node>,
    nodes_free: Vec<u32>,
    pub(crate) open: u32,
}

struct Node {
    buf: Option<Buf>,
    next: u32,
}

/// How the input ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    None,
    Eof,
    Failed(Error),
}

/// What is armed to receive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Receive {
    Idle,
    Once(Group),
    Multishot,
    /// Cancelled; its last completion is to come.
    Cancelling,
    /// Was refused for want of a buffer: waits for input without one.
    Readable,
    /// Has input, and is in line for a buffer.
    InLine,
    /// Into this buffer of the reserve.
    Reserve(u16),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    Free,
    Connecting,
    Open,
    /// Dropped; closes at its last completion.
    Closing,
}

impl Entry {
    /// Somebody waits for what comes. Where nobody does, nothing is read ahead while buffers are short: those that wait,
    /// for an answer perhaps on which all the others depend, need them. The next receive asks again.
    fn is_awaited(&self) -> bool {
        self.reader != TaskId::NONE || self.watched
    }
}

struct Entry {
    fd: i32,
    generation: u32,
    head: u32,
    tail: u32,
    reader: TaskId,
    sending: u32,
    /// Operations whose last completion is to come.
    armed: u16,
    queued: u16,
    end: End,
    receive: Receive,
    life: Life,
    mode: Mode,
    row: u8,
    watched: bool,
    /// A send was told of a failure of the connection. The kernel tells it once: a receive then sees a mere end.
    broken: bool,
    /// It was accepted, not made here.
    accepted: bool,
    /// A cancel found nothing.
    missed: bool,
    token: u64,
    timer: Timer,
    /// Where it connects to; the kernel reads it until the connection stands.
    address: Option<Box<Address>>,
}

impl Sockets {
    pub(crate) fn new() -> Sockets {
        Sockets { entries: Vec::new(), free: Vec::new(), nodes: Vec::new(), nodes_free: Vec::new(), open: 0 }
    }

    /// A table entry for a descriptor.
    fn insert(&mut self, fd: i32, life: Life, mode: Mode) -> Socket {
        self.open += 1;
        let index = self.free.pop().unwrap_or_else(|| {
            self.entries.push(Entry::free());
            self.entries.len() as u32 - 1
        });
        let generation = self.entries[index as usize].generation;
        self.entries[index as usize] =
            Entry { fd, life, mode, accepted: life == Life::Open, generation, ..Entry::free() };
        Socket { index }
    }

    #[inline]
    fn at(&mut self, index: u32) -> &mut Entry {
        &mut self.entries[index as usize]
    }

    /// Whether what is sent could arrive.
    pub(crate) fn may_send(&self, index: u32) -> bool {
        let entry = &self.entries[index as usize];
        entry.life == Life::Open && !entry.broken
    }

    pub(crate) fn begin_send(&mut self, index: u32, slot: u32) -> i32 {
        let entry = self.at(index);
        debug_assert_eq!(entry.sending, NONE, "one send at a time");
        entry.sending = slot;
        entry.armed += 1;
        entry.fd
    }

    pub(crate) fn watch_deadline(&mut self, index: u32, fire: bool) -> u64 {
        let entry = self.at(index);
        let deadline = if entry.watched { entry.timer.deadline_ns } else { u64::MAX };
        if fire {
            entry.timer = Timer::NONE;
        }
        deadline
    }

    /// Ends a watch; its token.
    pub(crate) fn unwatch(&mut self, index: u32) -> Option<u64> {
        let entry = self.at(index);
        std::mem::take(&mut entry.watched).then_some(entry.token)
    }

    fn push(&mut self, index: u32, buf: Buf) {
        let node = Node { buf: Some(buf), next: NONE };
        let id = match self.nodes_free.pop() {
            Some(id) => {
                self.nodes[id as usize] = node;
                id
            }
            None => {
                self.nodes.push(node);
                self.nodes.len() as u32 - 1
            }
        };
        let tail = std::mem::replace(&mut self.at(index).tail, id);
        if tail == NONE {
            self.at(index).head = id;
        } else {
            self.nodes[tail as usize].next = id;
        }
        self.at(index).queued += 1;
    }

    fn pop(&mut self, index: u32) -> Option<Buf> {
        let head = self.at(index).head;
        if head == NONE {
            return None;
        }
        let node = &mut self.nodes[head as usize];
        let buf = node.buf.take();
        let next = node.next;
        self.nodes_free.push(head);
        let entry = self.at(index);
        entry.head = next;
        entry.queued -= 1;
        if next == NONE {
            entry.tail = NONE;
        }
        buf
    }

    fn last(&mut self, index: u32) -> Option<&mut Buf> {
        let tail = self.at(index).tail;
        self.nodes.get_mut(tail as usize)?.buf.as_mut()
    }
}

impl Entry {
    fn free() -> Entry {
        Entry {
            fd: -1,
            generation: 0,
            head: NONE,
            tail: NONE,
            reader: TaskId::NONE,
            sending: NONE,
            armed: 0,
            queued: 0,
            end: End::None,
            receive: Receive::Idle,
            life: Life::Free,
            mode: Mode::First,
            row: 0,
            watched: false,
            broken: false,
            accepted: false,
            missed: false,
            token: 0,
            timer: Timer::NONE,
            address: None,
        }
    }

    fn group(&self) -> Group {
        if self.mode == Mode::Bulk { Group::Large } else { Group::Small }
    }

    /// Operations under way, cancels not counted.
    fn operations(&self) -> u16 {
        u16::from(self.receive.kind().is_some()) + u16::from(self.sending != NONE) + u16::from(self.address.is_some())
    }
}

impl Receive {
    /// The kind of the operation that is under way.
    fn kind(self) -> Option<Kind> {
        match self {
            Receive::Idle | Receive::InLine => None,
            Receive::Readable => Some(Kind::Readable),
            Receive::Once(_) | Receive::Multishot | Receive::Cancelling | Receive::Reserve(_) => Some(Kind::Receive),
        }
    }
}

impl Core {
    /// A socket for a descriptor that was accepted.
    pub(crate) fn adopt(&mut self, fd: i32) -> Socket {
        self.sockets.insert(fd, Life::Open, Mode::First)
    }

    pub(super) fn start_connect(&mut self, address: &Address) -> Result<Socket, Error> {
        let fd = self
            .driver
            .socket(address)
            .map_err(|error| Error::from_errno(error.raw_os_error().unwrap_or(libc::EIO)))?;
        let socket = self.sockets.insert(fd, Life::Connecting, Mode::Stream);
        let address = Box::new(address.clone());
        let entry = self.sockets.at(socket.index);
        entry.armed += 1;
        let tag = Tag::new(Kind::Connect, entry.generation, socket.index);
        self.driver.connect(fd, &address, tag);
        self.sockets.at(socket.index).address = Some(address);
        Ok(socket)
    }

    pub(super) fn poll_connect(&mut self, index: u32, until_ns: u64) -> Poll<Result<(), Error>> {
        let (now, current) = (self.now_ns, self.tasks.current);
        let entry = self.sockets.at(index);
        match (entry.life, entry.end) {
            (_, End::Failed(error)) => Poll::Ready(Err(error)),
            (Life::Open, _) => Poll::Ready(Ok(())),
            _ if now >= until_ns => Poll::Ready(Err(Error::TimedOut)),
            _ => {
                entry.reader = current;
                self.due(until_ns);
                Poll::Pending
            }
        }
    }

    pub(crate) fn connected(&mut self, completion: &Completion) {
        let index = completion.tag.index();
        let entry = self.sockets.at(index);
        entry.armed -= 1;
        entry.address = None;
        if entry.life == Life::Connecting {
            if completion.result < 0 {
                entry.end = End::Failed(Error::from_errno(-completion.result));
            } else {
                entry.life = Life::Open;
            }
        }
        self.tell(index);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_of_the_table_stays_small() {
        assert!(size_of::<Entry>() <= 80, "{}", size_of::<Entry>());
    }
}
