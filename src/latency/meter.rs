//! The latency measurements of one thread, and their transfer without waiting.
//!
//! Each thread that processes ticks has a [`Meter`] of its own with plain histograms that no other thread
//! accesses. Once per interval it exchanges them for empty ones, through a [`MeterLine`] with room for two spare
//! sets; while the collector is late, the thread continues to fill its current set, and the interval becomes
//! longer. So measuring never waits, and no value is lost or measured twice.

use std::sync::Arc;

use crossbeam::queue::ArrayQueue;
use hdrhistogram::Histogram;

use super::{DIGITS, NS_MAX, Stage, SymbolHistograms};
use crate::model::instrument::InstrumentId;
use crate::model::tick::Channel;

/// Venues measured separately; further ones are measured together.
pub const VENUES_MAX: usize = 15;
/// Spare sets of a meter, in addition to the one that it fills.
const SPARE: usize = 2;

/// A class of ticks that a [`Meter`] measures separately: a venue and a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Class(u8);

/// The venues seen by a thread, in the order of their numbers.
#[derive(Clone, Debug, Default)]
struct Venues(Vec<Box<str>>);

impl Venues {
    /// Returns the number of a venue. The search is linear: there are few venues, and callers cache the
    /// number.
    fn number(&mut self, venue: &str) -> u8 {
        let known = self.0.iter().position(|name| **name == *venue);
        let at = known.unwrap_or_else(|| {
            if self.0.len() < VENUES_MAX {
                self.0.push(venue.into());
                self.0.len() - 1
            } else {
                VENUES_MAX
            }
        });
        at as u8
    }
}

impl Class {
    /// The class of ticks that are not measured.
    pub const NONE: Self = Self(u8::MAX);

    /// Returns the class of a channel of the venue with this number.
    #[inline]
    pub(crate) fn new(venue: u8, channel: Channel) -> Self {
        Self(venue.min(VENUES_MAX as u8) * Channel::ALL.len() as u8 + channel as u8)
    }

    fn parts(at: usize) -> (usize, Channel) {
        (at / Channel::ALL.len(), Channel::ALL[at % Channel::ALL.len()])
    }
}

/// A set of histograms: the measurements of a thread in one interval.
#[derive(Debug, Default)]
pub struct Set {
    /// By class, then by stage; empty before the first value.
    cells: Vec<Option<Box<Cell>>>,
    venues: Vec<Box<str>>,
    /// [`Stage::Total`] by symbol.
    pub symbols: SymbolHistograms,
    /// When the set was started, in steady nanoseconds.
    pub from_ns: u64,
    /// When the set was handed over, in steady nanoseconds.
    pub to_ns: u64,
    /// Values below zero, because a clock was set back in between. They are in no histogram.
    pub negative: u64,
    /// Values above [`NS_MAX`], which are recorded as that.
    pub clamped: u64,
}

#[derive(Debug)]
struct Cell {
    values: Histogram<u64>,
    touched: bool,
}

impl Set {
    /// Returns the measurements: stage, venue (`None`: those beyond [`VENUES_MAX`]), channel, values in
    /// nanoseconds.
    pub fn values(&self) -> impl Iterator<Item = (Stage, Option<&str>, Channel, &Histogram<u64>)> {
        self.cells.iter().enumerate().filter_map(|(at, cell)| {
            let cell = cell.as_ref().filter(|cell| cell.touched)?;
            let (venue, channel) = Class::parts(at / Stage::ALL.len());
            let venue = self.venues.get(venue).map(|venue| &**venue);
            Some((Stage::ALL[at % Stage::ALL.len()], venue, channel, &cell.values))
        })
    }

    /// Clears the measurements so far; the same symbols remain separate.
    fn forget(&mut self) {
        let apart: Vec<InstrumentId> = self.symbols.apart().map(|(id, _)| id).collect();
        self.clear(&apart);
    }

    /// Clears all values and keeps the memory. These symbols are measured separately from now on.
    fn clear(&mut self, apart: &[InstrumentId]) {
        self.symbols.begin(apart);
        for cell in self.cells.iter_mut().flatten().filter(|cell| cell.touched) {
            cell.values.reset();
            cell.touched = false;
        }
        (self.negative, self.clamped) = (0, 0);
    }
}

/// The connection between a [`Meter`] and the collector.
#[derive(Debug)]
pub struct MeterLine {
    full: ArrayQueue<Box<Set>>,
    empty: ArrayQueue<Box<Set>>,
}

impl Default for MeterLine {
    fn default() -> Self {
        let (full, empty) = (ArrayQueue::new(SPARE + 1), ArrayQueue::new(SPARE + 1));
        for _ in 0..SPARE {
            // The queue has room for one more.
            let _ = empty.push(Box::default());
        }
        Self { full, empty }
    }
}

