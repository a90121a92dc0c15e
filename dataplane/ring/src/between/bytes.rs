//! A bounded queue of byte records from one thread to another: a core writes its log here, and never waits for the disk.
//!
//! ```text
//!          head                      tail            both count bytes and wrap with usize; a place in the store
//!           ▼                         ▼              is the count's remainder by the capacity, a power of two
//!  ...free ┬─────┬────────┬─────┬──────┬ free...
//!          │ len │ record │ len │ reco │             len: u32 in the machine's order; records and lengths
//!          └─────┴────────┴─────┴──────┘             may run over the store's end to its beginning
//! ```
//!
//! The writer owns what lies behind `tail`, the reader what lies between `head` and `tail`. Each publishes its own count with
//! release and keeps a copy of the other's, read again only when the copy says full or empty: a push or a pop mostly touches
//! no line that the other writes. A record that does not fit is refused whole, and counted.

use std::fmt;

use crossbeam_utils::CachePadded;

use super::sync::{Arc, AtomicU64, AtomicUsize, Ordering};
use store::Store;

/// The largest capacity of a queue: 1 GiB.
pub const MOST_BYTES: usize = 1 << 30;

/// The bytes before each record: its length.
const PREFIX: usize = size_of::<u32>();

/// Both ends of an empty queue with room for at least `capacity` bytes (rounded up to a power of two, 8 to
/// [`MOST_BYTES`]), of which each record takes its length and 4 more.
pub fn bytes(capacity: usize) -> (Writer, Reader) {
    let capacity = capacity.clamp(8, MOST_BYTES).next_power_of_two();
    let queue = Arc::new(Queue {
        store: Store::new(capacity),
        head: CachePadded::new(AtomicUsize::new(0)),
        tail: CachePadded::new(AtomicUsize::new(0)),
        dropped: CachePadded::new(AtomicU64::new(0)),
    });
    (Writer { queue: queue.clone(), tail: 0, head: 0, dropped: 0 }, Reader { queue, head: 0, tail: 0 })
}

struct Queue {
    store: Store,
    /// Bytes taken out so far; written by the reader alone.
    head: CachePadded<AtomicUsize>,
    /// Bytes put in so far; written by the writer alone.
    tail: CachePadded<AtomicUsize>,
    /// Records refused so far; written by the writer alone.
    dropped: CachePadded<AtomicU64>,
}

/// The end that puts records in.
pub struct Writer {
    queue: Arc<Queue>,
    tail: usize,
    /// The reader's head as it was last looked at.
    head: usize,
    dropped: u64,
}

impl Writer {
    /// Puts in a record whole. False if there is no room: then nothing of it is there, and it is counted as dropped.
    pub fn try_push(&mut self, record: &[u8]) -> bool {
        let room = self.queue.store.capacity() - PREFIX;
        // A record longer than the store never fits; this also keeps the sum below from overflowing.
        if record.len() > room || !self.has_room(PREFIX + record.len()) {
            self.dropped += 1;
            self.queue.dropped.store(self.dropped, Ordering::Relaxed);
            return false;
        }
        let (store, tail) = (&self.queue.store, self.tail);
        // SAFETY: `has_room` found these bytes behind `tail` free: the reader is done with them (its release of `head`,
        // acquired there) and does not touch them again before `tail` is published below. `&mut self` is the only writer.
        unsafe {
            store.write(tail, &(record.len() as u32).to_ne_bytes());
            store.write(tail.wrapping_add(PREFIX), record);
        }
        self.tail = tail.wrapping_add(PREFIX + record.len());
        self.queue.tail.store(self.tail, Ordering::Release);
        true
    }

    /// Records refused so far.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    fn has_room(&mut self, wanted: usize) -> bool {
        let capacity = self.queue.store.capacity();
        let free = |head: usize| capacity - self.tail.wrapping_sub(head);
        if free(self.head) < wanted {
            self.head = self.queue.head.load(Ordering::Acquire);
        }
        capacity - self.tail.wrapping_sub(self.head) >= wanted
    }
}

