//! Deadlines: heartbeats, checks of slow sessions, releases of what rates hold back, the end of closing connections.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use crate::session::RateId;
use crate::time::clock::{MS, SECOND};

/// Interval between checks of sessions whose socket was full, nanoseconds.
const WATCH_NS: u64 = 100 * MS;
/// Interval at which unused buffers are freed, nanoseconds.
const SHRINK_NS: u64 = SECOND;

/// When a rate of a session releases what it holds back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Release {
    due_ns: u64,
    id: u32,
    serial: u64,
    rate: RateId,
}

/// The phase of the release grids of a session: spread evenly over sessions, whatever the period (Fibonacci hashing).
pub(super) fn phase_ns(serial: u64) -> u64 {
    serial.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 16
}

/// The deadlines of a shard's sessions, in steady time. Each session is identified by its number and its serial, since
/// its number may belong to another one by then.
#[derive(Default)]
pub(super) struct Deadlines {
    /// All have the same period, so they stay sorted.
    heartbeats: VecDeque<(u64, u32, u64)>,
    /// When closing connections are given up. All have the same grace time, so they stay sorted.
    closing: VecDeque<(u64, u32, u64)>,
    releases: BinaryHeap<Reverse<Release>>,
    /// Sessions whose socket was full, checked in rounds until they keep up again.
    watched: VecDeque<(u32, u64)>,
    /// When the next round begins.
    watch_at_ns: u64,
    /// How many sessions of this round are still to be checked.
    to_watch: usize,
    /// Sessions that lost a tick in this turn because there was no room, and whether that disconnects them.
    overflowed: Vec<(u32, bool)>,
    shrink_at_ns: u64,
}

impl Deadlines {
    // ---- heartbeats and closing -----------------------------------------------------------------------

    /// Schedules a session's next heartbeat.
    pub(super) fn beat_at(&mut self, due_ns: u64, id: u32, serial: u64) {
        self.heartbeats.push_back((due_ns, id, serial));
    }

    /// The next session whose heartbeat is due.
    pub(super) fn next_beat(&mut self, now_ns: u64) -> Option<(u32, u64)> {
        self.heartbeats.pop_front_if(|(due, ..)| *due <= now_ns).map(|(_, id, serial)| (id, serial))
    }

    /// Schedules when a closing connection is given up.
    pub(super) fn close_by(&mut self, due_ns: u64, id: u32, serial: u64) {
        self.closing.push_back((due_ns, id, serial));
    }

    /// The next closing connection whose grace is over.
    pub(super) fn next_to_give_up(&mut self, now_ns: u64) -> Option<(u32, u64)> {
        self.closing.pop_front_if(|(due, ..)| *due <= now_ns).map(|(_, id, serial)| (id, serial))
    }

    /// Whether buffers are to be freed now: once per second.
    pub(super) fn shrinks(&mut self, now_ns: u64) -> bool {
        let is_due = now_ns >= self.shrink_at_ns;
        if is_due {
            self.shrink_at_ns = now_ns + SHRINK_NS;
        }
        is_due
    }

    // ---- rates ----------------------------------------------------------------------------------------

    /// Schedules a release of a rate of a session.
    pub(super) fn release_at(&mut self, due_ns: u64, id: u32, serial: u64, rate: RateId) {
        self.releases.push(Reverse(Release { due_ns, id, serial, rate }));
    }

    /// Whether a release is due.
    pub(super) fn releases(&self, now_ns: u64) -> bool {
        self.releases.peek().is_some_and(|Reverse(next)| next.due_ns <= now_ns)
    }

    /// Takes the next release: the session, its serial, the rate and when it was due.
    pub(super) fn next_release(&mut self) -> Option<(u32, u64, RateId, u64)> {
        let Reverse(Release { due_ns, id, serial, rate }) = self.releases.pop()?;
        Some((id, serial, rate, due_ns))
    }

    // ---- slow sessions --------------------------------------------------------------------------------

