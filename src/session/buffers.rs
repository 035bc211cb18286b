//! What the outboxes of a shard share: frames that many of them send, and a pool of chunks.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use crate::latency::meter::Class;
use crate::model::instrument::InstrumentId;

/// Size of a chunk in bytes. A frame that does not fit into the rest of one begins the next; a longer frame has its
/// own. The size is not a multiple of a page, or the beginnings of many chunks would share few cache sets.
pub(super) const CHUNK_BYTES: usize = 2_560;
/// Maximum number of free chunks in the pool: 5 MB.
const CHUNKS_MAX: usize = 2_048;
/// Default maximum size of a frame ring in bytes: the frames of about 100,000 ticks. At that many per second, a client
/// may wait for most of a second before its frames are copied.
pub const FRAME_RING_BYTES: usize = 16 << 20;
/// How often a frame ring can double at most. By default it begins with 1 MiB, about what the own cache of a core
/// holds.
const LENGTHENINGS: u32 = 4;
/// The smallest frame ring, in bytes: four of the longest frames.
pub const FRAME_RING_BYTES_MIN: usize = 4 * FRAME_BYTES_MAX;
/// The longest frame that is shared, in bytes.
const FRAME_BYTES_MAX: usize = 4_096;
/// Maximum number of free lists of ranges in the pool, and the maximum capacity of one.
const LISTS_MAX: usize = 2_048;
const LIST_MAX: usize = 256;

/// When the tick of a frame was received and encoded, and the class that it is measured in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// When it was received, in nanoseconds since the Unix epoch.
    pub rx_ns: u64,
    /// When its frame was encoded, in nanoseconds since the Unix epoch.
    pub tx_ns: u64,
    /// Its venue and channel.
    pub class: Class,
    /// Its instrument.
    pub instrument: InstrumentId,
}

/// Consecutive whole frames in the frame ring.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FrameRange {
    /// Their position: the bytes ever appended before them.
    at: u64,
    pub(super) len: usize,
    /// The number of the first frame, wrapping.
    first: u32,
    pub(super) count: u32,
}

impl FrameRange {
    /// Returns their length in bytes.
    pub fn bytes(self) -> usize {
        self.len
    }

    /// Returns the number of the first frame, wrapping.
    #[inline]
    pub(super) fn first(self) -> u32 {
        self.first
    }

    /// Adds a range that begins where this one ends; returns false if it does not.
    #[inline]
    pub(super) fn join(&mut self, next: Self) -> bool {
        let joins = self.at + self.len as u64 == next.at;
        if joins {
            self.len += next.len;
            self.count += next.count;
        }
        joins
    }
}

/// What the outboxes of a shard share.
///
/// The frame of a tick is *appended* to the frame ring once. A row of pending frames, and later an outbox, holds a
/// reference to it. So a tick costs each subscriber some words, and its bytes are copied when the socket is written to,
/// from a cache that all sessions share. Before the frame ring wraps over frames that are still needed, it [becomes
/// longer](Self::lengthen), or the sessions that have not written them make [their own](super::Session::own) copies.
#[derive(Clone, Debug)]
pub struct Buffers(Rc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// The current and the maximum size of the frame ring in bytes.
    frame_ring_bytes: Cell<usize>,
    frame_ring_bytes_max: usize,
    frame_ring: RefCell<Vec<u8>>,
    /// Bytes ever appended, including those skipped where the end of the frame ring would have split a frame.
    head: Cell<u64>,
    /// Bytes before this position are not read any more.
    reclaimed: Cell<u64>,
    frames: RefCell<Frames>,
    chunks: Pool<u8>,
    /// Bytes of the chunks that outboxes hold.
    lent_bytes: Cell<usize>,
    /// The most bytes that all outboxes may hold before memory counts as short.
    lent_bytes_max: Cell<usize>,
    /// The most bytes that each may then hold outside the frame ring.
    short_own_bytes_max: Cell<usize>,
    lists: Pool<FrameRange>,
    gathered: RefCell<Vec<u8>>,
}

