//! The options of the sessions of a shard.

use std::sync::Arc;

use super::reading::CatchUps;
use crate::net::Tuning;
use crate::protocol::json;
use crate::replay_control::ReplayControl;
use crate::session::Policy;

/// Options and limits that all sessions of a run share.
#[derive(Clone, Debug)]
pub struct SessionOptions {
    /// The epoch of this run.
    pub epoch: Arc<str>,
    /// Where the ticks come from.
    pub feed: json::Provenance,
    /// Memory bounds and timeouts of one session.
    pub policy: Policy,
    /// What a client may send and request.
    pub limits: ClientLimits,
    /// Periods and grace times of a connection.
    pub times: SessionTimes,
    /// Size of the frame ring at most, bytes: see [`Buffers`](crate::session::Buffers).
    pub frame_ring_bytes: usize,
    /// Options of each client's socket.
    pub tuning: Tuning,
    /// Venues whose symbols may be awaited before a feed lists them.
    pub venues: Arc<[String]>,
    /// Control of the replay, where there is one.
    pub replay_control: Option<Arc<ReplayControl>>,
    /// Limits for clients that catch up.
    pub catch_ups: CatchUps,
    /// Ring positions that are reread per turn, for all returning clients together.
    pub reread_per_turn: usize,
}

/// What a client may send and request.
#[derive(Clone, Copy, Debug)]
pub struct ClientLimits {
    /// Symbols one connection may name.
    pub symbols_max: usize,
    /// Longest message of a client, bytes.
    pub frame_bytes_max: usize,
    /// Fragments that one message of a client may have.
    pub fragments_max: u32,
    /// Control frames that a client may send, per second.
    pub controls_per_s: u32,
    /// Requests that a client may send, per second and in one burst.
    pub ops_per_s: u32,
    /// Steps per turn for the requests of all clients, and for what follows from them.
    pub steps_per_turn_max: u32,
}

/// Periods and grace times of a connection.
#[derive(Clone, Copy, Debug)]
pub struct SessionTimes {
    /// Milliseconds between heartbeats.
    pub heartbeat_ms: u64,
    /// How long a closing connection has to take what is queued, milliseconds.
    pub close_grace_ms: u64,
    /// Time over which the clients of a stopping gateway are asked to spread their return, milliseconds.
    pub drain_spread_ms: u64,
    /// How long the host of a client may acknowledge nothing of what it was sent before it counts as dead,
    /// milliseconds.
    pub dead_peer_ms: u64,
}
