//! Where subscriptions begin.

/// Where a subscription that catches up begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Beginning {
    /// With the first tick that was received then or later, nanoseconds since the Unix epoch.
    from_ns: u64,
    /// With the last value, once it has caught up, if there was no such tick.
    snapshot: bool,
}

impl Beginning {
    /// Begins with what was received at this time or later, nanoseconds since the Unix epoch; if there was nothing, with a
    /// `snapshot`, or with whatever comes next.
    pub(super) fn new(from_ns: u64, snapshot: bool) -> Self {
        Self { from_ns, snapshot }
    }

    /// When that was received, nanoseconds since the Unix epoch.
    pub(super) fn since_ns(&self) -> u64 {
        self.from_ns
    }

    /// Whether the last value stands for ticks that there were none of.
    pub(super) fn snapshot(&self) -> bool {
        self.snapshot
    }
}

/// Where a subscription begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StartAt {
    /// With the last value, marked `snap`.
    Snapshot,
    /// Behind the newest number there is.
    FromHere,
    /// With the first number: the instrument was listed after the client asked for it.
    FromFirst,
    /// Behind this number, which is the newest but for what the ring still brings.
    After(u64),
    /// Behind this number, with what is newest now.
    Newest(u64),
    /// Behind this number, with what the ring holds from this position on.
    Ring(u64, u64),
    /// Behind this number, with what the shard has read since it was at this position.
    Behind(u64, u64),
    /// With what was recorded.
    Past(Beginning),
}
