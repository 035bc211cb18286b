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

/// What a shard counts. Updated once a turn.
#[derive(Debug, Default)]
pub struct ShardCounters {
    /// Sessions now.
    pub sessions: Counter,
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
    /// Sessions ended because they were too slow.
    pub cut_slow: Counter,
    /// Sessions ended because nothing was heard of them.
    pub cut_dead: Counter,
    /// Subscriptions now: one per session, instrument and stream.
    pub subscriptions: Counter,
    /// Turns, those that found nothing to do too.
    pub turns: Counter,
    /// Ticks taken from the ring.
    pub ticks: Counter,
    /// Ticks lost because the ring came round.
    pub lapped: Counter,
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
}
