//! The outbox: whole frames that wait for a socket, and how long the oldest has waited. Chunks come first, in which
//! urgent frames overtake others; then come references into the frame ring, whose frames other outboxes send, too.

use std::collections::VecDeque;
use std::io::IoSlice;

use super::buffers::{Buffers, FrameRange, Times};
use super::pending_frames::PendingFrames;
use crate::protocol::frame;

/// Maximum number of chunks per write: some 32 KiB, so that pings in a long queue can be close together.
const SLICES_MAX: usize = 13;
/// Bytes queued within this time of each other have the same age, in nanoseconds.
const GRAIN_NS: u64 = 25_000_000;
/// Maximum number of ticks per write whose times are passed on from the frame ring.
const TOLD_MAX: u32 = 8;
/// Maximum number of ages. Beyond it, every second one is forgotten, and its bytes count as older.
const AGES_MAX: usize = 64;

/// Whole frames, in sending order.
///
/// The fields that each write needs come first, since they are in no near cache: see [`Session`](super::Session).
#[derive(Debug, Default)]
#[repr(C)]
pub struct Outbox {
    /// Bytes that wait.
    len: usize,
    /// The last range in the frame ring; empty if there is none.
    range: FrameRange,
    /// Since when the next byte has waited, in nanoseconds of steady time.
    oldest_ns: u64,
    /// Bytes that were written, in total.
    taken: u64,
    /// What else is known of the waiting bytes; usually nothing.
    marks: Option<Box<Marks>>,
    /// Bytes up to the end of the last urgent frame; 0 if there is none.
    urgent_len: usize,
    /// The ranges in the frame ring before the last one. They follow all chunks, and nothing of them was written.
    ranges: Vec<FrameRange>,
    buffers: Buffers,
    /// The chunk that is written next. Each chunk begins with a frame.
    front: Vec<u8>,
    /// How many bytes of it were written.
    written: usize,
    /// The start of a frame in it, from which the next unwritten frame is found.
    frame_start: usize,
    /// The chunks behind it. Empty while the socket keeps up.
    rest: VecDeque<Vec<u8>>,
}

/// What is known of waiting bytes. Positions count like [`Outbox::taken`].
#[derive(Debug, Default)]
struct Marks {
    /// Where bytes of a later time begin, and that time.
    younger: VecDeque<(u64, u64)>,
    /// Where answers end, and their lengths.
    answers: VecDeque<(u64, usize)>,
    /// The total length of these answers.
    answer_bytes: usize,
    /// Where frames of ticks end, and their times.
    ticks: VecDeque<(u64, Times)>,
    /// Bytes before this position waited because the socket took nothing.
    refused: u64,
}

/// Appends a range to the `last` one, which follows all `others`.
#[inline(always)]
fn put_behind(others: &mut Vec<FrameRange>, last: &mut FrameRange, range: FrameRange, buffers: &Buffers) {
    if last.len == 0 {
        *last = range;
    } else if !last.join(range) {
        if others.capacity() == 0 {
            *others = buffers.list();
        }
        others.push(std::mem::replace(last, range));
    }
}

impl Outbox {
    /// Returns an empty outbox.
    pub(super) fn new(buffers: Buffers) -> Self {
        Self { buffers, ..Self::default() }
    }