/// A pool of vectors. The one given back last, which is still in the cache, is lent first.
#[derive(Debug)]
struct Pool<T> {
    waiting: RefCell<Vec<Vec<T>>>,
    /// The fewest that were free since the last shrink: so many were not needed.
    unneeded: Cell<usize>,
}

impl<T> Default for Pool<T> {
    fn default() -> Self {
        Self { waiting: RefCell::default(), unneeded: Cell::default() }
    }
}

impl<T> Pool<T> {
    fn lend(&self) -> Option<Vec<T>> {
        let mut waiting = self.waiting.borrow_mut();
        let lent = waiting.pop();
        self.unneeded.set(self.unneeded.get().min(waiting.len()));
        lent
    }

    /// Takes a vector back, or frees it if `most` are already free.
    fn take_back(&self, mut lent: Vec<T>, most: usize) {
        let mut waiting = self.waiting.borrow_mut();
        if waiting.len() < most {
            lent.clear();
            waiting.push(lent);
        }
    }

    /// Frees half of those that were not needed since the last call.
    fn shrink(&self) {
        let mut waiting = self.waiting.borrow_mut();
        // The ones that have been free for longest.
        waiting.drain(..self.unneeded.get().div_ceil(2));
        self.unneeded.set(waiting.len());
    }
}

/// The frames that are not reclaimed.
#[derive(Debug, Default)]
struct Frames {
    /// The number of the first frame, wrapping.
    first: u32,
    /// The position, length and times of each.
    list: VecDeque<(u64, u32, Times)>,
}

impl Default for Buffers {
    fn default() -> Self {
        Self::new(FRAME_RING_BYTES)
    }
}

impl Buffers {
    /// Returns buffers without frames. The frame ring may grow to this many bytes, at least [`FRAME_RING_BYTES_MIN`].
    pub fn new(frame_ring_bytes_max: usize) -> Self {
        let frame_ring_bytes_max = frame_ring_bytes_max.max(FRAME_RING_BYTES_MIN);
        let first =
            frame_ring_bytes_max >> LENGTHENINGS.min((frame_ring_bytes_max / FRAME_RING_BYTES_MIN).ilog2());
        let shared = Shared { frame_ring_bytes: Cell::new(first), frame_ring_bytes_max, ..Shared::default() };
        shared.lent_bytes_max.set(usize::MAX);
        Self(Rc::new(shared))
    }

    /// Returns the initial size in bytes of a frame ring that may grow to this size.
    pub fn first_frame_ring_bytes(frame_ring_bytes_max: usize) -> usize {
        Self::new(frame_ring_bytes_max).frame_ring_bytes()
    }

    /// Returns the size of the frame ring in bytes.
    #[inline]
    pub fn frame_ring_bytes(&self) -> usize {
        self.0.frame_ring_bytes.get()
    }

    /// Returns the index of a position in the frame ring.
    #[inline]
    fn place(&self, at: u64) -> usize {
        (at % self.frame_ring_bytes() as u64) as usize
    }

    // ---- the frame ring -------------------------------------------------------------------------------------

    /// Returns the number of bytes appended so far: the position of the next frame.
    #[inline]
    pub fn head(&self) -> u64 {
        self.0.head.get()
    }

    /// Returns true if another frame may be appended before something is [reclaimed](Self::reclaim).
    #[inline]
    pub fn has_room(&self) -> bool {
        // A frame, and the bytes that may be skipped before it.
        self.head() + 2 * FRAME_BYTES_MAX as u64 <= self.0.reclaimed.get() + self.frame_ring_bytes() as u64
    }

    /// Returns the position before which frames are reclaimed when there is no room. This frees an eighth of the frame
    /// ring, which bounds how many sessions copy at once.
    pub fn reclaim_before(&self) -> u64 {
        self.head().saturating_sub(
            (self.frame_ring_bytes() - self.frame_ring_bytes() / 8 - 2 * FRAME_BYTES_MAX) as u64,
        )
    }

    /// Returns the next larger size of the frame ring in bytes, if it may grow.
    pub fn next_frame_ring_bytes(&self) -> Option<usize> {
        Some(2 * self.frame_ring_bytes()).filter(|bytes| *bytes <= self.0.frame_ring_bytes_max)
    }

