//! The steps of a turn: a budget for the work of requests, which bounds a turn whatever clients request.

/// The fewest steps that a turn may have.
pub const STEPS_MIN: u32 = 64;

/// The step budget of a turn. A step is a symbol that is looked up, a subscription that is made, changed, ended or
/// recovered, or some bytes of a message: some 100 ns to 1 µs each.
#[derive(Debug)]
pub(super) struct Steps {
    max: u32,
    /// Left of this turn.
    left: u32,
    /// Left of what one session may take before others have their turn.
    slice: u32,
    /// No step of this slice was taken yet.
    fresh: bool,
    /// Steps taken since the shard began.
    taken: u64,
}

impl Steps {
    /// A budget of `max` steps per turn, at least [`STEPS_MIN`].
    pub(super) fn new(max: u32) -> Self {
        let max = max.max(STEPS_MIN);
        Self { max, left: max, slice: max, fresh: true, taken: 0 }
    }

    /// Begins a turn.
    pub(super) fn begin_turn(&mut self) {
        self.left = self.max;
        self.end_slice();
    }

    /// Begins the slice of one session: at most an eighth of a turn, unless its first piece of work takes more.
    pub(super) fn begin_slice(&mut self) {
        (self.slice, self.fresh) = (self.max / 8, true);
    }

    /// Ends the slice: what follows belongs to no single session.
    pub(super) fn end_slice(&mut self) {
        (self.slice, self.fresh) = (self.max, true);
    }

    /// Takes steps for one piece of work, at most three eighths of a turn. False if too few are left: the work waits.
    pub(super) fn take(&mut self, steps: usize) -> bool {
        let steps = u32::try_from(steps).unwrap_or(u32::MAX).min(self.max / 8 * 3);
        if steps > self.left || (steps > self.slice && !self.fresh) {
            return false;
        }
        self.left -= steps;
        self.slice = self.slice.saturating_sub(steps);
        self.fresh = false;
        self.taken += u64::from(steps);
        true
    }

    /// As [`take`](Self::take), only while more than half of the turn is left: for work that no session pays for.
    pub(super) fn take_of_half(&mut self, steps: usize) -> bool {
        self.left > self.max / 2 && self.take(steps)
    }

    /// As [`take`](Self::take), only while more than a quarter of the turn is left: for work that blocks reading the
    /// ring.
    pub(super) fn take_most(&mut self, steps: usize) -> bool {
        !self.are_few() && self.take(steps)
    }

    /// Whether a quarter or less of this turn is left.
    pub(super) fn are_few(&self) -> bool {
        self.left <= self.max / 4
    }

    /// Whether no steps of this turn are left.
    pub(super) fn are_spent(&self) -> bool {
        self.left == 0
    }

    /// Steps taken since the shard began.
    pub(super) fn taken(&self) -> u64 {
        self.taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_has_so_many_and_no_piece_of_work_waits_for_ever() {
        let mut steps = Steps::new(64);
        assert!(steps.take(40), "it takes as much as one may");
        assert!(steps.take(24) && !steps.take(24) && steps.take(16) && steps.are_spent() && !steps.take(1));
        steps.begin_turn();
        while steps.take_of_half(2) {}
        assert!(steps.take(usize::MAX), "enough is left for it");
        assert_eq!(steps.taken(), 64 + 32 + 24);
    }

    #[test]
    fn a_session_takes_a_slice_and_at_least_one_piece() {
        let mut steps = Steps::new(64);
        steps.begin_slice();
        assert!((0..8).all(|_| steps.take(1)) && !steps.take(1));
        steps.begin_slice();
        assert!(steps.take(20) && !steps.take(1));
        steps.end_slice();
        assert!(steps.take(24) && !steps.take(13) && steps.take(12));
    }
}
