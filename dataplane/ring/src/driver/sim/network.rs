//! Addresses, descriptors, connections, and what travels between them, in the order of virtual time.

use super::Faults;
use super::node::Node;
use super::operation::Operations;
use super::random::Random;
use crate::driver::{Kind, Tag};
use crate::host::Address;
use std::cmp::{Ordering, Reverse};
use std::collections::{BinaryHeap, VecDeque};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Descriptors are numbered from here, and no number is used twice, so that a use after the close shows.
const FIRST_FD: i32 = 1000;
/// Connections that wait to be accepted, at most; later ones try again after a second, as a SYN does.
const BACKLOG: usize = 512;
const SYN_AGAIN_NS: u64 = 1_000_000_000;

pub(super) struct Network {
    pub(super) seed: u64,
    pub(super) faults: Faults,
    pub(super) random: Random,
    pub(super) now_ns: u64,
    pub(super) trace: u64,
    pub(super) nodes: Vec<Node>,
    pub(super) blackholes: Vec<Address>,
    pub(super) descriptors: Vec<Descriptor>,
    pub(super) connections: Vec<Option<Box<Connection>>>,
    listeners: Vec<i32>,
    events: BinaryHeap<Reverse<Event>>,
    sequence: u64,
}

pub(super) struct Descriptor {
    pub(super) node: usize,
    pub(super) is: Is,
    /// By [`Kind`]: queued, and its last completion not delivered.
    armed: [bool; 9],
    /// Closed by the core; the kernel may not know yet.
    closing: bool,
    reset_on_close: bool,
    /// What the kernel works on.
    pub(super) operations: Option<Box<Operations>>,
}

pub(super) enum Is {
    Fresh,
    Listening {
        address: Box<Address>,
        backlog: VecDeque<usize>,
    },
    /// One side of a connection: 0 connected, 1 accepted.
    Connected {
        connection: usize,
        side: usize,
    },
    Closed,
}

pub(super) struct Connection {
    pub(super) ends: [End; 2],
    /// What each side sends.
    pub(super) streams: [Stream; 2],
}

pub(super) struct End {
    /// -1 until it is accepted.
    pub(super) fd: i32,
    pub(super) address: Address,
    pub(super) closed: bool,
    /// Was reset: nothing goes out or comes in any more.
    pub(super) broken: bool,
    /// What the next operation that looks is told, once (`sk_err`).
    pub(super) error: Option<i32>,
}

pub(super) struct Stream {
    /// Sent and not yet received, arrived or on its way.
    pub(super) bytes: VecDeque<u8>,
    pub(super) arrived: usize,
    pub(super) capacity: usize,
    /// The sender ended it.
    pub(super) shut: bool,
    /// The end arrived.
    pub(super) ended: bool,
    /// When the last that was sent arrives: nothing overtakes.
    last_ns: u64,
}

struct Event {
    at_ns: u64,
    sequence: u64,
    what: What,
}

pub(super) enum What {
    Syn {
        fd: i32,
        address: Box<Address>,
    },
    Connected {
        fd: i32,
        result: i32,
    },
    Segment {
        connection: usize,
        side: usize,
        count: usize,
    },
    Fin {
        connection: usize,
        side: usize,
    },
    /// This side is told of a reset.
    Reset {
        connection: usize,
        side: usize,
    },
    /// There may be room for what this side sends.
    Room {
        connection: usize,
        side: usize,
    },
    /// There may be more to receive.
    More {
        fd: i32,
    },
    CancelLate {
        fd: i32,
        kind: Kind,
        serial: u64,
    },
}

impl Network {
    pub(super) fn new(seed: u64, faults: Faults) -> Network {
        Network {
            seed,
            faults,
            random: Random::new(seed),
            now_ns: 0,
            trace: seed,
            nodes: Vec::new(),
            blackholes: Vec::new(),
            descriptors: Vec::new(),
            connections: Vec::new(),
            listeners: Vec::new(),
            events: BinaryHeap::new(),
            sequence: 0,
        }
    }

    /// A defect was found: of the code under test, or of the simulation.
    pub(super) fn fail(&self, what: &str) -> ! {
        panic!("seed {}, at {} ns: {what}", self.seed, self.now_ns)
    }

    pub(super) fn next_event_ns(&self) -> Option<u64> {
        self.events.peek().map(|Reverse(event)| event.at_ns)
    }

