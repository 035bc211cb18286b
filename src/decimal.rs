//! Exact decimals: prices and sizes leave with the digits they came with.

use std::cmp::Ordering;
use std::fmt;

/// A price or size with exactly the digits the venue sent: `mantissa × 10^-scale`.
///
/// `"0.0100"` is mantissa 100, scale 4, and prints as `0.0100` again. Comparison is by value
/// (`1.0 == 1.00`); the digits themselves are compared through [`mantissa`](Self::mantissa) and
/// [`scale`](Self::scale).
#[derive(Clone, Copy, Debug, Default)]
pub struct Decimal {
    mantissa: i64,
    scale: u8,
}

/// Why a text is no [`Decimal`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecimalError {
    /// The text is not a number of RFC 8259 §6.
    #[error("not a decimal number")]
    Malformed,
    /// The digits do not fit: a mantissa beyond 64 bits or a scale beyond 255.
    #[error("decimal overflow: more digits than a 64-bit mantissa holds")]
    Overflow,
}

impl Decimal {
    /// A decimal from its parts: `mantissa × 10^-scale`.
    pub const fn new(mantissa: i64, scale: u8) -> Self {
        Self { mantissa, scale }
    }

    /// All digits, the point taken out.
    pub const fn mantissa(self) -> i64 {
        self.mantissa
    }

    /// How many of the digits stand behind the point.
    pub const fn scale(self) -> u8 {
        self.scale
    }

    /// True for `0`, `0.000`, `0e9`.
    pub const fn is_zero(self) -> bool {
        self.mantissa == 0
    }

    /// Reads the number grammar of RFC 8259 §6: `-12.50`, `0.0100`, `1e-8`. An exponent is
    /// resolved exactly, so `1e-8` prints as `0.00000001`.
    ///
    /// # Errors
    /// [`DecimalError::Malformed`] for anything else, [`DecimalError::Overflow`] when the digits do
    /// not fit: nothing ever wraps, rounds or saturates.
    pub fn parse(text: &[u8]) -> Result<Self, DecimalError> {
        use DecimalError::{Malformed, Overflow};
        let (negative, digits) = match text {
            [b'-', rest @ ..] => (true, rest),
            _ => (false, text),
        };
        let mut magnitude: u64 = 0;
        let mut point: Option<usize> = None;
        let mut at = 0;
        while let Some(&c) = digits.get(at) {
            let digit = c.wrapping_sub(b'0');
            if digit < 10 {
                magnitude = magnitude
                    .checked_mul(10)
                    .and_then(|m| m.checked_add(u64::from(digit)))
                    .ok_or(Overflow)?;
            } else if c == b'.' && point.is_none() {
                point = Some(at);
            } else {
                break;
            }
            at += 1;
        }
        let whole = point.unwrap_or(at);
        let fraction = point.map_or(0, |p| at - p - 1);
        let leading_zero = whole > 1 && digits[0] == b'0';
        if whole == 0 || leading_zero || (point.is_some() && fraction == 0) {
            return Err(Malformed);
        }
        let exponent = match digits.get(at) {
            None => 0,
            Some(b'e' | b'E') => exponent(&digits[at + 1..])?,
            Some(_) => return Err(Malformed),
        };
        let mut scale = i64::try_from(fraction).map_err(|_| Overflow)? - exponent;
        while scale < 0 && magnitude != 0 {
            magnitude = magnitude.checked_mul(10).ok_or(Overflow)?;
            scale += 1;
        }
        let scale = u8::try_from(scale.max(0)).map_err(|_| Overflow)?;
        let mantissa = i64::try_from(magnitude).map_err(|_| Overflow)?;
        Ok(Self { mantissa: if negative { -mantissa } else { mantissa }, scale })
    }

