//! Pings that wait to be answered. A `pong` proves to a client that it was sent all that the gateway had for it when
//! its ping came. So the answer waits for the ticks that the ring holds at that moment, and for what the client's
//! window holds back.

use std::collections::VecDeque;

use crate::protocol::{Echo, Id};

/// Pings that may wait for the ring to be read, of all clients of a shard: some 2 MB. Further ones are refused.
const HELD_MAX: usize = 16_384;

/// Pings of one client that may wait for what is to be sent before them. Further ones are refused.
const WITHHELD_MAX: usize = 256;

/// A ping that waits.
pub(super) struct Held {
    /// The ring position that the shard has to reach first.
    until: u64,
    client: u32,
    serial: u64,
    name: Option<Id>,
    t: Option<Echo>,
    /// When it came, microseconds since the Unix epoch.
    in_us: u64,
}

impl Held {
    /// A ping of a client, with its `id` and payload. It came at `in_us`, when the ring ended at position `until`.
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

    /// The `id` that the client gave it.
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

    /// Whether the shard, which has read the ring up to `cursor`, has read all that it held when the ping came.
    fn is_read(&self, cursor: u64) -> bool {
        self.until <= cursor
    }
}

/// Pings that wait for the ring to be read, in order of arrival, which is also that of their ring positions.
#[derive(Default)]
pub(super) struct HeldPings(VecDeque<Held>);

impl HeldPings {
    /// Whether a ping need not wait, with the shard at `cursor`.
    pub(super) fn may_pass(&self, held: &Held, cursor: u64) -> bool {
        held.is_read(cursor) && self.0.is_empty()
    }

    /// Has a ping wait.
    ///
    /// # Errors
    /// Returns the ping if too many wait.
    pub(super) fn push(&mut self, held: Held) -> Result<(), Held> {
        if self.0.len() >= HELD_MAX {
            return Err(held);
        }
        self.0.push_back(held);
        Ok(())
    }

    /// Takes the next ping for which the ring is read.
    pub(super) fn next(&mut self, cursor: u64) -> Option<Held> {
        self.0.pop_front_if(|held| held.is_read(cursor))
    }

    /// Whether there is such a ping.
    pub(super) fn has_next(&self, cursor: u64) -> bool {
        self.0.front().is_some_and(|held| held.is_read(cursor))
    }
}

/// Pings of one client that wait for what it is to be sent first.
#[derive(Default)]
pub(super) struct Pings {
    /// They wait until the client was sent what there is room for.
    dirty: Vec<Held>,
    /// They wait until nothing older has to be sent. Each with the time when it was withheld, milliseconds of steady
    /// time.
    #[expect(clippy::box_collection, reason = "there are very many connections, and most withhold none")]
    withheld: Option<Box<VecDeque<(u32, Held)>>>,
}

impl Pings {
    /// Has a ping wait until the client was sent what there is room for.
    pub(super) fn push(&mut self, held: Held) {
        self.dirty.push(held);
    }

    /// Takes the pings that waited for that.
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
    /// Returns the ping if too many are withheld.
    pub(super) fn withhold(&mut self, since_ms: u32, held: Held) -> Result<(), Held> {
        let withheld = self.withheld.get_or_insert_default();
        if withheld.len() >= WITHHELD_MAX {
            return Err(held);
        }
        withheld.push_back((since_ms, held));
        Ok(())
    }

    /// The next withheld ping, unless something older than it still `waits`.
    pub(super) fn next_withheld(&mut self, waits: impl Fn(u32) -> bool) -> Option<Held> {
        let withheld = self.withheld.as_mut()?;
        let next = withheld.pop_front_if(|(since_ms, _)| !waits(*since_ms));
        if next.is_none() && withheld.is_empty() {
            self.withheld = None;
        }
        next.map(|(_, held)| held)
    }
}
