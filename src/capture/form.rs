//! The three forms of a line, and the receive time in front of it.

use std::fmt;
use std::ops::Range;

use memchr::memmem;

use super::{Fault, Kind, Segment};
use crate::rfc3339::{self, TimeError};

/// How the lines of a capture are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `2021-04-17T16:43:37.4319360Z {payload}`: RFC 3339 UTC with up to 9 fraction digits. An empty
    /// line is a disconnect, `# time what…` a note of the gateway's recorder.
    Tardis,
    /// `1618677817.431936: {payload}`: seconds since the Unix epoch with up to 9 fraction digits.
    /// `wss://… <-> time` is a connect, `wss://… <- time: {payload}` a message that was sent, any other
    /// line that begins with a URL a note. Empty lines say nothing.
    Cryptofeed,
    /// `1618677817431936000 {payload}`: nanoseconds since the Unix epoch. Empty lines say nothing.
    Hftbacktest,
}

impl Form {
    /// The project the form comes from.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tardis => "tardis",
            Self::Cryptofeed => "cryptofeed",
            Self::Hftbacktest => "hftbacktest",
        }
    }

    /// The form that `line` is in, if it is in one. It may be the beginning of a longer line.
    pub(super) fn of(line: &[u8]) -> Option<Self> {
        let reads = |form: Self| {
            !line.is_empty() && matches!(form.parse(line), Ok(Some(_)) | Err(Fault::Torn { .. }))
        };
        [Self::Tardis, Self::Cryptofeed, Self::Hftbacktest].into_iter().find(|form| reads(*form))
    }

    /// Reads one line, without its line end. `None` for an empty line that says nothing.
    pub(super) fn parse(self, line: &[u8]) -> Result<Option<Parsed>, Fault> {
        match self {
            Self::Tardis if line.is_empty() => Ok(Some(Parsed::DISCONNECTED)),
            Self::Cryptofeed | Self::Hftbacktest if line.is_empty() => Ok(None),
            Self::Tardis if line.starts_with(b"# ") => recorder_note(line),
            Self::Tardis => rfc3339_line(line),
            Self::Cryptofeed if is_note(line) => note(line),
            Self::Cryptofeed => seconds_line(line),
            Self::Hftbacktest => nanos_line(line),
        }
    }
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a line says, with its text as a range of the line, so that it can be kept while the line's
/// buffer is looked after by somebody else.
#[derive(Clone, Debug)]
pub(super) struct Parsed {
    /// The time of the line, if it has one.
    pub rx_ns: Option<u64>,
    /// What the text is.
    pub tag: Tag,
    /// Where the text is within the line.
    pub text: Range<usize>,
}

/// [`Kind`] without its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tag {
    Frame,
    Connected,
    Sent,
    Disconnected,
    Dropped { frames: u64 },
    Segment(Segment),
    Note,
}

impl Parsed {
    const DISCONNECTED: Self = Self { rx_ns: None, tag: Tag::Disconnected, text: 0..0 };

    fn frame(rx_ns: u64, line: &[u8], from: usize) -> Self {
        Self { rx_ns: Some(rx_ns), tag: Tag::Frame, text: from..line.len() }
    }

    /// Puts the text back in; `line` is the line that was read.
    pub(super) fn kind<'a>(&self, line: &'a [u8]) -> Kind<'a> {
        let text = &line[self.text.clone()];
        match self.tag {
            Tag::Frame => Kind::Frame(text),
            Tag::Sent => Kind::Sent(text),
            Tag::Disconnected => Kind::Disconnected,
            Tag::Dropped { frames } => Kind::Dropped { frames },
            Tag::Segment(segment) => Kind::Segment(segment),
            Tag::Note => Kind::Note(line),
            Tag::Connected => std::str::from_utf8(text).map_or(Kind::Note(line), Kind::Connected),
        }
    }
}

const NANOS: u64 = 1_000_000_000;

