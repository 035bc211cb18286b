//! What each session wants: instruments, wildcards that take instruments listed later, and symbols that
//! nobody lists yet.
//!
//! Several of these may take the same instrument, which a session has once. The narrowest of them gives the terms: its name,
//! before the wildcard of its venue, before that of all. What was asked for by name knows it ([`Subscription::is_named`]);
//! the rest belongs to the wildcard that [governs](Connection::governing) it.

use rustc_hash::FxHashSet;

use super::client::Connection;
use super::reading::Beginning;
use super::resume::Plan;
use super::sessions::{Sessions, Socket};
use crate::clock::Now;
use crate::instrument::{InstrumentId, Symbol};
use crate::protocol::{Mode, Rate, Terms};
use crate::session::{Begin, Manner, RateId, Subscription};
use crate::tick::{Channel, Key, State, Stream};

/// A wildcard subscription.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Wildcard {
    /// `None`: every venue.
    pub(super) venue: Option<Box<str>>,
    pub(super) channel: Channel,
    pub(super) terms: Terms,
}

impl Wildcard {
    pub(super) fn takes(&self, symbol: &Symbol) -> bool {
        self.venue.as_deref().is_none_or(|venue| venue == symbol.venue())
    }
}

impl<S> Connection<S> {
    /// The wildcard that gives an instrument its terms on a channel, where it is not subscribed to by name.
    pub(super) fn governing(&self, symbol: &Symbol, channel: Channel) -> Option<&Wildcard> {
        let taking = self.wildcards.iter().filter(|w| w.channel == channel && w.takes(symbol));
        taking.max_by_key(|wildcard| wildcard.venue.is_some())
    }
}

/// A subscription to a symbol that nobody lists yet.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Awaited {
    pub(super) symbol: Symbol,
    pub(super) channel: Channel,
    pub(super) terms: Terms,
}

/// What a session wants of an instrument.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wish<'a> {
    pub(super) channel: Channel,
    pub(super) terms: Terms,
    /// It is asked for by its name.
    pub(super) named: bool,
    /// Where it begins, unless the plan knows better.
    pub(super) start: Start,
    pub(super) plan: Option<&'a Plan>,
}

impl Wish<'_> {
    fn start_of(&self, instrument: InstrumentId) -> Start {
        self.plan.and_then(|plan| plan.start(instrument)).unwrap_or(self.start)
    }
}

/// Where a subscription begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    /// With the last value, marked `snap`.
    Snapshot,
    /// Behind the newest number there is.
    FromHere,
    /// With the first number: the instrument was listed after the client asked for it.
    FromFirst,
    /// Behind this number, which is the newest but for what the ring still brings.
    After(u64),
    /// Behind this number, with what is newest now.
    Newest(u64),
    /// Behind this number, with what the ring holds from this position on.
    Ring(u64, u64),
    /// With what was recorded.
    Past(Beginning),
}

