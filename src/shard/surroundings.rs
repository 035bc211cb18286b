//! What a shard knows of its surroundings: whether the feed is stalled, steps of the wall clock, and whether the shard
//! itself could not run for a while.
//!
//! The deadlines of clients need none of this: they use the shard's own steady time, which stands still while the shard
//! cannot run (`Clock::of_thread`).

use std::sync::Arc;

use crate::model::tick::{Body, GapCause, State, Tick};
use crate::system::pulse::Pulse;
use crate::time::clock::{Clock, MS, Now, SECOND};

/// For how long after a stall of the shard losses of clients are attributed to it, nanoseconds: the backlog reaches
/// them at once.
const OVERRUN_NS: u64 = 5 * SECOND;

/// What a shard knows of its surroundings.
#[derive(Default)]
pub(super) struct Surroundings {
    feed: Arc<Pulse>,
    /// Since when the feed is stalled, nanoseconds since the Unix epoch.
    feed_stands_ns: Option<u64>,
    /// How many steps of the wall clock were reported to clients.
    steps: u64,
    /// How long the shard could not run, in total so far, nanoseconds.
    stood_ns: u64,
    /// Until when losses of clients are attributed to the gateway, steady time.
    overrun_until_ns: u64,
    /// When the kernel may be asked again how long a host has been silent, steady time: its answer counts the time in
    /// which the shard sent nothing.
    ask_kernel_ns: u64,
}

impl Surroundings {
    /// Watches the thread that makes the ticks from now on. Earlier steps of the clock are not reported.
    pub(super) fn watch(&mut self, feed: Arc<Pulse>, clock: &Clock) {
        self.feed = feed;
        self.steps = clock.steps().count();
    }

    /// The state that clients are shown for this one: while the feed is stalled, nothing is live.
    pub(super) fn shown(&self, state: State) -> State {
        shown(state, self.feed_stands_ns.is_some())
    }

    /// Whether the feed has stalled, or resumed, since the last look.
    pub(super) fn feed_changes(&self) -> bool {
        self.feed.is_late() != self.feed_stands_ns.is_some()
    }

    /// Looks whether the feed is stalled. Returns since when, nanoseconds since the Unix epoch.
    pub(super) fn look_at_feed(&mut self, now: Now) -> Option<u64> {
        self.feed_stands_ns = self.feed.late_ms().map(|ms| now.wall_ns.saturating_sub(ms * MS));
        self.feed_stands_ns
    }

    /// Whether the wall clock has stepped since the last report.
    pub(super) fn clock_stepped(&self, clock: &Clock) -> bool {
        clock.steps().count() != self.steps
    }

    /// Marks a step of the wall clock as reported. Returns its size, microseconds.
    pub(super) fn report_step(&mut self, clock: &Clock) -> i64 {
        let steps = clock.steps();
        let by_us = steps.by_us();
        self.steps = steps.count();
        by_us
    }

    /// Notes whether the shard could not run for a while. Then the kernel is not asked about hosts for half of
    /// `dead_peer_ms`.
    pub(super) fn look_at_stand(&mut self, clock: &Clock, dead_peer_ms: u64, now: Now) {
        let stood_ns = clock.stood_ns();
        if stood_ns != self.stood_ns {
            self.stood_ns = stood_ns;
            self.overrun_until_ns = now.mono_ns + OVERRUN_NS;
            self.ask_kernel_ns = now.mono_ns + dead_peer_ms * MS / 2;
        }
    }

    /// The cause of a loss that a client has now because there is no room.
    pub(super) fn why_behind(&self, now: Now) -> GapCause {
        let is_late = now.mono_ns < self.overrun_until_ns;
        if is_late { GapCause::Overrun } else { GapCause::SlowConsumer }
    }

    /// When the kernel may be asked how long a host has been silent, steady time.
    pub(super) fn ask_kernel_ns(&self) -> u64 {
        self.ask_kernel_ns
    }
}

/// The state that clients are shown: while the feed is stalled, `live` and `replay` become `stale`.
pub fn shown(state: State, feed_stands: bool) -> State {
    match state {
        State::Live | State::Replay if feed_stands => State::Stale,
        state => state,
    }
}

/// A tick as clients are shown it while the feed is stalled since `since_ns`.
pub(super) fn stale(tick: &Tick, since_ns: u64) -> Tick {
    match tick.body {
        Body::Status(state) if shown(state, true) != state => {
            Tick { body: Body::Status(shown(state, true)), rx_ns: since_ns, ..*tick }
        }
        _ => *tick,
    }
}
