//! A digest of the ticks that a replay has published, equal for equal ticks however the replay was
//! controlled.

use std::sync::Arc;

use crate::model::instrument::{InstrumentId, InstrumentTable, Symbol};
use crate::model::tick::{Body, Tick};

/// The digest of the published ticks, each counted once, and the ranges of their numbers.
///
/// Each trade, quote and feed gap has a number in its captures, from 0. Its hash covers this number, its
/// symbol and its content, but no time of this run and none of its sequence numbers; the digest is the sum of
/// the hashes. So pauses, speeds and seeks do not change it: a tick published again after a seek back is
/// recognised by its number and not added again. `docs/CAPTURES.md` describes the hash.
pub(super) struct Digest {
    table: Arc<InstrumentTable>,
    /// The hashes of the symbols, by instrument; 0 until computed.
    symbols: Vec<u64>,
    sum: u128,
    /// The numbers added so far, as ordered half-open ranges.
    spans: Vec<(u64, u64)>,
    /// The index of the range that the next number usually extends.
    at: usize,
    /// There were more ranges than [`SPANS_MAX`], so the digest is unknown.
    lost: bool,
}

/// Maximum number of ranges that are kept: a seek adds at most one.
const SPANS_MAX: usize = 65_536;

impl Digest {
    /// Returns the digest of no ticks.
    pub(super) fn new(table: Arc<InstrumentTable>) -> Self {
        Self { table, symbols: Vec::new(), sum: 0, spans: Vec::new(), at: 0, lost: false }
    }

    /// Adds the tick with this number, unless it was added before.
    #[inline]
    pub(super) fn add(&mut self, number: u64, tick: &Tick) {
        let covered = match self.spans.get(self.at) {
            Some((from, to)) if *from <= number && number < *to => true,
            Some((_, to)) if *to == number => {
                self.extend(self.at);
                false
            }
            _ => self.find(number),
        };
        if !covered {
            self.sum = self.sum.wrapping_add(self.hash(number, tick));
        }
    }

    /// Extends a range by one, and merges it with the next range if they meet.
    fn extend(&mut self, at: usize) {
        self.spans[at].1 += 1;
        if self.spans.get(at + 1).is_some_and(|(from, _)| *from == self.spans[at].1) {
            self.spans[at].1 = self.spans.remove(at + 1).1;
        }
    }

    /// Finds or creates the range of a number that does not follow the last one. Returns true if the number
    /// was already added.
    #[cold]
    fn find(&mut self, number: u64) -> bool {
        // The first range that begins after the number.
        let next = self.spans.partition_point(|(from, _)| *from <= number);
        if let Some(at) = next.checked_sub(1) {
            let to = self.spans[at].1;
            if number < to {
                self.at = at;
                return true;
            }
            if number == to {
                self.at = at;
                self.extend(at);
                return false;
            }
        }
        if self.spans.get(next).is_some_and(|(from, _)| *from == number + 1) {
            self.spans[next].0 = number;
        } else if self.spans.len() < SPANS_MAX {
            self.spans.insert(next, (number, number + 1));
        } else {
            self.lost = true;
        }
        self.at = next;
        false
    }

    /// Returns the number of ticks added.
    pub(super) fn ticks(&self) -> u64 {
        self.spans.iter().map(|(from, to)| to - from).sum()
    }

    /// Returns the added ranges, in order.
    pub(super) fn spans(&self) -> &[(u64, u64)] {
        &self.spans
    }

    /// Returns the digest; `None` if there were too many ranges to keep.
    pub(super) fn value(&self) -> Option<u128> {
        (!self.lost).then_some(self.sum)
    }

    fn hash(&mut self, number: u64, tick: &Tick) -> u128 {
        let symbol = self.symbol(tick.instrument);
        let mut words = tick.to_words();
        // The symbol stands for the instrument id; receive time and sequence number depend on the run and are
        // left out.
        words[0] >>= 32;
        (words[1], words[2]) = (number, symbol);
        if let Body::Gap { from, .. } = tick.body {
            words[5] = tick.seq - from + 1;
        }
        let [mut high, mut low] = SEEDS;
        for word in words {
            high = fold(high ^ word, FACTORS[0]);
            low = fold(low ^ word, FACTORS[1]);
        }
        u128::from(high) << 64 | u128::from(low)
    }

    fn symbol(&mut self, id: InstrumentId) -> u64 {
        match self.symbols.get(id.index()) {
            Some(hash) if *hash != 0 => *hash,
            _ => self.meet(id),
        }
    }

