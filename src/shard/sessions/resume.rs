//! Where subscriptions begin that go on where an earlier connection ended, or with what was recorded since some time. What
//! comes of it is told by [reading](crate::shard::sessions::reading).
//!
//! Where a stream goes on is found in an [index](crate::shard::positions) of the ring that all sessions share. It is made when it is
//! needed, in portions: a `resume` that it does not reach far enough for waits for the next turn, in the order in which they
//! came, and its client is not read from meanwhile.

use std::collections::{BTreeSet, VecDeque};

use rustc_hash::{FxHashMap, FxHashSet};

use crate::history::HistoryClient;
use crate::model::instrument::{InstrumentId, InstrumentTable, Symbol};
use crate::model::tick::{Channel, Key};
use crate::protocol::{Mode, Subscribe};
use crate::shard::positions::Positions;
use crate::shard::sessions::connection::{Connection, WaitsFor};
use crate::shard::sessions::interest::Start;
use crate::shard::sessions::reading::Beginning;
use crate::shard::sessions::shortage::SHORT_OF_MEMORY;
use crate::shard::sessions::subscribe::Named;
use crate::shard::sessions::{Sessions, Socket};
use crate::system::memory::{Asked, REFUSAL};
use crate::time::clock::{Now, SECOND};

/// How long the index is kept after it was last of use.
const KEPT_NS: u64 = 10 * SECOND;
/// Slots of the ring that a `resume` counts as, and each symbol of it.
const SLOTS_PER_SYMBOL: usize = 16;

/// The index of the ring, and the sessions that wait for it.
#[derive(Default)]
pub(in crate::shard) struct Resumes {
    pub(in crate::shard) positions: Positions,
    /// Sessions whose `resume` waits for the index, each with its serial.
    waiting: VecDeque<(u32, u64)>,
    /// When the index was last of use, steady time.
    used_ns: u64,
}

/// Where the symbols of a `resume`, or of a `from`, begin.
#[derive(Debug, Default)]
pub(in crate::shard) struct Plan {
    /// What was recorded comes first.
    past: Option<Past>,
    /// Numbers of an earlier run: everything begins anew.
    new_epoch: bool,
    steps: FxHashMap<InstrumentId, Step>,
    /// Of these the client names numbers that have not come yet.
    ahead: BTreeSet<Symbol>,
    /// How far the shard had read the ring when this was found out.
    cursor: u64,
}

/// What of the past that a client asks for is kept.
#[derive(Clone, Copy, Debug)]
pub(in crate::shard) struct Past {
    pub(in crate::shard) beginning: Beginning,
    /// Where that is not all: since when, microseconds since the Unix epoch.
    pub(in crate::shard) begins_us: Option<u64>,
}

/// Why the past cannot be had: a word, a sentence, and whether it may be had later.
pub(in crate::shard) type NoPast = (&'static str, String, bool);

/// Where an instrument goes on, and what the answer says of it.
type Step = (Start, &'static str);

impl Plan {
    /// What of the past comes first, if that was asked for.
    pub(in crate::shard) fn past(&self) -> Option<Past> {
        self.past
    }

    /// Where an instrument goes on, the shard having read the ring up to `cursor` by now; `None`: it begins as any.
    pub(in crate::shard) fn start(&self, instrument: InstrumentId, cursor: u64) -> Option<Start> {
        if let Some(past) = self.past {
            return Some(Start::Past(past.beginning));
        }
        let (start, _) = self.steps.get(&instrument)?;
        Some(match *start {
            // What the shard has read since then is read again for it.
            Start::After(told) if cursor > self.cursor => Start::Behind(told, self.cursor),
            start => start,
        })
    }

    /// A symbol of which the client names a number that has not come yet, among those that it asks for by this.
    pub(in crate::shard) fn ahead<'p>(
        &'p self,
        named: &'p Named,
        table: &'p InstrumentTable,
    ) -> Option<&'p Symbol> {
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
    pub(in crate::shard) fn word(&self, instrument: InstrumentId) -> Option<&'static str> {
        self.steps.get(&instrument).map_or(self.new_epoch(), |(_, word)| Some(word))
    }

    /// What the answer says where the numbers are of an earlier run.
    pub(in crate::shard) fn new_epoch(&self) -> Option<&'static str> {
        self.new_epoch.then_some("new_epoch")
    }

    /// What the answer says of all instruments together.
    pub(in crate::shard) fn word_of_all(&self) -> Option<&'static str> {
        let mut words = self.steps.values().map(|(_, word)| *word);
        let first = words.next();
        if first.is_none() {
            return self.new_epoch();
        }
        first.into_iter().chain(words).find(|word| *word == "gap").or(first)
    }
}

impl<S: Socket> Sessions<S> {
    /// Finds out where what is wanted begins, if that is somewhere in the past. `None`: it is not known yet.
    pub(in crate::shard) fn plan(
        &mut self,
        id: u32,
        wanted: &Subscribe,
        now: Now,
    ) -> Result<Option<Plan>, NoPast> {
        match wanted.from {
            Some(since) => {
                let past = Some(self.past_since(id, since.ns(now.wall_ns), wanted.snapshot, now)?);
                Ok(Some(Plan { past, ..Plan::default() }))
            }
            None => Ok(self.plan_resume(id, wanted, now)),
        }
    }

