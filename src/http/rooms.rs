//! The interface between HTTP and the rooms: entering a room, and the list of captures.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::body::Body;
use axum::http::{Response, StatusCode};
use futures_util::future::BoxFuture;
use serde_json::Value;

use super::answer::{error, full, short_of_memory};
use super::{RefusedClient, Upgraded};
use crate::protocol::RoomSpec;
use crate::system::memory::REFUSAL;

/// Accepts one upgraded socket, or returns it. A place in the room is reserved until then; dropping the
/// function releases it.
pub type HandOverOnce = Box<dyn FnOnce(Upgraded) -> Result<(), RefusedClient> + Send>;

/// Why a client is not admitted to a room. The message is sent to the client.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RoomError {
    /// The capture or the room does not exist.
    #[error("{0}")]
    Unknown(String),
    /// The request is invalid.
    #[error("{0}")]
    Bad(String),
    /// The room exists with other terms.
    #[error("{0}")]
    Taken(String),
    /// The address of the client has reached its number of rooms.
    #[error("{0}")]
    TooMany(String),
    /// No further room can be opened, or the room is full.
    #[error("{0}")]
    Full(String),
    /// Memory is short.
    #[error("{}", REFUSAL)]
    Memory,
}

impl RoomError {
    /// The labels of [`reason`](Self::reason).
    pub const REASONS: [&'static str; 6] = ["unknown", "bad", "taken", "address", "full", "memory"];

    /// Index in [`REASONS`](Self::REASONS).
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

/// Finds or opens a room, and reserves a place in it for a client from this address.
pub type Enter =
    Arc<dyn Fn(RoomSpec, SocketAddr) -> BoxFuture<'static, Result<HandOverOnce, RoomError>> + Send + Sync>;

/// The functions behind the rooms, where rooms are enabled.
#[derive(Clone)]
pub struct RoomRoute {
    /// Called before the 101. It may take some time.
    pub enter: Enter,
    /// The available captures, as JSON, sorted by name.
    pub captures: Arc<dyn Fn() -> BoxFuture<'static, Result<Value, RoomError>> + Send + Sync>,
}
