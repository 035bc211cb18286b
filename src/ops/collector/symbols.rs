//! Latencies of the busiest symbols, which are measured separately: over the last interval, over the last
//! minute, and since each was selected.

use std::cmp::Reverse;
use std::collections::{BTreeMap, VecDeque};

use crate::latency::{Log2Histogram, SymbolHistograms};
use crate::model::instrument::InstrumentId;
use crate::time::clock::SECOND;

/// Length of the minute.
const MINUTE_NS: u64 = 60 * SECOND;
/// Shortest slice of the minute; the minute is up to one slice longer.
const SLICE_NS: u64 = 5 * SECOND;

/// Elects the busiest symbols, by the number of delivered ticks. Activity decays: an interval counts half
/// after five intervals. A thread measures the elected symbols separately once it uses a set that was
/// returned to it since.
pub(super) struct TopSymbols {
    most: usize,
    /// Activity of each instrument.
    activity: Vec<u64>,
    elected: Vec<InstrumentId>,
}

impl TopSymbols {
    /// Elects at most `most` symbols.
    pub(super) fn new(most: usize) -> Self {
        Self { most, activity: Vec::new(), elected: Vec::new() }
    }

    /// Adds the ticks that a thread measured.
    pub(super) fn count(&mut self, symbols: &SymbolHistograms) {
        for (id, count) in symbols.counts() {
            if self.activity.len() <= id.index() {
                self.activity.resize(id.index() + 1, 0);
            }
            let activity = &mut self.activity[id.index()];
            *activity = activity.saturating_add(count * 8);
        }
    }

    /// Ends an interval. A symbol must exceed an elected one by a quarter to replace it, so that equally busy
    /// symbols do not alternate.
    pub(super) fn elect(&mut self) {
        let mut known = self.elected.clone();
        known.sort_unstable();
        // An elected symbol without activity stays while there is room.
        let weighed = self.activity.iter().enumerate().filter_map(|(at, activity)| {
            let id = InstrumentId(at as u32);
            let stays = known.binary_search(&id).is_ok();
            let weight = u128::from(*activity) * if stays { 5 } else { 4 };
            (stays || weight > 0).then_some((Reverse(weight), id))
        });
        let mut candidates: Vec<(Reverse<u128>, InstrumentId)> = weighed.collect();
        if candidates.len() > self.most {
            candidates.select_nth_unstable(self.most);
            candidates.truncate(self.most);
        }
        self.elected = candidates.into_iter().map(|(_, id)| id).collect();
        self.activity.iter_mut().for_each(|activity| *activity -= activity.div_ceil(8));
    }

    /// The symbols that are measured separately.
    pub(super) fn elected(&self) -> &[InstrumentId] {
        &self.elected
    }
}

/// Latencies by symbol in a time span.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    apart: BTreeMap<InstrumentId, Log2Histogram>,
    rest: Log2Histogram,
}

impl Tally {
    /// Adds what a thread measured.
    pub(super) fn take(&mut self, symbols: &SymbolHistograms) {
        for (id, histogram) in symbols.apart() {
            self.apart.entry(id).or_default().add(histogram);
        }
        self.rest.add(symbols.rest());
    }

    fn add(&mut self, other: &Self) {
        for (id, histogram) in &other.apart {
            self.apart.entry(*id).or_default().add(histogram);
        }
        self.rest.add(&other.rest);
    }

    /// Merges all symbols but these into the rest; `apart` must be sorted.
    fn keep(&mut self, apart: &[InstrumentId]) {
        let rest = &mut self.rest;
        self.apart.retain(|id, histogram| {
            let stays = apart.binary_search(id).is_ok();
            if !stays {
                rest.add(histogram);
            }
            stays
        });
    }

    /// The symbols measured separately, the busiest first, and the rest.
    pub(super) fn rows(&self) -> (Vec<(InstrumentId, &Log2Histogram)>, &Log2Histogram) {
        let mut rows: Vec<_> = self.apart.iter().map(|(id, histogram)| (*id, histogram)).collect();
        rows.sort_by_key(|(id, histogram)| (Reverse(histogram.count()), *id));
        (rows, &self.rest)
    }

