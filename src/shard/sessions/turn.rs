//! One turn of a shard: the order of all work for its sessions.

use super::Sessions;
use crate::protocol::close::Close;
use crate::ring::{Batch, TickReader};
use crate::shard::socket::Socket;
use crate::time::clock::Now;

/// Ticks taken from the ring in one turn.
const TICKS_PER_TURN: usize = 256;
/// Sessions written to in one turn.
const FLUSHES_PER_TURN: usize = 64;
/// Rereading sessions written to in one turn, besides these.
const BULK_FLUSHES_PER_TURN: usize = 4;

/// The result of a turn.
#[derive(Clone, Copy, Debug)]
pub(in crate::shard) struct Turn {
    batch: Batch,
    goes_on: bool,
}

impl Turn {
    /// Whether there may be more to do at once.
    pub(in crate::shard) fn goes_on(self) -> bool {
        self.goes_on
    }

    /// Whether no ticks were read from the ring.
    pub(in crate::shard) fn is_idle(self) -> bool {
        self.batch.is_empty()
    }
}

impl<S: Socket> Sessions<S> {
    /// Does one turn, with ticks from the ring.
    pub(in crate::shard) fn turn(&mut self, reader: &mut TickReader, now: Now) -> Turn {
        self.look_around(now);
        self.steps.begin_turn();
        let batch = self.read_ring(reader, now);
        self.work(now);
        self.env.counters.turns.add(1);
        self.env.counters.ticks.add(batch.taken as u64);
        let ponged = self.pong_held(now);
        let waiting = self.resume_waiting(now);
        self.read_all(now);
        let released = self.release(now) | self.give_back(now);
        self.show_status_to_all(now);
        let more = self.flush(FLUSHES_PER_TURN, BULK_FLUSHES_PER_TURN, now);
        let beats = self.heartbeats(now) | self.watch(now);
        self.give_up(now);
        self.publish_counts();
        // Also sessions that got room by a write.
        let reading = self.backfill.can_read();
        let goes_on = more || beats || waiting || reading || released || ponged || !batch.is_empty();
        Turn { batch, goes_on }
    }

    /// Fans out ticks from the ring, as many as a turn may read.
    fn read_ring(&mut self, reader: &mut TickReader, now: Now) -> Batch {
        // Read first: the instruments of all ticks published by now are listed by now.
        let published = reader.behind();
        let has_learned = self.learn(now);
        let most = if has_learned && self.sweep(now) {
            usize::try_from(published).unwrap_or(TICKS_PER_TURN).min(TICKS_PER_TURN)
        } else {
            // Not if half of the ring is unread: slots could be overwritten while their keys are read.
            let is_near = published < self.env.ring.capacity() as u64 / 2;
            if is_near { self.ticks_of_known(reader.cursor(), TICKS_PER_TURN) } else { 0 }
        };
        let batch = match most {
            0 => Batch::default(),
            most => reader.poll(most, |packed| self.tick(packed, now)),
        };
        self.backfill.set_cursor(reader.cursor());
        if batch.lapped > 0 {
            self.env.counters.lapped.add(batch.lapped);
            self.directory.begin_sweep(self.env.table.len());
        }
        batch
    }

    /// Whether there is work even if no tick comes.
    pub(in crate::shard) fn has_to_do(&self) -> bool {
        self.has_to_flush() || self.has_new_status() || self.has_work()
    }

    /// Closes all connections once the ring `is_read` and everything is sent, or at once if it is `late`. True if it
    /// did.
    pub(in crate::shard) fn say_goodbye(
        &mut self,
        why: Close,
        (is_read, late): (bool, bool),
        now: Now,
    ) -> bool {
        let goes = late || (is_read && !self.is_catching_up() && self.is_settled());
        if goes {
            self.close_all(why, now);
        }
        goes
    }

    /// When something is due next, steady time.
    pub(in crate::shard) fn next_deadline_ns(&self) -> Option<u64> {
        let meter = self.egress.meter_due_ns().map(|at| at.saturating_sub(self.env.clock.stood_ns()));
        [self.deadlines.next_ns(), meter].into_iter().flatten().min()
    }

    /// Publishes the counts of a turn.
    fn publish_counts(&mut self) {
        self.look_at_memory();
        let counters = &self.env.counters;
        counters.subscriptions.set(self.directory.len() as u64);
        counters.instruments.set(self.directory.known() as u64);
        counters.wild.set(self.directory.wild() as u64);
        counters.steps.set(self.steps.taken());
        self.egress.publish(counters);
    }
}
