//! The measurements of a replay: how late its records were, and the steps of the recorders' clocks.

use std::fmt::Write as _;

use hdrhistogram::Histogram;

use super::schedule::SILENCE_NS_MAX;
use crate::time::clock::SECOND;

/// The longest recorded lateness in microseconds: one hour.
const LATE_US_MAX: u64 = 3_600_000_000;

/// The measurements of a replay.
pub(super) struct Figures {
    /// Lateness of records in microseconds.
    late: Option<Histogram<u64>>,
    /// Backward clock steps of [`STEP_BACK_NS`](crate::capture::STEP_BACK_NS) or more.
    steps_back: u64,
    /// Forward clock steps of more than [`SILENCE_NS_MAX`].
    steps_forward: u64,
    longest_step_ns: u64,
}

impl Figures {
    pub(super) fn new() -> Self {
        // Cannot fail with these bounds.
        let late = Histogram::new_with_bounds(1, LATE_US_MAX, 2).ok();
        Self { late, steps_back: 0, steps_forward: 0, longest_step_ns: 0 }
    }

    /// Records the lateness of a record.
    pub(super) fn late(&mut self, late_ns: u64) {
        if let Some(late) = &mut self.late {
            late.saturating_record((late_ns / 1_000).max(1));
        }
    }

    /// Counts a clock step: backward before a record, or forward if the silence before it is too long.
    #[inline]
    pub(super) fn stepped(&mut self, back_ns: Option<u64>, silence_ns: u64) {
        if back_ns.is_some() || silence_ns > SILENCE_NS_MAX {
            self.steps_back += u64::from(back_ns.is_some());
            self.steps_forward += u64::from(silence_ns > SILENCE_NS_MAX);
            self.longest_step_ns = self.longest_step_ns.max(back_ns.unwrap_or(silence_ns));
        }
    }

    /// Appends the measurements to a summary.
    pub(super) fn write(&self, text: &mut String) {
        if let Some(late) = self.late.as_ref().filter(|late| !late.is_empty()) {
            let at = |quantile| late.value_at_quantile(quantile);
            let (p50, p99, max) = (at(0.5), at(0.99), late.max());
            let _ = write!(text, " records={} late_us p50={p50} p99={p99} max={max}", late.len());
        }
        let Self { steps_back, steps_forward, longest_step_ns, .. } = self;
        if steps_back + steps_forward > 0 {
            let longest_s = longest_step_ns / SECOND;
            let _ =
                write!(text, " clock_steps back={steps_back} forward={steps_forward} longest_s={longest_s}");
        }
    }
}