    /// The `resume` that a session has under way goes on when its turn for the index comes: as the first that waits, or the
    /// last.
    pub(in crate::shard) fn await_plan(&mut self, id: u32, first: bool) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        connection.waits_for = Some(WaitsFor::Plan);
        let waiting = (id, connection.serial);
        match first {
            true => self.resumes.waiting.push_front(waiting),
            false => self.resumes.waiting.push_back(waiting),
        }
    }

    /// Whether a `resume` has to wait: for others, or because this turn has looked at enough.
    pub(in crate::shard) fn resumes_wait(&self) -> bool {
        self.slots == 0 || !self.resumes.waiting.is_empty()
    }

    /// Carries out what waits for the index, with half of what may be looked at in this turn: the rest is for present
    /// readers. True if there is more to do.
    pub(in crate::shard) fn resume_waiting(&mut self, now: Now) -> bool {
        let per_turn = self.options.reread_per_turn;
        self.counters.reread.add((per_turn - self.slots) as u64);
        self.slots = per_turn;
        let behind = self.keep_positions(now);
        let rest = self.slots / 2;
        self.slots -= rest;
        while self.slots > 0 && !self.steps.are_spent() {
            let Some((id, serial)) = self.resumes.waiting.pop_front() else { break };
            let connection = self.connections.get_mut(id).filter(|connection| connection.serial == serial);
            // One that is closing does something else by now.
            let waits = |connection: &&mut Connection<S>| connection.waits_for == Some(WaitsFor::Plan);
            let Some(connection) = connection.filter(waits) else { continue };
            connection.waits_for = None;
            self.work_on(id, now);
            if self.connections.get(id).is_some_and(|connection| connection.waits_for == Some(WaitsFor::Plan))
            {
                break;
            }
        }
        self.slots += rest;
        behind || !self.resumes.waiting.is_empty()
    }

    /// Keeps the index up with the ring while it is of use, and what else is kept for readers. True if it is behind.
    fn keep_positions(&mut self, now: Now) -> bool {
        let Resumes { positions, waiting, used_ns } = &mut self.resumes;
        if !waiting.is_empty() || !self.readers.is_empty() {
            *used_ns = now.mono_ns;
        } else if now.mono_ns >= *used_ns + KEPT_NS {
            positions.forget();
            self.frames.forget_again();
        }
        if positions.is_empty() {
            return false;
        }
        !positions.follow(&self.ring, &mut self.slots)
    }

    /// What is kept since a time. The client has a place for catching up then.
    fn past_since(&mut self, id: u32, from_ns: u64, snapshot: bool, now: Now) -> Result<Past, NoPast> {
        let Some(begins_ns) = self.past.as_ref().and_then(HistoryClient::begins_ns) else {
            let msg = "this gateway keeps no history: there is no past to begin with";
            return Err(("no_history", msg.to_owned(), false));
        };
        if self.shortage.memory.refuses(Asked::CatchUp) {
            return Err((SHORT_OF_MEMORY, REFUSAL.to_owned(), true));
        }
        self.take_place(id, now).map_err(|msg| ("rate_limited", msg.to_owned(), true))?;
        let begins_us = (from_ns < begins_ns).then_some(begins_ns / 1_000);
        Ok(Past { beginning: Beginning { from_ns, snapshot }, begins_us })
    }

    /// Finds out where each symbol of a `resume` goes on. `None`: the index does not reach far enough yet.
    fn plan_resume(&mut self, id: u32, wanted: &Subscribe, now: Now) -> Option<Plan> {
        let (Some(resume), [channel]) = (&wanted.resume, wanted.channels.as_slice()) else {
            return Some(Plan::default());
        };
        if *resume.epoch != *self.options.epoch {
            return Some(Plan { new_epoch: true, ..Plan::default() });
        }
        let (told, mut ahead) = self.asked_for(id, *channel, &wanted.symbols, &resume.seq);
        // The numbers come first: what the ring holds of them is looked up after that.
        let key = |instrument| Key::new(instrument, (*channel).into());
        let heads = |instrument| self.ring.last_value(key(instrument)).map_or(0, |last| last.head);
        let told: Vec<(Key, u64, u64)> =
            told.into_iter().map(|(instrument, told)| (key(instrument), told, heads(instrument))).collect();
        // The newest value says all that a client in `latest` missed.
        let whole = wanted.terms_on(*channel).mode == Mode::Every;
        let missed: FxHashMap<Key, u64> = match whole {
            true => told
                .iter()
                .filter(|(_, told, head)| told < head)
                .map(|(key, told, _)| (*key, *told))
                .collect(),
            false => FxHashMap::default(),
        };
        if !missed.is_empty() {
            self.resumes.used_ns = now.mono_ns;
            if !self.resumes.positions.reach(&self.ring, missed, &mut self.slots) {
                return None;
            }
        }
        self.slots = self.slots.saturating_sub(SLOTS_PER_SYMBOL * (1 + resume.seq.len()));
        let mut steps = FxHashMap::default();
        for (key, told, head) in told {
            match self.step(key, told, head, whole) {
                Some(step) => drop(steps.insert(key.instrument(), step)),
                None => ahead.extend(self.table.get(key.instrument()).cloned()),
            }
        }
        Some(Plan { steps, ahead, cursor: self.cursor, ..Plan::default() })
    }

    /// Where a stream goes on behind `told`, where `head` is its newest number. `None`: the number has not come yet.
    fn step(&self, key: Key, told: u64, head: u64, whole: bool) -> Option<Step> {
        if told > head {
            return None;
        }
        if told == head {
            return Some((Start::After(told), "ok"));
        }
        if !whole {
            return Some((Start::Newest(told), "ok"));
        }
        Some(match self.resumes.positions.behind(&self.ring, key, told) {
            Some((position, first)) if position < self.cursor => {
                let word = if first <= told + 1 { "ok" } else { "gap" };
                (Start::Ring(told, position), word)
            }
            // The shard has not come to it yet.
            Some((_, first)) if first == told + 1 => (Start::After(told), "ok"),
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
            let wanted = connection.and_then(|connection| connection.awaited.get(symbol));
            wanted.is_some_and(|wanted| wanted.on(channel).is_some())
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
}
