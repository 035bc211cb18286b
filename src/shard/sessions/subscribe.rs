//! What clients subscribe to, and the answers.

use std::sync::Arc;

use crate::model::instrument::{InstrumentId, InstrumentTable, Symbol};
use crate::model::tick::{Channel, Key, State};
use crate::protocol::json::{self as message, SubscriptionRow};
use crate::protocol::outcome::{Outcome, RejectedRow};
use crate::protocol::{Id, Subscribe, Terms};
use crate::shard::pattern::Pattern;
use crate::shard::sessions::answers::Answer;
use crate::shard::sessions::interest::{STEPS_TO_ATTACH, Start, Wildcard, Wish};
use crate::shard::sessions::resume::Plan;
use crate::shard::sessions::shortage::{SHORT_OF_MEMORY, short_of_memory};
use crate::shard::sessions::work::Settling;
use crate::shard::sessions::{Sessions, Socket};
use crate::time::clock::Now;

/// What a client's text for a symbol means.
pub(in crate::shard) enum Named {
    /// Everything, or everything of a venue.
    Wildcard(Option<Box<str>>),
    /// With the state that the client is shown in the answer.
    Listed(InstrumentId, State),
    /// Well-formed, of a venue that is configured, and not seen yet.
    Awaited(Symbol),
}

/// Why a symbol is refused.
pub(in crate::shard) struct Refusal {
    pub(in crate::shard) code: &'static str,
    pub(in crate::shard) msg: String,
}

fn unknown(msg: impl Into<String>) -> Refusal {
    Refusal { code: "unknown_symbol", msg: msg.into() }
}

pub(in crate::shard) fn too_many_rates() -> Refusal {
    Refusal { code: "too_many_rates", msg: "this connection has too many different `max_hz`".to_owned() }
}

