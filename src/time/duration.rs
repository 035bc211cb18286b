//! Durations as text: one grammar for the command line, the configuration, URLs and messages.

/// An error in a duration, and its position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadDuration {
    /// The byte offset of the wrong part.
    pub at: usize,
    /// The error.
    pub why: Flaw,
}

/// The kind of error in a part of a duration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// A number is missing.
    Number,
    /// A number has no unit, or an unknown one.
    Unit,
    /// A fraction is finer than a nanosecond.
    TooFine,
    /// The sum does not fit into 64 bits of nanoseconds: more than 584 years.
    TooLong,
}

/// Parses a duration to nanoseconds: decimal numbers with units, `5m`, `1h30m`, `1.5ms`, `250 us`. The units
/// are h, m, s, ms, us (or µs) and ns; spaces are allowed between a number and its unit, and nowhere else.
///
/// # Errors
/// [`BadDuration`] names the first part that is wrong.
pub fn parse_ns(text: &str) -> Result<u64, BadDuration> {
    let (mut at, mut sum) = (0, 0_u64);
    loop {
        let rest = &text[at..];
        let (ns, bytes) = part_ns(rest).map_err(|(offset, why)| BadDuration { at: at + offset, why })?;
        sum = sum.checked_add(ns).ok_or(BadDuration { at, why: Flaw::TooLong })?;
        at += bytes;
        if at == text.len() {
            return Ok(sum);
        }
    }
}

/// Parses one number with its unit: returns its nanoseconds, and its length in bytes. Errors contain the byte
/// offset.
fn part_ns(text: &str) -> Result<(u64, usize), (usize, Flaw)> {
    let number_bytes = text.bytes().take_while(|byte| byte.is_ascii_digit() || *byte == b'.').count();
    let (whole, fraction) = text[..number_bytes].split_once('.').unwrap_or((&text[..number_bytes], "0"));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(fraction) {
        return Err((0, Flaw::Number));
    }
    let spaced = &text[number_bytes..];
    let unit_at = number_bytes + spaced.bytes().take_while(|byte| *byte == b' ').count();
    let unit_bytes = text[unit_at..].find(|c: char| !c.is_alphabetic()).unwrap_or(text.len() - unit_at);
    let unit_ns: u64 = match &text[unit_at..unit_at + unit_bytes] {
        "h" => 3_600_000_000_000,
        "m" => 60_000_000_000,
        "s" => 1_000_000_000,
        "ms" => 1_000_000,
        "us" | "µs" | "μs" => 1_000,
        "ns" => 1,
        _ => return Err((unit_at, Flaw::Unit)),
    };
    let whole: u64 = whole.parse().map_err(|_| (0, Flaw::TooLong))?;
    let whole_ns = whole.checked_mul(unit_ns).ok_or((0, Flaw::TooLong))?;
    let fraction = fraction.trim_end_matches('0');
    // Up to 18 digits of a fraction fit into 64 bits.
    let scale = u32::try_from(fraction.len()).ok().and_then(|digits| 10_u64.checked_pow(digits));
    let scaled = if fraction.is_empty() { Some(0) } else { fraction.parse::<u64>().ok() };
    let (Some(scale), Some(scaled)) = (scale, scaled) else { return Err((0, Flaw::TooFine)) };
    let fraction_ns = u128::from(scaled) * u128::from(unit_ns);
    if fraction_ns % u128::from(scale) != 0 {
        return Err((0, Flaw::TooFine));
    }
    let fraction_ns = (fraction_ns / u128::from(scale)) as u64;
    let ns = whole_ns.checked_add(fraction_ns).ok_or((0, Flaw::TooLong))?;
    Ok((ns, unit_at + unit_bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_units_add_up() {
        for (text, ns) in [
            ("5m", 300_000_000_000),
            ("1h30m2s3ms4us5ns", 5_402_003_004_005),
            ("1.5ms", 1_500_000),
            ("1.000000000s", 1_000_000_000),
            ("0.000000001s", 1),
            ("250 µs", 250_000),
            ("250μs", 250_000),
            ("0s", 0),
        ] {
            assert_eq!(parse_ns(text), Ok(ns), "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        for (text, at, why) in [
            ("", 0, Flaw::Number),
            ("m", 0, Flaw::Number),
            (" 5m", 0, Flaw::Number),
            ("5m ", 2, Flaw::Number),
            ("-5m", 0, Flaw::Number),
            ("1.m", 0, Flaw::Number),
            ("1..5s", 0, Flaw::Number),
            ("5", 1, Flaw::Unit),
            ("1m5", 3, Flaw::Unit),
            ("5 days", 2, Flaw::Unit),
            ("5M", 1, Flaw::Unit),
            ("1m1.5ns", 2, Flaw::TooFine),
            ("0.1234567890123456789012h", 0, Flaw::TooFine),
            ("99999999999999h", 0, Flaw::TooLong),
            ("5000000h5000000h", 8, Flaw::TooLong),
        ] {
            assert_eq!(parse_ns(text), Err(BadDuration { at, why }), "{text}");
        }
    }
}
