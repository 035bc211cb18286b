//! What each session wants: instruments, wildcards that take instruments listed later, and symbols that
//! nobody lists yet.
//!
//! Several of these may take the same instrument, which a session has once. The narrowest of them gives the terms: its name,
//! before the wildcard of its venue, before that of all. What was asked for by name knows it ([`Subscription::is_named`]);
//! the rest belongs to the wildcard that [governs](Connection::governing) it.

use crate::model::instrument::{InstrumentId, Symbol};
use crate::model::tick::{Channel, GapCause, Key, State, Stream};
use crate::protocol::{Mode, Rate, Terms};
use crate::session::{Begin, Manner, RateId, Subscription};
use crate::shard::sessions::connection::Connection;
use crate::shard::sessions::reading::Beginning;
use crate::shard::sessions::resume::Plan;
use crate::shard::sessions::{Sessions, Socket};
use crate::time::clock::Now;

/// A wildcard subscription.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::shard) struct Wildcard {
    /// `None`: every venue.
    pub(in crate::shard) venue: Option<Box<str>>,
    pub(in crate::shard) channel: Channel,
    pub(in crate::shard) terms: Terms,
    /// A request ends it, and has not ended all that it took yet: it takes nothing more.
    pub(in crate::shard) ending: bool,
}

impl Wildcard {
    pub(in crate::shard) fn takes(&self, symbol: &Symbol) -> bool {
        self.venue.as_deref().is_none_or(|venue| venue == symbol.venue())
    }
}

impl<S> Connection<S> {
    /// The wildcard that gives an instrument its terms on a channel, where it is not subscribed to by name.
    pub(in crate::shard) fn governing(&self, symbol: &Symbol, channel: Channel) -> Option<&Wildcard> {
        let taking = self.wildcards.iter().filter(|w| w.channel == channel && w.takes(symbol));
        taking.max_by_key(|wildcard| wildcard.venue.is_some())
    }

    /// As [`governing`](Self::governing), of those that take what is listed from now on.
    fn taking(&self, symbol: &Symbol, channel: Channel) -> Option<Terms> {
        let taking = self.wildcards.iter().filter(|w| !w.ending && w.channel == channel && w.takes(symbol));
        taking.max_by_key(|wildcard| wildcard.venue.is_some()).map(|wildcard| wildcard.terms)
    }
}

/// What a session wants of an instrument.
#[derive(Clone, Copy, Debug)]
pub(in crate::shard) struct Wish<'a> {
    pub(in crate::shard) channel: Channel,
    pub(in crate::shard) terms: Terms,
    /// It is asked for by its name.
    pub(in crate::shard) named: bool,
    /// Where it begins, unless the plan knows better.
    pub(in crate::shard) start: Start,
    pub(in crate::shard) plan: Option<&'a Plan>,
}

impl Wish<'_> {
    /// Where it begins on an instrument, the shard having read the ring up to `cursor`.
    fn start_of(&self, instrument: InstrumentId, cursor: u64) -> Start {
        self.plan.and_then(|plan| plan.start(instrument, cursor)).unwrap_or(self.start)
    }
}

/// Steps for a session that takes an instrument: two subscriptions a channel.
pub(in crate::shard) const STEPS_TO_ATTACH: usize = 2;
/// Steps to have a session take a new instrument, on all channels.
const STEPS_TO_OFFER: usize = 4;

/// Where a subscription begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::shard) enum Start {
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
    /// Behind this number, with what the shard has read since it was at this position.
    Behind(u64, u64),
    /// With what was recorded.
    Past(Beginning),
}

impl<S: Socket> Sessions<S> {
    /// True while wildcards and awaited symbols have not taken all that is listed.
    pub(in crate::shard) fn has_to_learn(&self) -> bool {
        self.known < self.table.len()
    }

    /// New instruments were listed: wildcards and awaited symbols take them, as many as there are steps for. True if all
    /// did: until then the ring is not to be read, as nothing of an instrument is sent before.
    pub(in crate::shard) fn learn(&mut self, now: Now) -> bool {
        while self.has_to_learn() {
            let id = InstrumentId(self.known as u32);
            let Some(symbol) = self.table.get(id).cloned() else { return true };
            // Requests that wait have some of the turn, too.
            let may = |sessions: &mut Self| match sessions.workers.is_empty() {
                true => sessions.steps.take_most(STEPS_TO_OFFER),
                false => sessions.steps.take_of_half(STEPS_TO_OFFER),
            };
            if !self.learn_one(id, &symbol, now, may) {
                return false;
            }
        }
        true
    }

