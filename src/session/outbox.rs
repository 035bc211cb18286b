//! The bytes that wait for a socket: one buffer, in which urgent frames overtake the others, and how long
//! the oldest of them has been waiting.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use crate::protocol::frame;

/// A buffer with more room than this is not lent again.
const LENT_BYTES_MAX: usize = 16_384;
/// Buffers that wait to be lent, at most.
const BUFFERS_MAX: usize = 256;
/// The sizes that it grows through, before that of a full one: few, so that blocks of one size are used again by others.
const SIZES: [usize; 3] = [4_096, 16_384, 65_536];
/// What a full outbox has room for beyond its ticks: urgent frames and a few answers.
const BESIDES_BYTES: usize = 16_384;
/// Bytes that came within this time of each other are of one age.
const GRAIN_NS: u64 = 25_000_000;
/// Ages that are told apart; beyond that, every second one is forgotten, and its bytes count as older.
const AGES_MAX: usize = 64;

/// Buffers that outboxes lend from each other: an empty outbox has none, and the one that was given back last, which
/// is still in the cache, is lent first.
#[derive(Clone, Debug, Default)]
pub struct Buffers(Rc<RefCell<Vec<Vec<u8>>>>);

impl Buffers {
    fn lend(&self) -> Vec<u8> {
        self.0.borrow_mut().pop().unwrap_or_default()
    }

    fn take_back(&self, buffer: Vec<u8>) {
        let mut buffers = self.0.borrow_mut();
        if buffers.len() < BUFFERS_MAX && buffer.capacity() <= LENT_BYTES_MAX {
            buffers.push(buffer);
        }
    }
}

/// Whole frames, in the order in which they go out.
#[derive(Debug, Default)]
pub struct Outbox {
    bytes: Vec<u8>,
    buffers: Buffers,
    /// How many bytes there are as a rule when it is full.
    full_bytes: usize,
    written: usize,
    /// Some start of a frame; the next one to go out is found from here.
    frame_start: usize,
    /// Where the urgent frames end that have not gone out yet; no more than `written` if there are none.
    urgent_end: usize,
    /// Since when the next byte has waited, steady time.
    oldest_ns: u64,
    /// Where younger bytes begin, and their time. Empty while a socket keeps up.
    younger: VecDeque<(usize, u64)>,
    /// Where answers end, and how long they are.
    answers: VecDeque<(usize, usize)>,
    /// How long these are together.
    answer_bytes: usize,
}

impl Outbox {
    /// An empty one, for so many bytes and a few more.
    pub(super) fn new(full_bytes: usize, buffers: Buffers) -> Self {
        Self { full_bytes, buffers, ..Self::default() }
    }

    /// Makes room for `more` bytes. A vector by itself would double, and a full outbox then take twice its budget.
    #[cold]
    fn grow(&mut self, more: usize) {
        let needed = self.bytes.len() + more;
        let full = self.full_bytes + BESIDES_BYTES;
        let size = SIZES.into_iter().chain([full]).find(|size| *size >= needed);
        let size = size.unwrap_or_else(|| needed.next_multiple_of(SIZES[2]));
        self.bytes.reserve_exact(size - self.bytes.len());
    }

    #[inline]
    fn make_room(&mut self, more: usize) {
        if self.bytes.capacity() == 0 {
            self.bytes = self.buffers.lend();
        }
        if self.bytes.capacity() - self.bytes.len() < more {
            self.grow(more);
        }
    }

    /// Bytes not yet taken by the socket.
    #[inline]
    pub fn pending(&self) -> &[u8] {
        &self.bytes[self.written..]
    }

    /// The bytes up to the end of the urgent frames, where there are any: the rest of a frame that has begun, and
    /// they.
    pub fn urgent(&self) -> &[u8] {
        &self.bytes[self.written..self.urgent_end.max(self.written)]
    }

    /// How many bytes wait.
    #[inline]
    pub fn len(&self) -> usize {
        self.bytes.len() - self.written
    }

    /// How many of these are of answers.
    #[inline]
    pub fn answer_bytes(&self) -> usize {
        let begun = self.answers.front().map_or(0, |(end, len)| len.saturating_sub(end - self.written));
        self.answer_bytes - begun
    }

    /// True if nothing waits.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Since when the next byte has waited, steady time; `None` if nothing waits.
    pub fn oldest_ns(&self) -> Option<u64> {
        (!self.is_empty()).then_some(self.oldest_ns)
    }

    /// Puts whole frames behind all others.
    #[inline]
    pub(super) fn push(&mut self, frames: &[u8], now_ns: u64) {
        if self.bytes.is_empty() {
            self.oldest_ns = now_ns;
        } else if now_ns >= self.youngest_ns() + GRAIN_NS {
            self.age(now_ns);
        }
        self.make_room(frames.len());
        self.bytes.extend_from_slice(frames);
    }

