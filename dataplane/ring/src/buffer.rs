//! Memory for bytes: buffers that the driver fills ([`Buf`]) and pooled memory for what is sent ([`OutBuf`]).
//!
//! Dropping either only appends to a list beside the core; the turn's end gives the buffers back to the driver.
//!
//! When the pool is empty, sockets that have input wait in a first-in-first-out line. Each buffer that returns lets one receive again;
//! a small reserve of buffers outside the pool keeps the line moving when all of the pool is held by those who
//! themselves wait for somebody in the line. Connections that were made here have a line and a reserve of their own, and go
//! first: what accepted ones hold while they wait for an answer cannot keep that answer from coming.

use crate::core::{BufferSizes, Config, Stats, beside, with};
use crate::driver::{Driver, Group};
use std::collections::VecDeque;
use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

/// Receives in flight into each reserve, at most.
const RESERVE: u16 = 8;
/// Copies of small pieces, at most (each as large as a small buffer).
const PIECES: usize = 1024;
const OUT_BYTES: usize = 2048;
const OUT_KEPT: usize = 1024;
const OUT_KEPT_BYTES: usize = 64 * 1024;

/// Bytes behind each provided buffer that the driver never fills: what is done to the bytes in place may need them.
const ROOM: u32 = 64;
/// Output memory that became received bytes, at most at a time.
const GATHERED: usize = u16::MAX as usize;

/// Where a buffer's memory belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    Small,
    Large,
    Reserve,
    Piece,
    Gathered,
}

/// Received bytes. Returns its memory when dropped.
#[derive(Debug)]
pub struct Buf {
    start: NonNull<u8>,
    length: u32,
    id: u16,
    origin: Origin,
    /// Bytes behind the view that are this handle's too, as far as a byte counts.
    room: u8,
}

impl Buf {
    /// Drops the first `count` bytes from view (all, when there are fewer).
    #[inline]
    pub fn advance(&mut self, count: usize) {
        let count = count.min(self.length as usize);
        // SAFETY: within the buffer, as count is at most its length.
        self.start = unsafe { self.start.add(count) };
        self.length -= count as u32;
    }

    /// Keeps the first `count` bytes in view.
    #[inline]
    pub fn truncate(&mut self, count: usize) {
        let kept = self.length.min(count.min(u32::MAX as usize) as u32);
        self.room = up_to_byte(u32::from(self.room) + (self.length - kept));
        self.length = kept;
    }

    /// Cuts the buffer in two: `self` keeps the first `at` bytes, the result is the rest. Both share the memory, which
    /// returns when the last of them is dropped.
    pub fn split_off(&mut self, at: usize) -> Buf {
        let at = at.min(self.length as usize);
        with(|core| core.buffers.share(self.origin, self.id));
        // SAFETY: within the buffer, as `at` is at most its length.
        let start = unsafe { self.start.add(at) };
        let rest = Buf { start, length: self.length - at as u32, id: self.id, origin: self.origin, room: self.room };
        self.length = at as u32;
        self.room = 0;
        rest
    }

    /// The bytes in view and `more` behind them, when those are this handle's. Their content is any.
    pub fn with_room(&mut self, more: usize) -> Option<&mut [u8]> {
        if more > usize::from(self.room) {
            return None;
        }
        // SAFETY: `room` bytes behind the view lie within the same memory and belong to no other handle.
        Some(unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.length as usize + more) })
    }

    /// Output memory as received bytes: for what was put together from pieces. Gives it back when too much of that is
    /// under way.
    ///
    /// # Errors
    /// The output memory.
    pub fn gathered(out: OutBuf) -> Result<Buf, OutBuf> {
        with(|core| core.buffers.gather(out))
    }
}

impl Deref for Buf {
    type Target = [u8];
    #[inline]
    fn deref(&self) -> &[u8] {
        // SAFETY: the memory was filled for this length and is this handle's alone until it is dropped.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.length as usize) }
    }
}

