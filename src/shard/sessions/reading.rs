//! Rereading: sessions that resume or catch up are sent what the ring and the history hold, then the live stream, with
//! no hole and no repeat.
//!
//! While a session rereads for a subscription, as fast as there is room, the fan-out leaves the subscription out. When
//! the session reaches the position of the shard, between two turns, the subscription is current. What the ring no
//! longer holds is requested from the [history](crate::history), a block at a time, for clients that catch up, whose
//! number is limited: the session waits for the answer, the shard does not. What neither holds is recovered from the
//! last value.
//!
//! A catch-up reads position by position; a resume reads only its own streams: see [`ways`](crate::shard::ways).

use super::Sessions;
use crate::history::{Answer, HistoryClient, Ticket, Unasked};
use crate::model::tick::{Body, Key, State, Tick};
use crate::protocol::json::{self, EncodeFlags};
use crate::session::{Ledger, Missing, Subscription};
use crate::shard::positions::first_of;
use crate::shard::reading::{Reading, Stop};
use crate::shard::socket::Socket;
use crate::shard::start::Beginning;
use crate::text;
use crate::time::clock::Now;

/// Ticks of the history that cost a session as much as a step: see [`Sessions::charge`].
const TICKS_PER_STEP: usize = 16;

impl<S: Socket> Sessions<S> {
    /// Has a session read a stream from the tick at this position on.
    pub(super) fn read_from(&mut self, id: u32, key: Key, position: u64) {
        if let Some(reading) = self.reading(id, position) {
            reading.read_from(key, position);
        }
    }

    /// Has a session read a stream from this position on, where the stream need not have a tick.
    pub(super) fn read_behind(&mut self, id: u32, key: Key, position: u64) {
        if let Some(reading) = self.reading(id, position) {
            reading.read_behind(key, position);
        }
    }

    /// Has a session read what was recorded of a stream. Of states, the newest is sent when it has caught up.
    pub(super) fn read_since(&mut self, id: u32, key: Key, beginning: Beginning) {
        if let Some(reading) = self.reading(id, self.backfill.cursor()) {
            reading.read_since(key, beginning);
        }
    }

