//! Long answers are written in portions, as requests are carried out. Each may have a megabyte, so only some of them are
//! under way at the same time.

use std::collections::VecDeque;
use std::rc::Rc;

use crate::protocol::outcome::Outcome;

/// Rows of an answer that are written in one step.
const ROWS_PER_STEP: usize = 2;
/// Bytes of an answer that are copied in one step, when all of it is there.
pub(super) const BYTES_PER_STEP: usize = 4_096;
/// A longer answer is a long one, bytes.
const SHORT_BYTES_MAX: usize = 16_384;
/// Long answers at the same time.
const LONG_MAX: usize = 16;

/// The long answers of a shard that are under way: each holds a clone of the counter. The sessions that wait to write
/// one, each with its serial.
#[derive(Default)]
pub(super) struct LongAnswers {
    under_way: Rc<()>,
    waiting: VecDeque<(u32, u64)>,
}

impl LongAnswers {
    fn has_room(&self) -> bool {
        Rc::strong_count(&self.under_way) <= LONG_MAX
    }

    /// A session waits to write a long answer.
    pub(super) fn wait(&mut self, id: u32, serial: u64) {
        self.waiting.push_back((id, serial));
    }

    /// How many more long answers may be written now.
    pub(super) fn room(&self) -> usize {
        (LONG_MAX + 1).saturating_sub(Rc::strong_count(&self.under_way))
    }

    /// The session that has waited longest.
    pub(super) fn next_waiting(&mut self) -> Option<(u32, u64)> {
        self.waiting.pop_front()
    }

    /// One that waits can be written now.
    pub(super) fn can_go_on(&self) -> bool {
        !self.waiting.is_empty() && self.has_room()
    }
}

/// What an answer holds that has become long.
#[derive(Default)]
pub(super) struct LongAnswer(Option<Rc<()>>);

impl LongAnswer {
    /// Whether an answer of so many bytes may get longer now. It counts among the long ones from then on.
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
    /// Whether it has so many rows.
    pub(super) fn has(&self, rows: usize) -> bool {
        self.next >= rows
    }

    /// Writes one step's worth of so many rows, each by its number.
    pub(super) fn write_some(&mut self, rows: usize, mut write: impl FnMut(usize, &mut Outcome)) {
        let until = rows.min(self.next + ROWS_PER_STEP);
        (self.next..until).for_each(|at| write(at, &mut self.outcome));
        self.next = until;
    }

    /// Its rows.
    pub(super) fn outcome(&self) -> &Outcome {
        &self.outcome
    }

    /// What it holds as a long answer, and its bytes.
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
