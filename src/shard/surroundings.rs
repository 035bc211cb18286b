//! What a shard knows of its surroundings: whether its feed stands, steps of the wall clock, and whether the shard itself
//! could not run for a while.
//!
//! The deadlines of clients need nothing of that: they go by the shard's own steady time, which stood still meanwhile
//! (`Clock::of_thread`).

use std::sync::Arc;

use crate::model::tick::{Body, GapCause, State, Tick};
use crate::system::pulse::Pulse;
use crate::time::clock::{Clock, MS, Now, SECOND};

/// How long after a shard could not run the losses of clients are attributed to it: they are brought at once what gathered
/// meanwhile.
const OVERRUN_NS: u64 = 5 * SECOND;

/// What a shard knows of its surroundings.
#[derive(Default)]
pub(super) struct Surroundings {
    feed: Arc<Pulse>,
    /// Since when the feed stands, nanoseconds since the Unix epoch.
    feed_stands_ns: Option<u64>,
    /// Steps of the wall clock reported to clients.
    steps: u64,
    /// How long the shard could not run so far, nanoseconds.
    stood_ns: u64,
    /// What clients lose until then is attributed to the gateway; steady time.
    overrun_until_ns: u64,
    /// Before this the kernel is not asked how long a host has been silent: it counts the time in which nothing was sent.
    ask_kernel_ns: u64,
}

impl Surroundings {
    /// Watches the thread that makes the ticks from now on. Earlier steps of the clock are not reported.
    pub(super) fn watch(&mut self, feed: Arc<Pulse>, clock: &Clock) {
        self.feed = feed;
        self.steps = clock.steps().count();
    }

    /// The state that clients are shown instead of this one: while the feed stands, nothing is live.
    pub(super) fn shown(&self, state: State) -> State {
        shown(state, self.feed_stands_ns.is_some())
    }

    /// Whether the feed has come to a stand, or goes on again.
    pub(super) fn feed_changes(&self) -> bool {
        self.feed.is_late() != self.feed_stands_ns.is_some()
    }

    /// Takes up how the feed does. Returns since when it stands, nanoseconds since the Unix epoch.
    pub(super) fn look_at_feed(&mut self, now: Now) -> Option<u64> {
        self.feed_stands_ns = self.feed.late_ms().map(|ms| now.wall_ns.saturating_sub(ms * MS));
        self.feed_stands_ns
    }

    /// Whether the wall clock was set since that was reported.
    pub(super) fn clock_stepped(&self, clock: &Clock) -> bool {
        clock.steps().count() != self.steps
    }

    /// A step of the wall clock is reported: by how many microseconds it was set.
    pub(super) fn report_step(&mut self, clock: &Clock) -> i64 {
        let steps = clock.steps();
        let by_us = steps.by_us();
        self.steps = steps.count();
        by_us
    }

    /// Notes that the shard has not run for a while, if so. The host of a client is dead after `dead_peer_ms`.
    pub(super) fn look_at_stand(&mut self, clock: &Clock, dead_peer_ms: u64, now: Now) {
        let stood_ns = clock.stood_ns();
        if stood_ns != self.stood_ns {
            self.stood_ns = stood_ns;
            self.overrun_until_ns = now.mono_ns + OVERRUN_NS;
            self.ask_kernel_ns = now.mono_ns + dead_peer_ms * MS / 2;
        }
    }

    /// Why a client that has no room loses what comes now.
    pub(super) fn why_behind(&self, now: Now) -> GapCause {
        let is_late = now.mono_ns < self.overrun_until_ns;
        if is_late { GapCause::Overrun } else { GapCause::SlowConsumer }
    }

    /// When the kernel may be asked how long a host has been silent, steady time.
    pub(super) fn ask_kernel_ns(&self) -> u64 {
        self.ask_kernel_ns
    }
}

/// The state that clients are to know of an instrument: no price is live, nor does a replay play, whose feed stands.
pub fn shown(state: State, feed_stands: bool) -> State {
    match state {
        State::Live | State::Replay if feed_stands => State::Stale,
        state => state,
    }
}

/// A tick as clients are to know it while the feed has stood since then.
pub(super) fn stale(tick: &Tick, since_ns: u64) -> Tick {
    match tick.body {
        Body::Status(state) if shown(state, true) != state => {
            Tick { body: Body::Status(shown(state, true)), rx_ns: since_ns, ..*tick }
        }
        _ => *tick,
    }
}
