//! Rates: what `max_hz` holds back is let go at the points of a grid of periods, all that a session has waiting on that
//! rate at once, so that one write carries it. Sessions have grids of their own, so that they do not all come due
//! together.

use super::Sessions;
use crate::shard::socket::Socket;
use crate::time::clock::Now;

impl<S: Socket> Sessions<S> {
    /// Lets go what is due. True if there was any.
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

    /// Lets go everything at once, and holds nothing back any more.
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
