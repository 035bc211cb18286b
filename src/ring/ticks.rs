//! Ticks in the ring: how they are packed, and what is kept of each stream as its last value.

use super::{Batch, CapacityError, KeyOutOfRange, LastValues, Reader, Ring, Writer, ring};
use crate::model::instrument::InstrumentId;
use crate::model::tick::{Body, FeedGap, Key, LastValue, State, Stream, Tick, WORDS, Words};

/// Words of a slot: a packed tick, and what only a last value needs.
const SLOT_WORDS: usize = WORDS + 3;
/// Of a last value: the newest number of the stream, which is a gap's where the feed lost what came after
/// the value.
const HEAD: usize = WORDS;
/// Of a last value: the numbers that the newest gap of the feed took, both included; 0 if there was none.
const GAP_FROM: usize = WORDS + 1;
const GAP_TO: usize = WORDS + 2;

/// The word of a packed tick whose upper half is free: [`Seen`] stands there.
const SEEN: usize = 4;

type Slot = [u64; SLOT_WORDS];

/// When the ingest thread had numbered a tick, for who measures: the time since `rx`, and how many ticks like it this one
/// stands for, as not each is measured while very many come at once.
///
/// 28 bits of 128 ns and 4 of the weight: more than 34 s count as that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen(u32);

impl Seen {
    /// Nobody looked.
    pub const UNMEASURED: Self = Self(0);
    /// The largest weight.
    pub const WEIGHT_MAX: u64 = 15;

    /// Numbered so many nanoseconds after `rx`, standing for `weight` ticks, at most [`WEIGHT_MAX`](Self::WEIGHT_MAX).
    pub fn new(since_rx_ns: u64, weight: u64) -> Self {
        let units = (since_rx_ns / 128).min((1 << 28) - 1);
        Self((units << 4 | weight.min(Self::WEIGHT_MAX)) as u32)
    }

    /// Nanoseconds since `rx`, rounded down to 128.
    pub fn since_rx_ns(self) -> u64 {
        u64::from(self.0 >> 4) * 128
    }

    /// How many ticks it stands for; 0 if it was not measured.
    pub fn weight(self) -> u64 {
        u64::from(self.0 & 15)
    }
}

/// The tick in a slot.
fn tick_in(slot: &Slot) -> Tick {
    let mut words = [0; WORDS];
    words.copy_from_slice(&slot[..WORDS]);
    Tick::from_words(&words)
}

/// Makes a ring for ticks. `capacity` is how many a reader may fall behind, a power of two; `instruments` how
/// many there can be.
///
/// # Errors
/// [`CapacityError`] says what is wrong with `capacity`.
pub fn tick_ring(capacity: usize, instruments: usize) -> Result<(TickWriter, TickRing), CapacityError> {
    let (writer, ring) = ring(capacity, Key::count(instruments))?;
    Ok((TickWriter { writer, feed_gaps: Vec::new() }, TickRing { ring }))
}

/// Publishes ticks. There is one, and it belongs to the ingest thread.
pub struct TickWriter {
    writer: Writer<SLOT_WORDS>,
    /// The newest gap of each stream, up to the last stream that had one: as a rule none had.
    feed_gaps: Vec<(u64, u64)>,
}

impl TickWriter {
    /// Publishes a tick, its last value first. Never waits.
    ///
    /// # Errors
    /// [`KeyOutOfRange`] for an instrument that the ring was not made for; nothing was published.
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
            // It takes the place of the value.
            Body::Gap { void: FeedGap::NoValue, .. } => return self.writer.publish_value(key, &slot),
            _ => {}
        }
        if let Some((from, to)) = self.feed_gaps.get(key) {
            (slot[GAP_FROM], slot[GAP_TO]) = (*from, *to);
        }
        self.writer.publish_value(key, &slot)
    }

    /// The value before a gap stays the last value; only the numbers move on.
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

    /// How many ticks were published.
    pub fn published(&self) -> u64 {
        self.writer.published()
    }
}

/// The newest value of `key`; `None` before the first.
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

/// A handle to the ring, for those who read.
#[derive(Clone)]
pub struct TickRing {
    ring: Ring<SLOT_WORDS>,
}

impl TickRing {
    /// A new reader, from the next tick on.
    pub fn reader(&self) -> TickReader {
        TickReader { reader: self.ring.reader() }
    }

    /// The newest value of `key`; `None` before the first.
    pub fn last_value(&self, key: Key) -> Option<LastValue> {
        last_value(self.ring.last_values(), key)
    }

    /// The state of an instrument: waiting, before its first.
    pub fn state(&self, instrument: InstrumentId) -> State {
        self.numbered_state(instrument).0
    }

    /// The [state](Self::state) of an instrument, and how many it has had.
    pub fn numbered_state(&self, instrument: InstrumentId) -> (State, u64) {
        let last = self.last_value(Key::new(instrument, Stream::Status));
        match last.and_then(|last| last.tick).map(|tick| (tick.body, tick.seq)) {
            Some((Body::Status(state), seq)) => (state, seq),
            _ => (State::Waiting, 0),
        }
    }

    /// The tick of a position, if it was published and not yet written over: see [`Ring::at`].
    pub fn at(&self, position: u64) -> Option<Tick> {
        self.ring.at(position).map(|slot| tick_in(&slot))
    }

    /// As [`at`](Self::at), but only whose it is.
    pub fn key_at(&self, position: u64) -> Option<Key> {
        self.ring.first_at(position).map(Tick::key_in)
    }

    /// How many ticks were published, as far as this thread can tell.
    pub fn published(&self) -> u64 {
        self.ring.published()
    }

    /// How many ticks a reader may fall behind.
    pub fn capacity(&self) -> usize {
        self.ring.capacity()
    }
}

/// One reader of the ring.
pub struct TickReader {
    reader: Reader<SLOT_WORDS>,
}

impl TickReader {
    /// Hands at most `max` ticks to `take`, in order: see [`Reader::poll`].
    #[inline]
    pub fn poll(&mut self, max: usize, mut take: impl FnMut(Packed<'_>)) -> Batch {
        self.reader.poll(max, |slot| take(Packed { slot }))
    }

    /// The position of the next tick it wants.
    pub fn cursor(&self) -> u64 {
        self.reader.cursor()
    }

    /// How many ticks are waiting.
    pub fn behind(&self) -> u64 {
        self.reader.behind()
    }
}

/// A tick still packed: most of those that nobody wants are never unpacked.
#[derive(Clone, Copy)]
pub struct Packed<'a> {
    slot: &'a Slot,
}

impl Packed<'_> {
    /// The stream it belongs to.
    #[inline]
    pub fn key(self) -> Key {
        Tick::key_in(self.slot[0])
    }

    /// When it was numbered.
    #[inline]
    pub fn seen(self) -> Seen {
        Seen((self.slot[SEEN] >> 32) as u32)
    }

    /// The tick.
    pub fn unpack(self) -> Tick {
        tick_in(self.slot)
    }

    /// The words of the tick, without what a slot holds besides.
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