    /// Puts an answer behind all others.
    pub(super) fn push_answer(&mut self, frame: &[u8], now_ns: u64) {
        self.push(frame, now_ns);
        self.answers.push_back((self.bytes.len(), frame.len()));
        self.answer_bytes += frame.len();
    }

    #[inline]
    fn youngest_ns(&self) -> u64 {
        self.younger.back().map_or(self.oldest_ns, |(_, at)| *at)
    }

    /// What comes now is younger than all before it.
    #[cold]
    fn age(&mut self, now_ns: u64) {
        if self.younger.len() >= AGES_MAX {
            let mut keep = false;
            self.younger.retain(|_| {
                keep = !keep;
                keep
            });
        }
        self.younger.push_back((self.bytes.len(), now_ns));
    }

    /// Puts whole frames before all others that have not begun to go out, but behind urgent ones.
    pub(super) fn push_urgent(&mut self, frames: &[u8], now_ns: u64) {
        if self.is_empty() {
            self.push(frames, now_ns);
            self.urgent_end = self.bytes.len();
            return;
        }
        let at = self.next_frame().max(self.urgent_end);
        self.make_room(frames.len());
        self.bytes.splice(at..at, frames.iter().copied());
        self.urgent_end = at + frames.len();
        for (from, _) in self.younger.iter_mut().filter(|(from, _)| *from >= at) {
            *from += frames.len();
        }
        for (end, _) in self.answers.iter_mut().filter(|(end, _)| *end > at) {
            *end += frames.len();
        }
    }

    /// True while an urgent frame waits.
    pub(super) fn has_urgent(&self) -> bool {
        self.urgent_end > self.written
    }

    /// Where the first frame starts of which nothing was written.
    fn next_frame(&mut self) -> usize {
        while self.frame_start < self.written {
            self.frame_start += frame::len(&self.bytes[self.frame_start..]);
        }
        self.frame_start
    }

    /// Throws away all frames of which nothing was written, but for the urgent ones.
    pub(super) fn discard(&mut self) {
        let end = self.next_frame().max(self.urgent_end);
        self.bytes.truncate(end);
        while self.younger.back().is_some_and(|(from, _)| *from >= end) {
            self.younger.pop_back();
        }
        while let Some((_, len)) = self.answers.pop_back_if(|(answer_end, _)| *answer_end > end) {
            self.answer_bytes -= len;
        }
        self.settle();
    }

    /// The socket took the first `n` bytes.
    #[inline]
    pub(super) fn wrote(&mut self, n: usize) {
        self.written = self.written.saturating_add(n).min(self.bytes.len());
        self.settle();
    }

