//! The bytes that wait for a socket: chunks of whole frames, in which urgent frames overtake the others, then frames that
//! other outboxes send, too; and how long the oldest of them has been waiting.

use std::collections::VecDeque;
use std::io::IoSlice;

use super::buffers::{Buffers, FrameRange, Times};
use super::pending_frames::PendingFrames;
use crate::protocol::frame;

/// Chunks that one write takes, at most: some 32 KiB, so that pings can stand close in what has waited.
const SLICES_MAX: usize = 13;
/// Bytes that came within this time of each other are of one age.
const GRAIN_NS: u64 = 25_000_000;
/// Ticks of one write whose times are handed out.
const TOLD_MAX: u32 = 8;
/// Ages that are kept apart; beyond that, every second one is forgotten, and its bytes count as older.
const AGES_MAX: usize = 64;

/// Whole frames, in the order in which they go out.
///
/// What each write needs comes first, for it is in no near cache: see [`Session`](super::Session).
#[derive(Debug, Default)]
#[repr(C)]
pub struct Outbox {
    /// Bytes that wait.
    len: usize,
    /// The last range. Empty if there is none.
    range: FrameRange,
    /// Since when the next byte has waited, steady time.
    oldest_ns: u64,
    /// Bytes that have gone out, ever.
    taken: u64,
    /// What else is known of them. There is nothing as a rule.
    marks: Option<Box<Marks>>,
    /// How many of the bytes are to go out until the last urgent one has; 0 if there are none.
    urgent_len: usize,
    /// What stands in the frame ring, behind all chunks, but for the last range: frames of which nothing has gone out.
    ranges: Vec<FrameRange>,
    buffers: Buffers,
    /// The chunk that goes out next. Each begins with a frame.
    front: Vec<u8>,
    /// How much of it has gone out.
    written: usize,
    /// Some start of a frame in it; the next one to go out is found from here.
    frame_start: usize,
    /// The chunks behind it. Empty while a socket keeps up.
    rest: VecDeque<Vec<u8>>,
}

/// What is known of bytes that wait, besides what they are. Places are counted like [`Outbox::taken`].
#[derive(Debug, Default)]
struct Marks {
    /// Where younger bytes begin, and their time.
    younger: VecDeque<(u64, u64)>,
    /// Where answers end, and how long they are.
    answers: VecDeque<(u64, usize)>,
    /// How long these are together.
    answer_bytes: usize,
    /// Where the frames of ticks end, and their times.
    ticks: VecDeque<(u64, Times)>,
    /// What stands before this place waited because the socket took nothing.
    refused: u64,
}

