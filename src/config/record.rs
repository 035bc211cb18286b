//! What is written down of what comes in.

use std::num::{NonZeroU64, NonZeroUsize};
use std::path::PathBuf;

use serde::Deserialize;

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
        }
    }
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