    /// Doubles the frame ring, which keeps its frames. Returns false if that would exceed its maximum.
    ///
    /// It never shrinks: what was needed once will be needed again. Copying 8 MiB takes 1 to 2 ms.
    #[cold]
    pub fn lengthen(&self) -> bool {
        let before = self.frame_ring_bytes();
        let Some(after) = self.next_frame_ring_bytes() else { return false };
        let mut longer = vec![0; after];
        let mut frame_ring = self.0.frame_ring.borrow_mut();
        // No frame crosses the end of the frame ring, and each end of the longer one is an end of the shorter one.
        let mut at = self.0.reclaimed.get();
        while at < self.head() {
            let from = self.place(at);
            let len = (before - from).min((self.head() - at) as usize);
            longer[(at % after as u64) as usize..][..len].copy_from_slice(&frame_ring[from..][..len]);
            at += len as u64;
        }
        *frame_ring = longer;
        self.0.frame_ring_bytes.set(after);
        true
    }

    /// Frees the frames before this position, which will not be read.
    pub fn reclaim(&self, before: u64) {
        self.0.reclaimed.set(before);
        let Frames { first, list } = &mut *self.0.frames.borrow_mut();
        while list.pop_front_if(|(at, ..)| *at < before).is_some() {
            *first = first.wrapping_add(1);
        }
    }

    /// Appends a frame; returns `None` if there is no room or the frame is too long.
    pub fn append(&self, frame: &[u8], times: Times) -> Option<FrameRange> {
        if frame.len() > FRAME_BYTES_MAX || !self.has_room() {
            return None;
        }
        let mut frame_ring = self.0.frame_ring.borrow_mut();
        if frame_ring.is_empty() {
            *frame_ring = vec![0; self.frame_ring_bytes()];
        }
        let Frames { first, list } = &mut *self.0.frames.borrow_mut();
        let mut at = self.head();
        let left = self.frame_ring_bytes() - self.place(at);
        // At least one byte and one number are skipped, so that the frames before and behind are never joined.
        if left <= frame.len() {
            list.push_back((at, 0, times));
            at += left as u64;
        }
        frame_ring[self.place(at)..][..frame.len()].copy_from_slice(frame);
        self.0.head.set(at + frame.len() as u64);
        let first = first.wrapping_add(list.len() as u32);
        list.push_back((at, frame.len() as u32, times));
        Some(FrameRange { at, len: frame.len(), first, count: 1 })
    }

    /// Returns `count` consecutive frames, of which the first is found by the lowest `bits` bits of its number; `None`
    /// if they are not in the frame ring.
    #[inline]
    pub(super) fn range(&self, number: u32, bits: u32, count: u32) -> Option<FrameRange> {
        let frames = self.0.frames.borrow();
        let nth = number.wrapping_sub(frames.first) & (u32::MAX >> (u32::BITS - bits));
        let (at, ..) = *frames.list.get(nth as usize)?;
        let (end, len, _) = *frames.list.get((nth + count) as usize - 1)?;
        let len = (end - at) as usize + len as usize;
        Some(FrameRange { at, len, first: frames.first.wrapping_add(nth), count })
    }

    /// Passes the bytes of a range to `show`.
    pub(super) fn read<T>(&self, range: FrameRange, show: impl FnOnce(&[u8]) -> T) -> T {
        debug_assert!(range.at >= self.0.reclaimed.get(), "it was written over");
        let frame_ring = self.0.frame_ring.borrow();
        show(&frame_ring[self.place(range.at)..][..range.len])
    }

    /// Returns the times of the `nth` frame of a range, counted from 0.
    pub(super) fn times(&self, range: FrameRange, nth: u32) -> Option<Times> {
        let frames = self.0.frames.borrow();
        let at = range.first.wrapping_add(nth).wrapping_sub(frames.first);
        frames.list.get(at as usize).map(|(.., times)| *times)
    }

