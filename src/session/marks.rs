//! Pings in what a client is sent, and how far its answers say that it has come.
//!
//! What the kernels hold hides a client that reads slowly, and a client that has stopped: the one at the other end takes in
//! megabytes for a program that reads nothing, and says only now and then that it has room again. So a ping stands in the
//! stream every so often, with its place in it as payload. A client answers it when it comes to it (RFC 6455 §5.5.2), and so
//! tells what it has read. While all is answered, pings are few; behind one that is not answered they stand so close that
//! a slow reader answers one in time, too.
//!
//! Nothing of this says anything of a client that has never answered a ping, though a client has to.

use std::collections::VecDeque;

use crate::protocol::frame;

/// Bytes between two pings while one is not answered.
pub(super) const CLOSE_BYTES: u64 = 16_384;
/// Bytes between two pings while all are answered, unless that is more often than once in [`WIDE_NS`].
pub(super) const WIDE_BYTES: u64 = 32_768;
const WIDE_NS: u64 = 1_000_000_000;
/// Bytes between two pings at most, however soon they have come: what is read at 2,000 bytes a second in [`ALLOWANCE_MAX_NS`].
const FAR_BYTES: u64 = 120_000;
/// Bytes that may be sent beyond what a client has come to, once it has taken longer than [`AHEAD_NS`].
pub(super) const AHEAD_BYTES: u64 = 65_536;
/// For how long a ping may be unanswered before the client counts as behind, nanoseconds: more than a network path takes.
pub(super) const AHEAD_NS: u64 = 1_000_000_000;
/// Pings that may be unanswered at once. A client that has so many before it is sent no more.
pub(super) const UNANSWERED_MAX: usize = 64;
/// A client that reads at least 2,000 bytes a second comes to its next ping in time: nanoseconds for each byte before it.
const BYTE_NS: u64 = 500_000;
/// The most that a client is given for that, nanoseconds.
const ALLOWANCE_MAX_NS: u64 = 60_000_000_000;

/// A ping that is not answered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark {
    /// How many bytes of the stream are before it.
    at: u64,
    /// Since when it has been queued, steady time.
    pub(super) since_ns: u64,
}

/// The pings of one session.
#[derive(Debug)]
pub(super) struct Marks {
    /// The oldest that is not answered.
    first: Option<Mark>,
    /// Those behind it. There is nothing while all are answered in time.
    rest: VecDeque<Mark>,
    /// Bytes of the stream that the client has come to, by what it answered.
    read: u64,
    /// Where the last ping stands, and since when.
    last: Mark,
    /// It has answered one.
    answers: bool,
    /// Its last answer came in time.
    prompt: bool,
    /// The least that an answer took: the road there and back, nanoseconds.
    road_ns: u64,
    /// By how many of 1,024 parts the distances while all are answered are shorter than they may be. Clients that came together
    /// and are sent the same would else be pinged together, and their answers, which come at once, would hold up the shard.
    stagger: u8,
}

impl Marks {
    /// None yet.
    pub(super) fn new(stagger: u8) -> Self {
        let last = Mark { at: 0, since_ns: 0 };
        Self {
            first: None,
            rest: VecDeque::new(),
            read: 0,
            last,
            answers: false,
            prompt: true,
            road_ns: u64::MAX,
            stagger,
        }
    }

    /// A distance while all are answered: up to a quarter shorter than it may be.
    fn staggered(&self, most: u64) -> u64 {
        most - most / 1_024 * u64::from(self.stagger)
    }

    /// The oldest ping that is not answered, of a client that answers.
    pub(super) fn oldest(&self) -> Option<Mark> {
        self.first.filter(|_| self.answers)
    }

    /// Bytes of the stream that a client which answers has come to; `None` of one that never did.
    pub(super) fn read(&self) -> Option<u64> {
        self.answers.then_some(self.read)
    }