impl MeterLine {
    /// Returns the oldest finished set, if there is one. [Return](Self::give_back) it after reading.
    pub fn take(&self) -> Option<Box<Set>> {
        self.full.pop()
    }

    /// Returns a set to the meter, with the symbols to measure separately.
    pub fn give_back(&self, mut set: Box<Set>, apart: &[InstrumentId]) {
        set.clear(apart);
        // The queue has room for all sets.
        let _ = self.empty.push(set);
    }
}

/// The measurements of one thread: see the [module](self).
#[derive(Debug)]
pub struct Meter {
    line: Arc<MeterLine>,
    set: Box<Set>,
    interval_ns: u64,
    /// The end of the interval, in steady nanoseconds.
    due_ns: u64,
    venues: Venues,
    /// The venue of each instrument, by instrument number; [`UNKNOWN`] until it is looked up.
    known: Vec<u8>,
    /// Maximum number of symbols measured separately.
    symbols_max: usize,
    /// How far the wall clock was ahead of steady time at the last check, wrapping; `None` before the first.
    ahead_ns: Option<u64>,
    /// The first time that the wall clock showed after it was set forward. Measurements that began earlier are invalid.
    set_ns: u64,
}

/// The smallest change between two checks that counts as a step of the wall clock, in nanoseconds.
const SET_NS_MIN: u64 = 250_000_000;

const UNKNOWN: u8 = u8::MAX;

impl Meter {
    /// Returns a meter that hands over its measurements through `line` every `interval_ns` steady
    /// nanoseconds; 0 disables it. Intervals end at multiples of `interval_ns`, so those of several threads
    /// coincide.
    pub fn new(line: Arc<MeterLine>, interval_ns: u64, now_ns: u64) -> Self {
        let set = Box::new(Set { from_ns: now_ns, ..Set::default() });
        let due_ns = end_of_interval(interval_ns, now_ns);
        let (venues, known) = (Venues::default(), Vec::new());
        Self { line, set, interval_ns, due_ns, venues, known, symbols_max: 0, ahead_ns: None, set_ns: 0 }
    }

    /// Sets the maximum number of symbols measured separately.
    #[must_use]
    pub fn with_symbols(self, most: usize) -> Self {
        Self { symbols_max: most, ..self }
    }

    /// Returns a meter that measures nothing.
    pub fn off() -> Self {
        Self::new(Arc::default(), 0, 0)
    }

    /// Returns true if it measures.
    #[inline]
    pub fn is_on(&self) -> bool {
        self.interval_ns > 0
    }

