//! Replays beside the feed: the way into a room, and what can be replayed.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::body::Body;
use axum::http::{Response, StatusCode};
use futures_util::future::BoxFuture;
use serde_json::Value;

use super::answer::{error, full, short_of_memory};
use super::{Refused, Upgraded};
use crate::protocol::RoomSpec;
use crate::system::memory::REFUSAL;

/// Takes one upgraded socket, or gives it back. Until then a place is kept for it; dropped, it is given up.
pub type HandOverOnce = Box<dyn FnOnce(Upgraded) -> Result<(), Refused> + Send>;

/// Why a client does not come into a room. What it says is for the client.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RoomError {
    /// No such capture, or no such room.
    #[error("{0}")]
    Unknown(String),
    /// What it asks for makes no sense.
    #[error("{0}")]
    Bad(String),
    /// The room is there, but is another one.
    #[error("{0}")]
    Taken(String),
    /// Its address has opened as many as it may.
    #[error("{0}")]
    TooMany(String),
    /// No room for a room, or in it.
    #[error("{0}")]
    Full(String),
    /// Memory is short.
    #[error("{}", REFUSAL)]
    Memory,
}

impl RoomError {
    /// The words of [`reason`](Self::reason).
    pub const REASONS: [&'static str; 6] = ["unknown", "bad", "taken", "address", "full", "memory"];

    /// Its place in [`REASONS`](Self::REASONS).
    pub fn reason(&self) -> usize {
        match self {
            Self::Unknown(_) => 0,
            Self::Bad(_) => 1,
            Self::Taken(_) => 2,
            Self::TooMany(_) => 3,
            Self::Full(_) => 4,
            Self::Memory => 5,
        }
    }

    pub(super) fn response(&self) -> Response<Body> {
        match self {
            Self::Unknown(msg) => error(StatusCode::NOT_FOUND, msg),
            Self::Bad(msg) => error(StatusCode::BAD_REQUEST, msg),
            Self::Taken(msg) => error(StatusCode::CONFLICT, msg),
            Self::TooMany(msg) => error(StatusCode::TOO_MANY_REQUESTS, msg),
            Self::Full(msg) => full(msg),
            Self::Memory => short_of_memory(),
        }
    }
}

/// Finds or opens a room, and keeps a place in it for a client from this address.
pub type Enter =
    Arc<dyn Fn(RoomSpec, SocketAddr) -> BoxFuture<'static, Result<HandOverOnce, RoomError>> + Send + Sync>;

/// The way into rooms, where there are some.
#[derive(Clone)]
pub struct RoomRoute {
    /// Asked before the 101. It may take some time.
    pub enter: Enter,
    /// What can be replayed, as JSON, sorted by name.
    pub captures: Arc<dyn Fn() -> BoxFuture<'static, Result<Value, RoomError>> + Send + Sync>,
}
