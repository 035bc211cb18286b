//! An index of the ring, for sessions that resume: the positions of each stream.
//!
//! It covers a contiguous range of positions, which grows in portions at both ends: upwards as ticks are published,
//! downwards as far as resuming clients were away. All sessions of a shard share it, so the ring is scanned once
//! however many return together. While none does, there is no index.

use std::collections::VecDeque;

use rustc_hash::FxHashMap;

use crate::model::tick::{Body, Key, Tick};
use crate::ring::TickRing;

/// The index: 8 bytes per covered position, plus its tables.
#[derive(Debug, Default)]
pub(super) struct Positions {
    /// The first position that it covers.
    low: u64,
    /// The stream of each position from there on, by which an overwritten position is found in its lane.
    keys: VecDeque<Key>,
    /// The positions of each stream, in order. A ring has fewer than 2^32 slots, so the lower 32 bits identify each.
    lanes: FxHashMap<Key, VecDeque<u32>>,
}

/// Whether the index covers what is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cover {
    /// It does.
    Whole,
    /// Not yet: this turn has too few slots left to look at the rest.
    Later,
    /// Never: the ring has overwritten it.
    Lost,
}

impl Positions {
    /// One past the last position that it covers.
    fn high(&self) -> u64 {
        self.low + self.keys.len() as u64
    }

    /// Whether it covers nothing.
    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Adds what was published, and removes what was overwritten. Each position takes one of the `slots`; false if
    /// there are not enough of them.
    pub(super) fn follow(&mut self, ring: &TickRing, slots: &mut usize) -> bool {
        let (published, capacity) = (ring.published(), ring.capacity() as u64);
        if self.keys.is_empty() || published >= self.high() + capacity {
            self.forget();
            self.low = published;
            return true;
        }
        while self.low + capacity < published {
            if !spend(slots) {
                return false;
            }
            self.leave_lowest();
        }
        while self.high() < published {
            if !spend(slots) {
                return false;
            }
            // The slot may not be visible yet, or is being overwritten at this moment: the next call shows which.
            let position = self.high();
            let Some(key) = ring.key_at(position) else { return false };
            self.lanes.entry(key).or_default().push_back(position as u32);
            self.keys.push_back(key);
        }
        true
    }

    /// Extends the index downwards until it has, for each stream in `told`, the tick after that sequence number, or all
    /// that the ring holds. Each position takes one of the `slots`; false if there are not enough of them.
    pub(super) fn reach(
        &mut self,
        ring: &TickRing,
        mut told: FxHashMap<Key, u64>,
        slots: &mut usize,
    ) -> bool {
        if !self.follow(ring, slots) {
            return false;
        }
        told.retain(|key, told| {
            let oldest = self.lanes.get(key).and_then(|lane| ring.at(self.position(*lane.front()?)));
            oldest.is_none_or(|tick| first_of(&tick) > *told + 1)
        });
        while !told.is_empty() && self.low > 0 {
            if !spend(slots) {
                return false;
            }
            // Everything older was overwritten, too.
            let Some(key) = self.take_lower(ring) else { break };
            let reached = |told: &u64| ring.at(self.low).is_some_and(|tick| first_of(&tick) <= *told + 1);
            if told.get(&key).is_some_and(reached) {
                told.remove(&key);
            }
        }
        true
    }

    /// Extends the index to the positions `from..to`, which were published.
    pub(super) fn cover(&mut self, ring: &TickRing, from: u64, to: u64, slots: &mut usize) -> Cover {
        if !self.follow(ring, slots) && self.high() < to {
            return Cover::Later;
        }
        while from < self.low {
            if !spend(slots) {
                return Cover::Later;
            }
            if self.take_lower(ring).is_none() {
                return Cover::Lost;
            }
        }
        Cover::Whole
    }

    /// The first tick of a stream after sequence number `told` in the index: its position, and the first number that it
    /// covers.
    pub(super) fn behind(&self, ring: &TickRing, key: Key, told: u64) -> Option<(u64, u64)> {
        let lane = self.lanes.get(&key)?;
        // A tick that was overwritten meanwhile is older than those that were not.
        let is_old = |at: &u32| ring.at(self.position(*at)).is_none_or(|tick| tick.seq <= told);
        let position = self.position(*lane.get(lane.partition_point(is_old))?);
        Some((position, first_of(&ring.at(position)?)))
    }

    /// The first position of a stream from this one on.
    pub(super) fn next(&self, key: Key, from: u64) -> Option<u64> {
        let lane = self.lanes.get(&key)?;
        let at = lane.partition_point(|at| self.position(*at) < from);
        lane.get(at).map(|at| self.position(*at))
    }

    /// Whether it covers the positions `from..to`.
    pub(super) fn holds(&self, from: u64, to: u64) -> bool {
        from >= to || (self.low <= from && to <= self.high())
    }

    /// Drops its contents, and frees their memory.
    pub(super) fn forget(&mut self) {
        *self = Self { low: self.low, ..Self::default() };
    }

    /// A position by its lower 32 bits.
    fn position(&self, at: u32) -> u64 {
        self.low + u64::from(at.wrapping_sub(self.low as u32))
    }

    fn take_lower(&mut self, ring: &TickRing) -> Option<Key> {
        let position = self.low.checked_sub(1)?;
        let key = ring.key_at(position)?;
        self.low = position;
        self.keys.push_front(key);
        self.lanes.entry(key).or_default().push_front(position as u32);
        Some(key)
    }

