//! Symbols that sessions wait for though no feed lists them yet. A shard keeps the text of each once, and each session by it
//! what it wants.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;

use rustc_hash::FxBuildHasher;

use crate::model::instrument::Symbol;
use crate::model::tick::Channel;
use crate::protocol::Terms;
use crate::session::{Manner, Session};
use crate::shard::sessions::{Sessions, Socket};

/// What a session wants of a symbol, by channel.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::shard) struct Wanted([Option<Manner>; Channel::ALL.len()]);

impl Wanted {
    /// How it is wanted on a channel.
    pub(in crate::shard) fn on(&self, channel: Channel) -> Option<Manner> {
        self.0[channel as usize]
    }

    /// The channels on which it is wanted, and how.
    pub(in crate::shard) fn channels(self) -> impl Iterator<Item = (Channel, Manner)> {
        Channel::ALL.into_iter().filter_map(move |channel| Some((channel, self.on(channel)?)))
    }

    fn set(&mut self, channel: Channel, manner: Option<Manner>) -> Option<Manner> {
        std::mem::replace(&mut self.0[channel as usize], manner)
    }

    fn is_empty(&self) -> bool {
        self.0.iter().all(Option::is_none)
    }
}

/// What one session waits for, by symbol, in the order of their texts.
pub(in crate::shard) type AwaitedBy = BTreeMap<Rc<Symbol>, Wanted>;

/// A shard's waiting sessions, by awaited symbol.
#[derive(Debug, Default)]
pub(in crate::shard) struct Awaited(HashMap<Rc<Symbol>, BTreeSet<u32>, FxBuildHasher>);

impl Awaited {
    /// A session waits for a symbol. Its text as all sessions have it.
    fn add(&mut self, symbol: &Symbol, session: u32) -> Rc<Symbol> {
        if let Some((text, _)) = self.0.get_key_value(symbol) {
            let text = Rc::clone(text);
            self.0.entry(Rc::clone(&text)).or_default().insert(session);
            return text;
        }
        let text = Rc::new(symbol.clone());
        self.0.insert(Rc::clone(&text), BTreeSet::from([session]));
        text
    }

    /// A session waits for a symbol no more.
    pub(in crate::shard) fn remove(&mut self, symbol: &Symbol, session: u32) {
        if let Some(waiting) = self.0.get_mut(symbol) {
            waiting.remove(&session);
            if waiting.is_empty() {
                self.0.remove(symbol);
            }
        }
    }

    /// One of the sessions that wait for a symbol, which waits no more.
    pub(in crate::shard) fn take_one(&mut self, symbol: &Symbol) -> Option<u32> {
        let waiting = self.0.get_mut(symbol)?;
        let session = waiting.pop_first();
        if waiting.is_empty() {
            self.0.remove(symbol);
        }
        session
    }
}

/// The terms of a manner, as a client asked for them.
pub(in crate::shard) fn terms_of(session: &Session, manner: Manner) -> Terms {
    let rate = manner.rate.and_then(|id| session.rate_of(id));
    Terms { mode: manner.mode, rate, cuts: manner.cuts }
}

impl<S: Socket> Sessions<S> {
    /// Waits for a channel of a symbol that no feed lists yet.
    pub(in crate::shard) fn await_symbol(
        &mut self,
        session: u32,
        symbol: &Symbol,
        channel: Channel,
        terms: Terms,
    ) {
        let manner = self.manner(session, terms);
        let Some(connection) = self.connections.get_mut(session) else { return };
        if !connection.awaited.contains_key(symbol) {
            let text = self.awaited.add(symbol, session);
            connection.awaited.insert(text, Wanted::default());
        }
        let Some(wanted) = connection.awaited.get_mut(symbol) else { return };
        connection.session.use_rate(manner.rate);
        if let Some(before) = wanted.set(channel, Some(manner)) {
            connection.session.leave_rate(before.rate);
        }
    }

    /// Waits no more for some channels of a symbol. False if it waited for none of it.
    pub(in crate::shard) fn stop_awaiting(
        &mut self,
        session: u32,
        symbol: &Symbol,
        channels: &[Channel],
    ) -> bool {
        let Some(connection) = self.connections.get_mut(session) else { return false };
        let Some(wanted) = connection.awaited.get_mut(symbol) else { return false };
        for channel in channels {
            if let Some(gone) = wanted.set(*channel, None) {
                connection.session.leave_rate(gone.rate);
            }
        }
        if wanted.is_empty() {
            connection.awaited.remove(symbol);
            self.awaited.remove(symbol, session);
        }
        true
    }

    /// What a session wants of a symbol that is listed now: it waits for it no more.
    pub(in crate::shard) fn take_awaited(&mut self, session: u32, symbol: &Symbol) -> Vec<(Channel, Terms)> {
        let Some(connection) = self.connections.get_mut(session) else { return Vec::new() };
        let wanted = connection.awaited.remove(symbol).unwrap_or_default();
        let mut terms = Vec::new();
        for (channel, manner) in wanted.channels() {
            terms.push((channel, terms_of(&connection.session, manner)));
            connection.session.leave_rate(manner.rate);
        }
        terms
    }
}
