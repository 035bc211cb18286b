//! What a turn of a shard may do for requests, counted: so its length is bounded, whatever clients ask for.

/// The fewest steps that a turn may have.
pub const STEPS_MIN: u32 = 64;

/// Steps of a turn. One is a symbol that is looked up, a subscription that is made, changed, ended or sent what it lacks,
/// or some bytes of a message that are read: some 100 ns to 1 µs each.
#[derive(Debug)]
pub(super) struct Steps {
    max: u32,
    /// Left of this turn.
    left: u32,
    /// Left of what one session may take before others have their turn.
    slice: u32,
    /// Nothing of it was taken yet.
    fresh: bool,
    /// Taken, since the shard began.
    taken: u64,
}

impl Steps {
    /// So many a turn, at least [`STEPS_MIN`].
    pub(super) fn new(max: u32) -> Self {
        let max = max.max(STEPS_MIN);
        Self { max, left: max, slice: max, fresh: true, taken: 0 }
    }

    /// A turn begins.
    pub(super) fn begin_turn(&mut self) {
        self.left = self.max;
        self.end_slice();
    }

    /// One session takes steps from here on: an eighth of a turn's at most, unless one piece of work takes more.
    pub(super) fn begin_slice(&mut self) {
        (self.slice, self.fresh) = (self.max / 8, true);
    }

    /// What follows is no session's alone.
    pub(super) fn end_slice(&mut self) {
        (self.slice, self.fresh) = (self.max, true);
    }

    /// Takes steps for one piece of work, if they are left; what needs more than three eighths of a turn takes that much.
    /// False: later.
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

    /// As [`take`](Self::take), where the other half of the turn is to be left: for work that is no client's.
    pub(super) fn take_of_half(&mut self, steps: usize) -> bool {
        self.left > self.max / 2 && self.take(steps)
    }

    /// As [`take`](Self::take), where a quarter of the turn is to be left: for work that holds up the ring until it is done.
    pub(super) fn take_most(&mut self, steps: usize) -> bool {
        !self.are_few() && self.take(steps)
    }

    /// A quarter or less is left of this turn.
    pub(super) fn are_few(&self) -> bool {
        self.left <= self.max / 4
    }

    /// None are left in this turn.
    pub(super) fn are_spent(&self) -> bool {
        self.left == 0
    }

    /// Taken, since the shard began.
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
