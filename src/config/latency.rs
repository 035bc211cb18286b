//! `[latency]`: latency measurements and their log.

use std::num::{NonZeroU8, NonZeroU64, NonZeroUsize};
use std::ops::RangeInclusive;
use std::path::PathBuf;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use super::{non_zero, non_zero_u64, optional_path};

/// `[latency]`
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LatencyConfig {
    /// Length of an interval, milliseconds; 0: measuring is disabled.
    #[serde(deserialize_with = "interval_ms")]
    pub interval_ms: u64,
    /// Path of the interval log; `None`: no log.
    #[serde(deserialize_with = "optional_path")]
    pub log: Option<PathBuf>,
    /// Size at which a log is rotated, bytes.
    #[serde(deserialize_with = "log_bytes")]
    pub log_bytes_max: NonZeroU64,
    /// Most logs that are kept.
    pub log_files_max: NonZeroU8,
    /// Most symbols that are measured separately.
    pub symbols: NonZeroUsize,
}

impl Default for LatencyConfig {
    fn default() -> Self {
        Self {
            interval_ms: 1_000,
            log: None,
            log_bytes_max: non_zero_u64::<67_108_864>(),
            log_files_max: const { NonZeroU8::new(4).expect("not 0") },
            symbols: non_zero::<64>(),
        }
    }
}

/// Shorter intervals have too few values for percentiles; longer ones hide short incidents.
const INTERVAL_MS: RangeInclusive<u64> = 100..=60_000;

fn interval_ms<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    let interval_ms = u64::deserialize(from)?;
    if interval_ms == 0 || INTERVAL_MS.contains(&interval_ms) {
        return Ok(interval_ms);
    }
    let (least, most) = INTERVAL_MS.into_inner();
    Err(D::Error::custom(format!("interval_ms must be 0 (off), or from {least} to {most}")))
}

/// A smaller log would hold hardly one interval.
const LOG_BYTES_MIN: u64 = 65_536;

fn log_bytes<'de, D: Deserializer<'de>>(from: D) -> Result<NonZeroU64, D::Error> {
    let bytes = NonZeroU64::deserialize(from)?;
    if bytes.get() >= LOG_BYTES_MIN {
        return Ok(bytes);
    }
    Err(D::Error::custom(format!("log_bytes_max must be at least {LOG_BYTES_MIN}")))
}
