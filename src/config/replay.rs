//! How a replay is controlled, and how it finds places in its captures.

use std::num::NonZeroUsize;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use super::non_zero;
use crate::protocol::replay::{Moment, Speed};

/// `[replay]`
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Replay {
    /// What has to be shown to control it; empty: clients of this machine may.
    pub control_token: String,
    /// Orders that may wait.
    pub orders_max: NonZeroUsize,
    /// Places that it can go on from at once.
    pub checkpoints_max: usize,
    /// Bytes of memory that these may take.
    pub checkpoint_bytes_max: NonZeroUsize,
}

impl Default for Replay {
    fn default() -> Self {
        Self {
            control_token: String::new(),
            orders_max: non_zero::<64>(),
            checkpoints_max: 256,
            checkpoint_bytes_max: non_zero::<50_331_648>(),
        }
    }
}

pub(super) fn speed<'de, D: Deserializer<'de>>(from: D) -> Result<Speed, D::Error> {
    let factor = f64::deserialize(from)?;
    Speed::new(factor).ok_or_else(|| D::Error::custom(format!("speed {}", Speed::WRONG)))
}

/// A moment; empty text is none.
pub(super) fn moment<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Moment>, D::Error> {
    let text = String::deserialize(from)?;
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|error| D::Error::custom(format!("{text:?}: {error}")))
}