    #[cold]
    fn meet(&mut self, id: InstrumentId) -> u64 {
        let name = self.table.get(id).map_or("", Symbol::as_str);
        let hash = name.bytes().fold(SEEDS[0], |hash, byte| fold(hash ^ u64::from(byte), FACTORS[0]));
        if self.symbols.len() <= id.index() {
            self.symbols.resize(id.index() + 1, 0);
        }
        self.symbols[id.index()] = hash;
        hash
    }
}

/// Digits of π, and odd constants without a pattern.
const SEEDS: [u64; 2] = [0x243f_6a88_85a3_08d3, 0x1319_8a2e_0370_7344];
const FACTORS: [u64; 2] = [0x9e37_79b9_7f4a_7c15, 0xd6e8_feb8_6659_fd93];

/// Folds the 128-bit product of `a` and `b` to 64 bits by XOR of its halves.
#[inline]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product >> 64) as u64 ^ product as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::decimal::Decimal;
    use crate::model::tick::{Channel, FeedGap, Quote};

    fn digest() -> Digest {
        let table = Arc::new(InstrumentTable::new(4));
        for name in ["a:B", "a:C"] {
            table.intern(&Symbol::parse(name).expect("a symbol")).expect("room");
        }
        Digest::new(table)
    }

    fn tick(instrument: u32, price: i64) -> Tick {
        let quote = Quote { bid: Some(Decimal::new(price, 2)), ..Quote::default() };
        let instrument = InstrumentId(instrument);
        Tick { instrument, seq: 7, rx_ns: 9, ts_us: Some(3), snap: false, body: Body::Quote(quote) }
    }

    /// Returns the digest and ranges after adding these numbers in this order.
    fn of(numbers: impl IntoIterator<Item = u64>) -> (u128, Vec<(u64, u64)>) {
        let mut digest = digest();
        for number in numbers {
            digest.add(number, &tick((number % 2) as u32, number as i64));
        }
        let value = digest.value().expect("few ranges");
        assert_eq!(digest.ticks(), digest.spans().iter().map(|(from, to)| to - from).sum::<u64>());
        (value, digest.spans().to_vec())
    }

    #[test]
    fn it_does_not_matter_in_which_order_or_how_often_ticks_come() {
        let whole = of(0..100);
        assert_eq!(whole.1, [(0, 100)]);
        assert_eq!(of((50..100).chain(0..50)), whole);
        assert_eq!(of((0..100).chain(20..70).chain(0..100)), whole);
        assert_eq!(of((10..20).chain(40..60).chain(0..100)), whole);
        assert_eq!(of((0..100).rev()), whole);
        let part = of((10..20).chain(40..60));
        assert_eq!(part.1, [(10, 20), (40, 60)]);
        assert_ne!(part.0, whole.0);
        assert_eq!(of((40..60).chain(15..20).chain(10..50)).1, [(10, 60)]);
    }

    #[test]
    fn every_part_of_a_tick_counts_but_for_what_is_of_the_run() {
        let hash = |number, tick: &Tick| digest().hash(number, tick);
        let same = tick(0, 5);
        assert_eq!(hash(1, &Tick { seq: 8, rx_ns: 1, ..same }), hash(1, &same));
        let gap = |from, seq| Tick {
            seq,
            body: Body::Gap { channel: Channel::Trade, from, void: FeedGap::Lost },
            ..same
        };
        assert_eq!(hash(1, &gap(5, 7)), hash(1, &gap(6, 8)), "what counts is how much was lost");
        let others = [
            hash(2, &same),
            hash(1, &tick(1, 5)),
            hash(1, &tick(0, 6)),
            hash(1, &Tick { ts_us: None, ..same }),
            hash(1, &gap(5, 7)),
            hash(1, &gap(5, 8)),
        ];
        for (at, other) in others.iter().enumerate() {
            assert_ne!(*other, hash(1, &same), "{at}");
            assert!(!others[..at].contains(other), "{at}");
        }
    }

    #[test]
    fn the_hash_is_pinned() {
        let mut digest = digest();
        digest.add(0, &tick(0, 6_401_020));
        assert_eq!(digest.value().map(|value| format!("{value:032x}")).as_deref(), Some(PINNED));
    }

    /// If this value changes, digests of earlier versions are no longer comparable: mention it in the
    /// changelog.
    const PINNED: &str = "f3c6e07ac417f76cf5c84e155ebe31da";
}