    /// Has a session checked in each round from now on.
    pub(super) fn watch(&mut self, id: u32, serial: u64, now_ns: u64) {
        if self.watched.is_empty() {
            self.watch_at_ns = now_ns + WATCH_NS;
        }
        self.watched.push_back((id, serial));
    }

    /// Keeps a session of this round watched.
    pub(super) fn watch_on(&mut self, id: u32, serial: u64) {
        self.watched.push_back((id, serial));
    }

    /// All watched sessions.
    pub(super) fn watched(&self) -> impl Iterator<Item = (u32, u64)> {
        self.watched.iter().copied()
    }

    /// How many sessions of this round are still to be checked.
    pub(super) fn left_of_round(&self) -> usize {
        self.to_watch
    }

    /// Begins a round, if it is time.
    pub(super) fn begin_round(&mut self, now_ns: u64) -> bool {
        let begins = !self.watched.is_empty() && now_ns >= self.watch_at_ns;
        if begins {
            self.watch_at_ns = now_ns + WATCH_NS;
            self.to_watch = self.watched.len();
        }
        begins
    }

    /// The next session of this round.
    pub(super) fn next_watched(&mut self) -> Option<(u32, u64)> {
        self.to_watch = self.to_watch.checked_sub(1)?;
        self.watched.pop_front()
    }

    /// Notes that a session lost a tick because there was no room, and whether that disconnects it.
    pub(super) fn overflowed(&mut self, id: u32, disconnects: bool) {
        self.overflowed.push((id, disconnects));
    }

    /// Whether there are overflowed sessions to take.
    #[inline]
    pub(super) fn has_overflowed(&self) -> bool {
        !self.overflowed.is_empty()
    }

    /// Takes the sessions that overflowed.
    pub(super) fn take_overflowed(&mut self) -> Vec<(u32, bool)> {
        std::mem::take(&mut self.overflowed)
    }

    /// When something is due next.
    pub(super) fn next_ns(&self) -> Option<u64> {
        let heartbeat = self.heartbeats.front().map(|(due, ..)| *due);
        let watch = (!self.watched.is_empty()).then_some(self.watch_at_ns);
        let release = self.releases.peek().map(|Reverse(next)| next.due_ns);
        let closing = self.closing.front().map(|(due, ..)| *due);
        [heartbeat, watch, release, closing].into_iter().flatten().min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earliest_of_all_is_next_and_comes_when_it_is_due() {
        let mut deadlines = Deadlines::default();
        assert_eq!(deadlines.next_ns(), None);
        deadlines.beat_at(50, 1, 1);
        deadlines.close_by(40, 2, 2);
        assert_eq!(deadlines.next_ns(), Some(40));
        assert_eq!(deadlines.next_beat(49), None);
        assert_eq!(deadlines.next_beat(50), Some((1, 1)));
        assert_eq!((deadlines.next_to_give_up(40), deadlines.next_ns()), (Some((2, 2)), None));
        assert!(deadlines.shrinks(0) && !deadlines.shrinks(SHRINK_NS - 1) && deadlines.shrinks(SHRINK_NS));
    }

    #[test]
    fn watched_sessions_are_looked_at_in_rounds() {
        let mut deadlines = Deadlines::default();
        assert!(!deadlines.begin_round(0) && deadlines.next_watched().is_none());
        deadlines.watch(1, 1, 0);
        deadlines.watch(2, 2, WATCH_NS / 2);
        assert!(!deadlines.begin_round(WATCH_NS - 1) && deadlines.begin_round(WATCH_NS));
        assert_eq!(deadlines.next_watched(), Some((1, 1)));
        // One that stays watched has its turn in the next round.
        deadlines.watch_on(1, 1);
        assert_eq!((deadlines.next_watched(), deadlines.next_watched()), (Some((2, 2)), None));
        assert_eq!((deadlines.left_of_round(), deadlines.next_ns()), (0, Some(2 * WATCH_NS)));
        assert_eq!(deadlines.watched().collect::<Vec<_>>(), [(1, 1)]);
    }
}