    /// The least that an answer took, nanoseconds; 0 before the first.
    pub(super) fn road_ns(&self) -> u64 {
        if self.road_ns == u64::MAX { 0 } else { self.road_ns }
    }

    /// How many bytes of the stream are before the last ping.
    pub(super) fn last_at(&self) -> u64 {
        self.last.at
    }

    /// How many are not answered, as far as they are remembered.
    pub(super) fn unanswered(&self) -> usize {
        usize::from(self.first.is_some()) + self.rest.len()
    }

    /// Puts a ping where so many bytes of the stream are before it: its frame.
    pub(super) fn put(&mut self, at: u64, now_ns: u64) -> Vec<u8> {
        self.last = Mark { at, since_ns: now_ns };
        if self.first.is_none() {
            self.first = Some(self.last);
        } else if self.unanswered() < UNANSWERED_MAX {
            self.rest.push_back(self.last);
        }
        let mut ping = Vec::new();
        frame::ping(itoa::Buffer::new().format(at).as_bytes(), &mut ping);
        ping
    }

    /// Takes in what a client answered: true if it shows a place that it was not known to have come to. An answer stands
    /// for all pings before it. One that comes within `prompt_ns` is in time.
    pub(super) fn answered(&mut self, payload: &[u8], prompt_ns: u64, now_ns: u64) -> bool {
        let at = std::str::from_utf8(payload).ok().and_then(|text| text.parse::<u64>().ok());
        let new = |at: &u64| *at <= self.last.at && (*at > self.read || !self.answers);
        let Some(at) = at.filter(new) else { return false };
        let mut since_ns = None;
        while let Some(first) = self.first.take_if(|first| first.at <= at) {
            since_ns = Some(first.since_ns);
            self.first = self.rest.pop_front();
        }
        if self.rest.is_empty() && self.rest.capacity() > 0 {
            self.rest = VecDeque::new();
        }
        self.read = at;
        self.answers = true;
        if let Some(since_ns) = since_ns {
            let took_ns = now_ns.saturating_sub(since_ns);
            self.prompt = took_ns < prompt_ns;
            self.road_ns = self.road_ns.min(took_ns);
        }
        true
    }

    /// Whether a client that is sent less for being slow may be sent all again: it has answered in time since it was
    /// [doubted](Self::doubt), or answers never.
    pub(super) fn is_prompt(&self) -> bool {
        self.prompt || !self.answers
    }

    /// From now on only an answer in time says that it is not slow.
    pub(super) fn doubt(&mut self) {
        self.prompt = false;
    }

    /// Whether a client has so much before it, of `sent` bytes, that it is sent no more until it answers.
    pub(super) fn is_ahead(&self, sent: u64, now_ns: u64) -> bool {
        let Some(oldest) = self.oldest() else { return false };
        let late = now_ns.saturating_sub(oldest.since_ns) >= AHEAD_NS;
        (late && sent.saturating_sub(self.read) >= AHEAD_BYTES) || self.unanswered() >= UNANSWERED_MAX
    }

    /// Whether as many pings are unanswered as are remembered.
    pub(super) fn is_full(&self) -> bool {
        self.unanswered() >= UNANSWERED_MAX
    }

    /// Whether a ping is due behind so many bytes of the stream, where one is to stand in every `distance` of them.
    pub(super) fn is_due_within(&self, at: u64, distance: u64) -> bool {
        at.saturating_sub(self.last.at) >= distance && !self.is_full()
    }

    /// Whether a ping is due behind so many bytes of the stream. With `closely`, whenever all are answered.
    pub(super) fn is_due(&self, at: u64, closely: bool, now_ns: u64) -> bool {
        let since = at.saturating_sub(self.last.at);
        match self.first {
            Some(_) => since >= CLOSE_BYTES && self.unanswered() < UNANSWERED_MAX,
            None if closely && self.answers => since > 0,
            None if since >= self.staggered(FAR_BYTES) => true,
            None => {
                let since_ns = now_ns.saturating_sub(self.last.since_ns);
                since >= self.staggered(WIDE_BYTES) && since_ns >= self.staggered(WIDE_NS)
            }
        }
    }

