//! Answers to `ping`: see [`pongs`](crate::shard::pongs).

use super::Sessions;
use crate::protocol::json as message;
use crate::protocol::{Echo, Id};
use crate::shard::pongs::Held;
use crate::shard::socket::Socket;
use crate::time::clock::{MS, Now};

/// Pings that are answered in one turn, so that they do not delay other work for sessions.
const PONGS_PER_TURN: usize = 256;

impl<S: Socket> Sessions<S> {
    /// Answers a ping, now or when the shard has read what the ring holds now.
    pub(super) fn ping(&mut self, id: u32, name: Option<Id>, t: Option<Echo>, now: Now) {
        let Some(serial) = self.connections.get(id).map(|connection| connection.serial) else { return };
        let held = Held::new((id, serial), (name, t), self.env.ring.published(), now.wall_ns / 1_000);
        if self.held_pings.may_pass(&held, self.backfill.cursor()) && !self.directory.is_sweeping() {
            self.pong_in_order(held, now);
        } else if let Err(held) = self.held_pings.push(held) {
            self.refuse_ping(&held, "the gateway is behind its feed, and too many pings wait for it", now);
        }
    }

    fn refuse_ping(&mut self, held: &Held, msg: &str, now: Now) {
        self.env.counters.faults.add(1);
        self.say(held.client().0, &message::error(held.name(), "rate_limited", msg, true), now);
    }

    /// Answers pings whose ticks have been read. True if there are more of those.
    pub(super) fn pong_held(&mut self, now: Now) -> bool {
        // Subscriptions that missed ticks recover first.
        if self.directory.is_sweeping() {
            return false;
        }
        let cursor = self.backfill.cursor();
        for _ in 0..PONGS_PER_TURN {
            let Some(held) = self.held_pings.next(cursor) else { return false };
            let (id, serial) = held.client();
            if self.connections.is_same(id, serial) {
                self.pong_in_order(held, now);
            }
        }
        self.held_pings.has_next(cursor)
    }

    /// Answers a ping after all that the client has to be sent first: what is sent in portions, and what its window
    /// holds back.
    fn pong_in_order(&mut self, held: Held, now: Now) {
        let (id, _) = held.client();
        self.recover(id, now);
        let Some(connection) = self.connections.get_mut(id) else { return };
        if connection.session.can_recover() {
            connection.pings.push(held);
        } else {
            self.pong_unless_withheld(held, now);
        }
    }

    /// Answers the pings of a client that was sent what there is room for.
    pub(super) fn pong_recovered(&mut self, id: u32, now: Now) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        if !connection.session.can_recover() {
            for held in connection.pings.take() {
                self.pong_unless_withheld(held, now);
            }
        }
        self.pong_withheld(id, now);
    }

    fn pong_unless_withheld(&mut self, held: Held, now: Now) {
        let Some(connection) = self.connections.get_mut(held.client().0) else { return };
        let since_ms = (now.mono_ns / MS) as u32;
        if !connection.pings.withholds() && !connection.session.withholds(since_ms) {
            return self.pong(&held, now);
        }
        if let Err(held) = connection.pings.withhold(since_ms, held) {
            self.refuse_ping(&held, "too many pings wait for what is told before them", now);
        }
    }

    /// Answers the withheld pings of a client before which nothing is left to send.
    fn pong_withheld(&mut self, id: u32, now: Now) {
        while let Some(connection) = self.connections.get_mut(id)
            && let session = &connection.session
            && let Some(held) = connection.pings.next_withheld(|since_ms| session.withholds(since_ms))
        {
            self.pong(&held, now);
        }
    }

    fn pong(&mut self, held: &Held, now: Now) {
        let out_us = self.env.clock.wall_ns() / 1_000;
        let pong = message::Pong::new(held.name(), held.echo(), held.in_us(), out_us);
        self.say(held.client().0, &pong, now);
    }
}
