//! `unsubscribe` and `set`: a client ends or changes what it is subscribed to.

use std::rc::Rc;
use std::sync::Arc;

use super::awaiting::policy_of;
use super::settling::Settling;
use super::{Connection, Sessions};
use crate::model::instrument::{InstrumentId, InstrumentTable, Symbol};
use crate::model::tick::{Channel, Key, State};
use crate::protocol::json::SubscriptionRow;
use crate::protocol::outcome::{EndedRow, Outcome};
use crate::protocol::{Change, DeliveryPolicy, Id, Mode, Selector, Target};
use crate::shard::answers::Answer;
use crate::shard::holdings::Wildcard;
use crate::shard::pattern::{Holder, Pattern};
use crate::shard::resolve::Refusal;
use crate::shard::socket::Socket;
use crate::time::clock::Now;

/// Steps for each symbol that is named.
const STEPS_PER_NAME: usize = 4;

/// What a request means, as far as it was read.
#[derive(Default)]
struct Patterns {
    /// The symbol of this place is read next.
    next: usize,
    /// With the places of their symbols.
    ok: Vec<(Pattern, usize)>,
    rejected: Vec<(usize, Refusal)>,
}

/// The symbol of a place, as the client wrote it.
fn text_at(target: &Target, at: usize) -> String {
    let symbol = target.symbols.as_ref().and_then(|symbols| symbols.get(at));
    symbol.map_or("*".to_owned(), Selector::to_string)
}

/// Where a look at all that a session has goes on: behind an instrument, or, when those are through, behind a symbol that it
/// awaits.
#[derive(Clone)]
enum Cursor {
    Instruments(InstrumentId),
    Awaited(Option<Rc<Symbol>>),
}

const BEGIN: Cursor = Cursor::Instruments(InstrumentId(0));

/// An `unsubscribe` that is under way.
pub(super) struct Unsubscribing {
    name: Option<Id>,
    target: Target,
    patterns: Patterns,
    stage: Unsubscribe,
}

/// How far an `unsubscribe` has come.
enum Unsubscribe {
    Read,
    /// What the pattern of this place picks ends next, from there on.
    Drop(usize, Cursor),
    Settle(Settling),
    Answer(Answer),
}

impl Unsubscribing {
    pub(super) fn new(name: Option<Id>, target: Target) -> Self {
        Self { name, target, patterns: Patterns::default(), stage: Unsubscribe::Read }
    }
}

/// A `set` that is under way.
pub(super) struct Setting {
    name: Option<Id>,
    target: Target,
    change: Change,
    patterns: Patterns,
    stage: Changing,
    has_rate: bool,
    /// The rows of the answer: the place of a pattern, what it shows.
    shown: Vec<(usize, Channel, DeliveryPolicy, Option<State>)>,
}

/// How far a `set` has come.
enum Changing {
    Read,
    /// What becomes of what this pattern picks is looked up.
    Match(Matching),
    Answer(Answer),
    /// What the pattern of this place picks is changed, from there on.
    Apply(usize, Cursor),
    Settle(Settling),
}

/// What was found out about a pattern on a channel.
struct Matching {
    pattern: usize,
    channel: usize,
    /// Wildcards were looked at.
    begun: bool,
    /// The symbol that is awaited and was looked at last; all were, where it is `Err`.
    awaited: Result<Option<Rc<Symbol>>, ()>,
    /// The instrument that is looked at next.
    from: InstrumentId,
    found: bool,
    shown: Option<DeliveryPolicy>,
    /// On any channel.
    found_any: bool,
}

impl Matching {
    fn of(pattern: usize) -> Self {
        Self {
            pattern,
            channel: 0,
            begun: false,
            awaited: Ok(None),
            from: InstrumentId(0),
            found: false,
            shown: None,
            found_any: false,
        }
    }
}

impl Setting {
    pub(super) fn new(name: Option<Id>, target: Target, change: Change) -> Self {
        let (patterns, stage) = (Patterns::default(), Changing::Read);
        Self { name, target, change, patterns, stage, has_rate: true, shown: Vec::new() }
    }

