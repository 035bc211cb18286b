//! Exact decimals: prices and sizes are sent with the digits they were received with.

use std::cmp::Ordering;
use std::fmt;

/// A price or size with exactly the digits the venue sent: `mantissa × 10^-scale`.
///
/// `"0.0100"` is mantissa 100, scale 4, and prints as `0.0100` again. Comparison is by value (`1.0 == 1.00`);
/// the digits themselves are compared through [`mantissa`](Self::mantissa) and [`scale`](Self::scale).
///
/// The mantissa is a two's complement number of 96 bits in two halves, so the struct is as large as one with
/// a 64-bit mantissa. [`DIGITS_MAX`](Self::DIGITS_MAX) digits always fit.
#[derive(Clone, Copy, Debug, Default)]
pub struct Decimal {
    /// Bits 0 to 63 of the mantissa.
    low: u64,
    /// Bits 64 to 95, including the sign.
    high: i32,
    scale: u8,
}

/// Why a text is not a [`Decimal`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecimalError {
    /// The text is not a number of RFC 8259 §6.
    #[error("not a decimal number")]
    Malformed,
    /// The digits do not fit: more than [`Decimal::DIGITS_MAX`], or more decimal places than a scale holds.
    #[error(
        "decimal overflow: more than {} digits, or more than {} places behind the point",
        Decimal::DIGITS_MAX,
        Decimal::SCALE_MAX
    )]
    Overflow,
}

impl Decimal {
    /// Maximum number of digits of a decimal, not counting leading zeros.
    pub const DIGITS_MAX: u32 = 28;
    /// Maximum number of decimal places if the mantissa fits into 64 bits.
    pub const SCALE_MAX: u8 = u8::MAX;
    /// Maximum number of decimal places if the mantissa does not fit into 64 bits.
    pub const WIDE_SCALE_MAX: u8 = 63;

    /// Returns `mantissa × 10^-scale`.
    pub const fn new(mantissa: i64, scale: u8) -> Self {
        Self { low: mantissa.cast_unsigned(), high: (mantissa >> 63) as i32, scale }
    }

    /// Returns a decimal from the halves of its mantissa: see [`halves`](Self::halves).
    pub(crate) const fn from_halves(low: u64, high: i32, scale: u8) -> Self {
        Self { low, high, scale }
    }

    /// Returns bits 0 to 63 of the mantissa, and the bits above, including the sign.
    pub(crate) const fn halves(self) -> (u64, i32) {
        (self.low, self.high)
    }

    /// Returns true if the mantissa needs more than 64 bits.
    pub const fn is_wide(self) -> bool {
        self.high as i64 != self.low.cast_signed() >> 63
    }

    /// Returns the mantissa: all digits without the decimal point.
    pub const fn mantissa(self) -> i128 {
        (self.high as i128) << 64 | self.low as i128
    }

    /// Returns the digits without sign, decimal point and leading zeros.
    pub(crate) fn digits(self, buffer: &mut itoa::Buffer) -> &str {
        if self.is_wide() {
            return buffer.format(self.mantissa().unsigned_abs());
        }
        buffer.format(self.low.cast_signed().unsigned_abs())
    }

    /// Returns the number of decimal places.
    pub const fn scale(self) -> u8 {
        self.scale
    }

    /// Returns true for `0`, `0.000`, `0e9`.
    pub const fn is_zero(self) -> bool {
        self.low == 0 && self.high == 0
    }

    /// Returns true above zero.
    pub const fn is_positive(self) -> bool {
        self.high > 0 || (self.high == 0 && self.low > 0)
    }

    /// Returns true below zero.
    pub const fn is_negative(self) -> bool {
        self.high < 0
    }

