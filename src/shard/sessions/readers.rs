//! Sessions that resume or catch up read on in turns: see [`readers`](crate::shard::readers).
//!
//! All of them together look at so many positions in a turn, and what is read for one waits in its outbox no further than its
//! socket may be expected to take soon: the ring keeps it as well. So many that come back at once take little memory, and
//! others do not wait for them.

use super::Sessions;
use crate::shard::positions::Cover;
use crate::shard::reading::{Reading, Stop};
use crate::shard::socket::Socket;
use crate::time::clock::Now;

/// Sessions whose reading is looked at in one turn.
const READERS_PER_TURN: usize = 256;

impl<S: Socket> Sessions<S> {
    /// Lets readers read on, as many as this turn has room for.
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
                    // What else it waits for has waited longer than what it reads.
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
            // One that it has left needs not be read.
            let Some(place) = connection.holdings.place(key) else { continue };
            let Some(tick) = self.env.ring.at(position) else {
                reading.read_from(key, position);
                break Stop::Lacking;
            };
            sent_any |= self.read_tick(id, place, tick, reading, now);
            self.backfill.go_on_behind(key, position, reading.ways());
        };
        // What it was lent to read what it had found is no other's.
        self.backfill.keep_slots(had);
        let next = reading.ways().next_position();
        reading.set_at(next.unwrap_or(self.backfill.cursor()));
        if sent_any {
            self.queue(id);
        }
        stop
    }
}
