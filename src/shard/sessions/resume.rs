//! Where subscriptions begin that go on where an earlier connection ended, or with what was recorded since some time.
//!
//! Where a stream goes on is found in an [index](crate::shard::positions) of the ring that all sessions share. It is made
//! when it is needed, in portions: a `resume` that it does not reach far enough for waits for the next turn, in the order in
//! which they came, and its client is not read from meanwhile.

use std::collections::BTreeSet;

use rustc_hash::{FxHashMap, FxHashSet};

use super::{Connection, Sessions, WaitsFor};
use crate::history::HistoryClient;
use crate::model::instrument::{InstrumentId, Symbol};
use crate::model::tick::{Channel, Key};
use crate::protocol::{Mode, Selector, Subscribe};
use crate::shard::plan::{NoPast, Past, Plan, ResumeStep};
use crate::shard::resolve::Resolved;
use crate::shard::shortage::SHORT_OF_MEMORY;
use crate::shard::socket::Socket;
use crate::shard::start::{Beginning, StartAt};
use crate::system::memory::{MemoryDemand, REFUSAL};
use crate::time::clock::Now;

/// Slots of the ring that a `resume` counts as, and each symbol of it.
const SLOTS_PER_SYMBOL: usize = 16;

impl<S: Socket> Sessions<S> {
    /// Finds out where what is wanted begins, if that is somewhere in the past. `None`: it is not known yet.
    pub(super) fn plan(&mut self, id: u32, wanted: &Subscribe, now: Now) -> Result<Option<Plan>, NoPast> {
        match wanted.from {
            Some(since) => {
                let past = self.past_since(id, since.ns(now.wall_ns), wanted.snapshot, now)?;
                Ok(Some(Plan::of_past(past)))
            }
            None => Ok(self.plan_resume(id, wanted, now)),
        }
    }