    /// Passes the bytes of several ranges to `show` in one piece.
    pub(super) fn gather<T>(
        &self,
        ranges: &[FrameRange],
        last: FrameRange,
        show: impl FnOnce(&[u8]) -> T,
    ) -> T {
        let mut gathered = self.0.gathered.borrow_mut();
        gathered.clear();
        for range in ranges.iter().chain([&last]) {
            self.read(*range, |bytes| gathered.extend_from_slice(bytes));
        }
        show(&gathered)
    }

    // ---- chunks and lists ------------------------------------------------------------------------------

    /// Lends a chunk for at least this many bytes.
    pub(super) fn chunk(&self, bytes: usize) -> Vec<u8> {
        let lent = if bytes <= CHUNK_BYTES { self.0.chunks.lend() } else { None };
        let chunk = lent.unwrap_or_else(|| Vec::with_capacity(bytes.max(CHUNK_BYTES)));
        self.0.lent_bytes.set(self.0.lent_bytes.get() + chunk.capacity());
        chunk
    }

    /// Returns the total size of the chunks that outboxes hold, in bytes.
    #[inline]
    pub fn lent_bytes(&self) -> usize {
        self.0.lent_bytes.get()
    }

    /// Returns the most bytes that an outbox may hold outside the frame ring: copies for a client whose socket takes
    /// nothing, and frames for one client alone.
    pub fn own_bytes_max(&self) -> usize {
        if self.lent_bytes() < self.0.lent_bytes_max.get() {
            usize::MAX
        } else {
            self.0.short_own_bytes_max.get()
        }
    }

    /// Bounds what outboxes hold: when they hold `lent_bytes_max` together, each may hold at most `own_bytes_max` bytes
    /// outside the frame ring. The limits of their policy apply, too.
    pub fn bound(&self, lent_bytes_max: usize, own_bytes_max: usize) {
        self.0.lent_bytes_max.set(lent_bytes_max);
        self.0.short_own_bytes_max.set(own_bytes_max);
    }

    /// Returns the number of free chunks.
    #[cfg(test)]
    pub(super) fn chunks(&self) -> usize {
        self.0.chunks.waiting.borrow().len()
    }

    pub(super) fn take_back(&self, chunk: Vec<u8>) {
        self.0.lent_bytes.set(self.0.lent_bytes.get().saturating_sub(chunk.capacity()));
        if chunk.capacity() == CHUNK_BYTES {
            self.0.chunks.take_back(chunk, CHUNKS_MAX);
        }
    }

    /// Lends a list for ranges.
    pub(super) fn list(&self) -> Vec<FrameRange> {
        self.0.lists.lend().unwrap_or_default()
    }

    pub(super) fn take_back_list(&self, list: Vec<FrameRange>) {
        if list.capacity() <= LIST_MAX {
            self.0.lists.take_back(list, LISTS_MAX);
        }
    }