/// `2021-04-17T16:43:37.4319360Z payload`
fn rfc3339_line(line: &[u8]) -> Result<Option<Parsed>, Fault> {
    let missing = || Fault::NoTime(Form::Tardis);
    let zulu = memchr::memchr(b'Z', &line[..line.len().min(32)]).ok_or_else(missing)?;
    let rx_ns = rfc3339::parse(&line[..=zulu]).map_err(|error| match error {
        TimeError::Shape => missing(),
        TimeError::NoSuchTime => Fault::NoSuchTime,
    })?;
    let text = match line.get(zulu + 1) {
        None => zulu + 1,
        Some(b' ') => zulu + 2,
        Some(_) => return Err(missing()),
    };
    Ok(Some(Parsed::frame(rx_ns, line, text)))
}

/// `# 2021-04-17T16:43:37.4319360Z what…`: what the recorder has to say. Words that are not known are a remark.
fn recorder_note(line: &[u8]) -> Result<Option<Parsed>, Fault> {
    let missing = || Fault::NoTime(Form::Tardis);
    let time_end = line[2..].iter().position(|b| *b == b' ').map_or(line.len(), |at| at + 2);
    let rx_ns = rfc3339::parse(&line[2..time_end]).map_err(|_| missing())?;
    let what = std::str::from_utf8(&line[time_end..]).unwrap_or_default().trim_start();
    let (word, rest) = what.split_once(' ').unwrap_or((what, ""));
    let value = |key: &str| rest.split(' ').find_map(|pair| pair.strip_prefix(key)?.strip_prefix('='));
    let count = |key: &str| value(key).and_then(|text| text.parse::<u64>().ok()).unwrap_or_default();
    let tag = match word {
        "connect" => Tag::Connected,
        "dropped" => Tag::Dropped { frames: count("frames") },
        "torn" => return Err(Fault::Torn { bytes: count("bytes"), last_rx_ns: rx_ns }),
        "segment" => Tag::Segment(Segment {
            run_ns: count("run"),
            number: u32::try_from(count("number")).unwrap_or_default(),
            venue: value("venue").and_then(|name| name.parse().ok()),
            continues: true,
        }),
        _ => Tag::Note,
    };
    Ok(Some(Parsed { rx_ns: Some(rx_ns), tag, text: line.len() - rest.len()..line.len() }))
}

/// `1618677817.431936: payload`
fn seconds_line(line: &[u8]) -> Result<Option<Parsed>, Fault> {
    let (rx_ns, end) = seconds_time(line)?;
    match line.get(end..end + 2) {
        Some(b": ") => Ok(Some(Parsed::frame(rx_ns, line, end + 2))),
        _ => Err(Fault::NoTime(Form::Cryptofeed)),
    }
}

/// The time that `text` begins with, and where it ends.
fn seconds_time(text: &[u8]) -> Result<(u64, usize), Fault> {
    let missing = || Fault::NoTime(Form::Cryptofeed);
    let is_digit = |b: &u8| b.is_ascii_digit();
    let whole = text.iter().take_while(|b| is_digit(b)).count();
    let seconds = number(&text[..whole]).ok_or_else(missing)?;
    if text.get(whole) != Some(&b'.') {
        return Ok((nanoseconds(seconds, 0)?, whole));
    }
    let part = text[whole + 1..].iter().take(10).take_while(|b| is_digit(b)).count();
    let end = whole + 1 + part;
    let nanos = fraction(&text[whole + 1..end]).ok_or_else(missing)?;
    Ok((nanoseconds(seconds, nanos)?, end))
}

fn is_note(line: &[u8]) -> bool {
    line[0].is_ascii_lowercase()
        && [&b"wss:"[..], b"ws:", b"https:", b"http:"].iter().any(|scheme| line.starts_with(scheme))
}

