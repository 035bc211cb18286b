//! What a session reads again: a resume the streams that it missed, a catch-up what was recorded, until it has come to where
//! the shard reads.

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

/// Bounds of catching up with what was recorded. Clones count the clients of an address together.
#[derive(Clone, Debug)]
pub struct CatchUps {
    /// Clients of one shard at once.
    max: usize,
    /// Clients of one address at once, over all shards.
    per_address: usize,
    /// For how long one may come no nearer to the present.
    patience_ns: u64,
    addresses: Arc<Addresses>,
}

impl CatchUps {
    /// At most `max` clients of a shard at once, and `per_address` of an address; one that comes no nearer to the present for
    /// `patience_ms` milliseconds gives up its place.
    pub fn new(max: usize, per_address: usize, patience_ms: u64) -> Self {
        Self { max, per_address, patience_ns: patience_ms * MS, addresses: Arc::default() }
    }

    /// A place for a client of this address.
    ///
    /// # Errors
    /// Which bound leaves no place.
    pub(super) fn place(&self, address: Option<IpAddr>, now_ns: u64) -> Result<Pursuit, &'static str> {
        let seat = address.map(|address| self.addresses.take(address, self.per_address));
        if let Some(None) = seat {
            return Err("too many clients of your address are catching up: `[record] catch_ups_per_address`");
        }
        Ok(Pursuit { _seat: seat.flatten(), nearest: u64::MAX, since_ns: now_ns })
    }

    /// Whether so many clients of a shard leave a place for one more.
    ///
    /// # Errors
    /// The bound that does not.
    pub(super) fn has_place(&self, others: usize) -> Result<(), &'static str> {
        match others >= self.max {
            true => Err("too many clients are catching up: `[record] catch_ups_max`"),
            false => Ok(()),
        }
    }
}

/// A client's place for catching up, and its progress.
#[derive(Debug)]
pub(super) struct Pursuit {
    /// Its address's; `None` for a client without one.
    _seat: Option<ConnectionPermit>,
    /// How few ticks there ever were between it and the present; `u64::MAX` before that is known.
    nearest: u64,
    /// Since when it has come no nearer, steady time.
    since_ns: u64,
}

/// What a session reads again.
#[derive(Debug)]
pub(super) struct Reading {
    /// The next position.
    at: u64,
    /// What it resumes: read by this, unless it catches up with something, too.
    ways: Ways,
    /// A time whose position has to be found first: from there it reads on, if that is earlier.
    seek: Option<u64>,
    /// What the history was asked for: until it answers there is nothing to read.
    asked: Option<Want>,
    /// What the history gave last.
    block: Option<Arc<Block>>,
    /// Where streams begin.
    beginnings: FxHashMap<Key, Beginning>,
    /// The client is informed when it has caught up.
    catches_up: bool,
    /// Its place, where it may catch up.
    pursuit: Option<Pursuit>,
    /// Ticks, of whatever streams, that were kept nowhere.
    missed: u64,
}

/// Why a reading stops.
pub(super) enum Stop {
    /// It has come to where the shard reads.
    Joined,
    /// There is no room, or it has had its share of the turn.
    Paused,
    /// What is next is not in the ring, or is not known.
    Lacking,
}

impl Reading {
    /// One that reads from this position on.
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

    /// It reads from this position on, or from where it does.
    pub(super) fn include(&mut self, position: u64) {
        self.at = self.at.min(position);
    }

    /// It reads a stream from this tick of it on.
    pub(super) fn read_from(&mut self, key: Key, position: u64) {
        self.ways.push(key, position);
    }

    /// It reads what there is of a stream from this position on, where it may have no tick.
    pub(super) fn read_behind(&mut self, key: Key, position: u64) {
        self.ways.push_behind(key, position);
    }

