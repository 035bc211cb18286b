//! Pings in the stream of a client, and the read position that its answers report.
//!
//! Kernel buffers hide whether a client reads slowly or has stopped: the one of the client takes megabytes for a
//! program that reads nothing, and reports only rarely that it has room again. So a ping is put into the stream from
//! time to time, with its stream position as payload. A client answers it when it reads it (RFC 6455 §5.5.2), and thus
//! reports how far it has read. While all pings are answered, they are rare. Behind an unanswered ping they are so
//! close that even a slow reader answers one in time.
//!
//! A client that never answers a ping breaks the RFC, and is not judged by pings.

use std::collections::VecDeque;

use crate::protocol::frame;

/// Bytes between two pings while one is unanswered.
pub(super) const CLOSE_BYTES: u64 = 16_384;
/// Bytes between two pings while all are answered, provided that [`WIDE_NS`] have passed.
pub(super) const WIDE_BYTES: u64 = 32_768;
const WIDE_NS: u64 = 1_000_000_000;
/// Maximum bytes between two pings: what a client that reads 2,000 bytes/s reads in [`ALLOWANCE_MAX_NS`].
const FAR_BYTES: u64 = 120_000;
/// Maximum bytes in flight to a client that leaves a ping unanswered for [`AHEAD_NS`].
pub(super) const AHEAD_BYTES: u64 = 65_536;
/// How long a ping may be unanswered before the client counts as behind, in nanoseconds: longer than a round trip in
/// the network.
pub(super) const AHEAD_NS: u64 = 1_000_000_000;
/// Maximum number of unanswered pings. A client with that many is sent nothing more.
pub(super) const UNANSWERED_MAX: usize = 64;
/// Extra time per byte before the next ping, in nanoseconds, so that a client that reads 2,000 bytes/s answers in time.
const BYTE_NS: u64 = 500_000;
/// Maximum of that extra time, in nanoseconds.
const ALLOWANCE_MAX_NS: u64 = 60_000_000_000;

/// An unanswered ping.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark {
    /// Its stream position in bytes.
    at: u64,
    /// When it was queued, in nanoseconds of steady time.
    pub(super) since_ns: u64,
}

/// The pings of one session.
#[derive(Debug)]
pub(super) struct Marks {
    /// The oldest unanswered one.
    first: Option<Mark>,
    /// The unanswered ones behind it; none while all are answered in time.
    rest: VecDeque<Mark>,
    /// The read position that the answers report, in bytes.
    read: u64,
    /// The last ping, answered or not.
    last: Mark,
    /// The client has answered a ping.
    answers: bool,
    /// The last answer came in time.
    prompt: bool,
    /// The shortest time from a ping to its answer, in nanoseconds: the round trip.
    road_ns: u64,
    /// How much shorter the distances are while all pings are answered, in 1,024ths. Clients that connect together and
    /// are sent the same would otherwise be pinged together, and their answers would arrive at once and delay the
    /// shard.
    stagger: u8,
}

impl Marks {
    /// Returns the state before the first ping.
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

    /// Returns a distance for the time while all pings are answered: up to a quarter shorter than `most`.
    fn staggered(&self, most: u64) -> u64 {
        most - most / 1_024 * u64::from(self.stagger)
    }

    /// Returns the oldest unanswered ping, if the client has ever answered one.
    pub(super) fn oldest(&self) -> Option<Mark> {
        self.first.filter(|_| self.answers)
    }

    /// Returns the read position, in bytes; `None` if the client has never answered.
    pub(super) fn read(&self) -> Option<u64> {
        self.answers.then_some(self.read)
    }

    /// Returns the shortest round trip, in nanoseconds; 0 before the first answer.
    pub(super) fn road_ns(&self) -> u64 {
        if self.road_ns == u64::MAX { 0 } else { self.road_ns }
    }

    /// Returns the stream position of the last ping.
    pub(super) fn last_at(&self) -> u64 {
        self.last.at
    }

    /// Returns how many unanswered pings are remembered.
    pub(super) fn unanswered(&self) -> usize {
        usize::from(self.first.is_some()) + self.rest.len()
    }

    /// Puts a ping at this stream position, and returns its frame.
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

    /// Handles the payload of an answer; returns true if it is a new read position. An answer also covers all earlier
    /// pings. It is in time if it comes within `prompt_ns`.
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

    /// Returns true if a client that is sent less because it was slow may be sent everything again: it has answered in
    /// time since [`doubt`](Self::doubt), or never answers.
    pub(super) fn is_prompt(&self) -> bool {
        self.prompt || !self.answers
    }

    /// Counts the client as slow until it answers in time.
    pub(super) fn doubt(&mut self) {
        self.prompt = false;
    }

    /// Returns true if so many of the `sent` bytes are unread that nothing more is sent until the client answers.
    pub(super) fn is_ahead(&self, sent: u64, now_ns: u64) -> bool {
        let Some(oldest) = self.oldest() else { return false };
        let late = now_ns.saturating_sub(oldest.since_ns) >= AHEAD_NS;
        (late && sent.saturating_sub(self.read) >= AHEAD_BYTES) || self.unanswered() >= UNANSWERED_MAX
    }

    /// Returns true if as many pings are unanswered as can be remembered.
    pub(super) fn is_full(&self) -> bool {
        self.unanswered() >= UNANSWERED_MAX
    }

    /// Returns true if a ping is due at stream position `at`, with one in every `distance` bytes.
    pub(super) fn is_due_within(&self, at: u64, distance: u64) -> bool {
        at.saturating_sub(self.last.at) >= distance && !self.is_full()
    }

    /// Returns true if a ping is due at stream position `at`; with `closely`, whenever all are answered.
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

    /// Returns the stream position from which [`is_ahead`](Self::is_ahead) and [`is_due`](Self::is_due) are checked
    /// again after a check at `at`.
    pub(super) fn next_look(&self, at: u64) -> u64 {
        match self.first {
            Some(_) if self.answers => (self.last.at + CLOSE_BYTES).min(self.read + AHEAD_BYTES),
            Some(_) if self.unanswered() >= UNANSWERED_MAX => u64::MAX,
            Some(_) => self.last.at + CLOSE_BYTES,
            None => (self.last.at + self.staggered(WIDE_BYTES)).max(at + CLOSE_BYTES),
        }
    }

    /// Returns true if the kernel of the client, which has acknowledged this many bytes, may lack the oldest unanswered
    /// ping. Until it has the ping, its progress shows that the client will reach it.
    pub(super) fn is_on_its_way(&self, acked: u64) -> bool {
        self.oldest().is_none_or(|oldest| acked < oldest.at)
    }

    /// Returns the extra time for the bytes before the oldest unanswered ping, in nanoseconds.
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