    /// Returns the class of a channel of an instrument. `venue` is called for its venue the first time.
    #[inline]
    pub fn class<'a>(
        &mut self,
        id: InstrumentId,
        channel: Channel,
        venue: impl FnOnce() -> &'a str,
    ) -> Class {
        match self.known.get(id.index()) {
            Some(number) if *number != UNKNOWN => Class::new(*number, channel),
            _ => Class::new(self.meet(id, venue()), channel),
        }
    }

    #[cold]
    fn meet(&mut self, id: InstrumentId, venue: &str) -> u8 {
        if self.known.len() <= id.index() {
            self.known.resize(id.index() + 1, UNKNOWN);
        }
        let number = self.venues.number(venue);
        self.known[id.index()] = number;
        number
    }

    /// Records [`Stage::Total`] for `count` ticks of an instrument, between two times of one clock, nanoseconds.
    /// Returns the duration if it was recorded.
    #[inline]
    pub fn record_way(
        &mut self,
        id: InstrumentId,
        class: Class,
        rx_ns: u64,
        now_ns: u64,
        count: u64,
    ) -> Option<u64> {
        let ns = self.record(Stage::Total, class, rx_ns, now_ns, count)?;
        self.set.symbols.record(id, ns, count, self.symbols_max);
        Some(ns)
    }

    /// Records the duration of a stage for `count` ticks of a class, between two times of one clock, nanoseconds.
    /// Returns the duration if it was recorded.
    #[inline]
    pub fn record(
        &mut self,
        stage: Stage,
        class: Class,
        from_ns: u64,
        to_ns: u64,
        count: u64,
    ) -> Option<u64> {
        if !self.is_on() || count == 0 || class == Class::NONE {
            return None;
        }
        if from_ns < self.set_ns {
            return None;
        }
        let Some(mut ns) = to_ns.checked_sub(from_ns) else {
            self.set.negative += count;
            return None;
        };
        if ns > NS_MAX {
            self.set.clamped += count;
            ns = NS_MAX;
        }
        let at = usize::from(class.0) * Stage::ALL.len() + stage as usize;
        if let Some(Some(cell)) = self.set.cells.get_mut(at) {
            cell.touched = true;
            cell.values.saturating_record_n(ns.max(1), count);
        } else {
            self.begin(at, ns.max(1), count);
        }
        Some(ns)
    }

    /// Records the first value of a class and stage in this set.
    #[cold]
    fn begin(&mut self, at: usize, ns: u64, count: u64) {
        let cells = &mut self.set.cells;
        if cells.len() <= at {
            cells.resize_with(at + 1, || None);
        }
        // Cannot fail with these bounds.
        let Ok(mut values) = Histogram::new_with_bounds(1, NS_MAX, DIGITS) else { return };
        values.saturating_record_n(ns, count);
        cells[at] = Some(Box::new(Cell { values, touched: true }));
    }

    /// Checks the clocks, at the start of each turn: the machine's steady time, and the wall clock. If the
    /// wall clock was set since the last check, measurements before and across the step cannot be separated,
    /// so all that is not handed over yet is cleared; and what began before a step forward is not measured,
    /// however late it ends.
    #[inline]
    pub fn look_at_clocks(&mut self, machine_ns: u64, wall_ns: u64) {
        let ahead_ns = wall_ns.wrapping_sub(machine_ns);
        let off_ns = self.ahead_ns.map_or(0, |before| ahead_ns.wrapping_sub(before) as i64);
        self.ahead_ns = Some(ahead_ns);
        if off_ns.unsigned_abs() >= SET_NS_MIN {
            self.clock_was_set(off_ns > 0, wall_ns);
        }
    }

    #[cold]
    fn clock_was_set(&mut self, forward: bool, wall_ns: u64) {
        self.set.forget();
        self.set_ns = if forward { wall_ns } else { 0 };
    }

    /// Hands over the measurements if the interval has ended and there is an empty set.
    #[inline]
    pub fn turn(&mut self, now_ns: u64) {
        if self.is_on() && now_ns >= self.due_ns {
            self.hand_over(now_ns);
        }
    }

    #[cold]
    fn hand_over(&mut self, now_ns: u64) {
        let Some(empty) = self.line.empty.pop() else { return };
        self.push(empty, now_ns);
        self.due_ns = end_of_interval(self.interval_ns, now_ns);
    }

    fn push(&mut self, next: Box<Set>, now_ns: u64) {
        let mut full = std::mem::replace(&mut self.set, next);
        full.to_ns = now_ns;
        full.venues.clone_from(&self.venues.0);
        self.set.from_ns = now_ns;
        // The queue has room for all sets.
        let _ = self.line.full.push(full);
    }

    /// Hands over the measurements since the last interval and stops measuring, because the thread ends.
    pub fn end(&mut self, now_ns: u64) {
        if self.is_on() {
            self.push(Box::default(), now_ns);
            self.interval_ns = 0;
        }
    }

    /// Returns when [`turn`](Self::turn) next has something to do, in steady nanoseconds.
    pub fn due_ns(&self) -> Option<u64> {
        self.is_on().then_some(self.due_ns)
    }
}

