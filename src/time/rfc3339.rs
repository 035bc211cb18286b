//! Times of RFC 3339, `2021-04-17T16:43:37.075687Z`, parsed and written without rounding, in nanoseconds
//! since the Unix epoch.

/// Why a text is not a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TimeError {
    /// It does not have the form.
    #[error("not a time such as 2021-04-17T16:43:37.075687Z")]
    Shape,
    /// It has the form, but there is no such day, hour or offset, or it is before 1970 or after 2554.
    #[error("no such time")]
    NoSuchTime,
}

const NANOS: u64 = 1_000_000_000;

/// Parses a time in UTC, with up to nine fraction digits and upper-case letters: as captures and venues write
/// it.
///
/// # Errors
/// [`TimeError`].
pub fn parse(text: &[u8]) -> Result<u64, TimeError> {
    let (seconds, nanos, zone) = local(text)?;
    if text[10] != b'T' || zone != b"Z" {
        return Err(TimeError::Shape);
    }
    since_epoch(seconds, nanos)
}

/// Parses a time as people and programs write it: the `date-time` of RFC 3339 §5.6, with `Z` or an offset
/// from UTC, and up to nine fraction digits.
///
/// # Errors
/// [`TimeError`].
pub fn parse_with_offset(text: &[u8]) -> Result<u64, TimeError> {
    let (seconds, nanos, zone) = local(text)?;
    let offset = match zone {
        b"Z" | b"z" => 0,
        [sign @ (b'+' | b'-'), _, _, b':', _, _] => {
            let (hours, minutes) = two_digits(zone, 1).zip(two_digits(zone, 4)).ok_or(TimeError::Shape)?;
            if hours > 23 || minutes > 59 {
                return Err(TimeError::NoSuchTime);
            }
            let ahead = (hours * 3600 + minutes * 60).cast_signed();
            if *sign == b'+' { ahead } else { -ahead }
        }
        _ => return Err(TimeError::Shape),
    };
    since_epoch(seconds - offset, nanos)
}

fn since_epoch(seconds: i64, nanos: u64) -> Result<u64, TimeError> {
    let seconds = u64::try_from(seconds).map_err(|_| TimeError::NoSuchTime)?;
    seconds.checked_mul(NANOS).and_then(|ns| ns.checked_add(nanos)).ok_or(TimeError::NoSuchTime)
}

/// Parses a time without its zone: returns seconds since the epoch of that zone, nanoseconds, and the text
/// after it.
fn local(text: &[u8]) -> Result<(i64, u64, &[u8]), TimeError> {
    let seconds = seconds(text).ok_or(TimeError::Shape)?.ok_or(TimeError::NoSuchTime)?;
    let Some((b'.', fraction)) = text[19..].split_first() else { return Ok((seconds, 0, &text[19..])) };
    let digits = fraction.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if !(1..=9).contains(&digits) {
        return Err(TimeError::Shape);
    }
    let (digits, zone) = fraction.split_at(digits);
    let value = digits.iter().fold(0, |n, digit| n * 10 + u64::from(digit - b'0'));
    Ok((seconds, value * 10u64.pow(9 - digits.len() as u32), zone))
}

/// Returns the seconds since the epoch of `2021-04-17T16:43:37…`, as if it were in UTC. `None`: not of this
/// form; `Some(None)`: no such time.
#[expect(clippy::option_option, reason = "the two are different faults of a line")]
fn seconds(head: &[u8]) -> Option<Option<i64>> {
    let text = head.get(..19)?;
    let shape = [(4, b'-'), (7, b'-'), (13, b':'), (16, b':')];
    if !matches!(text[10], b'T' | b't') || shape.iter().any(|(at, byte)| text[*at] != *byte) {
        return None;
    }
    let field = |at: usize| two_digits(text, at);
    let year = field(0)? * 100 + field(2)?;
    let (month, day, hour, minute, second) = (field(5)?, field(8)?, field(11)?, field(14)?, field(17)?);
    // With an offset from UTC, 1970 may begin in 1969.
    let exists = (1969..=2554).contains(&year)
        && (1..=12).contains(&month)
        && (1..=days_in_month(year, month)).contains(&day)
        && hour < 24
        && minute < 60
        && second < 60;
    let of_day = (hour * 3600 + minute * 60 + second).cast_signed();
    Some(exists.then(|| days_since_epoch(year, month, day) * 86_400 + of_day))
}

fn two_digits(text: &[u8], at: usize) -> Option<u64> {
    let (tens, ones) = (text[at].wrapping_sub(b'0'), text[at + 1].wrapping_sub(b'0'));
    (tens < 10 && ones < 10).then(|| u64::from(tens) * 10 + u64::from(ones))
}

fn is_leap(year: u64) -> bool {
    (year.is_multiple_of(4) && !year.is_multiple_of(100)) || year.is_multiple_of(400)
}

