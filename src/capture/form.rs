//! The three forms of capture lines, and their receive times.

use std::fmt;
use std::ops::Range;

use memchr::memmem;

use super::{RecordFault, RecordKind, Segment};
use crate::time::rfc3339::{self, TimeError};

/// The line format of a capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `2021-04-17T16:43:37.4319360Z {payload}`: RFC 3339 UTC with up to 9 fraction digits. An empty line is
    /// a disconnect, `# time what…` a note of the gateway's recorder.
    Tardis,
    /// `1618677817.431936: {payload}`: a number since the Unix epoch, with an optional fraction, in the
    /// [`Unit`] of the capture, down to nanoseconds. `wss://… <-> time` is a connect,
    /// `wss://… <- time: {payload}` a sent message, any other line that begins with a URL a note. Empty lines
    /// are ignored.
    Cryptofeed,
    /// `1618677817431936000 {payload}`: a whole number since the Unix epoch, in the [`Unit`] of the capture.
    /// Empty lines are ignored.
    Hftbacktest,
}

impl Form {
    /// Returns the name of the project that the form comes from.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tardis => "tardis",
            Self::Cryptofeed => "cryptofeed",
            Self::Hftbacktest => "hftbacktest",
        }
    }

    /// Returns the form of `line`, if it has one. It may be the beginning of a longer line.
    fn of(line: &[u8]) -> Option<Self> {
        let reads = |form: Self| {
            let layout = Layout { form, unit: form.unit_of(line).unwrap_or(Unit::Nanoseconds) };
            // A date identifies the form whatever its year. A number is a time only if it is within the
            // range.
            match layout.parse(line) {
                Ok(Some(_)) | Err(RecordFault::Torn { .. } | RecordFault::OutOfRange(None)) => {
                    !line.is_empty()
                }
                _ => false,
            }
        };
        [Self::Tardis, Self::Cryptofeed, Self::Hftbacktest].into_iter().find(|form| reads(*form))
    }

    /// Returns the unit in which the time of `line` is in range, if the time is a number.
    fn unit_of(self, line: &[u8]) -> Option<Unit> {
        let (stamp, _) = match self {
            Self::Tardis => return None,
            Self::Cryptofeed if is_note(line) => Stamp::parse(noted(line)?.2)?,
            Self::Cryptofeed => Stamp::parse(line).filter(|(_, end)| line[*end..].starts_with(b": "))?,
            Self::Hftbacktest => Stamp::parse_whole(line)?,
        };
        Unit::of(stamp.whole)
    }
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The unit of numeric receive times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// 10 digits since 2001.
    Seconds,
    /// 13 digits.
    Milliseconds,
    /// 16 digits.
    Microseconds,
    /// 19 digits.
    Nanoseconds,
}

/// The earliest valid receive time, 2000-01-01, in nanoseconds since the Unix epoch. An earlier number is a
/// time in another unit, an earlier date comes from a clock that was not set.
pub(super) const RX_NS_MIN: u64 = 946_684_800 * NANOS;
/// The end of the valid range, 2200-01-01, exclusive. The range ensures that no number is a valid time in two
/// units.
pub(super) const RX_NS_END: u64 = 7_258_118_400 * NANOS;

/// Returns true if a receive time is in the valid range.
pub(crate) fn in_range(rx_ns: u64) -> bool {
    (RX_NS_MIN..RX_NS_END).contains(&rx_ns)
}

impl Unit {
    const ALL: [Self; 4] = [Self::Seconds, Self::Milliseconds, Self::Microseconds, Self::Nanoseconds];

    /// Returns its name in the plural.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Seconds => "seconds",
            Self::Milliseconds => "milliseconds",
            Self::Microseconds => "microseconds",
            Self::Nanoseconds => "nanoseconds",
        }
    }

    /// Returns the number of decimal places down to nanoseconds.
    const fn places(self) -> u32 {
        match self {
            Self::Seconds => 9,
            Self::Milliseconds => 6,
            Self::Microseconds => 3,
            Self::Nanoseconds => 0,
        }
    }

    /// Returns its length in nanoseconds.
    const fn nanos(self) -> u64 {
        10u64.pow(self.places())
    }

    /// Returns the unit in which `whole` since the Unix epoch is in the valid range.
    fn of(whole: u64) -> Option<Self> {
        let reads = |unit: &Self| whole.checked_mul(unit.nanos()).is_some_and(in_range);
        Self::ALL.into_iter().find(reads)
    }
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The line format of one capture: its form, and the unit of numeric times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) form: Form,
    unit: Unit,
}

