//! Rates: what `max_hz` holds back is let go at the points of a grid of periods, all that a session has waiting on that
//! rate at once, so that one write carries it. Sessions have grids of their own, so that they do not all come due
//! together.

use std::cmp::Reverse;

use crate::session::RateId;
use crate::shard::sessions::{Sessions, Socket};
use crate::time::clock::Now;

/// A moment at which a rate of a session lets go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::shard) struct Release {
    pub(in crate::shard) due_ns: u64,
    pub(in crate::shard) id: u32,
    pub(in crate::shard) serial: u64,
    pub(in crate::shard) rate: RateId,
}

/// Where the grids of a session begin: spread evenly, whatever the period (Fibonacci hashing).
pub(in crate::shard) fn phase_ns(serial: u64) -> u64 {
    serial.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 16
}

impl<S: Socket> Sessions<S> {
    /// Lets go what is due. True if there was any.
    pub(in crate::shard) fn release(&mut self, now: Now) -> bool {
        let mut any = false;
        while let Some(Reverse(due)) = self.releases.peek()
            && due.due_ns <= now.mono_ns
            && self.steps.take(1)
        {
            let Some(Reverse(Release { due_ns, id, serial, rate })) = self.releases.pop() else { break };
            let Some(connection) = self.connections.get_mut(id) else { continue };
            if connection.serial == serial && connection.session.release(rate, due_ns, now.mono_ns) {
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