    /// Sends a client `joined` when it has caught up: at once, if nothing that it requested has to be read.
    pub(super) fn catch_up(&mut self, id: u32, now: Now) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        match &mut connection.progress.reading {
            Some(reading) => reading.announce(),
            None => connection.progress.seam = connection.progress.seam.or(Some(0)),
        }
        self.tell_seam(id, now);
    }

    fn reading(&mut self, id: u32, position: u64) -> Option<&mut Reading> {
        let connection = self.connections.get_mut(id)?;
        if !std::mem::replace(&mut connection.progress.reads, true) {
            self.backfill.readers().push(id, connection.serial);
        }
        let reading = connection.progress.reading.get_or_insert_with(|| Box::new(Reading::new(position)));
        reading.include(position);
        Some(reading)
    }

    /// Gives a client a catch-up slot, unless it has one. The slot is released when its rereading ends, whatever was
    /// accepted.
    ///
    /// # Errors
    /// The limit that leaves no slot.
    pub(super) fn take_place(&mut self, id: u32, now: Now) -> Result<(), &'static str> {
        self.env.options.catch_ups.has_place(self.catching_up(id))?;
        let Some(connection) = self.connections.get(id) else { return Ok(()) };
        if connection.progress.reading.as_ref().is_some_and(|reading| reading.has_place()) {
            return Ok(());
        }
        let address = connection.who.peer.map(|peer| peer.ip());
        let place = self.env.options.catch_ups.place(address, now.mono_ns)?;
        if let Some(reading) = self.reading(id, self.backfill.cursor()) {
            reading.take_place(place);
        }
        Ok(())
    }

    /// How many sessions besides this one catch up.
    fn catching_up(&self, besides: u32) -> usize {
        let catches_up = |(id, serial): &(u32, u64)| {
            let connection = self.connections.get(*id).filter(|c| c.serial == *serial);
            let reading = connection.and_then(|connection| connection.progress.reading.as_ref());
            *id != besides && reading.is_some_and(|reading| reading.catches_up())
        };
        self.backfill.all_readers().filter(catches_up).count()
    }

    /// Ends the catch-up of a client that comes no nearer to the present: it continues with the live stream, and a gap
    /// names what it misses.
    pub(super) fn let_go_late(&mut self, id: u32, now: Now) {
        let cursor = self.backfill.cursor();
        // Not while a request that may add to it is under way.
        let connection = self.connections.get_mut(id).filter(|c| c.request.work.is_none());
        let Some(connection) = connection else { return };
        let bounds = &self.env.options.catch_ups;
        let is_late = |reading: &mut Box<Reading>| reading.is_late(cursor, bounds, now.mono_ns);
        let Some(mut reading) = connection.progress.reading.take_if(is_late) else { return };
        reading.give_up(cursor);
        self.end_reading(id, &reading, now);
    }

    /// Sends a session what it rereads, as far as there is room and this turn has positions left. True if it can
    /// continue at once.
    pub(super) fn read_on(&mut self, id: u32, now: Now) -> bool {
        // Not while a request that may add to it is under way.
        let connection = self.connections.get_mut(id).filter(|c| c.request.work.is_none());
        let Some(connection) = connection else { return false };
        let ticket = Ticket { session: id, serial: connection.serial };
        let is_there = |reading: &mut Box<Reading>| reading.asked().is_none();
        let Some(mut reading) = connection.progress.reading.take_if(is_there) else { return false };
        let stop = match reading.seeks() {
            true => Stop::Lacking,
            false if reading.catches_up() => self.read_slots(id, &mut reading, now),
            false => self.read_ways(id, &mut reading, now),
        };
        match stop {
            Stop::Joined => self.end_reading(id, &reading, now),
            Stop::Paused => return self.put_back(id, reading),
            Stop::Lacking => {
                let want = reading.want();
                // A resume uses the ring alone: a block for each of many returning clients would take too much memory.
                let client = self.backfill.history().filter(|_| reading.catches_up());
                match client.map_or(Err(Unasked::Ended), |client| client.ask(ticket, want)) {
                    Ok(()) => {
                        reading.ask(want);
                        self.put_back(id, reading);
                    }
                    Err(Unasked::Busy) => return self.put_back(id, reading),
                    Err(Unasked::Ended) => {
                        reading.skip_to(self.backfill.cursor());
                        self.end_reading(id, &reading, now);
                    }
                }
            }
        }
        false
    }

    /// Keeps a reading for later. True if there is room to continue.
    fn put_back(&mut self, id: u32, reading: Box<Reading>) -> bool {
        let Some(connection) = self.connections.get_mut(id) else { return false };
        connection.progress.reading = Some(reading);
        connection.may_read(self.env.options.tuning)
    }

    fn read_slots(&mut self, id: u32, reading: &mut Reading, now: Now) -> Stop {
        let mut sent_any = false;
        let stop = loop {
            if reading.at() >= self.backfill.cursor() {
                break Stop::Joined;
            }
            let connection = self.connections.get_mut(id).filter(|c| c.may_read(self.env.options.tuning));
            let Some(connection) = connection.filter(|_| self.backfill.has_slots()) else {
                break Stop::Paused;
            };
            let Some(key) = reading.key(&self.env.ring) else { break Stop::Lacking };
            if let Some(place) = connection.holdings.place(key) {
                let Some(tick) = reading.tick(&self.env.ring) else { break Stop::Lacking };
                sent_any |= self.read_tick(id, place, tick, reading, now);
            }
            self.backfill.take_slots(1);
            reading.step();
        };
        if sent_any {
            self.queue(id);
        }
        stop
    }

    /// Sends a session a reread tick, if it is new to the session.
    pub(super) fn read_tick(
        &mut self,
        id: u32,
        place: u32,
        mut tick: Tick,
        reading: &Reading,
        now: Now,
    ) -> bool {
        let key = tick.key();
        let Some(connection) = self.connections.get_mut(id) else { return false };
        let Some(subscription) = self.directory.at(key, place) else { return false };
        let Some(symbol) = self.env.table.get(tick.instrument) else { return false };
        if subscription.is_pending() {
            // States have no beginning.
            let Some(beginning) = reading.beginning(key) else { return false };
            if tick.rx_ns < beginning.since_ns() {
                connection.pass(subscription, tick.seq);
                return false;
            }
            connection.open(subscription, &tick);
        }
        let behind = subscription.accounted_seq();
        let Some(missing) = subscription.resume(first_of(&tick), tick.seq) else { return false };
        if let Body::Gap { from, .. } = &mut tick.body {
            *from = (*from).max(behind + 1);
        }
        let counts = counts_of(&tick, missing);
        connection.session.count(counts);
        self.egress.count(counts);
        let flags =
            EncodeFlags { snap: false, past: subscription.is_past(), tx_us: Some(now.wall_ns / 1_000) };
        let session = &mut connection.session;
        self.egress.frames().again(&tick, flags, missing, symbol, |frame| session.push(frame, now.mono_ns));
        true
    }

    /// Takes the answers of the history.
    pub(super) fn take_answers(&mut self, now: Now) {
        while let Some(Answer { ticket, want, found }) = self.backfill.history().and_then(HistoryClient::take)
        {
            let id = ticket.session;
            let Some(connection) = self.connections.get_same(id, ticket.serial) else { continue };
            let is_asked = |reading: &mut Box<Reading>| reading.asked() == Some(want);
            let Some(mut reading) = connection.progress.reading.take_if(is_asked) else { continue };
            // A client that has unsubscribed meanwhile has nothing to read.
            let directory = &self.directory;
            let is_resuming = |(key, place)| directory.get(key, place).is_some_and(Subscription::is_resuming);
            let is_wanted = connection.holdings.places().any(is_resuming);
            let (ticks, goes_on) = reading.answered(want, found, self.backfill.cursor());
            self.charge(id, ticks / TICKS_PER_STEP);
            if is_wanted && goes_on {
                self.put_back(id, reading);
                self.backfill.readers().wake();
            } else {
                self.end_reading(id, &reading, now);
            }
        }
    }

    /// Ends a reading: the last values stand for what was not read.
    fn end_reading(&mut self, id: u32, reading: &Reading, now: Now) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        let missed = reading.missed() > 0;
        for (key, place) in connection.holdings.places() {
            let Some(subscription) = self.directory.at(key, place) else { continue };
            if !subscription.is_resuming() {
                continue;
            }
            let fresh = match key.channel() {
                // No snapshot if newer ticks are still to be sent, number by number.
                Some(_) => {
                    let last = self.env.ring.last_value(key);
                    let same = last.filter(|last| last.head == subscription.accounted_seq());
                    // A last value of the requested time or later is still to be read from the ring, or was missed.
                    let old = |begins: &&Beginning| {
                        same.is_some_and(|last| last.tick.is_none_or(|tick| tick.rx_ns < begins.since_ns()))
                    };
                    let begins = reading.beginning(key).filter(|begins| begins.snapshot());
                    begins.is_some_and(|begins| missed || old(&begins))
                }
                None => self.surroundings.shown(self.env.ring.state(key.instrument())) != State::Live,
            };
            if subscription.resumed(missed, fresh) {
                connection.session.wait(key, now.mono_ns);
            }
        }
        if reading.catches_up() {
            connection.progress.seam = Some(connection.progress.seam.unwrap_or(0) + reading.missed());
        }
        self.recover(id, now);
    }

    /// Sends a client `joined`, which says that it has caught up, once it was sent what its subscriptions lack.
    pub(super) fn tell_seam(&mut self, id: u32, now: Now) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        let catches_up = connection.progress.reading.as_ref().is_some_and(|reading| reading.catches_up());
        // Nor while a request is under way, which may request more of the past.
        let is_asked = connection.request.work.is_some();
        if catches_up || is_asked || connection.session.waiting() > 0 || connection.session.is_closing() {
            return;
        }
        let Some(missed) = connection.progress.seam.take() else { return };
        let message = json::joined(now.wall_ns / 1_000, missed);
        let frame = self.egress.text(|out| text::json::write(&message, out));
        connection.session.push(frame, now.mono_ns);
        self.queue(id);
    }
}

/// What a reread tick adds to the ledger.
fn counts_of(tick: &Tick, missing: Option<Missing>) -> Ledger {
    let mut counts = Ledger::default();
    counts.dropped += missing.map_or(0, |missing| missing.to - missing.from + 1);
    match tick.body {
        Body::Gap { from, .. } => counts.lost += tick.seq - from + 1,
        _ => counts.sent += 1,
    }
    counts
}
