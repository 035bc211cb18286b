//! `[flight]`: the flight recorder.

use std::num::{NonZeroU64, NonZeroUsize};
use std::path::PathBuf;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use super::{non_zero, non_zero_u64, optional_path};
use crate::latency::budget::{self, Rule};

/// `[flight]`
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FlightConfig {
    /// Folder of the files; `None`: the flight recorder is disabled.
    #[serde(deserialize_with = "optional_path")]
    pub dir: Option<PathBuf>,
    /// Time span that a file covers, seconds.
    pub seconds: NonZeroU64,
    /// Latency budgets; an interval beyond one triggers a file.
    #[serde(deserialize_with = "rules")]
    pub budget: Vec<Rule>,
    /// Time after a file in which no other is written, seconds.
    pub quiet_s: NonZeroU64,
    /// Most files that are kept.
    pub files_max: NonZeroUsize,
    /// Largest file, bytes.
    #[serde(deserialize_with = "file_bytes")]
    pub file_bytes_max: NonZeroUsize,
}

impl Default for FlightConfig {
    fn default() -> Self {
        Self {
            dir: None,
            seconds: non_zero_u64::<10>(),
            budget: Vec::new(),
            quiet_s: non_zero_u64::<30>(),
            files_max: non_zero::<16>(),
            file_bytes_max: non_zero::<8_388_608>(),
        }
    }
}

fn rules<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Rule>, D::Error> {
    let text = String::deserialize(from)?;
    if text.is_empty() {
        return Ok(Vec::new());
    }
    budget::parse(&text).map_err(|error| D::Error::custom(format!("budget {text:?}: {error}")))
}

/// A smaller file would hold hardly any ticks.
const FILE_BYTES_MIN: usize = 262_144;

fn file_bytes<'de, D: Deserializer<'de>>(from: D) -> Result<NonZeroUsize, D::Error> {
    let bytes = NonZeroUsize::deserialize(from)?;
    if bytes.get() >= FILE_BYTES_MIN {
        return Ok(bytes);
    }
    Err(D::Error::custom(format!("file_bytes_max must be at least {FILE_BYTES_MIN}")))
}
