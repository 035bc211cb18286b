//! What one thread measures, and how it hands it over without waiting for anybody.
//!
//! Each thread that ticks pass through has a [`Meter`] of its own: plain histograms that nobody else sees. Once an
//! interval it swaps them for empty ones, through a [`Line`] that has room for two sets either way; while whoever
//! collects them is late, it goes on filling those it has, and the interval is a longer one. So measuring waits for
//! nobody, and nothing is measured twice or lost.

use std::sync::Arc;

use crossbeam::queue::ArrayQueue;
use hdrhistogram::Histogram;

use super::{DIGITS, NS_MAX, Stage, Symbols};
use crate::model::instrument::InstrumentId;
use crate::model::tick::Channel;

/// Venues that are told apart; further ones are measured together.
pub const VENUES_MAX: usize = 15;
/// Sets of a meter besides the one that it fills.
const SPARE: usize = 2;

/// Whose ticks they are: a venue and a channel, as a [`Meter`] tells them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Class(u8);

/// The venues that a thread has met, and their numbers.
#[derive(Clone, Debug, Default)]
struct Venues(Vec<Box<str>>);

impl Venues {
    /// The number of a venue. There are few of them, and whoever has many ticks to tell keeps it.
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
    /// Of what is not measured.
    pub const NONE: Self = Self(u8::MAX);

    /// A channel of the venue of this number.
    #[inline]
    pub(crate) fn new(venue: u8, channel: Channel) -> Self {
        Self(venue.min(VENUES_MAX as u8) * Channel::ALL.len() as u8 + channel as u8)
    }

    fn parts(at: usize) -> (usize, Channel) {
        (at / Channel::ALL.len(), Channel::ALL[at % Channel::ALL.len()])
    }
}

/// A set of histograms: what a thread measured in one interval.
#[derive(Debug, Default)]
pub struct Set {
    /// By class, then by stage. There are none before the first value.
    cells: Vec<Option<Box<Cell>>>,
    venues: Vec<Box<str>>,
    /// The gateway's part of the whole way, by symbol.
    pub symbols: Symbols,
    /// When it was begun and handed over, steady nanoseconds.
    pub from_ns: u64,
    /// When it was handed over, steady nanoseconds.
    pub to_ns: u64,
    /// Values below zero: a clock was set back in between. They are in no histogram.
    pub negative: u64,
    /// Values above [`NS_MAX`], which count as that.
    pub clamped: u64,
}

#[derive(Debug)]
struct Cell {
    values: Histogram<u64>,
    touched: bool,
}

impl Set {
    /// What was measured: stage, venue (`None`: those beyond [`VENUES_MAX`]), channel, values in nanoseconds.
    pub fn values(&self) -> impl Iterator<Item = (Stage, Option<&str>, Channel, &Histogram<u64>)> {
        self.cells.iter().enumerate().filter_map(|(at, cell)| {
            let cell = cell.as_ref().filter(|cell| cell.touched)?;
            let (venue, channel) = Class::parts(at / Stage::ALL.len());
            let venue = self.venues.get(venue).map(|venue| &**venue);
            Some((Stage::ALL[at % Stage::ALL.len()], venue, channel, &cell.values))
        })
    }

    /// Forgets what was measured up to now; the same symbols are kept apart.
    fn forget(&mut self) {
        let apart: Vec<InstrumentId> = self.symbols.apart().map(|(id, _)| id).collect();
        self.clear(&apart);
    }

    /// Forgets all values, and keeps the memory. These symbols are told apart from now on.
    fn clear(&mut self, apart: &[InstrumentId]) {
        self.symbols.begin(apart);
        for cell in self.cells.iter_mut().flatten().filter(|cell| cell.touched) {
            cell.values.reset();
            cell.touched = false;
        }
        (self.negative, self.clamped) = (0, 0);
    }
}

/// Between a [`Meter`] and whoever collects what it measured.
#[derive(Debug)]
pub struct Line {
    full: ArrayQueue<Box<Set>>,
    empty: ArrayQueue<Box<Set>>,
}

impl Default for Line {
    fn default() -> Self {
        let (full, empty) = (ArrayQueue::new(SPARE + 1), ArrayQueue::new(SPARE + 1));
        for _ in 0..SPARE {
            // There is room for one more.
            let _ = empty.push(Box::default());
        }
        Self { full, empty }
    }
}

impl Line {
    /// The oldest set that is ready, if there is one. It goes [back](Self::give_back) when it was read.
    pub fn take(&self) -> Option<Box<Set>> {
        self.full.pop()
    }

    /// Gives a set back to be filled again, with these symbols told apart.
    pub fn give_back(&self, mut set: Box<Set>, apart: &[InstrumentId]) {
        set.clear(apart);
        // There is room for all that there are.
        let _ = self.empty.push(set);
    }
}

