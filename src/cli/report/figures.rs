//! Formatting of numbers for people.

use std::fmt;

/// The ratio of the first to the second number, with three significant digits: `1.05×`. Empty if the second
/// is 0.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ratio(pub(super) u64, pub(super) u64);

impl Ratio {
    /// The ratio.
    pub(super) fn value(self) -> Option<f64> {
        (self.1 > 0).then(|| self.0 as f64 / self.1 as f64)
    }
}

impl fmt::Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self.value() {
            None => "–".to_owned(),
            Some(ratio) if ratio < 9.995 => format!("{ratio:.2}×"),
            Some(ratio) if ratio < 99.95 => format!("{ratio:.1}×"),
            Some(ratio) if ratio < 99_999.5 => format!("{ratio:.0}×"),
            Some(ratio) => format!("{ratio:.0e}×"),
        };
        f.pad(&text)
    }
}

/// A whole number with separators: 3,120.
#[derive(Clone, Copy, Debug)]
pub(super) struct Grouped(pub(super) u64);

impl fmt::Display for Grouped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.0.to_string();
        let mut text = String::with_capacity(digits.len() * 4 / 3);
        for (at, digit) in digits.chars().enumerate() {
            if at > 0 && (digits.len() - at).is_multiple_of(3) {
                text.push(',');
            }
            text.push(digit);
        }
        f.pad(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_have_three_digits() {
        let shown = [(105, 100), (98, 100), (123, 10), (9_999, 1_000), (5_000, 2), (1 << 60, 1), (1, 0)]
            .map(|(value, base)| Ratio(value, base).to_string());
        assert_eq!(shown, ["1.05×", "0.98×", "12.3×", "10.0×", "2500×", "1e18×", "–"]);
    }

    #[test]
    fn whole_numbers_are_grouped() {
        let shown = [0, 999, 1_000, 1_234_567].map(|number| Grouped(number).to_string());
        assert_eq!(shown, ["0", "999", "1,000", "1,234,567"]);
    }
}