/// `wss://host/path <-> time`, `wss://host/path <- time: payload`, or another remark.
fn note(line: &[u8]) -> Result<Option<Parsed>, Fault> {
    let missing = || Fault::NoTime(Form::Cryptofeed);
    let other = Parsed { rx_ns: None, tag: Tag::Note, text: 0..line.len() };
    let Some(url_end) = memchr::memchr(b' ', line) else { return Ok(Some(other)) };
    let rest = &line[url_end..];
    if let Some(time) = rest.strip_prefix(b" <-> ") {
        let (rx_ns, end) = seconds_time(time)?;
        let whole = end == time.len();
        let connected = Parsed { rx_ns: Some(rx_ns), tag: Tag::Connected, text: 0..url_end };
        return if whole { Ok(Some(connected)) } else { Err(missing()) };
    }
    if let Some(time) = rest.strip_prefix(b" <- ") {
        let (rx_ns, end) = seconds_time(time)?;
        let text = line.len() - time.len() + end + 2..line.len();
        return match time.get(end..end + 2) {
            Some(b": ") => Ok(Some(Parsed { rx_ns: Some(rx_ns), tag: Tag::Sent, text })),
            _ => Err(missing()),
        };
    }
    let arrow = memmem::find(rest, b"-> ").map_or(rest.len(), |at| at + 3);
    let rx_ns = seconds_time(&rest[arrow..]).ok().map(|(rx_ns, _)| rx_ns);
    Ok(Some(Parsed { rx_ns, ..other }))
}

/// `1618677817431936000 payload`
fn nanos_line(line: &[u8]) -> Result<Option<Parsed>, Fault> {
    let missing = || Fault::NoTime(Form::Hftbacktest);
    let head = &line[..line.len().min(21)];
    let space = memchr::memchr(b' ', head).ok_or_else(missing)?;
    // Fewer digits are a time in another unit, not one shortly after 1970.
    if space < 16 {
        return Err(missing());
    }
    let rx_ns = number(&head[..space]).ok_or_else(missing)?;
    Ok(Some(Parsed::frame(rx_ns, line, space + 1)))
}

fn nanoseconds(seconds: u64, nanos: u64) -> Result<u64, Fault> {
    seconds.checked_mul(NANOS).and_then(|ns| ns.checked_add(nanos)).ok_or(Fault::NoSuchTime)
}

/// A number of digits only, if 64 bits hold it.
fn number(digits: &[u8]) -> Option<u64> {
    let mut value: u64 = 0;
    for &byte in digits {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        // 19 digits always fit; only then is it worth to look.
        value = if digits.len() < 20 {
            value * 10 + u64::from(digit)
        } else {
            value.checked_mul(10)?.checked_add(u64::from(digit))?
        };
    }
    (!digits.is_empty()).then_some(value)
}

