//! Ticks in the ring: their packed form, and what is kept of each stream as its last value.

use super::{Batch, CapacityError, KeyOutOfRange, LastValues, Reader, Ring, Writer, ring};
use crate::model::instrument::InstrumentId;
use crate::model::tick::{Body, FeedGap, Key, LastValue, State, Stream, Tick, WORDS, Words};

/// Words of a slot: a packed tick, and the words that only a last value uses.
const SLOT_WORDS: usize = WORDS + 3;
/// Word of a last value: the newest sequence number of the stream, that of the value or of a later feed gap.
const HEAD: usize = WORDS;
/// Words of a last value: the first and last sequence number of the newest feed gap, both included; 0 if
/// there was none.
const GAP_FROM: usize = WORDS + 1;
const GAP_TO: usize = WORDS + 2;

/// The word of a packed tick whose upper half is free: it holds [`Seen`].
const SEEN: usize = 4;

type Slot = [u64; SLOT_WORDS];

/// When the ingest thread numbered a tick, for latency measurement: the time since `rx`, and the number of
/// ticks this measurement represents, since only a sample is measured under load.
///
/// 28 bits of 128 ns units and 4 bits of weight: more than 34 s are recorded as 34 s.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen(u32);

impl Seen {
    /// The tick was not measured.
    pub const UNMEASURED: Self = Self(0);
    /// The largest weight.
    pub const WEIGHT_MAX: u64 = 15;

    /// Returns the measurement of a tick that was numbered `since_rx_ns` nanoseconds after `rx`. It
    /// represents `weight` ticks, at most [`WEIGHT_MAX`](Self::WEIGHT_MAX).
    pub fn new(since_rx_ns: u64, weight: u64) -> Self {
        let units = (since_rx_ns / 128).min((1 << 28) - 1);
        Self((units << 4 | weight.min(Self::WEIGHT_MAX)) as u32)
    }

    /// Returns the nanoseconds since `rx`, rounded down to a multiple of 128.
    pub fn since_rx_ns(self) -> u64 {
        u64::from(self.0 >> 4) * 128
    }

    /// Returns the number of ticks that the measurement represents; 0 if the tick was not measured.
    pub fn weight(self) -> u64 {
        u64::from(self.0 & 15)
    }
}

/// Unpacks the tick of a slot.
fn tick_in(slot: &Slot) -> Tick {
    let mut words = [0; WORDS];
    words.copy_from_slice(&slot[..WORDS]);
    Tick::from_words(&words)
}

/// Returns a ring for ticks. `capacity` is the number of ticks a reader may fall behind, a power of two;
/// `instruments` the largest number of instruments.
///
/// # Errors
/// [`CapacityError`] if `capacity` is not a power of two, or too large.
pub fn tick_ring(capacity: usize, instruments: usize) -> Result<(TickWriter, TickRing), CapacityError> {
    let (writer, ring) = ring(capacity, Key::count(instruments))?;
    Ok((TickWriter { writer, feed_gaps: Vec::new() }, TickRing { ring }))
}

/// Publishes ticks. There is one, owned by the ingest thread.
pub struct TickWriter {
    writer: Writer<SLOT_WORDS>,
    /// The newest feed gap by stream key. Its length is the highest key with a gap plus 1, so it is empty in
    /// most runs.
    feed_gaps: Vec<(u64, u64)>,
}

impl TickWriter {
    /// Stores the last value of the stream, then publishes the tick. Never waits.
    ///
    /// # Errors
    /// [`KeyOutOfRange`] for an instrument beyond the ring's number of instruments; nothing was published.
    #[inline]
    pub fn publish(&mut self, tick: &Tick, seen: Seen) -> Result<(), KeyOutOfRange> {
        let key = tick.key().index();
        let mut slot = [0; SLOT_WORDS];
        slot[..WORDS].copy_from_slice(&tick.to_words());
        slot[SEEN] |= u64::from(seen.0) << 32;
        slot[HEAD] = tick.seq;
        match tick.body {
            Body::Gap { from, void: FeedGap::Lost, .. } => {
                return self.publish_gap(key, (from, tick.seq), slot);
            }
            // A seek reached a position without a value: the gap replaces the last value.
            Body::Gap { void: FeedGap::NoValue, .. } => return self.writer.publish_value(key, &slot),
            _ => {}
        }
        if let Some((from, to)) = self.feed_gaps.get(key) {
            (slot[GAP_FROM], slot[GAP_TO]) = (*from, *to);
        }
        self.writer.publish_value(key, &slot)
    }