    /// Removes all values.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

/// Stored latencies by symbol.
#[derive(Default)]
pub(super) struct KeptSymbols {
    /// The symbols measured separately, sorted.
    elected: Vec<InstrumentId>,
    last: Tally,
    /// The slices of the minute, each with its start.
    minute: VecDeque<(u64, Tally)>,
    start: Tally,
}

impl KeptSymbols {
    /// Adds an interval. `elected` are the symbols measured separately from now on.
    pub(super) fn take_in(&mut self, round: &Tally, (from_ns, to_ns): (u64, u64), elected: &[InstrumentId]) {
        self.elected = elected.to_vec();
        self.elected.sort_unstable();
        let begins = self.minute.back().is_none_or(|(begun_ns, _)| from_ns >= begun_ns + SLICE_NS);
        if begins {
            self.minute.push_back((from_ns, Tally::default()));
        }
        // A slice ends where the next one begins.
        while self.minute.get(1).is_some_and(|(next_ns, _)| next_ns + MINUTE_NS <= to_ns) {
            self.minute.pop_front();
        }
        self.last = round.clone();
        let newest = self.minute.back_mut().map(|(_, tally)| tally);
        for tally in newest.into_iter().chain([&mut self.start]) {
            tally.add(round);
            tally.keep(&self.elected);
        }
        self.last.keep(&self.elected);
    }

    pub(super) fn last(&self) -> Tally {
        self.last.clone()
    }

    /// The last minute, with its start.
    pub(super) fn minute(&self) -> (Option<u64>, Tally) {
        let mut sum = Tally::default();
        self.minute.iter().for_each(|(_, tally)| sum.add(tally));
        sum.keep(&self.elected);
        (self.minute.front().map(|(from_ns, _)| *from_ns), sum)
    }

