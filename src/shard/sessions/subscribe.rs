//! `subscribe`: its symbols are [resolved](crate::shard::resolve), it is [planned](crate::shard::plan) where they begin, the
//! answer is written, then the subscriptions are made. Each of these stages goes on over turns where it has no steps left.

use std::sync::Arc;

use super::Sessions;
use super::settling::Settling;
use crate::model::instrument::InstrumentId;
use crate::model::tick::{Channel, Key, State};
use crate::protocol::json::{self as message, SubscriptionRow};
use crate::protocol::outcome::Outcome;
use crate::protocol::{Id, Selector, Subscribe};
use crate::shard::answers::Answer;
use crate::shard::holdings::Wildcard;
use crate::shard::plan::{NoPast, Plan};
use crate::shard::resolve::{Refusal, Resolved};
use crate::shard::shortage::{SHORT_OF_MEMORY, short_of_memory};
use crate::shard::socket::Socket;
use crate::shard::spec::SubscribeSpec;
use crate::shard::start::StartAt;
use crate::time::clock::Now;

/// Symbols that one request may name, even where a connection may not have so many: the answer names the excess.
const SYMBOLS_MAX: usize = 1_000;
/// Numbers of a `resume` that are looked up in one step.
const NUMBERS_PER_STEP: usize = 4;
/// Steps for a session that takes an instrument: two subscriptions a channel.
const STEPS_TO_ATTACH: usize = 2;

/// A `subscribe` that is under way.
pub(super) struct Subscribing {
    name: Option<Id>,
    wanted: Subscribe,
    stage: Stage,
    plan: Plan,
    has_rate: bool,
    /// Symbols that the client may still name.
    room: usize,
    accepted: Vec<Resolved>,
    /// Of the symbols, by their places.
    rejected: Vec<(usize, Refusal)>,
    answer: Answer,
    catches_up: bool,
    settling: Settling,
}

/// How far a `subscribe` has come.
#[derive(Clone, Copy)]
enum Stage {
    Begin,
    /// Where it begins is found out next.
    Plan,
    /// The symbol of this place is looked up next.
    Resolve(usize),
    Answer,
    /// What was accepted at this place is taken next, on the channel of this place; of a wildcard, this instrument.
    Take(usize, usize, Option<Sweep>),
    Settle,
}

/// What a stage has led to.
enum Next {
    /// The next stage.
    Stage(Stage),
    /// The same stage, in a later turn.
    Later,
    /// Nothing: the request is answered.
    Over,
}

/// The instruments that a wildcard takes.
#[derive(Clone, Copy)]
struct Sweep {
    next: usize,
    end: usize,
}

/// How far a subscription was taken.
enum Taken {
    All,
    /// Up to here: there are no steps for more in this turn.
    Some(Option<Sweep>),
}

impl Subscribing {
    pub(super) fn new(name: Option<Id>, wanted: Subscribe) -> Self {
        Self {
            name,
            wanted,
            stage: Stage::Begin,
            plan: Plan::default(),
            has_rate: true,
            room: 0,
            accepted: Vec::new(),
            rejected: Vec::new(),
            answer: Answer::default(),
            catches_up: false,
            settling: Settling::of_rates(),
        }
    }
}

impl<S: Socket> Sessions<S> {
    /// Symbols that one request may name, even where a connection may not have so many: the answer lists the excess.
    pub(super) fn named_at_once(&self) -> usize {
        self.env.options.limits.symbols_max.max(SYMBOLS_MAX)
    }

    /// Subscribes, with the answer before the first data. True when that is done.
    pub(super) fn go_on_subscribing(&mut self, id: u32, asked: &mut Subscribing, now: Now) -> bool {
        loop {
            let next = match asked.stage {
                Stage::Begin => self.begin_subscribing(id, asked),
                Stage::Plan => self.plan_subscribing(id, asked, now),
                Stage::Resolve(at) => self.resolve_next(id, asked, at),
                Stage::Answer => self.answer_subscribing(id, asked, now),
                Stage::Take(at, channel, sweep) => self.take_next(id, asked, (at, channel, sweep), now),
                Stage::Settle if self.settle_rates(id, &mut asked.settling, now) => {
                    self.finish_subscribing(id, asked, now);
                    Next::Over
                }
                Stage::Settle => Next::Later,
            };
            match next {
                Next::Stage(stage) => asked.stage = stage,
                Next::Later => return false,
                Next::Over => return true,
            }
        }
    }

    fn begin_subscribing(&mut self, id: u32, asked: &mut Subscribing) -> Next {
        // Those that came before it have their turn first, and this turn may have looked at enough.
        if asked.wanted.resume.is_some() && self.backfill.resumes_wait() {
            asked.stage = Stage::Plan;
            self.await_plan(id, false);
            return Next::Later;
        }
        Next::Stage(Stage::Plan)
    }

