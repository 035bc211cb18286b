//! Since when a client wants what was recorded.

use std::str::FromStr;

use serde_json::{Map, Value};

use super::replay::Moment;
use super::request::{Fault, TEXT_BYTES_MAX, shown};

/// Since when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    /// Nanoseconds since the Unix epoch.
    At(u64),
    /// So many nanoseconds before now.
    Ago(u64),
}

impl Since {
    /// As nanoseconds since the Unix epoch. What has not come yet at `now_ns` means now.
    pub fn ns(self, now_ns: u64) -> u64 {
        match self {
            Self::At(ns) => ns.min(now_ns),
            Self::Ago(ns) => now_ns.saturating_sub(ns),
        }
    }
}

/// Why a text is no such time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a time: write 2021-04-17T16:43:37Z, a number of seconds, milliseconds or microseconds since 1970, or -30s for half \
     a minute before now"
)]
pub struct BadSince;

impl FromStr for Since {
    type Err = BadSince;

    /// As a [`Moment`], but that a duration is before now.
    fn from_str(text: &str) -> Result<Self, BadSince> {
        match text.parse() {
            Ok(Moment::At(ns)) => Ok(Self::At(ns)),
            Ok(Moment::FromStart(offset)) if offset <= 0 => Ok(Self::Ago(offset.unsigned_abs())),
            Ok(Moment::FromStart(_)) | Err(_) => Err(BadSince),
        }
    }
}

/// Reads the `from` of a request: whole microseconds, or text.
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
}
