//! The latency of each symbol on one thread: a histogram for each separate symbol, and one for all others
//! together.
//!
//! The collector chooses the separate symbols, the busiest ones; while there is room, a new symbol becomes
//! separate at once.

use super::log2_histogram::Log2Histogram;
use crate::model::instrument::InstrumentId;

/// The measurements by symbol in one interval.
#[derive(Debug, Default)]
pub struct SymbolHistograms {
    /// By instrument.
    rows: Vec<Row>,
    /// The separate symbols.
    cells: Vec<(InstrumentId, Log2Histogram)>,
    rest: Log2Histogram,
}

/// An instrument: its number of measurements, and its histogram.
#[derive(Clone, Copy, Debug, Default)]
struct Row {
    count: u32,
    place: Place,
}

/// The histogram of an instrument.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    /// Not measured yet.
    #[default]
    Unknown,
    /// Its own.
    Cell(u16),
    /// The common one.
    Rest,
}

impl SymbolHistograms {
    /// Records `count` ticks of an instrument with a latency of `ns`. At most `most` symbols are separate.
    #[inline]
    pub(super) fn record(&mut self, id: InstrumentId, ns: u64, count: u64, most: usize) {
        let mut place = Place::Unknown;
        if let Some(row) = self.rows.get_mut(id.index()) {
            row.count = row.count.saturating_add(count as u32);
            place = row.place;
        }
        match place {
            Place::Cell(at) => self.cells[usize::from(at)].1.record(ns, count),
            Place::Rest => self.rest.record(ns, count),
            Place::Unknown => self.meet(id, ns, count, most),
        }
    }

    /// Records the first ticks of an instrument in this interval.
    #[cold]
    fn meet(&mut self, id: InstrumentId, ns: u64, count: u64, most: usize) {
        let place = if self.cells.len() < most { self.tell_apart(id) } else { Place::Rest };
        let row = self.row(id);
        *row = Row { count: count as u32, place };
        match place {
            Place::Cell(at) => self.cells[usize::from(at)].1.record(ns, count),
            _ => self.rest.record(ns, count),
        }
    }

    fn row(&mut self, id: InstrumentId) -> &mut Row {
        if self.rows.len() <= id.index() {
            self.rows.resize(id.index() + 1, Row::default());
        }
        &mut self.rows[id.index()]
    }

    fn tell_apart(&mut self, id: InstrumentId) -> Place {
        let Ok(at) = u16::try_from(self.cells.len()) else { return Place::Rest };
        self.cells.push((id, Log2Histogram::default()));
        Place::Cell(at)
    }

    /// Returns the separate symbols that have measurements.
    pub fn apart(&self) -> impl Iterator<Item = (InstrumentId, &Log2Histogram)> {
        self.cells.iter().map(|(id, coarse)| (*id, coarse)).filter(|(_, coarse)| coarse.count() > 0)
    }

    /// Returns the measurements of all others.
    pub fn rest(&self) -> &Log2Histogram {
        &self.rest
    }

    /// Returns the number of measurements of each instrument that has any.
    pub fn counts(&self) -> impl Iterator<Item = (InstrumentId, u64)> {
        let rows = self.rows.iter().enumerate().filter(|(_, row)| row.count > 0);
        rows.map(|(at, row)| (InstrumentId(at as u32), u64::from(row.count)))
    }

    /// Clears all values, keeps the memory, and makes these symbols separate from now on.
    pub(super) fn begin(&mut self, apart: &[InstrumentId]) {
        self.rows.fill(Row::default());
        self.cells.clear();
        self.rest = Log2Histogram::default();
        for id in apart {
            let place = self.tell_apart(*id);
            self.row(*id).place = place;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn there_is_room_for_those_that_come_first_or_are_busiest() {
        let mut symbols = SymbolHistograms::default();
        for id in [7, 2, 9, 7] {
            symbols.record(InstrumentId(id), 5_000, 2, 2);
        }
        let apart =
            |symbols: &SymbolHistograms| symbols.apart().map(|(id, c)| (id.0, c.count())).collect::<Vec<_>>();
        let counts =
            |symbols: &SymbolHistograms| symbols.counts().map(|(id, n)| (id.0, n)).collect::<Vec<_>>();
        assert_eq!((apart(&symbols), symbols.rest().count()), (vec![(7, 4), (2, 2)], 2));
        assert_eq!(counts(&symbols), [(2, 2), (7, 4), (9, 2)]);
        symbols.begin(&[InstrumentId(9)]);
        assert_eq!((apart(&symbols), symbols.rest().count(), counts(&symbols)), (vec![], 0, vec![]));
        for id in [2, 7, 9] {
            symbols.record(InstrumentId(id), 5_000, 1, 2);
        }
        assert_eq!((apart(&symbols), symbols.rest().count()), (vec![(9, 1), (2, 1)], 1));
    }

    proptest! {
        #[test]
        fn all_is_measured_once(
            ticks in proptest::collection::vec((0_u32..20, 1_u64..1 << 40, 1_u64..16), 0..200),
            named in proptest::collection::btree_set(0_u32..20, 0..4),
            most in 0_usize..6,
        ) {
            let mut symbols = SymbolHistograms::default();
            let named: Vec<_> = named.into_iter().map(InstrumentId).collect();
            symbols.begin(&named);
            let mut all = Log2Histogram::default();
            let mut counts = std::collections::BTreeMap::<u32, u64>::new();
            for (id, ns, weight) in ticks {
                symbols.record(InstrumentId(id), ns, weight, most);
                all.record(ns, weight);
                *counts.entry(id).or_default() += weight;
            }
            let mut sum = symbols.rest().clone();
            symbols.apart().for_each(|(_, coarse)| sum.add(coarse));
            prop_assert_eq!(sum, all);
            prop_assert!(symbols.apart().all(|(id, coarse)| counts[&id.0] == coarse.count()));
            prop_assert!(symbols.apart().count() <= most.max(named.len()));
            prop_assert_eq!(symbols.counts().map(|(id, n)| (id.0, n)).collect::<Vec<_>>(), counts.into_iter().collect::<Vec<_>>());
        }
    }
}
