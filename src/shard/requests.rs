//! What clients ask for, and the answers.

use std::sync::Arc;

use serde_json::json;

use super::interest::{Awaited, Start, Wildcard, Wish};
use super::pattern::{Holder, Pattern, Picked};
use super::resume::Plan;
use super::sessions::{Sessions, Socket};
use super::shortage::{SHORT_OF_MEMORY, short_of_memory};
use crate::clock::Now;
use crate::faults;
use crate::instrument::{InstrumentId, InstrumentTable, Symbol};
use crate::protocol::json::{self as message, Ack, Outcome, RejectedRow, SubscriptionRow};
use crate::protocol::{self, Change, Id, Mode, Op, Request, Subscribe, Target, Terms};
use crate::tick::{Channel, Key, State};

/// What a client's text for a symbol means.
pub(super) enum Named {
    /// Everything, or everything of a venue.
    Wildcard(Option<Box<str>>),
    /// With the state that the client is shown in the answer.
    Listed(InstrumentId, State),
    /// Well-formed, of a venue that is configured, and not seen yet.
    Awaited(Symbol),
}

/// Why a symbol is refused.
pub(super) struct Refusal {
    pub(super) code: &'static str,
    pub(super) msg: String,
}

fn unknown(msg: impl Into<String>) -> Refusal {
    Refusal { code: "unknown_symbol", msg: msg.into() }
}

fn too_many_rates() -> Refusal {
    Refusal { code: "too_many_rates", msg: "this connection has too many different `max_hz`".to_owned() }
}

impl<S: Socket> Sessions<S> {
    /// Takes in one message of a client and answers it.
    pub fn request(&mut self, id: u32, text: &str, now: Now) {
        self.counters.requests.add(1);
        faults::inject(text.as_bytes());
        let allowed = self.may_ask(id, now);
        let answer = match protocol::parse(text, self.options.symbols_max.max(SYMBOLS_MAX)) {
            Ok(Request { id: name, .. }) if !allowed => {
                let msg = format!("more than {} requests a second", self.options.ops_per_s);
                Err(message::error(name.as_ref(), "rate_limited", &msg, true))
            }
            Ok(request) => Ok(request),
            Err(fault) => Err(message::error(fault.id.as_ref(), fault.code, &fault.msg, false)),
        };
        match answer {
            Ok(request) => self.carry_out(id, request, now),
            Err(error) => {
                self.counters.faults.add(1);
                self.say(id, &error, now);
            }
        }
    }

    fn carry_out(&mut self, id: u32, request: Request, now: Now) {
        let name = request.id;
        match request.op {
            Op::Subscribe(wanted) => self.subscribe(id, name.as_ref(), &wanted, now),
            Op::Unsubscribe(target) => self.unsubscribe(id, name.as_ref(), &target, now),
            Op::Set(target, change) => self.set(id, name.as_ref(), &target, change, now),
            Op::List(after) => self.list(id, name.as_ref(), after.as_deref(), now),
            Op::Symbols(pattern, after) => {
                self.symbols(id, name.as_ref(), (&pattern, after.as_deref()), now);
            }
            Op::Ping(t) => self.ping(id, name, t, now),
            Op::Replay(control) => self.control(id, name.as_ref(), &control, now),
        }
    }

    /// Subscribes, with the answer before the first data. A `resume` may have to wait for its turn.
    pub fn subscribe(&mut self, id: u32, name: Option<&Id>, wanted: &Subscribe, now: Now) {
        let waits = wanted.resume.is_some() && self.resumes_wait();
        if waits || !self.begin(id, name, wanted, now) {
            self.resume_later(id, name, wanted);
        }
    }

