//! `[publish]`: publishing by other programs.

use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroUsize};

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use super::{non_zero, non_zero_u32, token};

/// `[publish]`
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PublishConfig {
    /// Address of the listener for JSON lines; `None`: no listener.
    #[serde(deserialize_with = "optional_address")]
    pub listen: Option<SocketAddr>,
    /// Token of publishers, at least 16 characters; empty: publishing is disabled.
    #[serde(deserialize_with = "publish_token")]
    pub token: String,
    /// Venues that published symbols may name.
    #[serde(deserialize_with = "venues")]
    pub venues: Vec<String>,
    /// Most instruments of one publisher.
    pub instruments_per_publisher_max: NonZeroUsize,
    /// Share of the instrument table that publishers may fill, percent.
    #[serde(deserialize_with = "percent")]
    pub instruments_percent_max: u8,
    /// Most connections without the token, per listener.
    pub strangers_max: NonZeroUsize,
    /// Most connections without the token from one address.
    pub strangers_per_address: NonZeroUsize,
    /// Wrong tokens per minute from one address.
    pub wrong_tokens_per_minute: NonZeroU32,
}

impl PublishConfig {
    /// Most instruments of publishers in a table with `capacity` places.
    pub fn instruments_of(&self, capacity: usize) -> usize {
        // The product fits in 128 bits.
        (capacity as u128 * u128::from(self.instruments_percent_max) / 100) as usize
    }
}

impl Default for PublishConfig {
    fn default() -> Self {
        Self {
            listen: None,
            token: String::new(),
            venues: vec!["demo".to_owned()],
            instruments_per_publisher_max: non_zero::<8_192>(),
            instruments_percent_max: 75,
            strangers_max: non_zero::<256>(),
            strangers_per_address: non_zero::<64>(),
            wrong_tokens_per_minute: non_zero_u32::<10>(),
        }
    }
}

fn publish_token<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    token("publish.token", from)
}

fn percent<'de, D: Deserializer<'de>>(from: D) -> Result<u8, D::Error> {
    let percent = u8::deserialize(from)?;
    match percent {
        0..=100 => Ok(percent),
        _ => Err(D::Error::custom("instruments_percent_max must be from 0 to 100")),
    }
}

fn optional_address<'de, D: Deserializer<'de>>(from: D) -> Result<Option<SocketAddr>, D::Error> {
    let text = String::deserialize(from)?;
    if text.is_empty() {
        return Ok(None);
    }
    let wrong = |_| D::Error::custom(format!("{text:?} is no address: write it as 127.0.0.1:9000, or \"\""));
    text.parse().map(Some).map_err(wrong)
}

fn venues<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    let venues = Vec::<String>::deserialize(from)?;
    match venues.iter().find(|venue| !crate::model::instrument::Symbol::is_venue(venue)) {
        Some(bad) => Err(D::Error::custom(format!("{bad:?} is no venue: 1 to 32 of a-z, 0-9, '-' and '_'"))),
        None => Ok(venues),
    }
}