/// A `subscribe` that is under way.
pub(in crate::shard) struct Subscribing {
    name: Option<Id>,
    wanted: Subscribe,
    stage: Stage,
    plan: Plan,
    has_rate: bool,
    /// Symbols that the client may still name.
    room: usize,
    accepted: Vec<Named>,
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

/// The instruments that a wildcard takes.
#[derive(Clone, Copy)]
struct Sweep {
    next: usize,
    end: usize,
}

impl Subscribing {
    pub(in crate::shard) fn new(name: Option<Id>, wanted: Subscribe) -> Self {
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
    pub(in crate::shard) fn named_at_once(&self) -> usize {
        self.options.symbols_max.max(SYMBOLS_MAX)
    }

    /// Subscribes, with the answer before the first data. True when that is done.
    pub(in crate::shard) fn go_on_subscribing(&mut self, id: u32, asked: &mut Subscribing, now: Now) -> bool {
        loop {
            asked.stage = match asked.stage {
                // Those that came before it have their turn first, and this turn may have looked at enough.
                Stage::Begin if asked.wanted.resume.is_some() && self.resumes_wait() => {
                    asked.stage = Stage::Plan;
                    self.await_plan(id, false);
                    return false;
                }
                Stage::Begin => Stage::Plan,
                Stage::Plan if !self.steps.take(steps_to_plan(&asked.wanted)) => return false,
                Stage::Plan => match self.plan(id, &asked.wanted, now) {
                    Ok(Some(_)) if !self.has_memory_for(&asked.wanted) => {
                        self.counters.faults.add(1);
                        self.say(id, &short_of_memory(asked.name.as_ref()), now);
                        return true;
                    }
                    Ok(Some(plan)) => {
                        asked.plan = plan;
                        asked.room = self.options.symbols_max.saturating_sub(self.named(id));
                        let rate = asked.wanted.rate;
                        asked.has_rate = rate.is_none_or(|rate| self.claim_rate(id, rate).is_some());
                        Stage::Resolve(0)
                    }
                    Ok(None) => {
                        self.await_plan(id, true);
                        return false;
                    }
                    Err((code, msg, retry)) => {
                        self.counters.faults.add(1);
                        let name = asked.name.as_ref();
                        let error = match code {
                            SHORT_OF_MEMORY => short_of_memory(name),
                            _ => message::error(name, code, &msg, retry),
                        };
                        self.say(id, &error, now);
                        return true;
                    }
                },
                Stage::Resolve(at) => {
                    let Some(text) = asked.wanted.symbols.get(at) else {
                        asked.stage = Stage::Answer;
                        continue;
                    };
                    if !self.steps.take(1) {
                        return false;
                    }
                    let named = match asked.has_rate {
                        true => self.accept(id, text, &asked.plan, &mut asked.room),
                        false => Err(too_many_rates()),
                    };
                    match named {
                        Ok(named) => asked.accepted.push(named),
                        Err(refusal) => asked.rejected.push((at, refusal)),
                    }
                    Stage::Resolve(at + 1)
                }
                Stage::Answer => {
                    let Subscribing { name, wanted, plan, accepted, rejected, answer, catches_up, .. } =
                        asked;
                    let (channels, wanted) = (&wanted.channels, &*wanted);
                    let row = |sessions: &Self, at: usize, outcome: &mut Outcome| {
                        let Some(at) = at.checked_sub(rejected.len()) else {
                            return outcome.reject(&rejected[at].1.row(&wanted.symbols[rejected[at].0]));
                        };
                        let (named, channel) =
                            (&accepted[at / channels.len()], channels[at % channels.len()]);
                        let row = row(&sessions.table, named, channel, wanted.terms_on(channel));
                        let row = sessions.with_beginning(id, row, named, channel, plan);
                        *catches_up |= row.has_past();
                        outcome.accept(&row);
                    };
                    if !self.go_on_answering(
                        id,
                        answer,
                        rejected.len() + accepted.len() * channels.len(),
                        row,
                    ) {
                        return false;
                    }
                    self.say_outcome(id, (name.as_ref(), "subscribe"), (channels, false), answer, now);
                    *answer = Answer::default();
                    Stage::Take(0, 0, None)
                }
                Stage::Take(at, channel, sweep) => {
                    let Some(named) = asked.accepted.get(at) else {
                        asked.stage = Stage::Settle;
                        continue;
                    };
                    let Some(next) = asked.wanted.channels.get(channel).copied() else {
                        asked.stage = Stage::Take(at + 1, 0, None);
                        continue;
                    };
                    match self.take(id, (named, next), asked, sweep, now) {
                        Taken::All => Stage::Take(at, channel + 1, None),
                        Taken::Some(sweep) => {
                            asked.stage = Stage::Take(at, channel, sweep);
                            return false;
                        }
                    }
                }
                Stage::Settle if self.settle_rates(id, &mut asked.settling, now) => break,
                Stage::Settle => return false,
            };
        }
        if asked.catches_up {
            self.catch_up(id, now);
        }
        self.recover(id, now);
        self.read_on(id, now);
        true
    }

    /// What a symbol of a `subscribe` means, if it can be had.
    fn accept(&self, id: u32, text: &str, plan: &Plan, room: &mut usize) -> Result<Named, Refusal> {
        let named = self.resolve(text)?;
        if let Some(ahead) = plan.ahead(&named, &self.table) {
            let msg = format!("`resume.seq` names a number of {ahead} that has not come yet");
            return Err(Refusal { code: "bad_resume", msg });
        }
        self.within(id, &named, room)?;
        Ok(named)
    }

    /// What the answer says of a `resume` or a `from`.
    fn with_beginning<'t>(
        &self,
        id: u32,
        row: SubscriptionRow<'t>,
        named: &Named,
        channel: Channel,
        plan: &Plan,
    ) -> SubscriptionRow<'t> {
        let resumed = match named {
            Named::Listed(instrument, _) => {
                let key = Key::new(*instrument, channel.into());
                // What it has already goes on as it is.
                if self.connections.get(id).is_some_and(|c| c.place(key).is_some()) {
                    return row;
                }
                plan.word(*instrument)
            }
            Named::Awaited(_) => plan.new_epoch(),
            Named::Wildcard(_) => plan.word_of_all(),
        };
        match plan.past() {
            Some(past) => row.past(past.begins_us),
            None => row.resumed(resumed),
        }
    }