    pub(super) fn start(&self) -> Tally {
        self.start.clone()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::latency::Stage;
    use crate::latency::meter::{Class, Meter, MeterLine};
    use crate::model::tick::Channel;
    use std::sync::Arc;

    /// Two measuring threads and the collector.
    struct Rig {
        election: TopSymbols,
        kept: KeptSymbols,
        meters: [(Arc<MeterLine>, Meter); 2],
        second: u64,
        all: Log2Histogram,
    }

    impl Rig {
        fn new(most: usize) -> Self {
            let meter = || {
                let line = Arc::<MeterLine>::default();
                (Arc::clone(&line), Meter::new(line, SECOND, 0).with_symbols(most))
            };
            Self {
                election: TopSymbols::new(most),
                kept: KeptSymbols::default(),
                meters: [meter(), meter()],
                second: 0,
                all: Log2Histogram::default(),
            }
        }

        /// One second in which these instruments had these numbers of ticks, on one of the threads.
        fn second(&mut self, ticks: impl IntoIterator<Item = (u32, u64)>) {
            for (id, count) in ticks {
                let meter = &mut self.meters[id as usize % 2].1;
                let class = Class::new(0, Channel::Trade);
                let ns = u64::from(id + 1) * 3_000;
                assert_eq!(
                    meter.record_way(InstrumentId(id), class, 0, ns, count),
                    (count > 0).then_some(ns)
                );
                if count > 0 {
                    self.all.record(ns, count);
                }
            }
            self.second += 1;
            let mut round = Tally::default();
            for (line, meter) in &mut self.meters {
                meter.turn(self.second * SECOND);
                let set = line.take().expect("an interval");
                round.take(&set.symbols);
                self.election.count(&set.symbols);
                let total: u64 =
                    set.values().filter(|(s, ..)| *s == Stage::Total).map(|(.., h)| h.len()).sum();
                assert_eq!(set.symbols.counts().map(|(_, n)| n).sum::<u64>(), total);
                line.give_back(set, self.election.elected());
            }
            self.election.elect();
            let span = ((self.second - 1) * SECOND, self.second * SECOND);
            self.kept.take_in(&round, span, self.election.elected());
        }

        fn sum(tally: &Tally) -> Log2Histogram {
            let mut sum = tally.rest.clone();
            tally.apart.values().for_each(|histogram| sum.add(histogram));
            sum
        }
    }

    #[test]
    fn the_busiest_are_elected_and_stay() {
        let mut rig = Rig::new(2);
        rig.second([(0, 10), (1, 10), (2, 10), (3, 500), (4, 1)]);
        let elected = |rig: &Rig| {
            let mut ids: Vec<u32> = rig.election.elected().iter().map(|id| id.0).collect();
            ids.sort_unstable();
            ids
        };
        assert_eq!(elected(&rig), [0, 3]);
        // 1 and 2 alternate in being slightly busier.
        for second in 0..20 {
            rig.second([(0, 10), (1, 10 + second % 2), (2, 11 - second % 2), (3, 500)]);
            assert_eq!(elected(&rig), [0, 3]);
        }
        for _ in 0..60 {
            rig.second([(0, 10), (2, 20), (3, 0)]);
        }
        assert_eq!(elected(&rig), [0, 2], "it is told no more of one that fell silent");
        (0..200).for_each(|_| rig.second([]));
        assert_eq!(elected(&rig), [0, 2], "nobody needs their place");
        rig.second([(5, 1)]);
        assert_eq!(elected(&rig), [0, 5]);
    }

    #[test]
    fn the_minute_forgets_what_is_older() {
        let mut rig = Rig::new(4);
        for second in 1..=150 {
            rig.second([(1, 1)]);
            let (from_ns, minute) = rig.kept.minute();
            let from = from_ns.expect("it began") / SECOND;
            let (least, most) = (second.min(60), second.min(65));
            assert!((least..=most).contains(&(second - from)), "{} seconds at {second}", second - from);
            assert_eq!(Rig::sum(&minute).count(), second - from);
            assert_eq!(
                (Rig::sum(&rig.kept.last()).count(), Rig::sum(&rig.kept.start()).count()),
                (1, second)
            );
        }
    }

    proptest! {
        #[test]
        fn those_told_apart_and_the_rest_are_all_there_is(
            most in 1_usize..5,
            seconds in proptest::collection::vec(proptest::collection::vec((0_u32..9, 0_u64..50), 0..12), 1..20),
        ) {
            let mut rig = Rig::new(most);
            for ticks in seconds {
                let before = rig.all.count();
                rig.second(ticks);
                prop_assert_eq!(&Rig::sum(&rig.kept.start()), &rig.all);
                prop_assert_eq!(Rig::sum(&rig.kept.last()).count(), rig.all.count() - before);
                prop_assert_eq!(&Rig::sum(&rig.kept.minute().1), &rig.all, "the minute is not over");
                let apart = rig.kept.start().apart;
                prop_assert!(apart.len() <= most && rig.election.elected().len() <= most);
                prop_assert!(apart.keys().all(|id| rig.election.elected().contains(id)));
            }
        }

        #[test]
        fn who_is_busier_by_a_quarter_is_told_apart(most in 1_usize..5, rates in proptest::collection::vec(1_u64..40, 1..12)) {
            let mut rig = Rig::new(most);
            (0..40).for_each(|_| rig.second(rates.iter().enumerate().map(|(id, n)| (id as u32, *n))));
            let mut sorted = rates.clone();
            sorted.sort_unstable_by_key(|n| Reverse(*n));
            let least = sorted[most.min(sorted.len()) - 1];
            for (id, rate) in rates.iter().enumerate() {
                let elected = rig.election.elected().contains(&InstrumentId(id as u32));
                prop_assert!(elected || rate * 4 <= least * 5, "{} of {:?}", id, rates);
                prop_assert!(!elected || rate * 5 >= least * 4, "{} of {:?}", id, rates);
            }
        }
    }
}
