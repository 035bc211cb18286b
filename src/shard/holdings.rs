//! What one connection is subscribed to: where its subscriptions stand in the directory, its wildcards, and the symbols that
//! it awaits.
//!
//! Several of these may take the same instrument, which a session has once. The narrowest of them gives the policy: its name,
//! before the wildcard of its venue, before that of all. A subscription knows whether it was asked for by name
//! ([`Subscription::is_named`](crate::session::Subscription::is_named)); the others belong to the wildcard that
//! [governs](Holdings::governing) them.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::rc::Rc;

use super::awaited::{AwaitedBy, Wanted};
use crate::model::instrument::{InstrumentId, Symbol};
use crate::model::tick::{Channel, Key, Stream};
use crate::protocol::{DeliveryPolicy, Selector};
use crate::session::Subscription;

/// A wildcard subscription.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Wildcard {
    /// All, or those of a venue.
    selector: Selector,
    channel: Channel,
    policy: DeliveryPolicy,
    /// A request ends it, and has not ended all that it took yet: it takes nothing more.
    ending: bool,
}

impl Wildcard {
    /// All instruments, or those of a venue, on a channel.
    pub(super) fn new(selector: Selector, channel: Channel, policy: DeliveryPolicy) -> Self {
        Self { selector, channel, policy, ending: false }
    }

    /// Whether it takes a symbol.
    pub(super) fn takes(&self, symbol: &Symbol) -> bool {
        self.selector.takes(symbol)
    }

    /// What it stands for.
    pub(super) fn selector(&self) -> &Selector {
        &self.selector
    }

    /// Whether it is for one venue.
    pub(super) fn is_of_venue(&self) -> bool {
        matches!(self.selector, Selector::Venue(_))
    }

    /// The channel.
    pub(super) fn channel(&self) -> Channel {
        self.channel
    }

    /// What it gives to the subscriptions that it takes.
    pub(super) fn policy(&self) -> DeliveryPolicy {
        self.policy
    }

    /// Changes its policy.
    pub(super) fn set_policy(&mut self, policy: DeliveryPolicy) {
        self.policy = policy;
    }

    /// Has it take nothing more.
    pub(super) fn end(&mut self) {
        self.ending = true;
    }

    /// Whether it takes nothing more.
    pub(super) fn is_ending(&self) -> bool {
        self.ending
    }

    /// Whether it stands for the same symbols on the same channel as another.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        self.selector == other.selector && self.channel == other.channel
    }
}

/// What a connection is subscribed to.
#[derive(Default)]
pub(super) struct Holdings {
    /// Its subscriptions and their places in the directory.
    places: BTreeMap<Key, u32>,
    /// Wildcards, which take instruments listed later.
    wildcards: Vec<Wildcard>,
    /// Symbols that no feed lists yet.
    awaited: AwaitedBy,
    /// Listed instruments that it asked for by name, on whatever channel.
    named: u32,
    /// A rate may hold back what has another rate now.
    unsettled: bool,
}

impl Holdings {
    /// Whether it is subscribed to anything.
    pub(super) fn is_subscribed(&self) -> bool {
        !(self.places.is_empty() && self.wildcards.is_empty() && self.awaited.is_empty())
    }

    /// Bytes that its subscriptions take, here and in the directory.
    pub(super) fn held_bytes(&self) -> usize {
        // The nodes of a tree are more than half full.
        self.places.len() * (2 * size_of::<(Key, u32)>() + size_of::<Subscription>())
    }

    // ---- subscriptions --------------------------------------------------------------------------------

    /// The place of its subscription to a stream.
    pub(super) fn place(&self, key: Key) -> Option<u32> {
        self.places.get(&key).copied()
    }

    /// Its subscriptions, with their places.
    pub(super) fn places(&self) -> impl Iterator<Item = (Key, u32)> {
        self.places.iter().map(|(key, place)| (*key, *place))
    }

    /// Its subscriptions to channels, with their places.
    pub(super) fn on_channels(&self) -> impl Iterator<Item = (Key, u32)> {
        self.places().filter(|(key, _)| key.channel().is_some())
    }

