//! Recovery: dirty subscriptions are sent what they missed from the last values, in portions. They are dirty because
//! there was no room, the shard was lapped, or a gap came while a rate held them back.

use super::Sessions;
use crate::model::instrument::InstrumentId;
use crate::model::tick::{Key, Stream};
use crate::ring::Packed;
use crate::session::{Missing, Subscription};
use crate::shard::socket::Socket;
use crate::time::clock::Now;

/// Subscriptions of a session that recover before other sessions have their turn.
const RECOVERED_AT_ONCE: usize = 64;

impl<S: Socket> Sessions<S> {
    /// Sends a session's dirty subscriptions what they missed, as far as there is room and there are steps; the rest
    /// waits for a turn.
    pub(super) fn recover(&mut self, id: u32, now: Now) {
        let (mut sent_any, mut gap, mut left) = (false, None, RECOVERED_AT_ONCE);
        while self.connections.get_mut(id).is_some_and(|connection| connection.session.can_recover()) {
            if left == 0 || !self.steps.take(1) {
                self.put_to_work(id);
                break;
            }
            left -= 1;
            let Some(connection) = self.connections.get_mut(id) else { return };
            let Some(key) = connection.session.next_waiting() else { break };
            if key.channel().is_some() && connection.session.has_states_waiting() {
                self.tell_state(id, key.instrument(), now);
            }
            let Some(missing) = self.tell_missed(id, key, now) else { continue };
            gap = gap.or_else(|| Some((key, missing?)));
            sent_any = true;
        }
        if sent_any {
            self.queue(id);
        }
        if let Some((key, missing)) = gap {
            self.saw_gap(id, key, missing, now);
        }
        self.tell_seam(id, now);
        self.pong_recovered(id, now);
    }

    /// Sends a session what one of its subscriptions missed, and counts it. Returns the loss due to slowness that was
    /// reported, if any; the outer `None` if there is no such subscription.
    fn tell_missed(&mut self, id: u32, key: Key, now: Now) -> Option<Option<Missing>> {
        let connection = self.connections.get_mut(id)?;
        let place = connection.holdings.place(key)?;
        let subscription = self.directory.at(key, place)?;
        let symbol = self.env.table.get(key.instrument())?;
        let told = subscription.catch_up(key.stream(), self.env.ring.last_value(key));
        let counts = told.counts();
        connection.session.count(counts);
        if key.channel().is_some() {
            connection.session.rebased(told.rebased);
        }
        self.egress.count(counts);
        let (session, tx_us) = (&mut connection.session, now.wall_ns / 1_000);
        self.egress.frames().catch_up(&told, key, symbol, tx_us, |frame| session.push(frame, now.mono_ns));
        Some(told.slowness().filter(|_| counts.dropped > 0))
    }

    /// Sends a session the state of an instrument, if the state waits for room.
    #[cold]
    pub(super) fn tell_state(&mut self, id: u32, instrument: InstrumentId, now: Now) {
        let key = Key::new(instrument, Stream::Status);
        let Some(connection) = self.connections.get_mut(id) else { return };
        let Some(place) = connection.holdings.place(key) else { return };
        let Some(subscription) = self.directory.at(key, place) else { return };
        let Some(symbol) = self.env.table.get(instrument) else { return };
        // Its entry stays in the queue, with nothing left to send.
        let told = subscription.catch_up(Stream::Status, self.env.ring.last_value(key));
        let (session, tx_us) = (&mut connection.session, now.wall_ns / 1_000);
        self.egress.frames().catch_up(&told, key, symbol, tx_us, |frame| session.push(frame, now.mono_ns));
    }

    /// Delivers a gap of the feed. Earlier values that rates hold back are sent first, because no later value may stand
    /// for them.
    #[cold]
    pub(super) fn gap_after_held(&mut self, packed: Packed<'_>, now: Now) {
        let key = packed.key();
        let held = self.directory.of(key).iter().filter(|s| s.is_held());
        for id in held.map(|s| s.session).collect::<Vec<_>>() {
            self.tell_held(id, key, now);
        }
        // What is left belongs to sessions that are gone.
        self.directory.of(key).iter_mut().filter(|s| s.is_held()).for_each(Subscription::lapse);
        self.tick(packed, now);
    }

    /// Sends a session what a rate holds back of a subscription. If there is no room, the subscription becomes dirty.
    /// Its entry with the rate stays, with nothing left to send.
    fn tell_held(&mut self, id: u32, key: Key, now: Now) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        let Some(place) = connection.holdings.place(key) else { return };
        if connection.session.has_room() && connection.session.waiting() == 0 {
            self.tell_missed(id, key, now);
            self.queue(id);
        } else if let Some(subscription) = self.directory.at(key, place) {
            subscription.lapse();
            connection.session.wait(key, now.mono_ns);
        }
    }

    /// Continues a sweep after lost ticks. True once it is finished: until then the ring is not read.
    pub(super) fn sweep(&mut self, now: Now) -> bool {
        let Self { directory, connections, workload, env, .. } = self;
        let mut missed = |session, key| {
            if let Some(connection) = connections.get_mut(session) {
                connection.session.wait(key, now.mono_ns);
                connection.put_to_work(session, workload);
            }
        };
        while directory.sweep_some(&env.ring, &mut missed) {
            if !self.steps.take_of_half(1) {
                return false;
            }
        }
        true
    }
}