impl<S: Socket> Sessions<S> {
    /// New instruments were listed: wildcards and awaited symbols take them.
    pub(super) fn learn(&mut self, now: Now) {
        while self.known < self.table.len() {
            let id = InstrumentId(self.known as u32);
            self.known += 1;
            let Some(symbol) = self.table.get(id).cloned() else { continue };
            let mut wanted: Vec<(u32, Wish<'_>)> = Vec::new();
            // Nothing of it was told yet: it is told from its first number on.
            let wish =
                |channel, terms, named| Wish { channel, terms, named, start: Start::FromFirst, plan: None };
            for session in self.awaited.remove(&symbol).unwrap_or_default() {
                let Some(connection) = self.connections.get_mut(session) else { continue };
                connection.awaited.retain(|awaited| {
                    let mine = awaited.symbol == symbol;
                    if mine {
                        wanted.push((session, wish(awaited.channel, awaited.terms, true)));
                    }
                    !mine
                });
            }
            for (session, connection) in self.connections.iter() {
                let taking = Channel::ALL.into_iter().filter_map(|c| connection.governing(&symbol, c));
                wanted.extend(taking.map(|w| (session, wish(w.channel, w.terms, false))));
            }
            for (session, wish) in wanted {
                self.attach(session, id, wish, State::Waiting, now);
            }
        }
    }

    /// Subscribes a session to a channel of an instrument. One that it has already gets these terms if it is asked for by
    /// name, and keeps its own if a wildcard takes it. The instrument's state comes with the first channel: it is told
    /// before any value unless it is what the client was `shown`.
    pub(super) fn attach(
        &mut self,
        session: u32,
        instrument: InstrumentId,
        wish: Wish<'_>,
        shown: State,
        now: Now,
    ) {
        let key = Key::new(instrument, wish.channel.into());
        let status = Key::new(instrument, Stream::Status);
        let Some(connection) = self.connections.get_mut(session) else { return };
        let (had, place) = (connection.place(key), connection.place(status));
        // What is there already goes on as it is, and the answer shows its state.
        let plan = wish.plan.filter(|_| had.is_none());
        let start = self.start_of_state(instrument, Wish { plan, ..wish }, Some(shown));
        match place {
            None => {
                self.add(session, status, Mode::Latest.into(), start, now);
            }
            Some(place) => self.catch_up_state(session, (status, place), start, now),
        }
        match had {
            Some(place) if wish.named => {
                self.name(session, key, place);
                self.apply_terms(session, &[(key, place, wish.terms)], now);
            }
            Some(_) => {}
            None => {
                let manner = self.manner(session, wish.terms);
                let place = self.add(session, key, manner, wish.start_of(instrument), now);
                if let (true, Some(place)) = (wish.named, place) {
                    self.name(session, key, place);
                }
            }
        }
        self.recover(session, now);
    }

    /// One of its subscriptions is asked for by name.
    fn name(&mut self, session: u32, key: Key, place: u32) {
        let is_new = !self.is_named(session, key.instrument());
        let Some(connection) = self.connections.get_mut(session) else { return };
        let Some(subscription) = self.subscriptions.at(key, place) else { return };
        connection.named += u32::from(is_new);
        subscription.name();
    }

    /// As [`attach`](Self::attach), for many instruments at once, none of them named twice, that a wildcard takes and governs:
    /// those that it has and that were not asked for by name get these terms. Their states were not shown: those that are
    /// live need not be told, unless the client may know nothing but old values of them.
    pub(super) fn attach_all(
        &mut self,
        session: u32,
        instruments: &[InstrumentId],
        wish: Wish<'_>,
        now: Now,
    ) {
        let manner = self.manner(session, wish.terms);
        let Some(connection) = self.connections.get(session) else { return };
        let place = |id: &InstrumentId| {
            let key = Key::new(*id, wish.channel.into());
            connection.place(key).map(|place| (key, place, wish.terms))
        };
        let had = instruments.iter().filter_map(place);
        let had: Vec<(Key, u32, Terms)> =
            had.filter(|(key, place, _)| !self.subscriptions.is_named(*key, *place)).collect();
        let new: Vec<InstrumentId> = instruments.iter().filter(|id| place(id).is_none()).copied().collect();
        let status = |id: &InstrumentId| connection.place(Key::new(*id, Stream::Status));
        let with_status: Vec<Option<u32>> = new.iter().map(status).collect();
        self.apply_terms(session, &had, now);
        let mut places = Vec::with_capacity(2 * new.len());
        for (instrument, place) in new.iter().zip(with_status) {
            let status = Key::new(*instrument, Stream::Status);
            let goes_on = wish.plan.is_some_and(|plan| plan.start(*instrument).is_some());
            let start = self.start_of_state(*instrument, wish, (!goes_on).then_some(State::Live));
            match place {
                None => places.extend(self.enter(session, status, Mode::Latest.into(), start, now)),
                Some(place) => self.catch_up_state(session, (status, place), start, now),
            }
            let key = Key::new(*instrument, wish.channel.into());
            places.extend(self.enter(session, key, manner, wish.start_of(*instrument), now));
        }
        let Some(connection) = self.connections.get_mut(session) else { return };
        connection.places.append(&mut places);
        connection.places.sort_unstable_by_key(|(key, _)| *key);
        self.recover(session, now);
    }

    fn start_of_state(&self, instrument: InstrumentId, wish: Wish<'_>, shown: Option<State>) -> Start {
        // It is not called live before its prices are.
        if let Some(past) = wish.plan.and_then(Plan::past) {
            return Start::Past(past.beginning);
        }
        // It may change at any moment: what is not shown has another number.
        match (wish.start, self.ring.numbered_state(instrument)) {
            (Start::FromFirst, _) => Start::FromFirst,
            (_, (state, number)) if Some(self.around.shown(state)) == shown => Start::After(number),
            _ => Start::Snapshot,
        }
    }

    /// A session that has not caught up with an instrument yet asks for its present: then its state is told at once.
    fn catch_up_state(&mut self, session: u32, (key, place): (Key, u32), start: Start, now: Now) {
        let Some(state) = self.subscriptions.at(key, place).filter(|state| state.is_past()) else { return };
        let begin = match start {
            Start::After(told) => Begin::After(told),
            Start::Past(_) => return,
            _ => Begin::Snapshot(0),
        };
        *state = Subscription::new(session, Mode::Latest.into(), begin);
        if let Some(connection) = self.connections.get_mut(session).filter(|_| state.is_dirty()) {
            connection.session.wait(key, now.mono_ns);
        }
    }

    /// Its place.
    fn add(&mut self, session: u32, key: Key, manner: Manner, start: Start, now: Now) -> Option<u32> {
        let entered = self.enter(session, key, manner, start, now)?;
        let connection = self.connections.get_mut(session)?;
        if let Err(at) = connection.places.binary_search_by_key(&key, |(key, _)| *key) {
            connection.places.insert(at, entered);
        }
        Some(entered.1)
    }

    /// Enters a subscription into the table; its place, which the session has to keep.
    fn enter(
        &mut self,
        session: u32,
        key: Key,
        manner: Manner,
        start: Start,
        now: Now,
    ) -> Option<(Key, u32)> {
        let connection = self.connections.get_mut(session)?;
        let head = self.ring.last_value(key).map_or(0, |last| last.head);
        let begin = match start {
            Start::Snapshot => Begin::Snapshot(head),
            Start::FromHere => Begin::After(head),
            Start::FromFirst => Begin::After(0),
            Start::After(told) => Begin::After(told),
            Start::Newest(told) => Begin::Newest(told),
            Start::Ring(told, _) => Begin::Resume(told),
            Start::Past(_) => Begin::Past(head),
        };
        let subscription = Subscription::new(session, manner, begin);
        if key.channel().is_some() {
            connection.session.began(subscription.told());
        }
        match start {
            Start::Ring(_, position) => self.read_from(session, key, position),
            Start::Past(beginning) => self.read_since(session, key, beginning),
            _ if subscription.is_dirty() => connection.session.wait(key, now.mono_ns),
            _ => {}
        }
        Some((key, self.subscriptions.add(key, subscription)))
    }

    /// The terms as the session keeps them.
    fn manner(&mut self, session: u32, terms: Terms) -> Manner {
        let rate = terms.rate.and_then(|rate| self.claim_rate(session, rate));
        Manner { mode: terms.mode, rate, cuts: terms.cuts }
    }

    /// The terms as a client asked for them.
    pub(super) fn terms_of(&self, session: u32, key: Key, place: u32) -> Option<Terms> {
        let manner = self.subscriptions.get(key, place)?.manner();
        let connection = self.connections.get(session)?;
        let rate = manner.rate.and_then(|id| connection.session.rate_of(id));
        Some(Terms { mode: manner.mode, rate, cuts: manner.cuts })
    }

    /// A session's number of a rate; `None` if it has too many.
    pub(super) fn claim_rate(&mut self, session: u32, rate: Rate) -> Option<RateId> {
        let connection = self.connections.get_mut(session)?;
        if let Some(id) = connection.session.rate(rate) {
            return Some(id);
        }
        let table = &mut self.subscriptions;
        let by_symbol = connection.places.iter().filter_map(|(key, place)| table.at(*key, *place)?.rate());
        let mut used: Vec<RateId> = by_symbol.collect();
        let wide = connection.wildcards.iter().map(|w| w.terms);
        let wide: Vec<Rate> =
            wide.chain(connection.awaited.iter().map(|a| a.terms)).filter_map(|terms| terms.rate).collect();
        used.extend(wide.into_iter().filter_map(|rate| connection.session.rate(rate)));
        connection.session.free_rates(|id| used.contains(&id));
        connection.session.rate(rate)
    }

    /// Takes a session off the channels that `gone` picks, which may ask whether they were asked for by name, and off the state
    /// of an instrument with its last channel.
    pub(super) fn detach(
        &mut self,
        session: u32,
        gone: impl Fn(&Connection<S>, Key, &dyn Fn() -> bool) -> bool,
    ) {
        let Some(connection) = self.connections.get_mut(session) else { return };
        let places = std::mem::take(&mut connection.places);
        let (mut kept, mut dropped) = (Vec::with_capacity(places.len()), Vec::new());
        for streams in places.chunk_by(|(a, _), (b, _)| a.instrument() == b.instrument()) {
            let named = |(key, place): &(Key, u32)| self.subscriptions.is_named(*key, *place);
            let (had, lost) = (kept.len(), dropped.len());
            for place in streams {
                let stays = match place.0.channel() {
                    Some(_) => !gone(connection, place.0, &|| named(place)),
                    // The last of the streams.
                    None => kept.len() > had,
                };
                if stays { kept.push(*place) } else { dropped.push(*place) }
            }
            let is_unnamed = dropped[lost..].iter().any(named) && !kept[had..].iter().any(named);
            connection.named -= u32::from(is_unnamed);
        }
        connection.session.forget(|key| dropped.binary_search_by_key(&key, |(key, _)| *key).is_ok());
        connection.places = kept;
        for (key, place) in &dropped {
            if let (Some(_), Some(subscription)) = (key.channel(), self.subscriptions.at(*key, *place)) {
                connection.session.ended(subscription.told());
            }
        }
        for (key, place) in dropped {
            self.leave(key, place);
        }
    }

    /// Takes a subscription out of the table; whoever moved to its place is told.
    fn leave(&mut self, key: Key, place: u32) {
        let Some(moved) = self.subscriptions.remove(key, place) else { return };
        let Some(moved) = self.connections.get_mut(moved) else { return };
        if let Ok(at) = moved.places.binary_search_by_key(&key, |(key, _)| *key) {
            moved.places[at].1 = place;
        }
    }

    /// Waits for a symbol that nobody lists yet.
    pub(super) fn await_symbol(&mut self, session: u32, awaited: Awaited) {
        let Some(connection) = self.connections.get_mut(session) else { return };
        let same = |a: &&mut Awaited| a.symbol == awaited.symbol && a.channel == awaited.channel;
        if let Some(mine) = connection.awaited.iter_mut().find(same) {
            mine.terms = awaited.terms;
            return;
        }
        let waiting = self.awaited.entry(awaited.symbol.clone()).or_default();
        if !waiting.contains(&session) {
            waiting.push(session);
        }
        // Few have more than one: the first is not to make room for four.
        if connection.awaited.is_empty() {
            connection.awaited.reserve_exact(1);
        }
        connection.awaited.push(awaited);
    }

    /// Waits no more for the symbols that `gone` picks.
    pub(super) fn stop_awaiting(&mut self, session: u32, gone: impl Fn(&Awaited) -> bool) {
        let Some(connection) = self.connections.get_mut(session) else { return };
        let before = std::mem::take(&mut connection.awaited);
        let (gone, kept): (Vec<_>, Vec<_>) = before.into_iter().partition(gone);
        for awaited in gone {
            if kept.iter().any(|k| k.symbol == awaited.symbol) {
                continue;
            }
            if let Some(waiting) = self.awaited.get_mut(&awaited.symbol) {
                waiting.retain(|waiting| *waiting != session);
                if waiting.is_empty() {
                    self.awaited.remove(&awaited.symbol);
                }
            }
        }
        connection.awaited = kept;
    }

    /// Changes the terms of subscriptions. What another rate held back is told at once.
    pub(super) fn apply_terms(&mut self, session: u32, changes: &[(Key, u32, Terms)], now: Now) {
        let mut released = Vec::new();
        for (key, place, terms) in changes {
            let manner = self.manner(session, *terms);
            let Some(subscription) = self.subscriptions.at(*key, *place) else { continue };
            if subscription.rate() != manner.rate {
                released.push(*key);
            }
            subscription.set_manner(manner);
        }
        released.sort_unstable();
        self.release_keys(session, &released, now);
    }

    /// How many symbols this session named itself: those that came by a wildcard are not counted.
    pub(super) fn named(&self, session: u32) -> usize {
        let Some(connection) = self.connections.get(session) else { return 0 };
        let awaited: FxHashSet<&Symbol> = connection.awaited.iter().map(|awaited| &awaited.symbol).collect();
        awaited.len() + connection.named as usize
    }

    /// Whether this session named an instrument itself, on whatever channel.
    pub(super) fn is_named(&self, session: u32, instrument: InstrumentId) -> bool {
        let Some(connection) = self.connections.get(session) else { return false };
        let keys = Channel::ALL.map(|channel| Key::new(instrument, channel.into()));
        let named = |key| connection.place(key).is_some_and(|place| self.subscriptions.is_named(key, place));
        keys.into_iter().any(named)
    }

    pub(super) fn unsubscribe_all(&mut self, id: u32) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        let was_subscribed = connection.is_subscribed();
        connection.wildcards.clear();
        connection.reading = None;
        self.detach(id, |_, _, _| true);
        self.stop_awaiting(id, |_| true);
        if was_subscribed {
            self.counters.subscribed.sub(1);
        }
    }

    /// Runs `change` on a session's subscriptions and keeps the count of subscribed sessions right.
    pub(super) fn change_subscriptions(&mut self, id: u32, change: impl FnOnce(&mut Self)) {
        let subscribed =
            |sessions: &Self| sessions.connections.get(id).is_some_and(Connection::is_subscribed);
        let before = subscribed(self);
        change(self);
        match (before, subscribed(self)) {
            (false, true) => self.counters.subscribed.add(1),
            (true, false) => self.counters.subscribed.sub(1),
            _ => {}
        }
    }
}
