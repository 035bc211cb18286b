//! The output of a replay: the digest of its ticks, and the ticks held back while it is stepped.

use std::collections::VecDeque;
use std::sync::Arc;

use super::digest::Digest;
use crate::model::instrument::InstrumentTable;
use crate::model::tick::{Body, Tick};

/// Passes the ticks of a replay on, except those beyond the end of a step.
#[derive(Default)]
pub(super) struct Output {
    digest: Option<Digest>,
    /// Ticks of the last frame beyond the end of a step. They already have their sequence numbers.
    held: VecDeque<Tick>,
    /// Trades and quotes that a step still publishes while the replay is paused.
    steps: u32,
}

impl Output {
    /// Starts the digest, which identifies instruments by their names in `table`.
    pub(super) fn begin(&mut self, table: &Arc<InstrumentTable>) {
        self.digest.get_or_insert_with(|| Digest::new(Arc::clone(table)));
    }

    /// Returns the digest, once it is started.
    pub(super) fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// Returns the trades and quotes that a step still publishes.
    pub(super) fn steps(&self) -> u32 {
        self.steps
    }

    /// Sets how many trades and quotes a step publishes from here on.
    pub(super) fn set_steps(&mut self, ticks: u32) {
        self.steps = ticks;
    }

    /// Publishes a tick, or holds it back if `is_stepping` and the step is complete. `number` is the tick's number
    /// in its captures, if it has one.
    pub(super) fn take(
        &mut self,
        number: Option<u64>,
        tick: &Tick,
        is_stepping: bool,
        out: &mut impl FnMut(&Tick),
    ) {
        if let (Some(number), Some(digest)) = (number, self.digest.as_mut()) {
            digest.add(number, tick);
        }
        if is_stepping {
            if self.steps == 0 {
                return self.held.push_back(*tick);
            }
            self.steps -= u32::from(is_counted(tick));
        }
        out(tick);
    }

    /// Returns true if ticks are held back.
    pub(super) fn holds(&self) -> bool {
        !self.held.is_empty()
    }

    /// Publishes held ticks as far as the step allows.
    pub(super) fn release_steps(&mut self, out: &mut impl FnMut(&Tick)) {
        while self.steps > 0
            && let Some(tick) = self.held.pop_front()
        {
            out(&tick);
            self.steps -= u32::from(is_counted(&tick));
        }
    }

    /// Publishes all held ticks.
    pub(super) fn release_all(&mut self, out: &mut impl FnMut(&Tick)) {
        self.held.drain(..).for_each(|tick| out(&tick));
    }
}

/// Returns true for ticks that a step counts: trades and quotes.
fn is_counted(tick: &Tick) -> bool {
    matches!(tick.body, Body::Trade(_) | Body::Quote(_))
}
