//! The bytes that wait for a socket: chunks of whole frames, in which urgent frames overtake the others, then frames that
//! other outboxes send, too; and how long the oldest of them has been waiting.

use std::collections::VecDeque;
use std::io::IoSlice;

use super::buffers::{Buffers, Strip, Times};
use crate::protocol::frame;

/// Chunks that one write takes, at most.
const SLICES_MAX: usize = 64;
/// Bytes that came within this time of each other are of one age.
const GRAIN_NS: u64 = 25_000_000;
/// Ticks of one write whose times are told.
const TOLD_MAX: u32 = 8;
/// Ages that are told apart; beyond that, every second one is forgotten, and its bytes count as older.
const AGES_MAX: usize = 64;

/// Whole frames, in the order in which they go out.
#[derive(Debug, Default)]
pub struct Outbox {
    buffers: Buffers,
    /// The chunk that goes out next. Each begins with a frame.
    front: Vec<u8>,
    /// How much of it has gone out.
    written: usize,
    /// Some start of a frame in it; the next one to go out is found from here.
    frame_start: usize,
    /// The chunks behind it. Empty while a socket keeps up.
    rest: VecDeque<Vec<u8>>,
    /// What stands on the tape, behind all chunks, but for the last strip: frames of which nothing has gone out.
    strips: Vec<Strip>,
    /// The last strip. Empty if there is none.
    strip: Strip,
    /// Bytes that wait.
    len: usize,
    /// How many of these are to go out until the last urgent one has; 0 if there are none.
    urgent_len: usize,
    /// Bytes that have gone out, ever.
    taken: u64,
    /// Since when the next byte has waited, steady time.
    oldest_ns: u64,
    /// What else is known of them. There is nothing as a rule.
    marks: Option<Box<Marks>>,
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
    /// Where frames that tell ticks end, and their times.
    ticks: VecDeque<(u64, Times)>,
}

impl Outbox {
    /// An empty one.
    pub(super) fn new(buffers: Buffers) -> Self {
        Self { buffers, ..Self::default() }
    }