    /// As [`learn`](Self::learn), whatever it takes: where a tick is sent whose instrument was listed a moment ago.
    #[cold]
    pub(in crate::shard) fn learn_at_once(&mut self, now: Now) {
        while self.has_to_learn() {
            let id = InstrumentId(self.known as u32);
            let Some(symbol) = self.table.get(id).cloned() else { return };
            self.learn_one(id, &symbol, now, |_| true);
        }
    }

    /// Has sessions take an instrument, while `may` returns true. True if all did.
    fn learn_one(
        &mut self,
        id: InstrumentId,
        symbol: &Symbol,
        now: Now,
        mut may: impl FnMut(&mut Self) -> bool,
    ) -> bool {
        // Nothing of it was sent yet: it is sent from its first number on.
        let wish =
            |channel, terms, named| Wish { channel, terms, named, start: Start::FromFirst, plan: None };
        loop {
            if !may(self) {
                return false;
            }
            if let Some(session) = self.awaited.take_one(symbol) {
                for (channel, terms) in self.take_awaited(session, symbol) {
                    self.attach(session, id, wish(channel, terms, true), Some(State::Waiting), now);
                }
                continue;
            }
            let Some(session) = self.wild.range(self.learned..).next().copied() else { break };
            self.learned = session + 1;
            let Some(connection) = self.connections.get(session) else { continue };
            for (channel, terms) in Channel::ALL.map(|channel| (channel, connection.taking(symbol, channel)))
            {
                let Some(terms) = terms else { continue };
                self.attach(session, id, wish(channel, terms, false), Some(State::Waiting), now);
            }
        }
        (self.known, self.learned) = (self.known + 1, 0);
        true
    }

    /// Ticks of the ring from this position on, `most` at most, before the first of an instrument that is still to be taken:
    /// those are sent meanwhile. None while subscriptions are looked at for ticks that they missed.
    pub(in crate::shard) fn ticks_of_known(&self, cursor: u64, most: usize) -> usize {
        let is_known = |n: &usize| {
            let key = self.ring.key_at(cursor + *n as u64);
            key.is_some_and(|key| key.instrument().index() < self.known)
        };
        if self.is_sweeping() { 0 } else { (0..most).take_while(is_known).count() }
    }

    /// Instruments that a wildcard which is there already has to take itself: the others it learns of.
    pub(in crate::shard) fn listed_so_far(&self) -> usize {
        // Some sessions have been passed by with the one that is being learned.
        self.known + usize::from(self.has_to_learn() && self.learned > 0)
    }

    /// Subscribes a session to a channel of an instrument. One that it has already gets these terms if it is asked for by
    /// name, or if it was not and a wildcard takes it. The instrument's state comes with the first channel: it is sent
    /// before any value unless it is what the client was `shown`.
    pub(in crate::shard) fn attach(
        &mut self,
        session: u32,
        instrument: InstrumentId,
        wish: Wish<'_>,
        shown: Option<State>,
        now: Now,
    ) {
        let key = Key::new(instrument, wish.channel.into());
        let status = Key::new(instrument, Stream::Status);
        let Some(connection) = self.connections.get(session) else { return };
        let (had, place) = (connection.place(key), connection.place(status));
        if let (Some(place), false) = (had, wish.named) {
            if !self.subscriptions.is_named(key, place) {
                self.apply_terms(session, key, place, wish.terms);
            }
            return;
        }
        // What is there already goes on as it is, and the answer shows its state.
        let plan = wish.plan.filter(|_| had.is_none());
        let goes_on = |plan: &Plan| plan.start(instrument, self.cursor).is_some();
        let shown = shown.filter(|_| wish.named || !plan.is_some_and(goes_on));
        let start = self.start_of_state(instrument, Wish { plan, ..wish }, shown);
        match place {
            None => {
                self.enter(session, status, Mode::Latest.into(), start, now);
            }
            Some(place) => self.catch_up_state(session, (status, place), start, now),
        }
        match had {
            Some(place) => {
                self.name(session, key, place);
                self.apply_terms(session, key, place, wish.terms);
            }
            None => {
                let manner = self.manner(session, wish.terms);
                let start = wish.start_of(instrument, self.cursor);
                let place = self.enter(session, key, manner, start, now);
                if let (true, Some(place)) = (wish.named, place) {
                    self.name(session, key, place);
                }
            }
        }
    }