/// Nanoseconds of the 1 to 9 digits behind a decimal point.
fn fraction(digits: &[u8]) -> Option<u64> {
    let places = digits.len();
    let value = (places <= 9).then(|| number(digits)).flatten()?;
    Some(value * 10u64.pow(9 - places as u32))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(form: Form, line: &str) -> Option<(Option<u64>, Kind<'_>)> {
        let parsed = form.parse(line.as_bytes()).ok().flatten()?;
        Some((parsed.rx_ns, parsed.kind(line.as_bytes())))
    }

    #[test]
    fn tardis_times_are_exact() {
        let frame = |rx_ns| Some((Some(rx_ns), Kind::Frame(b"{}")));
        for (time, rx_ns) in [
            ("2021-04-17T16:43:37.4319360Z", 1_618_677_817_431_936_000),
            ("2021-04-17T16:43:37.431936001Z", 1_618_677_817_431_936_001),
            ("2021-04-17T16:43:37.5Z", 1_618_677_817_500_000_000),
            ("2021-04-17T16:43:37Z", 1_618_677_817_000_000_000),
            ("1970-01-01T00:00:00Z", 0),
            ("2000-02-29T23:59:59Z", 951_868_799_000_000_000),
            ("2024-02-29T00:00:00Z", 1_709_164_800_000_000_000),
            ("2024-12-31T00:00:00Z", 1_735_603_200_000_000_000),
            ("2100-03-01T00:00:00Z", 4_107_542_400_000_000_000),
        ] {
            assert_eq!(read(Form::Tardis, &format!("{time} {{}}")), frame(rx_ns), "{time}");
            let mut back = Vec::new();
            rfc3339::write(rx_ns, rfc3339::FractionDigits::SevenOrNine, &mut back);
            back.extend_from_slice(b" {}");
            assert_eq!(
                read(Form::Tardis, std::str::from_utf8(&back).expect("ASCII")),
                frame(rx_ns),
                "{time}"
            );
        }
        assert_eq!(read(Form::Tardis, ""), Some((None, Kind::Disconnected)));
        assert_eq!(read(Form::Tardis, "2021-04-17T16:43:37Z"), read(Form::Tardis, "2021-04-17T16:43:37Z "));
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
            assert!(matches!(Form::Tardis.parse(bad.as_bytes()), Err(Fault::NoTime(_))), "{bad}");
        }
        for bad in [
            "2021-02-29T00:00:00Z ",
            "2021-13-01T00:00:00Z ",
            "2021-01-01T24:00:00Z ",
            "1969-12-31T23:59:59Z ",
        ] {
            assert!(matches!(Form::Tardis.parse(bad.as_bytes()), Err(Fault::NoSuchTime)), "{bad}");
        }
    }

    #[test]
    fn cryptofeed_lines_are_told_apart() {
        let form = Form::Cryptofeed;
        let at = Some(1_618_677_817_020_616_000);
        assert_eq!(read(form, "1618677817.020616: {}"), Some((at, Kind::Frame(b"{}"))));
        assert_eq!(read(form, "1618677817: {}"), Some((Some(1_618_677_817_000_000_000), Kind::Frame(b"{}"))));
        assert_eq!(
            read(form, "1618677817.000000001: x: y"),
            Some((Some(1_618_677_817_000_000_001), Kind::Frame(b"x: y")))
        );
        assert_eq!(
            read(form, "wss://h/p?a=b <-> 1618677817.020616"),
            Some((at, Kind::Connected("wss://h/p?a=b")))
        );
        assert_eq!(
            read(form, "wss://h <- 1618677817.020616: {\"a\":1}"),
            Some((at, Kind::Sent(b"{\"a\":1}")))
        );
        let poll = "https://h/depth -> 1618677817.020616: {}";
        assert_eq!(read(form, poll), Some((at, Kind::Note(poll.as_bytes()))));
        assert_eq!(read(form, "wss://h"), Some((None, Kind::Note(b"wss://h"))));
        assert_eq!(read(form, ""), None);
        for bad in [
            "{}",
            "1618677817.0206160000: {}",
            "1618677817.: {}",
            "1618677817 {}",
            "wss://h <-> soon",
            "wss://h <- 1:",
        ] {
            assert!(matches!(form.parse(bad.as_bytes()), Err(Fault::NoTime(_))), "{bad}");
        }
        assert!(matches!(form.parse(b"18446744074.0: {}"), Err(Fault::NoSuchTime)));
    }

    #[test]
    fn hftbacktest_times_are_nanoseconds() {
        let form = Form::Hftbacktest;
        assert_eq!(
            read(form, "1723161255030314667 {}"),
            Some((Some(1_723_161_255_030_314_667), Kind::Frame(b"{}")))
        );
        assert_eq!(read(form, "18446744073709551615 "), Some((Some(u64::MAX), Kind::Frame(b""))));
        for bad in
            ["1723161255 {}", "18446744073709551616 {}", "172316125503031466x {}", "1723161255030314667"]
        {
            assert!(matches!(form.parse(bad.as_bytes()), Err(Fault::NoTime(_))), "{bad}");
        }
    }

    #[test]
    fn forms_are_found_by_looking() {
        assert_eq!(Form::of(b"2021-04-17T16:43:37.4319360Z {\"a\""), Some(Form::Tardis));
        assert_eq!(Form::of(b"1618677817.431936: {"), Some(Form::Cryptofeed));
        assert_eq!(Form::of(b"wss://host <-> 1618677817.4"), Some(Form::Cryptofeed));
        assert_eq!(Form::of(b"1723161255030314667 {"), Some(Form::Hftbacktest));
        assert_eq!(Form::of(b""), None);
        assert_eq!(Form::of(b"{\"type\":\"trade\"}"), None);
    }
}