    /// Lets time pass, and happen what was due.
    pub(super) fn pass_until(&mut self, at_ns: u64) {
        self.now_ns = self.now_ns.max(at_ns);
        while self.next_event_ns().is_some_and(|at| at <= self.now_ns) {
            if let Some(Reverse(event)) = self.events.pop() {
                self.happen(event.what);
            }
        }
    }

    pub(super) fn turn_passes(&mut self) {
        let took = self.random.within(self.faults.turn_ns);
        self.pass_until(self.now_ns + took);
    }

    pub(super) fn serial(&mut self) -> u64 {
        self.sequence += 1;
        self.sequence
    }

    pub(super) fn schedule(&mut self, at_ns: u64, what: What) {
        let sequence = self.serial();
        self.events.push(Reverse(Event { at_ns, sequence, what }));
    }

    pub(super) fn later(&mut self, what: What) {
        let at_ns = self.now_ns + self.random.within(self.faults.latency_ns);
        self.schedule(at_ns, what);
    }

    fn happen(&mut self, what: What) {
        match what {
            What::Syn { fd, address } => self.syn(fd, address),
            What::Connected { fd, result } => self.connect_ends(fd, result),
            What::Segment { connection, side, count } => self.segment(connection, side, count),
            What::Fin { connection, side } => self.fin(connection, side),
            What::Reset { connection, side } => self.reset(connection, side),
            What::Room { connection, side } => {
                if let Some(fd) = self.fd_of(connection, side) {
                    self.pump_send(fd);
                }
            }
            What::More { fd } => self.pump_receive(fd),
            What::CancelLate { fd, kind, serial } => self.cancel_late(fd, kind, serial),
        }
    }
}

/// Descriptors: made, checked, closed.
impl Network {
    pub(super) fn descriptor(&mut self, fd: i32) -> &mut Descriptor {
        &mut self.descriptors[(fd - FIRST_FD) as usize]
    }

    pub(super) fn open(&mut self, node: usize, is: Is) -> i32 {
        let (armed, closing, reset_on_close) = ([false; 9], false, false);
        let operations = Some(Box::default());
        self.descriptors.push(Descriptor { node, is, armed, closing, reset_on_close, operations });
        FIRST_FD + self.descriptors.len() as i32 - 1
    }

    pub(super) fn socket(&mut self, node: usize) -> io::Result<i32> {
        if self.random.happens(self.faults.socket_fails) {
            return Err(io::Error::from_raw_os_error(libc::EMFILE));
        }
        Ok(self.open(node, Is::Fresh))
    }

    pub(super) fn listen(&mut self, node: usize, address: Address) -> i32 {
        let fd = self.open(node, Is::Listening { address: Box::new(address), backlog: VecDeque::new() });
        self.listeners.push(fd);
        fd
    }

    fn checked(&mut self, fd: i32, doing: &str) -> &mut Descriptor {
        let at = (fd - FIRST_FD) as usize;
        if self.descriptors.get(at).is_none_or(|descriptor| descriptor.closing) {
            self.fail(&format!("{doing} on descriptor {fd}, which is closed"));
        }
        &mut self.descriptors[at]
    }

    pub(super) fn begin_operation(&mut self, node: usize, fd: i32, tag: Tag) {
        let descriptor = self.checked(fd, "an operation");
        let twice = std::mem::replace(&mut descriptor.armed[tag.kind() as usize], true);
        let of = descriptor.node;
        if twice {
            self.fail(&format!("two operations at once on descriptor {fd}: {tag:?}"));
        }
        if of != node {
            self.fail(&format!("node {node} uses descriptor {fd} of node {of}"));
        }
        if self.nodes[node].under_way.insert(tag.0, fd).is_some() {
            self.fail(&format!("two operations under way share {tag:?}"));
        }
    }

    pub(super) fn end_of_operation(&mut self, fd: i32, kind: Kind) {
        self.descriptor(fd).armed[kind as usize] = false;
    }

    pub(super) fn begin_close(&mut self, node: usize, fd: i32) {
        let descriptor = self.checked(fd, "a close");
        descriptor.closing = true;
        let (of, armed) = (descriptor.node, descriptor.armed);
        if of != node || armed.contains(&true) {
            self.fail(&format!("node {node} closes descriptor {fd} of node {of} with {armed:?} armed"));
        }
    }

    pub(super) fn close(&mut self, fd: i32) {
        let descriptor = self.descriptor(fd);
        let reset = descriptor.reset_on_close;
        descriptor.operations = None;
        match std::mem::replace(&mut descriptor.is, Is::Closed) {
            Is::Listening { backlog, .. } => {
                self.listeners.retain(|other| *other != fd);
                for connection in backlog {
                    self.close_end(connection, 1, true);
                }
            }
            Is::Connected { connection, side } => self.close_end(connection, side, reset),
            Is::Fresh | Is::Closed => {}
        }
    }

