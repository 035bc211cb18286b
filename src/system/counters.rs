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

/// How long the turns of a thread took. It has one writer.
#[derive(Debug)]
pub struct TurnTimes {
    /// Up to each of [`BOUNDS_NS`](Self::BOUNDS_NS) and above the one before, and beyond the last.
    counts: [Counter; Self::BOUNDS_NS.len() + 1],
    sum_ns: Counter,
    /// The second of steady time, and the longest turn in it, nanoseconds; by the second, as far as there is room.
    longest: [(Counter, Counter); Self::SECONDS],
}

impl Default for TurnTimes {
    fn default() -> Self {
        Self {
            counts: Default::default(),
            sum_ns: Counter::default(),
            longest: std::array::from_fn(|_| Default::default()),
        }
    }
}

impl TurnTimes {
    /// Bucket bounds, nanoseconds.
    pub const BOUNDS_NS: [u64; 12] = [
        10_000,
        50_000,
        100_000,
        250_000,
        500_000,
        1_000_000,
        2_500_000,
        5_000_000,
        10_000_000,
        50_000_000,
        250_000_000,
        1_000_000_000,
    ];
    /// Seconds of which the longest turn is known.
    pub const SECONDS: usize = 64;

    /// A turn has ended at this steady time, having taken so long.
    pub fn record(&self, took_ns: u64, now_ns: u64) {
        let count = &self.counts[Self::BOUNDS_NS.partition_point(|bound| *bound < took_ns)];
        count.set(count.get() + 1);
        self.sum_ns.set(self.sum_ns.get() + took_ns);
        let second = now_ns / 1_000_000_000;
        let (of, longest) = &self.longest[second as usize % Self::SECONDS];
        if of.get() != second {
            longest.set(took_ns);
            of.set(second);
        } else if longest.get() < took_ns {
            longest.set(took_ns);
        }
    }

    /// How many turns there were up to each bound and above the one before, and beyond the last.
    pub fn counts(&self) -> [u64; Self::BOUNDS_NS.len() + 1] {
        std::array::from_fn(|at| self.counts[at].get())
    }

    /// What they took together, nanoseconds.
    pub fn sum_ns(&self) -> u64 {
        self.sum_ns.get()
    }

    /// The longest turn that ended in the last `seconds` before this steady time, at most [`SECONDS`](Self::SECONDS),
    /// nanoseconds.
    pub fn longest_ns(&self, seconds: u64, now_ns: u64) -> u64 {
        let now = now_ns / 1_000_000_000;
        let since = now.saturating_sub(seconds.min(Self::SECONDS as u64 - 1));
        let recent = self.longest.iter().filter(|(of, _)| (since..=now).contains(&of.get()));
        recent.map(|(_, longest)| longest.get()).max().unwrap_or(0)
    }
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
    /// Instruments that its subscriptions have taken, in the order of listing.
    pub instruments: Counter,
    /// Sessions with wildcards.
    pub wild: Counter,
    /// Turns, those that found nothing to do too.
    pub turns: Counter,
    /// How long they took.
    pub turn_times: TurnTimes,
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
    /// Steps of turns that requests, and what followed from them, took.
    pub steps: Counter,
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
    use super::{Ending, TurnTimes};

    #[test]
    fn turns_are_counted_by_their_length_and_the_longest_is_known_for_a_while() {
        const SECOND: u64 = 1_000_000_000;
        let turns = TurnTimes::default();
        for (took_ns, at_s) in [(10_000, 1), (10_001, 2), (7_000_000, 2), (3, 3), (5 * SECOND, 100)] {
            turns.record(took_ns, at_s * SECOND);
        }
        let counts = turns.counts();
        assert_eq!((counts[0], counts[1], counts[8], counts[12]), (2, 1, 1, 1));
        assert_eq!((counts.iter().sum::<u64>(), turns.sum_ns()), (5, 7_020_004 + 5 * SECOND));
        for (seconds, at_s, longest_ns) in [
            (0, 3, 3),
            (1, 3, 7_000_000),
            (3_600, 60, 7_000_000),
            (3_600, 66, 3),
            (9, 99, 0),
            (9, 101, 5 * SECOND),
        ] {
            assert_eq!(turns.longest_ns(seconds, at_s * SECOND), longest_ns, "{seconds} {at_s}");
        }
    }

    #[test]
    fn every_ending_has_its_place_and_a_word_of_its_own() {
        for (at, ending) in Ending::ALL.into_iter().enumerate() {
            assert_eq!(ending.index(), at);
            assert!(Ending::ALL[..at].iter().all(|other| other.name() != ending.name()));
        }
    }
}
