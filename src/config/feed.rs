//! `[[feed]]`: the sources of ticks.

use std::path::PathBuf;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use crate::protocol::Moment;
use crate::protocol::replay::Speed;
use crate::venue::{ChecksOff, WireFormat};

/// Kind of a `[[feed]]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FeedKind {
    /// Replays recorded captures.
    Replay,
}

/// `[[feed]]`
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FeedConfig {
    /// Kind of the feed.
    pub kind: FeedKind,
    /// Paths of the captures.
    pub files: Vec<PathBuf>,
    /// Venue whose messages they contain; `None`: detected.
    #[serde(default)]
    pub venue: Option<WireFormat>,
    /// Speed of the replay.
    #[serde(default = "recorded", deserialize_with = "super::replay::speed")]
    pub speed: Speed,
    /// Whether the replay restarts at its end.
    #[serde(default, rename = "loop")]
    pub looped: bool,
    /// Whether the first bad line ends the replay.
    #[serde(default)]
    pub strict: bool,
    /// Start; `None`: the first record.
    #[serde(default, deserialize_with = "super::replay::moment")]
    pub from: Option<Moment>,
    /// Exclusive end; `None`: the last record.
    #[serde(default, deserialize_with = "super::replay::moment")]
    pub to: Option<Moment>,
    /// Longest pause between records that is kept, milliseconds; 0: all of them, up to an hour.
    #[serde(default)]
    pub max_idle_ms: u64,
    /// Disabled checks of the venue's messages.
    #[serde(default, deserialize_with = "checks")]
    pub checks_off: ChecksOff,
}

fn recorded() -> Speed {
    Speed::RECORDED
}

/// Parses a list of names of checks.
fn checks<'de, D: Deserializer<'de>>(from: D) -> Result<ChecksOff, D::Error> {
    let mut off = ChecksOff::default();
    for name in Vec::<String>::deserialize(from)? {
        off.add(&name).map_err(D::Error::custom)?;
    }
    Ok(off)
}
