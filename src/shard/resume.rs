//! Resume: who comes back is given what it missed out of the ring, then the stream, with no hole and no repeat.
//!
//! A subscription that resumes is left out of the fan-out while its session reads the ring again from the first tick
//! it missed, as much as there is room for; when that reading has come to where the shard reads, between two turns,
//! the subscription is current. If the ring comes round before, the rest is told from the last value.

use rustc_hash::{FxHashMap, FxHashSet};

use super::interest::Start;
use super::requests::Named;
use super::sessions::{Sessions, Socket};
use crate::clock::Now;
use crate::instrument::{InstrumentId, Symbol};
use crate::protocol::{Mode, Subscribe};
use crate::session::{Ledger, Missing};
use crate::tick::{Body, Channel, Key, Tick};

/// Slots of the ring that are looked at in one turn for all sessions that resume.
const SLOTS_PER_TURN: usize = 4_096;
/// Slots that are looked at in answer to a request.
pub(super) const SLOTS_AT_ONCE: usize = 4_096;
/// Slots that count as one row of work, see [`Sessions::charge`].
const SLOTS_PER_ROW: usize = 16;

/// Where the symbols of a `resume` go on.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// Numbers of an earlier run: everything begins anew.
    new_epoch: bool,
    steps: FxHashMap<InstrumentId, Step>,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    /// The client names a number that has not come yet.
    Ahead,
    Start(Start, &'static str),
}

impl Plan {
    /// Where an instrument goes on; `None`: it begins as any.
    pub(super) fn start(&self, instrument: InstrumentId) -> Option<Start> {
        match self.steps.get(&instrument)? {
            Step::Ahead => None,
            Step::Start(start, _) => Some(*start),
        }
    }

    /// True if the client names a number that has not come yet.
    pub(super) fn is_ahead(&self, instrument: InstrumentId) -> bool {
        matches!(self.steps.get(&instrument), Some(Step::Ahead))
    }

    /// What the answer says of an instrument.
    pub(super) fn word(&self, instrument: InstrumentId) -> Option<&'static str> {
        match self.steps.get(&instrument) {
            Some(Step::Start(_, word)) => Some(word),
            Some(Step::Ahead) | None => self.new_epoch(),
        }
    }

    /// What the answer says where the numbers are of an earlier run.
    pub(super) fn new_epoch(&self) -> Option<&'static str> {
        self.new_epoch.then_some("new_epoch")
    }

    /// What the answer says of all instruments together.
    pub(super) fn word_of_all(&self) -> Option<&'static str> {
        let mut words = self.steps.values().map(|step| match step {
            Step::Start(_, word) => *word,
            // It begins with a snapshot, as if it had never been told.
            Step::Ahead => "gap",
        });
        let first = words.next();
        if first.is_none() {
            return self.new_epoch();
        }
        first.into_iter().chain(words).find(|word| *word == "gap").or(first)
    }
}

/// The position of a tick, and the first number that it takes.
type Found = FxHashMap<InstrumentId, (u64, u64)>;

/// The first number that a tick takes.
fn first_of(tick: &Tick) -> u64 {
    match tick.body {
        Body::Gap { from, .. } => from,
        _ => tick.seq,
    }
}

impl<S: Socket> Sessions<S> {
    /// Finds out where each symbol of a `resume` goes on.
    pub(super) fn plan(&mut self, id: u32, wanted: &Subscribe) -> Plan {
        let (Some(resume), [channel]) = (&wanted.resume, wanted.channels.as_slice()) else {
            return Plan::default();
        };
        if *resume.epoch != *self.options.epoch {
            return Plan { new_epoch: true, ..Plan::default() };
        }
        let told = self.asked_for(id, *channel, &wanted.symbols, &resume.seq);
        let whole = wanted.terms_on(*channel).mode == Mode::Every;
        // The newest value says all that a client in `latest` missed.
        let found = whole.then(|| self.look_back(id, *channel, &told));
        let step = |(id, told): (&InstrumentId, &u64)| (*id, self.step(*id, *channel, *told, found.as_ref()));
        Plan { new_epoch: false, steps: told.iter().map(step).collect() }
    }

    fn step(&self, instrument: InstrumentId, channel: Channel, told: u64, found: Option<&Found>) -> Step {
        let head = self.ring.last_value(Key::new(instrument, channel.into())).map_or(0, |last| last.head);
        if told > head {
            return Step::Ahead;
        }
        if told == head {
            return Step::Start(Start::After(told), "ok");
        }
        let Some(found) = found else { return Step::Start(Start::Newest(told), "ok") };
        match found.get(&instrument) {
            Some((position, first)) if *position < self.cursor => {
                let word = if *first <= told + 1 { "ok" } else { "gap" };
                Step::Start(Start::Ring(told, *position), word)
            }
            // The shard has not come to it yet.
            Some((_, first)) if *first == told + 1 => Step::Start(Start::After(told), "ok"),
            // The last value is all there is.
            _ if head == told + 1 => Step::Start(Start::Newest(told), "ok"),
            _ => Step::Start(Start::Newest(told), "gap"),
        }
    }

