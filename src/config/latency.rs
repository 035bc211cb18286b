//! What is measured, and where it is kept.

use std::num::{NonZeroU8, NonZeroU64, NonZeroUsize};
use std::path::PathBuf;

use serde::Deserialize;

use super::{interval_ms, log_bytes, non_zero, non_zero_u64, optional_path};

/// `[latency]`
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Latency {
    /// Milliseconds of an interval; 0: nothing is measured.
    #[serde(deserialize_with = "interval_ms")]
    pub interval_ms: u64,
    /// The interval log; `None`: there is none.
    #[serde(deserialize_with = "optional_path")]
    pub log: Option<PathBuf>,
    /// Bytes from which on a log is followed by a new one.
    #[serde(deserialize_with = "log_bytes")]
    pub log_bytes_max: NonZeroU64,
    /// Logs that are kept.
    pub log_files_max: NonZeroU8,
    /// Symbols that are told apart.
    pub symbols: NonZeroUsize,
}

impl Default for Latency {
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
