//! The window of a client that is behind: the most bytes in flight, which is what the client reads in a given time.
//!
//! A session that keeps up has no window. A session whose socket was full has one that only measures; it becomes a
//! limit if the outbox was not empty from one check to a later one.

/// The smallest window, in bytes.
pub(super) const WINDOW_MIN: u64 = 4_096;
/// How long a socket has to be full, from check to check, before its window becomes a limit, in nanoseconds.
const BEHIND_NS: u64 = 100_000_000;
/// How long a rate is measured, in nanoseconds, unless a full window is read before.
const MEASURED_NS: u64 = 500_000_000;
/// A window that has limited nothing for this long is dropped, in nanoseconds.
const UNUSED_NS: u64 = 30_000_000_000;
/// Pings per window; the answer to each reports the read position.
const PINGS: u64 = 4;

/// The window of one session.
#[derive(Debug)]
pub(super) struct Window {
    /// Maximum bytes in flight; `u64::MAX` while only measuring.
    bytes: u64,
    /// The read position and the time at which the measurement began; `None` while nothing waits for the window.
    since: Option<(u64, u64)>,
    /// When bytes last waited for the window, or when it was created; steady time.
    full_ns: u64,
}

impl Window {
    /// Returns a window that only measures, from the read position `come_to`.
    pub(super) fn measured(come_to: u64, now_ns: u64) -> Self {
        Self { bytes: u64::MAX, since: Some((come_to, now_ns)), full_ns: now_ns }
    }

    /// Returns the smallest window.
    pub(super) fn smallest(now_ns: u64) -> Self {
        Self { bytes: WINDOW_MIN, since: None, full_ns: now_ns }
    }

    /// Returns the maximum bytes in flight.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Returns true if it is a limit.
    pub(super) fn is_limit(&self) -> bool {
        self.bytes < u64::MAX
    }

    /// Returns the distance between two pings in bytes: so small that the stream has a ping before the window is full.
    pub(super) fn ping_bytes(&self) -> u64 {
        self.bytes / PINGS
    }

    /// Makes the window a limit, if the socket was full for long enough: to what the client reads in `ahead_ns`,
    /// measured up to the read position `come_to`.
    pub(super) fn begin(&mut self, come_to: u64, ahead_ns: u64, now_ns: u64) {
        if let Some((from, since_ns)) = self.since
            && now_ns.saturating_sub(since_ns) >= BEHIND_NS
        {
            let bytes = taken_in(come_to.saturating_sub(from), now_ns - since_ns, ahead_ns);
            *self = Self { bytes: bytes.max(WINDOW_MIN), ..Self::smallest(now_ns) };
        }
    }

    /// Records that bytes wait because the window is full, at the read position `come_to`.
    pub(super) fn fill(&mut self, come_to: u64, now_ns: u64) {
        self.since.get_or_insert((come_to, now_ns));
        self.full_ns = now_ns;
    }

    /// Adapts the window at the read position `come_to`, to what the client reads in `ahead_ns`, but at most to double
    /// or half its size. If it is `idle`, nothing waits any more: the window does not shrink, and the measurement ends,
    /// since later data does not show how fast the client is.
    pub(super) fn advance(&mut self, come_to: u64, idle: bool, ahead_ns: u64, now_ns: u64) {
        let Some((from, since_ns)) = self.since.filter(|_| self.is_limit()) else { return };
        let (bytes, ns) = (come_to.saturating_sub(from), now_ns.saturating_sub(since_ns));
        self.full_ns = now_ns;
        if bytes >= self.bytes || ns >= MEASURED_NS {
            let least = if idle { self.bytes } else { self.bytes / 2 };
            let wanted = taken_in(bytes, ns, ahead_ns).clamp(least, self.bytes.saturating_mul(2));
            self.bytes = wanted.max(WINDOW_MIN);
            self.since = Some((come_to, now_ns));
        }
        if idle {
            self.since = None;
        }
    }

    /// Records that nothing waits for it any more.
    pub(super) fn rest(&mut self, now_ns: u64) {
        if self.since.take().is_some() {
            self.full_ns = now_ns;
        }
    }

