//! `[record]`: recordings of the feed lines, and the history.

use std::num::{NonZeroU64, NonZeroUsize};
use std::path::PathBuf;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use super::{ConfigError, non_zero, non_zero_u64};

/// `[record]`
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RecordConfig {
    /// Whether recording is enabled.
    pub enabled: bool,
    /// Folder of the recordings.
    pub dir: PathBuf,
    /// Time span of a segment, seconds.
    pub segment_s: NonZeroU64,
    /// Longest time that a frame stays unwritten, milliseconds.
    pub flush_ms: NonZeroU64,
    /// Compression level of zstd.
    pub level: i32,
    /// Most bytes queued for the disk.
    pub queue_bytes_max: NonZeroUsize,
    /// Most frames queued for the disk.
    pub queue_frames_max: NonZeroUsize,
    /// Size of the history, bytes; 0: no history.
    #[serde(deserialize_with = "history_bytes")]
    pub history_bytes_max: u64,
    /// Most clients of a shard that catch up at the same time.
    pub catch_ups_max: usize,
    /// Most clients of one address that catch up at the same time, over all shards.
    pub catch_ups_per_address: usize,
    /// Time within which a client that catches up must come closer to the live stream, milliseconds.
    pub catch_up_patience_ms: NonZeroU64,
}

impl Default for RecordConfig {
    fn default() -> Self {
        Self {
            enabled: false,
            dir: PathBuf::from("recordings"),
            segment_s: non_zero_u64::<3_600>(),
            flush_ms: non_zero_u64::<200>(),
            level: 3,
            queue_bytes_max: non_zero::<67_108_864>(),
            queue_frames_max: non_zero::<65_536>(),
            history_bytes_max: 268_435_456,
            catch_ups_max: 64,
            catch_ups_per_address: 16,
            catch_up_patience_ms: non_zero_u64::<120_000>(),
        }
    }
}

/// A smaller history would not hold the blocks of its files.
const HISTORY_BYTES_MIN: u64 = 1 << 20;

fn history_bytes<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    let bytes = u64::deserialize(from)?;
    if bytes == 0 || bytes >= HISTORY_BYTES_MIN {
        return Ok(bytes);
    }
    Err(D::Error::custom(format!("history_bytes_max must be 0 (none), or at least {HISTORY_BYTES_MIN}")))
}

impl RecordConfig {
    /// Validates constraints that the types of the keys do not express.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        if !(1..=19).contains(&self.level) {
            return Err(ConfigError::Together(format!("record.level: {} is not 1 to 19", self.level)));
        }
        Ok(())
    }
}