/// The end that takes records out.
pub struct Reader {
    queue: Arc<Queue>,
    head: usize,
    /// The writer's tail as it was last looked at.
    tail: usize,
}

impl Reader {
    /// Appends the oldest record to `out`, without its length prefix. Its length, or `None` if the queue is empty.
    pub fn pop(&mut self, out: &mut Vec<u8>) -> Option<usize> {
        if self.head == self.tail {
            self.tail = self.queue.tail.load(Ordering::Acquire);
            if self.head == self.tail {
                return None;
            }
        }
        // SAFETY: the bytes between `head` and `tail` are a whole number of records: the writer publishes a prefix and its
        // record at once (acquired above), and writes there again only after `head` is published below. `&mut self` is the only reader.
        let length = unsafe {
            let length = self.prefix();
            self.queue.store.read(self.head.wrapping_add(PREFIX), length, |piece| out.extend_from_slice(piece));
            length
        };
        self.head = self.head.wrapping_add(PREFIX + length);
        self.queue.head.store(self.head, Ordering::Release);
        Some(length)
    }

    /// The length of the record at `head`.
    ///
    /// # Safety
    /// A record is there.
    unsafe fn prefix(&self) -> usize {
        let mut prefix = [0; PREFIX];
        let mut rest = prefix.iter_mut();
        // SAFETY: as the caller promises, the prefix lies between `head` and `tail`.
        unsafe {
            self.queue
                .store
                .read(self.head, PREFIX, |piece| rest.by_ref().zip(piece).for_each(|(to, from)| *to = *from));
        }
        u32::from_ne_bytes(prefix) as usize
    }

    /// Appends all records that are there now to `out`, one behind the other, and returns how many.
    pub fn pop_into(&mut self, out: &mut Vec<u8>) -> usize {
        self.tail = self.queue.tail.load(Ordering::Acquire);
        let mut records = 0;
        // The bound is the tail as it is now: a writer that keeps writing must not keep the reader here.
        while self.head != self.tail && self.pop(out).is_some() {
            records += 1;
        }
        records
    }

    /// Whether there is nothing to take out.
    pub fn is_empty(&self) -> bool {
        self.head == self.queue.tail.load(Ordering::Acquire)
    }

    /// Records that the writer had to refuse so far, as this thread knows it.
    pub fn dropped(&self) -> u64 {
        self.queue.dropped.load(Ordering::Relaxed)
    }
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").field("tail", &self.tail).field("dropped", &self.dropped).finish()
    }
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader").field("head", &self.head).finish()
    }
}

#[cfg(not(loom))]
mod store {
    //! The bytes themselves, read and written through shared references.

    use std::cell::UnsafeCell;
    use std::{ptr, slice};

    pub(super) struct Store {
        cells: Box<[UnsafeCell<u8>]>,
    }

    // SAFETY: bytes have no thread of their own; that no two threads touch the same byte at once is promised by the callers
    // of `read` and `write`.
    unsafe impl Sync for Store {}

    impl Store {
        /// `capacity` is a power of two.
        pub(super) fn new(capacity: usize) -> Self {
            Store { cells: (0..capacity).map(|_| UnsafeCell::new(0)).collect() }
        }

        pub(super) fn capacity(&self) -> usize {
            self.cells.len()
        }

        /// Writes at a count, over the end to the beginning where need be.
        ///
        /// # Safety
        /// No more bytes than the capacity, and nobody else reads or writes them meanwhile.
        pub(super) unsafe fn write(&self, at: usize, bytes: &[u8]) {
            let (place, first) = self.split(at, bytes.len());
            let (front, back) = bytes.split_at(first);
            // SAFETY: `place + first` is at most the capacity, and so is the rest, by `split` and the caller's first promise;
            // the second one rules out races. `bytes` is no part of the store, which nobody lends out.
            unsafe {
                ptr::copy_nonoverlapping(front.as_ptr(), self.start().add(place), front.len());
                ptr::copy_nonoverlapping(back.as_ptr(), self.start(), back.len());
            }
        }