    /// What becomes of a policy; `None`: a rate alone is for what is `latest`, and leaves the rest as it is.
    fn changed(change: Change, policy: DeliveryPolicy) -> Option<DeliveryPolicy> {
        let rate_alone = change.mode.is_none() && matches!(change.rate, Some(Some(_)));
        (!rate_alone || policy.mode == Mode::Latest).then(|| policy.changed(change))
    }
}

impl<S: Socket> Sessions<S> {
    /// Reads what a target picks. True when that is done.
    fn read_patterns(&mut self, target: &Target, patterns: &mut Patterns) -> bool {
        let Some(symbols) = &target.symbols else {
            patterns.ok = vec![(Pattern::Everything, 0)];
            return true;
        };
        while let Some(selector) = symbols.get(patterns.next) {
            if !self.steps.take(1) {
                return false;
            }
            match self.pattern(selector) {
                Ok(pattern) => patterns.ok.push((pattern, patterns.next)),
                Err(refusal) => patterns.rejected.push((patterns.next, refusal)),
            }
            patterns.next += 1;
        }
        true
    }

    /// Unsubscribes, then answers. True when that is done.
    pub(super) fn go_on_unsubscribing(&mut self, id: u32, asked: &mut Unsubscribing, now: Now) -> bool {
        let Unsubscribing { name, target, patterns, stage } = asked;
        loop {
            match stage {
                Unsubscribe::Read => {
                    if !self.read_patterns(target, patterns) {
                        return false;
                    }
                    self.end_wildcards(id, target, patterns);
                    *stage = Unsubscribe::Drop(0, BEGIN);
                }
                Unsubscribe::Drop(at, cursor) => match patterns.ok.get(*at) {
                    Some((pattern, _)) => {
                        if !self.drop_matching(id, pattern, &target.channels, cursor) {
                            return false;
                        }
                        (*at, *cursor) = (*at + 1, BEGIN);
                    }
                    None => {
                        self.drop_wildcards(id, Wildcard::is_ending);
                        *stage = Unsubscribe::Settle(Settling::default());
                    }
                },
                Unsubscribe::Settle(settling) => {
                    if !self.settle(id, settling, now) {
                        return false;
                    }
                    *stage = Unsubscribe::Answer(Answer::default());
                }
                Unsubscribe::Answer(answer) => {
                    let Patterns { ok, rejected, .. } = &*patterns;
                    let row =
                        |_: &Self, at: usize, outcome: &mut Outcome| match at.checked_sub(rejected.len()) {
                            None => outcome.reject(&rejected[at].1.row(&text_at(target, rejected[at].0))),
                            Some(at) => outcome.accept(&EndedRow { symbol: ok[at].0.shown() }),
                        };
                    if !self.go_on_answering(id, answer, rejected.len() + ok.len(), row) {
                        return false;
                    }
                    let channels = (&target.channels[..], target.symbols.is_none());
                    self.say_outcome(id, (name.as_ref(), "unsubscribe"), channels, answer, now);
                    return true;
                }
            }
        }
    }

