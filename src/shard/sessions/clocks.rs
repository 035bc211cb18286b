//! How a shard reacts to its [surroundings](crate::shard::surroundings) at the beginning of a turn.

use std::sync::Arc;

use super::Sessions;
use crate::model::instrument::InstrumentId;
use crate::model::tick::{State, Stream};
use crate::protocol::json;
use crate::shard::socket::Socket;
use crate::shard::surroundings::shown;
use crate::system::pulse::Pulse;
use crate::time::clock::Now;

impl<S: Socket> Sessions<S> {
    /// Sets the pulse of the thread that makes the ticks.
    pub fn watch_feed(&mut self, feed: Arc<Pulse>) {
        self.surroundings.watch(feed, &self.env.clock);
    }

    /// Looks at the clocks and at the feed, and hands over measurements that are due.
    #[inline]
    pub(super) fn look_around(&mut self, now: Now) {
        let machine_ns = self.env.clock.machine_ns(now.mono_ns);
        let meter = self.egress.meter();
        meter.look_at_clocks(machine_ns, now.wall_ns);
        meter.turn(machine_ns);
        if self.surroundings.feed_changes() {
            self.feed_changed(now);
        }
        if self.surroundings.clock_stepped(&self.env.clock) {
            self.tell_step(now);
        }
        self.surroundings.look_at_stand(&self.env.clock, self.env.options.times.dead_peer_ms, now);
    }

    /// The state of an instrument as clients are shown it.
    pub(super) fn state(&self, instrument: InstrumentId) -> State {
        self.surroundings.shown(self.env.ring.state(instrument))
    }

    /// Handles the feed when it stalls or resumes: states that are `live` or `replay` are sent again, as `stale` or as
    /// they are. They wait like states that found no room, so the order and the bounds for slow clients hold.
    #[cold]
    fn feed_changed(&mut self, now: Now) {
        let since_ns = self.surroundings.look_at_feed(now);
        self.egress.frames().set_feed_stands(since_ns);
        for key in self.directory.keys() {
            if key.stream() != Stream::Status {
                continue;
            }
            let state = self.env.ring.state(key.instrument());
            if shown(state, true) == state {
                continue;
            }
            for subscription in self.directory.of(key) {
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
        let by_us = self.surroundings.report_step(&self.env.clock);
        for id in self.ids() {
            let Some(connection) = self.connections.get_mut(id) else { continue };
            // At most one urgent frame waits for a socket that takes nothing.
            if connection.session.is_closing() || connection.session.has_urgent() {
                continue;
            }
            let frame = self.egress.text(|out| json::clock_step(now.wall_ns / 1_000, by_us, out));
            connection.session.push_urgent(frame, now.mono_ns);
            self.queue_urgent(id);
        }
    }
}