/// Puts a range behind the `last` one, which is behind all `others`.
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
    /// An empty one.
    pub(super) fn new(buffers: Buffers) -> Self {
        Self { buffers, ..Self::default() }
    }

    /// Shows what goes out next to `write`, at least one slice, as much as one write takes, and not more than `most`
    /// bytes.
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

    /// All that waits up to the end of the urgent frames, where there are any: the rest of a frame that has begun, and
    /// they. With `all`, everything.
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

    /// How many bytes wait.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// How many of these are of answers.
    #[inline]
    pub fn answer_bytes(&self) -> usize {
        let Some(marks) = &self.marks else { return 0 };
        let begun =
            marks.answers.front().map_or(0, |(end, len)| len.saturating_sub((end - self.taken) as usize));
        marks.answer_bytes - begun
    }

    /// True if nothing waits.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Since when the next byte has waited, steady time; `None` if nothing waits.
    pub fn oldest_ns(&self) -> Option<u64> {
        (!self.is_empty()).then_some(self.oldest_ns)
    }

    /// Puts whole frames behind all others.
    pub(super) fn push(&mut self, frames: &[u8], now_ns: u64) {
        self.own();
        self.note(now_ns);
        self.append(frames);
        self.len += frames.len();
    }

    /// Puts the frame of a tick behind all others.
    pub(super) fn push_tick(&mut self, frame: &[u8], times: Times, now_ns: u64) {
        self.push(frame, now_ns);
        let end = self.taken + self.len as u64;
        self.marks.get_or_insert_default().ticks.push_back((end, times));
    }

    /// How many ticks are out with the next `n` bytes.
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

    /// Hands out the times of the ticks that are out with the next `n` bytes, and how many each stands for: of these, those next
    /// to it where many go out at once; and of all, its share of `others` too. The one that has waited longest is among
    /// them. False if no tick is out.
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

    /// The socket took nothing, and from now on may take something: what waits by now waited for the client.
    pub(super) fn was_refused(&mut self) {
        let end = self.taken + self.len as u64;
        // Ticks that were refused are known there.
        if let Some(marks) = &mut self.marks {
            marks.refused = end;
        }
    }

    /// Whether some of what goes out next waited because the socket took nothing.
    #[inline]
    pub(super) fn has_refused(&self) -> bool {
        self.marks.as_ref().is_some_and(|marks| marks.refused > self.taken)
    }

    /// Hands out the times of each tick that is out with the next `n` bytes of an outbox that [has been
    /// refused](Self::has_refused), and whether it was itself, or came later.
    pub(super) fn going_refused(&self, n: usize, mut tell: impl FnMut(Times, bool)) {
        let Some(marks) = &self.marks else { return };
        let end = self.taken + n as u64;
        let out = marks.ticks.iter().take_while(|(tick_end, _)| *tick_end <= end);
        out.for_each(|(tick_end, times)| tell(*times, *tick_end <= marks.refused));
    }

    /// Whether all that waits stands in the frame ring.
    #[inline]
    fn is_in_frame_ring(&self) -> bool {
        self.range.len > 0 && self.front.is_empty()
    }

    /// How many frames in the frame ring are whole within the first `n` bytes.
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

    /// Puts frames that stand in the frame ring behind all others.
    #[inline]
    pub(super) fn push_range(&mut self, range: FrameRange, now_ns: u64) {
        // All that stands in the frame ring is as old as the first of it: it goes out together, or is copied before long.
        if self.range.len == 0 {
            self.note(now_ns);
        }
        self.len += range.len;
        put_behind(&mut self.ranges, &mut self.range, range, &self.buffers);
    }

    /// Puts what was pushed on a row of pending frames behind all others: how many ticks of it are counted.
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
        // In registers: a range that was just written in words is slow to read as a whole.
        let (mut end, mut bytes) = (*last, 0);
        let counted = pending_frames.take(buffers, |range| {
            bytes += range.len;
            put_behind(ranges, &mut end, range, buffers);
        });
        (*last, *len) = (end, *len + bytes);
        counted
    }

    /// As [`push_range`](Self::push_range), but the frame ring may come round.
    pub(super) fn push_copy(&mut self, range: FrameRange, now_ns: u64) {
        let buffers = self.buffers.clone();
        buffers.read(range, |frame| match buffers.times(range, 0) {
            Some(times) => self.push_tick(frame, times, now_ns),
            None => self.push(frame, now_ns),
        });
    }

    /// Copies what stands in the frame ring: from here on it may come round.
    pub(super) fn own(&mut self) {
        if self.range.len > 0 {
            self.own_behind(0);
        }
    }

    /// Copies what stands in the frame ring, but for frames that are whole within its first `n` bytes: these have gone out.
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
                    // The first of them has begun.
                    self.written += std::mem::take(&mut gone);
                }
            });
        }
        self.buffers.take_back_list(ranges);
    }

    /// What comes now has waited since now.
    #[inline]
    fn note(&mut self, now_ns: u64) {
        if self.len == 0 {
            self.oldest_ns = now_ns;
        } else if now_ns >= self.youngest_ns() + GRAIN_NS {
            self.age(now_ns);
        }
    }

    /// Puts frames into the last chunk, or begins another: a vector by itself would double, and a full outbox then take
    /// twice its budget.
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

    /// Puts an answer behind all others.
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

    /// What comes now is younger than all before it.
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

    /// Puts whole frames before all others that have not begun to go out, but behind urgent ones.
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

    /// How many bytes go out before a frame that is urgent and not queued yet.
    pub(super) fn urgent_end(&mut self) -> usize {
        self.begun_len().max(self.urgent_len)
    }

    /// Puts whole frames behind so many bytes, where a frame ends.
    fn insert(&mut self, behind: usize, frames: &[u8]) {
        let (at, offset) = self.chunk_of(behind);
        let chunk = if at == 0 { &mut self.front } else { &mut self.rest[at - 1] };
        let after = &chunk[offset..];
        let mut tail = if after.is_empty() { Vec::new() } else { self.buffers.chunk(after.len()) };
        tail.extend_from_slice(after);
        chunk.truncate(offset);
        if chunk.capacity() - chunk.len() >= frames.len() {
            // Very many small ones share a chunk, or each would cost a whole one.
            chunk.extend_from_slice(frames);
        } else {
            let mut between = self.buffers.chunk(frames.len());
            between.extend_from_slice(frames);
            self.rest.insert(at, between);
        }
        if !tail.is_empty() {
            // Behind the chunk that the frames are in.
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

    /// The chunk in which so many bytes end, 0 for the front one, and where in it.
    fn chunk_of(&self, bytes: usize) -> (usize, usize) {
        let (mut at, mut offset, mut len) = (0, self.written + bytes, self.front.len());
        while offset > len {
            offset -= len;
            len = self.rest.get(at).map_or(offset, Vec::len);
            at += 1;
        }
        (at, offset)
    }

    /// True while an urgent frame waits.
    pub(super) fn has_urgent(&self) -> bool {
        self.urgent_len > 0
    }

    /// How much is left of a frame that has begun to go out.
    fn begun_len(&mut self) -> usize {
        while self.frame_start < self.written {
            self.frame_start += frame::len(&self.front[self.frame_start..]);
        }
        self.frame_start - self.written
    }

    /// Throws away all frames of which nothing was written, but for the urgent ones.
    pub(super) fn discard(&mut self) {
        let kept = self.begun_len().max(self.urgent_len);
        self.keep(kept);
    }

    /// Bytes of memory that it holds: its own copies of frames, and what is known of them.
    pub(super) fn held_bytes(&self) -> usize {
        let chunks = self.front.capacity() + self.rest.iter().map(Vec::capacity).sum::<usize>();
        let tables =
            self.rest.capacity() * size_of::<Vec<u8>>() + self.ranges.capacity() * size_of::<FrameRange>();
        chunks + tables + self.marks.as_ref().map_or(0, |marks| marks.held_bytes())
    }

    /// Gives its chunks back: it is gone.
    pub(super) fn give_back(&mut self) {
        let chunks = std::iter::once(std::mem::take(&mut self.front)).chain(self.rest.drain(..));
        chunks.for_each(|chunk| self.buffers.take_back(chunk));
    }

    /// What it may hold at most that is not in the frame ring, while memory is short.
    pub(super) fn own_bytes_max(&self) -> usize {
        self.buffers.own_bytes_max()
    }

    /// A copy of the frames of which nothing was written and that are not urgent.
    pub(super) fn queued(&mut self) -> Vec<u8> {
        let mut queued = self.copied(true);
        queued.drain(..self.begun_len().max(self.urgent_len));
        queued
    }

    /// Throws away the last so many bytes, which are whole frames and not urgent.
    pub(super) fn drop_last(&mut self, bytes: usize) {
        self.keep(self.len.saturating_sub(bytes));
    }

    /// Throws away what is behind so many bytes, where a frame ends.
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

    /// The socket took the first `n` bytes.
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

    /// The socket took the first `n` bytes of what stands in the frame ring, and there is nothing else.
    #[inline]
    fn wrote_ranges(&mut self, n: usize) {
        if n < self.len {
            // The rest may wait for long.
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

    /// Forgets what was known of bytes that have gone out.
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
