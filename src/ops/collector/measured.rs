//! Stored measurements: of the last interval, of the last minute, and since the start.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer, Serializer as _, V2Serializer};

use super::symbols::{KeptSymbols, Tally};
use super::{Label, Window};
use crate::latency::{Figures, Stage};
use crate::model::instrument::{InstrumentId, InstrumentTable};
use crate::ops::flight;
use crate::system::counters::Counter;
use crate::time::clock::{Now, SECOND};

/// Length of the minute.
const MINUTE_NS: u64 = 60 * SECOND;
/// Most memory of the packed intervals of the minute. If they need more, the minute is shorter.
const MINUTE_BYTES_MAX: usize = 32 << 20;

/// Upper bounds of the buckets for scrapers, nanoseconds. Longer times are in one further bucket.
pub const BOUNDS_NS: [u64; 11] = [
    10_000,
    50_000,
    100_000,
    500_000,
    1_000_000,
    5_000_000,
    10_000_000,
    50_000_000,
    100_000_000,
    1_000_000_000,
    10_000_000_000,
];

/// A histogram for scrapers: sums since the start, which only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Total {
    /// Number of values between consecutive [`BOUNDS_NS`], and beyond the last.
    pub buckets: [u64; BOUNDS_NS.len() + 1],
    /// Sum of the values, nanoseconds.
    pub sum_ns: u64,
}

impl Total {
    fn add(&mut self, values: &Histogram<u64>) {
        for bucket in values.iter_recorded() {
            let (ns, count) = (bucket.value_iterated_to(), bucket.count_at_value());
            // Values near a bound that the histogram does not distinguish count as within it.
            let at = BOUNDS_NS.partition_point(|bound| *bound < values.lowest_equivalent(ns));
            self.buckets[at] += count;
            self.sum_ns = self.sum_ns.saturating_add(values.median_equivalent(ns).saturating_mul(count));
        }
    }

    /// Number of values.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }
}

/// State of the interval log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogHealth {
    /// Whether the last interval could not be written.
    pub failing: bool,
    /// Number of intervals missing in it.
    pub missing: u64,
}

/// One interval of the last minute, packed.
struct Slice {
    from_ns: u64,
    to_ns: u64,
    negative: u64,
    clamped: u64,
    cells: Vec<(Label, Box<[u8]>)>,
    bytes: usize,
}

/// The stored measurements.
struct Kept {
    last: Window,
    minute: Window,
    start: Window,
    totals: BTreeMap<Label, Total>,
    slices: VecDeque<Slice>,
    slices_bytes: usize,
    symbols: KeptSymbols,
    pack: V2Serializer,
    unpack: Deserializer,
}

impl Kept {
    fn add_to_minute(&mut self, round: &Window) {
        let mut cells = Vec::new();
        for (label, values) in round.values() {
            let mut packed = Vec::new();
            // No failure is known; the values would be missing in the minute.
            if self.pack.serialize(values, &mut packed).is_ok() && self.minute.cell(label).add(values).is_ok()
            {
                cells.push((label.clone(), packed.into_boxed_slice()));
            }
        }
        self.minute.negative += round.negative;
        self.minute.clamped += round.clamped;
        let bytes = cells.iter().map(|(_, packed)| packed.len() + size_of::<(Label, Box<[u8]>)>()).sum();
        let Window { from_ns, to_ns, negative, clamped, .. } = *round;
        self.slices.push_back(Slice { from_ns, to_ns, negative, clamped, cells, bytes });
        self.slices_bytes += bytes;
        while let Some(oldest) = self.slices.pop_front_if(|oldest| {
            oldest.to_ns + MINUTE_NS <= round.to_ns || self.slices_bytes > MINUTE_BYTES_MAX
        }) {
            self.forget(&oldest);
        }
        self.minute.from_ns = self.slices.front().map_or(round.to_ns, |oldest| oldest.from_ns);
        self.minute.to_ns = round.to_ns;
    }

    fn forget(&mut self, slice: &Slice) {
        self.slices_bytes -= slice.bytes;
        self.minute.negative -= slice.negative;
        self.minute.clamped -= slice.clamped;
        for (label, packed) in &slice.cells {
            let values: Result<Histogram<u64>, _> = self.unpack.deserialize(&mut &**packed);
            if let (Ok(values), Some(cell)) = (values, self.minute.cells.get_mut(label)) {
                // Values that were added can be subtracted.
                let _ = cell.subtract(values);
            }
        }
    }
}

/// The measurements, and the state of the log. The collector fills it; any thread may read it.
pub struct Measured {
    pub(super) interval_ns: u64,
    pub(super) start: Now,
    pub(super) table: Arc<InstrumentTable>,
    flights: Option<Arc<flight::FlightStats>>,
    has_log: bool,
    log_failing: AtomicBool,
    log_missing: Counter,
    kept: Mutex<Kept>,
}

