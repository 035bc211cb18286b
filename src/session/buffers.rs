//! What the outboxes of a shard have in common: frames that many of them send, and chunks that they lend from each other.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use crate::latency::meter::Class;
use crate::model::instrument::InstrumentId;

/// Bytes of a chunk. A frame that does not fit into what is left of one begins the next, a longer one has its own. It is
/// no multiple of a page: the beginnings of very many chunks would all fall into the same few lines of a cache.
pub(super) const CHUNK_BYTES: usize = 2_560;
/// Chunks that wait to be lent, at most: 5 MB.
const CHUNKS_MAX: usize = 2_048;
/// The longest that a frame ring gets as a rule: what a hundred thousand ticks print. Where that many come in a second, a client may
/// wait for most of it.
pub const FRAME_RING_BYTES: usize = 16 << 20;
/// How often a frame ring gets twice as long: it begins with a sixteenth, as a rule about what a core's own cache holds.
const LENGTHENINGS: u32 = 4;
/// The shortest frame ring: some of the longest frames.
pub const FRAME_RING_BYTES_MIN: usize = 4 * FRAME_BYTES_MAX;
/// The longest frame that is shared.
const FRAME_BYTES_MAX: usize = 4_096;
/// Lists of ranges that wait to be lent, at most, and how long one of them may be.
const LISTS_MAX: usize = 2_048;
const LIST_MAX: usize = 256;

/// When the tick of a frame was received and encoded, and as what it is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// When it was received, nanoseconds since the Unix epoch.
    pub rx_ns: u64,
    /// When its frame was made, nanoseconds since the Unix epoch.
    pub tx_ns: u64,
    /// Its venue and channel.
    pub class: Class,
    /// Its instrument.
    pub instrument: InstrumentId,
}

/// Some whole frames in the frame ring.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FrameRange {
    /// How many bytes were in the frame ring before them, ever.
    at: u64,
    pub(super) len: usize,
    /// The number of the first, wrapping.
    first: u32,
    pub(super) count: u32,
}

impl FrameRange {
    /// How many bytes they have.
    pub fn bytes(self) -> usize {
        self.len
    }

    /// The number of its first frame, wrapping.
    #[inline]
    pub(super) fn first(self) -> u32 {
        self.first
    }

    /// Takes in a range that begins where this one ends. False if it does not.
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
/// A tick's frame is *appended* to a frame ring once, and a row of pending frames, then an outbox, remembers where it stands there: so a tick costs
/// each subscriber some words, and its bytes are copied when the socket is written to, from a cache that all share. The frame ring
/// is a ring. Before it comes round, it [gets longer](Self::lengthen), or sessions that were not written to for so long make
/// [its own](super::Session::own) copies, so that nothing that is remembered is ever written over.
#[derive(Clone, Debug)]
pub struct Buffers(Rc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// How long the frame ring is, and how long it may get.
    frame_ring_bytes: Cell<usize>,
    frame_ring_bytes_max: usize,
    frame_ring: RefCell<Vec<u8>>,
    /// Bytes that were appended, ever, and those left out where a frame would have been cut by the end of the frame ring.
    head: Cell<u64>,
    /// What stands before this place is not read any more.
    reclaimed: Cell<u64>,
    frames: RefCell<Frames>,
    chunks: Pool<u8>,
    /// Bytes of chunks that are lent: what outboxes hold.
    lent_bytes: Cell<usize>,
    /// What all outboxes may hold together before memory counts as short.
    lent_bytes_max: Cell<usize>,
    /// What an outbox may hold at most then that is not in the frame ring.
    short_own_bytes_max: Cell<usize>,
    lists: Pool<FrameRange>,
    gathered: RefCell<Vec<u8>>,
}

/// What is lent, given back, and lent again: what was given back last, which is still in the cache, first.
#[derive(Debug)]
struct Pool<T> {
    waiting: RefCell<Vec<Vec<T>>>,
    /// The fewest that waited since the pool shrank last: so many were not needed.
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

    /// Beyond `most` it is given to the allocator.
    fn take_back(&self, mut lent: Vec<T>, most: usize) {
        let mut waiting = self.waiting.borrow_mut();
        if waiting.len() < most {
            lent.clear();
            waiting.push(lent);
        }
    }

    /// Gives half of what was not needed to the allocator.
    fn shrink(&self) {
        let mut waiting = self.waiting.borrow_mut();
        // Those that have waited for longest.
        waiting.drain(..self.unneeded.get().div_ceil(2));
        self.unneeded.set(waiting.len());
    }
}

/// The frames that are not reclaimed.
#[derive(Debug, Default)]
struct Frames {
    /// The number of the first, wrapping.
    first: u32,
    /// Where each stands, how long it is, and its times.
    list: VecDeque<(u64, u32, Times)>,
}

impl Default for Buffers {
    fn default() -> Self {
        Self::new(FRAME_RING_BYTES)
    }
}

impl Buffers {
    /// Nothing is appended yet. The frame ring may get that long, [`FRAME_RING_BYTES_MIN`] at least.
    pub fn new(frame_ring_bytes_max: usize) -> Self {
        let frame_ring_bytes_max = frame_ring_bytes_max.max(FRAME_RING_BYTES_MIN);
        let first =
            frame_ring_bytes_max >> LENGTHENINGS.min((frame_ring_bytes_max / FRAME_RING_BYTES_MIN).ilog2());
        let shared = Shared { frame_ring_bytes: Cell::new(first), frame_ring_bytes_max, ..Shared::default() };
        shared.lent_bytes_max.set(usize::MAX);
        Self(Rc::new(shared))
    }

    /// How long a frame ring is at first that may get so long.
    pub fn first_frame_ring_bytes(frame_ring_bytes_max: usize) -> usize {
        Self::new(frame_ring_bytes_max).frame_ring_bytes()
    }