        /// Hands the bytes at a count to `take`, in one piece or two.
        ///
        /// # Safety
        /// No more bytes than the capacity, and nobody writes them meanwhile.
        pub(super) unsafe fn read(&self, at: usize, length: usize, mut take: impl FnMut(&[u8])) {
            let (place, first) = self.split(at, length);
            // SAFETY: both pieces lie within the store, as above; all bytes were initialised by `new`; nobody writes them
            // while the slices live, which is as long as `take` runs.
            unsafe {
                take(slice::from_raw_parts(self.start().add(place), first));
                take(slice::from_raw_parts(self.start(), length - first));
            }
        }

        /// Where a count lies, and how many of `length` bytes fit before the end.
        fn split(&self, at: usize, length: usize) -> (usize, usize) {
            let place = at & (self.capacity() - 1);
            (place, length.min(self.capacity() - place))
        }

        fn start(&self) -> *mut u8 {
            UnsafeCell::raw_get(self.cells.as_ptr())
        }
    }
}

#[cfg(loom)]
mod store {
    //! The bytes as cells that loom watches: each read that races with a write is reported.

    use loom::cell::UnsafeCell;

    pub(super) struct Store {
        cells: Box<[UnsafeCell<u8>]>,
    }

    // SAFETY: what the callers of `read` and `write` promise; loom checks that they keep it.
    unsafe impl Sync for Store {}

    impl Store {
        pub(super) fn new(capacity: usize) -> Self {
            Store { cells: (0..capacity).map(|_| UnsafeCell::new(0)).collect() }
        }

        pub(super) fn capacity(&self) -> usize {
            self.cells.len()
        }

        pub(super) unsafe fn write(&self, at: usize, bytes: &[u8]) {
            for (offset, byte) in bytes.iter().enumerate() {
                // SAFETY: the pointer is to one byte of the store; loom panics on a race.
                self.cell(at.wrapping_add(offset)).with_mut(|cell| unsafe { *cell = *byte });
            }
        }

        pub(super) unsafe fn read(&self, at: usize, length: usize, mut take: impl FnMut(&[u8])) {
            for offset in 0..length {
                // SAFETY: as above.
                take(&[self.cell(at.wrapping_add(offset)).with(|cell| unsafe { *cell })]);
            }
        }

