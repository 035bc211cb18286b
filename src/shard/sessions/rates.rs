//! Rates: what `max_hz` holds back is released on a grid of periods, for all subscriptions of a session with that rate
//! at once, so that one write carries it. Each session has a grid phase of its own, so that they are not all due
//! together.

use super::Sessions;
use crate::shard::socket::Socket;
use crate::time::clock::Now;

impl<S: Socket> Sessions<S> {
    /// Releases what is due. True if there was any.
    pub(super) fn release(&mut self, now: Now) -> bool {
        let mut any = false;
        while self.deadlines.releases(now.mono_ns)
            && self.steps.take(1)
            && let Some((id, serial, rate, due_ns)) = self.deadlines.next_release()
        {
            let Some(connection) = self.connections.get_same(id, serial) else { continue };
            if connection.session.release(rate, due_ns, now.mono_ns) {
                any = true;
                self.recover(id, now);
            }
        }
        any
    }

    /// Releases everything at once, and holds nothing back any more.
    pub(in crate::shard) fn hold_nothing(&mut self, now: Now) {
        self.draining = true;
        for id in self.ids() {
            if let Some(connection) = self.connections.get_mut(id) {
                connection.session.release_all(now.mono_ns);
                self.recover(id, now);
            }
        }
    }
}