    /// Its subscriptions to an instrument, with their places.
    pub(super) fn places_of(&self, instrument: InstrumentId) -> impl Iterator<Item = (Key, u32)> {
        let first = |instrument| Key::new(instrument, Stream::Trade);
        let keys = first(instrument)..first(InstrumentId(instrument.0 + 1));
        self.places.range(keys).map(|(key, place)| (*key, *place))
    }

    /// The first of its subscriptions.
    pub(super) fn first(&self) -> Option<Key> {
        self.places.first_key_value().map(|(key, _)| *key)
    }

    /// The first instrument from this one on that it has a subscription to.
    pub(super) fn instrument_from(&self, from: InstrumentId) -> Option<InstrumentId> {
        self.places.range(Key::new(from, Stream::Trade)..).next().map(|(key, _)| key.instrument())
    }

    /// Adds a subscription.
    pub(super) fn insert(&mut self, key: Key, place: u32) {
        self.places.insert(key, place);
    }

    /// A subscription, if it has it, has moved to another place.
    pub(super) fn moved(&mut self, key: Key, place: u32) {
        self.places.entry(key).and_modify(|at| *at = place);
    }

    /// Removes a subscription, and returns its place.
    pub(super) fn remove(&mut self, key: Key) -> Option<u32> {
        self.places.remove(&key)
    }

    /// Takes all that it has left in the directory: its subscriptions, and the symbols that it awaits.
    pub(super) fn take(&mut self) -> (BTreeMap<Key, u32>, AwaitedBy) {
        (std::mem::take(&mut self.places), std::mem::take(&mut self.awaited))
    }

    /// How many symbols it named itself: those that came by a wildcard are not counted.
    pub(super) fn named(&self) -> usize {
        self.awaited.len() + self.named as usize
    }

    /// One more listed instrument is named.
    pub(super) fn name(&mut self) {
        self.named += 1;
    }

    /// One listed instrument less is named.
    pub(super) fn unname(&mut self) {
        self.named -= 1;
    }

    /// Whether a rate may hold back what has another rate now.
    pub(super) fn is_unsettled(&self) -> bool {
        self.unsettled
    }

    /// Notes whether a rate may hold back what has another rate now.
    pub(super) fn set_unsettled(&mut self, unsettled: bool) {
        self.unsettled = unsettled;
    }

    // ---- wildcards ------------------------------------------------------------------------------------

    /// Its wildcards.
    pub(super) fn wildcards(&self) -> &[Wildcard] {
        &self.wildcards
    }

    /// Its wildcards, to be changed.
    pub(super) fn wildcards_mut(&mut self) -> &mut [Wildcard] {
        &mut self.wildcards
    }

    /// Adds a wildcard.
    pub(super) fn add_wildcard(&mut self, wildcard: Wildcard) {
        self.wildcards.push(wildcard);
    }

    /// Removes the wildcards that `go`, and returns them.
    pub(super) fn drop_wildcards(&mut self, goes: impl Fn(&Wildcard) -> bool) -> Vec<Wildcard> {
        self.wildcards.extract_if(.., |wildcard| goes(wildcard)).collect()
    }

    /// The wildcard that gives an instrument its policy on a channel, where it is not subscribed to by name.
    pub(super) fn governing(&self, symbol: &Symbol, channel: Channel) -> Option<&Wildcard> {
        let taking = self.wildcards.iter().filter(|w| w.channel == channel && w.takes(symbol));
        taking.max_by_key(|wildcard| wildcard.is_of_venue())
    }

    /// As [`governing`](Self::governing), of those that take what is listed from now on: the policy.
    pub(super) fn taking(&self, symbol: &Symbol, channel: Channel) -> Option<DeliveryPolicy> {
        let taking = self.wildcards.iter().filter(|w| !w.ending && w.channel == channel && w.takes(symbol));
        taking.max_by_key(|wildcard| wildcard.is_of_venue()).map(|wildcard| wildcard.policy)
    }

