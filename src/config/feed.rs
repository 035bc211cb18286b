//! `[[feed]]`: where ticks come from.

use std::path::PathBuf;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use crate::protocol::Moment;
use crate::protocol::replay::Speed;
use crate::venue::{ChecksOff, Wire};

/// What kind of feed a `[[feed]]` is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FeedKind {
    /// Recorded captures.
    Replay,
}

/// `[[feed]]`
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Feed {
    /// What it is.
    pub kind: FeedKind,
    /// The captures.
    pub files: Vec<PathBuf>,
    /// Whose messages they hold.
    #[serde(default)]
    pub venue: Option<Wire>,
    /// How fast.
    #[serde(default = "recorded", deserialize_with = "super::replay::speed")]
    pub speed: Speed,
    /// Again and again.
    #[serde(default, rename = "loop")]
    pub looped: bool,
    /// End at the first bad line.
    #[serde(default)]
    pub strict: bool,
    /// Where it begins; `None`: at the beginning.
    #[serde(default, deserialize_with = "super::replay::moment")]
    pub from: Option<Moment>,
    /// Before what it ends; `None`: at the end.
    #[serde(default, deserialize_with = "super::replay::moment")]
    pub to: Option<Moment>,
    /// Milliseconds of a silence that are waited for; 0: all of it, up to an hour.
    #[serde(default)]
    pub max_idle_ms: u64,
    /// Checks of the venue's messages that are left out.
    #[serde(default, deserialize_with = "checks")]
    pub checks_off: ChecksOff,
}

fn recorded() -> Speed {
    Speed::RECORDED
}

/// A list of names of checks.
fn checks<'de, D: Deserializer<'de>>(from: D) -> Result<ChecksOff, D::Error> {
    let mut off = ChecksOff::default();
    for name in Vec::<String>::deserialize(from)? {
        off.add(&name).map_err(D::Error::custom)?;
    }
    Ok(off)
}
