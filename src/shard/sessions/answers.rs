//! Long answers are written in portions, as requests are carried out. Each may have a megabyte, so only some of them are
//! under way at the same time.

use std::collections::VecDeque;
use std::rc::Rc;

use crate::model::tick::Channel;
use crate::protocol::Id;
use crate::protocol::outcome::Outcome;
use crate::shard::sessions::connection::{Connection, WaitsFor};
use crate::shard::sessions::{Sessions, Socket};
use crate::time::clock::Now;

/// Rows of an answer that are written in one step.
const ROWS_PER_STEP: usize = 2;
/// Bytes of an answer that are copied in one step, when all of it is there.
pub(in crate::shard) const BYTES_PER_STEP: usize = 4_096;
/// A longer answer is a long one, bytes.
const SHORT_BYTES_MAX: usize = 16_384;
/// Long answers at the same time.
const LONG_MAX: usize = 16;

/// The long answers of a shard that are under way: each holds a clone of the counter. The sessions that wait to write
/// one, each with its serial.
#[derive(Default)]
pub(in crate::shard) struct LongAnswers {
    under_way: Rc<()>,
    waiting: VecDeque<(u32, u64)>,
}

impl LongAnswers {
    fn has_room(&self) -> bool {
        Rc::strong_count(&self.under_way) <= LONG_MAX
    }

    /// One that waits can be written now.
    pub(in crate::shard) fn can_go_on(&self) -> bool {
        !self.waiting.is_empty() && self.has_room()
    }
}

/// What an answer holds that has become long.
#[derive(Default)]
pub(in crate::shard) struct LongAnswer(Option<Rc<()>>);

impl LongAnswer {
    /// Whether an answer of so many bytes may get longer now. It counts among the long ones from then on.
    fn may_grow(&mut self, bytes: usize, all: &LongAnswers) -> bool {
        if bytes >= SHORT_BYTES_MAX && self.0.is_none() && all.has_room() {
            self.0 = Some(Rc::clone(&all.under_way));
        }
        bytes < SHORT_BYTES_MAX || self.0.is_some()
    }
}

/// An answer that is being written.
#[derive(Default)]
pub(in crate::shard) struct Answer {
    next: usize,
    outcome: Outcome,
    long: LongAnswer,
}

impl<S: Socket> Sessions<S> {
    /// Writes what is left of the rows of an answer, each by its number. True when that is done.
    pub(in crate::shard) fn go_on_answering(
        &mut self,
        id: u32,
        answer: &mut Answer,
        rows: usize,
        mut write: impl FnMut(&Self, usize, &mut Outcome),
    ) -> bool {
        while answer.next < rows {
            if !self.may_write(id, &mut answer.long, answer.outcome.bytes()) {
                return false;
            }
            let until = rows.min(answer.next + ROWS_PER_STEP);
            (answer.next..until).for_each(|at| write(self, at, &mut answer.outcome));
            answer.next = until;
        }
        self.steps.take(answer.outcome.bytes() / BYTES_PER_STEP)
    }

    /// Takes a step to write some of an answer that has so many bytes. False: not now. A session whose answer would be
    /// one long answer too many waits until another one is sent.
    pub(in crate::shard) fn may_write(&mut self, id: u32, long: &mut LongAnswer, bytes: usize) -> bool {
        if !long.may_grow(bytes, &self.long_answers) {
            if let Some(connection) = self.connections.get_mut(id) {
                connection.waits_for = Some(WaitsFor::LongAnswer);
                self.long_answers.waiting.push_back((id, connection.serial));
            }
            return false;
        }
        self.steps.take(1)
    }

    /// Has those sessions go on that waited longest to write a long answer, as many as may.
    pub(in crate::shard) fn go_on_with_long_answers(&mut self) {
        let mut room = (LONG_MAX + 1).saturating_sub(Rc::strong_count(&self.long_answers.under_way));
        while room > 0
            && let Some((id, serial)) = self.long_answers.waiting.pop_front()
        {
            let connection = self.connections.get_mut(id).filter(|connection| connection.serial == serial);
            let waits = |connection: &&mut Connection<S>| connection.waits_for == Some(WaitsFor::LongAnswer);
            let Some(connection) = connection.filter(waits) else { continue };
            connection.waits_for = None;
            room -= 1;
            self.put_to_work(id);
        }
    }

    /// Sends an answer that is written: see [`Outcome::write`].
    pub(in crate::shard) fn say_outcome(
        &mut self,
        id: u32,
        asked: (Option<&Id>, &str),
        (channels, all): (&[Channel], bool),
        answer: &Answer,
        now: Now,
    ) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        let frame = self.frames.text(|out| answer.outcome.write(asked, channels, all, out));
        connection.session.push_answer(frame, now.mono_ns);
        self.queue(id);
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