    /// Counts a symbol that the client names itself against its limit.
    fn within(&self, id: u32, named: &Named, room: &mut usize) -> Result<(), Refusal> {
        let already = match named {
            Named::Wildcard(_) => true,
            Named::Listed(instrument, _) => self.is_named(id, *instrument),
            Named::Awaited(symbol) => {
                self.connections.get(id).is_some_and(|connection| connection.awaited.contains_key(symbol))
            }
        };
        if already {
            return Ok(());
        }
        *room = room.checked_sub(1).ok_or_else(|| Refusal {
            code: "limit",
            msg: format!("a connection may name {} symbols", self.options.symbols_max),
        })?;
        Ok(())
    }

    /// Takes what was accepted on a channel, as far as there are steps.
    fn take(
        &mut self,
        id: u32,
        (named, channel): (&Named, Channel),
        asked: &Subscribing,
        sweep: Option<Sweep>,
        now: Now,
    ) -> Taken {
        let Subscribing { wanted, plan, .. } = asked;
        let start = if wanted.snapshot { Start::Snapshot } else { Start::FromHere };
        let terms = wanted.terms_on(channel);
        let named_itself = !matches!(named, Named::Wildcard(_));
        let wish = Wish { channel, terms, named: named_itself, start, plan: Some(plan) };
        if !matches!(named, Named::Wildcard(_)) && !self.steps.take(STEPS_TO_ATTACH) {
            return Taken::Some(None);
        }
        match named {
            Named::Listed(instrument, shown) => self.attach(id, *instrument, wish, Some(*shown), now),
            Named::Awaited(symbol) => match self.table.find(symbol) {
                // Listed since it was looked up, and `learn` is past it.
                Some(listed) if listed.index() < self.known => {
                    self.attach(id, listed, wish, Some(State::Waiting), now);
                }
                _ => self.await_symbol(id, symbol, channel, terms),
            },
            Named::Wildcard(venue) => return self.take_wildcard(id, venue.as_deref(), wish, sweep, now),
        }
        Taken::All
    }

    fn take_wildcard(
        &mut self,
        id: u32,
        venue: Option<&str>,
        wish: Wish<'_>,
        sweep: Option<Sweep>,
        now: Now,
    ) -> Taken {
        // What was listed up to now is taken here, what comes later by `learn`.
        let mut sweep = sweep.unwrap_or_else(|| {
            let (channel, terms) = (wish.channel, wish.terms);
            let venue = venue.map(Into::into);
            self.add_wildcard(id, Wildcard { venue, channel, terms, ending: false });
            Sweep { next: 0, end: self.listed_so_far() }
        });
        let table = Arc::clone(&self.table);
        while sweep.next < sweep.end {
            if !self.steps.take(STEPS_TO_ATTACH) {
                return Taken::Some(Some(sweep));
            }
            let instrument = InstrumentId(sweep.next as u32);
            sweep.next += 1;
            let Some(symbol) = table.get(instrument) else { continue };
            if venue.is_some_and(|venue| venue != symbol.venue()) {
                continue;
            }
            // Each of what it takes has the terms of the wildcard that governs it.
            let Some(connection) = self.connections.get(id) else { return Taken::All };
            let terms = connection.governing(symbol, wish.channel).map_or(wish.terms, |w| w.terms);
            self.attach(id, instrument, Wish { terms, ..wish }, Some(State::Live), now);
        }
        Taken::All
    }

    pub(in crate::shard) fn listed(&self, instrument: InstrumentId) -> Named {
        Named::Listed(instrument, self.state(instrument))
    }

