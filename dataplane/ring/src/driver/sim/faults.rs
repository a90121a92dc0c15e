//! What goes wrong in a simulation, and how often.

use super::random::Random;

/// What goes wrong, and how often. Probabilities are in thousandths of the occasions named; ranges are inclusive.
/// Faults depend on lengths and order only, never on what the bytes are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Faults {
    /// Nanoseconds that a segment, FIN or reset travels.
    pub latency_ns: (u64, u64),
    /// Nanoseconds that a turn of a node takes.
    pub turn_ns: (u64, u64),
    /// Bytes that a connection holds between a send and the receive at the other end, chosen for each direction.
    pub buffer_bytes: (usize, usize),
    /// Bytes that travel together, at most; chosen for each piece.
    pub segment_bytes: (usize, usize),
    /// Of sends: the completion reports fewer bytes than were given.
    pub short_send: u32,
    /// Of receives: fewer bytes than are there.
    pub short_receive: u32,
    /// Of completions of a multishot receive or accept: the operation ends with it, without an error.
    pub multishot_ends: u32,
    /// Of receives armed without a byte there, while the ring of buffers is empty: ENOBUFS at once.
    pub idle_no_buffers: u32,
    /// Of accepts: EMFILE, ENFILE or ECONNABORTED (which loses that connection).
    pub accept_fails: u32,
    /// Of connects: refused or unreachable, though somebody listens.
    pub connect_fails: u32,
    /// Of connects: they take [`Faults::slow_ns`] longer.
    pub connect_slow: u32,
    /// Nanoseconds that a slow connect takes longer.
    pub slow_ns: (u64, u64),
    /// Of new sockets: EMFILE.
    pub socket_fails: u32,
    /// Of segments: the connection is reset instead, seen by both ends.
    pub reset: u32,
    /// Of closes that reset: the reset overtakes what travels, which is lost.
    pub reset_destroys: u32,
    /// Of cancels: ENOENT, though the target is under way and stays so.
    pub cancel_misses: u32,
    /// Of cancels: EALREADY, and the target ends some time later.
    pub cancel_late: u32,
    /// Of completions, each turn: delivered some turns later.
    pub hold: u32,
    /// Of neighbours among completions of different operations: exchanged.
    pub reorder: u32,
    /// Of turns: the ring takes only up to [`Faults::ring_slots`] submissions; the rest waits for the next turn.
    pub ring_full: u32,
    /// Submissions that a full ring takes.
    pub ring_slots: (usize, usize),
}

impl Faults {
    /// A good network and a kernel that does everything at once. (Time passes all the same.)
    pub fn none() -> Faults {
        Faults {
            latency_ns: (20_000, 20_000),
            turn_ns: (2_000, 2_000),
            buffer_bytes: (256 * 1024, 256 * 1024),
            segment_bytes: (64 * 1024, 64 * 1024),
            short_send: 0,
            short_receive: 0,
            multishot_ends: 0,
            idle_no_buffers: 0,
            accept_fails: 0,
            connect_fails: 0,
            connect_slow: 0,
            slow_ns: (0, 0),
            socket_fails: 0,
            reset: 0,
            reset_destroys: 0,
            cancel_misses: 0,
            cancel_late: 0,
            hold: 0,
            reorder: 0,
            ring_full: 0,
            ring_slots: (1024, 1024),
        }
    }

    /// Everything now and then.
    pub fn some() -> Faults {
        Faults {
            latency_ns: (5_000, 200_000),
            turn_ns: (500, 10_000),
            buffer_bytes: (16 * 1024, 256 * 1024),
            segment_bytes: (1_000, 64 * 1024),
            short_send: 20,
            short_receive: 20,
            multishot_ends: 20,
            idle_no_buffers: 500,
            accept_fails: 10,
            connect_fails: 10,
            connect_slow: 20,
            slow_ns: (1_000_000, 500_000_000),
            socket_fails: 2,
            reset: 1,
            reset_destroys: 500,
            cancel_misses: 20,
            cancel_late: 50,
            hold: 50,
            reorder: 200,
            ring_full: 20,
            ring_slots: (1, 8),
        }
    }

    /// Everything often.
    pub fn heavy() -> Faults {
        Faults {
            latency_ns: (0, 2_000_000),
            turn_ns: (100, 100_000),
            buffer_bytes: (300, 32 * 1024),
            segment_bytes: (1, 8 * 1024),
            short_send: 300,
            short_receive: 300,
            multishot_ends: 200,
            idle_no_buffers: 900,
            accept_fails: 100,
            connect_fails: 50,
            connect_slow: 100,
            slow_ns: (1_000_000, 3_000_000_000),
            socket_fails: 20,
            reset: 5,
            reset_destroys: 500,
            cancel_misses: 200,
            cancel_late: 200,
            hold: 400,
            reorder: 600,
            ring_full: 300,
            ring_slots: (1, 4),
        }
    }

    /// A mix: each number is that of `none`, of `some`, of `heavy`, or lies between.
    pub fn seeded(seed: u64) -> Faults {
        let mut random = Random::new(seed ^ 0x6661_756c_7473);
        let (none, some, heavy) = (Faults::none(), Faults::some(), Faults::heavy());
        let mut faults = [&none, &some, &heavy][random.below(3) as usize].clone();
        macro_rules! mix {
            ($($name:ident),*) => {$(
                match random.below(4) {
                    0 => faults.$name = none.$name.clone(),
                    1 => faults.$name = some.$name.clone(),
                    2 => faults.$name = heavy.$name.clone(),
                    _ => {}
                }
            )*};
        }
        mix!(latency_ns, turn_ns, buffer_bytes, segment_bytes, short_send, short_receive, multishot_ends);
        mix!(idle_no_buffers, accept_fails, connect_fails, connect_slow, slow_ns, socket_fails, reset);
        mix!(reset_destroys, cancel_misses, cancel_late, hold, reorder, ring_full, ring_slots);
        faults
    }

    /// The same without what breaks connections or keeps them from being made: every byte must then arrive.
    pub fn unbroken(self) -> Faults {
        Faults { accept_fails: 0, connect_fails: 0, socket_fails: 0, reset: 0, ..self }
    }
}