    /// Subscribes; `false`: it is not known yet where that begins, and nothing was done.
    pub(super) fn begin(&mut self, id: u32, name: Option<&Id>, wanted: &Subscribe, now: Now) -> bool {
        let table = Arc::clone(&self.table);
        let (mut ok, mut rejected, mut accepted) = (Vec::new(), Vec::new(), Vec::new());
        let mut room = self.options.symbols_max.saturating_sub(self.named(id));
        let plan = match self.plan(id, wanted, now) {
            Ok(Some(plan)) => plan,
            Ok(None) => return false,
            Err((code, msg, retry)) => {
                self.counters.faults.add(1);
                let error = match code {
                    SHORT_OF_MEMORY => short_of_memory(name),
                    _ => message::error(name, code, &msg, retry),
                };
                self.say(id, &error, now);
                return true;
            }
        };
        if !self.has_memory_for(wanted) {
            self.counters.faults.add(1);
            self.say(id, &short_of_memory(name), now);
            return true;
        }
        let has_rate = wanted.rate.is_none_or(|rate| self.claim_rate(id, rate).is_some());
        for text in &wanted.symbols {
            let named = match has_rate {
                true => self.accept(id, text, &plan, &mut room),
                false => Err(too_many_rates()),
            };
            match named {
                Ok(named) => accepted.push(named),
                Err(refusal) => rejected.push(refusal.row(text)),
            }
        }
        for named in &accepted {
            for channel in &wanted.channels {
                let row = row(&table, named, *channel, wanted.terms_on(*channel));
                ok.push(self.with_beginning(id, row, named, *channel, &plan));
            }
        }
        self.charge(id, wanted.symbols.len());
        let catches_up = ok.iter().any(SubscriptionRow::has_past);
        let outcome = Outcome::new(&wanted.channels, ok, rejected);
        self.say(id, &Ack::new(name, "subscribe", outcome), now);
        self.change_subscriptions(id, |sessions| {
            for named in &accepted {
                sessions.take(id, named, wanted, &plan, now);
            }
        });
        if catches_up {
            self.catch_up(id, now);
        }
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
                self.connections.get(id).is_some_and(|c| c.awaited.iter().any(|a| a.symbol == *symbol))
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

    fn take(&mut self, id: u32, named: &Named, wanted: &Subscribe, plan: &Plan, now: Now) {
        let start = if wanted.snapshot { Start::Snapshot } else { Start::FromHere };
        for channel in wanted.channels.iter().copied() {
            let terms = wanted.terms_on(channel);
            let named_itself = !matches!(named, Named::Wildcard(_));
            let wish = Wish { channel, terms, named: named_itself, start, plan: Some(plan) };
            match named {
                Named::Listed(instrument, shown) => self.attach(id, *instrument, wish, *shown, now),
                Named::Awaited(symbol) => match self.table.find(symbol) {
                    // Listed since it was looked up, and `learn` is past it.
                    Some(listed) if listed.index() < self.known => {
                        self.attach(id, listed, wish, State::Waiting, now);
                    }
                    _ => self.await_symbol(id, Awaited { symbol: symbol.clone(), channel, terms }),
                },
                Named::Wildcard(venue) => self.take_wildcard(id, venue.clone(), wish, now),
            }
        }
    }

    fn take_wildcard(&mut self, id: u32, venue: Option<Box<str>>, wish: Wish<'_>, now: Now) {
        // What was listed up to now is taken here, what comes later by `learn`.
        self.learn(now);
        let wildcard = Wildcard { venue, channel: wish.channel, terms: wish.terms };
        let table = Arc::clone(&self.table);
        let Some(connection) = self.connections.get_mut(id) else { return };
        connection.wildcards.retain(|w| w.venue != wildcard.venue || w.channel != wildcard.channel);
        connection.wildcards.push(wildcard.clone());
        // Each of what it takes has the terms of whom it is governed by.
        let mut taken: Vec<(Terms, Vec<InstrumentId>)> = Vec::new();
        for (instrument, symbol) in table.iter().take(self.known).filter(|(_, s)| wildcard.takes(s)) {
            let terms = connection.governing(symbol, wish.channel).map_or(wish.terms, |w| w.terms);
            match taken.iter_mut().find(|(others, _)| *others == terms) {
                Some((_, instruments)) => instruments.push(instrument),
                None => taken.push((terms, vec![instrument])),
            }
        }
        self.charge(id, taken.iter().map(|(_, instruments)| instruments.len()).sum());
        for (terms, instruments) in taken {
            self.attach_all(id, &instruments, Wish { terms, ..wish }, now);
        }
    }

    pub(super) fn listed(&self, instrument: InstrumentId) -> Named {
        Named::Listed(instrument, self.state(instrument))
    }

    pub(super) fn resolve(&self, text: &str) -> Result<Named, Refusal> {
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

    fn unsubscribe(&mut self, id: u32, name: Option<&Id>, target: &Target, now: Now) {
        let (ok, rejected) = self.patterns(target);
        let (ok, _): (Vec<Pattern>, Vec<&str>) = ok.into_iter().unzip();
        self.change_subscriptions(id, |sessions| sessions.drop_matching(id, &ok, &target.channels));
        let ok: Vec<_> = ok.iter().map(|pattern| json!({"symbol": pattern.shown()})).collect();
        let outcome = Outcome::new(&target.channels, ok, rejected);
        let outcome = if target.symbols.is_none() { outcome.of_all() } else { outcome };
        self.say(id, &Ack::new(name, "unsubscribe", outcome), now);
    }

    /// What a target picks, and what it names that nobody can mean.
    fn patterns<'a>(&self, target: &'a Target) -> (Vec<(Pattern, &'a str)>, Vec<RejectedRow<'a>>) {
        let Some(symbols) = &target.symbols else { return (vec![(Pattern::Everything, "*")], Vec::new()) };
        let (mut ok, mut rejected) = (Vec::new(), Vec::new());
        for text in symbols {
            match self.pattern(text) {
                Ok(pattern) => ok.push((pattern, text.as_str())),
                Err(refusal) => rejected.push(refusal.row(text)),
            }
        }
        (ok, rejected)
    }

    /// What a text picks among a client's subscriptions. A symbol need not be known to anybody else.
    pub(super) fn pattern(&self, text: &str) -> Result<Pattern, Refusal> {
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

    fn drop_matching(&mut self, id: u32, patterns: &[Pattern], channels: &[Channel]) {
        let picked = Picked::new(patterns);
        let table = Arc::clone(&self.table);
        self.detach(id, |connection, key, named| match (key.channel(), table.get(key.instrument())) {
            (Some(channel), Some(symbol)) => {
                let holder = || Holder::of(connection, symbol, channel, named());
                channels.contains(&channel) && picked.has(symbol, holder)
            }
            _ => false,
        });
        self.stop_awaiting(id, |awaited| {
            channels.contains(&awaited.channel) && picked.has(&awaited.symbol, || Holder::Name)
        });
        if let Some(connection) = self.connections.get_mut(id) {
            let covered = |w: &Wildcard| patterns.iter().any(|pattern| pattern.covers(w));
            connection.wildcards.retain(|w| !(channels.contains(&w.channel) && covered(w)));
        }
    }

    fn set(&mut self, id: u32, name: Option<&Id>, target: &Target, change: Change, now: Now) {
        let table = Arc::clone(&self.table);
        let (patterns, rejected) = self.patterns(target);
        let mut outcome = SetOutcome { ok: Vec::new(), rejected, changes: Vec::new() };
        let has_rate = change.rate.flatten().is_none_or(|rate| self.claim_rate(id, rate).is_some());
        for (pattern, symbol) in &patterns {
            if has_rate {
                self.set_matching(id, &table, (pattern, symbol), &target.channels, change, &mut outcome);
            } else {
                outcome.rejected.push(too_many_rates().row(symbol));
            }
        }
        let SetOutcome { ok, rejected, changes } = outcome;
        self.charge(id, changes.len());
        self.say(id, &Ack::new(name, "set", Outcome::new(&target.channels, ok, rejected)), now);
        self.apply_terms(id, &changes, now);
    }

    /// Finds out what a pattern picks and what becomes of it, channel by channel. One symbol is answered with its state,
    /// a wildcard by a row a channel: it may stand for very many.
    fn set_matching<'t>(
        &mut self,
        id: u32,
        table: &'t InstrumentTable,
        (pattern, symbol): (&Pattern, &'t str),
        channels: &[Channel],
        change: Change,
        outcome: &mut SetOutcome<'t>,
    ) {
        // A rate alone is for what is `latest`, and leaves the rest as it is.
        let rate_alone = change.mode.is_none() && matches!(change.rate, Some(Some(_)));
        let state = match pattern {
            Pattern::One(symbol) => Some(table.find(symbol).map_or(State::Waiting, |id| self.state(id))),
            _ => None,
        };
        let mut found_any = false;
        for channel in channels {
            let mut shown = None;
            let mut found = false;
            let mut fits = |terms: Terms| {
                found = true;
                let fits = !rate_alone || terms.mode == Mode::Latest;
                let changed = fits.then(|| terms.changed(change));
                shown = shown.or(changed);
                changed
            };
            if let Some(connection) = self.connections.get_mut(id) {
                let wide = connection.wildcards.iter_mut().filter(|w| pattern.covers(w));
                let wide = wide.map(|w| (w.channel, &mut w.terms));
                let awaited =
                    connection.awaited.iter_mut().filter(|a| pattern.picks(&a.symbol, || Holder::Name));
                let awaited = awaited.map(|a| (a.channel, &mut a.terms));
                for (_, terms) in wide.chain(awaited).filter(|(c, _)| c == channel) {
                    *terms = fits(*terms).unwrap_or(*terms);
                }
            }
            for (key, place) in self.matching(id, table, pattern, *channel) {
                let Some(terms) = self.terms_of(id, key, place) else { continue };
                outcome.changes.extend(fits(terms).map(|terms| (key, place, terms)));
            }
            found_any |= found;
            if let Some(terms) = shown {
                outcome.ok.push(SubscriptionRow::new(pattern.shown(), *channel, terms, state));
            } else if found {
                let msg = format!("{} is \"every\" here: a rate needs \"latest\"", channel.name());
                outcome.rejected.push(Refusal { code: "needs_latest", msg }.row(symbol));
            }
        }
        if !found_any {
            let msg = "there is no such subscription".to_owned();
            outcome.rejected.push(Refusal { code: "not_subscribed", msg }.row(symbol));
        }
    }

    /// The subscriptions to a channel of instruments that a pattern picks.
    fn matching(
        &self,
        id: u32,
        table: &InstrumentTable,
        pattern: &Pattern,
        channel: Channel,
    ) -> Vec<(Key, u32)> {
        let Some(connection) = self.connections.get(id) else { return Vec::new() };
        match pattern {
            Pattern::One(symbol) => {
                let key = table.find(symbol).map(|id| Key::new(id, channel.into()));
                key.and_then(|key| connection.place(key).map(|place| (key, place))).into_iter().collect()
            }
            _ => {
                let picked = |(key, place): &&(Key, u32)| {
                    let Some(symbol) = table.get(key.instrument()).filter(|_| key.channel() == Some(channel))
                    else {
                        return false;
                    };
                    let named = || self.subscriptions.is_named(*key, *place);
                    pattern.picks(symbol, || Holder::of(connection, symbol, channel, named()))
                };
                connection.places.iter().filter(picked).copied().collect()
            }
        }
    }
}

/// What comes of a `set`.
struct SetOutcome<'a> {
    ok: Vec<SubscriptionRow<'a>>,
    rejected: Vec<RejectedRow<'a>>,
    changes: Vec<(Key, u32, Terms)>,
}

/// Symbols that one request may name, even where a connection may not have so many: the answer says which are
/// too many.
const SYMBOLS_MAX: usize = 1_000;

impl Refusal {
    fn row(self, symbol: &str) -> RejectedRow<'_> {
        RejectedRow { symbol, code: self.code, msg: self.msg }
    }
}

/// An accepted symbol as the answer shows it.
pub(super) fn row<'t>(
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
