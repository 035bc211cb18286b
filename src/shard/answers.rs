//! Long answers, which are written in portions. Each may take a megabyte, so a shard limits how many are under way at
//! the same time.

use std::collections::VecDeque;
use std::rc::Rc;

use crate::protocol::outcome::Outcome;

/// Rows of an answer that are written in one step.
const ROWS_PER_STEP: usize = 2;
/// Bytes of an answer that are copied in one step, once all its rows are written.
pub(super) const BYTES_PER_STEP: usize = 4_096;
/// An answer of this size or more counts as long, bytes.
const SHORT_BYTES_MAX: usize = 16_384;
/// Long answers that may be under way at the same time.
const LONG_MAX: usize = 16;

/// The long answers under way in a shard, of which each holds a clone of `under_way`; and the sessions that wait to
/// write one, each with its serial.
#[derive(Default)]
pub(super) struct LongAnswers {
    under_way: Rc<()>,
    waiting: VecDeque<(u32, u64)>,
}

impl LongAnswers {
    fn has_room(&self) -> bool {
        Rc::strong_count(&self.under_way) <= LONG_MAX
    }

    /// Has a session wait to write a long answer.
    pub(super) fn wait(&mut self, id: u32, serial: u64) {
        self.waiting.push_back((id, serial));
    }

    /// How many more long answers may start now.
    pub(super) fn room(&self) -> usize {
        (LONG_MAX + 1).saturating_sub(Rc::strong_count(&self.under_way))
    }

    /// Takes the session that has waited longest.
    pub(super) fn next_waiting(&mut self) -> Option<(u32, u64)> {
        self.waiting.pop_front()
    }

    /// Whether a session waits and may start its long answer now.
    pub(super) fn can_go_on(&self) -> bool {
        !self.waiting.is_empty() && self.has_room()
    }
}

/// The permit that an answer holds once it is long.
#[derive(Default)]
pub(super) struct LongAnswer(Option<Rc<()>>);

impl LongAnswer {
    /// Whether an answer of `bytes` bytes may grow now. If it is long, it needs a permit, and takes one if there is
    /// one.
    pub(super) fn may_grow(&mut self, bytes: usize, all: &LongAnswers) -> bool {
        if bytes >= SHORT_BYTES_MAX && self.0.is_none() && all.has_room() {
            self.0 = Some(Rc::clone(&all.under_way));
        }
        bytes < SHORT_BYTES_MAX || self.0.is_some()
    }
}

/// An answer that is being written.
#[derive(Default)]
pub(super) struct Answer {
    next: usize,
    outcome: Outcome,
    long: LongAnswer,
}

impl Answer {
    /// Whether this many rows are written.
    pub(super) fn has(&self, rows: usize) -> bool {
        self.next >= rows
    }

    /// Writes the next of `rows` rows, one step's worth; `write` writes a row by its number.
    pub(super) fn write_some(&mut self, rows: usize, mut write: impl FnMut(usize, &mut Outcome)) {
        let until = rows.min(self.next + ROWS_PER_STEP);
        (self.next..until).for_each(|at| write(at, &mut self.outcome));
        self.next = until;
    }

    /// The rows written so far.
    pub(super) fn outcome(&self) -> &Outcome {
        &self.outcome
    }

    /// Its permit as a long answer, and its size in bytes.
    pub(super) fn long(&mut self) -> (&mut LongAnswer, usize) {
        (&mut self.long, self.outcome.bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_some_answers_are_long_at_a_time() {
        let all = LongAnswers::default();
        let mut long: Vec<LongAnswer> = (0..LONG_MAX).map(|_| LongAnswer::default()).collect();
        assert!(long.iter_mut().all(|answer| answer.may_grow(SHORT_BYTES_MAX, &all)));
        let mut next = LongAnswer::default();
        assert!(next.may_grow(SHORT_BYTES_MAX - 1, &all) && !next.may_grow(SHORT_BYTES_MAX, &all));
        assert!(long[0].may_grow(1 << 20, &all));
        long.pop();
        assert!(next.may_grow(SHORT_BYTES_MAX, &all));
        assert!(!LongAnswer::default().may_grow(SHORT_BYTES_MAX, &all));
    }
}
