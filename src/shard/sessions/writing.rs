//! Writing: sessions with something to write are written to, the longest waiting first, one write each per turn.

use super::Sessions;
use crate::shard::socket::Socket;
use crate::time::clock::Now;

/// Sessions whose memory is prefetched at once, before the first of them is written to. Few, because the kernel's work
/// in each write displaces cache lines.
const GROUP: usize = 8;

impl<S: Socket> Sessions<S> {
    /// Has a session written to when its turn comes.
    pub(super) fn queue(&mut self, id: u32) {
        if self.connections.get(id).is_some_and(|connection| !connection.link.dead)
            && !self.connections.set_queued(id, true)
        {
            self.enqueue(id);
        }
    }

    /// Appends a session that is marked as queued to those that wait to be written to.
    pub(super) fn enqueue(&mut self, id: u32) {
        let reads = self.connections.get(id).is_some_and(|connection| connection.progress.reads);
        self.egress.enqueue_now(id, reads);
    }

    /// True while a session has something to write and its socket is not known to be full.
    pub fn has_to_flush(&self) -> bool {
        self.egress.has_writes()
    }

    /// Writes to the `most` sessions that have waited longest, and to `bulk` of those that reread, one write each. True
    /// if some are left.
    pub(super) fn flush(&mut self, most: usize, bulk: usize, now: Now) -> bool {
        // A session that is queued again here has its turn next time.
        let writes = self.egress.begin_writes(most);
        for n in 0..writes {
            if n % GROUP == 0 {
                self.prefetch_next(GROUP.min(writes - n));
            }
            if let Some(id) = self.egress.next_write() {
                self.flush_one(id, now);
            }
        }
        for _ in 0..bulk.min(self.egress.bulk_writes()) {
            if let Some(id) = self.egress.next_bulk_write() {
                self.flush_one(id, now);
            }
        }
        self.has_to_flush()
    }

    /// Prefetches the memory of the sessions that are written to next.
    fn prefetch_next(&self, count: usize) {
        let prefetched = self.egress.upcoming(count).fold(0, |sum, id| {
            let connection = self.connections.get(id);
            let prefetched =
                connection.map_or(0, |connection| connection.prefetch() ^ connection.socket.prefetch());
            sum ^ prefetched ^ self.connections.prefetch(id)
        });
        std::hint::black_box(prefetched);
    }

    fn flush_one(&mut self, id: u32, now: Now) {
        let Some((connection, pending_frames)) = self.connections.get_with_pending(id) else { return };
        // The number may belong to a new session since it was queued, which has a turn of its own. A blocked session
        // stays marked as queued, so that ticks do not queue it before it is writable.
        if !pending_frames.queued || connection.session.is_blocked() {
            return;
        }
        let was_over_full = connection.session.is_over_full();
        let mut context = self.egress.write_context(&self.env.counters, &self.env.clock);
        connection.write(&mut context, now.mono_ns);
        if connection.link.dead {
            return;
        }
        if connection.session.is_blocked() {
            return self.watch_over(id, now);
        }
        pending_frames.queued = false;
        if was_over_full && !connection.session.is_over_full() {
            // Its requests were left unread because there was no room for answers.
            connection.socket.kick();
        }
        if connection.is_at_rest() && connection.progress.status == self.replay_status.version() {
            return connection.allow_pending(pending_frames);
        }
        self.written(id, now);
    }

    /// Does what follows a write if the session is not at rest.
    fn written(&mut self, id: u32, now: Now) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        let rest = !connection.session.outbox().is_empty();
        connection.session.own();
        if connection.progress.reading.is_some() {
            if connection.session.waiting() > 0 {
                self.recover(id, now);
            }
            if self.read_on(id, now) {
                self.backfill.readers().wake();
            }
        } else if connection.session.waiting() > 0 || connection.progress.seam.is_some() {
            self.recover(id, now);
        } else if connection.progress.status != self.replay_status.version() {
            self.show_status(id, now);
        } else if connection.session.is_closing() && !rest {
            connection.socket.kick();
        }
        if rest {
            self.queue(id);
        }
    }
}
