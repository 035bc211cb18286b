//! What is counted, for the operator. Each counter has one writer; anybody may read.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number that one thread moves and others read.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds to it.
    pub fn add(&self, by: u64) {
        self.0.fetch_add(by, Ordering::Relaxed);
    }

    /// Takes from it, for numbers that say how many there are now.
    pub fn sub(&self, by: u64) {
        self.0.fetch_sub(by, Ordering::Relaxed);
    }

    /// Replaces it.
    pub fn set(&self, to: u64) {
        self.0.store(to, Ordering::Relaxed);
    }

    /// Its value.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Why the connection of a client ended. Whatever came first counts: who is told to go and then resets was told to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The client closed it, with a close frame.
    Closed,
    /// The client's side ended it without one.
    Left,
    /// The client's side reset it.
    Reset,
    /// The client's host acknowledges nothing any more.
    DeadPeer,
    /// The socket failed otherwise.
    Failed,
    /// The client did not keep up.
    SlowConsumer,
    /// The client held memory that was short; its close code is that of [`SlowConsumer`](Self::SlowConsumer).
    Memory,
    /// Nothing was heard of the client.
    NoPong,
    /// The gateway stops.
    Shutdown,
    /// The room of a replay has ended.
    RoomEnded,
    /// The room of a replay broke.
    Busy,
    /// The client's bytes are no WebSocket frames.
    Protocol,
    /// The client sent a binary message.
    Unsupported,
    /// The client sent text that is not UTF-8.
    NotUtf8,
    /// The client sent a message over the limit.
    TooBig,
    /// The client went over another limit.
    Limit,
}

impl Ending {
    /// Every one.
    pub const ALL: [Self; 16] = [
        Self::Closed,
        Self::Left,
        Self::Reset,
        Self::DeadPeer,
        Self::Failed,
        Self::SlowConsumer,
        Self::Memory,
        Self::NoPong,
        Self::Shutdown,
        Self::RoomEnded,
        Self::Busy,
        Self::Protocol,
        Self::Unsupported,
        Self::NotUtf8,
        Self::TooBig,
        Self::Limit,
    ];

    /// The word for the operator: the same as on the wire where there is one there, but for [`Memory`](Self::Memory).
    pub const fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Left => "left",
            Self::Reset => "reset",
            Self::DeadPeer => "dead_peer",
            Self::Failed => "failed",
            Self::SlowConsumer => "slow_consumer",
            Self::Memory => "memory",
            Self::NoPong => "no_pong",
            Self::Shutdown => "shutdown",
            Self::RoomEnded => "room_ended",
            Self::Busy => "try_again_later",
            Self::Protocol => "protocol_error",
            Self::Unsupported => "text_only",
            Self::NotUtf8 => "not_utf8",
            Self::TooBig => "message_too_big",
            Self::Limit => "limit",
        }
    }

    /// Its place in [`ALL`](Self::ALL).
    pub const fn index(self) -> usize {
        self as usize
    }
}

/// What clients were told by gaps of one cause.
#[derive(Debug, Default)]
pub struct Gaps {
    /// Messages.
    pub told: Counter,
    /// Numbers that they named: ticks that did not come.
    pub ticks: Counter,
}

/// Causes of gaps, as [`ShardCounters::gaps`] tells them apart.
pub const GAP_CAUSES: usize = 5;

/// As what ticks were counted that were taken back.
pub const TAKEN_BACK: [&str; 4] = ["sent", "merged", "dropped", "lost"];

/// What a shard counts. Updated once a turn.
#[derive(Debug, Default)]
pub struct ShardCounters {
    /// Sessions now.
    pub sessions: Counter,
    /// Sessions that there ever were.
    pub came: Counter,
    /// Sessions that were ever told `warn`, or worse.
    pub slowed: Counter,
    /// Clients on their way to the shard now.
    pub coming: Counter,
    /// Sessions with at least one subscription now.
    pub subscribed: Counter,
    /// Sessions now that were told `warn`.
    pub warned: Counter,
    /// Sessions now that were told `shed`.
    pub shedding: Counter,
    /// Sessions now that were told `cut`.
    pub nearly_cut: Counter,
    /// Times that a session began to shed.
    pub sheds: Counter,
    /// Sessions that ended, by [`Ending::ALL`].
    pub ended: [Counter; Ending::ALL.len()],
    /// Subscriptions now: one per session, instrument and stream.
    pub subscriptions: Counter,
    /// Turns, those that found nothing to do too.
    pub turns: Counter,
    /// Ticks taken from the ring.
    pub ticks: Counter,
    /// Ticks lost because the ring came round.
    pub lapped: Counter,
    /// Positions of the ring that were looked at again, for clients that come back; what a `resume` costs besides counts as some.
    pub reread: Counter,
    /// Ticks that somebody wanted: each was encoded once.
    pub encoded: Counter,
    /// Ticks that were queued for a session, shared frames and own ones.
    pub sent: Counter,
    /// Ticks that a newer one of the same subscription stands for.
    pub merged: Counter,
    /// Ticks that a `gap` named to a session because it or the shard was slow.
    pub dropped: Counter,
    /// Numbers that a `gap` named to a session because the feed lost them.
    pub lost: Counter,
    /// What gaps told, by the number of their cause.
    pub gaps: [Gaps; GAP_CAUSES],
    /// Writes to sockets.
    pub writes: Counter,
    /// Bytes the sockets took.
    pub bytes: Counter,
    /// Requests answered.
    pub requests: Counter,
    /// Requests answered by an error.
    pub faults: Counter,
    /// Ticks that wait in the ring, at the end of the last turn.
    pub behind: Counter,
    /// Bytes of memory that outboxes hold now.
    pub outbox_bytes: Counter,
    /// Bytes that the kernel holds now for clients that are looked at because they may be slow.
    pub unacked_bytes: Counter,
    /// Times that a session's queue was taken back because memory was short.
    pub memory_sheds: Counter,
    /// What was taken back of what had been counted, by [`TAKEN_BACK`]: it is counted once more when it is sent or missed.
    pub taken_back: [Counter; TAKEN_BACK.len()],
}

#[cfg(test)]
mod tests {
    use super::Ending;

    #[test]
    fn every_ending_has_its_place_and_a_word_of_its_own() {
        for (at, ending) in Ending::ALL.into_iter().enumerate() {
            assert_eq!(ending.index(), at);
            assert!(Ending::ALL[..at].iter().all(|other| other.name() != ending.name()));
        }
    }
}
