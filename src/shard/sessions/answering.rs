//! Answers are written in portions: see [`answers`](crate::shard::answers).

use super::{Connection, Sessions, WaitsFor};
use crate::model::tick::Channel;
use crate::protocol::Id;
use crate::protocol::outcome::Outcome;
use crate::shard::answers::{Answer, BYTES_PER_STEP, LongAnswer};
use crate::shard::socket::Socket;
use crate::time::clock::Now;

impl<S: Socket> Sessions<S> {
    /// Writes the remaining rows of an answer; `write` writes a row by its number. True when that is done.
    pub(super) fn go_on_answering(
        &mut self,
        id: u32,
        answer: &mut Answer,
        rows: usize,
        mut write: impl FnMut(&Self, usize, &mut Outcome),
    ) -> bool {
        while !answer.has(rows) {
            let (long, bytes) = answer.long();
            if !self.may_write(id, long, bytes) {
                return false;
            }
            answer.write_some(rows, |at, outcome| write(self, at, outcome));
        }
        self.steps.take(answer.outcome().bytes() / BYTES_PER_STEP)
    }

    /// Takes a step to write more of an answer of this size. False if no step is left, or if the session has to wait
    /// for a permit to write a long answer.
    pub(super) fn may_write(&mut self, id: u32, long: &mut LongAnswer, bytes: usize) -> bool {
        let long_answers = self.workload.long_answers();
        if !long.may_grow(bytes, long_answers) {
            if let Some(connection) = self.connections.get_mut(id) {
                connection.request.waits_for = Some(WaitsFor::LongAnswer);
                long_answers.wait(id, connection.serial);
            }
            return false;
        }
        self.steps.take(1)
    }

    /// Gives turns to the sessions that have waited longest to write a long answer, as many as there are permits.
    pub(super) fn go_on_with_long_answers(&mut self) {
        let mut room = self.workload.long_answers().room();
        while room > 0
            && let Some((id, serial)) = self.workload.long_answers().next_waiting()
        {
            let waits = |c: &&mut Connection<S>| c.request.waits_for == Some(WaitsFor::LongAnswer);
            let Some(connection) = self.connections.get_same(id, serial).filter(waits) else { continue };
            connection.request.waits_for = None;
            room -= 1;
            self.put_to_work(id);
        }
    }

    /// Sends a finished answer: see [`Outcome::write`].
    pub(super) fn say_outcome(
        &mut self,
        id: u32,
        asked: (Option<&Id>, &str),
        (channels, all): (&[Channel], bool),
        answer: &Answer,
        now: Now,
    ) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        let frame = self.egress.text(|out| answer.outcome().write(asked, channels, all, out));
        connection.session.push_answer(frame, now.mono_ns);
        self.queue(id);
    }
}
