//! What all sessions of a shard are configured by.

use std::sync::Arc;

use crate::net::Tuning;
use crate::protocol::json;
use crate::replay_control::ReplayControl;
use crate::session::Policy;
use crate::shard::sessions::reading::CatchUps;

/// Figures and limits that all sessions of a run share.
#[derive(Clone, Debug)]
pub struct SessionOptions {
    /// Name of this run.
    pub epoch: Arc<str>,
    /// What there is to see.
    pub feed: json::Provenance,
    /// Memory and patience of one session.
    pub policy: Policy,
    /// Milliseconds between heartbeats.
    pub heartbeat_ms: u64,
    /// Symbols one connection may name.
    pub symbols_max: usize,
    /// Longest message of a client, bytes.
    pub frame_bytes_max: usize,
    /// Requests a second, and how many at once.
    pub ops_per_s: u32,
    /// Steps of a turn that requests, and what follows from them, may take.
    pub steps_per_turn_max: u32,
    /// Parts that one message of a client may have.
    pub fragments_max: u32,
    /// Control frames a second that a client may send.
    pub controls_per_s: u32,
    /// Milliseconds that a closing connection has to take what is queued.
    pub close_grace_ms: u64,
    /// Milliseconds over which clients of a stopping gateway are asked to come back.
    pub drain_spread_ms: u64,
    /// Bytes of frames that many sessions are sent, at most: see [`Buffers`](crate::session::Buffers).
    pub frame_ring_bytes: usize,
    /// Options of each client's socket.
    pub tuning: Tuning,
    /// Milliseconds after which the host of a client is dead that acknowledges nothing of what it was sent.
    pub dead_peer_ms: u64,
    /// Venues that a symbol may name though no feed has listed it yet.
    pub venues: Arc<[String]>,
    /// Control of the replay, where there is one.
    pub replay_control: Option<Arc<ReplayControl>>,
    /// Bounds of catching up with what was recorded.
    pub catch_ups: CatchUps,
    /// Positions of the ring that are read again in one turn, for all clients that come back.
    pub reread_per_turn: usize,
}
