//! Publishers that wait until the shards have taken up the instruments they listed.
//!
//! A shard does not read the ring past an instrument that its subscriptions have not taken up. With many
//! wildcards that takes time, and a publisher that lists thousands of instruments at once would delay every
//! client. So that publisher waits, while the others continue. Its input is held here: at most
//! [`CHUNKS_PER_PUBLISHER`](crate::feed::publish::CHUNKS_PER_PUBLISHER) chunks, after which its socket is not
//! read.

use std::collections::{HashMap, VecDeque};

use crate::feed::publish::Chunk;

/// The rest of a chunk.
pub(super) struct Rest {
    pub(super) chunk: Chunk,
    /// Bytes already taken.
    pub(super) taken: usize,
    /// The number of the next line.
    pub(super) line: u64,
}

/// Input of a waiting publisher.
pub(super) enum Held {
    Lines(Rest),
    /// The publisher has disconnected.
    Closed,
}

/// The waiting publishers in round-robin order, and the held input of each.
#[derive(Default)]
pub(super) struct Waiting {
    turns: VecDeque<u32>,
    held: HashMap<u32, VecDeque<Held>>,
}

impl Waiting {
    /// Makes a publisher wait; `rest`, the rest of its chunk, goes before its other held input.
    pub(super) fn hold(&mut self, publisher: u32, rest: Option<Rest>) {
        let held = self.held.entry(publisher).or_insert_with(|| {
            self.turns.push_back(publisher);
            VecDeque::new()
        });
        if let Some(rest) = rest {
            held.push_front(Held::Lines(rest));
        }
    }

    /// Appends the next input of a waiting publisher; `Err` returns it if the publisher does not wait.
    pub(super) fn take(&mut self, publisher: u32, next: Held) -> Result<(), Held> {
        let Some(held) = self.held.get_mut(&publisher) else { return Err(next) };
        held.push_back(next);
        Ok(())
    }

    /// Returns the publisher that continues next and its oldest held input. Each call serves the next
    /// publisher in turn.
    pub(super) fn next(&mut self) -> Option<(u32, Option<Held>)> {
        let publisher = self.turns.pop_front()?;
        let held = self.held.get_mut(&publisher)?;
        let next = held.pop_front();
        if held.is_empty() {
            self.held.remove(&publisher);
        } else {
            self.turns.push_back(publisher);
        }
        Some((publisher, next))
    }

    /// Returns true if no publisher waits.
    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Returns the number of waiting publishers.
    pub(super) fn len(&self) -> usize {
        self.held.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rest(publisher: u32, line: u64) -> Rest {
        Rest {
            chunk: Chunk { publisher, first_line: line, rx_ns: 0, bytes: Vec::new(), _permit: None },
            taken: 0,
            line,
        }
    }

    fn next(waiting: &mut Waiting) -> Option<(u32, Option<u64>)> {
        let (publisher, next) = waiting.next()?;
        Some(match next {
            Some(Held::Lines(rest)) => (publisher, Some(rest.line)),
            Some(Held::Closed) | None => (publisher, None),
        })
    }

    #[test]
    fn what_waits_stays_in_order_and_goes_on_by_turns() {
        let mut waiting = Waiting::default();
        assert!(waiting.take(1, Held::Closed).is_err(), "it does not wait");
        waiting.hold(1, Some(rest(1, 7)));
        waiting.hold(2, None);
        for line in [8, 9] {
            assert!(waiting.take(1, Held::Lines(rest(1, line))).is_ok());
            assert!(waiting.take(2, Held::Lines(rest(2, line))).is_ok());
        }
        assert!(waiting.take(1, Held::Closed).is_ok());
        assert_eq!(next(&mut waiting), Some((1, Some(7))));
        // Publisher 1 has to wait again.
        waiting.hold(1, Some(rest(1, 7)));
        let order = std::iter::from_fn(|| next(&mut waiting)).collect::<Vec<_>>();
        let of_two = [(2, Some(8)), (1, Some(7)), (2, Some(9)), (1, Some(8)), (1, Some(9)), (1, None)];
        assert_eq!(order, of_two);
        assert!(waiting.is_empty());
        // A publisher with nothing held waits no longer than others.
        waiting.hold(3, None);
        assert!(waiting.len() == 1 && next(&mut waiting) == Some((3, None)) && waiting.is_empty());
    }
}
