//! `[replay]`: replay control, checkpoints for seeks, and rooms.

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
pub struct ReplayConfig {
    /// Token that controls the replay, at least 16 characters; empty: clients of this machine may control it.
    #[serde(deserialize_with = "control_token")]
    pub control_token: String,
    /// Most queued replay commands.
    pub commands_max: NonZeroUsize,
    /// Most checkpoints of a replay.
    pub checkpoints_max: usize,
    /// Most memory of these checkpoints, bytes.
    pub checkpoint_bytes_max: NonZeroUsize,
    /// Folder with the captures that rooms can replay; `None`: rooms are disabled.
    #[serde(deserialize_with = "super::optional_path")]
    pub dir: Option<PathBuf>,
    /// Most entries of the folder that are read.
    pub dir_entries_max: NonZeroUsize,
    /// Most rooms.
    pub rooms_max: NonZeroUsize,
    /// Most rooms opened by one address.
    pub rooms_per_address: NonZeroUsize,
    /// Most clients in a room.
    pub room_clients_max: NonZeroUsize,
    /// Most captures that a room merges.
    pub room_captures_max: NonZeroUsize,
    /// Time that a named room stays open without clients, seconds.
    pub room_idle_s: NonZeroU64,
    /// Longest lifetime of a room, seconds.
    pub room_lifetime_s: NonZeroU64,
    /// Ticks in the ring of a room.
    #[serde(deserialize_with = "super::ring_capacity")]
    pub room_ring_capacity: usize,
    /// Most memory of the checkpoints of a room, bytes.
    pub room_checkpoint_bytes_max: NonZeroUsize,
}

impl Default for ReplayConfig {
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

/// Parses a moment; empty text is `None`.
pub(super) fn moment<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Moment>, D::Error> {
    let text = String::deserialize(from)?;
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|error| D::Error::custom(format!("{text:?}: {error}")))
}
