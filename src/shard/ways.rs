//! The next tick of each stream of a resume, which reads only its own streams.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::model::tick::Key;

/// How far a session that resumes has come in each of its streams.
#[derive(Debug, Default)]
pub(super) struct Ways {
    /// The next tick of each stream that is known to have one, the earliest first.
    ahead: BinaryHeap<Reverse<(u64, Key)>>,
    /// The other streams, each with the last position that was looked up.
    beyond: Vec<(Key, u64)>,
}

impl Ways {
    /// Whether no stream is known to have a tick.
    pub(super) fn is_empty(&self) -> bool {
        self.ahead.is_empty()
    }

    /// The position of the earliest tick.
    pub(super) fn next_position(&self) -> Option<u64> {
        self.ahead.peek().map(|Reverse((position, _))| *position)
    }

    /// Takes the earliest tick: its position, and its stream.
    pub(super) fn pop(&mut self) -> Option<(u64, Key)> {
        self.ahead.pop().map(|Reverse(next)| next)
    }

    /// Takes the streams without a known tick, each with the last position that was looked up.
    pub(super) fn take_beyond(&mut self) -> Vec<(Key, u64)> {
        std::mem::take(&mut self.beyond)
    }

    /// Adds a stream whose next tick is at this position.
    pub(super) fn push(&mut self, key: Key, position: u64) {
        self.ahead.push(Reverse((position, key)));
    }

    /// The first position from which a stream has to be read.
    pub(super) fn first(&self) -> Option<u64> {
        let ahead = self.next_position();
        let beyond = self.beyond.iter().map(|(_, position)| position.wrapping_add(1));
        beyond.chain(ahead).min()
    }

    /// Adds a stream that has to be read from this position on. Its next tick is looked up later.
    pub(super) fn push_behind(&mut self, key: Key, position: u64) {
        self.beyond.push((key, position.wrapping_sub(1)));
    }
}