impl Layout {
    /// Detects the layout of a capture from its first lines, of which the last may be cut off. The form is
    /// that of the first line that has one; the unit is the most frequent one, so that a line with a wrong
    /// time does not determine how all others are read.
    pub(super) fn of<'a>(lines: impl Iterator<Item = &'a [u8]> + Clone) -> Option<Self> {
        let form = lines.clone().find_map(Form::of)?;
        // In order of appearance: among equal counts the first decides.
        let mut found: Vec<(Unit, u32)> = Vec::with_capacity(Unit::ALL.len());
        for unit in lines.filter_map(|line| form.unit_of(line)) {
            match found.iter_mut().find(|(known, _)| *known == unit) {
                Some((_, count)) => *count += 1,
                None => found.push((unit, 1)),
            }
        }
        // Without numeric times the unit is never used.
        let most =
            found.iter().rev().max_by_key(|(_, count)| *count).map_or(Unit::Nanoseconds, |(unit, _)| *unit);
        Some(Self { form, unit: most })
    }

    /// Returns the unit of the times, if they are numeric.
    pub(super) fn unit(self) -> Option<Unit> {
        (self.form != Form::Tardis).then_some(self.unit)
    }

    /// Parses one line, without its line end. `None` for an ignored empty line.
    pub(super) fn parse(self, line: &[u8]) -> Result<Option<Parsed>, RecordFault> {
        match self.form {
            Form::Tardis if line.is_empty() => Ok(Some(Parsed::DISCONNECTED)),
            Form::Cryptofeed | Form::Hftbacktest if line.is_empty() => Ok(None),
            Form::Tardis if line.starts_with(b"# ") => recorder_note(line),
            Form::Tardis => rfc3339_line(line),
            Form::Cryptofeed if is_note(line) => note(line, self.unit),
            Form::Cryptofeed => stamped_line(line, self.unit),
            Form::Hftbacktest => whole_line(line, self.unit),
        }
    }
}

/// A parsed line. Its text is a range of the line, so that it does not borrow the line's buffer.
#[derive(Clone, Debug)]
pub(super) struct Parsed {
    /// The time of the line, if it has one.
    pub rx_ns: Option<u64>,
    /// The kind of the text.
    pub tag: Tag,
    /// The text, as a range of the line.
    pub text: Range<usize>,
}

/// [`RecordKind`] without its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tag {
    Frame,
    Connected,
    Sent,
    Disconnected,
    Joined,
    Dropped { frames: u64 },
    Segment(Segment),
    Note,
}

impl Parsed {
    const DISCONNECTED: Self = Self { rx_ns: None, tag: Tag::Disconnected, text: 0..0 };

    fn frame(rx_ns: u64, line: &[u8], from: usize) -> Self {
        Self { rx_ns: Some(rx_ns), tag: Tag::Frame, text: from..line.len() }
    }

    /// Returns the kind with its text; `line` is the parsed line.
    pub(super) fn kind<'a>(&self, line: &'a [u8]) -> RecordKind<'a> {
        let text = &line[self.text.clone()];
        match self.tag {
            Tag::Frame => RecordKind::Frame(text),
            Tag::Sent => RecordKind::Sent(text),
            Tag::Disconnected => RecordKind::Disconnected,
            Tag::Joined => RecordKind::Joined,
            Tag::Dropped { frames } => RecordKind::Dropped { frames },
            Tag::Segment(segment) => RecordKind::Segment(segment),
            Tag::Note => RecordKind::Note(line),
            Tag::Connected => std::str::from_utf8(text).map_or(RecordKind::Note(line), RecordKind::Connected),
        }
    }
}

const NANOS: u64 = 1_000_000_000;

/// `2021-04-17T16:43:37.4319360Z payload`
fn rfc3339_line(line: &[u8]) -> Result<Option<Parsed>, RecordFault> {
    let missing = || RecordFault::NoTime(Form::Tardis);
    let zulu = memchr::memchr(b'Z', &line[..line.len().min(32)]).ok_or_else(missing)?;
    let rx_ns = rfc3339::parse(&line[..=zulu]).map_err(|error| match error {
        TimeError::Shape => missing(),
        TimeError::NoSuchTime => RecordFault::NoSuchTime,
    })?;
    if !in_range(rx_ns) {
        return Err(RecordFault::OutOfRange(None));
    }
    let text = match line.get(zulu + 1) {
        None => zulu + 1,
        Some(b' ') => zulu + 2,
        Some(_) => return Err(missing()),
    };
    Ok(Some(Parsed::frame(rx_ns, line, text)))
}