    /// How long the frame ring is.
    #[inline]
    pub fn frame_ring_bytes(&self) -> usize {
        self.0.frame_ring_bytes.get()
    }

    /// Where in the frame ring that is.
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

    /// Whether another frame may be appended before something is [reclaimed](Self::reclaim).
    #[inline]
    pub fn has_room(&self) -> bool {
        // A frame, and what may be left out before it.
        self.head() + 2 * FRAME_BYTES_MAX as u64 <= self.0.reclaimed.get() + self.frame_ring_bytes() as u64
    }

    /// Returns the position below which frames are reclaimed when there is no room: an eighth of the frame ring, which
    /// bounds how many sessions copy at once.
    pub fn reclaim_before(&self) -> u64 {
        self.head().saturating_sub(
            (self.frame_ring_bytes() - self.frame_ring_bytes() / 8 - 2 * FRAME_BYTES_MAX) as u64,
        )
    }

    /// How long the frame ring gets next, if it may get longer.
    pub fn next_frame_ring_bytes(&self) -> Option<usize> {
        Some(2 * self.frame_ring_bytes()).filter(|bytes| *bytes <= self.0.frame_ring_bytes_max)
    }

    /// Makes the frame ring twice as long, with all that is remembered on it, unless that is longer than it may get. True if it did.
    ///
    /// It never gets shorter: what was needed once will be needed again. What is on it is copied, which takes a millisecond or
    /// two for eight megabytes.
    #[cold]
    pub fn lengthen(&self) -> bool {
        let before = self.frame_ring_bytes();
        let Some(after) = self.next_frame_ring_bytes() else { return false };
        let mut longer = vec![0; after];
        let mut frame_ring = self.0.frame_ring.borrow_mut();
        // No frame goes over an end of the frame ring, and where the longer one ends the shorter one did.
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

    /// Frees what stands before this place: it will not be read.
    pub fn reclaim(&self, before: u64) {
        self.0.reclaimed.set(before);
        let Frames { first, list } = &mut *self.0.frames.borrow_mut();
        while list.pop_front_if(|(at, ..)| *at < before).is_some() {
            *first = first.wrapping_add(1);
        }
    }

    /// Appends a frame; `None` if there is no room, or if it is very long.
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
        // At least a byte, and a number, are left out, so that what stands before and behind is never joined.
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

    /// So many frames whose numbers follow each other, by the lowest `bits` of the first one's number. `None` if they are not
    /// in the frame ring.
    #[inline]
    pub(super) fn range(&self, number: u32, bits: u32, count: u32) -> Option<FrameRange> {
        let frames = self.0.frames.borrow();
        let nth = number.wrapping_sub(frames.first) & (u32::MAX >> (u32::BITS - bits));
        let (at, ..) = *frames.list.get(nth as usize)?;
        let (end, len, _) = *frames.list.get((nth + count) as usize - 1)?;
        let len = (end - at) as usize + len as usize;
        Some(FrameRange { at, len, first: frames.first.wrapping_add(nth), count })
    }

    /// Shows the bytes of a range.
    pub(super) fn read<T>(&self, range: FrameRange, show: impl FnOnce(&[u8]) -> T) -> T {
        debug_assert!(range.at >= self.0.reclaimed.get(), "it was written over");
        let frame_ring = self.0.frame_ring.borrow();
        show(&frame_ring[self.place(range.at)..][..range.len])
    }

    /// The times of a frame of a range, from 0.
    pub(super) fn times(&self, range: FrameRange, nth: u32) -> Option<Times> {
        let frames = self.0.frames.borrow();
        let at = range.first.wrapping_add(nth).wrapping_sub(frames.first);
        frames.list.get(at as usize).map(|(.., times)| *times)
    }

    /// Shows the bytes of several ranges in one piece.
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

    // ---- what is lent ---------------------------------------------------------------------------------

    /// A chunk for at least so many bytes.
    pub(super) fn chunk(&self, bytes: usize) -> Vec<u8> {
        let lent = if bytes <= CHUNK_BYTES { self.0.chunks.lend() } else { None };
        let chunk = lent.unwrap_or_else(|| Vec::with_capacity(bytes.max(CHUNK_BYTES)));
        self.0.lent_bytes.set(self.0.lent_bytes.get() + chunk.capacity());
        chunk
    }

    /// Bytes of the chunks that outboxes hold.
    #[inline]
    pub fn lent_bytes(&self) -> usize {
        self.0.lent_bytes.get()
    }

    /// What an outbox may hold at most that is not in the frame ring: copies for a client whose socket takes nothing, and frames
    /// for one client alone.
    pub fn own_bytes_max(&self) -> usize {
        if self.lent_bytes() < self.0.lent_bytes_max.get() {
            usize::MAX
        } else {
            self.0.short_own_bytes_max.get()
        }
    }

    /// Bounds what outboxes hold: `lent_bytes_max` together. Once they do, each may hold `own_bytes_max` that are not on the
    /// frame ring, beside what its policy allows.
    pub fn bound(&self, lent_bytes_max: usize, own_bytes_max: usize) {
        self.0.lent_bytes_max.set(lent_bytes_max);
        self.0.short_own_bytes_max.set(own_bytes_max);
    }

    /// How many chunks wait to be lent.
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

    /// A list for ranges.
    pub(super) fn list(&self) -> Vec<FrameRange> {
        self.0.lists.lend().unwrap_or_default()
    }

    pub(super) fn take_back_list(&self, list: Vec<FrameRange>) {
        if list.capacity() <= LIST_MAX {
            self.0.lists.take_back(list, LISTS_MAX);
        }
    }

    /// Frees half of what was not borrowed since this was called last.
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