    /// Wildcards that are unsubscribed from take nothing more; what they hold is still to be found by them.
    fn end_wildcards(&mut self, id: u32, target: &Target, patterns: &Patterns) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        let wide: Vec<&Pattern> =
            patterns.ok.iter().map(|(pattern, _)| pattern).filter(|pattern| pattern.is_wide()).collect();
        for wildcard in connection.holdings.wildcards_mut() {
            let is_covered = wide.iter().any(|pattern| pattern.covers(wildcard));
            if is_covered && target.channels.contains(&wildcard.channel()) {
                wildcard.end();
            }
        }
    }

    /// Ends what a pattern picks, from the cursor on. True when that is done.
    fn drop_matching(
        &mut self,
        id: u32,
        pattern: &Pattern,
        channels: &[Channel],
        cursor: &mut Cursor,
    ) -> bool {
        let table = Arc::clone(&self.env.table);
        if let Pattern::Of(Selector::Symbol(symbol)) = pattern {
            if !self.steps.take(STEPS_PER_NAME) {
                return false;
            }
            if let Some(instrument) = table.find(symbol) {
                self.detach(id, instrument, channels);
            }
            self.stop_awaiting(id, symbol, channels);
            return true;
        }
        while let Cursor::Instruments(from) = *cursor {
            let Some(instrument) = self.instrument_from(id, from) else {
                *cursor = Cursor::Awaited(None);
                break;
            };
            if !self.steps.take(2) {
                return false;
            }
            let picked: Vec<Channel> = channels
                .iter()
                .copied()
                .filter(|c| self.picks(id, &table, pattern, instrument, *c))
                .collect();
            if !picked.is_empty() {
                self.detach(id, instrument, &picked);
            }
            *cursor = Cursor::Instruments(InstrumentId(instrument.0 + 1));
        }
        while let Cursor::Awaited(behind) = cursor {
            // Their names hold them, so no wildcard picks them.
            let next =
                self.awaited_behind(id, behind.as_ref()).filter(|_| matches!(pattern, Pattern::Everything));
            let Some(symbol) = next else { break };
            if !self.steps.take(1) {
                return false;
            }
            self.stop_awaiting(id, &symbol, channels);
            *behind = Some(symbol);
        }
        true
    }

    /// The first instrument from this one on that a session has a subscription of.
    pub(super) fn instrument_from(&self, id: u32, from: InstrumentId) -> Option<InstrumentId> {
        self.connections.get(id)?.holdings.instrument_from(from)
    }

    /// The first symbol behind this one that a session awaits.
    pub(super) fn awaited_behind(&self, id: u32, behind: Option<&Rc<Symbol>>) -> Option<Rc<Symbol>> {
        self.connections.get(id)?.holdings.awaited_behind(behind)
    }

    /// Whether a wide pattern picks a channel of an instrument that a session is subscribed to.
    fn picks(
        &self,
        id: u32,
        table: &InstrumentTable,
        pattern: &Pattern,
        instrument: InstrumentId,
        channel: Channel,
    ) -> bool {
        let key = Key::new(instrument, channel.into());
        let Some(connection) = self.connections.get(id) else { return false };
        let (Some(place), Some(symbol)) = (connection.holdings.place(key), table.get(instrument)) else {
            return false;
        };
        let named = || self.directory.is_named(key, place);
        pattern.picks(symbol, || Holder::of(&connection.holdings, symbol, channel, named()))
    }

    /// Changes the policy of subscriptions, behind the answer. True when that is done.
    pub(super) fn go_on_setting(&mut self, id: u32, asked: &mut Setting, now: Now) -> bool {
        let table = Arc::clone(&self.env.table);
        loop {
            match &mut asked.stage {
                Changing::Read => {
                    if !self.read_patterns(&asked.target, &mut asked.patterns) {
                        return false;
                    }
                    let rate = asked.change.rate.flatten();
                    asked.has_rate = rate.is_none_or(|rate| self.claim_rate(id, rate).is_some());
                    if !asked.has_rate {
                        let Patterns { ok, rejected, .. } = &mut asked.patterns;
                        rejected.extend(ok.drain(..).map(|(_, at)| (at, Refusal::too_many_rates())));
                    }
                    asked.stage = Changing::Match(Matching::of(0));
                }
                Changing::Match(matching) => match asked.patterns.ok.get(matching.pattern) {
                    Some(_) => {
                        if !self.match_one(id, &table, asked) {
                            return false;
                        }
                    }
                    None => asked.stage = Changing::Answer(Answer::default()),
                },
                Changing::Answer(answer) => {
                    let Setting { name, target, patterns: Patterns { ok, rejected, .. }, shown, .. } = asked;
                    let row =
                        |_: &Self, at: usize, outcome: &mut Outcome| match at.checked_sub(rejected.len()) {
                            None => outcome.reject(&rejected[at].1.row(&text_at(target, rejected[at].0))),
                            Some(at) => {
                                let (pattern, channel, policy, state) = shown[at];
                                outcome.accept(&SubscriptionRow::new(
                                    ok[pattern].0.shown(),
                                    channel,
                                    policy,
                                    state,
                                ));
                            }
                        };
                    if !self.go_on_answering(id, answer, rejected.len() + shown.len(), row) {
                        return false;
                    }
                    self.say_outcome(id, (name.as_ref(), "set"), (&target.channels, false), answer, now);
                    asked.stage = Changing::Apply(0, BEGIN);
                }
                Changing::Apply(at, cursor) => match asked.patterns.ok.get(*at) {
                    Some((pattern, _)) => {
                        if !self.apply_matching(id, (pattern, &asked.target.channels), asked.change, cursor) {
                            return false;
                        }
                        (*at, *cursor) = (*at + 1, BEGIN);
                    }
                    None => asked.stage = Changing::Settle(Settling::of_rates()),
                },
                Changing::Settle(settling) => return self.settle_rates(id, settling, now),
            }
        }
    }

    /// Finds out what a pattern picks and what becomes of it, channel by channel. One symbol is answered with its state,
    /// a wildcard by a row a channel: it may stand for very many. What is no subscription to an instrument is changed at
    /// once. False if there are no steps for it now.
    fn match_one(&mut self, id: u32, table: &InstrumentTable, asked: &mut Setting) -> bool {
        let Setting { target, change, patterns, shown: rows, stage: Changing::Match(matching), .. } = asked
        else {
            return true;
        };
        let Some((pattern, at)) = patterns.ok.get(matching.pattern) else { return true };
        let Some(channel) = target.channels.get(matching.channel).copied() else {
            if !matching.found_any {
                let msg = "there is no such subscription".to_owned();
                patterns.rejected.push((*at, Refusal::new("not_subscribed", msg)));
            }
            *matching = Matching::of(matching.pattern + 1);
            return true;
        };
        if !matching.begun {
            if !self.steps.take(STEPS_PER_NAME / 2) {
                return false;
            }
            matching.begun = true;
            self.set_wildcards(id, (pattern, channel), *change, matching);
        }
        if !self.match_rest(id, table, (pattern, channel), *change, matching) {
            return false;
        }
        if let Some(policy) = matching.shown {
            let state = match pattern {
                Pattern::Of(Selector::Symbol(symbol)) => {
                    Some(table.find(symbol).map_or(State::Waiting, |instrument| self.state(instrument)))
                }
                _ => None,
            };
            rows.push((matching.pattern, channel, policy, state));
        } else if matching.found {
            let msg = format!("{} is \"every\" here: a rate needs \"latest\"", channel.name());
            patterns.rejected.push((*at, Refusal::new("needs_latest", msg)));
        }
        *matching = Matching {
            channel: matching.channel + 1,
            found_any: matching.found_any | matching.found,
            ..Matching::of(matching.pattern)
        };
        true
    }

    /// Looks at what else a pattern picks on a channel, until what becomes of it can be shown.
    fn match_rest(
        &mut self,
        id: u32,
        table: &InstrumentTable,
        (pattern, channel): (&Pattern, Channel),
        change: Change,
        matching: &mut Matching,
    ) -> bool {
        if let Pattern::Of(Selector::Symbol(symbol)) = pattern {
            self.set_awaited(id, symbol, channel, change, matching);
            if let Some(instrument) = table.find(symbol) {
                self.match_instrument(id, instrument, channel, change, matching);
            }
            return true;
        }
        // Awaited symbols are held by their names: no wildcard means them.
        while matches!(pattern, Pattern::Everything)
            && let Ok(behind) = &matching.awaited
        {
            let Some(symbol) = self.awaited_behind(id, behind.as_ref()) else {
                matching.awaited = Err(());
                break;
            };
            if !self.steps.take(1) {
                return false;
            }
            self.set_awaited(id, &symbol, channel, change, matching);
            matching.awaited = Ok(Some(symbol));
        }
        while matching.shown.is_none()
            && let Some(instrument) = self.instrument_from(id, matching.from)
        {
            if !self.steps.take(1) {
                return false;
            }
            if self.picks(id, table, pattern, instrument, channel) {
                self.match_instrument(id, instrument, channel, change, matching);
            }
            matching.from = InstrumentId(instrument.0 + 1);
        }
        true
    }

    fn match_instrument(
        &mut self,
        id: u32,
        instrument: InstrumentId,
        channel: Channel,
        change: Change,
        matching: &mut Matching,
    ) {
        let key = Key::new(instrument, channel.into());
        let place = self.connections.get(id).and_then(|connection| connection.holdings.place(key));
        let Some(policy) = place.and_then(|place| self.policy_of(id, key, place)) else { return };
        matching.found = true;
        matching.shown = matching.shown.or_else(|| Setting::changed(change, policy));
    }

    /// Changes the wildcards that a pattern covers.
    fn set_wildcards(
        &mut self,
        id: u32,
        (pattern, channel): (&Pattern, Channel),
        change: Change,
        matching: &mut Matching,
    ) {
        let Some(Connection { session, holdings, .. }) = self.connections.get_mut(id) else { return };
        let wildcards = holdings.wildcards_mut().iter_mut();
        for wildcard in wildcards.filter(|w| w.channel() == channel && pattern.covers(w)) {
            matching.found = true;
            let Some(policy) = Setting::changed(change, wildcard.policy()) else { continue };
            let [before, after] =
                [wildcard.policy(), policy].map(|policy| policy.rate.and_then(|rate| session.rate(rate)));
            session.use_rate(after);
            session.leave_rate(before);
            wildcard.set_policy(policy);
            matching.shown = matching.shown.or(Some(policy));
        }
    }

    /// Changes what is wanted of a symbol that is awaited.
    fn set_awaited(
        &mut self,
        id: u32,
        symbol: &Symbol,
        channel: Channel,
        change: Change,
        matching: &mut Matching,
    ) {
        let Some(connection) = self.connections.get(id) else { return };
        let Some(claimed) = connection.holdings.awaits(symbol).and_then(|wanted| wanted.on(channel)) else {
            return;
        };
        matching.found = true;
        let Some(policy) = Setting::changed(change, policy_of(&connection.session, claimed)) else { return };
        self.await_symbol(id, symbol, channel, policy);
        matching.shown = matching.shown.or(Some(policy));
    }

    /// Changes the policy of what a pattern picks, from the cursor on. True when that is done.
    fn apply_matching(
        &mut self,
        id: u32,
        (pattern, channels): (&Pattern, &[Channel]),
        change: Change,
        cursor: &mut Cursor,
    ) -> bool {
        let table = Arc::clone(&self.env.table);
        if let Pattern::Of(Selector::Symbol(symbol)) = pattern {
            if !self.steps.take(STEPS_PER_NAME / 2) {
                return false;
            }
            if let Some(instrument) = table.find(symbol) {
                channels.iter().for_each(|channel| self.change_policy(id, instrument, *channel, change));
            }
            return true;
        }
        while let Cursor::Instruments(from) = *cursor
            && let Some(instrument) = self.instrument_from(id, from)
        {
            if !self.steps.take(2) {
                return false;
            }
            for channel in channels {
                if self.picks(id, &table, pattern, instrument, *channel) {
                    self.change_policy(id, instrument, *channel, change);
                }
            }
            *cursor = Cursor::Instruments(InstrumentId(instrument.0 + 1));
        }
        true
    }

    fn change_policy(&mut self, id: u32, instrument: InstrumentId, channel: Channel, change: Change) {
        let key = Key::new(instrument, channel.into());
        let Some(place) = self.connections.get(id).and_then(|connection| connection.holdings.place(key))
        else {
            return;
        };
        let policy = self.policy_of(id, key, place).and_then(|policy| Setting::changed(change, policy));
        if let Some(policy) = policy {
            self.apply_policy(id, key, place, policy);
        }
    }
}
