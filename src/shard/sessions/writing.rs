//! Writing: who has something to write is written to in the order of waiting, one write a turn each.

use crate::shard::sessions::connection::WriteContext;
use crate::shard::sessions::{Sessions, Socket};
use crate::time::clock::Now;

/// Sessions whose memory is asked for at once, before the first of them is written to. The kernel's work between two writes
/// leaves less in the near caches.
const GROUP: usize = 8;

impl<S: Socket> Sessions<S> {
    /// Has a session written to when its turn comes.
    pub(in crate::shard) fn queue(&mut self, id: u32) {
        if self.connections.get(id).is_some_and(|connection| !connection.dead)
            && !self.connections.set_queued(id, true)
        {
            self.enqueue(id);
        }
    }

    /// Puts a session that is marked as queued behind those that wait to be written to.
    pub(in crate::shard) fn enqueue(&mut self, id: u32) {
        let reads = self.connections.get(id).is_some_and(|connection| connection.reads);
        let queue = if reads { &mut self.bulk_queue } else { &mut self.flush_queue };
        queue.push_back((id, self.buffers.head()));
    }

    /// Writes for the `most` sessions that have waited longest, and for `bulk` of those that read again, one write each. True if
    /// some are left.
    pub(in crate::shard) fn flush(&mut self, most: usize, bulk: usize, now: Now) -> bool {
        // What is queued again here has its turn next time.
        let writes = most.min(self.flush_queue.len());
        self.sample.begin(writes);
        for n in 0..writes {
            if n % GROUP == 0 {
                self.prefetch_next(GROUP.min(writes - n));
            }
            if let Some((id, _)) = self.flush_queue.pop_front() {
                self.flush_one(id, now);
            }
        }
        for _ in 0..bulk.min(self.bulk_queue.len()) {
            if let Some((id, _)) = self.bulk_queue.pop_front() {
                self.flush_one(id, now);
            }
        }
        self.has_to_flush()
    }

    /// Asks for the memory of the sessions that are written next, all at once.
    fn prefetch_next(&self, count: usize) {
        let next = self.flush_queue.iter().take(count).map(|(id, _)| *id);
        let prefetched = next.fold(0, |sum, id| {
            let connection = self.connections.get(id);
            let prefetched =
                connection.map_or(0, |connection| connection.prefetch() ^ connection.socket.prefetch());
            sum ^ prefetched ^ self.connections.prefetch(id)
        });
        std::hint::black_box(prefetched);
    }

    fn flush_one(&mut self, id: u32, now: Now) {
        let Some((connection, pending_frames)) = self.connections.get_with_pending(id) else { return };
        // The number may have gone to a new session since it was queued: its own turn comes. A blocked session
        // stays marked as queued, so that ticks do not put it back before it is writable.
        if !pending_frames.queued || connection.session.is_blocked() {
            return;
        }
        let was_over_full = connection.session.is_over_full();
        let mut context = WriteContext {
            counters: &self.counters,
            clock: &self.clock,
            meter: &mut self.meter,
            sample: &mut self.sample,
        };
        connection.write(&mut context, now.mono_ns);
        if connection.dead {
            return;
        }
        if connection.session.is_blocked() {
            return self.watch_over(id, now);
        }
        pending_frames.queued = false;
        if was_over_full && !connection.session.is_over_full() {
            // Its requests were left unread for want of room.
            connection.socket.kick();
        }
        if connection.is_at_rest() && connection.news == self.news.version {
            return connection.set_out(pending_frames);
        }
        self.written(id, now);
    }

    /// What follows a write where there is more to do.
    fn written(&mut self, id: u32, now: Now) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        let rest = !connection.session.outbox().is_empty();
        connection.session.own();
        if connection.reading.is_some() {
            if connection.session.waiting() > 0 {
                self.recover(id, now);
            }
            if self.read_on(id, now) {
                self.readers.wake();
            }
        } else if connection.session.waiting() > 0 || connection.seam.is_some() {
            self.recover(id, now);
        } else if connection.news != self.news.version {
            self.tell_news_to(id, now);
        } else if connection.session.is_closing() && !rest {
            connection.socket.kick();
        }
        if rest {
            self.queue(id);
        }
    }
}