        fn cell(&self, at: usize) -> &UnsafeCell<u8> {
            &self.cells[at & (self.capacity() - 1)]
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// A record that its number decides: its length, and each of its bytes.
    fn record(number: u64) -> Vec<u8> {
        let length = (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 59) as usize;
        (0..length).map(|place| (number as usize + place) as u8).collect()
    }

    #[test]
    fn records_come_out_whole_and_in_order() {
        let (mut writer, mut reader) = bytes(64);
        let mut out = Vec::new();
        assert_eq!(reader.pop(&mut out), None);
        assert!(writer.try_push(b"one") && writer.try_push(b"") && writer.try_push(b"three"));
        assert!(!reader.is_empty());
        assert_eq!((reader.pop(&mut out), out.as_slice()), (Some(3), &b"one"[..]));
        assert_eq!((reader.pop_into(&mut out), out.as_slice()), (2, &b"onethree"[..]));
        assert!(reader.is_empty());
        assert_eq!(reader.pop_into(&mut out), 0);
    }

    #[test]
    fn a_full_queue_refuses_whole_records_and_counts_them() {
        let (mut writer, mut reader) = bytes(16);
        assert!(writer.try_push(&[1; 12]), "exactly full");
        assert!(!writer.try_push(b""), "not even a prefix fits");
        assert!(!writer.try_push(&[2; 13]) && !writer.try_push(&[2; 1_000]), "never fits");
        assert_eq!((writer.dropped(), reader.dropped()), (3, 3));
        let mut out = Vec::new();
        assert_eq!((reader.pop_into(&mut out), out.as_slice()), (1, &[1; 12][..]));
        assert!(writer.try_push(b"again"));
        assert_eq!(writer.dropped(), 3);
    }

    #[test]
    fn prefixes_and_records_run_over_the_end() {
        // Every offset of prefix and record against the end of the store.
        for first in 0..=12 {
            let (mut writer, mut reader) = bytes(16);
            let mut out = Vec::new();
            assert!(writer.try_push(&vec![0; first]));
            reader.pop(&mut out);
            out.clear();
            assert!(writer.try_push(b"abcdefghijkl"));
            assert_eq!((reader.pop(&mut out), out.as_slice()), (Some(12), &b"abcdefghijkl"[..]));
        }
    }

    #[test]
    fn counts_wrap() {
        let (mut writer, mut reader) = bytes(32);
        let start = usize::MAX - 7;
        (writer.head, writer.tail, reader.head, reader.tail) = (start, start, start, start);
        writer.queue.head.store(start, Ordering::Relaxed);
        writer.queue.tail.store(start, Ordering::Relaxed);
        let mut out = Vec::new();
        for _ in 0..4 {
            assert!(writer.try_push(b"0123456789"));
            assert!(!writer.try_push(&[0; 20]));
            assert_eq!(reader.pop_into(&mut out), 1);
        }
        assert_eq!(out, b"0123456789".repeat(4));
    }

    #[test]
    fn capacities_are_bounded_powers_of_two() {
        for (asked, got) in [(0, 8), (8, 8), (9, 16), (4_096, 4_096)] {
            assert_eq!(bytes(asked).0.queue.store.capacity(), got);
        }
    }

    #[test]
    fn two_threads_lose_nothing_but_what_is_counted() {
        const RECORDS: u64 = 50_000;
        let (mut writer, mut reader) = bytes(256);
        let thread = std::thread::spawn(move || {
            let pushed: Vec<u64> = (0..RECORDS).filter(|&number| writer.try_push(&record(number))).collect();
            (pushed, writer.dropped())
        });
        let (mut out, mut taken) = (Vec::new(), 0);
        loop {
            let done = thread.is_finished();
            let popped = reader.pop_into(&mut out);
            taken += popped;
            if done && popped == 0 {
                break;
            }
        }
        let (pushed, dropped) = thread.join().unwrap();
        assert_eq!((taken, taken as u64 + dropped), (pushed.len(), RECORDS));
        assert_eq!(out, pushed.into_iter().flat_map(record).collect::<Vec<u8>>());
    }
}

#[cfg(all(test, loom))]
mod loom_models {
    use super::*;
    use loom::thread;

    /// A store of 8 bytes, in which every record runs over the end: what comes out is a part of what went in, in order, and
    /// what is missing was refused. Each byte is a cell, so a reader or writer that is too early is a race.
    #[test]
    fn loom_records_are_whole_and_in_order() {
        loom::model(|| {
            let (mut writer, mut reader) = bytes(8);
            let thread = thread::spawn(move || [b"ab", b"cd", b"ef"].map(|record| writer.try_push(record)));
            let mut out = Vec::new();
            let mut records = reader.pop(&mut out).is_some() as usize;
            records += reader.pop_into(&mut out);
            let pushed = thread.join().unwrap();
            records += reader.pop_into(&mut out);
            let expected: Vec<u8> = [b"ab", b"cd", b"ef"]
                .iter()
                .zip(pushed)
                .filter(|(_, pushed)| *pushed)
                .flat_map(|(record, _)| **record)
                .collect();
            assert!(pushed[0]);
            assert_eq!((out, records), (expected, pushed.iter().filter(|pushed| **pushed).count()));
            assert_eq!(reader.dropped(), 3 - records as u64);
        });
    }
}
