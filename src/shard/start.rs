//! Where subscriptions begin.

/// Where a subscription that catches up begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Beginning {
    /// With the first tick that was received then or later, nanoseconds since the Unix epoch.
    from_ns: u64,
    /// If there is no such tick: with the last value, once it has caught up.
    snapshot: bool,
}

impl Beginning {
    /// Begins with the first tick received at this time or later, nanoseconds since the Unix epoch; if there is none,
    /// with a `snapshot`, or with whatever comes next.
    pub(super) fn new(from_ns: u64, snapshot: bool) -> Self {
        Self { from_ns, snapshot }
    }

    /// The earliest receive time, nanoseconds since the Unix epoch.
    pub(super) fn since_ns(&self) -> u64 {
        self.from_ns
    }

    /// Whether the last value is sent if there is no such tick.
    pub(super) fn snapshot(&self) -> bool {
        self.snapshot
    }
}

/// Where a subscription begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StartAt {
    /// With the last value, marked `snap`.
    Snapshot,
    /// After the newest sequence number.
    FromHere,
    /// With the first sequence number: the instrument was listed after the client requested it.
    FromFirst,
    /// After this sequence number, which is the newest but for ticks that the shard has not read yet.
    After(u64),
    /// After this sequence number, with the newest value.
    Newest(u64),
    /// After this sequence number, with what the ring holds from this position on.
    Ring(u64, u64),
    /// After this sequence number, with what the shard has read since it was at this position.
    Behind(u64, u64),
    /// With recorded ticks.
    Past(Beginning),
}
