//! What is written down of what comes in.

use std::num::{NonZeroU64, NonZeroUsize};
use std::path::PathBuf;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use super::{ConfigError, non_zero, non_zero_u64};

/// `[record]`
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Record {
    /// Whether.
    pub enabled: bool,
    /// Where: a folder.
    pub dir: PathBuf,
    /// Seconds that a file holds.
    pub segment_s: NonZeroU64,
    /// Milliseconds that a frame may stay unwritten.
    pub flush_ms: NonZeroU64,
    /// zstd's level.
    pub level: i32,
    /// Bytes that may wait for the disk.
    pub queue_bytes_max: NonZeroUsize,
    /// Frames that may wait for the disk.
    pub queue_frames_max: NonZeroUsize,
    /// Bytes of the history; 0: there is none.
    #[serde(deserialize_with = "history_bytes")]
    pub history_bytes_max: u64,
    /// Clients of a shard that may be catching up at once.
    pub catch_ups_max: usize,
    /// Clients of one address that may, over all shards.
    pub catch_ups_per_address: usize,
    /// Milliseconds in which one has to come nearer to the present.
    pub catch_up_patience_ms: NonZeroU64,
}

impl Default for Record {
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

/// Less would not hold the blocks of its files.
const HISTORY_BYTES_MIN: u64 = 1 << 20;

fn history_bytes<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    let bytes = u64::deserialize(from)?;
    if bytes == 0 || bytes >= HISTORY_BYTES_MIN {
        return Ok(bytes);
    }
    Err(D::Error::custom(format!("history_bytes_max must be 0 (none), or at least {HISTORY_BYTES_MIN}")))
}

impl Record {
    /// Checks what the type of a key cannot tell.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        if !(1..=19).contains(&self.level) {
            return Err(ConfigError::Together(format!("record.level: {} is not 1 to 19", self.level)));
        }
        Ok(())
    }
}