    /// Finds out where it begins.
    fn plan_subscribing(&mut self, id: u32, asked: &mut Subscribing, now: Now) -> Next {
        if !self.steps.take(steps_to_plan(&asked.wanted)) {
            return Next::Later;
        }
        match self.plan(id, &asked.wanted, now) {
            Ok(Some(_)) if !self.has_memory_for(&asked.wanted) => {
                self.refuse_subscribe(id, &short_of_memory(asked.name.as_ref()), now)
            }
            Ok(Some(plan)) => {
                asked.plan = plan;
                asked.room = self.env.options.limits.symbols_max.saturating_sub(self.named(id));
                let rate = asked.wanted.rate;
                asked.has_rate = rate.is_none_or(|rate| self.claim_rate(id, rate).is_some());
                Next::Stage(Stage::Resolve(0))
            }
            Ok(None) => {
                self.await_plan(id, true);
                Next::Later
            }
            Err(no_past) => self.refuse_subscribe(id, &no_past_error(asked.name.as_ref(), &no_past), now),
        }
    }

    fn refuse_subscribe(&mut self, id: u32, error: &serde_json::Value, now: Now) -> Next {
        self.env.counters.faults.add(1);
        self.say(id, error, now);
        Next::Over
    }

    /// Looks up a symbol.
    fn resolve_next(&mut self, id: u32, asked: &mut Subscribing, at: usize) -> Next {
        let Some(selector) = asked.wanted.symbols.get(at) else { return Next::Stage(Stage::Answer) };
        if !self.steps.take(1) {
            return Next::Later;
        }
        let resolved = match asked.has_rate {
            true => self.accept(id, selector, &asked.plan, &mut asked.room),
            false => Err(Refusal::too_many_rates()),
        };
        match resolved {
            Ok(resolved) => asked.accepted.push(resolved),
            Err(refusal) => asked.rejected.push((at, refusal)),
        }
        Next::Stage(Stage::Resolve(at + 1))
    }

    /// What a symbol stands for, if it can be had.
    fn accept(
        &self,
        id: u32,
        selector: &Selector,
        plan: &Plan,
        room: &mut usize,
    ) -> Result<Resolved, Refusal> {
        let resolved = self.resolve(selector)?;
        if let Some(ahead) = plan.ahead(&resolved, &self.env.table) {
            let msg = format!("`resume.seq` names a number of {ahead} that has not come yet");
            return Err(Refusal::new("bad_resume", msg));
        }
        self.within(id, &resolved, room)?;
        Ok(resolved)
    }

    /// Counts a symbol that the client names itself against its limit.
    fn within(&self, id: u32, resolved: &Resolved, room: &mut usize) -> Result<(), Refusal> {
        let already = match resolved {
            Resolved::Wildcard(_) => true,
            Resolved::Listed(instrument, _) => self.is_named(id, *instrument),
            Resolved::Awaited(symbol) => self
                .connections
                .get(id)
                .is_some_and(|connection| connection.holdings.awaits(symbol).is_some()),
        };
        if already {
            return Ok(());
        }
        *room = room.checked_sub(1).ok_or_else(|| {
            let most = self.env.options.limits.symbols_max;
            Refusal::new("limit", format!("a connection may name {most} symbols"))
        })?;
        Ok(())
    }

    /// Writes the answer.
    fn answer_subscribing(&mut self, id: u32, asked: &mut Subscribing, now: Now) -> Next {
        let Subscribing { name, wanted, plan, accepted, rejected, answer, catches_up, .. } = asked;
        let (channels, wanted) = (&wanted.channels, &*wanted);
        let rows = rejected.len() + accepted.len() * channels.len();
        let row = |sessions: &Self, at: usize, outcome: &mut Outcome| {
            let Some(at) = at.checked_sub(rejected.len()) else {
                let (place, refusal) = &rejected[at];
                return outcome.reject(&refusal.row(&wanted.symbols[*place].to_string()));
            };
            let (resolved, channel) = (&accepted[at / channels.len()], channels[at % channels.len()]);
            let row = resolved.row(&sessions.env.table, channel, wanted.policy_on(channel));
            let row = sessions.with_beginning(id, row, resolved, channel, plan);
            *catches_up |= row.has_past();
            outcome.accept(&row);
        };
        if !self.go_on_answering(id, answer, rows, row) {
            return Next::Later;
        }
        self.say_outcome(id, (name.as_ref(), "subscribe"), (channels, false), answer, now);
        *answer = Answer::default();
        Next::Stage(Stage::Take(0, 0, None))
    }