impl DerefMut for Buf {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`; handles of the same memory have views that do not overlap.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.length as usize) }
    }
}

impl Drop for Buf {
    #[inline]
    fn drop(&mut self) {
        beside(|shared| shared.returned.borrow_mut().push(Returned { id: self.id, origin: self.origin }));
    }
}

fn up_to_byte(room: u32) -> u8 {
    room.min(u8::MAX.into()) as u8
}

/// A buffer on its way back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Returned {
    id: u16,
    origin: Origin,
}

/// Memory for what is sent, from the core's pool and back to it. Begins empty.
#[derive(Debug)]
pub struct OutBuf {
    bytes: ManuallyDrop<Vec<u8>>,
}

impl OutBuf {
    /// Takes memory from the pool, or makes new.
    pub fn new() -> OutBuf {
        let kept = beside(|shared| shared.out.borrow_mut().kept.pop()).flatten();
        OutBuf { bytes: ManuallyDrop::new(kept.unwrap_or_else(|| Vec::with_capacity(OUT_BYTES))) }
    }
}

impl Default for OutBuf {
    fn default() -> OutBuf {
        OutBuf::new()
    }
}

impl Deref for OutBuf {
    type Target = Vec<u8>;
    #[inline]
    fn deref(&self) -> &Vec<u8> {
        &self.bytes
    }
}

impl DerefMut for OutBuf {
    #[inline]
    fn deref_mut(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }
}

impl Drop for OutBuf {
    fn drop(&mut self) {
        // SAFETY: taken once; the field is not used again.
        let mut bytes = unsafe { ManuallyDrop::take(&mut self.bytes) };
        if bytes.capacity() <= OUT_KEPT_BYTES {
            bytes.clear();
            beside(|shared| {
                let kept = &mut shared.out.borrow_mut().kept;
                if kept.len() < OUT_KEPT {
                    kept.push(bytes);
                }
            });
        }
    }
}

#[derive(Default)]
pub(crate) struct OutPool {
    kept: Vec<Vec<u8>>,
}

/// All receive memory of a core.
pub(crate) struct Buffers {
    small: Region,
    large: Region,
    reserve: Region,
    /// For connections made here, and for accepted ones.
    reserve_free: [Vec<u16>; 2],
    pieces: Vec<Box<[u8]>>,
    pieces_shares: Vec<u16>,
    pieces_free: Vec<u16>,
    gathered: Vec<Option<OutBuf>>,
    gathered_shares: Vec<u16>,
    gathered_free: Vec<u16>,
    /// Sockets (index, generation) that wait for a buffer of each group.
    /// By group: first of connections made here, then of accepted ones.
    lines: [VecDeque<(u32, u32)>; 4],
    refused: u64,
    copied: u64,
}

/// Memory for buffers of one size; pages are the kernel's until they are first written.
struct Region {
    memory: NonNull<u8>,
    bytes: u32,
    count: u16,
    most: u16,
    held: u16,
    /// Handles of each buffer beyond the first.
    shares: Vec<u16>,
}

impl Buffers {
    pub(crate) fn new(config: &Config, driver: &mut Driver) -> Buffers {
        let mut buffers = Buffers {
            small: Region::new(config.small),
            large: Region::new(config.large),
            reserve: Region::new(BufferSizes { bytes: config.small.bytes, count: 2 * RESERVE, most: 2 * RESERVE }),
            reserve_free: [(0..RESERVE).collect(), (RESERVE..2 * RESERVE).collect()],
            pieces: Vec::new(),
            pieces_shares: Vec::new(),
            pieces_free: Vec::new(),
            gathered: Vec::new(),
            gathered_shares: Vec::new(),
            gathered_free: Vec::new(),
            lines: Default::default(),
            refused: 0,
            copied: 0,
        };
        buffers.grow(driver, Group::Small, config.small.count);
        buffers.grow(driver, Group::Large, config.large.count);
        driver.publish();
        buffers
    }

    /// A handle for a provided buffer that was filled with `length` bytes.
    #[inline]
    pub(crate) fn filled(&mut self, group: Group, id: u16, length: u32) -> Buf {
        let (region, origin) = match group {
            Group::Small => (&mut self.small, Origin::Small),
            Group::Large => (&mut self.large, Origin::Large),
        };
        region.held += 1;
        region.filled(origin, id, length)
    }

    /// Bytes of one buffer of a group.
    pub(crate) fn bytes(&self, group: Group) -> u32 {
        match group {
            Group::Small => self.small.bytes,
            Group::Large => self.large.bytes,
        }
    }

    fn shares(&mut self, origin: Origin, id: u16) -> &mut u16 {
        let shares = match origin {
            Origin::Small => &mut self.small.shares,
            Origin::Large => &mut self.large.shares,
            Origin::Reserve => &mut self.reserve.shares,
            Origin::Piece => &mut self.pieces_shares,
            Origin::Gathered => &mut self.gathered_shares,
        };
        &mut shares[id as usize]
    }

    fn share(&mut self, origin: Origin, id: u16) {
        *self.shares(origin, id) += 1;
    }

    pub(crate) fn take_back(&mut self, driver: &mut Driver, buffer: Returned) {
        let shares = self.shares(buffer.origin, buffer.id);
        if *shares > 0 {
            *shares -= 1;
            return;
        }
        match buffer.origin {
            Origin::Small => {
                self.small.held -= 1;
                driver.provide(Group::Small, buffer.id, self.small.at(buffer.id), self.small.bytes);
            }
            Origin::Large => {
                self.large.held -= 1;
                driver.provide(Group::Large, buffer.id, self.large.at(buffer.id), self.large.bytes);
            }
            Origin::Reserve => self.reserve_unused(buffer.id),
            Origin::Piece => self.pieces_free.push(buffer.id),
            Origin::Gathered => {
                self.gathered[buffer.id as usize] = None;
                self.gathered_free.push(buffer.id);
            }
        }
    }

    fn gather(&mut self, mut out: OutBuf) -> Result<Buf, OutBuf> {
        let id = match self.gathered_free.pop() {
            Some(id) => id,
            None if self.gathered.len() < GATHERED => {
                self.gathered.push(None);
                self.gathered_shares.push(0);
                self.gathered.len() as u16 - 1
            }
            None => return Err(out),
        };
        let length = out.len() as u32;
        // The handle's pointer comes from the memory that the list keeps alive; nobody else looks at it meanwhile.
        let start = NonNull::new(out.as_mut_ptr()).expect("a vector's pointer");
        self.gathered[id as usize] = Some(out);
        Ok(Buf { start, length, id, origin: Origin::Gathered, room: 0 })
    }

    /// Copies a small piece out of a provided buffer, so that the buffer can return: behind the piece before it when
    /// that has room, else into a piece of its own. Gives the buffer back unchanged when pieces have run out.
    pub(crate) fn compact(&mut self, before: Option<&mut Buf>, buffer: Buf) -> Result<Option<Buf>, Buf> {
        if let Some(before) = before
            && before.origin == Origin::Piece
        {
            let piece = &mut self.pieces[before.id as usize];
            let begin = before.start.as_ptr() as usize - piece.as_ptr() as usize;
            let end = begin + before.length as usize;
            if piece.len() - end >= buffer.len() {
                piece[end..end + buffer.len()].copy_from_slice(&buffer);
                // The handle's pointer is renewed: the write above went through the box.
                before.start = NonNull::from(&mut piece[begin..]).cast();
                before.length += buffer.length;
                self.copied += u64::from(buffer.length);
                return Ok(None);
            }
        }
        let Some(id) = self.free_piece() else { return Err(buffer) };
        let piece = &mut self.pieces[id as usize];
        piece[..buffer.len()].copy_from_slice(&buffer);
        self.copied += u64::from(buffer.length);
        // No room behind it: the next piece may go there.
        Ok(Some(Buf {
            start: NonNull::from(&mut piece[..]).cast(),
            length: buffer.length,
            id,
            origin: Origin::Piece,
            room: 0,
        }))
    }

    fn free_piece(&mut self) -> Option<u16> {
        self.pieces_free.pop().or_else(|| {
            (self.pieces.len() < PIECES).then(|| {
                self.pieces.push(vec![0; self.small.bytes as usize].into_boxed_slice());
                self.pieces_shares.push(0);
                self.pieces.len() as u16 - 1
            })
        })
    }

    /// A receive found the pool empty: grow it, when it may. Says whether it grew.
    pub(crate) fn ran_empty(&mut self, driver: &mut Driver, group: Group) -> bool {
        self.refused += 1;
        let more = match group {
            Group::Small => self.small.count,
            Group::Large => self.large.count,
        };
        self.grow(driver, group, more)
    }

    /// A socket with input waits for a buffer of a group.
    pub(crate) fn stand_in_line(&mut self, group: Group, accepted: bool, socket: (u32, u32)) {
        self.lines[group as usize + 2 * usize::from(accepted)].push_back(socket);
    }

    fn grow(&mut self, driver: &mut Driver, group: Group, more: u16) -> bool {
        let region = match group {
            Group::Small => &mut self.small,
            Group::Large => &mut self.large,
        };
        let until = region.count.saturating_add(more).min(region.most);
        let grew = until > region.count;
        while region.count < until {
            driver.provide(group, region.count, region.at(region.count), region.bytes);
            region.count += 1;
        }
        grew
    }

    #[inline]
    pub(crate) fn anyone_waits(&self) -> bool {
        self.lines.iter().any(|line| !line.is_empty())
    }

    /// The next in line for whom there is a buffer now. (How many the driver has is what is not held.)
    pub(crate) fn next_in_line(&mut self, group: Group, served: u16) -> Option<(u32, u32)> {
        let region = match group {
            Group::Small => &self.small,
            Group::Large => &self.large,
        };
        if region.count - region.held <= served {
            return None;
        }
        self.lines[group as usize].pop_front().or_else(|| self.lines[group as usize + 2].pop_front())
    }

    /// The first in line, and memory from the reserve for it.
    pub(crate) fn next_for_reserve(&mut self) -> Option<((u32, u32), u16)> {
        let (lines, free) = (&mut self.lines, &mut self.reserve_free);
        lines.chunks_mut(2).zip(free).find_map(|(lines, free)| {
            let line = lines.iter_mut().find(|line| !line.is_empty())?;
            let id = free.pop()?;
            line.pop_front().zip(Some(id))
        })
    }

    pub(crate) fn reserve_unused(&mut self, id: u16) {
        self.reserve_free[usize::from(id >= RESERVE)].push(id);
    }

    pub(crate) fn reserve_memory(&self, id: u16) -> (NonNull<u8>, u32) {
        (self.reserve.at(id), self.reserve.bytes)
    }

    pub(crate) fn reserve_filled(&mut self, id: u16, length: u32) -> Buf {
        self.reserve.filled(Origin::Reserve, id, length)
    }

    /// Buffers, pieces and parts of the reserve that connections hold; for the simulation.
    pub(crate) fn away(&self) -> usize {
        let held = usize::from(self.small.held + self.large.held);
        held + (2 * RESERVE as usize - self.reserve_free.iter().map(Vec::len).sum::<usize>())
            + (self.pieces.len() - self.pieces_free.len())
            + (self.gathered.len() - self.gathered_free.len())
    }

    pub(crate) fn report(&self, stats: &Stats) {
        let waiting = self.lines.iter().map(VecDeque::len).sum::<usize>() as u64;
        stats.buffers(
            self.small.held.into(),
            self.small.count.into(),
            self.large.held.into(),
            waiting,
            self.refused,
            self.copied,
        );
    }
}

impl Region {
    fn new(sizes: BufferSizes) -> Region {
        let most = sizes.most.max(sizes.count).next_power_of_two();
        let memory = crate::host::map_memory((sizes.bytes + ROOM) as usize * most as usize);
        Region { memory, bytes: sizes.bytes, count: 0, most, held: 0, shares: vec![0; most as usize] }
    }

    fn at(&self, id: u16) -> NonNull<u8> {
        debug_assert!(id < self.most);
        // SAFETY: ids are below `most`, and the mapping has `most` buffers.
        unsafe { self.memory.add(id as usize * (self.bytes + ROOM) as usize) }
    }

    #[inline]
    fn filled(&self, origin: Origin, id: u16, length: u32) -> Buf {
        let length = length.min(self.bytes);
        Buf { start: self.at(id), length, id, origin, room: up_to_byte(self.bytes + ROOM - length) }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        crate::host::unmap_memory(self.memory, (self.bytes + ROOM) as usize * self.most as usize);
    }
}
