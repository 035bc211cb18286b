//! What subscriptions missed is sent from the last values: of a session that had no room, of all that a lapped shard lost
//! ticks of, of what rates held back when a gap came. In portions, as the session takes them.

use crate::model::instrument::InstrumentId;
use crate::model::tick::{GapCause, Key, Stream};
use crate::ring::Packed;
use crate::session::{Missing, Subscription};
use crate::shard::sessions::{Sessions, Socket};
use crate::time::clock::Now;

/// Subscriptions of a session that are sent what they missed at once, before others have their turn.
const RECOVERED_AT_ONCE: usize = 64;
/// Subscriptions that are looked at for ticks that they missed in one step.
const SWEPT_PER_STEP: usize = 64;
/// Keys without a subscription that are passed over in one step.
const KEYS_PER_STEP: u32 = 64;

impl<S: Socket> Sessions<S> {
    /// Sends a session's dirty subscriptions what they missed, as far as there is room and there are steps; the rest has its
    /// turn.
    pub(in crate::shard) fn recover(&mut self, id: u32, now: Now) {
        let (mut told_any, mut gap, mut left) = (false, None, RECOVERED_AT_ONCE);
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
            told_any = true;
        }
        if told_any {
            self.queue(id);
        }
        if let Some((key, missing)) = gap {
            self.saw_gap(id, key, missing, now);
        }
        self.tell_seam(id, now);
        self.pong_recovered(id, now);
    }

    /// Sends a session what one of its subscriptions missed, and counts it; returns the loss that it reports due to
    /// slowness. `None` if there is no such subscription.
    fn tell_missed(&mut self, id: u32, key: Key, now: Now) -> Option<Option<Missing>> {
        let connection = self.connections.get_mut(id)?;
        let place = connection.place(key)?;
        let subscription = self.subscriptions.at(key, place)?;
        let symbol = self.table.get(key.instrument())?;
        let told = subscription.catch_up(key.stream(), self.ring.last_value(key));
        let counts = told.counts();
        connection.session.count(counts);
        if key.channel().is_some() {
            connection.session.rebased(told.rebased);
        }
        self.totals += counts;
        let (session, tx_us) = (&mut connection.session, now.wall_ns / 1_000);
        self.frames.catch_up(&told, key, symbol, tx_us, |frame| session.push(frame, now.mono_ns));
        Some(told.slowness().filter(|_| counts.dropped > 0))
    }

    /// Sends a session the state of an instrument, if that waits for room.
    #[cold]
    pub(in crate::shard) fn tell_state(&mut self, id: u32, instrument: InstrumentId, now: Now) {
        let key = Key::new(instrument, Stream::Status);
        let Some(connection) = self.connections.get_mut(id) else { return };
        let Some(place) = connection.place(key) else { return };
        let Some(subscription) = self.subscriptions.at(key, place) else { return };
        let Some(symbol) = self.table.get(instrument) else { return };
        // It stays in the queue, where nothing is left to be sent of it.
        let told = subscription.catch_up(Stream::Status, self.ring.last_value(key));
        let (session, tx_us) = (&mut connection.session, now.wall_ns / 1_000);
        self.frames.catch_up(&told, key, symbol, tx_us, |frame| session.push(frame, now.mono_ns));
    }

    /// A gap of the feed, where rates hold values back that came before it: those are sent first, for nothing that comes
    /// later can stand for them.
    #[cold]
    pub(in crate::shard) fn gap_after_held(&mut self, packed: Packed<'_>, now: Now) {
        let key = packed.key();
        let held = self.subscriptions.of(key).iter().filter(|s| s.is_held());
        for id in held.map(|s| s.session).collect::<Vec<_>>() {
            self.tell_held(id, key, now);
        }
        // Those of sessions that have gone.
        self.subscriptions.of(key).iter_mut().filter(|s| s.is_held()).for_each(Subscription::lapse);
        self.tick(packed, now);
    }

    /// Sends a session what a rate holds back of a subscription, if there is room. If there is none, it is behind, and waits;
    /// it stays among what the rate holds back, where nothing is left to be sent of it.
    fn tell_held(&mut self, id: u32, key: Key, now: Now) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        let Some(place) = connection.place(key) else { return };
        if connection.session.has_room() && connection.session.waiting() == 0 {
            self.tell_missed(id, key, now);
            self.queue(id);
        } else if let Some(subscription) = self.subscriptions.at(key, place) {
            subscription.lapse();
            connection.session.wait(key, now.mono_ns);
        }
    }

    /// Ticks were lost on the way to this shard: subscriptions that missed one recover from the last value.
    pub(in crate::shard) fn lapped(&mut self) {
        self.sweep = Some((Key::count(self.table.len()) as u32, 0));
    }

    /// True while subscriptions are looked at for ticks that they missed: until then the ring is not to be read.
    pub(in crate::shard) fn is_sweeping(&self) -> bool {
        self.sweep.is_some()
    }

    /// Looks at some more subscriptions for ticks that they missed. True if that is done.
    pub(in crate::shard) fn sweep(&mut self, now: Now) -> bool {
        // From the last of a row to the first: when one ends, the last one takes its place.
        while let Some((next, place)) = self.sweep {
            if place == 0 {
                let last = next.saturating_sub(KEYS_PER_STEP);
                let wanted = (last..next).rev().find(|key| !self.subscriptions.of(Key(*key)).is_empty());
                let before = wanted.unwrap_or(last);
                if next == 0 {
                    break;
                }
                self.sweep = Some((before, self.subscriptions.of(Key(before)).len()));
                if !self.steps.take_of_half(1) {
                    return false;
                }
                continue;
            }
            let key = Key(next);
            let from = place.saturating_sub(SWEPT_PER_STEP);
            let last = self.ring.last_value(key);
            for at in (from..place).rev() {
                let subscription = self.subscriptions.at(key, at as u32);
                let missed = last.zip(subscription).filter(|(last, s)| s.misses(last.head));
                if let Some((_, subscription)) = missed
                    && subscription.fell_behind(GapCause::Overrun)
                    && let Some(connection) = self.connections.get_mut(subscription.session)
                {
                    connection.session.wait(key, now.mono_ns);
                    let id = subscription.session;
                    self.put_to_work(id);
                }
            }
            self.sweep = Some((next, from));
            if !self.steps.take_of_half(1) {
                return false;
            }
        }
        self.sweep = None;
        true
    }
}
