//! What rereading sessions share: an index of the ring, the number of positions that a turn may look at, their order,
//! and access to the history.

use std::collections::VecDeque;

use rustc_hash::FxHashMap;

use super::positions::{Cover, Positions};
use super::readers::Readers;
use super::reading::Reading;
use super::ways::Ways;
use crate::history::HistoryClient;
use crate::model::tick::Key;
use crate::ring::TickRing;
use crate::time::clock::SECOND;

/// How long the index is kept after its last use, nanoseconds.
const KEPT_NS: u64 = 10 * SECOND;

/// The state that the rereading sessions of a shard share.
pub(super) struct Backfill {
    readers: Readers,
    /// The index: the ring positions of each stream.
    positions: Positions,
    /// Sessions whose `resume` waits for the index, each with its serial.
    waiting: VecDeque<(u32, u64)>,
    /// When the index was last used, steady time.
    used_ns: u64,
    /// Positions that may still be looked at in this turn.
    slots: usize,
    /// Positions that may be looked at in one turn.
    slots_per_turn: usize,
    /// Access to ticks that the ring no longer holds, if there is a history.
    history: Option<HistoryClient>,
    /// Where the shard reads the ring next.
    cursor: u64,
}

impl Backfill {
    /// Without readers, with `slots_per_turn` positions per turn.
    pub(super) fn new(slots_per_turn: usize) -> Self {
        Self {
            readers: Readers::default(),
            positions: Positions::default(),
            waiting: VecDeque::new(),
            used_ns: 0,
            slots: slots_per_turn,
            slots_per_turn,
            history: None,
            cursor: 0,
        }
    }

    /// Where the shard reads the ring next.
    #[inline]
    pub(super) fn cursor(&self) -> u64 {
        self.cursor
    }

    /// Sets how far the shard has read the ring.
    pub(super) fn set_cursor(&mut self, cursor: u64) {
        self.cursor = cursor;
    }

    /// The history, if there is one.
    pub(super) fn history(&self) -> Option<&HistoryClient> {
        self.history.as_ref()
    }

    /// Sets the source of ticks that the ring no longer holds.
    pub(super) fn read_history_at(&mut self, client: HistoryClient) {
        self.history = Some(client);
    }

    /// The rereading sessions.
    pub(super) fn readers(&mut self) -> &mut Readers {
        &mut self.readers
    }

    /// All rereading sessions, each with its serial.
    pub(super) fn all_readers(&self) -> impl Iterator<Item = (u32, u64)> {
        self.readers.iter()
    }

    /// Whether a rereading session can continue at once.
    pub(super) fn can_read(&self) -> bool {
        self.readers.can_go_on()
    }

    // ---- positions of a turn --------------------------------------------------------------------------

    /// Begins a turn. Returns how many positions were looked at in the last one.
    pub(super) fn begin_turn(&mut self) -> usize {
        let spent = self.slots_per_turn - self.slots;
        self.slots = self.slots_per_turn;
        spent
    }

    /// Whether positions are left of this turn.
    pub(super) fn has_slots(&self) -> bool {
        self.slots > 0
    }

    /// Uses up `slots` positions, or all that are left.
    pub(super) fn take_slots(&mut self, slots: usize) {
        self.slots = self.slots.saturating_sub(slots);
    }

    /// Sets half of the positions that are left aside, until they are [returned](Self::return_slots).
    pub(super) fn set_half_aside(&mut self) -> usize {
        let half = self.slots / 2;
        self.slots -= half;
        half
    }

    /// Returns positions that were set aside.
    pub(super) fn return_slots(&mut self, slots: usize) {
        self.slots += slots;
    }

    // ---- the index ------------------------------------------------------------------------------------

    /// Whether a `resume` has to wait: others wait already, or this turn has no positions left.
    pub(super) fn resumes_wait(&self) -> bool {
        self.slots == 0 || !self.waiting.is_empty()
    }

    /// Has a `resume` wait for the index, at the front or the back of the queue.
    pub(super) fn await_index(&mut self, id: u32, serial: u64, first: bool) {
        match first {
            true => self.waiting.push_front((id, serial)),
            false => self.waiting.push_back((id, serial)),
        }
    }

    /// Takes the session at the front of that queue.
    pub(super) fn next_waiting(&mut self) -> Option<(u32, u64)> {
        self.waiting.pop_front()
    }