    /// Appends the digits, as they came, to `out`.
    pub fn write(self, out: &mut Vec<u8>) {
        let mut buffer = itoa::Buffer::new();
        let digits = buffer.format(self.mantissa.unsigned_abs()).as_bytes();
        if self.mantissa < 0 {
            out.push(b'-');
        }
        let scale = usize::from(self.scale);
        if scale == 0 {
            out.extend_from_slice(digits);
        } else if let Some(whole) = digits.len().checked_sub(scale).filter(|w| *w > 0) {
            out.extend_from_slice(&digits[..whole]);
            out.push(b'.');
            out.extend_from_slice(&digits[whole..]);
        } else {
            out.extend_from_slice(b"0.");
            out.resize(out.len() + scale - digits.len(), b'0');
            out.extend_from_slice(digits);
        }
    }

    /// The mantissa with `places` more digits; `None` when 128 bits are too few.
    fn magnified(self, places: u8) -> Option<i128> {
        if self.mantissa == 0 {
            return Some(0);
        }
        10i128.checked_pow(u32::from(places))?.checked_mul(i128::from(self.mantissa))
    }
}

/// The exponent of a number, after its `e`. Clamped far outside of what a scale can hold.
fn exponent(text: &[u8]) -> Result<i64, DecimalError> {
    let (sign, digits) = match text {
        [b'-', rest @ ..] => (-1, rest),
        [b'+', rest @ ..] => (1, rest),
        _ => (1, text),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(DecimalError::Malformed);
    }
    let value = digits.iter().fold(0i64, |v, d| (v * 10 + i64::from(d - b'0')).min(100_000));
    Ok(sign * value)
}

impl Ord for Decimal {
    fn cmp(&self, other: &Self) -> Ordering {
        if self.scale == other.scale {
            return self.mantissa.cmp(&other.mantissa);
        }
        if self.scale > other.scale {
            return other.cmp(self).reverse();
        }
        match self.magnified(other.scale - self.scale) {
            Some(mine) => mine.cmp(&i128::from(other.mantissa)),
            // Out of 128 bits: then it is out of the other's 64 bits too, and the sign decides.
            None => self.mantissa.cmp(&0),
        }
    }
}

impl PartialOrd for Decimal {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Decimal {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Decimal {}

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = Vec::with_capacity(24);
        self.write(&mut text);
        f.write_str(&String::from_utf8_lossy(&text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(input: &str) -> String {
        Decimal::parse(input.as_bytes()).expect(input).to_string()
    }

    #[test]
    fn digits_leave_as_they_came() {
        for digits in ["0", "0.0", "0.0100", "64010.10", "-12.50", "9223372036854775807", "0.00001305"] {
            assert_eq!(text(digits), digits);
        }
        assert_eq!(text("1e-8"), "0.00000001");
        assert_eq!(text("1.5E+3"), "1500");
        assert_eq!(text("1.25e1"), "12.5");
        assert_eq!(text("0e5"), "0");
    }

    #[test]
    fn what_is_no_number_is_refused() {
        for bad in
            ["", "-", ".5", "5.", "1.2.3", "+1", "01", "00.1", "1e", "1e+", "0x1", "NaN", " 1", "1 ", "1,0"]
        {
            assert_eq!(Decimal::parse(bad.as_bytes()), Err(DecimalError::Malformed), "{bad:?}");
        }
        for big in ["9223372036854775808", "99999999999999999999", "1e19", "1e-256", "1e999999999999"] {
            assert_eq!(Decimal::parse(big.as_bytes()), Err(DecimalError::Overflow), "{big:?}");
        }
    }

    #[test]
    fn comparison_is_by_value_at_any_scale() {
        let d = |t: &str| Decimal::parse(t.as_bytes()).expect(t);
        assert_eq!(d("1.0"), d("1.000"));
        assert!(d("0.9") < d("1.00"));
        assert!(d("-2") < d("-1.99"));
        assert!(d("9e18") > d("1e-200"));
        assert!(d("-9e18") < d("1e-200"));
        assert!(d("1e-200") > d("0"));
    }
}
