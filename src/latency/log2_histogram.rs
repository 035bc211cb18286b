//! A histogram small enough to have one for each client and each symbol.

use serde::Serialize;

use super::NS_MAX;

/// Buckets of a [`Log2Histogram`].
const BUCKETS: usize = 26;

/// A histogram of nanoseconds in 128 bytes. Its buckets end at powers of two of a microsecond: below 1 µs,
/// below 2 µs, below 4 µs, and so on; values of 16.8 s or more, up to [`NS_MAX`], are in the last. Below that
/// a percentile is at most twice the true value, and never less. Count, mean and maximum are exact.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Log2Histogram {
    count: u64,
    sum_ns: u64,
    max_ns: u64,
    /// All buckets are halved before one overflows: older values then weigh less in the percentiles.
    buckets: [u32; BUCKETS],
}

/// The statistics of a [`Log2Histogram`], in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CoarseFigures {
    /// The number of values. If it is 0, so are the others.
    pub count: u64,
    /// The mean, rounded down.
    pub mean_ns: u64,
    /// The median.
    pub p50_ns: u64,
    /// The 90th percentile.
    pub p90_ns: u64,
    /// The 99th percentile.
    pub p99_ns: u64,
    /// The maximum.
    pub max_ns: u64,
}

impl Log2Histogram {
    /// Adds `weight` values of `ns` nanoseconds.
    #[inline]
    pub fn record(&mut self, ns: u64, weight: u64) {
        self.count += weight;
        self.sum_ns = self.sum_ns.saturating_add(ns.saturating_mul(weight));
        self.max_ns = self.max_ns.max(ns);
        let us = ns / 1_000;
        let at = ((u64::BITS - us.leading_zeros()) as usize).min(BUCKETS - 1);
        match u32::try_from(weight).ok().and_then(|weight| self.buckets[at].checked_add(weight)) {
            Some(sum) => self.buckets[at] = sum,
            None => self.widen(at, weight),
        }
    }

    #[cold]
    fn widen(&mut self, at: usize, mut weight: u64) {
        while u64::from(self.buckets[at]) + weight > u64::from(u32::MAX) {
            self.buckets.iter_mut().for_each(|bucket| *bucket /= 2);
            weight /= 2;
        }
        self.buckets[at] += weight as u32;
    }

    /// Adds all values of another histogram.
    pub fn add(&mut self, other: &Self) {
        self.count += other.count;
        self.sum_ns = self.sum_ns.saturating_add(other.sum_ns);
        self.max_ns = self.max_ns.max(other.max_ns);
        let sums = |at: usize| u64::from(self.buckets[at]) + u64::from(other.buckets[at]);
        let most = (0..BUCKETS).map(sums).max().unwrap_or(0);
        let shift = u32::from(most > u64::from(u32::MAX));
        self.buckets = std::array::from_fn(|at| (sums(at) >> shift) as u32);
    }

    /// Returns the number of values.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Returns the statistics.
    pub fn figures(&self) -> CoarseFigures {
        CoarseFigures {
            count: self.count,
            mean_ns: self.sum_ns.checked_div(self.count).unwrap_or(0),
            p50_ns: self.percentile_ns(50),
            p90_ns: self.percentile_ns(90),
            p99_ns: self.percentile_ns(99),
            max_ns: self.max_ns,
        }
    }

    /// Returns the upper bound of this percentile: the end of its bucket, or the maximum if that is less.
    fn percentile_ns(&self, percentile: u64) -> u64 {
        let weight: u64 = self.buckets.iter().map(|bucket| u64::from(*bucket)).sum();
        let rank = (weight * percentile).div_ceil(100);
        let mut within = 0;
        let at = self.buckets.iter().position(|bucket| {
            within += u64::from(*bucket);
            within >= rank
        });
        let end_ns = at.map_or(0, |at| if at == BUCKETS - 1 { NS_MAX } else { (1 << at) * 1_000 });
        end_ns.min(self.max_ns)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn it_is_small() {
        assert_eq!(size_of::<Log2Histogram>(), 128);
        assert_eq!(Log2Histogram::default().figures(), CoarseFigures::default());
    }

    #[test]
    fn buckets_end_at_powers_of_two() {
        for (ns, p50_ns) in [
            (0, 1_000),
            (999, 1_000),
            (1_000, 2_000),
            (1_999, 2_000),
            (2_000, 4_000),
            (16_777_215_999, 16_777_216_000),
            (16_777_216_000, NS_MAX),
            (NS_MAX - 1, NS_MAX),
        ] {
            let mut coarse = Log2Histogram::default();
            coarse.record(ns, 3);
            assert_eq!(
                (coarse.figures().p50_ns, coarse.figures().mean_ns),
                (ns, ns),
                "never above the greatest"
            );
            coarse.record(NS_MAX, 1);
            assert_eq!((coarse.figures().p50_ns, coarse.figures().max_ns), (p50_ns, NS_MAX), "{ns}");
        }
    }

    #[test]
    fn what_would_overflow_is_halved_and_the_count_is_exact() {
        let mut coarse = Log2Histogram::default();
        coarse.record(5_000, u64::from(u32::MAX));
        coarse.record(100_000, u64::from(u32::MAX) - 5);
        coarse.record(5_000, 10);
        coarse.record(5_000, 1 << 40);
        let mut twice = coarse.clone();
        twice.add(&coarse);
        for (coarse, times) in [(&coarse, 1), (&twice, 2)] {
            assert_eq!(coarse.count(), times * (2 * u64::from(u32::MAX) + 5 + (1 << 40)));
            assert_eq!((coarse.figures().p50_ns, coarse.figures().max_ns), (8_000, 100_000));
        }
    }

    proptest! {
        #[test]
        fn percentiles_are_never_less_and_at_most_twice(
            values in proptest::collection::vec((0_u64..1 << 44, 1_u64..9), 1..60),
            split in 0_usize..60,
        ) {
            let values: Vec<(u64, u64)> = values.into_iter().map(|(ns, n)| (ns.min(NS_MAX) >> (ns % 40), n)).collect();
            let (mut first, mut second, mut all) = (Log2Histogram::default(), Log2Histogram::default(), Log2Histogram::default());
            let mut sorted = Vec::new();
            for (at, (ns, weight)) in values.iter().enumerate() {
                if at < split { &mut first } else { &mut second }.record(*ns, *weight);
                all.record(*ns, *weight);
                sorted.extend((0..*weight).map(|_| *ns));
            }
            first.add(&second);
            prop_assert_eq!(&first, &all);
            sorted.sort_unstable();
            let figures = all.figures();
            prop_assert_eq!(figures.count, sorted.len() as u64);
            prop_assert_eq!(figures.mean_ns, sorted.iter().sum::<u64>() / figures.count);
            prop_assert_eq!(Some(&figures.max_ns), sorted.last());
            for (percentile, found) in [(50, figures.p50_ns), (90, figures.p90_ns), (99, figures.p99_ns)] {
                let exact = sorted[(sorted.len() * percentile).div_ceil(100) - 1];
                let most = if exact < 1_000 { 1_000 } else if exact < (1 << 24) * 1_000 { 2 * exact } else { NS_MAX };
                prop_assert!((exact..=most.max(exact)).contains(&found), "p{}: {} for {}", percentile, found, exact);
            }
        }
    }
}
