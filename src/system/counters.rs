//! Counters for the operator. Each has one writer; any thread may read.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number that one thread updates and others read.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds to the value.
    pub fn add(&self, by: u64) {
        self.0.fetch_add(by, Ordering::Relaxed);
    }

    /// Subtracts from the value, for counters of what exists now.
    pub fn sub(&self, by: u64) {
        self.0.fetch_sub(by, Ordering::Relaxed);
    }

    /// Replaces the value.
    pub fn set(&self, to: u64) {
        self.0.store(to, Ordering::Relaxed);
    }

    /// Returns the value.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Why the connection of a client ended. The first cause counts: if the gateway disconnects a client that
/// then resets the connection, the gateway's reason counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The client closed the connection with a close frame.
    Closed,
    /// The client's side ended the connection without a close frame.
    Left,
    /// The client's side reset the connection.
    Reset,
    /// The client's host no longer acknowledges anything.
    DeadPeer,
    /// The socket failed otherwise.
    Failed,
    /// The client did not keep up.
    SlowConsumer,
    /// The client was cut because memory was short; its close code is that of
    /// [`SlowConsumer`](Self::SlowConsumer).
    Memory,
    /// Nothing was received from the client for too long.
    NoPong,
    /// The gateway stops.
    Shutdown,
    /// The replay room has ended.
    RoomEnded,
    /// The replay room failed.
    Busy,
    /// The client's bytes are not WebSocket frames.
    Protocol,
    /// The client sent a binary message.
    Unsupported,
    /// The client sent text that is not UTF-8.
    NotUtf8,
    /// The client sent a message over the limit.
    TooBig,
    /// The client exceeded another limit.
    Limit,
}

impl Ending {
    /// Every ending.
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

    /// Returns the name for the operator: that of the protocol where it has one, except for
    /// [`Memory`](Self::Memory).
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

    /// Returns the index in [`ALL`](Self::ALL).
    pub const fn index(self) -> usize {
        self as usize
    }
}

/// The gaps of one cause sent to clients.
#[derive(Debug, Default)]
pub struct GapCounters {
    /// Gap messages.
    pub told: Counter,
    /// Sequence numbers that they named: ticks that were not delivered.
    pub ticks: Counter,
}

/// The durations of a thread's turns. It has one writer.
#[derive(Debug)]
pub struct TurnTimes {
    /// Turns per bucket: up to each of [`BOUNDS_NS`](Self::BOUNDS_NS), and beyond the last.
    counts: [Counter; Self::BOUNDS_NS.len() + 1],
    sum_ns: Counter,
    /// The second of steady time, and the longest turn in it in nanoseconds; a ring indexed by second.
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
    /// The bucket bounds in nanoseconds.
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
    /// The number of past seconds for which the longest turn is kept.
    pub const SECONDS: usize = 64;

    /// Records a turn of `took_ns` that ended at the steady time `now_ns`.
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

    /// Returns the turns per bucket: up to each bound, and beyond the last.
    pub fn counts(&self) -> [u64; Self::BOUNDS_NS.len() + 1] {
        std::array::from_fn(|at| self.counts[at].get())
    }

    /// Returns the total duration in nanoseconds.
    pub fn sum_ns(&self) -> u64 {
        self.sum_ns.get()
    }

    /// Returns the longest turn that ended in the last `seconds`, at most [`SECONDS`](Self::SECONDS), before
    /// this steady time; in nanoseconds.
    pub fn longest_ns(&self, seconds: u64, now_ns: u64) -> u64 {
        let now = now_ns / 1_000_000_000;
        let since = now.saturating_sub(seconds.min(Self::SECONDS as u64 - 1));
        let recent = self.longest.iter().filter(|(of, _)| (since..=now).contains(&of.get()));
        recent.map(|(_, longest)| longest.get()).max().unwrap_or(0)
    }
}

/// The number of gap causes in [`ShardCounters::gaps`].
pub const GAP_CAUSES: usize = 5;

/// The names of the counters in [`ShardCounters::taken_back`].
pub const TAKEN_BACK: [&str; 4] = ["sent", "merged", "dropped", "lost"];

/// The counters of a shard. Updated once per turn.
#[derive(Debug, Default)]
pub struct ShardCounters {
    /// Sessions now.
    pub sessions: Counter,
    /// Sessions since the start.
    pub came: Counter,
    /// Sessions that ever reached `warn` or worse.
    pub slowed: Counter,
    /// Clients being moved to the shard now.
    pub coming: Counter,
    /// Sessions with at least one subscription now.
    pub subscribed: Counter,
    /// Sessions now at level `warn`.
    pub warned: Counter,
    /// Sessions now at level `shed`.
    pub shedding: Counter,
    /// Sessions now at level `cut`.
    pub nearly_cut: Counter,
    /// How many times a session entered `shed`.
    pub sheds: Counter,
    /// Sessions that ended, by [`Ending::ALL`].
    pub ended: [Counter; Ending::ALL.len()],
    /// Subscriptions now: one per session, instrument and stream.
    pub subscriptions: Counter,
    /// Instruments that its subscriptions have taken up, in the order of listing.
    pub instruments: Counter,
    /// Sessions with wildcards.
    pub wild: Counter,
    /// Turns, idle ones included.
    pub turns: Counter,
    /// Durations of the turns.
    pub turn_times: TurnTimes,
    /// Ticks taken from the ring.
    pub ticks: Counter,
    /// Ticks lost because the ring lapped the shard.
    pub lapped: Counter,
    /// Positions of the ring that were read again for clients that resume; other costs of a `resume` are
    /// counted as positions too.
    pub reread: Counter,
    /// Ticks with at least one subscriber: each was encoded once.
    pub encoded: Counter,
    /// Ticks queued for a session, as shared frames or its own.
    pub sent: Counter,
    /// Ticks replaced by a newer one of the same subscription.
    pub merged: Counter,
    /// Ticks named to a session by a `gap` because it or the shard was slow.
    pub dropped: Counter,
    /// Sequence numbers named to a session by a `gap` because the feed lost them.
    pub lost: Counter,
    /// Gaps, by the number of their cause.
    pub gaps: [GapCounters; GAP_CAUSES],
    /// Writes to sockets.
    pub writes: Counter,
    /// Bytes accepted by the sockets.
    pub bytes: Counter,
    /// Requests answered.
    pub requests: Counter,
    /// Requests answered with an error.
    pub faults: Counter,
    /// Steps of turns spent on requests and their consequences.
    pub steps: Counter,
    /// Ticks waiting in the ring at the end of the last turn.
    pub behind: Counter,
    /// Bytes of memory in outboxes now.
    pub outbox_bytes: Counter,
    /// Bytes unacknowledged in the kernel now, for clients that are checked because they may be slow.
    pub unacked_bytes: Counter,
    /// How many times the queue of a session was taken back because memory was short.
    pub memory_sheds: Counter,
    /// Ticks taken back after they were counted, by [`TAKEN_BACK`]: they are counted again when they are sent
    /// or missed.
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
