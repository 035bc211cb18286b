//! Long answers are written in portions, as requests are carried out. Each may have a megabyte, so only some of them are
//! under way at the same time.

use std::rc::Rc;

use super::sessions::{Sessions, Socket};
use crate::clock::Now;
use crate::protocol::Id;
use crate::protocol::json::Outcome;
use crate::tick::Channel;

/// Rows of an answer that are written in one step.
const ROWS_PER_STEP: usize = 2;
/// Bytes of an answer that are copied in one step, when all of it is there.
pub(super) const BYTES_PER_STEP: usize = 4_096;
/// A longer answer takes a place, bytes.
const SHORT_BYTES_MAX: usize = 16_384;
/// Answers that take a place, at the same time.
const LONG_MAX: usize = 16;

/// The places of a shard, and one of them: the places count how many hold them.
#[derive(Clone, Default)]
pub(super) struct Places(Rc<()>);

/// A place, once it is needed.
#[derive(Default)]
pub(super) struct Place(Option<Places>);

impl Place {
    /// Whether an answer that has so many bytes may get longer now.
    pub(super) fn allows(&mut self, bytes: usize, places: &Places) -> bool {
        if bytes >= SHORT_BYTES_MAX && self.0.is_none() && Rc::strong_count(&places.0) <= LONG_MAX {
            self.0 = Some(places.clone());
        }
        bytes < SHORT_BYTES_MAX || self.0.is_some()
    }
}

/// An answer that is being written.
#[derive(Default)]
pub(super) struct Answer {
    next: usize,
    outcome: Outcome,
    place: Place,
}

impl<S: Socket> Sessions<S> {
    /// Writes what is left of the rows of an answer, each by its number. True when that is done.
    pub(super) fn go_on_answering(
        &mut self,
        answer: &mut Answer,
        rows: usize,
        mut write: impl FnMut(&Self, usize, &mut Outcome),
    ) -> bool {
        while answer.next < rows {
            if !self.steps.take(1) || !answer.place.allows(answer.outcome.bytes(), &self.places) {
                return false;
            }
            let until = rows.min(answer.next + ROWS_PER_STEP);
            (answer.next..until).for_each(|at| write(self, at, &mut answer.outcome));
            answer.next = until;
        }
        self.steps.take(answer.outcome.bytes() / BYTES_PER_STEP)
    }

    /// Sends an answer that is written: see [`Outcome::write`].
    pub(super) fn say_outcome(
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
        let places = Places::default();
        let mut long: Vec<Place> = (0..LONG_MAX).map(|_| Place::default()).collect();
        assert!(long.iter_mut().all(|place| place.allows(SHORT_BYTES_MAX, &places)));
        let mut next = Place::default();
        assert!(next.allows(SHORT_BYTES_MAX - 1, &places) && !next.allows(SHORT_BYTES_MAX, &places));
        assert!(long[0].allows(1 << 20, &places));
        long.pop();
        assert!(next.allows(SHORT_BYTES_MAX, &places) && !Place::default().allows(SHORT_BYTES_MAX, &places));
    }
}