    /// Publishes a gap. The value before the gap remains the last value; only the sequence numbers advance.
    #[cold]
    fn publish_gap(&mut self, key: usize, gap: (u64, u64), mut slot: Slot) -> Result<(), KeyOutOfRange> {
        (slot[GAP_FROM], slot[GAP_TO]) = gap;
        let mut last = self.writer.last_values().load(key).unwrap_or(slot);
        last[HEAD] = gap.1;
        (last[GAP_FROM], last[GAP_TO]) = gap;
        self.writer.store(key, &last)?;
        if self.feed_gaps.len() <= key {
            self.feed_gaps.resize(key + 1, (0, 0));
        }
        self.feed_gaps[key] = gap;
        self.writer.publish(&slot);
        Ok(())
    }

    /// Returns the number of published ticks.
    pub fn published(&self) -> u64 {
        self.writer.published()
    }
}

/// Returns the newest value of `key`; `None` before the first.
fn last_value(values: &LastValues<SLOT_WORDS>, key: Key) -> Option<LastValue> {
    let slot = values.load(key.index())?;
    let tick = tick_in(&slot);
    let (tick, void) = match tick.body {
        Body::Gap { void: FeedGap::NoValue, .. } => (None, Some(tick.seq)),
        Body::Gap { void: FeedGap::Lost, .. } => (None, None),
        _ => (Some(tick), None),
    };
    let feed_gap = (slot[GAP_TO] > 0).then_some((slot[GAP_FROM], slot[GAP_TO]));
    Some(LastValue { tick, void, head: slot[HEAD], feed_gap })
}

/// A handle to the ring for readers.
#[derive(Clone)]
pub struct TickRing {
    ring: Ring<SLOT_WORDS>,
}

impl TickRing {
    /// Returns a new reader that starts at the next tick.
    pub fn reader(&self) -> TickReader {
        TickReader { reader: self.ring.reader() }
    }

    /// Returns the newest value of `key`; `None` before the first.
    pub fn last_value(&self, key: Key) -> Option<LastValue> {
        last_value(self.ring.last_values(), key)
    }

    /// Returns the state of an instrument; `Waiting` before its first status.
    pub fn state(&self, instrument: InstrumentId) -> State {
        self.numbered_state(instrument).0
    }

    /// Returns the [state](Self::state) of an instrument and its sequence number, which counts the states so
    /// far.
    pub fn numbered_state(&self, instrument: InstrumentId) -> (State, u64) {
        let last = self.last_value(Key::new(instrument, Stream::Status));
        match last.and_then(|last| last.tick).map(|tick| (tick.body, tick.seq)) {
            Some((Body::Status(state), seq)) => (state, seq),
            _ => (State::Waiting, 0),
        }
    }

    /// Returns the tick at a position; `None` if it is not yet published or already overwritten: see
    /// [`Ring::at`].
    pub fn at(&self, position: u64) -> Option<Tick> {
        self.ring.at(position).map(|slot| tick_in(&slot))
    }

    /// Returns the stream key of the tick at a position; otherwise as [`at`](Self::at).
    pub fn key_at(&self, position: u64) -> Option<Key> {
        self.ring.first_at(position).map(Tick::key_in)
    }

    /// Returns the number of published ticks visible to this thread.
    pub fn published(&self) -> u64 {
        self.ring.published()
    }

    /// Returns how many ticks a reader may fall behind.
    pub fn capacity(&self) -> usize {
        self.ring.capacity()
    }
}

/// A reader of the ring.
pub struct TickReader {
    reader: Reader<SLOT_WORDS>,
}

