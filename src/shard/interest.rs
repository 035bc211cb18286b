//! What each session wants: instruments, wildcards that take instruments listed later, and symbols that
//! nobody lists yet.

use rustc_hash::FxHashSet;

use super::sessions::{Connection, Sessions, Socket};
use crate::clock::Now;
use crate::instrument::{InstrumentId, Symbol};
use crate::protocol::Mode;
use crate::session::Subscription;
use crate::tick::{Channel, Key, State, Stream};

/// A wildcard subscription.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Wildcard {
    /// `None`: every venue.
    pub(super) venue: Option<Box<str>>,
    pub(super) channel: Channel,
    pub(super) mode: Mode,
}

impl Wildcard {
    pub(super) fn takes(&self, symbol: &Symbol) -> bool {
        self.venue.as_deref().is_none_or(|venue| venue == symbol.venue())
    }
}

/// A subscription to a symbol that nobody lists yet.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Awaited {
    pub(super) symbol: Symbol,
    pub(super) channel: Channel,
    pub(super) mode: Mode,
}

/// What a session wants of an instrument.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wish {
    pub(super) channel: Channel,
    pub(super) mode: Mode,
    pub(super) start: Start,
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
}

impl<S: Socket> Sessions<S> {
    /// New instruments were listed: wildcards and awaited symbols take them.
    pub(super) fn learn(&mut self, now: Now) {
        while self.known < self.table.len() {
            let id = InstrumentId(self.known as u32);
            self.known += 1;
            let Some(symbol) = self.table.get(id).cloned() else { continue };
            let mut wanted: Vec<(u32, Wish)> = Vec::new();
            // Nothing of it was told yet: it is told from its first number on.
            let wish = |channel, mode| Wish { channel, mode, start: Start::FromFirst };
            for session in self.awaited.remove(&symbol).unwrap_or_default() {
                let Some(connection) = self.connections.get_mut(session as usize) else { continue };
                connection.awaited.retain(|awaited| {
                    let mine = awaited.symbol == symbol;
                    if mine {
                        wanted.push((session, wish(awaited.channel, awaited.mode)));
                    }
                    !mine
                });
            }
            for (session, connection) in &self.connections {
                let taking = connection.wildcards.iter().filter(|wildcard| wildcard.takes(&symbol));
                wanted.extend(taking.map(|w| (session as u32, wish(w.channel, w.mode))));
            }
            for (session, wish) in wanted {
                self.attach(session, id, wish, State::Waiting, now);
            }
        }
    }

    /// Subscribes a session to a channel of an instrument, or changes the mode if it has it already. The
    /// instrument's state comes with the first channel: it is told before the value unless it is what the
    /// client was `shown`.
    pub(super) fn attach(
        &mut self,
        session: u32,
        instrument: InstrumentId,
        wish: Wish,
        shown: State,
        now: Now,
    ) {
        let Wish { channel, mode, start } = wish;
        let key = Key::new(instrument, channel.into());
        let Some(connection) = self.connections.get_mut(session as usize) else { return };
        if let Some(place) = connection.place(key) {
            self.set_mode(key, place, mode);
            return;
        }
        let status = Key::new(instrument, Stream::Status);
        if connection.place(status).is_none() {
            let start = self.start_of_state(instrument, start, shown);
            self.add(session, status, Mode::Latest, start);
        }
        self.add(session, key, mode, start);
        self.recover(session, now);
    }

    /// As [`attach`](Self::attach), for many instruments at once, none of them named twice.
    pub(super) fn attach_all(
        &mut self,
        session: u32,
        instruments: &[InstrumentId],
        wish: Wish,
        shown: State,
        now: Now,
    ) {
        let Some(connection) = self.connections.get(session as usize) else { return };
        let has = |key| connection.place(key).is_some();
        let (had, new): (Vec<InstrumentId>, Vec<_>) =
            instruments.iter().partition(|id| has(Key::new(**id, wish.channel.into())));
        let with_status: Vec<bool> = new.iter().map(|id| has(Key::new(*id, Stream::Status))).collect();
        for instrument in had {
            self.attach(session, instrument, wish, shown, now);
        }
        let mut places = Vec::with_capacity(2 * new.len());
        for (instrument, has_status) in new.iter().zip(with_status) {
            if !has_status {
                let status = Key::new(*instrument, Stream::Status);
                let start = self.start_of_state(*instrument, wish.start, shown);
                places.extend(self.enter(session, status, Mode::Latest, start));
            }
            let key = Key::new(*instrument, wish.channel.into());
            places.extend(self.enter(session, key, wish.mode, wish.start));
        }
        let Some(connection) = self.connections.get_mut(session as usize) else { return };
        connection.places.append(&mut places);
        connection.places.sort_unstable_by_key(|(key, _)| *key);
        self.recover(session, now);
    }

    fn start_of_state(&self, instrument: InstrumentId, start: Start, shown: State) -> Start {
        match start {
            Start::FromFirst => Start::FromFirst,
            _ if self.ring.state(instrument) == shown => Start::FromHere,
            _ => Start::Snapshot,
        }
    }

    fn add(&mut self, session: u32, key: Key, mode: Mode, start: Start) {
        let Some(place) = self.enter(session, key, mode, start) else { return };
        let Some(connection) = self.connections.get_mut(session as usize) else { return };
        if let Err(at) = connection.places.binary_search_by_key(&key, |(key, _)| *key) {
            connection.places.insert(at, place);
        }
    }