    /// Returns true if it has limited nothing for so long that it is of no use.
    pub(super) fn is_unused(&self, now_ns: u64) -> bool {
        self.since.is_none() && now_ns.saturating_sub(self.full_ns) >= UNUSED_NS
    }
}

/// Returns how many bytes are read in `ahead_ns`, at a rate of `bytes` in `ns`.
fn taken_in(bytes: u64, ns: u64, ahead_ns: u64) -> u64 {
    let wanted = u128::from(bytes) * u128::from(ahead_ns) / u128::from(ns.max(1));
    u64::try_from(wanted).unwrap_or(u64::MAX - 1).min(u64::MAX - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;
    const AHEAD_NS: u64 = 500 * MS;

    /// A client that takes so many bytes in each millisecond, behind a window that is always full, and answers after
    /// so many milliseconds: the window after a minute, and the largest in its second half.
    fn settled(bytes_per_ms: u64, first: u64, back_ms: u64) -> (u64, u64) {
        let mut window = Window { bytes: first, since: None, full_ns: 0 };
        let (mut sent, mut read, mut known, mut most) = (0, 0, 0, 0);
        let mut answers = std::collections::VecDeque::new();
        for ms in 0..60_000 {
            sent = sent.max(known + window.bytes());
            window.fill(known, ms * MS);
            read = sent.min(read + bytes_per_ms);
            if answers.back().is_none_or(|(_, at)| *at < read) {
                answers.push_back((ms + back_ms, read));
            }
            while let Some((_, at)) = answers.pop_front_if(|(due, _)| *due <= ms) {
                known = at;
                window.advance(known, false, AHEAD_NS + back_ms * MS, ms * MS);
            }
            most = if ms >= 30_000 { window.bytes().max(most) } else { 0 };
        }
        (window.bytes(), most)
    }

    #[test]
    fn it_becomes_what_is_taken_in_the_time_from_wherever_it_begins() {
        for first in [WINDOW_MIN, 100_000, 1 << 30] {
            let (bytes, most) = settled(20, first, 0);
            assert!((9_900..=10_100).contains(&bytes) && most <= 10_100, "from {first}: {bytes}, {most}");
            assert_eq!(settled(5, first, 0), (WINDOW_MIN, WINDOW_MIN), "from {first}");
        }
    }

    #[test]
    fn a_long_road_is_not_taken_for_a_thin_one() {
        // 1 MB a second, and what is on its way there and back.
        let (bytes, _) = settled(1_000, WINDOW_MIN, 800);
        assert!(bytes >= 1_250_000, "{bytes}");
    }

    #[test]
    fn what_is_idle_says_nothing() {
        let mut window = Window { bytes: 10_000, since: None, full_ns: 0 };
        window.fill(0, 0);
        window.advance(5_000, true, AHEAD_NS, 100 * MS);
        // Ten seconds without anything to send, then a full window that is taken in half a second.
        window.advance(5_000, true, AHEAD_NS, 10_000 * MS);
        window.fill(5_000, 10_000 * MS);
        window.advance(15_000, false, AHEAD_NS, 10_500 * MS);
        assert_eq!(window.bytes(), 10_000);
        // It has been full until now, however long ago it became so.
        window.advance(25_000, true, AHEAD_NS, 60_000 * MS);
        assert!(!window.is_unused(89_999 * MS) && window.is_unused(90_000 * MS));
    }

    #[test]
    fn it_limits_once_the_socket_has_been_full_for_long_enough() {
        let mut window = Window::measured(1_000, 0);
        window.begin(3_000, AHEAD_NS, 99 * MS);
        assert!(!window.is_limit(), "it was no long time");
        window.begin(3_000, AHEAD_NS, 100 * MS);
        assert_eq!(window.bytes(), 10_000);
        let mut stuck = Window::measured(1_000, 0);
        stuck.begin(1_000, AHEAD_NS, 100 * MS);
        assert_eq!(stuck.bytes(), WINDOW_MIN);
    }
}