    /// Passes the next bytes to `write`: at least one slice, as much as one write takes, and at most `most` bytes.
    pub(super) fn show<T>(&mut self, most: usize, write: impl FnOnce(&[IoSlice<'_>]) -> T) -> T {
        if self.is_in_frame_ring() && self.len <= most {
            let one = |bytes: &[u8]| write(&[IoSlice::new(bytes)]);
            return if self.ranges.is_empty() {
                self.buffers.read(self.range, one)
            } else {
                self.buffers.gather(&self.ranges, self.range, one)
            };
        }
        self.own();
        let front = &self.front[self.written..];
        if self.rest.is_empty() || front.len() >= most {
            return write(&[IoSlice::new(&front[..front.len().min(most)])]);
        }
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        slices[0] = IoSlice::new(front);
        let (mut count, mut left) = (1, most - front.len());
        for (slice, chunk) in slices[1..].iter_mut().zip(&self.rest) {
            let n = chunk.len().min(left);
            if n == 0 {
                break;
            }
            *slice = IoSlice::new(&chunk[..n]);
            (count, left) = (count + 1, left - n);
        }
        write(&slices[..count])
    }

    /// Returns a copy of the urgent frames, if any, and of the rest of a partly written frame before them; with `all`,
    /// of everything.
    pub(super) fn copied(&mut self, all: bool) -> Vec<u8> {
        self.own();
        let len = if all { self.len } else { self.urgent_len };
        let mut bytes = self.front[self.written..].to_vec();
        for chunk in &self.rest {
            if bytes.len() >= len {
                break;
            }
            bytes.extend_from_slice(chunk);
        }
        bytes.truncate(len);
        bytes
    }

    /// See [`Session::prefetch`](super::Session::prefetch).
    #[inline]
    pub(super) fn prefetch(&self) -> usize {
        self.len ^ self.ranges.len()
    }

    /// Returns the number of waiting bytes.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Returns how many of these belong to answers.
    #[inline]
    pub fn answer_bytes(&self) -> usize {
        let Some(marks) = &self.marks else { return 0 };
        let begun =
            marks.answers.front().map_or(0, |(end, len)| len.saturating_sub((end - self.taken) as usize));
        marks.answer_bytes - begun
    }

    /// Returns true if nothing waits.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns since when the next byte has waited, in nanoseconds of steady time; `None` if nothing waits.
    pub fn oldest_ns(&self) -> Option<u64> {
        (!self.is_empty()).then_some(self.oldest_ns)
    }

    /// Appends whole frames.
    pub(super) fn push(&mut self, frames: &[u8], now_ns: u64) {
        self.own();
        self.note(now_ns);
        self.append(frames);
        self.len += frames.len();
    }

    /// Appends the frame of a tick.
    pub(super) fn push_tick(&mut self, frame: &[u8], times: Times, now_ns: u64) {
        self.push(frame, now_ns);
        let end = self.taken + self.len as u64;
        self.marks.get_or_insert_default().ticks.push_back((end, times));
    }

    /// Returns how many ticks end within the next `n` bytes.
    #[inline]
    pub(super) fn ticks_within(&self, n: usize) -> u32 {
        if self.is_in_frame_ring() {
            let all = || self.ranges.iter().chain([&self.range]).map(|range| range.count).sum();
            return if n < self.len { self.frames_within(n) } else { all() };
        }
        let Some(marks) = &self.marks else { return 0 };
        let end = self.taken + n as u64;
        marks.ticks.iter().take_while(|(tick_end, _)| *tick_end <= end).count() as u32
    }

    /// Samples the ticks that end within the next `n` bytes: at most [`TOLD_MAX`] of the frame ring, among them the
    /// longest waiting. Passes the times of each to `tell`, with the number of these ticks that it represents, and with
    /// that number plus its share of `others`. Returns false if no tick ends there.
    pub(super) fn going(&self, n: usize, others: u64, mut tell: impl FnMut(Times, u64, u64)) -> bool {
        let out = self.ticks_within(n);
        let step = if self.is_in_frame_ring() { out.div_ceil(TOLD_MAX).max(1) } else { 1 };
        let (told, all) = (u64::from(out.div_ceil(step)), u64::from(out) + others);
        let mut nth = 0;
        let mut tell = |times| {
            let own = u64::from(step).min(u64::from(out) - nth * u64::from(step));
            tell(times, own, all * (nth + 1) / told - all * nth / told);
            nth += 1;
        };
        if !self.is_in_frame_ring() {
            let ticks = self.marks.iter().flat_map(|marks| &marks.ticks);
            ticks.take(out as usize).for_each(|(_, times)| tell(*times));
            return out > 0;
        }
        let (mut at, mut begin) = (0, 0);
        for range in self.ranges.iter().chain([&self.range]) {
            while at < out && at - begin < range.count {
                if let Some(times) = self.buffers.times(*range, at - begin) {
                    tell(times);
                }
                at += step;
            }
            begin += range.count;
        }
        out > 0
    }

    /// Marks all waiting bytes as refused: they waited while the socket took nothing, which ends now.
    pub(super) fn was_refused(&mut self) {
        let end = self.taken + self.len as u64;
        // Blocking has copied all frames, so every refused tick is in `marks`.
        if let Some(marks) = &mut self.marks {
            marks.refused = end;
        }
    }

    /// Returns true if some of the next bytes waited because the socket took nothing.
    #[inline]
    pub(super) fn has_refused(&self) -> bool {
        self.marks.as_ref().is_some_and(|marks| marks.refused > self.taken)
    }

    /// Passes to `tell` the times of each tick that ends within the next `n` bytes, and true if the socket refused it.
    /// For an outbox of which some bytes [were refused](Self::has_refused).
    pub(super) fn going_refused(&self, n: usize, mut tell: impl FnMut(Times, bool)) {
        let Some(marks) = &self.marks else { return };
        let end = self.taken + n as u64;
        let out = marks.ticks.iter().take_while(|(tick_end, _)| *tick_end <= end);
        out.for_each(|(tick_end, times)| tell(*times, *tick_end <= marks.refused));
    }

    /// Returns true if all waiting bytes are in the frame ring.
    #[inline]
    fn is_in_frame_ring(&self) -> bool {
        self.range.len > 0 && self.front.is_empty()
    }

    /// Returns how many frames in the frame ring end within the first `n` bytes.
    #[cold]
    fn frames_within(&self, n: usize) -> u32 {
        let (mut count, mut left) = (0, n);
        for range in self.ranges.iter().chain([&self.range]) {
            self.buffers.read(*range, |mut frames| {
                while !frames.is_empty() {
                    let len = frame::len(frames).min(frames.len());
                    if left < len {
                        left = 0;
                        return;
                    }
                    (count, left) = (count + 1, left - len);
                    frames = &frames[len..];
                }
            });
        }
        count
    }

    /// Appends frames of the frame ring, by reference.
    #[inline]
    pub(super) fn push_range(&mut self, range: FrameRange, now_ns: u64) {
        // All ranges count as old as the first of them: they are written together, or copied soon.
        if self.range.len == 0 {
            self.note(now_ns);
        }
        self.len += range.len;
        put_behind(&mut self.ranges, &mut self.range, range, &self.buffers);
    }

    /// Appends pending frames, and leaves no room in their row. Returns how many count as sent in the ledger.
    #[inline]
    pub(super) fn absorb(&mut self, pending_frames: &mut PendingFrames) -> u64 {
        pending_frames.set_room(0);
        if pending_frames.is_empty() {
            return 0;
        }
        if self.range.len == 0 {
            self.note(pending_frames.since_ns());
        }
        let Self { buffers, ranges, range: last, len, .. } = self;
        // Kept in registers: a range whose words were just stored is slow to load as a whole.
        let (mut end, mut bytes) = (*last, 0);
        let counted = pending_frames.take(buffers, |range| {
            bytes += range.len;
            put_behind(ranges, &mut end, range, buffers);
        });
        (*last, *len) = (end, *len + bytes);
        counted
    }

    /// As [`push_range`](Self::push_range), but copies the frames, so the frame ring may wrap.
    pub(super) fn push_copy(&mut self, range: FrameRange, now_ns: u64) {
        let buffers = self.buffers.clone();
        buffers.read(range, |frame| match buffers.times(range, 0) {
            Some(times) => self.push_tick(frame, times, now_ns),
            None => self.push(frame, now_ns),
        });
    }

    /// Copies the frames that are in the frame ring, which may then wrap.
    pub(super) fn own(&mut self) {
        if self.range.len > 0 {
            self.own_behind(0);
        }
    }

    /// Copies the frames that are in the frame ring, except those that end within the first `n` bytes: these were
    /// written.
    #[cold]
    fn own_behind(&mut self, n: usize) {
        let (mut ranges, last) = (std::mem::take(&mut self.ranges), std::mem::take(&mut self.range));
        ranges.push(last);
        let buffers = self.buffers.clone();
        let mut gone = n;
        let mut end = self.taken + self.len as u64 - ranges.iter().map(|range| range.len as u64).sum::<u64>();
        for range in &ranges {
            buffers.read(*range, |mut frames| {
                for nth in 0..range.count {
                    let (frame, behind) = frames.split_at(frame::len(frames).min(frames.len()));
                    frames = behind;
                    end += frame.len() as u64;
                    if gone >= frame.len() {
                        gone -= frame.len();
                        continue;
                    }
                    if let Some(times) = buffers.times(*range, nth) {
                        self.marks.get_or_insert_default().ticks.push_back((end, times));
                    }
                    self.append(frame);
                    // The first one may be partly written.
                    self.written += std::mem::take(&mut gone);
                }
            });
        }
        self.buffers.take_back_list(ranges);
    }

    /// Notes the age of bytes that are queued now.
    #[inline]
    fn note(&mut self, now_ns: u64) {
        if self.len == 0 {
            self.oldest_ns = now_ns;
        } else if now_ns >= self.youngest_ns() + GRAIN_NS {
            self.age(now_ns);
        }
    }

    /// Appends frames to the last chunk, or to a new one. A single vector would double its capacity when it grows, so a
    /// full outbox would take twice its budget.
    fn append(&mut self, frames: &[u8]) {
        let last = self.rest.back_mut().unwrap_or(&mut self.front);
        if last.capacity() - last.len() >= frames.len() {
            return last.extend_from_slice(frames);
        }
        let mut chunk = self.buffers.chunk(frames.len());
        chunk.extend_from_slice(frames);
        if self.front.is_empty() {
            self.buffers.take_back(std::mem::replace(&mut self.front, chunk));
        } else {
            self.rest.push_back(chunk);
        }
    }

    /// Appends an answer.
    pub(super) fn push_answer(&mut self, frame: &[u8], now_ns: u64) {
        self.push(frame, now_ns);
        let marks = self.marks.get_or_insert_default();
        marks.answers.push_back((self.taken + self.len as u64, frame.len()));
        marks.answer_bytes += frame.len();
    }

    #[inline]
    fn youngest_ns(&self) -> u64 {
        let youngest = self.marks.as_ref().and_then(|marks| marks.younger.back());
        youngest.map_or(self.oldest_ns, |(_, at)| *at)
    }

    /// Notes that bytes queued from now on are younger than all before them.
    #[cold]
    fn age(&mut self, now_ns: u64) {
        let marks = self.marks.get_or_insert_default();
        if marks.younger.len() >= AGES_MAX {
            let mut keep = false;
            marks.younger.retain(|_| {
                keep = !keep;
                keep
            });
        }
        marks.younger.push_back((self.taken + self.len as u64, now_ns));
    }

    /// Inserts whole frames behind a partly written frame and other urgent frames, and ahead of the rest.
    pub(super) fn push_urgent(&mut self, frames: &[u8], now_ns: u64) {
        self.own();
        let behind = self.urgent_end();
        if behind == self.len {
            self.push(frames, now_ns);
        } else {
            self.insert(behind, frames);
        }
        self.urgent_len = behind + frames.len();
    }

    /// Returns how many bytes are written before a new urgent frame.
    pub(super) fn urgent_end(&mut self) -> usize {
        self.begun_len().max(self.urgent_len)
    }

    /// Inserts whole frames after the first `behind` bytes, where a frame ends.
    fn insert(&mut self, behind: usize, frames: &[u8]) {
        let (at, offset) = self.chunk_of(behind);
        let chunk = if at == 0 { &mut self.front } else { &mut self.rest[at - 1] };
        let after = &chunk[offset..];
        let mut tail = if after.is_empty() { Vec::new() } else { self.buffers.chunk(after.len()) };
        tail.extend_from_slice(after);
        chunk.truncate(offset);
        if chunk.capacity() - chunk.len() >= frames.len() {
            // Many small frames share a chunk; one each would take much memory.
            chunk.extend_from_slice(frames);
        } else {
            let mut between = self.buffers.chunk(frames.len());
            between.extend_from_slice(frames);
            self.rest.insert(at, between);
        }
        if !tail.is_empty() {
            // The tail goes behind the chunk that the new frames are in.
            let (at, _) = self.chunk_of(behind + frames.len());
            self.rest.insert(at, tail);
        }
        self.len += frames.len();
        let place = self.taken + behind as u64;
        let more = frames.len() as u64;
        let Some(marks) = &mut self.marks else { return };
        marks.younger.iter_mut().filter(|(from, _)| *from >= place).for_each(|(from, _)| *from += more);
        marks.answers.iter_mut().filter(|(end, _)| *end > place).for_each(|(end, _)| *end += more);
        marks.ticks.iter_mut().filter(|(end, _)| *end > place).for_each(|(end, _)| *end += more);
        marks.refused += if marks.refused > place { more } else { 0 };
    }

    /// Returns the chunk in which the first `bytes` bytes end (0 is the front one), and the offset in it.
    fn chunk_of(&self, bytes: usize) -> (usize, usize) {
        let (mut at, mut offset, mut len) = (0, self.written + bytes, self.front.len());
        while offset > len {
            offset -= len;
            len = self.rest.get(at).map_or(offset, Vec::len);
            at += 1;
        }
        (at, offset)
    }

    /// Returns true while an urgent frame waits.
    pub(super) fn has_urgent(&self) -> bool {
        self.urgent_len > 0
    }

    /// Returns how many bytes are left of a partly written frame.
    fn begun_len(&mut self) -> usize {
        while self.frame_start < self.written {
            self.frame_start += frame::len(&self.front[self.frame_start..]);
        }
        self.frame_start - self.written
    }

    /// Discards all frames of which nothing was written, except urgent ones.
    pub(super) fn discard(&mut self) {
        let kept = self.begun_len().max(self.urgent_len);
        self.keep(kept);
    }

    /// Returns its memory in bytes: its own copies of frames, and what is known of them.
    pub(super) fn held_bytes(&self) -> usize {
        let chunks = self.front.capacity() + self.rest.iter().map(Vec::capacity).sum::<usize>();
        let tables =
            self.rest.capacity() * size_of::<Vec<u8>>() + self.ranges.capacity() * size_of::<FrameRange>();
        chunks + tables + self.marks.as_ref().map_or(0, |marks| marks.held_bytes())
    }

    /// Gives its chunks back to the pool; for an outbox that is dropped.
    pub(super) fn give_back(&mut self) {
        let chunks = std::iter::once(std::mem::take(&mut self.front)).chain(self.rest.drain(..));
        chunks.for_each(|chunk| self.buffers.take_back(chunk));
    }

    /// Returns the most bytes that it may hold outside the frame ring: limited only while memory is short.
    pub(super) fn own_bytes_max(&self) -> usize {
        self.buffers.own_bytes_max()
    }

    /// Returns a copy of the frames of which nothing was written and that are not urgent.
    pub(super) fn queued(&mut self) -> Vec<u8> {
        let mut queued = self.copied(true);
        queued.drain(..self.begun_len().max(self.urgent_len));
        queued
    }

    /// Discards the last `bytes` bytes, which must be whole frames and not urgent.
    pub(super) fn drop_last(&mut self, bytes: usize) {
        self.keep(self.len.saturating_sub(bytes));
    }

    /// Discards everything behind the first `kept` bytes, where a frame ends.
    fn keep(&mut self, kept: usize) {
        self.own();
        let (at, offset) = self.chunk_of(kept);
        let buffers = &self.buffers;
        self.rest.drain(at.min(self.rest.len())..).for_each(|chunk| buffers.take_back(chunk));
        self.rest.back_mut().unwrap_or(&mut self.front).truncate(offset);
        self.len = kept;
        let end = self.taken + kept as u64;
        if let Some(marks) = &mut self.marks {
            while marks.younger.pop_back_if(|(from, _)| *from >= end).is_some() {}
            while let Some((_, len)) = marks.answers.pop_back_if(|(answer_end, _)| *answer_end > end) {
                marks.answer_bytes -= len;
            }
            while marks.ticks.pop_back_if(|(tick_end, _)| *tick_end > end).is_some() {}
            marks.refused = marks.refused.min(end);
        }
        self.wrote(0);
    }

    /// Records that the socket took the first `n` bytes.
    #[inline]
    pub(super) fn wrote(&mut self, n: usize) {
        let n = n.min(self.len);
        if self.range.len > 0 && self.front.is_empty() {
            return self.wrote_ranges(n);
        }
        self.len -= n;
        self.taken += n as u64;
        self.written += n;
        self.urgent_len = self.urgent_len.saturating_sub(n);
        while self.written >= self.front.len() {
            self.frame_start = 0;
            let Some(next) = self.rest.pop_front() else {
                self.written = 0;
                self.buffers.take_back(std::mem::take(&mut self.front));
                if self.rest.capacity() > 0 {
                    self.rest = VecDeque::new();
                }
                break;
            };
            self.written -= self.front.len();
            self.buffers.take_back(std::mem::replace(&mut self.front, next));
        }
        if self.marks.is_some() {
            self.settle();
        }
    }

    /// As [`wrote`](Self::wrote), for an outbox that has bytes in the frame ring only.
    #[inline]
    fn wrote_ranges(&mut self, n: usize) {
        if n < self.len {
            // The rest may wait for so long that the frame ring wraps.
            self.own_behind(n);
        } else {
            self.range = FrameRange::default();
            if self.ranges.capacity() > 0 {
                self.buffers.take_back_list(std::mem::take(&mut self.ranges));
            }
        }
        self.len -= n;
        self.taken += n as u64;
        if self.marks.is_some() {
            self.settle();
        }
    }

    /// Forgets what was known of bytes that were written.
    fn settle(&mut self) {
        let Some(marks) = &mut self.marks else { return };
        let taken = self.taken;
        while let Some((_, at)) = marks.younger.pop_front_if(|(from, _)| *from <= taken) {
            self.oldest_ns = at;
        }
        while let Some((_, len)) = marks.answers.pop_front_if(|(end, _)| *end <= taken) {
            marks.answer_bytes -= len;
        }
        while marks.ticks.pop_front_if(|(end, _)| *end <= taken).is_some() {}
        if self.len == 0 {
            self.marks = None;
        }
    }
}

impl Marks {
    fn held_bytes(&self) -> usize {
        size_of::<Self>()
            + self.younger.capacity() * size_of::<(u64, u64)>()
            + self.answers.capacity() * size_of::<(u64, usize)>()
            + self.ticks.capacity() * size_of::<(u64, Times)>()
    }
}

#[cfg(test)]
mod tests;