    /// What the answer says of a `resume` or a `from`.
    fn with_beginning<'t>(
        &self,
        id: u32,
        row: SubscriptionRow<'t>,
        resolved: &Resolved,
        channel: Channel,
        plan: &Plan,
    ) -> SubscriptionRow<'t> {
        let resumed = match resolved {
            Resolved::Listed(instrument, _) => {
                let key = Key::new(*instrument, channel.into());
                // What it has already goes on as it is.
                if self.connections.get(id).is_some_and(|c| c.holdings.place(key).is_some()) {
                    return row;
                }
                plan.word(*instrument)
            }
            Resolved::Awaited(_) => plan.new_epoch(),
            Resolved::Wildcard(_) => plan.word_of_all(),
        };
        match plan.past() {
            Some(past) => row.past(past.begins_us()),
            None => row.resumed(resumed),
        }
    }

    /// Takes what was accepted at a place on the channel of a place, as far as there are steps.
    fn take_next(
        &mut self,
        id: u32,
        asked: &mut Subscribing,
        (at, nth, sweep): (usize, usize, Option<Sweep>),
        now: Now,
    ) -> Next {
        let Subscribing { wanted, plan, accepted, .. } = &*asked;
        let Some(resolved) = accepted.get(at) else { return Next::Stage(Stage::Settle) };
        let Some(channel) = wanted.channels.get(nth).copied() else {
            return Next::Stage(Stage::Take(at + 1, 0, None));
        };
        let start = if wanted.snapshot { StartAt::Snapshot } else { StartAt::FromHere };
        let policy = wanted.policy_on(channel);
        let spec = SubscribeSpec::new(channel, policy, resolved.is_named(), start, Some(plan));
        match self.take(id, resolved, spec, sweep, now) {
            Taken::All => Next::Stage(Stage::Take(at, nth + 1, None)),
            Taken::Some(sweep) => {
                asked.stage = Stage::Take(at, nth, sweep);
                Next::Later
            }
        }
    }

    fn take(
        &mut self,
        id: u32,
        resolved: &Resolved,
        spec: SubscribeSpec<'_>,
        sweep: Option<Sweep>,
        now: Now,
    ) -> Taken {
        if spec.is_named() && !self.steps.take(STEPS_TO_ATTACH) {
            return Taken::Some(None);
        }
        match resolved {
            Resolved::Listed(instrument, showed) => self.attach(id, *instrument, spec, Some(*showed), now),
            Resolved::Awaited(symbol) => match self.env.table.find(symbol) {
                // Listed since it was looked up, and `learn` is past it.
                Some(listed) if self.directory.knows(listed) => {
                    self.attach(id, listed, spec, Some(State::Waiting), now);
                }
                _ => self.await_symbol(id, symbol, spec.channel(), spec.policy()),
            },
            Resolved::Wildcard(selector) => return self.take_wildcard(id, selector, spec, sweep, now),
        }
        Taken::All
    }

    fn take_wildcard(
        &mut self,
        id: u32,
        selector: &Selector,
        spec: SubscribeSpec<'_>,
        sweep: Option<Sweep>,
        now: Now,
    ) -> Taken {
        // What was listed up to now is taken here, what comes later by `learn`.
        let mut sweep = sweep.unwrap_or_else(|| {
            self.add_wildcard(id, Wildcard::new(selector.clone(), spec.channel(), spec.policy()));
            Sweep { next: 0, end: self.directory.listed_so_far(self.env.table.len()) }
        });
        let table = Arc::clone(&self.env.table);
        while sweep.next < sweep.end {
            if !self.steps.take(STEPS_TO_ATTACH) {
                return Taken::Some(Some(sweep));
            }
            let instrument = InstrumentId(sweep.next as u32);
            sweep.next += 1;
            let Some(symbol) = table.get(instrument) else { continue };
            if !selector.takes(symbol) {
                continue;
            }
            // Each of what it takes has the policy of the wildcard that governs it.
            let Some(connection) = self.connections.get(id) else { return Taken::All };
            let governing = connection.holdings.governing(symbol, spec.channel());
            let spec = spec.with_policy(governing.map_or(spec.policy(), Wildcard::policy));
            self.attach(id, instrument, spec, Some(State::Live), now);
        }
        Taken::All
    }

    /// Sends what the new subscriptions begin with.
    fn finish_subscribing(&mut self, id: u32, asked: &Subscribing, now: Now) {
        if asked.catches_up {
            self.catch_up(id, now);
        }
        self.recover(id, now);
        self.read_on(id, now);
    }
}

/// The error that answers what asks for a past that cannot be had.
fn no_past_error(name: Option<&Id>, (code, msg, retry): &NoPast) -> serde_json::Value {
    match *code {
        SHORT_OF_MEMORY => short_of_memory(name),
        code => message::error(name, code, msg, *retry),
    }
}

/// What it takes to find out where a `subscribe` begins.
fn steps_to_plan(wanted: &Subscribe) -> usize {
    wanted.resume.as_ref().map_or(0, |resume| 1 + resume.seq.len() / NUMBERS_PER_STEP)
}
