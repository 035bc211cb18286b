//! What all sessions of a shard are configured by.

use std::sync::Arc;

use super::reading::CatchUps;
use crate::net::Tuning;
use crate::protocol::json;
use crate::replay_control::ReplayControl;
use crate::session::Policy;

/// Figures and limits that all sessions of a run share.
#[derive(Clone, Debug)]
pub struct SessionOptions {
    /// Name of this run.
    pub epoch: Arc<str>,
    /// Where the ticks come from.
    pub feed: json::Provenance,
    /// Memory and patience of one session.
    pub policy: Policy,
    /// What a client may send and ask for.
    pub limits: ClientLimits,
    /// Periods and graces of a connection.
    pub times: SessionTimes,
    /// Bytes of frames that many sessions are sent, at most: see [`Buffers`](crate::session::Buffers).
    pub frame_ring_bytes: usize,
    /// Options of each client's socket.
    pub tuning: Tuning,
    /// Venues that a symbol may name though no feed has listed it yet.
    pub venues: Arc<[String]>,
    /// Control of the replay, where there is one.
    pub replay_control: Option<Arc<ReplayControl>>,
    /// Bounds of catching up with what was recorded.
    pub catch_ups: CatchUps,
    /// Positions of the ring that are read again in one turn, for all clients that come back.
    pub reread_per_turn: usize,
}

/// What a client may send and ask for.
#[derive(Clone, Copy, Debug)]
pub struct ClientLimits {
    /// Symbols one connection may name.
    pub symbols_max: usize,
    /// Longest message of a client, bytes.
    pub frame_bytes_max: usize,
    /// Parts that one message of a client may have.
    pub fragments_max: u32,
    /// Control frames a second that a client may send.
    pub controls_per_s: u32,
    /// Requests a second, and how many at once.
    pub ops_per_s: u32,
    /// Steps of a turn that the requests of all clients, and what follows from them, may take.
    pub steps_per_turn_max: u32,
}

/// Periods and graces of a connection.
#[derive(Clone, Copy, Debug)]
pub struct SessionTimes {
    /// Milliseconds between heartbeats.
    pub heartbeat_ms: u64,
    /// Milliseconds that a closing connection has to take what is queued.
    pub close_grace_ms: u64,
    /// Milliseconds over which clients of a stopping gateway are asked to come back.
    pub drain_spread_ms: u64,
    /// Milliseconds after which the host of a client is dead that acknowledges nothing of what it was sent.
    pub dead_peer_ms: u64,
}