/// Returns the end of the interval that contains a steady time; `u64::MAX` if the meter is off.
fn end_of_interval(interval_ns: u64, now_ns: u64) -> u64 {
    now_ns.checked_div(interval_ns).map_or(u64::MAX, |intervals| (intervals + 1) * interval_ns)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn what_was_measured_is_handed_over_once_and_in_order() {
        let line = Arc::new(MeterLine::default());
        let mut meter = Meter::new(Arc::clone(&line), SECOND, 0);
        let kraken = meter.class(InstrumentId(7), Channel::Trade, || "kraken");
        let coinbase = meter.class(InstrumentId(2), Channel::Quote, || "coinbase");
        assert_eq!(meter.class(InstrumentId(7), Channel::Trade, || panic!("it is known")), kraken);
        let mut collected = Vec::new();
        for second in 1..=10 {
            meter.record(Stage::Write, kraken, 1_000, 2_000 + second, 1);
            meter.record(Stage::Write, coinbase, 1_000, 5_000, 3);
            meter.turn(second * SECOND - 1);
            meter.turn(second * SECOND);
            // The collector is late now and then.
            while second.is_multiple_of(4)
                && let Some(set) = line.take()
            {
                let values: Vec<_> =
                    set.values().map(|(s, v, c, h)| (s, v.map(str::to_owned), c, h.len())).collect();
                collected.push((set.from_ns / SECOND, set.to_ns / SECOND, values));
                line.give_back(set, &[]);
            }
        }
        let counts = |n| {
            vec![
                (Stage::Write, Some("kraken".to_owned()), Channel::Trade, n),
                (Stage::Write, Some("coinbase".to_owned()), Channel::Quote, 3 * n),
            ]
        };
        // With two spare sets, the third interval has to wait for an empty one. The rest of its last second
        // is the fourth.
        assert_eq!(collected, [(0, 1, counts(1)), (1, 2, counts(1)), (2, 4, counts(3)), (4, 5, vec![])]);
    }

    #[test]
    fn the_last_interval_needs_no_empty_set() {
        let line = Arc::new(MeterLine::default());
        let mut meter = Meter::new(Arc::clone(&line), SECOND, SECOND / 2);
        assert_eq!(meter.due_ns(), Some(SECOND), "intervals end at whole seconds, whenever it was made");
        for ended_ns in [SECOND + 9, 2 * SECOND + 9] {
            meter.turn(ended_ns);
            assert_eq!(meter.due_ns(), Some(ended_ns - 9 + SECOND));
        }
        meter.record(Stage::Recv, Class::new(0, Channel::Trade), 0, 5, 1);
        meter.end(3 * SECOND + 1);
        meter.end(4 * SECOND);
        let taken = std::iter::from_fn(|| line.take());
        let spans: Vec<_> = taken
            .map(|set| (set.from_ns, set.to_ns, set.values().map(|(.., h)| h.len()).sum::<u64>()))
            .collect();
        assert_eq!(
            spans,
            [
                (SECOND / 2, SECOND + 9, 0),
                (SECOND + 9, 2 * SECOND + 9, 0),
                (2 * SECOND + 9, 3 * SECOND + 1, 1)
            ]
        );
        assert!(!meter.is_on());
    }

    #[test]
    fn what_is_no_time_is_counted_apart() {
        let line = Arc::new(MeterLine::default());
        let mut meter = Meter::new(Arc::clone(&line), SECOND, 0);
        let class = Class::new(0, Channel::Trade);
        meter.record(Stage::Recv, class, 10, 9, 2);
        meter.record(Stage::Recv, class, 10, 10, 1);
        meter.record(Stage::Recv, class, 0, NS_MAX + 1, 1);
        meter.turn(SECOND);
        let set = line.take().expect("an interval");
        assert_eq!((set.negative, set.clamped), (2, 1));
        let (.., values) = set.values().next().expect("one histogram");
        assert_eq!((values.len(), values.min()), (2, 1));
        line.give_back(set, &[]);
        let set = line.empty.pop().expect("one of those given back");
        assert_eq!(set.negative, 0);
    }

    #[test]
    fn nothing_is_measured_across_a_step_of_the_wall_clock() {
        let hour = 3_600 * SECOND;
        for (forward, wall_ns) in [(true, 2 * hour), (false, hour / 2)] {
            let line = Arc::new(MeterLine::default());
            let mut meter = Meter::new(Arc::clone(&line), SECOND, 0);
            let class = Class::new(0, Channel::Trade);
            meter.look_at_clocks(0, hour);
            // Slewing or a late reading is not a step.
            meter.look_at_clocks(1_000, hour + SET_NS_MIN / 2);
            assert_eq!(meter.record(Stage::Recv, class, hour, hour + 5, 1), Some(5));
            // The wall clock is read between the step and the next turn.
            meter.record(Stage::Recv, class, hour, wall_ns, 1);
            meter.look_at_clocks(2_000, wall_ns);
            meter.turn(SECOND);
            let set = line.take().expect("an interval");
            assert_eq!((set.values().count(), set.negative, set.clamped), (0, 0, 0));
            // Received before the step.
            let late = meter.record(Stage::Total, class, hour, wall_ns + 7, 1);
            assert_eq!(late, None, "forward: {forward}");
            assert_eq!(meter.record(Stage::Total, class, wall_ns, wall_ns + 7, 1), Some(7));
        }
    }

    #[test]
    fn venues_have_a_bound() {
        let mut venues = Venues::default();
        for n in 0..40 {
            assert_eq!(usize::from(venues.number(&format!("v{n}"))), n.min(VENUES_MAX));
        }
        assert_eq!(usize::from(venues.number("v3")), 3);
        let line = Arc::new(MeterLine::default());
        let mut meter = Meter::new(Arc::clone(&line), 1, 0);
        meter.record(Stage::Total, Class::new(VENUES_MAX as u8, Channel::Quote), 0, 7, 1);
        meter.turn(1);
        let set = line.take().expect("an interval");
        assert_eq!(set.values().map(|(_, venue, ..)| venue).collect::<Vec<_>>(), [None]);
    }

    #[test]
    fn a_meter_that_is_off_hands_nothing_over() {
        let mut meter = Meter::off();
        meter.record(Stage::Total, Class::new(0, Channel::Quote), 0, 7, 1);
        meter.turn(u64::MAX);
        assert!(meter.line.take().is_none() && meter.due_ns().is_none());
    }
}
