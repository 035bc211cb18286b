//! What is said about a histogram.

use hdrhistogram::Histogram;

/// The percentiles that are shown, and their quantiles.
pub const QUANTILES: [(&str, f64); 5] =
    [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("p99.99", 0.9999)];

/// What is said about a histogram, in nanoseconds. A percentile is exact to the histogram's digits, and the upper end of
/// what they leave open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Figures {
    /// How many values there are. Without any, the others are 0.
    pub count: u64,
    /// Their mean, rounded.
    pub mean_ns: u64,
    /// The percentiles of [`QUANTILES`].
    pub quantiles_ns: [u64; QUANTILES.len()],
    /// The greatest.
    pub max_ns: u64,
}

impl Figures {
    /// Says it about this one.
    pub fn of(histogram: &Histogram<u64>) -> Self {
        let mut quantiles_ns = [0; QUANTILES.len()];
        let values = histogram.value_at_quantiles(QUANTILES.map(|(_, quantile)| quantile));
        quantiles_ns.iter_mut().zip(values).for_each(|(place, ns)| *place = ns);
        Self {
            count: histogram.len(),
            mean_ns: histogram.mean().round() as u64,
            quantiles_ns,
            max_ns: if histogram.is_empty() { 0 } else { histogram.max() },
        }
    }

    /// The names and values as programs read them: `count`, `mean_ns`, `p50_ns`, … `max_ns`.
    pub fn fields(&self) -> impl Iterator<Item = (String, u64)> {
        let first = [("count", self.count), ("mean_ns", self.mean_ns)];
        let first = first.into_iter().map(|(name, value)| (name.to_owned(), value));
        first.chain(self.times().map(|(name, ns)| (format!("{name}_ns"), ns)))
    }

    /// The names and values in the order in which they are shown: the percentiles, then the maximum.
    pub fn times(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let percentiles = QUANTILES.into_iter().map(|(name, _)| name).zip(self.quantiles_ns);
        percentiles.chain([("max", self.max_ns)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::latency;

    #[test]
    fn figures_are_those_of_the_histogram() {
        let mut histogram = latency::histogram();
        assert_eq!(
            Figures::of(&histogram),
            Figures { count: 0, mean_ns: 0, quantiles_ns: [0; 5], max_ns: 0 }
        );
        (1..=10_000).for_each(|us| histogram.record(us * 1_000).expect("in its bounds"));
        let figures = Figures::of(&histogram);
        let expected = [5_000_000, 9_000_000, 9_900_000, 9_990_000, 9_999_000, 10_000_000_u64];
        for ((name, ns), expected) in figures.times().zip(expected) {
            assert!(ns.abs_diff(expected) <= expected / 1_000 + 1_000, "{name}: {ns}");
        }
        assert!((figures.count, figures.mean_ns.abs_diff(5_000_500) < 5_000) == (10_000, true));
    }
}
