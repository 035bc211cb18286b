//! Encode once: the frame of a tick is made when the first session wants it, and shared by all others.

use crate::instrument::Symbol;
use crate::protocol::frame::TextFrame;
use crate::protocol::json::{self, Mark};
use crate::session::{CatchUp, Missing};
use crate::tick::{Channel, Key, Tick};

/// Makes the frames of a shard.
#[derive(Default)]
pub(super) struct Frames {
    shared: TextFrame,
    own: TextFrame,
    /// Frames made to be shared.
    pub(super) count: u64,
}

impl Frames {
    /// Makes the frame of a tick, the same for everybody. `tx_us`: now, microseconds since the Unix epoch.
    pub(super) fn encode(&mut self, tick: &Tick, symbol: &Symbol, tx_us: u64) {
        self.count += 1;
        let mark = Mark { tx_us: Some(tx_us), ..Mark::default() };
        self.shared.make(|out| json::tick(tick, symbol, mark, out));
    }

    /// The frame made last by [`encode`](Self::encode).
    #[inline]
    pub(super) fn encoded(&self) -> &[u8] {
        self.shared.bytes()
    }

    /// Hands the frames that make one subscription current again to `push`.
    pub(super) fn catch_up(
        &mut self,
        told: &CatchUp,
        key: Key,
        symbol: &Symbol,
        tx_us: u64,
        mut push: impl FnMut(&[u8]),
    ) {
        for missing in told.before.into_iter().flatten() {
            push(self.gap(missing, key, symbol));
        }
        if let Some(value) = told.value {
            let mark = Mark { snap: value.snap, n: value.n, tx_us: Some(tx_us) };
            push(self.own.make(|out| json::tick(&value.tick, symbol, mark, out)));
        }
        if let Some(missing) = told.after {
            push(self.gap(missing, key, symbol));
        }
    }

    /// Hands the frames of a tick that a client missed to `push`, and what is missing before it.
    pub(super) fn resume(
        &mut self,
        tick: &Tick,
        missing: Option<Missing>,
        key: Key,
        symbol: &Symbol,
        tx_us: u64,
        mut push: impl FnMut(&[u8]),
    ) {
        if let Some(missing) = missing {
            push(self.gap(missing, key, symbol));
        }
        let mark = Mark { tx_us: Some(tx_us), ..Mark::default() };
        push(self.own.make(|out| json::tick(tick, symbol, mark, out)));
    }

    /// A gap of one subscription. States have none, so any key but a channel's is of no consequence.
    fn gap(&mut self, missing: Missing, key: Key, symbol: &Symbol) -> &[u8] {
        let Missing { from, to, why } = missing;
        let channel = key.channel().unwrap_or(Channel::Quote);
        self.own.make(|out| json::gap(symbol, channel, from, to, why, out))
    }

    /// Any text frame, for one session.
    pub(super) fn text(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> &[u8] {
        self.own.make(write)
    }
}
