//! Times in requests and on the command line: in a capture ([`Moment`]), or before now ([`Since`]).

use std::str::FromStr;

use serde_json::{Map, Value};

use super::fault::{Fault, TEXT_BYTES_MAX, shown};
use crate::time::duration;
use crate::time::rfc3339;

/// A time in a capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// Nanoseconds since the Unix epoch.
    At(u64),
    /// Nanoseconds after the first record; negative for before it.
    FromStart(i64),
}

impl Moment {
    /// The time in nanoseconds since the Unix epoch, in a capture that starts at `start_ns`.
    pub fn ns(self, start_ns: u64) -> u64 {
        match self {
            Self::At(ns) => ns,
            Self::FromStart(offset) => start_ns.saturating_add_signed(offset),
        }
    }
}

/// Error of parsing a [`Moment`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a moment: write 2021-04-17T16:43:37Z, a number of seconds, milliseconds or microseconds since 1970, or +5m for \
     five minutes after the start"
)]
pub struct BadMoment;

impl FromStr for Moment {
    type Err = BadMoment;

    /// Parses RFC 3339, in UTC or with an offset; an integer since the Unix epoch, whose number of digits gives the
    /// unit (up to 11: seconds, up to 14: milliseconds, up to 17: microseconds, more: nanoseconds); or `+` or `-` and a
    /// [duration](duration::parse_ns).
    fn from_str(text: &str) -> Result<Self, BadMoment> {
        let offset = |rest: &str| {
            let ns = duration::parse_ns(rest).ok().and_then(|ns| i64::try_from(ns).ok());
            ns.ok_or(BadMoment)
        };
        if let Some(rest) = text.strip_prefix('+') {
            return offset(rest).map(Self::FromStart);
        }
        if let Some(rest) = text.strip_prefix('-') {
            return offset(rest).map(|ns| Self::FromStart(-ns));
        }
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
            return rfc3339::parse_with_offset(text.as_bytes()).map(Self::At).map_err(|_| BadMoment);
        }
        let number: u64 = text.parse().map_err(|_| BadMoment)?;
        let unit_ns = match text.len() {
            ..=11 => 1_000_000_000,
            12..=14 => 1_000_000,
            15..=17 => 1_000,
            _ => 1,
        };
        number.checked_mul(unit_ns).map(Self::At).ok_or(BadMoment)
    }
}

/// A time in the past.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    /// Nanoseconds since the Unix epoch.
    At(u64),
    /// Nanoseconds before now.
    Ago(u64),
}

impl Since {
    /// The time in nanoseconds since the Unix epoch, at most `now_ns`: a time in the future means now.
    pub fn ns(self, now_ns: u64) -> u64 {
        match self {
            Self::At(ns) => ns.min(now_ns),
            Self::Ago(ns) => now_ns.saturating_sub(ns),
        }
    }
}

/// Error of parsing a [`Since`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a time: write 2021-04-17T16:43:37Z, a number of seconds, milliseconds or microseconds since 1970, or -30s for half \
     a minute before now"
)]
pub struct BadSince;

impl FromStr for Since {
    type Err = BadSince;

    /// Parses the formats of [`Moment`]; a duration counts back from now.
    fn from_str(text: &str) -> Result<Self, BadSince> {
        match text.parse() {
            Ok(Moment::At(ns)) => Ok(Self::At(ns)),
            Ok(Moment::FromStart(offset)) if offset <= 0 => Ok(Self::Ago(offset.unsigned_abs())),
            Ok(Moment::FromStart(_)) | Err(_) => Err(BadSince),
        }
    }
}

/// Parses the `from` of a request: an integer in microseconds, or text.
pub(super) fn since(message: &Map<String, Value>) -> Result<Option<Since>, Fault> {
    match message.get("from") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Number(us)) => {
            let ns = us.as_u64().and_then(|us| us.checked_mul(1_000));
            ns.map(|ns| Some(Since::At(ns))).ok_or_else(|| {
                Fault::bad(format!("`from`: {us} is no whole number of microseconds since the Unix epoch"))
            })
        }
        Some(Value::String(text)) if text.len() <= TEXT_BYTES_MAX => {
            text.parse().map(Some).map_err(|error| Fault::bad(format!("`from`: {text:?}: {error}")))
        }
        Some(other) => {
            Err(Fault::bad(format!("`from`: {} is neither a number nor a short string", shown(other))))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(value: &Value) -> Result<Option<Since>, String> {
        let message = json!({ "from": value });
        since(message.as_object().expect("an object")).map_err(|fault| fault.msg)
    }

    #[test]
    fn times_are_read_as_those_of_a_replay() {
        let at = Since::At(1_618_677_817_000_000_000);
        for (value, expected) in [
            (json!(null), None),
            (json!(1_618_677_817_000_000_u64), Some(at)),
            (json!("1618677817"), Some(at)),
            (json!("1618677817000"), Some(at)),
            (json!("2021-04-17T16:43:37Z"), Some(at)),
            (json!("2021-04-17T16:43:37+00:00"), Some(at)),
            (json!("2021-04-17T09:43:37-07:00"), Some(at)),
            (json!("-30s"), Some(Since::Ago(30_000_000_000))),
            (json!("-1m30s"), Some(Since::Ago(90_000_000_000))),
            (json!("-0s"), Some(Since::Ago(0))),
        ] {
            assert_eq!(read(&value), Ok(expected), "{value}");
        }
        for bad in [
            json!("+5m"),
            json!("noon"),
            json!("2021-04-17T16:43:37 00:00"),
            json!(""),
            json!("-"),
            json!(-1),
            json!(1.5),
            json!(u64::MAX),
            json!([]),
        ] {
            assert!(read(&bad).is_err_and(|msg| msg.contains("`from`")), "{bad}: {:?}", read(&bad));
        }
    }

    #[test]
    fn what_has_not_come_yet_means_now() {
        assert_eq!([Since::At(5), Since::At(10), Since::At(99)].map(|s| s.ns(10)), [5, 10, 10]);
        assert_eq!([Since::Ago(0), Since::Ago(3), Since::Ago(99)].map(|s| s.ns(10)), [10, 7, 0]);
    }

    #[test]
    fn moments_tell_their_unit_by_their_size() {
        let at = |text: &str| text.parse::<Moment>();
        let moment = Ok(Moment::At(1_618_677_817_000_000_000));
        for text in
            ["1618677817", "1618677817000", "1618677817000000", "1618677817000000000", "2021-04-17T16:43:37Z"]
        {
            assert_eq!(at(text), moment, "{text}");
        }
        // F12: offsets from UTC are accepted.
        for text in
            ["2021-04-17T16:43:37+00:00", "2021-04-17T09:43:37-07:00", "2021-04-17t22:13:37.000+05:30"]
        {
            assert_eq!(at(text), moment, "{text}");
        }
        for bad in [
            "",
            "+",
            "-",
            "+5",
            "+m",
            "+5d",
            "5m",
            "+1h 5m",
            "1618677817.5",
            "99999999999999999999",
            "ü",
            "2021-04-17T16:43:37",
            "2021-04-17T16:43:37+0000",
            "2021-04-17T16:43:37+24:00",
            "2021-04-17T16:43:37 00:00",
            "+2021-04-17T16:43:37Z",
        ] {
            assert_eq!(at(bad), Err(BadMoment), "{bad}");
        }
        assert_eq!(Moment::FromStart(-5).ns(3), 0);
        assert_eq!(Moment::FromStart(5).ns(3), 8);
    }
}