    /// From which place of the stream on the last two are to be asked, of what comes behind `at`.
    pub(super) fn next_look(&self, at: u64) -> u64 {
        match self.first {
            Some(_) if self.answers => (self.last.at + CLOSE_BYTES).min(self.read + AHEAD_BYTES),
            Some(_) if self.unanswered() >= UNANSWERED_MAX => u64::MAX,
            Some(_) => self.last.at + CLOSE_BYTES,
            None => (self.last.at + self.staggered(WIDE_BYTES)).max(at + CLOSE_BYTES),
        }
    }

    /// Whether the kernel of the other side, which has acknowledged so many bytes, may still be on its way to the oldest
    /// ping: that it takes something says then that the client will come to it.
    pub(super) fn is_on_its_way(&self, acked: u64) -> bool {
        self.oldest().is_none_or(|oldest| acked < oldest.at)
    }

    /// The time that a client may take beyond all patience because of what stands before the next ping, nanoseconds.
    pub(super) fn allowance_ns(&self) -> u64 {
        let Some(oldest) = self.oldest() else { return 0 };
        oldest.at.saturating_sub(self.read).saturating_mul(BYTE_NS).min(ALLOWANCE_MAX_NS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    /// Those of a client that has answered a ping at the start.
    fn answering() -> Marks {
        let mut marks = Marks::new(0);
        assert_eq!(marks.put(300, 0), b"\x89\x03300");
        assert!(marks.answered(b"300", SECOND, 1));
        marks
    }

    #[test]
    fn clients_that_are_sent_the_same_are_pinged_at_different_times() {
        let at_start = |stagger: u8| {
            let mut marks = Marks::new(stagger);
            marks.put(0, 0);
            assert!(marks.answered(b"0", SECOND, 1));
            marks
        };
        // 40,000 bytes a second: the time decides.
        let due_ms = |stagger: u8| {
            let marks = at_start(stagger);
            (1..2_000).find(|ms| marks.is_due(ms * 40, false, ms * 1_000_000)).expect("in two seconds")
        };
        assert_eq!([due_ms(0), due_ms(128), due_ms(255)], [1_000, 876, 751]);
        // So many at once that only the bytes count.
        let due_at = |stagger: u8| {
            let marks = at_start(stagger);
            (1..=FAR_BYTES).find(|at| marks.is_due(*at, false, 1)).expect("a place")
        };
        assert_eq!([due_at(0), due_at(255)], [FAR_BYTES, FAR_BYTES - FAR_BYTES / 1_024 * 255]);
    }

    #[test]
    fn an_answer_stands_for_all_pings_before_it_and_nothing_else_is_one() {
        let mut marks = answering();
        for at in [1_000, 20_000, 40_000] {
            marks.put(at, SECOND);
        }
        for payload in
            [&b""[..], b"300", b"299", b"40001", b"-1", b"1e3", b"\xff", b"99999999999999999999999"]
        {
            assert!(!marks.answered(payload, SECOND, SECOND), "{payload:?}");
        }
        assert!(marks.answered(b"20000", SECOND, 3 * SECOND) && !marks.is_prompt());
        assert_eq!((marks.unanswered(), marks.read), (1, 20_000));
        assert!(!marks.answered(b"1000", SECOND, 3 * SECOND), "it was answered already");
        assert!(marks.answered(b"40000", 3 * SECOND, 3 * SECOND) && marks.is_prompt());
        assert!(marks.first.is_none() && marks.rest.is_empty());
    }

    #[test]
    fn pings_are_few_while_they_are_answered_and_close_while_one_is_not() {
        let mut marks = answering();
        assert!(!marks.is_due(300 + WIDE_BYTES, false, WIDE_NS - 1), "once a second");
        assert!(
            !marks.is_due(299 + WIDE_BYTES, false, WIDE_NS) && marks.is_due(300 + WIDE_BYTES, false, WIDE_NS)
        );
        assert!(marks.is_due(301, true, 1) && !marks.is_due(300, true, 1));
        assert!(!marks.is_due(299 + FAR_BYTES, false, 1) && marks.is_due(300 + FAR_BYTES, false, 1));
        assert_eq!(marks.next_look(5_000), 300 + WIDE_BYTES);
        assert_eq!(marks.next_look(90_000), 90_000 + CLOSE_BYTES, "it was too early");
        marks.put(40_000, SECOND);
        assert!(!marks.is_due(39_999 + CLOSE_BYTES, true, 9 * SECOND));
        assert!(marks.is_due(40_000 + CLOSE_BYTES, true, SECOND));
        assert_eq!(marks.next_look(40_000), 40_000 + CLOSE_BYTES);
    }

    #[test]
    fn a_client_that_takes_long_is_not_sent_much_beyond_what_it_has_read() {
        let mut marks = answering();
        marks.put(1_000, SECOND);
        let much = 300 + AHEAD_BYTES;
        assert!(!marks.is_ahead(much, SECOND + AHEAD_NS - 1), "the network path may be long");
        assert!(!marks.is_ahead(much - 1, SECOND + AHEAD_NS), "what is little costs nobody anything");
        assert!(marks.is_ahead(much, SECOND + AHEAD_NS));
        assert_eq!(marks.next_look(much), 300 + AHEAD_BYTES.min(700 + CLOSE_BYTES));
        // Nor very much in no time.
        for n in 2..=UNANSWERED_MAX as u64 {
            assert!(marks.is_due(n * CLOSE_BYTES + 1_000, false, SECOND) && !marks.is_ahead(n, SECOND));
            marks.put(n * CLOSE_BYTES + 1_000, SECOND);
        }
        assert!(!marks.is_due(1 << 40, false, SECOND) && marks.is_ahead(1 << 20, SECOND));
        // What is not remembered is answered all the same.
        for at in [1 << 21, 1 << 22] {
            marks.put(at, SECOND);
        }
        for at in [b"2097152", b"4194304"] {
            assert!(marks.answered(at, SECOND, SECOND) && marks.first.is_none());
        }
        assert!(!marks.answered(b"4194304", SECOND, SECOND) && !marks.is_ahead(1 << 22, 9 * SECOND));
    }

    #[test]
    fn who_reads_at_two_thousand_bytes_a_second_comes_to_its_ping_in_the_time_that_it_is_given() {
        let mut marks = answering();
        assert_eq!(marks.allowance_ns(), 0);
        marks.put(40_300, SECOND);
        assert_eq!(marks.allowance_ns(), 20 * SECOND);
        assert!(marks.is_on_its_way(40_299) && !marks.is_on_its_way(40_300));
        assert!(marks.answered(b"40300", SECOND, SECOND));
        marks.put(1 << 30, SECOND);
        assert_eq!(marks.allowance_ns(), 60 * SECOND, "which has an end");
    }

    #[test]
    fn of_a_client_that_never_answered_nothing_is_said() {
        let mut marks = Marks::new(0);
        marks.put(100, 0);
        marks.doubt();
        assert!(!marks.is_ahead(1 << 40, 1 << 60) && marks.is_prompt() && marks.oldest().is_none());
        assert_eq!((marks.allowance_ns(), marks.is_on_its_way(1 << 40)), (0, true));
        // And its pings have an end.
        for n in 1..2 * UNANSWERED_MAX as u64 {
            let end = 100 + n * CLOSE_BYTES;
            if marks.is_due(end, true, n) {
                marks.put(end, n);
            }
        }
        assert_eq!((marks.unanswered(), marks.last.at), (UNANSWERED_MAX, 100 + 63 * CLOSE_BYTES));
        assert_eq!(marks.next_look(1 << 30), u64::MAX);
    }
}
