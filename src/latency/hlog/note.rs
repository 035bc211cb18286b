//! The comment lines of an interval log: the program and machine that wrote it and, for each interval, the
//! state of its clients. Other tools skip them. `docs/LATENCY.md` describes them.
//!
//! ```text
//! #tickfan {"type":"log","version":1,"at":"2026-01-01T00:00:00.000000Z",…}
//! #tickfan {"type":"interval","from":"2026-01-01T00:00:00.000000Z","to":"2026-01-01T00:00:01.000000Z",…}
//! ```

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::text::json;
use crate::time::rfc3339::{self, FractionDigits};

/// The prefix of such a line. Other comments are ignored.
pub const PREFIX: &[u8] = b"#tickfan ";
/// The version of the format that is written, and the newest that is read.
pub const VERSION: u32 = 1;
/// The longest of these lines, in bytes.
pub const NOTE_BYTES_MAX: usize = 16_384;
/// Maximum number of flight recordings named per interval; further ones are only counted.
pub const FLIGHTS_MAX: usize = 8;
/// The longest text of a note, in characters.
const TEXT_MAX: usize = 200;
/// Maximum number of causes in one note, and the longest name of a cause in bytes.
const CAUSES_MAX: usize = 32;
const CAUSE_BYTES_MAX: usize = 32;

/// A comment line in our format.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Note {
    /// At the start of each log.
    Log(Head),
    /// After the lines of each interval.
    Interval(Account),
}

/// A wall-clock time in nanoseconds since the Unix epoch, written as RFC 3339 in UTC with microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct NotedMoment(pub u64);

impl Serialize for NotedMoment {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut text = Vec::new();
        rfc3339::write(self.0, FractionDigits::Six, &mut text);
        to.serialize_str(&String::from_utf8_lossy(&text))
    }
}

impl<'de> Deserialize<'de> for NotedMoment {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let time = rfc3339::parse(text.as_bytes());
        time.map(Self).map_err(|why| serde::de::Error::custom(format!("the time {text:?}: {why}")))
    }
}

/// The program and machine that wrote a log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The version of the format.
    pub version: u32,
    /// The start of the run.
    pub at: NotedMoment,
    /// The length of an interval in milliseconds.
    pub interval_ms: u64,
    /// The program.
    pub build: Build,
    /// The machine.
    pub machine: Machine,
    /// The configured folder of the flight recorder, if there is one.
    pub flights: Option<String>,
}

/// A build of the program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Build {
    /// Its version.
    pub version: String,
    /// `release`, or `debug` with run-time checks, which is slower.
    pub profile: String,
}

/// A machine, as far as its properties are known.
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
    /// Cores available to the gateway.
    pub cores: u64,
}

/// The number of clients in an interval.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotedClients {
    /// At its start.
    pub at_start: u64,
    /// Clients that connected in it; of slow ones, those that became slow for the first time.
    pub new: u64,
    /// At its end.
    pub at_end: u64,
}

/// The gaps of one cause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotedGaps {
    /// Gap messages.
    pub told: u64,
    /// Sequence numbers that they named: ticks that a client did not receive.
    pub ticks: u64,
}

/// The client statistics of an interval. Each account begins where the one before ended, even if intervals
/// between could not be written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// Its start.
    pub from: NotedMoment,
    /// Its end.
    pub to: NotedMoment,
    /// Connected clients.
    pub clients: NotedClients,
    /// Clients above level `ok`.
    pub slow: NotedClients,
    /// Ticks queued for clients.
    pub sent: u64,
    /// Ticks replaced by a newer one of the same stream.
    pub merged: u64,
    /// Ticks named by a gap because a client was slow or disconnected, or the gateway was slow.
    pub dropped: u64,
    /// Sequence numbers named by a gap because the feed lost them.
    pub lost: u64,
    /// Gaps by the `why` of the protocol; causes without gaps are left out.
    pub gaps: BTreeMap<String, NotedGaps>,
    /// Ended connections by cause; causes without any are left out.
    pub ended: BTreeMap<String, u64>,
    /// Flight recordings written in it, oldest first.
    pub flights: Vec<FlightNote>,
    /// The number of further ones, for which there is no room.
    pub flights_left_out: u64,
}

/// A file of the flight recorder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlightNote {
    /// Its file name.
    pub file: String,
    /// The time of the incident.
    pub at: NotedMoment,
    /// The incident, in a sentence.
    pub what: String,
    /// The session of the client concerned, if there is one.
    pub session: Option<String>,
    /// The address of that client.
    pub peer: Option<String>,
}

/// Truncates a text to the length that a note has room for.
pub fn bounded(text: &str) -> String {
    match text.char_indices().nth(TEXT_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

impl Note {
    /// Returns its line.
    pub fn line(&self) -> Vec<u8> {
        let mut line = PREFIX.to_vec();
        json::write(self, &mut line);
        line.push(b'\n');
        line
    }

    /// Parses a line; `None` if it is not a note. Unknown fields are ignored.
    ///
    /// # Errors
    /// The cause as text.
    pub fn read(line: &[u8]) -> Result<Option<Self>, String> {
        let Some(json) = line.strip_prefix(PREFIX) else { return Ok(None) };
        if line.len() > NOTE_BYTES_MAX {
            return Err(format!("a note of more than {NOTE_BYTES_MAX} bytes"));
        }
        // In another version all other fields may differ.
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
