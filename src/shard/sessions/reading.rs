//! Reading again: sessions that resume or catch up are told what the ring, and the history, hold, then the stream, with no
//! hole and no repeat.
//!
//! A subscription that is read for is left out of the fan-out while its session reads on from some position, as much as
//! there is room for; when that reading has come to where the shard reads, between two turns, the subscription is current.
//! What the ring holds no more is asked of the [history](crate::history), a block at a time, for who catches up, of whom there
//! are only so many: the session waits for it, the shard does not. What is kept nowhere is told from the last value.
//!
//! A catch-up reads position by position; a resume reads its own streams alone: see [readers](crate::shard::sessions::readers).

use std::sync::Arc;

use rustc_hash::FxHashMap;

use crate::history::{Answer, Block, Found, HistoryClient, Ticket, Unasked, Want};
use crate::model::tick::{Body, Key, State, Tick};
use crate::net::{Addresses, ConnectionPermit};
use crate::protocol::json::{self, Mark};
use crate::ring::TickRing;
use crate::session::{Ledger, Missing};
use crate::shard::sessions::readers::Ways;
use crate::shard::sessions::{Sessions, Socket};
use crate::text;
use crate::time::clock::{MS, Now};

/// Ticks that count as one row of work, see [`Sessions::charge`].
const SLOTS_PER_ROW: usize = 16;

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
}

/// A client's place for catching up, and its progress.
#[derive(Debug)]
struct Pursuit {
    /// Its address's; `None` for a client without one.
    _seat: Option<ConnectionPermit>,
    /// How few ticks there ever were between it and the present; `u64::MAX` before that is known.
    nearest: u64,
    /// Since when it has come no nearer, steady time.
    since_ns: u64,
}

/// Where a subscription that catches up begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::shard) struct Beginning {
    /// With the first tick that was received then or later, nanoseconds since the Unix epoch.
    pub(in crate::shard) from_ns: u64,
    /// With the last value, once it has caught up, if there was no such tick.
    pub(in crate::shard) snapshot: bool,
}

/// What a session reads again.
#[derive(Debug)]
pub(in crate::shard) struct Reading {
    /// The next position.
    pub(in crate::shard) at: u64,
    /// What it resumes: read by this, unless it catches up with something, too.
    pub(in crate::shard) ways: Ways,
    /// A time whose position has to be found first: from there it reads on, if that is earlier.
    seek: Option<u64>,
    /// What the history was asked for: until it answers there is nothing to read.
    asked: Option<Want>,
    /// What the history gave last.
    block: Option<Arc<Block>>,
    /// Where streams begin.
    beginnings: FxHashMap<Key, Beginning>,
    /// The client is told when it has caught up.
    catches_up: bool,
    /// Its place, where it may catch up.
    pursuit: Option<Pursuit>,
    /// Ticks, of whatever streams, that were kept nowhere.
    pub(in crate::shard) missed: u64,
}

/// Why a reading stops.
pub(in crate::shard) enum Stop {
    /// It has come to where the shard reads.
    Joined,
    /// There is no room, or it has had its share of the turn.
    Paused,
    /// What is next is not in the ring, or is not known.
    Lacking,
}

impl Reading {
    fn new(at: u64) -> Self {
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

    fn key(&self, ring: &TickRing) -> Option<Key> {
        let kept = self.block.as_ref().and_then(|block| block.key_at(self.at));
        kept.or_else(|| ring.key_at(self.at))
    }

    fn tick(&self, ring: &TickRing) -> Option<Tick> {
        let kept = self.block.as_ref().and_then(|block| block.at(self.at));
        kept.or_else(|| ring.at(self.at))
    }

    fn step(&mut self) {
        self.at += 1;
        self.block.take_if(|block| block.end() == self.at);
    }

    /// Whether it is known where it reads: first the time that it begins with has to be found.
    fn is_found(&self) -> bool {
        self.seek.is_none() && !matches!(self.asked, Some(Want::Since(_)))
    }

    /// Whether it has come no nearer to the present, which is at `cursor`, for so long.
    fn is_late(&mut self, cursor: u64, patience_ns: u64, now_ns: u64) -> bool {
        let ahead = if self.is_found() { cursor.saturating_sub(self.at) } else { u64::MAX };
        let Some(pursuit) = &mut self.pursuit else { return false };
        if ahead < pursuit.nearest {
            (pursuit.nearest, pursuit.since_ns) = (ahead, now_ns);
        }
        now_ns.saturating_sub(pursuit.since_ns) >= patience_ns
    }

    fn skip_to(&mut self, position: u64) {
        self.missed += position.saturating_sub(self.at);
        self.at = self.at.max(position);
    }
}

/// The first number that a tick takes.
pub(in crate::shard) fn first_of(tick: &Tick) -> u64 {
    match tick.body {
        Body::Gap { from, .. } => from,
        _ => tick.seq,
    }
}

impl<S: Socket> Sessions<S> {
    /// A session has to read a stream from this tick of it on.
    pub(in crate::shard) fn read_from(&mut self, id: u32, key: Key, position: u64) {
        if let Some(reading) = self.reading(id, position) {
            reading.ways.push(key, position);
        }
    }

