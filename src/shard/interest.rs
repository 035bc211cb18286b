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
            let start = match start {
                Start::FromFirst => Start::FromFirst,
                _ if self.ring.state(instrument) == shown => Start::FromHere,
                _ => Start::Snapshot,
            };
            self.add(session, status, Mode::Latest, start);
        }
        self.add(session, key, mode, start);
        self.recover(session, now);
    }

    fn add(&mut self, session: u32, key: Key, mode: Mode, start: Start) {
        let Some(connection) = self.connections.get_mut(session as usize) else { return };
        let head = self.ring.last_value(key).map_or(0, |last| last.head);
        let subscription = match start {
            Start::Snapshot => Subscription::new(session, mode, true, 0),
            Start::FromHere => Subscription::new(session, mode, false, head),
            Start::FromFirst => Subscription::new(session, mode, false, 0),
        };
        if subscription.is_dirty() {
            connection.session.wait(key);
        }
        let place = self.subscriptions.add(key, subscription);
        if let Err(at) = connection.places.binary_search_by_key(&key, |(key, _)| *key) {
            connection.places.insert(at, (key, place));
        }
    }

    /// Takes a session off a channel of an instrument; off its state too with the last channel.
    pub(super) fn detach(&mut self, session: u32, key: Key) {
        self.remove_place(session, key);
        let Some(connection) = self.connections.get(session as usize) else { return };
        let has = |stream| connection.place(Key::new(key.instrument(), stream)).is_some();
        if !has(Stream::Trade) && !has(Stream::Quote) {
            self.remove_place(session, Key::new(key.instrument(), Stream::Status));
        }
    }

    fn remove_place(&mut self, session: u32, key: Key) {
        let Some(connection) = self.connections.get_mut(session as usize) else { return };
        let Ok(at) = connection.places.binary_search_by_key(&key, |(key, _)| *key) else { return };
        let (_, place) = connection.places.remove(at);
        connection.session.forget(key);
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
        let keys: Vec<Key> = connection.places.iter().map(|(key, _)| *key).collect();
        for key in keys {
            self.remove_place(id, key);
        }
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