    pub(super) fn shutdown_write(&mut self, fd: i32) {
        if let Is::Connected { connection, side } = self.checked(fd, "a shutdown").is {
            self.send_fin(connection, side);
        }
    }

    pub(super) fn reset_on_close(&mut self, fd: i32) {
        self.checked(fd, "an option").reset_on_close = true;
    }

    /// The addresses of this end and of the other.
    pub(super) fn addresses(&self, fd: i32) -> Option<(Address, Address)> {
        let Is::Connected { connection, side } = self.descriptors.get((fd - FIRST_FD) as usize)?.is else {
            return None;
        };
        let ends = &self.connections[connection].as_ref()?.ends;
        Some((ends[side].address.clone(), ends[1 - side].address.clone()))
    }

    /// Fails when a node has not closed everything, or has not given all buffers back.
    pub(super) fn check_closed(&self, node: usize) {
        let open = self.descriptors.iter().filter(|one| one.node == node && !matches!(one.is, Is::Closed)).count();
        let missing: usize = self.nodes[node].groups.iter().map(|group| group.missing()).sum();
        let under_way = self.nodes[node].under_way.len();
        if open + missing + under_way > 0 {
            self.fail(&format!(
                "node {node} ends with {open} descriptors open, {missing} buffers missing, {under_way} operations under way"
            ));
        }
    }
}

/// Connections: made, and what travels on them.
impl Network {
    pub(super) fn begin_connect(&mut self, fd: i32, address: Address) {
        if self.blackholes.contains(&address) {
            return;
        }
        let slow = self.random.happens(self.faults.connect_slow);
        let more = if slow { self.random.within(self.faults.slow_ns) } else { 0 };
        let at = self.now_ns + more + self.random.within(self.faults.latency_ns);
        self.schedule(at, What::Syn { fd, address: Box::new(address) });
    }

    fn syn(&mut self, fd: i32, address: Box<Address>) {
        if self.descriptor(fd).operations.as_ref().is_none_or(|operations| operations.connect.is_none()) {
            return;
        }
        if self.random.happens(self.faults.connect_fails) {
            let errno = [libc::ECONNREFUSED, libc::ENETUNREACH, libc::ETIMEDOUT][self.random.below(3) as usize];
            return self.later(What::Connected { fd, result: -errno });
        }
        let Some(listener) = self.listener(&address) else {
            return self.later(What::Connected { fd, result: -libc::ECONNREFUSED });
        };
        let full = matches!(&self.descriptor(listener).is, Is::Listening { backlog, .. } if backlog.len() >= BACKLOG);
        if full {
            return self.schedule(self.now_ns + SYN_AGAIN_NS, What::Syn { fd, address });
        }
        let connection = self.connection(fd, &address);
        self.descriptor(fd).is = Is::Connected { connection, side: 0 };
        let at = self.now_ns + self.random.within(self.faults.latency_ns);
        // What the other side sends from now on arrives after this.
        if let Some(made) = &mut self.connections[connection] {
            made.streams[1].last_ns = at;
        }
        self.schedule(at, What::Connected { fd, result: 0 });
        if let Is::Listening { backlog, .. } = &mut self.descriptor(listener).is {
            backlog.push_back(connection);
        }
        self.pump_accept(listener);
    }

    /// One of those who listen at an address, chosen by seed.
    fn listener(&mut self, address: &Address) -> Option<i32> {
        let hears = |at: &Address| {
            at == address
                || at.ip().zip(address.ip()).is_some_and(|(at, to)| at.ip().is_unspecified() && at.port() == to.port())
        };
        let those: Vec<i32> = self.listeners.iter().copied().filter(|fd| {
            matches!(&self.descriptors[(*fd - FIRST_FD) as usize].is, Is::Listening { address, .. } if hears(address))
        }).collect();
        (!those.is_empty()).then(|| those[self.random.below(those.len() as u64) as usize])
    }