    /// A session has to read what there is of a stream from this position on, where it may have no tick.
    pub(in crate::shard) fn read_behind(&mut self, id: u32, key: Key, position: u64) {
        if let Some(reading) = self.reading(id, position) {
            reading.ways.push_behind(key, position);
        }
    }

    /// A session has to read what was recorded of a stream. States are told as they are when it has caught up.
    pub(in crate::shard) fn read_since(&mut self, id: u32, key: Key, beginning: Beginning) {
        let Some(reading) = self.reading(id, self.cursor) else { return };
        reading.catches_up = true;
        if let Some(first) = reading.ways.first() {
            // What resumes is read by position, too, from now on.
            reading.at = reading.at.min(first);
        }
        if key.channel().is_some() {
            reading.seek = Some(reading.seek.map_or(beginning.from_ns, |ns| ns.min(beginning.from_ns)));
            // It may be sent back.
            if let Some(pursuit) = &mut reading.pursuit {
                pursuit.nearest = u64::MAX;
            }
            reading.beginnings.insert(key, beginning);
        }
    }

    /// A client is told when it has caught up: at once, where nothing of what it asked for has to be read.
    pub(in crate::shard) fn catch_up(&mut self, id: u32, now: Now) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        match &mut connection.reading {
            Some(reading) => reading.catches_up = true,
            None => connection.seam = connection.seam.or(Some(0)),
        }
        self.tell_seam(id, now);
    }

    fn reading(&mut self, id: u32, position: u64) -> Option<&mut Reading> {
        let connection = self.connections.get_mut(id)?;
        if !std::mem::replace(&mut connection.reads, true) {
            self.readers.push(id, connection.serial);
        }
        let reading = connection.reading.get_or_insert_with(|| Box::new(Reading::new(position)));
        reading.at = reading.at.min(position);
        Some(reading)
    }

