//! Where subscriptions begin that go on where an earlier connection ended, or with what was recorded since some time. What
//! comes of it is told by [reading](super::reading).

use std::collections::BTreeSet;

use rustc_hash::{FxHashMap, FxHashSet};

use super::interest::{Awaited, Start};
use super::reading::{Beginning, SLOTS_PER_ROW, first_of};
use super::requests::Named;
use super::sessions::{Sessions, Socket};
use super::shortage::SHORT_OF_MEMORY;
use crate::clock::Now;
use crate::history::Desk;
use crate::instrument::{InstrumentId, InstrumentTable, Symbol};
use crate::memory::{Asked, REFUSAL};
use crate::protocol::{Mode, Subscribe};
use crate::tick::{Channel, Key};

/// Slots that are looked at in answer to a request.
pub(super) const SLOTS_AT_ONCE: usize = 4_096;
/// Where the symbols of a `resume`, or of a `from`, begin.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// What was recorded comes first.
    past: Option<Past>,
    /// Numbers of an earlier run: everything begins anew.
    new_epoch: bool,
    steps: FxHashMap<InstrumentId, Step>,
    /// Of these the client names numbers that have not come yet.
    ahead: BTreeSet<Symbol>,
}

/// What of the past that a client asks for is kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Past {
    pub(super) beginning: Beginning,
    /// Where that is not all: since when, microseconds since the Unix epoch.
    pub(super) begins_us: Option<u64>,
}

/// Why the past cannot be had: a word, a sentence, and whether it may be had later.
pub(super) type NoPast = (&'static str, String, bool);

/// Where an instrument goes on, and what the answer says of it.
type Step = (Start, &'static str);

impl Plan {
    /// What of the past comes first, if that was asked for.
    pub(super) fn past(&self) -> Option<Past> {
        self.past
    }

    /// Where an instrument goes on; `None`: it begins as any.
    pub(super) fn start(&self, instrument: InstrumentId) -> Option<Start> {
        if let Some(past) = self.past {
            return Some(Start::Past(past.beginning));
        }
        self.steps.get(&instrument).map(|(start, _)| *start)
    }

    /// A symbol of which the client names a number that has not come yet, among those that it asks for by this.
    pub(super) fn ahead<'p>(&'p self, named: &'p Named, table: &'p InstrumentTable) -> Option<&'p Symbol> {
        match named {
            Named::Listed(instrument, _) => {
                table.get(*instrument).filter(|symbol| self.ahead.contains(*symbol))
            }
            Named::Awaited(symbol) => self.ahead.get(symbol),
            Named::Wildcard(None) => self.ahead.first(),
            Named::Wildcard(Some(venue)) => self.ahead.iter().find(|symbol| **venue == *symbol.venue()),
        }
    }

    /// What the answer says of an instrument.
    pub(super) fn word(&self, instrument: InstrumentId) -> Option<&'static str> {
        self.steps.get(&instrument).map_or(self.new_epoch(), |(_, word)| Some(word))
    }

    /// What the answer says where the numbers are of an earlier run.
    pub(super) fn new_epoch(&self) -> Option<&'static str> {
        self.new_epoch.then_some("new_epoch")
    }

    /// What the answer says of all instruments together.
    pub(super) fn word_of_all(&self) -> Option<&'static str> {
        let mut words = self.steps.values().map(|(_, word)| *word);
        let first = words.next();
        if first.is_none() {
            return self.new_epoch();
        }
        first.into_iter().chain(words).find(|word| *word == "gap").or(first)
    }
}

/// The position of a tick, and the first number that it takes.
type Found = FxHashMap<InstrumentId, (u64, u64)>;

impl<S: Socket> Sessions<S> {
    /// Finds out where what is wanted begins, if that is somewhere in the past.
    pub(super) fn plan(&mut self, id: u32, wanted: &Subscribe, now: Now) -> Result<Plan, NoPast> {
        match wanted.from {
            Some(since) => {
                let past = Some(self.past_since(id, since.ns(now.wall_ns), wanted.snapshot)?);
                Ok(Plan { past, ..Plan::default() })
            }
            None => Ok(self.plan_resume(id, wanted)),
        }
    }

