//! Answers to `ping`. A `pong` proves to a client that it has been told whatever the gateway had to tell when its ping came, so
//! what is in the ring at that moment goes first.

use std::collections::VecDeque;

use super::sessions::{Sessions, Socket};
use crate::clock::Now;
use crate::protocol::json as message;
use crate::protocol::{Echo, Id};

/// Pings that may wait for the ring to be read, of all clients of a shard: some 2 MB. Further ones are refused.
const HELD_MAX: usize = 16_384;

/// How many of them are answered in one turn, so that those who wait for other things wait no longer for that.
const PONGS_PER_TURN: usize = 256;

/// A ping that waits.
pub(super) struct Held {
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
pub(super) struct HeldPings(VecDeque<Held>);

impl<S: Socket> Sessions<S> {
    /// Answers a ping, now or when the shard has come to what the ring holds now.
    pub(super) fn ping(&mut self, id: u32, name: Option<Id>, t: Option<Echo>, now: Now) {
        let Some(serial) = self.connections.get(id).map(|connection| connection.serial) else { return };
        let until = self.ring.published();
        let held = Held { until, client: id, serial, name, t, in_us: now.wall_ns / 1_000 };
        if until <= self.cursor && self.held_pings.0.is_empty() && !self.is_sweeping() {
            self.pong(held, now);
        } else if self.held_pings.0.len() < HELD_MAX {
            self.held_pings.0.push_back(held);
        } else {
            self.counters.faults.add(1);
            let msg = "the gateway is behind its feed, and too many pings wait for it";
            self.say(id, &message::error(held.name.as_ref(), "rate_limited", msg, true), now);
        }
    }

    /// Answers pings whose ticks have been read. True if there are more of those.
    pub(super) fn pong_held(&mut self, now: Now) -> bool {
        // What was lost on the way is told first.
        if self.is_sweeping() {
            return false;
        }
        let cursor = self.cursor;
        for _ in 0..PONGS_PER_TURN {
            let Some(held) = self.held_pings.0.pop_front_if(|held| held.until <= cursor) else {
                return false;
            };
            if self.connections.get(held.client).is_some_and(|connection| connection.serial == held.serial) {
                self.pong(held, now);
            }
        }
        self.held_pings.0.front().is_some_and(|held| held.until <= cursor)
    }

    /// Answers behind what its client is told in portions.
    fn pong(&mut self, held: Held, now: Now) {
        let id = held.client;
        self.recover(id, now);
        let Some(connection) = self.connections.get_mut(id) else { return };
        if connection.session.can_recover() {
            connection.pongs.push(held);
        } else {
            self.say_pong(&held, now);
        }
    }

    /// Answers the pings of a client that was told what there is room for.
    pub(super) fn pong_recovered(&mut self, id: u32, now: Now) {
        let Some(connection) = self.connections.get_mut(id).filter(|c| !c.pongs.is_empty()) else { return };
        if !connection.session.can_recover() {
            let pongs = std::mem::take(&mut connection.pongs);
            pongs.iter().for_each(|held| self.say_pong(held, now));
        }
    }

    fn say_pong(&mut self, held: &Held, now: Now) {
        let out_us = self.clock.wall_ns() / 1_000;
        let pong = message::Pong::new(held.name.as_ref(), held.t.as_ref(), held.in_us, out_us);
        self.say(held.client, &pong, now);
    }
}