    /// Gives a client a place for catching up, unless it has one. It is given back when the reading ends, of
    /// whatever was accepted.
    ///
    /// # Errors
    /// Which bound leaves no place.
    pub(in crate::shard) fn take_place(&mut self, id: u32, now: Now) -> Result<(), &'static str> {
        let CatchUps { max, per_address, addresses, .. } = &self.options.catch_ups;
        if self.catching_up(id) >= *max {
            return Err("too many clients are catching up: `[record] catch_ups_max`");
        }
        let Some(connection) = self.connections.get(id) else { return Ok(()) };
        if connection.reading.as_ref().is_some_and(|reading| reading.pursuit.is_some()) {
            return Ok(());
        }
        let seat = connection.who.peer.map(|peer| addresses.take(peer.ip(), *per_address));
        if let Some(None) = seat {
            return Err("too many clients of your address are catching up: `[record] catch_ups_per_address`");
        }
        let pursuit = Pursuit { _seat: seat.flatten(), nearest: u64::MAX, since_ns: now.mono_ns };
        if let Some(reading) = self.reading(id, self.cursor) {
            reading.pursuit = Some(pursuit);
        }
        Ok(())
    }

    /// How many sessions besides this one catch up.
    fn catching_up(&self, besides: u32) -> usize {
        let catches_up = |(id, serial): &(u32, u64)| {
            let connection = self.connections.get(*id).filter(|c| c.serial == *serial);
            let reading = connection.and_then(|connection| connection.reading.as_ref());
            *id != besides && reading.is_some_and(|reading| reading.catches_up)
        };
        self.readers.iter().filter(catches_up).count()
    }

    /// A client that catches up more slowly than ticks come has no more use for its place: it goes on with the present, and
    /// a gap names what it misses.
    pub(in crate::shard) fn let_go_late(&mut self, id: u32, now: Now) {
        let (cursor, patience_ns) = (self.cursor, self.options.catch_ups.patience_ns);
        // Not before a request that adds to it is carried out.
        let Some(connection) = self.connections.get_mut(id).filter(|c| c.work.is_none()) else { return };
        let is_late = |reading: &mut Box<Reading>| reading.is_late(cursor, patience_ns, now.mono_ns);
        let Some(mut reading) = connection.reading.take_if(is_late) else { return };
        if !reading.is_found() {
            reading.at = 0;
        }
        reading.skip_to(cursor);
        self.end_reading(id, &reading, now);
    }

    /// Sends a session what there is for it, as far as there is room for it and as much as may be looked at in this turn. True
    /// if it can go on at once.
    pub(in crate::shard) fn read_on(&mut self, id: u32, now: Now) -> bool {
        // Not before a request that adds to it is carried out.
        let Some(connection) = self.connections.get_mut(id).filter(|c| c.work.is_none()) else {
            return false;
        };
        let ticket = Ticket { session: id, serial: connection.serial };
        let Some(mut reading) = connection.reading.take_if(|reading| reading.asked.is_none()) else {
            return false;
        };
        let stop = match reading.seek {
            None if reading.catches_up => self.read_slots(id, &mut reading, now),
            None => self.read_ways(id, &mut reading, now),
            Some(_) => Stop::Lacking,
        };
        match stop {
            Stop::Joined => self.end_reading(id, &reading, now),
            Stop::Paused => return self.put_back(id, reading),
            Stop::Lacking => {
                let want = reading.seek.map_or(Want::At(reading.at), Want::Since);
                // Who resumes has what the ring holds: a block for each of many who come back would be too much memory.
                let client = self.past.as_ref().filter(|_| reading.catches_up);
                match client.map_or(Err(Unasked::Ended), |client| client.ask(ticket, want)) {
                    Ok(()) => {
                        (reading.asked, reading.seek) = (Some(want), None);
                        self.put_back(id, reading);
                    }
                    Err(Unasked::Busy) => return self.put_back(id, reading),
                    Err(Unasked::Ended) => {
                        reading.skip_to(self.cursor);
                        self.end_reading(id, &reading, now);
                    }
                }
            }
        }
        false
    }

    /// Leaves a reading for later. True if there is room to go on.
    fn put_back(&mut self, id: u32, reading: Box<Reading>) -> bool {
        let Some(connection) = self.connections.get_mut(id) else { return false };
        connection.reading = Some(reading);
        connection.may_read(self.options.tuning)
    }

    fn read_slots(&mut self, id: u32, reading: &mut Reading, now: Now) -> Stop {
        let mut told_any = false;
        let stop = loop {
            if reading.at >= self.cursor {
                break Stop::Joined;
            }
            let connection = self.connections.get_mut(id).filter(|c| c.may_read(self.options.tuning));
            let Some(connection) = connection.filter(|_| self.slots > 0) else { break Stop::Paused };
            let Some(key) = reading.key(&self.ring) else { break Stop::Lacking };
            if let Some(place) = connection.place(key) {
                let Some(tick) = reading.tick(&self.ring) else { break Stop::Lacking };
                told_any |= self.read_tick(id, place, tick, reading, now);
            }
            self.slots -= 1;
            reading.step();
        };
        if told_any {
            self.queue(id);
        }
        stop
    }

    /// Tells a session a tick that it reads, if that is new to it.
    pub(in crate::shard) fn read_tick(
        &mut self,
        id: u32,
        place: u32,
        mut tick: Tick,
        reading: &Reading,
        now: Now,
    ) -> bool {
        let key = tick.key();
        let Some(connection) = self.connections.get_mut(id) else { return false };
        let Some(subscription) = self.subscriptions.at(key, place) else { return false };
        let Some(symbol) = self.table.get(tick.instrument) else { return false };
        if subscription.is_unbegun() {
            // States have none.
            let Some(beginning) = reading.beginnings.get(&key) else { return false };
            if tick.rx_ns < beginning.from_ns {
                connection.pass(subscription, tick.seq);
                return false;
            }
            connection.open(subscription, &tick);
        }
        let behind = subscription.told();
        let Some(missing) = subscription.resume(first_of(&tick), tick.seq) else { return false };
        if let Body::Gap { from, .. } = &mut tick.body {
            *from = (*from).max(behind + 1);
        }
        let counts = counts_of(&tick, missing);
        connection.session.count(counts);
        self.totals += counts;
        let mark = Mark { snap: false, past: subscription.is_past(), tx_us: Some(now.wall_ns / 1_000) };
        let session = &mut connection.session;
        self.frames.again(&tick, mark, missing, symbol, |frame| session.push(frame, now.mono_ns));
        true
    }

    /// Takes what the history answers.
    pub(in crate::shard) fn take_answers(&mut self, now: Now) {
        while let Some(Answer { ticket, want, found }) = self.past.as_ref().and_then(HistoryClient::take) {
            let id = ticket.session;
            let connection = self.connections.get_mut(id).filter(|c| c.serial == ticket.serial);
            let Some(connection) = connection else { continue };
            let Some(mut reading) = connection.reading.take_if(|reading| reading.asked == Some(want)) else {
                continue;
            };
            reading.asked = None;
            // Who has unsubscribed meanwhile has nothing to read.
            let places = &connection.places;
            let table = &mut self.subscriptions;
            let mut wanted =
                places.iter().any(|(key, place)| table.at(*key, *place).is_some_and(|s| s.is_resuming()));
            match (want, found) {
                (_, Found::Block(block)) => reading.block = Some(block),
                (_, Found::Start(at, block)) => {
                    reading.at = reading.at.min(at);
                    reading.block = block;
                }
                // It was sent back meanwhile, and asks again.
                (Want::At(position), _) if position != reading.at => {}
                // The shard may be behind who keeps: what it has still to tell is not missing.
                (_, Found::Hole(upto)) => reading.skip_to(upto.min(self.cursor)),
                (want, Found::Gone) => {
                    // Where it would have begun is not known any more.
                    let from = if matches!(want, Want::Since(_)) { 0 } else { reading.at };
                    reading.missed += self.cursor.saturating_sub(from);
                    reading.at = self.cursor;
                    wanted = false;
                }
            }
            let ticks = reading.block.as_ref().map_or(0, |block| block.len());
            self.charge(id, ticks / SLOTS_PER_ROW);
            if wanted {
                self.put_back(id, reading);
                self.readers.wake();
            } else {
                self.end_reading(id, &reading, now);
            }
        }
    }

    /// All there is was read.
    fn end_reading(&mut self, id: u32, reading: &Reading, now: Now) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        let missed = reading.missed > 0;
        for (key, place) in &connection.places {
            let Some(subscription) = self.subscriptions.at(*key, *place) else { continue };
            if !subscription.is_resuming() {
                continue;
            }
            let fresh = match key.channel() {
                // What came since the client asked is still to be told, number by number.
                Some(_) => {
                    let last = self.ring.last_value(*key);
                    let same = last.filter(|last| last.head == subscription.told());
                    // One that is of the time that was asked for is still on its way here, or was missed.
                    let old = |begins: &&Beginning| {
                        same.is_some_and(|last| last.tick.is_none_or(|tick| tick.rx_ns < begins.from_ns))
                    };
                    let begins = reading.beginnings.get(key).filter(|begins| begins.snapshot);
                    begins.is_some_and(|begins| missed || old(&begins))
                }
                None => self.context.shown(self.ring.state(key.instrument())) != State::Live,
            };
            if subscription.resumed(missed, fresh) {
                connection.session.wait(*key, now.mono_ns);
            }
        }
        if reading.catches_up {
            connection.seam = Some(connection.seam.unwrap_or(0) + reading.missed);
        }
        self.recover(id, now);
    }

    /// Tells a client that it has caught up, once it was told what its subscriptions lack.
    pub(in crate::shard) fn tell_seam(&mut self, id: u32, now: Now) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        let catches_up = connection.reading.as_ref().is_some_and(|reading| reading.catches_up);
        // Nor while a request is carried out, which may ask for more of the past.
        let is_asked = connection.work.is_some();
        if catches_up || is_asked || connection.session.waiting() > 0 || connection.session.is_closing() {
            return;
        }
        let Some(missed) = connection.seam.take() else { return };
        let message = json::joined(now.wall_ns / 1_000, missed);
        let frame = self.frames.text(|out| text::json::write(&message, out));
        connection.session.push(frame, now.mono_ns);
        self.queue(id);
    }
}

/// How the books stand after a tick that was read.
fn counts_of(tick: &Tick, missing: Option<Missing>) -> Ledger {
    let mut counts = Ledger::default();
    counts.dropped += missing.map_or(0, |missing| missing.to - missing.from + 1);
    match tick.body {
        Body::Gap { from, .. } => counts.lost += tick.seq - from + 1,
        _ => counts.sent += 1,
    }
    counts
}