    // ---- awaited symbols ------------------------------------------------------------------------------

    /// What it wants of a symbol that it awaits.
    pub(super) fn awaits(&self, symbol: &Symbol) -> Option<&Wanted> {
        self.awaited.get(symbol)
    }

    /// The same, to be changed.
    pub(super) fn awaits_mut(&mut self, symbol: &Symbol) -> Option<&mut Wanted> {
        self.awaited.get_mut(symbol)
    }

    /// Awaits a symbol.
    pub(super) fn await_symbol(&mut self, symbol: Rc<Symbol>) {
        self.awaited.insert(symbol, Wanted::default());
    }

    /// Does not await a symbol any more. What it wanted of it.
    pub(super) fn stop_awaiting(&mut self, symbol: &Symbol) -> Option<Wanted> {
        self.awaited.remove(symbol)
    }

    /// The first symbol behind this one that it awaits, in the order of their texts.
    pub(super) fn awaited_behind(&self, behind: Option<&Rc<Symbol>>) -> Option<Rc<Symbol>> {
        let from = behind.map_or(Bound::Unbounded, Bound::Excluded);
        self.awaited.range::<Rc<Symbol>, _>((from, Bound::Unbounded)).next().map(|(text, _)| Rc::clone(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Mode;

    #[test]
    fn the_narrowest_wildcard_governs_and_one_that_ends_takes_nothing_more() {
        let policy = |mode| DeliveryPolicy { mode, rate: None, disconnect_on_loss: false };
        let mut holdings = Holdings::default();
        holdings.add_wildcard(Wildcard::new(
            Selector::parse("kraken:*"),
            Channel::Trade,
            policy(Mode::Latest),
        ));
        holdings.add_wildcard(Wildcard::new(Selector::All, Channel::Trade, policy(Mode::Every)));
        let symbol = |text| Symbol::parse(text).expect("a symbol");
        let mode = |holdings: &Holdings, text| {
            holdings.governing(&symbol(text), Channel::Trade).map(|wildcard| wildcard.policy().mode)
        };
        assert_eq!(mode(&holdings, "kraken:BTC/USD"), Some(Mode::Latest));
        assert_eq!(mode(&holdings, "coinbase:BTC-USD"), Some(Mode::Every));
        assert!(holdings.governing(&symbol("kraken:BTC/USD"), Channel::Quote).is_none());
        holdings.wildcards_mut()[0].end();
        assert_eq!(mode(&holdings, "kraken:BTC/USD"), Some(Mode::Latest), "what it has stays with it");
        let taking = holdings.taking(&symbol("kraken:BTC/USD"), Channel::Trade);
        assert_eq!(taking.map(|policy| policy.mode), Some(Mode::Every));
        assert_eq!(holdings.drop_wildcards(Wildcard::is_ending).len(), 1);
        assert_eq!(holdings.wildcards().len(), 1);
    }

    #[test]
    fn an_instrument_has_a_place_for_each_of_its_streams() {
        let mut holdings = Holdings::default();
        let key = |instrument, stream| Key::new(InstrumentId(instrument), stream);
        for (at, (instrument, stream)) in
            [(4, Stream::Trade), (4, Stream::Status), (7, Stream::Quote)].into_iter().enumerate()
        {
            holdings.insert(key(instrument, stream), at as u32);
        }
        let places: Vec<_> = holdings.places_of(InstrumentId(4)).map(|(_, place)| place).collect();
        assert_eq!((places, holdings.on_channels().count()), (vec![0, 1], 2));
        let from = |instrument| holdings.instrument_from(InstrumentId(instrument)).map(|found| found.0);
        assert_eq!([from(0), from(4), from(5), from(8)], [Some(4), Some(4), Some(7), None]);
        holdings.moved(key(7, Stream::Quote), 9);
        holdings.moved(key(9, Stream::Quote), 9);
        assert_eq!(
            (holdings.remove(key(7, Stream::Quote)), holdings.place(key(9, Stream::Quote))),
            (Some(9), None)
        );
    }
}