    /// Whether a `resume` waits for the index.
    pub(super) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Drops the index if it has been unused for a while. True if it was dropped.
    pub(super) fn forgets(&mut self, now_ns: u64) -> bool {
        if !self.waiting.is_empty() || !self.readers.is_empty() {
            self.used_ns = now_ns;
            return false;
        }
        let is_old = now_ns >= self.used_ns + KEPT_NS;
        if is_old {
            self.positions.forget();
        }
        is_old
    }

    /// Brings the index, if there is one, up to date with the ring. True if it is still behind.
    pub(super) fn is_behind(&mut self, ring: &TickRing) -> bool {
        !self.positions.is_empty() && !self.positions.follow(ring, &mut self.slots)
    }

    /// Extends the index until it has the tick after each of these sequence numbers, or all that the ring holds. False
    /// if this turn has too few positions left.
    pub(super) fn reach(&mut self, ring: &TickRing, missed: FxHashMap<Key, u64>, now_ns: u64) -> bool {
        self.used_ns = now_ns;
        self.positions.reach(ring, missed, &mut self.slots)
    }

    /// The first tick of a stream after a sequence number: its position, and the first number that it covers.
    pub(super) fn behind(&self, ring: &TickRing, key: Key, seq: u64) -> Option<(u64, u64)> {
        self.positions.behind(ring, key, seq)
    }

    /// Extends the index to all positions from this one up to that of the shard.
    pub(super) fn cover(&mut self, ring: &TickRing, from: u64) -> Cover {
        self.positions.cover(ring, from, self.cursor, &mut self.slots)
    }

    /// Positions that are left of this turn.
    pub(super) fn slots(&self) -> usize {
        self.slots
    }

    /// Keeps at most `most` positions for the rest of this turn.
    pub(super) fn keep_slots(&mut self, most: usize) {
        self.slots = self.slots.min(most);
    }

    /// Looks up the next tick of a stream after a position. False if the shard has read none yet.
    pub(super) fn go_on_behind(&self, key: Key, position: u64, ways: &mut Ways) -> bool {
        let next = self.positions.next(key, position.wrapping_add(1)).filter(|next| *next < self.cursor);
        match next {
            Some(next) => ways.push(key, next),
            None => ways.push_behind(key, self.cursor),
        }
        next.is_some()
    }

    /// Looks up which streams have ticks that the shard has read meanwhile. True if there are some. A stream that was
    /// looked up so long ago that the index does not cover all positions since then counts as missed.
    pub(super) fn look_beyond(&mut self, reading: &mut Reading) -> bool {
        let beyond = reading.ways().take_beyond();
        self.take_slots(beyond.len());
        let mut found = 0;
        for (key, position) in beyond {
            let lost = !self.positions.holds(position.wrapping_add(1), self.cursor);
            reading.misses(u64::from(lost));
            found += usize::from(self.go_on_behind(key, position, reading.ways()));
        }
        // What was found is read in this turn; else a session with very many streams would look them up for ever.
        self.slots = self.slots.max(found);
        found > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_has_so_many_positions_and_half_of_them_can_be_set_aside() {
        let mut backfill = Backfill::new(10);
        assert_eq!((backfill.begin_turn(), backfill.has_slots()), (0, true));
        let half = backfill.set_half_aside();
        backfill.take_slots(7);
        assert!(!backfill.has_slots() && backfill.resumes_wait());
        backfill.return_slots(half);
        assert_eq!((backfill.slots(), backfill.begin_turn()), (5, 5));
    }

    #[test]
    fn one_that_waits_again_is_the_first() {
        let mut backfill = Backfill::new(1);
        backfill.await_index(1, 1, false);
        backfill.await_index(2, 2, false);
        assert_eq!(backfill.next_waiting(), Some((1, 1)));
        backfill.await_index(1, 1, true);
        assert!(!backfill.forgets(KEPT_NS), "it is of use");
        assert_eq!([backfill.next_waiting(), backfill.next_waiting()], [Some((1, 1)), Some((2, 2))]);
        assert!(
            !backfill.has_waiting() && !backfill.forgets(2 * KEPT_NS - 1) && backfill.forgets(2 * KEPT_NS)
        );
    }
}