/// What one thread measures: see the [module](self).
#[derive(Debug)]
pub struct Meter {
    line: Arc<Line>,
    set: Box<Set>,
    interval_ns: u64,
    /// When the interval ends.
    due_ns: u64,
    venues: Venues,
    /// The venue of each instrument, by its number; [`UNKNOWN`] until it is asked for.
    known: Vec<u8>,
    /// Symbols that are told apart, at most.
    symbols_max: usize,
    /// By how much the wall clock was ahead of steady time at the last look, wrapping; `None` before the first.
    ahead_ns: Option<u64>,
    /// What began before the wall clock was set forward began before this time, which it showed next.
    set_ns: u64,
}

/// The wall clock was set if it is off by so much from one look to the next.
const SET_NS_MIN: u64 = 250_000_000;

const UNKNOWN: u8 = u8::MAX;

impl Meter {
    /// A meter that hands over what it measured through `line` each `interval_ns`, steady nanoseconds; 0: it measures
    /// nothing. Intervals end at multiples of `interval_ns`, so those of several threads are the same.
    pub fn new(line: Arc<Line>, interval_ns: u64, now_ns: u64) -> Self {
        let set = Box::new(Set { from_ns: now_ns, ..Set::default() });
        let due_ns = end_of_interval(interval_ns, now_ns);
        let (venues, known) = (Venues::default(), Vec::new());
        Self { line, set, interval_ns, due_ns, venues, known, symbols_max: 0, ahead_ns: None, set_ns: 0 }
    }

    /// The same, but so many symbols are told apart.
    #[must_use]
    pub fn with_symbols(self, most: usize) -> Self {
        Self { symbols_max: most, ..self }
    }

    /// A meter that measures nothing.
    pub fn off() -> Self {
        Self::new(Arc::default(), 0, 0)
    }

    /// Whether it measures.
    #[inline]
    pub fn is_on(&self) -> bool {
        self.interval_ns > 0
    }

    /// As what the ticks of an instrument's channel are measured. `venue` is asked for its venue the first time.
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

    /// Measures the gateway's part of the whole way of `count` ticks of an instrument, nanoseconds of the same clock. How long it was, if that
    /// was measured.
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

    /// Measures a stage that `count` ticks of a class took from one time to the other, nanoseconds of the same clock. How
    /// long it was, if that was measured.
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

    /// The first value of a class and stage in this set.
    #[cold]
    fn begin(&mut self, at: usize, ns: u64, count: u64) {
        let cells = &mut self.set.cells;
        if cells.len() <= at {
            cells.resize_with(at + 1, || None);
        }
        // These bounds make a histogram.
        let Ok(mut values) = Histogram::new_with_bounds(1, NS_MAX, DIGITS) else { return };
        values.saturating_record_n(ns, count);
        cells[at] = Some(Box::new(Cell { values, touched: true }));
    }

    /// Looks at the clocks, at the beginning of each turn: the machine's steady time, and the wall clock. Where that was set since
    /// the last look, what was measured before cannot be separated from what was measured across that, so all that is not
    /// handed over yet is forgotten; and what began before a step forward is not measured, however late it ends.
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

    /// Hands over what was measured if the interval is over and there is an empty set to go on with.
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
        // There is room for all that there are.
        let _ = self.line.full.push(full);
    }

    /// Hands over what was measured since the last interval, and measures nothing from here on: the thread ends.
    pub fn end(&mut self, now_ns: u64) {
        if self.is_on() {
            self.push(Box::default(), now_ns);
            self.interval_ns = 0;
        }
    }

    /// When [`turn`](Self::turn) has something to do again, steady nanoseconds.
    pub fn due_ns(&self) -> Option<u64> {
        self.is_on().then_some(self.due_ns)
    }
}

/// The end of the interval that a steady time is in; of the meter that is off there is none.
fn end_of_interval(interval_ns: u64, now_ns: u64) -> u64 {
    now_ns.checked_div(interval_ns).map_or(u64::MAX, |intervals| (intervals + 1) * interval_ns)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn what_was_measured_is_handed_over_once_and_in_order() {
        let line = Arc::new(Line::default());
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
            // Now and then whoever collects is late.
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
        // Two spare sets: the third interval has to wait for an empty one. What is left of its last second is the fourth.
        assert_eq!(collected, [(0, 1, counts(1)), (1, 2, counts(1)), (2, 4, counts(3)), (4, 5, vec![])]);
    }

    #[test]
    fn the_last_interval_needs_no_empty_set() {
        let line = Arc::new(Line::default());
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
        let line = Arc::new(Line::default());
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
            let line = Arc::new(Line::default());
            let mut meter = Meter::new(Arc::clone(&line), SECOND, 0);
            let class = Class::new(0, Channel::Trade);
            meter.look_at_clocks(0, hour);
            // What is slewed, or read late, is no step.
            meter.look_at_clocks(1_000, hour + SET_NS_MIN / 2);
            assert_eq!(meter.record(Stage::Recv, class, hour, hour + 5, 1), Some(5));
            // The wall clock is read between the step and the next turn.
            meter.record(Stage::Recv, class, hour, wall_ns, 1);
            meter.look_at_clocks(2_000, wall_ns);
            meter.turn(SECOND);
            let set = line.take().expect("an interval");
            assert_eq!((set.values().count(), set.negative, set.clamped), (0, 0, 0));
            // It was received before the step.
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
        let line = Arc::new(Line::default());
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
