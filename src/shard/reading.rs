//! The rereading of a session: a resume rereads its streams from the ring, a catch-up what was recorded, until it
//! reaches the position of the shard.

use std::net::IpAddr;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::start::Beginning;
use super::ways::Ways;
use crate::history::{Block, Found, Want};
use crate::model::tick::{Key, Tick};
use crate::net::{Addresses, ConnectionPermit};
use crate::ring::TickRing;
use crate::time::clock::MS;

/// Limits for clients that catch up. All clones share the counts per address.
#[derive(Clone, Debug)]
pub struct CatchUps {
    /// Clients of one shard at once.
    max: usize,
    /// Clients of one address at once, over all shards.
    per_address: usize,
    /// How long a client may come no nearer to the present.
    patience_ns: u64,
    addresses: Arc<Addresses>,
}

impl CatchUps {
    /// At most `max` clients of a shard at once, and `per_address` of an address. A client that comes no nearer to the
    /// present for `patience_ms` milliseconds loses its slot.
    pub fn new(max: usize, per_address: usize, patience_ms: u64) -> Self {
        Self { max, per_address, patience_ns: patience_ms * MS, addresses: Arc::default() }
    }

    /// Takes a catch-up slot for a client of this address.
    ///
    /// # Errors
    /// The limit that leaves no slot.
    pub(super) fn place(&self, address: Option<IpAddr>, now_ns: u64) -> Result<Pursuit, &'static str> {
        let seat = address.map(|address| self.addresses.take(address, self.per_address));
        if let Some(None) = seat {
            return Err("too many clients of your address are catching up: `[record] catch_ups_per_address`");
        }
        Ok(Pursuit { _seat: seat.flatten(), nearest: u64::MAX, since_ns: now_ns })
    }

    /// Checks that a shard in which `others` clients catch up has a slot left.
    ///
    /// # Errors
    /// The limit that leaves no slot.
    pub(super) fn has_place(&self, others: usize) -> Result<(), &'static str> {
        match others >= self.max {
            true => Err("too many clients are catching up: `[record] catch_ups_max`"),
            false => Ok(()),
        }
    }
}

/// The catch-up slot of a client, and its progress.
#[derive(Debug)]
pub(super) struct Pursuit {
    /// The slot of its address; `None` for a client without an address.
    _seat: Option<ConnectionPermit>,
    /// The fewest ticks that ever lay between it and the present; `u64::MAX` while unknown.
    nearest: u64,
    /// When it last came nearer, steady time.
    since_ns: u64,
}

/// What a session has still to reread.
#[derive(Debug)]
pub(super) struct Reading {
    /// The next position.
    at: u64,
    /// The streams that it resumes. They guide the reading, unless the session catches up as well.
    ways: Ways,
    /// A time whose position has to be found first. Reading continues there, if that is earlier.
    seek: Option<u64>,
    /// What the history was asked for. Nothing is read until it answers.
    asked: Option<Want>,
    /// The last block from the history.
    block: Option<Arc<Block>>,
    /// Where each stream that it catches up with begins.
    beginnings: FxHashMap<Key, Beginning>,
    /// The client is sent `joined` when it has caught up.
    catches_up: bool,
    /// Its catch-up slot, if it has one.
    pursuit: Option<Pursuit>,
    /// Ticks of any stream that neither the ring nor the history held.
    missed: u64,
}

/// Why a session stops reading.
pub(super) enum Stop {
    /// It has reached the position of the shard.
    Joined,
    /// There is no room, or this turn has no positions left.
    Paused,
    /// The next tick is not in the ring, or its position is not known.
    Lacking,
}

impl Reading {
    /// A reading that starts at this position.
    pub(super) fn new(at: u64) -> Self {
        Self {
            at,
            ways: Ways::default(),
            seek: None,
            asked: None,
            block: None,
            beginnings: FxHashMap::default(),
            catches_up: false,
            pursuit: None,
            missed: 0,
        }
    }

    // ---- what it reads --------------------------------------------------------------------------------

    /// Goes back to this position, if that is earlier than the next one.
    pub(super) fn include(&mut self, position: u64) {
        self.at = self.at.min(position);
    }

    /// Has it read a stream from the tick at this position on.
    pub(super) fn read_from(&mut self, key: Key, position: u64) {
        self.ways.push(key, position);
    }

    /// Has it read a stream from this position on, where the stream need not have a tick.
    pub(super) fn read_behind(&mut self, key: Key, position: u64) {
        self.ways.push_behind(key, position);
    }

    /// Has it read what was recorded of a stream. States have no beginning: the newest is sent when it has caught up.
    pub(super) fn read_since(&mut self, key: Key, beginning: Beginning) {
        self.catches_up = true;
        if let Some(first) = self.ways.first() {
            // The streams that it resumes are read position by position, too, from now on.
            self.include(first);
        }
        if key.channel().is_some() {
            let from_ns = beginning.since_ns();
            self.seek = Some(self.seek.map_or(from_ns, |ns| ns.min(from_ns)));
            // It may have to go back.
            if let Some(pursuit) = &mut self.pursuit {
                pursuit.nearest = u64::MAX;
            }
            self.beginnings.insert(key, beginning);
        }
    }