    /// Parses the number grammar of RFC 8259 §6: `-12.50`, `0.0100`, `1e-8`. An exponent is resolved exactly,
    /// so `1e-8` prints as `0.00000001`.
    ///
    /// # Errors
    /// [`DecimalError::Malformed`] for anything else, [`DecimalError::Overflow`] if the digits do not fit:
    /// nothing ever wraps, rounds or saturates.
    pub fn parse(text: &[u8]) -> Result<Self, DecimalError> {
        use DecimalError::Overflow;
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
                let longer = magnitude.checked_mul(10).and_then(|m| m.checked_add(u64::from(digit)));
                let Some(longer) = longer else { return Self::parse_wide(text) };
                magnitude = longer;
            } else if c == b'.' && point.is_none() {
                point = Some(at);
            } else {
                break;
            }
            at += 1;
        }
        let (scale, magnitude) = match number_end(digits, at, point)? {
            scale @ 0.. => (scale, magnitude),
            // An exponent that moves the point beyond the last digit appends digits.
            _ => return Self::parse_wide(text),
        };
        let Ok(mantissa) = i64::try_from(magnitude) else { return Self::parse_wide(text) };
        let scale = u8::try_from(scale).map_err(|_| Overflow)?;
        Ok(Self::new(if negative { -mantissa } else { mantissa }, scale))
    }

    /// As [`parse`](Self::parse), for a mantissa of up to 96 bits: rare, and slower.
    #[cold]
    fn parse_wide(text: &[u8]) -> Result<Self, DecimalError> {
        use DecimalError::Overflow;
        const LIMIT: i128 = 10i128.pow(Decimal::DIGITS_MAX);
        let (negative, digits) = match text {
            [b'-', rest @ ..] => (true, rest),
            _ => (false, text),
        };
        let mut magnitude: i128 = 0;
        let mut point: Option<usize> = None;
        let mut at = 0;
        let mut fits = true;
        while let Some(&c) = digits.get(at) {
            match c {
                b'0'..=b'9' if fits => {
                    magnitude = magnitude * 10 + i128::from(c - b'0');
                    fits = magnitude < LIMIT;
                }
                b'0'..=b'9' => {}
                b'.' if point.is_none() => point = Some(at),
                _ => break,
            }
            at += 1;
        }
        let mut scale = number_end(digits, at, point)?;
        while scale < 0 && magnitude != 0 && fits {
            magnitude *= 10;
            fits = magnitude < LIMIT;
            scale += 1;
        }
        let scale = u8::try_from(scale.max(0)).map_err(|_| Overflow)?;
        if !fits {
            return Err(Overflow);
        }
        let mantissa = if negative { -magnitude } else { magnitude };
        let wide = Self { low: mantissa as u64, high: (mantissa >> 64) as i32, scale };
        if wide.is_wide() && scale > Self::WIDE_SCALE_MAX { Err(Overflow) } else { Ok(wide) }
    }

    /// Appends the digits, as received, to `out`.
    pub fn write(self, out: &mut Vec<u8>) {
        let mut buffer = itoa::Buffer::new();
        let digits = self.digits(&mut buffer).as_bytes();
        if self.is_negative() {
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

    /// Returns the mantissa with `places` more digits; `None` if 128 bits are too few.
    fn magnified(self, places: u8) -> Option<i128> {
        if self.is_zero() {
            return Some(0);
        }
        10i128.checked_pow(u32::from(places))?.checked_mul(self.mantissa())
    }
}

/// Checks the end of a number whose digits end at `at`, with the decimal point at `point`. Returns the number
/// of decimal places after applying its exponent: negative if digits have to be appended.
#[inline]
fn number_end(digits: &[u8], at: usize, point: Option<usize>) -> Result<i64, DecimalError> {
    use DecimalError::{Malformed, Overflow};
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
    Ok(i64::try_from(fraction).map_err(|_| Overflow)? - exponent)
}

/// Parses the exponent of a number, after its `e`. Clamped far outside the range of a scale.
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
    #[inline]
    fn cmp(&self, other: &Self) -> Ordering {
        // 96-bit numbers with equal upper bits compare as their lower bits do.
        if self.scale == other.scale && self.high == other.high {
            return self.low.cmp(&other.low);
        }
        self.cmp_unlike(other)
    }
}

impl Decimal {
    /// Compares with a number of another scale, or with other upper bits.
    #[inline(never)]
    fn cmp_unlike(&self, other: &Self) -> Ordering {
        if self.scale == other.scale {
            return self.mantissa().cmp(&other.mantissa());
        }
        if self.scale > other.scale {
            return other.cmp(self).reverse();
        }
        match self.magnified(other.scale - self.scale) {
            Some(mine) => mine.cmp(&other.mantissa()),
            // It exceeds 128 bits, and so the other's 96 bits too: the sign decides.
            None => self.mantissa().cmp(&0),
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
        if self.scale == other.scale && self.high == other.high {
            return self.low == other.low;
        }
        self.cmp_unlike(other) == Ordering::Equal
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
        let wide_scale = format!("0.{}1234567890123456789012", "0".repeat(50));
        for big in [
            "10000000000000000000000000000",
            "-10000000000000000000000000000",
            "123456789012345678901234567890.1",
            "1e28",
            "1e-256",
            "1e999999999999",
            &wide_scale,
        ] {
            assert_eq!(Decimal::parse(big.as_bytes()), Err(DecimalError::Overflow), "{big:?}");
        }
    }

    #[test]
    fn up_to_28_digits_leave_as_they_came() {
        for digits in [
            "9223372036854775808",
            "-9223372036854775808",
            "-9223372036854775809",
            "18446744073709551615",
            "18446744073709551616",
            "12.345678901234567890",
            "1000000000.000000000000000000",
            "9999999999999999999999999999",
            "-9999999999999999999999999999",
            "0.000000000000000000000000000000000000001234567890123456789012345",
        ] {
            assert_eq!(text(digits), digits);
            let number = Decimal::parse(digits.as_bytes()).expect(digits);
            assert_eq!(Decimal::from_halves(number.halves().0, number.halves().1, number.scale()), number);
        }
        assert_eq!(text("1e19"), "10000000000000000000");
        assert_eq!(text("1.5e20"), "150000000000000000000");
        assert_eq!(text("0e99"), "0");
        assert!(!Decimal::new(i64::MIN, 0).is_wide() && !Decimal::new(i64::MAX, 3).is_wide());
        for malformed in [
            "12345678901234567890.",
            "012345678901234567890",
            "12345678901234567890x",
            "1.23456789012345678901.2",
        ] {
            assert_eq!(Decimal::parse(malformed.as_bytes()), Err(DecimalError::Malformed), "{malformed}");
        }
        assert_eq!(size_of::<Decimal>(), 16, "as large as with 64 bits");
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
        assert!(d("9223372036854775808") > d("9223372036854775807"));
        assert!(d("18446744073709551616.0") > d("1.8446744073709551615"));
        assert!(d("-9999999999999999999999999999") < d("-1e-200"));
        assert_eq!(d("12345678901234567890.0"), d("12345678901234567890.000"));
    }
}