impl Measured {
    pub(super) fn new(
        interval_ns: u64,
        start: Now,
        has_log: bool,
        table: Arc<InstrumentTable>,
        flights: Option<Arc<flight::FlightStats>>,
    ) -> Self {
        let none = || Window { from_ns: start.mono_ns, to_ns: start.mono_ns, ..Window::default() };
        let kept = Kept {
            last: none(),
            minute: none(),
            start: none(),
            totals: BTreeMap::new(),
            slices: VecDeque::new(),
            slices_bytes: 0,
            symbols: KeptSymbols::default(),
            pack: V2Serializer::new(),
            unpack: Deserializer::new(),
        };
        let (log_failing, log_missing) = (AtomicBool::new(false), Counter::default());
        Self { interval_ns, start, table, flights, has_log, log_failing, log_missing, kept: Mutex::new(kept) }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds an interval, and returns the memory of an older one in `round`. `elected` are the symbols
    /// measured separately from now on.
    pub(super) fn take_in(&self, round: &mut Window, elected: &[InstrumentId]) {
        let mut kept = self.kept();
        let kept = &mut *kept;
        for (label, values) in round.values() {
            // Cannot fail, because the bounds are the same.
            let _ = kept.start.cell(label).add(values);
            kept.totals.entry(label.clone()).or_default().add(values);
        }
        kept.start.negative += round.negative;
        kept.start.clamped += round.clamped;
        kept.start.to_ns = round.to_ns;
        kept.add_to_minute(round);
        kept.symbols.take_in(&round.symbols, (round.from_ns, round.to_ns), elected);
        std::mem::swap(&mut kept.last, round);
        round.to_ns = kept.last.to_ns;
    }

    /// Counts an interval that the log lacks. Returns true if the previous one was written.
    pub(super) fn log_failed(&self) -> bool {
        self.log_missing.add(1);
        !self.log_failing.swap(true, Ordering::Relaxed)
    }

    /// Marks the log as written. Returns true if the previous interval could not be.
    pub(super) fn log_written(&self) -> bool {
        self.log_failing.swap(false, Ordering::Relaxed)
    }

    /// State of the log; `None` if there is no log.
    pub fn log(&self) -> Option<LogHealth> {
        let failing = self.log_failing.load(Ordering::Relaxed);
        self.has_log.then(|| LogHealth { failing, missing: self.log_missing.get() })
    }

    /// Counters of the flight recorder; `None` if it is disabled.
    pub fn flights(&self) -> Option<&flight::FlightStats> {
        self.flights.as_deref()
    }

    /// Latencies of the stages in the last interval, by tag. Its times are derived from the current wall
    /// clock.
    pub(super) fn last_stages(&self, now: Now) -> flight::Stages {
        let wall_us = |mono_ns| now.wall_ns.saturating_sub(now.mono_ns.saturating_sub(mono_ns)) / 1_000;
        self.look(QuerySpan::Last, |window| flight::Stages {
            from_us: wall_us(window.from_ns),
            to_us: wall_us(window.to_ns),
            rows: window.values().map(|(label, v)| (label.tag().to_string(), Figures::of(v))).collect(),
            longest_turns_us: Vec::new(),
        })
    }

    /// The histograms for scrapers, by label.
    pub fn totals(&self) -> Vec<(Label, Total)> {
        self.kept().totals.iter().map(|(label, total)| (label.clone(), *total)).collect()
    }

    /// Number of values since the start below zero, and above one minute.
    pub fn odd(&self) -> (u64, u64) {
        let kept = self.kept();
        (kept.start.negative, kept.start.clamped)
    }

    /// Reads a window under the lock.
    pub(super) fn look<T>(&self, which: QuerySpan, at: impl FnOnce(&Window) -> T) -> T {
        let kept = self.kept();
        at(match which {
            QuerySpan::Last => &kept.last,
            QuerySpan::Minute => &kept.minute,
            QuerySpan::Start => &kept.start,
        })
    }
}

impl Measured {
    /// Latencies by symbol over a span, with its start and end in steady nanoseconds.
    pub(super) fn symbols(&self, which: QuerySpan) -> ((u64, u64), Tally) {
        let kept = self.kept();
        let to_ns = kept.last.to_ns;
        match which {
            QuerySpan::Last => ((kept.last.from_ns, to_ns), kept.symbols.last()),
            QuerySpan::Minute => {
                let (from_ns, tally) = kept.symbols.minute();
                ((from_ns.unwrap_or(to_ns), to_ns), tally)
            }
            QuerySpan::Start => ((kept.start.from_ns, to_ns), kept.symbols.start()),
        }
    }
}

/// A time span of a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum QuerySpan {
    /// The last interval.
    Last,
    /// The last minute.
    Minute,
    /// Since the start.
    Start,
}

impl QuerySpan {
    pub(super) const ALL: [(&str, Self); 3] =
        [("last", Self::Last), ("1m", Self::Minute), ("start", Self::Start)];
}

impl Window {
    /// All values of a stage.
    pub(super) fn stage(&self, stage: Stage) -> Histogram<u64> {
        let mut sum = crate::latency::histogram();
        for (_, values) in self.values().filter(|(label, _)| label.stage == stage) {
            // Cannot fail, because the bounds are the same.
            let _ = sum.add(values);
        }
        sum
    }
}