    /// It reads what was recorded of a stream. States, which are sent as they are when it has caught up, have no beginning.
    pub(super) fn read_since(&mut self, key: Key, beginning: Beginning) {
        self.catches_up = true;
        if let Some(first) = self.ways.first() {
            // What resumes is read by position, too, from now on.
            self.include(first);
        }
        if key.channel().is_some() {
            let from_ns = beginning.since_ns();
            self.seek = Some(self.seek.map_or(from_ns, |ns| ns.min(from_ns)));
            // It may be sent back.
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

    /// Whether it catches up with what was recorded: the client is informed when that is done.
    pub(super) fn catches_up(&self) -> bool {
        self.catches_up
    }

    /// The client is informed when it has caught up.
    pub(super) fn announce(&mut self) {
        self.catches_up = true;
    }

    /// Whether it has a place for catching up.
    pub(super) fn has_place(&self) -> bool {
        self.pursuit.is_some()
    }

    /// Gives it a place for catching up.
    pub(super) fn take_place(&mut self, pursuit: Pursuit) {
        self.pursuit = Some(pursuit);
    }

    // ---- how far it has come --------------------------------------------------------------------------

    /// The next position.
    pub(super) fn at(&self) -> u64 {
        self.at
    }

    /// The next position is this one.
    pub(super) fn set_at(&mut self, position: u64) {
        self.at = position;
    }

    /// How far it has come in each of the streams that it resumes.
    pub(super) fn ways(&mut self) -> &mut Ways {
        &mut self.ways
    }

    /// Ticks, of whatever streams, that were kept nowhere.
    pub(super) fn missed(&self) -> u64 {
        self.missed
    }

    /// So many ticks more were kept nowhere.
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

    /// What comes before this position is kept nowhere.
    pub(super) fn skip_to(&mut self, position: u64) {
        self.misses(position.saturating_sub(self.at));
        self.at = self.at.max(position);
    }

    /// Gives up what was not read yet: the rest, up to `cursor`, counts as missed.
    pub(super) fn give_up(&mut self, cursor: u64) {
        if !self.is_found() {
            self.at = 0;
        }
        self.skip_to(cursor);
    }

    /// Whether it is known where it reads: first the time that it begins with has to be found.
    fn is_found(&self) -> bool {
        self.seek.is_none() && !matches!(self.asked, Some(Want::Since(_)))
    }

    /// Whether it has come no nearer to the present, which is at `cursor`, for as long as it may.
    pub(super) fn is_late(&mut self, cursor: u64, bounds: &CatchUps, now_ns: u64) -> bool {
        let ahead = if self.is_found() { cursor.saturating_sub(self.at) } else { u64::MAX };
        let Some(pursuit) = &mut self.pursuit else { return false };
        if ahead < pursuit.nearest {
            (pursuit.nearest, pursuit.since_ns) = (ahead, now_ns);
        }
        now_ns.saturating_sub(pursuit.since_ns) >= bounds.patience_ns
    }

    // ---- the history ----------------------------------------------------------------------------------

    /// Whether it has to seek a time before it reads on.
    pub(super) fn seeks(&self) -> bool {
        self.seek.is_some()
    }

    /// What it needs of the history.
    pub(super) fn want(&self) -> Want {
        self.seek.map_or(Want::At(self.at), Want::Since)
    }

    /// What it has asked the history for.
    pub(super) fn asked(&self) -> Option<Want> {
        self.asked
    }

    /// The history was asked for what it needs.
    pub(super) fn ask(&mut self, want: Want) {
        (self.asked, self.seek) = (Some(want), None);
    }

    /// Takes what the history has found, where the shard reads at `cursor`. How many ticks it holds then, and
    /// whether there may be more to read.
    pub(super) fn answered(&mut self, want: Want, found: Found, cursor: u64) -> (usize, bool) {
        self.asked = None;
        let mut goes_on = true;
        match (want, found) {
            (_, Found::Block(block)) => self.block = Some(block),
            (_, Found::Start(at, block)) => {
                self.include(at);
                self.block = block;
            }
            // It was sent back meanwhile, and asks again.
            (Want::At(position), _) if position != self.at => {}
            // The shard may be behind the history: what it has still to send is not missing.
            (_, Found::Hole(upto)) => self.skip_to(upto.min(cursor)),
            (want, Found::Gone) => {
                // Where it would have begun is not known any more.
                let from = if matches!(want, Want::Since(_)) { 0 } else { self.at };
                self.misses(cursor.saturating_sub(from));
                self.at = cursor;
                goes_on = false;
            }
        }
        (self.block.as_ref().map_or(0, |block| block.len()), goes_on)
    }
}
