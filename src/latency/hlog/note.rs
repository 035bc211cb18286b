//! What stands in the comment lines of an interval log: what wrote it, on what machine, and, for each interval, how its
//! clients did. Other tools skip them. `docs/LATENCY.md` describes them.
//!
//! ```text
//! #tickfan {"type":"log","version":1,"at":"2026-01-01T00:00:00.000000Z",…}
//! #tickfan {"type":"interval","from":"2026-01-01T00:00:00.000000Z","to":"2026-01-01T00:00:01.000000Z",…}
//! ```

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::text::json;
use crate::time::rfc3339::{self, FractionDigits};

/// How such a line begins. Any other comment is left alone.
pub const PREFIX: &[u8] = b"#tickfan ";
/// The version of the form that is written, and the newest that is read.
pub const VERSION: u32 = 1;
/// The longest of these lines, bytes.
pub const NOTE_BYTES_MAX: usize = 16_384;
/// Flights that one interval names; of further ones it says how many.
pub const FLIGHTS_MAX: usize = 8;
/// The longest text of a note, characters.
const TEXT_MAX: usize = 200;
/// Causes that one note tells apart, and how long the word of one may be.
const CAUSES_MAX: usize = 32;
const CAUSE_BYTES_MAX: usize = 32;

/// A comment line of ours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Note {
    /// At the head of each log.
    Log(Head),
    /// Behind the lines of each interval.
    Interval(Account),
}

/// A moment of the wall clock, nanoseconds since the Unix epoch: written as RFC 3339 in UTC, to the microsecond.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(pub u64);

impl Serialize for Moment {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut text = Vec::new();
        rfc3339::write(self.0, FractionDigits::Six, &mut text);
        to.serialize_str(&String::from_utf8_lossy(&text))
    }
}

impl<'de> Deserialize<'de> for Moment {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let time = rfc3339::parse(text.as_bytes());
        time.map(Self).map_err(|why| serde::de::Error::custom(format!("the time {text:?}: {why}")))
    }
}

/// What wrote a log, and where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Of the form.
    pub version: u32,
    /// When the run began.
    pub at: Moment,
    /// Milliseconds of an interval.
    pub interval_ms: u64,
    /// What wrote it.
    pub build: Build,
    /// On what.
    pub machine: Machine,
    /// The folder of the flight recorder as it is configured, if there is one.
    pub flights: Option<String>,
}

/// What program it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Build {
    /// Its version.
    pub version: String,
    /// `release`, or `debug` where it checks itself while it runs, which is slower.
    pub profile: String,
}

/// A machine, as far as it tells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// The operating system, such as `linux`.
    pub os: String,
    /// The architecture, such as `x86_64`.
    pub arch: String,
    /// The release of the kernel.
    pub kernel: Option<String>,
    /// The model of the processor.
    pub cpu: Option<String>,
    /// Cores that the gateway may use.
    pub cores: u64,
}

/// How many clients there are in an interval.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Clients {
    /// When it began.
    pub at_start: u64,
    /// Those that came in it; of slow ones, those that were slow for the first time.
    pub new: u64,
    /// When it ended.
    pub at_end: u64,
}

/// What gaps of one cause told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gaps {
    /// Messages.
    pub told: u64,
    /// Numbers that they named: ticks that a client did not get.
    pub ticks: u64,
}

/// How the clients did in an interval. An account begins where the one before it ended, also where intervals between them
/// could not be written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// When it begins.
    pub from: Moment,
    /// When it ends.
    pub to: Moment,
    /// Clients that were connected.
    pub clients: Clients,
    /// Clients above `ok`.
    pub slow: Clients,
    /// Ticks queued for clients.
    pub sent: u64,
    /// Ticks that a newer one stood for.
    pub merged: u64,
    /// Ticks named by a gap because a client was slow or away, or the gateway slow.
    pub dropped: u64,
    /// Numbers named by a gap because the feed lost them.
    pub lost: u64,
    /// What gaps told, by the `why` of the wire; causes of which there was none are left out.
    pub gaps: BTreeMap<String, Gaps>,
    /// Connections that ended, by cause; likewise.
    pub ended: BTreeMap<String, u64>,
    /// Flights that were written in it, the oldest first.
    pub flights: Vec<FlightNote>,
    /// Further ones, for which there is no room.
    pub flights_left_out: u64,
}

/// A file of the flight recorder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlightNote {
    /// Its name in the folder.
    pub file: String,
    /// When the incident was.
    pub at: Moment,
    /// What it was, in a sentence.
    pub what: String,
    /// The client that it is about, if it is about one: its session.
    pub session: Option<String>,
    /// Where that connected from.
    pub peer: Option<String>,
}

/// Text of a length that a note has room for.
pub fn bounded(text: &str) -> String {
    match text.char_indices().nth(TEXT_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

impl Note {
    /// Its line.
    pub fn line(&self) -> Vec<u8> {
        let mut line = PREFIX.to_vec();
        json::write(self, &mut line);
        line.push(b'\n');
        line
    }

    /// Reads a line; `None` if it is no note. Fields that are not known are left alone.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(line: &[u8]) -> Result<Option<Self>, String> {
        let Some(json) = line.strip_prefix(PREFIX) else { return Ok(None) };
        if line.len() > NOTE_BYTES_MAX {
            return Err(format!("a note of more than {NOTE_BYTES_MAX} bytes"));
        }
        // Of another version nothing else may be as it was.
        let version = serde_json::from_slice::<Versioned>(json).ok().and_then(|it| it.version);
        if let Some(version) = version.filter(|version| *version > u64::from(VERSION)) {
            return Err(format!("version {version} of the notes: this program knows {VERSION}"));
        }
        let note = serde_json::from_slice(json).map_err(|error| {
            let error = error.to_string();
            format!("a note that cannot be read: {}", error.replace(" at line 1 column ", " at column "))
        })?;
        match &note {
            Self::Log(_) => {}
            Self::Interval(account) => account.check()?,
        }
        Ok(Some(note))
    }
}

#[derive(Deserialize)]
struct Versioned {
    version: Option<u64>,
}

impl Account {
    fn check(&self) -> Result<(), String> {
        if self.to < self.from {
            return Err("a note: it ends before it begins".to_owned());
        }
        for causes in [self.gaps.keys().collect::<Vec<_>>(), self.ended.keys().collect()] {
            let word = |cause: &&String| {
                let letter = |byte: u8| byte.is_ascii_lowercase() || byte == b'_';
                (1..=CAUSE_BYTES_MAX).contains(&cause.len()) && cause.bytes().all(letter)
            };
            if let Some(odd) = causes.iter().find(|cause| !word(cause)) {
                return Err(format!("a note: {odd:?} is no cause"));
            }
            if causes.len() > CAUSES_MAX {
                return Err(format!("a note: more than {CAUSES_MAX} causes"));
            }
        }
        Ok(())
    }
}