    /// The `resume` that a session has under way goes on when its turn for the index comes: as the first that waits, or the
    /// last.
    pub(super) fn await_plan(&mut self, id: u32, first: bool) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        connection.request.waits_for = Some(WaitsFor::Plan);
        self.backfill.await_index(id, connection.serial, first);
    }

    /// Carries out what waits for the index, with half of what may be looked at in this turn: the rest is for present
    /// readers. True if there is more to do.
    pub(super) fn resume_waiting(&mut self, now: Now) -> bool {
        self.env.counters.reread.add(self.backfill.begin_turn() as u64);
        if self.backfill.forgets(now.mono_ns) {
            self.egress.frames().forget_again();
        }
        let behind = self.backfill.is_behind(&self.env.ring);
        let rest = self.backfill.set_half_aside();
        let waits = |connection: &Connection<S>| connection.request.waits_for == Some(WaitsFor::Plan);
        while self.backfill.has_slots() && !self.steps.are_spent() {
            let Some((id, serial)) = self.backfill.next_waiting() else { break };
            // One that is closing does something else by now.
            let connection = self.connections.get_same(id, serial).filter(|connection| waits(connection));
            let Some(connection) = connection else { continue };
            connection.request.waits_for = None;
            self.work_on(id, now);
            if self.connections.get(id).is_some_and(waits) {
                break;
            }
        }
        self.backfill.return_slots(rest);
        behind || self.backfill.has_waiting()
    }

    /// What is kept since a time. The client has a place for catching up then.
    fn past_since(&mut self, id: u32, from_ns: u64, snapshot: bool, now: Now) -> Result<Past, NoPast> {
        let Some(begins_ns) = self.backfill.history().and_then(HistoryClient::begins_ns) else {
            let msg = "this gateway keeps no history: there is no past to begin with";
            return Err(("no_history", msg.to_owned(), false));
        };
        if self.shortage.refuses(MemoryDemand::CatchUp) {
            return Err((SHORT_OF_MEMORY, REFUSAL.to_owned(), true));
        }
        self.take_place(id, now).map_err(|msg| ("rate_limited", msg.to_owned(), true))?;
        let begins_us = (from_ns < begins_ns).then_some(begins_ns / 1_000);
        Ok(Past::new(Beginning::new(from_ns, snapshot), begins_us))
    }

    /// Finds out where each symbol of a `resume` goes on. `None`: the index does not reach far enough yet.
    fn plan_resume(&mut self, id: u32, wanted: &Subscribe, now: Now) -> Option<Plan> {
        let (Some(resume), [channel]) = (&wanted.resume, wanted.channels.as_slice()) else {
            return Some(Plan::default());
        };
        if *resume.epoch != *self.env.options.epoch {
            return Some(Plan::of_new_epoch());
        }
        let (told, mut ahead) = self.asked_for(id, *channel, &wanted.symbols, &resume.seq);
        // The numbers come first: what the ring holds of them is looked up after that.
        let key = |instrument| Key::new(instrument, (*channel).into());
        let heads = |instrument| self.env.ring.last_value(key(instrument)).map_or(0, |last| last.head);
        let told: Vec<(Key, u64, u64)> =
            told.into_iter().map(|(instrument, told)| (key(instrument), told, heads(instrument))).collect();
        // The newest value says all that a client in `latest` missed.
        let whole = wanted.policy_on(*channel).mode == Mode::Every;
        let missed: FxHashMap<Key, u64> = match whole {
            true => told
                .iter()
                .filter(|(_, told, head)| told < head)
                .map(|(key, told, _)| (*key, *told))
                .collect(),
            false => FxHashMap::default(),
        };
        if !missed.is_empty() && !self.backfill.reach(&self.env.ring, missed, now.mono_ns) {
            return None;
        }
        self.backfill.take_slots(SLOTS_PER_SYMBOL * (1 + resume.seq.len()));
        let mut steps = FxHashMap::default();
        for (key, told, head) in told {
            match self.step(key, told, head, whole) {
                Some(step) => drop(steps.insert(key.instrument(), step)),
                None => ahead.extend(self.env.table.get(key.instrument()).cloned()),
            }
        }
        Some(Plan::of_resume(steps, ahead, self.backfill.cursor()))
    }

    /// Where a stream goes on behind `told`, where `head` is its newest number. `None`: the number has not come yet.
    fn step(&self, key: Key, told: u64, head: u64, whole: bool) -> Option<ResumeStep> {
        if told > head {
            return None;
        }
        if told == head {
            return Some((StartAt::After(told), "ok"));
        }
        if !whole {
            return Some((StartAt::Newest(told), "ok"));
        }
        Some(match self.backfill.behind(&self.env.ring, key, told) {
            Some((position, first)) if position < self.backfill.cursor() => {
                let word = if first <= told + 1 { "ok" } else { "gap" };
                (StartAt::Ring(told, position), word)
            }
            // The shard has not come to it yet.
            Some((_, first)) if first == told + 1 => (StartAt::After(told), "ok"),
            // The last value is all there is.
            _ if head == told + 1 => (StartAt::Newest(told), "ok"),
            _ => (StartAt::Newest(told), "gap"),
        })
    }

    /// The numbers that a client has of instruments that it asks for and is not subscribed to; and the symbols that it has
    /// numbers of though no feed has listed them yet.
    fn asked_for(
        &self,
        id: u32,
        channel: Channel,
        symbols: &[Selector],
        seq: &[(String, u64)],
    ) -> (FxHashMap<InstrumentId, u64>, BTreeSet<Symbol>) {
        let (mut named, mut wide) = (FxHashSet::default(), Vec::new());
        for selector in symbols {
            match self.resolve(selector) {
                Ok(Resolved::Listed(instrument, _)) => named.extend(self.env.table.get(instrument).cloned()),
                Ok(Resolved::Awaited(symbol)) => drop(named.insert(symbol)),
                Ok(Resolved::Wildcard(selector)) => wide.push(selector),
                Err(_) => {}
            }
        }
        let connection = self.connections.get(id);
        let has = |instrument| {
            let key = Key::new(instrument, channel.into());
            connection.is_some_and(|connection| connection.holdings.place(key).is_some())
        };
        let awaits = |symbol: &Symbol| {
            let wanted = connection.and_then(|connection| connection.holdings.awaits(symbol));
            wanted.is_some_and(|wanted| wanted.on(channel).is_some())
        };
        let (mut told, mut unlisted) = (FxHashMap::default(), BTreeSet::new());
        for (text, seq) in seq {
            let Ok(symbol) = Symbol::parse(text) else { continue };
            if !named.contains(&symbol) && !wide.iter().any(|selector| selector.takes(&symbol)) {
                continue;
            }
            match self.env.table.find(&symbol) {
                Some(instrument) if !has(instrument) => drop(told.insert(instrument, *seq)),
                None if *seq > 0 && !awaits(&symbol) => drop(unlisted.insert(symbol)),
                Some(_) | None => {}
            }
        }
        (told, unlisted)
    }
}
