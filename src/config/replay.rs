//! How a replay is controlled, how it finds places in its captures, and what may be replayed beside the feed.

use std::num::{NonZeroU64, NonZeroUsize};
use std::path::PathBuf;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use super::{non_zero, non_zero_u64, token};
use crate::protocol::Moment;
use crate::protocol::replay::Speed;

/// `[replay]`
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Replay {
    /// What has to be shown to control it, of 16 characters at least; empty: clients of this machine may.
    #[serde(deserialize_with = "control_token")]
    pub control_token: String,
    /// Orders that may wait.
    pub commands_max: NonZeroUsize,
    /// Places that it can go on from at once.
    pub checkpoints_max: usize,
    /// Bytes of memory that these may take.
    pub checkpoint_bytes_max: NonZeroUsize,
    /// The captures that clients may replay in rooms; `None`: none.
    #[serde(deserialize_with = "super::optional_path")]
    pub dir: Option<PathBuf>,
    /// Entries of it that are looked at.
    pub dir_entries_max: NonZeroUsize,
    /// Rooms at once.
    pub rooms_max: NonZeroUsize,
    /// Rooms at once that one address has opened.
    pub rooms_per_address: NonZeroUsize,
    /// Clients in one room.
    pub room_clients_max: NonZeroUsize,
    /// Captures that one room may merge.
    pub room_captures_max: NonZeroUsize,
    /// Seconds that a named room stays without clients.
    pub room_idle_s: NonZeroU64,
    /// Seconds after which a room ends in any case.
    pub room_lifetime_s: NonZeroU64,
    /// Ticks that a room's shard may fall behind.
    #[serde(deserialize_with = "super::ring_capacity")]
    pub room_ring_capacity: usize,
    /// Bytes of memory that a room's checkpoints may take.
    pub room_checkpoint_bytes_max: NonZeroUsize,
}

impl Default for Replay {
    fn default() -> Self {
        Self {
            control_token: String::new(),
            commands_max: non_zero::<64>(),
            checkpoints_max: 256,
            checkpoint_bytes_max: non_zero::<50_331_648>(),
            dir: None,
            dir_entries_max: non_zero::<1_024>(),
            rooms_max: non_zero::<8>(),
            rooms_per_address: non_zero::<4>(),
            room_clients_max: non_zero::<100>(),
            room_captures_max: non_zero::<16>(),
            room_idle_s: non_zero_u64::<60>(),
            room_lifetime_s: non_zero_u64::<86_400>(),
            room_ring_capacity: 16_384,
            room_checkpoint_bytes_max: non_zero::<8_388_608>(),
        }
    }
}

fn control_token<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    token("replay.control_token", from)
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