impl TickReader {
    /// Passes at most `max` ticks to `take`, in order: see [`Reader::poll`].
    #[inline]
    pub fn poll(&mut self, max: usize, mut take: impl FnMut(Packed<'_>)) -> Batch {
        self.reader.poll(max, |slot| take(Packed { slot }))
    }

    /// Returns the position of the next tick to take.
    pub fn cursor(&self) -> u64 {
        self.reader.cursor()
    }

    /// Returns the number of waiting ticks.
    pub fn behind(&self) -> u64 {
        self.reader.behind()
    }
}

/// A tick in packed form. Most ticks without a subscriber are never unpacked.
#[derive(Clone, Copy)]
pub struct Packed<'a> {
    slot: &'a Slot,
}

impl Packed<'_> {
    /// Returns the stream the tick belongs to.
    #[inline]
    pub fn key(self) -> Key {
        Tick::key_in(self.slot[0])
    }

    /// Returns when the tick was numbered.
    #[inline]
    pub fn seen(self) -> Seen {
        Seen((self.slot[SEEN] >> 32) as u32)
    }

    /// Unpacks the tick.
    pub fn unpack(self) -> Tick {
        tick_in(self.slot)
    }

    /// Returns the words of the tick, without [`Seen`] and the other words of the slot.
    pub fn words(self) -> Words {
        let mut words = [0; WORDS];
        words.copy_from_slice(&self.slot[..WORDS]);
        words[SEEN] &= u64::from(u32::MAX);
        words
    }
}

#[cfg(all(test, not(tickfan_loom)))]
mod tests {
    use super::*;
    use crate::model::tick::{Channel, Quote};

    fn tick(seq: u64, body: Body) -> Tick {
        Tick { instrument: InstrumentId(3), seq, rx_ns: 9, ts_us: None, snap: false, body }
    }

    #[test]
    fn a_tick_comes_out_as_it_went_in() {
        let (mut writer, ring) = tick_ring(8, 4).expect("good");
        let mut reader = ring.reader();
        let sent = [tick(1, Body::Quote(Quote::default())), tick(1, Body::Status(State::Live))];
        let seen = [(0, 0), (1_000, 15)].map(|(ns, weight)| Seen::new(ns, weight));
        sent.iter().zip(seen).for_each(|(t, seen)| writer.publish(t, seen).expect("there is room"));
        let (mut got, mut marks) = (Vec::new(), Vec::new());
        let batch = reader.poll(9, |packed| {
            marks.push((packed.seen().since_rx_ns(), packed.seen().weight()));
            got.push((packed.key(), packed.unpack()));
            assert_eq!(packed.words(), packed.unpack().to_words(), "without its mark");
        });
        assert_eq!(marks, [(0, 0), (896, 15)]);
        assert_eq!(Seen::new(u64::MAX, 99), Seen(u32::MAX));
        assert_eq!((batch.taken, batch.lapped), (2, 0));
        assert_eq!(got, sent.map(|t| (t.key(), t)));
        let other = Tick { instrument: InstrumentId(4), ..sent[0] };
        assert!(writer.publish(&other, Seen::UNMEASURED).is_err(), "an instrument beyond the last");
    }

    #[test]
    fn a_gap_moves_the_numbers_and_keeps_the_value() {
        let (mut writer, ring) = tick_ring(8, 4).expect("good");
        let key = Key::new(InstrumentId(3), Stream::Quote);
        let gap = |seq, from| tick(seq, Body::Gap { channel: Channel::Quote, from, void: FeedGap::Lost });
        let quote = |seq| tick(seq, Body::Quote(Quote::default()));
        let last = || ring.last_value(key).map(|v| (v.tick.map(|t| t.seq), v.head, v.feed_gap));
        assert_eq!(last(), None);
        for (step, expected) in [
            (gap(1, 1), (None, 1, Some((1, 1)))),
            (quote(2), (Some(2), 2, Some((1, 1)))),
            (gap(5, 3), (Some(2), 5, Some((3, 5)))),
            (quote(6), (Some(6), 6, Some((3, 5)))),
            (
                tick(7, Body::Gap { channel: Channel::Quote, from: 7, void: FeedGap::NoValue }),
                (None, 7, None),
            ),
            (gap(8, 8), (None, 8, Some((8, 8)))),
        ] {
            writer.publish(&step, Seen::UNMEASURED).expect("there is room");
            assert_eq!(last(), Some(expected), "{step:?}");
        }
    }
}
