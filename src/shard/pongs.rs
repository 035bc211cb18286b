//! Pings that wait to be answered. A `pong` proves to a client that it was sent whatever the gateway had to send when its
//! ping came. So what is in the ring at that moment goes first, and what waits for the client's window.

use std::collections::VecDeque;

use crate::protocol::{Echo, Id};

/// Pings that may wait for the ring to be read, of all clients of a shard: some 2 MB. Further ones are refused.
const HELD_MAX: usize = 16_384;

/// Pings of one client that may wait for what is to be sent before them. Further ones are refused.
const WITHHELD_MAX: usize = 256;

/// A ping that waits.
pub(super) struct Held {
    /// The position of the ring up to which the shard has to have read.
    until: u64,
    client: u32,
    serial: u64,
    name: Option<Id>,
    t: Option<Echo>,
    /// When it came, microseconds since the Unix epoch.
    in_us: u64,
}

impl Held {
    /// A ping of a client, with its name and payload, that came at this time when the ring had `until` ticks.
    pub(super) fn new(
        (client, serial): (u32, u64),
        (name, t): (Option<Id>, Option<Echo>),
        until: u64,
        in_us: u64,
    ) -> Self {
        Self { until, client, serial, name, t, in_us }
    }

    /// The number and the serial of its client.
    pub(super) fn client(&self) -> (u32, u64) {
        (self.client, self.serial)
    }

    /// The client's name for it.
    pub(super) fn name(&self) -> Option<&Id> {
        self.name.as_ref()
    }

    /// The payload.
    pub(super) fn echo(&self) -> Option<&Echo> {
        self.t.as_ref()
    }

    /// When it came, microseconds since the Unix epoch.
    pub(super) fn in_us(&self) -> u64 {
        self.in_us
    }

    /// Whether the shard, which has read the ring up to `cursor`, has come to what was there when the ping came.
    fn is_read(&self, cursor: u64) -> bool {
        self.until <= cursor
    }
}

/// Pings that wait for the ring to be read, in the order in which they came, which is that of the ring.
#[derive(Default)]
pub(super) struct HeldPings(VecDeque<Held>);

impl HeldPings {
    /// Whether a ping need not wait, where the ring is read up to `cursor`.
    pub(super) fn may_pass(&self, held: &Held, cursor: u64) -> bool {
        held.is_read(cursor) && self.0.is_empty()
    }

    /// Has a ping wait.
    ///
    /// # Errors
    /// It comes back where too many wait.
    pub(super) fn push(&mut self, held: Held) -> Result<(), Held> {
        if self.0.len() >= HELD_MAX {
            return Err(held);
        }
        self.0.push_back(held);
        Ok(())
    }

    /// The next one that has waited long enough.
    pub(super) fn next(&mut self, cursor: u64) -> Option<Held> {
        self.0.pop_front_if(|held| held.is_read(cursor))
    }

    /// Whether there is such a one.
    pub(super) fn has_next(&self, cursor: u64) -> bool {
        self.0.front().is_some_and(|held| held.is_read(cursor))
    }
}

/// Pings of one client that wait for what the client is sent before.
#[derive(Default)]
pub(super) struct Pings {
    /// Until it was sent what there is room for.
    dirty: Vec<Held>,
    /// Until nothing has to be sent before them: each with the time, milliseconds of steady time, of which that is asked.
    #[expect(clippy::box_collection, reason = "there are very many connections, and most withhold none")]
    withheld: Option<Box<VecDeque<(u32, Held)>>>,
}

impl Pings {
    /// A ping waits until the client was sent what there is room for.
    pub(super) fn push(&mut self, held: Held) {
        self.dirty.push(held);
    }

    /// Takes those that waited for that.
    pub(super) fn take(&mut self) -> Vec<Held> {
        std::mem::take(&mut self.dirty)
    }

    /// Whether some are withheld.
    pub(super) fn withholds(&self) -> bool {
        self.withheld.is_some()
    }

    /// Withholds a ping.
    ///
    /// # Errors
    /// It comes back where too many are withheld.
    pub(super) fn withhold(&mut self, since_ms: u32, held: Held) -> Result<(), Held> {
        let withheld = self.withheld.get_or_insert_default();
        if withheld.len() >= WITHHELD_MAX {
            return Err(held);
        }
        withheld.push_back((since_ms, held));
        Ok(())
    }

    /// The next withheld ping, unless what was there before it `waits`.
    pub(super) fn next_withheld(&mut self, waits: impl Fn(u32) -> bool) -> Option<Held> {
        let withheld = self.withheld.as_mut()?;
        let next = withheld.pop_front_if(|(since_ms, _)| !waits(*since_ms));
        if next.is_none() && withheld.is_empty() {
            self.withheld = None;
        }
        next.map(|(_, held)| held)
    }
}