    pub(in crate::shard) fn resolve(&self, text: &str) -> Result<Named, Refusal> {
        if text == "*" {
            return Ok(Named::Wildcard(None));
        }
        match text.split_once(':') {
            Some((venue, "*")) => {
                self.require_venue(venue)?;
                Ok(Named::Wildcard(Some(venue.into())))
            }
            Some((venue, _)) => {
                self.require_venue(venue)?;
                let symbol = Symbol::parse(text).map_err(|error| unknown(error.to_string()))?;
                Ok(self.table.find(&symbol).map_or(Named::Awaited(symbol), |id| self.listed(id)))
            }
            None => self.resolve_bare(text),
        }
    }

    fn require_venue(&self, venue: &str) -> Result<(), Refusal> {
        if self.options.venues.iter().any(|v| &**v == venue) || self.table.has_venue(venue) {
            return Ok(());
        }
        Err(unknown(format!("no venue {:?} here", venue.chars().take(40).collect::<String>())))
    }

    /// A name without a venue is good when exactly one venue lists it.
    fn resolve_bare(&self, name: &str) -> Result<Named, Refusal> {
        match self.table.find_name(name) {
            Some((id, None)) => Ok(self.listed(id)),
            Some((one, Some(other))) => {
                let [one, other] = [one, other].map(|id| self.table.get(id).map_or("", Symbol::as_str));
                let msg = format!("several venues list it: {one}, {other}");
                Err(Refusal { code: "ambiguous_symbol", msg })
            }
            None => Err(unknown("no venue lists it: write venue:NAME")),
        }
    }

    /// What a text picks among a client's subscriptions. A symbol need not be known to anybody else.
    pub(in crate::shard) fn pattern(&self, text: &str) -> Result<Pattern, Refusal> {
        match text.split_once(':') {
            _ if text == "*" => Ok(Pattern::All),
            Some((venue, "*")) => self.require_venue(venue).map(|()| Pattern::Venue(venue.into())),
            Some(_) => Symbol::parse(text).map(Pattern::One).map_err(|error| unknown(error.to_string())),
            None => match self.resolve_bare(text)? {
                Named::Listed(instrument, _) => {
                    let symbol = self.table.get(instrument).cloned();
                    symbol.map(Pattern::One).ok_or_else(|| unknown("not listed"))
                }
                _ => Err(unknown("no venue lists it: write venue:NAME")),
            },
        }
    }
}

/// How far a subscription was taken.
enum Taken {
    All,
    /// Up to here: there are no steps for more in this turn.
    Some(Option<Sweep>),
}

/// Symbols that one request may name, even where a connection may not have so many: the answer says which are
/// too many.
const SYMBOLS_MAX: usize = 1_000;
/// Numbers of a `resume` that are looked up in one step.
const NUMBERS_PER_STEP: usize = 4;

impl Refusal {
    pub(in crate::shard) fn row<'a>(&'a self, symbol: &'a str) -> RejectedRow<'a> {
        RejectedRow { symbol, code: self.code, msg: &self.msg }
    }
}

/// An accepted symbol as the answer shows it.
pub(in crate::shard) fn row<'t>(
    table: &'t InstrumentTable,
    named: &Named,
    channel: Channel,
    terms: Terms,
) -> SubscriptionRow<'t> {
    match named {
        Named::Wildcard(None) => SubscriptionRow::new("*", channel, terms, None),
        Named::Wildcard(Some(venue)) => SubscriptionRow::new(format!("{venue}:*"), channel, terms, None),
        Named::Awaited(symbol) => {
            SubscriptionRow::new(symbol.as_str().to_owned(), channel, terms, Some(State::Waiting))
        }
        Named::Listed(instrument, state) => {
            let symbol = table.get(*instrument).map_or("", Symbol::as_str);
            SubscriptionRow::new(symbol, channel, terms, Some(*state))
        }
    }
}

/// What it takes to find out where a `subscribe` begins.
fn steps_to_plan(wanted: &Subscribe) -> usize {
    wanted.resume.as_ref().map_or(0, |resume| 1 + resume.seq.len() / NUMBERS_PER_STEP)
}