    /// The numbers that a client has of instruments that it asks for and is not subscribed to.
    fn asked_for(
        &self,
        id: u32,
        channel: Channel,
        symbols: &[String],
        seq: &[(String, u64)],
    ) -> FxHashMap<InstrumentId, u64> {
        let (mut named, mut wide) = (FxHashSet::default(), Vec::new());
        for text in symbols {
            match self.resolve(text) {
                Ok(Named::Listed(instrument, _)) => drop(named.insert(instrument)),
                Ok(Named::Wildcard(venue)) => wide.push(venue),
                Ok(Named::Awaited(_)) | Err(_) => {}
            }
        }
        let has = |instrument| {
            let key = Key::new(instrument, channel.into());
            self.connections.get(id as usize).is_some_and(|connection| connection.place(key).is_some())
        };
        let wanted = |(text, told): &(String, u64)| {
            let symbol = Symbol::parse(text).ok()?;
            let instrument = self.table.find(&symbol)?;
            let wide = wide.iter().any(|venue| venue.as_deref().is_none_or(|venue| venue == symbol.venue()));
            ((wide || named.contains(&instrument)) && !has(instrument)).then_some((instrument, *told))
        };
        seq.iter().filter_map(wanted).collect()
    }

    /// Looks back for the first tick that the ring still holds of each instrument that has missed some: its position,
    /// and the first number it takes. It goes as far back as the client was away.
    fn look_back(&mut self, id: u32, channel: Channel, told: &FxHashMap<InstrumentId, u64>) -> Found {
        let missed = |(instrument, told): (&InstrumentId, &u64)| {
            let last = self.ring.last_value(Key::new(*instrument, channel.into()));
            last.is_some_and(|last| last.head > *told)
        };
        let mut left = told.iter().filter(|entry| missed(*entry)).count();
        let mut found = Found::default();
        let published = self.ring.published();
        let mut position = published;
        while left > 0 && position > 0 {
            position -= 1;
            // Everything older was written over too.
            let Some(key) = self.ring.key_at(position) else { break };
            let instrument = key.instrument();
            let Some(told) = told.get(&instrument).filter(|_| key.channel() == Some(channel)) else {
                continue;
            };
            let Some(tick) = self.ring.at(position).filter(|tick| tick.seq > *told) else { continue };
            found.insert(instrument, (position, first_of(&tick)));
            left -= usize::from(first_of(&tick) <= told + 1);
        }
        self.charge(id, (published - position) as usize / SLOTS_PER_ROW);
        found
    }

    /// A session has to read the ring from this position on.
    pub(super) fn read_from(&mut self, id: u32, position: u64) {
        let Some(connection) = self.connections.get_mut(id as usize) else { return };
        if connection.reading.is_none() {
            self.readers.push((id, connection.serial));
        }
        connection.reading = Some(connection.reading.map_or(position, |at| at.min(position)));
    }

    /// Lets everybody who resumes read on. True if there is more to do at once.
    pub(super) fn read_all(&mut self, now: Now) -> bool {
        let (mut more, mut at, mut slots) = (false, 0, SLOTS_PER_TURN);
        // Each turn begins with somebody else.
        let some = usize::from(!self.readers.is_empty());
        self.readers.rotate_left(some);
        while let Some((id, serial)) = self.readers.get(at).copied() {
            let connection = self.connections.get(id as usize);
            if connection.is_some_and(|c| c.serial == serial && c.reading.is_some()) {
                more |= self.read_on(id, &mut slots, now);
                at += 1;
            } else {
                self.readers.swap_remove(at);
            }
        }
        more
    }

    /// Tells a session what the ring holds for it, as far as there is room, looking at so many slots at most. True if it
    /// can go on at once.
    pub(super) fn read_on(&mut self, id: u32, slots: &mut usize, now: Now) -> bool {
        let (upto, tx_us) = (self.cursor, now.wall_ns / 1_000);
        let Some(connection) = self.connections.get_mut(id as usize) else { return false };
        let Some(mut at) = connection.reading else { return false };
        let (mut overtaken, mut told_any) = (false, false);
        while at < upto && *slots > 0 && connection.session.has_room() {
            *slots -= 1;
            let Some(mut tick) = self.ring.at(at) else {
                overtaken = true;
                break;
            };
            at += 1;
            let key = tick.key();
            let Some(place) = connection.place(key) else { continue };
            let Some(subscription) = self.subscriptions.at(key, place) else { continue };
            let Some(symbol) = self.table.get(tick.instrument) else { continue };
            let behind = subscription.told();
            let Some(missing) = subscription.resume(first_of(&tick), tick.seq) else { continue };
            if let Body::Gap { from, .. } = &mut tick.body {
                *from = (*from).max(behind + 1);
            }
            let counts = resumed_counts(&tick, missing);
            connection.session.count(counts);
            self.totals += counts;
            let session = &mut connection.session;
            self.frames.resume(&tick, missing, key, symbol, tx_us, |frame| session.push(frame, now.mono_ns));
            told_any = true;
        }
        let done = overtaken || at >= upto;
        connection.reading = (!done).then_some(at);
        if done {
            self.end_reading(id, overtaken, now);
        }
        if told_any {
            self.queue(id);
        }
        !done && self.connections.get(id as usize).is_some_and(|c| c.session.has_room())
    }

    fn end_reading(&mut self, id: u32, overtaken: bool, now: Now) {
        let Some(connection) = self.connections.get_mut(id as usize) else { return };
        for (key, place) in &connection.places {
            let Some(subscription) = self.subscriptions.at(*key, *place) else { continue };
            if subscription.is_resuming() {
                subscription.resumed(overtaken);
                if overtaken {
                    connection.session.wait(*key, now.mono_ns);
                }
            }
        }
        self.recover(id, now);
    }
}

/// How the books stand after a tick of the ring.
fn resumed_counts(tick: &Tick, missing: Option<Missing>) -> Ledger {
    let mut counts = Ledger::default();
    counts.dropped += missing.map_or(0, |missing| missing.to - missing.from + 1);
    match tick.body {
        Body::Gap { from, .. } => counts.lost += tick.seq - from + 1,
        _ => counts.sent += 1,
    }
    counts
}