    fn leave_lowest(&mut self) {
        let Some(key) = self.keys.pop_front() else { return };
        self.low += 1;
        if let Some(lane) = self.lanes.get_mut(&key) {
            lane.pop_front();
            if lane.is_empty() {
                self.lanes.remove(&key);
            }
        }
    }
}

/// The first sequence number that a tick covers.
pub(super) fn first_of(tick: &Tick) -> u64 {
    match tick.body {
        Body::Gap { from, .. } => from,
        _ => tick.seq,
    }
}

/// Takes one of the slots; false if none is left.
fn spend(slots: &mut usize) -> bool {
    match slots.checked_sub(1) {
        Some(left) => {
            *slots = left;
            true
        }
        None => false,
    }
}

#[cfg(all(test, not(tickfan_loom)))]
mod tests {
    use super::*;
    use crate::model::instrument::InstrumentId;
    use crate::model::tick::{Channel, Decimal, FeedGap, Quote, State, Stream, Trade, TradeId};
    use crate::ring::{Seen, TickWriter, tick_ring};

    fn trade() -> Body {
        let one = Decimal::new(1, 0);
        Body::Trade(Trade { price: one, size: one, side: None, id: TradeId::NONE })
    }

    fn publish(writer: &mut TickWriter, instrument: u32, seq: u64, body: Body) {
        let instrument = InstrumentId(instrument);
        let tick = Tick { instrument, seq, rx_ns: 1, ts_us: None, snap: false, body };
        writer.publish(&tick, Seen::UNMEASURED).expect("a place");
    }

    fn key(instrument: u32) -> Key {
        Key::new(InstrumentId(instrument), Stream::Trade)
    }

    fn told(instrument: u32, seq: u64) -> FxHashMap<Key, u64> {
        [(key(instrument), seq)].into_iter().collect()
    }

    /// 64 places; of 60 ticks each tenth is a trade of 0, the others are of 1, and the last is a state.
    fn some() -> (TickWriter, TickRing) {
        let (mut writer, ring) = tick_ring(64, 4).expect("good");
        for n in 0..60 {
            match n % 10 {
                0 => publish(&mut writer, 0, n / 10 + 1, trade()),
                _ => publish(&mut writer, 1, n, Body::Quote(Quote::default())),
            }
        }
        publish(&mut writer, 0, 1, Body::Status(State::Live));
        (writer, ring)
    }

    #[test]
    fn it_reaches_back_in_portions_and_no_further_than_is_asked_for() {
        let (_writer, ring) = some();
        let mut positions = Positions::default();
        // The newest but one of 6 stands at 40: 21 positions below the tail.
        let mut portions = 0;
        while !positions.reach(&ring, told(0, 4), &mut { 8 }) {
            portions += 1;
            assert_eq!(positions.keys.len(), 8 * portions, "each takes a slot");
        }
        assert_eq!((portions, positions.low, positions.high()), (2, 40, 61));
        assert_eq!(positions.behind(&ring, key(0), 4), Some((40, 5)));
        assert_eq!(positions.behind(&ring, key(0), 5), Some((50, 6)));
        assert_eq!(positions.behind(&ring, key(0), 6), None);
        let mut slots = 100;
        assert!(positions.reach(&ring, told(0, 5), &mut slots));
        assert_eq!(slots, 100, "what it knows costs nothing");
        // There never was one of 2: it looks at everything there is.
        assert!(positions.reach(&ring, told(2, 0), &mut slots));
        assert_eq!((slots, positions.low), (60, 0));
        assert_eq!(positions.behind(&ring, key(0), 0), Some((0, 1)));
        let next = |from| positions.next(key(0), from);
        assert_eq!([0, 1, 50, 51].map(next), [Some(0), Some(10), Some(50), None]);
    }

    #[test]
    fn what_is_published_comes_in_and_what_is_written_over_goes() {
        let (mut writer, ring) = some();
        let mut positions = Positions::default();
        assert!(positions.reach(&ring, told(0, 0), &mut { 100 }));
        let lost = Body::Gap { channel: Channel::Trade, from: 7, void: FeedGap::Lost };
        publish(&mut writer, 0, 9, lost);
        for seq in 60..70 {
            publish(&mut writer, 1, seq, Body::Quote(Quote::default()));
        }
        assert!(!positions.follow(&ring, &mut { 5 }));
        assert!(positions.follow(&ring, &mut { 100 }));
        // 72 were published: the first 8 are no more.
        assert_eq!((positions.low, positions.high(), positions.keys.len()), (8, 72, 64));
        assert_eq!(positions.behind(&ring, key(0), 0), Some((10, 2)));
        assert_eq!(positions.behind(&ring, key(0), 6), Some((61, 7)), "a gap takes several numbers");
        assert_eq!(positions.behind(&ring, key(0), 8), Some((61, 7)));
        let entries: usize = positions.lanes.values().map(VecDeque::len).sum();
        assert_eq!(entries, 64, "nothing is left of what was written over");
        assert_eq!(positions.cover(&ring, 8, 72, &mut { 0 }), Cover::Whole);
        assert_eq!(positions.cover(&ring, 7, 72, &mut { 9 }), Cover::Lost);
        for seq in 70..200 {
            publish(&mut writer, 1, seq, Body::Quote(Quote::default()));
        }
        // The ring came round: it begins anew.
        assert_eq!(positions.cover(&ring, 150, 202, &mut { 10 }), Cover::Later);
        assert_eq!(positions.cover(&ring, 150, 202, &mut { 100 }), Cover::Whole);
        assert_eq!((positions.low, positions.high()), (150, 202));
        positions.forget();
        assert!(positions.is_empty());
    }
}
