//! What a shard notices around it at the beginning of a turn: that its feed stands or goes on, that the wall clock
//! was set, and that the shard itself could not run for a while.
//!
//! The deadlines of clients need nothing of that: they go by the shard's own steady time, which stood still meanwhile
//! (`Clock::of_thread`).

use std::sync::Arc;

use crate::model::instrument::InstrumentId;
use crate::model::tick::{Body, GapCause, State, Stream, Tick};
use crate::protocol::json;
use crate::shard::sessions::{Sessions, Socket};
use crate::system::pulse::Pulse;
use crate::time::clock::{MS, Now, SECOND};

/// For how long after a shard could not run what clients lose is the shard's doing: they are brought at once what
/// gathered meanwhile.
const OVERRUN_NS: u64 = 5 * SECOND;

/// What a shard knows of what is around it.
#[derive(Default)]
pub(in crate::shard) struct Surroundings {
    feed: Arc<Pulse>,
    /// Since when the feed stands, nanoseconds since the Unix epoch.
    feed_stands_ns: Option<u64>,
    /// Steps of the wall clock reported to clients.
    steps: u64,
    /// For how long the shard could not run so far.
    stood_ns: u64,
    /// What clients lose until then is attributed to the gateway; steady time.
    overrun_until_ns: u64,
    /// Before this the kernel is not asked for how long a host has been silent: it counts the time in which nothing
    /// was sent.
    pub(in crate::shard) ask_kernel_ns: u64,
}

impl Surroundings {
    /// The state that clients are to know instead of this one: while the feed stands, nothing is live.
    pub(in crate::shard) fn shown(&self, state: State) -> State {
        shown(state, self.feed_stands_ns.is_some())
    }
}

/// The state that clients are to know of an instrument: no price is live, nor does a replay play, whose feed stands.
pub fn shown(state: State, feed_stands: bool) -> State {
    match state {
        State::Live | State::Replay if feed_stands => State::Stale,
        state => state,
    }
}

impl<S: Socket> Sessions<S> {
    /// The thread that makes the ticks is this one.
    pub fn watch_feed(&mut self, feed: Arc<Pulse>) {
        self.context.feed = feed;
        self.context.steps = self.clock.steps().count();
    }

    /// Looks at the clocks and at the feed, and hands over what was measured where it is time.
    #[inline]
    pub(in crate::shard) fn look_around(&mut self, now: Now) {
        let machine_ns = self.clock.machine_ns(now.mono_ns);
        self.meter.look_at_clocks(machine_ns, now.wall_ns);
        self.meter.turn(machine_ns);
        let context = &self.context;
        if context.feed.is_late() != context.feed_stands_ns.is_some() {
            self.feed_stands(context.feed.late_ms(), now);
        }
        if self.clock.steps().count() != self.context.steps {
            self.tell_step(now);
        }
        let stood_ns = self.clock.stood_ns();
        if stood_ns != self.context.stood_ns {
            self.context.stood_ns = stood_ns;
            self.context.overrun_until_ns = now.mono_ns + OVERRUN_NS;
            self.context.ask_kernel_ns = now.mono_ns + self.options.dead_peer_ms * MS / 2;
        }
    }

    /// When what was measured is to be handed over, by the time of this shard.
    pub(in crate::shard) fn meter_due_ns(&self) -> Option<u64> {
        self.meter.due_ns().map(|due_ns| due_ns.saturating_sub(self.clock.stood_ns()))
    }

    /// Why a client that has no room loses what comes now.
    pub(in crate::shard) fn why_behind(&self, now: Now) -> GapCause {
        let is_late = now.mono_ns < self.context.overrun_until_ns;
        if is_late { GapCause::Overrun } else { GapCause::SlowConsumer }
    }

    /// The state of an instrument as clients are to know it.
    pub(in crate::shard) fn state(&self, instrument: InstrumentId) -> State {
        self.context.shown(self.ring.state(instrument))
    }

    /// The feed stands, and has done so for so long; or goes on. Whatever is live, or plays, is reported stale,
    /// and what it is afterwards: as a state that had no room, so that what waits for a slow client has its order
    /// and its bounds.
    #[cold]
    fn feed_stands(&mut self, late_ms: Option<u64>, now: Now) {
        let since_ns = late_ms.map(|ms| now.wall_ns.saturating_sub(ms * MS));
        self.context.feed_stands_ns = since_ns;
        self.frames.feed_stands_ns = since_ns;
        for key in self.subscriptions.keys() {
            if key.stream() != Stream::Status {
                continue;
            }
            let state = self.ring.state(key.instrument());
            if shown(state, true) == state {
                continue;
            }
            for subscription in self.subscriptions.of(key) {
                let Some(connection) = self.connections.get_mut(subscription.session) else { continue };
                if subscription.tell_again() {
                    connection.session.wait(key, now.mono_ns);
                }
            }
        }
        for id in self.ids() {
            self.recover(id, now);
        }
    }

    /// Sends `clock_step` to every client.
    #[cold]
    fn tell_step(&mut self, now: Now) {
        let steps = self.clock.steps();
        let by_us = steps.by_us();
        self.context.steps = steps.count();
        for id in self.ids() {
            let Some(connection) = self.connections.get_mut(id) else { continue };
            // A socket that takes nothing holds no more than one of what overtakes.
            if connection.session.is_closing() || connection.session.has_urgent() {
                continue;
            }
            let frame = self.frames.text(|out| json::clock_step(now.wall_ns / 1_000, by_us, out));
            connection.session.push_urgent(frame, now.mono_ns);
            self.queue_urgent(id);
        }
    }
}

/// A tick as clients are to know it while the feed has stood since then.
pub(in crate::shard) fn stale(tick: &Tick, since_ns: u64) -> Tick {
    match tick.body {
        Body::Status(state) if shown(state, true) != state => {
            Tick { body: Body::Status(shown(state, true)), rx_ns: since_ns, ..*tick }
        }
        _ => *tick,
    }
}