    /// Frees half of the chunks and lists that were not needed since the last call.
    pub fn shrink(&self) {
        self.0.chunks.shrink();
        self.0.lists.shrink();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::tick::Channel;

    fn times(rx_ns: u64) -> Times {
        Times { rx_ns, tx_ns: 0, class: Class::new(0, Channel::Trade), instrument: InstrumentId(0) }
    }

    #[test]
    fn what_is_not_reclaimed_is_never_written_over() {
        let buffers = Buffers::new(FRAME_RING_BYTES_MIN);
        let frame = |n: u64| n.to_le_bytes().repeat(4 + (n % 97) as usize);
        let mut kept: VecDeque<(u64, FrameRange)> = VecDeque::new();
        for n in 0..20_000 {
            if !buffers.has_room() {
                let reclaim_before = buffers.reclaim_before();
                while kept.pop_front_if(|(_, range)| range.at < reclaim_before).is_some() {}
                buffers.reclaim(reclaim_before);
            }
            let range = buffers.append(&frame(n), times(n)).expect("there is room");
            kept.push_back((n, range));
            if n % 1_000 == 0 {
                for (n, range) in &kept {
                    buffers.read(*range, |got| assert_eq!(got, frame(*n)));
                    assert_eq!(buffers.times(*range, 0), Some(times(*n)));
                }
            }
        }
        assert!(buffers.head() > 200 * FRAME_RING_BYTES_MIN as u64);
        assert_eq!(buffers.append(&[0; FRAME_BYTES_MAX + 1], times(0)), None);
    }

    #[test]
    fn a_frame_ring_gets_longer_with_all_that_is_in_it() {
        let check = |buffers: &Buffers, kept: &VecDeque<(u64, FrameRange)>| {
            let mut joined: Option<(FrameRange, Vec<u8>)> = None;
            for (n, range) in kept {
                let frame = n.to_le_bytes().repeat(4 + (n % 97) as usize);
                buffers.read(*range, |got| assert_eq!(got, frame));
                assert_eq!(buffers.times(*range, 0), Some(times(*n)));
                assert_eq!(buffers.range(range.first(), u32::BITS, 1), Some(*range));
                let (mut all, mut bytes) = joined.take().unwrap_or((*range, frame.clone()));
                if all.join(*range) {
                    bytes.extend(frame);
                } else {
                    (all, bytes) = (*range, frame);
                }
                buffers.read(all, |got| assert_eq!(got, bytes));
                joined = Some((all, bytes));
            }
        };
        let first = 3 * FRAME_RING_BYTES_MIN / 2;
        let buffers = Buffers::new(4 * first + 1);
        let frame = |n: u64| n.to_le_bytes().repeat(4 + (n % 97) as usize);
        let mut kept: VecDeque<(u64, FrameRange)> = VecDeque::new();
        let mut lengths = Vec::new();
        for n in 0..10_000 {
            if !buffers.has_room() && (n < 500 || !buffers.lengthen()) {
                let reclaim_before = buffers.reclaim_before();
                while kept.pop_front_if(|(_, range)| range.at < reclaim_before).is_some() {}
                buffers.reclaim(reclaim_before);
            }
            if lengths.last() != Some(&buffers.frame_ring_bytes()) {
                lengths.push(buffers.frame_ring_bytes());
                check(&buffers, &kept);
            }
            kept.push_back((n, buffers.append(&frame(n), times(n)).expect("there is room")));
        }
        check(&buffers, &kept);
        assert_eq!(lengths, [first, 2 * first, 4 * first], "as long as it may get, and no longer");
        assert!(buffers.head() > 4 * buffers.frame_ring_bytes() as u64);
    }

    #[test]
    fn chunks_that_nobody_needs_go_and_others_stay() {
        let buffers = Buffers::default();
        let lent: Vec<_> = (0..100).map(|_| buffers.chunk(1)).collect();
        lent.into_iter().for_each(|chunk| buffers.take_back(chunk));
        buffers.shrink();
        assert_eq!(buffers.chunks(), 100, "all were needed a moment ago");
        for _ in 0..10 {
            let lent: Vec<_> = (0..20).map(|_| buffers.chunk(1)).collect();
            lent.into_iter().for_each(|chunk| buffers.take_back(chunk));
            buffers.shrink();
        }
        assert_eq!(buffers.chunks(), 20);
        (0..10).for_each(|_| buffers.shrink());
        assert_eq!(buffers.chunks(), 0);
    }

    #[test]
    fn ranges_that_touch_are_one() {
        let buffers = Buffers::default();
        let mut range = buffers.append(b"one", times(1)).expect("room");
        let two = buffers.append(b"two", times(2)).expect("room");
        let three = buffers.append(b"three", times(3)).expect("room");
        assert!(!range.join(three));
        assert!(range.join(two));
        assert!(range.join(three));
        assert_eq!(
            [0, 1, 2, 3].map(|n| buffers.times(range, n).map(|t| t.rx_ns)),
            [Some(1), Some(2), Some(3), Some(4)].map(|n| n.filter(|n| *n < 4))
        );
        buffers.read(range, |bytes| assert_eq!(bytes, b"onetwothree"));
        buffers.gather(&[two], two, |bytes| assert_eq!(bytes, b"twotwo"));
    }
}