    /// Enters a subscription into the table; its place, which the session has to keep.
    fn enter(&mut self, session: u32, key: Key, mode: Mode, start: Start) -> Option<(Key, u32)> {
        let connection = self.connections.get_mut(session as usize)?;
        let head = self.ring.last_value(key).map_or(0, |last| last.head);
        let subscription = match start {
            Start::Snapshot => Subscription::new(session, mode, true, 0),
            Start::FromHere => Subscription::new(session, mode, false, head),
            Start::FromFirst => Subscription::new(session, mode, false, 0),
        };
        if subscription.is_dirty() {
            connection.session.wait(key);
        }
        Some((key, self.subscriptions.add(key, subscription)))
    }

    /// Takes a session off the channels that `gone` picks, and off the state of an instrument with its last
    /// channel.
    pub(super) fn detach(&mut self, session: u32, gone: impl Fn(Key) -> bool) {
        let Some(connection) = self.connections.get_mut(session as usize) else { return };
        let places = std::mem::take(&mut connection.places);
        let (mut kept, mut dropped) = (Vec::with_capacity(places.len()), Vec::new());
        for streams in places.chunk_by(|(a, _), (b, _)| a.instrument() == b.instrument()) {
            let stays = |key: Key| key.channel().is_some() && !gone(key);
            let some_stay = streams.iter().any(|(key, _)| stays(*key));
            for place in streams {
                let keep = stays(place.0) || (some_stay && place.0.channel().is_none());
                if keep { kept.push(*place) } else { dropped.push(*place) }
            }
        }
        connection.session.forget(|key| dropped.binary_search_by_key(&key, |(key, _)| *key).is_ok());
        connection.places = kept;
        for (key, place) in dropped {
            self.leave(key, place);
        }
    }

    /// Takes a subscription out of the table; whoever moved to its place is told.
    fn leave(&mut self, key: Key, place: u32) {
        let Some(moved) = self.subscriptions.remove(key, place) else { return };
        let Some(moved) = self.connections.get_mut(moved as usize) else { return };
        if let Ok(at) = moved.places.binary_search_by_key(&key, |(key, _)| *key) {
            moved.places[at].1 = place;
        }
    }

    /// Waits for a symbol that nobody lists yet.
    pub(super) fn await_symbol(&mut self, session: u32, awaited: Awaited) {
        let Some(connection) = self.connections.get_mut(session as usize) else { return };
        let same = |a: &&mut Awaited| a.symbol == awaited.symbol && a.channel == awaited.channel;
        if let Some(mine) = connection.awaited.iter_mut().find(same) {
            mine.mode = awaited.mode;
            return;
        }
        let waiting = self.awaited.entry(awaited.symbol.clone()).or_default();
        if !waiting.contains(&session) {
            waiting.push(session);
        }
        connection.awaited.push(awaited);
    }

    /// Waits no more for the symbols that `gone` picks.
    pub(super) fn stop_awaiting(&mut self, session: u32, gone: impl Fn(&Awaited) -> bool) {
        let Some(connection) = self.connections.get_mut(session as usize) else { return };
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

    /// The mode of a subscription.
    pub(super) fn mode_of(&mut self, key: Key, place: u32) -> Option<Mode> {
        self.subscriptions.at(key, place).map(|s| s.mode())
    }

    /// Changes the mode of a subscription.
    pub(super) fn set_mode(&mut self, key: Key, place: u32, mode: Mode) {
        if let Some(subscription) = self.subscriptions.at(key, place) {
            subscription.set_mode(mode);
        }
    }

    /// How many symbols this session named itself: those that came by a wildcard are not counted.
    pub(super) fn named(&self, session: u32) -> usize {
        let Some(connection) = self.connections.get(session as usize) else { return 0 };
        let by_wildcard = |key: Key| {
            let symbol = self.table.get(key.instrument());
            symbol.is_some_and(|symbol| connection.wildcards.iter().any(|w| w.takes(symbol)))
        };
        let listed = connection.places.iter().filter(|(key, _)| key.stream() == Stream::Status);
        let awaited: FxHashSet<&Symbol> = connection.awaited.iter().map(|awaited| &awaited.symbol).collect();
        awaited.len() + listed.filter(|(key, _)| !by_wildcard(*key)).count()
    }

    pub(super) fn unsubscribe_all(&mut self, id: u32) {
        let Some(connection) = self.connections.get_mut(id as usize) else { return };
        let was_subscribed = connection.is_subscribed();
        connection.wildcards.clear();
        self.detach(id, |_| true);
        self.stop_awaiting(id, |_| true);
        if was_subscribed {
            self.counters.subscribed.sub(1);
        }
    }

    /// Runs `change` on a session's subscriptions and keeps the count of subscribed sessions right.
    pub(super) fn change_subscriptions(&mut self, id: u32, change: impl FnOnce(&mut Self)) {
        let subscribed =
            |sessions: &Self| sessions.connections.get(id as usize).is_some_and(Connection::is_subscribed);
        let before = subscribed(self);
        change(self);
        match (before, subscribed(self)) {
            (false, true) => self.counters.subscribed.add(1),
            (true, false) => self.counters.subscribed.sub(1),
            _ => {}
        }
    }
}