    /// Shows what goes out next to `write`, at least one slice, as much as one write takes.
    pub(super) fn show<T>(&mut self, write: impl FnOnce(&[IoSlice<'_>]) -> T) -> T {
        if self.strip.len > 0 && self.front.is_empty() {
            let one = |bytes: &[u8]| write(&[IoSlice::new(bytes)]);
            return if self.strips.is_empty() {
                self.buffers.read(self.strip, one)
            } else {
                self.buffers.gather(&self.strips, self.strip, one)
            };
        }
        self.own();
        if self.rest.is_empty() {
            return write(&[IoSlice::new(&self.front[self.written..])]);
        }
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        slices[0] = IoSlice::new(&self.front[self.written..]);
        let mut count = 1;
        for (slice, chunk) in slices[1..].iter_mut().zip(&self.rest) {
            *slice = IoSlice::new(chunk);
            count += 1;
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

    /// Tells the times of the ticks that are out with the next `n` bytes, and how many each stands for: where many go out
    /// at once, some stand for those next to them. The one that has waited longest is told by itself.
    pub(super) fn going(&self, n: usize, mut tell: impl FnMut(Times, u64)) {
        if self.strip.len > 0 && self.front.is_empty() {
            let all = self.strips.iter().chain([&self.strip]);
            let out = if n < self.len { self.frames_within(n) } else { all.clone().map(|s| s.count).sum() };
            let step = out.div_ceil(TOLD_MAX).max(1);
            let (mut at, mut begin) = (0, 0);
            for strip in all {
                while at < out && at - begin < strip.count {
                    if let Some(times) = self.buffers.times(*strip, at - begin) {
                        tell(times, u64::from(step.min(out - at)));
                    }
                    at += step;
                }
                begin += strip.count;
            }
            return;
        }
        let Some(marks) = &self.marks else { return };
        let end = self.taken + n as u64;
        for (_, times) in marks.ticks.iter().take_while(|(tick_end, _)| *tick_end <= end) {
            tell(*times, 1);
        }
    }

    /// How many frames on the tape are whole within the first `n` bytes.
    #[cold]
    fn frames_within(&self, n: usize) -> u32 {
        let (mut count, mut left) = (0, n);
        for strip in self.strips.iter().chain([&self.strip]) {
            self.buffers.read(*strip, |mut frames| {
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

    /// Puts frames that stand on the tape behind all others.
    #[inline]
    pub(super) fn push_strip(&mut self, strip: Strip, now_ns: u64) {
        self.note(now_ns);
        self.len += strip.len;
        if self.strip.len == 0 {
            self.strip = strip;
        } else if !self.strip.join(strip) {
            if self.strips.capacity() == 0 {
                self.strips = self.buffers.list();
            }
            self.strips.push(std::mem::replace(&mut self.strip, strip));
        }
    }

    /// As [`push_strip`](Self::push_strip), but the tape may come round.
    pub(super) fn push_copy(&mut self, strip: Strip, now_ns: u64) {
        let buffers = self.buffers.clone();
        buffers.read(strip, |frame| match buffers.times(strip, 0) {
            Some(times) => self.push_tick(frame, times, now_ns),
            None => self.push(frame, now_ns),
        });
    }

    /// Copies what stands on the tape: from here on it may come round.
    pub(super) fn own(&mut self) {
        if self.strip.len > 0 {
            self.own_behind(0);
        }
    }

    /// Copies what stands on the tape, but for frames that are whole within its first `n` bytes: these have gone out.
    #[cold]
    fn own_behind(&mut self, n: usize) {
        let (mut strips, last) = (std::mem::take(&mut self.strips), std::mem::take(&mut self.strip));
        strips.push(last);
        let buffers = self.buffers.clone();
        let mut gone = n;
        let mut end = self.taken + self.len as u64 - strips.iter().map(|strip| strip.len as u64).sum::<u64>();
        for strip in &strips {
            buffers.read(*strip, |mut frames| {
                for nth in 0..strip.count {
                    let (frame, behind) = frames.split_at(frame::len(frames).min(frames.len()));
                    frames = behind;
                    end += frame.len() as u64;
                    if gone >= frame.len() {
                        gone -= frame.len();
                        continue;
                    }
                    if let Some(times) = buffers.times(*strip, nth) {
                        self.marks.get_or_insert_default().ticks.push_back((end, times));
                    }
                    self.append(frame);
                    // The first of them has begun.
                    self.written += std::mem::take(&mut gone);
                }
            });
        }
        self.buffers.take_back_list(strips);
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
            self.front = chunk;
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
        let behind = self.begun_len().max(self.urgent_len);
        if behind == self.len {
            self.push(frames, now_ns);
        } else {
            self.insert(behind, frames);
        }
        self.urgent_len = behind + frames.len();
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
        self.own();
        let kept = self.begun_len().max(self.urgent_len);
        let (at, offset) = self.chunk_of(kept);
        self.rest.truncate(at);
        self.rest.back_mut().unwrap_or(&mut self.front).truncate(offset);
        self.len = kept;
        let end = self.taken + kept as u64;
        if let Some(marks) = &mut self.marks {
            while marks.younger.pop_back_if(|(from, _)| *from >= end).is_some() {}
            while let Some((_, len)) = marks.answers.pop_back_if(|(answer_end, _)| *answer_end > end) {
                marks.answer_bytes -= len;
            }
            while marks.ticks.pop_back_if(|(tick_end, _)| *tick_end > end).is_some() {}
        }
        self.wrote(0);
    }

    /// The socket took the first `n` bytes.
    #[inline]
    pub(super) fn wrote(&mut self, n: usize) {
        let n = n.min(self.len);
        if self.strip.len > 0 && self.front.is_empty() {
            return self.wrote_strips(n);
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

    /// The socket took the first `n` bytes of what stands on the tape, and there is nothing else.
    #[inline]
    fn wrote_strips(&mut self, n: usize) {
        if n < self.len {
            // The rest may wait for long.
            self.own_behind(n);
        } else {
            self.strip = Strip::default();
            if self.strips.capacity() > 0 {
                self.buffers.take_back_list(std::mem::take(&mut self.strips));
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::buffers::CHUNK_BYTES;
    use super::*;
    use crate::instrument::InstrumentId;
    use crate::latency::meter::Class;
    use crate::tick::Channel;

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

    fn times(n: usize) -> Times {
        let class = Class::new(0, Channel::Trade);
        Times { rx_ns: n as u64, tx_ns: 0, instrument: InstrumentId(0), class }
    }

    /// Takes `n` bytes out as a socket would. How many ticks are out with them, and the first of them.
    fn take(outbox: &mut Outbox, n: usize, into: &mut Vec<u8>) -> (u64, Option<u64>) {
        let n = n.min(outbox.len());
        let bytes = outbox.show(|slices| slices.iter().flat_map(|slice| slice.to_vec()).collect::<Vec<u8>>());
        let n = n.min(bytes.len());
        into.extend_from_slice(&bytes[..n]);
        let mut told = (0, None);
        outbox.going(n, |times, weight| told = (told.0 + weight, told.1.or(Some(times.rx_ns))));
        outbox.wrote(n);
        told
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
            assert!(outbox.copied(false).ends_with(&framed("lag 2")), "cut {cut}");
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
        let mut outbox = Outbox::new(buffers.clone());
        let text = "x".repeat(230);
        while outbox.len() <= 262_144 {
            outbox.push(&framed(&text), 0);
        }
        outbox.push_urgent(&framed("lag"), 0);
        let capacity = outbox.front.capacity() + outbox.rest.iter().map(Vec::capacity).sum::<usize>();
        assert!(capacity <= 262_144 + 40 * 1_024, "{capacity}");
        let chunks = outbox.rest.len() + 1;
        let mut taken = Vec::new();
        while !outbox.is_empty() {
            take(&mut outbox, 10_000, &mut taken);
        }
        assert_eq!(outbox.front.capacity() + outbox.rest.capacity(), 0, "an empty one keeps nothing");
        assert_eq!(buffers.chunks(), chunks, "they are there for others");
        assert_eq!(texts(&taken).len(), 262_144 / 234 + 2);
    }

    #[test]
    fn very_many_urgent_frames_cost_little_more_than_their_bytes() {
        let mut outbox = Outbox::default();
        (0..100).for_each(|_| outbox.push(&framed(&"x".repeat(230)), 0));
        let mut taken = Vec::new();
        take(&mut outbox, 300, &mut taken);
        (0..1_000).for_each(|_| outbox.push_urgent(&framed("pong"), 0));
        let capacity = outbox.front.capacity() + outbox.rest.iter().map(Vec::capacity).sum::<usize>();
        assert!(capacity <= outbox.len() * 5 / 4 + 2 * CHUNK_BYTES, "{capacity} for {}", outbox.len());
        while !outbox.is_empty() {
            take(&mut outbox, 7_000, &mut taken);
        }
        let got = texts(&taken);
        assert_eq!(got.iter().filter(|text| *text == "pong").count(), 1_000);
        assert!(got[2..1_002].iter().all(|text| text == "pong") && got.len() == 1_100);
    }

    #[test]
    fn frames_longer_than_a_chunk_have_their_own() {
        let mut outbox = Outbox::default();
        let long = "y".repeat(CHUNK_BYTES * 3);
        for text in ["one", &long, "three"] {
            outbox.push(&framed(text), 0);
        }
        let mut taken = Vec::new();
        take(&mut outbox, 100, &mut taken);
        outbox.push_urgent(&framed("lag"), 0);
        while !outbox.is_empty() {
            take(&mut outbox, 5_000, &mut taken);
        }
        assert_eq!(texts(&taken), ["one", &long, "lag", "three"]);
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
            let urgent = outbox.copied(false).len();
            outbox.wrote(urgent);
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

    fn both(a: &mut Outbox, b: &mut Outbox, step: impl Fn(&mut Outbox)) {
        step(a);
        step(b);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Shared(usize),
        Own(usize),
        Answer(usize),
        Urgent(usize),
        Take(usize),
        Discard,
        Copy,
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]

        /// Frames on the tape go out as their copies would, whatever happens between.
        #[test]
        fn the_tape_makes_no_difference(
            steps in proptest::collection::vec(
                prop_oneof![
                    8 => (1..400_usize).prop_map(Step::Shared),
                    1 => (1..3_000_usize).prop_map(Step::Own),
                    1 => (1..400_usize).prop_map(Step::Answer),
                    1 => (1..400_usize).prop_map(Step::Urgent),
                    5 => (0..2_000_usize).prop_map(Step::Take),
                    1 => Just(Step::Discard),
                    1 => Just(Step::Copy),
                ],
                1..120,
            ),
        ) {
            let buffers = Buffers::default();
            let (mut shared, mut copied) = (Outbox::new(buffers.clone()), Outbox::default());
            let (mut from_shared, mut from_copied) = ((Vec::new(), (0, None)), (Vec::new(), (0, None)));
            for (n, step) in steps.into_iter().enumerate() {
                let now_ns = n as u64 * GRAIN_NS / 3;
                let frame = |len| framed(&format!("{n} {}", "x".repeat(len)));
                match step {
                    Step::Shared(len) => {
                        let strip = buffers.print(&frame(len), times(n)).expect("there is room");
                        // Between some of them stands what others are sent.
                        (n % 3 == 0).then(|| buffers.print(b"other", times(n)));
                        shared.push_strip(strip, now_ns);
                        copied.push_tick(&frame(len), times(n), now_ns);
                    }
                    Step::Own(len) => both(&mut shared, &mut copied, |o| o.push(&frame(len), now_ns)),
                    Step::Answer(len) => both(&mut shared, &mut copied, |o| o.push_answer(&frame(len), now_ns)),
                    Step::Urgent(len) => both(&mut shared, &mut copied, |o| o.push_urgent(&frame(len), now_ns)),
                    Step::Take(n) => {
                        let end = shared.len() - n.min(shared.len());
                        for (outbox, into) in
                            [(&mut shared, &mut from_shared), (&mut copied, &mut from_copied)]
                        {
                            let (bytes, told) = into;
                            let mut oldest = None;
                            while outbox.len() > end {
                                let (count, first) = take(outbox, outbox.len() - end, bytes);
                                told.0 += count;
                                oldest = oldest.or(first);
                            }
                            told.1 = oldest;
                        }
                    }
                    Step::Discard => both(&mut shared, &mut copied, Outbox::discard),
                    Step::Copy => shared.own(),
                }
                prop_assert_eq!(shared.len(), copied.len());
                prop_assert_eq!(shared.answer_bytes(), copied.answer_bytes());
                prop_assert_eq!(shared.oldest_ns(), copied.oldest_ns());
                prop_assert_eq!(shared.has_urgent(), copied.has_urgent());
                prop_assert!(from_shared == from_copied);
            }
            prop_assert!(shared.copied(true) == copied.copied(true));
            let all = [from_shared.0, shared.copied(true)].concat();
            prop_assert!(texts(&all).iter().all(|text| text.ends_with('x')), "whole frames");
        }
    }
}
