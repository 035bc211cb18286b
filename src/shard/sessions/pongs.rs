//! Answers to `ping`. A `pong` proves to a client that it has been told whatever the gateway had to tell when its ping came, so
//! what is in the ring at that moment goes first, and what waits for the client's window.

use std::collections::VecDeque;

use crate::protocol::json as message;
use crate::protocol::{Echo, Id};
use crate::shard::sessions::{Sessions, Socket};
use crate::time::clock::{MS, Now};

/// Pings that may wait for the ring to be read, of all clients of a shard: some 2 MB. Further ones are refused.
const HELD_MAX: usize = 16_384;

/// Pings of one client that may wait for what is to be sent before them. Further ones are refused.
const WITHHELD_MAX: usize = 256;

/// How many of them are answered in one turn, so that those who wait for other things wait no longer for that.
const PONGS_PER_TURN: usize = 256;

/// A ping that waits.
pub(in crate::shard) struct Held {
    /// The position of the ring up to which the shard has to have read.
    until: u64,
    client: u32,
    serial: u64,
    name: Option<Id>,
    t: Option<Echo>,
    in_us: u64,
}

/// Pings that wait, in the order in which they came, which is that of the ring.
#[derive(Default)]
pub(in crate::shard) struct HeldPings(VecDeque<Held>);

/// Pings of one client that wait for what is to be sent before them, each with the time, milliseconds of steady time,
/// from which on nothing has to be sent before it.
pub(in crate::shard) type Withheld = VecDeque<(u32, Held)>;

impl<S: Socket> Sessions<S> {
    /// Answers a ping, now or when the shard has come to what the ring holds now.
    pub(in crate::shard) fn ping(&mut self, id: u32, name: Option<Id>, t: Option<Echo>, now: Now) {
        let Some(serial) = self.connections.get(id).map(|connection| connection.serial) else { return };
        let until = self.ring.published();
        let held = Held { until, client: id, serial, name, t, in_us: now.wall_ns / 1_000 };
        if until <= self.cursor && self.held_pings.0.is_empty() && !self.is_sweeping() {
            self.pong_in_order(held, now);
        } else if self.held_pings.0.len() < HELD_MAX {
            self.held_pings.0.push_back(held);
        } else {
            self.refuse_ping(&held, "the gateway is behind its feed, and too many pings wait for it", now);
        }
    }

    fn refuse_ping(&mut self, held: &Held, msg: &str, now: Now) {
        self.counters.faults.add(1);
        self.say(held.client, &message::error(held.name.as_ref(), "rate_limited", msg, true), now);
    }

    /// Answers pings whose ticks have been read. True if there are more of those.
    pub(in crate::shard) fn pong_held(&mut self, now: Now) -> bool {
        // What was lost on the way goes first.
        if self.is_sweeping() {
            return false;
        }
        let cursor = self.cursor;
        for _ in 0..PONGS_PER_TURN {
            let Some(held) = self.held_pings.0.pop_front_if(|held| held.until <= cursor) else {
                return false;
            };
            if self.connections.get(held.client).is_some_and(|connection| connection.serial == held.serial) {
                self.pong_in_order(held, now);
            }
        }
        self.held_pings.0.front().is_some_and(|held| held.until <= cursor)
    }

    /// Answers a ping behind all that the client has to be sent before: what is sent in portions, and what waits for its
    /// window.
    fn pong_in_order(&mut self, held: Held, now: Now) {
        let id = held.client;
        self.recover(id, now);
        let Some(connection) = self.connections.get_mut(id) else { return };
        if connection.session.can_recover() {
            connection.pongs.push(held);
        } else {
            self.pong_unless_withheld(held, now);
        }
    }

    /// Answers the pings of a client that was sent what there is room for.
    pub(in crate::shard) fn pong_recovered(&mut self, id: u32, now: Now) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        if !connection.pongs.is_empty() && !connection.session.can_recover() {
            for held in std::mem::take(&mut connection.pongs) {
                self.pong_unless_withheld(held, now);
            }
        }
        self.pong_withheld(id, now);
    }

    fn pong_unless_withheld(&mut self, held: Held, now: Now) {
        let Some(connection) = self.connections.get_mut(held.client) else { return };
        let since_ms = (now.mono_ns / MS) as u32;
        if connection.withheld.is_none() && !connection.session.withholds(since_ms) {
            return self.pong(&held, now);
        }
        let withheld = connection.withheld.get_or_insert_default();
        if withheld.len() < WITHHELD_MAX {
            withheld.push_back((since_ms, held));
        } else {
            self.refuse_ping(&held, "too many pings wait for what is told before them", now);
        }
    }

    /// Answers the pings of a client before which nothing has to be sent any more.
    fn pong_withheld(&mut self, id: u32, now: Now) {
        while let Some(connection) = self.connections.get_mut(id)
            && let Some(withheld) = &mut connection.withheld
        {
            let session = &connection.session;
            match withheld.pop_front_if(|(since_ms, _)| !session.withholds(*since_ms)) {
                Some((_, held)) => self.pong(&held, now),
                None if withheld.is_empty() => connection.withheld = None,
                None => return,
            }
        }
    }

    fn pong(&mut self, held: &Held, now: Now) {
        let out_us = self.clock.wall_ns() / 1_000;
        let pong = message::Pong::new(held.name.as_ref(), held.t.as_ref(), held.in_us, out_us);
        self.say(held.client, &pong, now);
    }
}