    /// One of its subscriptions is asked for by name.
    fn name(&mut self, session: u32, key: Key, place: u32) {
        let is_new = !self.is_named(session, key.instrument());
        let Some(connection) = self.connections.get_mut(session) else { return };
        let Some(subscription) = self.subscriptions.at(key, place) else { return };
        connection.named += u32::from(is_new);
        subscription.name();
    }

    fn start_of_state(&self, instrument: InstrumentId, wish: Wish<'_>, shown: Option<State>) -> Start {
        // It is not called live before its prices are.
        if let Some(past) = wish.plan.and_then(Plan::past) {
            return Start::Past(past.beginning);
        }
        // It may change at any moment: what is not shown has another number.
        match (wish.start, self.ring.numbered_state(instrument)) {
            (Start::FromFirst, _) => Start::FromFirst,
            (_, (state, number)) if Some(self.context.shown(state)) == shown => Start::After(number),
            _ => Start::Snapshot,
        }
    }

    /// A session that has not caught up with an instrument yet asks for its present: then its state is sent at once. So is one
    /// that the ring still has to bring: no value comes before it.
    fn catch_up_state(&mut self, session: u32, (key, place): (Key, u32), start: Start, now: Now) {
        let head = self.ring.last_value(key).map_or(0, |last| last.head);
        let Some(state) = self.subscriptions.at(key, place) else { return };
        if !state.is_past() {
            let is_behind = start != Start::FromFirst && state.misses(head);
            if is_behind && state.fell_behind(GapCause::Overrun) {
                let connection = self.connections.get_mut(session);
                connection.into_iter().for_each(|connection| connection.session.wait(key, now.mono_ns));
            }
            return;
        }
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

    /// Enters a subscription into the table and among those of its session; its place.
    fn enter(&mut self, session: u32, key: Key, manner: Manner, start: Start, now: Now) -> Option<u32> {
        let connection = self.connections.get_mut(session)?;
        let head = self.ring.last_value(key).map_or(0, |last| last.head);
        let begin = match start {
            Start::Snapshot => Begin::Snapshot(head),
            Start::FromHere => Begin::After(head),
            Start::FromFirst => Begin::After(0),
            Start::After(told) => Begin::After(told),
            Start::Newest(told) => Begin::Newest(told),
            Start::Ring(told, _) | Start::Behind(told, _) => Begin::Resume(told),
            Start::Past(_) => Begin::Past(head),
        };
        let subscription = Subscription::new(session, manner, begin);
        if key.channel().is_some() {
            connection.session.began(subscription.told());
        }
        connection.session.use_rate(manner.rate);
        let place = self.subscriptions.add(key, subscription);
        connection.places.insert(key, place);
        match start {
            Start::Ring(_, position) => self.read_from(session, key, position),
            Start::Behind(_, position) => self.read_behind(session, key, position),
            Start::Past(beginning) => self.read_since(session, key, beginning),
            _ if subscription.is_dirty() => connection.session.wait(key, now.mono_ns),
            _ => {}
        }
        Some(place)
    }

    /// The terms as the session keeps them.
    pub(in crate::shard) fn manner(&mut self, session: u32, terms: Terms) -> Manner {
        let rate = terms.rate.and_then(|rate| self.claim_rate(session, rate));
        Manner { mode: terms.mode, rate, cuts: terms.cuts }
    }

    /// The terms as a client asked for them.
    pub(in crate::shard) fn terms_of(&self, session: u32, key: Key, place: u32) -> Option<Terms> {
        let manner = self.subscriptions.get(key, place)?.manner();
        let connection = self.connections.get(session)?;
        let rate = manner.rate.and_then(|id| connection.session.rate_of(id));
        Some(Terms { mode: manner.mode, rate, cuts: manner.cuts })
    }

    /// A session's number of a rate; `None` if it has too many.
    pub(in crate::shard) fn claim_rate(&mut self, session: u32, rate: Rate) -> Option<RateId> {
        self.connections.get_mut(session)?.session.rate(rate)
    }

    /// Adds a wildcard, or takes the place of the one like it.
    pub(in crate::shard) fn add_wildcard(&mut self, session: u32, wildcard: Wildcard) {
        self.drop_wildcards(session, |w| w.venue == wildcard.venue && w.channel == wildcard.channel);
        let rate = self.manner(session, wildcard.terms).rate;
        let Some(connection) = self.connections.get_mut(session) else { return };
        connection.session.use_rate(rate);
        connection.wildcards.push(wildcard);
        self.wild.insert(session);
    }

    /// Takes wildcards from a session, without what they took.
    pub(in crate::shard) fn drop_wildcards(&mut self, id: u32, gone: impl Fn(&Wildcard) -> bool) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        let session = &mut connection.session;
        connection.wildcards.retain(|wildcard| {
            let goes = gone(wildcard);
            if goes {
                let rate = wildcard.terms.rate.and_then(|rate| session.rate_id(rate));
                session.leave_rate(rate);
            }
            !goes
        });
        if connection.wildcards.is_empty() {
            self.wild.remove(&id);
        }
    }