/// `# 2021-04-17T16:43:37.4319360Z what…`: a note of the recorder. Unknown words make it a remark.
fn recorder_note(line: &[u8]) -> Result<Option<Parsed>, RecordFault> {
    let missing = || RecordFault::NoTime(Form::Tardis);
    let time_end = line[2..].iter().position(|b| *b == b' ').map_or(line.len(), |at| at + 2);
    let rx_ns = rfc3339::parse(&line[2..time_end]).map_err(|_| missing())?;
    let what = std::str::from_utf8(&line[time_end..]).unwrap_or_default().trim_start();
    let (word, rest) = what.split_once(' ').unwrap_or((what, ""));
    let value = |key: &str| rest.split(' ').find_map(|pair| pair.strip_prefix(key)?.strip_prefix('='));
    let count = |key: &str| value(key).and_then(|text| text.parse::<u64>().ok()).unwrap_or_default();
    let tag = match word {
        "connect" => Tag::Connected,
        "joined" => Tag::Joined,
        "dropped" => Tag::Dropped { frames: count("frames") },
        // The time is that of the last record before, if there is one.
        "torn" => {
            return Err(RecordFault::Torn {
                bytes: count("bytes"),
                last_rx_ns: (rx_ns > 0).then_some(rx_ns),
            });
        }
        "segment" => Tag::Segment(Segment {
            run_ns: count("run"),
            number: u32::try_from(count("number")).unwrap_or_default(),
            venue: value("venue").and_then(|name| name.parse().ok()),
            continues: true,
        }),
        _ => Tag::Note,
    };
    // A note is valid even if the clock was wrong.
    let rx_ns = Some(rx_ns).filter(|rx_ns| in_range(*rx_ns));
    Ok(Some(Parsed { rx_ns, tag, text: line.len() - rest.len()..line.len() }))
}

/// A numeric time: the digits before and after the decimal point.
#[derive(Clone, Copy, Debug)]
struct Stamp<'a> {
    whole: u64,
    fraction: &'a [u8],
}

impl<'a> Stamp<'a> {
    /// Parses the time at the start of `text`; returns it and its end. At most 9 digits may follow the
    /// decimal point.
    fn parse(text: &'a [u8]) -> Option<(Self, usize)> {
        let is_digit = |b: &&u8| b.is_ascii_digit();
        let digits = text.iter().take(21).take_while(is_digit).count();
        let whole = number(&text[..digits])?;
        if text.get(digits) != Some(&b'.') {
            return Some((Self { whole, fraction: &[] }, digits));
        }
        let places = text[digits + 1..].iter().take(10).take_while(is_digit).count();
        let end = digits + 1 + places;
        let fraction = &text[digits + 1..end];
        (1..=9).contains(&places).then_some((Self { whole, fraction }, end))
    }

    /// Parses the whole number at the start of `line`; returns it and the index of the space after it.
    fn parse_whole(line: &'a [u8]) -> Option<(Self, usize)> {
        let head = &line[..line.len().min(21)];
        let space = memchr::memchr(b' ', head)?;
        Some((Self { whole: number(&head[..space])?, fraction: &[] }, space))
    }

    /// Returns the receive time in nanoseconds, if it is valid in this unit.
    #[inline]
    fn ns(self, unit: Unit, form: Form) -> Result<u64, RecordFault> {
        let places = unit.places();
        let nanos = match self.fraction {
            [] => 0,
            digits if digits.len() > places as usize => return Err(RecordFault::NoTime(form)),
            digits => number(digits).unwrap_or(0) * 10u64.pow(places - digits.len() as u32),
        };
        let ns = self.whole.checked_mul(unit.nanos()).and_then(|ns| ns.checked_add(nanos));
        ns.filter(|ns| in_range(*ns)).ok_or(RecordFault::OutOfRange(Some(unit)))
    }
}

/// `1618677817.431936: payload`
fn stamped_line(line: &[u8], unit: Unit) -> Result<Option<Parsed>, RecordFault> {
    let stamp = Stamp::parse(line).filter(|(_, end)| line[*end..].starts_with(b": "));
    let (found, end) = stamp.ok_or(RecordFault::NoTime(Form::Cryptofeed))?;
    Ok(Some(Parsed::frame(found.ns(unit, Form::Cryptofeed)?, line, end + 2)))
}

