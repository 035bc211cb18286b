//! The sessions whose work is done in portions, in the order of their turns.

use std::collections::VecDeque;

use super::answers::LongAnswers;

/// The sessions with a request under way, or with subscriptions that lack something, each with its serial.
#[derive(Default)]
pub(super) struct Workload {
    /// The longest waiting first.
    workers: VecDeque<(u32, u64)>,
    long_answers: LongAnswers,
}

impl Workload {
    /// Gives a session its turn, after the others.
    pub(super) fn push(&mut self, id: u32, serial: u64) {
        self.workers.push_back((id, serial));
    }

    /// Takes the session whose turn it is.
    pub(super) fn next(&mut self) -> Option<(u32, u64)> {
        self.workers.pop_front()
    }

    /// Gives the next turn to the session that was pushed last.
    pub(super) fn last_comes_first(&mut self) {
        if !self.workers.is_empty() {
            self.workers.rotate_right(1);
        }
    }

    /// Whether no session waits for a turn.
    pub(super) fn is_empty(&self) -> bool {
        self.workers.is_empty()
    }

    /// The long answers under way.
    pub(super) fn long_answers(&mut self) -> &mut LongAnswers {
        &mut self.long_answers
    }

    /// Whether there is something to do.
    pub(super) fn can_go_on(&self) -> bool {
        !self.workers.is_empty() || self.long_answers.can_go_on()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_take_turns() {
        let mut workload = Workload::default();
        assert!(workload.is_empty() && !workload.can_go_on());
        (1..=3).for_each(|id| workload.push(id, id.into()));
        assert_eq!(workload.next(), Some((1, 1)));
        workload.push(1, 1);
        workload.last_comes_first();
        let turns: Vec<_> = std::iter::from_fn(|| workload.next()).map(|(id, _)| id).collect();
        assert_eq!(turns, [1, 2, 3]);
    }
}
