//! Readers: sessions that resume or catch up have their turns, and those that resume go from tick to tick of their
//! streams by the [index](crate::shard::positions) that they share.
//!
//! All of them together look at so many positions in a turn, and what is read for one waits in its outbox no further than its
//! socket may be expected to take soon: the ring keeps it as well. So many that come back at once take little memory, and
//! others do not wait for them.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::model::tick::Key;
use crate::shard::positions::Cover;
use crate::shard::sessions::reading::{Reading, Stop};
use crate::shard::sessions::{Sessions, Socket};
use crate::time::clock::Now;

/// Sessions whose reading is looked at in one turn.
const READERS_PER_TURN: usize = 256;

/// The sessions that read again, each with its serial. They are looked at in rounds.
#[derive(Debug, Default)]
pub(in crate::shard) struct Readers {
    sessions: Vec<(u32, u64)>,
    /// How many of this round are still to be looked at: those in front.
    left: usize,
    /// One of this round, or that came during it, can go on at once.
    more: bool,
}

impl Readers {
    /// Takes one in.
    pub(in crate::shard) fn push(&mut self, id: u32, serial: u64) {
        self.sessions.push((id, serial));
        self.more = true;
    }

    /// One of them can go on: there is a round after this one.
    pub(in crate::shard) fn wake(&mut self) {
        self.more = true;
    }

    pub(in crate::shard) fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    pub(in crate::shard) fn iter(&self) -> impl Iterator<Item = (u32, u64)> {
        self.sessions.iter().copied()
    }

    /// Begins a round if the last one is over.
    fn begin(&mut self) {
        if self.left == 0 {
            (self.left, self.more) = (self.sessions.len(), false);
        }
    }

    /// The next of this round, which is then out of it.
    fn next(&mut self) -> Option<(u32, u64)> {
        self.left = self.left.checked_sub(1)?;
        self.sessions.get(self.left).copied()
    }

    /// The one that was [next](Self::next) reads no more.
    fn leave(&mut self) {
        // What takes its place is behind those that are left of this round.
        self.sessions.swap_remove(self.left);
    }
}

/// How far a session that resumes has come in each of its streams.
#[derive(Debug, Default)]
pub(in crate::shard) struct Ways {
    /// The next tick of each stream that is known to have one, the earliest first.
    ahead: BinaryHeap<Reverse<(u64, Key)>>,
    /// The others, and the position from which on they have none yet.
    beyond: Vec<(Key, u64)>,
}

impl Ways {
    /// A stream has to be read from this tick of it on.
    pub(in crate::shard) fn push(&mut self, key: Key, position: u64) {
        self.ahead.push(Reverse((position, key)));
    }

    /// The first position that a stream has to be read from.
    pub(in crate::shard) fn first(&self) -> Option<u64> {
        let ahead = self.ahead.peek().map(|Reverse((position, _))| *position);
        let beyond = self.beyond.iter().map(|(_, position)| position.wrapping_add(1));
        beyond.chain(ahead).min()
    }

    /// A stream has to be read from this position on; what is behind it is looked up.
    pub(in crate::shard) fn push_behind(&mut self, key: Key, position: u64) {
        self.beyond.push((key, position.wrapping_sub(1)));
    }
}

impl<S: Socket> Sessions<S> {
    /// Lets readers read on, as many as this turn has room for.
    pub(in crate::shard) fn read_all(&mut self, now: Now) {
        self.take_answers(now);
        self.readers.begin();
        for _ in 0..READERS_PER_TURN {
            if self.slots == 0 {
                break;
            }
            let Some((id, serial)) = self.readers.next() else { break };
            match self.connections.get_mut(id).filter(|c| c.serial == serial) {
                Some(connection) if connection.reading.is_some() => {
                    // What else it waits for has waited longer than what it reads.
                    if connection.session.waiting() > 0 {
                        self.recover(id, now);
                    }
                    self.let_go_late(id, now);
                    if self.read_on(id, now) {
                        self.readers.wake();
                    }
                }
                gone => {
                    if let Some(connection) = gone {
                        connection.reads = false;
                    }
                    self.readers.leave();
                }
            }
        }
    }

    /// Whether some readers can go on.
    pub(in crate::shard) fn can_read(&self) -> bool {
        self.readers.left > 0 || self.readers.more
    }

    /// Sends a session the next ticks of the streams that it resumes.
    pub(in crate::shard) fn read_ways(&mut self, id: u32, reading: &mut Reading, now: Now) -> Stop {
        match self.resumes.positions.cover(&self.ring, reading.at, self.cursor, &mut self.slots) {
            Cover::Whole => {}
            Cover::Later => return Stop::Paused,
            Cover::Lost => return Stop::Lacking,
        }
        let had = self.slots;
        let mut told_any = false;
        let stop = loop {
            if reading.ways.ahead.is_empty() && !self.look_beyond(reading) {
                break Stop::Joined;
            }
            let connection = self.connections.get_mut(id);
            let connection = connection.filter(|connection| connection.may_read(self.options.tuning));
            let Some(connection) = connection.filter(|_| self.slots > 0) else { break Stop::Paused };
            let Some(Reverse((position, key))) = reading.ways.ahead.pop() else { break Stop::Paused };
            self.slots -= 1;
            // One that it has left needs not be read.
            let Some(place) = connection.place(key) else { continue };
            let Some(tick) = self.ring.at(position) else {
                reading.ways.push(key, position);
                break Stop::Lacking;
            };
            told_any |= self.read_tick(id, place, tick, reading, now);
            self.go_on_behind(key, position, &mut reading.ways);
        };
        // What it was lent to read what it had found is no other's.
        self.slots = self.slots.min(had);
        let next = reading.ways.ahead.peek();
        reading.at = next.map_or(self.cursor, |Reverse((position, _))| *position);
        if told_any {
            self.queue(id);
        }
        stop
    }

    /// Finds the next tick of a stream that the shard has come to.
    fn go_on_behind(&self, key: Key, position: u64, ways: &mut Ways) -> bool {
        let next =
            self.resumes.positions.next(key, position.wrapping_add(1)).filter(|next| *next < self.cursor);
        match next {
            Some(next) => ways.push(key, next),
            None => ways.beyond.push((key, self.cursor.wrapping_sub(1))),
        }
        next.is_some()
    }

    /// Finds out which streams have ticks that the shard came to meanwhile. True if there are some. A stream that was passed by
    /// so long ago that the ring does not hold all since then has missed some.
    fn look_beyond(&mut self, reading: &mut Reading) -> bool {
        let beyond = std::mem::take(&mut reading.ways.beyond);
        self.slots = self.slots.saturating_sub(beyond.len());
        let mut found = 0;
        for (key, position) in beyond {
            let lost = !self.resumes.positions.holds(position.wrapping_add(1), self.cursor);
            reading.missed += u64::from(lost);
            found += usize::from(self.go_on_behind(key, position, &mut reading.ways));
        }
        // What was found is read in this turn, or one with very many streams would look at them for ever.
        self.slots = self.slots.max(found);
        found > 0
    }
}