fn is_note(line: &[u8]) -> bool {
    line.first().is_some_and(u8::is_ascii_lowercase)
        && [&b"wss:"[..], b"ws:", b"https:", b"http:"].iter().any(|scheme| line.starts_with(scheme))
}

/// Parses a note with a time: its kind (a connect or a sent message), the end of its URL, and the text from
/// the time on.
fn noted(line: &[u8]) -> Option<(Tag, usize, &[u8])> {
    let url_end = memchr::memchr(b' ', line)?;
    let rest = &line[url_end..];
    let connected = rest.strip_prefix(b" <-> ").map(|time| (Tag::Connected, url_end, time));
    connected.or_else(|| Some((Tag::Sent, url_end, rest.strip_prefix(b" <- ")?)))
}

/// `wss://host/path <-> time`, `wss://host/path <- time: payload`, or another remark.
fn note(line: &[u8], unit: Unit) -> Result<Option<Parsed>, RecordFault> {
    let missing = || RecordFault::NoTime(Form::Cryptofeed);
    let Some((tag, url_end, time)) = noted(line) else {
        // `https://host/path -> time: answer`; a note without a time gets that of the line before.
        let time = memmem::find(line, b" -> ").and_then(|at| Stamp::parse(&line[at + 4..]));
        let rx_ns = time.and_then(|(found, _)| found.ns(unit, Form::Cryptofeed).ok());
        return Ok(Some(Parsed { rx_ns, tag: Tag::Note, text: 0..line.len() }));
    };
    let (found, end) = Stamp::parse(time).ok_or_else(missing)?;
    let text = match tag {
        Tag::Connected if end == time.len() => 0..url_end,
        Tag::Sent if time[end..].starts_with(b": ") => line.len() - time.len() + end + 2..line.len(),
        _ => return Err(missing()),
    };
    Ok(Some(Parsed { rx_ns: Some(found.ns(unit, Form::Cryptofeed)?), tag, text }))
}

/// `1618677817431936000 payload`
fn whole_line(line: &[u8], unit: Unit) -> Result<Option<Parsed>, RecordFault> {
    let (found, space) = Stamp::parse_whole(line).ok_or(RecordFault::NoTime(Form::Hftbacktest))?;
    Ok(Some(Parsed::frame(found.ns(unit, Form::Hftbacktest)?, line, space + 1)))
}