    /// What is kept since a time.
    fn past_since(&self, id: u32, from_ns: u64, snapshot: bool) -> Result<Past, NoPast> {
        let Some(begins_ns) = self.past.as_ref().and_then(Desk::begins_ns) else {
            let msg = "this gateway keeps no history: there is no past to begin with";
            return Err(("no_history", msg.to_owned(), false));
        };
        if self.catching_up(id) >= self.options.catch_ups_max {
            let msg = "too many clients are catching up: `[record] catch_ups_max`";
            return Err(("rate_limited", msg.to_owned(), true));
        }
        if self.shortage.memory.refuses(Asked::CatchUp) {
            return Err((SHORT_OF_MEMORY, REFUSAL.to_owned(), true));
        }
        let begins_us = (from_ns < begins_ns).then_some(begins_ns / 1_000);
        Ok(Past { beginning: Beginning { from_ns, snapshot }, begins_us })
    }

    /// Finds out where each symbol of a `resume` goes on.
    fn plan_resume(&mut self, id: u32, wanted: &Subscribe) -> Plan {
        let (Some(resume), [channel]) = (&wanted.resume, wanted.channels.as_slice()) else {
            return Plan::default();
        };
        if *resume.epoch != *self.options.epoch {
            return Plan { new_epoch: true, ..Plan::default() };
        }
        let (told, mut ahead) = self.asked_for(id, *channel, &wanted.symbols, &resume.seq);
        let whole = wanted.terms_on(*channel).mode == Mode::Every;
        // The newest value says all that a client in `latest` missed.
        let found = whole.then(|| self.look_back(id, *channel, &told));
        let mut steps = FxHashMap::default();
        for (instrument, told) in told {
            match self.step(instrument, *channel, told, found.as_ref()) {
                Some(step) => drop(steps.insert(instrument, step)),
                None => ahead.extend(self.table.get(instrument).cloned()),
            }
        }
        Plan { steps, ahead, ..Plan::default() }
    }

    /// `None`: the number has not come yet.
    fn step(
        &self,
        instrument: InstrumentId,
        channel: Channel,
        told: u64,
        found: Option<&Found>,
    ) -> Option<Step> {
        let head = self.ring.last_value(Key::new(instrument, channel.into())).map_or(0, |last| last.head);
        if told > head {
            return None;
        }
        if told == head {
            return Some((Start::After(told), "ok"));
        }
        let Some(found) = found else { return Some((Start::Newest(told), "ok")) };
        Some(match found.get(&instrument) {
            Some((position, first)) if *position < self.cursor => {
                let word = if *first <= told + 1 { "ok" } else { "gap" };
                (Start::Ring(told, *position), word)
            }
            // The shard has not come to it yet.
            Some((_, first)) if *first == told + 1 => (Start::After(told), "ok"),
            // The last value is all there is.
            _ if head == told + 1 => (Start::Newest(told), "ok"),
            _ => (Start::Newest(told), "gap"),
        })
    }

    /// The numbers that a client has of instruments that it asks for and is not subscribed to; and the symbols that it has
    /// numbers of though nobody has listed them yet.
    fn asked_for(
        &self,
        id: u32,
        channel: Channel,
        symbols: &[String],
        seq: &[(String, u64)],
    ) -> (FxHashMap<InstrumentId, u64>, BTreeSet<Symbol>) {
        let (mut named, mut wide) = (FxHashSet::default(), Vec::new());
        for text in symbols {
            match self.resolve(text) {
                Ok(Named::Listed(instrument, _)) => named.extend(self.table.get(instrument).cloned()),
                Ok(Named::Awaited(symbol)) => drop(named.insert(symbol)),
                Ok(Named::Wildcard(venue)) => wide.push(venue),
                Err(_) => {}
            }
        }
        let connection = self.connections.get(id);
        let has = |instrument| {
            let key = Key::new(instrument, channel.into());
            connection.is_some_and(|connection| connection.place(key).is_some())
        };
        let awaits = |symbol: &Symbol| {
            let mine = |awaited: &Awaited| awaited.symbol == *symbol && awaited.channel == channel;
            connection.is_some_and(|connection| connection.awaited.iter().any(mine))
        };
        let takes = |venue: &Option<Box<str>>, symbol: &Symbol| {
            venue.as_deref().is_none_or(|venue| venue == symbol.venue())
        };
        let (mut told, mut unlisted) = (FxHashMap::default(), BTreeSet::new());
        for (text, seq) in seq {
            let Ok(symbol) = Symbol::parse(text) else { continue };
            if !named.contains(&symbol) && !wide.iter().any(|venue| takes(venue, &symbol)) {
                continue;
            }
            match self.table.find(&symbol) {
                Some(instrument) if !has(instrument) => drop(told.insert(instrument, *seq)),
                None if *seq > 0 && !awaits(&symbol) => drop(unlisted.insert(symbol)),
                Some(_) | None => {}
            }
        }
        (told, unlisted)
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
}