fn days_in_month(year: u64, month: u64) -> u64 {
    match month {
        2 => 28 + u64::from(is_leap(year)),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days before each month of a common year.
const DAYS_BEFORE: [u64; 12] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];

/// Returns the days from 1970-01-01 to a valid date.
fn days_since_epoch(year: u64, month: u64, day: u64) -> i64 {
    let days_before = |year: u64| year * 365 + (year - 1) / 4 - (year - 1) / 100 + (year - 1) / 400;
    let leap_day = u64::from(month > 2 && is_leap(year));
    let days = days_before(year) + DAYS_BEFORE[month as usize - 1] + leap_day + day - 1;
    days.cast_signed() - days_before(1970).cast_signed()
}

/// Appends `rx_ns` as RFC 3339 in UTC, with these fraction digits.
pub fn write(rx_ns: u64, digits: FractionDigits, out: &mut Vec<u8>) {
    let (seconds, nanos) = (rx_ns / NANOS, rx_ns % NANOS);
    let (days, of_day) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = date_of(days);
    let fields =
        [(4, year), (2, month), (2, day), (2, of_day / 3600), (2, of_day / 60 % 60), (2, of_day % 60)];
    for ((width, value), before) in fields.into_iter().zip(*b" --T::") {
        if before != b' ' {
            out.push(before);
        }
        push_padded(value, width, out);
    }
    out.push(b'.');
    match digits {
        FractionDigits::Six => push_padded(nanos / 1000, 6, out),
        FractionDigits::SevenOrNine if nanos.is_multiple_of(100) => push_padded(nanos / 100, 7, out),
        FractionDigits::SevenOrNine => push_padded(nanos, 9, out),
    }
    out.push(b'Z');
}

/// The fraction digits of a written time.
#[derive(Clone, Copy, Debug)]
pub enum FractionDigits {
    /// Microseconds, truncated.
    Six,
    /// Seven, as in tardis slices; nine if seven would truncate.
    SevenOrNine,
}

/// Returns year, month and day of the date `days` after 1970-01-01.
fn date_of(days: u64) -> (u64, u64, u64) {
    let days = days.cast_signed();
    // The estimate is never late; the loop advances it by at most two years.
    let mut year = 1970 + days.cast_unsigned() / 366;
    while days_since_epoch(year + 1, 1, 1) <= days {
        year += 1;
    }
    let mut month = 1;
    while month < 12 && days_since_epoch(year, month + 1, 1) <= days {
        month += 1;
    }
    (year, month, (days - days_since_epoch(year, month, 1)).cast_unsigned() + 1)
}

/// Appends `value` with leading zeros, `width` digits in all.
fn push_padded(value: u64, width: usize, out: &mut Vec<u8>) {
    let mut buffer = itoa::Buffer::new();
    let digits = buffer.format(value).as_bytes();
    out.resize(out.len() + width.saturating_sub(digits.len()), b'0');
    out.extend_from_slice(digits);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_exactly() {
        let ns = |text: &str| parse(text.as_bytes()).ok();
        assert_eq!(ns("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(ns("2021-04-17T16:43:37.075687Z"), Some(1_618_677_817_075_687_000));
        assert_eq!(ns("2021-04-17T16:43:37.4319360Z"), Some(1_618_677_817_431_936_000));
        assert_eq!(ns("2024-02-29T23:59:59.999999999Z"), Some(1_709_251_199_999_999_999));
        assert_eq!(ns("2026-01-01T00:00:00Z"), Some(1_767_225_600 * NANOS));
        for bad in ["", "2021-04-17", "2021-04-17T16:43:37", "2021-13-17T16:43:37Z", "2021-04-17T16:43:37.Z"]
        {
            assert_eq!(ns(bad), None, "{bad}");
        }
        for bad in ["1969-12-31T23:59:59Z", "2021-04-17T16:43:37.1234567890Z", "2021-04-17T16:43:37+00:00"] {
            assert_eq!(ns(bad), None, "{bad}");
        }
    }

    #[test]
    fn offsets_are_read_as_the_grammar_has_them() {
        // F12: the output of Python's `isoformat()`, and the rest of §5.6.
        let us = |text: &str| parse_with_offset(text.as_bytes()).map(|ns| ns / 1_000);
        let moment = 1_780_000_000_000_000;
        for text in [
            "2026-05-28T20:26:40Z",
            "2026-05-28t20:26:40z",
            "2026-05-28T20:26:40.0Z",
            "2026-05-28T20:26:40+00:00",
            "2026-05-28T20:26:40-00:00",
            "2026-05-28T13:26:40-07:00",
            "2026-05-29T01:56:40+05:30",
            "2026-05-29T02:11:40+05:45",
            "2026-05-29T20:25:40+23:59",
            "2026-05-27T20:27:40-23:59",
        ] {
            assert_eq!(us(text), Ok(moment), "{text}");
        }
        assert_eq!(us("2026-05-28T22:26:40.123456+02:00"), Ok(moment + 123_456));
        let ns = |text: &str| parse_with_offset(text.as_bytes());
        assert_eq!(ns("2026-05-28T22:26:40.123456789+02:00"), Ok(moment * 1_000 + 123_456_789));
        // Across the limits: of a year, a leap day, the epoch, 64 bits.
        assert_eq!(ns("2024-03-01T00:30:00+01:00"), ns("2024-02-29T23:30:00Z"));
        assert_eq!(ns("2024-12-31T23:30:00-01:00"), ns("2025-01-01T00:30:00Z"));
        assert_eq!(ns("1969-12-31T23:30:00-01:00"), Ok(1_800 * NANOS));
        assert_eq!(ns("1970-01-01T01:00:00+01:00"), Ok(0));
        assert_eq!(ns("2554-07-21T23:34:33.709551615Z"), Ok(u64::MAX));
        for text in [
            "1970-01-01T00:59:59+01:00",
            "1969-12-31T23:59:59Z",
            "1968-12-31T23:59:59-23:59",
            "2554-07-21T23:34:33.709551616Z",
            "2554-07-21T23:34:34-00:01",
            "2555-01-01T00:00:00+23:59",
            "2026-05-28T20:26:40+24:00",
            "2026-05-28T20:26:40-00:60",
            "2026-05-28T24:00:00+00:00",
            "2026-02-29T00:00:00+00:00",
        ] {
            assert_eq!(ns(text), Err(TimeError::NoSuchTime), "{text}");
        }
        for text in [
            "2026-05-28T20:26:40",
            "2026-05-28T20:26:40+",
            "2026-05-28T20:26:40+00",
            "2026-05-28T20:26:40+0000",
            "2026-05-28T20:26:40+00:0",
            "2026-05-28T20:26:40+00:000",
            "2026-05-28T20:26:40+00:00Z",
            "2026-05-28T20:26:40Z+00:00",
            "2026-05-28T20:26:40+0a:00",
            "2026-05-28T20:26:40++1:00",
            "2026-05-28T20:26:40 00:00",
            "2026-05-28 20:26:40+00:00",
            "2026-05-28T20:26:40.+00:00",
            "2026-05-28T20:26:40.1234567890+00:00",
            "2026-05-28T20:26+00:00",
            "+026-05-28T20:26:40+00:00",
        ] {
            assert_eq!(ns(text), Err(TimeError::Shape), "{text}");
        }
        // Recorded times have one form only: upper case, in UTC.
        for text in ["2026-05-28t20:26:40Z", "2026-05-28T20:26:40z", "2026-05-28T20:26:40+00:00"] {
            assert_eq!(parse(text.as_bytes()), Err(TimeError::Shape), "{text}");
        }
    }

    fn written(rx_ns: u64) -> String {
        let mut text = Vec::new();
        write(rx_ns, FractionDigits::SevenOrNine, &mut text);
        String::from_utf8(text).expect("ASCII")
    }

    #[test]
    fn every_day_of_the_calendar_is_the_one_that_jiff_says() {
        let mut date = jiff::civil::date(1970, 1, 1);
        for day in 0..213_503_u64 {
            let fields = [i64::from(date.year()), date.month().into(), date.day().into()];
            let (year, month, of_month) = date_of(day);
            assert_eq!([year, month, of_month].map(u64::cast_signed), fields, "{day}");
            assert_eq!(days_since_epoch(year, month, of_month), day.cast_signed(), "{date}");
            let text = format!("{date}T00:00:00.0000000Z");
            assert_eq!(written(day * 86_400 * NANOS), text);
            assert_eq!(parse(text.as_bytes()), Ok(day * 86_400 * NANOS), "{text}");
            date = date.tomorrow().expect("a day");
        }
    }

    #[test]
    fn a_date_exists_where_jiff_says_so() {
        for (year, month, day) in (1970..=2553_i16).flat_map(|year| {
            (0..=13_i8).flat_map(move |month| (0..=32_i8).map(move |day| (year, month, day)))
        }) {
            let text = format!("{year:04}-{month:02}-{day:02}T12:00:00Z");
            let exists = jiff::civil::Date::new(year, month, day).is_ok();
            assert_eq!(parse(text.as_bytes()).is_ok(), exists, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_instant_at_any_offset_is_the_one_that_jiff_says(
            rx_ns in 0..=u64::MAX, minutes in -1_439..=1_439_i32, unit_ns in proptest::sample::select(vec![1, 100, 1_000, NANOS])
        ) {
            let rx_ns = rx_ns / unit_ns * unit_ns;
            let instant = jiff::Timestamp::from_nanosecond(rx_ns.into()).expect("within its range");
            let read: jiff::Timestamp = written(rx_ns).parse().expect("a time to jiff");
            proptest::prop_assert_eq!(read, instant);
            let offset = jiff::tz::Offset::from_seconds(minutes * 60).expect("less than a day");
            let sign = if minutes < 0 { '-' } else { '+' };
            let (hours, minutes) = (minutes.abs() / 60, minutes.abs() % 60);
            let text = format!("{}{sign}{hours:02}:{minutes:02}", offset.to_datetime(instant));
            proptest::prop_assert_eq!(parse_with_offset(text.as_bytes()), Ok(rx_ns), "{}", text);
        }
    }
}