/// Parses a number that consists of digits only and fits into 64 bits.
fn number(digits: &[u8]) -> Option<u64> {
    let mut value: u64 = 0;
    for &byte in digits {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        // 19 digits always fit, so only longer numbers need the overflow check.
        value = if digits.len() < 20 {
            value * 10 + u64::from(digit)
        } else {
            value.checked_mul(10)?.checked_add(u64::from(digit))?
        };
    }
    (!digits.is_empty()).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn layout(form: Form, unit: Unit) -> Layout {
        Layout { form, unit }
    }

    const TARDIS: Layout = layout(Form::Tardis, Unit::Nanoseconds);

    fn read(layout: Layout, line: &str) -> Option<(Option<u64>, RecordKind<'_>)> {
        let parsed = layout.parse(line.as_bytes()).ok().flatten()?;
        Some((parsed.rx_ns, parsed.kind(line.as_bytes())))
    }

    fn fault(layout: Layout, line: &str) -> String {
        layout.parse(line.as_bytes()).err().map_or_else(|| "none".to_owned(), |fault| fault.to_string())
    }

    #[test]
    fn tardis_times_are_exact() {
        let frame = |rx_ns| Some((Some(rx_ns), RecordKind::Frame(b"{}")));
        for (time, rx_ns) in [
            ("2021-04-17T16:43:37.4319360Z", 1_618_677_817_431_936_000),
            ("2021-04-17T16:43:37.431936001Z", 1_618_677_817_431_936_001),
            ("2021-04-17T16:43:37.5Z", 1_618_677_817_500_000_000),
            ("2021-04-17T16:43:37Z", 1_618_677_817_000_000_000),
            ("2000-01-01T00:00:00Z", RX_NS_MIN),
            ("2000-02-29T23:59:59Z", 951_868_799_000_000_000),
            ("2024-02-29T00:00:00Z", 1_709_164_800_000_000_000),
            ("2024-12-31T00:00:00Z", 1_735_603_200_000_000_000),
            ("2100-03-01T00:00:00Z", 4_107_542_400_000_000_000),
            ("2199-12-31T23:59:59.999999999Z", RX_NS_END - 1),
        ] {
            assert_eq!(read(TARDIS, &format!("{time} {{}}")), frame(rx_ns), "{time}");
            let mut back = Vec::new();
            rfc3339::write(rx_ns, rfc3339::FractionDigits::SevenOrNine, &mut back);
            back.extend_from_slice(b" {}");
            assert_eq!(read(TARDIS, std::str::from_utf8(&back).expect("ASCII")), frame(rx_ns), "{time}");
        }
        assert_eq!(read(TARDIS, ""), Some((None, RecordKind::Disconnected)));
        assert_eq!(read(TARDIS, "2021-04-17T16:43:37Z"), read(TARDIS, "2021-04-17T16:43:37Z "));
    }

    #[test]
    fn bad_tardis_times_are_faults() {
        for bad in [
            "{}",
            "2021-04-17 16:43:37Z {}",
            "2021-04-17T16:43:37.Z {}",
            "2021-04-17T16:43:37.1234567890Z {}",
            "2021-04-17T16:43:37+00:00 {}",
            "2021-04-17T16:4x:37Z {}",
            "2021-04-17T16:43:37Z{}",
            "2021-04Z",
            "Z",
        ] {
            assert!(matches!(TARDIS.parse(bad.as_bytes()), Err(RecordFault::NoTime(_))), "{bad}");
        }
        for bad in [
            "2021-02-29T00:00:00Z ",
            "2021-13-01T00:00:00Z ",
            "2021-01-01T24:00:00Z ",
            "1969-12-31T23:59:59Z ",
        ] {
            assert!(matches!(TARDIS.parse(bad.as_bytes()), Err(RecordFault::NoSuchTime)), "{bad}");
        }
        for bad in ["1970-01-01T00:00:00Z {}", "1999-12-31T23:59:59.999999999Z {}", "2200-01-01T00:00:00Z {}"]
        {
            assert_eq!(fault(TARDIS, bad), "a receive time outside of the years 2000 to 2199", "{bad}");
        }
        // A note is read even if the clock was wrong.
        let note = "# 1970-01-01T00:00:09.0000000Z dropped frames=7";
        assert_eq!(read(TARDIS, note), Some((None, RecordKind::Dropped { frames: 7 })));
        assert_eq!(
            fault(TARDIS, "# 1970-01-01T00:00:00.0000000Z torn bytes=9"),
            "the recording is torn: its last 9 bytes, all of this file, are cut off"
        );
    }

    #[test]
    fn cryptofeed_lines_are_told_apart() {
        let form = layout(Form::Cryptofeed, Unit::Seconds);
        let at = Some(1_618_677_817_020_616_000);
        assert_eq!(read(form, "1618677817.020616: {}"), Some((at, RecordKind::Frame(b"{}"))));
        assert_eq!(
            read(form, "1618677817: {}"),
            Some((Some(1_618_677_817_000_000_000), RecordKind::Frame(b"{}")))
        );
        assert_eq!(
            read(form, "1618677817.000000001: x: y"),
            Some((Some(1_618_677_817_000_000_001), RecordKind::Frame(b"x: y")))
        );
        assert_eq!(
            read(form, "wss://h/p?a=b <-> 1618677817.020616"),
            Some((at, RecordKind::Connected("wss://h/p?a=b")))
        );
        assert_eq!(
            read(form, "wss://h <- 1618677817.020616: {\"a\":1}"),
            Some((at, RecordKind::Sent(b"{\"a\":1}")))
        );
        let poll = "https://h/depth -> 1618677817.020616: {}";
        assert_eq!(read(form, poll), Some((at, RecordKind::Note(poll.as_bytes()))));
        assert_eq!(read(form, "wss://h"), Some((None, RecordKind::Note(b"wss://h"))));
        assert_eq!(read(form, ""), None);
        for bad in [
            "{}",
            "1618677817.0206160000: {}",
            "1618677817.: {}",
            "1618677817 {}",
            "999999999999999999999: {}",
            "wss://h <-> soon",
            "wss://h <- 1618677817.5:",
        ] {
            assert!(matches!(form.parse(bad.as_bytes()), Err(RecordFault::NoTime(_))), "{bad}");
        }
        for bad in ["0.5: {}", "946684799.999999999: {}", "18446744074.0: {}", "wss://h <-> 1"] {
            let expected = "a receive time outside of the years 2000 to 2199, in seconds as the times of this capture are";
            assert_eq!(fault(form, bad), expected, "{bad}");
        }
    }

    #[test]
    fn numbers_are_read_in_the_unit_of_their_capture() {
        let at = Some(1_660_228_023_037_049_000);
        for (unit, text) in [
            (Unit::Seconds, "1660228023.037049: {}"),
            (Unit::Milliseconds, "1660228023037.049000: {}"),
            (Unit::Microseconds, "1660228023037049: {}"),
            (Unit::Microseconds, "1660228023037049.0: {}"),
            (Unit::Nanoseconds, "1660228023037049000: {}"),
        ] {
            assert_eq!(
                read(layout(Form::Cryptofeed, unit), text),
                Some((at, RecordKind::Frame(b"{}"))),
                "{text}"
            );
            assert_eq!(
                Layout::of([text.as_bytes()].into_iter()),
                Some(layout(Form::Cryptofeed, unit)),
                "{text}"
            );
        }
        for (unit, text, rx_ns) in [
            (Unit::Seconds, "1660228023 {}", 1_660_228_023_000_000_000),
            (Unit::Seconds, "946684800 {}", RX_NS_MIN),
            (Unit::Milliseconds, "1660228023037 {}", 1_660_228_023_037_000_000),
            (Unit::Microseconds, "1660228023037049 {}", 1_660_228_023_037_049_000),
            (Unit::Nanoseconds, "1723161255030314667 {}", 1_723_161_255_030_314_667),
            (Unit::Nanoseconds, "7258118399999999999 {}", RX_NS_END - 1),
        ] {
            let form = layout(Form::Hftbacktest, unit);
            assert_eq!(read(form, text), Some((Some(rx_ns), RecordKind::Frame(b"{}"))), "{text}");
            assert_eq!(Layout::of([text.as_bytes()].into_iter()), Some(form), "{text}");
        }
        // More digits than nanoseconds have.
        for (unit, text) in [
            (Unit::Microseconds, "1660228023037049.1234: {}"),
            (Unit::Nanoseconds, "1660228023037049000.1: {}"),
        ] {
            let bad = layout(Form::Cryptofeed, unit).parse(text.as_bytes());
            assert!(matches!(bad, Err(RecordFault::NoTime(_))), "{text}");
        }
        let form = layout(Form::Hftbacktest, Unit::Nanoseconds);
        for bad in [
            "1660228023037049 {}",
            "946684799999999999 {}",
            "7258118400000000000 {}",
            "18446744073709551615 ",
        ] {
            let expected = "a receive time outside of the years 2000 to 2199, in nanoseconds as the times of this capture are";
            assert_eq!(fault(form, bad), expected, "{bad}");
        }
        for bad in ["18446744073709551616 {}", "172316125503031466x {}", "1723161255030314667", " {}"] {
            assert!(matches!(form.parse(bad.as_bytes()), Err(RecordFault::NoTime(_))), "{bad}");
        }
    }

    #[test]
    fn most_times_tell_the_unit() {
        let unit = |lines: &[&str]| Layout::of(lines.iter().map(|line| line.as_bytes()))?.unit();
        assert_eq!(
            unit(&["1660228023 a", "1660228023037049 b", "1660228023037050 c"]),
            Some(Unit::Microseconds)
        );
        assert_eq!(
            unit(&["1660228023037049 b", "1660228023 a"]),
            Some(Unit::Microseconds),
            "the first of as many"
        );
        assert_eq!(
            unit(&["1660228023 a", "1660228023037049 b"]),
            Some(Unit::Seconds),
            "the first of as many"
        );
        assert_eq!(unit(&["wss://h <-> 1660228023037", "1: x"]), Some(Unit::Milliseconds));
        assert_eq!(unit(&["99 x", "9999999999999 x"]), None, "no time in any unit");
        assert_eq!(unit(&["2021-04-17T16:43:37Z x"]), None);
    }

    #[test]
    fn forms_are_found_by_looking() {
        assert_eq!(Form::of(b"2021-04-17T16:43:37.4319360Z {\"a\""), Some(Form::Tardis));
        assert_eq!(Form::of(b"1970-01-01T00:00:37Z {"), Some(Form::Tardis));
        assert_eq!(Form::of(b"1618677817.431936: {"), Some(Form::Cryptofeed));
        assert_eq!(Form::of(b"wss://host <-> 1618677817.4"), Some(Form::Cryptofeed));
        assert_eq!(Form::of(b"1723161255030314667 {"), Some(Form::Hftbacktest));
        assert_eq!(Form::of(b"17 {"), None);
        assert_eq!(Form::of(b""), None);
        assert_eq!(Form::of(b"{\"type\":\"trade\"}"), None);
    }
}