    fn connection(&mut self, fd: i32, to: &Address) -> usize {
        let node = self.descriptor(fd).node as u16;
        let from = match to.ip() {
            None => to.clone(),
            Some(to) => {
                let ip = match to.ip() {
                    ip if ip.is_loopback() => ip,
                    IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::new(10, 0, (node >> 8) as u8, node as u8)),
                    IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, node)),
                };
                Address::from(SocketAddr::new(ip, 32768 + self.random.below(28000) as u16))
            }
        };
        let end = |fd, address| End { fd, address, closed: false, broken: false, error: None };
        let made = Connection { ends: [end(fd, from), end(-1, to.clone())], streams: [self.stream(), self.stream()] };
        self.connections.push(Some(Box::new(made)));
        self.connections.len() - 1
    }

    fn stream(&mut self) -> Stream {
        let capacity = self.random.size(self.faults.buffer_bytes).max(1);
        Stream { bytes: VecDeque::new(), arrived: 0, capacity, shut: false, ended: false, last_ns: 0 }
    }

    /// The open descriptor of one side.
    fn fd_of(&self, connection: usize, side: usize) -> Option<i32> {
        let end = &self.connections[connection].as_ref()?.ends[side];
        (end.fd >= 0 && !end.closed).then_some(end.fd)
    }

    /// Something travels behind all that this side sent before.
    pub(super) fn travel(&mut self, connection: usize, side: usize, what: What) {
        let at = self.now_ns + self.random.within(self.faults.latency_ns);
        let Some(made) = &mut self.connections[connection] else { return };
        let last = &mut made.streams[side].last_ns;
        *last = at.max(*last);
        let at = *last;
        self.schedule(at, what);
    }

    fn segment(&mut self, connection: usize, side: usize, count: usize) {
        let reset = self.random.happens(self.faults.reset);
        let Some(made) = &mut self.connections[connection] else { return };
        let to = &made.ends[1 - side];
        if to.closed {
            // Nobody is there: a reset comes back (RFC 9293, 3.10.7.1).
            made.streams[side].bytes.clear();
            return self.travel(connection, 1 - side, What::Reset { connection, side });
        }
        if to.broken {
            return;
        }
        if reset {
            self.reset(connection, side);
            return self.reset(connection, 1 - side);
        }
        let fd = to.fd;
        made.streams[side].arrived += count;
        if fd >= 0 {
            self.pump_receive(fd);
        }
    }

    fn fin(&mut self, connection: usize, side: usize) {
        let Some(made) = &mut self.connections[connection] else { return };
        if made.ends[1 - side].broken {
            return;
        }
        made.streams[side].ended = true;
        if let Some(fd) = self.fd_of(connection, 1 - side) {
            self.pump_receive(fd);
        }
    }

    pub(super) fn reset(&mut self, connection: usize, side: usize) {
        let Some(made) = &mut self.connections[connection] else { return };
        let (end, incoming) = (&mut made.ends[side], &mut made.streams[1 - side]);
        if end.closed || end.broken {
            return;
        }
        end.broken = true;
        // After a FIN the input is whole, and only who sends is told (tcp_reset() of Linux: CLOSE_WAIT).
        end.error = Some(if incoming.ended { libc::EPIPE } else { libc::ECONNRESET });
        // What has arrived can still be received.
        incoming.bytes.truncate(incoming.arrived);
        if let Some(fd) = self.fd_of(connection, side) {
            self.pump_receive(fd);
            self.pump_send(fd);
        }
    }

    fn send_fin(&mut self, connection: usize, side: usize) {
        let Some(made) = &mut self.connections[connection] else { return };
        let broken = made.ends[side].broken;
        if !broken && !std::mem::replace(&mut made.streams[side].shut, true) {
            self.travel(connection, side, What::Fin { connection, side });
        }
    }

    fn close_end(&mut self, connection: usize, side: usize, reset: bool) {
        let Some(made) = &mut self.connections[connection] else { return };
        made.ends[side].closed = true;
        let (broken, other_closed) = (made.ends[side].broken, made.ends[1 - side].closed);
        // Closing with unread input resets the connection (RFC 2525, 2.17).
        let unread = made.streams[1 - side].arrived > 0;
        made.streams[1 - side].bytes = VecDeque::new();
        made.streams[1 - side].arrived = 0;
        if other_closed {
            self.connections[connection] = None;
        } else if broken {
        } else if (reset || unread) && self.random.happens(self.faults.reset_destroys) {
            self.later(What::Reset { connection, side: 1 - side });
        } else if reset || unread {
            self.travel(connection, side, What::Reset { connection, side: 1 - side });
        } else {
            self.send_fin(connection, side);
        }
    }
}

impl PartialEq for Event {
    fn eq(&self, other: &Event) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Event {}

impl PartialOrd for Event {
    fn partial_cmp(&self, other: &Event) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Event {
    fn cmp(&self, other: &Event) -> Ordering {
        (self.at_ns, self.sequence).cmp(&(other.at_ns, other.sequence))
    }
}