    /// Where a stream that it catches up with begins.
    pub(super) fn beginning(&self, key: Key) -> Option<&Beginning> {
        self.beginnings.get(&key)
    }

    /// Whether it catches up: then the client is sent `joined` at the end.
    pub(super) fn catches_up(&self) -> bool {
        self.catches_up
    }

    /// The client is sent `joined` when it has caught up.
    pub(super) fn announce(&mut self) {
        self.catches_up = true;
    }

    /// Whether it has a catch-up slot.
    pub(super) fn has_place(&self) -> bool {
        self.pursuit.is_some()
    }

    /// Gives it a catch-up slot.
    pub(super) fn take_place(&mut self, pursuit: Pursuit) {
        self.pursuit = Some(pursuit);
    }

    // ---- how far it has come --------------------------------------------------------------------------

    /// The next position.
    pub(super) fn at(&self) -> u64 {
        self.at
    }

    /// Sets the next position.
    pub(super) fn set_at(&mut self, position: u64) {
        self.at = position;
    }

    /// How far it has come in each of the streams that it resumes.
    pub(super) fn ways(&mut self) -> &mut Ways {
        &mut self.ways
    }

    /// Ticks of any stream that neither the ring nor the history held.
    pub(super) fn missed(&self) -> u64 {
        self.missed
    }

    /// Adds ticks that neither the ring nor the history held.
    pub(super) fn misses(&mut self, ticks: u64) {
        self.missed += ticks;
    }

    /// The stream of the next position.
    pub(super) fn key(&self, ring: &TickRing) -> Option<Key> {
        let kept = self.block.as_ref().and_then(|block| block.key_at(self.at));
        kept.or_else(|| ring.key_at(self.at))
    }

    /// The tick of the next position.
    pub(super) fn tick(&self, ring: &TickRing) -> Option<Tick> {
        let kept = self.block.as_ref().and_then(|block| block.at(self.at));
        kept.or_else(|| ring.at(self.at))
    }

    /// Goes to the next position.
    pub(super) fn step(&mut self) {
        self.at += 1;
        self.block.take_if(|block| block.end() == self.at);
    }

    /// Skips to this position. What lies before it counts as missed.
    pub(super) fn skip_to(&mut self, position: u64) {
        self.misses(position.saturating_sub(self.at));
        self.at = self.at.max(position);
    }

    /// Skips the rest, up to `cursor`, which counts as missed.
    pub(super) fn give_up(&mut self, cursor: u64) {
        if !self.is_found() {
            self.at = 0;
        }
        self.skip_to(cursor);
    }

    /// Whether its position is known: the time that it begins with may still have to be found.
    fn is_found(&self) -> bool {
        self.seek.is_none() && !matches!(self.asked, Some(Want::Since(_)))
    }

    /// Whether it has come no nearer to the present, which is at `cursor`, for as long as `bounds` allow.
    pub(super) fn is_late(&mut self, cursor: u64, bounds: &CatchUps, now_ns: u64) -> bool {
        let ahead = if self.is_found() { cursor.saturating_sub(self.at) } else { u64::MAX };
        let Some(pursuit) = &mut self.pursuit else { return false };
        if ahead < pursuit.nearest {
            (pursuit.nearest, pursuit.since_ns) = (ahead, now_ns);
        }
        now_ns.saturating_sub(pursuit.since_ns) >= bounds.patience_ns
    }

    // ---- the history ----------------------------------------------------------------------------------

    /// Whether a time has to be found before it reads on.
    pub(super) fn seeks(&self) -> bool {
        self.seek.is_some()
    }

    /// What it has to ask the history for.
    pub(super) fn want(&self) -> Want {
        self.seek.map_or(Want::At(self.at), Want::Since)
    }

    /// What it has asked the history for.
    pub(super) fn asked(&self) -> Option<Want> {
        self.asked
    }

    /// Notes that the history was asked for this.
    pub(super) fn ask(&mut self, want: Want) {
        (self.asked, self.seek) = (Some(want), None);
    }

    /// Takes an answer of the history, with the shard at `cursor`. Returns how many ticks its block has, and whether
    /// there may be more to read.
    pub(super) fn answered(&mut self, want: Want, found: Found, cursor: u64) -> (usize, bool) {
        self.asked = None;
        let mut goes_on = true;
        match (want, found) {
            (_, Found::Block(block)) => self.block = Some(block),
            (_, Found::Start(at, block)) => {
                self.include(at);
                self.block = block;
            }
            // It went back meanwhile, and asks again.
            (Want::At(position), _) if position != self.at => {}
            // The shard may be behind the history: what it has still to read from the ring is not missing.
            (_, Found::Hole(upto)) => self.skip_to(upto.min(cursor)),
            (want, Found::Gone) => {
                // Its first position can no longer be found.
                let from = if matches!(want, Want::Since(_)) { 0 } else { self.at };
                self.misses(cursor.saturating_sub(from));
                self.at = cursor;
                goes_on = false;
            }
        }
        (self.block.as_ref().map_or(0, |block| block.len()), goes_on)
    }
}