    /// Takes a session off some channels of an instrument, and off its state with the last channel. How many subscriptions
    /// that were.
    pub(in crate::shard) fn detach(
        &mut self,
        session: u32,
        instrument: InstrumentId,
        channels: &[Channel],
    ) -> usize {
        let was_named = self.is_named(session, instrument);
        let mut gone = 0;
        for channel in channels {
            gone += usize::from(self.end_subscription(session, Key::new(instrument, (*channel).into())));
        }
        if gone == 0 {
            return 0;
        }
        let is_unnamed = was_named && !self.is_named(session, instrument);
        let Some(connection) = self.connections.get_mut(session) else { return gone };
        connection.named -= u32::from(is_unnamed);
        let has = |channel: Channel| connection.places.contains_key(&Key::new(instrument, channel.into()));
        if !Channel::ALL.into_iter().any(has) {
            gone += usize::from(self.end_subscription(session, Key::new(instrument, Stream::Status)));
        }
        gone
    }

    /// Ends one subscription of a session. False if there is none.
    pub(in crate::shard) fn end_subscription(&mut self, session: u32, key: Key) -> bool {
        let Some(connection) = self.connections.get_mut(session) else { return false };
        let Some(place) = connection.places.remove(&key) else { return false };
        if let Some(subscription) = self.subscriptions.get(key, place) {
            if key.channel().is_some() {
                connection.session.ended(subscription.told());
            }
            connection.session.leave_rate(subscription.rate());
        }
        self.leave(key, place);
        true
    }

    /// Takes a subscription out of the table and updates the moved one's place.
    pub(in crate::shard) fn leave(&mut self, key: Key, place: u32) {
        let Some(moved) = self.subscriptions.remove(key, place) else { return };
        let places = match self.connections.get_mut(moved) {
            Some(connection) => Some(&mut connection.places),
            None => self.leaving.get_mut(&moved).map(|leaving| &mut leaving.places),
        };
        if let Some(moved) = places.and_then(|places| places.get_mut(&key)) {
            *moved = place;
        }
    }

    /// Changes the terms of a subscription. What another rate holds back is let go when its request
    /// [settles](Self::settle).
    pub(in crate::shard) fn apply_terms(&mut self, session: u32, key: Key, place: u32, terms: Terms) {
        let manner = self.manner(session, terms);
        let Some(subscription) = self.subscriptions.at(key, place) else { return };
        let before = subscription.rate();
        subscription.set_manner(manner);
        if before != manner.rate
            && let Some(connection) = self.connections.get_mut(session)
        {
            connection.session.use_rate(manner.rate);
            connection.session.leave_rate(before);
            connection.unsettled |= before.is_some();
        }
    }

    /// How many symbols this session named itself: those that came by a wildcard are not counted.
    pub(in crate::shard) fn named(&self, session: u32) -> usize {
        let Some(connection) = self.connections.get(session) else { return 0 };
        connection.awaited.len() + connection.named as usize
    }

    /// Whether this session named an instrument itself, on whatever channel.
    pub(in crate::shard) fn is_named(&self, session: u32, instrument: InstrumentId) -> bool {
        let Some(connection) = self.connections.get(session) else { return false };
        let keys = Channel::ALL.map(|channel| Key::new(instrument, channel.into()));
        let named = |key| connection.place(key).is_some_and(|place| self.subscriptions.is_named(key, place));
        keys.into_iter().any(named)
    }
}