    fn settle(&mut self) {
        while let Some((from, at)) = self.younger.front()
            && *from <= self.written
        {
            self.oldest_ns = *at;
            self.younger.pop_front();
        }
        while let Some((_, len)) = self.answers.pop_front_if(|(end, _)| *end <= self.written) {
            self.answer_bytes -= len;
        }
        if self.written == self.bytes.len() {
            self.bytes.clear();
            self.buffers.take_back(std::mem::take(&mut self.bytes));
            (self.written, self.frame_start, self.urgent_end) = (0, 0, 0);
            if self.younger.capacity() > 0 {
                self.younger = VecDeque::new();
            }
            if self.answers.capacity() > 8 {
                self.answers = VecDeque::new();
            }
        } else if self.written > self.bytes.len() / 2 {
            // What is moved was paid for by what was written since the last move.
            let next = self.next_frame();
            self.bytes.drain(..self.written);
            self.frame_start = next - self.written;
            self.urgent_end = self.urgent_end.saturating_sub(self.written);
            for (from, _) in &mut self.younger {
                *from -= self.written;
            }
            for (end, _) in &mut self.answers {
                *end -= self.written;
            }
            self.written = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framed(text: &str) -> Vec<u8> {
        let mut out = Vec::new();
        frame::text(text.as_bytes(), &mut out);
        out
    }

    /// The payloads of the frames in `bytes`.
    fn texts(mut bytes: &[u8]) -> Vec<String> {
        let mut texts = Vec::new();
        while !bytes.is_empty() {
            let len = frame::len(bytes);
            texts.push(String::from_utf8_lossy(&bytes[if bytes[1] < 126 { 2 } else { 4 }..len]).into_owned());
            bytes = &bytes[len..];
        }
        texts
    }

    /// Takes `n` bytes out as a socket would.
    fn take(outbox: &mut Outbox, n: usize, into: &mut Vec<u8>) {
        let n = n.min(outbox.len());
        into.extend_from_slice(&outbox.pending()[..n]);
        outbox.wrote(n);
    }

    #[test]
    fn urgent_frames_overtake_between_frames_and_keep_their_order() {
        for cut in 0..200 {
            let mut outbox = Outbox::default();
            let mut taken = Vec::new();
            for text in ["one", &"x".repeat(130), "three"] {
                outbox.push(&framed(text), 0);
            }
            take(&mut outbox, cut, &mut taken);
            outbox.push_urgent(&framed("lag 1"), 1);
            outbox.push(&framed("four"), 1);
            take(&mut outbox, 3, &mut taken);
            outbox.push_urgent(&framed("lag 2"), 1);
            assert!(outbox.urgent().ends_with(&framed("lag 2")), "cut {cut}");
            take(&mut outbox, usize::MAX, &mut taken);
            let got = texts(&taken);
            let place = |text: &str| got.iter().position(|t| t == text).expect(text);
            assert_eq!(got.len(), 6, "cut {cut}");
            assert!(place("one") < place("three") && place("three") < place("four"), "cut {cut}");
            assert!(place("lag 1") < place("lag 2"), "cut {cut}: {got:?}");
            assert!(cut > 5 || place("lag 1") <= 1, "cut {cut}: {got:?}");
            assert!(!outbox.has_urgent() && outbox.oldest_ns().is_none());
        }
    }

    #[test]
    fn a_full_one_takes_its_budget_and_little_more() {
        let buffers = Buffers::default();
        let mut outbox = Outbox::new(262_144, buffers.clone());
        let mut sizes = Vec::new();
        while outbox.len() <= 262_144 {
            outbox.push(&framed("12345678"), 0);
            sizes.push(outbox.bytes.capacity());
        }
        outbox.push_urgent(&framed("lag"), 0);
        sizes.push(outbox.bytes.capacity());
        sizes.dedup();
        assert_eq!(sizes, [4_096, 16_384, 65_536, 262_144 + 16_384]);
        outbox.wrote(usize::MAX);
        assert_eq!((outbox.bytes.capacity(), buffers.0.borrow().len()), (0, 0), "too large to be lent");
        outbox.push(&framed("x"), 0);
        outbox.wrote(usize::MAX);
        assert_eq!((outbox.bytes.capacity(), buffers.0.borrow().len()), (0, 1), "an empty one keeps nothing");
    }

    #[test]
    fn answers_are_counted_until_they_are_out() {
        let mut outbox = Outbox::default();
        outbox.push(&framed("12345678"), 0);
        outbox.push_answer(&framed("answer 1"), 0);
        outbox.push(&framed("12345678"), 0);
        outbox.push_answer(&framed("answer 2"), 0);
        let mut left = Vec::new();
        for n in 0..4 {
            left.push(outbox.answer_bytes());
            outbox.push_urgent(&framed("lag"), 0);
            outbox.wrote(outbox.urgent().len());
            outbox.wrote(if n == 0 { 9 } else { 10 });
        }
        assert_eq!(left, [20, 20, 10, 10]);
        assert_eq!((outbox.answer_bytes(), outbox.len()), (0, 0));
        ["answer 3", "answer 4"].iter().for_each(|text| outbox.push_answer(&framed(text), 0));
        outbox.wrote(1);
        outbox.discard();
        assert_eq!(outbox.answer_bytes(), 9, "the first has begun");
        outbox.wrote(9);
        assert_eq!((outbox.answer_bytes(), outbox.len()), (0, 0));
    }

    #[test]
    fn the_age_is_the_oldest_byte_s() {
        let mut outbox = Outbox::default();
        for n in 0..10_u64 {
            outbox.push(&framed("12345678"), n * GRAIN_NS);
        }
        let mut taken = Vec::new();
        for n in 0..10 {
            assert_eq!(outbox.oldest_ns(), Some(n * GRAIN_NS));
            take(&mut outbox, 10, &mut taken);
        }
        assert_eq!(outbox.oldest_ns(), None);
        // Very many ages are told apart less well, but never as younger than they are.
        for n in 0..1_000_u64 {
            outbox.push(&framed("12345678"), n * GRAIN_NS);
        }
        for n in 0..999_u64 {
            let oldest = outbox.oldest_ns().expect("something waits");
            assert!(oldest <= n * GRAIN_NS);
            take(&mut outbox, 10, &mut taken);
        }
    }

    #[test]
    fn discarding_keeps_what_has_begun_and_what_is_urgent() {
        for cut in 0..15 {
            let mut outbox = Outbox::default();
            let mut taken = Vec::new();
            ["one", "two", "three"].iter().for_each(|text| outbox.push(&framed(text), 0));
            take(&mut outbox, cut, &mut taken);
            outbox.push_urgent(&framed("bye"), 0);
            outbox.discard();
            take(&mut outbox, usize::MAX, &mut taken);
            let got = texts(&taken);
            assert_eq!(got.last().map(String::as_str), Some("bye"), "cut {cut}");
            assert_eq!(got.len(), 1 + cut.div_ceil(5), "cut {cut}: {got:?}");
        }
    }
}
