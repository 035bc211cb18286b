//! Sessions that resume or catch up reread in turns: see [`readers`](crate::shard::readers).
//!
//! All of them together look at a limited number of positions per turn. Reread data waits in an outbox only as far as
//! the socket is likely to take it soon, since the ring keeps it, too. So many clients that return at once take little
//! memory, and others do not wait for them.

use super::Sessions;
use crate::shard::positions::Cover;
use crate::shard::reading::{Reading, Stop};
use crate::shard::socket::Socket;
use crate::time::clock::Now;

/// Rereading sessions that are visited in one turn.
const READERS_PER_TURN: usize = 256;

impl<S: Socket> Sessions<S> {
    /// Has rereading sessions continue, as far as this turn has positions.
    pub(super) fn read_all(&mut self, now: Now) {
        self.take_answers(now);
        self.backfill.readers().begin();
        for _ in 0..READERS_PER_TURN {
            if !self.backfill.has_slots() {
                break;
            }
            let Some((id, serial)) = self.backfill.readers().next() else { break };
            match self.connections.get_same(id, serial) {
                Some(connection) if connection.progress.reading.is_some() => {
                    // Its dirty subscriptions have waited longer than what it rereads.
                    if connection.session.waiting() > 0 {
                        self.recover(id, now);
                    }
                    self.let_go_late(id, now);
                    if self.read_on(id, now) {
                        self.backfill.readers().wake();
                    }
                }
                gone => {
                    if let Some(connection) = gone {
                        connection.progress.reads = false;
                    }
                    self.backfill.readers().leave();
                }
            }
        }
    }

    /// Sends a session the next ticks of the streams that it resumes.
    pub(super) fn read_ways(&mut self, id: u32, reading: &mut Reading, now: Now) -> Stop {
        match self.backfill.cover(&self.env.ring, reading.at()) {
            Cover::Whole => {}
            Cover::Later => return Stop::Paused,
            Cover::Lost => return Stop::Lacking,
        }
        let had = self.backfill.slots();
        let mut sent_any = false;
        let stop = loop {
            if reading.ways().is_empty() && !self.backfill.look_beyond(reading) {
                break Stop::Joined;
            }
            let connection = self.connections.get_mut(id);
            let connection = connection.filter(|connection| connection.may_read(self.env.options.tuning));
            let Some(connection) = connection.filter(|_| self.backfill.has_slots()) else {
                break Stop::Paused;
            };
            let Some((position, key)) = reading.ways().pop() else { break Stop::Paused };
            self.backfill.take_slots(1);
            // A stream that it has unsubscribed from need not be read.
            let Some(place) = connection.holdings.place(key) else { continue };
            let Some(tick) = self.env.ring.at(position) else {
                reading.read_from(key, position);
                break Stop::Lacking;
            };
            sent_any |= self.read_tick(id, place, tick, reading, now);
            self.backfill.go_on_behind(key, position, reading.ways());
        };
        // Positions that were added to read what it had found are not for others.
        self.backfill.keep_slots(had);
        let next = reading.ways().next_position();
        reading.set_at(next.unwrap_or(self.backfill.cursor()));
        if sent_any {
            self.queue(id);
        }
        stop
    }
}
