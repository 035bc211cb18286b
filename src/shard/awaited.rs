//! Symbols that sessions await because no feed lists them yet. A shard keeps the text of each symbol once, and each
//! session keeps what it wants of it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;

use rustc_hash::FxBuildHasher;

use crate::model::instrument::Symbol;
use crate::model::tick::Channel;
use crate::protocol::DeliveryPolicy;
use crate::session::RateId;

/// What a session wants of a symbol, by channel.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Wanted([Option<DeliveryPolicy<RateId>>; Channel::ALL.len()]);

impl Wanted {
    /// The policy that is wanted on a channel.
    pub(super) fn on(&self, channel: Channel) -> Option<DeliveryPolicy<RateId>> {
        self.0[channel as usize]
    }

    /// The channels on which it is wanted, each with its policy.
    pub(super) fn channels(self) -> impl Iterator<Item = (Channel, DeliveryPolicy<RateId>)> {
        Channel::ALL.into_iter().filter_map(move |channel| Some((channel, self.on(channel)?)))
    }

    pub(super) fn set(
        &mut self,
        channel: Channel,
        claimed: Option<DeliveryPolicy<RateId>>,
    ) -> Option<DeliveryPolicy<RateId>> {
        std::mem::replace(&mut self.0[channel as usize], claimed)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.iter().all(Option::is_none)
    }
}

/// What one session awaits, by symbol, in text order.
pub(super) type AwaitedBy = BTreeMap<Rc<Symbol>, Wanted>;

/// A shard's waiting sessions, by awaited symbol.
#[derive(Debug, Default)]
pub(super) struct Awaited(HashMap<Rc<Symbol>, BTreeSet<u32>, FxBuildHasher>);

impl Awaited {
    /// Adds a session that awaits a symbol. Returns the text that all sessions share.
    pub(super) fn add(&mut self, symbol: &Symbol, session: u32) -> Rc<Symbol> {
        if let Some((text, _)) = self.0.get_key_value(symbol) {
            let text = Rc::clone(text);
            self.0.entry(Rc::clone(&text)).or_default().insert(session);
            return text;
        }
        let text = Rc::new(symbol.clone());
        self.0.insert(Rc::clone(&text), BTreeSet::from([session]));
        text
    }

    /// Removes a session that awaits a symbol.
    pub(super) fn remove(&mut self, symbol: &Symbol, session: u32) {
        if let Some(waiting) = self.0.get_mut(symbol) {
            waiting.remove(&session);
            if waiting.is_empty() {
                self.0.remove(symbol);
            }
        }
    }

    /// Takes one of the sessions that await a symbol.
    pub(super) fn take_one(&mut self, symbol: &Symbol) -> Option<u32> {
        let waiting = self.0.get_mut(symbol)?;
        let session = waiting.pop_first();
        if waiting.is_empty() {
            self.0.remove(symbol);
        }
        session
    }
}
