//! The statistics of a histogram, and times formatted for people.

use std::fmt;

use hdrhistogram::Histogram;

/// The reported percentiles, and their quantiles.
pub const QUANTILES: [(&str, f64); 5] =
    [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("p99.99", 0.9999)];

/// The statistics of a histogram, in nanoseconds. A percentile has the digits of the histogram, and is the upper end of
/// the range that they stand for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Figures {
    /// The number of values. If it is 0, so are the others.
    pub count: u64,
    /// The mean, rounded.
    pub mean_ns: u64,
    /// The percentiles of [`QUANTILES`].
    pub quantiles_ns: [u64; QUANTILES.len()],
    /// The maximum.
    pub max_ns: u64,
}

impl Figures {
    /// Computes the statistics of a histogram.
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

    /// Returns names and values for programs: `count`, `mean_ns`, `p50_ns`, … `max_ns`.
    pub fn fields(&self) -> impl Iterator<Item = (String, u64)> {
        let first = [("count", self.count), ("mean_ns", self.mean_ns)];
        let first = first.into_iter().map(|(name, value)| (name.to_owned(), value));
        first.chain(self.times().map(|(name, ns)| (format!("{name}_ns"), ns)))
    }

    /// Returns names and values for people: the percentiles, then the maximum.
    pub fn times(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let percentiles = QUANTILES.into_iter().map(|(name, _)| name).zip(self.quantiles_ns);
        percentiles.chain([("max", self.max_ns)])
    }
}

/// Nanoseconds, displayed with three significant digits and a unit: `48 ns`, `1.23 µs`, `12.3 ms`, `60.0 s`.
#[derive(Clone, Copy, Debug)]
pub struct Nanos(pub u64);

impl fmt::Display for Nanos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 < 1_000 {
            return f.pad(&format!("{} ns", self.0));
        }
        for (unit_ns, name) in [(1_000, "µs"), (1_000_000, "ms"), (1_000_000_000, "s")] {
            for decimals in [2, 1, 0] {
                let scale = 10_u128.pow(decimals);
                let scaled = (u128::from(self.0) * scale + unit_ns / 2) / unit_ns;
                if scaled < 1_000 || (name == "s" && decimals == 0) {
                    let point = if decimals == 0 { "" } else { "." };
                    let digits = decimals as usize;
                    let rest =
                        if decimals == 0 { String::new() } else { format!("{:0digits$}", scaled % scale) };
                    return f.pad(&format!("{}{point}{rest} {name}", scaled / scale));
                }
            }
        }
        Ok(())
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

    #[test]
    fn times_have_three_digits_and_a_unit() {
        for (ns, text) in [
            (0, "0 ns"),
            (999, "999 ns"),
            (1_000, "1.00 µs"),
            (9_994, "9.99 µs"),
            (9_995, "10.0 µs"),
            (48_191, "48.2 µs"),
            (99_949, "99.9 µs"),
            (99_950, "100 µs"),
            (999_499, "999 µs"),
            (999_500, "1.00 ms"),
            (1_050_000, "1.05 ms"),
            (60_000_000_000, "60.0 s"),
            (3_600_000_000_000, "3600 s"),
            (u64::MAX, "18446744074 s"),
        ] {
            assert_eq!(Nanos(ns).to_string(), text);
        }
        assert_eq!(format!("{:>8}|", Nanos(1_050)), " 1.05 µs|");
    }
}
